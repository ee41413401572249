"""`compile=True, sync_every=n` where a device has graphs: the same steps, by one captured attempt."""

import gc
import warnings
import weakref

import pytest
import torch
from graph_tape import Tape
from problems import Net, Swing, f64, worst
from torch import nn

from adamode import AdamodeWarning, SolverError, solve
from adamode.solvers.device import graphs
from adamode.solvers.device.programs import Programs

# two stages: quick to trace
OPTIONS = {"method": "adaptive_heun", "rtol": 1e-3, "atol": 1e-4}
FAST = {"compile": True, "sync_every": 3}
PER_SAMPLE = {"stepping": "per_sample", "gradient": None}
CUDA = pytest.param(
    "cuda", marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]
)


@pytest.fixture
def tapes(monkeypatch):
    """The CPU as a device whose loops cost reads, and which has graphs of recorded operators."""
    made = []

    def capture(device):
        made.append(Tape())
        return made[-1]

    for module in ("queue", "clocked_queue"):
        monkeypatch.setattr(f"adamode.solvers.device.{module}.loops_in_graph", lambda y: False)
    monkeypatch.setattr("adamode.solvers.device.programs.BACKEND", "eager")
    monkeypatch.setitem(graphs.CAPTURES, "cpu", capture)
    return made


@pytest.fixture(params=["cpu", CUDA])
def device(request):
    """Where the graphs are recorded operators, or CUDA's."""
    if request.param == "cpu":
        request.getfixturevalue("tapes")
    return torch.device(request.param)


def batch(n=4, seed=1):
    return torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gradients(func, y0, t, **options):
    y0 = y0.clone().requires_grad_()
    sol = solve(func, y0, t, **{**OPTIONS, **options})
    return sol, [sol.y.detach(), *torch.autograd.grad((sol.y**2).sum(), (y0, *func.parameters()))]


@pytest.mark.parametrize("make", [Net, Swing])
def test_steps_and_gradients_are_those_without_and_one_capture_serves_all(device, make):
    func = make().to(device)
    for end, seed in ((3.0, 0), (1.0, 1), (-2.0, 2)):
        y0 = batch(seed=seed).to(device)
        y0 = torch.stack((y0, 0.5 * y0)) if make is Swing else y0
        t = torch.tensor([0.0, 0.3 * end, end], dtype=torch.float64, device=device)
        with torch.no_grad():
            for p in func.parameters():
                p.mul_(1.1)
        tol = {"rtol": 10.0 ** (-3 - seed)}
        plain, expected = gradients(func, y0, t, **tol)
        fast, found = gradients(func, y0, t, **FAST, **tol)
        assert (fast.stats.n_accepted, fast.stats.n_rejected) == (
            plain.stats.n_accepted,
            plain.stats.n_rejected,
        )
        assert worst(found, expected) <= 1e-9
    (loop,) = loops(func)
    assert loop.captures == 1


def loops(func):
    notes = Programs.of(func).notes
    return [x for x in notes.values() if isinstance(x, graphs.GraphLoop)]


@pytest.mark.parametrize("end", [2.0, -2.0])
def test_per_sample_solves_go_through_a_graph_too(device, end):
    func, t = Net().to(device), torch.tensor([0.0, end], dtype=torch.float64, device=device)
    for seed in (1, 2):
        y0 = batch(seed=seed).to(device)
        plain = solve(func, y0, t, **OPTIONS, **PER_SAMPLE)
        fast = solve(func, y0, t, **OPTIONS, **PER_SAMPLE, **FAST)
        assert torch.equal(fast.stats.n_accepted, plain.stats.n_accepted)
        assert worst([fast.y[:, -1]], [plain.y[:, -1]]) <= 1e-12
    (loop,) = loops(func)
    assert loop.captures == 1


def test_a_solution_stays_what_it_was_in_the_next_solve(device):
    func, t = Net().to(device), torch.tensor([0.0, 0.4, 2.0], dtype=torch.float64, device=device)
    options = {**OPTIONS, **FAST, "dense": True, "save": "steps", "gradient": None}
    first = solve(func, batch().to(device), t, **options)
    before = [first.y.clone(), first(t[1]).clone()]
    solve(func, batch(seed=5).to(device), t, **options)
    assert worst([first.y, first(t[1])], before) == 0.0
    assert worst(before[1:], [solve(func, batch().to(device), t, **OPTIONS, dense=True)(t[1])]) <= 1e-12


