"""Step size control: pure arithmetic on error ratios.

The next step is dt · clamp(safety · e_n^(−β1) · e_{n−1}^(−β2) · e_{n−2}^(−β3)) with, for an error of
order k,

    β1 = (p + i + d)/k,   β2 = −(p + 2d)/k,   β3 = d/k

for the coefficients p (proportional), i (integral), d (derivative). p = d = 0, i = 1 is the
classical controller. One that remembers steps follows it until two have been accepted, at the start and
after a jump: the first length is a guess, and its small error would hold the next steps back.

Sources: Hairer, Nørsett, Wanner I, II.4, Eq. (4.13); Hairer, Wanner II, IV.2 (PI: stabilised by
the error before); G. Söderlind, Digital filters in adaptive time-stepping, ACM TOMS 29 (2003) 1–26;
SUNDIALS' SUNAdaptController_Soderlind (classical while steps to remember are lacking; one step for a PI
there, two here: of one network's solve of 26 evaluations two save six, and one none).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Protocol, TypedDict

import torch
from torch import Tensor
from typing_extensions import Unpack

from ..errors import ArgumentError
from ..methods.tableau import Number, Tableau
from ..status import Status

NEAR_ZERO = 1e-4  # the least ratio of a step before that is believed; as in Hairer's code DOPRI5 (FACOLD)
LEAST = 1e-300  # a float64 above 0, whose powers are numbers
UNKNOWN = math.nan  # the error ratio of a step before the first, or before a jump
UNSOLVED = 0.5  # dt_new/dt where an implicit step's equations were not solved, as in RADAU5
SLIVER = 1e-3  # of a step: one is stretched by so much rather than leave a shorter one before a stop


def pick(flag: Any, new: Any, old: Any) -> Any:
    """The new number where the flag is set, else the old one: of floats by a bool, of tensors by a tensor."""
    if isinstance(flag, Tensor):
        return torch.where(flag, new, old)
    return new if flag else old


def at_least(x: Any, low: float) -> Any:
    """The larger of both; NaN stays."""
    return x.clamp(min=low) if isinstance(x, Tensor) else max(x, low)


def at_most(x: Any, high: Any) -> Any:
    """The smaller of both; NaN stays."""
    if not isinstance(x, Tensor):
        return min(x, high)
    return torch.minimum(x, high) if isinstance(high, Tensor) else x.clamp(max=high)


def between(x: Any, low: float, high: float) -> Any:
    """The nearest number from low to high; NaN stays."""
    return x.clamp(low, high) if isinstance(x, Tensor) else min(max(x, low), high)


def positive(x: Any) -> Any:
    """A float above 0, or the tensor: 0 to a negative power is ∞ of a tensor, and an error of a float."""
    return x if isinstance(x, Tensor) else max(x, LEAST)


def known(x: Any) -> Any:
    """Whether it is a ratio and not UNKNOWN."""
    return ~torch.isnan(x) if isinstance(x, Tensor) else not math.isnan(x)


def is_finite(x: Any) -> Any:
    """Whether it is a number."""
    return torch.isfinite(x) if isinstance(x, Tensor) else math.isfinite(x)


@dataclasses.dataclass(frozen=True)
class PID:
    """A PID controller of the step size; `I`, `PI` and the presets below are instances.

    pcoeff, icoeff, dcoeff: the three coefficients, in units in which (0, 1, 0) is the classical controller.
    safety: in (0, 1].
    factor_min, factor_max: limits of dt_new/dt in one step.
    dt_min, dt_max: limits of |dt|; a step that would be shorter is an error.
    force_dt_min: such a step is accepted as it is, whatever its error, as torchdiffeq does.
    accept_factor_min: the least factor after an accepted step (torchdiffeq never shrinks there: 1).
    regrow: a step may be longer than the one just accepted though the attempt before was rejected
        (torchdiffeq; it costs further rejections).
    look_ahead: the last steps before a stop (the end, a time of step_at or jump_at) share what is left, as
        `to_stop` says (scipy takes a whole step and what it leaves).

    Raises ArgumentError for a value out of range.
    """

    pcoeff: float = 0.2
    icoeff: float = 0.65
    dcoeff: float = 0.0
    safety: float = 0.9
    factor_min: float = 0.2
    factor_max: float = 10.0
    dt_min: float = 0.0
    dt_max: float = math.inf
    force_dt_min: bool = False
    accept_factor_min: float = 0.2
    regrow: bool = False
    look_ahead: bool = True

    def __post_init__(self) -> None:
        rules = {
            "pcoeff": (math.isfinite(self.pcoeff), "finite"),
            "icoeff": (0 < self.icoeff < math.inf, "positive"),
            "dcoeff": (math.isfinite(self.dcoeff), "finite"),
            "safety": (0 < self.safety <= 1, "in (0, 1]"),
            "factor_min": (0 < self.factor_min < 1, "in (0, 1)"),
            "factor_max": (1 <= self.factor_max <= math.inf, "at least 1"),
            "dt_min": (0 <= self.dt_min < math.inf, "≥ 0"),
            "dt_max": (self.dt_min <= self.dt_max and self.dt_max > 0, "above 0 and ≥ dt_min"),
            "accept_factor_min": (0 < self.accept_factor_min <= 1, "in (0, 1]"),
        }
        for name, (fine, rule) in rules.items():
            if not fine:
                raise ArgumentError(f"controller: {name}={getattr(self, name)!r} must be {rule}.")

    def factor_accepted(self, e0: Number, e1: Number, e2: Number, order: int, after_rejection: Any) -> Number:
        """dt_new/dt after an accepted step: for one clock in floats, for any in tensors.

        e0: its error ratio.
        e1, e2: those of the two steps accepted before, or UNKNOWN.
        order: of the error.
        after_rejection: the attempt before was rejected.
        """
        p, i, d = self.pcoeff / order, self.icoeff / order, self.dcoeff / order
        # A ratio near 0 (a step cut short) says nothing about the next error.
        near, far = at_least(e1, NEAR_ZERO), at_least(e2, NEAR_ZERO)
        factor = self.safety * positive(e0) ** -(p + i + d) * near ** (p + 2 * d) * far**-d
        if self.pcoeff or self.dcoeff:
            factor = pick(known(e2), factor, self.safety * positive(e0) ** (-1.0 / order))
        top = pick(after_rejection & (not self.regrow), 1.0, self.factor_max)
        return at_most(at_least(factor, self.accept_factor_min), top)

    def factor_rejected(self, e0: Number, order: int) -> Number:
        """dt_new/dt after a rejected step: classical, or factor_min where e0 is no number."""
        factor = self.safety * positive(e0) ** (-1.0 / order)
        return pick(is_finite(e0), between(factor, self.factor_min, self.safety), self.factor_min)

    def to_stop(
        self, left: Number, dt: Number, least: Number, e1: Number, after_rejection: Any
    ) -> tuple[Number, Any]:
        """(|t1 − t|, whether it ends on the stop) of the next step, in floats or in tensors.

        A step is stretched to the stop by 1/safety at most, by which it was shortened (not after a rejection:
        the same length would be tried again); where two steps are left, both are half of it. A first step is
        taken as it was given.
        Source: L. F. Shampine, H. A. Watts, the code DERKF (SLATEC), "look ahead two steps".

        left: |stop − t|.
        dt: the |dt| wanted.
        least: the least |dt| that is a step.
        e1: the error ratio of the step accepted before, or UNKNOWN.
        after_rejection: the attempt before was rejected.
        """
        cut = left <= (1.0 + SLIVER) * dt
        if not self.look_ahead:
            return pick(cut, left, dt), cut
        chosen = known(e1)
        stretched = cut | (chosen & (left <= at_most(dt / self.safety, self.dt_max)))
        cut = pick(after_rejection, left <= dt, stretched)
        halved = chosen & (left < 2.0 * dt) & (left >= 2.0 * least)
        return pick(cut, left, pick(halved, 0.5 * left, dt)), cut


class Choices(TypedDict, total=False):
    """The fields of `PID`, each of which a preset lets one choose."""

    pcoeff: float
    icoeff: float
    dcoeff: float
    safety: float
    factor_min: float
    factor_max: float
    dt_min: float
    dt_max: float
    force_dt_min: bool
    accept_factor_min: float
    regrow: bool
    look_ahead: bool


def I(**options: Unpack[Choices]) -> PID:  # noqa: E743
    """The classical (integral) controller.

    options: as of `PID`.
    Source: HNW I, II.4, Eq. (4.13).
    """
    return dataclasses.replace(PID(pcoeff=0.0, icoeff=1.0, dcoeff=0.0), **options)


def PI(**options: Unpack[Choices]) -> PID:
    """Hairer's PI controller for dopri5 (β = 0.04: p = 0.2, i = 0.65).

    options: as of `PID`.
    Source: HNW II, IV.2.
    """
    return dataclasses.replace(PID(pcoeff=0.2, icoeff=0.65, dcoeff=0.0), **options)


def _filter(beta1: float, beta2: float, beta3: float = 0.0) -> PID:
    """A controller from its exponents k·β in Söderlind's order; its set point is the classical one's.

    At rest e = safety^(k/i): a small i with the same safety would keep errors far below the tolerance.
    """
    d = beta3
    p = -beta2 - 2 * d
    i = beta1 - p - d
    return PID(pcoeff=p, icoeff=i, dcoeff=d, safety=0.9**i)


# By name, for a study; docs/accuracy.md has what each costs. H211b and the other filters that also
# remember the last step's ratio are not of this form.
PRESETS = {
    "I": I(),
    "PI": PI(),
    # K. Gustafsson, Control theoretic techniques for stepsize selection in explicit Runge–Kutta
    # methods, ACM TOMS 17 (1991) 533–554: k_I = 0.3/k, k_P = 0.4/k.
    "PI.3.4": _filter(0.7, -0.4),
    # G. Söderlind, Automatic control and adaptive time-stepping, Numer. Algorithms 31 (2002) 281–310.
    "PI.4.2": _filter(0.6, -0.2),
    # G. Söderlind, ACM TOMS 29 (2003) 1–26: second order digital filters.
    "H211PI": _filter(1 / 6, 1 / 6),
    "H312PID": _filter(1 / 18, 1 / 9, 1 / 18),
    # C. A. Kennedy, M. H. Carpenter, Additive Runge–Kutta schemes for convection–diffusion–reaction
    # equations, Appl. Numer. Math. 44 (2003) 139–181.
    "PID": _filter(0.49, -0.34, 0.10),
}


class Attempt(Protocol):
    """What is looked at in an attempted step."""

    error_ratio: float
    finite: bool
    unsolved: bool
    tableau: Tableau


def shortest_step(t: float, span: float, dt_min: float) -> float:
    """The least |dt| that is still a step at t: dt_min, or ten times the spacing of floats there.

    At t = 0 that spacing is 5e-324: a step of 1e-20 of the whole interval gets nowhere either (of a
    unit of time, where the interval is longer: steps may grow tenfold each).
    """
    return max(dt_min, 10.0 * math.ulp(t), 1e-20 * min(span, 1.0))


@dataclasses.dataclass
class Pace:
    """The step size, what the controller remembers of the steps before, and the limit on attempts."""

    controller: PID
    dt: float
    max_steps: float = math.inf
    e1: float = UNKNOWN
    e2: float = UNKNOWN
    after_rejection: bool = False
    non_finite: bool = False
    unsolved: bool = False
    span: float = 0.0

    def too_short(self, t: float) -> bool:
        """Whether dt is no step any more at t. With force_dt_min it is raised to dt_min instead."""
        low = self.controller.dt_min
        if self.dt >= shortest_step(t, self.span, low):
            return False
        if self.controller.force_dt_min and low > 0 and not self.non_finite:
            self.dt = low
            return False
        return True

    def to_stop(self, t: float, left: float) -> tuple[float, bool]:
        """How long the next step is from t, where a stop is so far away, and whether it ends there."""
        least = shortest_step(t, self.span, self.controller.dt_min)
        return self.controller.to_stop(left, self.dt, least, self.e1, self.after_rejection)

    def accepts(self, taken: float, step: Attempt) -> bool:
        """The decision."""
        # A thousandth: t + dt_min is rounded, and the step before a stop may be that much longer.
        forced = self.controller.force_dt_min and taken <= (1.0 + SLIVER) * self.controller.dt_min
        return step.finite and not step.unsolved and (step.error_ratio <= 1.0 or forced)

    def accepted(self, taken: float, step: Attempt) -> None:
        """dt after an accepted step of length taken."""
        ratio, order = step.error_ratio, step.tableau.error_order
        grown = taken * self.controller.factor_accepted(ratio, self.e1, self.e2, order, self.after_rejection)
        # Cut short: its small error says little, the step wanted before stands. (t + dt) − t is rounded,
        # so a whole step may look an ulp shorter than dt.
        if taken < (1.0 - SLIVER) * self.dt:
            self.dt = max(grown, self.dt)
        else:
            self.dt, self.e1, self.e2 = grown, ratio, self.e1
        self.dt = min(self.dt, self.controller.dt_max)
        self.after_rejection = self.non_finite = self.unsolved = False

    def rejected(self, taken: float, step: Attempt) -> None:
        """dt after a rejected step."""
        self.unsolved = step.unsolved
        self.non_finite = not (step.finite or step.unsolved)
        ratio = math.nan if self.non_finite else step.error_ratio
        order = step.tableau.error_order
        factor = UNSOLVED if self.unsolved else self.controller.factor_rejected(ratio, order)
        self.dt, self.after_rejection = taken * factor, True

    def forget(self) -> None:
        """What errors were before says nothing of those to come."""
        self.e1 = self.e2 = UNKNOWN

    @property
    def failure(self) -> Status:
        """Why no shorter step is left."""
        if self.unsolved:
            return Status.NEWTON
        return Status.NON_FINITE if self.non_finite else Status.STEP_UNDERFLOW
