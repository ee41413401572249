"""Gradients through implicit steps: the transposed equations against autograd through solved ones."""

import contextlib
import dataclasses

import pytest
import torch
from problems import Opaque

import adamode
from adamode.adjoint.discrete import implicit as transposed
from adamode.adjoint.discrete import rosenbrock as linear_stages
from adamode.solvers.methods import EVERY, IMPLICIT
from adamode.solvers.step.implicit.jacobian import Jacobian

D = torch.float64
NAMES = list(IMPLICIT)
BY_ITERATION = [name for name in NAMES if not IMPLICIT[name].gamma]
ROSENBROCK = [name for name in NAMES if IMPLICIT[name].gamma]
STEPPINGS = ("shared", "per_sample")
KEEPS = (adamode.Discrete(), adamode.Discrete(keep="state"), adamode.Discrete(checkpoints=3))


def problem(n=2):
    """Rate constants, states, times of a small reaction, all with gradients."""
    k = torch.tensor([0.5, 3.0, 10.0], dtype=D, requires_grad=True)
    y0 = torch.tensor([[1.0, 0.1, 0.2], [0.7, 0.2, 0.0]], dtype=D)[:n].clone().requires_grad_()
    t = torch.tensor([0.0, 0.13, 0.4], dtype=D, requires_grad=True)

    def f(t, y):
        a, b, c = y.unbind(-1)
        r1, r2, r3 = k[0] * a * (1 + torch.sin(t.reshape(t.shape[:1]))), k[1] * b * c, k[2] * b * b
        return torch.stack((r2 - r1, r1 - r2 - r3 - 200 * (b - 0.1 * a), r3), -1)

    return f, k, y0, t


def gradients(gradient, method="kvaerno5", stepping="shared", rtol=1e-11, **options):
    f, k, y0, t = problem()
    sol = adamode.solve(f, y0, t, method=method, rtol=rtol, atol=rtol * 1e-2, gradient=gradient, params=[k],
                        stepping=stepping, **options)  # fmt: skip
    weights = torch.sin(torch.arange(sol.y.numel(), dtype=D)).reshape(sol.y.shape) + 0.1
    return (*torch.autograd.grad((sol.y * weights).sum(), (k, y0, t)), sol)


def furthest(found, want):
    return max(float((x - y).abs().max() / y.abs().max()) for x, y in zip(found, want, strict=True))


