"""An attempt decided in tensors, and the march on Python floats, take the same steps one by one."""

import functools
import importlib
import math

import pytest
import torch
from problems import f64, quench, top

from adamode import solve
from adamode.solvers.device.programs import Row, row_at, row_of
from adamode.solvers.march import clocked
from adamode.solvers.march.host import Judge, RungeKuttaStepper, Stop, march
from adamode.solvers.methods import METHODS
from adamode.solvers.stats import Stats
from adamode.solvers.status import Status
from adamode.solvers.step import attempt as attempts
from adamode.solvers.step import controller as control
from adamode.solvers.step.attempt import Here, Limits, Rules, attempt, clock_at, least_of_span
from adamode.solvers.step.clocks import ONE, Tolerance, rms
from adamode.solvers.step.controller import PI, PID, PRESETS, I, Pace
from adamode.solvers.step.runge_kutta import StageBuffer

METHOD_NAMES = ["dopri5", "tsit5", "bosh3", "dop853"]
MOST = 400  # attempts, in case a march gets nowhere


def field_of(f):
    return lambda t, z: (f(t, z), None)


def on_the_host(f, y0, t0, stops, tableau, tolerance, controller, dt0):
    """(accepted, t after the attempt, |dt| to try next) of each attempt, and how the march ended."""
    rows = []
    stepper = RungeKuttaStepper(
        field_of(f), tableau, y0, Judge(tolerance, rms), direction=math.copysign(1.0, stops[-1] - t0)
    )
    stepper.restart(t0)
    pace = Pace(controller, dt0, MOST)

    def seen(step, accepted, dt_next):
        rows.append((accepted, step.t1 if accepted else step.t0, dt_next))

    outcome = march(stepper, pace, t0, [Stop(t) for t in stops], Stats(), lambda step: None, seen)
    return rows, outcome.status


def in_tensors(f, y0, t0, stops, tableau, tolerance, controller, dt0, spoilt=lambda clock: clock):
    """The same by `attempt`. spoilt: what is done to the clock after each attempt."""
    numeric = tableau.numeric(y0.dtype, y0.device)
    rules = Rules(tableau, numeric, rms, controller, ONE, MOST)
    first = min(dt0, controller.dt_max)  # as whoever chooses the first step does
    start, dt, *left = torch.tensor([t0, first, *stops], dtype=torch.float64).unbind()
    field, end, rows = field_of(f), left[-1], []
    here = Here(clock_at(start, dt), y0, f(start, y0))
    direction, least = torch.sign(end - start), least_of_span((end - start).abs())
    while bool(here.clock.running):
        limits = Limits(left[0], end, direction, least)
        make = lambda dt, like=here.y: StageBuffer(numeric, like, dt)  # noqa: E731
        tried, after = attempt(rules, field, limits, tolerance, here, make)
        here = after._replace(clock=spoilt(after.clock))
        if bool(tried.tried):
            rows.append((bool(tried.accepted), float(here.clock.t), float(here.clock.dt)))
        if float(here.clock.t) == float(left[0]) and len(left) > 1:
            left.pop(0)
    return rows, Status(int(here.clock.status))


def compare(one, other):
    (rows, status), (others, their_status) = one, other
    assert [row[0] for row in rows] == [row[0] for row in others]
    for k, name in ((1, "t"), (2, "|dt|")):
        # A rounding or two a step: powers in float64 on the host and in tensors differ by one.
        assert [row[k] for row in others] == pytest.approx([row[k] for row in rows], rel=1e-12, abs=0), name
    assert status == their_status


def hole(t, y):
    """y' = 30 (1 − y), and NaN where only the stages of too long steps come."""
    return torch.where(y < 0.5, math.nan, 30.0 * (1.0 - y))


def jump(t, y):
    """f jumps at 0.3, by so much that no step longer than 1e-4 passes there."""
    return torch.where(t > 0.3, 50.0, 0.0) - y


def turned(problem):
    """The same problem the other way in time."""
    f, y0, t0, stops, tolerance, controller, dt0, needs = problem
    mirrored = lambda t, y: -f(-t, y)  # noqa: E731
    return mirrored, y0, -t0, [-t for t in stops], tolerance, controller, dt0, needs


START, LOOSE = f64(1.0, 0.5, 0.9), Tolerance(1e-4, 1e-6)
# f, y0, t0, stops, tolerance, controller, dt0, what must happen
PROBLEMS = {
    "rejections": (top, START, 0.0, [6.0], Tolerance(1e-6, 1e-8), PID(), 6.0, "rejected"),
    "rejections with I": (top, START, 0.0, [6.0], Tolerance(1e-6, 1e-8), I(), 6.0, "rejected"),
    "rejections with PI": (top, START, 0.0, [6.0], Tolerance(1e-6, 1e-8), PI(), 6.0, "rejected"),
    "a stage that is NaN": (hole, f64(3.0), 0.0, [1.0], LOOSE, PID(), 1.0, "rejected"),
    "a stiff start": (quench, f64(1.0), 0.0, [1.0], LOOSE, PID(), 1.0, "rejected"),
    "stops to cut on": (top, START, 0.0, [0.37, 1.9, 1.9000001, 4.0], LOOSE, PID(), 0.5, "stops"),
    "dt_max": (top, START, 0.0, [4.0], LOOSE, PID(dt_max=0.11), 0.5, "accepted"),
    "force_dt_min": (jump, START, 0.0, [1.0], LOOSE, PID(dt_min=2e-3, force_dt_min=True), 0.5, "forced"),
    "dt_min": (jump, START, 0.0, [1.0], LOOSE, PID(dt_min=2e-3), 0.5, "STEP_UNDERFLOW"),
    "never finite": (lambda t, y: y * math.nan, START, 0.0, [1.0], LOOSE, PID(), 0.5, "NON_FINITE"),
    "blow-up": (lambda t, y: y * y, f64(1.0), 0.0, [2.0], LOOSE, PID(), 0.1, "rejected"),
    "a start far from 0": (top, START, 100.0, [101.0, 103.0], LOOSE, PID(), 0.1, "accepted"),
}


