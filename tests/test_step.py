"""One Runge–Kutta step and the first step size: pure functions of tensors."""

import math

import pytest
import torch
from problems import f64, rational

from adamode.solvers.march.host import Judge, RungeKuttaStepper
from adamode.solvers.march.output import stage_times
from adamode.solvers.methods import METHODS
from adamode.solvers.methods.tableau import derivative_weights, weights
from adamode.solvers.step.clocks import (
    Tolerance,
    block_rms,
    combine_errors,
    error_ratio,
    largest,
    maximum,
    rms,
)
from adamode.solvers.step.further import dense_stages
from adamode.solvers.step.runge_kutta import StageBuffer, StageList, rk_step

Y0 = f64(0.4, -0.7, 0.6)
METHOD_LIST = list(METHODS.values())


def field(t, y):
    return rational(t, y), None


def step(tableau, stages_class, t0=0.3, t1=0.55, y=Y0, **options):
    numeric = tableau.numeric(y.dtype, y.device)
    dt = t1 - t0
    stages = StageBuffer(numeric, y, dt) if stages_class is StageBuffer else StageList(numeric, dt)
    times = stage_times(t0, t1, tableau, y)
    return rk_step(field, y, field(times[0], y), times, tableau, stages, **options), times


def by_the_book(tableau, t0=0.3, t1=0.55):
    """Y_i, k_i and y1 from the tableau's own fractions, term by term."""
    dt, k = t1 - t0, []
    for c, row in zip(tableau.c, tableau.a, strict=True):
        y = Y0.clone()
        for w, k_j in zip(row, k, strict=True):
            y = y + dt * float(w) * k_j
        k.append(rational(torch.tensor(t0 + float(c) * dt, dtype=torch.float64), y))
    y1 = Y0 + dt * sum(float(w) * k_i for w, k_i in zip(tableau.b, k, strict=True))
    return k, y1


