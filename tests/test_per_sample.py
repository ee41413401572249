"""Per-sample stepping: whatever becomes of the others, a sample ends as if it had been solved alone."""

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from problems import Net, Swing, f64
from sample_zoo import KINDS, batch, zoo

from adamode import Discrete, Event, Status, solve

METHODS = ("dopri5", "tsit5", "bosh3", "adaptive_heun", "fehlberg2", "dopri8", "dop853")
RICH = settings(deadline=None, derandomize=True, max_examples=6, suppress_health_check=[HealthCheck.too_slow])
MAX_STEPS = 60

spans = st.tuples(st.floats(-0.5, 0.2), st.floats(0.9, 1.6)).flatmap(
    lambda pair: st.sampled_from((pair, pair[::-1]))
)
crowds = st.lists(st.tuples(st.sampled_from(sorted(KINDS)), spans), min_size=1, max_size=6)


def usual_direction(crowd):
    """Kinds that fail do so forwards: x' = x² is tame backwards, and NaN lies after t = 0.4."""
    names = [name for name, _ in crowd]
    return names, [s if KINDS[name].well else tuple(sorted(s)) for name, s in crowd]


def close(found, expected, rel=1e-13):
    """Same NaN, and equal up to rounding: the same arithmetic in a batch of another size."""
    assert found.shape == expected.shape
    assert torch.equal(found.isnan(), expected.isnan())
    scale = torch.nan_to_num(expected).abs().max().clamp(min=1e-300)
    assert torch.nan_to_num(found - expected).abs().max() <= rel * scale


def counts(sol, i):
    stats = sol.stats
    return [int(x[i]) for x in (stats.nfe, stats.n_accepted, stats.n_rejected)]


@RICH
@example([("begins NaN", (0.0, 1.0)), ("is NaN", (0.0, 1.0))], "dopri5", False)
@example([("stays", (0.0, 1.0)), ("is NaN", (0.0, 1.0))], "dopri5", True)
@example([(name, (0.0, 1.0)) for name in KINDS], "dop853", True)
@given(crowds, st.sampled_from(METHODS), st.booleans())
def test_every_sample_ends_as_it_does_alone(crowd, method, compact):
    names, ranges = usual_direction(crowd)
    y0, t = batch(names, ranges, 5)
    kw = {"stepping": "per_sample", "method": method, "rtol": 1e-3, "atol": 1e-5, "max_steps": MAX_STEPS}
    sol = solve(zoo, y0, t, compact=compact, **kw)
    assert sol.y.shape == (5, *y0.shape)
    assert torch.equal(sol.t, t.t())
    for i in range(len(names)):
        alone = solve(zoo, y0[i : i + 1], t[i : i + 1], **kw)
        assert int(sol.status[i]) == int(alone.status[0])
        assert counts(sol, i) == counts(alone, 0)
        close(sol.y[:, i], alone.y[:, 0])


@settings(RICH, max_examples=3)
@example([(name, (0.0, 1.0)) for name in KINDS], "dopri8")
@given(crowds, st.sampled_from(("dopri5", "dop853")))
def test_statuses_say_what_happened_and_what_was_not_computed_is_nan(crowd, method):
    names, ranges = usual_direction(crowd)
    y0, t = batch(names, ranges, 5)
    sol = solve(zoo, y0, t, stepping="per_sample", method=method, max_steps=250, rtol=1e-3, atol=1e-5)
    for i, name in enumerate(names):
        assert Status(int(sol.status[i])) in KINDS[name].statuses, name
        missing = sol.y[:, i].isnan().any(1)
        if KINDS[name].well:
            assert not missing.any()
        else:
            assert missing[-1]
        if name == "turns NaN":
            assert torch.equal(missing, t[i] > 0.4)
        if name in ("is NaN", "begins NaN"):
            assert missing[1:].all()
        assert torch.equal(sol.y[0, i].nan_to_num(), y0[i].nan_to_num())


