"""Every error and warning of the project, in one tree.

AdamodeError
├── ArgumentError            (ValueError)     a value that has no meaning here
│   └── FaceArgumentError    (AssertionError) the same, through torchdiffeq's face
├── ArgumentTypeError        (TypeError)      an argument of the wrong type
│   └── FaceTypeError        (AssertionError)
├── DynamicsError            (ValueError)     what func returned does not fit its state
├── SecondDerivativeError    (RuntimeError)   a hand-derived gradient differentiated again
├── ReconstructionError      (RuntimeError)   the reverse solve lost the forward solution
├── NotRepeatableError       (RuntimeError)   func gave another value when evaluated again
├── DataError                (ValueError)     a data file that is damaged or of another kind
│   └── MissingDataError                      data that are not where they are looked for
├── CheckpointError          (ValueError)     a checkpoint or run folder that does not fit
├── TrainingError            (RuntimeError)   training cannot go on (NaN loss, failed solve)
└── SolverError              (RuntimeError)   a solve that cannot go on: t, dt, status, stats
    ├── StepSizeUnderflow
    ├── TooManySteps
    ├── NonFiniteDynamics
    ├── NewtonDiverged
    ├── ResetError                            resets that do not let the solve go on
    └── FaceSolverError      (AssertionError)
AdamodeWarning               (UserWarning)

torchdiffeq checks with ``assert``; programs that catch its ``AssertionError`` keep working,
because the errors raised through ``odeint`` and ``odeint_adjoint`` derive from it as well.
Attributes live in ``args``, and texts are built in ``__str__``: an error survives pickling.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from typing import Any

from .status import REMEDY, Status


class AdamodeError(Exception):
    """Root of all errors that this project raises on purpose."""


class AdamodeWarning(UserWarning):
    """The call works, but probably not as intended."""


class ArgumentError(AdamodeError, ValueError):
    """An argument whose value is refused: the text names the argument, its value, the rule, the way out."""


class FaceArgumentError(ArgumentError, AssertionError):
    """ArgumentError through torchdiffeq's face."""


class ArgumentTypeError(AdamodeError, TypeError):
    """An argument whose type is refused."""


class FaceTypeError(ArgumentTypeError, AssertionError):
    """ArgumentTypeError through torchdiffeq's face."""


class DynamicsError(AdamodeError, ValueError):
    """What the dynamics returned does not fit the state (shape, dtype, device, type)."""


class FaceDynamicsError(DynamicsError, AssertionError):
    """DynamicsError through torchdiffeq's face."""


class SecondDerivativeError(AdamodeError, RuntimeError):
    """The gradient of a hand-derived gradient was asked for; it is not defined there."""

    def __str__(self) -> str:
        if self.args:
            return str(self.args[0])
        return (
            "second derivative: the backward pass of this adjoint is hand-derived and not itself "
            "differentiable, so the gradient of this gradient would be silently wrong. Use "
            "adamode.odeint(...) or adamode.solve(..., gradient=adamode.Direct()), which "
            "differentiate through the steps and have derivatives of every order."
        )


class ReconstructionError(AdamodeError, RuntimeError):
    """The reverse solve has drifted from the stored forward solution."""


class NotRepeatableError(AdamodeError, RuntimeError):
    """func gave another value when it was evaluated again.

    off: by how much, relative to its largest entry.
    why: a sentence on why that matters, where no adjoint asked.
    """

    def __init__(self, off: float, why: str = ""):
        super().__init__(off, why)
        self.off, self.why = off, why

    def __str__(self) -> str:
        if self.why:
            return random_sentence(self.off, self.why)
        return (
            f"func evaluated again at the same time and state differs by {self.off:.3g} of its largest "
            "entry: it has randomness or memory (dropout, BatchNorm in training mode). This adjoint "
            "evaluates func anew in the backward pass and would differentiate another function. Use "
            "func.eval(), fix the randomness for the whole solve, or gradient=adamode.Discrete() or "
            "adamode.Direct() (adamode.odeint), which keep what was evaluated."
        )


class DataError(AdamodeError, ValueError):
    """A data file that is missing, damaged or of another kind than asked for."""


class MissingDataError(DataError):
    """Data that are not where they are looked for: the text says what was looked for, and how to get it."""


class CheckpointError(AdamodeError, ValueError):
    """A checkpoint or a run folder that cannot be used for what was asked."""


class TrainingError(AdamodeError, RuntimeError):
    """Training cannot go on; the last good checkpoint stays."""


RANDOM = "func is random"


def random_sentence(
    off: float,
    why: str = "An adaptive solve takes that for errors of its steps, and shortens them.",
) -> str:
    """What to say of a func whose values differ by ``off`` of their largest entry.

    why: it matters.
    """
    return (
        f"{RANDOM}: two values at the same time and state differ by {off:.3g} of their largest entry "
        f"(dropout, noise drawn inside func, BatchNorm in training mode). {why} Use func.eval(), or draw the "
        "noise beforehand, so that func is one function of t and y."
    )


