"""What docs/migrate.md says about the others and about us is so: each claim against the library itself."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path

import pytest
import torch
import torchdiffeq
from scipy.integrate import solve_ivp
from torch import nn

import adamode
from adamode import Event, Status

PAGE = Path(__file__).resolve().parent.parent / "docs" / "migrate.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LIBRARIES = [torchdiffeq, adamode]


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture(scope="module")
def page():
    """The names that the page's code leaves."""
    namespace: dict[str, object] = {}
    for block in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        exec(block, namespace)
    return namespace


def test_the_pages_odeint_is_torchdiffeqs(page):
    f, y0, t = page["f"], f64(1.0, 0.0), page["t"]
    theirs = torchdiffeq.odeint(f, y0, t, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(page["ys"], theirs, rtol=0, atol=1e-6)
    adjoint = torchdiffeq.odeint_adjoint(f, y0, t, rtol=1e-8, atol=1e-8)
    (slope,) = torch.autograd.grad(adjoint[-1, 0], f.length)
    assert page["slope"].item() == pytest.approx(slope.item(), rel=1e-5)
    event_t, _ = torchdiffeq.odeint_event(f, y0, t[0], event_fn=lambda t, y: y[0], rtol=1e-8, atol=1e-8)
    assert page["event_t"].item() == pytest.approx(event_t.item(), rel=1e-6)


def test_the_pages_torchode_and_scipy_examples_give_the_right_numbers(page):
    ends = f64(1.0, 2.0, 3.0)
    expected = ends * torch.exp(-(ends + ends**2 / 2))  # y' = −y (1 + t)
    torch.testing.assert_close(page["batch_first"][:, -1, 0], expected, rtol=1e-5, atol=0)
    scipys = torch.from_numpy(page["theirs"].y.T.copy())
    torch.testing.assert_close(page["ours"].y, scipys, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["flow_matching", "inverted", "sit", "f5_tts"])
def test_the_pages_samplers_give_torchdiffeqs_numbers(page, name):
    model, x0 = page["model"], page["x0"]
    plain = lambda t, x: model(x=x, t=t)  # noqa: E731
    calls = {
        "flow_matching": (plain, f64(0.0, 1.0), {"method": "midpoint", "options": {"step_size": 0.05}}),
        "inverted": (plain, page["time_grid"], {"method": "euler", "options": {}}),
        "sit": (page["per_sample"], torch.linspace(1e-3, 1 - 1e-3, 50), {"method": "euler"}),
        "f5_tts": (page["guided"], page["sway"], {"method": "euler"}),
    }
    field, t, given = calls[name]
    with torch.no_grad():
        theirs = torchdiffeq.odeint(field, x0, t, **given)[-1]
    torch.testing.assert_close(page[name], theirs, rtol=0, atol=1e-6)


def cosine(t, y):
    return y * torch.cos(t)


def calls_of(library, method):
    times = []

    def f(t, y):
        times.append(float(t))
        return cosine(t, y)

    y = library.odeint(f, f64(1.0), f64(0.0, 10.0), method=method, rtol=1e-9, atol=1e-9)
    return abs(float(y[-1]) - math.exp(math.sin(10.0))), times


def test_dopri5_evaluates_f_as_often_as_torchdiffeqs():
    assert len(calls_of(adamode, "dopri5")[1]) == len(calls_of(torchdiffeq, "dopri5")[1]) == 770


@pytest.mark.parametrize(("method", "theirs", "ours"), [("dopri8", 1e-7, 1e-9), ("bosh3", 1e-6, 5e-8)])
def test_the_last_output_is_the_ends_of_a_step_and_f_is_not_asked_beyond(method, theirs, ours):
    error, times = calls_of(torchdiffeq, method)
    assert (error > theirs, max(times) > 10.0) == (True, True)
    error, times = calls_of(adamode, method)
    assert (error < ours, max(times) <= 10.0) == (True, True)


def leaves_its_domain(t, y):
    return torch.sqrt(y - 2)


def test_nan_from_f_is_named_and_never_returned():
    with pytest.raises(AssertionError, match=r"underflow in dt 0\.0"):
        torchdiffeq.odeint(leaves_its_domain, f64(1.0), f64(0.0, 1.0))
    assert torchdiffeq.odeint(leaves_its_domain, f64(1.0), f64(0.0, 1.0), method="euler").isnan().any()
    # A first evaluation that is not finite is refused before any step.
    with pytest.raises(AssertionError, match=r"NaN|nan|finite|NON_FINITE"):
        adamode.odeint(leaves_its_domain, f64(1.0), f64(0.0, 1.0))
    with pytest.raises(AssertionError, match="NON_FINITE at t=1"):
        adamode.odeint(leaves_its_domain, f64(1.0), f64(0.0, 1.0), method="euler")


def test_a_blow_up_says_where():
    for library, text in zip(LIBRARIES, ("underflow in dt", "STEP_UNDERFLOW at t=1,"), strict=True):
        with pytest.raises(AssertionError, match=text):
            library.odeint(lambda t, y: y * y, f64(1.0), f64(0.0, 2.0))


def test_an_infinite_end_is_refused():
    with pytest.raises(ValueError, match="times must be finite"):
        adamode.odeint(cosine, f64(1.0), f64(0.0, math.inf))


def test_a_parameter_named_twice_has_its_gradient_once():
    found = []
    for library in LIBRARIES:
        p = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
        y = library.odeint_adjoint(lambda t, y, p=p: -p * y, f64(1.0), f64(0.0, 1.0), adjoint_params=(p, p))
        y[-1].sum().backward()
        found.append(p.grad.item())
    assert found == pytest.approx([-2 * math.exp(-0.5), -math.exp(-0.5)], rel=1e-5)


def test_the_second_derivative_of_the_adjoint_is_right_or_says_what_to_use():
    y0 = f64(1.0).requires_grad_()
    y = adamode.odeint_adjoint(lambda t, y: -(y**2), y0, f64(0.0, 1.0), adjoint_params=())
    (first,) = torch.autograd.grad(y[-1].sum(), y0, create_graph=True)
    with pytest.raises(adamode.SecondDerivativeError, match="odeint"):
        torch.autograd.grad(first.sum(), y0)
    theirs = torchdiffeq.odeint_adjoint(lambda t, y: -(y**2), y0, f64(0.0, 1.0), adjoint_params=())
    (first,) = torch.autograd.grad(theirs[-1].sum(), y0, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        torch.autograd.grad(first.sum(), y0)


class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)).double()
        self.calls = 0

    def forward(self, t, y):
        self.calls += 1
        return self.net(y)


