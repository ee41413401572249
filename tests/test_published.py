"""Published values: the facts, the bounds, and that the suite sees a wrong digit wherever it stands."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from benchmark_package import benchmark_module
from typer.testing import CliRunner

import adamode.verify.published as suite
from adamode import Backsolve, Discrete
from adamode.cli.app import app
from adamode.inspect.catalogue import PROBLEMS as CATALOGUE
from adamode.inspect.problem import Problem
from adamode.solvers.errors import ArgumentError
from adamode.solvers.methods import METHODS
from adamode.verify.published import PublishedReport, gradients, solves, verify_published
from adamode.verify.published.bounds import bound_of, method_factor
from adamode.verify.published.condition import condition_number
from adamode.verify.published.gradient_values import (
    HESSIAN_VALUES,
    LOTKA_VOLTERRA_GRADIENT,
    ROBERTSON_GRADIENT,
    LotkaVolterra,
    Robertson,
)
from adamode.verify.published.layout import conclusion, markdown_tables, text_tables
from adamode.verify.published.value import EndValue, error_of

page = benchmark_module("accuracy", "page")
DOCS = Path(__file__).parents[1] / "docs" / "accuracy.md"
VALUES = solves.PROBLEMS
QUICK = ("detest-a2", "detest-b3", "detest-c3", "detest-d1", "detest-e4")  # one a class


@functools.cache
def quick_report() -> PublishedReport:
    return verify_published(QUICK, ("bosh3", "dopri5", "dop853"))


def missed(value: EndValue, *methods: str) -> set[tuple[str, float]]:
    """Where the suite finds a fault."""
    return {(row.method, row.rtol) for row in solves.rows_of(value, methods) if not row.ok}


# The facts


@pytest.fixture
def published_file():
    folder = os.environ.get("ADAMODE_DATA")
    if not folder:
        pytest.skip("ADAMODE_DATA does not say where real data are")
    return json.loads((Path(folder) / "ivp_reference.json").read_text(encoding="utf-8"))


def entry_of(name: str, entries):
    return entries[f"detest_{name[-2:].upper()}" if name.startswith("detest-") else name]


def test_the_facts_of_the_package_are_those_of_the_reference_file(published_file):
    for name, value in VALUES.items():
        if name == "arenstorf-short":
            continue
        entry, problem = entry_of(name, published_file), value.problem
        assert list(value.values) == entry["reference_end_values"], name
        assert problem.span == (entry["t0"], entry["t1"]), name
        # C5's are said to be DETEST's. E1's slope J½'(1) is 0.095400514447474534: file and package round it.
        if isinstance(entry["y0"], list):
            assert list(problem.y0) == pytest.approx(entry["y0"], rel=2.3e-16, abs=1.2e-16), name


def test_the_gradients_of_the_package_are_those_of_the_reference_file(published_file):
    lotka, hessian = (published_file[n] for n in ("gradient_lotka_volterra_sundials", "hessian_cvodes"))
    printed, tighter = LOTKA_VOLTERRA_GRADIENT
    assert list(printed.values) == lotka["reference_gradient"]["values"]
    assert list(tighter.values) == lotka["tighter_value_computed_here"]["gradient"]
    assert LotkaVolterra().p.tolist() == lotka["params"]["p"]
    robertson = published_file["gradient_robertson_sundials"]
    assert list(ROBERTSON_GRADIENT[0].values) == robertson["reference_gradient"]["values"]
    assert list(ROBERTSON_GRADIENT[1].values) == robertson["tighter_value_computed_here"]["gradient"]
    assert Robertson().p.tolist() == robertson["params"]["p"]
    found, better = hessian["reference_gradient"], hessian["tighter_value_computed_here"]
    assert list(HESSIAN_VALUES["end"][0].values) == hessian["reference_end_values"]
    assert list(HESSIAN_VALUES["gradient"][0].values) == found["values"]
    assert list(HESSIAN_VALUES["hessian"][0].values) == [x for row in found["hessian"] for x in row]
    # The file gives eight decimals, of the Hessian by central differences: one unit, 1e-8, is left to them.
    assert list(HESSIAN_VALUES["gradient"][1].values) == pytest.approx(better["gradient"], rel=0, abs=5e-9)
    assert list(HESSIAN_VALUES["hessian"][1].values) == pytest.approx(
        [x for row in better["hessian"] for x in row], rel=0, abs=1e-8
    )
    assert HESSIAN_VALUES["integral"][0].values[0] == pytest.approx(better["G"], rel=1e-14)


def test_every_number_has_a_source_and_every_problem_of_detest_is_there():
    assert set(VALUES) == {
        *(name for name in CATALOGUE if name.startswith("detest-")),
        *("arenstorf", "arenstorf-short", "pleiades"),
    }
    assert all(value.source and value.uncertainty < 1e-6 for value in VALUES.values())


# The bounds


def test_the_condition_of_a_decay_is_its_closed_integral():
    """y' = −y to T = 20: ω = 1, w = 1e-3, κ w = ∫ e^(t − T) (e^(−t) + w) dt = T e^(−T) + w (1 − e^(−T))."""
    found = condition_number(VALUES["detest-a1"].problem, 1)
    assert found == pytest.approx(1 - math.exp(-20) + 2e4 * math.exp(-20), rel=1e-3)


