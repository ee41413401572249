"""Walks the combinations, and names the smallest one that shows each fault."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import re
from collections.abc import Iterable, Iterator

from adamode import SecondDerivativeError

from .cases import BY_PROGRAMS, CELLS, OPTIONS, WHOLE, Case, possible
from .check import run
from .refusals import judge, refused

SIZE = 6  # options at once: all pairs occur, and still the masks (an end that hides outputs) are few


def blocks(stepping: str, gradient: str, seed: int = 0) -> Iterator[Case]:
    """Every cell with no option and with each, several at once; what is refused is refused alone.

    (A second derivative that is refused is so after all that is checked without an option.)

    The options are dealt anew for every cell, each to where it meets most options for the first time; the
    pairs that have not met then follow.
    """
    draw = random.Random(seed)
    met: set[frozenset[str]] = set()
    for state, backwards in CELLS:
        bare = Case(stepping, gradient, state, backwards, frozenset())
        if not refused_late(bare):
            yield bare
        names = draw.sample(sorted(OPTIONS), len(OPTIONS))
        alone = [o for o in names if refused(Case(stepping, gradient, state, backwards, frozenset({o})))]
        for option in alone:
            yield Case(stepping, gradient, state, backwards, frozenset({option}))
        for options in deal(bare, [name for name in names if name not in alone], met):
            met |= pairs_of(options)
            yield Case(stepping, gradient, state, backwards, options)
    cells = itertools.cycle(CELLS[2:])  # not 0-d: per sample it is refused
    for pair in sorted(wanted_pairs(stepping, gradient) - met, key=sorted):
        yield Case(stepping, gradient, *next(cells), pair)


def compiled(stepping: str, gradient: str, seed: int = 0) -> list[Case]:
    """Drawn cases with `compile=True` that are not refused; most with what a whole solve can be made with."""
    draw, found = random.Random(seed), dict[Case, None]()
    for state, backwards in draw.sample(CELLS, 8 if gradient in BY_PROGRAMS.get(stepping, ()) else 2):
        names = sorted(OPTIONS) if draw.random() < 0.125 else sorted(WHOLE)
        options: frozenset[str] = frozenset()
        for name in draw.sample(names, draw.randint(0, 4)):
            more = Case(stepping, gradient, state, backwards, options | {name})
            options = more.options if possible(more.options) and not refused(more) else options
        case = Case(stepping, gradient, state, backwards, options, compiled=True)
        if not refused(case):
            found[case] = None
    return list(found)


def implicit(stepping: str, gradient: str, seed: int = 0, n: int = 5) -> list[Case]:
    """Drawn cases by implicit steps that are not refused, half of them by the method that changes; adaptive:
    along a fixed grid order 5 is too coarse for the bounds. `sync_every` does nothing there, and says so."""
    found = dict[Case, None]()
    for case in blocks(stepping, gradient, seed):
        options = case.options - {"dt", "sync_every"}
        own = dataclasses.replace(case, options=options, implicit="radau5")
        if not refused(own):
            found[own] = None
    drawn = random.Random(seed).sample(list(found), min(n, len(found)))
    return [dataclasses.replace(case, implicit="auto") if i % 2 else case for i, case in enumerate(drawn)]


def wanted_pairs(stepping: str, gradient: str) -> set[frozenset[str]]:
    """The pairs of options that are possible and of which neither is refused alone."""
    fine = [o for o in OPTIONS if not refused(Case(stepping, gradient, "[B, D]", False, frozenset({o})))]
    return set(filter(possible, pairs_of(frozenset(fine))))


def refused_late(bare: Case) -> bool:
    """Whether asking for second derivatives is refused, after all that the case without options checks."""
    twice = dataclasses.replace(bare, options=frozenset({"twice"}))
    return [entry.error for entry in refused(twice)] == [SecondDerivativeError]


def pairs_of(options: frozenset[str]) -> set[frozenset[str]]:
    """All pairs."""
    return set(map(frozenset, itertools.combinations(options, 2)))


def deal(bare: Case, names: list[str], met: set[frozenset[str]]) -> list[frozenset[str]]:
    """The options in groups of up to SIZE, with as many pairs as can be that have not met.

    What is refused together is not in one group, where it would hide the others.
    """

    def together(options: frozenset[str]) -> bool:
        return possible(options) and not refused(dataclasses.replace(bare, options=options))

    groups: list[frozenset[str]] = [frozenset()] * max(1, math.ceil(len(names) / SIZE))
    for name in names:
        fits = [i for i, group in enumerate(groups) if len(group) < SIZE and together(group | {name})]
        if not fits:
            groups.append(frozenset({name}))
            continue
        best = max(fits, key=lambda i: (len(pairs_of(groups[i] | {name}) - pairs_of(groups[i]) - met), -i))
        groups[best] |= {name}
    return [group for group in groups if group]


def everything(stepping: str, gradient: str, most: int = 2) -> Iterator[Case]:
    """Every cell with every set of up to `most` options: for a night."""
    for state, backwards in CELLS:
        for n in range(most + 1):
            for options in map(frozenset, itertools.combinations(OPTIONS, n)):
                if possible(options):
                    yield Case(stepping, gradient, state, backwards, options)


def smaller(case: Case, told: str) -> tuple[Case, str]:
    """The case with as few of its options as show a fault, and what they show."""
    for option in sorted(case.options):
        fewer = dataclasses.replace(case, options=case.options - {option})
        fault = judge(fewer, run(fewer))
        if fault is not None:
            return smaller(fewer, fault)
    return case, told


def faults(cases: Iterable[Case], most: int = 12, whole: list[Case] | None = None) -> list[str]:
    """One line for each set of options that shows a fault; of each the first case and how many more.

    whole: gets the cases that whole-solve programs made.
    """
    found: dict[tuple[frozenset[str], str], list[str]] = {}
    for case in cases:
        outcome = run(case)
        told = judge(case, outcome)
        if whole is not None and outcome.tried == "made":
            whole.append(case)
        if told is None:
            continue
        known = [(o, kind) for o, kind in found if o <= case.options and kind == kind_of(told)]
        if known:
            found[known[0]].append(str(case))
        elif len(found) < most:
            least, fault = smaller(case, told)
            found.setdefault((least.options, kind_of(fault)), []).append(f"{least}\n      {fault[:400]}")
    return [
        lines[0] + (f"\n      and {len(lines) - 1} more" if lines[1:] else "") for lines in found.values()
    ]


def kind_of(fault: str) -> str:
    """A fault's text up to its first number or bracket: the rest differs from state to state."""
    return re.split(r"[\d\[]", fault)[0]