def test_the_adjoint_needs_fewer_evaluations_for_the_same_gradient():
    calls, gradients = [], []
    for library in LIBRARIES:
        f = Counted()
        y = library.odeint_adjoint(f, torch.ones(4, 2).double(), f64(0.0, 3.0), rtol=1e-6, atol=1e-8)
        forward, f.calls = f.calls, 0
        y[-1].sum().backward()
        calls.append((forward, f.calls))
        gradients.append(f.net[0].weight.grad)
    (theirs, theirs_back), (ours, ours_back) = calls
    assert ours == theirs
    assert ours_back < 0.8 * theirs_back
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_bad_input_and_unused_options_are_answered_in_words():
    with pytest.raises(TypeError, match=r"y0\.to\(torch\.float32\)"):
        adamode.odeint(cosine, torch.tensor([1]), f64(0.0, 1.0))
    with pytest.raises(NotImplementedError, match="nextafter_cpu"):
        torchdiffeq.odeint(cosine, torch.tensor([1]), f64(0.0, 1.0))
    options = {"step_size": 0.1}
    for library, text in zip(LIBRARIES, ("Unexpected arguments", "did you mean 'step_t'"), strict=True):
        with pytest.warns(UserWarning, match=text):
            library.odeint(cosine, f64(1.0), f64(0.0, 1.0), options=options)
    assert options == {"step_size": 0.1}


def test_every_option_of_the_table_means_the_same_in_solve():
    arguments = {"rtol": 1e-6, "atol": 1e-8}
    y0, t, half = f64(1.0), f64(0.0, 4.0), f64(2.0)
    own = lambda y: y.abs().max()  # noqa: E731
    options = {"first_step": 0.01, "step_t": half, "max_num_steps": 500, "norm": own}
    options |= {"safety": 0.8, "ifactor": 3.0, "dfactor": 0.3, "max_step": 0.3}
    old = adamode.odeint(cosine, y0, t, options=options, **arguments)
    controller = adamode.I(safety=0.8, factor_max=3.0, factor_min=0.3, dt_max=0.3)
    named = {"dt0": 0.01, "step_at": half, "max_steps": 500, "norm": own, "controller": controller}
    new = adamode.solve(cosine, y0, t, **named, **arguments)
    assert float((new.y - old).abs().max()) < 1e-5
    grid = adamode.odeint(cosine, y0, t, method="rk4", options={"step_size": 0.1})
    torch.testing.assert_close(adamode.solve(cosine, y0, t, method="rk4", dt=0.1).y, grid, rtol=1e-13, atol=0)
    with pytest.raises(ValueError, match="give a fixed step, dt="):
        adamode.solve(cosine, y0, t, method="rk4")


