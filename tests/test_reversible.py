"""Steps of a pair: what they are, that they can be undone, and the gradient that rebuilds their states.

The plain loop below is written from the scheme's two lines and shares nothing with the engine but the
tableaus' fractions; autograd differentiates it.
"""

from __future__ import annotations

import itertools
import math
import warnings

import pytest
import torch
from dynamics_zoo import MODELS, draw
from problems import Net, f64, rational, rational_solution, relative, worst
from torch import nn

import adamode
from adamode import AdamodeWarning, ArgumentError, Backsolve, Direct, Discrete, Event, Reversible, solve
from adamode.memory import LiveStorage
from adamode.solvers.methods import EVERY, METHODS
from adamode.solvers.methods.stability import pair_growth, pair_matrix

STEPPINGS = ("shared", "per_sample")
FOUR = ("euler", "rk4", "dopri5", "tsit5")
Y0 = f64(0.4, -1.1, 0.8, 0.3, 0.7, -0.2, 0.1, 0.5).view(4, 2)


class Driven(nn.Module):
    """Nonlinear, of each sample alone, and of time."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(f64(0.7, -0.4))
        self.mix = nn.Parameter(f64(0.3, -1.2, 0.9, 0.2).view(2, 2))

    def forward(self, t, y):
        return torch.tanh(y @ self.mix) * self.rate + torch.sin(2 * t)


def increment(tableau, f, t, y, h):
    """Ψ_h(t, y)."""
    stages = []
    for c, row in zip(tableau.c, tableau.a, strict=True):
        at = y + sum((h * float(a) * k for a, k in zip(row, stages, strict=True) if a), torch.zeros_like(y))
        stages.append(f(f64(t + float(c) * h).squeeze(), at))
    return h * sum(float(b) * k for b, k in zip(tableau.b, stages, strict=True))


def coupled(tableau, f, y0, grid, coupling):
    """y along the grid, the first row y0."""
    y = z = y0
    rows = [y]
    for t0, t1 in itertools.pairwise(grid):
        y = coupling * y + (1 - coupling) * z + increment(tableau, f, t0, z, t1 - t0)
        z = z - increment(tableau, f, t1, y, t0 - t1)
        rows.append(y)
    return torch.stack(rows)


def leapfrog(f, y0, grid):
    """The same of the asynchronous leapfrog, as MALI writes it."""
    y, v = y0, f(f64(grid[0]).squeeze(), y0)
    rows = [y]
    for t0, t1 in itertools.pairwise(grid):
        h = t1 - t0
        middle = y + v * h / 2
        v = v + 2 * (f(f64(t0 + h / 2).squeeze(), middle) - v)
        y = middle + v * h / 2
        rows.append(y)
    return torch.stack(rows)


def gradients(rows, weights, inputs):
    return torch.autograd.grad((rows * weights).sum(), inputs)


def grid_of(n, end=1.0):
    return [end * i / n for i in range(n)] + [end]


def compare_with_loop(f, y0, n, method, stepping, gradient, loop):
    """Values and gradients of a solve of n fixed steps, two outputs, and of the loop."""
    theta = list(f.theta()) if hasattr(f, "theta") else list(f.parameters())
    inputs = [y0, *theta]
    sol = solve(f, y0, f64(0, 0.5, 1), method=method, dt=1 / n, stepping=stepping, gradient=gradient)
    weights = torch.cos(torch.arange(sol.y.numel(), dtype=torch.float64)).view(sol.y.shape)
    rows = loop(grid_of(n))[:: n // 2]
    assert relative(sol.y.detach(), rows.detach()) <= 1e-12
    found, expected = gradients(sol.y, weights, inputs), gradients(rows, weights, inputs)
    assert worst(found, expected) <= 1e-12
    return sol


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("method", [*FOUR, "heun3", "bosh3", "dop853"])
def test_the_gradient_is_that_of_autograd_through_a_plain_loop(method, stepping):
    f, y0 = Driven(), Y0.clone().requires_grad_()
    for coupling in (0.999, 0.8, 1.0):
        loop = lambda grid, c=coupling: coupled(METHODS[method], f, y0, grid, c)  # noqa: E731
        sol = compare_with_loop(f, y0, 12, method, stepping, Reversible(coupling), loop)
        assert sol.stats.reconstruction_error <= 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("method", FOUR)
@pytest.mark.parametrize("model", MODELS)
def test_the_same_of_the_models_over_a_thousand_steps(model, method, stepping):
    drawn = draw(model, MODELS[model][0])
    f, y0 = drawn.dynamics, drawn.z0.clone().requires_grad_()
    field = lambda t, y: f.forward(t, y)[0]  # noqa: E731
    loop = lambda grid: coupled(METHODS[method], field, y0, grid, 0.999)  # noqa: E731
    compare_with_loop(f, y0, 1000, method, stepping, Reversible(), loop)


@pytest.mark.parametrize("method", ["dopri5", "fehlberg2"])
def test_adaptive_steps_are_those_of_the_loop_with_their_sizes(method):
    f, y0 = Driven(), Y0.clone().requires_grad_()
    options = {"method": method, "rtol": 1e-4, "atol": 1e-5, "gradient": Reversible(0.9)}
    sol = solve(f, y0, f64(0, 2), save="steps", trace=True, **options)
    assert sum(row.accepted for row in sol.trace) == sol.stats.n_accepted >= 5
    rows = coupled(METHODS[method], f, y0, sol.t.tolist(), 0.9)
    assert relative(sol.y.detach(), rows.detach()) <= 1e-12
    inputs, weights = [y0, *f.parameters()], torch.ones_like(sol.y)
    assert worst(gradients(sol.y, weights, inputs), gradients(rows, weights, inputs)) <= 1e-12
    each = solve(f, y0, f64(0, 2), save="steps", stepping="per_sample", **options)
    own = [
        coupled(METHODS[method], f, y0[b : b + 1], each.t[:, b][~each.t[:, b].isnan()].tolist(), 0.9)[:, 0]
        for b in range(len(y0))
    ]
    reached = [each.y[: len(rows), b] for b, rows in enumerate(own)]
    assert all(relative(a.detach(), b.detach()) <= 1e-12 for a, b in zip(reached, own, strict=True))
    found = torch.autograd.grad(sum(x.sum() for x in reached), inputs)
    assert worst(found, torch.autograd.grad(sum(x.sum() for x in own), inputs)) <= 1e-12


def flat(sol):
    """All that a solution has."""
    found = [sol.y]
    for one in (*sol.t_events, *sol.y_events):
        found += one if isinstance(one, list) else [one]
    return [x for x in found if x.numel()]


CROSSING = Event(lambda t, y: y[..., 0] - 0.6)
FIRST = Event(lambda t, y: y[0, 0] - 0.6)
OPTIONS = {
    "inside": {},
    "backwards": {"t": f64(1.3, 0.77, 0.2, -0.1)},
    "step_at": {"step_at": [0.3]},
    "jump_at": {"jump_at": [0.3, 0.77]},
    "steps": {"save": "steps"},
    "end": {"save": "end"},
    "event": {"events": CROSSING},
    "terminal": {"events": Event(CROSSING.fn, terminal=True)},
    "dense": {"dense": True},
    "fixed": {"dt": 0.11},
    "compact": {"compact": True},
    "own times": {"t": f64(0, 0.3, 0.4, 0, 0.1, 1.5, 1, 0.2, 0.1, 0.5, 0.5, 0.5).view(4, 3)},
}
SAMPLES_ONLY = ("compact", "own times")


@pytest.mark.parametrize("method", ["dopri5", "dop853", "alf"])
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("stepping", ["shared", "per_sample", "groups"])
def test_every_option_has_the_gradient_that_autograd_has_through_the_same_steps(stepping, name, method):
    """dL/dt, events and questions to the dense output too; Direct(coupling) takes the steps, autograd the
    rest."""
    if (stepping == "shared" and name in SAMPLES_ONLY) or (method == "alf" and name == "jump_at"):
        return
    if stepping == "groups" and name == "own times":  # of a group begin and end together
        return
    f, y0, options = Driven(), Y0.clone().requires_grad_(), dict(OPTIONS[name])
    t = options.pop("t", f64(0, 0.13, 0.5, 0.77, 1.3)).clone().requires_grad_()
    if "events" in options and stepping == "shared":
        options["events"] = Event(FIRST.fn, terminal=options["events"].terminal)
    tol = 1e-2 if method == "alf" else 1e-3
    options |= {"method": method, "rtol": tol, "atol": tol}
    options["stepping"] = torch.tensor([0, 1, 0, 1]) if stepping == "groups" else stepping
    coupling = {} if method == "alf" else {"coupling": 0.9}

    def both(gradient):
        sol = solve(f, y0, t, gradient=gradient, **options)
        values = [
            x.nan_to_num() for x in (flat(sol) + ([sol(f64(0.2, 0.41, 1.0))] if name == "dense" else []))
        ]
        loss = sum(
            (x * torch.cos(torch.arange(x.numel(), dtype=x.dtype)).view(x.shape)).sum() for x in values
        )
        return [x.detach() for x in values], torch.autograd.grad(loss, [y0, t, *f.parameters()])

    (values, found), (same, expected) = both(Reversible(**coupling)), both(Direct(**coupling))
    assert "events" not in options or sum(x.numel() for x in values[1:])
    assert worst(values, same) <= 1e-10
    assert worst(found, expected) <= 1e-9


def kept(n, gradient, stepping):
    """Bytes of tensors that live between the forward and the backward pass of a solve with n steps."""
    net, y0 = Net(), torch.ones(64, 3, dtype=torch.float64, requires_grad=True)
    with LiveStorage() as meter:
        sol = solve(net, y0, f64(0, 1), method="heun2", dt=1 / n, gradient=gradient, stepping=stepping)
        held = meter.now
    sol.y.sum().backward()
    return held


def test_kept_memory_of_one_clock_is_flat_in_the_number_of_steps():
    few, many = (kept(n, Reversible(), "shared") for n in (10, 150))
    assert many <= 1.1 * few
    assert kept(150, Discrete(keep="state"), "shared") >= 20 * many


def test_with_a_clock_a_sample_two_numbers_a_step_and_sample_are_kept():
    few, many = (kept(n, Reversible(), "per_sample") for n in (10, 60))
    # t0 is the t1 before, but for the first: both are held where a step was rejected by some.
    assert (many - few) / 50 <= 64 * (8 + 8 + 1) + 64


@pytest.mark.slow
@pytest.mark.parametrize("stepping", STEPPINGS)
def test_kept_memory_from_50_to_2000_steps(stepping):
    few, many = (kept(n, Reversible(), stepping) for n in (50, 2000))
    steps = 1950 * 64 * 17 if stepping == "per_sample" else 0
    assert many - steps <= 1.1 * few


def test_evaluations_are_counted():
    """Of dopri5: k_1 at z (not in the first step), five more, f(t1, y1), five of Ψ_{−h}; all again, and a
    VJP each."""
    f, y0 = Driven(), Y0.clone().requires_grad_()
    for stepping in STEPPINGS:
        sol = solve(f, y0, f64(0, 1), method="dopri5", dt=0.1, gradient=Reversible(), stepping=stepping)
        sol.y.sum().backward()
        assert torch.as_tensor(sol.stats.nfe).tolist() in (120, [120] * 4)
        assert sol.stats.nfe_recomputed == 120 + 1  # and one to see that func is repeatable
        assert sol.stats.nfe_backward == 120


def test_the_numbers_are_the_same_without_a_gradient():
    f = Driven()
    with_one = solve(f, Y0, f64(0, 0.3, 1), gradient=Reversible(0.9))
    with torch.no_grad():
        assert torch.equal(solve(f, Y0, f64(0, 0.3, 1), gradient=Reversible(0.9)).y, with_one.y.detach())
    assert not torch.equal(solve(f, Y0, f64(0, 0.3, 1), gradient=None).y, with_one.y.detach())


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun2", "heun3", "bosh3", "rk4", "dopri5", "alf"])
def test_the_pair_has_at_least_the_order_of_its_method(method):
    """On the slopes' own problem; n is such that errors lie in 1e-10 … 1e-3."""
    order = EVERY[method].order
    n = {1: 512, 2: 128, 3: 64, 4: 32, 5: 24}[order]

    def error(n):
        sol = solve(
            rational, rational_solution(0.0), f64(0, 1), method=method, dt=1 / n, gradient=Reversible()
        )
        return (sol.y[-1] - rational_solution(1.0)).abs().max().item()

    slope = math.log2(error(n) / error(2 * n))
    assert slope >= order - 0.15
    assert method != "alf" or slope <= 2.15


