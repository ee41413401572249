"""What of an event function is seen: the first place in a step where it loses its sign, and all that fires
after it, in both steppings, whatever the method, the step's length or the direction of time."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import f64

import adamode
from adamode import Direct, Event, Status, solve

STEPPINGS = ("shared", "per_sample")


def scalar(fn):
    """An event function of y's first entry, for both steppings and any state [1, n]."""
    return lambda t, y: fn(t, y[0, 0]) if t.dim() == 0 else fn(t[:, 0], y[:, 0])


def only(found):
    """Of the only sample."""
    return found[0] if isinstance(found, list) else found


def ball(t, y):
    return torch.stack((y[..., 1], torch.full_like(y[..., 0], -9.8)), -1)


def ramp(t, y):
    return torch.ones_like(y)


CUT_OFF = {
    "relu": lambda y: torch.relu(1 - y),
    "clamp": lambda y: (1 - y).clamp(min=0),
    "where": lambda y: torch.where(y < 1, 5.0, 0.0),
    "int": lambda y: (y < 1).int(),
    "True to False": lambda y: y < 1,
    "False to True": lambda y: y >= 1,
    "sign": lambda y: torch.sign(y - 1),
    "cube": lambda y: (y - 1) ** 3,
}


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("name", CUT_OFF)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("backwards", [False, True])
def test_a_function_that_is_cut_off_fires_where_that_begins(name, stepping, dtype, backwards):
    sign = -1.0 if backwards else 1.0
    y0, t = torch.zeros(1, 1, dtype=dtype), sign * torch.tensor([0.0, 0.3, 3.0], dtype=dtype)
    event = Event(scalar(lambda t, y: CUT_OFF[name](y)))
    sol = solve(lambda t, y: sign * ramp(t, y), y0, t, events=event, stepping=stepping)
    near = 1e-12 if dtype == torch.float64 else 3e-7
    assert only(sol.t_events[0]).tolist() == pytest.approx([sign], abs=near)
    assert only(sol.y_events[0]).flatten().tolist() == pytest.approx([1.0], abs=near)
    assert sol.y[2].isnan().all()


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("direction", [1, -1])
def test_a_bool_goes_up_where_it_turns_true(stepping, direction):
    events = [
        Event(scalar(lambda t, y: y > 1), terminal=False, direction=direction),
        Event(scalar(lambda t, y: y < 2), terminal=False, direction=direction),
    ]
    sol = solve(ramp, f64(0.0)[None], f64(0.0, 3.0), events=events, stepping=stepping)
    expected = [[1.0], []] if direction == 1 else [[], [2.0]]
    for found, times in zip(sol.t_events, expected, strict=True):
        assert only(found).tolist() == pytest.approx(times, abs=1e-12)


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_a_zero_at_the_end_of_a_step_hides_no_landing_before_it(stepping):
    """A ball lands at 2.69463; its function is 0 from 8 on; the first step reaches 9."""
    event = Event(scalar(lambda t, y: torch.where(t > 8, 0.0, y)))
    sol = solve(ball, f64(0.01, 13.2)[None], f64(0.0, 9.0), events=event, dt0=9.0, stepping=stepping)
    assert int(torch.as_tensor(sol.stats.n_accepted)) == 1
    landing = (13.2 + math.sqrt(13.2**2 + 2 * 9.8 * 0.01)) / 9.8
    assert only(sol.t_events[0]).tolist() == pytest.approx([landing], abs=1e-12)


def test_odeint_event_finds_it_too():
    when, _ = adamode.odeint_event(
        ball,
        f64(0.01, 13.2),
        f64(0.0)[0],
        event_fn=lambda t, y: torch.where(t > 8, 0.0, y[0]),
        options={"first_step": 9.0},
    )
    assert when.item() == pytest.approx((13.2 + math.sqrt(13.2**2 + 0.196)) / 9.8, abs=1e-12)


