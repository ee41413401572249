"""The continuous adjoint: converges to the true gradient, measures what it loses, says when it is lost."""

import dataclasses
import gc
import itertools
import math
import weakref

import pytest
import torch
from problems import Net, Swing, Tree, f64, quench, relative, worst
from references import reference_gradient, reference_solution
from torch.utils import _pytree as pytree

import adamode
from adamode import Backsolve, Discrete, Interpolating, ReconstructionError, SolverError, solve
from adamode.models.dynamics import AdamODE


def batch(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gradients(func, y0, t, gradient, params, **options):
    """(sol, [dL/dy0 …, dL/dt, dL/dparams …], cotangents of y) for L = Σ c·y + ½ Σ y²."""
    y0 = pytree.tree_map(lambda x: x.detach().clone().requires_grad_(), y0)
    t = t.detach().clone().requires_grad_()
    sol = solve(func, y0, t, gradient=gradient, params=params or None, **options)
    make = torch.Generator().manual_seed(0)
    leaves = pytree.tree_leaves(sol.y)
    draws = [torch.randn(y.shape, dtype=y.dtype, generator=make) for y in leaves]
    loss = sum((c * y).sum() + (y**2).sum() / 2 for c, y in zip(draws, leaves, strict=True))
    found = torch.autograd.grad(loss, (*pytree.tree_leaves(y0), t, *params))
    return sol, found, [c + y.detach() for c, y in zip(draws, leaves, strict=True)]


CASES = {
    "network": (Net, (2, 3)),
    "hand-written": (Swing, (2, 2, 3)),
}


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("case", CASES)
def test_the_gradient_converges_to_scipys_as_the_tolerance_falls(case, direction):
    make, shape = CASES[case]
    func, y0 = make(), batch(*shape)
    params = list(func.parameters())
    plain = func if case == "network" else (lambda t, z: func.forward(t, z)[0])
    times = (0.0, 0.7, 1.1, 2.0)[::direction]
    values = reference_solution(plain, y0, times)
    g = torch.randn(values.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + values
    a, dt, theta = reference_gradient(plain, params, y0, times, g)
    errors, drift = [], []
    for tol in (1e-4, 1e-6, 1e-8, 1e-10):
        sol, found, _ = gradients(func, y0, f64(*times), Backsolve(), params, rtol=tol, atol=tol)
        errors.append(worst(found, (a, dt, *theta)))
        drift.append(sol.stats.reconstruction_error * tol)
    assert errors[0] < 1e-2
    assert errors[-1] < 1e-7
    # dL/dt inside a step is the interpolant's derivative, of order 4: the error falls like tol^(4/5)
    assert all(b < a / 3 for a, b in itertools.pairwise(errors)), errors
    assert drift[-1] < 1e-8 < drift[0]


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("make", [Net, Swing])
def test_it_equals_the_discrete_adjoint_in_the_limit(make, direction):
    func, y0 = make(), batch(2, 2, 3) if make is Swing else batch(2, 3)
    t = torch.linspace(*(0.0, 2.0)[::direction], 31, dtype=torch.float64)
    params = list(func.parameters())
    found, expected = (
        gradients(func, y0, t, g, params, rtol=1e-11, atol=1e-11)[1] for g in (Backsolve(), Discrete())
    )
    assert worst(found, expected) < 1e-8


def test_a_pytree_is_solved_backwards():
    tree, y0 = Tree(), {"a": batch(2, 3), "b": batch(2)}
    params, t = list(tree.parameters()), f64(0.0, 0.4, 2.0)
    found, expected = (
        gradients(tree, y0, t, g, params, rtol=1e-10, atol=1e-10)[1] for g in (Backsolve(), Discrete())
    )
    assert worst(found, expected) < 1e-7


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_jumps_are_passed_on_their_own_side_in_reverse_too(direction):
    net = Net()
    asked = []

    def func(t, y):
        asked.append(float(t))
        return net(t, y) * torch.where(t * direction < 0.5, 1.0, -2.0)

    params, y0, t = list(net.parameters()), batch(2, 3), direction * f64(0.0, 1.0)
    found, expected = (
        gradients(func, y0, t, g, params, rtol=1e-9, atol=1e-9, jump_at=[0.5 * direction])[1]
        for g in (Backsolve(), Discrete())
    )
    assert 0.5 * direction not in asked
    assert worst(found, expected) < 1e-6


def test_f_is_never_asked_outside_the_interval_by_the_reverse_solve():
    net, asked = Net(), []

    def func(t, y):
        asked.append(float(t))
        return net(t, y)

    gradients(func, batch(2, 3), f64(0.1, 0.3, 0.35, 1.7), Backsolve(), list(net.parameters()))
    assert min(asked) == 0.1
    assert max(asked) == 1.7


def test_backward_evaluations_are_six_an_attempt_one_an_interval_and_a_probe():
    net = Net()
    calls = 0

    def func(t, y):
        nonlocal calls
        calls += 1
        return net(t, y)

    t = f64(0.0, 0.3, 0.35, 3.0)
    y0 = batch(2, 3).requires_grad_()
    sol = solve(func, y0, t, gradient=Backsolve(), params=net.parameters(), rtol=1e-7)
    forward = calls
    assert forward == sol.stats.nfe
    (sol.y**2).sum().backward()
    attempts = sol.stats.n_accepted_backward + sol.stats.n_rejected_backward
    assert sol.stats.nfe_backward == 6 * attempts + 3 + 1
    # one more, to see whether func gives the same value when it is evaluated again
    assert calls - forward == sol.stats.nfe_backward + sol.stats.nfe_recomputed
    assert sol.stats.nfe_recomputed == 1


class Token:
    """Lives as long as the node of a graph that holds it."""


class Marked(torch.autograd.Function):
    """The identity, whose node in the graph can be told to be alive."""

    @staticmethod
    def forward(ctx, k, seen):
        ctx.token = Token()
        seen.append(weakref.ref(ctx.token))
        return k.clone()

    @staticmethod
    def backward(ctx, g):
        return g, None


def evaluations_alive(gradient, tol):
    """How many of func's graphs are still held once the solve has returned."""
    net, results = Net(), []

    def func(t, y):
        return Marked.apply(net(t, y), results)

    y0 = batch(2, 3).requires_grad_()
    sol = solve(func, y0, f64(0.0, 3.0), gradient=gradient, rtol=tol, atol=tol, params=net.parameters())
    gc.collect()
    assert sol.y.requires_grad
    return sum(ref() is not None for ref in results)


def test_memory_does_not_grow_with_the_number_of_steps():
    assert evaluations_alive(Backsolve(), 1e-11) == evaluations_alive(Backsolve(), 1e-3) == 0
    # the control: the discrete adjoint keeps what every stage saved
    assert evaluations_alive(Discrete(), 1e-11) > 2 * evaluations_alive(Discrete(), 1e-3) > 0
    assert evaluations_alive(Discrete(keep="state"), 1e-11) == 0


def test_the_reconstruction_error_is_the_distance_to_the_stored_state_in_tolerances():
    """Measured here again: the same reverse solve, with cotangent zero the state goes alone."""
    y0, t = f64(1.0, -2.0).requires_grad_(), f64(0.0, 1.0)
    func = lambda t, y: -3 * y + torch.sin(5 * t)  # noqa: E731
    sol = solve(func, y0, t, gradient=Backsolve(), rtol=1e-5, atol=1e-7)
    sol.y[-1].sum().backward()
    error = sol.stats.reconstruction_error
    assert 0.1 < error < 1e4
    looser = solve(func, y0, t, gradient=Backsolve(rtol=1e-3, atol=1e-3), rtol=1e-5, atol=1e-7)
    looser.y[-1].sum().backward()
    assert looser.stats.reconstruction_error != error
    state = lambda s: s.reconstruction_error  # noqa: E731
    # a tighter reverse solve comes closer, in absolute terms
    tight = solve(func, y0, t, gradient=Backsolve(1e-10, 1e-10), rtol=1e-5, atol=1e-7)
    tight.y[-1].sum().backward()
    back = reference_solution(func, sol.y[-1].detach(), (1.0, 0.0))[-1]
    scale = 1e-7 + 1e-5 * y0.detach().abs()  # the forward tolerance: that is how good the stored state is
    expected = float((((back - y0.detach()) / scale) ** 2).mean().sqrt())
    assert state(tight.stats) == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
def test_a_reverse_tolerance_far_below_the_forward_one_is_no_reconstruction_error(stepping):
    """The distance is then the forward solve's error, which the forward tolerance explains."""
    y0, t = torch.randn(4, 2, dtype=torch.float64, requires_grad=True), f64(0.0, 1.0)
    func = lambda t, y: torch.sin(3 * y.flip(1)) - y  # noqa: E731
    gradient = Backsolve(rtol=1e-11, atol=1e-11, anchors=0)
    sol = solve(func, y0, t, gradient=gradient, rtol=1e-5, atol=1e-5, stepping=stepping)
    (found,) = torch.autograd.grad(sol.y[-1].sum(), y0)
    assert 0 < float(sol.stats.reconstruction_error) < 100
    fine = solve(func, y0, t, gradient=Discrete(), rtol=1e-11, atol=1e-11)
    (expected,) = torch.autograd.grad(fine.y[-1].sum(), y0)
    assert relative(found, expected) < 1e-3


def test_a_strongly_contracting_flow_is_a_reconstruction_error_not_a_wrong_gradient():
    y0 = f64(1.0, 0.5).requires_grad_()
    sol = solve(quench, y0, f64(0.0, 1.0), gradient=Backsolve())
    with pytest.raises(ReconstructionError) as caught:
        sol.y[-1].sum().backward()
    text = str(caught.value)
    assert "t=0." in text
    assert "Discrete()" in text
    assert "reconstruction_limit" in text
    assert "limit is 100" in text
    assert sol.stats.reconstruction_error > 100
    assert y0.grad is None
    assert isinstance(caught.value, RuntimeError)


def mild(t, y):
    return quench(t, y, rate=40.0)


def test_a_few_kept_states_bring_a_contracting_flow_back():
    """Over the whole interval e^{40} is lost; between 17 states a few digits. Without them: an error."""
    func = lambda t, y: mild(t, y) + y.flip(0)  # noqa: E731
    y0, t = f64(1.0, 0.5).requires_grad_(), f64(0.0, 0.4)
    options = {"rtol": 1e-7, "atol": 1e-11}  # the gradient, 2e-7, is to be resolved
    found, expected = (
        torch.autograd.grad(solve(func, y0, t, gradient=g, **options).y[-1].sum(), y0)
        for g in (Backsolve(), Discrete())
    )
    assert worst(found, expected) < 1e-3
    with pytest.raises(ReconstructionError):
        solve(func, y0, t, gradient=Backsolve(anchors=0), **options).y[-1].sum().backward()


def test_the_reconstruction_limit_is_the_users():
    y0 = f64(1.0, 0.5).requires_grad_()
    sol = solve(quench, y0, f64(0.0, 1.0), gradient=Backsolve(reconstruction_limit=math.inf))
    sol.y[-1].sum().backward()  # as wanted, whatever it is worth
    small = sol.stats.reconstruction_error
    sol = solve(lambda t, y: -y, y0, f64(0.0, 1.0), gradient=Backsolve(reconstruction_limit=1e-3, anchors=0))
    with pytest.raises(ReconstructionError, match=r"limit is 0\.001"):
        sol.y[-1].sum().backward()
    assert small > 1e4


def test_the_worst_interval_is_named():
    y0 = f64(1.0, 0.5).requires_grad_()

    def func(t, y):  # contracts on [1, 2] only
        return torch.where(t > 1, mild(t, y), -y)

    sol = solve(func, y0, f64(0.0, 1.0, 2.0, 3.0), gradient=Backsolve(anchors=0), jump_at=[1.0])
    with pytest.raises(ReconstructionError, match=r"to t=[12],"):
        sol.y[-1].sum().backward()


def test_stored_states_are_put_back_at_every_output():
    """Many outputs confine the drift: over one interval of 1/20 the flow e^{−40 t} loses e² only."""
    y0 = f64(1.0, 0.5).requires_grad_()
    t = torch.linspace(0, 1, 21, dtype=torch.float64)
    sol = solve(mild, y0, t, gradient=Backsolve(), rtol=1e-8, atol=1e-8)
    sol.y.sum().backward()
    assert sol.stats.reconstruction_error < 1e3
    other = y0.detach().clone().requires_grad_()
    solve(mild, other, t, gradient=Discrete(), rtol=1e-8, atol=1e-8).y.sum().backward()
    assert relative(y0.grad, other.grad) < 1e-5


def test_bad_stages_of_the_reverse_solve_are_rejected_and_it_passes():
    """y' = 2w√y, y = (√y0 + w t)²: backwards it heads for y = 0, and a stage goes past."""
    w = torch.nn.Parameter(f64(1.0))
    bad = 0

    def func(t, y):
        nonlocal bad
        k = 2 * w * torch.sqrt(y)
        bad += not bool(torch.isfinite(k).all())
        return k

    y0 = f64(1e-2).requires_grad_()
    sol = solve(func, y0, f64(0.0, 1.0), rtol=1e-3, atol=1e-3, gradient=Backsolve())
    assert bad == 0
    sol.y[-1].sum().backward()
    assert bad > 0
    assert sol.stats.n_rejected_backward > 0
    assert y0.grad.item() == pytest.approx(1 + 1 / 0.1, rel=1e-2)
    assert w.grad.item() == pytest.approx(2 * (0.1 + 1), rel=1e-2)


@pytest.mark.parametrize("anchors", [0, 16])
@pytest.mark.parametrize("seed", range(2))
def test_adamode_that_leaves_its_domain_in_reverse_is_an_error_never_nan(seed, anchors):
    """v0 = m0², ε = 1e-3 in float32: torchdiffeq's adjoint returns NaN gradients there, silently."""
    torch.manual_seed(seed)
    field = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 8))
    dynamics = AdamODE(lambda t, h: field(h), alpha=0.3, beta=0.1, eps=1e-6)
    h, m = torch.randn(2, 16, 8)
    z0 = torch.stack((h, m, torch.zeros_like(m))).requires_grad_()
    t, options = torch.tensor([0.0, 3.0]), {"rtol": 1e-3, "atol": 1e-3, "max_steps": 200}
    outcome = "gradient"
    try:
        solve(dynamics, z0, t, gradient=Backsolve(anchors=anchors), **options).y[-1, 0].pow(
            2
        ).sum().backward()
    except (SolverError, ReconstructionError) as error:
        outcome = str(error)
    if anchors == 0:
        assert "reverse solve of backsolve" in outcome
    assert outcome == "gradient" or "Discrete()" in outcome
    assert (z0.grad is None) == (outcome != "gradient")
    assert z0.grad is None or bool(torch.isfinite(z0.grad).all())
    again = z0.detach().clone().requires_grad_()
    solve(dynamics, again, t, **options).y[-1, 0].pow(2).sum().backward()
    assert torch.isfinite(again.grad).all()  # the way out that the message names