class TwoRates(torch.nn.Module, adamode.Dynamics):
    """x' = θ (y² − x), y' = −100 (y − x), on z = [x, y], by hand."""

    def __init__(self):
        super().__init__()
        self.rate = torch.nn.Parameter(torch.tensor(0.7))

    def theta(self):
        return (self.rate,)

    def forward(self, t, z):
        (x, y), rate = z.unbind(), self.rate
        return torch.stack((rate * (y * y - x), -100 * (y - x))), z

    def vjp(self, z, a):
        (_, y), (p, q) = z.unbind(), a.unbind()
        return torch.stack((-self.rate * p + 100 * q, 2 * self.rate * y * p - 100 * q)), p

    def parameter_gradients(self, saved, deltas, weights):
        terms = [((z[1] ** 2 - z[0]) * p) for z, p in zip(saved, deltas, strict=True)]
        return (sum(term.sum() for term in terms),)


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("method", NAMES)
def test_the_transposed_equations_are_autograd_through_solved_ones(method, stepping):
    """By `Direct()`: two of Newton's corrections at the solution, with their graph. Steps of 0.06 (an output
    lies inside one)."""
    want = gradients(adamode.Direct(), method, stepping, dt=0.06)
    for gradient in KEEPS:
        found = gradients(gradient, method, stepping, dt=0.06)
        assert furthest(found[:2], want[:2]) <= 1e-9
        assert furthest(found[2:3], want[2:3]) <= 1e-8  # the slopes at the outputs, where f is stiff


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize(("method", "most"), [("kvaerno5", 1e-5), ("rodas5p", 1e-9)])
def test_adaptive_steps_have_the_same_gradients(method, most, stepping):
    want = gradients(adamode.Direct(), method, stepping, rtol=1e-5)
    for gradient in KEEPS:
        found = gradients(gradient, method, stepping, rtol=1e-5)
        assert furthest(found[:3], want[:3]) <= most  # Newton's own tolerance, where there is an iteration


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_they_are_the_derivative_by_differences(stepping):
    """Of fixed steps, whose number does not depend on the parameters."""

    def loss(scale):
        f, _, y0, t = problem()
        k = torch.tensor(scale, dtype=D, requires_grad=True)
        g = lambda t, y: f(t, y) * k  # noqa: E731
        options = {"dt": 0.06, "rtol": 1e-12, "atol": 1e-14, "stepping": stepping, "params": [k]}
        with pytest.warns(adamode.AdamodeWarning, match="needs a gradient"):
            y = adamode.solve(g, y0, t, method="kvaerno3", **options).y
        return y[-1, 0, 0] + y[-1, 1, 1], k

    here, k = loss(1.0)
    found, h = torch.autograd.grad(here, k)[0], 1e-5
    difference = ((loss(1 + h)[0] - loss(1 - h)[0]) / (2 * h)).detach()
    assert float(found) == pytest.approx(float(difference), rel=1e-6)


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("method", BY_ITERATION)
def test_the_interpolating_adjoint_agrees_to_its_tolerance(method, stepping):
    rtol = 1e-4 if method == "kvaerno3" else 1e-5
    want = gradients(adamode.Discrete(), method, stepping, rtol=rtol)
    found = gradients(adamode.Interpolating(), method, stepping, rtol=rtol)
    assert furthest(found[:3], want[:3]) < 300 * rtol
    steps = torch.as_tensor(found[3].stats.n_accepted_backward)
    assert (steps < 40 * torch.as_tensor(found[3].stats.n_accepted)).all()


def test_a_forward_solve_by_an_explicit_method_may_go_back_by_an_implicit_one():
    want = gradients(adamode.Discrete(), "kvaerno5", rtol=1e-6)
    f, k, y0, t = problem()
    sol = adamode.solve(f, y0, t, rtol=1e-6, atol=1e-8, params=[k],
                        gradient=adamode.Interpolating(method="kvaerno5"))  # fmt: skip
    weights = torch.sin(torch.arange(sol.y.numel(), dtype=D)).reshape(sol.y.shape) + 0.1
    found = torch.autograd.grad((sol.y * weights).sum(), (k, y0, t))
    assert furthest(found, want[:3]) < 1e-3


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("method", ["kvaerno5", *ROSENBROCK])
def test_a_dynamics_with_a_hand_derived_vjp_is_walked_back_by_it(method, stepping):
    torch.manual_seed(0)
    dynamics = TwoRates().double()
    options = {"method": method, "dt": 0.1, "rtol": 1e-11, "atol": 1e-13, "stepping": stepping}
    z0, t = torch.rand(2, 3, 2, dtype=D, requires_grad=True), torch.tensor([0.0, 0.5], dtype=D)
    grads = []
    for gradient in (adamode.Discrete(), adamode.Direct()):
        y = adamode.solve(dynamics, z0, t, gradient=gradient, **options).y
        grads.append(torch.autograd.grad(y[-1].square().sum(), (z0, *dynamics.theta())))
    assert furthest(*grads) < 1e-9


