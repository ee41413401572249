"""Where a test runs: on the CPU, on a device that is not there, on a CUDA device where there is one.

A test takes `place` (all of them) or `elsewhere` (all but the CPU) and says `place.there(x)` for what it
would say `x.cuda()` for.
"""

from __future__ import annotations

import collections
import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from host_reads import host_reads
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from virtual_device import DEVICE, VirtualDevice, here, there

from adamode.adjoint.dynamics import by_autograd

Waits = collections.Counter[str]


class Place:
    """A device.

    rounding: how far, relatively, a solve of the same steps may be from the CPU's.  compiles: whether
    torch.compile makes programs for it.
    """

    device = torch.device("cpu")
    rounding = 0.0
    compiles = True

    def there(self, x: Any) -> Any:
        """A tensor, a pytree of such, or a module, on the device; a leaf is a leaf there."""
        if isinstance(x, nn.Module):
            return x.to(self.device)
        move = lambda v: v.detach().to(self.device).requires_grad_(v.requires_grad)  # noqa: E731
        return tree_map_only(Tensor, move, x)

    def here(self, x: Any) -> Any:
        """The same on the CPU, detached."""
        return tree_map_only(Tensor, lambda v: v.detach().cpu(), x)

    @contextlib.contextmanager
    def reads(self) -> Iterator[Waits]:
        """Counts the reads of a value by the host, by kind."""
        with host_reads() as found:
            yield found

    @contextlib.contextmanager
    def waits(self) -> Iterator[Waits]:
        """Counts what the host waits for: reads, and copies to the device that are not queued."""
        with self.reads() as found:
            yield found


class Cuda(Place):
    """A device that is there."""

    device = torch.device("cuda", 0)
    rounding = 1e-9

    @contextlib.contextmanager
    def waits(self) -> Iterator[Waits]:
        found: Waits = collections.Counter()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
        found["wait"] = sum("synchroniz" in str(w.message) for w in caught)


class Virtual(Place):
    """One that is not."""

    device = DEVICE
    rounding = 1e-12
    compiles = False

    def __init__(self, device: VirtualDevice):
        self._device = device

    def there(self, x: Any) -> Any:
        return there(x)

    def here(self, x: Any) -> Any:
        return here(x)

    @contextlib.contextmanager
    def reads(self) -> Iterator[Waits]:
        found: Waits = collections.Counter()
        before = self._device.reads.copy()
        try:
            yield found
        finally:
            found.update(self._device.reads - before)

    @contextlib.contextmanager
    def waits(self) -> Iterator[Waits]:
        before = self._device.uploads.copy()
        with self.reads() as found:
            yield found
        found.update({f"upload: {name}": n for name, n in (self._device.uploads - before).items()})


CUDA = pytest.param(
    "cuda",
    marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")],
)


@contextlib.contextmanager
def at(name: str) -> Iterator[Place]:
    """The place of that name."""
    if name == "virtual":
        with VirtualDevice() as device:
            yield Virtual(device)
    else:
        yield {"cpu": Place, "cuda": Cuda}[name]()


@pytest.fixture(scope="session")
def engine_is_known() -> None:
    """How torch's engine may be called is tried once in a process: its read is none of a solve's."""
    by_autograd._engine()


@pytest.fixture(params=["cpu", "virtual", CUDA])
def place(request: pytest.FixtureRequest, engine_is_known: None) -> Iterator[Place]:
    with at(request.param) as found:
        yield found


@pytest.fixture(params=["virtual", CUDA])
def elsewhere(request: pytest.FixtureRequest, engine_is_known: None) -> Iterator[Place]:
    with at(request.param) as found:
        yield found
