"""On a device: the same numbers, the step waits for nothing, one wait an attempt. The device is one that is
not there, and a CUDA one where there is one."""

import pytest
import torch
from problems import Net, Swing, f64, worst

import adamode
from adamode import Backsolve, Direct, Discrete, Interpolating, solve
from adamode.solvers.march.output import stage_times
from adamode.solvers.methods import METHODS
from adamode.solvers.step.clocks import Tolerance, error_ratio, rms
from adamode.solvers.step.runge_kutta import StageBuffer, StageList, rk_step


def batch(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", [StageBuffer, StageList])
@pytest.mark.parametrize("name", METHODS)
def test_the_step_does_not_wait(elsewhere, name, kind):
    tableau, net, y = METHODS[name], elsewhere.there(Net()), elsewhere.there(batch(4, 3))
    numeric = tableau.numeric(y.dtype, y.device)
    field = lambda t, y: (net(t, y), None)  # noqa: E731
    # A buffer is for solves that autograd does not follow.
    with elsewhere.waits() as found, torch.set_grad_enabled(kind is StageList):
        times = stage_times(0.0, 0.1, tableau, y)
        stages = StageBuffer(numeric, y, 0.1) if kind is StageBuffer else StageList(numeric, 0.1)
        result = rk_step(field, y, field(times[0], y), times, tableau, stages)
        if tableau.adaptive:
            error_ratio(result.stages.errors(), y, result.y1, Tolerance(1e-5, 1e-5), rms)
            result.stages.probe(result.stages.errors()[0])
    assert found.total() == 0, found


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
@pytest.mark.parametrize("make", [Net, Swing])
@pytest.mark.parametrize("keep", ["stages", "state"])
def test_the_discrete_backward_pass_does_not_wait(elsewhere, make, keep, stepping):
    func = elsewhere.there(make())
    y0 = elsewhere.there(batch(2, 4, 3) if make is Swing else batch(4, 3)).requires_grad_()
    t = elsewhere.there(torch.linspace(0, 3, 9, dtype=torch.float64))
    sol = solve(func, y0, t, gradient=Discrete(keep=keep), stepping=stepping)
    loss = (sol.y**2).sum()
    with elsewhere.waits() as found:
        loss.backward()
    assert found.total() == (keep == "state"), found  # whether func gives the same value again


@pytest.mark.parametrize("gradient", [None, Discrete(), Interpolating(), Backsolve(), Direct()], ids=repr)
def test_a_solve_waits_once_per_attempt(elsewhere, gradient):
    net, y0 = elsewhere.there(Net()), elsewhere.there(batch(4, 3)).requires_grad_()
    t = elsewhere.there(torch.linspace(0, 8, 50, dtype=torch.float64))
    with elsewhere.waits() as found:
        sol = solve(net, y0, t, gradient=gradient, rtol=1e-6)
    assert found.total() <= sol.stats.n_steps + 3, found
    assert sol.stats.n_steps > 10


def test_queued_attempts_are_waited_for_once_in_eight(elsewhere):
    net, y0 = elsewhere.there(Net()), elsewhere.there(batch(4, 3))
    t = elsewhere.there(torch.linspace(0, 8, 5, dtype=torch.float64))
    with elsewhere.waits() as found:
        sol = solve(net, y0, t, gradient=None, rtol=1e-7, sync_every=8)
    assert sol.stats.n_steps > 16
    assert found.total() <= -(-sol.stats.n_steps // 8) + 3, found


@pytest.mark.parametrize(
    "options", [{"sync_every": 8}, {"compile": True}, {"compile": True, "sync_every": 4}], ids=repr
)
def test_queued_and_compiled_solves_agree_with_the_plain_one(elsewhere, options):
    if options.get("compile") and not elsewhere.compiles:
        pytest.skip("torch.compile makes no programs for a device that is not there")
    found = []
    for more in ({}, options):
        func, y0 = elsewhere.there(Swing()), elsewhere.there(batch(2, 4, 3)).requires_grad_()
        sol = solve(func, y0, elsewhere.there(f64(0.0, 0.3, 2.0)), method="bosh3", rtol=1e-5, **more)
        grads = torch.autograd.grad((sol.y**2).sum(), (y0, *func.parameters()))
        found.append(elsewhere.here([sol.y, *grads]))
    assert worst(*found) < 1e-9


def test_float32_on_the_device(elsewhere):
    net, t = elsewhere.there(Net().float()), elsewhere.there(torch.tensor([0.0, 1.0]))
    y = solve(net, elsewhere.there(batch(4, 3).float()), t, gradient=None).y
    assert y.device == elsewhere.device
    assert y.dtype == torch.float32


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
@pytest.mark.parametrize(
    "gradient", [Discrete(), Discrete(keep="state"), Interpolating(), Backsolve(), Direct()], ids=repr
)
def test_times_may_stay_on_the_host_and_their_gradient_comes_there(elsewhere, gradient, stepping):
    net, found = elsewhere.there(Net()), []
    for beside in (True, False):
        y0 = elsewhere.there(batch(4, 3)).requires_grad_()
        t = f64(0.0, 0.3, 2.0).requires_grad_()
        t = elsewhere.there(t) if beside else t
        sol = solve(net, y0, t, gradient=gradient, stepping=stepping, rtol=1e-4)
        assert sol.t.device == t.device
        assert sol.y.device == elsewhere.device
        grads = torch.autograd.grad((sol.y**2).sum(), (y0, t, *net.parameters()))
        assert grads[1].device == t.device
        found.append(elsewhere.here([sol.y, *grads]))
    assert worst(*found) == 0.0


def test_times_on_the_host_are_read_without_waiting(elsewhere):
    net, y0 = elsewhere.there(Net()), elsewhere.there(batch(4, 3))
    t = torch.linspace(0, 2, 9, dtype=torch.float64)
    with elsewhere.waits() as found:
        sol = solve(net, y0, t, gradient=None)
    assert found.total() <= sol.stats.n_steps + 2, found


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
@pytest.mark.parametrize("host", [True, False], ids=["t on the host", "t on the device"])
def test_steps_and_events_tell_their_times_where_t_is(elsewhere, stepping, host):
    y0 = elsewhere.there(f64(1.0, 2.0)[:, None])
    t = f64(0.0, 2.0) if host else elsewhere.there(f64(0.0, 2.0))
    fn = (lambda t, y: y.sum() - 1.5) if stepping == "shared" else (lambda t, y: y[:, 0] - 0.75)
    event = adamode.Event(fn, terminal=False)
    sol = solve(
        lambda t, y: -y,
        y0,
        t,
        stepping=stepping,
        events=event,
        save="steps",
        dense=True,
        rtol=1e-9,
        atol=1e-9,
    )
    when = sol.t_events[0] if stepping == "shared" else sol.t_events[0][1]
    expected = 2.0 if stepping == "shared" else 2 / 0.75
    assert sol.t.device == when.device == t.device
    assert float(when) == pytest.approx(float(torch.log(f64(expected))), abs=1e-7)
    assert sol(when).device == elsewhere.device  # a question from where t is


def test_odeint_moves_times_with_a_warning(elsewhere):
    net, y0 = elsewhere.there(Net()), elsewhere.there(batch(4, 3))
    with pytest.warns(adamode.AdamodeWarning, match="moved"):
        moved = adamode.odeint(net, y0, f64(0.0, 1.0))
    beside = adamode.odeint(net, y0, elsewhere.there(f64(0.0, 1.0)))
    assert torch.equal(elsewhere.here(moved), elsewhere.here(beside))


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
def test_a_result_on_the_cpu_is_an_error(elsewhere, stepping):
    t = elsewhere.there(f64(0.0, 1.0))
    with pytest.raises(adamode.DynamicsError, match="cpu"):
        solve(
            lambda t, y: elsewhere.here(y), elsewhere.there(batch(4, 3)), t, gradient=None, stepping=stepping
        )


def test_a_tensor_of_the_cpu_inside_func_is_torchs_own_error(elsewhere):
    bias = batch(4, 3)
    with pytest.raises(RuntimeError, match=r"mixes devices|same device"):
        solve(lambda t, y: y + bias, elsewhere.there(batch(4, 3)), f64(0.0, 1.0), gradient=None)


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_under_autocast_the_state_stays_float32(elsewhere, kind):
    """Autocast for the CPU leaves what is elsewhere alone."""
    if kind == "cuda" and elsewhere.device.type != "cuda":
        pytest.skip("autocast knows no device of this type")
    layer, kinds = elsewhere.there(torch.nn.Linear(3, 3)), []

    def func(t, y):
        out = layer(y)
        kinds.append(out.dtype)
        return out

    y0, t = elsewhere.there(batch(4, 3).float()).requires_grad_(), elsewhere.there(torch.tensor([0.0, 1.0]))
    with torch.autocast(kind, torch.bfloat16):
        sol = solve(func, y0, t, rtol=1e-2, atol=1e-2)
    sol.y.sum().backward()
    assert set(kinds) == {torch.bfloat16 if kind == elsewhere.device.type else torch.float32}
    assert sol.y.dtype == torch.float32
