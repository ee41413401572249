"""One solve under study: trace, failures as far as they came, spectrum, ladder, progress."""

from __future__ import annotations

import csv
import io
import json
import math
import pickle
import re

import pytest
import torch
from torch import nn

from adamode import SolverError, solve
from adamode.inspect.catalogue import PROBLEMS
from adamode.inspect.pictures import draw_steps
from adamode.inspect.precision import ladder
from adamode.inspect.progress import progress
from adamode.inspect.reference import find_reference
from adamode.inspect.stability_picture import draw_stability, spectrum, stability_box, unstable_box
from adamode.inspect.study import Settings, output_times, study
from adamode.inspect.tables import attempts_table, trace_csv, trace_json
from adamode.solvers.methods import IMPLICIT, METHODS, get_method
from adamode.solvers.methods.stability import stability_function


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_a_study_has_a_row_for_every_attempt_and_the_error_of_a_plain_solve():
    problem = PROBLEMS["van-der-pol"].until(6.0)
    found = study(problem, "dopri5", Settings())
    assert len(found.rows) == found.stats.n_steps
    assert sum(not row.accepted for row in found.rows) == found.stats.n_rejected > 0
    assert all(row.accepted == (row.error_ratio <= 1) for row in found.rows)
    times = torch.tensor(output_times(problem), dtype=torch.float64)
    plain = solve(problem.f, problem.state(torch.float64), times, rtol=1e-6, atol=1e-8)
    assert torch.equal(found.values, plain.y)
    reference = find_reference(problem, output_times(problem))
    assert 1e-9 < found.measured_against(reference).error < 1e-4


def test_an_error_keeps_the_trace_that_was_asked_for_also_through_pickle():
    square = PROBLEMS["blow-up"]
    with pytest.raises(SolverError) as caught:
        solve(square.f, f64(0.0), f64(0.0, 2.0), trace=True)
    error = pickle.loads(pickle.dumps(caught.value))
    assert len(error.trace) == error.stats.n_steps > 100
    assert repr(error.trace) == repr(caught.value.trace)  # NaN is not NaN
    with pytest.raises(SolverError) as caught:
        solve(square.f, f64(0.0), f64(0.0, 2.0))
    assert caught.value.trace is None


def test_a_failed_solve_is_kept_up_to_its_last_accepted_step():
    found = study(PROBLEMS["blow-up"], "dopri5", Settings())
    last = [row for row in found.rows if row.accepted][-1]
    assert found.status == found.failure.status.name
    assert found.end == found.failure.t == pytest.approx(math.pi / 2, abs=1e-6)
    assert found.end == pytest.approx(last.t + last.dt, abs=1e-12)
    reached = [t < found.end for t in found.times]
    assert torch.isfinite(found.values[:, 0]).tolist() == reached
    t, y = found.curve(50)
    assert t[-1] == found.end
    assert float(y[25, 0]) == pytest.approx(math.tan(t[25]), rel=1e-5)


def test_a_step_limit_on_a_stiff_problem_names_the_stiffness_and_keeps_the_steps():
    found = study(PROBLEMS["robertson"], "dopri5", Settings(max_steps=60))
    assert (found.status, len(found.rows)) == ("MAX_STEPS", 60)
    assert "the problem is stiff there" in str(found.failure)
    assert 0 < found.end < 4.0


def test_a_fixed_step_that_meets_infinity_leaves_the_start_only():
    found = study(PROBLEMS["blow-up"].until(20.0), "euler", Settings(dt=0.5))
    assert found.status == "NON_FINITE"
    assert torch.isfinite(found.values).all(1).tolist()[0]


def test_the_spectrum_of_a_linear_problem_is_dt_times_its_eigenvalues():
    problem = PROBLEMS["detest-c3"].until(2.0)
    found = study(problem, "dopri5", Settings())
    points = spectrum(found)
    k = torch.arange(1, 11, dtype=torch.float64)
    eigenvalues = (-4 * torch.sin(k * math.pi / 22) ** 2).sort().values
    first = points.z[:10]
    torch.testing.assert_close(
        first.real.sort().values, found.rows[0].dt * eigenvalues, rtol=1e-10, atol=1e-14
    )
    assert points.t[:10].tolist() == [0.0] * 10
    assert len(points.z) == 10 * found.stats.n_accepted


def test_the_box_of_the_region_is_that_of_the_books():
    """Euler's disk; order 4 (HW II, IV.2): to −2.785 on the real, 2.95 at its highest."""
    assert stability_box(METHODS["euler"]) == pytest.approx((-2.0, 0.0, 1.0), abs=0.051)
    left, _, top = stability_box(METHODS["rk4"])
    assert (left, top) == pytest.approx((-2.785, 2.95), abs=0.051)


def test_a_ladder_costs_more_where_it_errs_less():
    problem = PROBLEMS["detest-b5"].until(5.0)
    reference = find_reference(problem, output_times(problem, 9))
    rungs = ladder(problem, "dopri5", reference, Settings())
    assert [rung.tolerance for rung in rungs] == pytest.approx([10.0**-i for i in range(3, 11)])
    assert sorted(rung.nfe for rung in rungs) == [rung.nfe for rung in rungs]
    assert rungs[-1].error < 1e-8 < 1e-5 < rungs[0].error
    fixed = ladder(problem, "rk4", reference, Settings())
    assert all(math.isnan(rung.tolerance) for rung in fixed)
    # Order 4 and dense output of order 3: between 2³ and 2⁴ for half the step.
    assert 6 < fixed[2].error / fixed[3].error < 18


