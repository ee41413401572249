"""torchdiffeq's face: its functions, options and manners on this engine."""
