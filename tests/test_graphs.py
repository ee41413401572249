"""A loop in a graph that is replayed: the turns of the plain loop, on tensors of the graph's own."""

import contextlib
import gc
import types
import weakref

import pytest
import torch
from devices import Cuda, Place
from graph_tape import Tape
from problems import f64

from adamode.solvers.device.graphs import PATIENCE, CudaGraphs, GraphLoop, Turns

PLACE = Place()


def goes_on(state):
    """While turns are left."""
    return state[2] > 0


def body(state):
    """(a, b, turns left, log, j) → (b, a + b, one less, with a at place j, j + 1); nothing past the end."""
    a, b, left, log, j = state
    more = left > 0
    log.index_copy_(0, j, torch.where(more, a, log.index_select(0, j)[0])[None])
    return (
        torch.where(more, b, a),
        torch.where(more, a + b, b),
        left - more.long(),
        log,
        torch.where(more, j + 1, j),
    )


def start(place, turns):
    a, b = f64(1.0, 1.5), f64(2.0, 0.5)
    log = torch.full((40, 2), -1.0, dtype=torch.float64)
    return place.there((a, b, torch.tensor(turns), log, torch.tensor([0])))


def plain(state):
    state = tuple(x.clone() for x in state)
    while bool(goes_on(state)):
        state = tuple(x.clone() for x in body(state))
    return state


def capture_of(place, conditional=False):
    return CudaGraphs(place.device) if place.device.type == "cuda" else Tape(conditional=conditional)


def loop_of(place, n=3, kind=GraphLoop, conditional=False, **options):
    return kind(Turns(goes_on, body), start(place, 1), capture_of(place, conditional), n=n, **options)


def same(place, found, expected):
    return all(torch.equal(a, b) for a, b in zip(place.here(found), place.here(expected), strict=True))


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("n", [2, 3, 20])
def test_it_ends_as_the_plain_loop_does_for_one_solve_after_another(place, n, whole):
    loop = loop_of(place, n, conditional=whole, whole=whole)
    for turns in (1, 2, 3, 11, 0, 7):
        state = start(place, turns)
        assert same(place, loop.run(state), plain(state)), turns


class Replaced(GraphLoop):
    """Carried tensors are replaced, not written: a graph goes on with the old ones."""

    def _step(self, body):
        self.held = tuple(body(self.held))


class Overwritten(GraphLoop):
    """What lies in another carried tensor is written over before it is read."""

    def _step(self, body):
        for into, x in zip(self.held, body(self.held), strict=True):
            into.copy_(x)


class Lent(GraphLoop):
    """The result is the graph's own memory."""

    def _handed_out(self):
        return self.held


@pytest.mark.parametrize("turns", [2, 7])
def test_a_result_is_not_written_over_by_the_next_run(place, turns):
    assert keeps(place, GraphLoop, turns)
    assert not keeps(place, Lent, turns)


def keeps(place, kind, turns):
    loop, expected = loop_of(place, kind=kind), plain(start(place, turns))
    first = loop.run(start(place, turns))
    assert same(place, first, expected)
    loop.run(start(place, turns + 1))
    return same(place, first, expected)


def test_a_carried_tensor_that_is_replaced_is_seen(place):
    """The twin of the test that it ends as the plain loop does, spoilt."""
    for kind in (GraphLoop, Replaced):
        loop = loop_of(place, n=8, kind=kind)
        loop.advance(start(place, 7))
        found = loop.advance(start(place, 4))  # comes into tensors that the graph does not know
        assert same(place, found, plain(start(place, 4))) == (kind is GraphLoop)


def moves(state):
    """(a, b, turns left) → (b, a, one less): of each other's memory."""
    a, b, left = state
    return b, a, left - 1


def test_results_may_be_other_carried_tensors(place):
    state = place.there((f64(1.0), f64(2.0), torch.tensor(5)))
    for kind, right in ((GraphLoop, True), (Overwritten, False)):
        loop = kind(Turns(goes_on, moves), state, capture_of(place), n=5)
        found = place.here(loop.run(state))
        assert (found[0].item(), found[1].item()) == (2.0, 1.0) or not right
        assert (found[0].item() != found[1].item()) == right


def test_what_was_given_is_left_as_it_was(place):
    state = start(place, 7)
    loop_of(place).run(state)
    assert same(place, state, start(place, 7))


@pytest.mark.parametrize("past", [0, 1, 5])
def test_replays_past_the_end_change_nothing(place, past):
    loop, state = loop_of(place, n=4), start(place, 3)
    for _ in range(past + 1):
        state = loop.advance(state)
    assert same(place, state, plain(start(place, 3)))


