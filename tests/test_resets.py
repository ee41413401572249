"""Resets and impulses: values, where they are shown, what is refused. Gradients: test_resets_gradients."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from problems import Swing, f64

import adamode
from adamode import Event, Impulse, Status, solve
from adamode.solvers.errors import ResetError

TIGHT = {"rtol": 1e-10, "atol": 1e-12}
STEPPINGS = ("shared", "per_sample")
GROUPS = pytest.param("groups", marks=pytest.mark.slow)
GRAVITY = 9.81


def fall(t, y):
    """A ball: (height, speed) along the last axis."""
    return torch.stack((y[..., 1], 0.0 * y[..., 1] - GRAVITY), -1)


def height(t, y):
    return y[..., 0]


def bounce(keeps):
    return lambda t, y: torch.stack((y[..., 0], -keeps * y[..., 1]), -1)


def impacts(h, keeps, n, gravity=GRAVITY):
    """Times of the first n impacts of a ball that is let go at height h; differentiable."""
    first = torch.sqrt(2 * h / gravity)
    flights = torch.stack([2 * first * keeps**k for k in range(1, n)])
    return torch.cat((first[None], first + flights.cumsum(0)))


def batched(stepping, *rows):
    return f64(*rows[0]) if stepping == "shared" else torch.stack([f64(*row) for row in rows])


def of_first(stepping, found):
    return found if stepping == "shared" else found[0]


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("direction", [0, pytest.param(-1, marks=pytest.mark.slow)])
def test_fifteen_bounces_are_the_closed_form(stepping, direction):
    exact = impacts(f64(2.0)[0], 0.9, 15)
    y0, t = batched(stepping, (2.0, 0.0), (3.0, 0.0)), torch.linspace(0, float(exact[-1]) + 0.1, 40).double()
    ball = Event(height, direction=direction, reset=bounce(0.9))
    sol = solve(fall, y0, t, events=ball, stepping=stepping, **TIGHT)
    times, before = of_first(stepping, sol.t_events[0])[:15], of_first(stepping, sol.y_events[0])[:15]
    torch.testing.assert_close(times, exact, rtol=0, atol=1e-9)
    speeds = -math.sqrt(2 * GRAVITY * 2.0) * 0.9 ** torch.arange(15).double()
    torch.testing.assert_close(before[:, 1], speeds, rtol=0, atol=1e-9)
    after = of_first(stepping, sol.y_after[0])[:15]
    torch.testing.assert_close(after, torch.stack((before[:, 0], -0.9 * before[:, 1]), -1), rtol=0, atol=0)
    k = torch.searchsorted(exact, t) - 1  # the last impact before each output
    since = t - exact[k]
    up = torch.where(k < 0, 2.0 - 0.5 * GRAVITY * t**2, -0.9 * speeds[k] * since - 0.5 * GRAVITY * since**2)
    shown = sol.y[:, 0] if stepping == "shared" else sol.y[:, 0, 0]
    torch.testing.assert_close(shown, up, rtol=0, atol=1e-9)


def test_repeated_doses_of_a_thousand_samples_at_their_own_times_are_the_closed_form():
    draw = torch.Generator().manual_seed(0)
    times = 10 * torch.rand(1000, 6, generator=draw, dtype=torch.float64)
    times[::3, 4:] = times[::3, 3:4]  # shorter rows repeat a time
    rates, dose = 0.1 + torch.rand(1000, generator=draw, dtype=torch.float64), 1.5
    t = torch.linspace(0, 10, 7, dtype=torch.float64)
    drug = Impulse(times, lambda t, y: y + dose)
    sol = solve(
        *(lambda t, y: -rates * y, torch.ones(1000, dtype=torch.float64), t),
        events=[drug],
        stepping="per_sample",
        gradient=None,
        method="dop853",
        **TIGHT,
    )
    exact = torch.exp(-rates * t[:, None])
    for b, i in itertools.product(range(0, 1000, 37), range(7)):
        own = {float(x) for x in times[b] if x <= t[i]}
        exact[i, b] += sum(dose * math.exp(-float(rates[b]) * (float(t[i]) - x)) for x in own)
    torch.testing.assert_close(sol.y[:, ::37], exact[:, ::37], rtol=0, atol=1e-9)
    assert [len(x) for x in sol.t_events[0]] == [4 if b % 3 == 0 else 6 for b in range(1000)]


def dosed(y0, rate, dose, t, times):
    """y(t) of y' = −rate·y with doses at some times, each counted from its own on in the direction of t."""
    sign = 1.0 if t[-1] >= t[0] else -1.0
    rows = []
    for now in t:
        own = [x for x in times if sign * t[0] <= sign * x <= sign * now]
        rows.append(
            y0 * torch.exp(-rate * (now - t[0])) + sum(dose * torch.exp(-rate * (now - x)) for x in own)
        )
    return torch.stack(rows)


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("save", ["times", "steps", "end"])
def test_impulses_at_the_start_an_output_a_jump_and_the_end_are_shown_after(stepping, backwards, save):
    t, times = f64(0.0, 0.4, 1.0, 1.7, 2.0), f64(1.0, 0.0, 0.55, 2.0, 2.5)
    t = t.flip(0) if backwards else t
    y0 = torch.ones(2, dtype=torch.float64)
    sol = solve(
        *(lambda t, y: -0.7 * y, y0, t),
        events=[Impulse(times, lambda t, y: y + 1.5)],
        stepping=stepping,
        save=save,
        jump_at=[0.55],
        dense=True,
        **TIGHT,
    )
    own = sol.t if save != "end" else t[-1:]
    own = own[:, 0] if own.dim() == 2 else own
    exact = dosed(y0, f64(0.7), f64(1.5), torch.cat((t[:1], own)) if save == "end" else own, times)
    torch.testing.assert_close(sol.y, exact[-len(own) :], rtol=0, atol=1e-9)
    found = sol.t_events[0] if stepping == "shared" else sol.t_events[0][1]
    assert found.tolist() == [2.0, 1.0, 0.55, 0.0][:: 1 if backwards else -1]
    asked = f64(0.0, 0.3, 0.55, 0.8, 1.0, 2.0)
    exact = torch.cat([dosed(y0, f64(0.7), f64(1.5), torch.stack((t[0], x)), times)[1:] for x in asked])
    torch.testing.assert_close(sol(asked), exact, rtol=0, atol=1e-8)
    torch.testing.assert_close(sol.derivative(asked), -0.7 * exact, rtol=0, atol=1e-5)
    if save == "steps":
        assert bool((own.diff() * (own[-1] - own[0]) > 0).all()), "each time once"


