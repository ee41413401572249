"""What a tableau checks of itself, derives from its numbers, and converts."""

import dataclasses
import pickle
from fractions import Fraction

import pytest
import torch

from adamode.solvers.errors import ArgumentError
from adamode.solvers.methods import METHODS, get_method
from adamode.solvers.methods.tableau import Tableau, hermite, q

NO_PAIR = {"b_hat": None, "order_hat": None}
BOSH3, DOPRI5, DOP853 = METHODS["bosh3"], METHODS["dopri5"], METHODS["dop853"]
EVERY = list(METHODS.values())


def longer(rows):
    return (*rows[:-1], (*rows[-1], Fraction(0)))


@pytest.mark.parametrize(
    ("tableau", "change", "message"),
    [
        (BOSH3, {"c": (), "a": (), "b": ()} | NO_PAIR, "nodes"),
        (BOSH3, {"b": q("2/9 1/3 4/9")}, "weights"),
        (BOSH3, {"b": q("2/9 1/3 4/9 1/100")}, "Σb − 1"),
        (BOSH3, {"a": (q(""), q("1/2"), q("0 3/4"), q("2/9 1/3 4/9 0"))}, "row 3 has 4 entries"),
        (BOSH3, {"a": (q(""), q("1/2"), q("0 2/3"), q("2/9 1/3 4/9"))}, "row 2 minus c"),
        (BOSH3, {"c": q("0 3/2 3/4 1"), "a": (q(""), q("3/2"), *BOSH3.a[2:])}, "outside"),
        (BOSH3, {"b_hat": q("7/24 1/4 1/3 1/8 0")}, "embedded weights have length 5"),
        (BOSH3, {"b_hat": q("7/24 1/4 1/3 1/9")}, "Σb_hat − 1"),
        (BOSH3, {"order_hat": None}, "belong together"),
        (BOSH3, {"b_hat_2": q("1 0 0 0")}, "belong together"),
        (BOSH3, {"b_hat_2": q("1 0 0 0"), "order_hat_2": 1} | NO_PAIR, "need b_hat"),
        (BOSH3, {"dense_order": 4}, "without the rows of dense"),
        (BOSH3, {"c_dense": q("1/2"), "a_dense": (q("1/2 0 0 0"),)}, "without the rows of dense"),
        (DOPRI5, {"dense": DOPRI5.dense[:-1]}, "one for each stage"),
        (DOPRI5, {"dense": longer(DOPRI5.dense)}, "differ in length"),
        (DOPRI5, {"dense": DOPRI5.dense[1:] + DOPRI5.dense[:1]}, "b_0(1)"),
        (DOPRI5, {"dense_order": 5}, "dense_order is 5, the degree 4"),
        (DOPRI5, {"dense": (*((sum(r), Fraction(0)) for r in DOPRI5.dense[:-1]), q("1 -1")),
                  "dense_order": 1}, "Σ b_i(θ) − θ"),
        (DOP853, {"a_dense": DOP853.a_dense[:-1]}, "rows"),
        (DOP853, {"a_dense": longer(DOP853.a_dense)}, "row 14 has 16 entries, not 15"),
    ],
)  # fmt: skip
def test_numbers_that_contradict_each_other_are_refused(tableau, change, message):
    with pytest.raises(ValueError, match=r"^tableau \w+: ") as caught:
        dataclasses.replace(tableau, **change)
    assert message in str(caught.value)


def test_rounded_numbers_may_miss_by_a_rounding_and_exact_ones_may_not():
    c = q("0 0.3333333333333333")
    made = {"name": "third", "order": 1, "c": c, "a": (q(""), q("0.33333333333333331")), "b": q("1 0")}
    assert Tableau(**made, rounded=True).order == 1
    with pytest.raises(ValueError, match=r"row 1 minus c is 1\.000e-17"):
        Tableau(**made)


