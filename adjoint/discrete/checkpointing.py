"""Which states to keep and which steps to take again: arithmetic on indices, no tensor.

While the number of steps is not known, every stride-th state is kept; when there are more than
asked for, every other one goes and the stride doubles. The walk back then takes the steps between two
kept states again, with the free places filled so that the fewest steps are repeated (binomial
placement, as Griewank's revolve).

Source: A. Griewank, A. Walther, Algorithm 799: Revolve, ACM TOMS 26 (2000) 19–45.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator


class Thinning:
    """Decides online which states stay: at most `most`, evenly spread.

    `offer` is asked once for n = 0, 1, 2, … and says whether state n stays; `gone` then holds the
    indices kept before that go for it.
    """

    def __init__(self, most: int):
        self.most, self.stride = max(most, 1), 1
        self.kept: list[int] = []
        self.gone: list[int] = []

    def offer(self, n: int) -> bool:
        """Whether state n is kept."""
        self.gone = []
        if n % self.stride:
            return False
        self.kept.append(n)
        while len(self.kept) > self.most:
            self.stride *= 2
            self.gone += [k for k in self.kept if k % self.stride]
            self.kept = [k for k in self.kept if k % self.stride == 0]
        return n not in self.gone


@dataclasses.dataclass(frozen=True)
class Take:
    """Take the steps from the kept state `start` up to `end` and keep the state there."""

    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class Back:
    """Walk back step n, whose state is kept; the state may be forgotten then."""

    n: int


def best_split(length: int, free: int) -> int:
    """How far from the kept state to put the next one, with `free` ≥ 1 places.

    β(c, r) = C(c + r, c) steps can be walked back with c places (the start's included) when none is
    taken more than r times; the next state goes as far as r − 1 repetitions of what is before it reach.
    """
    places, r = free + 1, 1
    while math.comb(places + r, places) < length:
        r += 1
    return min(math.comb(places + r - 1, places), length - 1)


def walk_back(kept: list[int], steps: int, free: int) -> Iterator[Take | Back]:
    """All actions to walk back steps − 1, …, 0 from the kept states.

    free: further places, one of which holds the state of the step that is just walked back.
    """
    for start, end in zip(reversed(kept), reversed([*kept[1:], steps]), strict=True):
        yield from _stretch(start, end, max(free - 1, 0))


def _stretch(start: int, end: int, free: int) -> Iterator[Take | Back]:
    if end - start == 1:
        yield Back(start)
        return
    if free == 0:
        for n in range(end - 1, start, -1):
            yield Take(start, n)
            yield Back(n)
        yield Back(start)
        return
    middle = start + best_split(end - start, free)
    yield Take(start, middle)
    yield from _stretch(middle, end, free - 1)
    yield from _stretch(start, middle, free)