def test_a_jacobian_that_is_only_near_is_corrected_and_one_that_is_far_is_refused():
    """The gradient is that of the VJP, whatever gave the matrix."""
    f, k, y0, t = problem()
    options = {"method": "kvaerno5", "dt": 0.06, "rtol": 1e-11, "atol": 1e-13, "params": [k]}

    def jac(off):
        exact = torch.func.vmap(torch.func.jacfwd(lambda y, t: f(t, y)), in_dims=(0, None))
        return lambda t, y: exact(y.contiguous(), t) * (1 + off)

    grads = []
    for off in (None, 1e-3):
        sol = adamode.solve(f, y0, t, jac=None if off is None else jac(off), **options)
        grads.append(torch.autograd.grad(sol.y[-1].square().sum(), (k, y0)))
    for x, y in zip(*grads, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-7, atol=1e-12)
    sol = adamode.solve(f, y0, t, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transposed.Factors, "solve_transposed", lambda self, b: 3.0 * b)
        with pytest.raises(adamode.DynamicsError, match="transposed equations of a step"):
            sol.y[-1].sum().backward()


@pytest.mark.parametrize("fault", ["gamma", "transposed"])
def test_a_planted_fault_is_seen(fault, monkeypatch):
    """Without the correction by the VJP, a factor that is not transposed, or a γ that is not the method's,
    changes the gradient."""
    want = gradients(adamode.Discrete(), dt=0.06)
    monkeypatch.setattr(transposed, "ROUNDS", 0)
    monkeypatch.setattr(transposed, "LOST", float("inf"))
    same = gradients(adamode.Discrete(), dt=0.06)
    torch.testing.assert_close(same[0], want[0], rtol=1e-9, atol=0)
    if fault == "transposed":
        monkeypatch.setattr(transposed.Factors, "solve_transposed", transposed.Factors.solve)
    else:
        made = transposed.Factors
        monkeypatch.setattr(
            transposed, "Factors", lambda samples, blocks, rate: made(samples, blocks, 0.9 * rate)
        )
    wrong = gradients(adamode.Discrete(), dt=0.06)
    assert float(((wrong[0] - want[0]) / want[0]).abs().max()) > 1e-6


def test_second_derivatives_come_through_direct():
    f, _, y0, t = problem(1)
    options = {"method": "kvaerno3", "dt": 0.1, "rtol": 1e-12, "atol": 1e-14}

    def loss(scale):
        g = lambda t, y: f(t, y) * scale  # noqa: E731
        return adamode.solve(g, y0.detach(), t.detach(), gradient=adamode.Direct(), **options).y[-1, 0, 1]

    scale = torch.ones((), dtype=D, requires_grad=True)
    first = torch.autograd.grad(loss(scale), scale, create_graph=True)[0]
    second = torch.autograd.grad(first, scale)[0]
    h = 1e-3
    below, here, above = (loss(torch.tensor(1 + s, dtype=D)) for s in (-h, 0.0, h))
    assert float(second) == pytest.approx(float((above - 2 * here + below).detach() / h**2), rel=1e-4)


def test_memory_of_the_walk_is_that_of_what_was_asked_for():
    """`keep="state"` keeps no stage's graph, and evaluates the stages anew."""
    stages = gradients(KEEPS[0], dt=0.06)[3].stats
    state = gradients(KEEPS[1], dt=0.06)[3].stats
    per_step = EVERY["kvaerno5"].n_stages - 1
    assert stages.nfe - state.nfe == per_step * stages.n_steps  # what is saved is that of the solved stage
    assert state.nfe_recomputed > stages.nfe_recomputed
    assert dataclasses.asdict(stages)["n_newton"] == state.n_newton


