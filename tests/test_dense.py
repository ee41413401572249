"""Dense output: any shape of times, the method's own order, exact at outputs, differentiable."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import Net, Swing, Tree, f64, relative, worst

from adamode import Backsolve, Direct, Discrete, Event, Interpolating, Status, solve
from adamode.solvers.errors import ArgumentError, ArgumentTypeError
from adamode.solvers.methods import METHODS

ADAPTIVE = ("dopri5", "bosh3", "tsit5", "dopri8", "dop853")
STEPPINGS = ("shared", "per_sample")
SPANS = ((0.0, 2.0), (1.0, -1.0))


def driven(t, y):
    return torch.cos(2 * t) * y - 0.3 * y * y


START = torch.tensor([[0.3, 1.0], [2.0, 0.7], [0.1, 0.0]], dtype=torch.float64)


def dense(stepping, span=(0.0, 2.0), **options):
    return solve(driven, START, f64(*span), stepping=stepping, dense=True, gradient=None, **options)


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("stepping", STEPPINGS)
def test_it_equals_the_outputs_at_their_times(stepping, method, span):
    t = torch.linspace(*span, 7, dtype=torch.float64)
    sol = solve(driven, START, t, stepping=stepping, method=method, dense=True, gradient=None)
    assert torch.equal(sol(t)[[0, -1]], sol.y[[0, -1]])
    torch.testing.assert_close(sol(t), sol.y, rtol=1e-14, atol=1e-15)
    steps = solve(driven, START, t, stepping=stepping, method=method, dense=True, save="steps", gradient=None)
    if stepping == "shared":
        assert torch.equal(steps(steps.t), steps.y)
    else:
        times = steps.t.nan_to_num(nan=span[0])
        there = ~steps.t.isnan()
        assert torch.equal(steps(times, per_sample=True)[there], steps.y[there])


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (5,), (2, 3), (2, 0), (1, 2, 2)])
def test_times_of_any_shape(stepping, shape):
    sol = dense(stepping)
    n = math.prod(shape)
    t = (0.1 + 0.3 * torch.arange(n, dtype=torch.float64)).view(shape)
    for ask in (sol, sol.derivative):
        found = ask(t)
        assert found.shape == (*shape, *START.shape)
        for k, value in enumerate(t.reshape(-1)):
            assert torch.equal(found.reshape(-1, *START.shape)[k], ask(value))


def test_each_sample_may_be_asked_its_own_times():
    spans = torch.stack((f64(0.0, 2.0), f64(1.0, -1.0), f64(0.5, 0.6)))
    sol = solve(driven, START, spans, stepping="per_sample", dense=True, gradient=None)
    theta = torch.linspace(0, 1, 12, dtype=torch.float64).view(2, 6, 1)
    t = spans[:, 0] + theta * (spans[:, 1] - spans[:, 0])
    for ask, name in ((sol, "__call__"), (sol.derivative, "derivative")):
        found = ask(t, per_sample=True)
        assert found.shape == (2, 6, 3, 2)
        for i in range(3):
            alone = solve(driven, START[i : i + 1], spans[i], dense=True, gradient=None)
            expected = getattr(alone, name)(t[..., i])[..., 0, :]
            torch.testing.assert_close(found[..., i, :], expected, rtol=1e-12, atol=1e-13)
    assert sol(f64(0.5, 0.5, 0.5), per_sample=True).shape == (3, 2)


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("stepping", STEPPINGS)
def test_its_error_shrinks_with_its_order(stepping, method):
    """Fixed steps of y' = cos(t) y, so y = exp(sin t): the slope of the error between steps."""
    tableau = METHODS[method]
    errors = []
    steps = (0.4, 0.2) if tableau.dense_order >= 6 else (0.1, 0.05)
    t = torch.linspace(0.0, 1.9, 77, dtype=torch.float64)
    exact = torch.exp(torch.sin(t))[:, None]
    for dt in steps:
        sol = solve(
            lambda t, y: torch.cos(t) * y,
            f64(1.0),
            f64(0.0, 2.0),
            stepping=stepping,
            method=method,
            dt=dt,
            dense=True,
            gradient=None,
        )
        errors.append(float((sol(t) - exact).abs().max()))
    slope = math.log2(errors[0] / errors[1])
    # interpolation of order q leaves O(dt^(q+1)) inside a step, the steps themselves O(dt^p)
    assert slope >= min(tableau.order, tableau.dense_order + 1) - 0.5