def test_each_sample_is_reset_when_it_fires_and_the_others_are_left_alone():
    """Samples that bounce, one that does not fire, one that starts at its end, and one that fails."""
    y0 = torch.stack([f64(2.0, 0.0), f64(1.0, 0.0), f64(90.0, 0.0), f64(3.0, 0.0), f64(math.nan, 0.0)])
    t = torch.stack([f64(0.0, 1.0, 2.0)] * 3 + [f64(1.0, 1.0, 1.0), f64(0.0, 1.0, 2.0)])
    seen = []

    def reset(t, y):
        seen.append((t.shape, y.shape, bool(torch.isfinite(y).all())))
        y[:, 1] *= -0.8  # what a reset gets is its own
        return y

    sol = solve(fall, y0, t, events=Event(height, reset=reset), stepping="per_sample", trace=True, **TIGHT)
    assert sol.status.tolist() == [Status.SUCCESS] * 4 + [Status.NON_FINITE]
    assert set(seen) == {((5, 1), (5, 2), True)}
    for b, h in enumerate((2.0, 1.0)):
        exact = impacts(f64(h)[0], 0.8, 8)
        exact = exact[exact < 2.0]
        torch.testing.assert_close(sol.t_events[0][b], exact, rtol=0, atol=1e-9)
        torch.testing.assert_close(sol.y_after[0][b][:, 1], -0.8 * sol.y_events[0][b][:, 1], rtol=0, atol=0)
    assert [len(x) for x in sol.t_events[0][2:]] == [0, 0, 0]
    torch.testing.assert_close(sol.y[-1, 2], f64(90.0 - 2 * GRAVITY, -2 * GRAVITY), rtol=0, atol=1e-9)
    assert sol.y[:, 3].tolist() == [[3.0, 0.0]] * 3
    assert bool(sol.y[1:, 4].isnan().all())
    alone = solve(fall, y0[2:3], t[2:3], stepping="per_sample", events=Event(height), **TIGHT)
    assert sol.stats.nfe[2] == alone.stats.nfe[0], "a sample that is done costs nothing more"
    assert len(sol.trace) == int(sol.stats.n_steps.sum())
    rows = [row for row in sol.trace if row.sample == 0]
    assert all(a.nfe < b.nfe for a, b in itertools.pairwise(rows))
    assert rows[-1].nfe <= int(sol.stats.nfe[0])


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_watched_and_terminal_events_resets_and_impulses_in_one_list(stepping):
    """y' = 1: watched at 0.5, back to 0.2 at 1, +0.25 at t = 0.3, the end where t is 2."""
    one = (lambda y: y[0]) if stepping == "shared" else (lambda y: y[:, 0])
    events = [
        Event(lambda t, y: one(y) - 0.5, terminal=False),
        Event(lambda t, y: one(y) - 1.0, reset=lambda t, y: 0 * y + 0.2),
        Impulse([0.3], lambda t, y: y + 0.25),
        Event(lambda t, y: one(y) * 0 + (t.reshape(-1) - 2.0)[0 if stepping == "shared" else slice(None)]),
    ]
    y0 = f64(0.1) if stepping == "shared" else f64(0.1)[None]
    sol = solve(lambda t, y: torch.ones_like(y), y0, f64(0.0, 1.0, 3.0), events=events, stepping=stepping)
    pick = lambda found: found if stepping == "shared" else [x[0] for x in found]  # noqa: E731
    assert (sol.status if stepping == "shared" else sol.status[0]) == Status.EVENT
    expected = [[0.95, 1.75], [0.65, 1.45], [0.3], [2.0]]  # the dose jumps over 0.5, which is no crossing
    for found, exact in zip(pick(sol.t_events), expected, strict=True):
        torch.testing.assert_close(found, f64(*exact), rtol=0, atol=1e-12)
    after = [[0.5, 0.5], [0.2, 0.2], [0.65], [0.75]]
    for found, exact in zip(pick(sol.y_after), after, strict=True):
        torch.testing.assert_close(found[:, 0], f64(*exact), rtol=0, atol=1e-12)
    y = sol.y.reshape(3)
    torch.testing.assert_close(y[:2], f64(0.1, 0.55), rtol=0, atol=1e-12)
    assert y[2].isnan()


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_two_resets_at_one_time_are_applied_in_the_order_of_the_list(stepping):
    half = (lambda t, y: t - 0.5) if stepping == "shared" else (lambda t, y: t[:, 0] - 0.5)
    events = [
        Event(half, reset=lambda t, y: y - 0.5),
        Event(half, reset=lambda t, y: 10 * y),
        Impulse([0.5], lambda t, y: y + 1.0),
        Impulse([0.5, 0.5], lambda t, y: 2 * y),
    ]
    y0 = f64(0.5) if stepping == "shared" else f64(0.5)[None]
    sol = solve(lambda t, y: torch.ones_like(y), y0, f64(0.0, 0.5, 1.0), events=events, stepping=stepping)
    torch.testing.assert_close(sol.y.reshape(3), f64(0.5, 12.0, 12.5), rtol=0, atol=1e-12)
    before = [found if stepping == "shared" else found[0] for found in sol.y_events]
    torch.testing.assert_close(torch.cat(before)[:, 0], f64(1.0, 0.5, 5.0, 6.0), rtol=0, atol=1e-12)