@pytest.mark.parametrize("stages_class", [StageBuffer, StageList])
@pytest.mark.parametrize("tableau", METHOD_LIST, ids=lambda m: m.name)
def test_a_step_is_the_formula_of_the_book(tableau, stages_class):
    result, _ = step(tableau, stages_class)
    k, y1 = by_the_book(tableau)
    torch.testing.assert_close(result.y1, y1, rtol=1e-14, atol=1e-15)
    for i, k_i in enumerate(k):
        torch.testing.assert_close(result.stages.get(i), k_i, rtol=1e-13, atol=1e-14)
    end = rational(torch.tensor(0.55, dtype=torch.float64), y1)
    torch.testing.assert_close(result.stages.get(tableau.n_stages - 1), end, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("tableau", [m for m in METHOD_LIST if m.adaptive], ids=lambda m: m.name)
def test_both_kinds_of_stages_give_the_same_errors_dense_output_and_derivative(tableau):
    found = []
    for kind in (StageBuffer, StageList):
        result, times = step(tableau, kind)
        dense_stages(field, Y0, times, tableau, result)
        numeric, stages = result.stages.numeric, result.stages
        value = stages.combine(Y0, weights(numeric, 0.37))
        slope = stages.combine(None, derivative_weights(numeric, 0.37))
        found.append((*stages.errors(), value, slope, stages.probe(stages.errors()[0])))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", [StageBuffer, StageList])
def test_a_step_changes_neither_its_state_nor_its_first_stage(kind):
    y, first = Y0.clone(), field(torch.tensor(0.3, dtype=torch.float64), Y0)
    kept = first[0].clone()
    tableau = METHODS["dopri5"]
    numeric = tableau.numeric(y.dtype, y.device)
    stages = StageBuffer(numeric, y, 0.25) if kind is StageBuffer else StageList(numeric, 0.25)
    rk_step(field, y, first, stage_times(0.3, 0.55, tableau, y), tableau, stages)
    assert torch.equal(y, Y0)
    assert torch.equal(first[0], kept)


def test_without_the_end_a_step_makes_one_evaluation_less_and_the_same_y1():
    tableau = METHODS["dopri5"]
    whole, short = step(tableau, StageBuffer)[0], step(tableau, StageBuffer, evaluate_end=False)[0]
    assert torch.equal(whole.y1, short.y1)
    assert (len(whole.saved), len(short.saved)) == (7, 6)


@pytest.mark.parametrize("kind", [StageBuffer, StageList])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_bad_entry_of_any_stage_shows_in_the_probe(kind, bad):
    tableau = METHODS["dopri5"]
    for i in range(7):
        result, _ = step(tableau, kind)
        k = result.stages.get(i)
        k[1] = bad
        assert not math.isfinite(result.stages.probe(result.stages.errors()[0]))


@pytest.mark.parametrize("tableau", METHOD_LIST, ids=lambda m: m.name)
def test_interpolant_is_the_state_at_the_start_and_y1_at_the_end(tableau):
    numeric = tableau.numeric(torch.float64, torch.device("cpu"))
    assert weights(numeric, 0.0) == [0.0] * len(numeric.a_rows)
    at_end = weights(numeric, 1.0)
    b = [float(w) for w in tableau.b] + [0.0] * (len(at_end) - len(tableau.b))
    assert at_end == pytest.approx(b, abs=2e-12)  # dop853's rows reach 1e3: 1e3 roundings


@pytest.mark.parametrize("tableau", METHOD_LIST, ids=lambda m: m.name)
def test_derivative_weights_are_the_derivative_of_the_weights(tableau):
    numeric = tableau.numeric(torch.float64, torch.device("cpu"))
    for theta in (0.0, 0.3, 0.9):
        h = 1e-6
        slope = [
            (b - a) / (2 * h)
            for a, b in zip(weights(numeric, theta - h), weights(numeric, theta + h), strict=True)
        ]
        # central difference: h² ≈ 1e-12 times the third derivative (≤ 1e4), and 1e-16·1e2/h
        assert derivative_weights(numeric, theta) == pytest.approx(slope, abs=2e-6, rel=1e-6)


# Norms


@pytest.mark.parametrize("norm", [rms, maximum, lambda x: largest([rms(x), maximum(x)])])
@pytest.mark.parametrize("place", [0, 2])
def test_every_norm_propagates_nan(norm, place):
    x = f64(1.0, 2.0, 3.0)
    x[place] = math.nan
    assert math.isnan(norm(x))


def test_the_largest_of_zero_and_nan_is_nan_in_either_order():
    zero, nan = torch.tensor(0.0), torch.tensor(math.nan)
    assert math.isnan(largest([zero, nan]))
    assert math.isnan(largest([nan, zero]))
    assert math.isnan(block_rms(torch.tensor([[0.0], [math.nan]])))
    assert math.isnan(block_rms(torch.tensor([[math.nan], [0.0]])))
    assert math.isnan(combine_errors([nan, zero]))
    assert math.isnan(combine_errors([zero, nan]))


def test_error_ratio_is_the_rms_of_error_over_tolerance():
    error, y0, y1 = f64(1e-3, 2e-3), f64(1.0, -4.0), f64(-2.0, 3.0)
    expected = math.sqrt(((1e-3 / (1e-2 + 0.1 * 2)) ** 2 + (2e-3 / (1e-2 + 0.1 * 4)) ** 2) / 2)
    assert float(error_ratio([error], y0, y1, Tolerance(0.1, 1e-2), rms)) == pytest.approx(
        expected, rel=1e-15
    )


def test_error_ratio_takes_the_larger_state_and_keeps_nan_in_either():
    error, bad = f64(0.0, 0.0), f64(1.0, math.nan)
    for pair in ((bad, f64(1.0, 1.0)), (f64(1.0, 1.0), bad)):
        assert math.isnan(error_ratio([error], *pair, Tolerance(1e-3, 1e-3), rms))


def test_rms_of_large_float32_errors_does_not_overflow():
    """torch's vector norm scales: 1e30 squared is past float32."""
    x = torch.full((4,), 1e18)
    assert float(rms(x)) == pytest.approx(1e18, rel=1e-5)


# The first step


def first_step(f, y0, end=10.0, tol=1e-6, t0=0.0, order=5):
    asked = []

    def recording(t, y):
        asked.append(float(t))
        return f(t, y), None

    start = f(torch.tensor(t0, dtype=y0.dtype), y0)
    tableau = next(
        tableau for tableau in METHODS.values() if tableau.adaptive and tableau.error_order == order
    )
    judge, direction = Judge(Tolerance(tol, tol), rms), math.copysign(1.0, end - t0)
    stepper = RungeKuttaStepper(recording, tableau, y0, judge, direction=direction)
    stepper.first = (start, None)
    return stepper.initial_step(t0, end), asked


def test_first_step_is_hairers():
    """HNW II.4 for y' = −3y, y0 = 2, rtol = atol = 1e-6, worked out here with floats."""
    h, asked = first_step(lambda t, y: -3 * y, f64(2.0))
    scale = 1e-6 * 3
    d0, d1 = 2 / scale, 6 / scale
    h0 = 0.01 * d0 / d1
    d2 = abs(-3 * (2 - 6 * h0) + 6) / scale / h0
    expected = min(100 * h0, (0.01 / max(d1, d2)) ** (1 / 5))
    assert h == pytest.approx(expected, rel=1e-12)
    assert asked == [pytest.approx(h0)]


def test_first_step_of_a_state_at_rest_is_small_but_a_step():
    h, _ = first_step(lambda t, y: torch.zeros_like(y), f64(0.0))
    assert 0 < h <= 1e-4


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_the_probe_stays_inside_a_short_interval(direction):
    h, asked = first_step(lambda t, y: 1e-9 * y, f64(1.0), end=direction * 1e-3)
    assert asked == [direction * 1e-3]
    assert h <= 1e-3


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_probe_is_never_past_the_end_by_a_rounding_either(dtype, seed):
    make = torch.Generator().manual_seed(seed)
    for _ in range(50):
        t0, t1 = (torch.randn(2, generator=make, dtype=dtype) * 3).double().tolist()
        direction = math.copysign(1.0, t1 - t0)
        y0 = torch.ones(1, dtype=dtype)
        _, asked = first_step(lambda t, y: 1e-9 * y, y0, t1, t0=t0)
        assert asked[0] == pytest.approx(
            t1, abs=1e-6
        )  # f is so small that the probe wants the whole interval
        assert (asked[0] - t1) * direction <= 0


def test_a_probe_that_leaves_the_domain_still_gives_a_step():
    h, _ = first_step(lambda t, y: torch.where(t == 0, -y, torch.full_like(y, math.nan)), f64(1.0))
    assert math.isfinite(h)
    assert h > 0


@pytest.mark.parametrize("size", [1e-20, 1e20])
def test_first_step_of_very_large_or_small_float32_states_is_a_number(size):
    h, _ = first_step(lambda t, y: -y, torch.full((3,), size), tol=1e-5)
    assert 0 < h <= 10
