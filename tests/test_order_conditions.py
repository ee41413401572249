"""Every tableau against its order conditions, tree by tree, in exact fractions.

Where the published numbers are rounded the residual of a condition, divided by the sum of its terms'
absolute values, must stay below 1e-15 (worst found: 3e-17, dopri8's 18-digit fractions). An order is
exact: some condition of the next order must fail.
"""

import dataclasses
import functools
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from rooted_trees import Weights, density, dot, order_of, symmetry, trees_of_order

from adamode.solvers.methods import EVERY, IMPLICIT, METHODS
from adamode.solvers.methods.tableau import Row, Tableau

ALL = [m for m in EVERY.values() if not m.between]
ADAPTIVE = [m for m in ALL if m.adaptive]
BROKEN = Fraction(1, 10**7)  # a condition that does not hold; the smallest found is 8e-6 (dopri8)


@functools.cache
def stage_weights(tableau: Tableau) -> Weights:
    return Weights(tableau.rows(), (*tableau.beta, *tableau.rows()[len(tableau.beta) :]))


def residual(tableau: Tableau, weights: Row, tree: tuple, right: Fraction) -> Fraction:
    """|Σ w_i Φ_i(t) − right|; relative to the size of the sum's terms where numbers are rounded."""
    phi = stage_weights(tableau)(tree)
    size = dot([abs(w) for w in weights], [abs(p) for p in phi]) if tableau.rounded else 1
    return abs(dot(weights, phi) - right) / (size or 1)


def holds(tableau: Tableau, value: Fraction) -> bool:
    # rodas5p is published in 16 digits, of numbers up to 100 that its own follow from: 2.2e-15 is the worst.
    most = Fraction(4 if tableau.gamma else 1, 10**15)
    return value <= (most if tableau.rounded else 0)


def order_of_weights(tableau: Tableau, weights: Row, limit: int = 9) -> int:
    """The order that the weights have by their conditions, up to limit."""
    for order in range(1, limit + 1):
        for tree in trees_of_order(order):
            if not holds(tableau, residual(tableau, weights, tree, Fraction(1, density(tree)))):
                return order - 1
    return limit


def order_of_interpolant(tableau: Tableau, limit: int = 8) -> int:
    """The order for which Σ b_i(θ) Φ_i(t) = θ^ρ(t)/γ(t) holds, as polynomials in θ."""
    for order in range(1, limit + 1):
        for tree in trees_of_order(order):
            for power, column in enumerate(zip(*tableau.interpolant, strict=True), 1):
                right = Fraction(int(power == order_of(tree)), density(tree))
                if not holds(tableau, residual(tableau, column, tree, right)):
                    return order - 1
            if order > len(tableau.interpolant[0]):
                return order - 1  # θ^order is beyond the degree
    return limit


def test_there_are_as_many_rooted_trees_as_known():
    assert [len(trees_of_order(n)) for n in range(1, 10)] == [1, 1, 2, 4, 9, 20, 48, 115, 286]
    for order in range(1, 9):
        # Cayley: Σ n!/(γσ) counts the monotonically labelled trees, (n−1)! of them.
        total = sum(Fraction(1, density(t) * symmetry(t)) for t in trees_of_order(order))
        assert total == Fraction(1, order)


@pytest.mark.parametrize("tableau", ALL, ids=lambda m: m.name)
def test_weights_have_exactly_the_stated_order(tableau):
    assert order_of_weights(tableau, tableau.b) == tableau.order


@pytest.mark.parametrize("tableau", ADAPTIVE, ids=lambda m: m.name)
def test_embedded_weights_have_exactly_the_stated_order(tableau):
    assert order_of_weights(tableau, tableau.b_hat) == tableau.order_hat
    if tableau.b_hat_2:
        assert order_of_weights(tableau, tableau.b_hat_2) == tableau.order_hat_2


@pytest.mark.parametrize("tableau", ALL, ids=lambda m: m.name)
def test_an_order_ends_with_a_condition_that_clearly_fails(tableau):
    pairs = [(tableau.b, tableau.order), (tableau.b_hat, tableau.order_hat)]
    for weights, order in [*pairs, (tableau.b_hat_2, tableau.order_hat_2)]:
        if weights is not None:
            trees = trees_of_order(order + 1)
            worst = max(residual(tableau, weights, t, Fraction(1, density(t))) for t in trees)
            assert worst > BROKEN


@pytest.mark.parametrize("tableau", ALL, ids=lambda m: m.name)
def test_row_sums_are_the_nodes(tableau):
    for row, node in zip(tableau.rows(), tableau.nodes(), strict=True):
        assert holds(tableau, abs(sum(row, Fraction(0)) - node))


@pytest.mark.parametrize("tableau", ALL, ids=lambda m: m.name)
def test_interpolant_has_exactly_the_stated_order(tableau):
    assert order_of_interpolant(tableau) == tableau.dense_order


@pytest.mark.parametrize("tableau", ALL, ids=lambda m: m.name)
def test_interpolant_is_at_most_one_order_below_the_method(tableau):
    assert tableau.order - 1 <= tableau.dense_order <= tableau.order


@pytest.mark.parametrize("tableau", ALL, ids=lambda m: m.name)
def test_interpolant_meets_the_step_and_its_slopes_at_both_ends(tableau):
    """b_i(0) = 0 holds by form (no constant term); b_i(1) = b_i; b_i'(0), b_i'(1) are f0 and f1, but for
    rodas5p, whose interpolant has stages alone that are no values of f; alf's slope at the end is its last
    stage, 2u − v."""
    last, of_f = tableau.n_stages - 1, tableau.name != "rodas5p"
    for i, row in enumerate(tableau.interpolant):
        weight = tableau.b[i] if i < len(tableau.b) else 0
        assert holds(tableau, abs(sum(row, Fraction(0)) - weight))
        assert not of_f or row[0] == (i == 0)
        slope = sum((k * w for k, w in enumerate(row, 1)), Fraction(0))
        wanted = (-1, 2, 0)[i] if tableau.leapfrog else int(i == last)
        assert not of_f or holds(tableau, abs(slope - wanted) / max(1, *map(abs, row)))
    for power, column in enumerate(zip(*tableau.interpolant, strict=True), 1):
        assert holds(tableau, abs(sum(column, Fraction(0)) - (power == 1)))