def test_every_evaluation_lies_inside_the_step():
    for tableau in EVERY:
        assert all(0 <= c <= 1 for c in tableau.nodes())


def test_estimate_is_of_the_order_that_the_controller_is_told():
    orders = {m.name: m.error_order for m in EVERY if m.adaptive}
    expected = {"adaptive_heun": 2, "fehlberg2": 2, "bosh3": 3, "dopri5": 5, "tsit5": 5, "dopri8": 8}
    assert orders == expected | {"dop853": 8}
    with pytest.raises(ValueError, match="rk4: has no embedded solution"):
        _ = METHODS["rk4"].error_order


def test_errors_are_differences_of_weights_padded_to_all_stages():
    assert METHODS["rk4"].errors() == ()
    assert METHODS["adaptive_heun"].errors() == (q("-1/2 1/2 0"),)
    assert BOSH3.errors() == (q("-5/72 1/12 1/9 -1/8"),)
    for tableau in EVERY:
        for row in tableau.errors():
            assert len(row) == tableau.n_stages
            assert abs(sum(row)) < Fraction(1, 10**15)


def test_equal_tableaus_are_equal_and_hash_alike():
    copy = dataclasses.replace(DOPRI5)
    other = dataclasses.replace(DOPRI5, dense=(), dense_order=0)
    assert copy == DOPRI5
    assert hash(copy) == hash(DOPRI5)
    assert other != DOPRI5
    assert other.dense_order == 3
    assert len({copy, DOPRI5, other}) == 2


@pytest.mark.parametrize("tableau", EVERY, ids=lambda m: m.name)
def test_a_tableau_survives_pickling(tableau):
    tableau.interpolant  # noqa: B018 - what was derived already must not disturb the copy
    assert pickle.loads(pickle.dumps(tableau)) == tableau


@pytest.mark.parametrize("tableau", EVERY, ids=lambda m: m.name)
def test_conversion_keeps_every_number_to_the_last_bit(tableau):
    got, n = tableau.numeric(torch.float64, torch.device("cpu")), len(tableau.rows())
    assert got.a.shape == (n, n)
    assert got.b.shape == (tableau.n_stages,)
    assert got.errors.shape == (len(tableau.errors()), tableau.n_stages)
    assert got.dense.shape == (n, len(tableau.interpolant[0]))
    for i, row in enumerate(tableau.rows()):
        assert got.a[i, : len(row)].tolist() == [float(w) for w in row]
        assert not got.a[i, len(row) :].any()
        assert dict(got.a_rows[i]) == {j: float(w) for j, w in enumerate(row) if w}
    assert [got.b[i].item() for i in got.b_index] == [float(w) for w in tableau.b if w]
    assert got.dense.tolist() == [[float(w) for w in row] for row in tableau.interpolant]
    assert got.c == tuple(float(c) for c in tableau.nodes())


def test_conversion_is_done_once_and_serves_gradients_after_inference_mode():
    spoilt = dataclasses.replace(BOSH3, name="once")
    with torch.inference_mode():
        first = spoilt.numeric(torch.float32, torch.device("cpu"))
    assert spoilt.numeric(torch.float32, torch.device("cpu")) is first
    assert first.a.dtype == torch.float32
    assert not first.a.is_inference()
    (torch.ones(4, requires_grad=True) @ first.a).sum().backward()


def test_hermite_takes_values_and_slopes_at_both_ends():
    rows = hermite(q("1/2 1/2"), 2)
    assert rows == (q("1 -1/2 0"), q("0 3/2 -1"), q("0 -1 1"))


def test_an_unknown_method_is_refused_with_the_nearest_name():
    assert get_method("dopri5") is DOPRI5
    with pytest.raises(ArgumentError, match=r"dorpi5.*dopri5"):
        get_method("dorpi5")
    with pytest.raises(ArgumentError, match="adjoint_method=None"):
        get_method(None, "adjoint_method")
