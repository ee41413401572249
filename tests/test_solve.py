"""`solve` as a whole: accuracy, order, times, evaluations, failures, and properties of the solution."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import Net, Recorder, f64, parabola, rational, rational_solution, relative, square, top
from references import reference_solution

import adamode
from adamode import PID, Status, solve
from adamode.models.dynamics import AdamODE
from adamode.solvers.errors import NonFiniteDynamics, StepSizeUnderflow, TooManySteps
from adamode.solvers.methods import METHODS
from adamode.solvers.methods.dopri5 import DOPRI5
from adamode.solvers.status import REMEDY

ADAPTIVE = [name for name, method in METHODS.items() if method.adaptive]
FIELD = AdamODE(lambda t, h: torch.tanh(h) - 0.5 * h + 0.3, alpha=0.3, beta=0.6, eps=1e-8)


def plain(func, y0, t, **options):
    t = f64(*t) if isinstance(t, tuple) else t
    return solve(func, y0, t, **{"gradient": None, **options})


# Order


def observed_order(method, steps=(32, 64, 128)):
    """Slope of the end's error over equal steps, by `solve(dt=…)`, against scipy's DOP853 at 1e-13."""
    y0 = f64(1.0, 0.5, 0.9)
    reference = reference_solution(top, y0, (0.0, 6.0))[-1]
    errors = [
        float((plain(top, y0, (0.0, 6.0), method=method, dt=6 / n).y[-1] - reference).norm()) for n in steps
    ]
    assert min(errors) > 1e-10  # 100 times the reference's own error
    return math.log2(errors[0] / errors[-1]) / math.log2(steps[-1] / steps[0])


def test_the_reference_is_one():
    t = (-1.0, 0.5, 2.0)
    found = reference_solution(rational, rational_solution(-1.0), t)
    assert (found - torch.stack([rational_solution(x) for x in t])).abs().max() < 1e-12


def observed_dense_order(method, steps=(16, 32, 64)):
    """Order inside a step: that of one step's error from the exact start, less one."""
    errors = []
    for n in steps:
        h = 3 / n
        worst = 0.0
        for i in range(n):
            t = -1 + i * h
            y = plain(rational, rational_solution(t), (t, t + 0.3 * h, t + h), method=method, dt=h).y[1]
            worst = max(worst, float((y - rational_solution(t + 0.3 * h)).abs().max()))
        errors.append(worst)
    assert min(errors) > 1e-13  # 1e3 roundings
    return math.log2(errors[0] / errors[-1]) / math.log2(steps[-1] / steps[0]) - 1


def test_fixed_steps_of_dopri5_converge_with_order_five():
    assert observed_order("dopri5") == pytest.approx(5, abs=0.15)


def test_dense_output_of_dopri5_converges_with_order_four():
    assert observed_dense_order("dopri5") == pytest.approx(4, abs=0.2)


def test_the_order_test_sees_the_embedded_weights_in_place_of_the_right_ones(monkeypatch):
    spoilt = dataclasses.replace(DOPRI5, name="spoilt", b=DOPRI5.b_hat, dense=(), dense_order=0)
    monkeypatch.setitem(METHODS, "spoilt", spoilt)
    assert observed_order("spoilt") < 4.5


def test_the_order_test_sees_a_field_that_is_given_a_wrong_time(monkeypatch):
    """Nodes that do not enter: each stage sees the time of its step's start."""
    for march in ("host", "unheard"):
        monkeypatch.setattr(
            f"adamode.solvers.march.{march}.times_between",
            lambda t0, t1, nodes: [t0 for _ in nodes],
        )
    assert observed_order("dopri5") < 1.5


def test_the_dense_order_test_sees_cubic_hermite_in_place_of_the_interpolant(monkeypatch):
    monkeypatch.setitem(
        METHODS, "hermite", dataclasses.replace(DOPRI5, name="hermite", dense=(), dense_order=0)
    )
    assert observed_dense_order("hermite") < 3.5


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_the_error_follows_the_tolerance_in_both_directions_of_time(method, direction):
    t = (-1.0, -0.3, 0.1, 2.0)[::direction]
    tol = 1e-5 if METHODS[method].order < 5 else 1e-8
    sol = plain(rational, rational_solution(t[0]), t, method=method, rtol=tol, atol=tol)
    expected = torch.stack([rational_solution(x) for x in t])
    # measured: at most 2.5, fehlberg2 340 (its error estimate is 1/512 of the step)
    assert (sol.y - expected).abs().max() < (600 if method == "fehlberg2" else 10) * tol
    tighter = plain(rational, rational_solution(t[0]), t, method=method, rtol=tol / 100, atol=tol / 100)
    assert (tighter.y - expected).abs().max() < (sol.y - expected).abs().max() / 10


