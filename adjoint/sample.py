"""`adamode.sample`: fixed steps along a grid, the last state alone, no gradient."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..solvers.checks import all_finite, check_call, check_constant, check_positive, check_state, check_times
from ..solvers.errors import ArgumentError, ArgumentTypeError, DynamicsError, solver_error
from ..solvers.march.output import as_time
from ..solvers.march.unheard import state_along
from ..solvers.methods import get_method
from ..solvers.methods.tableau import Tableau
from ..solvers.solution import State
from ..solvers.stats import Stats
from ..solvers.status import Status
from ..solvers.step.field import Layout, layout_of
from .arguments import uncompiled
from .dynamics.adapt import Plain, wrap
from .dynamics.protocol import Dynamics, check_after, check_blocks

Seen = Callable[[int, float, Any, int], object]


def _grid_of(t: Any, steps: int | None) -> list[float]:
    """The grid as floats. One host read where t is on another device."""
    if not isinstance(t, Tensor):
        t = _written_out(t, steps)
    check_constant(t, "t")
    if steps is None:
        return check_times(t)
    check_positive(steps, "steps", integer=True)
    if t.dim() == 1 and len(t) != 2:
        raise ArgumentError(
            f"t has {len(t)} times and steps={steps} is given: either t is the grid, or t=(t0, t1) and the "
            "steps are laid evenly between."
        )
    t0, t1 = check_times(t)
    return [t0 + (t1 - t0) * (i / steps) for i in range(steps)] + [t1]


def _written_out(t: Any, steps: int | None) -> Tensor:
    """Times that were given as numbers."""
    if not isinstance(t, Sequence) or isinstance(t, str):
        raise ArgumentTypeError(
            f"t is a {type(t).__name__}; give the grid as a tensor, or (t0, t1) with steps=…."
        )
    if len(t) == 2 and steps is None:
        raise ArgumentError(
            f"t={t!r} are two ends and no steps: give steps=…, how many lie between them (a grid of one step "
            "is a tensor of two times, or steps=1)."
        )
    try:
        return torch.tensor([float(x) for x in t], dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentTypeError(f"t={t!r} holds an entry that is not a number: {error}.") from error


@contextlib.contextmanager
def _without_derivatives() -> Iterator[None]:
    """Neither autograd nor forward-mode AD follows."""
    with torch.no_grad(), forward_ad._set_fwd_grad_enabled(False):
        yield


class _Told:
    """Tells the caller's callback of each step.

    calls: evaluations a step.
    """

    def __init__(self, callback: Seen, layout: Layout, calls: int):
        self.callback, self.layout, self.calls = callback, layout, calls

    def __call__(self, i: int, t: float, z: Tensor) -> None:
        """After step i, which ends at t with the state z."""
        before = None if z.is_inference() else z._version
        self.callback(i, t, self.layout.unpack(z), (i + 1) * self.calls)
        if before is not None and z._version != before:
            raise DynamicsError(
                f"callback changed y in place after step {i}: the steps after it would begin from another "
                "state. Work on a copy (y.clone()); put what steers the samples into the field."
            )


class _FoundError(Exception):
    """Ends the search for the first state that is not finite."""


def _lost(field: Any, z0: Tensor, grid: Sequence[float], tableau: Tableau) -> Exception:
    """The error of samples that are not finite at the end: the steps are taken again, and each looked at."""
    where: list[Any] = []

    def look(i: int, t: float, z: Tensor) -> None:
        if not all_finite(z):  # host read
            where.extend((i, tuple((~torch.isfinite(z)).nonzero()[0].tolist())))
            raise _FoundError

    with contextlib.suppress(_FoundError):
        state_along(field, z0, grid, tableau, look)
    calls = tableau.n_stages - 1
    i, entry = where or (len(grid) - 2, None)
    dt = abs(grid[i + 1] - grid[i])
    stats: Stats[int, float] = Stats((i + 1) * calls, i, dt_first=abs(grid[1] - grid[0]), dt_last=dt)
    said = "The state is not finite after this step"
    if not where:
        said = "The state is not finite at the end, and is where the steps are taken again (a random field)"
    error = solver_error(
        *(grid[i], dt, Status.NON_FINITE, stats),
        f"{said}, step {i} of {len(grid) - 1}. A fixed step cannot be shortened: give a finer grid there, or "
        "solve adaptively (adamode.solve).",
    )
    error.where = entry
    return error


@uncompiled
def sample(
    field: Callable[[Tensor, State], Any] | Dynamics,
    y0: State,
    t: Tensor | Sequence[float],
    *,
    method: str = "euler",
    steps: int | None = None,
    callback: Callable[[int, float, State, int], object] | None = None,
) -> State:
    """Samples of a flow: y at the end of dy/dt = field(t, y), y(t[0]) = y0, by fixed steps.

    field: callable (t, y) → dy/dt in y's structure, t 0-d on y's device; guidance, if any, is part of it. Or
        a `Dynamics` with y0 [K, B, *S].
    y0: tensor or pytree of tensors, as `solve` takes it.
    t: [T], the grid, one step an interval: strictly monotone, either way, on any device; or, with steps, its
        two ends (t0, t1).
    method: an explicit method (docs/methods.md); an adaptive one takes its steps without an error estimate.
    steps: the number of equal steps between t0 and t1.
    callback: called after each step with its index i from 0, the time reached (a float), y there, and how
        often field was called so far, (i + 1) times the method's stages. It must not change y; what it
        returns is not used.

    Returns y at the end, in y0's structure, dtype and device, without a gradient. The host reads the
    times, y0 and the end once each; it waits for no step.
    Raises ArgumentError or ArgumentTypeError for bad input, DynamicsError for what field returns, and
    SolverError (NON_FINITE) where the samples are not finite at the end; its t is the start of the first step
    that lost them, for which the steps are taken once more.
    """
    tableau, grid = get_method(method), _grid_of(t, steps)
    if callback is not None:
        check_call(callback, "callback", "callback(i, t, y, nfe)", objects=True)
    layout = layout_of(y0)
    z0 = layout.pack(y0).detach()
    check_state(z0)
    if isinstance(field, Dynamics):
        if layout.kind is not None or not layout.single or z0.dim() < 2:
            raise ArgumentTypeError("y0 of a Dynamics must be one real tensor [K, B, *S].")
        check_blocks(field, z0, "y0")
        check_after(field, grid)
    plain, _, autocast = wrap(field, layout, z0, as_time(grid[0], z0), (), lambda: None)
    seen = None if callback is None else _Told(callback, layout, tableau.n_stages - 1)
    with _without_derivatives(), autocast.outside():
        evaluate = _values(plain)
        z = state_along(evaluate, z0, grid, tableau, seen)
        if not all_finite(z):  # host read
            raise _lost(evaluate, z0, grid, tableau)
        found: State = layout.unpack(z)
    return found


def _values(plain: Plain) -> Callable[[Tensor, Tensor], tuple[Tensor, None]]:
    """The function as a field of which nothing is kept."""
    return lambda t, z: (plain(t, z), None)
