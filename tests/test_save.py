"""save="times", "steps", "end": what is kept, its times, and its gradients."""

import math

import pytest
import torch
from problems import Net, f64, worst

from adamode import Backsolve, Direct, Discrete, Interpolating, Status, solve
from adamode.solvers.errors import ArgumentError

STEPPINGS = ("shared", "per_sample")
GRADIENTS = [Discrete(), Discrete(keep="state"), Direct(), Backsolve(), Interpolating()]


def growth(t, y):
    return torch.cos(t) * y


START = f64(1.0, -2.0)[:, None]


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("span", [(0.0, 3.0), (1.0, -2.0)])
def test_every_accepted_step_is_saved_once(stepping, span):
    sol = solve(growth, START, f64(span[0], 0.3, span[1]), save="steps", stepping=stepping, gradient=None)
    if stepping == "shared":
        assert sol.t.shape == (sol.stats.n_accepted + 1,)
        assert sol.y.shape == (sol.stats.n_accepted + 1, 2, 1)
        times = sol.t[:, None].expand(-1, 2)
    else:
        assert sol.t.shape == sol.y.shape[:2] == (int(sol.stats.n_accepted.max()) + 1, 2)
        times = sol.t
    assert (times[0] == span[0]).all()
    for i in range(2):
        own = times[:, i][~times[:, i].isnan()]
        assert own[-1] == span[1]
        assert (own.diff() * (span[1] - span[0]) > 0).all()
        exact = START[i] * torch.exp(torch.sin(own) - math.sin(span[0]))[:, None]
        torch.testing.assert_close(sol.y[: len(own), i], exact, rtol=1e-4, atol=0)


def test_rows_that_a_sample_did_not_reach_are_nan():
    t = torch.stack((f64(0.0, 0.1), f64(0.0, 9.0), f64(2.0, 2.0)))
    y0 = f64(1.0, 1.0, 5.0)[:, None]
    for compact in (False, True):
        sol = solve(growth, y0, t, save="steps", stepping="per_sample", compact=compact)
        counts = sol.stats.n_accepted + 1
        counts[2] = 2  # start and end of the one that stays
        for i in range(3):
            there = torch.arange(len(sol.t)) < counts[i]
            assert torch.equal(~sol.t[:, i].isnan(), there)
            assert torch.equal(~sol.y[:, i, 0].isnan(), there)
        assert sol.t[:2, 2].tolist() == [2.0, 2.0]
        assert sol.y[:2, 2, 0].tolist() == [5.0, 5.0]


def test_steps_of_a_sample_that_fails_are_kept():
    sol = solve(
        lambda t, y: y * y, f64(2.0, 0.1)[:, None], f64(0.0, 1.0), save="steps", stepping="per_sample"
    )
    assert sol.status[0] != Status.SUCCESS
    own = ~sol.t[:, 0].isnan()
    assert int(own.sum()) == int(sol.stats.n_accepted[0]) + 1
    assert sol.t[own, 0][-1] == pytest.approx(0.5, abs=1e-3)
    assert sol.y[own, 0].isfinite().all()


def test_no_sample_that_begins_leaves_the_start_alone():
    sol = solve(growth, START * math.nan, f64(0.0, 1.0), save="steps", stepping="per_sample")
    assert sol.y.shape == (1, 2, 1)
    assert sol.t.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_the_end_alone(stepping):
    t = f64(0.0, 0.2, 0.9, 2.0)
    end = solve(growth, START, t, save="end", stepping=stepping)
    every = solve(growth, START, t, stepping=stepping)
    assert end.y.shape == (1, 2, 1)
    assert torch.equal(end.t, t[-1:])
    assert torch.equal(end.y[0], every.y[-1])


