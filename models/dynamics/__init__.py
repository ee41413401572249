"""Dynamics dz/dt = F(t, z; θ), one file each: equation, forward, hand-derived VJP, own parameters."""

from __future__ import annotations

from .adamnode import AdamODE
from .anode import AugmentedNODE
from .ghbnode import GeneralisedHeavyBallODE
from .hbnode import HeavyBallODE
from .node import NeuralODE
from .sonode import SecondOrderODE

__all__ = [
    "AdamODE",
    "AugmentedNODE",
    "GeneralisedHeavyBallODE",
    "HeavyBallODE",
    "NeuralODE",
    "SecondOrderODE",
]
