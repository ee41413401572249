"""Adams methods through torchdiffeq's face: their weights, order, gradients; even grids and uneven ones."""

import warnings
from fractions import Fraction

import pytest
import torch
from problems import Net, f64, relative, top
from references import reference_solution

import adamode
from adamode import AdamodeWarning, ArgumentError
from adamode.solvers.march import adams as stepper
from adamode.solvers.methods.adams import (
    even_weights,
    integral_weights,
    largest_sum,
    predictor_weights,
)

torchdiffeq = pytest.importorskip("torchdiffeq")

METHODS = ["explicit_adams", "implicit_adams"]
T = f64(0.0, 0.25, 1.0, 1.75)
Y0 = f64(0.3, -0.8, 1.1, 0.5, 0.2, -0.4).view(2, 3)
FINE = {"rtol": 1e-5, "atol": 1e-8}  # the corrector's


# Weights


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("k", range(1, 12))
def test_weights_integrate_powers_exactly(k, implicit):
    nodes = [Fraction(-i) for i in range(k)] + [Fraction(1)] * implicit
    weights = even_weights(k, implicit=implicit)
    for power in range(len(nodes) + 1):
        integral = sum(w * s**power for w, s in zip(weights, nodes, strict=True))
        assert (integral == Fraction(1, power + 1)) == (power < len(nodes))


def test_weights_are_those_of_the_book():
    # Hairer, Nørsett, Wanner I, III.1, Eqs. (1.5'), (1.9').
    assert even_weights(4, implicit=False) == tuple(Fraction(n, 24) for n in (55, -59, 37, -9))
    assert even_weights(3, implicit=True) == tuple(Fraction(n, 24) for n in (19, -5, 1, 9))


def test_weights_of_uneven_nodes_in_floats_lose_no_digits():
    nodes = [0.0, -0.7, -1.1, -3.0, -3.25, -4.5, -6.0, -6.01, -8.0, -9.0, -11.5]
    exact = integral_weights([Fraction(s) for s in nodes])
    for found, wanted in zip(integral_weights(nodes), exact, strict=True):
        assert found == pytest.approx(float(wanted), rel=1e-14)


def test_a_step_that_is_long_beside_the_past_uses_less_of_it():
    nodes = [-0.001 * i for i in range(8)]
    weights = predictor_weights(nodes, even=False)
    assert 1 <= len(weights) < 4
    assert sum(map(abs, weights)) <= largest_sum()
    assert sum(map(abs, integral_weights(nodes[: len(weights) + 1]))) > largest_sum()


# Values


