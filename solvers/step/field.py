"""func as the engine sees it: one packed tensor in, one out, counted and checked, the user's autocast
state around it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..checks import check_derivative, same_numbers
from ..errors import DynamicsError
from ..march.host import Stats
from .layout import Layout


class Autocast:
    """The autocast state at the start of a solve, to run func under it again, then or later.

    The engine's own arithmetic runs without autocast: it would turn its products to half precision.
    """

    def __init__(self, device: torch.device):
        kind = device.type
        self.kind = kind
        # A device type without autocast raises where it is asked.
        self.enabled = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        self.dtype = torch.get_autocast_dtype(kind) if self.enabled else None

    def inside(self) -> contextlib.AbstractContextManager[Any]:
        """For calls of func."""
        if not self.enabled:
            return contextlib.nullcontext()
        return torch.autocast(self.kind, dtype=self.dtype)

    def outside(self) -> contextlib.AbstractContextManager[Any]:
        """For the engine's arithmetic."""
        if not self.enabled:
            return contextlib.nullcontext()
        return torch.autocast(self.kind, enabled=False)


class PackedFunction:
    """f(t, z) on the packed state from the user's func(t, y).

    cast: torchdiffeq's manners: results of another floating dtype are converted to the state's, and members
    of a tuple, or a single number, may have further axes of length 1.
    """

    def __init__(self, func: Callable[[Tensor, Any], Any], layout: Layout, autocast: Autocast, cast: bool):
        self.func, self.layout, self.autocast = func, layout, autocast
        self.manners, self.cast = cast, cast or autocast.enabled

    def __call__(self, t: Tensor, z: Tensor) -> Tensor:
        """dz, packed."""
        version = None if z.is_inference() else z._version
        dz = self._evaluate(t, z)
        if version is not None and z._version != version:
            raise DynamicsError(
                "func changed its y in place: the stages after it would begin from another state. Work on a "
                "copy (y.clone()), or write y = y + … for y += …."
            )
        return dz

    def _evaluate(self, t: Tensor, z: Tensor) -> Tensor:
        if self.layout.single and not self.autocast.enabled:
            return self._checked(self.func(t, z), z)
        with self.autocast.inside():
            dy = self.func(self.layout.time(t), self.layout.unpack(z))
        if self.layout.single:
            return self._checked(dy, z)
        return self._pack(dy, z)

    def _pack(self, dy: Any, z: Tensor) -> Tensor:
        """func's pytree as one tensor, each leaf checked against the state's."""
        leaves = self.layout.matched(dy)
        if leaves is None:
            found, spec = pytree.tree_flatten(dy)
            raise DynamicsError(
                f"func returned {len(found)} tensors ({spec}) for a state of {len(self.layout.shapes)} "
                f"({self.layout.spec}): return dy/dt in the structure of y."
            )
        likes = self.layout.leaves(z)
        return self.layout.pack([self._checked(k, y) for k, y in zip(leaves, likes, strict=True)])

    def _checked(self, k: Any, like: Tensor) -> Tensor:
        if self.manners and (not self.layout.single or like.numel() == 1):
            k = same_numbers(k, like)
        return check_derivative(k, like, self.cast)


class CountedField:
    """A field that counts its calls in `stats.nfe`: the one place where evaluations are counted."""

    def __init__(self, field: Callable[[Tensor, Tensor], tuple[Tensor, Any]], stats: Stats):
        self.field, self.stats = field, stats

    def __call__(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """The field's value, counted."""
        self.stats.nfe += 1
        return self.field(t, z)