STATES = {
    "pytree": (
        lambda t, y: {"x": -y["x"], "n": 0 * y["n"]},
        {"x": torch.ones(3, 2, dtype=torch.float64), "n": torch.zeros(3, dtype=torch.float64)},
        lambda t, y: {"n": y["n"] + 1, "x": y["x"] + t},
        lambda y: torch.cat((y["x"], y["n"][:, None]), 1),
        f64(math.exp(-2) + 0.5 * math.exp(-1.5), math.exp(-2) + 0.5 * math.exp(-1.5), 1.0),
    ),
    "complex": (
        lambda t, y: 1j * y,
        torch.ones(3, 1, dtype=torch.complex128),
        lambda t, y: 2j * y,
        lambda y: torch.view_as_real(y[:, 0]),
        torch.view_as_real(2j * torch.exp(torch.tensor(2j, dtype=torch.complex128))),
    ),
    "float32": (
        lambda t, y: -y,
        torch.ones(3, 1),
        lambda t, y: y + 1,
        lambda y: y,
        torch.tensor([math.exp(-2) + math.exp(-1.5)]),
    ),
    "bfloat16": (
        lambda t, y: 0 * y,
        torch.ones(3, 1, dtype=torch.bfloat16),
        lambda t, y: y + 1,
        lambda y: y,
        torch.tensor([2.0], dtype=torch.bfloat16),
    ),
}


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("state", STATES)
def test_the_reset_gets_and_gives_the_users_structure_and_dtype(stepping, state):
    func, y0, reset, read, exact = STATES[state]
    double = exact.dtype == torch.float64
    loose = {"rtol": 1e-10, "atol": 1e-12} if double else {"rtol": 1e-5, "atol": 1e-6}
    if state == "bfloat16":
        loose = {"method": "rk4", "dt": 0.25}
    sol = solve(func, y0, f64(0.0, 2.0), events=Impulse([0.5], reset), stepping=stepping, **loose)
    end = read(torch.utils._pytree.tree_map(lambda x: x[-1], sol.y))
    assert end.dtype == exact.dtype
    torch.testing.assert_close(end, exact.expand_as(end), rtol=0, atol=1e-8 if double else 1e-5)


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_a_dynamics_is_reset_with_its_blocks(stepping):
    swing, y0 = Swing(), torch.linspace(-1, 1, 12, dtype=torch.float64).view(2, 2, 3)
    options = {"stepping": stepping, **TIGHT}
    sol = solve(swing, y0, f64(0.0, 1.0), events=Impulse([0.4], lambda t, z: z.flip(0) * (1 + t)), **options)
    half = solve(swing, y0, f64(0.0, 0.4), **options).y[-1]
    torch.testing.assert_close(
        *(sol.y[-1], solve(swing, half.flip(0) * 1.4, f64(0.4, 1.0), **options).y[-1]), rtol=0, atol=1e-8
    )


