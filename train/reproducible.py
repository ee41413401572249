"""Everything that decides a random number, as one state that a checkpoint can hold."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import random
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seeds the global generators of Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """The states of the global generators, in types that ``weights_only`` loading accepts."""
    legacy: Any = np.random.get_state()
    kind, keys, position, has_gauss, cached = legacy
    words = torch.from_numpy(keys.astype(np.int64))
    return {
        "python": random.getstate(),
        "numpy": [str(kind), words, position, has_gauss, float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def restore_rng_state(state: dict[str, Any]) -> None:
    """Puts the generators back to a state that `rng_state` returned."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])


@contextlib.contextmanager
def drawing_from(seed: int, device: torch.device) -> Iterator[None]:
    """torch's generators of the CPU, and of a CUDA device, are seeded inside, and what they were
    afterwards."""
    others = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(others):
        torch.default_generator.manual_seed(seed)
        if others:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


# A prime above any number of epochs or ranks: no two pairs of a seed and one of them share random numbers.
STRIDE = 1_000_003


def epoch_order(n: int, seed: int, epoch: int) -> torch.Tensor:
    """The order in which an epoch visits its n samples: a function of seed and epoch alone.

    So a run that goes on in the middle of an epoch needs its position only, not a generator.
    """
    generator = torch.Generator().manual_seed((seed * STRIDE + epoch) % 2**63)
    return torch.randperm(n, generator=generator)


def processor() -> str:
    """The name of the processor; nothing that tells whose it is."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):  # not Linux
        cpus = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        found = re.search(r"^model name\s*:\s*(.+)$", cpus, re.MULTILINE)
        name = found.group(1).strip() if found else name
    return name


def versions() -> dict[str, str]:
    """Versions of Python, the machine and every installed package, by name."""
    found = {
        "python": platform.python_version(),
        "platform": sys.platform,
        "machine": platform.machine(),
    }
    return found | _packages()


@functools.cache  # some tenths of a second, and what is imported stays what it was
def _packages() -> dict[str, str]:
    packages: dict[str, str] = {}
    for package in metadata.distributions():
        words = package.metadata
        name = words["Name"] if words is not None else None
        if name:  # a damaged installation has none
            packages.setdefault(name.lower(), str(words["Version"]))
    return {name: packages[name] for name in sorted(packages)}


@contextlib.contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Inside, torch refuses or replaces operations whose results vary; afterwards all is as before."""
    if not wanted:
        yield
        return
    # cuBLAS reads it when it starts, and torch refuses to go on without it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    algorithms = torch.are_deterministic_algorithms_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(algorithms)
        torch.backends.cudnn.benchmark = benchmark
