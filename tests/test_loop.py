"""The loop of shared stepping, driven by a scripted stepper and controller: times and counts, no numerics."""

import itertools
import math

import pytest
from scripted import ScriptedController, ScriptedStepper

from adamode.solvers.march.host import Stats, Stop, march, march_grid
from adamode.solvers.status import Status
from adamode.solvers.step.controller import Pace, shortest_step


def drive(script="", *, dt=0.25, t0=0.0, stops=(1.0,), max_steps=100, on_accept=None, **controller):
    stepper, stats, taken = ScriptedStepper(script), Stats(), []
    stops = [s if isinstance(s, Stop) else Stop(s) for s in stops]
    rejected, proposals = [], []
    made = ScriptedController(**controller)

    def accept(step):
        taken.append((step.t0, step.t1))
        return on_accept(step) if on_accept else None

    def attempted(step, accepted, proposed):
        proposals.append(proposed)
        if not accepted:
            rejected.append(step.t1)

    outcome = march(stepper, Pace(made, dt, max_steps), t0, stops, stats, accept, attempted)
    stepper.rejected, stepper.controller, stepper.proposals = rejected, made, proposals
    return stepper, stats, taken, outcome


def test_accepted_steps_follow_each_other_to_the_end():
    _, stats, taken, outcome = drive()
    assert taken == [(0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0)]
    assert (stats.n_accepted, stats.n_rejected, stats.n_steps) == (4, 0, 4)
    assert outcome.status is Status.SUCCESS
    assert outcome.t == 1.0


def test_rejected_attempts_are_repeated_from_the_same_time_and_counted():
    stepper, stats, taken, _ = drive("+--+-")
    # 0→.25, then .25→.5, →.375, →.3125 accepted, →.375 rejected, →.34375 accepted, then on by 1/32
    assert stepper.attempts[:6] == [
        (0.0, 0.25),
        (0.25, 0.5),
        (0.25, 0.375),
        (0.25, 0.3125),
        (0.3125, 0.375),
        (0.3125, 0.34375),
    ]
    assert stepper.rejected == [0.5, 0.375, 0.375]
    assert stepper.proposals[:6] == [0.25, 0.125, 0.0625, 0.0625, 0.03125, 0.03125]
    assert len(stepper.proposals) == stats.n_steps
    assert stats.n_rejected == 3
    assert stats.n_accepted == len(taken) == 2 + (1 - 0.34375) / 0.03125 + 1
    assert all(a[1] == b[0] for a, b in itertools.pairwise(taken))
    assert taken[-1][1] == 1.0


@pytest.mark.parametrize("direction", [1.0, -1.0])
@pytest.mark.parametrize("dt", [0.3, 0.1, 1 / 3, 0.7, 5.0])
def test_the_end_is_hit_exactly_and_never_passed(dt, direction):
    end = 1.1 * direction
    stepper, _, taken, outcome = drive(dt=dt, stops=(end,))
    assert taken[-1][1] == end == outcome.t
    assert all(abs(t1) <= abs(end) for _, t1 in stepper.attempts)
    assert all((t1 - t0) * direction > 0 for t0, t1 in taken)


def test_a_step_that_would_leave_a_sliver_is_stretched_to_the_end():
    stepper, *_ = drive(dt=0.9995)
    assert stepper.attempts == [(0.0, 1.0)]


def test_a_step_cut_short_does_not_shorten_the_ones_after_it():
    stepper, *_ = drive(dt=0.25, stops=(0.5, 0.51, 2.0))
    assert stepper.attempts[:4] == [(0.0, 0.25), (0.25, 0.5), (0.5, 0.51), (0.51, 0.76)]


def test_an_ulp_does_not_make_a_whole_step_one_cut_short():
    """(t + dt) − t is rounded: the controller's factor must be believed all the same."""
    stepper, *_ = drive(t0=0.6, dt=0.1, stops=(1.6,), accepted=[0.5])
    assert (0.6 + 0.1) - 0.6 < 0.1
    assert stepper.attempts[1] == (0.6 + 0.1, pytest.approx(0.75))