@pytest.mark.parametrize("t", [T, T.flip(0)], ids=["up", "down"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "options",
    [
        {"step_size": 0.0625, "max_order": 6},
        {"step_size": 0.0625, "max_order": 5, "interp": "cubic"},
        {"step_size": 0.125, "max_order": 4, "perturb": True},
        {"grid_constructor": lambda f, y0, t: torch.linspace(t[0], t[-1], 15, dtype=t.dtype), "max_order": 7},
    ],
    ids=["step", "cubic", "perturb", "grid"],
)
def test_steps_on_an_even_grid_are_torchdiffeq_s(method, options, t):
    net = Net()
    ours = adamode.odeint(net, Y0, t, method=method, options=options, **FINE)
    theirs = torchdiffeq.odeint(net, Y0, t, method=method, options=options, **FINE)
    assert relative(ours, theirs) < 1e-12


def final_error(method, order, n, square, even=False):
    """At t = 2, after n steps: of equal length, or to the squares of equal ones."""
    y0, t = f64(1.0, 0.3, 0.9), torch.linspace(0, 1, n + 1, dtype=torch.float64)
    t = 2 * (t**2 if square else t)
    y = adamode.odeint(top, y0, t, method=method, options={"max_order": order, "max_iters": 20}, rtol=1e-12)
    return float((y[-1] - reference_solution(top, y0, [0.0, 2.0])[-1]).abs().max())


def slope(method, order, square):
    few, many = final_error(method, order, 80, square), final_error(method, order, 160, square)
    return float(torch.log2(torch.tensor(few / many)))


# max_order − 1 values of the past: order 3 and 4 explicit; the corrector has one value more. Past 5 the three
# steps at the start decide.
@pytest.mark.parametrize(
    ("method", "max_order", "order"),
    [("explicit_adams", 4, 3), ("explicit_adams", 5, 4), ("implicit_adams", 4, 4), ("implicit_adams", 5, 5)],
)
@pytest.mark.parametrize("square", [False, True], ids=["even", "uneven"])
def test_observed_order(method, max_order, order, square):
    assert slope(method, max_order, square) == pytest.approx(order, abs=0.5)


def test_the_order_test_sees_even_weights_on_an_uneven_grid(monkeypatch):
    monkeypatch.setattr(stepper.AdamsStepper, "_nodes", lambda self, past, t0, t1: ([0.0] * len(past), True))
    assert slope("explicit_adams", 5, square=False) == pytest.approx(4, abs=0.5)
    assert slope("explicit_adams", 5, square=True) < 2.5


def test_a_last_step_that_is_shorter_keeps_the_order():
    y0, t = f64(1.0, 0.3, 0.9), f64(0.0, 2.0)
    exact = reference_solution(top, y0, [0.0, 2.0])[-1]
    options = {"step_size": 0.0332, "max_order": 5}  # 60 steps, and a quarter of one
    ours, theirs = (lib.odeint(top, y0, t, method="explicit_adams", options=options)[-1] for lib in
                    (adamode, torchdiffeq))  # fmt: skip
    assert relative(ours, exact) < 3e-5
    assert relative(theirs, exact) > 10 * relative(ours, exact)


@pytest.mark.parametrize("method", METHODS)
def test_float32_and_tuples(method):
    t = torch.linspace(0, 1, 33)
    pair = (torch.tensor([0.5, 0.2]), torch.tensor(1.0))

    def f(t, y):
        return torch.sin(y[0]) * y[1], -y[1] * torch.cos(t)

    options, tol = {"max_order": 5}, {"rtol": 1e-5, "atol": 1e-6}
    ours = adamode.odeint(f, pair, t, method=method, options=options, **tol)
    theirs = torchdiffeq.odeint(f, pair, t, method=method, options=options, **tol)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == torch.float32
        assert relative(a, b) < 2e-6


def test_a_function_with_one_buffer():
    buffer = torch.empty(2, 3, dtype=torch.float64)
    net, options = Net(), {"step_size": 0.125}

    def f(t, y):
        return buffer.copy_(net(t, y).detach())

    with torch.no_grad():
        for method in METHODS:
            assert torch.equal(
                adamode.odeint(f, Y0, T, method=method, options=options),
                adamode.odeint(net, Y0, T, method=method, options=options),
            )


def test_an_event_is_found():
    def f(t, y):
        return -y * (1 + torch.sin(t))

    for method in METHODS:
        options = {"step_size": 0.01, "interp": "cubic", "max_order": 5}
        y0, t = f64(2.0), f64(0.0, 1.0)
        found = [
            lib.odeint(f, y0, t, method=method, options=options, event_fn=lambda t, y: y[0] - 0.7, **FINE)
            for lib in (adamode, torchdiffeq)
        ]
        for a, b in zip(*found, strict=True):
            assert relative(a, b) < 1e-8


# The corrector


def test_a_corrector_that_does_not_converge_is_said_once():
    with pytest.warns(AdamodeWarning, match="did not converge within max_iters=1") as told:
        adamode.odeint(Net(), Y0, T, method="implicit_adams", options={"step_size": 0.125, "max_iters": 1})
    assert len(told) == 1


def test_an_entry_at_rest_converges_without_an_atol():
    y0, t = f64(0.0, 1.0), torch.linspace(0, 1, 17, dtype=torch.float64)
    options = {"max_iters": 9, "max_order": 5}

    def last(library):
        settings = {"method": "implicit_adams", "options": options, "rtol": 1e-7, "atol": 0.0}
        y = library.odeint(lambda t, y: -y, y0, t, **settings)
        return float(y[-1, 1])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert last(adamode) == pytest.approx(0.36787944, abs=1e-5)
    with pytest.warns(UserWarning, match="did not converge"):  # 0/0 there
        last(torchdiffeq)


# Gradients


def gradients(solve, t, **kwargs):
    net, y0, t = Net(), Y0.clone().requires_grad_(), t.clone().requires_grad_()
    y = solve(net, y0, t, rtol=1e-10, atol=1e-13, **kwargs)
    loss = (y * torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)).sum() + y[1].square().sum()
    return torch.autograd.grad(loss, [y0, t, *net.parameters()])


