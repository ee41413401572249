"""Gradients through resets: time, threshold, reset, state; against closed forms, in every gradient choice."""

from __future__ import annotations

import pytest
import torch
from problems import EVERY_GRADIENT, f64, worst
from test_resets import GROUPS, STEPPINGS, dosed, impacts
from torch import nn

from adamode import Direct, Discrete, Event, Impulse, Reversible, SecondDerivativeError, solve

TIGHT = {"rtol": 1e-10, "atol": 1e-12}
NEAR = {"Discrete": 1e-8, "Direct": 1e-8, "Backsolve": 1e-6, "Interpolating": 1e-6}


class Ball(nn.Module):
    """h' = v, v' = −g, along the last axis; keeps: what a bounce leaves of the speed."""

    def __init__(self):
        super().__init__()
        self.g, self.keeps = (nn.Parameter(f64(x)[0]) for x in (9.81, 0.9))

    def forward(self, t, y):
        return torch.stack((y[..., 1], 0 * y[..., 1] - self.g), -1)

    def bounce(self, t, y):
        return torch.stack((y[..., 0], -self.keeps * y[..., 1]), -1)


OFTEN = [  # Discrete's other forms are in the test of a neuron too
    pytest.param(
        x, marks=[pytest.mark.slow] if x in (Discrete(keep="state"), Discrete(checkpoints=2)) else []
    )
    for x in EVERY_GRADIENT
    if not isinstance(x, Reversible)  # refused
]


@pytest.mark.parametrize("gradient", OFTEN, ids=repr)
@pytest.mark.parametrize("stepping", STEPPINGS)
def test_fifteen_bounces_have_the_gradients_of_the_closed_form(stepping, gradient):
    ball, h = Ball(), f64(2.0)[0].requires_grad_()
    y0 = torch.stack((h, 0 * h))
    y0 = y0 if stepping == "shared" else torch.stack((y0, 1.1 * y0.detach()))
    event = Event(lambda t, y: y[..., 0], reset=ball.bounce)
    sol = solve(ball, y0, f64(0.0, 9.7), events=event, stepping=stepping, gradient=gradient, **TIGHT)
    pick = lambda found: found if stepping == "shared" else found[0]  # noqa: E731
    end = sol.y[-1] if stepping == "shared" else sol.y[-1, 0]
    exact = impacts(h, ball.keeps, 15, ball.g)
    since, speed = 9.7 - exact[-1], ball.keeps**15 * torch.sqrt(2 * ball.g * h)
    weights = torch.linspace(-1, 1, 15, dtype=torch.float64)
    loss = (weights * pick(sol.t_events[0])).sum() + end[0] + 2 * end[1] + pick(sol.y_after[0])[7, 1]
    true = (weights * exact).sum() + speed * since - 0.5 * ball.g * since**2 + 2 * (speed - ball.g * since)
    true = true + ball.keeps**8 * torch.sqrt(2 * ball.g * h)
    leaves = (ball.g, ball.keeps, h)
    found, expected = (torch.autograd.grad(x, leaves) for x in (loss, true))
    assert worst(found, expected) <= NEAR[type(gradient).__name__]


class Neuron(nn.Module):
    """Integrate and fire: v' = I − v/τ; at the threshold back to `rest`."""

    def __init__(self):
        super().__init__()
        values = (1.5, 0.8, 0.9, 0.1)
        self.current, self.tau, self.threshold, self.rest = (nn.Parameter(f64(x)[0]) for x in values)

    def forward(self, t, y):
        return self.current - y / self.tau

    def events(self, stepping):
        """A level that is watched, the threshold, an impulse."""
        one = (lambda y: y[0]) if stepping == "shared" else (lambda y: y[:, 0])
        return [
            Event(lambda t, y: one(y) - 0.5, terminal=False, direction=1),
            Event(lambda t, y: one(y) - self.threshold, direction=1, reset=lambda t, y: 0 * y + self.rest),
        ]

    def exact(self, v, t):
        """(v at times t, times of firing, of crossing 0.5) from v at t[0]."""
        top, now, fired, crossed, shown = self.current * self.tau, t[0], [], [], [v]
        for after in t[1:]:
            while True:
                fires = now + self.tau * torch.log((top - v) / (top - self.threshold))
                ends = fires if fires < after else after
                crosses = now + self.tau * torch.log((top - v) / (top - 0.5))
                crossed += [crosses] if v < 0.5 and crosses <= ends else []
                if fires >= after:
                    break
                fired.append(fires)
                v, now = self.rest, fires
            v, now = top + (v - top) * torch.exp(-(after - now) / self.tau), after
            shown.append(v)
        return torch.stack(shown), torch.stack(fired), torch.stack(crossed)