def test_a_reverse_solve_that_cannot_go_on_says_that_it_was_the_reverse_solve():
    """Nothing behind t = ½ exists for the reverse solve: NaN once the forward solve is done."""
    done = False

    def func(t, y):
        return torch.where((t < 0.5) & torch.tensor(done), math.nan, -y)

    y0 = f64(1.0).requires_grad_()
    sol = solve(func, y0, f64(0.0, 1.0), gradient=Backsolve(), params=[])
    done = True
    with pytest.raises(SolverError, match="reverse solve of backsolve") as caught:
        sol.y[-1].sum().backward()
    assert caught.value.t == pytest.approx(0.5, abs=1e-6)
    assert caught.value.status is adamode.Status.NON_FINITE
    assert y0.grad is None


def test_the_reverse_solve_has_tolerances_and_a_method_of_its_own():
    net = Net()
    params, y0, t = list(net.parameters()), batch(2, 3), f64(0.0, 2.0)
    errors, steps = {}, {}
    expected = gradients(net, y0, t, Discrete(), params, rtol=1e-11, atol=1e-11)[1]
    for name, gradient in {
        "loose": Backsolve(rtol=1e-3, atol=1e-3),
        "tight": Backsolve(rtol=1e-10, atol=1e-10),
        "bosh3": Backsolve(rtol=1e-8, atol=1e-8, method="bosh3"),
    }.items():
        sol, found, _ = gradients(net, y0, t, gradient, params, rtol=1e-11, atol=1e-11)
        errors[name], steps[name] = worst(found, expected), sol.stats.n_accepted_backward
    assert errors["tight"] < 1e-8 < errors["loose"]
    assert errors["bosh3"] < 1e-6
    assert steps["bosh3"] > 3 * steps["tight"] > 3 * steps["loose"]


