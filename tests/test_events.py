"""Events: found to full tolerance, in the direction asked for, once, in order, per sample too."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import f64, relative

from adamode import Direct, Event, Status, solve
from adamode.solvers.errors import ArgumentError, ArgumentTypeError, DynamicsError
from adamode.solvers.march.events import GRID, where_lost
from adamode.solvers.march.looks import Looks, begins, numbered

METHODS = ("dopri5", "bosh3", "dop853")
STEPPINGS = ("shared", "per_sample")
RICH = settings(deadline=None, derandomize=True, max_examples=12)


def rotation(t, y):
    """(cos t, sin t) from (1, 0), each row."""
    return torch.stack((-y[:, 1], y[:, 0]), 1)


START = torch.tensor([[1.0, 0.0]], dtype=torch.float64)


def first(column):
    """y's entry as an event: one number, and one a sample."""
    return lambda t, y: y[:, column].reshape(t.shape if t.dim() == 0 else -1)


def times_of(sol, event=0):
    """The times at which one event fired, of the only sample."""
    found = sol.t_events[event]
    return found[0] if isinstance(found, list) else found


def states_of(sol, event=0):
    found = sol.y_events[event]
    return found[0] if isinstance(found, list) else found[:, 0]


def turn(events, t=(0.0, 8.5), **options):
    kw = {"rtol": 1e-10, "atol": 1e-12, "gradient": None, **options}
    return solve(rotation, START, f64(*t), events=events, **kw)


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("direction", "begin", "gap"), [(0, 0.5, 1.0), (1, 1.5, 2.0), (-1, 0.5, 2.0)])
def test_zeros_of_the_cosine(method, direction, begin, gap, stepping):
    options = {"rtol": 1e-5, "atol": 1e-7} if method == "bosh3" else {}
    sol = turn(
        Event(first(0), terminal=False, direction=direction), method=method, stepping=stepping, **options
    )
    n = math.floor((8.5 / math.pi - begin) / gap) + 1
    exact = math.pi * (begin + gap * torch.arange(n, dtype=torch.float64))
    assert relative(times_of(sol), exact) <= (5e-4 if method == "bosh3" else 1e-7)
    assert states_of(sol)[:, 0].abs().max() <= 1e-13  # a zero of the dense output, to rounding
    assert (sol.status if stepping == "shared" else int(sol.status[0])) == Status.SUCCESS


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("direction", [-1, 0, 1])
def test_up_and_down_are_meant_in_the_direction_of_time(stepping, direction):
    """Backwards in time sin t goes down through 0 at −π/2·… : from t = 0, sin(t) at −π goes up through 0."""
    sol = turn(Event(first(1), terminal=False, direction=direction), t=(0.0, -10.0), stepping=stepping)
    exact = {
        0: f64(-math.pi, -2 * math.pi, -3 * math.pi),
        1: f64(-math.pi, -3 * math.pi),
        -1: f64(-2 * math.pi),
    }
    assert relative(times_of(sol), exact[direction]) <= 1e-8


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_a_terminal_event_ends_the_solve_there(stepping):
    t = (0.0, 1.0, 2.0, 3.0)
    sol = turn(Event(first(0)), t=t, stepping=stepping)
    assert (sol.status if stepping == "shared" else int(sol.status[0])) == Status.EVENT
    assert relative(times_of(sol), f64(math.pi / 2)) <= 1e-9
    assert relative(states_of(sol), f64(0.0, 1.0)[None]) <= 1e-9
    assert relative(sol.y[1, 0], torch.stack((f64(1.0).cos(), f64(1.0).sin()), 1)[0]) <= 1e-9
    assert sol.y[2:].isnan().all()


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_an_event_that_never_fires_leaves_end_time_and_status(stepping):
    sol = turn(Event(lambda t, y: y[:, 0].reshape(t.shape if t.dim() == 0 else -1) - 2.0), stepping=stepping)
    assert (sol.status if stepping == "shared" else int(sol.status[0])) == Status.SUCCESS
    assert float(sol.t[-1]) == 8.5
    assert sol.y.isfinite().all()
    assert times_of(sol).shape == (0,)
    assert states_of(sol).shape == (0, 2)


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_a_function_that_is_zero_at_the_start_does_not_fire_there(stepping):
    sol = turn(Event(first(1)), stepping=stepping)  # sin 0 = 0
    assert relative(times_of(sol), f64(math.pi)) <= 1e-9


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("options", [{"step_at": [0.5]}, {"dt": 0.25}, {"jump_at": [0.5]}], ids=str)
def test_a_zero_exactly_at_the_end_of_a_step_fires_once(stepping, terminal, options):
    event = Event(lambda t, y: t.reshape(t.shape if t.dim() == 0 else -1) - 0.5, terminal=terminal)
    sol = turn(event, t=(0.0, 0.5, 2.0), stepping=stepping, **options)
    assert torch.equal(times_of(sol), f64(0.5))
    assert torch.equal(states_of(sol)[0], sol.y[1, 0])
    assert sol.y[2].isnan().all() == terminal


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_an_output_at_the_time_of_a_terminal_event_is_there(stepping):
    # t − 0.3 is zero at an output inside a step
    event = Event(lambda t, y: (t - 0.3).reshape(t.shape if t.dim() == 0 else -1))
    sol = turn(event, t=(0.0, 0.3, 0.9), stepping=stepping, dt=0.25)
    assert times_of(sol).tolist() == [0.3]
    assert sol.y[1].isfinite().all()
    assert sol.y[2].isnan().all()


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_several_events_in_one_step_come_in_the_order_of_time(stepping):
    def at(when):
        return lambda t, y: (t - when).reshape(t.shape if t.dim() == 0 else -1)

    whens = (0.7, 0.2, 0.5, 0.9)
    events = [Event(at(when), terminal=when == 0.7) for when in whens]
    sol = turn(events, t=(0.0, 2.0), stepping=stepping, dt=1.0)
    found = [times_of(sol, e).tolist() for e in range(4)]
    assert found[3] == []  # after the terminal one
    for when, times in zip(whens[:3], found[:3], strict=True):
        assert times == pytest.approx([when], abs=1e-15)
    for e, when in enumerate(whens[:3]):
        assert states_of(sol, e).shape == (1, 2)
        assert relative(states_of(sol, e)[0], f64(math.cos(when), math.sin(when))) <= 5e-4


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_the_earliest_of_several_terminal_events_ends_the_solve(stepping):
    events = [Event(first(0)), Event(lambda t, y: first(0)(t, y) - 0.5)]
    sol = turn(events, stepping=stepping, method="dopri8", rtol=1e-6)
    assert times_of(sol, 0).tolist() == []
    assert relative(times_of(sol, 1), f64(math.pi / 3)) <= 1e-6


