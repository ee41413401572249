"""Implicit methods: what their steps solve, in every stepping, and what is said where they cannot."""

import dataclasses
import math
import warnings
from fractions import Fraction

import pytest
import torch
from problems import Opaque
from torch import nn

import adamode
from adamode.solvers.errors import NewtonDiverged, TooManySteps
from adamode.solvers.methods import EVERY, IMPLICIT
from adamode.solvers.methods.stability import stability_fraction, stability_function
from adamode.solvers.status import Status
from adamode.solvers.step.clocks import ONE, Each
from adamode.solvers.step.implicit import rosenbrock
from adamode.solvers.step.implicit.esdirk import ImplicitSteps
from adamode.solvers.step.implicit.jacobian import Jacobian

D = torch.float64
NAMES = list(IMPLICIT)
BY_ITERATION = [name for name in NAMES if not IMPLICIT[name].gamma]
ROSENBROCK = [name for name in NAMES if IMPLICIT[name].gamma]
STEPPINGS = ("shared", "per_sample")


def times(*t):
    return torch.tensor(t, dtype=D)


def robertson(k=(0.04, 1e4, 3e7)):
    k = torch.as_tensor(k, dtype=D)

    def f(t, y):
        a, b, c = y.unbind(-1)
        r1, r2, r3 = k[..., 0] * a, k[..., 1] * b * c, k[..., 2] * b * b
        return torch.stack((r2 - r1, r1 - r2 - r3, r3), -1)

    return f


def three(n, spread=1.0):
    generator = torch.Generator().manual_seed(1)
    scale = 10.0 ** (spread * (torch.rand(n, 3, dtype=D, generator=generator) - 0.5))
    return torch.tensor((0.04, 1e4, 3e7), dtype=D) * scale


def pendulum(t, y):
    """A nonlinear, non-autonomous system of no stiffness, with a closed solution (sin t, 1/(1 + t²))."""
    a, b = y.unbind(-1)
    t = t.reshape(t.shape[:1])
    s, c = torch.sin(t), torch.cos(t)
    drift = -2 * t / (1 + t * t) ** 2
    return torch.stack(
        (c + (s - a) * b, drift + torch.sin(a) - torch.sin(s) + b * b - 1 / (1 + t * t) ** 2), -1
    )


def exact(t):
    return torch.stack((torch.sin(t), 1 / (1 + t * t)), -1)


def end_error(name, n, func=pendulum):
    y = adamode.solve(func, exact(times(0)[0]), times(0, 1), method=name, dt=1 / n, rtol=1e-13, atol=1e-15,
                      gradient=None).y[-1]  # fmt: skip
    return float((y - exact(times(1)[0])).abs().max())


@pytest.mark.parametrize("name", NAMES)
def test_the_error_of_fixed_steps_falls_with_the_order(name):
    n = 32 if EVERY[name].order > 4 else 48
    slope = math.log2(end_error(name, n) / end_error(name, 2 * n))
    assert slope == pytest.approx(EVERY[name].order, abs=0.15)


