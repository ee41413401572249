"""Fields f(t, h): networks with hand-derived VJPs, and the adapter for any other by autograd."""

from __future__ import annotations

from .conv import Conv
from .field import AutogradField, Field, as_field
from .mlp import MLP

__all__ = ["MLP", "AutogradField", "Conv", "Field", "as_field"]