def test_a_network_is_solved_as_by_scipy():
    net, y0 = Net(), torch.randn(4, 3, dtype=torch.float64)
    sol = plain(net, y0, (0.0, 0.7, 1.5), rtol=1e-11, atol=1e-11)
    assert relative(sol.y, reference_solution(net, y0, (0.0, 0.7, 1.5))) < 1e-10


# Times


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    t0=st.floats(-10, 10),
    span=st.floats(1e-3, 20),
    backwards=st.booleans(),
    double=st.booleans(),
    tol=st.sampled_from([1e-2, 1e-4, 1e-6]),
    slow=st.booleans(),
)
def test_f_is_never_asked_outside_the_interval_and_the_end_is_hit(t0, span, backwards, double, tol, slow):
    dtype = torch.float64 if double else torch.float32
    t = torch.tensor([t0, t0 - span if backwards else t0 + span], dtype=dtype)
    func = Recorder(lambda t, y: (1e-9 if slow else 1.0) * torch.cos(3 * t) * y)
    sol = plain(func, torch.ones(2, dtype=dtype), t, rtol=tol, atol=tol)
    low, high = sorted(t.tolist())
    assert low <= min(func.times)
    assert max(func.times) <= high
    # f at the accepted end is the last stage of the last attempt: the end was met exactly
    assert t[1].item() in func.times
    assert sol.status is Status.SUCCESS


def test_outputs_do_not_change_the_steps():
    func, y0 = Net(), torch.randn(2, 3, dtype=torch.float64)
    few = plain(func, y0, (0.0, 3.0))
    many = plain(func, y0, torch.linspace(0, 3, 200, dtype=torch.float64))
    assert many.stats.nfe == few.stats.nfe
    assert torch.equal(many.y[-1], few.y[-1])


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_step_at_is_ended_on_exactly(direction):
    func = Recorder(lambda t, y: torch.cos(t) * y)
    at = [0.1234567 * direction, 0.5 * direction]
    plain(func, torch.ones(2), f64(0.0, direction).float(), step_at=at)
    assert float(torch.tensor(at[0])) in func.times
    assert at[1] in func.times


def test_stops_outside_the_interval_are_no_stops():
    y0, t = f64(1.0, 2.0), (0.0, 1.0)
    expected = plain(lambda t, y: -y, y0, t)
    sol = plain(lambda t, y: -y, y0, t, step_at=[-1.0, 0.0, 1.0, 3.0], jump_at=f64(-5.0, 2.0))
    assert torch.equal(sol.y, expected.y)
    assert sol.stats.nfe == expected.stats.nfe


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_at_a_jump_f_is_asked_on_the_right_side_only(direction, dtype):
    """Slopes 1 and −3 meet at 0.3: with the jump named, the polygon comes out exactly."""
    jump = 0.3 * direction
    steps = []

    def func(t, y):
        steps.append(float(t))
        return torch.where(t * direction < jump * direction, torch.ones_like(y), torch.full_like(y, -3.0))

    t = torch.tensor([0.0, direction], dtype=dtype)
    # dt0: the first step's probe is no part of a step and may look further
    sol = plain(func, torch.zeros(1, dtype=dtype), t, jump_at=[jump], dt0=0.2)
    assert sol.stats.n_rejected == 0
    expected = direction * (0.3 - 3 * 0.7)
    assert sol.y[-1].item() == pytest.approx(expected, rel=1e-6 if dtype == torch.float32 else 1e-14)
    edge = float(torch.tensor(jump, dtype=dtype))
    sides = [s * direction > edge * direction for s in steps]
    assert edge not in steps
    assert sides == sorted(sides)  # everything before the jump, then everything after it
    assert True in sides
    assert False in sides


def test_a_jump_that_is_not_named_costs_rejected_steps():
    """The negative control of the test above."""
    sol = plain(
        lambda t, y: torch.where(t < 0.3, 1.0, -3.0).to(y) * torch.ones_like(y), f64(0.0), (0.0, 1.0), dt0=0.2
    )
    assert sol.stats.n_rejected > 0