def on_the_axis(tableau):
    """Exact coefficients of |Q(iy)|² − |P(iy)|² in y², R = P/Q; R(∞), exactly."""
    above, below = stability_fraction(tableau)

    def squared(w):
        real = [x * (-1) ** (k // 2) * (k % 2 == 0) for k, x in enumerate(w)]
        imag = [x * (-1) ** (k // 2) * (k % 2 == 1) for k, x in enumerate(w)]
        found = [Fraction(0)] * (2 * len(w) - 1)
        for part in (real, imag):
            for i, x in enumerate(part):
                for j, y in enumerate(part):
                    found[i + j] += x * y
        return found[::2]

    top, bottom = squared(above), squared(below)
    top += [Fraction(0)] * (len(bottom) - len(top))
    size = len(below) - 1
    end = above[size] / below[size] if len(above) > size else Fraction(0)
    return [q - p for p, q in zip(top, bottom, strict=True)], end


def must_be_l_stable(tableau):
    """|R| ≤ 1 on the imaginary axis, no pole on the left, R(−∞) = 0, in floating point."""
    axis = 1j * torch.logspace(-3, 6, 4000, dtype=D)
    assert stability_function(tableau, axis).abs().max() <= 1 + 1e-9
    poles = torch.linalg.eigvals(torch.tensor([[float(w) for w in (*row, *[0] * (len(tableau.c) - len(row)))]
                                               for row in tableau.beta], dtype=D)).real  # fmt: skip
    assert (poles > -1e-12).all()
    assert abs(float(stability_function(tableau, times(-1e9))[0])) < 1e-6


@pytest.mark.parametrize("name", BY_ITERATION)
def test_steps_are_a_stable_and_forget_what_is_stiff(name):
    """By the tableau's rational function R = P/Q: |Q(iy)|² − |P(iy)|² has no negative coefficient in y² but
    for the digits that the tableau is rounded to, no pole is on the left, and R(∞) = 0."""
    tableau = EVERY[name]
    found, end = on_the_axis(tableau)
    assert min(found) > -Fraction(1, 10**14)
    assert found[-1] > Fraction(1, 10**8)
    assert abs(end) < Fraction(1, 10**10)
    must_be_l_stable(tableau)


@pytest.mark.parametrize("name", ROSENBROCK)
def test_rosenbrock_steps_are_a_stable_and_forget_what_is_stiff(name):
    """|R| ≤ 1 on the imaginary axis, no pole on the left, R(∞) = 0: by the tableau's rational function, of
    coefficients that are rounded to 16 digits."""
    tableau = EVERY[name]
    above, below = stability_fraction(tableau)
    assert len([w for w in above if abs(w) > Fraction(1, 10**14)]) < len(below)
    must_be_l_stable(tableau)


@pytest.mark.parametrize("name", BY_ITERATION)
def test_a_gamma_that_is_not_the_methods_is_seen(name):
    tableau = EVERY[name]
    rows = [list(row) for row in tableau.a]
    for i, row in enumerate(rows[1:], 1):  # the nodes stay
        row[i], row[0] = row[i] * Fraction(101, 100), row[0] - row[i] / 100
    a = tuple(map(tuple, rows))
    wrong = dataclasses.replace(tableau, a=a, b=a[-1], dense=(), dense_order=0)
    off = [abs(stability_function(x, times(0.01))[0] - math.exp(0.01)) for x in (tableau, wrong)]
    assert off[0] < 1e-9
    assert off[1] > 20 * off[0]


@pytest.mark.parametrize("name", NAMES)
def test_one_step_of_a_linear_equation_is_the_stability_function(name):
    y = adamode.solve(lambda t, y: -3.0 * y, times(1), times(0, 1), method=name, dt=1.0, gradient=None).y
    assert float(y[-1]) == pytest.approx(float(stability_function(EVERY[name], times(-3.0))[0]), rel=1e-9)


@pytest.mark.parametrize(("name", "rtol"), [*((name, 1e-4) for name in NAMES), ("kvaerno5", 1e-6)])
def test_robertson_is_right_to_its_tolerance(name, rtol):
    """End value at t = 1e11 of scipy's Radau at 1e-12."""
    end = times(2.0833403e-8, 8.3333601e-14, 0.99999998)
    options = {"method": name, "rtol": rtol, "atol": 1e-10 * rtol, "gradient": None}
    sol = adamode.solve(robertson(), times(1, 0, 0), times(0, 1e11), **options)
    assert ((sol.y[-1] - end).abs() / end)[:2].max() < 100 * rtol
    assert sol.y[-1].sum() == pytest.approx(1.0, abs=1e-6)
    assert sol.stats.n_accepted < 600
    assert 0 < sol.stats.n_jacobians < sol.stats.n_accepted + 5


@pytest.mark.parametrize("name", BY_ITERATION)
def test_a_jacobian_that_is_never_renewed_is_seen(name, monkeypatch):
    """The planted fault: the first Jacobian for good. Robertson's then stops, or takes far more steps."""
    options = {"method": name, "rtol": 1e-4, "atol": 1e-12, "gradient": None, "max_steps": 300}
    y0, t = times(1, 0, 0), times(0, 100)
    right = adamode.solve(robertson(), y0, t, **options).stats
    renewed = ImplicitSteps._renewed

    def stale(self, t, y, span):
        self.slow = torch.zeros_like(self.slow)
        return renewed(self, t, y, span)

    monkeypatch.setattr(ImplicitSteps, "_renewed", stale)
    try:
        wrong = adamode.solve(robertson(), y0, t, **options).stats
    except adamode.SolverError as failure:
        wrong = failure.stats
    assert wrong.n_jacobians == 1 < right.n_jacobians
    assert wrong.n_newton > 5 * max(right.n_newton, 1)


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("name", [*NAMES, "auto"])
def test_a_solve_at_its_step_limit_ends_and_advises_no_method_that_it_has(name, stepping):
    y0, asked = times(1, 0, 0).expand(2, 3), {"method": name, "max_steps": 9, "stepping": stepping}
    if stepping == "per_sample":
        sol = adamode.solve(robertson(), y0, times(0, 1e4), **asked)
        assert sol.status.tolist() == [int(Status.MAX_STEPS)] * 2
        return
    with pytest.raises(TooManySteps) as raised:
        adamode.solve(robertson(), y0, times(0, 1e4), **asked)
    assert f"method='{name}'" not in str(raised.value)
    assert ("Measured in the last step" in str(raised.value)) == (name == "auto")  # still explicit there


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_goes_its_way_as_if_it_were_alone(name):
    rates, t = three(3, 2.0), times(0, 1, 10)
    y0 = times(1, 0, 0).expand(3, 3)
    options = {"method": name, "rtol": 1e-5, "atol": 1e-9, "gradient": None}
    for compact in (False, True):
        if compact:  # func may hold nothing of its own for each sample
            state = torch.cat((y0, rates), 1)
            f = lambda t, y: torch.cat((robertson(y[:, 3:])(t, y[:, :3]), 0 * y[:, 3:]), 1)  # noqa: E731
            sol = adamode.solve(f, state, t, stepping="per_sample", compact=True, **options)
        else:
            sol = adamode.solve(robertson(rates), y0, t, stepping="per_sample", **options)
        for i in range(0 if compact else 3):
            alone = adamode.solve(robertson(rates[i]), y0[i], t, **options)
            torch.testing.assert_close(sol.y[:, i], alone.y, rtol=1e-9, atol=1e-15)
            for name_ in ("nfe", "n_accepted", "n_rejected", "n_newton", "n_jacobians"):
                assert getattr(sol.stats, name_)[i] == getattr(alone.stats, name_), name_
        assert (sol.status == int(Status.SUCCESS)).all()
        assert (sol.y[-1, :, :3].sum(1) - 1).abs().max() < 1e-6


def test_samples_in_a_batch_with_one_clock_have_blocks_of_their_own():
    rates, sizes = three(5), []
    f, y0 = robertson(rates), times(1, 0, 0).repeat(5, 1)
    jacobian = Jacobian(f, ONE, 0)
    sizes.append(tuple(jacobian(times(0)[0], y0).shape))
    coupled = Jacobian(lambda t, y: f(t, y) + y.roll(1, 0), ONE, 0)
    sizes.append(tuple(coupled(times(0)[0], y0).shape))
    assert sizes == [(5, 3, 3), (1, 15, 15)]
    whole = torch.func.jacfwd(lambda y: f(0, y))(y0).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    torch.testing.assert_close(jacobian(times(0)[0], y0), whole)


@pytest.mark.parametrize("mix", ["difference", "mean", "laplacian"])
def test_samples_that_depend_on_each_other_are_one_block(mix):
    def f(t, y):
        d = y[:, :1] - y[:, 1:2]
        return {"difference": -y + d.roll(1, 0) * torch.ones_like(y), "mean": y.mean(0) - 50 * y,
                "laplacian": y.roll(1, 0) + y.roll(-1, 0) - 2 * y}[mix]  # fmt: skip

    y0 = torch.linspace(0, 1, 8, dtype=D).reshape(4, 2) ** 2
    found = Jacobian(f, ONE, 0)(times(0)[0], y0)
    torch.testing.assert_close(found[0], torch.func.jacfwd(lambda y: f(0, y))(y0).reshape(8, 8))
    sol = adamode.solve(f, y0, times(0, 1), method="kvaerno3", rtol=1e-7, atol=1e-9, gradient=None)
    ref = adamode.solve(f, y0, times(0, 1), rtol=1e-10, atol=1e-12, gradient=None)
    torch.testing.assert_close(sol.y, ref.y, rtol=1e-5, atol=1e-7)


class Rates(nn.Module):
    def forward(self, t, y):
        return robertson()(t, y)


def no_forward_mode(t, y):
    a, b, c = y.unbind(-1)
    r1, r2, r3 = 0.04 * a, 1e4 * b * c, 3e7 * Opaque.apply(b)
    return torch.stack((r2 - r1, r1 - r2 - r3, r3), -1)


def by_hand(t, y):
    a, b, c = y.unbind(-1)
    zero, one = torch.zeros_like(a), torch.ones_like(a)
    rows = (
        (-0.04 * one, 1e4 * c, 1e4 * b),
        (0.04 * one, -1e4 * c - 6e7 * b, -1e4 * b),
        (zero, 6e7 * b, zero),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_every_source_of_the_jacobian_gives_the_same_steps(stepping):
    options = {"method": "kvaerno5", "rtol": 1e-6, "atol": 1e-10, "gradient": None, "stepping": stepping}
    y0, t = times(1, 0, 0).expand(2, 3), times(0, 40)
    made = adamode.solve(robertson(), y0, t, **options)
    given = adamode.solve(robertson(), y0, t, jac=by_hand, **options)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        reverse = adamode.solve(no_forward_mode, y0, t, **options)
    assert [str(w.message) for w in told if "forward mode" in str(w.message)][1:] == []
    assert any("VJPs" in str(w.message) for w in told)
    for other in (given, reverse):
        torch.testing.assert_close(other.y, made.y, rtol=1e-9, atol=1e-14)
    saved = made.stats.nfe - given.stats.nfe
    assert torch.as_tensor(saved == given.stats.n_jacobians).all()  # a jac of the caller's is no call of func


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outputs_inside_steps_dense_output_and_decreasing_time(name, stepping, dtype):
    tol = 1e-4 if dtype == torch.float32 else 1e-7
    t = torch.linspace(0, 1, 11, dtype=dtype)
    start = torch.stack((exact(times(0)[0]), exact(times(0)[0]))).to(dtype)
    options = {"method": name, "rtol": tol, "atol": tol, "gradient": None, "stepping": stepping}
    sol = adamode.solve(pendulum, start, t, dense=True, **options)
    want = exact(t)[:, None].expand(11, 2, 2)
    torch.testing.assert_close(sol.y, want, rtol=0, atol=50 * tol)
    between = t[:-1] + 0.05
    torch.testing.assert_close(sol(between), exact(between)[:, None].expand(10, 2, 2), rtol=0, atol=50 * tol)
    back = adamode.solve(pendulum, sol.y[-1], t.flip(0), **options)
    torch.testing.assert_close(back.y, want.flip(0), rtol=0, atol=500 * tol)


@pytest.mark.parametrize("shape", [(), (3,), (2, 2, 2)])
def test_states_of_any_shape(shape):
    y0 = torch.full(shape, 1.5, dtype=D)
    sol = adamode.solve(
        lambda t, y: -50 * (y - torch.cos(t)), y0, times(0, 1), method="kvaerno5", gradient=None
    )
    want = adamode.solve(lambda t, y: -50 * (y - torch.cos(t)), y0, times(0, 1), rtol=1e-9, gradient=None).y
    torch.testing.assert_close(sol.y, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_a_state_of_one_number_a_sample_and_a_pytree(stepping):
    y0 = times(1.5, 2.5)
    f = lambda t, y: -50 * (y - torch.cos(t.reshape(-1)))  # noqa: E731
    sol = adamode.solve(f, y0, times(0, 1), method="kvaerno5", stepping=stepping, gradient=None)
    tree = adamode.solve(lambda t, y: {"a": f(t, y["a"]), "b": -y["b"]}, {"a": y0, "b": y0}, times(0, 1),
                         method="kvaerno5", stepping=stepping, gradient=None)  # fmt: skip
    torch.testing.assert_close(tree.y["a"], sol.y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_an_event_a_jump_and_a_stop_are_met(stepping):
    def relay(t, y):
        return -200 * (y - torch.where(t < 0.5, 1.0, 2.0).reshape(-1, *[1] * (y.dim() - 1)))

    y0 = torch.zeros(2, 1, dtype=D)
    event = adamode.Event(lambda t, y: y[:, 0] - 1.5 if stepping == "per_sample" else y[0, 0] - 1.5)
    stops = {"jump_at": [0.5], "step_at": [0.25]}
    sol = adamode.solve(relay, y0, times(0, 1), method="kvaerno3", events=event, stepping=stepping,
                        gradient=None, trace=True, **stops)  # fmt: skip
    found = sol.t_events[0] if stepping == "shared" else sol.t_events[0][0]
    assert float(found) == pytest.approx(0.5 + math.log(2) / 200, abs=1e-6)
    assert {0.25, 0.5} <= {row.t for row in sol.trace}
    with pytest.raises(adamode.ArgumentError, match="past the end of the step"):
        adamode.solve(relay, y0, times(0, 1), method="kvaerno5", jump_at=[0.5])


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_rejections_by_newton_are_told_apart(stepping):
    """A rate that grows a million times within a step: the first Jacobian knows nothing of it."""
    f = lambda t, y: -1e6 * (y**3 - torch.cos(t))  # noqa: E731
    sol = adamode.solve(f, torch.full((2, 1), 3.0, dtype=D), times(0, 1), method="kvaerno5", dt0=0.1,
                        stepping=stepping, trace=True, gradient=None)  # fmt: skip
    n = torch.as_tensor(sol.stats.n_newton)
    assert (n > 0).all()
    assert (n <= torch.as_tensor(sol.stats.n_rejected)).all()
    rows = [row for row in sol.trace if row.newton]
    assert len(rows) == int(n.sum())
    assert not any(row.accepted for row in rows)
    assert all(row.factor == pytest.approx(0.5) for row in rows)
    torch.testing.assert_close(
        sol.y[-1], torch.full((2, 1), math.cos(1) ** (1 / 3), dtype=D), rtol=1e-3, atol=0
    )


def bad(kind):
    return {
        "shape": lambda t, y: torch.zeros(2, 2, dtype=D),
        "type": lambda t, y: 3.0,
        "dtype": lambda t, y: by_hand(t, y).float(),
        "nan": lambda t, y: by_hand(t, y) * math.nan,
    }[kind]


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("shape", r"shape \(2, 2\)"),
        ("type", "a float"),
        ("dtype", "float32"),
        ("nan", r"NaN for sample 0 at t=0"),
    ],
)
def test_a_jac_that_cannot_be_is_refused(kind, message, stepping):
    with pytest.raises(adamode.DynamicsError, match=message):
        adamode.solve(robertson(), times(1, 0, 0).expand(2, 3), times(0, 1), method="kvaerno5", jac=bad(kind),
                      stepping=stepping)  # fmt: skip


@pytest.mark.parametrize("kind", ["wrong", "infinite"])
def test_equations_that_no_step_solves_end_the_solve(kind):
    """A matrix that is none, or none of this f: the iteration fails at every length, and says so."""
    huge = {"wrong": -1e30, "infinite": math.inf}[kind]
    jac = lambda t, y: torch.full((1, 1), huge, dtype=D)  # noqa: E731
    f = lambda t, y: 10 - 1e3 * y  # noqa: E731

    with pytest.raises(NewtonDiverged, match="NEWTON at t=") as caught:
        adamode.solve(f, times(1), times(0, 1), method="kvaerno3", jac=jac, dt0=1e-2, gradient=None)
    assert caught.value.stats.n_newton > 10
    each = adamode.solve(f, times(1)[None], times(0, 1), method="kvaerno3", dt0=1e-2, stepping="per_sample",
                         jac=lambda t, y: jac(t, y)[None], gradient=None)  # fmt: skip
    assert each.status.tolist() == [int(Status.NEWTON)]
    assert each.y[-1].isnan().all()
    with pytest.raises(NewtonDiverged):
        adamode.solve(f, times(1), times(0, 1), method="kvaerno3", jac=jac, dt=1e-2, gradient=None)


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_a_singular_matrix_rejects_a_rosenbrock_step(stepping):
    """1 − dt γ J = 0 exactly, of the first length; half of it is none of an eigenvalue."""
    sol = adamode.solve(lambda t, y: 4 * y, times(1)[None], times(0, 1), method="rodas3", dt0=0.5, trace=True,
                        stepping=stepping, rtol=1e-6, gradient=None)  # fmt: skip
    assert [row.newton for row in sol.trace].index(True) == 0
    assert int(sol.stats.n_newton) == 1
    assert float(sol.y[-1, 0]) == pytest.approx(math.exp(4), rel=1e-3)


@pytest.mark.parametrize("name", ROSENBROCK)
def test_a_rosenbrock_step_whose_matrix_is_not_finite_ends_the_solve(name):
    def jac(t, y):
        return torch.tensor([[[-1e3]], [[math.inf]]], dtype=D)[: len(y)]

    f, options = lambda t, y: -1e3 * (y - 1), {"method": name, "gradient": None}
    with pytest.raises(NewtonDiverged, match="NEWTON at t="):
        adamode.solve(f, times(2, 2)[:, None], times(0, 1), jac=jac, **options)
    sol = adamode.solve(f, times(2, 2)[:, None], times(0, 1), jac=jac, stepping="per_sample", **options)
    assert sol.status.tolist() == [int(Status.SUCCESS), int(Status.NEWTON)]
    assert float(sol.y[-1, 0]) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_a_rosenbrock_step_has_one_jacobian_and_as_many_calls_of_f_as_said(stepping):
    calls = []

    def f(t, y):
        calls.append(t)
        return pendulum(t, y)

    y0 = torch.stack((exact(times(0)[0]), exact(times(0)[0])))
    counted = {}
    for name in ROSENBROCK:
        calls.clear()
        stats = adamode.solve(
            f, y0, times(0, 1), method=name, dt=0.125, stepping=stepping, gradient=None
        ).stats
        assert (torch.as_tensor(stats.n_jacobians) == 8).all()
        counted[name] = (torch.as_tensor(stats.nfe) - 1) / 8, (len(calls) - 1) / 8
    for name, of_f in (("rodas5p", 8), ("rodas3", 3)):  # and ∂f/∂y, ∂f/∂t
        assert (counted[name][0] == of_f + 2).all()
        assert of_f + 2 <= counted[name][1] <= of_f + 2.25


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("fault", ["gamma", "in_time"])
def test_a_planted_fault_in_a_rosenbrock_step_loses_the_order(fault, stepping, monkeypatch):
    by = rosenbrock.coupling_of(EVERY["rodas5p"])
    wrong = {"gamma": {"gamma": 1.05 * by.gamma}, "in_time": {"in_time": tuple(0.9 * w for w in by.in_time)}}
    monkeypatch.setattr(rosenbrock, "coupling_of", lambda tableau: dataclasses.replace(by, **wrong[fault]))
    assert math.log2(end_error("rodas5p", 32) / end_error("rodas5p", 64)) < 3


@pytest.mark.parametrize("kind", [None, "vjps"])
@pytest.mark.parametrize("stepping", STEPPINGS)
def test_the_derivative_in_time_is_that_of_each_samples_time(kind, stepping):
    y, clocks = torch.rand(3, 2, dtype=D), ONE if stepping == "shared" else Each(0, 2)
    t = times(0.3)[0] if stepping == "shared" else times(0.3, 0.5, 0.7)[:, None]
    f = lambda t, y: torch.sin(3 * t) * y + t**2  # noqa: E731
    jacobian = Jacobian(f, clocks, 0)
    jacobian.forward_mode = kind is None
    torch.testing.assert_close(jacobian.in_time(t, y), 3 * torch.cos(3 * t) * y + 2 * t)
    still = Jacobian(lambda t, y: y**2, clocks, 0)
    still.forward_mode = kind is None
    assert (still.in_time(t, y) == 0).all()


def test_one_sample_whose_equations_fail_leaves_the_others_alone():
    def jac(t, y):
        return torch.tensor([[[-1e3]], [[math.inf]]], dtype=D)[-len(y) :]

    f = lambda t, y: -1e3 * (y - 1)  # noqa: E731
    options = {"method": "kvaerno5", "stepping": "per_sample", "gradient": None}
    sol = adamode.solve(f, times(2, 2)[:, None], times(0, 1), jac=jac, **options)
    assert sol.status.tolist() == [int(Status.SUCCESS), int(Status.NEWTON)]
    assert float(sol.y[-1, 0]) == pytest.approx(1.0, abs=1e-5)


def test_what_does_not_go_together_is_refused():
    f, y0, t = robertson(), times(1, 0, 0), times(0, 1)
    with pytest.raises(adamode.ArgumentError, match="explicit and has no use"):
        adamode.solve(f, y0, t, jac=by_hand)
    with pytest.raises(adamode.ArgumentTypeError, match="jac=3"):
        adamode.solve(f, y0, t, method="kvaerno5", jac=3)
    for choice in ({"method": "kvaerno5"}, {}):
        back = adamode.Backsolve(method=None if choice else "kvaerno3")
        with pytest.raises(adamode.ArgumentError, match=r"Backsolve\(\) with method='kvaerno"):
            adamode.solve(f, y0, t, gradient=back, **choice)
    with pytest.raises(adamode.ArgumentError, match="takes implicit steps"):
        adamode.odeint(f, y0, t, method="kvaerno5")
    for speed in ({"sync_every": 4}, {"compile": True}):
        with pytest.warns(adamode.AdamodeWarning, match="every correction"):
            adamode.solve(Rates(), y0, t, method="kvaerno3", gradient=None, **speed)


class Silent(nn.Module, adamode.Dynamics):
    """y' = −50 (y − cos t) on [1, B], by hand, and nothing that autograd could follow."""

    def theta(self):
        return ()

    @torch.no_grad()
    def forward(self, t, z):
        return torch.from_numpy(-50 * (z.numpy() - math.cos(float(t)))), None

    def vjp(self, saved, a):
        return -50 * a, None

    def parameter_gradients(self, saved, deltas, weights):
        return ()


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_a_rosenbrock_method_refuses_a_jacobian_that_is_not_that_of_f(stepping):
    options = {"method": "rodas5p", "stepping": stepping, "gradient": None}
    y0 = times(1, 0, 0).expand(2, 3)
    with pytest.raises(adamode.DynamicsError, match=r"jac is not the derivative .* choose radau5"):
        adamode.solve(robertson(), y0, times(0, 1), jac=lambda t, y: 1.001 * by_hand(t, y), **options)
    near = adamode.solve(robertson(), y0, times(0, 1), jac=lambda t, y: (1 + 1e-8) * by_hand(t, y), **options)
    made = adamode.solve(robertson(), y0, times(0, 1), **options)
    torch.testing.assert_close(near.y, made.y, rtol=1e-6, atol=1e-9)


def test_a_rosenbrock_method_refuses_a_dynamics_that_autograd_cannot_follow():
    z0 = torch.ones(1, 2, dtype=D)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", adamode.AdamodeWarning)
        with pytest.raises(adamode.DynamicsError, match=r"Silent\.vjp is not the derivative"):
            adamode.solve(Silent(), z0, times(0, 1), method="rodas3", gradient=None)
        y = adamode.solve(Silent(), z0, times(0, 1), method="radau5", gradient=None).y
    assert float(y[-1, 0, 0]) == pytest.approx(math.cos(1 - 1 / 50), abs=1e-2)
