"""Observed slopes of every method and interpolant, and the table in the docs that states them.

Slopes are those from n to 2n steps of `fixed_steps.field`, in decimals of 40 digits against a closed
solution: neither rounding nor a reference solution enters. The smallest error is 8e-15 (order 8), far
above the 1e-17 of dopri8's own rounded fractions.
"""

import dataclasses
from pathlib import Path

import methods_table
import pytest
from fixed_steps import slope, step_error

from adamode.solvers.methods import METHODS

EVERY = list(METHODS.values())
ADAPTIVE = [m for m in EVERY if m.adaptive]


def tolerance(order: int) -> float:
    return 0.15 if order < 7 else 0.3


@pytest.mark.parametrize("tableau", EVERY, ids=lambda m: m.name)
def test_the_error_of_a_solve_falls_with_the_order_of_the_method(tableau):
    observed = methods_table.observed_order(tableau)
    assert observed == pytest.approx(tableau.order, abs=tolerance(tableau.order))


@pytest.mark.parametrize("tableau", EVERY, ids=lambda m: m.name)
def test_the_error_inside_a_step_falls_with_the_order_of_the_interpolant(tableau):
    observed = methods_table.observed_dense_order(tableau)
    assert observed == pytest.approx(tableau.dense_order, abs=tolerance(tableau.dense_order))


@pytest.mark.parametrize("tableau", ADAPTIVE, ids=lambda m: m.name)
def test_embedded_weights_propagated_show_their_own_order(tableau):
    """The negative control: the weights of the embedded solution must not pass as the method's."""
    # fehlberg2's b_hat differs from b by 1/512 only: order 1 shows at short steps.
    n = 1536 if tableau.name == "fehlberg2" else methods_table.steps(tableau)
    observed = slope(lambda k: step_error(tableau, k, tableau.b_hat), n)
    assert observed == pytest.approx(tableau.order_hat, abs=tolerance(tableau.order_hat))
    assert observed < tableau.order - 0.6


@pytest.mark.parametrize("tableau", [m for m in EVERY if m.dense], ids=lambda m: m.name)
def test_cubic_hermite_in_place_of_the_interpolant_shows_order_three(tableau):
    """The negative control of the slopes inside a step."""
    cubic = dataclasses.replace(tableau, dense=(), dense_order=0, c_dense=(), a_dense=())
    assert methods_table.observed_dense_order(cubic) == pytest.approx(3, abs=0.15)


def test_table_of_the_methods_in_the_docs_is_what_the_tableaus_say():
    page = (Path(__file__).parents[1] / "docs" / "methods.md").read_text(encoding="utf-8")
    assert page == methods_table.page(), "python tests/methods_table.py writes it anew"