def test_the_leapfrog_is_malis_and_its_gradient_is_that_of_autograd():
    f, y0 = Driven(), Y0.clone().requires_grad_()
    for stepping in STEPPINGS:
        sol = compare_with_loop(f, y0, 20, "alf", stepping, Reversible(), lambda grid: leapfrog(f, y0, grid))
        assert sol.stats.reconstruction_error * 1e-5 <= 1e-14  # in tolerances of 1e-5: rounding
        assert torch.as_tensor(sol.stats.nfe).max() == 20 + 1


def test_malis_toy_has_its_gradient_in_closed_form():
    """dz = αz, L = z(T)²: dL/dz0 = 2 z0 exp 2αT, dL/dα = 2T z0² exp 2αT, dL/dT = 2α z0² exp 2αT."""
    alpha, z0 = f64(0.3).requires_grad_(), f64(1.7).requires_grad_()
    for end in (1.0, 5.0):
        t = f64(0, end).requires_grad_()
        options = {"method": "alf", "rtol": 1e-5, "atol": 1e-5, "params": [alpha]}
        sol = solve(lambda t, z: alpha * z, z0, t, gradient=Reversible(), **options)
        grown = math.exp(2 * 0.3 * end)
        expected = (f64(2 * 1.7 * grown), f64(2 * end * 1.7**2 * grown), 2 * 0.3 * 1.7**2 * grown)
        at_z0, at_alpha, at_t = torch.autograd.grad((sol.y[-1] ** 2).sum(), [z0, alpha, t])
        torch.testing.assert_close(at_z0, expected[0], rtol=1e-3, atol=0)
        torch.testing.assert_close(at_alpha, expected[1], rtol=1e-3, atol=0)
        assert float(at_t[1]) == pytest.approx(expected[2], rel=1e-3)


