"""Per-sample stepping reads the device once per attempt, and a small constant per solve."""

import pytest
import torch
from problems import Net, Swing, f64

from adamode import Direct, Discrete, Event, Status, solve

# For a handful of steps of each method.
RTOL = {"dopri5": 1e-3, "bosh3": 1e-2, "dop853": 1e-5}
# check_times, the first evaluation; with dt0 its check instead of nothing
CONSTANT = 2


def attempts(sol):
    """How often all samples together attempted a step: the busiest sample was in all of them."""
    return int(sol.stats.n_steps.max())


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("method", RTOL)
@pytest.mark.parametrize(
    "gradient", [None, Discrete(), Discrete(keep="state"), Discrete(checkpoints=4), Direct()], ids=repr
)
def test_a_forward_solve_reads_once_per_attempt(place, gradient, method, compact):
    net, y0 = place.there(Net()), place.there(torch.randn(4, 3, dtype=torch.float64, requires_grad=True))
    t = place.there(torch.linspace(0, 4, 15, dtype=torch.float64))
    with place.reads() as found:
        sol = solve(
            net,
            y0,
            t,
            gradient=gradient,
            method=method,
            stepping="per_sample",
            compact=compact,
            rtol=RTOL[method],
        )
    assert sol.status.tolist() == [Status.SUCCESS] * 4
    assert attempts(sol) > 3
    assert found.total() == attempts(sol) + CONSTANT, found


@pytest.mark.parametrize("gradient", [None, Discrete(), Direct()], ids=repr)
def test_failures_jumps_stops_and_rejections_cost_none(place, gradient):
    f = lambda t, y: torch.where(t < 0.5, 1.0, -1.0) - 2 * torch.sqrt(y)  # noqa: E731
    y0 = f64(1.0, 30.0, -1.0, float("nan"), 2.0)[:, None].requires_grad_()
    t = torch.stack([f64(0.0, 0.3, 0.4, 4.0)] * 5)
    t[4] = 1.0
    y0, t = place.there((y0, t))
    with place.reads() as found:
        sol = solve(
            f,
            y0,
            t,
            gradient=gradient,
            stepping="per_sample",
            jump_at=[0.5],
            step_at=[0.25],
            dt0=3.0,
            rtol=1e-3,
            atol=1e-3,
            compact=True,
        )
    assert sol.status.tolist() == [
        Status.NON_FINITE,
        Status.SUCCESS,
        *[Status.NON_FINITE] * 2,
        Status.SUCCESS,
    ]
    assert int(sol.stats.n_rejected.sum()) > 3
    # dt0, step_at and jump_at are read, and the last sample to fail gives up in an attempt of nobody
    assert found.total() <= attempts(sol) + CONSTANT + 4, found


@pytest.mark.parametrize("fires", [False, True])
def test_events_steps_and_the_trace_cost_none_per_attempt(place, fires):
    """Where an event may fire, it is looked at once more."""
    y0 = place.there(torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.5, 0.5]], dtype=torch.float64))
    far = 0.0 if fires else 100.0
    events = [
        Event(lambda t, y: y[:, 0] + far, terminal=False),
        Event(lambda t, y: t[:, 0] + y[:, 1] - 15 - far),
    ]
    for t_end in (8.0, 16.0):
        t = place.there(f64(0.0, t_end))
        with place.reads() as found:
            sol = solve(
                lambda t, y: torch.stack((-y[:, 1], y[:, 0]), 1),
                y0,
                t,
                stepping="per_sample",
                method="tsit5",
                rtol=1e-2,
                atol=1e-2,
                events=events,
                save="steps",
                trace=True,
                gradient=None,
            )
        happened = sum(len(times) for own in sol.t_events for times in own)
        assert happened >= 8 if fires else happened == 0
        # the trace, the events, and how many rows there are
        assert found.total() <= attempts(sol) + min(happened, attempts(sol)) + CONSTANT + 5, found


@pytest.mark.parametrize("keep", ["stages", "state"])
@pytest.mark.parametrize("dynamics", [Net, Swing])
def test_the_discrete_backward_pass_reads_nothing_per_step(place, dynamics, keep):
    func = place.there(dynamics())
    y0 = torch.randn(*(2, 4, 3)[1 - isinstance(func, Swing) :], dtype=torch.float64, requires_grad=True)
    t = torch.linspace(0, 3, 7, dtype=torch.float64, requires_grad=True)
    y0, t = place.there((y0, t))
    sol = solve(func, y0, t, gradient=Discrete(keep=keep), stepping="per_sample", compact=True)
    loss = (sol.y**2).sum()
    with place.reads() as found:
        loss.backward()
    assert sol.stats.nfe_backward > 30
    # where stages are evaluated anew: whether func gives the same again
    assert found.total() == int(keep == "state"), found
