"""A loop in a CUDA graph: its turns are captured once, and replaying them costs the host one launch.

A graph repeats work on the memory that it was captured with, and looks at nothing else. So a `GraphLoop`
owns the tensors that its loop carries, writes them in place, and copies what comes in and what goes out. Its
first turn is made outside the graph each time: a compiled body then looks whether its owner is what it was,
and says which memory it reads; where that is another, the graph is captured anew.

No GPU was at hand: the logic is tested with a stand-in for the graph, the capture itself by nothing.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import threading
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import torch
from torch import Tensor

from .programs import State

Work = Callable[[], None]  # in place, on tensors that it holds
Body = Callable[[State], State]
PATIENCE = 8  # how often what a loop reads may lie in other memory


class Capture(abc.ABC):
    """How a device remembers work, and does it again on the same memory."""

    conditional = False  # whether a loop can be part of it (`loop`)

    @abc.abstractmethod
    def turn(self) -> contextlib.AbstractContextManager[None]:
        """A time in which nobody else uses what was captured: in this thread, or on another stream."""

    @abc.abstractmethod
    def warm(self, work: Work) -> None:
        """Does the work as a capture would, so that what is made at a first call is made."""

    @abc.abstractmethod
    def capture(self, work: Work) -> Work:
        """Remembers the work without doing it, and returns what does it. Raises where it cannot."""

    def loop(self, goes_on: Callable[[], Tensor], work: Work) -> None:
        """Inside `capture`: the work, as long as goes_on, a 0-d bool."""
        raise NotImplementedError


class CudaGraphs(Capture):
    """Those of one owner on one device: they take turns, so that one pool of memory serves all."""

    def __init__(self, device: torch.device):
        self.device = device
        self.lock, self.done = threading.Lock(), torch.cuda.Event()
        # Warm-up and capture share a stream: cuBLAS keeps a workspace a stream.
        self.stream, self.pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()
        # CUDA has loops in graphs since 12.4 (torch has them since 2.14).
        version, driver = torch.version.cuda, getattr(torch._C, "_cuda_getDriverVersion", int)()
        built = version is not None and tuple(map(int, version.split(".")[:2])) >= (12, 4)
        known = hasattr(torch.cuda.CUDAGraph, "begin_capture_to_while_node")
        self.conditional = known and built and driver >= 12040

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Threads by a lock, streams by an event."""
        with self.lock, torch.cuda.device(self.device):
            stream = torch.cuda.current_stream()
            stream.wait_event(self.done)
            try:
                yield
            finally:
                self.done.record(stream)

    def warm(self, work: Work) -> None:
        """On the stream of the capture."""
        stream = torch.cuda.current_stream()
        self.stream.wait_stream(stream)
        with torch.cuda.stream(self.stream):
            work()
        stream.wait_stream(self.stream)

    def capture(self, work: Work) -> Work:
        """As a CUDA graph. Other threads may go on."""
        graph = torch.cuda.CUDAGraph()
        mode = "thread_local"
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode=mode):
            work()
        return graph.replay

    def loop(self, goes_on: Callable[[], Tensor], work: Work) -> None:
        """A conditional WHILE node, as `while_loop_node` of torch makes it, but in place."""
        graph: Any = torch.cuda.CUDAGraph
        graph = graph.get_currently_capturing_graph()
        graph.begin_capture_to_while_node(goes_on())
        try:
            work()
            graph.set_conditional_handle_for_current_node(goes_on())
        finally:
            graph.end_capture_to_conditional_node()


# By the type of a device, how its work is captured; what is not here is not captured.
ALL = slice(None)
CAPTURES: dict[str, Callable[[torch.device], Capture]] = {"cuda": CudaGraphs}


def _nothing() -> Hashable:
    return None


@dataclasses.dataclass(frozen=True)
class Turns:
    """What a loop does with its state, a tuple of tensors.

    goes_on: state → a 0-d bool.
    body: the state after one turn. Past the end it changes nothing. Its results may be the state's own
        tensors, written in place or as they were.
    first: the body outside the graph, where it has more to do there.
    reads: what the first turn read besides the state, as something to compare.
    """

    goes_on: Callable[[State], Tensor]
    body: Body
    first: Body | None = None
    reads: Callable[[], Hashable] = _nothing


