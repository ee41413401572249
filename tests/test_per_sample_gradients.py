"""Per-sample gradients: the discrete adjoint against autograd through the steps, failures in the batch."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from problems import Net, Swing, f64, worst
from torch import nn

from adamode import Direct, Discrete, Status, solve
from adamode.solvers.methods import get_method

NAN = float("nan")
DISCRETE = [Discrete(), Discrete(keep="state"), Discrete(checkpoints=4)]
METHODS = ("dopri5", "bosh3", "adaptive_heun", "tsit5", "dopri8", "dop853")
RICH = settings(deadline=None, derandomize=True, max_examples=6)


class Root(nn.Module):
    """y' = −2 θ √y + w sin t, [b, 2]: where y gets to 0, f and its derivatives are NaN."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(f64(1.0)[0])
        self.w = nn.Parameter(f64(0.1, -0.2))

    def forward(self, t, y):
        return -2 * self.theta * torch.sqrt(y) + self.w * torch.sin(t)


# y0 and whether it is solved over a span of its own length 0
FATES = {"lives": 9.0, "dies": 1.0, "unborn": -1.0, "NaN": NAN, "stays": 4.0}


def gradients(func, y0, t, cotangent, gradient, **options):
    """(status, dL/dy0, dL/dt, dL/dθ…) with L = Σ cotangent · y over the outputs that are there."""
    params = tuple(func.parameters())
    y0, t = y0.clone().requires_grad_(), t.clone().requires_grad_()
    sol = solve(func, y0, t, stepping="per_sample", gradient=gradient, **options)
    there = ~sol.y.isnan()
    loss = (sol.y[there] * cotangent[: len(sol.y)][there]).sum()
    found = torch.autograd.grad(loss, (y0, t, *params), allow_unused=True, materialize_grads=True)
    return sol.status, found


