"""Fields f(t, h): networks with hand-derived VJPs, and the adapter for any other by autograd."""

from __future__ import annotations

from .by_autograd import AutogradField, as_field
from .conv import Conv
from .dense import MLP, Linear
from .driven import Driven, Signal
from .field import Field
from .own import OwnField
from .relaxing import Relaxing
from .total import Total

__all__ = [
    "MLP",
    "AutogradField",
    "Conv",
    "Driven",
    "Field",
    "Linear",
    "OwnField",
    "Relaxing",
    "Signal",
    "Total",
    "as_field",
]