@pytest.mark.parametrize(
    ("method", "coupling"), [("rk4", 0.9), ("dopri5", 0.999), ("euler", 1.0), ("alf", None)]
)
def test_the_stability_matrix_is_what_a_step_does(method, coupling):
    mu, h = f64(-0.7, 0.3, 1.1), 0.5
    gradient = Reversible() if coupling is None else Reversible(coupling)
    sol = solve(
        lambda t, y: mu * y, torch.ones_like(mu), f64(0, 0.5, 1, 1.5), method=method, dt=h, gradient=gradient
    )
    matrix = pair_matrix(EVERY[method], h * mu, coupling)
    pair = torch.stack((torch.ones_like(mu), h * mu if coupling is None else torch.ones_like(mu)), -1).to(
        matrix
    )
    for row in sol.y[1:]:
        pair = (matrix @ pair[..., None])[..., 0]
        torch.testing.assert_close(row, pair[..., 0].real, rtol=1e-14, atol=1e-14)
    determinant = torch.linalg.det(matrix).real
    torch.testing.assert_close(determinant, torch.full_like(mu, -1.0 if coupling is None else coupling))


def test_where_the_pair_is_stable():
    """The real interval is about (−(1 − λ)/λ, 0) for every method: where e^|x| λ ≤ 1. With alf there is
    none."""
    for method in ("heun2", "rk4", "dopri5"):
        for coupling in (0.9, 0.99, 0.999):
            edge = -math.log(coupling)
            inside, outside = pair_growth(EVERY[method], f64(-0.95 * edge, -1.1 * edge), coupling).tolist()
            assert inside <= 1 + 1e-12
            assert outside > 1
    on_axis, left = pair_growth(EVERY["alf"], torch.tensor([0.9j, -0.1 + 0j])).tolist()
    assert on_axis <= 1 + 1e-12
    assert left > 1
    with pytest.raises(ValueError, match="implicit"):
        pair_matrix(EVERY["kvaerno3"], f64(0.1), 0.9)


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_adaptive_steps_do_not_let_the_two_solutions_drift_apart(stepping):
    """y' = cos t − y: without a look at y − z the end was 468 tolerances off, with it 11."""
    exact = lambda t: 0.5 * (math.cos(t) + math.sin(t))  # noqa: E731  (from 0.5)
    options = {"rtol": 1e-6, "atol": 1e-6, "gradient": Reversible(0.99), "stepping": stepping}
    sol = solve(lambda t, y: torch.cos(t) - y, f64(0.5)[:, None], f64(0, 10), **options)
    assert abs(float(sol.y[-1]) - exact(10.0)) <= 50e-6


