"""Gradients of event times and states against closed forms and finite differences."""

import math

import pytest
import torch
from problems import Net, f64, worst
from torch import nn

from adamode import Backsolve, Direct, Discrete, Event, Interpolating, Status, solve

TIGHT = {"rtol": 1e-10, "atol": 1e-12}
GRADIENTS = [Discrete(), Discrete(keep="state"), Direct(), Backsolve(), Interpolating()]
# Continuous adjoints are as exact as their own tolerance
NEAR = {"Discrete": 1e-8, "Direct": 1e-8, "Backsolve": 1e-6, "Interpolating": 1e-6}


def near(gradient):
    return NEAR[type(gradient).__name__]


class Fall(nn.Module):
    """A ball: h' = v, v' = −g; [b, 2]."""

    def __init__(self):
        super().__init__()
        self.g = nn.Parameter(f64(9.0)[0])

    def forward(self, t, y):
        h, v = y[:, 0], y[:, 1]
        return torch.stack((v, 0 * h - self.g), 1)


class Level(nn.Module):
    """h − level: its own parameter moves the event."""

    def __init__(self, level=0.5):
        super().__init__()
        self.level = nn.Parameter(f64(level)[0])

    def forward(self, t, y):
        found = y[:, 0] - self.level
        return found.reshape(()) if t.dim() == 0 else found


def landing(h0, v0, t0, g, level):
    """When h0 + v0 s − g s²/2 is level, after t0; and v there."""
    s = (v0 + torch.sqrt(v0 * v0 + 2 * g * (h0 - level))) / g
    return t0 + s, v0 - g * s


def exact_gradients(y0, t0, fall, event, weights):
    """dL/d(y0, t0, g, level) of L = Σ w₁ t* + w₂ v* + w₃ h*."""
    leaves = [x.detach().clone().requires_grad_() for x in (y0, t0, fall.g, event.level)]
    start, begin, g, level = leaves
    when, v = landing(start[:, 0], start[:, 1], begin, g, level)
    loss = (weights[0] * when + weights[1] * v + weights[2] * level).sum()
    return torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("gradient", GRADIENTS, ids=repr)
@pytest.mark.parametrize("save", ["times", "steps", "end"])
def test_shared_event_against_the_closed_form(gradient, save):
    fall, event = Fall(), Level()
    y0, t = f64(2.0, 3.0)[None].requires_grad_(), f64(0.2, 0.5, 4.0).requires_grad_()
    sol = solve(fall, y0, t, events=Event(event, direction=-1), gradient=gradient, save=save, **TIGHT)
    assert sol.status == Status.EVENT
    weights = f64(1.5, -0.7, 0.4)
    h, v = sol.y_events[0][0, 0]
    loss = weights[0] * sol.t_events[0][0] + weights[1] * v + weights[2] * h
    found = torch.autograd.grad(loss, (y0, t, fall.g, event.level))
    exact = exact_gradients(y0, t[:1], fall, event, weights)
    expected = (exact[0], torch.cat((exact[1], f64(0.0, 0.0))), *exact[2:])
    assert worst(found, expected) <= near(gradient)


@pytest.mark.parametrize("gradient", GRADIENTS, ids=repr)
@pytest.mark.parametrize("save", ["times", "steps", "end"])
@pytest.mark.parametrize("compact", [False, True])
def test_per_sample_events_against_the_closed_form(gradient, save, compact):
    """Three land each at its own time, one does not before its end, one begins with NaN."""
    fall, event = Fall(), Level()
    y0 = torch.tensor(
        [[2.0, 3.0], [1.0, 0.0], [6.0, -1.0], [9.0, 40.0], [math.nan, 0.0]], dtype=torch.float64
    )
    y0.requires_grad_()
    t = torch.stack([f64(0.2, 0.25, 4.0), f64(0.0, 0.1, 1.0), f64(-1.0, 0.0, 2.0)] + [f64(0.0, 0.5, 1.0)] * 2)
    t.requires_grad_()
    sol = solve(
        fall,
        y0,
        t,
        stepping="per_sample",
        events=Event(event, direction=-1),
        gradient=gradient,
        save=save,
        compact=compact,
        **TIGHT,
    )
    assert sol.status.tolist() == [Status.EVENT] * 3 + [Status.SUCCESS, Status.NON_FINITE]
    w = torch.randn(3, 3, dtype=torch.float64)
    loss = 0.0
    for i in range(3):
        state = sol.y_events[0][i][0]
        loss = loss + w[0, i] * sol.t_events[0][i][0] + w[1, i] * state[1] + w[2, i] * state[0]
    found = torch.autograd.grad(loss, (y0, t, fall.g, event.level))
    exact = exact_gradients(y0[:3], t[:3, 0], fall, event, w)
    zero = torch.zeros(2, dtype=torch.float64)
    times = torch.zeros_like(t)
    times[:3, 0] = exact[1]
    expected = (torch.cat((exact[0], zero[:, None].expand(2, 2))), times, *exact[2:])
    assert worst(found, expected) <= near(gradient)


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
@pytest.mark.parametrize("gradient", [Discrete(), Direct(), Backsolve()], ids=repr)
def test_events_that_do_not_end_the_solve_have_gradients_beside_the_outputs(gradient, stepping):
    """y = a cos(t − φ): zeros at φ + π/2 + kπ. The loss has outputs and all events in it."""

    def f(t, y):
        return torch.stack((-y[:, 1], y[:, 0]), 1)

    def fn(t, y):
        return y[:, 0].reshape(()) if t.dim() == 0 else y[:, 0]

    y0 = f64(math.cos(0.3), math.sin(0.3))[None].requires_grad_()
    sol = solve(
        f,
        y0,
        f64(0.0, 5.0, 8.0),
        events=Event(fn, terminal=False),
        gradient=gradient,
        stepping=stepping,
        **TIGHT,
    )
    times = sol.t_events[0] if stepping == "shared" else sol.t_events[0][0]
    states = sol.y_events[0][:, 0] if stepping == "shared" else sol.y_events[0][0]
    assert len(times) == 3
    weights = f64(1.0, -2.0, 0.5)
    loss = (weights * times).sum() + (weights * states[:, 1]).sum() + sol.y[1].sum()
    (found,) = torch.autograd.grad(loss, y0)
    start = y0.detach().clone().requires_grad_()
    phase, size = torch.atan2(start[0, 1], start[0, 0]), torch.linalg.vector_norm(start)
    exact_times = math.pi * (0.5 + torch.arange(3)) - phase
    signs = f64(1.0, -1.0, 1.0)
    exact = (weights * exact_times).sum() + (weights * signs * size).sum()
    exact = exact + size * (torch.cos(5.0 + phase) + torch.sin(5.0 + phase))
    (expected,) = torch.autograd.grad(exact, start)
    assert worst([found], [expected]) <= near(gradient)


