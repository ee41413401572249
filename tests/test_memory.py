"""Long solves: memory does not grow with the number of steps, and Ctrl-C leaves nothing behind."""

import gc
import sys

import pytest
import torch
from problems import Net, f64

from adamode import Backsolve, Discrete, Event, solve
from adamode.solvers.status import Status

STEPPINGS = ("shared", "per_sample")


@pytest.fixture(scope="module", autouse=True)
def others_set_aside():
    """What torch and other tests have made is not gone through at each collection: a second each."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Watch:
    """A func that looks, early and late in a solve, at what is alive."""

    def __init__(self, *at):
        self.at, self.calls, self.seen = set(at), 0, []

    def __call__(self, t, y):
        self.calls += 1
        if self.calls in self.at:
            gc.collect()
            objects = [x for x in gc.get_objects() if type(x) is torch.Tensor]
            # Another test may have left a transform of torch.func behind: its tensors have no memory.
            tensors = [x for x in objects if not torch._C._functorch.is_functorch_wrapped_tensor(x)]
            memory = sum(x.untyped_storage().nbytes() for x in tensors)
            self.seen.append((sys.getallocatedblocks(), len(gc.get_objects()), len(tensors), memory))
        return torch.cos(t) * y


def assert_nothing_grew(watch):
    """A Python object, or a tensor, a step would be thousands."""
    (blocks, objects, tensors, memory), late = watch.seen
    assert late[0] - blocks <= 200
    assert late[1] - objects <= 50
    assert late[2] - tensors <= 4
    assert late[3] - memory <= 1000


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_nothing_grows_over_thousands_of_steps(stepping):
    """Euler's fixed steps, one evaluation each, without a gradient; looked at after 500 and 4,500."""
    watch = Watch(500, 4500)
    kw = {"method": "euler", "dt": 1e-3, "stepping": stepping, "gradient": None}
    sol = solve(watch, f64(1.0, 2.0)[:, None], f64(0.0, 4.55), **kw)
    assert int(torch.as_tensor(sol.stats.n_accepted).max()) == 4550
    assert_nothing_grew(watch)


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_adaptive_steps_do_not_grow_either(stepping):
    watch = Watch(500, 2500)
    event = Event(lambda t, y: y.sum() + 99 if t.dim() == 0 else y[:, 0] + 99)
    kw = {"rtol": 1e-8, "stepping": stepping, "gradient": None, "events": event, "step_at": [0.5, 7.0]}
    sol = solve(watch, f64(1.0, 2.0)[:, None], f64(0.0, 160.0), **kw)
    assert int(torch.as_tensor(sol.stats.n_steps).max()) > 400
    assert_nothing_grew(watch)


def test_what_keeps_something_of_each_step_is_seen():
    """A negative control: a solve that keeps its steps."""
    watch = Watch(500, 2500)
    kw = {"rtol": 1e-8, "stepping": "per_sample", "gradient": None, "dense": True}
    solve(watch, f64(1.0, 2.0)[:, None], f64(0.0, 160.0), **kw)
    with pytest.raises(AssertionError):
        assert_nothing_grew(watch)


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_a_recorded_solve_is_freed_with_its_result(stepping):
    net, y0 = Net(), torch.randn(3, 3, dtype=torch.float64, requires_grad=True)

    def once():
        solve(net, y0, f64(0.0, 2.0), stepping=stepping, gradient=Discrete()).y.sum().backward()
        y0.grad = None
        net.zero_grad()

    def alive():
        gc.collect()
        return sum(type(x) is torch.Tensor for x in gc.get_objects())

    once()
    before = alive()
    for _ in range(3):
        once()
    assert alive() <= before


class Interrupting(Net):
    """A network in whose n-th evaluation the user presses Ctrl-C."""

    def __init__(self, at):
        super().__init__()
        self.at, self.calls = at, 0

    def forward(self, t, y):
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return super().forward(t, y)


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("gradient", [None, Discrete()], ids=repr)
def test_ctrl_c_passes_through_and_the_next_solve_is_right(stepping, compact, gradient):
    if compact and stepping == "shared":
        compact = False
    y0 = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    t = (
        torch.stack((f64(0.0, 0.1), f64(0.0, 3.0), f64(0.0, 3.0)))
        if stepping == "per_sample"
        else f64(0.0, 3.0)
    )
    kw = {"stepping": stepping, "compact": compact, "gradient": gradient}
    net = Interrupting(30)
    with pytest.raises(KeyboardInterrupt):
        solve(net, y0, t, **kw)
    assert net.calls == 30
    assert torch.is_grad_enabled()
    found, expected = solve(net, y0, t, **kw), solve(Net(), y0, t, **kw)
    assert torch.equal(found.y, expected.y)
    if gradient is not None:
        found.y.sum().backward()
        assert all(p.grad.isfinite().all() for p in net.parameters())


def test_ctrl_c_in_the_backward_pass_passes_through():
    net = Interrupting(0)
    y0 = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    sol = solve(net, y0, f64(0.0, 3.0), stepping="per_sample", gradient=Discrete(keep="state"))
    net.at = net.calls + 20
    loss = sol.y[-1].sum()
    with pytest.raises(KeyboardInterrupt):
        loss.backward(retain_graph=True)
    net.at = 0
    loss.backward()
    assert sol.status.tolist() == [Status.SUCCESS] * 3
    assert y0.grad.isfinite().all()


@pytest.mark.parametrize("method", ["dopri5", "rk4"])
@pytest.mark.parametrize("gradient", [Discrete(checkpoints=4), Backsolve()], ids=repr)
def test_with_a_given_number_of_states_no_tensor_is_kept_for_each_step(gradient, method):
    """Ten times the steps, and the result holds as many tensors: times are numbers, not tensors."""
    y0 = torch.ones(3, 3, dtype=torch.float64, requires_grad=True)
    net = Net()

    def held(n):
        sol = solve(net, y0, f64(0.0, 1.0), method=method, dt=1 / n, gradient=gradient)
        gc.collect()
        assert sol.stats.n_accepted == n
        return sum(type(x) is torch.Tensor for x in gc.get_objects())

    assert held(320) - held(32) <= 16  # Backsolve keeps up to 16 states; seven a step would be 2,016
