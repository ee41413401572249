"""Backsolve on AdamODE hands out a right gradient or an error, never a wrong number."""

from __future__ import annotations

import pytest
from benchmark_package import benchmark_module

from adamode import Backsolve

guard = benchmark_module("adjoints", "guard")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_where_the_state_can_be_rebuilt_the_gradient_is_right(seed):
    found = guard.try_case(seed)
    assert found.finite
    assert found.error < 1e-5
    assert not found.wrong


@pytest.mark.parametrize("seed", [13, 45, 51])
def test_where_it_is_lost_and_no_state_was_kept_to_start_again_from_it_is_an_error(seed):
    found = guard.try_case(seed, Backsolve(anchors=0))
    assert found.error is None
    assert found.text.startswith("ReconstructionError: backsolve: solved backwards to t=0")
    assert "gradient=adamode.Discrete()" in found.text


def test_without_the_guard_these_gradients_would_have_been_wrong():
    """A negative control: the cases are ones that need guarding."""
    unguarded = guard.try_case(13, Backsolve(anchors=0, reconstruction_limit=float("inf")))
    assert unguarded.wrong


@pytest.mark.slow
def test_of_a_hundred_random_cases_none_is_wrong_without_an_error():
    found = guard.study()
    assert [one for one in found if one.wrong] == []
    easy = found[: guard.HARD]
    assert sum(one.error is not None for one in easy) >= 45
    assert any(one.error is None for one in found[guard.HARD :])  # a case in which the guard speaks
    assert all("gradient=adamode.Discrete()" in one.text for one in found if one.error is None)