@pytest.mark.parametrize("gradient", [x for x in EVERY_GRADIENT if not isinstance(x, Reversible)], ids=repr)
@pytest.mark.parametrize("stepping", [*STEPPINGS, GROUPS])
def test_integrate_and_fire_learns_its_threshold(stepping, gradient):
    """Every derivative: state, start, output times, current, τ, threshold, reset; outputs and events."""
    neuron, one = Neuron(), stepping == "shared"
    v = f64(0.0, 0.3).requires_grad_()
    t = f64(0.1, 0.5, 1.1, 2.0).requires_grad_()
    y0 = v[:1] if one else v[:, None]
    steps = torch.tensor([3, 3]) if stepping == "groups" else stepping
    options = {"stepping": steps, "gradient": gradient, "rtol": 1e-9, "atol": 1e-11}
    sol = solve(neuron, y0, t, events=neuron.events(stepping), **options)
    draw = torch.Generator().manual_seed(0)
    loss = true = torch.zeros((), dtype=torch.float64)
    for b in range(1 if one else 2):
        shown, fired, crossed = neuron.exact(v[b], t)
        found = (sol.y[:, 0] if one else sol.y[:, b, 0], *(x if one else x[b] for x in sol.t_events[::-1]))
        for ours, exact in zip(found, (shown, fired, crossed), strict=True):
            torch.testing.assert_close(ours, exact, rtol=0, atol=1e-8)
            weights = torch.randn(len(exact), generator=draw, dtype=torch.float64)
            loss, true = loss + (weights * ours).sum(), true + (weights * exact).sum()
    leaves = (v, t, *neuron.parameters())
    found, expected = (torch.autograd.grad(x, leaves) for x in (loss, true))
    assert worst(found, expected) <= 1e-6


@pytest.mark.parametrize("gradient", [Discrete(), Direct()], ids=repr)
@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("save", ["times", pytest.param("end", marks=pytest.mark.slow)])
def test_times_of_impulses_have_gradients_where_they_meet_the_start_an_output_and_the_end(
    stepping, gradient, backwards, save
):
    leaves = [x.requires_grad_() for x in (f64(1.0, 0.5), f64(0.7)[0], f64(1.5)[0])]
    y0, rate, dose = leaves
    grid, times = f64(0.0, 0.4, 1.0, 2.0).requires_grad_(), f64(1.0, 0.0, 0.55, 2.0, 2.5).requires_grad_()
    t = grid.flip(0) if backwards else grid
    own = times if stepping == "shared" else torch.stack((times, times))
    sol = solve(
        *(lambda t, y: -rate * y, y0, t),
        events=[Impulse(own, lambda t, y: y + dose)],
        stepping=stepping,
        gradient=gradient,
        save=save,
        dense=True,
        **TIGHT,
    )
    exact = dosed(y0, rate, dose, t, times)[-len(sol.y) :]
    asked = f64(0.0, 0.55, 0.8, 2.0).requires_grad_()
    answers = torch.cat([dosed(y0, rate, dose, torch.stack((t[0], x)), times)[1:] for x in asked])
    weights = torch.linspace(1, 2, exact.numel(), dtype=torch.float64).view_as(exact)
    leaves += [grid, times]
    for ours, true, inputs in ((sol.y, exact, leaves), (sol(asked), answers, [*leaves, asked])):
        w = weights.new_ones(true.shape) if true is answers else weights
        found, expected = (
            torch.autograd.grad((w * x).sum(), inputs, retain_graph=True) for x in (ours, true)
        )
        assert worst(found, expected) <= 1e-7


def test_a_row_that_did_not_fire_or_failed_gives_no_gradient_to_a_reset():
    """√ of the state at 0 has no slope; a sample that fails gives zeros, not NaN."""
    scale = f64(1.0)[0].requires_grad_()
    y0 = f64(1.0, 0.0, float("nan"))[:, None].requires_grad_()
    fire = Event(lambda t, y: y[:, 0] - 2.0, reset=lambda t, y: scale * torch.sqrt(y - 1.0))
    sol = solve(lambda t, y: y, y0, f64(0.0, 1.0), events=fire, stepping="per_sample", **TIGHT)
    found = torch.autograd.grad(sol.y[-1, :2].sum(), (y0, scale))
    assert found[0][1:].flatten().tolist() == [pytest.approx(torch.e, rel=1e-3), 0.0]
    assert bool(torch.isfinite(found[1]))


