"""A stepper and a controller that follow a script: the loop can be tested without numerics."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator

from adamode import PID
from adamode.solvers.methods import METHODS
from adamode.solvers.methods.tableau import Tableau


@dataclasses.dataclass
class ScriptedStep:
    """What the loop looks at, and where the step went."""

    t0: float
    t1: float
    error_ratio: float
    finite: bool
    unsolved: bool = False
    tableau: Tableau = METHODS["dopri5"]


class ScriptedStepper:
    """Accepts (+), rejects (−), answers with a non-finite stage (x) or with implicit equations that were not
    solved (u), letter by letter; then accepts."""

    def __init__(self, script: str = ""):
        self.script: Iterator[str] = iter(script)
        self.log: list[tuple] = []

    def attempt(
        self, t0: float, t1: float, *, before_jump: bool = False, evaluate_end: bool = True
    ) -> ScriptedStep:
        letter = next(self.script, "+")
        self.log.append(("attempt", t0, t1, before_jump, evaluate_end))
        ratio = {"+": 0.5, "-": 2.0, "n": math.nan, "x": math.nan, "0": 0.0, "i": math.inf, "u": 0.5}[letter]
        return ScriptedStep(t0, t1, ratio, finite=letter != "x", unsolved=letter == "u")

    def accept(self, step: ScriptedStep) -> None:
        self.log.append(("accept", step.t1))

    def restart(self, t: float, *, after_jump: bool = False) -> None:
        self.log.append(("restart", t, after_jump))

    @property
    def attempts(self) -> list[tuple[float, float]]:
        return [entry[1:3] for entry in self.log if entry[0] == "attempt"]


class ScriptedController:
    """Factors as prescribed, then 1 after an accepted step and ½ after a rejected one; whole steps."""

    def __init__(
        self,
        accepted: Iterable[float] = (),
        rejected: Iterable[float] = (),
        *,
        dt_min: float = 0.0,
        dt_max: float = math.inf,
        force_dt_min: bool = False,
    ):
        self._accepted, self._rejected = iter(accepted), iter(rejected)
        self.dt_min, self.dt_max, self.force_dt_min = dt_min, dt_max, force_dt_min
        self.asked: list[tuple] = []

    def factor_accepted(self, e0: float, e1: float, e2: float, order: int, after_rejection: bool) -> float:
        self.asked.append(("accepted", e0, e1, e2, order, after_rejection))
        return next(self._accepted, 1.0)

    def factor_rejected(self, e0: float, order: int) -> float:
        self.asked.append(("rejected", e0, order))
        return next(self._rejected, 0.5)

    def to_stop(
        self, left: float, dt: float, least: float, e1: float, after_rejection: bool
    ) -> tuple[float, bool]:
        return PID(look_ahead=False).to_stop(left, dt, least, e1, after_rejection)
