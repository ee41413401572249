"""`adamode.sample`: the steps of `odeint`, the calls of programs that sample with torchdiffeq, refusals."""

from __future__ import annotations

import pytest
import torch
import torchdiffeq
from benchmark_package import benchmark_module
from torch import nn
from torch.autograd import forward_ad
from virtual_device import DEVICE, VirtualDevice, here

import adamode
from adamode.models.dynamics import NODE
from adamode.models.fields import MLP
from adamode.solvers.methods import METHODS

FIXED = [name for name, tableau in METHODS.items() if not tableau.adaptive]
WARPED = torch.linspace(0, 1, 8, dtype=torch.float64) ** 2
GRIDS = {
    "even": torch.linspace(0, 1, 7, dtype=torch.float64),
    "warped": WARPED,
    "decreasing": WARPED.flip(0),
    "ends before 1": torch.linspace(0, 1 - 1e-5, 5, dtype=torch.float64),
    "one step": torch.tensor([0.3, 1.0], dtype=torch.float64),
}


class Net(nn.Module):
    """A small velocity field v(x, t) that wants one time a sample, and a condition."""

    def __init__(self, d: int = 3):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(d + 1, 16), nn.Tanh(), nn.Linear(16, d)).double()

    def forward(self, x, t, weight=1.0):
        t = torch.as_tensor(t, dtype=x.dtype).expand(len(x), 1)
        return weight * self.net(torch.cat((x, t), 1))


def start(n: int = 4, d: int = 3) -> torch.Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def field(t, y):
    return torch.sin(2 * y + t)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("method", FIXED)
def test_the_last_state_is_odeints_bit_for_bit(method, grid):
    y0, t = start(), GRIDS[grid]
    with torch.no_grad():
        wanted = adamode.odeint(field, y0, t, method=method)[-1]
    assert torch.equal(adamode.sample(field, y0, t, method=method), wanted)


@pytest.mark.parametrize("method", METHODS)
def test_steps_between_two_ends_are_those_of_a_solve_with_fixed_steps(method):
    wanted = adamode.solve(
        field, start(), torch.tensor([1.0, 0.0]).double(), method=method, dt=0.25, gradient=None
    )
    found = adamode.sample(field, start(), (1.0, 0.0), method=method, steps=4)
    torch.testing.assert_close(found, wanted.y[-1], rtol=1e-14, atol=1e-14)
    ends = torch.tensor([1.0, 0.0], dtype=torch.float64)
    assert torch.equal(found, adamode.sample(field, start(), ends, method=method, steps=4))


@pytest.mark.parametrize(("method", "step"), [("euler", 0.05), ("midpoint", 0.1), ("heun3", 0.1)])
@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0)])
def test_a_step_size_between_two_ends_as_flow_matchings_solver_calls(method, step, ends):
    net = Net()

    def velocity(t, x):
        return net(x=x, t=t, weight=0.7)

    with torch.no_grad():
        theirs = torchdiffeq.odeint(
            velocity,
            start(),
            torch.tensor(ends),
            method=method,
            options={"step_size": step},
            atol=1e-5,
            rtol=1e-5,
        )[-1]
    ours = adamode.sample(velocity, start(), ends, method=method, steps=round(1 / step))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
@pytest.mark.parametrize("ends", [(0.0, 1.0), (1e-3, 1 - 1e-3)])
def test_a_grid_and_a_time_a_sample_as_sits_sampler_calls(method, ends):
    net = Net()

    def drift(t, x):
        return net(x, torch.ones(len(x), 1).to(x) * t)

    t = torch.linspace(*ends, 50)
    with torch.no_grad():
        theirs = torchdiffeq.odeint(drift, start(), t, method=method, atol=[1e-6], rtol=[1e-3])[-1]
    torch.testing.assert_close(adamode.sample(drift, start(), t, method=method), theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("method", ["euler", "midpoint"])
@pytest.mark.parametrize("sway", [None, -1.0, 0.4])
def test_sway_and_guidance_as_f5_tts_calls(method, sway, dtype):
    net, scale = Net().to(dtype), 2.0

    def guided(t, x):
        with_condition, without = net(x, t, 1.0), net(x, t, 0.3)
        return with_condition + (with_condition - without) * scale

    t = torch.linspace(0, 1, 33, dtype=dtype)
    if sway is not None:
        t = t + sway * (torch.cos(torch.pi / 2 * t) - 1 + t)
    y0 = start().to(dtype)
    with torch.no_grad():
        theirs = torchdiffeq.odeint(guided, y0, t, method=method)[-1]
    ours = adamode.sample(guided, y0, t, method=method)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6 if dtype == torch.float64 else 5e-6)