@pytest.mark.parametrize("method", ["kvaerno5", "radau5", "rodas5p"])
def test_the_published_gradient_of_robertsons_problem_is_found(method):
    """Of ∫₀⁵⁰ y₃ dt, carried as y₄' = y₃, with respect to the three rates."""
    rates = torch.tensor([0.04, 1e4, 3e7], dtype=D, requires_grad=True)

    def f(t, y):
        a, b, c, _ = y.unbind(-1)
        r1, r2, r3 = rates[0] * a, rates[1] * b * c, rates[2] * b * b
        return torch.stack((r2 - r1, r1 - r2 - r3, r3, c), -1)

    y0, t = torch.tensor([1.0, 0, 0, 0], dtype=D), torch.tensor([0.0, 50.0], dtype=D)
    sol = adamode.solve(f, y0, t, method=method, rtol=1e-6, atol=1e-12, params=[rates])
    (found,) = torch.autograd.grad(sol.y[-1, 3], rates)
    published = torch.tensor([173.414089, -5.05919e-4, 8.43234647e-8], dtype=D)
    torch.testing.assert_close(found, published, rtol=1e-5, atol=0)


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("name", NAMES)
def test_a_complex_state_is_that_of_its_real_and_imaginary_parts(name, stepping):
    """y' = λ y with Re λ from −60 to −1: values and gradients by PyTorch's convention, closed form."""
    rates = torch.tensor([-60 + 20j, -1 + 3j], dtype=torch.complex128, requires_grad=True)
    y0 = torch.tensor([[1 + 1j, 2 - 1j], [0.3j, -1 + 0j]], dtype=torch.complex128, requires_grad=True)
    t = torch.tensor([0.0, 0.2], dtype=D)
    closed = y0 * torch.exp(0.2 * rates)
    want = torch.autograd.grad((closed.abs() ** 2).sum(), (y0, rates))
    for gradient in (
        (adamode.Discrete(),) if name in ROSENBROCK else (adamode.Discrete(), adamode.Interpolating())
    ):
        sol = adamode.solve(lambda t, y: rates * y, y0, t, method=name, rtol=1e-5, atol=1e-7, params=[rates],
                            stepping=stepping, gradient=gradient)  # fmt: skip
        found = torch.autograd.grad((sol.y[-1].abs() ** 2).sum(), (y0, rates))
        assert float((sol.y[-1] - closed).detach().abs().max()) < 1e-4
        assert furthest(found, want) < 1e-3


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_a_rosenbrock_step_has_the_gradient_of_differences(stepping):
    """By a parameter and by a state, of a rate that the Jacobian depends on."""

    def loss(scale, start):
        f, *_ = problem()
        y0, t = torch.tensor([[1.0, start, 0.2], [0.7, 0.2, 0.0]], dtype=D), torch.tensor([0.3, 0.9], dtype=D)
        y0, k = y0.requires_grad_(), torch.tensor(scale, dtype=D, requires_grad=True)
        g = lambda t, y: f(t, y) * k**2  # noqa: E731
        options = {"dt": 0.1, "rtol": 1e-12, "atol": 1e-14, "stepping": stepping, "params": [k]}
        with pytest.warns(adamode.AdamodeWarning, match="needs a gradient"):
            y = adamode.solve(g, y0, t, method="rodas5p", **options).y
        return y[-1, 0, 0] + y[-1, 0, 1] + y[-1, 1, 1], k, y0

    here, k, y0 = loss(1.0, 0.1)
    found, h = torch.autograd.grad(here, (k, y0)), 1e-5
    for value, one in ((found[0], (h, 0.0)), (found[1][0, 1], (0.0, h))):
        above, below = (loss(1.0 + s * one[0], 0.1 + s * one[1])[0] for s in (1, -1))
        assert float(value) == pytest.approx(float((above - below).detach() / (2 * h)), rel=1e-6)


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("source", ["jac", "vjps"])
def test_a_rosenbrock_step_is_walked_back_whatever_gave_its_jacobian(source, stepping):
    k = torch.tensor([0.5, 3.0], dtype=D, requires_grad=True)
    y0 = torch.tensor([[1.0, 0.1], [0.7, 0.2]], dtype=D, requires_grad=True)
    t = torch.tensor([1.0, 0.6], dtype=D)  # backwards

    def f(t, y, square=lambda y: y * y):
        (a, b), s = y.unbind(-1), t.reshape(t.shape[:1])
        rate = k[0] * torch.cos(s) * square(b)
        return torch.stack((rate - k[1] * a, -rate + 50 * (b - a * s)), -1)

    def jac(t, y):
        b = y[:, 1]
        s = t.reshape(t.shape[:1]) + 0 * b
        rate = 2 * k[0] * torch.cos(s) * b
        rows = (torch.stack((-k[1] + 0 * b, rate), -1), torch.stack((-50 * s, 50 - rate), -1))
        return torch.stack(rows, -2)

    options = {"method": "rodas5p", "dt": 0.06, "stepping": stepping, "params": [k]}
    other, more, told = f, {"jac": jac}, contextlib.nullcontext()
    if source == "vjps":
        other, more = lambda t, y: f(t, y, Opaque.apply), {}
        told = pytest.warns(adamode.AdamodeWarning, match="VJPs")
    y = adamode.solve(f, y0, t, **options).y
    want = torch.autograd.grad(y[-1].sin().sum(), (k, y0))
    with told:
        y = adamode.solve(other, y0, t, **options, **more).y
    assert furthest(torch.autograd.grad(y[-1].sin().sum(), (k, y0)), want) < 1e-10