@pytest.mark.parametrize("method", METHODS)
def test_a_healthy_sample_equals_its_shared_solve(method):
    names = ["swings", "blows up", "swings", "is NaN", "stays", "is stiff"]
    y0, t = batch(names, [(0.0, 1.0), (0.0, 1.0), (1.5, -0.5), (0.0, 1.0), (0.0, 1.0), (0.0, 1.0)], 4)
    kw = {"method": method, "rtol": 1e-4, "atol": 1e-6}
    sol = solve(zoo, y0, t, stepping="per_sample", max_steps=200, **kw)
    for i in (0, 2):
        alone = solve(zoo, y0[i : i + 1], t[i], **kw)
        close(sol.y[:, i], alone.y[:, 0])
        assert [int(sol.stats.n_accepted[i]), int(sol.stats.n_rejected[i])] == [
            alone.stats.n_accepted,
            alone.stats.n_rejected,
        ]
        assert int(sol.stats.nfe[i]) == alone.stats.nfe


def test_fixed_steps_equal_those_of_a_shared_solve():
    y0, t = batch(["swings", "blows up", "swings"], [(0.0, 1.0), (0.0, 2.0), (1.0, -0.5)], 4)
    sol = solve(zoo, y0, t, stepping="per_sample", dt=0.0937, method="rk4")
    for i in (0, 2):
        alone = solve(zoo, y0[i : i + 1], t[i], dt=0.0937, method="rk4")
        close(sol.y[:, i], alone.y[:, 0])
        assert int(sol.stats.n_accepted[i]) == alone.stats.n_accepted


def test_a_fixed_step_that_meets_nan_ends_its_sample_alone():
    y0, t = batch(["swings", "turns NaN"], [(0.0, 1.0), (0.0, 1.0)], 5)
    sol = solve(zoo, y0, t, stepping="per_sample", dt=0.05)
    assert sol.status.tolist() == [Status.SUCCESS, Status.NON_FINITE]
    assert sol.y[:, 1].isnan().any(1).tolist() == [False, False, True, True, True]
    assert int(sol.stats.n_rejected[1]) == 1


@RICH
@given(st.permutations(range(6)), st.booleans())
def test_the_order_of_the_batch_does_not_matter(order, compact):
    names = ["swings", "blows up", "stays", "turns NaN", "swings", "begins NaN"]
    y0, t = batch(names, [(0.0, 1.0), (0.0, 1.0), (0.0, 1.0), (0.0, 1.0), (1.2, -0.3), (0.0, 1.0)], 3)
    kw = {"stepping": "per_sample", "compact": compact, "rtol": 1e-3, "atol": 1e-5, "max_steps": MAX_STEPS}
    sol, other = solve(zoo, y0, t, **kw), solve(zoo, y0[list(order)], t[list(order)], **kw)
    assert sol.status[list(order)].tolist() == other.status.tolist()
    close(other.y, sol.y[:, list(order)])


@RICH
@given(st.integers(1, 5), st.booleans())
def test_a_split_batch_gives_the_same_numbers(at, compact):
    names = ["swings", "blows up", "stays", "turns NaN", "swings", "begins NaN"]
    y0, t = batch(names, [(0.0, 1.0)] * 6, 3)
    kw = {"stepping": "per_sample", "compact": compact, "rtol": 1e-3, "atol": 1e-5, "max_steps": MAX_STEPS}
    parts = [solve(zoo, y0[rows], t[rows], **kw) for rows in (slice(at), slice(at, None))]
    whole = solve(zoo, y0, t, **kw)
    close(whole.y, torch.cat([part.y for part in parts], 1))
    assert whole.stats.nfe.tolist() == torch.cat([part.stats.nfe for part in parts]).tolist()


@RICH
@given(
    st.sampled_from([(), (2,), (3, 2, 2)]),
    st.sampled_from(METHODS),
    st.booleans(),
    st.lists(st.floats(0.2, 2.0), min_size=3, max_size=3),
)
def test_any_shape_of_state_is_solved_sample_by_sample(shape, method, compact, ends):
    y0 = torch.linspace(-1, 1, 3 * max(1, torch.Size(shape).numel()), dtype=torch.float64).view(3, *shape)
    t = torch.stack([f64(0.1, end) for end in ends])
    t = torch.where((t[:, 1:] - t[:, :1]).abs() < 1e-3, t[:, :1], t)

    def f(time, y):
        assert time.dim() == y.dim()
        assert len(time) == len(y)
        return torch.cos(time * y) - 0.3 * y

    sol = solve(f, y0, t, stepping="per_sample", method=method, compact=compact)
    for i in range(3):
        if t[i, 0] != t[i, 1]:
            alone = solve(lambda time, y: torch.cos(time * y) - 0.3 * y, y0[i], t[i], method=method)
            close(sol.y[:, i], alone.y)
            assert int(sol.stats.n_accepted[i]) == alone.stats.n_accepted