def test_a_jump_at_the_start_is_left_on_its_far_side():
    func = Recorder(lambda t, y: torch.where(t <= 0, math.nan, 1.0).to(y) * torch.ones_like(y))
    sol = plain(func, f64(0.0), (0.0, 1.0), jump_at=[0.0])
    assert min(func.times) > 0
    assert sol.y[-1].item() == pytest.approx(1.0, rel=1e-14)


def test_a_jump_at_the_end_is_not_looked_over():
    func = Recorder(lambda t, y: torch.where(t >= 1, math.nan, 1.0).to(y) * torch.ones_like(y))
    sol = plain(func, f64(0.0), (0.0, 1.0), jump_at=[1.0])
    assert sol.y[-1].item() == pytest.approx(1.0, rel=1e-14)


# Evaluations


@pytest.mark.parametrize("gradient", [None, adamode.Discrete(), adamode.Backsolve(), adamode.Direct()])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_an_attempt_costs_its_stages_and_a_solve_the_first_stage_and_the_probe(method, gradient):
    net, y0 = Net(), torch.randn(2, 3, dtype=torch.float64)
    func = Recorder(net)
    sol = solve(func, y0, f64(0.0, 4.0), method=method, gradient=gradient, params=net.parameters(), rtol=1e-4)
    assert sol.stats.n_rejected + sol.stats.n_accepted == sol.stats.n_steps
    assert sol.stats.nfe == len(func.times) == (METHODS[method].n_stages - 1) * sol.stats.n_steps + 2
    assert METHODS["dopri5"].n_stages - 1 == 6


def test_rejected_attempts_cost_six_evaluations_too():
    func = Recorder(rational)
    sol = plain(func, rational_solution(-1.0), (-1.0, 2.0), dt0=3.0, rtol=1e-9, atol=1e-9)
    assert sol.stats.n_rejected >= 2
    assert sol.stats.nfe == len(func.times) == 6 * sol.stats.n_steps + 1  # no probe: dt0 is given


def test_a_jump_costs_one_evaluation_more():
    func = Recorder(lambda t, y: -y)
    sol = plain(func, f64(1.0), (0.0, 1.0), jump_at=[0.25, 0.5])
    assert sol.stats.nfe == len(func.times) == 6 * sol.stats.n_steps + 2 + 2


def test_parameters_are_found_by_one_evaluation_more():
    net = Net()
    func = Recorder(lambda t, y: net(t, y))
    sol = solve(func, torch.randn(2, 3, dtype=torch.float64), f64(0.0, 1.0))
    assert sol.stats.nfe == len(func.times) == 6 * sol.stats.n_steps + 3


def test_fixed_steps_cost_six_evaluations_each_and_nothing_else():
    func = Recorder(lambda t, y: -y)
    sol = plain(func, f64(1.0), (0.0, 1.0), dt=0.1)
    assert sol.stats.n_steps == 10
    assert sol.stats.nfe == len(func.times) == 60  # the first stage comes in, the last f(t1, y1) falls away


def test_step_sizes_of_a_solve_begin_the_next():
    first = plain(rational, rational_solution(-1.0), (-1.0, 0.5))
    assert 0 < first.stats.dt_first < 1
    again = plain(rational, first.y[-1], (0.5, 2.0), dt0=first.stats.dt_last)
    assert again.stats.dt_first == first.stats.dt_last
    assert again.stats.nfe == 6 * again.stats.n_steps + 1


def test_fixed_steps_end_on_the_end_with_a_shorter_last_one():
    func = Recorder(lambda t, y: torch.ones_like(y))
    sol = plain(func, f64(0.0), (0.0, 1.0), dt=0.3)
    assert sol.stats.n_steps == 4
    assert max(func.times) == 1.0
    assert sol.y[-1].item() == pytest.approx(1.0, rel=1e-15)


# What cannot go on, and what can


@pytest.mark.parametrize("dt0", [0.3, 0.9, None])
@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_a_stage_outside_the_domain_is_a_rejected_step_and_the_solve_passes(direction, dt0):
    sol = plain(lambda t, y: direction * parabola(t, y), f64(1.0), (0.0, 0.97 * direction), dt0=dt0)
    if dt0 == 0.9:
        assert sol.stats.n_rejected > 0
    assert sol.y[-1].item() == pytest.approx(0.03**2, abs=1e-5)


