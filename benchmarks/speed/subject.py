"""A case as a user of each library holds it: the module, the state in the layout it wants, the cotangents."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .cases import Case
from .job import Counts, Tally, TorchJob
from .plain import BatchFirst, ChannelsLast

Forward = Callable[[nn.Module, Tensor], Tensor]  # (f, y0) → y at the times after the first


@dataclasses.dataclass(frozen=True)
class Subject:
    """func: f(t, y).
    y0, w: in its layout.
    theta: func's parameters.
    restore: dL/dy0 (or y) → case's.
    """

    func: nn.Module
    y0: Tensor
    w: Tensor
    theta: tuple[Tensor, ...]
    restore: Callable[[Tensor], Tensor]


def stacked(case: Case) -> Subject:
    """One tensor [K, B, …]."""
    return Subject(case.plain, case.z0, case.w, case.theta, lambda x: x)


def channels_last(case: Case) -> Subject:
    """Convolutions on channels-last memory: the state is [K, B, H, W, C], the kernels are channels-last."""
    func = copy.deepcopy(case.plain).to(memory_format=torch.channels_last)
    y0 = case.z0.permute(0, 1, 3, 4, 2).contiguous()
    w = case.w.permute(0, 1, 2, 4, 5, 3).contiguous()
    return Subject(
        ChannelsLast(func), y0, w, tuple(func.parameters()), lambda x: x.transpose(-1, -2).transpose(-2, -3)
    )


def batch_first(case: Case) -> Subject:
    """[B, K·n], and the cotangents as [B, T − 1, K·n]."""
    if case.dynamics is None:
        return Subject(case.plain, case.z0, case.w.transpose(0, 1), (), lambda x: x)
    shape = case.z0.shape

    def restore(x: Tensor) -> Tensor:
        return x.view(shape[1], shape[0], *shape[2:]).transpose(0, 1)

    w = case.w.transpose(1, 2).flatten(2).transpose(0, 1).contiguous()  # [T-1, B, K·n] first
    y0 = case.z0.transpose(0, 1).flatten(1).contiguous()
    return Subject(BatchFirst(case.plain, shape), y0, w, case.theta, restore)


def gradient_call(subject: Subject, forward: Forward) -> Callable[[], list[Tensor]]:
    """dL/dy0 and dL/dθ: one forward and one backward pass."""

    def call() -> list[Tensor]:
        y0 = subject.y0.detach().requires_grad_()
        loss = (forward(subject.func, y0) * subject.w).sum()
        found = torch.autograd.grad(loss, [y0, *subject.theta])
        return [subject.restore(found[0]), *found[1:]]

    return call


def forward_call(subject: Subject, forward: Forward, last: Callable[[Tensor], Tensor]) -> Callable:
    """z(t_end) without a gradient. last: picks it out of the outputs."""

    def call() -> list[Tensor]:
        with torch.no_grad():
            return [subject.restore(last(forward(subject.func, subject.y0)))]

    return call


def counted(case: Case, subject: Subject, forward: Forward) -> Counts:
    """f's evaluations and VJPs in one run, forward and backward apart."""
    tally = Tally(subject.func)
    if case.kind != "gradient":
        with torch.no_grad():
            forward(tally, subject.y0)
        rows = tally.rows if case.dynamics is None else None
        return Counts(nfe=tally.nfe, rows=rows)
    y0 = subject.y0.detach().requires_grad_()
    loss = (forward(tally, y0) * subject.w).sum()
    nfe = tally.nfe
    torch.autograd.grad(loss, [y0, *subject.theta])
    return Counts(nfe=nfe, nfe_backward=tally.nfe - nfe, vjps=tally.vjps)


def job(
    case: Case,
    subject: Subject,
    forward: Forward,
    *,
    last: Callable[[Tensor], Tensor] = lambda y: y[-1],
    eager: Forward | None = None,
) -> TorchJob:
    """A library's forward solve as a job on this case.

    eager: where forward is compiled, the same without: a module that counts in Python is compiled anew
    at every count.
    """
    if case.kind == "gradient":
        call = gradient_call(subject, forward)
    else:
        call = forward_call(subject, forward, last)
    return TorchJob(
        call,
        lambda: counted(case, subject, eager or forward),
        cuda=subject.y0.is_cuda,
        compiled=eager is not None,
    )
