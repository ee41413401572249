"""torchdiffeq's ``options`` dicts, read into Settings. The dict of the caller is not modified."""

from __future__ import annotations

import functools
import itertools
import math
import numbers
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...solvers.checks import check_positive, check_stops
from ...solvers.errors import AdamodeWarning, ArgumentError, ArgumentTypeError, nearest
from ...solvers.methods.tableau import Tableau
from ...solvers.solve import Grid, Settings, uniform_grid
from ...solvers.step.clocks import Norm, Tolerance
from ...solvers.step.controller import PID

MakeGrid = Callable[[Callable[..., Any], Sequence[float]], Any]
# {option: (the controller's name for it, default)}.
CONTROLLER = {
    "safety": ("safety", 0.9),
    "ifactor": ("factor_max", 10.0),
    "dfactor": ("factor_min", 0.2),
    "min_step": ("dt_min", 0.0),
    "max_step": ("dt_max", math.inf),
}
ADAPTIVE = (*CONTROLLER, "first_step", "step_t", "jump_t", "max_num_steps", "dtype", "norm")
FIXED = ("step_size", "grid_constructor", "interp", "perturb", "norm")


def own_options(options: Any, argument: str = "options") -> dict[str, Any]:
    """A copy of the caller's dict; {} for None."""
    if options is not None and not isinstance(options, Mapping):
        raise ArgumentTypeError(f"{argument} is a {type(options).__name__}; it must be a dict of options.")
    return dict(options or {})


def _positive(options: dict[str, Any], name: str) -> float | None:
    """The number of that name, positive and finite; None where it is not given, or given as None."""
    if options.get(name) is None:
        return None
    value = _given(options, name, math.nan)
    check_positive(value, f"options[{name!r}]")
    return value


def _given(options: dict[str, Any], name: str, default: float) -> float:
    value = options.get(name, default)
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ArgumentTypeError(f"options[{name!r}]={value!r} must be a number.")
    if math.isnan(value):
        raise ArgumentError(f"options[{name!r}] is NaN.")
    return float(value)


def warn_unused(options: dict[str, Any], known: tuple[str, ...], method: str, argument: str) -> None:
    """An option that the method does not use is ignored with a warning, as torchdiffeq does."""
    unused = [name for name in options if name not in known]
    if unused:
        warnings.warn(
            f"{argument}: {method} does not use {', '.join(map(repr, unused))}; ignored. "
            f"{nearest(unused[0], known)}",
            AdamodeWarning,
            stacklevel=4,
        )


def read_options(
    options: dict[str, Any],
    tableau: Tableau,
    tolerance: Tolerance,
    norm: Norm,
    n_intervals: int,
    make_grid: MakeGrid,
    argument: str = "options",
) -> Settings:
    """Settings for a method and its options.

    norm: the default or the user's, on the packed state.
    n_intervals: intervals between the times.
    make_grid: calls a grid_constructor for given times.
    argument: the name of the dict in messages.
    """
    known = ADAPTIVE if tableau.adaptive else FIXED
    warn_unused(options, known, tableau.name, argument)
    if tableau.adaptive:
        return Settings(tableau, tolerance, norm, **_adaptive(options, n_intervals))
    interp = options.get("interp", "linear")
    if interp not in ("linear", "cubic"):
        raise ArgumentError(
            f"options['interp']={interp!r} is not known: {nearest(interp, ('linear', 'cubic'))}"
        )
    grid, perturb = _grid(options, make_grid), bool(options.get("perturb", False))
    return Settings(tableau.with_interpolant(interp), tolerance, norm, grid=grid, perturb=perturb)


def _adaptive(options: dict[str, Any], n_intervals: int) -> dict[str, Any]:
    """The fields of `Settings` that an adaptive method's options decide."""
    step_t, jump_t = (check_stops(options.get(n), f"options[{n!r}]") for n in ("step_t", "jump_t"))
    both = [*step_t, *jump_t]
    if len(set(both)) < len(both):
        raise ArgumentError("options: step_t and jump_t must not hold the same time twice.")
    limit = _given(options, "max_num_steps", 2**31 - 1)
    first = _positive(options, "first_step")
    if limit < 1:
        raise ArgumentError(f"options['max_num_steps']={limit!r} must be at least 1.")
    numbers = {ours: _given(options, name, default) for name, (ours, default) in CONTROLLER.items()}
    return {
        # torchdiffeq's: classical, never shrinks a step that was accepted, grows after a rejection.
        "controller": PID(
            pcoeff=0.0, icoeff=1.0, force_dt_min=True, accept_factor_min=1.0, regrow=True, **numbers
        ),
        "dt0": first,
        "max_steps": int(limit) * max(n_intervals, 1),  # there the limit is for each interval
        "step_at": step_t,
        "jump_at": jump_t,
    }


def _grid(options: dict[str, Any], make_grid: MakeGrid) -> Grid:
    """The points of a fixed-step method, for given times."""
    step_size, constructor = _positive(options, "step_size"), options.get("grid_constructor")
    if step_size is not None and constructor is not None:
        raise ArgumentError("options: step_size and grid_constructor exclude each other; give one.")
    if step_size is not None:
        return functools.partial(uniform_grid, dt=step_size)
    if constructor is None:
        return list
    return lambda times: _checked_grid(make_grid(constructor, times), times)


def _checked_grid(grid: Any, times: Sequence[float]) -> list[float]:
    """The points that a grid_constructor returned: from the first to the last time, strictly monotone."""
    found = torch.as_tensor(grid, dtype=torch.float64, device="cpu").reshape(-1).tolist()
    fits = len(found) >= 2 and found[0] == times[0] and found[-1] == times[-1]
    direction = math.copysign(1.0, times[-1] - times[0])
    if not fits or any((b - a) * direction <= 0 for a, b in itertools.pairwise(found)):
        raise ArgumentError(
            f"options['grid_constructor'] returned {found[:3]} … {found[-1:]}; the grid must run strictly "
            f"from t[0]={times[0]!r} to t[-1]={times[-1]!r}."
        )
    return found