def test_the_attempts_of_a_call_cost_one_replay(tapes):
    func, y0, t = Net(), batch(), f64(0.0, 3.0)
    solve(func, y0, t, **OPTIONS, **FAST, gradient=None)
    (tape,) = tapes
    tape.log.clear()
    sol = solve(func, y0, t, **OPTIONS, **FAST, gradient=None)
    assert tape.log == ["replay"] * -(-sol.stats.n_steps // 3)


def test_a_program_of_one_attempt_is_all_that_is_compiled(tapes):
    func = Net()
    solve(func, batch(), f64(0.0, 3.0), **OPTIONS, **FAST, gradient=None)
    kinds = [key[0][0] for key in Programs.of(func).known]
    assert sorted(kinds) == ["begin", "captured"]


def test_parameters_put_in_the_place_of_others_are_read(device):
    func, y0, t = Net().to(device), batch().to(device), f64(0.0, 2.0).to(device)
    for seed in range(3):
        func.w1 = nn.Parameter(batch(seed=seed).T.contiguous().to(device)[:, :3] @ func.w1[:3].detach())
        _, expected = gradients(func, y0, t)
        _, found = gradients(func, y0, t, **FAST)
        assert worst(found, expected) <= 1e-9


class Context(Net):
    """A tensor that is no parameter, put in place for each solve."""

    context = None

    def forward(self, t, y):
        return super().forward(t, y) + self.context


def test_a_tensor_that_always_lies_elsewhere_ends_the_graphs_with_a_word(tapes):
    func, y0, t, kept = Context(), batch(), f64(0.0, 2.0), []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for k in range(graphs.PATIENCE + 3):
            func.context = f64(0.1 * k, 0.0, 0.2)
            kept.append(func.context)
            plain = solve(func, y0, t, **OPTIONS, gradient=None)
            fast = solve(func, y0, t, **OPTIONS, **FAST, gradient=None)
            assert worst([fast.y], [plain.y]) <= 1e-12
    assert [str(w.message).count("lay in other memory 8 times") for w in caught] == [1]


class Keeping(Net):
    """Its last argument stays on it."""

    last = None

    def forward(self, t, y):
        self.last = y * 2
        return super().forward(t, y)


def test_a_func_that_keeps_tensors_is_solved_without_graphs(tapes):
    func, y0, t = Keeping(), batch(), f64(0.0, 2.0)
    with pytest.warns(AdamodeWarning, match="func keeps tensors"):
        fast = solve(func, y0, t, **OPTIONS, **FAST, gradient=None)
    assert worst([fast.y], [solve(Net(), y0, t, **OPTIONS, gradient=None).y]) <= 1e-12
    solve(func, y0, t, **OPTIONS, **FAST, gradient=None)  # another warning is an error
    assert tapes[0].log == ["warm"]


@pytest.mark.parametrize("more", [{}, PER_SAMPLE], ids=["shared", "per sample"])
def test_what_cannot_be_captured_is_written_out_with_one_warning(tapes, monkeypatch, more):
    def fails(self, work):
        self.log.append("capture")
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(Tape, "capture", fails)
    func, y0, t = Net(), batch(), f64(0.0, 2.0)
    options = {**OPTIONS, "gradient": None, **more}
    plain = solve(func, y0, t, **options)
    with pytest.warns(AdamodeWarning, match="cannot be captured as a cpu graph"):
        first = solve(func, y0, t, **options, **FAST)
    second = solve(func, y0, t, **options, **FAST)  # another warning is an error
    assert worst([first.y, second.y], [plain.y] * 2) <= 1e-12
    assert tapes[0].log == ["warm", "capture"]


def test_a_func_that_cannot_be_compiled_is_solved_without(tapes):
    class Looking(Net):
        def forward(self, t, y):
            return super().forward(t, y) if float(t) < 9.0 else y

    func, y0, t = Looking(), batch(), f64(0.0, 2.0)
    with pytest.warns(AdamodeWarning, match="cannot be compiled"):
        fast = solve(func, y0, t, **OPTIONS, **FAST, gradient=None)
    assert worst([fast.y], [solve(Net(), y0, t, **OPTIONS, gradient=None).y]) <= 1e-12


def test_a_func_that_changes_is_captured_anew(tapes):
    class Gain(Net):
        gain = 1.0

        def forward(self, t, y):
            return self.gain * super().forward(t, y)

    func, y0, t = Gain(), batch(), f64(0.0, 2.0)
    for gain in (1.0, 0.5, 0.5, 0.25):
        func.gain = gain
        plain = solve(func, y0, t, **OPTIONS, gradient=None)
        fast = solve(func, y0, t, **OPTIONS, **FAST, gradient=None)
        assert worst([fast.y], [plain.y]) <= 1e-12


def test_another_batch_and_dtype_has_a_graph_of_its_own(tapes):
    func, t = Net(), f64(0.0, 2.0)
    for y0 in (batch(), batch(2), batch()):
        plain = solve(func, y0, t, **OPTIONS, gradient=None)
        assert worst([solve(func, y0, t, **OPTIONS, **FAST, gradient=None).y], [plain.y]) <= 1e-12
    func.float()
    y = solve(func, batch().float(), t, **OPTIONS, **FAST, gradient=None).y
    assert y.dtype == torch.float32
    assert len(loops(func)) == 3
    assert len(tapes) == 1  # one pool of memory


def test_graphs_go_with_their_owner_and_hold_nothing_of_a_solve(tapes):
    func, y0 = Net(), batch()
    sol = solve(func, y0, f64(0.0, 2.0), **OPTIONS, **FAST, gradient=None)
    alive = [weakref.ref(x) for x in (y0, sol.y)]
    del y0, sol
    gc.collect()
    assert [one() for one in alive] == [None, None]
    (loop,) = loops(func)
    alive = [weakref.ref(x) for x in (func, loop, *loop.held)]
    del func, loop
    gc.collect()
    assert not any(one() is not None for one in alive)


def test_the_last_attempts_before_max_steps_are_counted(tapes):
    with pytest.raises(SolverError) as caught:
        solve(Net(), batch(), f64(0.0, 9.0), **OPTIONS, **FAST, gradient=None, max_steps=7)
    assert (caught.value.status.name, caught.value.stats.n_steps) == ("MAX_STEPS", 7)


def test_solves_in_inference_mode_and_out_of_it_share_a_graph(tapes):
    func, y0, t = Net(), batch(), f64(0.0, 2.0)
    expected = solve(func, y0, t, **OPTIONS, gradient=None).y
    for mode in (True, False, True):
        with torch.inference_mode(mode):
            y = solve(func, y0, t, **OPTIONS, **FAST, gradient=None).y
            assert worst([y], [expected]) <= 1e-12
