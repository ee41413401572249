"""Dynamics dz/dt = F(t, z; θ), one file each: equation, forward, hand-derived VJP, own parameters."""

from __future__ import annotations

from .adamnode import AdamODE

__all__ = ["AdamODE"]