def some_cotangents(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@RICH
@example(["unborn"], "dopri5", 0, True, False, False)
@example(["NaN", "unborn", "stays"], "dopri5", 0, True, True, False)
@example(["lives", "dies", "unborn", "NaN", "stays"], "dop853", 1, True, True, False)
@example(["lives", "dies"], "dopri5", 2, False, True, True)
@given(
    st.lists(st.sampled_from(sorted(FATES)), min_size=1, max_size=5),
    st.sampled_from(METHODS),
    st.integers(0, 2),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_discrete_equals_backpropagation_whatever_fails(fates, method, which, own_times, compact, backwards):
    y0 = f64(*(FATES[fate] for fate in fates))[:, None] + f64(0.0, 0.5)
    t = f64(0.0, 0.37, 1.1, 1.9)
    if backwards:
        t = 0.2 - 0.5 * t
    if own_times:
        t = t + 0.05 * torch.arange(len(fates), dtype=torch.float64)[:, None]
        stays = torch.tensor([fate == "stays" for fate in fates])
        t = torch.where(stays[:, None], t[:, :1], t)
    cotangent = some_cotangents(4, *y0.shape)
    options = {"method": method, "compact": compact, "rtol": 1e-4, "atol": 1e-6}
    status, direct = gradients(Root(), y0, t, cotangent, Direct(), **options)
    again, discrete = gradients(Root(), y0, t, cotangent, DISCRETE[which], **options)
    assert again.tolist() == status.tolist()
    assert all(g.isfinite().all() for g in discrete)
    # Dense weights are sums of coefficients that cancel (dopri8: 13,750 in all, dopri5: 67), each rounded.
    coefficients = get_method(method).numeric(torch.float64, y0.device).dense.abs().sum().item()
    # Where a sample dies, steps go up to the root's edge, whose slope is large: 1.1e-12 is the most seen.
    assert worst(discrete, direct) <= 2e-12 + torch.finfo(torch.float64).eps * coefficients
    assert [int(s) for s, fate in zip(status, fates, strict=True) if fate in ("unborn", "NaN")] == [
        Status.NON_FINITE
    ] * sum(fate in ("unborn", "NaN") for fate in fates)


@pytest.mark.parametrize("gradient", [*DISCRETE, Direct()], ids=repr)
@pytest.mark.parametrize("compact", [False, True])
def test_samples_that_failed_add_exactly_nothing(gradient, compact):
    """All cotangents on the one that lives: θ's gradient is that of the one alone, t's too."""
    y0 = f64(1.0, 9.0, -1.0, NAN)[:, None].expand(4, 2).contiguous()
    t = f64(0.0, 0.5, 2.0)
    cotangent = torch.zeros(3, 4, 2, dtype=torch.float64)
    cotangent[:, 1] = some_cotangents(3, 2)
    status, found = gradients(Root(), y0, t, cotangent, gradient, compact=compact)
    assert status.tolist() == [Status.NON_FINITE, Status.SUCCESS, Status.NON_FINITE, Status.NON_FINITE]
    _, alone = gradients(Root(), y0[1:2], t, cotangent[:, 1:2], gradient)
    assert torch.equal(found[0][[0, 2, 3]], torch.zeros(3, 2, dtype=torch.float64))
    assert worst((found[0][1:2], *found[1:]), alone) <= 1e-13


@pytest.mark.parametrize("gradient", [Discrete(), Direct()], ids=repr)
def test_a_sample_that_stays_has_the_gradients_of_its_limit(gradient):
    """y(t_i) = y0 + (t_i − t_0) f: dL/dy0 = Σ g_i, dL/dt_i = g_i f, dL/dt_0 = −Σ g_i f for i ≥ 1."""
    y0 = f64(4.0, 9.0)[:, None].expand(2, 2).contiguous()
    t = torch.stack((f64(0.3, 0.3, 0.3), f64(0.0, 0.5, 1.0)))
    g = some_cotangents(3, 2, 2)
    _, (y_bar, t_bar, *_) = gradients(Root(), y0, t, g, gradient)
    slope = -2 * torch.sqrt(y0[0]) + f64(0.1, -0.2) * torch.sin(f64(0.3))
    assert worst([y_bar[0]], [g[:, 0].sum(0)]) <= 1e-14
    products = g[1:, 0] @ slope
    assert worst([t_bar[0]], [torch.cat((-products.sum()[None], products))]) <= 1e-14


# Stages in one buffer or in a list round differently (how, depends on the processor), the error estimate with
# them, and so the steps: a bound on rounding alone needs fixed steps. Of adaptive ones of order 8 at a loose
# tolerance the estimate is made of rounding: steps then differ by 1e-5.
OPTIONS = {"adaptive_heun": {"rtol": 1e-3, "atol": 1e-3}}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("func", [Net, Swing])
def test_networks_and_hand_written_dynamics(func, method):
    func = func()
    shape = (2, 4, 3) if isinstance(func, Swing) else (4, 3)
    y0 = torch.randn(shape, dtype=torch.float64)
    t = torch.stack(
        [torch.linspace(a, b, 4, dtype=torch.float64) for a, b in ((0, 1), (1, -1), (0, 3), (2, 2.1))]
    )
    g = some_cotangents(4, *shape)
    ways = [({"dt": 0.4}, 1e-12)]
    if method not in ("dopri8", "dop853"):
        ways.append((OPTIONS.get(method, {}), 1e-9))
    for own, bound in ways:
        options = {"method": method, **own}
        _, direct = gradients(func, y0, t, g, Direct(), **options)
        for gradient, compact in zip(DISCRETE, (True, False, True), strict=True):
            _, found = gradients(func, y0, t, g, gradient, compact=compact, **options)
            assert worst(found, direct) <= bound


@pytest.mark.parametrize("gradient", [*DISCRETE, Direct()], ids=repr)
def test_gradients_are_those_of_each_sample_alone(gradient):
    net, y0 = Net(), torch.randn(3, 3, dtype=torch.float64)
    t = torch.stack((f64(0.0, 0.5, 1.0), f64(1.0, 0.0, -2.0), f64(0.0, 3.0, 3.1)))
    g = some_cotangents(3, 3, 3)
    _, whole = gradients(net, y0, t, g, gradient)
    parts = []
    for i in range(3):
        start, times = y0[i : i + 1].clone().requires_grad_(), t[i].clone().requires_grad_()
        sol = solve(net, start, times, gradient=gradient)
        parts.append(torch.autograd.grad((sol.y * g[:, i : i + 1]).sum(), (start, times, *net.parameters())))
    assert worst([whole[0]], [torch.cat([p[0] for p in parts])]) <= 1e-12
    assert worst([whole[1]], [torch.stack([p[1] for p in parts])]) <= 1e-12
    assert worst(whole[2:], [sum(p[k] for p in parts) for k in range(2, len(parts[0]))]) <= 1e-12


@pytest.mark.parametrize("gradient", [*DISCRETE, Direct()], ids=repr)
def test_a_jump_is_walked_back_on_each_side(gradient):
    class Switch(nn.Module):
        def __init__(self):
            super().__init__()
            self.before, self.after = nn.Parameter(f64(0.5)[0]), nn.Parameter(f64(-2.0)[0])

        def forward(self, t, y):
            return torch.where(t < 0.6, self.before, self.after) * y

    y0 = f64(1.0, 2.0, 3.0)[:, None]
    t = torch.stack((f64(0.0, 0.6, 1.0), f64(1.0, 0.6, 0.0), f64(0.7, 1.0, 1.4)))
    g = some_cotangents(3, 3, 1)
    _, found = gradients(Switch(), y0, t, g, gradient, jump_at=[0.6], rtol=1e-10, atol=1e-12, compact=True)

    before, after = f64(0.5)[0].requires_grad_(), f64(-2.0)[0].requires_grad_()
    start, times = y0.clone().requires_grad_(), t.clone().requires_grad_()
    turn = 0.6
    y = torch.stack(
        (
            start[:, 0],
            torch.stack(
                (
                    start[0, 0] * torch.exp(before * (times[0, 1] - times[0, 0])),
                    start[1, 0] * torch.exp(after * (times[1, 1] - times[1, 0])),
                    start[2, 0] * torch.exp(after * (times[2, 1] - times[2, 0])),
                )
            ),
            torch.stack(
                (
                    start[0, 0] * torch.exp(before * (turn - times[0, 0]) + after * (times[0, 2] - turn)),
                    start[1, 0] * torch.exp(after * (turn - times[1, 0]) + before * (times[1, 2] - turn)),
                    start[2, 0] * torch.exp(after * (times[2, 2] - times[2, 0])),
                )
            ),
        )
    )
    exact = torch.autograd.grad((y * g[:, :, 0]).sum(), (start, times, before, after))
    assert worst(found, exact) <= 1e-7


@pytest.mark.parametrize("gradient", DISCRETE, ids=repr)
def test_the_graph_may_be_walked_twice(gradient):
    net, y0 = Net(), torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    sol = solve(net, y0, f64(0.0, 1.0), stepping="per_sample", gradient=gradient)
    loss = sol.y[-1].square().sum()
    once = torch.autograd.grad(loss, (y0, *net.parameters()), retain_graph=True)
    count = sol.stats.nfe_backward
    twice = torch.autograd.grad(loss, (y0, *net.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))
    assert sol.stats.nfe_backward == count > 0


def test_a_tree_and_its_parameters():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def forward(self, t, y):
            a, b = y
            return self.net(t[..., None], a) + b[:, None], torch.sin(b) - a.sum(1)

    # t has the first leaf's dimensions, and the first leaf is [B]
    class Turned(Pair):
        def forward(self, t, y):
            da, db = super().forward(t, (y["z"], y["a"]))
            return {"a": db, "z": da}

    pair = Turned()
    y0 = {
        "a": torch.randn(3, dtype=torch.float64, requires_grad=True),
        "z": torch.randn(3, 3, dtype=torch.float64, requires_grad=True),
    }
    inputs = (y0["a"], y0["z"], *pair.parameters())
    found = []
    for gradient in (Direct(), *DISCRETE):
        sol = solve(pair, y0, f64(0.0, 0.7, 1.0), stepping="per_sample", gradient=gradient)
        found.append(torch.autograd.grad(sol.y["z"].square().sum() + sol.y["a"].sum(), inputs))
    for other in found[1:]:
        assert worst(other, found[0]) <= 1e-12


def test_without_gradients_nothing_is_recorded():
    net, y0 = Net(), torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    assert not solve(net, y0, f64(0.0, 1.0), stepping="per_sample", gradient=None).y.requires_grad
    with torch.no_grad():
        assert not solve(net, y0, f64(0.0, 1.0), stepping="per_sample").y.requires_grad
    with torch.inference_mode():
        solve(net, y0, f64(0.0, 1.0), stepping="per_sample")
    for p in net.parameters():
        p.requires_grad_(False)
    assert not solve(net, y0.detach(), f64(0.0, 1.0), stepping="per_sample").y.requires_grad


def test_a_frozen_parameter_gets_no_gradient_and_an_unused_one_gets_zeros():
    net, y0 = Net(), torch.randn(2, 3, dtype=torch.float64)
    net.w1.requires_grad_(False)
    net.unused = nn.Parameter(f64(1.0, 2.0))
    solve(net, y0, f64(0.0, 1.0), stepping="per_sample").y.sum().backward()
    assert net.w1.grad is None
    assert net.mu.grad is not None
    assert net.unused.grad is None or not net.unused.grad.any()


def test_direct_has_second_derivatives_per_sample():
    y0 = f64(0.5, 1.5)[:, None].requires_grad_()
    f = lambda t, y: -y * y  # noqa: E731
    sol = solve(f, y0, f64(0.0, 1.0), stepping="per_sample", gradient=Direct(), rtol=1e-10, atol=1e-12)
    (first,) = torch.autograd.grad(sol.y[-1].sum(), y0, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), y0)
    torch.testing.assert_close(first, 1 / (1 + y0) ** 2, rtol=1e-6, atol=0)  # y = y0/(1 + y0 t)
    torch.testing.assert_close(second, -2 / (1 + y0) ** 3, rtol=1e-6, atol=0)
