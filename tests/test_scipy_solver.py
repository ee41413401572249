"""scipy's solvers through torchdiffeq's face: values, the adjoint's gradients, and one that is not there."""

import builtins
import math

import pytest
import scipy.integrate
import torch
from problems import Net, f64, relative
from references import reference_solution

import adamode
from adamode import AdamodeWarning, ArgumentError, ArgumentTypeError, SolverError, Status

torchdiffeq = pytest.importorskip("torchdiffeq")

SOLVERS = ["RK45", "RK23", "DOP853", "Radau", "BDF", "LSODA"]
T = f64(0.0, 0.25, 1.0, 1.75)  # float32 has them: torchdiffeq rounds times to it
Y0 = f64(0.3, -0.8, 1.1, 0.5, 0.2, -0.4).view(2, 3)
TOL = {"rtol": 1e-6, "atol": 1e-8}


def with_solver(solver="RK45", **options):
    return {"method": "scipy_solver", "options": {"solver": solver, **options}}


@pytest.mark.filterwarnings("ignore:The following arguments have no effect")  # torchdiffeq's min_step
@pytest.mark.parametrize("t", [T, T.flip(0)], ids=["up", "down"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_values_are_torchdiffeq_s(solver, t):
    ours = adamode.odeint(Net(), Y0, t, **with_solver(solver), **TOL).detach()
    theirs = torchdiffeq.odeint(Net(), Y0, t, **with_solver(solver), **TOL)
    # Of times that are Python's floats, all of LSODA's and some of the implicit ones', it keeps eight digits.
    rounded = {"LSODA": 1e-5, "Radau": 1e-7, "BDF": 1e-7}
    assert relative(ours, theirs) < rounded.get(solver, 1e-12)
    assert relative(ours, reference_solution(Net(), Y0, t.tolist())) < 1e-4


def test_func_gets_lsoda_s_times_unrounded():
    def worst(library):
        times = []

        def f(t, y):
            times.append(float(t))
            return -y

        library.odeint(f, f64(1.0), f64(0.0, 1.0), **with_solver("LSODA"))
        return max(abs(t - float(torch.tensor(t, dtype=torch.float32))) for t in times)

    assert worst(adamode) > 0
    assert worst(torchdiffeq) == 0


def test_float32_and_tuples():
    y0 = (torch.tensor([0.5, 0.2]), torch.tensor(1.0))
    y = adamode.odeint(lambda t, y: (-y[0], y[1] * t), y0, torch.tensor([0.0, 1.0]), **with_solver(), **TOL)
    assert [x.dtype for x in y] == [torch.float32] * 2
    assert relative(y[0][-1], y0[0] * math.exp(-1)) < 1e-5
    assert relative(y[1][-1], torch.tensor(math.exp(0.5))) < 1e-5


def spied(monkeypatch, solver):
    """What the solver's class is made with."""
    given, real = {}, getattr(scipy.integrate, solver)
    monkeypatch.setattr(scipy.integrate, solver, lambda *a, **kw: given.update(kw) or real(*a, **kw))
    return given


def test_tolerances_by_member(monkeypatch):
    given, y0 = spied(monkeypatch, "RK45"), (f64(0.5, 0.1), f64(1.0))
    tol = {"rtol": 1e-3, "atol": (1e-5, 1e-7)}
    adamode.odeint(lambda t, y: (-y[0], -y[1]), y0, T, **with_solver(), **tol)
    assert given["rtol"] == 1e-3
    assert given["atol"].tolist() == [1e-5, 1e-5, 1e-7]
    tied = (y0[0].requires_grad_(), y0[1])
    y = adamode.odeint_adjoint(
        lambda t, y: (-y[0], -y[1]), tied, T, adjoint_params=(), **with_solver(), **tol
    )
    torch.autograd.grad(y[0].sum(), tied[0])
    assert given["atol"].tolist() == [1e-5, 1e-5, 1e-7] * 2


def gradients(solve, t, **kwargs):
    net, y0, t = Net(), Y0.clone().requires_grad_(), t.clone().requires_grad_()
    y = solve(net, y0, t, **kwargs)
    loss = (y * torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)).sum() + y[1].square().sum()
    return torch.autograd.grad(loss, [y0, t, *net.parameters()])


@pytest.mark.parametrize("t", [T, T.flip(0)], ids=["up", "down"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_adjoint_s_gradients(solver, t):
    wanted = gradients(adamode.odeint, t, method="dopri8")
    tol = 1e-6 if solver in ("RK23", "BDF", "Radau") else 1e-9
    found = gradients(adamode.odeint_adjoint, t, rtol=tol, atol=tol / 10, **with_solver(solver))
    for a, b in zip(found, wanted, strict=True):
        assert relative(a, b) < (1e-3 if tol > 1e-9 else 1e-6)


@pytest.mark.parametrize(
    "methods",
    [
        {"method": "dopri5", "adjoint_method": "scipy_solver", "adjoint_options": {"solver": "DOP853"}},
        {"adjoint_method": "dopri5", "adjoint_options": {}, **with_solver("DOP853")},
    ],
    ids=["backwards", "forwards"],
)
def test_either_way_may_be_scipy_s(methods):
    wanted = gradients(adamode.odeint, T, method="dopri8")
    for a, b in zip(
        gradients(adamode.odeint_adjoint, T, rtol=1e-9, atol=1e-10, **methods), wanted, strict=True
    ):
        assert relative(a, b) < 1e-6


def test_a_complex_parameter_and_one_without_a_gradient():
    class Turn(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.tensor(0.3 + 0.8j, dtype=torch.complex128))
            self.still = torch.nn.Parameter(torch.ones(2, dtype=torch.float64), requires_grad=False)

        def forward(self, t, y):
            return torch.view_as_real(torch.view_as_complex(y) * self.w) * self.still

    def gradient(solve, **kwargs):
        net = Turn()
        solve(net, f64(1.0, 0.5), f64(0.0, 1.0), rtol=1e-10, atol=1e-12, **kwargs)[
            -1
        ].square().sum().backward()
        assert net.still.grad is None
        return net.w.grad

    assert (
        relative(gradient(adamode.odeint_adjoint, **with_solver("DOP853")), gradient(adamode.odeint)) < 1e-7
    )


def test_a_gradient_through_scipy_s_steps_is_an_error_that_names_the_adjoint():
    y0, net = Y0.clone().requires_grad_(), Net()
    for inputs in (y0, net.mu):
        y = adamode.odeint(net, y0, T, **with_solver())
        with pytest.raises(ArgumentError, match="odeint_adjoint"):
            torch.autograd.grad(y.sum(), inputs)
    y = adamode.odeint(lambda t, y: net(t, y), Y0, T, **with_solver())
    with pytest.raises(AssertionError, match="odeint_adjoint"):
        (y.sum() + net.mu).backward()
    assert not torchdiffeq.odeint(net, y0, T, **with_solver("LSODA")).requires_grad  # there without a word


def test_without_a_gradient_nothing_is_tied():
    with torch.no_grad():
        assert not adamode.odeint(Net(), Y0, T, **with_solver()).requires_grad
    assert not adamode.odeint(lambda t, y: -y, Y0, T, **with_solver()).requires_grad
    with pytest.raises(ArgumentError, match=r"torch\.func.*scipy_solver"):
        torch.func.jacrev(lambda y: adamode.odeint(lambda t, y: -y, y, T, **with_solver()))(Y0)


def test_step_limits():
    def calls(**options):
        found, method = [], with_solver(**options)
        y = adamode.odeint(lambda t, y: found.append(t) or -y, f64(1.0), f64(0.0, 8.0), **method)
        assert relative(y[-1], f64(math.exp(-8.0))) < 1e-2
        return found

    assert len(calls(max_step=0.05)) > len(calls()) + 100
    assert float(calls(first_step=0.01)[1]) == pytest.approx(0.002)  # RK45's second node
    assert len(calls(min_step=0, max_step=math.inf)) == len(calls())  # they say nothing


def test_lsoda_is_given_its_min_step(monkeypatch):
    given = spied(monkeypatch, "LSODA")
    adamode.odeint(lambda t, y: -y, Y0, T, **with_solver("LSODA", min_step=0.01, max_step=0.5))
    assert (given["min_step"], given["max_step"]) == (0.01, 0.5)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"solver": "RK54"}, ArgumentError, "did you mean 'RK45'"),
        ({"solver": "RK45", "max_step": -1.0}, ArgumentError, r"options\['max_step'\]=-1.0 must be positive"),
        ({"solver": "RK45", "first_step": "a"}, ArgumentTypeError, "must be a number"),
        ({"solver": "RK45", "first_step": 9.0}, ArgumentError, "scipy says"),
    ],
)
def test_options_that_cannot_be(options, error, said):
    with pytest.raises(error, match=said):
        adamode.odeint(Net(), Y0, T, method="scipy_solver", options=options)


