"""Per-sample stepping: times, first steps, norms, stops and jumps of each sample, and bad input."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import Swing, f64
from torch import nn

import adamode
from adamode import PI, Event, Status, solve
from adamode.solvers.errors import ArgumentError, ArgumentTypeError, DynamicsError, TooManySteps

RICH = settings(deadline=None, derandomize=True, max_examples=10)


def swing(t, y):
    return torch.cos(3 * t) - 0.4 * y


def rows(*values):
    return f64(*values)[:, None]


def test_one_list_of_times_serves_all_samples_and_each_may_have_its_own():
    y0, t = rows(0.0, 1.0, -2.0), f64(0.0, 0.3, 1.0)
    shared_times = solve(swing, y0, t, stepping="per_sample")
    own_times = solve(swing, y0, t.expand(3, -1), stepping="per_sample")
    assert shared_times.t.shape == (3,)
    assert own_times.t.shape == (3, 3)
    assert torch.equal(shared_times.y, own_times.y)


def test_outputs_inside_steps_do_not_change_the_steps():
    y0 = rows(0.0, 1.0)
    few = solve(swing, y0, f64(0.0, 5.0), stepping="per_sample")
    many = solve(swing, y0, torch.linspace(0, 5, 101, dtype=torch.float64), stepping="per_sample")
    assert torch.equal(few.y[-1], many.y[-1])
    assert torch.equal(few.stats.nfe, many.stats.nfe)


@RICH
@given(st.lists(st.floats(1e-3, 10.0), min_size=3, max_size=3), st.booleans())
def test_first_steps_of_each_sample_are_taken(first, backwards):
    t = f64(4.0, 0.0) if backwards else f64(0.0, 4.0)
    sol = solve(swing, rows(0.0, 1.0, 2.0), t, stepping="per_sample", dt0=f64(*first), trace=True)
    for i, dt in enumerate(first):
        begin = next(row for row in sol.trace if row.sample == i)
        assert abs(begin.dt) == pytest.approx(min(dt, 4.0), rel=1.1e-3)  # one that nearly ends, ends
        assert (begin.dt < 0) == backwards
        alone = solve(swing, rows(0.0, 1.0, 2.0)[i : i + 1], t, dt0=dt)
        torch.testing.assert_close(sol.y[:, i], alone.y[:, 0], rtol=1e-13, atol=1e-15)


def test_the_last_step_size_serves_the_next_solve():
    y0 = rows(0.0, 1.0)
    one = solve(swing, y0, f64(0.0, 2.0), stepping="per_sample")
    two = solve(swing, one.y[-1], f64(2.0, 4.0), stepping="per_sample", dt0=one.stats.dt_last)
    assert torch.equal(two.stats.dt_first, one.stats.dt_last)
    three = solve(swing, one.y[-1], f64(2.0, 4.0), stepping="per_sample")
    assert (two.stats.nfe == three.stats.nfe - 1 - 6 * (three.stats.n_steps - two.stats.n_steps)).all()


@pytest.mark.parametrize(
    "dt0", [0.0, -1.0, float("nan"), f64(1.0, 0.0), f64(1.0, 1.0, 1.0), torch.ones(2, 1)]
)
def test_a_first_step_that_is_none_is_refused(dt0):
    with pytest.raises(ArgumentError, match="dt0"):
        solve(swing, rows(0.0, 1.0), f64(0.0, 1.0), stepping="per_sample", dt0=dt0)


def test_max_steps_ends_only_the_samples_that_need_more():
    f = lambda t, y: -y * (y - 1) * 3  # noqa: E731
    y0 = torch.stack((f64(1.0, 1.0), f64(0.01, 0.5)))
    sol = solve(f, y0, f64(0.0, 20.0), stepping="per_sample", rtol=1e-8, max_steps=15)
    assert sol.status.tolist() == [Status.SUCCESS, Status.MAX_STEPS]
    assert int(sol.stats.n_steps[1]) == 15
    assert sol.y[-1, 1].isnan().all()


def test_max_steps_that_just_suffice_suffice():
    y0, t = rows(0.0, 1.0), f64(0.0, 2.0)
    need = solve(swing, y0, t, stepping="per_sample").stats.n_steps
    sol = solve(swing, y0, t, stepping="per_sample", max_steps=int(need.max()))
    assert sol.status.tolist() == [Status.SUCCESS] * 2
    less = solve(swing, y0, t, stepping="per_sample", max_steps=int(need.max()) - 1)
    assert Status.MAX_STEPS in less.status.tolist()


@pytest.mark.parametrize("norm", ["rms", "max", "own"])
def test_the_norm_sees_each_sample_alone(norm):
    y0 = torch.tensor([[0.0, 1.0], [1e3, 2.0], [-1.0, 5.0]], dtype=torch.float64)
    asked = norm
    if norm == "own":
        asked = lambda y: y.abs().sum(1)  # noqa: E731
    sol = solve(swing, y0, f64(0.0, 3.0), stepping="per_sample", norm=asked)
    for i in range(3):
        alone = lambda y: y.abs().sum()  # noqa: E731
        one = solve(swing, y0[i], f64(0.0, 3.0), norm=alone if norm == "own" else norm)
        assert int(sol.stats.n_steps[i]) == one.stats.n_steps
        torch.testing.assert_close(sol.y[:, i], one.y, rtol=1e-13, atol=0)


def test_the_norms_differ():
    grow = lambda t, y: torch.cos(3 * t) * y  # noqa: E731
    y0 = torch.zeros(1, 64, dtype=torch.float64)
    y0[0, 0] = 100.0
    steps = {
        norm: int(solve(grow, y0, f64(0.0, 3.0), stepping="per_sample", norm=norm, rtol=1e-9).stats.n_steps)
        for norm in ("rms", "max")
    }
    assert steps["max"] > steps["rms"]


def test_a_norm_of_the_wrong_shape_is_refused():
    y0 = rows(0.0, 1.0)
    for wrong in (lambda y: y.abs().max(), lambda y: y.abs()):
        with pytest.raises(ArgumentError, match=r"norm returned shape.*one number a sample"):
            solve(swing, y0, f64(0.0, 1.0), stepping="per_sample", norm=wrong)
    with pytest.raises(ArgumentError, match=r"norm returned shape \(2,\)"):
        solve(swing, y0, f64(0.0, 1.0), norm=lambda y: y.abs()[:, 0])


class Sees:
    """Writes down every time that each sample is asked at."""

    def __init__(self, f, b):
        self.f, self.times = f, [[] for _ in range(b)]

    def __call__(self, t, y):
        for mine, value in zip(self.times, t.reshape(-1).tolist(), strict=True):
            mine.append(value)
        return self.f(t, y)


@pytest.mark.parametrize("dt", [None, 0.3])
@pytest.mark.parametrize("method", ["dopri5", "dop853"])
def test_each_sample_ends_a_step_on_the_stops_of_its_own_span(method, dt):
    t = torch.stack((f64(0.0, 2.0), f64(3.0, 0.5), f64(1.5, 2.0)))
    sol = solve(
        swing,
        rows(0.0, 1.0, 2.0),
        t,
        stepping="per_sample",
        step_at=[1.0, 0.0, 7.0],
        save="steps",
        method=method,
        dt=dt,
    )
    assert [1.0 in sol.t[:, i].tolist() for i in range(3)] == [True, True, False]
    for i in range(2):
        alone = solve(swing, rows(0.0, 1.0, 2.0)[i : i + 1], t[i], step_at=[1.0], method=method, dt=dt)
        torch.testing.assert_close(
            sol.y[int(sol.stats.n_accepted[i]), i], alone.y[-1, 0], rtol=1e-13, atol=1e-15
        )


@pytest.mark.parametrize("dt", [None, 0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["dopri5", "bosh3", "dop853"])
def test_f_sees_only_the_side_of_a_jump_that_its_sample_is_on(method, dtype, dt):
    jump = 0.75
    spans = [(0.0, 2.0), (2.0, 0.0), (jump, 2.0), (0.0, jump), (jump, 0.0), (2.0, jump)]
    sees = Sees(lambda t, y: torch.where(t < jump, 1.0, -1.0) + 0 * y, len(spans))
    t = torch.tensor(spans, dtype=torch.float64)
    y0 = torch.zeros(len(spans), 1, dtype=dtype)
    kw = {"stepping": "per_sample", "jump_at": [jump], "method": method, "dt": dt}
    sol = solve(sees, y0, t, gradient=None, **kw)
    assert sol.status.tolist() == [Status.SUCCESS] * len(spans)
    assert jump not in [x for times in sees.times for x in times]
    for (a, b), times in zip(spans, sees.times, strict=True):
        assert min(a, b) <= min(times)
        assert max(times) <= max(a, b)
    exact = f64(0.75 - 1.25, 1.25 - 0.75, -1.25, 0.75, -0.75, 1.25)
    torch.testing.assert_close(sol.y[-1, :, 0].double(), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", ["dopri5", "bosh3"])
def test_a_jump_costs_no_rejection_when_it_is_announced(method):
    f = lambda t, y: torch.where(t < 0.7, torch.sin(t), 40 + torch.cos(9 * t)) + 0 * y  # noqa: E731
    y0, t = rows(0.0, 1.0), torch.stack((f64(0.0, 2.0), f64(2.0, 0.0)))
    told = solve(f, y0, t, stepping="per_sample", method=method, jump_at=[0.7])
    untold = solve(f, y0, t, stepping="per_sample", method=method)
    assert (untold.stats.n_rejected > told.stats.n_rejected + 2).all()


def test_a_sample_at_rest_beside_a_jump_is_not_evaluated_on_the_other_side():
    """The first sample ends at the jump, behind which its f is NaN: the others go on for long."""
    f = lambda t, y: -0.1 * y + torch.where((t >= 1.0) & (y < 5), float("nan"), 0.0) * y  # noqa: E731
    y0 = rows(1.0, 9.0).requires_grad_()
    t = torch.stack((f64(0.0, 1.0), f64(0.0, 3.0)))
    sol = solve(f, y0, t, stepping="per_sample", jump_at=[1.0])
    assert sol.status.tolist() == [Status.SUCCESS] * 2
    sol.y[-1].sum().backward()
    torch.testing.assert_close(y0.grad, torch.exp(-0.1 * rows(1.0, 3.0)), rtol=1e-5, atol=0)


def test_shared_fixed_steps_hit_stops_and_jumps_too():
    sees = Sees(lambda t, y: torch.where(t < 0.7, 1.0, -1.0) + 0 * y, 1)
    sol = solve(
        sees, f64(0.0), f64(0.0, 2.0), dt=0.3, step_at=[1.1], jump_at=[0.7], save="steps", gradient=None
    )
    torch.testing.assert_close(
        sol.t, f64(0.0, 0.3, 0.6, 0.7, 1.0, 1.1, 1.4, 1.7, 2.0), rtol=1e-15, atol=1e-15
    )
    assert 0.7 not in sees.times[0]
    torch.testing.assert_close(sol.y[-1], f64(0.7 - 1.3), rtol=1e-14, atol=0)


def test_shared_fixed_steps_keep_to_max_steps():
    assert solve(swing, f64(0.0), f64(0.0, 1.0), dt=0.1, max_steps=10).stats.n_steps == 10
    with pytest.raises(TooManySteps, match=r"dt=1e-12 makes 1e\+12 steps"):
        solve(swing, f64(0.0), f64(0.0, 1.0), dt=1e-12)


def test_the_controllers_limits_hold_for_each_sample():
    controller = dataclasses.replace(PI(), dt_max=0.25)
    sol = solve(
        swing,
        rows(0.0, 1.0),
        f64(0.0, 3.0),
        stepping="per_sample",
        controller=controller,
        trace=True,
        dt0=2.0,
    )
    assert max(abs(row.dt) for row in sol.trace) <= 0.25 * 1.001
    short = dataclasses.replace(PI(), dt_min=0.5)
    sol = solve(
        swing, rows(0.0, 1.0), f64(0.0, 3.0), stepping="per_sample", controller=short, rtol=1e-10, dt0=1.0
    )
    assert sol.status.tolist() == [Status.STEP_UNDERFLOW] * 2


# What is refused


class Normed(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, **options)).double()

    def forward(self, t, y):
        return self.inner(y)


def test_batch_norm_in_training_mode_is_refused_by_name():
    y0, t = torch.randn(3, 2, dtype=torch.float64), f64(0.0, 1.0)
    net = Normed()
    with pytest.raises(ArgumentError, match=r"func\.inner\.1 is a BatchNorm1d in training mode"):
        solve(net, y0, t, stepping="per_sample")
    with pytest.raises(ArgumentError, match=r"func\.inner\.1 is a BatchNorm1d"):
        solve(net.forward, y0, t, stepping="per_sample")
    assert solve(net.eval(), y0, t, stepping="per_sample").status.tolist() == [Status.SUCCESS] * 3
    with pytest.raises(ArgumentError, match="without running statistics"):
        solve(Normed(track_running_stats=False).eval(), y0, t, stepping="per_sample")
    assert solve(Normed(), y0, t).status == Status.SUCCESS


ENDS = torch.stack([f64(0.0, end) for end in (0.1, 1.0, 3.0)])


@pytest.mark.parametrize(
    "use",
    [
        lambda c, y: -c * y,
        lambda c, y: -torch.cat((c, y), 1).sum(1, True),
        lambda c, y: torch.where(c > 0, -y, y)[[0, 1, 2]],
    ],
    ids=["product", "concatenation", "index"],
)
@pytest.mark.parametrize("gradient", [None, adamode.Discrete(), adamode.Direct()], ids=repr)
def test_data_of_each_sample_in_a_closure_is_an_error_that_names_compact(use, gradient):
    c, y0 = rows(1.0, 2.0, 3.0), rows(1.0, 1.0, 1.0)
    plain = solve(lambda t, y: use(c, y), y0, ENDS, stepping="per_sample", gradient=gradient)
    assert plain.status.tolist() == [Status.SUCCESS] * 3
    with pytest.raises(DynamicsError, match=r"(?s)2 of 3 samples.*compact=True.*into the state.*It said:"):
        solve(lambda t, y: use(c, y), y0, ENDS, stepping="per_sample", compact=True, gradient=gradient)


def test_data_of_each_sample_in_an_event_is_an_error_that_names_compact():
    c, y0 = rows(9.0, 9.0, 9.0), rows(1.0, 1.0, 1.0)
    with pytest.raises(DynamicsError, match=r"(?s)an event's fn failed.*compact=True"):
        solve(
            lambda t, y: -y,
            y0,
            ENDS,
            stepping="per_sample",
            compact=True,
            events=Event(lambda t, y: (y - c)[:, 0]),
        )


def test_other_errors_of_func_pass_unchanged():
    class Mine(Exception):
        pass

    def f(t, y):
        if len(y) < 3:
            raise Mine
        return -y

    with pytest.raises(Mine):
        solve(f, rows(1.0, 1.0, 1.0), ENDS, stepping="per_sample", compact=True)
    with pytest.raises(RuntimeError, match=r"^mine$"):
        solve(broken, rows(1.0, 1.0, 1.0), ENDS, stepping="per_sample")


def broken(t, y):
    raise RuntimeError("mine")


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.bool])
def test_states_of_other_types_are_refused_by_name(dtype, stepping):
    with pytest.raises(ArgumentTypeError, match=str(dtype)):
        solve(lambda t, y: -y, torch.ones(2, 1).to(dtype), f64(0.0, 1.0), stepping=stepping)


def test_half_types_are_told_the_way_out():
    with pytest.raises(ArgumentError, match=r"y0\.float\(\)"):
        solve(lambda t, y: -y, torch.ones(2, 1).half(), f64(0.0, 1.0))


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
def test_a_tolerance_that_float32_cannot_resolve_is_refused_with_the_least_that_makes_sense(stepping):
    y0 = torch.ones(2, 1)
    with pytest.raises(ArgumentError, match=r"rtol=1e-12 is below.*float32.*4\.8e-07") as caught:
        solve(lambda t, y: -y, y0, f64(0.0, 1.0), rtol=1e-12, stepping=stepping)
    assert "float64" in str(caught.value)
    solve(lambda t, y: -y, y0, f64(0.0, 1.0), rtol=4.8e-7, stepping=stepping)


@pytest.mark.parametrize(
    ("t", "match"),
    [
        (f64(0.0, 1.0).expand(2, 2), "shape"),
        (torch.zeros(3, 1, dtype=torch.float64), "shape"),
        (torch.stack((f64(0.0, 1.0, 0.5),) * 3), "monotone"),
        (torch.stack((f64(0.0, 0.0, 1.0),) * 3), "monotone"),
        (torch.stack((f64(0.0, float("nan")),) * 3), "finite"),
        (torch.stack((f64(0.0, float("inf")),) * 3), "finite"),
        (torch.zeros(3, 2, dtype=torch.int64), "floating"),
        (torch.zeros(3, 2, 2, dtype=torch.float64), "shape"),
        (torch.zeros(3, 2, dtype=torch.float64, device="meta"), "meta"),
        ([0.0, 1.0], "tensor"),
    ],
    ids=str,
)
def test_times_that_mean_nothing_are_refused(t, match):
    with pytest.raises((ArgumentError, ArgumentTypeError), match=match):
        solve(swing, rows(0.0, 1.0, 2.0), t, stepping="per_sample")


def test_states_without_a_batch_are_refused():
    with pytest.raises(ArgumentError, match="batch"):
        solve(swing, f64(1.0)[0], f64(0.0, 1.0), stepping="per_sample")
    with pytest.raises(ArgumentError, match="batch"):
        solve(swing, (rows(0.0, 1.0), rows(0.0)), f64(0.0, 1.0), stepping="per_sample")
    with pytest.raises(ArgumentError, match="compact"):
        solve(swing, rows(0.0), f64(0.0, 1.0), compact=True)


def test_a_dynamics_needs_one_tensor_of_blocks():
    with pytest.raises(ArgumentTypeError, match="Dynamics"):
        solve(Swing(), f64(1.0, 2.0), f64(0.0, 1.0), stepping="per_sample")


def test_what_func_returns_is_checked():
    for wrong in (lambda t, y: y[:1], lambda t, y: y.float(), lambda t, y: 1.0):
        with pytest.raises(DynamicsError):
            solve(wrong, rows(0.0, 1.0), f64(0.0, 1.0), stepping="per_sample")