def test_a_solve_that_runs_out_of_steps_says_that_the_pair_is_what_needs_them():
    with pytest.raises(adamode.SolverError, match="coupling farther from 1"):
        solve(lambda t, y: torch.cos(t) - y, f64(0.5), f64(0, 10), gradient=Reversible(), max_steps=60)


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_a_state_that_is_not_rebuilt_is_an_error_with_the_way_out(stepping):
    """λ^−N: coupling 0.6 over 100 steps loses 22 digits."""
    y0 = Y0.clone().requires_grad_()
    options = {"method": "rk4", "dt": 0.01, "stepping": stepping}
    sol = solve(Driven(), y0, f64(0, 1), gradient=Reversible(0.6), **options)
    with pytest.raises(adamode.ReconstructionError, match=r"nearer to 1.*float64.*checkpoints"):
        sol.y.sum().backward()
    sol = solve(Driven(), y0, f64(0, 1), gradient=Reversible(0.6, reconstruction_limit=math.inf), **options)
    sol.y.sum().backward()
    assert sol.stats.reconstruction_error > 100


def test_single_precision_is_measured_at_outputs_too():
    f, y0 = Driven().float(), Y0.float().requires_grad_()
    sol = solve(
        f, y0, torch.linspace(0, 1, 11), method="rk4", dt=0.01, gradient=Reversible(reconstruction_limit=1e-9)
    )
    with pytest.raises(adamode.ReconstructionError, match="rebuilt at t="):
        sol.y.sum().backward()


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_samples_that_fail_leave_the_others_gradients_alone(stepping):
    """One starts with NaN, one leaves the domain; with one clock there is nothing to tell them apart."""
    if stepping == "shared":
        return
    y0 = f64(0.5, math.nan, 0.7, 0.2)[:, None].clone().requires_grad_()
    options = {"method": "dopri5", "stepping": "per_sample", "gradient": Reversible(), "max_steps": 40}
    func = lambda t, y: torch.where(y > 0.69, y / (0.75 - y).sqrt(), -y)  # noqa: E731
    sol = solve(func, y0, f64(0, 1), **options)
    assert sol.status.tolist().count(int(adamode.Status.SUCCESS)) == 2
    (found,) = torch.autograd.grad(sol.y[-1][[0, 3]].sum(), y0)
    torch.testing.assert_close(found[[0, 3]], torch.full((2, 1), math.exp(-1.0)).double(), rtol=1e-4, atol=0)
    assert found[[1, 2]].eq(0).all()