def test_the_traces_file_holds_every_number_of_every_attempt():
    found = study(PROBLEMS["detest-a3"].until(3.0), "bosh3", Settings())
    lines = list(csv.DictReader(io.StringIO(trace_csv(found))))
    assert len(lines) == len(found.rows)
    assert [float(line["dt"]) for line in lines] == [row.dt for row in found.rows]
    assert [float(lines[0][f"k{i}"]) for i in range(1, 5)] == list(found.rows[0].stage_norms)
    assert {line["accepted"] for line in lines} <= {"0", "1"}
    record = json.loads(trace_json(found))
    assert [row["error_ratio"] for row in record["rows"]] == [row.error_ratio for row in found.rows]
    assert record["rows"][0]["stiffness"] is None  # bosh3 has no two stages at one time


def _first_column(narrow):
    """What the second block repeats of the first."""
    return [line.split()[0] for line in narrow.split("\n\n")[1].splitlines()[:-1]]


def test_of_many_attempts_the_first_and_the_last_are_printed(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    found = study(PROBLEMS["detest-a3"].until(3.0), "bosh3", Settings())
    n = len(found.rows)
    lines = attempts_table(found.rows, 5).split("\n")
    assert [line.split()[0] for line in lines[2:-1]] == ["1", "2", "3", "…", str(n - 1), str(n)]
    assert f"… {n - 5} more" in lines[-1]
    assert len(attempts_table(found.rows, n).split("\n")) == 2 + n
    monkeypatch.setenv("COLUMNS", "80")
    narrow = attempts_table(found.rows, 5)
    assert max(map(len, narrow.splitlines())) <= 80
    assert sorted(narrow.split()) == sorted([*"\n".join(lines).split(), *_first_column(narrow)])


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_can_be_studied(method):
    found = study(PROBLEMS["detest-b5"].until(2.0), method, Settings(rtol=1e-4, atol=1e-4))
    assert (found.status, found.tableau) == ("SUCCESS", get_method(method))
    assert torch.isfinite(found.curve(7)[1]).all()


class Decay(nn.Module):
    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(f64(0.5))

    def forward(self, t, y):
        return -self.rate * y


def test_a_solve_under_a_progress_bar_has_the_same_numbers_and_gradients(monkeypatch):
    monkeypatch.setattr("adamode.inspect.progress.INTERVAL", 0.0)
    module, shown = Decay(), io.StringIO()
    times = f64(0.0, 1.0, 3.0)
    plain = solve(module, f64(1.0), times).y
    (expected,) = torch.autograd.grad(plain[-1].sum(), module.rate)
    with progress(module, 0.0, 3.0, label="decay", delay=0.0, file=shown) as watched:
        found = solve(watched, f64(1.0), times).y
    assert torch.equal(found, plain)
    assert torch.equal(torch.autograd.grad(found[-1].sum(), module.rate)[0], expected)
    assert re.search(r"decay +\d\d %.*t=[12]\.\d+, \d+ evaluations", shown.getvalue())
    rate = f64(0.5).requires_grad_()
    with progress(lambda t, y: -rate * y, 0.0, 3.0, file=shown) as watched:
        found = solve(watched, f64(1.0), times).y
    assert torch.autograd.grad(found[-1].sum(), rate)[0].item() == pytest.approx(expected.item(), rel=1e-12)


def test_the_bar_shows_the_mean_of_the_samples_and_never_goes_back(monkeypatch):
    monkeypatch.setattr("adamode.inspect.progress.INTERVAL", 0.0)
    shown = io.StringIO()
    with progress(lambda t, y: -y, 4.0, 0.0, delay=0.0, file=shown) as watched:
        for t in (4.0, 2.0, 3.0, 1.0):
            watched(f64(t), f64(1.0))
        watched(f64(0.5, 1.5).view(2, 1), f64(1.0, 1.0).view(2, 1))
    shares = [
        int(part.split("%")[0]) for part in shown.getvalue().replace("solve", "\nsolve").split("solve")[1:]
    ]
    assert shares == sorted(shares)
    assert max(shares) == 75
    assert "t=1, 5 evaluations" in shown.getvalue()


@pytest.mark.parametrize("method", list(IMPLICIT))
def test_an_implicit_method_is_unstable_in_its_box_alone(method):
    far, top = unstable_box(IMPLICIT[method])
    turn = torch.linspace(0, 2 * math.pi, 721, dtype=torch.float64)
    around = torch.polar(torch.full_like(turn, 1.1 * math.hypot(far, top)), turn)
    assert stability_function(IMPLICIT[method], around).abs().max() < 1
    assert stability_function(IMPLICIT[method], torch.tensor(0.9 * far, dtype=torch.float64)).abs() > 1


def test_rejections_by_newton_are_drawn_and_counted_apart():
    from matplotlib.figure import Figure

    found = study(PROBLEMS["robertson"], "kvaerno5", Settings())
    newton = sum(row.newton for row in found.rows)
    others = sum(not row.accepted and not row.newton for row in found.rows)
    assert newton == found.stats.n_newton > 0
    figure = Figure()
    draw_steps(figure, found)
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == ["accepted", *[f"{others} rejected"] * bool(others), f"{newton} not solved by Newton"]
    shown = figure.axes[0].get_lines()[-1].get_ydata()
    assert sorted(shown) == sorted(row.dt for row in found.rows if row.newton)
    rows = list(csv.DictReader(io.StringIO(trace_csv(found))))
    assert sum(int(row["newton"]) for row in rows) == newton
    assert attempts_table(found.rows, len(found.rows)).count("Newton") == newton
    assert found.stability_limit == math.inf
    assert json.loads(trace_json(found))["stability_limit"] is None
    picture = Figure()
    draw_stability(picture, found, spectrum(found))
    low, high = picture.axes[0].get_xlim()
    assert low < -1
    assert high > unstable_box(found.tableau)[0]
