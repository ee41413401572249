"""The attempts of a solve: a row each, and of the first and the last ones what they were made of."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from .step.clocks import Each

MOST = 1000  # attempts at the start, and as many at the end, whose vectors are kept: 15 MB at most
ENTRIES = 64  # of a state with one clock
SAMPLES, OF_SAMPLE = 32, 8  # with a clock a sample: so many samples, so many entries of each


@dataclasses.dataclass(frozen=True)
class TraceRow:
    """One attempt.

    t: its start; dt: signed length; error_ratio: ≤ 1 is accepted (NaN with fixed steps); factor: the
    length the controller proposed next over |dt|; nfe: evaluations of func so far; y_norm: RMS of the
    state at its start; stage_norms: RMS of each k_i; stiffness: dt·|λ| (a bound of it, of an implicit step),
    NaN where the method cannot tell; method: that took the step; sample: which sample, in per-sample
    stepping; newton: rejected, since the equations of an implicit step were not solved.
    """

    t: float
    dt: float
    error_ratio: float
    accepted: bool
    factor: float
    nfe: int
    y_norm: float
    stage_norms: tuple[float, ...]
    stiffness: float
    method: str
    sample: int | None = None
    newton: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The row's fields by name."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Look:
    """What one attempt was made of; with a clock a sample, the attempts of the b samples under way.

    vectors: [2 + e + s, c], or [2 + e + s, b, c], of c entries of the state: y0, y1, the e error estimates
        y1 − ŷ1, the s stages.
    errors: e.
    corrections: of an implicit step, of each system solved the sizes of Newton's corrections in tolerances,
        and which clocks were still under way: pairs [iterations].
    renewed: whether ∂f/∂y was evaluated; None of an explicit step.
    """

    vectors: Tensor
    errors: int
    corrections: tuple[tuple[tuple[Tensor, Tensor], ...], ...] = ()
    renewed: Tensor | None = None


def kept_entries(n: int, blocks: int, most: int) -> list[int] | None:
    """Which of a clock's n entries are kept, equally many of each block; None: all."""
    if n <= most:
        return None
    size, own = n // blocks, max(1, most // blocks)
    return [k * size + i for k in range(blocks) for i in range(min(own, size))][:most]


class Looks:
    """The looks of a solve under way: the first `MOST`, and the last."""

    def __init__(self) -> None:
        self.first: list[Look] = []
        self.last: collections.deque[Look] = collections.deque(maxlen=MOST)
        self.n = 0

    def add(self, look: Look) -> None:
        """That of the next attempt."""
        if len(self.first) < MOST:
            self.first.append(look)
        else:
            self.last.append(look)
        self.n += 1

    def get(self, i: int) -> Look | None:
        """That of an attempt; None where it was not kept."""
        if i < len(self.first):
            return self.first[i]
        behind = i - (self.n - len(self.last))
        return self.last[behind] if 0 <= behind < len(self.last) else None


class Attempts(list[TraceRow]):
    """The rows of a solve, with what `Solution.explore` draws of them.

    seen: of each row its look, and which sample's part of it; None where none was kept.
    request: what was solved, as the engine has it; None of a trace that came from a file.
    kept: which entries of the state the looks have; None: all.
    """

    def __init__(
        self,
        rows: Iterable[TraceRow] = (),
        seen: Sequence[tuple[Look, int] | None] = (),
        request: Any = None,
        kept: Sequence[int] | None = None,
    ):
        super().__init__(rows)
        self.seen, self.request, self.kept = list(seen), request, kept

    def then(self, later: Sequence[TraceRow]) -> Attempts:
        """These, and those of a solve that went on."""
        request, kept = self.request, self.kept
        seen: list[tuple[Look, int] | None] = [None] * len(later)
        if isinstance(later, Attempts):
            seen, request = later.seen, request or later.request
            kept = later.kept if self.request is None else kept
        return Attempts([*self, *later], [*self.seen, *seen], request, kept)

    def __reduce__(self) -> tuple[Any, ...]:
        """As rows alone: func need not be one that can be written to a file."""
        return Attempts, (list(self),)

    def __deepcopy__(self, memo: dict[int, Any]) -> Attempts:
        """Rows and looks are never changed."""
        return Attempts(self, self.seen, self.request, self.kept)

    def __repr__(self) -> str:
        if not self:
            return "<no attempts>"
        accepted = sum(row.accepted for row in self)
        methods = "/".join(dict.fromkeys(row.method for row in self))
        samples = {row.sample for row in self} - {None}
        of = f" of {len(samples)} samples" if samples else ""
        sizes = [abs(row.dt) for row in self if row.accepted]
        steps = f", |dt| {min(sizes):.3g} … {max(sizes):.3g}" if sizes else ""
        rejected = len(self) - accepted
        return f"<{len(self)} attempts{of}: {accepted} accepted, {rejected} rejected{steps}, {methods}>"


def looked_at(step: Any, n: int, kept: Tensor | None) -> Look:
    """The look of an attempt. n: stages that there are.  kept: positions of entries, None: all."""
    clocks, result = step.clocks, step.result
    errors = result.errors()
    states = [step.y0, step.y1, *errors, *(result.stages.get(i) for i in range(n))]

    def entries(x: Tensor) -> Tensor:
        rows = clocks.per_sample(x)[:SAMPLES] if isinstance(clocks, Each) else x.reshape(-1)
        return rows if kept is None else rows.index_select(-1, kept)

    vectors = torch.stack([entries(x.detach()).double() for x in states])
    solved = result.solved
    if solved is None:
        return Look(vectors, len(errors))
    return Look(vectors, len(errors), tuple(solved.corrections), solved.renewed)
