"""The trace: one row an attempt, whose numbers add up; the stiffness estimate against a known eigenvalue."""

import math

import pytest
import torch
from problems import Net, f64, square

from adamode import Direct, Discrete, Status, solve
from adamode.solvers.errors import TooManySteps
from adamode.solvers.methods import METHODS

STEPPINGS = ("shared", "per_sample")


def bump(t, y):
    """Smooth but for a quick change at t = 1: some attempts are rejected."""
    return -y + 20 * torch.exp(-((20 * (t - 1)) ** 2))


def traced(stepping, y0=None, t=(0.0, 3.0), f=bump, **options):
    y0 = f64(1.0, -3.0)[:, None] if y0 is None else y0
    t = t if isinstance(t, torch.Tensor) else f64(*t)
    return solve(f, y0, t, trace=True, stepping=stepping, **{"gradient": None, **options})


def of_sample(sol, i):
    """The rows of one sample, and its statistics."""
    stats = sol.stats
    if isinstance(sol.status, Status):
        return sol.trace, stats.n_accepted, stats.n_rejected, stats.nfe
    rows = [row for row in sol.trace if row.sample == i]
    return rows, int(stats.n_accepted[i]), int(stats.n_rejected[i]), int(stats.nfe[i])


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("method", ["dopri5", "bosh3", "dop853"])
@pytest.mark.parametrize("span", [(0.0, 3.0), (1.5, 0.0)])
def test_one_row_an_attempt_whose_numbers_add_up(stepping, method, span):
    sol = traced(stepping, t=span, method=method, dt0=1.0)
    for i in range(1 if stepping == "shared" else 2):
        rows, accepted, rejected, nfe = of_sample(sol, i)
        assert len(rows) == accepted + rejected
        assert rejected > 0
        assert sum(row.accepted for row in rows) == accepted
        assert math.fsum(row.dt for row in rows if row.accepted) == pytest.approx(
            span[1] - span[0], rel=1e-14
        )
        time = span[0]
        for row, after in zip(rows, [*rows[1:], None], strict=True):
            assert row.t == time
            time = time + row.dt if row.accepted else time
            assert (row.error_ratio > 1) == (not row.accepted)
            assert row.dt * (span[1] - span[0]) > 0
            assert 0.2 - 1e-9 <= row.factor <= 10 * (1 + 1e-12) or row.accepted  # cut to the end: any factor
            if not row.accepted:
                assert row.factor < 1
            if after is not None:
                time = after.t if after.t == pytest.approx(time, rel=1e-13, abs=1e-13) else time
                assert abs(after.dt) <= row.factor * abs(row.dt) * 1.0011
                assert after.nfe - row.nfe >= METHODS[method].n_stages - 1
        assert rows[-1].nfe == nfe
        assert rows[-1].t + rows[-1].dt == pytest.approx(span[1], rel=1e-15)


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_norms_are_those_of_the_state_and_of_its_stages(stepping):
    sol = traced(stepping, save="steps")
    for i in range(1 if stepping == "shared" else 2):
        rows = [row for row in of_sample(sol, i)[0] if row.accepted]
        for n, row in enumerate(rows):
            y = sol.y[n] if stepping == "shared" else sol.y[n, i]
            assert row.y_norm == pytest.approx(float(y.square().mean().sqrt()), rel=1e-13)
            assert len(row.stage_norms) == 7
            slope = bump(f64(row.t), y)
            assert row.stage_norms[0] == pytest.approx(float(slope.square().mean().sqrt()), rel=1e-10)


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("method", ["dopri5", "tsit5", "dopri8", "dop853", "adaptive_heun", "fehlberg2"])
def test_the_stiffness_estimate_of_a_linear_problem_is_its_eigenvalue(stepping, method):
    sol = traced(stepping, f=lambda t, y: -7.0 * y, t=(0.0, 0.5), method=method)
    assert len(sol.trace) >= 3
    for row in sol.trace:
        assert row.stiffness == pytest.approx(7.0 * abs(row.dt), rel=1e-4)


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_a_method_without_two_stages_at_one_time_says_nan(stepping):
    assert all(math.isnan(row.stiffness) for row in traced(stepping, method="bosh3").trace)


def test_each_sample_has_its_own_eigenvalue():
    rates = f64(2.0, 50.0)[:, None]
    sol = traced("per_sample", f=lambda t, y: -rates * y, y0=f64(1.0, 1.0)[:, None], t=(0.0, 0.5))
    for row in sol.trace:
        assert row.stiffness == pytest.approx(float(rates[row.sample, 0]) * row.dt, rel=1e-4)


def test_a_stiff_problem_shows_in_the_trace_and_in_the_error():
    f = lambda t, y: -1e4 * (y - torch.cos(t))  # noqa: E731
    sol = traced("per_sample", f=f, y0=f64(1.0)[:, None], t=(0.0, 1.0), max_steps=200)
    assert sol.status.tolist() == [Status.MAX_STEPS]
    late = [row.stiffness for row in sol.trace[-20:]]
    assert 2.5 < sum(late) / len(late) < 4.0  # at the edge of dopri5's stability
    with pytest.raises(TooManySteps, match=r"dt·\|λ\| ≈ 3.*stable up to 3\.3: the problem is stiff"):
        solve(f, f64(1.0), f64(0.0, 1.0), max_steps=200)


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_fixed_steps_have_no_error_ratio(stepping):
    sol = traced(stepping, dt=0.25)
    assert all(math.isnan(row.error_ratio) and row.accepted for row in sol.trace)
    assert [row.dt for row in sol.trace if row.sample in (None, 0)] == [0.25] * 12


def test_samples_that_have_finished_have_no_more_rows():
    t = torch.stack((f64(0.0, 0.1), f64(0.0, 3.0), f64(1.0, 1.0)))
    for compact in (False, True):
        sol = traced("per_sample", y0=f64(1.0, 1.0, 1.0)[:, None], t=t, compact=compact)
        for i in range(3):
            rows, accepted, rejected, _ = of_sample(sol, i)
            assert len(rows) == accepted + rejected
        assert not of_sample(sol, 2)[0]


def test_a_sample_that_fails_shows_how():
    sol = traced("per_sample", f=square, y0=f64(2.0, 0.1)[:, None], t=(0.0, 1.0))
    rows, accepted, rejected, _ = of_sample(sol, 0)
    assert len(rows) == accepted + rejected
    assert abs(rows[-1].dt) < 1e-12
    assert rows[-1].t == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("gradient", [Discrete(), Direct()], ids=repr)
def test_tracing_changes_nothing(stepping, gradient):
    net, y0 = Net(), torch.randn(2, 3, dtype=torch.float64)
    plain = solve(net, y0, f64(0.0, 2.0), stepping=stepping, gradient=gradient)
    sol = solve(net, y0, f64(0.0, 2.0), stepping=stepping, gradient=gradient, trace=True)
    assert torch.equal(sol.y, plain.y)
    assert plain.trace is None
    assert torch.equal(torch.as_tensor(sol.stats.nfe), torch.as_tensor(plain.stats.nfe))


def test_a_row_is_a_dictionary_for_tables():
    row = traced("shared").trace[0].as_dict()
    assert set(row) == {
        "t",
        "dt",
        "error_ratio",
        "accepted",
        "factor",
        "nfe",
        "y_norm",
        "stage_norms",
        "stiffness",
        "method",
        "sample",
        "newton",
    }