@pytest.mark.parametrize("dt", [None, 0.1])
@pytest.mark.parametrize("method", ["rk4", "dopri5", "dop853"])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("stepping", STEPPINGS)
def test_events_under_fixed_steps_and_in_both_directions(method, dt, backwards, stepping):
    if dt is None and method == "rk4":
        dt = 0.02
    sign = -1.0 if backwards else 1.0
    sol = turn(
        Event(first(0), direction=-1),
        t=(0.0, sign * 1.0, sign * 5.0),
        method=method,
        dt=dt,
        stepping=stepping,
    )
    assert relative(times_of(sol), f64(sign * math.pi / 2)) <= 1e-6
    assert sol.y[2].isnan().all()


def test_each_sample_has_its_own_events():
    y0 = torch.tensor(
        [[1.0, 0.0], [0.0, 1.0], [0.6, -0.8], [math.nan, 0.0], [0.0, -1.0]], dtype=torch.float64
    )
    t = torch.stack([f64(0.0, 1.0, 7.0)] * 4 + [f64(2.0, 2.0, 2.0)])
    events = [Event(first(0), terminal=False), Event(lambda t, y: y[:, 1] - 2 * t[:, 0] + 3)]
    kw = {"stepping": "per_sample", "rtol": 1e-9, "atol": 1e-11, "gradient": None}
    for compact in (False, True):
        sol = solve(rotation, y0, t, events=events, compact=compact, **kw)
        assert len(sol.t_events) == len(sol.y_events) == 2
        assert all(len(per_sample) == 5 for per_sample in (*sol.t_events, *sol.y_events))
        for i in range(5):
            alone = solve(rotation, y0[i : i + 1], t[i : i + 1], events=events, **kw)
            assert int(sol.status[i]) == int(alone.status[0])
            for e in range(2):
                assert sol.t_events[e][i].shape == alone.t_events[e][0].shape
                torch.testing.assert_close(sol.t_events[e][i], alone.t_events[e][0], rtol=1e-14, atol=1e-15)
                torch.testing.assert_close(sol.y_events[e][i], alone.y_events[e][0], rtol=1e-13, atol=1e-14)
        assert sol.status.tolist() == [Status.EVENT] * 3 + [Status.NON_FINITE, Status.SUCCESS]
        assert [len(x) for x in sol.t_events[0]] == [1, 0, 0, 0, 0]


