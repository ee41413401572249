"""One way on one case, ready to run: what the timing asks of it, and how torch's ways do it."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from adamode.memory import peak_of


@dataclasses.dataclass(frozen=True)
class Sample:
    """Seconds of one call: of the processor, and on the clock (on CUDA between two events)."""

    cpu: float
    wall: float


@dataclasses.dataclass(frozen=True)
class Counts:
    """nfe: evaluations of f in the forward pass.
    nfe_backward: of f in the backward pass.
    vjps: its VJPs.
    accepted: steps.
    rows: evaluations × samples, where samples leave the batch. None: not known.
    """

    nfe: int | None = None
    nfe_backward: int | None = None
    vjps: int | None = None
    accepted: int | None = None
    rows: int | None = None


class Job(Protocol):
    """What the timing asks for."""

    first: float  # seconds of the first call, compiling included
    compiled: bool

    def measure(self) -> Sample:
        """Runs the way once, between two readings of both clocks."""

    def result(self) -> list[Tensor]:
        """What the last run found, in float64: dL/dz0 and dL/dθ, or z(t_end)."""

    def counts(self) -> Counts:
        """Of one run, counted apart from the timing."""

    def compilations(self) -> int | None:
        """After the first call; None where nothing is compiled."""

    def peak(self) -> int | None:
        """Bytes, the most in one run beyond what was there; None where it is not known."""

    def close(self) -> None:
        """Frees what it holds."""


class Unavailable(Exception):
    """This way cannot take this case; the text says why."""


def graphs() -> int:
    """Graphs that torch.compile has made in this process; 0 where it was never asked."""
    module = sys.modules.get("torch._dynamo.utils")
    return 0 if module is None else int(module.counters["stats"]["unique_graphs"])


class TorchJob:
    """call() → the tensors of `Job.result`; count() runs once too. cuda: whether it runs there."""

    def __init__(
        self,
        call: Callable[[], list[Tensor]],
        count: Callable[[], Counts],
        *,
        cuda: bool,
        compiled: bool = False,
    ):
        self.call, self.count, self.cuda, self.compiled = call, count, cuda, compiled
        self.again = 0  # graphs that this job's runs have compiled after the first
        begin = time.perf_counter()
        self.found = call()
        self._wait()
        self.first = time.perf_counter() - begin

    def _wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def measure(self) -> Sample:
        """One run between two readings."""
        self.found, before = [], graphs()
        sample = self._measure_events() if self.cuda else self._measure_clocks()
        self.again += graphs() - before
        return sample

    def _measure_clocks(self) -> Sample:
        cpu, wall = time.process_time(), time.perf_counter()
        self.found = self.call()
        return Sample(time.process_time() - cpu, time.perf_counter() - wall)

    def _measure_events(self) -> Sample:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        cpu = time.process_time()
        begin.record()
        self.found = self.call()
        end.record()
        torch.cuda.synchronize()
        return Sample(time.process_time() - cpu, begin.elapsed_time(end) / 1e3)

    def result(self) -> list[Tensor]:
        """In float64 on the CPU."""
        return [x.detach().double().cpu() for x in self.found]

    def counts(self) -> Counts:
        """One run that counts."""
        before = graphs()
        found = self.count()
        self.again += graphs() - before
        return found

    def compilations(self) -> int | None:
        """Graphs that torch.compile has made in this job's runs."""
        return self.again if self.compiled else None

    def peak(self) -> int | None:
        """Storages alive under a dispatch mode; on CUDA the allocator's own maximum."""
        self.found = []
        if self.compiled and not self.cuda:  # a dispatch mode does not see what compiled code allocates
            return None
        return peak_of(self.call, torch.device("cuda" if self.cuda else "cpu"))

    def close(self) -> None:
        """Lets go of all tensors."""
        self.found = []


class _Seen(torch.autograd.Function):
    """The identity; its backward pass counts one VJP."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tally: Tally) -> Tensor:
        ctx.tally = tally
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        ctx.tally.vjps += 1
        return g, None


class Tally(nn.Module):
    """f with its evaluations, their rows, and its VJPs by autograd counted."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner, self.nfe, self.vjps, self.rows = inner, 0, 0, 0

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """f(t, y), counted."""
        self.nfe, self.rows = self.nfe + 1, self.rows + y.shape[0]
        return self.seen(self.inner(t, y))

    def seen(self, dy: Tensor) -> Tensor:
        """dy, its VJPs counted."""
        return _Seen.apply(dy, self) if dy.requires_grad else dy
