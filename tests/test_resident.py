"""Attempts that decide for themselves on the device: the same steps as with a look after each."""

import math

import pytest
import torch
from host_reads import host_reads
from problems import Net, Swing, Tree, f64, quench, rational, rational_solution, top, worst

from adamode import AdamodeWarning, Backsolve, Direct, Discrete, Event, I, Interpolating, SolverError, solve
from adamode.solvers.methods import METHODS

ADAPTIVE = [name for name, tableau in METHODS.items() if tableau.adaptive]
GRADIENTS = [None, Discrete(), Discrete(keep="state"), Discrete(checkpoints=3), Interpolating(), Backsolve()]


def both(func, y0, t, n=4, **options):
    """The solve with a look after each attempt, and with one after n."""
    return [solve(func, y0, t, sync_every=every, **options) for every in (1, n)]


def same_steps(a, b):
    assert (a.stats.n_accepted, a.stats.n_rejected) == (b.stats.n_accepted, b.stats.n_rejected)
    assert a.stats.dt_first == pytest.approx(b.stats.dt_first, rel=1e-12)
    assert a.stats.dt_last == pytest.approx(b.stats.dt_last, rel=1e-9)
    assert worst([b.y], [a.y]) <= 1e-12


@pytest.mark.parametrize("n", [2, 7, 64])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_steps_are_those_of_a_look_after_each(method, n):
    t = torch.linspace(-1.0, 2.0, 6, dtype=torch.float64)
    same_steps(*both(rational, rational_solution(-1.0), t, n, method=method, rtol=1e-5, gradient=None))


@pytest.mark.parametrize("options", [{"dt0": 6.0}, {"dt0": 6.0, "controller": I()}, {"rtol": 1e-8}], ids=repr)
def test_rejections_and_the_way_back_in_time(options):
    for t in (f64(0.0, 6.0), f64(6.0, 0.0)):
        a, b = both(top, f64(1.0, 0.5, 0.9), t, gradient=None, **options)
        same_steps(a, b)
    assert a.stats.n_rejected or "rtol" in options


@pytest.mark.parametrize("gradient", GRADIENTS[1:], ids=repr)
@pytest.mark.parametrize("kind", [Net, Swing, Tree])
def test_gradients_are_those_of_a_look_after_each(kind, gradient):
    found = []
    for every in (1, 5):
        func = kind()
        draw = torch.Generator().manual_seed(1)
        shape = (2, 3, 3) if kind is Swing else (3, 3)
        y0 = torch.randn(shape, dtype=torch.float64, generator=draw).requires_grad_()
        state = {"a": y0, "b": y0[:, 0] * 0.5} if kind is Tree else y0
        t = f64(0.0, 0.7, 2.0, 3.0).requires_grad_()
        sol = solve(func, state, t, gradient=gradient, sync_every=every, rtol=1e-6)
        ys = list(sol.y.values()) if kind is Tree else [sol.y]
        loss = sum(torch.sin(y + 1).sum() for y in ys)
        found.append(torch.autograd.grad(loss, (y0, t, *func.parameters())))
    assert worst(found[1], found[0]) <= 1e-11


def test_stops_dense_output_steps_and_trace_are_the_same():
    options = {"gradient": None, "step_at": f64(0.3, 1.1), "dense": True, "trace": True, "save": "steps"}
    a, b = both(rational, rational_solution(-1.0), f64(-1.0, 2.0), **options)
    assert torch.allclose(a.t, b.t, rtol=1e-12)
    assert {0.3, 1.1} <= set(b.t.tolist())
    t = torch.linspace(-1, 2, 9, dtype=torch.float64)
    assert worst([b(t), b.derivative(t)], [a(t), a.derivative(t)]) <= 1e-11
    assert [row.accepted for row in a.trace] == [row.accepted for row in b.trace]
    assert [row.dt for row in a.trace] == pytest.approx([row.dt for row in b.trace], rel=1e-9)
    assert [row.stage_norms[3] for row in a.trace] == pytest.approx([row.stage_norms[3] for row in b.trace])


@pytest.mark.parametrize("every", [1, 6])
def test_a_solve_that_cannot_go_on_fails_the_same_way(every):
    blow = lambda t, y: y * y  # noqa: E731
    with pytest.raises(SolverError) as caught:
        solve(blow, f64(1.0), f64(0.0, 2.0), sync_every=every, gradient=None)
    assert caught.value.t == pytest.approx(1.0, abs=1e-5)
    assert caught.value.status.name in ("STEP_UNDERFLOW", "NON_FINITE")
    with pytest.raises(SolverError) as caught:
        solve(rational, rational_solution(-1.0), f64(-1.0, 2.0), sync_every=every, max_steps=5, gradient=None)
    assert (caught.value.status.name, caught.value.stats.n_steps) == ("MAX_STEPS", 5)
    hole = lambda t, y: torch.where(t > 0.5, math.nan, 1.0) * y  # noqa: E731
    with pytest.raises(SolverError) as caught:
        solve(hole, f64(1.0), f64(0.0, 2.0), sync_every=every, gradient=None)
    assert caught.value.status.name == "NON_FINITE"
    assert caught.value.t == pytest.approx(0.5, abs=1e-6)


def test_a_stage_that_is_not_finite_is_a_rejected_step():
    a, b = both(quench, f64(1.0), f64(0.0, 1.0), gradient=None, dt0=1.0)
    same_steps(a, b)
    domain = lambda t, y: -torch.sqrt(y - 0.5) - 1  # noqa: E731
    a, b = both(domain, f64(3.0), f64(0.0, 1.0), gradient=None, dt0=1.0, rtol=1e-3)
    same_steps(a, b)


@pytest.mark.parametrize("gradient", [None, Discrete(), Discrete(keep="state"), Backsolve()], ids=repr)
@pytest.mark.parametrize("n", [2, 8])
def test_the_host_reads_once_for_n_attempts(n, gradient):
    net, y0 = Net(), torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    t = torch.linspace(0, 8, 5, dtype=torch.float64)
    with host_reads() as found:
        sol = solve(net, y0, t, gradient=gradient, rtol=1e-7, sync_every=n)
    assert sol.stats.n_steps > 16
    assert found.total() <= math.ceil(sol.stats.n_steps / n) + 3, (
        found
    )  # checks and the first step: a constant


def test_attempts_past_the_end_are_counted_and_change_nothing():
    calls = []

    def field(t, y):
        calls.append(float(t))
        return -y

    sol = solve(field, f64(1.0), f64(0.0, 1.0), sync_every=50, gradient=None)
    assert sol.stats.nfe == len(calls)  # every call of func
    assert max(calls) <= 1.0
    assert sol.y[-1].item() == pytest.approx(math.exp(-1), rel=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"gradient": Direct()},
        {"dt": 0.1},
        {"jump_at": f64(0.5)},
        {"events": Event(lambda t, y: y.sum() - 100.0)},
    ],
    ids=["direct", "dt", "jump_at", "events"],
)
def test_what_needs_a_look_after_each_says_so_and_is_right(options):
    y0 = torch.ones(2, 3, dtype=torch.float64)
    net = Net()
    with pytest.warns(AdamodeWarning, match="sync_every=4 does nothing here"):
        sol = solve(net, y0, f64(0.0, 1.0), sync_every=4, **options)
    assert torch.equal(sol.y, solve(net, y0, f64(0.0, 1.0), **options).y)


@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_a_senseless_sync_every_is_refused(value):
    with pytest.raises((ValueError, TypeError), match="sync_every"):
        solve(rational, rational_solution(-1.0), f64(-1.0, 2.0), sync_every=value)
