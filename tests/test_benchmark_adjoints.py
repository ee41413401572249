"""The adjoint study: its arithmetic, its meter, and a small part of it."""

from __future__ import annotations

import pytest
import torch
from benchmark_package import FOLDER, benchmark_module

from adamode import Backsolve, Discrete, solve
from adamode.adjoint.discrete.again import Again
from adamode.memory import LiveStorage

cases, cost, growth, meter = (
    benchmark_module("adjoints", name) for name in ("cases", "cost", "growth", "meter")
)
page, slopes, tables, ways = (
    benchmark_module("adjoints", name) for name in ("page", "slopes", "tables", "ways")
)


def test_the_meter_counts_what_is_alive_once_and_forgets_what_is_freed():
    before = torch.zeros(1000, dtype=torch.float64)
    with LiveStorage() as found:
        a = torch.ones(100, dtype=torch.float64)
        view = a[10:]
        before.view(10, 100)
        assert found.now == 800
        del a
        assert found.now == 800  # the view holds it
        del view
        assert found.now == 0
    assert found.peak == 800


def test_the_meter_sees_what_only_autograds_graph_holds():
    x = torch.ones(100, dtype=torch.float64, requires_grad=True)
    with LiveStorage() as found:
        y = x.exp().exp().sum()  # each exp keeps its result
        assert found.now == 2 * 800 + 8
        y.backward()
        assert found.now == 8 + 800  # y, and x.grad


def test_an_errors_worst_entry_is_relative_to_the_largest():
    right = [torch.tensor([1.0, 4.0]), torch.tensor([0.5])]
    assert cases.error([torch.tensor([1.2, 4.0]), torch.tensor([0.6])], right) == pytest.approx(0.2, rel=1e-6)


def test_a_slope_leaves_out_where_an_error_was_raised():
    tolerances = [1e-2, 1e-3, 1e-4]
    assert slopes.Line([3e-2, float("nan"), 3e-4]).slope(tolerances) == pytest.approx(1.0)


def test_an_exponent_of_memory_is_the_lines_slope():
    assert growth.exponent([10, 100, 1000], [5, 50, 500]) == pytest.approx(1.0)
    assert growth.exponent([10, 100, 1000], [7, 7, 7]) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", cases.MODELS)
def test_every_way_finds_the_reference_gradient(name):
    case = cases.make(name, batch=2, dim=2, hidden=(4,), end=0.5)
    right = cases.reference(case)
    for way in ways.ways(9):
        assert cases.error(way.gradient(case, 1e-7), right) < 1e-3, way.name


def test_a_comparison_has_a_number_in_every_cell():
    case = cases.make("NODE", batch=2, dim=2, hidden=(4,), end=0.5)
    found = cost.compare(case, cases.reference(case), 1e-4, rounds=1)
    assert len(found) == len(ways.ways(9))
    assert found[ways.DISCRETE].ratio == 1.0
    assert all(one.peak >= one.kept > 0 and not one.failed for one in found.values())
    assert tables.cells({("NODE", 1e-4): found}, "NODE", [1e-4]).count("\n") == 2 + len(found)


def test_a_way_that_raises_is_a_cell_that_says_so(monkeypatch):
    case = cases.make("NODE", batch=2, dim=2, hidden=(4,), end=0.5)
    works = ways.Way("works", ways.ours(Discrete()))
    raises = ways.Way("raises", ways.ours(Backsolve(reconstruction_limit=1e-9, anchors=0)))
    monkeypatch.setattr(cost, "ways", lambda n: [works, raises])
    found = cost.compare(case, cases.reference(case), 1e-4, rounds=1)
    assert found["raises"].failed.startswith("ReconstructionError")
    assert "| error | – | – |" in tables.cells({("NODE", 1e-4): found}, "NODE", [1e-4])


def test_checkpoints_keep_as_many_states_as_asked_for():
    case = cases.make("AdamNODE", batch=32, dim=8, hidden=(4,), end=1.0)
    state = growth.state_bytes(case)
    for choice, most in ((Discrete(checkpoints=4), 4), (Discrete(checkpoints=8), 8)):
        kept, _ = meter.memory(ways.Way("", ways.ours(choice, dt=1 / 48)), case, 0.0)
        assert kept <= (most + 1) * state + 1000  # the end too, and a few scalars
    kept, _ = meter.memory(ways.Way("", ways.ours(Discrete(keep="state"), dt=1 / 48)), case, 0.0)
    assert kept > 45 * state  # the negative control


def test_tables_go_between_their_markers_and_nowhere_else(tmp_path):
    target = tmp_path / "page.md"
    target.write_text("words\n<!-- a -->\nold\n<!-- /a -->\nmore words\n", encoding="utf-8")
    page.write(target, {"a": "| new |"})
    expected = "words\n<!-- a -->\n\n| new |\n\n<!-- /a -->\nmore words\n"
    assert target.read_text(encoding="utf-8") == expected
    with pytest.raises(page.PageError, match="<!-- b -->"):
        page.write(target, {"b": ""})
    assert target.read_text(encoding="utf-8") == expected


def test_the_same_command_writes_every_table_of_the_page():
    text = (FOLDER.parent / "docs" / "adjoints.md").read_text(encoding="utf-8")
    for name in ("machine", "summary", "cost", "wide", "slopes", "memory", "retaken", "batches", "guard"):
        text = page.insert(text, name, "")  # raises where a marker is missing
    assert "python -m benchmarks.adjoints" in text


@pytest.mark.parametrize("checkpoints", [2, 4, 7])
def test_steps_taken_again_are_counted_as_the_backward_pass_takes_them(checkpoints, monkeypatch):
    taken, again = [], Again.steps
    monkeypatch.setattr(
        Again, "steps", lambda self, y, steps: taken.append(len(steps)) or again(self, y, steps)
    )
    case = cases.make("NODE", batch=2, dim=2, hidden=(4,), end=1.0)
    z0 = case.z0.clone().requires_grad_()
    sol = solve(
        case.dynamics, z0, case.t, method="euler", dt=1 / 20, gradient=Discrete(checkpoints=checkpoints)
    )
    sol.y[-1].sum().backward()
    assert sum(taken) / 20 == growth.retaken(20, checkpoints) > 0
