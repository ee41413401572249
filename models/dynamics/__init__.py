"""Dynamics dz/dt = F(t, z; θ), one file each: equation, forward, hand-derived VJP, and its block."""

from __future__ import annotations

from .adamnode import AdamNODE, AdamODE
from .anode import ANODE, AugmentedNODE
from .ghbnode import GHBNODE, GeneralisedHeavyBallODE
from .gnesterovnode import GeneralisedNesterovODE, GNesterovNODE
from .hbnode import HBNODE, HeavyBallODE
from .momentumnode import MomentumNODE, MomentumODE
from .nesterovnode import NesterovNODE, NesterovODE
from .node import NODE, NeuralODE
from .sonode import SONODE, SecondOrderODE

__all__ = [
    "ANODE",
    "GHBNODE",
    "HBNODE",
    "NODE",
    "SONODE",
    "AdamNODE",
    "AdamODE",
    "AugmentedNODE",
    "GNesterovNODE",
    "GeneralisedHeavyBallODE",
    "GeneralisedNesterovODE",
    "HeavyBallODE",
    "MomentumNODE",
    "MomentumODE",
    "NesterovNODE",
    "NesterovODE",
    "NeuralODE",
    "SecondOrderODE",
]
