"""What every test runs under: one thread, fixed seeds, no network, no plots on a screen."""

from __future__ import annotations

import os
import random
import signal
import socket
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # also for the processes that tests start
os.environ.setdefault("MPLBACKEND", "Agg")
# The processor's flags are believed: ten probes of the C++ compiler cost more than the code generated here.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")

import numpy as np
import pytest
import torch
from devices import elsewhere, engine_is_known, place  # noqa: F401  (fixtures)
from hypothesis import HealthCheck, settings

# A script's background job ignores SIGINT, and so would every process that a test starts from it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# How long an example takes says how busy the machine is.
settings.register_profile(
    "suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")
torch.set_num_threads(1)
# Autograd makes its threads at the first backward pass, for the devices known by then. torch.compile makes
# fake ones known, and with threads for those a forked process could not use autograd: so make them now.
torch.ones(1, requires_grad=True).sum().backward()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several processes, the tests of a file go to one: they share runs, programs and an install."""
    if config.getoption("dist") != "load":  # another way was asked for
        return None
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False  # a file of few tests may be the longest: not at the end
    return LoadFileScheduling(config, log)


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_native_programs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A native program takes a minute to build: only tests of them have any, most as the plain functions that
    they are made of (`adamode.solvers.device.natives.MODE`)."""
    if "native" not in request.keywords:
        monkeypatch.setattr("adamode.solvers.device.natives.MODE", "off")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to anything but this machine is an error."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> object:
        local = not isinstance(address, tuple) or address[0] in ("127.0.0.1", "::1", "localhost")
        if not local:
            raise RuntimeError(f"a test wants to reach the network: {address!r}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def float64() -> Iterator[None]:
    """float64 as torch's default dtype during a test."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