METHODS = [
    {"method": "rk4", "dt": 0.05},
    {"method": "radau5"},
    {"method": "kvaerno5"},
    {"method": "rodas5p"},
    {"method": "auto"},
    {"method": "dop853"},
    {"method": "alf", "gradient": None, "dt": 0.01},
]


@pytest.mark.parametrize("stepping", [*STEPPINGS, GROUPS])
@pytest.mark.parametrize("options", METHODS, ids=lambda x: x["method"])
def test_every_kind_of_method_fires_again_and_again(stepping, options):
    """Integrate and fire, y' = 1.5 − y/0.8: back to 0.1 at 0.9."""
    many = stepping != "shared"
    y0 = f64(0.0, 0.3)[:, None] if many else f64(0.0)
    fire = Event(lambda t, y: (y[:, 0] if many else y[0]) - 0.9, direction=1, reset=lambda t, y: 0 * y + 0.1)
    steps = torch.tensor([5, 5]) if stepping == "groups" else stepping
    options = {"rtol": 1e-6, "atol": 1e-8, **options}
    sol = solve(lambda t, y: 1.5 - y / 0.8, y0, f64(0.0, 2.5), events=fire, stepping=steps, **options)
    for b, start in enumerate((0.0, 0.3) if many else (0.0,)):
        first, period = (0.8 * math.log((1.2 - x) / 0.3) for x in (start, 0.1))
        exact = first + period * torch.arange(10).double()
        found = sol.t_events[0][b] if many else sol.t_events[0]
        torch.testing.assert_close(found, exact[exact < 2.5], rtol=0, atol=2e-4)