@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("stepping", STEPPINGS)
def test_its_derivative_is_that_of_its_value_and_f_at_steps(stepping, method):
    sol = dense(stepping, method=method)
    t = torch.linspace(0.05, 1.95, 9, dtype=torch.float64)
    h = 1e-6
    difference = (sol(t + h) - sol(t - h)) / (2 * h)
    torch.testing.assert_close(sol.derivative(t), difference, rtol=1e-6, atol=1e-8)
    ends = f64(0.0, 2.0)
    slopes = torch.stack([driven(time, sol(time)) for time in ends])
    torch.testing.assert_close(sol.derivative(ends), slopes, rtol=1e-12, atol=1e-13)


@given(st.floats(-0.5, 2.5), st.sampled_from(STEPPINGS))
@settings(deadline=None, derandomize=True, max_examples=12)
def test_times_outside_the_solve_are_refused(t, stepping):
    sol = dense(stepping)
    if 0 <= t <= 2:
        assert sol(f64(t)).isfinite().all()
        return
    for ask in (sol, sol.derivative):
        with pytest.raises(ArgumentError, match=r"outside.*from 0\.0 to 2\.0.*does not extrapolate"):
            ask(f64(1.0, t))


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_questions_that_mean_nothing_are_refused(stepping):
    sol = dense(stepping)
    for ask in (sol, sol.derivative):
        with pytest.raises(ArgumentError, match="outside"):
            ask(f64(math.nan))
        with pytest.raises(ArgumentTypeError, match="floating-point tensor"):
            ask(1.0)
        with pytest.raises(ArgumentTypeError, match="floating-point tensor"):
            ask(torch.tensor([1]))
        with pytest.raises(ArgumentError, match="meta"):
            ask(torch.zeros(2, device="meta"))
        with pytest.raises(ArgumentError, match="per_sample"):
            ask(f64(0.0, 1.0), per_sample=True)
    with pytest.raises(ArgumentError, match="dense=True"):
        solve(driven, START, f64(0.0, 1.0), stepping=stepping)(f64(0.5))


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_nothing_is_answered_after_a_terminal_event(stepping):
    event = Event(lambda t, y: (t - 0.777).reshape(t.shape if t.dim() == 0 else -1))
    sol = dense(stepping, events=event, dt=0.5)
    before, after = f64(0.0, 0.776, 0.777), f64(0.778, 0.9, 1.5)
    assert sol(before).isfinite().all()
    if stepping == "shared":
        for t in after:
            with pytest.raises(ArgumentError, match=r"outside.*to 0\.777"):
                sol(t)
    else:
        assert sol(after).isnan().all()
        assert sol.derivative(after).isnan().all()


def test_a_sample_that_failed_answers_up_to_where_it_came():
    y0 = f64(2.0, 0.5, math.nan)[:, None]
    sol = solve(lambda t, y: y * y, y0, f64(0.0, 1.0), stepping="per_sample", dense=True, rtol=1e-8)
    assert sol.status[1] == Status.SUCCESS
    found = sol(f64(0.0, 0.3, 0.45, 0.6, 1.0))[:, :, 0]
    assert found[:, 0].isnan().tolist() == [False, False, False, True, True]
    assert found[:, 1].isfinite().all()
    assert found[:, 2].isnan().all()
    assert relative(found[:3, 0], 1 / (0.5 - f64(0.0, 0.3, 0.45))) <= 1e-5


def test_a_sample_that_stays_answers_at_its_time():
    t = torch.stack((f64(0.5, 0.5), f64(0.0, 1.0)))
    sol = solve(driven, START[:2], t, stepping="per_sample", dense=True)
    assert torch.equal(sol(f64(0.5, 0.0), per_sample=True), START[:2])