def test_the_condition_does_not_change_with_the_unit_of_time():
    problem = VALUES["detest-b5"].problem.until(3.0)
    slow = Problem("slow", lambda t, y: problem.f(t, y) / 60, problem.y0, (0.0, 180.0))
    assert condition_number(slow, 3) == pytest.approx(condition_number(problem, 3), rel=1e-2)


def test_the_condition_counts_the_components_that_are_published():
    problem = VALUES["detest-b3"].problem  # the first component decays, whatever the others do
    assert condition_number(problem, 1) < 1
    assert condition_number(problem, 3) > 10


@pytest.mark.parametrize(
    ("method", "factor"),
    [
        ("adaptive_heun", 1.0),  # (1/6) / (1/2)
        ("fehlberg2", float((Fraction(1, 6) - Fraction(255, 512 * 512)) * 512)),
        ("bosh3", 2.0),  # (1/24) / (1/48)
        ("dopri5", 1.0),  # (1/720 − 1/600) / (97/120000) is a third
        ("dop853", 1.0),
        ("dopri8", 1.0),
        ("tsit5", 1.0),
    ],
)
def test_the_factor_of_a_method_is_its_error_over_its_estimate_on_the_linear_equation(method, factor):
    assert method_factor(METHODS[method]) == pytest.approx(factor, rel=1e-12)


def test_a_method_that_propagates_its_lower_order_has_no_such_bound():
    """Euler's solution with Heun's for its estimate: its error is the estimate's, step by step."""
    heun = METHODS["adaptive_heun"]
    lower = dataclasses.replace(heun, b=heun.b_hat, b_hat=heun.b, order=1, order_hat=1)
    with pytest.raises(ValueError, match=r"its estimate is of h\^2, its order 1"):
        method_factor(lower)


def test_the_bound_of_dop853_at_1e_12_is_nine_digits_and_five_on_arenstorfs_orbits():
    for name, promised in (("detest-d3", 1e-9), ("arenstorf", 1e-5)):
        assert bound_of(VALUES[name], METHODS["dop853"], 1e-12, 1e9)[0] == promised
        assert bound_of(VALUES[name], METHODS["dopri8"], 1e-12, 1e9)[0] > 1e-3
    assert bound_of(VALUES["detest-a4"], METHODS["dop853"], 1e-12, 0.8)[0] < 1e-11


def test_an_error_is_relative_down_to_a_thousandth_and_nan_is_the_worst():
    assert error_of([1.1, 2e-6], [1.0, 1e-6]) == pytest.approx(0.1)
    assert error_of([1.0, 2e-3], [1.0, 1e-3]) == pytest.approx(1.0)
    assert math.isnan(error_of([math.nan, 5.0], [1.0, 1.0]))
    assert math.isnan(error_of([5.0, math.nan], [1.0, 1.0]))


# The suite


def test_methods_reach_published_values_within_the_bounds_of_the_problems():
    report = quick_report()
    assert report.ok, text_tables(report)
    assert len(report.rows) == len(QUICK) * 7


def test_a_gradient_reaches_the_published_one_and_the_hessian_does_through_the_steps():
    found, nfe = gradients.lotka_volterra(Discrete(), "shared")
    printed, tighter = (error_of(found, expected.values) for expected in LOTKA_VOLTERRA_GRADIENT)
    assert printed < 1e-6
    assert tighter < 1e-8
    assert nfe > 1000
    report = verify_published(("cvodes-hessian",), ())
    assert report.ok, text_tables(report)
    assert {row.problem for row in report.rows} == {f"cvodes-{part}" for part in HESSIAN_VALUES}


@pytest.mark.slow
def test_the_whole_suite_holds():
    report = verify_published()
    assert report.ok, text_tables(report)


# What it sees