def test_a_func_that_is_not_repeatable_is_refused():
    for method in ("dopri5", "alf"):
        y0 = Y0.clone().requires_grad_()
        noisy = lambda t, y: y + 0.1 * torch.rand_like(y)  # noqa: E731
        sol = solve(noisy, y0, f64(0, 1), method=method, dt=0.1, gradient=Reversible(), params=[])
        with pytest.raises(adamode.NotRepeatableError):
            sol.y.sum().backward()


@pytest.mark.parametrize("coupling", [0.0, -0.1, 1.1, math.nan, math.inf, "0.9", True, None])
def test_couplings_outside_of_0_and_1_are_refused(coupling):
    with pytest.raises((ArgumentError, adamode.ArgumentTypeError), match="Reversible: coupling"):
        Reversible(coupling)


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan])
def test_limits_that_are_not_positive_are_refused(limit):
    with pytest.raises(ArgumentError, match="reconstruction_limit"):
        Reversible(reconstruction_limit=limit)


REFUSED = [
    ("kvaerno3", Reversible(), {}, "explicit method"),
    ("rodas5p", Direct(coupling=0.9), {}, "explicit method"),
    ("alf", Reversible(0.9), {}, "leave it out"),
    ("alf", Discrete(), {}, r"Reversible\(\)"),
    ("alf", Backsolve(), {}, r"Reversible\(\)"),
    ("alf", Reversible(), {"jump_at": [0.5]}, "Runge-Kutta"),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda c: f"{c[0]}-{type(c[1]).__name__}")
def test_what_cannot_mean_anything_is_refused_with_the_way_out(case):
    method, gradient, options, words = case
    with pytest.raises(ArgumentError, match=words):
        solve(Driven(), Y0, f64(0, 1), method=method, gradient=gradient, **options)


def test_no_reverse_solve_steps_a_pair():
    with pytest.raises(ArgumentError, match="forward solve"):
        Backsolve(method="alf")


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("speed", [{"compile": True}, {"sync_every": 4}])
def test_a_wish_for_speed_is_a_warning_and_the_same_numbers(stepping, speed):
    for choice in (Reversible(), None):
        method = "alf" if choice is None else "dopri5"
        options = {"method": method, "stepping": stepping, "gradient": choice, "rtol": 1e-3, "atol": 1e-3}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            plain = solve(Driven(), Y0, f64(0, 1), **options).y
        with pytest.warns(AdamodeWarning, match="pair"):
            assert torch.equal(solve(Driven(), Y0, f64(0, 1), **options, **speed).y, plain)


def test_several_cotangents_at_once_are_refused():
    y0 = Y0.clone().requires_grad_()
    sol = solve(Driven(), y0, f64(0, 1), gradient=Reversible())
    with pytest.raises(ArgumentError, match="is_grads_batched"):
        torch.autograd.grad(
            sol.y, y0, torch.ones((2, *sol.y.shape), dtype=torch.float64), is_grads_batched=True
        )


def test_every_methods_last_weighted_stage_is_the_last_before_the_end():
    """So that an increment has no stage that only an error estimate needs."""
    for tableau in METHODS.values():
        assert max(i for i, w in enumerate(tableau.b) if w) == tableau.n_stages - 2