def test_scipy_fires_an_event_that_is_zero_at_the_start_and_we_do_not():
    event = lambda t, y: y[0]  # noqa: E731
    event.terminal = True
    theirs = solve_ivp(lambda t, y: [y[1], -9.81], (0, 10), [0.0, 20.0], events=event)
    assert theirs.t_events[0].tolist() == [0.0]
    ball = lambda t, y: torch.stack((y[1], torch.full_like(y[0], -9.81)))  # noqa: E731
    ours = adamode.solve(ball, f64(0.0, 20.0), f64(0.0, 10.0), events=Event(event))
    assert ours.status is Status.EVENT
    assert ours.t_events[0].tolist() == pytest.approx([40 / 9.81])


def test_scipy_reports_a_failure_in_a_flag_changes_rtol_and_extrapolates():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert not solve_ivp(lambda t, y: y * y, (0, 2), [1.0]).success
    with pytest.warns(UserWarning, match="rtol"):
        solve_ivp(lambda t, y: -y, (0, 1), [1.0], rtol=1e-16)
    dense = solve_ivp(lambda t, y: -y, (0, 1), [1.0], dense_output=True)
    assert math.isfinite(dense.sol(2.0)[0])
    decay = lambda t, y: -y  # noqa: E731
    with pytest.raises(adamode.SolverError):
        adamode.solve(lambda t, y: y * y, f64(1.0), f64(0.0, 2.0))
    with pytest.raises(ValueError, match=r"8\.9e-16"):
        adamode.solve(decay, f64(1.0), f64(0.0, 1.0), rtol=1e-16)
    with pytest.raises(ValueError, match="outside the solve"):
        adamode.solve(decay, f64(1.0), f64(0.0, 1.0), dense=True)(torch.tensor(2.0))


@pytest.mark.parametrize(("theirs", "ours"), [("RK45", "dopri5"), ("RK23", "bosh3"), ("DOP853", "dop853")])
def test_the_methods_named_alike_take_the_same_step(theirs, ours):
    f = lambda t, y: [y[1], -math.sin(y[0]) * math.cos(t)]  # noqa: E731
    g = lambda t, y: torch.stack((y[1], -torch.sin(y[0]) * torch.cos(t)))  # noqa: E731
    loose = {"rtol": 1.0, "atol": 1e9}  # one step, whatever it costs
    expected = solve_ivp(f, (0, 0.5), [1.0, 0.2], method=theirs, first_step=0.5, **loose)
    assert len(expected.t) == 2
    found = adamode.solve(g, f64(1.0, 0.2), f64(0.0, 0.5), method=ours, dt=0.5)
    torch.testing.assert_close(found.y[-1], torch.from_numpy(expected.y[:, -1]), rtol=1e-14, atol=1e-15)


def test_torchode_stops_the_batch_where_one_sample_fails_and_we_do_not():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchode = pytest.importorskip("torchode")

    def f(t, y):  # the first sample comes to a NaN at y = 1.5
        return torch.where(y > 1.5, torch.full_like(y, math.nan), torch.full_like(y, 0.2))

    y0, t = f64(1.0, 0.1, 0.2).view(3, 1), torch.linspace(0, 5, 5, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = torchode.solve_ivp(f, y0, t)
    assert theirs.status.tolist()[1:] == [0, 0]  # "success"
    right = y0[1:, 0] + 0.2 * 5
    assert not torch.allclose(theirs.ys[1:, -1, 0], right)
    ours = adamode.solve(f, y0, t, stepping="per_sample", method="tsit5")
    assert [Status(int(s)).name for s in ours.status] == ["NON_FINITE", "SUCCESS", "SUCCESS"]
    torch.testing.assert_close(ours.y[-1, 1:, 0], right)
    assert ours.y[-1, 0].isnan().all()
