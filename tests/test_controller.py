"""Step size control as arithmetic."""

import math

import pytest
import torch

import adamode
from adamode import PI, PID, I


def test_the_classical_controller_is_the_books_formula():
    """HNW II.4, Eq. (4.13): dt_new = dt · min(facmax, max(facmin, 0.9 · err^(−1/k)))."""
    for error in (1e-3, 0.1, 0.5, 0.99):
        factor = I().factor_accepted(error, 1.0, 1.0, 5, after_rejection=False)
        assert factor == pytest.approx(min(10.0, 0.9 * error ** (-1 / 5)), rel=1e-14)


def test_the_pi_controller_is_hairers():
    """HW IV.2: dt · 0.9 · err^(−0.7/k) · err_before^(0.4/k) … here p = 0.2, i = 0.65."""
    controller = PI()
    for e0, e1 in ((0.5, 0.2), (0.1, 0.9)):
        expected = 0.9 * e0 ** (-(0.2 + 0.65) / 5) * e1 ** (0.2 / 5)
        assert controller.factor_accepted(e0, e1, 1.0, 5, after_rejection=False) == pytest.approx(
            expected, rel=1e-14
        )


def test_the_pid_controller_uses_three_errors():
    controller = PID(pcoeff=0.7, icoeff=0.4, dcoeff=0.1)
    e = (0.5, 0.3, 0.8)
    expected = 0.9 * e[0] ** (-1.2 / 5) * e[1] ** (0.9 / 5) * e[2] ** (-0.1 / 5)
    assert controller.factor_accepted(*e, 5, after_rejection=False) == pytest.approx(expected, rel=1e-14)


def test_no_growth_right_after_a_rejection():
    assert PID().factor_accepted(1e-6, 1.0, 1.0, 5, after_rejection=True) == 1.0
    assert PID().factor_accepted(0.0, 1.0, 1.0, 5, after_rejection=True) == 1.0
    assert PID().factor_accepted(1e-6, 1.0, 1.0, 5, after_rejection=False) > 5
    assert I(regrow=True).factor_accepted(1e-6, 1.0, 1.0, 5, after_rejection=True) > 5


@pytest.mark.parametrize("error", [0.0, 1e-300, 1e-20])
def test_growth_is_limited(error):
    assert PID(factor_max=4.0).factor_accepted(error, 1.0, 1.0, 5, after_rejection=False) == 4.0


@pytest.mark.parametrize("error", [1.0000001, 2.0, 1e5, 1e300, math.inf, math.nan])
def test_a_rejected_step_always_shrinks_and_not_below_the_limit(error):
    factor = PID().factor_rejected(error, 5)
    assert 0.2 <= factor <= 0.9


def test_a_rejection_that_is_no_number_shrinks_by_the_limit():
    assert PID().factor_rejected(math.nan, 5) == 0.2
    assert PID(factor_min=0.1).factor_rejected(math.inf, 5) == 0.1


@pytest.mark.parametrize(
    "controller", [I(), PI(), PID(), PID(dcoeff=0.1), I(accept_factor_min=1.0, regrow=True)]
)
def test_the_vector_form_is_the_scalar_form_of_each_sample(controller):
    e0, e1, e2 = torch.rand(3, 50, dtype=torch.float64) * 1.5
    after = torch.rand(50) > 0.5
    grown = controller.factor_accepted(e0, e1, e2, 5, after)
    shrunk = controller.factor_rejected(e0, 5)
    for i in range(50):
        ratios = (e0[i].item(), e1[i].item(), e2[i].item())
        assert grown[i].item() == pytest.approx(
            controller.factor_accepted(*ratios, 5, after_rejection=bool(after[i])), rel=1e-14
        )
        assert shrunk[i].item() == pytest.approx(controller.factor_rejected(ratios[0], 5), rel=1e-14)
    nan = torch.tensor([math.nan, math.inf], dtype=torch.float64)
    assert controller.factor_rejected(nan, 5).tolist() == [controller.factor_min] * 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("safety", 0.0),
        ("safety", 1.5),
        ("safety", math.nan),
        ("icoeff", 0.0),
        ("pcoeff", math.inf),
        ("dcoeff", math.nan),
        ("factor_min", 0.0),
        ("factor_min", 1.0),
        ("factor_max", 0.9),
        ("factor_max", math.nan),
        ("dt_min", -1.0),
        ("dt_max", 0.0),
        ("accept_factor_min", 0.0),
    ],
)
def test_a_value_out_of_range_is_named(name, value):
    with pytest.raises(adamode.ArgumentError, match=f"{name}={value!r}"):
        PID(**{name: value})


def test_dt_min_above_dt_max_is_an_error():
    with pytest.raises(adamode.ArgumentError, match="dt_max"):
        PID(dt_min=1.0, dt_max=0.5)


def test_a_controller_is_frozen():
    with pytest.raises(AttributeError):
        PID().safety = 0.5