def test_a_wrong_ninth_digit_in_a_right_hand_side_is_seen():
    value = VALUES["detest-a2"]
    wrong = dataclasses.replace(value.problem, f=lambda t, y: -(y**3) / 2.00000001)
    assert missed(dataclasses.replace(value, problem=wrong), "dop853") == {("dop853", 1e-12)}
    assert not missed(value, "dop853")


def plant(monkeypatch, method: str, **change) -> None:
    """The method with other numbers; its bound remains that of the right ones."""
    factor = method_factor(METHODS[method])
    monkeypatch.setitem(METHODS, method, dataclasses.replace(METHODS[method], **change))
    monkeypatch.setattr("adamode.verify.published.bounds.method_factor", lambda tableau: factor)


@pytest.mark.parametrize(("method", "digit"), [("dopri5", 4), ("tsit5", 5), ("dop853", 6)])
def test_a_wrong_digit_in_a_stage_is_seen(method, digit, monkeypatch):
    """Two entries are wrong and still sum to c, as a tableau demands: only conditions of order 3 fail."""
    tableau, change = METHODS[method], Fraction(1, 10**digit)
    stage = max(i for i, weight in enumerate(tableau.b) if weight)
    row = list(tableau.a[stage])
    row[0], row[-1] = row[0] + change, row[-1] - change
    plant(monkeypatch, method, a=(*tableau.a[:stage], tuple(row), *tableau.a[stage + 1 :]))
    assert missed(VALUES["detest-a2"], method)


def test_a_wrong_second_digit_in_the_weights_of_a_low_order_is_seen(monkeypatch):
    b, change = METHODS["bosh3"].b, Fraction(1, 100)
    plant(monkeypatch, "bosh3", b=(b[0] + change, b[1], b[2] - change, b[3]))
    assert missed(VALUES["detest-a2"], "bosh3")


def test_a_wrong_digit_in_a_published_value_is_seen():
    value = VALUES["detest-e4"]
    spoilt = dataclasses.replace(value, values=(value.values[0] + 1e-8, value.values[1]))
    assert missed(spoilt, "dop853") == {("dop853", 1e-12)}
    assert not missed(value, "dop853")


def test_a_gradient_that_is_not_as_accurate_as_promised_is_seen(monkeypatch):
    monkeypatch.setattr(gradients, "RTOL", 1e-7)
    monkeypatch.setattr(gradients, "ATOL", 1e-7)
    monkeypatch.setattr(gradients, "ADJOINTS", {"discrete": Discrete()})
    monkeypatch.setattr(gradients, "STEPPINGS", ("per_sample",))
    report = verify_published(("lotka-volterra-gradient",), ())
    assert (1e-8, "discrete, per_sample") in {(row.bound, row.gradient) for row in report.failures}


def test_the_gradient_of_robertsons_problem_holds_and_a_wrong_one_of_any_size_is_seen(monkeypatch):
    monkeypatch.setattr(gradients, "ADJOINTS", {"discrete": Discrete(), "backsolve": Backsolve()})
    rows = list(gradients.robertson_rows("kvaerno5", "shared", "cpu"))
    assert [row.gradient for row in rows] == ["kvaerno5, discrete, shared"] * 2
    assert all(row.ok and row.method == "kvaerno5" for row in rows)
    for i in range(3):
        off = torch.ones(3, dtype=torch.float64)
        off[i] += 2e-5
        wrong = off * torch.tensor(ROBERTSON_GRADIENT[1].values, dtype=torch.float64)
        monkeypatch.setattr(gradients, "robertson", lambda *arguments, wrong=wrong: (wrong, 1))
        rows = list(gradients.robertson_rows("radau5", "shared", "cpu"))
        assert {row.bound for row in rows if not row.ok} == {1e-5}


def test_a_solve_that_cannot_go_on_is_a_failed_row_with_its_reason():
    value = EndValue(CATALOGUE["blow-up"].until(1.5), (math.tan(1.5),), 0.0, "tan")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solves, "MAX_STEPS", 3)
        (row, _) = solves.rows_of(value, ("dopri5",))
    assert not row.ok
    assert row.as_dict()["error"] is None
    assert "MAX_STEPS" in row.failure
    assert "MAX_STEPS" in text_tables(PublishedReport((row,)))


# What it says


def test_a_report_survives_json():
    report = quick_report()
    failed = dataclasses.replace(report.rows[0], error=math.inf, failure="stopped")
    both = PublishedReport((*report.rows, failed))
    assert PublishedReport.from_dict(json.loads(json.dumps(both.as_dict(), allow_nan=False))) == both


