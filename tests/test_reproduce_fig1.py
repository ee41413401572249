"""Fig. 1: its flows against closed solutions, scipy and the models; its times, counts and verdicts; a run."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from adamode.models.dynamics import AdamODE, HeavyBallODE
from adamode.plotting import save_figure
from adamode.reproduce.fig1 import FIGURE, SETTINGS, compute
from adamode.reproduce.fig1.checks import (
    QUADRATIC,
    by_scipy,
    foretold_rate,
    largest_differences,
    smallest_curvature,
    tail_rates,
)
from adamode.reproduce.fig1.descent import (
    FUNCTIONS,
    GRADIENT_FLOW,
    Descent,
    Precision,
    adam,
    costs,
    escape_times,
    first_time,
    heavy_ball,
    right_side,
    settled_time,
    travel,
)
from adamode.reproduce.fig1.settings import CIFAR, HBNODE, UNIT
from adamode.reproduce.fig1.table import closer, faster, judge, verdict
from adamode.reproduce.machinery.figure import FAILS, HOLDS, IN_PART, UNTOLD, Outcome
from adamode.reproduce.machinery.work import Allowed, Work

D = torch.float64
HOW = Precision(1e-8, 2_000)
BOTH = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=list(FUNCTIONS))


def times(end, n=101):
    return torch.linspace(0.0, end, n, dtype=D)


# The functions


@BOTH
def test_gradients_are_those_of_autograd_and_the_published_minimum_is_one(function):
    x = torch.randn(50, 2, dtype=D, requires_grad=True)
    (expected,) = torch.autograd.grad(function.value(x).sum(), x)
    torch.testing.assert_close(function.gradient(x.detach()), expected, rtol=1e-12, atol=1e-12)
    minimum = torch.tensor(function.minimum, dtype=D)
    assert function.value(minimum) == 0
    assert function.gradient(minimum).abs().max() == 0
    assert smallest_curvature(function) > 0


# The flows


def field(function, sign):
    class Gradient(torch.nn.Module):
        def forward(self, t, x):
            return sign * function.gradient(x)

    return Gradient()


@BOTH
def test_hbode_and_adamode_are_the_equations_of_the_models_with_f_the_gradient(function):
    z = torch.randn(4, 7, dtype=D)
    z[:, 4:6] = z[:, 4:6].square() + 0.1
    blocks = z[:, :6].reshape(4, 3, 2).transpose(0, 1)
    ball = HeavyBallODE(field(function, 1.0), gamma=0.3).double()
    adamode = AdamODE(field(function, -1.0), alpha=0.4, beta=0.3, eps=0.01, denominator="exact").double()
    t = torch.zeros((), dtype=D)
    ours = right_side(function.gradient, [heavy_ball(0.3)] * 4)(t, torch.cat((z[:, :4], 0 * z[:, 4:]), 1))
    theirs = ball.forward(t, blocks[:2])[0]
    torch.testing.assert_close(ours[:, :4].reshape(4, 2, 2).transpose(0, 1), theirs)
    ours = right_side(function.gradient, [adam(0.6, 0.7, 0.01)] * 4)(t, z)
    torch.testing.assert_close(ours[:, :6].reshape(4, 3, 2).transpose(0, 1), adamode.forward(t, blocks)[0])
    torch.testing.assert_close(ours[:, 6], ours[:, :2].norm(dim=1))


def test_on_a_quadratic_gradient_flow_and_hbode_are_the_closed_solutions():
    gamma, end = 0.3, 6.0
    found = travel(
        QUADRATIC,
        [Descent(GRADIENT_FLOW, (3.0, 4.0)), Descent(heavy_ball(gamma), (3.0, 4.0))],
        times(end),
        HOW,
    )
    t = found.t
    decay = torch.exp(-0.4 * t)
    omega = math.sqrt(0.4 - gamma**2 / 4)
    swing = torch.exp(-gamma / 2 * t) * (torch.cos(omega * t) + gamma / (2 * omega) * torch.sin(omega * t))
    x = torch.tensor([3.0, 4.0], dtype=D)
    assert (found.z[:, 0, :2] - decay[:, None] * x).abs().max() < 1e-6
    assert (found.z[:, 1, :2] - swing[:, None] * x).abs().max() < 1e-6
    torch.testing.assert_close(found.path[:, 0], 5 * (1 - decay), rtol=0, atol=1e-5)
    assert found.status == ["success", "success"]


@BOTH
def test_flows_agree_with_scipy(function):
    flows = {"gradient-flow": GRADIENT_FLOW, "hbode": heavy_ball(1.0), "adamode": adam(CIFAR, CIFAR, 1e-8)}
    start = SETTINGS["sample"].starts(function.name)[0]
    found = largest_differences(function, flows, [start], 0.5, HOW, 1e-10)
    assert max(found.values()) < 1e-5  # measured 4e-7
    wrong = by_scipy(function, Descent(heavy_ball(1.05), start), times(0.5, 5).numpy(), 1e-8)
    right = by_scipy(function, Descent(heavy_ball(1.0), start), times(0.5, 5).numpy(), 1e-8)
    assert abs(wrong - right).max() > 1e-3  # a rate that is off would be seen


@BOTH
def test_eq_2_as_printed_climbs_and_repaired_it_does_not(function):
    start = SETTINGS["sample"].starts(function.name)[0]
    printed, repaired = (Descent(heavy_ball(HBNODE, as_printed=p), start) for p in (True, False))
    gone, stays = escape_times(function, [printed, repaired], 1000.0, 0.5, HOW)
    assert 0.01 < gone < 0.5
    assert stays is None
    soon = travel(function, [printed, repaired], times(0.02, 6), HOW)
    value = function.value(soon.z[..., :2])
    assert (value[1:, 0] > value[:-1, 0]).all()
    assert (value[1:, 1] < value[:-1, 1]).all()


def energy(function, found, rate_m, eps):
    x, m, v = found.z[:, 0, 0:2], found.z[:, 0, 2:4], found.z[:, 0, 4:6]
    return function.value(x) + (m.square() / (2 * rate_m * torch.sqrt(v + eps))).sum(1)


@BOTH
def test_the_energy_of_adamode_falls_where_b_is_at_most_4a_and_need_not_beyond(function):
    start, eps = SETTINGS["sample"].starts(function.name)[0], 1e-4
    for rate_m, rate_v, falls in ((0.2, 0.8, True), (CIFAR, CIFAR, True), (0.05, 0.9, False)):
        found = travel(
            function, [Descent(adam(rate_m, rate_v, eps), start)], times(3.0, 121), Precision(1e-7, 2_000)
        )
        e = energy(function, found, rate_m, eps)
        assert found.status == ["success"]
        grows = bool((e[1:] > e[:-1] + 1e-7 * e[0]).any())
        assert grows != falls


def test_the_rate_at_which_adamode_comes_in_is_the_foretold_one():
    assert foretold_rate(1.0, 1.0) == pytest.approx(0.4)
    assert foretold_rate(1.0, 0.4) == pytest.approx(0.45)
    (found,) = tail_rates([(0.95, 0.3)], 12.0, Precision(1e-6, 4_000))
    assert found["measured"] == pytest.approx(found["foretold"], rel=0.05)
    assert abs(found["measured"] - 0.38) > 0.02  # what B ≥ 4A/5 would give


@BOTH
def test_the_second_reading_is_solved_alike_by_a_stiff_method_and_an_explicit_one(function):
    """s = .001 and α = β = .99 are rates of 10; with s = .01 they are those of half-time."""
    settings = SETTINGS["sample"]
    assert settings.unit_rate == 10.0
    assert dataclasses.replace(settings, unit=0.01).unit_rate == 1.0
    flow, start = settings.stiff_groups()[UNIT], settings.starts(function.name)[0]
    assert (flow.c, flow.d, flow.rate_v) == (10.0, 10.0, 10.0)
    found = [
        travel(function, [Descent(flow, start)], times(0.5, 26), Precision(1e-7, 4_000, method))
        for method in ("radau5", "dop853")
    ]
    assert [one.status for one in found] == [["success"]] * 2
    assert (found[0].z[..., :2] - found[1].z[..., :2]).abs().max() < 1e-4
    assert settings.how_stiff.method == "radau5"


# Times, distances, costs


def test_times_to_a_distance_on_a_quadratic():
    found = travel(QUADRATIC, [Descent(GRADIENT_FLOW, (0.6, 0.8))], times(20.0, 401), HOW)
    t, d = found.t.tolist(), found.distance[:, 0].tolist()
    for radius in (0.1, 0.01, 0.001):
        expected = -math.log(radius) / 0.4
        assert first_time(t, d, radius) == pytest.approx(expected, abs=1e-4)
        assert settled_time(t, d, radius) == pytest.approx(expected, abs=1e-4)
    assert first_time(t, d, 1e-6) is None
    assert settled_time(t, d, 1e-6) is None


def test_passing_is_not_staying_and_a_failed_solve_stays_nowhere():
    t, d = [0.0, 1.0, 2.0, 3.0, 4.0], [1.0, 0.01, 1.0, 0.01, 0.001]
    assert first_time(t, d, 0.1) == pytest.approx(0.5)
    assert settled_time(t, d, 0.1) == pytest.approx(2.5)
    assert settled_time(t, [1.0, 0.01, 0.01, 0.01, math.nan], 0.1) is None
    assert first_time(t, [0.05, *d[1:]], 0.1) == 0.0
    assert settled_time(t, [0.05] * 5, 0.1) == 0.0


def test_costs_count_evaluations_step_by_step():
    descents = [Descent(GRADIENT_FLOW, (1.0, 0.0)), Descent(heavy_ball(0.5), (1.0, 0.0))]
    found = costs(QUADRATIC, descents, 10.0, Precision(1e-5, 1_000, "dopri5"))
    for way in found:
        assert way["t"][-1] == 10.0
        assert len({len(column) for column in way.values()}) == 1
        assert way["nfe"][0] == 0
        assert all(b - a >= 6 for a, b in zip(way["nfe"], way["nfe"][1:], strict=False))
    ours = travel(QUADRATIC, descents, times(10.0, 2), Precision(1e-5, 1_000, "dopri5"))
    assert [way["nfe"][-1] for way in found] == ours.nfe
    assert found[0]["distance"][-1] == pytest.approx(math.exp(-4), rel=1e-3)


# Counts and verdicts


def planted(distance, time, n=7):
    late = None if time is None else time + 1
    return [
        {
            "distance": distance,
            "at": [distance] * 4,
            "t_1e-2": time,
            "stays_1e-1": time,
            "stays_1e-2": late,
            "stays_1e-3": late,
            "status": "success" if distance is not None else "max steps",
        }
        for _ in range(n)
    ]


def test_counts_know_ties_and_failures():
    assert closer(planted(1e-3, 1), planted(1e-2, 1)) == 7
    assert closer(planted(1e-8, 1), planted(1e-7, 1)) == 0  # both are there
    assert closer(planted(1e-3, 1), planted(None, None)) == 7
    assert closer(planted(None, None), planted(None, None)) == 0
    assert faster(planted(1e-3, 1), planted(1e-3, 2)) == 7
    assert faster(planted(1e-3, 1), planted(1e-3, None)) == 7
    assert faster(planted(1e-3, None), planted(1e-3, None)) == 0


def outcome(ours, gradient_flow, hbode, damped, unit=None):
    def rows(model, planted_rows):
        return [{"function": f, "model": model, **row} for f in FUNCTIONS for row in planted_rows]

    table = rows("adamode", ours) + rows("gradient-flow", gradient_flow) + rows("hbode", hbode)
    table += rows(UNIT, ours if unit is None else unit)
    return Outcome(table, {"hbode-damped": rows("hbode-damped", damped)})


def test_verdicts_follow_the_counts():
    settings = SETTINGS["sample"]
    ours, better, worse = planted(1e-3, 5), planted(1e-4, 4), planted(1e-2, 6)
    claims = judge(settings, outcome(ours, worse, worse, better))
    assert len(claims) == 16
    assert ["A = B = 10: α = β = 0.99, s = 0.001)." in claim.claim for claim in claims] == [False] * 8 + [
        True
    ] * 8
    readings = judge(settings, outcome(worse, ours, ours, ours, unit=better))
    assert {claim.verdict for claim in readings[:8]} == {FAILS}
    assert {claim.verdict for claim in readings[8:]} == {HOLDS}  # each reading by its own rows
    by = {claim.claim: claim for claim in claims}
    against_flow = [by[name] for name in by if "gradient flow" in name]
    against_ball = [by[name] for name in by if "HBODE" in name]
    assert {claim.verdict for claim in against_flow} == {HOLDS}
    assert {claim.verdict for claim in against_ball} == {IN_PART}  # 7 of 14
    assert "7 of 7 starts at γ = 0.0474, 0 of 7 starts at γ = 1" in against_ball[0].ours
    claims = judge(settings, outcome(ours, better, better, better))
    assert {claim.verdict for claim in claims} == {FAILS}
    mixed = worse[:3] + better[3:]
    assert {c.verdict for c in judge(settings, outcome(ours, mixed, worse, worse))} == {FAILS, HOLDS}
    late, never = planted(1e-3, None), planted(1e-2, None)
    some = judge(settings, outcome(ours[:3] + late[3:], never, never, never))
    fast = [claim for claim in some if "faster" in claim.claim]
    assert {claim.verdict for claim in fast} == {HOLDS}  # the other four tell nothing
    assert "3 against 0 of 7 get there, neither from 4;" in fast[0].why
    none = judge(settings, outcome(late, never, never, never))
    assert {claim.verdict for claim in none if "faster" in claim.claim} == {UNTOLD}
    few = judge(settings, outcome(ours[:2], worse[:2], worse[:2], worse[:2]))
    assert {claim.verdict for claim in few} == {UNTOLD}
    assert [verdict(w, 7, True) for w in (7, 6, 4, 3, 0)] == [HOLDS, IN_PART, IN_PART, FAILS, FAILS]


# A run

TINY = dataclasses.replace(
    SETTINGS["smoke"], end=0.3, outputs=31, rates=(0.5, 10.0), tail_end=0.5, reference_tol=1e-7
)


def test_a_run_is_made_drawn_and_gone_on_with(tmp_path, monkeypatch):
    settings = TINY
    work = Work(tmp_path / "fig1", tmp_path / "runs", "smoke", Allowed(say=lambda line: None))
    work.open("fig1", settings)
    made = compute(settings, work)
    assert {row["model"] for row in made.rows} == {"gradient-flow", "hbode", "adamode", UNIT}
    assert len(made.rows) == 2 * 2 * 4
    rates = [entry for entry in made.variants["rates"] if entry["function"] == "beale"]
    assert [(e["rate_m"], e["rate_v"]) for e in rates] == [
        (a, b) for a in settings.rates for b in settings.rates
    ]
    assert all(entry["nfe"] > 0 for entry in rates)
    first = next(row for row in made.rows if row["model"] == UNIT)
    assert first["nfe_loose"] > 0
    assert any("A = B = 10." in text and "dopri5 needs" in text for text in made.findings)
    assert set(FIGURE.columns) <= set(made.rows[0])
    assert all(row["status"] == "success" and row["nfe"] > 0 for row in made.rows)
    assert {claim.verdict for claim in FIGURE.judge(settings, made)} == {UNTOLD}
    assert any("as printed climbs" in text for text in made.findings)
    for name, picture in FIGURE.pictures.items():
        path = tmp_path / f"{name}.png"
        save_figure(path, lambda figure, draw=picture.draw: draw(figure, settings, made), size=picture.size)
        assert path.stat().st_size > 20_000

    def computed(*_, **__):
        raise AssertionError("a finished part was computed again")

    for name in ("travel", "costs", "escape_times", "largest_differences", "tail_rates"):
        monkeypatch.setattr(f"adamode.reproduce.fig1.{name}", computed)
    assert compute(settings, work) == made


def test_a_descent_that_gives_up_is_a_row_and_a_loss(tmp_path):
    settings = dataclasses.replace(TINY, max_steps=25)
    work = Work(tmp_path / "fig1", tmp_path / "runs", "smoke", Allowed(say=lambda line: None))
    made = compute(settings, work)
    failed = [row for row in made.rows if row["status"] == "max steps"]
    assert failed
    assert all(row["distance"] is None and row["stays_1e-2"] is None for row in failed)
    assert made.variants["reference"]["rosenbrock"]["gradient-flow"] is None
    draw = FIGURE.pictures["fig1"].draw
    save_figure(tmp_path / "x.png", lambda figure: draw(figure, settings, made), size=(9.0, 7.6))
