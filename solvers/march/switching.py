"""A solve that changes between an explicit method and an implicit one, each clock on its own.

An explicit step as long as stability allows, dt·|λ| near the method's limit, says that the problem is stiff
there; an implicit one so short that the explicit method would be stable, dt·‖J‖ well inside the limit,
that it is not. A clock changes where several more accepted steps have said so than have not. It takes along
the state and the slope there; its errors before say nothing of the other method's.

With a clock a sample all explicit clocks step until none is left, then the implicit ones, and so on. func
sees the whole batch in either case.

Source: Petzold, as in `methods.auto`; Hairer, Wanner, Solving Ordinary Differential Equations II, IV.2.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from ..methods.stability import real_stability_limit
from ..methods.tableau import Tableau
from ..step.attempt import Clock, Here, Rules
from ..step.controller import UNKNOWN
from ..step.implicit.choose import taker_of
from ..step.runge_kutta import Field
from .clocked import ClockedMarch
from .host import RungeKuttaStepper
from .output import Step
from .samples import SampleSettings, SampleStep
from .stiffness import stiffness

# Of 15 settings, tried on 15 stiff problems at 1e-4 and 15 others at 1e-3 and 1e-5: 1.11 times radau5's
# evaluations on the stiff (geometric mean), 27 changes in all, .90 times dopri5's on the others. With .75,
# .5, 10 and 5 it is 1.23 on the stiff; with 10 in place of the first 5, 1.18; EASY at .5 takes as many, with
# three times the changes where a problem is near the border (van der Pol, μ = 5).
STIFF, EASY = 0.5, 0.25  # of the explicit method's limit on the negative axis
TO_IMPLICIT, TO_EXPLICIT = 5, 5  # by how many accepted steps those that say so must be ahead
WAITING = 101  # in the place of a status: a clock whose turn it is not


@dataclasses.dataclass(frozen=True)
class Switch:
    """When a clock changes its method. limit: the explicit one's, on dt·|λ|."""

    limit: float

    def counted(self, implicit: Any, count: Any, stiff: Any) -> Any:
        """By how many the accepted steps that ask for the other method are ahead of those that do not, 0 or
        more, with the one that says `stiff`.

        Of one clock numbers, of many tensors [b]; stiff: dt·|λ|, or NaN, which asks for nothing.
        """
        long, short = stiff > STIFF * self.limit, stiff < EASY * self.limit
        asks = (long & (implicit ^ True)) | (short & implicit)
        return (count + 1) * asks + (count - 1) * ((asks ^ True) & (count > 0))

    def due(self, implicit: Any, count: Any) -> Any:
        """Whether to change."""
        return ((count >= TO_IMPLICIT) & (implicit ^ True)) | ((count >= TO_EXPLICIT) & implicit)


def switch_of(explicit: Tableau) -> Switch:
    """The rule of a method that changes from this one, and back."""
    return Switch(real_stability_limit(explicit))


class SwitchingStepper:
    """Two steppers on one state with one clock, of which one steps.

    explicit, implicit: their judges tell how stiff the problem is.
    turn: whether it is the implicit one's.
    """

    def __init__(self, explicit: RungeKuttaStepper, implicit: RungeKuttaStepper, switch: Switch):
        self.both, self.switch = (explicit, implicit), switch
        self.turn, self.count = False, 0

    @property
    def now(self) -> RungeKuttaStepper:
        """Which steps."""
        return self.both[self.turn]

    @property
    def y(self) -> Tensor:
        """The state that the next step begins with."""
        return self.now.y

    def initial_step(self, t0: float, end: float, *, before_jump: bool = False) -> float:
        """Of the one that begins."""
        return self.now.initial_step(t0, end, before_jump=before_jump)

    def attempt(self, t0: float, t1: float, *, before_jump: bool = False, evaluate_end: bool = True) -> Step:
        """Tries the step from t0 to t1."""
        return self.now.attempt(t0, t1, before_jump=before_jump, evaluate_end=evaluate_end)

    def restart(self, t: float, *, after_jump: bool = False) -> None:
        """Evaluates the first stage anew; what was before a jump asks for nothing."""
        self.now.restart(t, after_jump=after_jump)
        self.count = 0

    def accept(self, step: Step) -> bool:
        """Moves on to the step's end; whether the method is another one from there."""
        self.now.accept(step)
        self.count = self.switch.counted(self.turn, self.count, step.stiffness)
        if not self.switch.due(self.turn, self.count):
            return False
        before = self.now
        self.turn, self.count = not self.turn, 0
        self.now.take_over(before)
        return True


class SwitchingClocks(ClockedMarch):
    """The same with a clock a sample.

    implicit_now: [b], which clocks take implicit steps.
    count: [b], as of `Switch.counted`.
    turn: whether it is theirs.
    """

    columns = (*ClockedMarch.columns, "implicit_now", "count")

    def __init__(
        self,
        field: Field,
        z0: Tensor,
        settings: SampleSettings,
        *more: Any,
        **options: Any,
    ):
        super().__init__(field, z0, settings, *more, **options)
        explicit, implicit = settings.tableau.between
        self.taker = taker_of(implicit, settings, self.clocks)
        numeric = implicit.numeric(z0.dtype, z0.device)
        self.both: tuple[Rules, Rules] = (
            dataclasses.replace(self.rules, tableau=explicit),
            dataclasses.replace(self.rules, tableau=implicit, numeric=numeric, taker=self.taker),
        )
        self.switch, self.turn = switch_of(explicit), False
        self.rules = self.both[0]
        self.implicit_now = torch.zeros_like(self.clock.non_finite)
        self.count = torch.zeros_like(self.index)
        self._regroup()

    def _also(self) -> Tensor:
        """How many clocks go on whose turn it is."""
        return (self.clock.running & (self.implicit_now == self.turn)).sum()[None]

    def _told(self, numbers: list[Any], running: int) -> None:
        """It is the others' turn where there is none of these left."""
        if running and not numbers[0]:
            self.turn = not self.turn
            self.rules = self.both[self.turn]

    def _try(self, stop: Tensor, jump: Tensor | None = None) -> tuple[SampleStep, Here]:
        """An attempt of the clocks whose turn it is; the others stay as they are."""
        whole, mine = self.clock, self.implicit_now == self.turn
        self.clock = whole.marked(whole.running & ~mine, WAITING)
        step, after = super()._try(stop, jump)
        pairs = zip(after.clock, whole, strict=True)
        clock = self._switched(step, Clock(*(torch.where(mine, new, old) for new, old in pairs)))
        return step, after._replace(clock=clock)

    @torch.no_grad()
    def _switched(self, step: SampleStep, clock: Clock) -> Clock:
        """The clocks after an attempt, some of which change their method."""
        assert self.taker is not None
        stiff = self.rules.clocks.pooled(stiffness(step, self.tolerance), step.t0)
        count = self.switch.counted(self.implicit_now, self.count, stiff)
        self.count = torch.where(step.accepted, count, self.count)
        change = step.accepted & self.switch.due(self.implicit_now, self.count)
        self.count = torch.where(change, 0, self.count)
        self.implicit_now = self.implicit_now ^ change
        self.taker.restarted(change & self.implicit_now)
        e1, e2 = (torch.where(change, UNKNOWN, e) for e in (clock.e1, clock.e2))
        return clock._replace(e1=e1, e2=e2)

    def _restart(self, jumped: Tensor) -> None:
        """What was before a jump asks for nothing."""
        super()._restart(jumped)
        self.count = torch.where(jumped, 0, self.count)
