"""Differentiable solves: the public faces, the dynamics, the adjoints and their engine."""
