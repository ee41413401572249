"""Steps along a fixed grid that nobody listens to: what is left of a step is its evaluations and its sums.

The step is `rk_step`, as everywhere. What is spared is what others would ask of it: stages in memory that
outlives the next evaluation, f(t1, y1) before it is the next step's first stage, and a `Step` where no output
is due.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from ..methods.tableau import Tableau
from ..stats import Stats
from ..status import Status
from ..step.clocks import times_between
from ..step.runge_kutta import Evaluation, Field, StageBuffer, StageList, Stages, rk_step
from .host import Outcome, RungeKuttaStepper
from .output import OutputWriter, Step, as_times

AT_ONCE = 64  # steps whose times are made together: a tensor for each alone costs as much as a small product


def times_along(grid: Sequence[float], nodes: Sequence[float], like: Tensor) -> Iterator[list[Tensor]]:
    """t + c_i dt for each step of the grid, as f wants them."""
    for start in range(0, len(grid) - 1, AT_ONCE):
        pairs = itertools.pairwise(grid[start : start + AT_ONCE + 1])
        times = as_times([t for t0, t1 in pairs for t in times_between(t0, t1, nodes)], like)
        for i in range(0, len(times), len(nodes)):
            yield times[i : i + len(nodes)]


def march_unheard(
    stepper: RungeKuttaStepper, grid: Sequence[float], stats: Stats, writer: OutputWriter
) -> Outcome:
    """`march_grid` where only outputs are wanted, and f jumps nowhere."""
    first: Evaluation | None = None
    inside = len(writer.wanted) > 2 and stepper.tableau.dense_needs_end  # f(t1, y1) may be wanted too
    nodes = stepper.numeric.c if inside else stepper.numeric.c[: stepper.tableau.n_stages - 1]
    along = times_along(grid, nodes, stepper.y)
    stats.dt_first = abs(grid[1] - grid[0])
    for (t0, t1), times in zip(itertools.pairwise(grid), along, strict=True):
        stepper.y, first = _stepped(stepper, (t0, t1), first, times, writer)
        stats.n_accepted += 1
    return Outcome(Status.SUCCESS, grid[-1], abs(grid[-1] - grid[-2]))


def _stepped(
    stepper: RungeKuttaStepper,
    ends: tuple[float, float],
    first: Evaluation | None,
    times: list[Tensor],
    writer: OutputWriter,
) -> tuple[Tensor, Evaluation | None]:
    """y1, and f(t1, y1) where an output needed it."""
    (t0, t1), y, tableau = ends, stepper.y, stepper.tableau
    due = writer.upcoming(t1)
    inside = due is not None and due != t1
    if stepper.numeric.in_turn and not (inside and tableau.dense_needs_end):
        field: Field = stepper.raw_field
        stages: Stages = StageList(stepper.numeric, t1 - t0)
    else:
        field, stages = stepper.field, stepper.fresh_stages(t1 - t0)
    result = rk_step(field, y, first or field(times[0], y), times, tableau, stages, evaluate_end=False)
    if not inside:
        writer.reach(t1, result.y1, due=due is not None)
        return result.y1, None
    step = Step(t0, t1, y, result, tableau, field, False, times)
    writer(step)
    return result.y1, step.last if len(step.saved) >= tableau.n_stages else None


def state_along(
    field: Field,
    y: Tensor,
    grid: Sequence[float],
    tableau: Tableau,
    seen: Callable[[int, float, Tensor], None] | None = None,
) -> Tensor:
    """The state at the grid's end, where no other is wanted and no gradient.

    seen: called after each step with its index, its end and the state there.
    """
    numeric = tableau.numeric(y.dtype, y.device)
    own = None if numeric.in_turn else StageBuffer(numeric, y, 0.0)
    along = times_along(grid, numeric.c[: tableau.n_stages - 1], y)
    for i, ((t0, t1), times) in enumerate(zip(itertools.pairwise(grid), along, strict=True)):
        stages: Stages = StageList(numeric, t1 - t0) if own is None else own.again(t1 - t0)
        y = rk_step(field, y, field(times[0], y), times, tableau, stages, evaluate_end=False).y1
        if seen is not None:
            seen(i, t1, y)
    return y