def happened(needs, rows, status, problem):
    """Whether the problem brought about what it is there for."""
    stops, controller = problem[3], problem[5]
    return {
        "rejected": lambda: not all(row[0] for row in rows),
        "accepted": lambda: any(row[0] for row in rows),
        "stops": lambda: set(stops) <= {row[1] for row in rows},
        "forced": lambda: status == Status.SUCCESS and any(row[2] < controller.dt_min for row in rows),
    }.get(needs, lambda: status.name == needs)()


@pytest.mark.parametrize("way", ["forwards", "backwards"])
@pytest.mark.parametrize("method", METHOD_NAMES)
@pytest.mark.parametrize("name", PROBLEMS)
def test_attempts_in_tensors_are_those_of_the_march_on_the_host(name, method, way):
    problem = PROBLEMS[name] if way == "forwards" else turned(PROBLEMS[name])
    f, y0, t0, stops, tolerance, controller, dt0, needs = problem
    arguments = (f, y0, t0, stops, METHODS[method], tolerance, controller, dt0)
    host = on_the_host(*arguments)
    compare(host, in_tensors(*arguments))
    assert happened(needs, *host, problem)


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda clock: clock._replace(dt=clock.dt * (1 + 1e-9)),
        lambda clock: clock._replace(e2=torch.ones_like(clock.e2)),
        lambda clock: clock._replace(after_rejection=torch.zeros_like(clock.after_rejection)),
    ],
    ids=["dt", "e2", "after_rejection"],
)
def test_a_march_that_decides_otherwise_is_seen(spoilt):
    f, y0, t0, stops, tolerance, _, dt0, _ = PROBLEMS["dt_min"]
    arguments = (f, y0, t0, stops, METHODS["dopri5"], tolerance, PRESETS["PID"], dt0)  # it remembers e2
    host = on_the_host(*arguments)
    compare(host, in_tensors(*arguments))
    with pytest.raises(AssertionError):
        compare(host, in_tensors(*arguments, spoilt=spoilt))


# The controller's start, after a jump too


def kink(t, y):
    """Smooth on each side of t = 1."""
    return torch.where(t < 1.0, -y, 3.0 * torch.cos(t) - 2.0 * y)


def lengths(stepping, controller, *, samples=1):
    """|dt| of the attempts of the last of several equal samples, from a first step that is too short."""
    y0 = START.expand(samples, 3).contiguous()
    options = {"rtol": 1e-8, "dt0": 0.02, "jump_at": [1.0], "trace": True, "gradient": None}
    sol = solve(kink, y0, f64(0.0, 3.0), stepping=stepping, controller=controller, **options)
    return [abs(row.dt) for row in sol.trace if row.sample in (None, samples - 1)]


MEMORY = pytest.mark.parametrize("controller", [PI(), PRESETS["PID"]], ids=["PI", "PID"])


@MEMORY
@pytest.mark.parametrize("samples", [1, 3])
def test_both_marches_start_anew_after_a_jump(controller, samples):
    assert lengths("per_sample", controller, samples=samples) == pytest.approx(
        lengths("shared", controller), rel=1e-9
    )


@MEMORY
@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
def test_the_second_and_third_step_are_the_classical_controllers(stepping, controller):
    classical = I(safety=controller.safety)
    found, expected = lengths(stepping, controller), lengths(stepping, classical)
    assert found[:3] == pytest.approx(expected[:3], rel=1e-9)
    assert found[3] != pytest.approx(expected[3], rel=1e-3)


@MEMORY
@pytest.mark.parametrize(
    ("module", "stepping"), [(control, "shared"), (clocked, "per_sample")], ids=["shared", "per sample"]
)
def test_a_march_that_remembers_over_a_jump_is_seen(module, stepping, controller, monkeypatch):
    right = lengths("shared", controller)
    monkeypatch.setattr(module, "UNKNOWN", 1.0)
    assert lengths(stepping, controller) != pytest.approx(right, rel=1e-9)


@MEMORY
def test_a_march_that_starts_with_ratios_is_seen(controller, monkeypatch):
    right = lengths("shared", controller)
    monkeypatch.setattr(attempts, "UNKNOWN", 1.0)
    assert lengths("per_sample", controller) != pytest.approx(right, rel=1e-9)
    engine = importlib.import_module("adamode.solvers.solve")
    monkeypatch.setattr(engine, "Pace", functools.partial(Pace, e1=1.0, e2=1.0))
    assert lengths("shared", controller) != pytest.approx(right, rel=1e-9)


def test_a_start_on_the_device_has_no_ratios_either():
    row = Row(*row_at(0.5, 0.1))
    clock = Row(*row_of(clock_at(*f64(0.5, 0.1))).tolist())
    assert row == pytest.approx(clock, nan_ok=True)
    assert (row.t, row.dt) == (0.5, 0.1)
    assert math.isnan(row.e1)
    assert math.isnan(row.e2)
