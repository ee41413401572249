"""Memory over the number of steps, and over the batch with per-sample steps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

import adamode
from adamode import Backsolve, Direct, Discrete, Interpolating, Reversible
from adamode.adjoint.discrete.tape import Take, Thinning, walk_back
from adamode.memory import LiveStorage

from .cases import Case, make
from .meter import memory
from .ways import Way, ours

STEPS = (50, 100, 200, 500, 1000, 2000)
BATCHES = (4, 16, 64, 256)


def choices(n: int) -> dict[str, adamode.adjoint.arguments.Gradient]:
    """By name, for n steps."""
    return {
        "Direct()": Direct(),
        "Interpolating()": Interpolating(),
        'Discrete(keep="stages")': Discrete(),
        'Discrete(keep="state")': Discrete(keep="state"),
        "Discrete(checkpoints=⌈√N⌉)": Discrete(checkpoints=math.isqrt(n - 1) + 1),
        "Discrete(checkpoints=⌈log₂N⌉)": Discrete(checkpoints=math.ceil(math.log2(n))),
        "Backsolve()": Backsolve(),
        "Reversible()": Reversible(),
    }


@dataclasses.dataclass(frozen=True)
class Growth:
    """kept, peak: bytes, one for each number of steps."""

    kept: list[int]
    peak: list[int]


def exponent(steps: Sequence[int], bytes_: Sequence[int]) -> float:
    """p where bytes ∝ steps^p, fitted."""
    return float(np.polyfit(np.log(steps), np.log(bytes_), 1)[0])


def state_bytes(case: Case) -> int:
    return case.z0.numel() * case.z0.element_size()


def growth(steps: Sequence[int], say: Callable[[str], None]) -> tuple[dict[str, Growth], int]:
    """AdamNODE with dopri5's fixed steps on t in [0, 1]; (by choice, bytes of one state)."""
    case = make("AdamNODE", end=1.0)
    found: dict[str, Growth] = {name: Growth([], []) for name in choices(2)}
    for n in steps:
        for name, gradient in choices(n).items():
            kept, peak = memory(Way(name, ours(gradient, dt=1.0 / n)), case, 0.0)
            found[name].kept.append(kept)
            found[name].peak.append(peak)
        say(f"memory of {n} steps")
    return found, state_bytes(case)


def retaken(steps: int, checkpoints: int) -> float:
    """How many times a step is taken again in the walk back, on average: arithmetic, nothing is solved."""
    thinning, kept = Thinning(max(checkpoints // 2, 1)), set()  # as the checkpointed tape places them
    for n in range(steps):
        if thinning.offer(n):
            kept.add(n)
        kept -= set(thinning.gone)
    actions = walk_back(sorted(kept), steps, checkpoints - len(kept))
    return sum(one.end - one.start for one in actions if isinstance(one, Take)) / steps


@dataclasses.dataclass(frozen=True)
class Batch:
    """theta: bytes.
    backward: by choice, the backward pass's peak beyond what it found kept.
    """

    batch: int
    theta: int
    backward: dict[str, int]


def per_sample(batches: Sequence[int], width: int = 256) -> list[Batch]:
    """NODE, D = 4, a network of width–width and per-sample steps: what the backward pass adds."""
    found = []
    for batch in batches:
        case = make("NODE", batch=batch, dim=4, hidden=(width, width), end=0.5)
        theta = sum(p.numel() * p.element_size() for p in case.dynamics.theta())
        backward = {}
        for name, gradient in (
            ("Discrete()", Discrete()),
            ("Interpolating()", Interpolating()),
            ("Backsolve()", Backsolve()),
        ):
            backward[name] = _backward_peak(case, gradient)
        found.append(Batch(batch, theta, backward))
    return found


def _backward_peak(case: Case, gradient: adamode.adjoint.arguments.Gradient) -> int:
    z0: Tensor = case.z0.clone().requires_grad_()
    theta = case.dynamics.theta()
    with LiveStorage() as meter:
        sol = adamode.solve(
            case.dynamics, z0, case.t, rtol=1e-4, atol=1e-4, stepping="per_sample", gradient=gradient
        )
        loss = (sol.y[-1] * case.w).sum()
        kept = meter.now
        meter.peak = kept
        torch.autograd.grad(loss, [z0, *theta])
    return meter.peak - kept
