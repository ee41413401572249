"""func(t, y, u) under a signal as the engine wants it: its VJP, and what the samples of u get.

u enters each evaluation as a leaf of its own, so that no graph is kept of how it was made; its cotangent ū
goes to the samples with the weights that u was made with (`signals.reader`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...solvers.checks import check_unfollowed
from ...solvers.step.field import Autocast, Layout, PackedFunction, leaf
from ..signals.reader import Place, Reader
from .by_autograd import AutogradDynamics, Captured, Graph, pulled


@dataclasses.dataclass(frozen=True)
class Driven:
    """The caller's func(t, y, u), and what u is read from."""

    func: Any
    reader: Reader

    def jacobian(self, jac: Callable[..., Tensor]) -> Callable[[Tensor, Any], Tensor]:
        """The caller's jac(t, y, u) as one of t and y."""
        return lambda t, y: jac(t, y, self.reader(t))


class DrivenFunction:
    """f(t, z) on the packed state; autograd follows u to the samples.

    alone: no transform of torch.func, nor forward-mode AD, is to follow its values, which is checked.
    """

    def __init__(self, packed: PackedFunction, reader: Reader, *, alone: bool = False):
        self.packed, self.reader, self.alone = packed, reader, alone

    @property
    def layout(self) -> Layout:
        """The layout of the state."""
        return self.packed.layout

    def __call__(self, t: Tensor, z: Tensor) -> Tensor:
        """dz on the packed state."""
        return self.under(t, z, self.reader(t))

    def apart(self, t: Tensor, z: Tensor) -> Tensor:
        """The same without a graph to the samples."""
        return self.under(t, z, self.reader(t).detach())

    def under(self, t: Tensor, z: Tensor, u: Tensor) -> Tensor:
        """The same under that u."""
        dz = self.packed(t, z, u)
        return check_unfollowed(dz) if self.alone else dz


class Reading(NamedTuple):
    """One evaluation: its graph, u (a leaf), and where u was read."""

    graph: Graph
    u: Tensor
    place: Place


class DrivenDynamics(AutogradDynamics):
    """As `AutogradDynamics`, with the table that u is read from behind the parameters."""

    def __init__(
        self,
        f: DrivenFunction,
        params: Sequence[Tensor],
        autocast: Autocast,
        missed: Callable[[Captured], None] | None = None,
    ):
        super().__init__(f, params, autocast, missed)
        self.function, self.reader = f, f.reader

    def theta(self) -> tuple[Tensor, ...]:
        """The parameters, and the table where it wants a gradient."""
        return (*self.params, self.reader.table) if self.reader.wanted else self.params

    def present(self, index: Tensor | None) -> None:
        """Told which samples the next evaluations are of."""
        self.reader.tell(index)

    def forward(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """dz without its graph, and the reading."""
        if not self.reader.wanted:
            return super().forward(t, z)
        with torch.no_grad():
            place = self.reader.place(t)
            value = self.reader.shaped(self.reader.value(place), t)
        u = leaf(value)
        dz, graph = self.evaluated(lambda t, z: self.function.under(t, z, u), t, z, (u,))
        return dz, Reading(graph, u, place)

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """(z̄, gradients of the parameters and ū; where they come late, the cotangent)."""
        if not self.reader.wanted:
            return super().vjp(saved, cotangent)
        graph = saved.graph
        if self.late:
            return super().vjp(graph, cotangent)
        if graph.dz is None:
            return torch.zeros_like(graph.z), (None,) * (len(self.params) + 1)
        z_bar, u_bar, *rest = pulled(graph.dz, (graph.z, saved.u, *self.params), cotangent)
        return torch.zeros_like(graph.z) if z_bar is None else z_bar, (*rest, u_bar)

    def parameter_gradients(
        self, saved: list[Any], deltas: list[Any], weights: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """The weighted sums over stages, the table's as the rows that were read."""
        if not self.reader.wanted:
            return super().parameter_gradients(saved, deltas, weights)
        if self.late:
            own, bars = self._late(saved, deltas, weights)
        else:
            own = super().parameter_gradients([], [delta[:-1] for delta in deltas], weights)
            bars = [delta[-1] for delta in deltas]
            if weights is not None:
                pairs = zip(bars, weights.unbind(), strict=True)
                bars = [None if bar is None else bar * w for bar, w in pairs]
        pieces = zip(saved, bars, strict=True)
        read = [self.reader.transposed(one.place, bar) for one, bar in pieces if bar is not None]
        return (*own, _together(read) if read else None)

    def _late(
        self, saved: list[Any], cotangents: list[Tensor], weights: Tensor | None
    ) -> tuple[tuple[Tensor | None, ...], list[Tensor | None]]:
        """One `torch.autograd.grad` over all stages, for the parameters and every ū."""
        inputs = (*self.params, *(one.u for one in saved))
        found = self.weighted([one.graph for one in saved], cotangents, weights, inputs)
        return found[: len(self.params)], list(found[len(self.params) :])


def _together(parts: list[Tensor]) -> Tensor:
    """Their sum, as the rows of all."""
    if len(parts) == 1:
        return parts[0]
    rows, values = torch.cat([x._indices() for x in parts], 1), torch.cat([x._values() for x in parts])
    shape, dtype, device = parts[0].shape, values.dtype, values.device
    return torch.sparse_coo_tensor(rows, values, shape, dtype=dtype, device=device, check_invariants=False)
