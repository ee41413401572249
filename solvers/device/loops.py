"""What `queued` compiles: the beginning of a solve, one attempt, or several in one call.

Each maker returns a function of an owner and tensors; `calls.evaluate(owner, t, z)` is its field.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from ..step.attempt import Bounds, Clock, March, Rules, attempt, begin, settled, times_between
from .saved import Recipe


def loops_in_graph(y: Tensor) -> bool:
    """Whether a loop's condition costs nothing to read."""
    return y.device.type == "cpu"


def begin_program(rules: Rules, calls: Any) -> Any:
    """(owner, [t0, end], y, rtol, atol) → (f(t0, y), the clock to begin with)."""

    def begin_once(owner: Any, ends: Tensor, y: Tensor, rtol: Tensor, atol: Tensor) -> Any:
        return begin(rules, functools.partial(calls.evaluate, owner), ends, y, rtol, atol)

    return begin_once


def single_program(rules: Rules, calls: Any, recipe: Recipe | None) -> Any:
    """(owner, clock, y, k, limits, rtol, atol) → one attempt; with a recipe what its stages saved, too."""

    def attempt_once(
        owner: Any, clock: Tensor, y: Tensor, k: Tensor, limits: Tensor, rtol: Tensor, atol: Tensor
    ) -> Any:
        field = functools.partial(calls.evaluate, owner)
        made = attempt(rules, field, Bounds(limits, rtol, atol), clock, y, k, buffered=False)
        states, times, lean = [], [], []
        if recipe is not None:
            states, lean = made.states, [recipe.lean(saved) for saved in made.saved]
            ends = made.clock[Clock.T0], made.clock[Clock.T1]
            times = times_between(rules.tableau, *ends, y.dtype)[1:]
        return made.clock, made.y, made.k, made.y1, made.stages, states, times, lean

    return attempt_once


def row_program(rules: Rules, calls: Any, n: int) -> Any:
    """(owner, most, clock, y, k, limits, rtol, atol) → n attempts one after another, each result stacked."""

    def attempt_in_row(
        owner: Any,
        most: Tensor,
        clock: Tensor,
        y: Tensor,
        k: Tensor,
        limits: Tensor,
        rtol: Tensor,
        atol: Tensor,
    ) -> Any:
        made = []
        for _ in range(n):
            field, bounds = functools.partial(calls.evaluate, owner), Bounds(limits, rtol, atol)
            one = attempt(rules, field, bounds, clock, y, k, buffered=False)
            clock, y, k = settled(one.clock), settled(one.y), settled(one.k)
            made.append((clock, y, k) if one.stages is None else (clock, y, k, one.stages))
        return [torch.stack(column) for column in zip(*made, strict=True)]

    return attempt_in_row


def loop_program(rules: Rules, calls: Any) -> Any:
    """The same as a loop in the graph: up to `most` attempts, until the stop is reached."""
    from torch._higher_order_ops.while_loop import while_loop_stack_output_op as while_loop

    def attempt_many(
        owner: Any,
        most: Tensor,
        clock: Tensor,
        y: Tensor,
        k: Tensor,
        limits: Tensor,
        rtol: Tensor,
        atol: Tensor,
    ) -> Any:
        bounds = Bounds(limits, rtol, atol)

        def goes_on(i: Tensor, clock: Tensor, y: Tensor, k: Tensor, *stages: Tensor) -> Tensor:
            return ((i < most) & (clock[Clock.STATE] == float(March.UNDER_WAY))).all()

        def body(i: Tensor, clock: Tensor, y: Tensor, k: Tensor, *stages: Tensor) -> Any:
            field = functools.partial(calls.evaluate, owner)
            made = attempt(rules, field, bounds, clock, y, k, buffered=False)
            every = () if made.stages is None else (made.stages,)
            return (i + 1, made.clock, made.y, made.k, *every)

        n = len(rules.tableau.rows())
        every = (y.new_zeros((n, *y.shape)),) if rules.with_stages else ()
        start = (torch.zeros((), dtype=torch.int64, device=y.device), clock.clone(), y.clone(), k.clone())
        _, *found = while_loop(goes_on, body, (*start, *every), ())
        return found

    return attempt_many
