"""Proofs of a gradient, and its study."""