@pytest.mark.parametrize("compact", [False, True])
def test_a_tree_of_several_shapes_is_solved_sample_by_sample(compact):
    y0 = {
        "a": torch.randn(4, dtype=torch.float64),
        "b": (torch.randn(4, 2, dtype=torch.float64), torch.randn(4, 1, 3, dtype=torch.float64)),
    }
    t = torch.stack([f64(0.0, 0.5, end) for end in (1.0, 2.0, 0.7, 3.0)])

    def f(time, y):
        if time.dim():
            assert time.shape == y["a"].shape
        b, c = y["b"]
        push = torch.sin(time + y["a"])
        return {
            "a": b.sum(1) - y["a"],
            "b": (push[:, None] - b, -c * push.abs()[:, None, None]),
        }

    sol = solve(f, y0, t, stepping="per_sample", compact=compact)
    pick = lambda tree, rows: {"a": tree["a"][rows], "b": tuple(x[rows] for x in tree["b"])}  # noqa: E731
    assert sol.y["b"][1].shape == (3, 4, 1, 3)
    for i in range(4):
        alone = solve(f, pick(y0, slice(i, i + 1)), t[i])
        close(sol.y["a"][:, i], alone.y["a"][:, 0])
        for found, expected in zip(sol.y["b"], alone.y["b"], strict=True):
            close(found[:, i], expected[:, 0])
        assert int(sol.stats.n_accepted[i]) == alone.stats.n_accepted


@pytest.mark.parametrize("method", ["dopri5", "dop853"])
@pytest.mark.parametrize("compact", [False, True])
def test_blocks_of_a_dynamics_are_solved_sample_by_sample(compact, method):
    swing, z0 = Swing(), torch.randn(2, 4, 3, dtype=torch.float64)
    t = torch.stack([f64(0.0, 0.5, end) for end in (1.0, 2.0, 0.7, 3.0)])
    t[1] = t[1].flip(0)
    kw = {"method": method, "gradient": None}
    sol = solve(swing, z0, t, stepping="per_sample", compact=compact, **kw)
    assert sol.y.shape == (3, 2, 4, 3)
    for i in range(4):
        alone = solve(swing, z0[:, i : i + 1], t[i], **kw)
        close(sol.y[:, :, i], alone.y[:, :, 0], 1e-12)  # h W is another product in a batch of one
        assert int(sol.stats.n_accepted[i]) == alone.stats.n_accepted


def test_a_network_sees_its_time_beside_each_sample():
    net, y0 = Net(), torch.randn(3, 3, dtype=torch.float64)
    t = torch.stack([f64(0.0, 1.0), f64(2.0, 1.0), f64(0.5, 4.0)])
    sol = solve(net, y0, t, stepping="per_sample", gradient=None)
    for i in range(3):
        close(sol.y[:, i], solve(net, y0[i : i + 1], t[i], gradient=None).y[:, 0], 1e-12)


def test_compact_evaluates_only_who_is_under_way():
    seen = []

    def f(t, y):
        seen.append(len(y))
        return -y

    t = torch.stack([f64(0.0, end) for end in (0.1, 1.0, 30.0)])
    sol = solve(f, torch.ones(3, 1, dtype=torch.float64), t, stepping="per_sample", compact=True)
    assert seen == sorted(seen, reverse=True)
    assert set(seen) == {1, 2, 3}
    assert sum(seen) == int(sol.stats.nfe.sum())
    assert len(seen) == sol.stats.n_calls


def test_each_sample_counts_only_its_own_evaluations():
    calls = []

    def f(t, y):
        calls.append(1)
        return -y

    y0 = torch.ones(3, 1, dtype=torch.float64)
    y0[1] = float("nan")
    t = torch.stack([f64(0.0, 5.0), f64(0.0, 5.0), f64(1.0, 1.0)])
    sol = solve(f, y0, t, stepping="per_sample", gradient=None)
    assert sol.stats.nfe[0] > 20
    assert sol.stats.nfe[1:].tolist() == [0, 1]  # the first evaluation is made for all that begin well
    assert sol.stats.n_steps[1:].tolist() == [0, 0]
    assert len(calls) == sol.stats.n_calls
    calls.clear()
    again = solve(f, y0, t, stepping="per_sample")  # and one call to find func's parameters
    assert (again.stats.nfe - sol.stats.nfe).tolist() == [1, 1, 1]
    assert len(calls) == again.stats.n_calls == sol.stats.n_calls + 1


