"""The device that is not there keeps CUDA's rules (compared where there is CUDA), and sees planted faults."""

import pytest
import torch
from problems import Net, f64
from virtual_device import DEVICE, Far, VirtualDevice, here

from adamode import Direct, Discrete, solve
from adamode.solvers.march import host, output
from adamode.solvers.methods import METHODS
from adamode.solvers.step import clocks

X = f64(1.0, -2.0, 3.0)
# operators on (x, the same on the CPU, a 0-d tensor of the CPU), and whether a GPU refuses them
MIXTURES = {
    "x + vector": (lambda x, v, s: x + v, True),
    "x + 0-d": (lambda x, v, s: x + s, False),
    "0-d there * vector": (lambda x, v, s: x.sum() * v, True),
    "into x": (lambda x, v, s: x.add_(v), True),
    "0-d into x": (lambda x, v, s: x.add_(s), False),
    "where, 0-d": (lambda x, v, s: torch.where(x > 0, x, s), False),
    "where, vector": (lambda x, v, s: torch.where(x > 0, x, v), True),
    "maximum, 0-d": (lambda x, v, s: torch.maximum(x, s), False),
    "stack": (lambda x, v, s: torch.stack((x, v)), True),
    "stack, 0-d": (lambda x, v, s: torch.stack((x[0], s)), True),
    "cat": (lambda x, v, s: torch.cat((x, v)), True),
    "mv": (lambda x, v, s: torch.mv(x[None], v), True),
    "dot": (lambda x, v, s: torch.dot(x, v), True),
    "index_select": (lambda x, v, s: x.index_select(0, torch.tensor([1])), True),
    "index": (lambda x, v, s: x[torch.tensor([1])], False),
    "copy_": (lambda x, v, s: x.copy_(v), False),
    "masked_fill": (lambda x, v, s: x.masked_fill(x > 0, s), False),
}
# what the host does, and how often it waits
WAITS = {
    "arithmetic": (lambda x: (x * 2 + 1).sum().sqrt().reshape(1), 0),
    "made there": (lambda x: torch.full((), 2.0, dtype=x.dtype, device=x.device) * torch.zeros_like(x), 0),
    "in place": (lambda x: x.clone().mul_(2.0).fill_(1.0), 0),
    "slices": (lambda x: (x[1:], x[None, :2], x[-1]), 0),
    "item": (lambda x: x[0].item(), 1),
    "float": (lambda x: float(x[0]), 1),
    "if": (lambda x: 1 if x[0] > 0 else 2, 1),
    "tolist": (lambda x: x.tolist(), 1),
    "cpu": (lambda x: x.cpu(), 1),
    "to the CPU": (lambda x: x.to("cpu"), 1),
    "copy to the CPU": (lambda x: torch.empty(3, dtype=x.dtype).copy_(x), 1),
    "mask": (lambda x: x[x > 0], 1),
    "upload": (lambda x: torch.ones(3).to(x.device), 1),
    "queued upload": (lambda x: torch.ones(3).to(x.device, non_blocking=True), 0),
    "copied upload": (lambda x: x.clone().copy_(X), 1),
    "queued copied upload": (lambda x: x.clone().copy_(X, non_blocking=True), 0),
    "a tensor of numbers": (lambda x: torch.tensor([1.0], device=x.device), 1),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_mixing_devices_is_refused_where_a_gpu_refuses_it(elsewhere, name):
    mix, refused = MIXTURES[name]
    x = elsewhere.there(X)
    if refused:
        with pytest.raises(RuntimeError, match=r"device"):
            mix(x, X, X[0])
    else:
        assert torch.equal(elsewhere.here(mix(x, X, X[0])), mix(X.clone(), X, X[0]))


@pytest.mark.parametrize("name", WAITS)
def test_the_host_waits_where_a_gpu_makes_it_wait(elsewhere, name):
    act, waits = WAITS[name]
    x = elsewhere.there(X)
    with elsewhere.waits() as found:
        act(x)
    assert found.total() == waits, found


def test_a_list_as_index_is_an_upload():
    with VirtualDevice() as device:
        x = torch.ones(3, device=DEVICE)
        assert here(x[[0, 2]]).tolist() == [1.0, 1.0]
        assert device.uploads == {"index": 1}


def test_views_share_memory_and_autograd_follows():
    with VirtualDevice():
        base = torch.zeros(2, 2, device=DEVICE)
        base[0].add_(1.0)
        base.t()[1, 1] = 5.0
        leaf = torch.ones(2, device=DEVICE, requires_grad=True)
        (leaf * base[0] * 3.0).sum().backward()
        assert isinstance(leaf.grad, Far)
    assert here(base).tolist() == [[1.0, 1.0], [0.0, 5.0]]
    assert here(leaf.grad).tolist() == [3.0, 3.0]


def test_torch_is_as_it_was_when_the_device_is_gone():
    before = torch.tensor, torch.as_tensor
    with pytest.raises(RuntimeError, match="mixes devices"), VirtualDevice():
        torch.tensor([1.0, 2.0], device=DEVICE) + torch.ones(2)
    assert (torch.tensor, torch.as_tensor) == before
    assert VirtualDevice.current is None


def test_it_has_no_autocast_as_some_devices_have_none():
    with pytest.raises(RuntimeError, match="autocast"):
        torch.is_autocast_enabled(DEVICE.type)


# Planted faults


@pytest.mark.parametrize("gradient", [None, Discrete(), Direct()], ids=repr)
def test_a_tensor_of_the_cpu_mixed_into_a_step_is_found(elsewhere, gradient, monkeypatch):
    y0 = elsewhere.there(torch.ones(2, 3, dtype=torch.float64)).requires_grad_()
    scale = clocks.Tolerance.scale
    wrong = lambda self, *states: scale(self, *states).to("cpu")  # noqa: E731
    monkeypatch.setattr(clocks.Tolerance, "scale", wrong)
    with pytest.raises(RuntimeError, match=r"device"):
        solve(elsewhere.there(Net()), y0, f64(0.0, 1.0), gradient=gradient)


@pytest.mark.parametrize("read", [lambda y: y[0, 0].item(), lambda y: bool((y > 0).all()), lambda y: y.cpu()])
def test_a_hidden_read_in_a_step_is_counted(elsewhere, read, monkeypatch):
    y0 = elsewhere.there(torch.ones(2, 3, dtype=torch.float64))
    fresh = host.RungeKuttaStepper.fresh_stages

    def reading(self, dt):
        read(self.y)
        return fresh(self, dt)

    monkeypatch.setattr(host.RungeKuttaStepper, "fresh_stages", reading)
    with elsewhere.waits() as found:
        sol = solve(elsewhere.there(Net()), y0, elsewhere.there(f64(0.0, 1.0)), gradient=None)
    assert found.total() == 2 * sol.stats.n_steps + 3  # the clean solve: n_steps + 3


def test_a_waiting_upload_in_a_step_is_counted(elsewhere, monkeypatch):
    y0 = elsewhere.there(torch.ones(2, 3, dtype=torch.float64))
    monkeypatch.setattr(
        output, "as_time", lambda t, like: torch.tensor(t, dtype=like.dtype, device=like.device)
    )
    METHODS["dopri5"].numeric(y0.dtype, y0.device)
    with elsewhere.waits() as found:
        sol = solve(elsewhere.there(Net()), y0, f64(0.0, 1.0), gradient=None)
    assert found.total() >= 7 * sol.stats.n_steps  # a time a stage
