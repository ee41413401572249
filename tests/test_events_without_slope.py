"""An event's time and state are the same whether a gradient is wanted or not; where there is no gradient
the backward pass says so. And a solve with events is freed with its result."""

import gc
import weakref

import pytest
import torch
from problems import f64

import adamode
from adamode import Backsolve, Direct, Discrete, Event, Interpolating, solve
from adamode.solvers.errors import DynamicsError, SecondDerivativeError

STEPPINGS = ("shared", "per_sample")
GRADIENTS = [Discrete(), Discrete(keep="state"), Direct(), Backsolve(), Interpolating()]
FLAT = {
    "relu": lambda y: torch.relu(1.5 - y),
    "sign": lambda y: torch.sign(y - 1.5),
    "cube": lambda y: (y - 1.5) ** 3,
    "bool": lambda y: y > 1.5,
    "int": lambda y: (y < 1.5).int(),
}


def event(fn, stepping, **options):
    own = (lambda t, y: fn(y[0, 0])) if stepping == "shared" else (lambda t, y: fn(y[:, 0]))
    return Event(own, **options)


def only(found):
    return found[0] if isinstance(found, list) else found


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("name", FLAT)
@pytest.mark.parametrize("gradient", GRADIENTS, ids=repr)
def test_values_are_right_and_a_gradient_that_is_not_there_is_an_error(gradient, name, stepping):
    y0 = f64(1.0)[None].requires_grad_()
    kw = {"events": event(FLAT[name], stepping), "stepping": stepping, "dt": 1.0}
    sol = solve(lambda t, y: 0 * y + 1, y0, f64(0.0, 0.3, 2.0), gradient=gradient, **kw)
    plain = solve(lambda t, y: 0 * y + 1, y0, f64(0.0, 0.3, 2.0), gradient=None, **kw)
    when, where = only(sol.t_events[0]), only(sol.y_events[0])
    assert torch.equal(when, only(plain.t_events[0]))
    assert torch.equal(where, only(plain.y_events[0]))
    assert when.tolist() == pytest.approx([0.5], abs=1e-15)
    assert where.flatten().tolist() == pytest.approx([1.5], abs=1e-15)
    for asked in (when.sum(), where.sum()):
        with pytest.raises(DynamicsError, match=r"at t=0\.5 was asked for; its fn has slope 0"):
            torch.autograd.grad(asked, y0, retain_graph=True)
    # what no loss depends on is not in the way
    (found,) = torch.autograd.grad(sol.y[1].sum() + 0 * when.sum() + 0 * where.sum(), y0)
    assert found.item() == 1.0


def test_odeint_event_gives_torchdiffeqs_half_and_one():
    y0 = f64(0.5).requires_grad_()
    when, y = adamode.odeint_event(
        lambda t, y: 0 * y + 1, y0, f64(0.0)[0], event_fn=lambda t, y: torch.relu(1.0 - y[0])
    )
    assert when.item() == pytest.approx(0.5, abs=1e-15)
    assert y[-1].item() == pytest.approx(1.0, abs=1e-15)


def test_the_sample_without_a_slope_is_named_and_others_have_their_gradient():
    y0 = f64(1.0, 0.0)[:, None].requires_grad_()
    steep = Event(lambda t, y: torch.where(y[:, 0] > 0.9, torch.sign(y[:, 0] - 1.5), y[:, 0] - 0.5))
    kw = {"events": steep, "stepping": "per_sample", "dt": 0.25}
    sol = solve(lambda t, y: 0 * y + 1, y0, f64(0.0, 3.0), **kw)
    assert [times.tolist() for times in sol.t_events[0]] == [pytest.approx([0.5], abs=1e-15)] * 2
    (found,) = torch.autograd.grad(sol.t_events[0][1].sum(), y0, retain_graph=True)
    assert found.flatten().tolist() == [0.0, -1.0]
    with pytest.raises(DynamicsError, match=r"event of sample 0 at t=0\.5"):
        sol.t_events[0][0].sum().backward()


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_a_function_of_time_alone_keeps_outputs_and_state_differentiable(stepping):
    y0 = f64(1.0)[None].requires_grad_()
    clock = Event(lambda t, y: (t - 0.5).reshape(t.shape if t.dim() == 0 else -1))
    sol = solve(lambda t, y: -y, y0, f64(0.0, 2.0), events=clock, stepping=stepping)
    (found,) = torch.autograd.grad(only(sol.y_events[0]).sum(), y0)
    assert found.item() == pytest.approx(2.718281828459045**-0.5, rel=1e-5)


def test_the_gradient_of_an_events_gradient_is_refused():
    k = f64(0.8)[0].requires_grad_()
    when, _ = adamode.odeint_event(
        lambda t, y: -k * y, f64(2.0), f64(0.0)[0], event_fn=lambda t, y: y[0] - 1.0
    )
    (slope,) = torch.autograd.grad(when, k, create_graph=True)
    with pytest.raises(SecondDerivativeError, match="event's time and state"):
        torch.autograd.grad(slope, k)


class Turn:
    """A function that tells whether it is still there."""

    def __init__(self):
        self.speed = torch.ones((), dtype=torch.float64, requires_grad=True)

    def __call__(self, t, y):
        return self.speed * torch.stack((-y[:, 1], y[:, 0]), 1)


def solved(stepping, gradient, dense, terminal):
    """Whether function and state are still there, of a solve, a question and a backward pass."""
    func, y0 = Turn(), f64(1.0, 0.0)[None].requires_grad_()
    kw = {"stepping": stepping, "gradient": gradient, "dense": dense, "dt": 0.6}
    watched = event(lambda y: y, stepping, terminal=terminal)
    sol = solve(func, y0, f64(0.0, 1.0, 5.0), events=watched, params=[func.speed], **kw)
    loss = only(sol.t_events[0]).sum() + sol.y[1].sum()
    if dense:
        loss = loss + sol(f64(0.5)).sum()
    loss.backward()
    return weakref.ref(func), weakref.ref(y0), weakref.ref(sol.y)


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("gradient", [*GRADIENTS, Discrete(checkpoints=2)], ids=repr)
@pytest.mark.parametrize("dense", [False, True])
def test_a_solve_with_events_is_freed_with_its_result(gradient, stepping, dense):
    """At once, without the collector of cycles: none passes through autograd's nodes, which it cannot see."""
    gc.collect()
    gc.disable()
    try:
        for terminal in (False, True):
            assert [ref() for ref in solved(stepping, gradient, dense, terminal)] == [None] * 3
    finally:
        gc.enable()


def test_tensors_do_not_become_more_over_many_per_sample_solves_with_events():
    def alive():
        gc.collect()
        return sum(type(x) is torch.Tensor for x in gc.get_objects())

    solved("per_sample", Discrete(), True, False)
    before = alive()
    for _ in range(8):
        solved("per_sample", Discrete(), True, False)
    assert alive() <= before