@pytest.mark.parametrize("fault", ["jacobian", "transposed", "time"])
def test_a_planted_fault_in_a_transposed_rosenbrock_step_is_seen(fault, monkeypatch):
    want = gradients(adamode.Discrete(), "rodas5p", dt=0.06)
    if fault == "jacobian":
        still = lambda self, cotangents: (torch.zeros_like(self.y), ())  # noqa: E731
        monkeypatch.setattr(linear_stages.LinearStages, "_through_the_jacobian", still)
    elif fault == "transposed":
        monkeypatch.setattr(linear_stages.Factors, "solve_transposed", linear_stages.Factors.solve)
    else:
        made = Jacobian.contracted
        monkeypatch.setattr(Jacobian, "contracted", lambda *args: made(*args[:-1], [0.0] * len(args[-1])))
    wrong = gradients(adamode.Discrete(), "rodas5p", dt=0.06)
    assert float(((wrong[0] - want[0]) / want[0]).abs().max()) > 1e-6


def test_samples_that_are_rejected_or_leave_the_batch_keep_their_gradients():
    k = torch.tensor([30.0, 3.0], dtype=D, requires_grad=True)
    y0 = torch.tensor([[1.0], [0.7], [0.1]], dtype=D, requires_grad=True)
    t = torch.tensor([[0.0, 0.2], [0.0, 0.6], [0.0, 0.9]], dtype=D)
    f = lambda t, y: k[0] * (torch.cos(k[1] * t) - y**3)  # noqa: E731
    grads = []
    for gradient, compact in ((adamode.Direct(), False), (adamode.Discrete(), True)):
        sol = adamode.solve(f, y0, t, method="rodas5p", rtol=1e-4, atol=1e-6, dt0=0.5, params=[k],
                            stepping="per_sample", gradient=gradient, compact=compact)  # fmt: skip
        assert int(torch.as_tensor(sol.stats.n_rejected).sum()) > 0
        grads.append(torch.autograd.grad(sol.y[-1].square().sum(), (k, y0)))
    assert furthest(*grads) < 1e-9


def test_an_adjoint_equation_is_not_solved_by_a_rosenbrock_method():
    f, k, y0, t = problem()
    for choice in ({"method": "rodas3", "gradient": adamode.Interpolating()},
                   {"gradient": adamode.Interpolating(method="rodas5p")}):  # fmt: skip
        with pytest.raises(adamode.ArgumentError, match=r"Interpolating\(method='radau5'\)"):
            adamode.solve(f, y0, t, params=[k], **choice)
    want = gradients(adamode.Discrete(), "rodas5p", rtol=1e-7)
    found = gradients(adamode.Interpolating(method="radau5"), "rodas5p", rtol=1e-7)
    assert furthest(found[:3], want[:3]) < 1e-4