class SolverError(AdamodeError, RuntimeError):
    """A solve that cannot go on.

    t, dt: where it stopped, and the step that it tried there.
    status: why, a `Status`.
    stats: what it had cost, a `Stats` or None.
    detail: what else is known, a sentence or "".
    trace: every attempt so far, where ``solve`` was asked for a trace; else None.
    """

    trace: list[Any] | None = None

    def __init__(self, t: float, dt: float, status: Status, stats: Any = None, detail: str = ""):
        super().__init__(t, dt, status, stats, detail)
        self.t, self.dt, self.status, self.stats, self.detail = t, dt, Status(status), stats, detail
        self.where: tuple[int, ...] | None = None
        self.state: Any = None

    def __str__(self) -> str:
        steps = ""
        if self.stats is not None:
            steps = f" after {self.stats.n_accepted} accepted and {self.stats.n_rejected} rejected steps"
        where = f"{self.status.name} at t={self.t:.6g}, dt={self.dt:.3e}{steps}"
        if self.detail.startswith(RANDOM):  # the step size is not to blame
            return f"{self.detail} ({where})"
        detail = f" {self.detail}" if self.detail else ""
        return f"{where}.{detail} {REMEDY[self.status]}"


class StepSizeUnderflow(SolverError):
    """The step fell below what the time's number format, or dt_min, allows."""


class TooManySteps(SolverError):
    """max_steps attempts were not enough to reach the end."""


class NonFiniteDynamics(SolverError):
    """The dynamics returned NaN or infinity, and shorter steps did not help."""


class NewtonDiverged(SolverError):
    """The equations of an implicit step could not be solved, and shorter steps did not help."""


class ResetError(SolverError):
    """Resets that do not let the solve go on: an event that fires again at once, or without end."""

    def __str__(self) -> str:
        return str(self.detail)


class FaceSolverError(SolverError, AssertionError):
    """SolverError through torchdiffeq's face."""


_BY_STATUS = {
    Status.STEP_UNDERFLOW: StepSizeUnderflow,
    Status.MAX_STEPS: TooManySteps,
    Status.NON_FINITE: NonFiniteDynamics,
    Status.NEWTON: NewtonDiverged,
}


def solver_error(t: float, dt: float, status: Status, stats: Any, detail: str = "") -> SolverError:
    """The SolverError subclass that belongs to a status."""
    return _BY_STATUS[status](t, dt, status, stats, detail)


def nearest(name: str, known: Iterable[str]) -> str:
    """What to say after a colon of a name that is not known: the nearest, then all of them."""
    known = sorted(known)
    if not known:
        return "there is none."
    hint = did_you_mean(name, known)
    if hint:
        return f"{hint}Known: {', '.join(known)}."
    return f"take {'one of ' if len(known) > 1 else ''}{', '.join(known)}."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question with the nearest names, at most two, and a space after it; "" where none is near.

    Upper case, hyphens and underscores do not matter. Offered is the first kind that there is: the same name,
    names that begin so, with these initials (vdp: van-der-pol), with this in them, spelt alike.
    """
    asked = _plain(str(name))
    names = {each: _plain(each) for each in sorted(known, key=lambda each: (len(each), each))}
    words = {each: re.split(r"[\W_]+", each.casefold()) for each in names}
    alike = difflib.get_close_matches(asked, names.values(), n=2, cutoff=0.5)
    kinds = (
        [each for each in names if names[each] == asked],
        [each for each in names if len(asked) > 1 and names[each].startswith(asked)],
        [each for each in names if len(asked) > 1 and "".join(w[:1] for w in words[each]).startswith(asked)],
        [each for each in names if asked in (names[each] if len(asked) > 2 else words[each])],
        [_of_this_case(name, [e for e in names if names[e] == plain]) for plain in dict.fromkeys(alike)],
    )
    close = next((kind for kind in kinds if kind and asked), [])[:2]
    return f"did you mean {' or '.join(map(repr, close))}? " if close else ""


def _of_this_case(name: str, same: list[str]) -> str:
    """Of names that differ in their case alone, the one written most like ``name``."""
    return max(same, key=lambda each: difflib.SequenceMatcher(None, str(name), each).ratio())


def _plain(name: str) -> str:
    """The letters and digits of a name, in lower case."""
    return re.sub(r"[\W_]+", "", name.casefold())


def check_choice(argument: str, value: Any, known: Collection[str]) -> None:
    """Raises ArgumentError, with the nearest names, unless value is one of the known."""
    if not isinstance(value, str) or value not in known:
        raise ArgumentError(f"{argument}={value!r} is not known: {nearest(str(value), known)}")


def first_line(said: object, most: int = 190) -> str:
    """What an error, or another text, says in its first line, cut between words where it is longer."""
    line = next((" ".join(line.split()) for line in str(said).splitlines() if line.strip()), "")
    if len(line) <= most:
        return line or "no reason given"
    whole = line[: most - 1].rpartition(" ")[0].rstrip(" ,;:")
    return f"{whole} …" if whole else f"{line[: most - 1]}…"  # of one word its beginning
