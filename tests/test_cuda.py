"""On a CUDA device: the same numbers, the step waits for nothing, one wait an attempt."""

import warnings

import pytest
import torch
from problems import Net, Swing, f64, worst

import adamode
from adamode import Backsolve, Direct, Discrete, solve
from adamode.solvers.methods import METHODS
from adamode.solvers.norms import Tolerance, error_ratio, rms
from adamode.solvers.step import StageBuffer, StageList, rk_step
from adamode.solvers.stepper import stage_times

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]


@pytest.fixture
def no_waiting():
    """Every wait for the device is an error."""

    def start():
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")

    yield start
    torch.cuda.set_sync_debug_mode("default")


def batch(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).cuda()


@pytest.mark.parametrize("kind", [StageBuffer, StageList])
@pytest.mark.parametrize("name", METHODS)
def test_the_step_does_not_wait(name, kind, no_waiting):
    tableau, net, y = METHODS[name], Net().cuda(), batch(4, 3)
    numeric = tableau.numeric(y.dtype, y.device)
    field = lambda t, y: (net(t, y), None)  # noqa: E731
    no_waiting()
    times = stage_times(0.0, 0.1, tableau, y)
    stages = StageBuffer(numeric, y, 0.1) if kind is StageBuffer else StageList(numeric, 0.1)
    result = rk_step(field, y, field(times[0], y), times, tableau, stages)
    if tableau.adaptive:
        error_ratio(result.stages.errors(), y, result.y1, Tolerance(1e-5, 1e-5), rms)
        result.stages.probe(result.stages.errors()[0])


@pytest.mark.parametrize("make", [Net, Swing])
@pytest.mark.parametrize("keep", ["stages", "state"])
def test_the_discrete_backward_pass_does_not_wait(make, keep, no_waiting):
    func = make().cuda()
    y0 = (batch(2, 4, 3) if make is Swing else batch(4, 3)).requires_grad_()
    sol = solve(func, y0, torch.linspace(0, 3, 9, dtype=torch.float64).cuda(), gradient=Discrete(keep=keep))
    loss = (sol.y**2).sum()
    no_waiting()
    loss.backward()


def waits(run):
    """How often the device was waited for."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return result, sum("synchroniz" in str(w.message) for w in caught)


@pytest.mark.parametrize("gradient", [None, Discrete(), Backsolve(), Direct()], ids=repr)
def test_a_solve_waits_once_per_attempt(gradient):
    net, y0 = Net().cuda(), batch(4, 3).requires_grad_()
    t = torch.linspace(0, 8, 50, dtype=torch.float64).cuda()
    sol, count = waits(lambda: solve(net, y0, t, gradient=gradient, rtol=1e-6))
    assert count <= sol.stats.n_steps + 3
    assert sol.stats.n_steps > 10


def test_queued_attempts_are_waited_for_once_in_eight():
    net, y0 = Net().cuda(), batch(4, 3)
    t = torch.linspace(0, 8, 5, dtype=torch.float64).cuda()
    sol, count = waits(lambda: solve(net, y0, t, gradient=None, rtol=1e-7, sync_every=8))
    assert sol.stats.n_steps > 16
    assert count <= -(-sol.stats.n_steps // 8) + 3


@pytest.mark.parametrize(
    "options", [{"sync_every": 8}, {"compile": True}, {"compile": True, "sync_every": 4}], ids=repr
)
def test_queued_and_compiled_solves_agree_with_the_plain_one(options):
    found = []
    for more in ({}, options):
        func, y0 = Swing().cuda(), batch(2, 4, 3).requires_grad_()
        sol = solve(func, y0, f64(0.0, 0.3, 2.0).cuda(), method="bosh3", rtol=1e-5, **more)
        grads = torch.autograd.grad((sol.y**2).sum(), (y0, *func.parameters()))
        found.append([sol.y.detach(), *grads])
    assert worst(*found) < 1e-9


@pytest.mark.parametrize("gradient", [Discrete(), Discrete(keep="state"), Backsolve(), Direct()], ids=repr)
def test_values_and_gradients_are_those_of_the_cpu(gradient):
    found = []
    for device in ("cpu", "cuda"):
        net, y0 = Net().to(device), batch(4, 3).to(device).requires_grad_()
        t = f64(0.0, 0.3, 2.0).to(device).requires_grad_()
        sol = solve(net, y0, t, gradient=gradient, rtol=1e-8, atol=1e-8)
        grads = torch.autograd.grad((sol.y**2).sum(), (y0, t, *net.parameters()))
        found.append([x.cpu() for x in (sol.y.detach(), *grads)])
    assert worst(*found) < 1e-9


def test_float32_on_the_device():
    net = Net().float().cuda()
    y = solve(net, batch(4, 3).float(), torch.tensor([0.0, 1.0]).cuda(), gradient=None).y
    assert y.is_cuda
    assert y.dtype == torch.float32


def test_times_on_another_device_are_moved_by_odeint_with_a_warning_and_refused_by_solve():
    net, y0 = Net().cuda(), batch(4, 3)
    with pytest.warns(adamode.AdamodeWarning, match="moved"):
        moved = adamode.odeint(net, y0, f64(0.0, 1.0))
    assert torch.equal(moved, adamode.odeint(net, y0, f64(0.0, 1.0).cuda()))
    with pytest.raises(adamode.ArgumentError, match="cuda"):
        solve(net, y0, f64(0.0, 1.0))


def test_a_result_on_the_cpu_is_an_error():
    with pytest.raises(adamode.DynamicsError, match="cpu"):
        solve(lambda t, y: y.cpu(), batch(4, 3), f64(0.0, 1.0).cuda(), gradient=None)


def test_under_autocast_on_the_device_the_state_stays_float32():
    layer, kinds = torch.nn.Linear(3, 3).cuda(), []

    def func(t, y):
        out = layer(y)
        kinds.append(out.dtype)
        return out

    with torch.autocast("cuda", torch.bfloat16):
        sol = solve(
            func, batch(4, 3).float().requires_grad_(), torch.tensor([0.0, 1.0]).cuda(), rtol=1e-2, atol=1e-2
        )
    sol.y.sum().backward()
    assert set(kinds) == {torch.bfloat16}
    assert sol.y.dtype == torch.float32
