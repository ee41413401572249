"""Programs of the discrete adjoint: one transposed step, or a loop over several, for torch to compile.

The arithmetic is that of `discrete.StepBack`, without buffers and with step sizes as tensors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...solvers.device.saved import Recipe
from ...solvers.methods.tableau import Numeric, Tableau
from ...solvers.step.attempt import settled, times_between
from ...solvers.step.runge_kutta import StageList, rk_step
from ..dynamics.repeatable import distance
from ..dynamics.traced import Calls


@dataclasses.dataclass(frozen=True)
class Way:
    """What a program depends on besides shapes.

    recipe: how to make whole what each stage kept; None: stages are taken again.
    outputs: whether outputs lie inside the step (or, in a loop, at the end of an earlier one).
    count: how many tensors θ has.
    """

    calls: Calls
    tableau: Tableau
    numeric: Numeric
    recipe: Recipe | None = None
    outputs: bool = False
    count: int = 0

    @property
    def key(self) -> tuple[Any, ...]:
        """Hashable."""
        recipe = None if self.recipe is None else self.recipe.key
        return (type(self.calls), self.numeric, recipe, self.outputs, self.count)


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What outputs inside a step add: to each k̄_i [n_stages, *S] and to dL/dy."""

    k_bar: Tensor
    y_bar: Tensor


def step_back(
    way: Way,
    owner: Any,
    saved: Sequence[Any],
    dt: Tensor,
    lam: Tensor,
    held: Tensor,
    outputs: Outputs | None,
) -> tuple[Tensor, Tensor, list[Any]]:
    """One step, transposed: (dL/dy, k̄ of the first stage, gradients of θ).

    saved: of the stages after the first.  dt: 0-d, of the state's dtype.
    """
    m = way.tableau.n_stages - 1
    rows, b = way.numeric.a_rows, dict(way.numeric.a_rows[m])  # the last stage's row is b
    deltas: list[Any] = [None] * m
    bars: dict[int, Tensor] = {}

    def pull(i: int, cotangent: Tensor) -> Tensor:
        bar, deltas[i - 1] = way.calls.vjp(owner, saved[i - 1], settled(cotangent))
        return settled(bar)

    cotangent = held if outputs is None else held + outputs.k_bar[m]
    lam = settled(lam + pull(m, cotangent))  # Y_last is y1
    for i in range(m - 1, -1, -1):
        total = lam * b[i] if i in b else None
        for j, bar in bars.items():
            weight = dict(rows[j]).get(i)
            if weight is not None:
                total = bar * weight if total is None else total + bar * weight
        cotangent = torch.zeros_like(lam) if total is None else total * dt
        if outputs is not None:
            cotangent = cotangent + outputs.k_bar[i]
        if i > 0:
            bars[i] = pull(i, cotangent)
    total = lam
    for bar in bars.values():
        total = total + bar
    if outputs is not None:
        total = total + outputs.y_bar
    gradients = way.calls.gradients(owner, list(saved), deltas)
    return settled(total), settled(cotangent), gradients