def test_step_at_times_are_ended_on_without_a_new_first_stage():
    stepper, _, taken, _ = drive(dt=0.25, stops=(0.3, 1.0))
    assert 0.3 in [t1 for _, t1 in taken]
    assert [e for e in stepper.log if e[0] == "restart"] == []
    assert not any(e[3] for e in stepper.log if e[0] == "attempt")


def test_a_jump_is_approached_from_its_left_and_left_with_a_new_first_stage():
    stepper, *_ = drive(dt=0.25, stops=(Stop(0.5, jump=True), Stop(1.0)))
    assert [e[:4] for e in stepper.log if e[0] == "attempt" and e[3]] == [("attempt", 0.25, 0.5, True)]
    where = stepper.log.index(("restart", 0.5, True))
    assert stepper.log[where - 1] == ("accept", 0.5)
    assert stepper.log[where + 1][:3] == ("attempt", 0.5, 0.75)


def test_a_jump_at_the_end_asks_for_no_first_stage_behind_it():
    stepper, *_ = drive(stops=(Stop(1.0, jump=True),))
    assert not any(e[0] == "restart" for e in stepper.log)
    assert stepper.log[-2][:4] == ("attempt", 0.75, 1.0, True)


def test_the_step_is_accepted_only_after_the_hook_has_seen_it():
    order = []
    stepper = ScriptedStepper()
    stepper.accept = lambda step: order.append("accept")
    march(
        stepper,
        Pace(ScriptedController(), 1.0, 9),
        0.0,
        [Stop(1.0)],
        Stats(),
        lambda s: order.append("hook"),
    )
    assert order == ["hook", "accept"]


def test_a_hook_that_returns_true_ends_the_solve_there():
    _, stats, _, outcome = drive(on_accept=lambda step: step.t1 >= 0.5)
    assert outcome.status is Status.EVENT
    assert (outcome.t, stats.n_accepted) == (0.5, 2)


def test_the_step_limit_counts_attempts_and_stops_before_the_next():
    stepper, stats, _, outcome = drive("-+-+-+-+", max_steps=5)
    assert outcome.status is Status.MAX_STEPS
    assert stats.n_steps == len(stepper.attempts) == 5
    assert (stats.n_accepted, stats.n_rejected) == (2, 3)


def test_a_step_limit_that_just_suffices_is_success():
    assert drive(max_steps=4)[3].status is Status.SUCCESS
    assert drive(max_steps=3)[3].status is Status.MAX_STEPS


def test_a_nan_error_ratio_is_a_rejection():
    """Python's max(0, nan) is 0: a NaN read as "perfect" is how a silent NaN gradient is made."""
    _, stats, taken, _ = drive("n")
    assert stats.n_rejected == 1
    assert taken[0] == (0.0, 0.125)


def test_a_non_finite_stage_is_a_rejection_whatever_its_error_ratio():
    stepper = ScriptedStepper()
    first = True

    def attempt(t0, t1, **_):
        nonlocal first
        step = ScriptedStepper().attempt(t0, t1)
        step.error_ratio, step.finite, first = 0.0, not first, False
        return step

    stepper.attempt = attempt
    stats = Stats()
    march(stepper, Pace(ScriptedController(), 0.5, 99), 0.0, [Stop(1.0)], stats, lambda s: None)
    assert stats.n_rejected == 1


@pytest.mark.parametrize(("letter", "status"), [("-", Status.STEP_UNDERFLOW), ("x", Status.NON_FINITE)])
@pytest.mark.parametrize("t0", [0.0, 1e6])
def test_rejections_without_end_are_a_status_that_says_why(letter, status, t0):
    stepper, stats, taken, outcome = drive(letter * 10_000, t0=t0, stops=(t0 + 1.0,), max_steps=10**6)
    assert outcome.status is status
    assert outcome.t == t0
    assert taken == []
    assert stats.n_rejected < 110  # 2^-67 = 7e-21 of the interval at t = 0
    assert all(t1 != t0 for _, t1 in stepper.attempts)


