"""The stepper: what an attempt leaves unchanged, what the next first stage is, and bad stages."""

import dataclasses
import math

import pytest
import torch
from problems import Recorder, f64, parabola, rational, rational_solution

from adamode.solvers.march.host import Judge, RungeKuttaStepper
from adamode.solvers.methods import METHODS
from adamode.solvers.step.clocks import Tolerance, rms

Y0 = rational_solution(-1.0)
BOTH = pytest.mark.parametrize("differentiable", [False, True])
EVERY = pytest.mark.parametrize("name", ["dopri5", "bosh3", "tsit5", "dopri8", "dop853", "fehlberg2", "rk4"])


def make(func=rational, y0=Y0, method="dopri5", tol=1e-6, **options):
    tableau = METHODS[method]
    judge = Judge(Tolerance(tol, tol), rms) if tableau.adaptive else None
    stepper = RungeKuttaStepper(lambda t, y: (func(t, y), None), tableau, y0, judge, **options)
    stepper.restart(-1.0)
    return stepper


@BOTH
@EVERY
def test_rejected_step_leaves_the_state_unchanged(name, differentiable):
    stepper = make(method=name, differentiable=differentiable)
    before = stepper.y.clone()
    first = stepper.first[0].clone()
    for t1 in (0.5, 0.0, -0.5):
        stepper.attempt(-1.0, t1)
    assert torch.equal(stepper.y, before)
    assert torch.equal(stepper.first[0], first)


@BOTH
@EVERY
def test_an_attempt_after_rejections_is_the_attempt_without_them(name, differentiable):
    tried, fresh = (make(method=name, differentiable=differentiable) for _ in range(2))
    tried.attempt(-1.0, 1.0)
    tried.attempt(-1.0, 0.0)
    a, b = tried.attempt(-1.0, -0.9), fresh.attempt(-1.0, -0.9)
    assert torch.equal(a.y1, b.y1)
    assert all(torch.equal(a.result.stages.get(i), b.result.stages.get(i)) for i in range(a.tableau.n_stages))


@BOTH
@EVERY
def test_first_stage_after_a_rejection_is_the_accepted_steps_last(name, differentiable):
    """A rejected attempt writes into the same memory: the stage handed on must not lie there."""
    stepper = make(method=name, differentiable=differentiable)
    stepper.accept(stepper.attempt(-1.0, -0.9))
    stepper.attempt(-0.9, 0.9)  # rejected
    stepper.attempt(-0.9, 0.0)  # rejected
    expected = rational(f64(-0.9)[0], stepper.y)
    assert torch.equal(stepper.first[0], expected)
    step = stepper.attempt(-0.9, -0.8)
    assert torch.equal(step.result.stages.get(0), expected)
    assert step.chained


@EVERY
def test_the_first_stage_of_an_accepted_chain_costs_no_evaluation(name):
    asked = Recorder(rational)
    stepper = make(asked, method=name)
    stages = stepper.tableau.n_stages
    for n in range(4):
        stepper.accept(stepper.attempt(-1 + n / 10, -0.9 + n / 10))
        assert len(asked.times) == 1 + (n + 1) * (stages - 1)


def test_kept_stages_are_not_written_over_by_later_attempts():
    stepper = make(keep_stages=True)
    step = stepper.attempt(-1.0, -0.9)
    value = step.value(-0.95).clone()
    stepper.accept(step)
    for t1 in (0.9, -0.5, -0.8):
        stepper.attempt(-0.9, t1)
    assert torch.equal(step.value(-0.95), value)


def test_accepted_states_are_not_written_over_by_later_attempts():
    stepper = make()
    step = stepper.attempt(-1.0, -0.9)
    y1 = step.y1.clone()
    stepper.accept(step)
    stepper.accept(stepper.attempt(-0.9, -0.8))
    assert torch.equal(step.y1, y1)


def test_a_result_that_is_the_state_itself_is_not_aliased():
    """func may return its argument (y' = y)."""
    stepper = make(lambda t, y: y, f64(1.0, 2.0))
    for n in range(5):
        stepper.accept(stepper.attempt(-1 + n / 10, -0.9 + n / 10))
    torch.testing.assert_close(stepper.y, f64(1.0, 2.0) * math.exp(0.5), rtol=1e-8, atol=0)


