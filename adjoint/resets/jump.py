"""A reset applied: what the user's function returned, checked, in the rows that fired."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ...solvers.errors import DynamicsError
from ...solvers.march.event import Event, Impulse, Reset
from .lanes import Lanes


class Happened(NamedTuple):
    """A reset, or an event without one, that happened to some samples.

    entry: which of `events`.
    which: [B], to whom; mask: the same, known to the host.
    t: [B], float64; before, after: the states, [B, …].
    """

    entry: int
    which: Tensor
    mask: list[bool]
    t: Tensor
    before: Tensor
    after: Tensor


class Jumps:
    """Applies the resets of a solve's events and impulses.

    entries: `events` of `solve`.
    """

    def __init__(self, lanes: Lanes, entries: tuple[Event | Impulse, ...]):
        self.lanes, self.entries = lanes, entries

    def name(self, entry: int) -> str:
        """As it is told of in errors."""
        return f"events[{entry}] ({type(self.entries[entry]).__name__})"

    def after(self, entry: int, t: Tensor, z: Tensor, which: Tensor) -> Tensor:
        """The states [B, …] after one reset of the samples in `which`; the others keep theirs.

        Raises DynamicsError for what is no state.
        """
        reset = self.entries[entry].reset
        assert reset is not None
        lanes = self.lanes
        # The rows that are not taken must not bring NaN into a gradient: one that fired stands in for them.
        one = which.to(torch.int8).argmax().reshape(1)
        state = lanes.choose(which, z, z.detach().index_select(0, one))
        when = torch.where(which, t, t.detach().index_select(0, one))
        found = lanes.front(self._packed(entry, reset, when, state))
        wrong = which & ~torch.isfinite(found.detach()).reshape(len(found), -1).all(1)
        if bool(wrong.any()):  # host read
            raise DynamicsError(
                f"the reset of {self.name(entry)} returned NaN or infinity{self.whose(wrong, t)}, from a "
                "state that was finite: a division by zero, or a root or logarithm outside its domain?"
            )
        return lanes.choose(which, found, z)

    def whose(self, which: Tensor, t: Tensor) -> str:
        """The first of some samples and its time, in words. A host read, on the way to an error."""
        b = int(which.to(torch.int8).argmax())
        sample = "" if len(which) == 1 and not self.lanes.many else f" for sample {b}"
        return f"{sample} at t={t[b].item():.9g}"

    def _packed(self, entry: int, reset: Reset, t: Tensor, z: Tensor) -> Tensor:
        """What a reset returns, in the engine's form; rows in front are handed in, and a copy of the state,
        which it may write into."""
        layout = self.lanes.layout
        time, y = self.lanes.told(t, z.clone())
        likes = [(x.shape, x.dtype, x.device) for x in pytree.tree_leaves(y)]
        value = reset(time, y)
        leaves = layout.matched(value)
        if leaves is None or not all(isinstance(x, Tensor) for x in leaves):
            found = value if leaves is None else next(x for x in leaves if not isinstance(x, Tensor))
            raise DynamicsError(
                f"the reset of {self.name(entry)} returned a {type(found).__name__} where the state is "
                f"{self._form(y)}: return a state in the structure of y."
            )
        cast = (
            torch.is_autocast_enabled(z.device.type)
            if torch.amp.is_autocast_available(z.device.type)
            else False
        )
        return layout.pack([self._fit(entry, x, like, cast) for x, like in zip(leaves, likes, strict=True)])

    def _fit(self, entry: int, x: Tensor, like: tuple[Any, ...], cast: bool) -> Tensor:
        shape, dtype, device = like
        said = ""
        if x.shape != shape:
            said = f"shape {tuple(x.shape)} for a state of shape {tuple(shape)}"
        elif x.device != device:
            said = f"a tensor on {x.device} for a state on {device}"
        elif x.dtype != dtype and not (cast and x.dtype.is_floating_point):
            said = f"dtype {x.dtype} for a state of {dtype}"
        if not said:
            return x.to(dtype)
        many = (
            " (the whole batch comes in, and goes out; the rows that fired are taken)"
            if self.lanes.many
            else ""
        )
        raise DynamicsError(
            f"the reset of {self.name(entry)} returned {said}: return a state like the y that it gets{many}."
        )

    def _form(self, y: Any) -> str:
        return "a tensor" if isinstance(y, Tensor) else f"a {type(y).__name__} of tensors"
