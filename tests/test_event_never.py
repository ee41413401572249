"""An event that never comes is given up with the reason; one that comes late is waited for."""

import pytest
import torch
from problems import f64

import adamode
from adamode.adjoint.torchdiffeq import awaited

SLOW = {"method": "rk4", "options": {"step_size": 0.2}}


def turn(t, y):
    return torch.stack((y[1], -y[0]))


def wait(field, y0, event_fn, **options):
    """(event time, evaluations)."""
    calls = []

    def counted(t, y):
        calls.append(1)
        return field(t, y)

    try:
        when, _ = adamode.odeint_event(counted, y0, f64(0.0)[0], event_fn=event_fn, **options)
    except RuntimeError as error:
        return str(error), len(calls)
    return when.item(), len(calls)


def test_a_period_is_seen_after_two_thousand_steps():
    said, calls = wait(turn, f64(1.0, 0.0), lambda t, y: y[0] - 2, **SLOW)
    assert "never changed its sign" in said
    assert "a period" in said
    assert calls <= 4 * 2000 + 1


@pytest.mark.parametrize("reverse_time", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("field", ["period", "rest"])
def test_periods_and_rests_are_given_up(field, reverse_time, dtype, monkeypatch):
    monkeypatch.setattr(awaited, "FIRST_STEPS", 40)
    sign = -1.0 if reverse_time else 1.0
    fields = {"period": turn, "rest": lambda t, y: -sign * y}
    kw = {"reverse_time": reverse_time, "rtol": 1e-4, "atol": 1e-4}
    said, calls = wait(fields[field], torch.tensor([1.0, 0.0], dtype=dtype), lambda t, y: y[0] + 2, **kw)
    assert "a rest" in said
    assert calls < 2500


def test_a_course_that_nothing_changes_ends_with_the_range_of_time():
    said, calls = wait(lambda t, y: torch.ones_like(y), f64(1.0), lambda t, y: y[0] + 1)
    assert "nothing changes the state's course" in said
    assert calls < 3000


LATE = {
    "cut off by time": (turn, (1.0, 0.0), lambda t, y: torch.where(t > 70.0, 0.0, y[0] - 2), 70.0),
    "a growing swing": (
        lambda t, y: torch.stack((y[1], -y[0] + 0.2 * y[1])),
        (1e-3, 0.0),
        lambda t, y: y[0] - 1,
        None,
    ),
    "a drift": (
        lambda t, y: torch.stack((y[1], -y[0], 0 * y[0] + 4e-4)),
        (1.0, 0.0, 0.0),
        lambda t, y: y[0] + y[2] - 1.03,
        None,
    ),
}


@pytest.mark.parametrize("name", LATE)
def test_what_comes_late_is_waited_for(name, monkeypatch):
    monkeypatch.setattr(awaited, "FIRST_STEPS", 40)
    field, y0, event_fn, exact = LATE[name]
    when, calls = wait(field, f64(*y0), event_fn, **SLOW)
    assert isinstance(when, float)
    assert calls > 4 * 160  # it was judged at least once
    if exact is not None:
        assert when == pytest.approx(exact, abs=1e-12)
