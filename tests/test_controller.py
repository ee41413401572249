"""Step size control as arithmetic."""

import math

import pytest
import torch

import adamode
from adamode import PI, PID, I
from adamode.solvers.step.controller import PRESETS


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


NONE = math.nan  # the ratio of a step that was not taken


@pytest.mark.parametrize("controller", [PI(), PID(dcoeff=0.1), PRESETS["PI.3.4"], PRESETS["H312PID"]])
@pytest.mark.parametrize("before", [(NONE, NONE), (0.3, NONE)], ids=["first step", "second step"])
def test_a_controller_that_remembers_is_classical_until_two_steps_are_accepted(controller, before):
    """As SUNDIALS' controllers are while steps to remember are lacking (SUNAdaptController_Soderlind)."""
    factor = controller.factor_accepted(1e-3, *before, 5, after_rejection=False)
    assert factor == pytest.approx(controller.safety * 1e-3 ** (-1 / 5), rel=1e-14)
    assert controller.factor_accepted(1e-3, 0.3, 0.2, 5, after_rejection=False) != pytest.approx(
        factor, rel=1e-3
    )
    assert controller.factor_accepted(1e-3, *before, 5, after_rejection=True) == 1.0


@pytest.mark.parametrize("controller", [I(), PID(pcoeff=0.0, icoeff=0.5)])
def test_a_controller_without_memory_is_the_same_from_the_first_step_on(controller):
    known = controller.factor_accepted(0.02, 0.3, 0.2, 5, after_rejection=False)
    assert controller.factor_accepted(0.02, NONE, NONE, 5, after_rejection=False) == known
    row = torch.tensor([NONE, 0.3], dtype=torch.float64)
    both = controller.factor_accepted(
        torch.full_like(row, 0.02), row, row, 5, torch.zeros(2, dtype=torch.bool)
    )
    assert both.tolist() == pytest.approx([known, known], rel=1e-14)


@pytest.mark.parametrize(
    "controller", [I(), PI(), PID(), PID(dcoeff=0.1), I(accept_factor_min=1.0, regrow=True)]
)
def test_the_vector_form_is_the_scalar_form_of_each_sample(controller):
    e0, e1, e2 = torch.rand(3, 50, dtype=torch.float64) * 1.5
    e1[:10], e2[:20] = NONE, NONE
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


# controller, left, dt, least |dt|, the ratio before, after a rejection → length, whether it ends on the stop
TO_STOP = {
    "far away": (PID(), 2.0, 1.0, 0.0, 0.5, False, 1.0, False),
    "no end": (PID(), math.inf, 1.0, 0.0, 0.5, False, 1.0, False),
    "two steps are left": (PID(), 1.5, 1.0, 0.0, 0.5, False, 0.75, False),
    "little more than a step is left": (PID(), 1.11, 1.0, 0.0, 0.5, False, 1.11, True),
    "more than the safety factor allows": (PID(), 1.12, 1.0, 0.0, 0.5, False, 0.56, False),
    "another safety factor": (PID(safety=0.5), 1.9, 1.0, 0.0, 0.5, False, 1.9, True),
    "the same length is not tried again": (PID(), 1.11, 1.0, 0.0, 0.5, True, 0.555, False),
    "no longer than dt_max": (PID(dt_max=1.0), 1.11, 1.0, 0.0, 0.5, False, 0.555, False),
    "a thousandth is no matter": (PID(dt_max=1.0), 1.0005, 1.0, 0.0, 0.5, False, 1.0005, True),
    "less than a step is left": (PID(), 0.3, 1.0, 0.0, 0.5, False, 0.3, True),
    "half would be no step": (PID(), 1.5, 1.0, 0.8, 0.5, False, 1.0, False),
    "a first step is as long as was said": (PID(), 1.5, 1.0, 0.0, NONE, False, 1.0, False),
    "and is not stretched": (PID(), 1.11, 1.0, 0.0, NONE, False, 1.0, False),
    "whole steps": (PID(look_ahead=False), 1.11, 1.0, 0.0, 0.5, False, 1.0, False),
    "whole steps, and what they leave": (PID(look_ahead=False), 0.11, 1.0, 0.0, 0.5, False, 0.11, True),
}


@pytest.mark.parametrize("name", TO_STOP)
def test_the_last_steps_before_a_stop_share_what_is_left(name):
    """As DERKF (Shampine, Watts): stretched by the safety factor at most, or halves."""
    controller, *numbers, after, length, cut = TO_STOP[name]
    assert controller.to_stop(*numbers, after) == (length, cut)
    numbers = [torch.tensor([x], dtype=torch.float64) for x in numbers]
    lengths, cuts = controller.to_stop(*numbers, torch.tensor([after]))
    assert (lengths.item(), cuts.item()) == (length, cut)


@pytest.mark.parametrize("safety", [0.5, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("ratio", [1.000001, 1.2, 3.0])
@pytest.mark.parametrize("before", [NONE, 0.5])
def test_a_rejected_step_to_a_stop_is_followed_by_a_shorter_one(safety, ratio, before):
    controller = PID(safety=safety)
    dt = 1.0 * controller.factor_rejected(ratio, 5)
    assert controller.to_stop(1.0, dt, 0.0, before, True)[0] < 1.0
