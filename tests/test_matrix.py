"""Every combination of stepping, gradient, state, direction and options is right, or refused as listed."""

from __future__ import annotations

import itertools

import pytest
from matrix.cases import BY_PROGRAMS, CELLS, GRADIENTS, GROUPS, OPTIONS, STEPPINGS
from matrix.check import run
from matrix.page import written
from matrix.refusals import REFUSALS, judge, table
from matrix.walk import blocks, compiled, faults, implicit, pairs_of, wanted_pairs

from adamode.solvers.march import switching

EACH = list(itertools.product(STEPPINGS, GRADIENTS))
GROUPED = [(GROUPS, name) for name in ("None", "Discrete()", "Backsolve()")]  # all: python -m tests.matrix


@pytest.mark.parametrize(("stepping", "gradient"), EACH + GROUPED)
def test_every_combination_is_the_closed_solution_or_refused_as_listed(stepping, gradient):
    found = faults(blocks(stepping, gradient))
    assert not found, "\n  ".join(["", *found])


@pytest.mark.parametrize(("stepping", "gradient"), EACH + GROUPED)
def test_a_drawn_part_is_the_same_by_whole_solve_programs(stepping, gradient):
    cases, whole = compiled(stepping, gradient), []
    found = faults(cases, whole=whole)
    assert not found, "\n  ".join(["", *found])
    there = gradient in BY_PROGRAMS.get(stepping, ())
    assert 3 * len(whole) >= len(cases) if there else not whole, (len(whole), len(cases))


@pytest.mark.parametrize("stepping", [*STEPPINGS, GROUPS])
@pytest.mark.parametrize("gradient", ["Discrete()", "Interpolating()"])
def test_a_drawn_part_is_the_same_by_implicit_steps(stepping, gradient, monkeypatch):
    """The method that changes does so at every second step here."""
    for name, value in {"STIFF": -1.0, "EASY": 1e9, "TO_IMPLICIT": 2, "TO_EXPLICIT": 2}.items():
        monkeypatch.setattr(switching, name, value)
    cases = implicit(stepping, gradient)
    found = faults(cases)
    assert not found, "\n  ".join(["", *found])
    assert len(cases) == 5


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.words[:40])
def test_every_listed_refusal_refuses(refusal):
    wrong = [f"{case}: {told}" for case in refusal.cases() if (told := judge(case, run(case)))]
    assert not wrong, "\n  ".join(["", *wrong])


@pytest.mark.parametrize(("stepping", "gradient"), EACH)
def test_the_walk_has_every_option_in_every_cell_and_every_pair(stepping, gradient):
    cases = list(blocks(stepping, gradient))
    for cell in CELLS:
        mine = [case.options for case in cases if (case.state, case.backwards) == cell]
        assert {frozenset(), frozenset({"twice"})} & set(mine)
        assert set().union(*mine) == set(OPTIONS)
    met = set().union(*(pairs_of(case.options) for case in cases))
    assert [sorted(pair) for pair in wanted_pairs(stepping, gradient) - met] == []


def test_the_pages_table_is_the_tests():
    assert written() == table(), "python -m tests.matrix --write"