@pytest.mark.parametrize("reverse_time", [False, True])
def test_odeint_event_ends_where_a_bool_turns_true(reverse_time):
    sign = -1.0 if reverse_time else 1.0
    when, y = adamode.odeint_event(
        lambda t, y: sign * ramp(t, y),
        f64(0.0),
        f64(0.5)[0],
        event_fn=lambda t, y: y[0] > 2.0,
        reverse_time=reverse_time,
    )
    assert when.item() == pytest.approx(0.5 + sign * 2.0, abs=1e-12)
    assert y[-1].item() == pytest.approx(2.0, abs=1e-12)


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("dt", [None, 9.0])
def test_a_ball_that_starts_on_the_ground_lands_within_its_first_step(stepping, dt):
    event = Event(scalar(lambda t, y: y))
    options = {"dt0": 9.0} if dt is None else {"dt": dt}
    sol = solve(ball, f64(0.0, 13.2)[None], f64(0.0, 9.0), events=event, stepping=stepping, **options)
    assert only(sol.t_events[0]).tolist() == pytest.approx([2 * 13.2 / 9.8], abs=1e-12)


def cubic(t, y):
    """y = (t + 6)(t + 2)(t − 2) from −8."""
    return 0 * y + 3 * t**2 + 12 * t - 4


ROOTS = {0: [-6.0, -2.0, 2.0], 1: [-6.0, 2.0], -1: [-2.0]}


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("direction", [0, 1, -1])
@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"method": "dop853"}, {"method": "dopri8"}, {"dt": 6.0}, {"method": "rk4", "dt": 12.0}],
    ids=str,
)
def test_all_crossings_of_a_step_are_seen(options, terminal, direction, stepping):
    event = Event(scalar(lambda t, y: y), terminal=terminal, direction=direction)
    y0 = f64(-2.0 * -6.0 * -10.0)[None]
    sol = solve(cubic, y0, f64(-8.0, 4.0), events=event, stepping=stepping, **options)
    assert int(torch.as_tensor(sol.stats.n_accepted)) <= 4
    expected = ROOTS[direction][: 1 if terminal else None]
    assert only(sol.t_events[0]).tolist() == pytest.approx(expected, abs=1e-10)
    assert (sol.status if stepping == "shared" else int(sol.status[0])) == (
        Status.EVENT if terminal else Status.SUCCESS
    )


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_backwards_in_time_the_crossings_come_in_the_other_order(stepping):
    event = Event(scalar(lambda t, y: y), terminal=False)
    sol = solve(cubic, f64(10.0 * 6.0 * 2.0)[None], f64(4.0, -8.0), events=event, stepping=stepping)
    assert only(sol.t_events[0]).tolist() == pytest.approx([2.0, -2.0, -6.0], abs=1e-10)


def test_each_sample_has_its_own_number_of_crossings_in_a_step():
    shift = f64(0.0, 200.0, -100.0, 40.0)[:, None]
    y0 = -120.0 + shift
    event = Event(lambda t, y: y[:, 0], terminal=False)
    for compact in (False, True):
        kw = {"events": event, "stepping": "per_sample", "compact": compact}
        sol = solve(cubic, y0, f64(-8.0, 4.0), **kw)
        for b in range(4):
            alone = solve(cubic, y0[b : b + 1], f64(-8.0, 4.0), **kw)
            torch.testing.assert_close(sol.t_events[0][b], alone.t_events[0][0], rtol=1e-13, atol=1e-13)
        assert [len(times) for times in sol.t_events[0]] == [3, 0, 1, 1]


def test_a_terminal_event_hides_what_would_have_fired_after_it_in_the_step():
    events = [
        Event(lambda t, y: y[:, 0], terminal=False),
        Event(lambda t, y: t[:, 0] + 3.0),
        Event(lambda t, y: t[:, 0] + 4.0, terminal=False),
    ]
    shared = [Event(lambda t, y, fn=e.fn: fn(t.reshape(1, 1), y)[0], terminal=e.terminal) for e in events]
    for stepping, own in (("per_sample", events), ("shared", shared)):
        sol = solve(cubic, f64(-120.0)[None], f64(-8.0, 4.0), events=own, stepping=stepping)
        found = [only(times).tolist() for times in sol.t_events]
        assert found[0] == pytest.approx([-6.0], abs=1e-10)
        assert found[1:] == [pytest.approx([-3.0], abs=1e-12), pytest.approx([-4.0], abs=1e-12)]