def test_in_decreasing_time_a_reset_is_applied_as_it_is_met():
    fire = Event(lambda t, y: y[0] - 2.0, direction=1, reset=lambda t, y: 0.5 * y)
    sol = solve(lambda t, y: -y, f64(1.0), f64(0.0, -2.0), events=fire, **TIGHT)
    log2 = math.log(2.0)
    torch.testing.assert_close(sol.t_events[0], f64(-log2, -2 * log2), rtol=0, atol=1e-10)
    torch.testing.assert_close(sol.y[-1], f64(math.exp(2) / 4), rtol=0, atol=1e-9)


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_an_event_that_goes_on_through_its_threshold_fires_once(stepping):
    """A ball that enters water is slowed down; an event of the time alone; one that jumps far past."""
    y0 = batched(stepping, (1.0, 0.0), (2.0, 0.0))
    enters = Event(height, reset=lambda t, y: y * f64(1.0, 0.5))
    at = Event(lambda t, y: (t - 0.7).reshape(y[..., 0].shape), reset=lambda t, y: y + 0.25)
    far = Event(lambda t, y: y[..., 1] + 1.0, reset=lambda t, y: y - f64(0.0, 3.0))
    sol = solve(fall, y0, f64(0.0, 3.0), events=[enters, at, far], stepping=stepping, **TIGHT)
    assert [len(of_first(stepping, found)) for found in sol.t_events] == [1, 1, 1]


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("direction", [0, pytest.param(-1, marks=pytest.mark.slow)])
def test_a_ball_that_never_comes_to_rest_ends_in_an_error_that_says_so(stepping, direction):
    """With loose tolerances too, where a step is far longer than the last bounces."""
    y0 = batched(stepping, (90.0, 0.0), (2.0, 0.0))
    t = f64(0.0, 2.2) if stepping == "per_sample" else f64(0.0, 15.0)
    ball = Event(height, direction=direction, reset=bounce(0.5))
    with pytest.raises(ResetError, match=r"events\[0\].*without end.*Zeno.*End the solve") as caught:
        solve(fall, y0, t, events=ball, stepping=stepping)
    h = 2.0 if stepping == "per_sample" else 90.0
    assert caught.value.t == pytest.approx(3 * math.sqrt(2 * h / GRAVITY), rel=1e-6)
    assert isinstance(caught.value, adamode.SolverError)
    assert ("sample 1" in str(caught.value)) == (stepping == "per_sample")
    assert caught.value.stats.n_accepted is not None


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("direction", [0, -1])
@pytest.mark.parametrize("left", ["as it was", "at rest, but not held", "before the threshold"])
def test_an_event_that_fires_again_at_once_is_an_error(stepping, direction, left):
    reset = {
        "as it was": lambda t, y: y,
        "at rest, but not held": lambda t, y: y * f64(1.0, 0.0),
        "before the threshold": lambda t, y: 0 * y + f64(1e-20, -1.0),
    }[left]
    y0 = batched(stepping, (90.0, 0.0), (2.0, 0.0))
    t = f64(0.0, 1.0) if stepping == "per_sample" else f64(0.0, 15.0)
    with pytest.raises(
        ResetError, match=r"events\[0\].*fires? again at once.*at t=.*Let the reset"
    ) as caught:
        solve(fall, y0, t, events=Event(height, direction=direction, reset=reset), stepping=stepping)
    assert ("sample 1" in str(caught.value)) == (stepping == "per_sample")


def test_a_mode_in_which_it_rests_is_the_way_out():
    def func(t, y):  # height, speed, whether it still moves
        return torch.stack((y[1], -GRAVITY + 0 * y[1], 0 * y[2])) * y[2]

    def reset(t, y):
        slow = (y[1].abs() < 0.5).to(y.dtype)
        return torch.stack((y[0], -(1 - slow) * 0.5 * y[1], y[2] * (1 - slow)))

    sol = solve(func, f64(2.0, 0.0, 1.0), f64(0.0, 10.0), events=Event(lambda t, y: y[0], reset=reset))
    assert len(sol.t_events[0]) == 5
    torch.testing.assert_close(sol.y[-1], f64(0.0, 0.0, 0.0), rtol=0, atol=1e-6)


WRONG = {
    "shape": (lambda t, y: y[..., :1], "returned shape"),
    "dtype": (lambda t, y: y.float(), "returned dtype torch.float32"),
    "structure": (lambda t, y: (y, y), "returned a tuple"),
    "nothing": (lambda t, y: None, "returned a NoneType"),
    "a number": (lambda t, y: 1.0, "returned a float"),
    "NaN": (lambda t, y: y * math.nan, r"returned NaN or infinity.* at t=0\.6385"),
}


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("what", WRONG)
def test_what_a_reset_returns_is_checked(stepping, what):
    reset, said = WRONG[what]
    y0 = batched(stepping, (90.0, 0.0), (2.0, 0.0)) if stepping == "per_sample" else f64(2.0, 0.0)
    events = [Event(lambda t, y: y[..., 1] - 9.0, terminal=False), Event(height, reset=reset)]
    with pytest.raises(adamode.DynamicsError, match=r"events\[1\] \(Event\) " + said) as caught:
        solve(fall, y0, f64(0.0, 1.0), events=events, stepping=stepping)
    if what == "NaN":
        assert ("sample 1" in str(caught.value)) == (stepping == "per_sample")


