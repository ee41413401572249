"""Gradient error × time × memory of every way on every model, at three tolerances."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from .cases import Case, Gradients, error, make, reference
from .meter import memory
from .ways import Way, steps_of, ways

TOLERANCES = (1e-4, 1e-6, 1e-8)  # float64: the default, and two tighter
WIDE = (1e-3, 1e-5)  # float32
NOT_MEASURED = "not measured"


@dataclasses.dataclass(frozen=True)
class Cost:
    """error: of the gradient.
    seconds: median of forward + backward.
    ratio: to the first way, the median of the rounds' ratios.
    kept, peak: bytes, after the forward pass and at most.
    failed: what was raised, or NOT_MEASURED.
    """

    error: float
    seconds: float
    ratio: float
    kept: int
    peak: int
    failed: str = ""


def times(all_ways: Sequence[Way], case: Case, tol: float, rounds: int) -> list[list[float]]:
    """[way][round] seconds. In each round every way runs once, so that a slow moment of the machine is
    everybody's; the order turns from round to round."""
    found: list[list[float]] = [[] for _ in all_ways]
    for turn in range(rounds + 1):
        for k in range(len(all_ways)):
            i = (k + turn) % len(all_ways)
            begin = time.perf_counter()
            all_ways[i].gradient(case, tol)
            if turn:  # the first round warms up
                found[i].append(time.perf_counter() - begin)
    return found


def compare(case: Case, right: Gradients, tol: float, rounds: int) -> dict[str, Cost]:
    """All ways on one case at one tolerance."""
    n = steps_of(case, tol)
    able, failed = [], {}
    for way in ways(n):
        if tol < way.from_tol:
            failed[way.name] = NOT_MEASURED
            continue
        try:
            able.append((way, error(way.gradient(case, tol), right)))
        except (RuntimeError, AssertionError) as problem:
            failed[way.name] = f"{type(problem).__name__}: {problem}"
    seconds = times([way for way, _ in able], case, tol, rounds)
    found = {}
    for (way, off), own in zip(able, seconds, strict=True):
        ratio = statistics.median(a / b for a, b in zip(own, seconds[0], strict=True))
        found[way.name] = Cost(off, statistics.median(own), ratio, *memory(way, case, tol))
    nan = float("nan")
    return found | {name: Cost(nan, nan, nan, 0, 0, text) for name, text in failed.items()}


Costs = dict[tuple[str, float], dict[str, Cost]]


def costs(
    models: Sequence[str], tolerances: Sequence[float], rounds: int, say: Callable[[str], None]
) -> tuple[Costs, dict[str, float], dict[tuple[str, float], int]]:
    """(costs by model and tolerance, each reference's own uncertainty, forward steps)."""
    found: Costs = {}
    doubt, steps = {}, {}
    for name in models:
        case = make(name)
        right = reference(case, 1e-13)
        doubt[name] = error(reference(case), right)
        for tol in tolerances:
            found[name, tol] = compare(case, right, tol, rounds)
            steps[name, tol] = steps_of(case, tol)
            say(f"cost of {name} at {tol:g}")
    return found, doubt, steps


def wide_costs(rounds: int, say: Callable[[str], None]) -> tuple[Costs, dict[tuple[str, float], int]]:
    """AdamNODE in float32 with B = 256, D = 32 and a network of 128–128."""
    case = make("AdamNODE", batch=256, dim=32, hidden=(128, 128))
    right = reference(case)
    case = case.to(torch.float32)
    found, steps = {}, {}
    for tol in WIDE:
        found["AdamNODE, wide", tol] = compare(case, right, tol, rounds)
        steps["AdamNODE, wide", tol] = steps_of(case, tol)
        say(f"cost of the wide case at {tol:g}")
    return found, steps
