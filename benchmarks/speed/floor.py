"""The least that any solver on this field can take: its evaluations of f and VJPs, with nothing around them.

Two floors: f and its VJPs by eager autograd, state and parameters together for each stage; and the
hand-written field, the parameters' gradients of a step's stages together. Both make as many as our own run.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .cases import Case
from .job import Counts, TorchJob, Unavailable
from .peers.ours import channels_last as ours_channels_last
from .subject import Subject, channels_last, stacked
from .way import FLOOR, Way


def steps_of(counts: Counts) -> list[int]:
    """How many VJPs belong to each accepted step: all alike, the first stage's with the last one's."""
    vjps, steps = counts.vjps or 0, max(counts.accepted or 1, 1)
    each, rest = divmod(vjps, steps)
    return [each + (k < rest) for k in range(steps)]


def autograd_run(subject: Subject, t: Tensor, cotangent: Tensor, counts: Counts) -> Callable[[], None]:
    """nfe evaluations under grad mode, each but the surplus followed by its VJP."""

    def run() -> None:
        y0 = subject.y0.detach().requires_grad_()
        inputs = [y0, *subject.theta]
        # All graphs at once would be the memory of a solve; f and VJP in turn take the same time.
        for k in range(counts.nfe or 0):
            dy = subject.func(t, y0)
            if k < (counts.vjps or 0):
                torch.autograd.grad(dy, inputs, cotangent)

    return run


def hand_run(dynamics: Any, z0: Tensor, t: Tensor, counts: Counts) -> Callable[[], None]:
    """nfe + recomputed evaluations of the fast field, the VJPs, and one product a layer for each step."""
    cotangent = torch.ones_like(z0)

    @torch.no_grad()
    def run() -> None:
        left = (counts.nfe or 0) + (counts.nfe_backward or 0)
        for n in steps_of(counts):
            kept, deltas = [], []
            for _ in range(n):
                saved = dynamics.forward(t, z0)[1]
                kept.append(saved)
                deltas.append(dynamics.vjp(saved, cotangent)[1])
            left -= n
            if kept:
                dynamics.parameter_gradients(kept, deltas, None)
        for _ in range(left):
            dynamics.forward(t, z0)

    return run


def forward_run(f: Callable[[Tensor, Tensor], Any], z0: Tensor, t: Tensor, nfe: int) -> Callable[[], None]:
    """nfe evaluations without autograd."""

    @torch.no_grad()
    def run() -> None:
        for _ in range(nfe):
            f(t, z0)

    return run


def _job(run: Callable[[], None], counts: Counts, *, cuda: bool) -> TorchJob:
    def call() -> list[Tensor]:
        run()
        return []

    return TorchJob(call, lambda: counts, cuda=cuda)


def _needed(counts: Counts | None) -> Counts:
    if counts is None or counts.nfe is None:
        raise Unavailable("a floor repeats the evaluations of our own eager run, which is not among the ways")
    return counts


def _autograd(case: Case, counts: Counts | None, layout: Any = stacked) -> TorchJob:
    counts, subject = _needed(counts), layout(case)
    t = case.t[0].to(case.z0.dtype)
    if case.kind != "gradient":
        return _job(
            forward_run(subject.func, subject.y0, t, counts.nfe or 0), counts, cuda=subject.y0.is_cuda
        )
    return _job(
        autograd_run(subject, t, torch.ones_like(subject.y0), counts), counts, cuda=subject.y0.is_cuda
    )


def _hand(case: Case, counts: Counts | None, *, layout: bool = False) -> TorchJob:
    counts = _needed(counts)
    dynamics, z0 = ours_channels_last(case) if layout else (copy.deepcopy(case.dynamics), case.z0)
    t = case.t[0].to(z0.dtype)
    if case.kind != "gradient":
        return _job(forward_run(dynamics.forward, z0, t, counts.nfe or 0), counts, cuda=case.z0.is_cuda)
    return _job(hand_run(dynamics, z0, t, counts), counts, cuda=case.z0.is_cuda)


def ways() -> list[Way]:
    """Both floors; on a convolutional case on channels-last memory too."""

    def convolutional(case: Case) -> bool:
        return case.convolutional

    def hand_written(case: Case) -> bool:
        return case.dynamics is not None and not case.users

    return [
        Way("floor/autograd", FLOOR, _autograd),
        Way("floor/hand-written", FLOOR, _hand, hand_written),
        Way(
            "floor/autograd/channels-last",
            FLOOR,
            lambda case, counts: _autograd(case, counts, channels_last),
            convolutional,
        ),
        Way(
            "floor/hand-written/channels-last",
            FLOOR,
            lambda case, counts: _hand(case, counts, layout=True),
            convolutional,
        ),
    ]