@pytest.mark.parametrize("method", ["dopri5", "bosh3", "tsit5", "dop853"])
def test_the_quadrature_has_the_methods_order_whatever_the_method(method):
    net = Net()
    params, y0, t = list(net.parameters()), batch(2, 3), f64(0.0, 0.6, 2.0)
    found, expected = (
        gradients(net, y0, t, g, params, rtol=1e-9, atol=1e-9, method=method)[1]
        for g in (Backsolve(), Discrete())
    )
    assert worst(found, expected) < 1e-6


def test_a_fixed_step_runs_backwards_with_the_same_step():
    net = Net()
    params, y0, t = list(net.parameters()), batch(2, 3), f64(0.0, 0.5, 2.0)
    errors = []
    for dt in (0.1, 0.05):
        sol, found, _ = gradients(net, y0, t, Backsolve(), params, dt=dt)
        assert sol.stats.n_accepted_backward == round(2 / dt)
        errors.append(worst(found, gradients(net, y0, t, Discrete(), params, dt=dt)[1]))
    assert errors[0] > 20 * errors[1]


def test_the_graph_may_be_walked_twice():
    net, y0 = Net(), batch(2, 3).requires_grad_()
    sol = solve(net, y0, f64(0.0, 0.7, 2.0), gradient=Backsolve())
    inputs = (y0, *net.parameters())
    first = torch.autograd.grad(sol.y.sum(), inputs, retain_graph=True)
    cost = sol.stats.nfe_backward
    second = torch.autograd.grad(sol.y.sum(), inputs)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert sol.stats.nfe_backward == cost