@settings(deadline=None, derandomize=True, max_examples=8)
@given(
    st.floats(0.2, 6.0),
    st.floats(-0.95, 0.95),
    st.sampled_from([0, 1, -1]),
    st.sampled_from(["dopri5", "dop853", "bosh3"]),
    st.booleans(),
)
def test_a_sample_alone_fires_where_the_shared_solve_does(omega, level, direction, method, backwards):
    end = -7.0 if backwards else 7.0
    event = Event(scalar(lambda t, y: y - level), terminal=False, direction=direction)

    def turn(t, y):
        return omega * torch.stack((-y[:, 1], y[:, 0]), 1)

    found = []
    for stepping in STEPPINGS:
        kw = {"method": method, "rtol": 1e-4, "atol": 1e-4, "gradient": None, "stepping": stepping}
        sol = solve(turn, f64(1.0, 0.0)[None], f64(0.0, end), events=event, **kw)
        found.append(only(sol.t_events[0]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)


def test_looking_costs_no_evaluation():
    """With a dense output that is free, none at all; else in the steps that may hold an event only."""
    calls = []

    def turn(t, y):
        calls.append(1)
        return torch.stack((-y[:, 1], y[:, 0]), 1)

    for stepping in STEPPINGS:
        for method in ("dopri5", "bosh3", "dop853", "dopri8"):
            counts = []
            for events in ((), [Event(scalar(lambda t, y: y - 2.0))]):
                calls.clear()
                kw = {"method": method, "stepping": stepping, "gradient": None, "events": events}
                solve(turn, f64(1.0, 0.0)[None], f64(0.0, 6.0), **kw)
                counts.append(len(calls))
            assert counts[0] == counts[1]


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_no_number_hides_neither_the_crossing_before_nor_the_one_after(stepping):
    """√ of what has gone below 0: not fired where it ceases to be a number, fired where the sign is lost."""
    events = [
        Event(scalar(lambda t, y: torch.sqrt(1 - y) + 1.0), terminal=False),
        Event(scalar(lambda t, y: torch.where((y - 1).abs() < 0.3, math.nan, 1 - y)), terminal=False),
    ]
    sol = solve(ramp, f64(0.0)[None], f64(0.0, 3.0), events=events, stepping=stepping, dt=3.0)
    assert only(sol.t_events[0]).tolist() == []
    assert only(sol.t_events[1]).tolist() == pytest.approx([0.7], abs=1e-12)


OUTPUTS = [
    ("dopri8", None),
    ("dop853", None),
    ("rk4", 1.0),
    ("bosh3", None),
    ("tsit5", 1.0),
]


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize(("method", "dt"), OUTPUTS)
@pytest.mark.parametrize("terminal", [False, True])
def test_the_gradient_of_an_output_does_not_depend_on_whether_an_event_is_watched(
    method, dt, terminal, stepping
):
    """y' = −ky, k = .8, y0 = 2: the event, y = 1, is at .866, the outputs at .55 and 1 in its step."""
    found = []
    for events in ([Event(scalar(lambda t, y: y - 1.0), terminal=terminal)], ()):
        k = f64(0.8)[0].requires_grad_()
        kw = {"method": method, "dt": dt, "gradient": Direct(), "stepping": stepping, "events": events}
        sol = solve(lambda t, y, k=k: -k * y, f64(2.0)[None], f64(0.0, 0.55, 1.0), **kw)
        outputs = sol.y[1:2] if terminal else sol.y[1:]
        found.append([torch.autograd.grad(y.sum(), k, retain_graph=True)[0] for y in outputs])
        if events:
            (slope,) = torch.autograd.grad(only(sol.t_events[0]).sum(), k)
            exact = -math.log(2) / 0.8**2
            assert slope.item() == pytest.approx(exact, rel=0.04 if dt else 5e-5)  # rk4, one step: 3 %
    assert found[0] == found[1]
    if (method, dt) == ("rk4", 1.0):
        assert found[0][0].item() == pytest.approx(-0.69408533, abs=1e-8)


def test_odeint_event_has_the_slope_of_its_time_with_dopri8():
    k = f64(0.8)[0].requires_grad_()
    when, _ = adamode.odeint_event(
        lambda t, y: -k * y, f64(2.0), f64(0.0)[0], event_fn=lambda t, y: y[0] - 1.0, method="dopri8"
    )
    (slope,) = torch.autograd.grad(when, k)
    assert slope.item() == pytest.approx(-math.log(2) / 0.8**2, rel=1e-6)
