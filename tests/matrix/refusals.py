"""What is refused, in one table: whatever is not in it must be right."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator

from adamode import AdamodeWarning, ArgumentError, ArgumentTypeError, SecondDerivativeError

from .cases import CELLS, GRADIENTS, OPTIONS, STEPPINGS, Case
from .check import Outcome

ADJOINTS = (
    "Discrete()",
    'Discrete(keep="state")',
    "Discrete(checkpoints=2)",
    "Interpolating()",
    "Backsolve()",
    "Reversible()",
)
OF_ONE_STATE = ADJOINTS[:-1]  # those whose solve takes the method's own steps


@dataclasses.dataclass(frozen=True)
class Refusal:
    """A combination that is refused (error), or whose wish for speed does nothing (AdamodeWarning).

    options: any of these, together with `along` (all of them) and without `unless`.  stepping, gradients,
    states: None for all.  words: of the error's text.  why: what it cannot mean, or what does it instead.
    """

    error: type
    words: str
    why: str
    stepping: str | None = None
    gradients: tuple[str, ...] | None = None
    states: tuple[str, ...] | None = None
    options: tuple[str, ...] = ()
    along: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()

    @property
    def warns(self) -> bool:
        """Whether the solve goes on."""
        return issubclass(self.error, AdamodeWarning)

    def matches(self, case: Case) -> bool:
        """Whether the case is one of these."""
        return (
            self.stepping in (None, "per_sample" if case.per_sample else "shared")
            and (self.gradients is None or case.gradient in self.gradients)
            and (self.states is None or case.state in self.states)
            and (not self.options or bool(case.options & set(self.options)))
            and case.options >= set(self.along)
            and not case.options & set(self.unless)
        )

    def cases(self) -> Iterator[Case]:
        """Each of its options alone, in one cell of each stepping and gradient."""
        steppings = STEPPINGS if self.stepping is None else (self.stepping,)
        for stepping, gradient in itertools.product(steppings, self.gradients or tuple(GRADIENTS)):
            cells = [cell for cell in CELLS if self.states is None or cell[0] in self.states]
            state, backwards = cells[0] if self.states else cells[4]  # [B, D], which all can have
            for option in self.options or ("",):
                yield Case(stepping, gradient, state, backwards, frozenset({option, *self.along} - {""}))


REFUSALS = (
    Refusal(
        ArgumentError,
        "axis 0 of each leaf to be the batch",
        "a state without a batch has no samples; a batch of one does",
        stepping="per_sample",
        states=("0-d",),
    ),
    Refusal(
        ArgumentError,
        "it must be 1-D",
        'one clock has one list of times; `stepping="per_sample"` takes them',
        stepping="shared",
        options=("own times",),
    ),
    Refusal(
        ArgumentError,
        "must be strictly increasing or strictly decreasing",
        "a time given twice is a mistake where all share it; per sample it is padding",
        stepping="shared",
        options=("padded", "stays", "all stay"),
    ),
    Refusal(
        ArgumentError,
        "compact=True needs stepping='per_sample'",
        "only there samples leave the batch",
        stepping="shared",
        options=("compact",),
    ),
    Refusal(
        ArgumentError,
        "a solve must begin with finite numbers",
        "one failed sample would fail all; per sample it is `NON_FINITE` and the others go on",
        stepping="shared",
        options=("NaN",),
    ),
    Refusal(
        ArgumentError,
        "per_sample=True needs a solve with stepping='per_sample'",
        "one clock answers all samples at the same times; ask `sol(q)` and pick",
        stepping="shared",
        options=("asked per sample",),
    ),
    Refusal(
        ArgumentTypeError,
        "its VJP has no place for an input",
        "a function or a module of (t, y, u); a block over a `Driven` field",
        states=("Dynamics",),
        options=("signal",),
    ),
    Refusal(
        SecondDerivativeError,
        "is hand-derived and not itself differentiable",
        "`Direct()` has derivatives of every order",
        gradients=ADJOINTS,
        options=("twice",),
    ),
    Refusal(
        SecondDerivativeError,
        "the gradient of an event's time and state is hand-derived",
        "a solve that ends at a given time has them",
        gradients=("Direct()",),
        options=("watched", "terminal"),
        along=("twice",),
        unless=("all stay",),
    ),
    Refusal(
        AdamodeWarning,
        r"sync_every=4 does nothing here: gradient=Direct\(\) follows autograd through every step",
        "solved with a look at each step",
        stepping="shared",
        gradients=("Direct()",),
        options=("sync_every",),
    ),
    Refusal(
        AdamodeWarning,
        "sync_every=4 does nothing here: (a fixed step|at jump_at|events are looked for)",
        "solved with a look at each step",
        stepping="shared",
        gradients=(*OF_ONE_STATE, "None"),
        options=("dt", "jump_at", "signal", "watched", "terminal"),
        along=("sync_every",),
    ),
    Refusal(
        AdamodeWarning,
        "sync_every=4 does nothing here: a gradient is wanted",
        "solved with a look at each step",
        stepping="per_sample",
        gradients=(*OF_ONE_STATE, "Direct()"),
        options=("sync_every",),
    ),
    Refusal(
        AdamodeWarning,
        "sync_every=4 does nothing here: a program takes steps of one state, and these are of a pair",
        "solved with a look at each step",
        gradients=("Reversible()",),
        options=("sync_every",),
    ),
    Refusal(
        AdamodeWarning,
        "sync_every=4 does nothing here: with stepping='per_sample' .* the host's work at every attempt",
        "solved with a look at each step",
        stepping="per_sample",
        gradients=("None",),
        options=(
            "steps",
            "dense",
            "asked per sample",
            "watched",
            "terminal",
            "trace",
            "step_at",
            "jump_at",
            "signal",
            "dt",
        ),
        along=("sync_every",),
    ),
    Refusal(
        AdamodeWarning,
        "sync_every=4 does nothing here: with stepping='per_sample' outputs before the end are",
        "solved with a look at each step",
        stepping="per_sample",
        gradients=("None",),
        options=("outputs", "padded"),
        along=("sync_every",),
        unless=("end",),
    ),
    Refusal(
        AdamodeWarning,
        "sync_every=4 does nothing here: with stepping='per_sample' a norm .* of a state of several leaves",
        "solved with a look at each step",
        stepping="per_sample",
        gradients=("None",),
        states=("pytree",),
        options=("sync_every",),
    ),
)


def refused(case: Case) -> list[Refusal]:
    """The entries that refuse a case at all."""
    return [entry for entry in REFUSALS if not entry.warns and entry.matches(case)]


def judge(case: Case, outcome: Outcome) -> str | None:
    """What is wrong with an outcome; None where it is right, or refused as listed."""
    listed = refused(case)
    if listed:
        if outcome.kind != "refused":
            return f"listed as refused, but {outcome.kind}: {outcome.text}"
        if not any(outcome.error is entry.error and re.search(entry.words, outcome.text) for entry in listed):
            return f"refused otherwise than listed: {outcome.error.__name__}: {outcome.text}"
        return None
    if outcome.kind == "refused":
        return f"refused, which is not listed: {outcome.error.__name__}: {outcome.text}"
    if outcome.kind != "right":
        return f"{outcome.kind}: {outcome.text}"
    expected = [entry for entry in REFUSALS if entry.warns and entry.matches(case)]
    foreign = [w for w in outcome.warned if not any(re.search(entry.words, w) for entry in expected)]
    if foreign:
        return f"warns, which is not listed: {foreign[0]}"
    if expected and not outcome.warned and not outcome.tried:  # a whole solve needs no sync_every
        return f"listed as a warning, but none came: {expected[0].words}"
    return None


def table() -> str:
    """The refusals as a Markdown table."""
    rows = ["| stepping | asked for | with | answer | because, or instead |", "|---|---|---|---|---|"]
    for entry in REFUSALS:
        asked = " or ".join(OPTIONS[option] for option in entry.options) or "anything"
        if entry.along:
            asked = f"{', '.join(OPTIONS[option] for option in entry.along)} and {asked}"
        if entry.unless:
            asked += f", without {', '.join(OPTIONS[option] for option in entry.unless)}"
        which = []
        if entry.states:
            which.append(f"a state: {', '.join(entry.states)}")
        if entry.gradients:
            which.append(" or ".join(f"`{gradient}`" for gradient in entry.gradients))
        words = re.sub(r"\(([^|()]*)\|.*?\)", r"\1 …", entry.words).replace(".*", "…").replace("\\", "")
        cells = (
            f"`{entry.stepping}`" if entry.stepping else "both",
            asked,
            "; ".join(which) or "any state and gradient",
            f"`{entry.error.__name__}`: “{words}”",
            entry.why,
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"