def test_under_autocast_the_reverse_solve_runs_under_the_forwards_state():
    layer, kinds = torch.nn.Linear(3, 3), []

    def func(t, y):
        out = layer(y)
        kinds.append(out.dtype)
        return out

    y0 = torch.randn(2, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        sol = solve(
            func,
            y0,
            torch.tensor([0.0, 0.5]),
            rtol=1e-2,
            atol=1e-2,
            gradient=Backsolve(),
            params=layer.parameters(),
        )
    sol.y.sum().backward()
    assert set(kinds) == {torch.bfloat16}
    assert y0.grad.dtype == torch.float32


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
def test_a_state_too_far_off_is_told_with_its_time_and_sample(stepping):
    y0, gradient = batch(2, 3).requires_grad_(), Backsolve(reconstruction_limit=1e-9, anchors=0)
    sol = solve(Net(), y0, f64(0.0, 1.0, 2.0), gradient=gradient, stepping=stepping, rtol=1e-5)
    whose = "" if stepping == "shared" else r" of sample [01]"
    with pytest.raises(ReconstructionError, match=rf"solved backwards to t=[01], the state{whose} is"):
        sol.y.sum().backward()


@pytest.mark.parametrize("choice", [Backsolve, Interpolating])
def test_a_sample_that_fails_on_its_way_back_is_told_with_the_adjoint(choice):
    y0, gradient = batch(2, 3).requires_grad_(), choice(rtol=1e-9, atol=1e-11, method="bosh3")
    gradient = dataclasses.replace(gradient, anchors=0) if choice is Backsolve else gradient
    sol = solve(Net(), y0, f64(0.0, 2.0), gradient=gradient, stepping="per_sample", rtol=1e-3, max_steps=30)
    name = "backsolve" if choice is Backsolve else "the interpolating adjoint"
    with pytest.raises(SolverError, match=rf"reverse solve of {name}.* of sample [01] \(. of 2 failed\)"):
        sol.y.sum().backward()
