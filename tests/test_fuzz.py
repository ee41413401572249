"""Some hundred fuzzed cases, and whether the fuzzer's own answers are right and its bounds see faults."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch
from fuzz import judge as judging
from fuzz.alphabet import Case, consistent, draw
from fuzz.flows import FLOWS
from fuzz.forms import STATES, from_sample, from_state, to_state
from fuzz.numbers import numbers_of
from fuzz.zeros import Zero, moving_time, zeros_of
from references import reference_solution

import adamode
from adamode import solve

SEED, CHUNKS, EACH = 20261129, 10, 20  # 200 cases, 21 CPU seconds


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_fuzzed_case_is_right_or_refused_as_listed(chunk):
    judged(range(chunk * EACH, (chunk + 1) * EACH))


def test_fuzzed_whole_solves_are_right_and_those_of_eager_steps():
    tried = judged(range(1000, 1000 + EACH), "whole")
    assert tried.count("made") >= EACH / 2  # else the net has a hole


def judged(numbers, compiled=None):
    """What came of whole solves in these cases, none of which may be wrong."""
    failed, tried = [], []
    for number in numbers:
        verdict = judging.judge(draw(SEED, number, compiled))
        tried.append(verdict.tried)
        if not verdict.fine:
            command = f"python -m tests.fuzz --seed {SEED} --case {number}"
            command += "" if compiled is None else f" --compiled {compiled}"
            failed.append(f"{command}: {verdict.kind}: {verdict.what}")
    assert not failed, "\n".join(failed)
    return tried


# The exact answers themselves


@pytest.mark.parametrize("name", FLOWS)
def test_the_exact_flow_is_scipys(name):
    """DOP853 at 1e-13: its own error is some 1e-12 here."""
    flow = FLOWS[name]
    y0, theta = flow.draw(torch.Generator().manual_seed(1), 2, flow.only_width or 3)
    times = [-0.2, 0.55, 1.3]  # a restart at the jump
    s = torch.tensor(times, dtype=torch.float64)
    exact = flow.exact(s[:, None, None].expand(-1, 2, 1), s[:1, None].expand(2, 1), y0, theta)
    found = reference_solution(lambda t, y: flow.rhs(t, y, theta), y0, times)
    assert float((exact - found).abs().max()) <= 3e-11


@pytest.mark.parametrize("form", STATES)
def test_a_state_comes_back_from_every_form(form):
    y = torch.randn(3, 1 if form == "0d" else 2, STATES[form])
    assert torch.equal(from_state(form, to_state(form, y)), y)
    if form != "0d":
        one = torch.utils._pytree.tree_map(
            lambda leaf: leaf.select(2 if form == "blocks" else 1, 1), to_state(form, y)
        )
        assert torch.equal(from_sample(form, one), y[:, 1])


def test_the_exact_event_moves_as_finite_differences_of_it_say():
    flow, level = FLOWS["ball"], torch.tensor(0.2, dtype=torch.float64)
    y0, theta = flow.draw(torch.Generator().manual_seed(2), 1, 2)
    start, end = torch.zeros(1).double(), torch.ones(1).double()
    zero = Zero("level", True, 0, 1.0, 0.0, True)

    def when(g):
        rows = zeros_of(zero, flow, start, end, y0, (g,), level)
        return rows[0][0][0]

    leaves = (start, y0, level, theta[0].requires_grad_())
    t, _ = moving_time(zero, flow, when(theta[0].detach()), 0, leaves)
    (slope,) = torch.autograd.grad(t, theta[0])
    step = 1e-5
    found = (when(theta[0].detach() + step) - when(theta[0].detach() - step)) / (2 * step)
    assert abs(float(slope) - found) <= 1e-8


def test_a_seed_draws_the_same_cases_and_they_stand_together():
    cases = [draw(3, number) for number in range(300)]
    assert cases == [draw(3, number) for number in range(300)]
    assert [case for case in cases if consistent(case) != case] == []
    for name in ("flow", "face", "method", "stepping", "gradient", "state", "func", "times", "event"):
        assert len({getattr(case, name) for case in cases}) >= 2, name
    a, b = numbers_of(cases[0]), numbers_of(cases[0])
    assert torch.equal(a.y0, b.y0)
    assert torch.equal(a.t, b.t)


# What it is for: planted faults


def spoilt(monkeypatch, change):
    """`adamode.solve` with its solution changed."""

    def changed(*arguments, **options):
        return change(solve(*arguments, **options))

    monkeypatch.setattr(adamode, "solve", changed)


class Scaled(torch.autograd.Function):
    """The identity, whose gradient is nine per cent too large."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return 1.09 * g


PLAIN = Case(0, 1, flow="wave")
PLANTED = {
    "a value": (PLAIN, lambda sol: dataclasses.replace(sol, y=sol.y + 1e-4), "y is"),
    "a gradient": (PLAIN, lambda sol: dataclasses.replace(sol, y=Scaled.apply(sol.y)), "dL/d"),
    "a gradient of fixed steps": (
        dataclasses.replace(PLAIN, method="rk4", dt=1.0),
        lambda sol: dataclasses.replace(sol, y=Scaled.apply(sol.y)),
        "own slope|dL/d",
    ),
    "NaN without a reason": (PLAIN, lambda sol: dataclasses.replace(sol, y=sol.y * torch.nan), "y is NaN"),
    "an event's time": (
        dataclasses.replace(PLAIN, event="level"),
        lambda sol: dataclasses.replace(sol, t_events=[sol.t_events[0] + 1e-4]),
        "te0 is",
    ),
    "an event that is missed": (
        dataclasses.replace(PLAIN, event="level"),
        lambda sol: dataclasses.replace(sol, t_events=[sol.t_events[0][:0]]),
        "te0 has shape",
    ),
    "a graph that nobody asked for": (
        consistent(dataclasses.replace(PLAIN, gradient="none")),
        lambda sol: dataclasses.replace(sol, y=sol.y.requires_grad_()),
        "requires a gradient",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_seen(name, monkeypatch):
    case, change, says = PLANTED[name]
    assert judging.judge(case).fine
    spoilt(monkeypatch, change)
    verdict = judging.judge(case)
    assert verdict.kind == "wrong"
    assert re.search(says, verdict.what)


def test_an_error_from_inside_and_a_solve_that_runs_away_are_seen(monkeypatch):
    def broken(sol):
        raise IndexError("from inside")

    spoilt(monkeypatch, broken)
    assert judging.judge(PLAIN).kind == "crashed"
    monkeypatch.setattr(adamode, "solve", solve)
    monkeypatch.setattr("fuzz.forms.MOST_CALLS", 20)
    assert judging.judge(PLAIN).kind == "crashed"


def test_a_solve_that_is_never_freed_is_seen(monkeypatch):
    held = []
    spoilt(monkeypatch, lambda sol: held.append(sol) or sol)
    verdict = judging.judge(dataclasses.replace(PLAIN, dense=True))
    assert verdict.what == "the solve is never freed"


def test_what_must_be_refused_and_is_not_is_wrong(monkeypatch):
    case = dataclasses.replace(PLAIN, func="in_place")
    assert judging.judge(case).kind == "refused"
    monkeypatch.setattr("fuzz.perform.make_func", lambda field: lambda t, y: field.rate(t, y))
    assert judging.judge(case).kind == "wrong"