@pytest.mark.parametrize("dt0", [0.01, 0.1, 1.0, None])
@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_adamode_from_rest_passes_its_stages_of_negative_v(direction, dt0):
    """m0 = v0 = 0, ε = 1e-8: dopri5 meets v + ε < 0 in its stages (torchdiffeq stops there)."""
    z0 = torch.zeros(3, 4, 2, dtype=torch.float64)
    z0[0] = torch.linspace(-1, 1, 8, dtype=torch.float64).view(4, 2)
    met = []

    def func(t, z):
        dz = FIELD.forward(t, z)[0]
        met.append(bool(torch.isfinite(dz).all()))
        return direction * dz

    sol = plain(func, z0, (0.0, direction), dt0=dt0, rtol=1e-5, atol=1e-5)
    assert torch.isfinite(sol.y).all()
    assert sol.status is Status.SUCCESS
    if dt0 == 1.0:
        assert False in met
        assert sol.stats.n_rejected > 0


def test_nan_everywhere_is_an_error_that_says_where():
    with pytest.raises(NonFiniteDynamics) as caught:
        plain(lambda t, y: y * math.nan, f64(1.0, 2.0), (0.25, 1.0))
    error = caught.value
    assert error.t == 0.25
    assert 0 < error.dt < 1e-15
    assert error.status is Status.NON_FINITE
    assert error.stats.n_accepted == 0
    assert "t=0.25" in str(error)
    assert f"dt={error.dt:.3e}" in str(error)
    assert REMEDY[Status.NON_FINITE] in str(error)


@pytest.mark.parametrize("nan", [math.nan, math.inf])
def test_a_norm_without_a_number_never_accepts_a_step(nan):
    for gradient in (None, adamode.Discrete(), adamode.Direct()):
        with pytest.raises(adamode.SolverError) as caught:
            solve(
                Net(),
                torch.ones(2, 3).double(),
                f64(0.0, 1.0),
                norm=lambda y: y.sum() * nan,
                gradient=gradient,
            )
        assert caught.value.stats.n_accepted == 0


def test_nan_from_some_time_on_is_an_error_at_that_time():
    with pytest.raises(NonFiniteDynamics) as caught:
        plain(lambda t, y: torch.where(t > 0.5, math.nan, -y), f64(1.0), (0.0, 1.0))
    assert caught.value.t == pytest.approx(0.5, abs=1e-9)


def test_nan_in_one_entry_of_many_is_an_error():
    def func(t, y):
        k = -y
        k[77] = math.nan
        return k

    with pytest.raises(NonFiniteDynamics):
        plain(func, torch.ones(100), f64(0.0, 1.0).float())


def test_a_state_that_overflows_is_not_accepted_though_f_is_finite():
    """y = 3e38 + 1e38 t passes float32's largest number, 3.4e38, at t = 0.4. Steps too short to change
    y in float32 still pass there, so which error ends it is open; a number must not come out."""
    with pytest.raises(adamode.SolverError) as caught:
        plain(lambda t, y: torch.full_like(y, 1e38), torch.full((2,), 3e38), f64(0.0, 2.0), max_steps=500)
    assert caught.value.t <= 0.405
    assert caught.value.stats.n_rejected > 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tol", [1e-2, 1e-5])
@pytest.mark.parametrize("end", [1.1, 1.5, 1e3])
def test_a_solution_that_blows_up_is_an_error_never_a_number(end, tol, dtype):
    with pytest.raises(adamode.SolverError) as caught:
        plain(square, torch.ones(1, dtype=dtype), torch.tensor([0.0, end], dtype=dtype), rtol=tol, atol=tol)
    assert caught.value.t == pytest.approx(1.0, abs=5 * tol)
    assert caught.value.status in (Status.STEP_UNDERFLOW, Status.NON_FINITE)
    assert isinstance(caught.value, RuntimeError)


def test_a_fixed_step_into_nan_is_an_error():
    with pytest.raises(NonFiniteDynamics, match="fixed step"):
        plain(parabola, f64(1.0), (0.0, 2.0), dt=0.5)


def test_too_many_steps_is_an_error_with_the_counts():
    with pytest.raises(TooManySteps) as caught:
        plain(rational, rational_solution(-1.0), (-1.0, 2.0), max_steps=7, rtol=1e-10, atol=1e-10)
    assert caught.value.stats.n_steps == 7
    assert -1 < caught.value.t < 2
    assert "max_steps" in str(caught.value)


