"""A solve by one of scipy's solvers: it steps, and all else is numbers that are handed to and fro."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ArgumentError, SolverError, solver_error
from ..stats import Stats
from ..status import Status
from ..step.clocks import Tolerance
from ..step.field import transformed
from .output import as_time

SOLVERS = ("RK45", "RK23", "DOP853", "Radau", "BDF", "LSODA")
# Evaluations in a row that are not finite (a step shortened to nothing makes some 300), or steps to nowhere.
PATIENCE = 1000
Rates = Callable[[Tensor, list[Tensor]], Sequence[Tensor]]


@dataclasses.dataclass(frozen=True)
class Foreign:
    """A solver of `scipy.integrate`.

    solver: the name of its class.
    options: what it is made with, besides the tolerances.
    """

    solver: str
    options: tuple[tuple[str, float], ...] = ()

    def made(self, *given: Any, **tolerances: Any) -> Any:
        """The solver itself. Raises ArgumentError where scipy is not installed, or refuses an option."""
        try:
            import scipy.integrate
        except ImportError as error:
            raise ArgumentError(
                "method='scipy_solver' needs scipy: pip install scipy. Without it method='dopri5' solves "
                "problems that are not stiff."
            ) from error
        made = getattr(scipy.integrate, self.solver)
        return made(*given, **tolerances, **dict(self.options))


class Flat:
    """Several tensors as one numpy vector of float64; a complex entry is two numbers.

    likes: tensors of their shapes, dtypes and devices.
    """

    def __init__(self, likes: Sequence[Tensor]):
        self.likes = likes
        self.ends = list(itertools.accumulate(x.numel() * (2 if x.is_complex() else 1) for x in likes))

    def vector(self, tensors: Sequence[Tensor]) -> np.ndarray:
        """All their numbers, [n]."""
        bare = [x.detach() for x in tensors]
        parts = [torch.view_as_real(x.resolve_conj()) if x.is_complex() else x for x in bare]
        return np.concatenate([x.reshape(-1).to("cpu", torch.float64).numpy() for x in parts])

    def tensors(self, vector: np.ndarray) -> list[Tensor]:
        """Copies, in their shapes."""
        found = []
        for like, begin, end in zip(self.likes, [0, *self.ends], self.ends, strict=False):
            part = torch.tensor(vector[begin:end], dtype=torch.float64, device="cpu")
            if like.is_complex():
                part = torch.view_as_complex(part.view(-1, 2))
            found.append(part.to(like.device, like.dtype).view(like.shape))
        return found


class _LostError(Exception):
    """f is not finite wherever it is asked."""


class _Rates:
    """f as scipy calls it; it remembers what went wrong, and gives up where scipy would ask for ever (NaN at
    the start makes its first step NaN)."""

    def __init__(self, rates: Rates, flat: Flat):
        self.rates, self.flat = rates, flat
        self.raised = False
        self.not_finite: float | None = None
        self.in_a_row = PATIENCE - 1  # at the start there is no shorter step to try

    def __call__(self, t: float, vector: np.ndarray) -> np.ndarray:
        y = self.flat.tensors(vector)
        try:
            found = self.flat.vector(self.rates(as_time(t, y[0]), y))
        except BaseException:
            self.raised = True
            raise
        if np.isfinite(found).all():
            self.in_a_row = 0
            return found
        self.not_finite = t if self.not_finite is None else self.not_finite
        self.in_a_row += 1
        if self.in_a_row >= PATIENCE:
            raise _LostError
        return found


def foreign_march(
    foreign: Foreign,
    rates: Rates,
    start: Sequence[Tensor],
    times: Sequence[float],
    tolerance: Tolerance,
    stats: Stats,
) -> Iterator[list[Tensor]]:
    """The tensors at each of the times after the first.

    rates: (t 0-d, tensors) → their derivatives; the first of them is real.
    tolerance: of the first of the tensors; the others have the least of it.
    Raises SolverError where the solver gives up, or arrives at what is not finite.
    """
    if transformed():
        raise ArgumentError(
            "a transform of torch.func, or forward-mode AD, is around method='scipy_solver', which leaves "
            "torch: use another method of adamode.odeint."
        )
    flat = Flat(start)
    f, t0, end = _Rates(rates, flat), times[0], times[-1]
    rtol, atol = (_for_each(x, start) for x in (tolerance.rtol, tolerance.atol))
    with np.errstate(all="ignore"):
        made = functools.partial(foreign.made, f, t0, flat.vector(start), end, rtol=rtol, atol=atol)
        solver = _guarded(f, stats, t0, made)
        standing = 0
        for t in times[1:]:
            while (t - solver.t) * solver.direction > 0:
                said = _guarded(f, stats, solver.t, solver.step)
                if solver.status == "failed" or standing > PATIENCE or not np.isfinite(solver.y).all():
                    raise _failure(f, stats, solver.t, said)
                stats.n_accepted += 1
                stats.dt_last = abs(solver.t - solver.t_old)
                stats.dt_first = stats.dt_first if stats.n_accepted > 1 else stats.dt_last
                # LSODA goes on and on where a step is shorter than time's rounding.
                standing = standing + 1 if stats.dt_last < 10 * math.ulp(solver.t) else 0
            yield flat.tensors(solver.dense_output()(t))


def _guarded(f: _Rates, stats: Stats, t: float, call: Callable[[], Any]) -> Any:
    """The call's result; what scipy's linear algebra says of NaN is an error of ours, what f raises is its
    own."""
    try:
        return call()
    except _LostError:
        raise _failure(f, stats, t, "") from None
    except (ValueError, np.linalg.LinAlgError) as error:
        if f.raised:
            raise
        if f.not_finite is None:
            raise ArgumentError(f"method='scipy_solver': scipy says: {error}") from error
        raise _failure(f, stats, t, str(error)) from error


def _failure(f: _Rates, stats: Stats, t: float, said: Any) -> SolverError:
    detail = f"scipy says: {said}." if said else ""
    if f.not_finite is None:
        return solver_error(t, stats.dt_last, Status.STEP_UNDERFLOW, stats, detail)
    detail = f"func was first not finite at t={f.not_finite:.6g}. {detail}".strip()
    return solver_error(t, stats.dt_last, Status.NON_FINITE, stats, detail)


def _for_each(value: float | Tensor, likes: Sequence[Tensor]) -> float | np.ndarray:
    """A tolerance for each number of a vector of such tensors."""
    if not isinstance(value, Tensor):
        return value
    state = Flat(likes[:1]).vector([value.expand(likes[0].shape)])
    others = np.full(Flat(likes).ends[-1] - len(state), float(value.min()))
    return np.concatenate((state, others))
