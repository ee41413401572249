"""What an adjoint wants of a right-hand side: forward, VJP, gradients of parameters."""
