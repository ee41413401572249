"""Neural ODE models: dynamics with hand-derived VJPs, fields, encoders, heads, and a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..solvers.lazy import when_used

if TYPE_CHECKING:  # for type checkers and editors, which do not run `__getattr__`
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
else:  # what stands in `known` is found without torch
    _FROM_REGISTRY = ("Size", "create", "defaults", "matched", "names", "parameters", "sizes", "tasks")
    _BLOCKS = (
        *("ANODE", "GHBNODE", "HBNODE", "NODE", "SONODE", "AdamNODE"),
        *("GNesterovNODE", "MomentumNODE", "NesterovNODE"),
    )
    __getattr__, __dir__ = when_used(
        __name__,
        {
            **dict.fromkeys(_BLOCKS, "dynamics"),
            **dict.fromkeys(_FROM_REGISTRY, "registry"),
            **dict.fromkeys(("card", "load"), "loading"),
            "Model": "model",
            "SeriesModel": "series",
        },
    )

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