def test_bad_arguments_are_refused_at_the_door():
    def run(event, **options):
        solve(lambda t, y: -y, torch.ones(2, 1), torch.tensor([0.0, 1.0]), events=event, **options)

    same = lambda t, y: y  # noqa: E731
    with pytest.raises(adamode.ArgumentError, match="terminal=True with a reset"):
        Event(height, terminal=True, reset=same)
    with pytest.raises(adamode.ArgumentTypeError, match="reset=3 must be callable"):
        Event(height, reset=3)
    with pytest.raises(adamode.ArgumentTypeError, match="reset=None must be callable"):
        Impulse([1.0], None)
    with pytest.raises(adamode.ArgumentTypeError, match="must be a tensor or a list"):
        Impulse("now", same)
    with pytest.raises(adamode.ArgumentTypeError, match="must be floating point"):
        Impulse(torch.tensor([1]), same)
    with pytest.raises(adamode.ArgumentError, match="NaN"):
        run(Impulse([math.nan], same))
    with pytest.raises(adamode.ArgumentError, match=r"shape \(2, 1\).*per_sample"):
        run(Impulse(torch.zeros(2, 1), same))
    with pytest.raises(adamode.ArgumentError, match=r"shape \(3, 1\).*B=2"):
        run(Impulse(torch.zeros(3, 1), same), stepping="per_sample")
    with pytest.raises(adamode.ArgumentError, match=r"Reversible\(\) with a reset.*Discrete"):
        run(Impulse([0.5], same), gradient=adamode.Reversible())
    with pytest.raises(adamode.ArgumentTypeError, match=r"Event\(fn, …\) and adamode.Impulse"):
        run(lambda t, y: y)
    assert Event(height).terminal
    assert not Event(height, reset=same).terminal


def test_max_steps_is_a_limit_on_the_whole_solve():
    ball, t = Event(height, reset=bounce(0.9)), f64(0.0, 3.0)
    n = solve(fall, f64(2.0, 0.0), t, events=ball).stats.n_steps
    assert solve(fall, f64(2.0, 0.0), t, events=ball, max_steps=n).status == Status.SUCCESS
    with pytest.raises(adamode.SolverError, match=r"MAX_STEPS.*resets") as caught:
        solve(fall, f64(2.0, 0.0), t, events=ball, max_steps=n - 1, trace=True)
    assert caught.value.stats.n_steps == n - 1 == len(caught.value.trace)
    y0 = torch.stack((f64(2.0, 0.0), f64(200.0, 0.0)))
    sol = solve(fall, y0, t, events=ball, max_steps=n - 1, stepping="per_sample")
    assert sol.status.tolist() == [Status.MAX_STEPS, Status.SUCCESS]
    assert bool(sol.y[-1, 0].isnan().all())


def test_a_solve_whose_resets_never_fire_takes_the_steps_of_one_with_events_alone():
    y0, t = f64(2.0, 0.0), f64(0.0, 0.3, 0.6)
    with_reset = solve(fall, y0, t, events=Event(height, reset=bounce(0.9)))
    without = solve(fall, y0, t, events=Event(height))
    assert with_reset.stats.nfe == without.stats.nfe
    assert torch.equal(with_reset.y, without.y)


def test_the_pages_examples_do_what_it_says():
    page = (Path(__file__).resolve().parent.parent / "docs" / "resets.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(blocks[0], names)
    keeps = f64(0.9)[0].requires_grad_()
    exact = impacts(f64(10.0)[0], keeps, len(names["sol"].t_events[0]), 9.8)
    (slope,) = torch.autograd.grad(exact[-1], keeps)
    torch.testing.assert_close(names["sol"].t_events[0].double(), exact.detach(), rtol=1e-5, atol=0)
    assert names["slope"].item() == pytest.approx(slope.item(), rel=1e-4)
    for block in blocks[1:]:
        exec(block, names)
    assert names["levels"].shape == (25, 1000)
    assert names["threshold"].grad > 0
    assert len(names["sol"].t_events[0]) == 5