def _again(
    way: Way, owner: Any, ends: tuple[Tensor, Tensor], dt: Tensor, y0: Tensor, k0: Tensor
) -> list[Any]:
    """What the stages after the first save, evaluated anew between ends = (t0, t1)."""
    times = [t.to(y0.dtype) for t in times_between(way.tableau, *ends)]

    def field(t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        k, saved = way.calls.linearise(owner, t, settled(z))
        return settled(k), saved

    stages = StageList(way.numeric, dt)
    return rk_step(field, y0, (k0, None), times, way.tableau, stages).saved[1:]


def _added(totals: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> list[Tensor]:
    return [
        total if g is None else total + g.reshape(total.shape)
        for total, g in zip(totals, gradients, strict=True)
    ]


def _taken_again(
    way: Way,
    owner: Any,
    ends: Tensor,
    y0: Tensor,
    k0: Tensor,
    lam: Tensor,
    held: Tensor,
    outputs: Sequence[Tensor],
    totals: Sequence[Tensor],
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """One step of several: its stages anew, and back. outputs: k̄, dL/dy, a cotangent at its end; or none."""
    t0, t1 = ends.unbind()
    dt = settled((t1 - t0).to(lam.dtype))
    saved = _again(way, owner, (t0, t1), dt, y0, k0)
    added = None
    if way.outputs:
        k_bar, y_bar, at_end = outputs
        lam, added = lam + at_end, Outputs(k_bar, y_bar)
    lam, held, gradients = step_back(way, owner, saved, dt, lam, held, added)
    return lam, held, _added(totals, gradients)


def single(way: Way) -> Callable[..., Any]:
    """(owner, [t0, t1], what is known of the stages, λ, held, outputs, θ's sums) → (λ, held, θ's sums).

    Known are the stages' states, times and what was kept; or, to take them again, (y0, k0).
    """

    def step_back_once(
        owner: Any,
        ends: Tensor,
        known: tuple[Any, ...],
        lam: Tensor,
        held: Tensor,
        inside: tuple[Tensor, Tensor] | None,
        totals: list[Tensor],
    ) -> Any:
        t0, t1 = ends.unbind()
        dt = settled((t1 - t0).to(lam.dtype))
        if way.recipe is None:
            saved = _again(way, owner, (t0, t1), dt, *known)
        else:
            saved = [way.recipe.whole(*stage) for stage in zip(*known, strict=True)]
        outputs = None if inside is None else Outputs(*inside)
        lam, held, gradients = step_back(way, owner, saved, dt, lam, held, outputs)
        return lam, held, _added(totals, gradients)

    return step_back_once


def close(way: Way) -> Callable[..., Any]:
    """(owner, t0 [1], y0, k0, λ, held, θ's sums) → (λ, θ's sums, how far f(t0, y0) is from k0, relative):
    through the very first stage, which no step before shares."""

    def close_once(
        owner: Any, t0: Tensor, y0: Tensor, k0: Tensor, lam: Tensor, held: Tensor, totals: list[Tensor]
    ) -> Any:
        k, saved = way.calls.linearise(owner, t0[0].to(y0.dtype), y0)
        bar, delta = way.calls.vjp(owner, saved, held)
        gradients = way.calls.gradients(owner, [saved], [delta])
        return lam + bar, _added(totals, gradients), distance(k, k0)

    return close_once


def row(way: Way) -> Callable[..., Any]:
    """(owner, [n, 2] ends, [n, *S] y0, k0, λ, held, outputs, θ's sums) → (λ, held, θ's sums): the steps of
    `loop` one after another, where a loop's condition would make the host wait."""

    def step_back_row(
        owner: Any,
        ends: Tensor,
        ys: Tensor,
        ks: Tensor,
        lam: Tensor,
        held: Tensor,
        outputs: tuple[Tensor, ...],
        totals: list[Tensor],
    ) -> Any:
        for i in range(len(ys) - 1, -1, -1):
            own = [x[i] for x in outputs]
            lam, held, totals = _taken_again(way, owner, ends[i], ys[i], ks[i], lam, held, own, totals)
        return lam, held, totals

    return step_back_row


def loop(way: Way) -> Callable[..., Any]:
    """(owner, last, [n, 2] ends, [n, *S] y0, k0, λ, held, outputs, θ's sums) → (λ, held, θ's sums).

    last: index of the step to begin with, int64 [1].  outputs: [n, n_stages, *S] of each step's k̄,
    [n, *S] of dL/dy, [n, *S] cotangents at the steps' ends; or none.
    """
    from torch._higher_order_ops.while_loop import while_loop

    def step_back_many(
        owner: Any,
        last: Tensor,
        ends: Tensor,
        ys: Tensor,
        ks: Tensor,
        lam: Tensor,
        held: Tensor,
        outputs: tuple[Tensor, ...],
        totals: list[Tensor],
    ) -> Any:
        def goes_on(i: Tensor, *_: Tensor) -> Tensor:
            return (i >= 0).all()

        def body(i: Tensor, lam: Tensor, held: Tensor, *totals: Tensor) -> Any:
            own_ends, *own = (torch.index_select(x, 0, i)[0] for x in (ends, *outputs))
            y0, k0 = (settled(torch.index_select(x, 0, i)[0]) for x in (ys, ks))
            lam, held, sums = _taken_again(way, owner, own_ends, y0, k0, lam, held, own, totals)
            return (i - 1, lam, held, *sums)

        start = (last, lam.clone(), held.clone(), *(total.clone() for total in totals))
        _, lam, held, *totals = while_loop(goes_on, body, start)
        return lam, held, totals

    return step_back_many