def test_options_that_do_nothing_are_a_warning():
    with pytest.warns(AdamodeWarning, match="does not use 'min_step'"):
        adamode.odeint(lambda t, y: -y, Y0, T, **with_solver("RK45", min_step=0.1))
    with pytest.warns(AdamodeWarning, match="does not use 'step_size'"):
        adamode.odeint(lambda t, y: -y, Y0, T, **with_solver("RK45", step_size=0.1))


def test_events_are_refused_and_callbacks_are_a_warning():
    with pytest.raises(ArgumentError, match="looks for no event_fn"):
        adamode.odeint(Net(), Y0, T[:2], event_fn=lambda t, y: y.sum(), **with_solver())
    net = Net()
    net.callback_step = lambda t0, y0, dt: pytest.fail("called")
    with pytest.warns(AdamodeWarning, match="RK45' does not support callbacks .'callback_step'"):
        adamode.odeint(net, Y0, T, **with_solver())


@pytest.mark.parametrize("solver", SOLVERS)
def test_what_is_not_finite_ends_with_the_cause(solver):
    def after(t, y):
        return torch.where(t > 0.5, math.nan * y, -y)

    for f, until in ((lambda t, y: math.nan * y, 0.0), (after, 0.7)):
        with pytest.raises(SolverError, match="func was first not finite at t=") as caught:
            adamode.odeint(f, f64(1.0), f64(0.0, 2.0), **with_solver(solver))
        assert caught.value.status == Status.NON_FINITE
        assert caught.value.t <= until


@pytest.mark.parametrize("solver", ["RK45", "LSODA"])
def test_a_solution_that_blows_up_is_an_error(solver):
    with pytest.raises(
        SolverError
    ) as caught:  # where torchdiffeq returns fewer rows than times, or none ever
        adamode.odeint(lambda t, y: y * y, f64(1.0), f64(0.0, 0.5, 2.0), rtol=1e-4, **with_solver(solver))
    assert caught.value.t == pytest.approx(1.0, abs=1e-2)


@pytest.mark.parametrize("solver", SOLVERS)
def test_func_s_own_exceptions_pass(solver):
    class MineError(ValueError):
        pass

    def f(t, y):
        if t > 0.1:
            raise MineError
        return -y

    with pytest.raises(MineError):
        adamode.odeint(f, Y0, T, **with_solver(solver))


def test_without_scipy(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ArgumentError, match="pip install scipy"):
        adamode.odeint(lambda t, y: -y, Y0, T, **with_solver())