def test_a_result_in_memory_that_func_uses_again_is_copied():
    buffer = torch.empty(2, dtype=torch.float64)

    def func(t, y):
        return torch.mul(y, -1.0, out=buffer)

    stepper = make(func, f64(1.0, 2.0))
    stepper.accept(stepper.attempt(-1.0, -0.9))
    torch.testing.assert_close(stepper.y, f64(1.0, 2.0) * math.exp(-0.1), rtol=1e-9, atol=0)


@pytest.mark.parametrize("direction", [1.0, -1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_beside_a_jump_f_is_asked_strictly_on_the_steps_own_side(direction, dtype):
    asked = Recorder(lambda t, y: -y)
    stepper = RungeKuttaStepper(
        lambda t, y: (asked(t, y), None),
        METHODS["dopri5"],
        torch.ones(2, dtype=dtype),
        Judge(Tolerance(1e-3, 1e-3), rms),
        direction=direction,
    )
    stepper.restart(0.0)
    step = stepper.attempt(0.0, 0.5 * direction, before_jump=True)
    assert max(abs(t) for t in asked.times) < 0.5
    assert max(abs(t) for t in asked.times) == pytest.approx(0.5, rel=1e-6)
    stepper.accept(step)
    asked.times.clear()
    stepper.restart(0.5 * direction, after_jump=True)
    assert abs(asked.times[0]) > 0.5
    assert not stepper.chained
    stepper.attempt(0.5 * direction, 1.0 * direction)
    assert min(abs(t) for t in asked.times) > 0.5


@BOTH
def test_a_stage_outside_the_domain_makes_the_attempt_non_finite(differentiable):
    stepper = make(parabola, f64(1.0), differentiable=differentiable)
    bad = stepper.attempt(-1.0, 1.0)
    assert not bad.finite
    good = stepper.attempt(-1.0, -0.9)
    assert good.finite
    assert good.error_ratio < 1


@BOTH
@pytest.mark.parametrize("stage", range(1, 7))
def test_nan_in_any_single_stage_makes_the_attempt_non_finite(stage, differentiable):
    """Also in the second, whose weights in y1 and in the error are 0, and in the last, f(t1, y1)."""
    count = -1

    def func(t, y):
        nonlocal count
        count += 1
        return torch.where(torch.tensor([count == stage, False]), math.nan, -y)

    step = make(func, f64(1.0, 2.0), differentiable=differentiable).attempt(-1.0, -0.9)
    assert not step.finite


@BOTH
def test_an_end_state_that_overflows_is_not_finite_though_f_is(differentiable):
    stepper = make(
        lambda t, y: torch.full_like(y, 1e38), torch.full((2,), 3e38), differentiable=differentiable
    )
    assert not stepper.attempt(-1.0, 0.0).finite
    assert stepper.attempt(-1.0, -0.9).finite


def test_large_finite_stages_whose_sum_overflows_are_finite():
    stepper = make(lambda t, y: -y, torch.full((100,), 1e37))
    step = stepper.attempt(-1.0, -0.9999)
    assert step.finite
    assert step.error_ratio <= 1


def test_infinities_of_both_signs_do_not_cancel():
    stepper = make(
        lambda t, y: torch.tensor([math.inf, -math.inf], dtype=torch.float64) * (t > -1), f64(1.0, 2.0)
    )
    assert not stepper.attempt(-1.0, -0.9).finite


@BOTH
def test_a_nan_of_the_norm_is_not_read_as_a_perfect_step_though_all_stages_are_finite(differentiable):
    """max(0, nan) is 0 in Python: that is how a NaN error is accepted silently."""
    stepper = make(differentiable=differentiable)
    stepper.judge = dataclasses.replace(stepper.judge, norm=lambda x: x.sum() * math.nan)
    step = stepper.attempt(-1.0, -0.9)
    assert step.finite
    assert not step.error_ratio <= 1
    stepper.judge = dataclasses.replace(stepper.judge, norm=rms, ratio=lambda step: torch.tensor(math.nan))
    assert not stepper.attempt(-1.0, -0.9).error_ratio <= 1