def test_an_unknown_problem_or_method_offers_the_nearest():
    with pytest.raises(ArgumentError, match="did you mean 'detest-a1'"):
        verify_published(("detest-a11",))
    with pytest.raises(ArgumentError, match="'rk4' is not known"):
        verify_published(("detest-a1",), ("rk4",))


def command(*arguments: str):
    return CliRunner().invoke(app, ["verify", "--suite", *arguments])


def test_the_command_writes_rows_as_json_and_a_table_else(monkeypatch):
    monkeypatch.setattr(suite, "verify_published", lambda **options: quick_report())
    result = command("published", "--json", "-")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["ok"] is True
    assert {"problem", "method", "rtol", "error", "bound", "nfe", "ok"} <= set(found["rows"][0])
    text = command("published").stdout
    assert "rtol 1e-12" in text
    assert conclusion(quick_report()) in text
    assert command("published", "--quiet").stdout.strip() == conclusion(quick_report())


def test_the_command_fails_where_a_row_misses_its_bound(monkeypatch):
    row = dataclasses.replace(quick_report().rows[0], error=1.0)
    monkeypatch.setattr(suite, "verify_published", lambda **options: PublishedReport((row,)))
    result = command("published")
    assert result.exit_code == 1
    assert "1 of 1 comparisons" in result.stdout
    assert f"FAILS: {row.problem}, {row.method}" in result.stdout


@pytest.mark.parametrize("arguments", [("stif",), ("published", "--model", "node"), ("published", "--full")])
def test_the_command_refuses_an_unknown_suite_and_the_options_of_the_gradients(arguments):
    result = command(*arguments)
    assert result.exit_code == 2
    assert ("published" if arguments == ("stif",) else arguments[1]) in result.stderr


# docs/accuracy.md


def stated_tables() -> dict[str, list[list[str]]]:
    """Heading → rows of its table, of the page's section."""
    found: dict[str, list[list[str]]] = {}
    for line in DOCS.read_text(encoding="utf-8").partition("## Published values")[2].splitlines():
        if line.startswith("### "):
            rows = found.setdefault(line.removeprefix("### "), [])
        elif line.startswith("|") and not line.startswith("|---"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def test_the_section_of_the_page_is_as_the_generator_writes_it():
    text, begin = DOCS.read_text(encoding="utf-8"), page.PUBLISHED.partition("\n\n")[0]
    assert page.PUBLISHED in text
    again = page.with_published(text, quick_report())
    assert again.startswith(text.partition(begin)[0])
    assert again.endswith(markdown_tables(quick_report()).rstrip("\n") + "\n")
    assert again.count(begin) == 1


def test_every_error_on_the_page_is_within_the_bound_that_it_states():
    tables = stated_tables()
    assert list(tables) == ["Order 2 and 3", "Order 4 to 6", "Order 7 and 8", "Gradients"]
    *ends, quantities = tables.values()
    for head, factors, *rows in ends:
        assert [row[0] for row in rows] == list(VALUES)
        for name, condition, *errors, share in rows:
            assert float(share) < 1
            for column, factor, error in zip(head[2:-1], factors[2:-1], errors, strict=True):
                rtol = float(column.split()[1])
                allowed = float(factor) * float(condition) * rtol + VALUES[name].uncertainty
                assert float(error) < 1.05 * allowed, (name, column)  # κ has two digits
    assert {row[4] for row in quantities[1:]} == {"ok"}
    assert all(float(row[2]) <= float(row[3]) for row in quantities[1:])


def test_the_page_has_a_column_for_every_method_and_tolerance():
    heads = [cell for table in stated_tables().values() for cell in table[0]]
    assert {f"`{m}` {rtol:.0e}" for m in solves.ADAPTIVE for rtol in solves.tolerances(m)} <= set(heads)


GROUP = {"bosh3": "Order 2 and 3", "dopri5": "Order 4 to 6", "dop853": "Order 7 and 8"}


def test_the_page_says_what_is_measured():
    tables, compared = stated_tables(), 0
    for row in quick_report().rows:
        table = tables[GROUP[row.method]]
        column = table[0].index(f"`{row.method}` {row.rtol:.0e}")
        stated = next(line for line in table if line[0] == row.problem)
        assert float(stated[1]) == pytest.approx(row.condition, rel=0.06)  # two digits
        if row.error > 1e-11:  # below, rounding differs from one machine to another
            assert float(stated[column]) == pytest.approx(row.error, rel=0.2)
            compared += 1
    assert compared > 0.7 * len(quick_report().rows)