def test_stage_after_the_last_is_the_end_of_the_step():
    for tableau in ALL:
        assert tableau.nodes()[tableau.n_stages - 1] == 1
        row = tableau.rows()[tableau.n_stages - 1]
        assert row[: len(tableau.b)] == tableau.b[: len(row)]


def test_only_three_explicit_methods_and_all_whose_stages_are_solved_for_hand_their_last_stage_on():
    by_systems = {m.name for m in ALL if m.gamma}
    assert {m.name for m in ALL if m.fsal} == {"bosh3", "dopri5", "tsit5", *IMPLICIT} - by_systems
    assert {m.name for m in ALL if m.implicit} == set(IMPLICIT)


@pytest.mark.parametrize("name", ["rk4", "bosh3", "dopri5", "tsit5", "dopri8", "dop853"])
def test_conditions_see_one_wrong_digit(name):
    """A weight moved from one stage to another keeps Σb = 1; 1e-13 is seen, and the order is lost."""
    tableau, tiny = METHODS[name], Fraction(1, 10**13)
    used = [i for i, w in enumerate(tableau.b) if w]
    b = list(tableau.b)
    b[used[-1]] += tiny
    b[used[0]] -= tiny
    assert order_of_weights(tableau, tuple(b)) == 1


@pytest.mark.parametrize("name", ["bosh3", "dopri5", "tsit5", "dopri8", "dop853"])
def test_conditions_see_a_wrong_row(name):
    """The same in the last row: Σ a_ij = c_i still holds, the order does not."""
    tableau, tiny = METHODS[name], Fraction(1, 10**10)
    row = list(tableau.a[-1])
    used = [i for i, w in enumerate(row) if w]
    row[used[-1]] += tiny
    row[used[0]] -= tiny
    b = tableau.b if tableau.b[-1] else tuple(row) + tableau.b[-1:]
    spoilt = dataclasses.replace(tableau, a=(*tableau.a[:-1], tuple(row)), b=b, dense=(), dense_order=0,
                                 c_dense=(), a_dense=())  # fmt: skip
    assert order_of_weights(spoilt, spoilt.b) < tableau.order


@pytest.mark.parametrize("name", ["dopri5", "tsit5", "dopri8", "dop853"])
def test_conditions_see_a_wrong_interpolant(name):
    """θ²(1−θ)² added to one b_i and taken from another keeps values, slopes and Σ b_i(θ) = θ."""
    tableau, tiny = METHODS[name], Fraction(1, 10**10)
    bump = [Fraction(0), tiny, -2 * tiny, tiny] + [Fraction(0)] * (len(tableau.dense[0]) - 4)
    rows = list(tableau.dense)
    rows[-1] = tuple(x + y for x, y in zip(rows[-1], bump, strict=True))
    rows[0] = tuple(x - y for x, y in zip(rows[0], bump, strict=True))
    spoilt = dataclasses.replace(tableau, dense=tuple(rows))
    assert order_of_interpolant(spoilt) == 1


@pytest.mark.parametrize("name", ["dopri8", "dop853"])
def test_cubic_hermite_would_not_do_at_order_eight(name):
    plain = dataclasses.replace(METHODS[name], dense=(), dense_order=0, c_dense=(), a_dense=())
    assert order_of_interpolant(plain) == plain.dense_order == 3


def principal_terms(tableau: Tableau, order: int) -> float:
    """Largest norm over θ of the local error's terms of that order, each over its symmetry."""
    worst, trees = 0.0, trees_of_order(order)
    sums = {
        t: [dot(c, stage_weights(tableau)(t)) for c in zip(*tableau.interpolant, strict=True)] for t in trees
    }
    for theta in (Fraction(k, 20) for k in range(1, 20)):
        terms = [
            float(
                (sum(x * theta**k for k, x in enumerate(sums[t], 1)) - theta**order / density(t))
                / symmetry(t)
            )
            for t in trees
        ]
        worst = max(worst, sum(x * x for x in terms) ** 0.5)
    return worst


def test_error_terms_of_the_dense_output_of_dopri8_are_a_thirteenth_of_those_of_dop853():
    ours, theirs = (principal_terms(METHODS[name], 8) for name in ("dopri8", "dop853"))
    assert ours == pytest.approx(2.8e-6, rel=0.03)
    assert theirs / ours == pytest.approx(13.5, rel=0.05)


@pytest.mark.slow
def test_derivation_gives_the_dense_output_of_dopri8_again():
    sys.path.insert(0, str(Path(__file__).parents[1] / "docs" / "derive"))
    try:
        import dopri8_dense_output
    finally:
        del sys.path[0]
    tableau = METHODS["dopri8"]
    nodes, rows, low = dopri8_dense_output.derive()
    assert nodes == tableau.c_dense
    pairs = [*zip(rows, tableau.a_dense, strict=True)]
    pairs += [(low[k - 2], tuple(row[k - 1] for row in tableau.dense)) for k in range(2, 6)]
    for found, kept in pairs:
        # Smallest solutions are float64's; what fixes them is exact. Largest coefficients: 800.
        assert max(abs(x - y) for x, y in zip(found, kept, strict=True)) < Fraction(1, 10**9)