def test_the_backward_pass_is_counted_over_all_pieces():
    ball = Ball()
    event = Event(lambda t, y: y[0], reset=ball.bounce)
    sol = solve(ball, f64(2.0, 0.0), f64(0.0, 3.0), events=event)
    assert sol.stats.nfe_backward == 0
    sol.y[-1].sum().backward()
    assert sol.stats.nfe_backward > 3 * 6
    sol = solve(ball, f64(2.0, 0.0), f64(0.0, 3.0), events=event, gradient=None)
    assert not any(x.requires_grad for x in (sol.y, sol.t_events[0], sol.y_after[0]))


def test_second_derivatives_are_right_through_impulses_and_refused_through_events():
    y0, rate = f64(1.0).requires_grad_(), f64(0.7)[0].requires_grad_()
    t, times = f64(0.0, 1.0, 2.0), f64(0.4, 1.0).requires_grad_()
    double = Impulse(times, lambda t, y: y * y)
    sol = solve(lambda t, y: -rate * y, y0, t, events=double, gradient=Direct(), **TIGHT)
    end = lambda x, s: ((x * torch.exp(-rate * s[0])) ** 2 * torch.exp(-rate * (s[1] - s[0]))) ** 2  # noqa: E731
    exact = end(y0, times) * torch.exp(-rate * (2.0 - times[1]))

    def twice(value):
        first = torch.autograd.grad(value.sum(), (y0, rate, times), create_graph=True)
        return torch.autograd.grad(sum(x.sum() for x in first), (y0, rate, times), retain_graph=True)

    assert worst(twice(sol.y[-1]), twice(exact)) <= 1e-7
    exact = end(y0, times) * torch.exp(-rate * (t[1] - times[1]))
    assert worst(twice(sol.y[1]), twice(exact)) <= 1e-7
    ball = Ball()
    start = f64(2.0, 0.0).requires_grad_()
    event = Event(lambda t, y: y[0], reset=ball.bounce)
    sol = solve(ball, start, f64(0.0, 1.0), events=event, gradient=Direct())
    (slope,) = torch.autograd.grad(sol.y[-1].sum(), start, create_graph=True)
    with pytest.raises(SecondDerivativeError):
        torch.autograd.grad(slope.sum(), start)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
@pytest.mark.parametrize("gradient", [Discrete(), Direct()], ids=repr)
def test_the_transforms_of_torch_func_go_through(gradient):
    """jacrev, jacfwd and jvp of the end in (height, what a bounce keeps), against the closed form."""

    def end(x):
        ball = lambda t, y: torch.stack((y[1], 0 * y[1] - 9.81))  # noqa: E731
        bounce = Event(lambda t, y: y[0], reset=lambda t, y: torch.stack((y[0], -x[1] * y[1])))
        kick = Impulse([1.5], lambda t, y: y + 0.1 * x[0])
        y0 = torch.stack((x[0], 0 * x[0]))
        return solve(ball, y0, f64(0.0, 1.7), events=[bounce, kick], gradient=gradient, **TIGHT).y[-1]

    def exact(x):
        fall = torch.sqrt(2 * x[0] / 9.81)
        speed, since = x[1] * 9.81 * fall, 1.5 - fall
        up, v = speed * since - 0.5 * 9.81 * since**2 + 0.1 * x[0], speed - 9.81 * since + 0.1 * x[0]
        return torch.stack((up + v * 0.2 - 0.5 * 9.81 * 0.2**2, v - 9.81 * 0.2))

    x = f64(2.0, 0.9)
    expected = torch.autograd.functional.jacobian(exact, x)
    for transform in (torch.func.jacrev(end), torch.func.jacfwd(end)):
        torch.testing.assert_close(transform(x), expected, rtol=0, atol=1e-7)
    _, along = torch.func.jvp(end, (x,), (f64(1.0, -1.0),))
    torch.testing.assert_close(along, expected @ f64(1.0, -1.0), rtol=0, atol=1e-7)
