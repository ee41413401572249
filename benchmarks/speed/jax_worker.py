"""The JAX libraries in a process of their own: one JSON line in, one out; numbers travel as .npz files.

    {"op": "prepare", "way": …, "file": …, "spec": {…}} → {"first": seconds, "peak": bytes, "nfe": …}
    {"op": "measure", "way": …} → {"cpu": …, "wall": …}
    {"op": "result", "way": …, "file": …} → {}  (writes it)
    {"op": "forget", "way": …} → {}

An error of the library is {"error": text}. The end of the input ends the process.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO


def pin(threads: int) -> None:
    """To so many processors, before JAX counts them."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[-threads:]))


class Work:
    """A compiled function of (θ, z0), its arguments on the device, and what it found last."""

    def __init__(self, prepared: Any):
        import jax

        self.prepared, self.wait = prepared, jax.block_until_ready
        begin = time.perf_counter()
        self.found = self.wait(prepared.call())
        self.first = time.perf_counter() - begin

    def measure(self) -> dict[str, float]:
        """Runs the way once, between two readings of both clocks."""
        self.found = None
        cpu, wall = time.process_time(), time.perf_counter()
        self.found = self.wait(self.prepared.call())
        return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


class Worker:
    """Answers requests for one library."""

    def __init__(self, library: str):
        # As a plain file beside this one: the package's own __init__ may import torch, this process does not.
        sys.path.insert(0, str(Path(__file__).resolve().parent))
        self.prepare_way = importlib.import_module(f"jax_{library}").prepare
        self.work: dict[str, Work] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to one request."""
        name, op = request["way"], request["op"]
        if op == "prepare":
            prepared = self.prepare_way(name, request["file"], request["spec"])
            self.work[name] = Work(prepared)
            return {"first": self.work[name].first, **prepared.about(self.work[name].found)}
        work = self.work[name]
        if op == "measure":
            return work.measure()
        if op == "compilations":
            return {"count": work.prepared.compilations()}
        if op == "result":
            work.prepared.save(work.found, request["file"])
            return {}
        del self.work[name]
        return {}

    def serve(self, requests: TextIO, replies: TextIO) -> None:
        """Until the input ends."""
        for line in requests:
            try:
                reply = self.answer(json.loads(line))
            except Exception as problem:  # whatever the library raises is the answer
                reply = {"error": f"{type(problem).__name__}: {' '.join(str(problem).split())[:300]}"}
            replies.write(json.dumps(reply) + "\n")
            replies.flush()


def main() -> None:
    library, threads = sys.argv[1], int(sys.argv[2])
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints does not get among the replies
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        pin(threads)
    Worker(library).serve(sys.stdin, replies)


if __name__ == "__main__":
    main()