def test_the_last_rejections_decide_which_failure_it_is():
    assert drive("x" + "-" * 200, max_steps=10**6)[3].status is Status.STEP_UNDERFLOW
    assert drive("-" + "x" * 200, max_steps=10**6)[3].status is Status.NON_FINITE


def test_dt_min_ends_the_solve_unless_steps_are_forced():
    assert drive("-" * 50, dt_min=0.1)[3].status is Status.STEP_UNDERFLOW
    _, stats, taken, outcome = drive("-" * 50, dt_min=0.1, force_dt_min=True)
    assert outcome.status is Status.SUCCESS
    assert taken[0][1] == pytest.approx(0.1)
    assert stats.n_accepted == 10


def test_a_forced_step_still_needs_finite_stages():
    assert drive("x" * 300, dt_min=0.1, force_dt_min=True)[3].status is Status.NON_FINITE


def test_dt_max_limits_the_first_and_every_later_step():
    stepper, *_ = drive(dt=5.0, accepted=[10.0] * 9, dt_max=0.2, stops=(1.0,))
    assert max(t1 - t0 for t0, t1 in stepper.attempts) <= 0.2 * 1.002
    assert len(stepper.attempts) == 5


def test_the_controller_sees_the_ratios_before_and_whether_a_rejection_came_last():
    stepper, *_ = drive("++-+0", dt=0.125)
    asked = stepper.controller.asked
    none = pytest.approx(math.nan, nan_ok=True)
    assert asked[0] == ("accepted", 0.5, none, none, 5, False)
    assert asked[1] == ("accepted", 0.5, 0.5, none, 5, False)
    assert asked[2] == ("rejected", 2.0, 5)
    assert asked[3] == ("accepted", 0.5, 0.5, 0.5, 5, True)
    assert asked[4] == ("accepted", 0.0, 0.5, 0.5, 5, False)


def test_the_controller_is_told_nan_for_a_non_finite_step():
    stepper, *_ = drive("x")
    kind, ratio, _ = stepper.controller.asked[0]
    assert kind == "rejected"
    assert math.isnan(ratio)


def test_the_ratios_before_a_jump_do_not_steer_the_steps_after_it():
    stepper, *_ = drive(dt=0.25, stops=(Stop(0.5, jump=True), Stop(1.0)))
    accepted = [a for a in stepper.controller.asked if a[0] == "accepted"]
    none = pytest.approx(math.nan, nan_ok=True)
    assert accepted[1][2:4] == (0.5, none)
    assert accepted[2][2:4] == (none, none)


def test_first_and_last_step_sizes_are_reported():
    _, stats, _, outcome = drive(dt=0.25, accepted=[2.0])
    assert stats.dt_first == 0.25
    assert outcome.dt == 0.5  # what would be tried next, not the piece left at the end


def test_a_fixed_grid_is_stepped_along_without_a_rejection():
    stepper, stats, seen = ScriptedStepper("---"), Stats(), []
    outcome = march_grid(stepper, [0.0, 0.5, 0.7, 1.0], stats, lambda s: seen.append((s.t0, s.t1)))
    assert seen == [(0.0, 0.5), (0.5, 0.7), (0.7, 1.0)]
    assert (stats.n_accepted, stats.n_rejected, outcome.status) == (3, 0, Status.SUCCESS)
    assert [e[4] for e in stepper.log if e[0] == "attempt"] == [True, True, False]


def test_a_perturbed_grid_begins_every_step_with_a_first_stage_of_its_own():
    stepper = ScriptedStepper()
    march_grid(stepper, [0.0, 0.5, 1.0], Stats(), lambda s: None, perturb=True)
    assert [e for e in stepper.log if e[0] == "restart"] == [("restart", 0.5, True)]
    assert all(e[3] for e in stepper.log if e[0] == "attempt")


def test_the_shortest_step_is_above_the_spacing_of_times():
    for t in (0.0, 1e-300, 1.0, -3e5):
        low = shortest_step(t, 1.0, 0.0)
        assert t + low != t
    assert shortest_step(1.0, 1.0, 0.25) == 0.25
