"""How fast a gradient is, beside other libraries and beside the bare evaluations it consists of.

``python -m benchmarks`` (from the repository's root, with the extra ``[bench]``) measures all ways on the
same weights, data and tolerance, in turn, and prints tables; see ``--help``.
"""
