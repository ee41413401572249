"""Values and derivatives at the times asked for: which step they come from, and that they are whole."""

import itertools
import math

import pytest
import torch
from problems import f64, rational, rational_solution

from adamode.solvers.march.grid import uniform_grid
from adamode.solvers.march.host import Stats
from adamode.solvers.march.output import OutputWriter, Place
from adamode.solvers.methods import METHODS
from adamode.solvers.solve import Observers, Settings, Wish, forward_solve, stops_of
from adamode.solvers.step.clocks import Tolerance, rms


class ScriptedDense:
    """A step whose value at t is t itself, and its derivative 10 t."""

    def __init__(self, t0, t1):
        self.t0, self.t1 = t0, t1
        self.result = self
        self.stages = self

    def get(self, i):
        return torch.tensor(10 * self.t0)

    def theta(self, t):
        return (t - self.t0) / (self.t1 - self.t0)

    def value(self, t):
        assert min(self.t0, self.t1) <= t <= max(self.t0, self.t1)
        return torch.tensor(t)

    def values(self, times):
        return [self.value(t) for t in times]

    def derivative(self, t):
        return torch.tensor(10 * t)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_every_output_is_taken_from_the_step_that_holds_it(sign):
    times = [0.0, 0.25, 0.3, 0.5, 0.9, 1.0]
    writer = OutputWriter([sign * t for t in times], torch.tensor(0.0), derivatives=True)
    for t0, t1 in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.6), (0.6, 1.0)):
        writer(ScriptedDense(sign * t0, sign * t1))
    torch.testing.assert_close(torch.stack(writer.values), sign * torch.tensor(times))
    torch.testing.assert_close(torch.stack(writer.derivatives), 10 * sign * torch.tensor(times))
    steps = [place.step for place in writer.places]
    thetas = [place.theta for place in writer.places]
    assert steps == [-1, 1, 1, 1, 3, 3]
    assert thetas == pytest.approx([1.0, 1 / 6, 1 / 3, 1.0, 0.75, 1.0])
    assert writer.places[3] == Place(1, 1.0)  # exactly: the output is the step's own end


def test_many_outputs_in_one_step_are_all_written():
    times = torch.linspace(0, 1, 101, dtype=torch.float64).tolist()
    writer = OutputWriter(times, torch.tensor(0.0))
    writer(ScriptedDense(0.0, 1.0))
    assert len(writer.values) == 101
    assert {place.step for place in writer.places} == {-1, 0}


def run(times, func=rational, tol=1e-10, derivatives=False, hooks=()):
    stats = Stats()
    settings = Settings(METHODS["dopri5"], Tolerance(tol, tol), rms)

    def field(t, y):
        stats.nfe += 1
        return func(t, y), None

    wish = Wish(derivatives=derivatives)
    observers = Observers(hooks=tuple(hooks))
    return forward_solve(field, rational_solution(times[0]), times, settings, stats, wish, observers), stats


@pytest.mark.parametrize("times", [(-1.0, -0.9, -0.2, 0.1, 0.100001, 2.0), (2.0, 1.7, 0.1, 0.05, -1.0)])
def test_derivatives_are_those_of_the_solution(times):
    found, _ = run(times, derivatives=True)
    assert len(found.derivatives) == len(times)
    for t, y, dy in zip(times, found.values, found.derivatives, strict=True):
        # the interpolant's derivative is one order lower than its values: 1e-10^(4/5) = 1e-8
        torch.testing.assert_close(dy, rational(f64(t)[0], y), rtol=0, atol=2e-7)
    torch.testing.assert_close(
        found.derivatives[-1], rational(f64(times[-1])[0], found.values[-1]), rtol=0, atol=1e-15
    )


def test_derivatives_cost_no_evaluation():
    with_them, without = (run((-1.0, 0.0, 2.0), derivatives=d)[1] for d in (True, False))
    assert with_them.nfe == without.nfe


def test_outputs_are_not_written_over_by_later_steps():
    times = torch.linspace(-1, 2, 40, dtype=torch.float64).tolist()
    seen = []
    found, _ = run(times, derivatives=True, hooks=[lambda step: seen.append((step.y1, step.y1.clone()))])
    assert all(torch.equal(now, then) for now, then in seen)
    expected = torch.stack([rational_solution(t) for t in times])
    assert (found.values - expected).abs().max() < 1e-8
    slopes = torch.stack([rational(f64(t)[0], y) for t, y in zip(times, found.values, strict=True)])
    assert (found.derivatives - slopes).abs().max() < 1e-6


def test_an_output_at_a_steps_end_is_that_steps_state_to_the_bit():
    ends = []
    run((-1.0, 2.0), hooks=[lambda step: ends.append((step.t1, step.y1.clone()))])
    times = (-1.0, *[t for t, _ in ends])
    found, _ = run(times)
    for (_, y), value in zip(ends, found.values[1:], strict=True):
        assert torch.equal(y, value)


def test_stops_come_in_the_direction_of_time_with_the_end_last():
    settings = Settings(
        METHODS["dopri5"], Tolerance(1, 1), rms, step_at=(0.2, 0.7, 5.0), jump_at=(0.4, 0.7, -1.0)
    )
    there = [(s.t, s.jump) for s in stops_of(0.0, 1.0, settings)]
    assert there == [(0.2, False), (0.4, True), (0.7, True), (1.0, False)]
    back = [(s.t, s.jump) for s in stops_of(1.0, 0.0, settings)]
    assert back == [(0.7, True), (0.4, True), (0.2, False), (0.0, False)]


@pytest.mark.parametrize(
    ("t0", "t1", "dt", "n"),
    [(0.0, 1.0, 0.1, 10), (0.0, 1.0, 0.3, 4), (1.0, -1.0, 0.5, 4), (0.0, 0.1, 1.0, 1)],
)
def test_a_uniform_grid_runs_from_start_to_end_in_even_steps(t0, t1, dt, n):
    grid = uniform_grid([t0, (t0 + t1) / 2, t1], dt)
    assert len(grid) == n + 1
    assert (grid[0], grid[-1]) == (t0, t1)
    assert all(abs(b - a) <= dt * (1 + 1e-12) for a, b in itertools.pairwise(grid))
    assert all((b - a) * math.copysign(1, t1 - t0) > 0 for a, b in itertools.pairwise(grid))
