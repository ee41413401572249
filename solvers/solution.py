"""What `solve` returns."""

from __future__ import annotations

import dataclasses
import html
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic

from torch import Tensor
from torch.utils import _pytree as pytree
from typing_extensions import TypeVar

from . import pages
from .attempts import Attempts, TraceRow
from .errors import ArgumentError, ArgumentTypeError
from .stats import Count, Length, Stats
from .status import Status

State = TypeVar("State", default=Any)  # y0's type: a tensor or a pytree of such
Ending = TypeVar("Ending", bound="Status | Tensor", default=Any)

# t (any shape), whether each sample has its own times → values or derivatives in y0's structure
Query = Callable[[Tensor, bool], Any]


@dataclasses.dataclass(frozen=True, repr=False)
class Solution(Generic[State, Ending, Count, Length]):
    """The solution of an initial value problem.

    t: [T], the times of y (per-sample times: [T, B]), on the device of the t that was given, as t_events are;
        all else is on y0's.
    y: [T, *y0.shape], or a pytree of such in y0's structure; NaN where a sample failed or an event ended the
        solve before.
    status: a Status; per sample an int8 tensor [B] of its values.
    stats: the cost of the solve; the backward pass fills its part when it has run.
    t_events, y_events: one entry an event function: [n] and [n, *y0.shape] (per sample: lists over samples);
        where resets are among the events, one entry a member of `events`, the states before each reset.
    y_after: as y_events, the states after each reset (equal to y_events where nothing is reset).
    trace: one row an attempt, where asked for.
    """

    t: Tensor
    y: State
    status: Ending
    stats: Stats[Count, Length]
    t_events: list[Any] = dataclasses.field(default_factory=list)
    y_events: list[Any] = dataclasses.field(default_factory=list)
    trace: list[TraceRow] | None = None
    _value: Query | None = dataclasses.field(default=None, repr=False)
    _derivative: Query | None = dataclasses.field(default=None, repr=False)
    _penalties: Mapping[str, Tensor] = dataclasses.field(default_factory=dict, repr=False)
    y_after: list[Any] = dataclasses.field(default_factory=list)

    def __call__(self, t: Tensor, per_sample: bool = False) -> State:
        """y at any t inside the solve, [*t.shape, *y0.shape]; needs ``dense=True``.

        per_sample: t.shape[-1] is B and asks each sample for its own times: [*t.shape, *S].
        Raises ArgumentError for a time outside the solve.
        """
        found: State = self._ask(self._value, t, per_sample)
        return found

    def derivative(self, t: Tensor, per_sample: bool = False) -> State:
        """dy/dt of the dense output at any t, shaped as `__call__`'s result.

        Differentiable with gradient=Direct() only; otherwise detached.
        """
        found: State = self._ask(self._derivative, t, per_sample)
        return found

    def penalty(self, name: str) -> Tensor:
        """A penalty that was asked for, 0-d (per sample [B]; NaN for a sample that failed).

        name: "kinetic", "jacobian", "error" or "stiffness": one of solve(..., penalties=(…,)).
        Differentiable as y is. Raises ArgumentError for one that was not asked for.
        """
        if name in self._penalties:
            return self._penalties[name]
        given = f"penalties={tuple(self._penalties)!r}" if self._penalties else "no penalties"
        raise ArgumentError(
            f"penalty {name!r}: this solve was given {given}; solve with penalties=({name!r},)."
        )

    def explore(self, path: str | os.PathLike[str], *, cotangent: Tensor | None = None) -> Path:
        """Writes one HTML file, for any browser and without a network, that shows the solve attempt by
        attempt: stages, error, controller, dense output, stability, Newton's corrections. Returns its path.

        path: of the file; an existing one is replaced.
        cotangent: [T, *y0.shape], ∂L/∂y at every t: the page shows the way back too.
        Needs ``trace=True``. Raises ArgumentError for a solution without a trace, or one from a file.
        """
        return pages.writer()(self, path, cotangent)

    def __getstate__(self) -> dict[str, Any]:
        """A copy, and what goes into a file: numbers, a dense output among them, without graph and func."""
        return {name: pytree.tree_map_only(Tensor, Tensor.detach, x) for name, x in vars(self).items()}

    def __copy__(self) -> Solution[State, Ending, Count, Length]:
        return dataclasses.replace(self)

    def __repr__(self) -> str:
        return f"Solution({', '.join(f'{name}: {said}' for name, said in self._told())})"

    def _repr_html_(self) -> str:
        """A small table, in notebooks."""
        cells = "".join(
            f"<tr><th style='text-align:left'>{name}</th>"
            f"<td style='text-align:left'>{html.escape(said)}</td></tr>"
            for name, said in self._told()
        )
        hint = "<code>sol.explore(&quot;solve.html&quot;)</code> draws every attempt."
        return f"<table>{cells}</table>{'' if self.trace is None else hint}"

    def _told(self) -> list[tuple[str, str]]:
        """What it is, in a few words each; without a read of the device, but of per-sample statuses."""
        told = [("status", status_words(self.status)), ("y", _shapes(self.y)), ("t", _shapes(self.t))]
        told.append(("stats", str(self.stats)))
        if self.trace is not None:
            told.append(("trace", repr(self.trace) if isinstance(self.trace, Attempts) else "a list"))
        if self.t_events:
            told.append(("events", str(len(self.t_events))))
        if self._value is not None:
            told.append(("dense", "sol(t) answers"))
        return told

    @staticmethod
    def _ask(query: Query | None, t: Tensor, per_sample: bool) -> Any:
        if query is None:
            raise ArgumentError("this solution has no dense output: solve with dense=True.")
        if not isinstance(t, Tensor) or not t.dtype.is_floating_point:
            raise ArgumentTypeError(f"t={t!r} must be a floating-point tensor of times.")
        return query(t, per_sample)


def status_words(status: Any) -> str:
    """A status by name; of samples how many ended how."""
    if not isinstance(status, Tensor):
        return str(status.name)
    found = status.flatten().tolist()  # host read
    counts = {one.name: found.count(int(one)) for one in Status if int(one) in found}
    return ", ".join(f"{name} × {n}" for name, n in counts.items())


def _shapes(tree: Any) -> str:
    """The shapes and the dtype of a pytree of tensors."""
    leaves = pytree.tree_leaves(tree)
    words = [f"{list(x.shape)}" for x in leaves[:4]] + ["…"] * (len(leaves) > 4)
    kinds = dict.fromkeys(str(x.dtype).removeprefix("torch.") for x in leaves)
    return f"{' '.join(words)} {'/'.join(kinds)}"