def test_a_step_below_dt_min_is_an_error():
    with pytest.raises(StepSizeUnderflow):
        plain(
            rational, rational_solution(-1.0), (-1.0, 2.0), controller=PID(dt_min=0.5), rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("size", [1e20, 1e30, 1e37])
def test_large_finite_float32_states_are_solved(size):
    y0 = torch.full((50, 3), size)
    sol = plain(lambda t, y: -y, y0, torch.tensor([0.0, 1.0]))
    assert relative(sol.y[-1], y0 * math.exp(-1)) < 1e-4


# Dtypes, norms, autocast


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_func_gets_a_zero_dimensional_time_of_the_states_dtype(dtype):
    seen = []

    def func(t, y):
        seen.append((t.dtype, t.dim()))
        return -y

    sol = plain(func, torch.ones(2, dtype=dtype), (0.0, 1.0))  # times in float64 either way
    assert set(seen) == {(dtype, 0)}
    assert sol.y.dtype == dtype


def test_time_is_kept_in_float64_for_a_float32_state():
    """From t = 1e4 float32 cannot count steps of 1e-4; y' = 1 over 0.01 must come out as 0.01."""
    sol = plain(
        lambda t, y: torch.ones_like(y), torch.zeros(1), (1e4, 1e4 + 0.01), controller=PID(dt_max=1e-4)
    )
    assert sol.y[-1].item() == pytest.approx(0.01, rel=1e-4)


def test_under_autocast_f_runs_in_half_precision_and_the_solver_does_not():
    seen = []
    layer = torch.nn.Linear(3, 3)

    def func(t, y):
        out = layer(y)
        seen.append(out.dtype)
        return out

    with torch.autocast("cpu", torch.bfloat16):
        sol = plain(func, torch.ones(2, 3), torch.tensor([0.0, 1.0]), rtol=1e-2, atol=1e-2)
    assert set(seen) == {torch.bfloat16}
    assert sol.y.dtype == torch.float32
    assert not torch.equal(sol.y[-1], sol.y[-1].bfloat16().float())  # the state was not rounded


def test_the_solvers_products_are_not_rounded_by_autocast():
    """The same f, its result exact in bfloat16: with and without autocast the same numbers."""

    def func(t, y):
        return torch.full_like(y, 0.5) * (1 if t < 0.5 else 2)

    with torch.autocast("cpu", torch.bfloat16):
        inside = plain(func, torch.full((8, 3), 1 / 3), torch.tensor([0.0, 0.2, 1.0]))
    outside = plain(func, torch.full((8, 3), 1 / 3), torch.tensor([0.0, 0.2, 1.0]))
    assert torch.equal(inside.y, outside.y)


def test_a_norm_of_ones_own_decides_about_steps():
    asked = []

    def norm(tree):
        asked.append(sorted(tree))
        return tree["a"].abs().max()

    y0 = {"a": f64(1.0, 2.0), "b": f64(3.0)}
    func = lambda t, y: {"a": -y["a"], "b": torch.cos(20 * t) * y["b"]}  # noqa: E731
    lax = plain(func, y0, (0.0, 3.0), norm=norm)
    assert asked[0] == ["a", "b"]
    assert lax.stats.n_steps < plain(func, y0, (0.0, 3.0)).stats.n_steps / 2


def test_a_small_tolerance_for_one_member_is_heard():
    func = lambda t, y: (torch.cos(t) * y[0], torch.cos(5 * t) * y[1])  # noqa: E731
    y0 = (torch.ones(3, dtype=torch.float64), torch.ones(5, dtype=torch.float64))
    loose = plain(func, y0, (0.0, 3.0), rtol=1e-3, atol=1e-3)
    tight = plain(func, y0, (0.0, 3.0), rtol=(1e-3, 1e-9), atol=(1e-3, 1e-9))
    error = lambda sol, i, w: float((sol.y[i][-1] - math.exp(math.sin(3 * w) / w)).abs().max())  # noqa: E731
    assert error(tight, 1, 5) < 1e-7 < error(loose, 1, 5)


# Properties


def test_mirrored_time_gives_the_mirrored_solution():
    net, y0, t = Net(), torch.randn(2, 3, dtype=torch.float64), f64(0.25, 0.5, 1.75)
    there = plain(net, y0, t)
    back = plain(lambda t, y: -net(-t, y), y0, -t)
    assert torch.equal(there.y, back.y)
    assert there.stats.nfe == back.stats.nfe


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 999))
def test_a_permuted_batch_gives_the_permuted_solution(seed):
    make = torch.Generator().manual_seed(seed)
    y0, order = torch.randn(6, 3, dtype=torch.float64, generator=make), torch.randperm(6, generator=make)
    a, b = (plain(Net(), y, (0.0, 0.5, 2.0)) for y in (y0, y0[order]))
    # the norm's sum runs in another order: step sizes differ by roundings
    assert relative(b.y, a.y[:, order]) < 1e-12


