"""Fields f(t, h): networks with hand-derived VJPs, and the adapter for any other by autograd."""

from __future__ import annotations

from .conv import Conv
from .driven import Driven, Signal
from .field import AutogradField, Field, as_field
from .linear import Linear
from .mlp import MLP
from .total import Total

__all__ = ["MLP", "AutogradField", "Conv", "Driven", "Field", "Linear", "Signal", "Total", "as_field"]