def test_a_sample_that_fails_keeps_the_outputs_it_reached():
    sol = solve(
        lambda t, y: y * y,
        f64(2.0, 0.5)[:, None],
        f64(0.0, 0.25, 0.45, 1.0),
        stepping="per_sample",
        rtol=1e-9,
    )
    assert Status(int(sol.status[0])) in (Status.STEP_UNDERFLOW, Status.NON_FINITE)
    torch.testing.assert_close(sol.y[:3, 0, 0], 1 / (0.5 - f64(0.0, 0.25, 0.45)), rtol=1e-5, atol=0)
    assert sol.y[3, 0].isnan()
    torch.testing.assert_close(sol.y[3, 1, 0], f64(1.0)[0], rtol=1e-6, atol=0)


def test_no_output_of_a_finished_sample_changes_while_others_go_on():
    t = torch.stack([f64(0.0, 1.0), f64(0.0, 50.0)])
    sol = solve(zoo, batch(["swings"] * 2, [(0, 1)] * 2, 2)[0], t, stepping="per_sample")
    short = solve(zoo, batch(["swings"], [(0, 1)], 2)[0], t[:1], stepping="per_sample")
    close(sol.y[:, 0], short.y[:, 0])


def test_samples_that_end_by_an_event_leave_their_neighbours_alone():
    y0, t = batch(["swings", "blows up", "swings"], [(0.0, 3.0)] * 3, 4)
    event = Event(lambda t, y: y[:, 0] - 50.0)
    sol = solve(zoo, y0, t, stepping="per_sample", events=event, compact=True)
    assert sol.status.tolist() == [Status.SUCCESS, Status.EVENT, Status.SUCCESS]
    for i in (0, 2):
        close(sol.y[:, i], solve(zoo, y0[i : i + 1], t[i]).y[:, 0])


def test_nothing_of_a_failed_sample_reaches_its_neighbours_gradient():
    y0, t = batch(["swings", "turns NaN", "begins NaN", "swings"], [(0.0, 1.0)] * 4, 3)
    grads = []
    for rows in ([0, 1, 2, 3], [0, 3]):
        start = y0[rows].clone().requires_grad_()
        sol = solve(zoo, start, t[rows], stepping="per_sample", gradient=Discrete())
        sol.y[-1][sol.status == Status.SUCCESS].square().sum().backward()
        grads.append(start.grad)
    assert grads[0][[1, 2]].abs().max() == 0
    close(grads[0][[0, 3]], grads[1])


@RICH
@given(st.lists(st.floats(-8, 0), min_size=4, max_size=4), st.sampled_from(("dopri5", "dop853")))
def test_tolerances_of_each_sample_are_its_own(exponents, method):
    y0, _ = batch(["swings"] * 4, [(0.0, 1.0)] * 4, 2)
    t = f64(0.0, 2.0)
    tol = 10.0 ** torch.tensor(exponents, dtype=torch.float64)[:, None]
    sol = solve(
        zoo, y0, t, stepping="per_sample", method=method, rtol=1e-2 * tol, atol=1e-3 * tol, compact=True
    )
    for i in range(4):
        alone = solve(
            zoo, y0[i : i + 1], t, method=method, rtol=1e-2 * float(tol[i]), atol=1e-3 * float(tol[i])
        )
        close(sol.y[:, i], alone.y[:, 0])
        assert int(sol.stats.n_steps[i]) == alone.stats.n_steps


def test_tolerances_of_each_sample_follow_it_out_of_a_compacted_batch():
    y0, _ = batch(["swings"] * 3, [(0.0, 1.0)] * 3, 2)
    t = torch.stack([f64(0.0, 0.1), f64(0.0, 3.0), f64(0.0, 6.0)])
    tol = f64(1e-2, 1e-9, 1e-4)[:, None].expand(3, 3)
    kw = {"stepping": "per_sample", "rtol": tol, "atol": tol}
    sol, plain = solve(zoo, y0, t, compact=True, **kw), solve(zoo, y0, t, **kw)
    assert sol.stats.n_steps.tolist() == plain.stats.n_steps.tolist()
    close(sol.y, plain.y)
    assert sol.stats.n_steps[1] > 2 * sol.stats.n_steps[2]
