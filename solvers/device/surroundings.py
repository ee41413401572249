"""What a program depends on besides its owner: this machine, and how torch is set."""

from __future__ import annotations

import functools
import platform
import re
import sys
from collections.abc import Hashable
from pathlib import Path

import torch

from .origins import OWN, sources_of, version_of
from .plain import Incomparable, digest


@functools.cache
def machine() -> str:
    """A digest of what stays in a process: versions, platform, the processor's instructions, our sources.

    Inductor compiles for the processor that it runs on (``-march=native``), so all of its flags count.
    """
    versions = (version_of("torch"), version_of("standard"), sources_of(OWN).digest, torch.version.cuda)
    system = (platform.system(), platform.machine(), platform.libc_ver(), sys.byteorder, sys.flags.optimize)
    return digest(versions, system, torch.backends.cpu.get_cpu_capability(), _processor_flags())


def _processor_flags() -> tuple[str, ...]:
    """As Linux tells them; elsewhere the processor's name."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return (platform.processor(),)
    lines = re.findall(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return tuple(sorted({flag for line in lines for flag in line.split()}))


def settings() -> tuple[Hashable, ...]:
    """How torch is set just now, where that changes what is traced or generated; takes microseconds.

    The number of threads is among it: C++ kernels are written for it.
    Raises: Incomparable where every module has hooks.
    """
    everywhere = torch.nn.modules.module
    if (
        everywhere._global_forward_hooks
        or everywhere._global_forward_pre_hooks
        or everywhere._global_backward_hooks
        or everywhere._global_backward_pre_hooks
    ):
        raise Incomparable("hooks that all modules have")
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.mkldnn.enabled,
        torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu"),
        torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda"),
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
    )


def device_facts(device: torch.device) -> tuple[Hashable, ...]:
    """Which device it is; of a CUDA device the model and what it can."""
    if device.type != "cuda":
        return (device.type,)
    return device.type, torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
