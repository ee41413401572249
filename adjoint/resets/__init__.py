"""Solves whose state is changed on the way: a chain of solves, from reset to reset."""
