"""diffrax and gradsolve: the far end of the pipes to their worker processes."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adamode.models.dynamics import NeuralODE
from adamode.models.fields import MLP

from ..cases import Case
from ..job import Counts, Sample, Unavailable
from ..way import PEER, Way

WORKER = Path(__file__).parents[1] / "jax_worker.py"


class Process:
    """One worker: a request is a line, so is its reply. Idle it waits on its pipe and takes no time."""

    def __init__(self, library: str, platform: str, threads: int):
        flags = f"--xla_cpu_multi_thread_eigen={'false' if threads == 1 else 'true'}"
        env = {**os.environ, "JAX_PLATFORMS": platform, "OMP_NUM_THREADS": str(threads)}
        env["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
        env["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        command = [sys.executable, str(WORKER), library, str(threads)]
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        self.child = subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, stderr=null, text=True)
        self.folder = tempfile.TemporaryDirectory(prefix="adamode-benchmark-")

    def ask(self, **request: Any) -> dict[str, Any]:
        """The reply; RuntimeError with the library's own words, or where the process has ended."""
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(json.dumps(request) + "\n")
        self.child.stdin.flush()
        line = self.child.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker process ended with status {self.child.wait()}")
        reply = json.loads(line)
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply

    def close(self) -> None:
        """Ends the process: its input ends."""
        for stream in (self.child.stdin, self.child.stdout):
            if stream is not None:
                stream.close()
        self.child.wait(timeout=30)
        self.folder.cleanup()


_PROCESSES: dict[tuple[str, ...], Process] = {}


def _process(library: str, case: Case) -> Process:
    platform = "cuda" if case.z0.is_cuda else "cpu"
    key = (library, platform, str(case.z0.dtype), case.name)
    if key not in _PROCESSES:
        for other in [other for other in _PROCESSES if other[-1] != case.name]:
            _PROCESSES.pop(other).close()  # what was compiled for one case is of no use for the next
        _PROCESSES[key] = Process(library, platform, torch.get_num_threads())
    return _PROCESSES[key]


@atexit.register
def close_all() -> None:
    """Ends every worker."""
    while _PROCESSES:
        _PROCESSES.popitem()[1].close()


def spec_of(case: Case, counts: Counts | None) -> dict[str, Any]:
    """A case's equations as data. max_steps: room for four times our steps, for diffrax keeps its checkpoints
    by it; forward only without a limit."""
    dtype = str(case.z0.dtype).removeprefix("torch.")
    steps = counts.accepted if counts is not None and counts.accepted is not None else 1024
    found: dict[str, Any] = {
        "tol": case.tol,
        "kind": case.kind,
        "dtype": dtype,
        "parameters": len(case.theta),
    }
    found["max_steps"] = max(16, 4 * steps) if case.kind == "gradient" else None
    if case.dynamics is None:
        return found | {"equations": "vdp"}
    node, field = isinstance(case.dynamics, NeuralODE), case.dynamics.field
    found |= {"equations": "node"} if node else {"equations": "adamnode", "eps": case.dynamics.eps}
    if isinstance(field, MLP):
        return found | {"field": "mlp", "time": field.time}
    return found | {"field": "conv", "activation": field.activation}


def layout(case: Case, x: Tensor, images: int) -> Tensor:
    """Channels last for convolutions; images: where C is."""
    return x.movedim(images, -1) if case.convolutional else x


class RemoteJob:
    """A job whose work is done, and timed, in the worker."""

    compiled = True

    def __init__(self, library: str, way: str, case: Case, counts: Counts | None):
        self.process, self.way, self.case = _process(library, case), way, case
        file = str(Path(self.process.folder.name) / "case.npz")
        arrays = {f"theta{i}": p for i, p in enumerate(case.theta)}
        arrays |= {
            "z0": layout(case, case.z0, 2),
            "w": layout(case, case.w, 3),
            "t": case.t.to(case.z0.dtype),
        }
        np.savez(file, **{name: x.detach().cpu().numpy() for name, x in arrays.items()})
        reply = self._ask("prepare", file=file, spec=spec_of(case, counts))
        self.first, self.about = reply["first"], reply

    def _ask(self, op: str, **more: Any) -> dict[str, Any]:
        return self.process.ask(op=op, way=self.way, **more)

    def measure(self) -> Sample:
        """One run there."""
        reply = self._ask("measure")
        return Sample(reply["cpu"], reply["wall"])

    def result(self) -> list[Tensor]:
        """Through a file."""
        file = Path(self.process.folder.name) / "result.npz"
        self._ask("result", file=str(file))
        with np.load(file) as data:
            found = [torch.from_numpy(data[name]).double() for name in data.files]
        if self.case.convolutional:
            found[0] = found[0].movedim(-1, 2)
        return found

    def counts(self) -> Counts:
        """What the worker knows."""
        return Counts(nfe=self.about.get("nfe"), rows=self.about.get("rows"))

    def compilations(self) -> int | None:
        """Programs made for this function after the first."""
        return self._ask("compilations")["count"] - 1

    def peak(self) -> int | None:
        """XLA's own figure of what the program needs beyond its arguments and results."""
        return self.about.get("peak")

    def close(self) -> None:
        """Forgets the program."""
        if self.process.child.poll() is None:
            self._ask("forget")


def ways() -> list[Way]:
    """Every way that runs in JAX."""

    def way(name: str, fits: Callable[[Case], bool]) -> Way:
        library = name.split("/")[0]

        def prepare(case: Case, counts: Counts | None) -> RemoteJob:
            if library == "gradsolve" and case.z0.is_cuda:
                raise Unavailable("its general route records on the CPU in float64")
            return RemoteJob(library, name, case, counts)

        return Way(name, PEER, prepare, fits, library, slow=True)  # XLA compiles for seconds

    def gradient(case: Case) -> bool:
        return case.kind == "gradient" and not case.users

    def forward(case: Case) -> bool:
        return case.kind == "forward"

    def hetero(case: Case) -> bool:
        return case.kind == "forward" and case.dynamics is None

    return [
        way("diffrax/checkpoint", gradient),
        way("diffrax/backsolve", gradient),
        way("diffrax/forward", forward),
        way("diffrax/vmap", hetero),
        way("gradsolve/replay", gradient),
        way("gradsolve/record-replay", gradient),
        way("gradsolve/forward", hetero),
    ]