@pytest.mark.parametrize(("method", "stages"), [("euler", 1), ("midpoint", 2), ("rk4", 4), ("dopri5", 6)])
def test_the_callback_sees_every_step_and_the_count_of_evaluations(method, stages):
    calls, seen = [], []

    def counted(t, y):
        calls.append((t.dim(), t.dtype, torch.is_grad_enabled()))
        return field(t, y)

    def told(i, t, y, nfe):
        assert nfe == len(calls)
        seen.append((i, t, y))

    end = adamode.sample(counted, start(), WARPED, method=method, callback=told)
    assert [i for i, _, _ in seen] == list(range(7))
    assert [t for _, t, _ in seen] == WARPED[1:].tolist()
    assert calls == [(0, torch.float64, False)] * 7 * stages
    assert torch.equal(seen[-1][2], end)
    # Each is a state of its own, none written over by the next.
    for n in (2, 5):
        assert torch.equal(seen[n - 1][2], adamode.sample(field, start(), WARPED[: n + 1], method=method))


def test_a_callback_that_changes_the_state_is_refused():
    with pytest.raises(adamode.DynamicsError, match="callback changed y in place after step 0"):
        adamode.sample(field, start(), (0, 1), steps=3, callback=lambda i, t, y, nfe: y.mul_(2))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
def test_no_derivative_is_followed_and_nothing_of_the_callers_is_changed():
    y0, net = start().requires_grad_(), Net()
    kept = y0.detach().clone()
    y = adamode.sample(lambda t, x: net(x, t), y0, torch.tensor([0.0, 0.5, 1.0], requires_grad=True))
    assert not y.requires_grad
    assert torch.equal(y0, kept)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(start(), torch.ones(4, 3).double())
        y = adamode.sample(field, dual, (0, 1), steps=2)
        assert forward_ad.unpack_dual(y).tangent is None
    with torch.inference_mode():
        assert torch.equal(adamode.sample(field, start(), (0, 1), steps=2), y)


def test_trees_half_precision_and_complex_states():
    pair = {"b": start(), "a": torch.ones(2, dtype=torch.float64)}
    found = adamode.sample(lambda t, y: {"a": y["b"][:2, 0], "b": -y["b"]}, pair, (0, 1), steps=10)
    torch.testing.assert_close(found["b"], start() * 0.9**10)
    assert sorted(found) == ["a", "b"]
    half = adamode.sample(
        lambda t, y: 0.001 * torch.ones_like(y), torch.zeros(3).bfloat16(), (0, 1000), steps=1000
    )
    assert half.dtype == torch.bfloat16
    assert half.float().sub(1).abs().max() < 1e-2
    turning = adamode.sample(
        lambda t, y: 1j * y, torch.ones(2, dtype=torch.complex128), (0, 1), steps=8, method="rk4"
    )
    torch.testing.assert_close(turning, torch.full((2,), 1j, dtype=torch.complex128).exp(), rtol=1e-5, atol=0)


def test_a_dynamics_and_a_block_are_fields():
    torch.manual_seed(0)
    block = NODE(MLP(3, hidden=(8,)).double())
    y0 = start()
    by_hand = adamode.sample(block.dynamics, y0[None], (0, 1), steps=5, method="rk4")
    plain = adamode.sample(lambda t, h: block.field(t, h), y0, (0, 1), steps=5, method="rk4")
    torch.testing.assert_close(by_hand[0], plain)


def test_the_host_waits_at_the_start_and_the_end_alone():
    with VirtualDevice() as device:
        y0, t = torch.ones(3, 2, device=DEVICE), torch.linspace(0, 1, 6, device=DEVICE)
        found = {}
        for method in ("euler", "midpoint", "rk4"):
            before = device.reads.total()
            y = adamode.sample(field, y0, t, method=method, callback=lambda *seen: None)
            found[method] = device.reads.total() - before
        assert found == {"euler": 3, "midpoint": 3, "rk4": 3}  # t, y0's finiteness, the samples'
        assert device.uploads.total() == 0
        torch.testing.assert_close(
            here(y), adamode.sample(field, torch.ones(3, 2), torch.linspace(0, 1, 6), method="rk4")
        )


