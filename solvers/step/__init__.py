"""One step and the size of the next: pure functions of tensors."""
