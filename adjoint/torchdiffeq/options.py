"""A call of torchdiffeq's face, its ``options`` dicts read into Settings: the caller's are not modified."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import numbers
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...solvers.checks import (
    check_call,
    check_positive,
    check_resolution,
    check_stops,
    check_tolerance,
)
from ...solvers.errors import AdamodeWarning, ArgumentError, ArgumentTypeError, check_choice, nearest
from ...solvers.march.foreign import SOLVERS, Foreign
from ...solvers.march.grid import Grid, uniform_grid
from ...solvers.methods import EVERY, FOREIGN, METHODS, get_method
from ...solvers.methods.adams import ADAMS, FEWEST, MOST, Adams
from ...solvers.methods.dopri5 import DOPRI5_SHAMPINE
from ...solvers.methods.tableau import Tableau
from ...solvers.solve import Settings
from ...solvers.step.clocks import Tolerance, norm_of, rms
from ...solvers.step.controller import PID
from ...solvers.step.field import HALF, Layout

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


STARTER = "rk4"
NAMES = (*METHODS, *ADAMS, FOREIGN)


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
            f"{argument}: {method} does not use {', '.join(map(repr, unused))}; ignored: "
            f"{nearest(unused[0], known)}",
            AdamodeWarning,
            stacklevel=3,
        )


def _tableau(method: str | None, argument: str) -> Tableau:
    if method in (None, "dopri5"):
        return DOPRI5_SHAMPINE
    if isinstance(method, str) and method in NAMES:
        return METHODS.get(method, METHODS[STARTER])
    if method in EVERY:
        get_method(method, argument)  # an implicit one: says who has it
    raise ArgumentError(f"{argument}={method!r} is not a known method: {nearest(str(method), NAMES)}")


def _adams(method: str, options: dict[str, Any]) -> Adams | None:
    """The multistep method of that name; None where its max_order leaves nothing of it but the starter."""
    implicit = options.get("implicit", ADAMS[method])
    if not isinstance(implicit, bool) or implicit > ADAMS[method]:
        other = "; implicit_adams is" if implicit is True else " must be True or False"
        raise ArgumentError(f"options['implicit']={implicit!r}: {method} is not implicit{other}.")
    numbers = {}
    for name, default in (("max_order", MOST), ("max_iters", 4)):
        value = _given(options, name, default)
        if value != int(value) or value < 1:
            raise ArgumentError(f"options[{name!r}]={value:g} must be a whole number, at least 1.")
        numbers[name] = int(value)
    if numbers["max_order"] > MOST:
        raise ArgumentError(f"options['max_order']={numbers['max_order']} must be at most {MOST}.")
    if numbers["max_order"] <= FEWEST:
        warnings.warn(
            f"options['max_order']={numbers['max_order']} is below {FEWEST + 1}: {method} takes only steps "
            f"of {STARTER}.",
            AdamodeWarning,
            stacklevel=5,
        )
        return None
    return Adams(implicit, **numbers)


@dataclasses.dataclass(frozen=True)
class Call:
    """The arguments of one call, checked and packed."""

    func: Callable[[Tensor, Any], Any]
    layout: Layout
    z0: Tensor
    t: Tensor
    times: list[float]

    def _tolerance(self, rtol: Any, atol: Any, prefix: str) -> Tolerance:
        """Either may be 0, not both."""
        found = []
        for value, name in ((rtol, f"{prefix}rtol"), (atol, f"{prefix}atol")):
            if isinstance(value, Tensor) and value.dim() and not self.layout.single:
                value = list(value.unbind())  # one number a member
            found.append(check_tolerance(value, name, self.z0, self.layout, zero=True))
        both = found[0] + found[1]
        fits = bool((both > 0).all()) if isinstance(both, Tensor) else both > 0
        if not fits:
            raise ArgumentError(f"{prefix}rtol and {prefix}atol are both 0: no step could be accepted.")
        return Tolerance(found[0], found[1], self.layout.paired)

    def settings(
        self, method: str | None, rtol: Any, atol: Any, options: dict[str, Any], prefix: str = ""
    ) -> Settings:
        """The solver's settings for one direction. prefix: of the arguments' names in messages."""
        tableau = _tableau(method, f"{prefix}method")
        tolerance = self._tolerance(rtol, atol, prefix)
        if self.layout.kind in HALF and (tableau.adaptive or method == FOREIGN):
            check_resolution(tolerance.rtol, f"{prefix}rtol", self.layout.kind)
        if method == FOREIGN:
            return Settings(DOPRI5_SHAMPINE, tolerance, rms, foreign=_foreign(options, f"{prefix}options"))
        given = options.get("norm")
        if callable(given):
            check_call(given, f"{prefix}options['norm']", "norm(y)")
        norm = norm_of(given if callable(given) else "rms", self.layout)
        name, known = method or tableau.name, ADAPTIVE if tableau.adaptive else FIXED
        known = (*known, "max_order", "max_iters", "implicit") if name in ADAMS else known
        warn_unused(options, known, name, f"{prefix}options")
        if tableau.adaptive:
            return Settings(tableau, tolerance, norm, **_adaptive(options, len(self.times) - 1))
        interp = options.get("interp", "linear")
        check_choice("options['interp']", interp, ("linear", "cubic"))
        return Settings(
            *(tableau.with_interpolant(interp), tolerance, norm),
            grid=_grid(options, self._constructed),
            perturb=bool(options.get("perturb", False)),
            adams=_adams(name, options) if name in ADAMS else None,
        )

    def _constructed(self, constructor: Callable[..., Any], times: Sequence[float]) -> Any:
        """What a grid_constructor returns for the times."""
        t = torch.tensor(times, dtype=torch.float64, device="cpu").to(self.t)
        return constructor(self.func, self.layout.unpack(self.z0), t)


def _foreign(options: dict[str, Any], argument: str) -> Foreign:
    """The solver of scipy's that the options name. min_step 0 and max_step inf say nothing, as there."""
    solver = options.get("solver", "LSODA")
    check_choice(f"{argument}['solver']", solver, SOLVERS)
    steps = {"first_step": math.inf, "max_step": math.inf, "min_step": 0.0}  # what says nothing
    found = {name: _given(options, name, 0.0) for name in steps if options.get(name) is not None}
    found = {name: value for name, value in found.items() if value != steps[name]}
    for name, value in found.items():
        check_positive(value, f"{argument}[{name!r}]")
    if solver != "LSODA":  # the others have none
        steps = {name: none for name, none in steps.items() if name != "min_step" or name not in found}
    warn_unused(options, ("solver", "norm", *steps), f"scipy's {solver}", argument)
    return Foreign(solver, tuple((name, value) for name, value in found.items() if name in steps))


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
        # torchdiffeq's: classical, never shrinks a step that was accepted, grows after a rejection, and takes
        # whole steps up to a stop.
        "controller": PID(
            pcoeff=0.0,
            icoeff=1.0,
            force_dt_min=True,
            accept_factor_min=1.0,
            regrow=True,
            look_ahead=False,
            **numbers,
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
    check_call(constructor, "options['grid_constructor']", "grid_constructor(func, y0, t)")
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
