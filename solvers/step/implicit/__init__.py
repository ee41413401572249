"""Implicit steps: their stages solved for by Newton's iteration, and the transposed systems."""