@pytest.mark.parametrize("options", [{"dt": 0.05}, {"method": "dop853"}, {"method": "dopri8"}], ids=str)
@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
@pytest.mark.parametrize("backwards", [False, True])
def test_against_finite_differences(options, stepping, backwards):
    net = Net()
    y0 = f64(0.1, 0.8, -0.4)[None]
    with torch.no_grad():
        net.mu.fill_(1.0)
    t = f64(0.0, -3.0) if backwards else f64(0.0, 3.0)
    event = Level(float(solve(net, y0, t / 10, rtol=1e-8, gradient=None).y[-1, 0, 0]))  # met on the way
    tight = {} if "dt" in options else {"rtol": 1e-11, "atol": 1e-13}
    parameters = (net.w1, net.mu, event.level)

    def loss(start):
        sol = solve(net, start, t, events=Event(event), stepping=stepping, **options, **tight)
        times, states = sol.t_events[0], sol.y_events[0]
        if stepping == "per_sample":
            times, states = times[0], states[0]
        assert len(times) >= 1
        return times.sum() + states.square().sum()

    y0.requires_grad_()
    found = torch.autograd.grad(loss(y0), (y0, *parameters))
    step = 1e-5
    for x, gradient in zip((y0, *parameters), found, strict=True):
        flat, values = x.data.view(-1), []
        for k in range(min(flat.numel(), 3)):
            saved = float(flat[k])
            flat[k] = saved + step
            up = loss(y0).item()
            flat[k] = saved - step
            values.append((up - loss(y0).item()) / (2 * step))
            flat[k] = saved
        expected = f64(*values)
        # fixed steps: the gradient takes f for the slope of the dense output, right to its order
        assert worst([gradient.reshape(-1)[: len(values)]], [expected]) <= (2e-5 if "dt" in options else 2e-6)


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
def test_an_event_of_time_alone_has_the_gradient_of_its_parameter(stepping):
    when = f64(0.7)[0].requires_grad_()
    event = Event(lambda t, y: (t - when).reshape(t.shape if t.dim() == 0 else -1))
    y0 = f64(2.0)[None].requires_grad_()
    sol = solve(lambda t, y: -y, y0, f64(0.0, 2.0), events=event, stepping=stepping, **TIGHT)
    times, states = sol.t_events[0], sol.y_events[0]
    if stepping == "per_sample":
        times, states = times[0], states[0]
    found = torch.autograd.grad(3 * times[0] + states.sum(), (when, y0))
    decay = math.exp(-0.7)
    assert worst(found, (f64(3 - 2 * decay)[0], f64(decay)[None])) <= 1e-8


def test_samples_without_the_event_add_nothing_to_its_gradient():
    level = f64(0.5)[0].requires_grad_()
    y0 = f64(1.0, 0.3, math.nan)[:, None].requires_grad_()
    event = Event(lambda t, y: torch.log(y[:, 0] / level))
    for gradient in (Discrete(), Direct()):
        sol = solve(
            lambda t, y: -y,
            y0,
            f64(0.0, 2.0),
            stepping="per_sample",
            events=event,
            gradient=gradient,
            **TIGHT,
        )
        found = torch.autograd.grad(sol.t_events[0][0].sum(), (y0, level))
        assert worst(found, (f64(1.0, 0.0, 0.0)[:, None], f64(-2.0)[0])) <= 1e-8  # t* = ln(y0/level)


def test_the_evaluations_for_events_are_counted():
    calls = []

    class Counted(Fall):
        def forward(self, t, y):
            calls.append(1)
            return super().forward(t, y)

    for stepping in ("shared", "per_sample"):
        calls.clear()
        y0 = f64(2.0, 3.0)[None].requires_grad_()
        sol = solve(Counted(), y0, f64(0.0, 4.0), events=Event(Level()), stepping=stepping)
        assert len(calls) == int(sol.stats.nfe)
        if stepping == "per_sample":
            assert sol.stats.n_calls == len(calls)