@pytest.mark.parametrize("t", [T, T.flip(0)], ids=["up", "down"])
@pytest.mark.parametrize("method", METHODS)
def test_gradients_through_the_steps_and_by_the_adjoint(method, t):
    fine = {"method": method, "options": {"step_size": 0.015625, "max_order": 6, "max_iters": 20}}
    wanted = gradients(adamode.odeint, t, method="dopri8")
    for solve in (adamode.odeint, adamode.odeint_adjoint):
        for found, exact in zip(gradients(solve, t, **fine), wanted, strict=True):
            assert relative(found, exact) < 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_gradients_through_the_steps_are_torchdiffeq_s(method):
    kwargs = {"method": method, "options": {"step_size": 0.0625, "max_order": 6, "max_iters": 20}}
    ours, theirs = (gradients(lib.odeint, T, **kwargs) for lib in (adamode, torchdiffeq))
    for a, b in zip(ours[:1] + ours[2:], theirs[:1] + theirs[2:], strict=True):
        assert relative(a, b) < 1e-11


@pytest.mark.parametrize("method", METHODS)
def test_the_adjoint_s_quadrature_has_the_steps_own_weights(method, monkeypatch):
    """One interval of 28 steps: with the weights of one method less the gradient is off."""
    t, options = f64(0.0, 1.75), {"step_size": 0.0625, "max_order": 6, "max_iters": 20}
    run = lambda lib: gradients(lib.odeint_adjoint, t, method=method, options=options)[2:]  # noqa: E731
    theirs = run(torchdiffeq)
    assert max(relative(a, b) for a, b in zip(run(adamode), theirs, strict=True)) < 1e-9
    plain = stepper.Quadrature
    monkeypatch.setattr(stepper, "Quadrature", lambda w, saved: plain(w.roll(1), saved))
    assert max(relative(a, b) for a, b in zip(run(adamode), theirs, strict=True)) > 1e-4


# Options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_order": 13}, r"max_order'\]=13 must be at most 12"),
        ({"max_order": 4.5}, "whole number"),
        ({"max_iters": 0}, "at least 1"),
        ({"implicit": True}, "explicit_adams is not implicit; implicit_adams is"),
    ],
)
def test_options_that_cannot_be(options, said):
    with pytest.raises(ArgumentError, match=said):
        adamode.odeint(Net(), Y0, T, method="explicit_adams", options=options)


def test_a_low_max_order_leaves_rk4():
    with pytest.warns(AdamodeWarning, match="takes only steps of rk4"):
        y = adamode.odeint(Net(), Y0, T, method="fixed_adams", options={"max_order": 3})
    assert torch.equal(y, adamode.odeint(Net(), Y0, T, method="rk4"))


def test_fixed_adams_is_implicit_adams():
    options = {"step_size": 0.125, "max_order": 6, "max_iters": 20}
    one, other = (
        adamode.odeint(Net(), Y0, T, method=m, options=options) for m in ("fixed_adams", METHODS[1])
    )
    assert torch.equal(one, other)


def test_implicit_adams_without_its_corrector_is_explicit_adams():
    plain = adamode.odeint(Net(), Y0, T, method="explicit_adams", options={"step_size": 0.1})
    options = {"step_size": 0.1, "implicit": False}
    assert torch.equal(plain, adamode.odeint(Net(), Y0, T, method="implicit_adams", options=options))


@pytest.mark.parametrize("method", [*METHODS, "fixed_adams", "scipy_solver"])
def test_solve_names_the_call_that_takes_them(method):
    with pytest.raises(ArgumentError, match=rf"adamode\.odeint\(…, method='{method}'\).*dopri5"):
        adamode.solve(Net(), Y0, T, method=method)
    with pytest.raises(ArgumentError, match=r"Backsolve: method=.* adamode\.odeint"):
        adamode.Backsolve(method=method)
