"""Neural ODE models: dynamics with hand-derived VJPs, fields, encoders, heads, and a registry."""

from __future__ import annotations

from .dynamics import (
    ANODE,
    GHBNODE,
    HBNODE,
    NODE,
    SONODE,
    AdamNODE,
    GNesterovNODE,
    MomentumNODE,
    NesterovNODE,
)
from .loading import card, load
from .model import Model
from .registry import Size, create, defaults, matched, names, parameters, sizes, tasks
from .series import SeriesModel

__all__ = [
    "ANODE",
    "GHBNODE",
    "HBNODE",
    "NODE",
    "SONODE",
    "AdamNODE",
    "GNesterovNODE",
    "Model",
    "MomentumNODE",
    "NesterovNODE",
    "SeriesModel",
    "Size",
    "card",
    "create",
    "defaults",
    "load",
    "matched",
    "names",
    "parameters",
    "sizes",
    "tasks",
]