@pytest.mark.parametrize("compact", [False, True])
def test_compacted_batches_and_blocks_answer_too(compact):
    swing, z0 = Swing(), torch.randn(2, 3, 3, dtype=torch.float64)
    t = torch.stack((f64(0.0, 0.5), f64(0.0, 3.0), f64(1.0, -1.0)))
    sol = solve(swing, z0, t, stepping="per_sample", dense=True, compact=compact, gradient=None)
    asked = f64(0.4, 2.0, -0.9)
    found = sol(asked, per_sample=True)
    assert found.shape == (2, 3, 3)
    for i in range(3):
        alone = solve(swing, z0[:, i : i + 1], t[i], dense=True, gradient=None)
        torch.testing.assert_close(found[:, i], alone(asked[i])[:, 0], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_a_tree_answers_in_its_structure(stepping):
    y0 = {"a": torch.randn(2, 3, dtype=torch.float64), "b": torch.randn(2, dtype=torch.float64)}
    f = Tree() if stepping == "shared" else (lambda t, y: {"a": -y["a"], "b": torch.cos(y["b"])})
    sol = solve(f, y0, f64(0.0, 1.0), stepping=stepping, dense=True, gradient=None)
    found = sol(torch.zeros(2, 2, dtype=torch.float64) + 1.0)
    assert found["a"].shape == (2, 2, 2, 3)
    assert found["b"].shape == (2, 2, 2)
    assert torch.equal(found["b"][0, 1], sol.y["b"][-1])


GRADIENTS = [Discrete(), Discrete(keep="state"), Direct(), Backsolve(), Interpolating()]


@pytest.mark.parametrize("gradient", GRADIENTS, ids=repr)
@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("method", ["tsit5", "dop853"])
def test_answers_are_differentiable(gradient, stepping, method):
    """y = y0 exp(θ (sin t − sin t0)): with respect to y0, θ, the solve's times and the times asked."""
    theta = f64(0.7)[0].requires_grad_()
    y0 = f64(1.0, -2.0)[:, None].requires_grad_()
    t = f64(0.2, 1.0, 3.0).requires_grad_()
    asked = f64(0.2, 0.31, 0.31, 1.0, 3.0, 2.2).requires_grad_()
    weights = torch.randn(6, 2, 1, dtype=torch.float64)
    kw = {"rtol": 1e-10, "atol": 1e-12, "method": method}
    f = lambda t, y: theta * torch.cos(t) * y  # noqa: E731
    sol = solve(f, y0, t, dense=True, gradient=gradient, stepping=stepping, **kw)
    found = torch.autograd.grad((weights * sol(asked)).sum() + sol.y[-1].sum(), (y0, theta, t, asked))

    def exact(times):
        return y0 * torch.exp(theta * (torch.sin(times) - torch.sin(t[0])))[:, None, None]

    loss = (weights * exact(asked)).sum() + exact(t[-1:]).sum()
    expected = torch.autograd.grad(loss, (y0, theta, t, asked))
    assert worst(found, expected) <= (1e-6 if isinstance(gradient, (Backsolve, Interpolating)) else 1e-7)


@pytest.mark.parametrize("gradient", [Discrete(), Discrete(keep="state")], ids=repr)
@pytest.mark.parametrize("stepping", STEPPINGS)
def test_the_discrete_gradient_of_an_answer_is_that_of_backpropagation(gradient, stepping):
    net, y0 = Net(), torch.randn(3, 3, dtype=torch.float64)
    t, asked = f64(0.0, 1.0, 2.0), f64(0.0, 0.1, 0.77, 1.5, 2.0)
    results = []
    for choice in (Direct(), gradient):
        start, times, ask = (x.clone().requires_grad_() for x in (y0, t, asked))
        sol = solve(net, start, times, dense=True, gradient=choice, stepping=stepping)
        loss = sol(ask).square().sum() + sol.y[1].sum()
        results.append(torch.autograd.grad(loss, (start, times, ask, *net.parameters())))
    assert worst(results[1], results[0]) <= 1e-12


@pytest.mark.parametrize("gradient", [Discrete(), Direct()], ids=repr)
def test_samples_that_failed_add_nothing_to_the_gradient_of_an_answer(gradient):
    theta = f64(1.0)[0].requires_grad_()
    y0 = f64(1.0, 9.0, -1.0, math.nan)[:, None].requires_grad_()
    t, asked = f64(0.0, 2.0).requires_grad_(), f64(0.5, 1.5).requires_grad_()
    f = lambda t, y: -2 * theta * torch.sqrt(y)  # noqa: E731
    kw = {"dense": True, "gradient": gradient, "stepping": "per_sample"}
    found = solve(f, y0, t, **kw)(asked)
    assert found[:, :, 0].isnan().tolist() == [[False, False, True, True], [True, False, True, True]]
    grads = torch.autograd.grad(found[:, 1].sum(), (y0, theta, t, asked))
    alone = solve(f, y0[1:2], t, **kw)(asked)
    expected = torch.autograd.grad(alone.sum(), (y0, theta, t, asked))
    assert worst(grads, expected) <= 1e-13


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_asking_for_nothing_has_no_gradient_and_no_error(stepping):
    y0, asked = START.clone().requires_grad_(), torch.empty(0, dtype=torch.float64, requires_grad=True)
    found = solve(driven, y0, f64(0.0, 1.0), dense=True, stepping=stepping)(asked)
    assert found.shape == (0, 3, 2)


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_asking_does_not_change_what_was_asked_before(stepping):
    sol = dense(stepping)
    first = sol(f64(0.3, 1.1)).clone()
    sol(torch.linspace(0, 2, 50, dtype=torch.float64))
    assert torch.equal(sol(f64(0.3, 1.1)), first)