@RICH
@given(
    st.lists(st.floats(0.3, 3.0), min_size=1, max_size=5),
    st.floats(0.2, 2.5),
    st.sampled_from(METHODS),
    st.booleans(),
    st.booleans(),
)
def test_decay_meets_its_level_at_the_logarithm(y0, level, method, compact, backwards):
    """y' = ∓y: y = level at t = ln(y0/level), if it is on the way."""
    sign = -1.0 if backwards else 1.0
    start = f64(*y0)[:, None]
    event = Event(lambda t, y: y[:, 0] - level)
    kw = (
        {"method": method, "rtol": 1e-9, "atol": 1e-12}
        if method != "bosh3"
        else {"method": method, "rtol": 1e-5}
    )
    sol = solve(
        lambda t, y: -sign * y,
        start,
        f64(0.0, sign * 2.0),
        stepping="per_sample",
        events=event,
        compact=compact,
        gradient=None,
        **kw,
    )
    for i, value in enumerate(y0):
        when = math.log(value / level)
        if min(abs(when), abs(when - 2.0)) < 1e-5:
            continue
        if 0 < when < 2:
            assert int(sol.status[i]) == Status.EVENT
            assert sol.t_events[0][i].tolist() == pytest.approx(
                [sign * when], abs=5e-4 if method == "bosh3" else 1e-7
            )
            torch.testing.assert_close(sol.y_events[0][i], f64(level)[None], rtol=1e-13, atol=0)
            assert sol.y[-1, i].isnan().all()
        else:
            assert int(sol.status[i]) == Status.SUCCESS
            assert sol.t_events[0][i].numel() == 0


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("save", ["times", "steps", "end"])
def test_what_is_saved_ends_with_a_terminal_event(save, stepping):
    sol = turn(
        [Event(first(0)), Event(first(1), terminal=False)], t=(0.0, 0.5, 4.0), save=save, stepping=stepping
    )
    when = times_of(sol)
    assert relative(when, f64(math.pi / 2)) <= 1e-9
    if save == "steps":
        assert torch.equal(sol.t[-1].reshape(1), when)
        assert relative(sol.y[-1, 0], states_of(sol)[0]) <= 1e-15
        assert sol.y.isfinite().all()
        assert (sol.t.reshape(-1).diff() > 0).all()
    else:
        assert sol.y[-1].isnan().all()
        assert len(sol.y) == (1 if save == "end" else 3)


def test_steps_of_several_samples_end_each_with_its_own_event():
    y0 = f64(2.0, 8.0, 0.1)[:, None]
    sol = solve(
        lambda t, y: -y,
        y0,
        f64(0.0, 5.0),
        stepping="per_sample",
        events=Event(lambda t, y: y[:, 0] - 1.0),
        save="steps",
        rtol=1e-8,
    )
    for i, when in enumerate((math.log(2), math.log(8), 5.0)):
        own = ~sol.t[:, i].isnan()
        assert sol.t[own, i][-1].item() == pytest.approx(when, abs=1e-6)
        assert torch.equal(own, ~sol.y[:, i, 0].isnan())
        assert int(own.sum()) == 1 + int(sol.stats.n_accepted[i])


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_watching_does_not_change_the_solution(stepping):
    watched = turn(Event(first(0), terminal=False), t=(0.0, 3.0, 8.0), stepping=stepping)
    plain = turn((), t=(0.0, 3.0, 8.0), stepping=stepping)
    assert torch.equal(watched.y, plain.y)
    assert plain.t_events == plain.y_events == []


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_a_tree_reaches_the_event_in_its_own_structure(stepping):
    y0 = {"a": f64(1.0), "b": f64(0.0, 3.0)[None]}

    def f(t, y):
        return {"a": -y["a"], "b": torch.zeros_like(y["b"])}

    def half(t, y):
        assert t.dim() == (0 if stepping == "shared" else 1)
        return (y["a"] - 0.5 + 0 * t).reshape(t.shape)

    sol = solve(f, y0, f64(0.0, 2.0), events=Event(half), stepping=stepping, rtol=1e-9, atol=1e-12)
    assert relative(times_of(sol), f64(math.log(2))) <= 1e-8
    found = sol.y_events[0] if stepping == "shared" else sol.y_events[0][0]
    assert set(found) == {"a", "b"}
    assert relative(found["a"].reshape(1), f64(0.5)) <= 1e-12
    assert relative(found["b"].reshape(-1), f64(0.0, 3.0)) == 0


@pytest.mark.parametrize("fn", [lambda t, y: y, lambda t, y: 1.0, lambda t, y: None, lambda t, y: y[:, 0]])
def test_what_an_event_function_returns_is_checked(fn):
    y0 = torch.ones(3, 2, dtype=torch.float64)
    with pytest.raises(DynamicsError, match=r"an event's fn returned .*one number, a 0-d tensor"):
        solve(rotation, y0, f64(0.0, 1.0), events=Event(fn))
    if fn(None, y0) is None or not isinstance(fn(None, y0), torch.Tensor) or fn(None, y0).dim() == 2:
        with pytest.raises(DynamicsError, match=r"one number a sample, shape \(3,\)"):
            solve(rotation, y0, f64(0.0, 1.0), events=Event(fn), stepping="per_sample")


