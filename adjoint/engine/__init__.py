"""From checked arguments to differentiable values."""
