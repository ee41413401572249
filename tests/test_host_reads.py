"""One host read of a tensor's value per attempted step, and a small constant per solve."""

import pytest
import torch
from problems import Net, Swing, Tree, f64, rational, rational_solution, top

import adamode
from adamode import Backsolve, Discrete, solve
from adamode.solvers.march.host import Stats
from adamode.solvers.march.output import stage_times
from adamode.solvers.methods import METHODS
from adamode.solvers.step.runge_kutta import StageBuffer, StageList, rk_step

EVERY_WAY = {
    "item": lambda x: x[0].item(),
    "float": lambda x: float(x[0]),
    "bool": lambda x: bool(x[0] > 0),
    "if": lambda x: 1 if x[0] > 0 else 2,
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "cpu": lambda x: x.cpu(),
    "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 0],
    "put": lambda x: x.clone().__setitem__(x > 0, 0.0),
    "where": lambda x: torch.where(x > 0),
    "equal": lambda x: torch.equal(x, x),
    "max": lambda x: max(x[0], x[1]),
}


@pytest.mark.parametrize("way", EVERY_WAY)
def test_the_counter_sees_every_way_of_reading(place, way):
    x = place.there(f64(1.0, 2.0))
    if way == "numpy" and place.device.type != "cpu":  # it sees none of the memory
        with pytest.raises(TypeError):
            x.numpy()
        return
    with place.reads() as found:
        EVERY_WAY[way](x)
    assert found.total() == 1


def test_the_counter_sees_reads_in_a_backward_pass(place):
    class Reading(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            return g * g.sum().item()

    y = Reading.apply(place.there(f64(1.0, 2.0)).requires_grad_()).sum()
    with place.reads() as found:
        y.backward()
    assert found.total() == 1


@pytest.mark.parametrize("kind", [StageBuffer, StageList])
@pytest.mark.parametrize("name", METHODS)
def test_the_step_itself_reads_nothing(place, name, kind):
    tableau, y = METHODS[name], place.there(rational_solution(-1.0))
    numeric = tableau.numeric(y.dtype, y.device)
    with place.reads() as found:
        times = stage_times(-1.0, -0.9, tableau, y)
        stages = kind(numeric, y, 0.1) if kind is StageBuffer else kind(numeric, 0.1)
        result = rk_step(
            lambda t, y: (rational(t, y), None), y, (rational(times[0], y), None), times, tableau, stages
        )
        if tableau.adaptive:
            result.stages.probe(result.stages.errors()[0])
    assert not found


# For a handful of steps of each method.
RTOL = {"dopri5": 1e-4, "bosh3": 1e-2, "dop853": 1e-4}
# check_state, check_times and the first step size: one each
CONSTANT = 3


@pytest.mark.parametrize(
    "gradient", [None, Discrete(), Discrete(keep="state"), Backsolve(), adamode.Direct()], ids=repr
)
@pytest.mark.parametrize("method", RTOL)
def test_a_forward_solve_reads_once_per_attempt(place, method, gradient):
    net, y0 = place.there(Net()), place.there(torch.randn(4, 3, dtype=torch.float64, requires_grad=True))
    t = place.there(torch.linspace(0, 4, 20, dtype=torch.float64))
    with place.reads() as found:
        sol = solve(net, y0, t, gradient=gradient, method=method, rtol=RTOL[method])
    assert sol.stats.n_steps > 3
    assert found.total() == sol.stats.n_steps + CONSTANT, found


def test_rejected_attempts_are_read_once_too(place):
    y0, t = place.there(f64(1.0, 0.5, 0.9)), place.there(f64(0.0, 6.0))
    with place.reads() as found:
        sol = solve(top, y0, t, dt0=6.0, gradient=None, rtol=1e-8, atol=1e-8)
    assert sol.stats.n_rejected > 2
    assert found.total() == sol.stats.n_steps + CONSTANT - 1


def test_pytrees_jumps_and_stops_cost_no_more_per_attempt(place):
    y0 = {"a": torch.randn(2, 3, dtype=torch.float64), "b": torch.randn(2, dtype=torch.float64)}
    tree, y0, t = place.there(Tree()), place.there(y0), place.there(f64(0.0, 1.0, 3.0))
    stops = {"jump_at": place.there(f64(0.5, 2.5)), "step_at": place.there(f64(0.7))}
    with place.reads() as found:
        sol = solve(tree, y0, t, gradient=None, **stops)
    assert found.total() == sol.stats.n_steps + CONSTANT + 2  # step_at and jump_at are read


def test_fixed_steps_read_nothing_per_step(place):
    y0, t = place.there(f64(1.0, 0.5, 0.9)), place.there(f64(0.0, 6.0))
    with place.reads() as found:
        sol = solve(top, y0, t, dt=0.05, gradient=None)
    assert sol.stats.n_steps == 120
    assert found.total() <= CONSTANT


@pytest.mark.parametrize("keep", ["stages", "state"])
@pytest.mark.parametrize("dynamics", [Net, Swing])
def test_the_discrete_backward_pass_reads_nothing_of_its_steps(place, dynamics, keep):
    func = place.there(dynamics())
    y0 = torch.randn(*(2, 4, 3)[1 - isinstance(func, Swing) :], dtype=torch.float64, requires_grad=True)
    t = torch.linspace(0, 4, 9, dtype=torch.float64, requires_grad=True)
    y0, t = place.there((y0, t))
    sol = solve(func, y0, t, gradient=Discrete(keep=keep), rtol=1e-7)
    loss = (sol.y**2).sum()
    with place.reads() as found:
        loss.backward()
    assert sol.stats.nfe_backward > 50
    assert found.total() == (keep == "state")  # whether func gave the same value once more


@pytest.mark.parametrize("dynamics", [Net, Swing])
def test_the_backsolve_backward_pass_reads_once_per_attempt(place, dynamics):
    func = place.there(dynamics())
    y0 = torch.randn(*(2, 4, 3)[1 - isinstance(func, Swing) :], dtype=torch.float64, requires_grad=True)
    t = torch.linspace(0, 4, 9, dtype=torch.float64, requires_grad=True)
    y0, t = place.there((y0, t))
    sol = solve(func, y0, t, gradient=Backsolve())
    loss = (sol.y**2).sum()
    with place.reads() as found:
        loss.backward()
    steps = sol.stats.n_accepted_backward + sol.stats.n_rejected_backward
    assert steps > 10
    # and one for the first step size, for the reconstruction error, for func's repeatability
    assert found.total() == steps + 3, found


def test_odeint_reads_once_per_attempt(place):
    net, attempts = place.there(Net()), []
    net.callback_step = lambda t, y, dt: attempts.append(1)
    y0, t = torch.randn(4, 3, dtype=torch.float64), torch.linspace(0, 8, 50, dtype=torch.float64)
    y0, t = place.there((y0, t))
    with place.reads() as found:
        adamode.odeint(net, y0, t)
    assert len(attempts) > 10
    assert found.total() == len(attempts) + CONSTANT


def test_statistics_are_numbers_of_the_host():
    sol = solve(top, f64(1.0, 0.5, 0.9), f64(0.0, 6.0), gradient=None)
    assert all(not isinstance(v, torch.Tensor) for v in vars(sol.stats).values())
    assert isinstance(sol.stats, Stats)