def test_events_are_checked_when_made():
    with pytest.raises(ArgumentError, match="direction=2"):
        Event(first(0), direction=2)
    with pytest.raises(ArgumentTypeError, match="callable"):
        Event("y")
    with pytest.raises(ArgumentTypeError, match="events holds"):
        solve(rotation, START, f64(0.0, 1.0), events=[first(0)])


def halved(g, low, high, sign):
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if g(middle) * sign > 0 else (low, middle)
    return high


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.integers(1, GRID // 8),
    st.floats(0.1, 5.0),
    st.sampled_from([1.0, -1.0]),
    st.sampled_from([0.0, 1.0, 1e-9]),
    st.integers(0, 7),
)
def test_the_search_ends_where_halving_ends(root, power, sign, beyond, part):
    """A sign lost once: at a zero of any power, at the edge of a stretch of zeros, at a jump."""
    low = part * (GRID // 8)
    root += low
    looks = []

    def g(q):
        looks.append(q)
        size = ((root - q) / GRID) ** power if q < root else -beyond * ((q - root + 1) / GRID) ** power
        return sign * size

    high = low + GRID // 8
    found = where_lost(g, low, high, g(low), g(high))
    assert len(looks) - 2 <= 53  # halving: 50
    assert found == root == halved(g, low, high, sign)


def test_a_smooth_function_is_looked_at_about_ten_times():
    looks = []

    def g(q):
        looks.append(q)
        return math.cos(1.0 + 2.0 * q / GRID)

    root = where_lost(g, GRID // 4, 3 * GRID // 8, g(GRID // 4), g(3 * GRID // 8))
    assert abs(1.0 + 2.0 * root / GRID - math.pi / 2) <= 4e-16
    assert len(looks) <= 14


@pytest.mark.parametrize("beyond", [math.nan, math.inf, -1.0])
def test_no_number_and_infinity_have_not_the_sign_either(beyond):
    def g(q):
        return 1.0 if q < 12345 else (-beyond if math.isinf(beyond) else beyond)

    assert where_lost(g, 0, GRID, 1.0, -1.0) == 12345


def fired(values, direction):
    """In which part of a step the values at its looks fire."""
    table = f64(*values)[:, None]
    looks = Looks([Event(first(0), direction=direction)], f64(0.0))
    found = [part for part, one in enumerate(looks.fires(table)[:, 0].tolist()) if one]
    assert list(begins([float(value) for value in values], direction)) == found  # with one clock, on the host
    assert not (found and bool(looks.calm(table)[0]))
    return found


NAN = math.nan


@pytest.mark.parametrize(
    ("values", "both", "up", "down"),
    [
        ((1, 1, 1), [], [], []),
        ((1, -1, -1), [0], [], [0]),
        ((-1, -1, 0), [1], [1], []),
        ((1, -1, 0), [0, 1], [1], [0]),
        ((1, 0, -1), [0], [], [0]),
        ((1, 0, 1), [0], [], [0]),
        ((1, 0, 0), [0], [], [0]),
        ((0, 0, 1), [], [], []),
        ((0, 1, -1), [1], [], [1]),
        ((0, 1, 1), [], [], []),
        ((1, -1, 1), [0, 1], [1], [0]),
        ((1, NAN, -1), [1], [], [1]),
        ((NAN, 1, -1), [1], [], [1]),
        ((1, NAN, NAN), [], [], []),
        ((NAN, NAN, -1), [], [], []),
        ((1, NAN, 1), [], [], []),
        ((math.inf, -math.inf, 0), [0, 1], [1], [0]),
    ],
)
def test_what_fires_between_the_looks(values, both, up, down):
    assert fired(values, 0) == both
    assert fired(values, 1) == up
    assert fired(values, -1) == down
    assert numbered(f64(1.0, NAN, NAN, 2.0)).tolist() == [0, 0, 0, 3]


def test_the_sign_that_is_lost_was_last_seen_at_a_number():
    assert begins([1.0, NAN, NAN, -1.0, 1.0], 0) == {2: 0, 3: 3}


def test_the_direct_gradient_sees_the_same_events():
    y0 = START.clone().requires_grad_()
    sol = solve(rotation, y0, f64(0.0, 9.0), events=Event(first(0), terminal=False), gradient=Direct())
    plain = turn(Event(first(0), terminal=False), t=(0.0, 9.0), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(sol.t_events[0].detach(), plain.t_events[0], rtol=1e-12, atol=0)