class GraphLoop:
    """A loop on a device whose turns are captured.

    example: a state: shapes, strides, dtypes and device of all that will be given.
    capture: of the device.
    n: turns from one look of the host to the next, at least 2.
    whole: a replay goes on to the end by itself, where the device can.
    wanted: which of the state's tensors are handed out.
    """

    def __init__(
        self,
        turns: Turns,
        example: State,
        capture: Capture,
        *,
        n: int = 8,
        whole: bool = False,
        wanted: slice = ALL,
    ):
        if n < 2:
            raise ValueError(f"n={n}: one turn is made outside the graph, so at least 2 are needed.")
        self.turns, self.capture, self.n = turns, capture, n
        self.whole, self.wanted = whole and capture.conditional, wanted
        with torch.inference_mode(False), torch.no_grad():  # written under any mode
            self.held: State = tuple(torch.empty_like(x, requires_grad=False) for x in example)
            self.flag = torch.empty(1, dtype=torch.bool, device=example[0].device)
        self.replay: Work | None = None
        self.read: Hashable = None
        self.captures = 0

    def run(self, state: State) -> State:
        """The state at the end; one host read a replay."""
        with torch.no_grad(), self.capture.turn():
            replay = self._begun(state)
            replay()
            while not self.whole and bool(self.flag):  # host read
                replay()
            return self._handed_out()

    def advance(self, state: State) -> State:
        """The state after n turns; nothing is read."""
        with torch.no_grad(), self.capture.turn():
            self._begun(state)()
            return self._handed_out()

    def _begun(self, state: State) -> Work:
        """Takes the state and makes the first turn; what makes those after it."""
        for into, x in zip(self.held, state, strict=True):
            _same_kind(into, x)
            into.copy_(x)
        if self.replay is None:
            self.capture.warm(self._first)
        else:
            self._first()
        read = self.turns.reads()
        if self.replay is None or read != self.read:
            self.replay = None  # its memory is free before the next takes some
            self.replay, self.read = self._captured(), read
        return self.replay

    def _captured(self) -> Work:
        self.captures += 1
        if self.captures > PATIENCE:
            raise RuntimeError(f"what it reads lay in other memory {PATIENCE} times")
        if self.whole:
            try:
                return self.capture.capture(self._to_the_end)
            except Exception:  # torch, the driver and a kernel raise unrelated types
                self.whole = False
        return self.capture.capture(self._others)

    def _first(self) -> None:
        self._step(self.turns.first or self.turns.body)
        self._look()  # at its first call outside a graph, as all kernels

    def _others(self) -> None:
        for _ in range(self.n - 1):
            self._step(self.turns.body)
        self._look()

    def _to_the_end(self) -> None:
        self.capture.loop(lambda: self.turns.goes_on(self.held), lambda: self._step(self.turns.body))

    def _look(self) -> None:
        self.flag.copy_(self.turns.goes_on(self.held).reshape(1))

    def _step(self, body: Body) -> None:
        """One turn, in place."""
        after = body(self.held)
        own = {_memory(x) for x in self.held}
        pairs = []
        for into, x in zip(self.held, after, strict=True):
            _same_kind(into, x)
            if x is not into:  # what lies in another carried tensor is read before that is written
                pairs.append((into, x.clone() if _memory(x) in own else x))
        for into, x in pairs:
            into.copy_(x)

    def _handed_out(self) -> State:
        """Copies: the next run writes over its own."""
        return tuple(x.clone() for x in self.held[self.wanted])


def _memory(x: Tensor) -> int:
    return x.untyped_storage()._cdata


def _same_kind(into: Tensor, x: Tensor) -> None:
    """A graph is of one shape, dtype and device; copy_ would convert."""
    if (into.shape, into.dtype, into.device) != (x.shape, x.dtype, x.device):
        raise ValueError(
            f"a tensor {tuple(x.shape)} {x.dtype} on {x.device} cannot stand for the captured "
            f"{tuple(into.shape)} {into.dtype} on {into.device}: make a loop for it."
        )
