"""The continuous adjoints: a reverse solve with the state rebuilt or interpolated."""
