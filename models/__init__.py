"""Neural ODE models: dynamics with hand-derived VJPs, fields, encoders, heads, and a registry."""

from __future__ import annotations

from .model import ANODE, GHBNODE, HBNODE, NODE, SONODE, AdamNODE, Model
from .registry import create, defaults, names, tasks

__all__ = [
    "ANODE",
    "GHBNODE",
    "HBNODE",
    "NODE",
    "SONODE",
    "AdamNODE",
    "Model",
    "create",
    "defaults",
    "names",
    "tasks",
]