def test_the_host_reads_once_a_replay_and_not_at_all_where_it_asks_for_n_turns(place):
    loop, state = loop_of(place, n=4), start(place, 10)
    loop.run(state)  # captured
    with place.waits() as found:
        loop.run(state)
    assert found.total() == 3  # 4, 3 and 3 turns, the first of all outside the graph
    with place.waits() as found:
        loop.advance(state)
    assert found.total() == 0, found


def test_a_loop_that_ends_by_itself_is_not_looked_at(place):
    loop, state = loop_of(place, conditional=True, whole=True), start(place, 10)
    if not loop.whole:
        pytest.skip("CUDA's loops in graphs need CUDA 12.4")
    loop.run(state)
    with place.waits() as found:
        loop.run(state)
    # The stand-in for the node looks itself: before each of nine turns, and at the end.
    assert found.total() == (0 if place.device.type == "cuda" else 10), found


def test_it_is_captured_once(place):
    loop = loop_of(place)
    for turns in (3, 9, 1):
        loop.run(start(place, turns))
    assert loop.captures == 1


@pytest.mark.parametrize("kind", ["shape", "dtype", "device"])
def test_another_kind_of_state_is_refused(elsewhere, kind):
    loop = loop_of(elsewhere)
    a, *rest = start(elsewhere, 1)
    other = {"shape": lambda: a[:1], "dtype": a.float, "device": lambda: elsewhere.here(a)}[kind]()
    with pytest.raises(ValueError, match="make a loop for it"):
        loop.run((other, *rest))


@pytest.mark.parametrize("change", [lambda x: x.float(), lambda x: x[:1]])
def test_a_body_whose_result_is_of_another_kind_is_refused(place, change):
    def converts(state):
        a, *rest = state
        return (change(a), *rest)

    loop = GraphLoop(Turns(goes_on, converts), start(place, 1), capture_of(place))
    with pytest.raises(ValueError, match="make a loop for it"):
        loop.run(start(place, 1))


def test_a_body_that_reads_a_value_cannot_be_captured(place):
    def looks(state):
        return body(state) if float(state[2]) > 0 else state

    loop = GraphLoop(Turns(goes_on, looks), start(place, 1), capture_of(place))
    with pytest.raises(RuntimeError, match="captur"):
        loop.run(start(place, 5))


def test_a_loop_of_one_turn_is_refused(place):
    with pytest.raises(ValueError, match="n=1"):
        loop_of(place, n=1)


def test_a_loop_that_cannot_be_part_of_a_graph_is_captured_turn_by_turn():
    class Without(Tape):
        def loop(self, goes_on, work):
            raise RuntimeError("no conditional nodes")

    capture = Without(conditional=True)
    loop = GraphLoop(Turns(goes_on, body), start(PLACE, 1), capture, n=3, whole=True)
    for turns in (7, 4):
        assert same(PLACE, loop.run(start(PLACE, turns)), plain(start(PLACE, turns)))
    assert capture.log == ["warm", "capture", "capture", *["replay"] * 5]


def test_what_else_the_body_reads_may_move_some_times():
    weight = [f64(2.0)]

    def scaled(state):
        a, left = state
        more = left > 0
        return torch.where(more, a * weight[0], a), left - more.long()

    def at_end(state):
        return state[1] > 0

    state = (f64(1.0), torch.tensor(6))
    loop = GraphLoop(Turns(at_end, scaled, reads=lambda: weight[0].data_ptr()), state, Tape(), n=3)
    assert loop.run(state)[0] == 2.0**6
    weight[0].fill_(3.0)
    assert (loop.run(state)[0], loop.captures) == (3.0**6, 1)
    old = []
    for k in range(4, 3 + PATIENCE):
        old.append(weight[0])
        weight[0] = f64(float(k))
        assert loop.run(state)[0] == k**6
    weight[0] = f64(1.0)
    with pytest.raises(RuntimeError, match=f"other memory {PATIENCE} times"):
        loop.run(state)


def test_the_first_turn_outside_the_graph_may_do_more():
    outside = []

    def first(state):
        outside.append(len(outside))
        return body(state)

    loop = GraphLoop(Turns(goes_on, body, first), start(PLACE, 1), Tape(), n=3)
    for turns in (7, 4):
        assert same(PLACE, loop.run(start(PLACE, turns)), plain(start(PLACE, turns)))
    assert outside == [0, 1]


def test_a_first_run_in_inference_mode_leaves_a_loop_for_others():
    loop = loop_of(PLACE)
    with torch.inference_mode():
        loop.run(start(PLACE, 7))
    assert same(PLACE, loop.run(start(PLACE, 7)), plain(start(PLACE, 7)))
    with torch.inference_mode():
        assert same(PLACE, loop.run(start(PLACE, 4)), plain(start(PLACE, 4)))