@settings(max_examples=10, deadline=None, derandomize=True)
@given(power=st.integers(-20, 20))
def test_a_linear_system_scaled_by_a_power_of_two_gives_the_scaled_solution(power):
    w, y0, c = torch.randn(4, 4, dtype=torch.float64), torch.randn(4, dtype=torch.float64), 2.0**power
    func = lambda t, y: torch.cos(t) * (w @ y)  # noqa: E731
    a = plain(func, y0, (0.0, 0.3, 1.0))
    b = plain(func, c * y0, (0.0, 0.3, 1.0), atol=c * 1e-7)
    assert relative(b.y, c * a.y) < 1e-12


def test_blocks_packed_in_one_tensor_or_apart_are_the_same_solution():
    net = Net(4)
    y0 = torch.randn(4, dtype=torch.float64)
    together = plain(net, y0[None], (0.0, 0.3, 2.0), norm="max")

    def parts(t, y):
        dy = net(t, torch.cat((y["x"], y["y"].reshape(-1)))[None])[0]
        return {"x": dy[:1], "y": dy[1:].view(1, 3)}

    apart = plain(parts, {"x": y0[:1], "y": y0[1:].view(1, 3)}, (0.0, 0.3, 2.0), norm="max")
    assert apart.y["x"].shape == (3, 1)
    assert apart.y["y"].shape == (3, 1, 3)
    joined = torch.cat((apart.y["x"], apart.y["y"].reshape(3, 3)), 1)
    assert relative(joined, together.y[:, 0]) < 1e-13
    assert apart.stats.nfe == together.stats.nfe


def test_a_state_in_another_memory_layout_is_the_same_solution():
    y0 = torch.randn(2, 3, 4, 5)
    t = torch.tensor([0.0, 0.5, 1.0])
    a = plain(lambda t, y: torch.sin(y), y0, t)
    b = plain(lambda t, y: torch.sin(y), y0.to(memory_format=torch.channels_last), t)
    c = plain(lambda t, y: torch.sin(y), y0.transpose(1, 3).contiguous().transpose(1, 3), t)
    assert relative(b.y, a.y) < 1e-6
    assert relative(c.y, a.y) < 1e-6


@pytest.mark.parametrize("shape", [(), (1,), (2, 0, 3)[:1], (1, 2, 3, 4, 5)])
def test_any_shape_of_state_is_solved(shape):
    y0 = torch.rand(shape, dtype=torch.float64) + 1
    sol = plain(lambda t, y: -y, y0, (0.0, 1.0), rtol=1e-9, atol=1e-9)
    assert sol.y.shape == (2, *shape)
    assert relative(sol.y[-1], y0 * math.exp(-1)) < 1e-8


def test_the_same_solve_twice_is_the_same_to_the_bit():
    y0 = torch.randn(5, 3, dtype=torch.float64)
    a, b = (plain(Net(), y0, (0.0, 0.5, 2.0)) for _ in range(2))
    assert torch.equal(a.y, b.y)
    assert a.stats == b.stats or math.isnan(a.stats.reconstruction_error)


def test_solve_leaves_its_arguments_as_they_were():
    y0, t = torch.randn(5, 3, dtype=torch.float64), f64(0.0, 0.5, 2.0)
    copies = y0.clone(), t.clone()
    sol = plain(Net(), y0, t)
    assert torch.equal(y0, copies[0])
    assert torch.equal(t, copies[1])
    sol.y.zero_()
    assert torch.equal(y0, copies[0])


def test_under_inference_mode_a_solve_works_and_leaves_nothing_behind():
    net, y0 = Net(), torch.randn(2, 3, dtype=torch.float64)
    with torch.inference_mode():
        inside = solve(net, y0, f64(0.0, 1.0)).y
    after = solve(net, y0, f64(0.0, 1.0)).y
    assert torch.equal(inside, after)
    after.sum().backward()
    assert torch.isfinite(net.w1.grad).all()


def test_where_no_gradient_can_flow_the_result_needs_none():
    net, y0 = Net(), torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert not solve(net, y0, f64(0.0, 1.0), gradient=None).y.requires_grad
    with torch.no_grad():
        assert not solve(net, y0, f64(0.0, 1.0)).y.requires_grad
    assert not solve(lambda t, y: -y, y0.detach(), f64(0.0, 1.0)).y.requires_grad
    assert solve(net, y0, f64(0.0, 1.0)).y.requires_grad
