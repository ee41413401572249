"""The other libraries, one file each, and our own ways beside them."""