def test_the_end_of_each_sample():
    t = torch.stack((f64(0.0, 0.5, 1.0), f64(3.0, 2.0, 0.0)))
    sol = solve(growth, START, t, save="end", stepping="per_sample")
    assert torch.equal(sol.t, t[:, -1:].t())
    assert sol.y.shape == (1, 2, 1)


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("gradient", GRADIENTS, ids=repr)
@pytest.mark.parametrize("save", ["times", "steps", "end"])
def test_gradients_with_respect_to_everything(save, gradient, stepping):
    """y = y0 exp(θ (sin t − sin t0)): the last value's, of every way to save."""
    theta = f64(0.8)[0].requires_grad_()
    y0, t = START.clone().requires_grad_(), f64(0.3, 1.0, 2.5).requires_grad_()
    kw = {"rtol": 1e-9, "atol": 1e-11, "save": save, "gradient": gradient, "stepping": stepping}
    sol = solve(lambda t, y: theta * torch.cos(t) * y, y0, t, **kw)
    rows = int(sol.stats.n_accepted.max()) + 1 if stepping == "per_sample" and save == "steps" else None
    last = sol.y[-1] if rows is None else sol.y[sol.stats.n_accepted, torch.arange(2)]
    found = torch.autograd.grad((f64(1.0, 0.7)[:, None] * last).sum(), (y0, theta, t))
    exact = y0 * torch.exp(theta * (torch.sin(t[-1]) - torch.sin(t[0])))
    expected = torch.autograd.grad((f64(1.0, 0.7)[:, None] * exact).sum(), (y0, theta, t))
    assert worst(found, expected) <= (1e-6 if isinstance(gradient, (Backsolve, Interpolating)) else 1e-7)


# Rounding in the error estimate (how much, depends on the processor) moves the ends of adaptive steps, and
# each row with y': by some 1e-12 to 1e-9. Fixed steps leave rounding alone.
@pytest.mark.parametrize(("own", "bound"), [({"dt": 0.13}, 1e-13), ({}, 1e-7)])
@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("gradient", [Discrete(), Discrete(keep="state"), Discrete(checkpoints=3)], ids=repr)
def test_the_gradient_of_all_steps_is_that_of_backpropagation(gradient, stepping, own, bound):
    net, y0 = Net(), torch.randn(3, 3, dtype=torch.float64)
    y0[2] = math.nan if stepping == "per_sample" else 0.5
    results = []
    for choice in (Direct(), gradient):
        start, t = y0.clone().requires_grad_(), f64(0.1, 2.0).requires_grad_()
        sol = solve(net, start, t, save="steps", gradient=choice, stepping=stepping, **own)
        weights = torch.cos(torch.arange(sol.y.numel(), dtype=torch.float64)).view(sol.y.shape)
        there = ~sol.y.isnan()
        loss = (weights * sol.y)[there].sum()
        results.append(torch.autograd.grad(loss, (start, t, *net.parameters())))
    assert worst(results[1], results[0]) <= bound


def test_the_time_gradient_of_steps_belongs_to_the_ends_of_each_sample():
    y0 = f64(1.0, 2.0, 3.0)[:, None].requires_grad_()
    t = torch.stack((f64(0.0, 1.0), f64(2.0, -1.0), f64(0.7, 0.7))).requires_grad_()
    for gradient in (Discrete(), Direct()):
        sol = solve(
            growth, y0, t, save="steps", stepping="per_sample", gradient=gradient, rtol=1e-9, atol=1e-11
        )
        last = sol.y[sol.stats.n_accepted + f64(0, 0, 1).long(), torch.arange(3)]
        found = torch.autograd.grad(last.sum(), (y0, t))
        exact = y0[:, 0] * torch.exp(torch.sin(t[:, 1]) - torch.sin(t[:, 0]))
        assert worst(found, torch.autograd.grad(exact.sum(), (y0, t))) <= 1e-7


def test_a_way_to_save_that_is_not_known_is_refused():
    with pytest.raises(ArgumentError, match=r"save='step'.*'steps'"):
        solve(growth, START, f64(0.0, 1.0), save="step")