def test_no_memory_of_a_run_outlives_it(place):
    loop, alive = loop_of(place), []
    state = start(place, 7)
    found = loop.run(state)
    alive = [weakref.ref(x) for x in (*state, *found)]
    del state, found
    gc.collect()
    assert not any(one() is not None for one in alive)


def test_a_turn_is_taken_while_it_runs_and_given_back_where_it_fails():
    capture = Tape()

    def fails(state):
        assert capture.taken
        raise RuntimeError("func")

    loop = GraphLoop(Turns(goes_on, fails), start(PLACE, 1), capture)
    with pytest.raises(RuntimeError, match="func"):
        loop.run(start(PLACE, 1))
    assert not capture.taken


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_runs_on_two_streams_take_turns():
    place = Cuda()
    loop, streams = loop_of(place, n=4), [torch.cuda.Stream() for _ in range(2)]
    found = []
    for k in range(20):
        with torch.cuda.stream(streams[k % 2]):
            found.append(loop.run(start(place, k)))
    torch.cuda.synchronize()
    assert all(same(place, one, plain(start(place, k))) for k, one in enumerate(found))


def cuda_of_names(monkeypatch):
    """torch.cuda as a script of what is asked of it; a graph's replay does what was captured."""
    log = []

    class Stream:
        def __init__(self, name="side"):
            self.name = name

        def wait_event(self, event):
            log.append(f"{self.name} waits for the event")

        def wait_stream(self, other):
            log.append(f"{self.name} waits for {other.name}")

    class Event:
        def record(self, stream):
            log.append(f"event in {stream.name}")

    class Graph:
        current = None

        def __init__(self):
            self.work = []

        @staticmethod
        def get_currently_capturing_graph():
            return Graph.current

        def begin_capture_to_while_node(self, predicate):
            log.append("while")
            assert (predicate.shape, predicate.dtype) == ((), torch.bool)

        def set_conditional_handle_for_current_node(self, predicate):
            log.append("again?")

        def end_capture_to_conditional_node(self):
            log.append("end while")

        def replay(self):
            log.append("replay")

    @contextlib.contextmanager
    def capturing(graph, *, pool, stream, capture_error_mode):
        log.append(f"capture on {stream.name}")
        Graph.current = graph
        yield
        Graph.current = None

    @contextlib.contextmanager
    def on(stream):
        log.append(f"on {stream.name}")
        yield

    cuda = types.SimpleNamespace(
        Stream=lambda device: Stream(),
        Event=Event,
        CUDAGraph=Graph,
        graph=capturing,
        stream=on,
        graph_pool_handle=lambda: (0, 1),
        current_stream=lambda: Stream("main"),
        device=lambda device: contextlib.nullcontext(),
    )
    monkeypatch.setattr(torch, "cuda", cuda)
    return log


def test_a_run_on_cuda_warms_up_and_captures_on_one_stream_and_stands_between_waits(monkeypatch):
    log = cuda_of_names(monkeypatch)
    state = (f64(1.0), torch.tensor(2))
    turns = Turns(lambda state: state[1] > 0, lambda state: (state[0] * 2, state[1] - 1))
    loop = GraphLoop(turns, state, CudaGraphs(torch.device("cpu")), n=2)
    expected = ["main waits for the event", "side waits for main", "on side", "main waits for side"]
    expected += ["capture on side", "replay", "event in main"]
    loop.advance(state)
    assert log == expected
    log.clear()
    loop.advance(state)
    assert log == ["main waits for the event", "replay", "event in main"]


@pytest.mark.parametrize(
    ("version", "driver", "whole"),
    [("12.8", 12080, True), ("12.3", 12080, False), ("12.8", 12030, False), (None, 0, False)],
)
def test_a_while_node_is_made_where_torch_and_the_driver_have_them(monkeypatch, version, driver, whole):
    log = cuda_of_names(monkeypatch)
    monkeypatch.setattr(torch.version, "cuda", version)
    monkeypatch.setattr(torch._C, "_cuda_getDriverVersion", lambda: driver, raising=False)
    state = (f64(1.0), torch.tensor(0))
    turns = Turns(lambda state: state[1] > 0, lambda state: state)
    loop = GraphLoop(turns, state, CudaGraphs(torch.device("cpu")), n=2, whole=True)
    loop.run(state)
    assert loop.whole == whole
    assert [one for one in log if "while" in one or one == "again?"] == [
        "while",
        "again?",
        "end while",
    ] * whole