def lost_after(t, y):
    return y * torch.where(t > 0.55, torch.inf, 1.0)


@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_samples_that_are_not_finite_are_an_error_that_says_which_step_lost_them(method):
    calls = []
    with pytest.raises(
        adamode.SolverError, match=r"NON_FINITE at t=0\.\d.* step \d of 10.*finer grid"
    ) as caught:
        adamode.sample(
            lost_after,
            torch.tensor([[0.0, 1.0]]),
            (0, 1),
            steps=10,
            method=method,
            callback=lambda *seen: calls.append(seen),
        )
    error = caught.value
    assert error.t == pytest.approx(0.6 if method == "euler" else 0.5)
    assert error.where == (0, 0)  # 0 · inf
    assert error.stats.n_accepted == round(error.t * 10)
    assert len(calls) == 10  # none for the steps that are taken again


def test_a_field_that_fails_once_is_an_error_too():
    fails = iter([torch.nan])
    with pytest.raises(adamode.SolverError, match="a random field"):
        adamode.sample(lambda t, y: y * next(fails, 1.0), torch.ones(2), (0, 1), steps=3)


def test_a_field_that_changes_its_state_or_another_kind_of_result_is_refused():
    with pytest.raises(adamode.DynamicsError, match="changed its y in place"):
        adamode.sample(lambda t, y: y.mul_(2), start(), (0, 1), steps=3)
    with pytest.raises(adamode.DynamicsError, match=r"shape \(4,\) for a state of shape \(4, 3\)"):
        adamode.sample(lambda t, y: y.sum(1), start(), (0, 1), steps=3)
    with pytest.raises(adamode.DynamicsError, match="float32"):
        adamode.sample(lambda t, y: y.float(), start(), (0, 1), steps=3)


REFUSED = {
    "unordered": ({"t": torch.tensor([0.0, 0.5, 0.4, 1.0])}, ValueError, r"t\[1\]=0\.5"),
    "a time twice": ({"t": torch.tensor([0.0, 0.5, 0.5])}, ValueError, "strictly increasing"),
    "NaN": ({"t": torch.tensor([0.0, torch.nan])}, ValueError, "finite"),
    "one time": ({"t": torch.tensor([0.0])}, ValueError, "at least two"),
    "no steps": ({"t": (0.0, 1.0)}, ValueError, "steps=…"),
    "0 steps": ({"t": (0.0, 1.0), "steps": 0}, ValueError, "steps=0"),
    "half a step": ({"t": (0.0, 1.0), "steps": 2.5}, TypeError, "steps=2.5"),
    "both": ({"t": torch.linspace(0, 1, 5), "steps": 4}, ValueError, "5 times and steps=4"),
    "ends alike": ({"t": (1.0, 1.0), "steps": 4}, ValueError, "strictly"),
    "a number": ({"t": 1.0}, TypeError, "float"),
    "words": ({"t": ("a", "b"), "steps": 2}, TypeError, "not a number"),
    "integers": ({"t": torch.arange(3)}, TypeError, "floating"),
    "unknown": ({"method": "eular"}, ValueError, "euler"),
    "implicit": ({"method": "radau5"}, ValueError, "implicit"),
    "integer state": ({"y0": torch.ones(3).long()}, TypeError, "int64"),
    "NaN at the start": ({"y0": torch.tensor([1.0, torch.nan])}, ValueError, "index"),
    "no callback": ({"callback": 3}, TypeError, "callback=3"),
    "no field": ({"field": 3}, TypeError, "func=3 must be callable"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_before_the_field_is_called(case):
    given, kind, text = REFUSED[case]

    def never(t, y):
        raise AssertionError("field was called")

    call = {"field": never, "y0": torch.ones(3), "t": torch.tensor([0.0, 1.0]), **given}
    with pytest.raises(kind, match=text) as caught:
        adamode.sample(**call)
    assert isinstance(caught.value, adamode.AdamodeError)


def test_what_the_field_raises_passes():
    def fails(t, y):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        adamode.sample(fails, torch.ones(2), (0, 1), steps=2)


def test_the_benchmark_has_a_ratio_for_each_case():
    lines = benchmark_module("", "sample").table((2, 3), rounds=1).splitlines()
    assert lines[0] == "| method | field | d = 2 | d = 3 |"
    assert len(lines) == 6
