"""The discrete adjoint: the accepted steps, transposed and walked backwards."""
