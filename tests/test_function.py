"""The autograd function: which inputs get a gradient, second derivatives, retained graphs, errors in func."""

import pytest
import torch
from problems import Net, Swing, f64, worst

import adamode
from adamode import Backsolve, Direct, Discrete, Dynamics, SecondDerivativeError, solve

ADJOINTS = pytest.mark.parametrize("gradient", [Discrete(), Discrete(keep="state"), Backsolve()], ids=repr)
EVERY = pytest.mark.parametrize(
    "gradient", [Discrete(), Discrete(keep="state"), Backsolve(), Direct()], ids=repr
)
T = f64(0.0, 0.4, 1.0)


def batch(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# Parameters


@EVERY
def test_a_frozen_parameter_gets_no_gradient_and_changes_no_other(gradient):
    whole, frozen = Net(), Net()
    frozen.w1.requires_grad_(False)
    for net in (whole, frozen):
        solve(net, batch(2, 3), T, gradient=gradient).y.sum().backward()
    assert frozen.w1.grad is None
    assert worst([frozen.w2.grad, frozen.mu.grad], [whole.w2.grad, whole.mu.grad]) < 1e-6


@EVERY
def test_parameters_alone_frozen_leave_the_gradient_of_the_state(gradient):
    net, y0 = Net().requires_grad_(False), batch(2, 3).requires_grad_()
    solve(net, y0, T, gradient=gradient).y.sum().backward()
    free = y0.grad.clone()
    other = batch(2, 3).requires_grad_()
    solve(Net(), other, T, gradient=gradient).y.sum().backward()
    assert worst([free], [other.grad]) < 1e-6


@ADJOINTS
def test_an_unused_parameter_gets_zeros(gradient):
    net = Net()
    net.extra = torch.nn.Parameter(torch.ones(4, dtype=torch.float64))
    solve(net, batch(2, 3), T, gradient=gradient).y.sum().backward()
    assert torch.equal(net.extra.grad, torch.zeros(4, dtype=torch.float64))


@EVERY
def test_a_parameter_used_twice_gets_both_shares(gradient):
    w = torch.nn.Parameter(f64(0.7))
    shared = lambda t, y: w * torch.sin(y) + w * t  # noqa: E731
    solve(shared, f64(1.0), T, gradient=gradient).y.sum().backward()
    u, v = torch.nn.Parameter(f64(0.7)), torch.nn.Parameter(f64(0.7))
    apart = lambda t, y: u * torch.sin(y) + v * t  # noqa: E731
    solve(apart, f64(1.0), T, gradient=gradient).y.sum().backward()
    assert worst([w.grad], [u.grad + v.grad]) < 1e-12


@EVERY
def test_a_duplicated_entry_of_params_is_counted_once(gradient):
    net = Net()
    expected = Net()
    solve(expected, batch(2, 3), T, gradient=gradient).y.sum().backward()
    params = [net.w1, net.b1, net.w2, net.mu, net.w1, net.mu]
    solve(net, batch(2, 3), T, gradient=gradient, params=params).y.sum().backward()
    found, right = ([p.grad for p in n.parameters()] for n in (net, expected))
    assert worst(found, right) < 1e-12


@ADJOINTS
def test_params_may_be_a_generator_and_are_found_where_not_given(gradient):
    grads = []
    for params in (lambda n: n.parameters(), lambda n: None):
        net = Net()
        func = lambda t, y, net=net: net(t, y)  # noqa: E731
        solve(func, batch(2, 3), T, gradient=gradient, params=params(net)).y.sum().backward()
        grads.append([p.grad for p in net.parameters()])
    assert worst(*grads) < 1e-12


@ADJOINTS
def test_a_captured_tensor_that_is_no_leaf_is_an_error_unless_named(gradient):
    leaf = f64(0.5).requires_grad_()
    scale = leaf * 2
    func = lambda t, y: scale * torch.sin(y)  # noqa: E731
    with pytest.raises(adamode.ArgumentError, match="params"):
        solve(func, f64(1.0), T, gradient=gradient)
    (named,) = torch.autograd.grad(
        solve(func, f64(1.0), T, gradient=gradient, params=[scale], rtol=1e-10, atol=1e-10).y.sum(),
        leaf,
        retain_graph=True,
    )
    (direct,) = torch.autograd.grad(
        solve(func, f64(1.0), T, gradient=Direct(), rtol=1e-10, atol=1e-10).y.sum(), leaf
    )
    assert worst([named], [direct]) < 1e-8


@EVERY
def test_a_state_that_is_no_leaf_passes_its_gradient_on(gradient):
    leaf = batch(2, 3).requires_grad_()
    solve(Net(), leaf * 3, T, gradient=gradient).y.sum().backward()
    direct = (batch(2, 3) * 3).requires_grad_()
    solve(Net(), direct, T, gradient=gradient).y.sum().backward()
    assert worst([leaf.grad], [3 * direct.grad]) < 1e-12


@ADJOINTS
def test_hooks_on_parameters_fire(gradient):
    """DDP relies on them: parameters are inputs of the function."""
    net, seen = Net(), []
    net.w1.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
    solve(net, batch(2, 3), T, gradient=gradient).y.sum().backward()
    assert len(seen) == 1


@EVERY
def test_only_what_is_asked_for_is_computed(gradient):
    net, y0 = Net(), batch(2, 3).requires_grad_()
    sol = solve(net, y0, T, gradient=gradient)
    (alone,) = torch.autograd.grad(sol.y.sum(), y0, retain_graph=True)
    both = torch.autograd.grad(sol.y.sum(), (y0, net.w1))
    assert torch.equal(alone, both[0])


def test_without_a_parameter_to_differentiate_none_is_computed():
    asked = []

    class Watched(Swing):
        def parameter_gradients(self, saved, deltas, weights):
            asked.append(len(saved))
            return super().parameter_gradients(saved, deltas, weights)

    for gradient in (Discrete(), Backsolve()):
        swing, z0 = Watched(), batch(2, 2, 3).requires_grad_()
        sol = solve(swing.requires_grad_(False), z0, T, gradient=gradient)
        sol.y.sum().backward()
        assert asked == []


@EVERY
def test_a_loss_on_one_output_only(gradient):
    net = Net()
    for i in (0, 1, 2):
        y0 = batch(2, 3).requires_grad_()
        (found,) = torch.autograd.grad(
            solve(net, y0, T, gradient=gradient, rtol=1e-9, atol=1e-9).y[i].sum(), y0
        )
        expected = torch.ones_like(y0)
        if i:
            sol = solve(net, y0, f64(0.0, float(T[i])), gradient=Direct(), rtol=1e-9, atol=1e-9)
            (expected,) = torch.autograd.grad(sol.y[-1].sum(), y0)
        assert worst([found], [expected]) < 1e-6


# What changes between forward and backward


@ADJOINTS
@pytest.mark.parametrize("what", ["parameter", "output"])
def test_a_value_changed_in_place_before_backward_is_an_error(what, gradient):
    net, y0 = Net(), batch(2, 3).requires_grad_()
    sol = solve(net, y0, T, gradient=gradient)
    with torch.no_grad():
        (net.w1 if what == "parameter" else sol.y).add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        sol.y.sum().backward()


@ADJOINTS
def test_a_second_walk_without_retain_graph_is_torchs_error(gradient):
    y0 = batch(2, 3).requires_grad_()
    sol = solve(Net(), y0, T, gradient=gradient)
    sol.y.sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        sol.y.sum().backward()


@ADJOINTS
def test_two_solves_in_one_graph_add_up(gradient):
    net, y0 = Net(), batch(2, 3).requires_grad_()
    first = solve(net, y0, T, gradient=gradient, rtol=1e-10, atol=1e-10)
    second = solve(net, first.y[-1], T, gradient=gradient, rtol=1e-10, atol=1e-10)
    found = torch.autograd.grad((second.y[-1] ** 2).sum(), (y0, net.w1))
    first = solve(net, y0, T, gradient=Direct(), rtol=1e-10, atol=1e-10)
    second = solve(net, first.y[-1], T, gradient=Direct(), rtol=1e-10, atol=1e-10)
    assert worst(found, torch.autograd.grad((second.y[-1] ** 2).sum(), (y0, net.w1))) < 1e-8


@ADJOINTS
def test_a_cotangent_that_is_not_contiguous_or_expanded_is_right(gradient):
    y0 = batch(2, 3).requires_grad_()
    sol = solve(Net(), y0, T, gradient=gradient)
    g = batch(3, 2, 3).permute(2, 1, 0)
    weird = g.permute(2, 1, 0)
    (a,) = torch.autograd.grad(sol.y, y0, weird, retain_graph=True)
    (b,) = torch.autograd.grad(sol.y, y0, weird.contiguous().clone(), retain_graph=True)
    assert torch.equal(a, b)
    (c,) = torch.autograd.grad(
        sol.y, y0, torch.ones(1, 1, 1, dtype=torch.float64).expand(3, 2, 3), retain_graph=True
    )
    (d,) = torch.autograd.grad(sol.y, y0, torch.ones(3, 2, 3, dtype=torch.float64))
    assert torch.equal(c, d)


# Second derivatives


@ADJOINTS
@pytest.mark.parametrize("wrt", ["state", "parameter", "time"])
def test_a_second_derivative_raises(wrt, gradient):
    net, y0, t = Net(), batch(2, 3).requires_grad_(), T.clone().requires_grad_()
    sol = solve(net, y0, t, gradient=gradient)
    (first,) = torch.autograd.grad((sol.y**2).sum(), y0, create_graph=True)
    with pytest.raises(SecondDerivativeError, match=r"Direct\(\)"):
        torch.autograd.grad((first**2).sum(), {"state": y0, "parameter": net.w1, "time": t}[wrt])


@ADJOINTS
def test_a_gradient_penalty_raises_and_is_not_silently_wrong(gradient):
    y0 = batch(2, 3).requires_grad_()
    y = solve(Net(), y0, T, gradient=gradient).y
    (first,) = torch.autograd.grad(y.sum(), y0, create_graph=True)
    with pytest.raises(SecondDerivativeError):
        (y.sum() + (first**2).sum()).backward()


@ADJOINTS
def test_create_graph_alone_changes_no_first_derivative(gradient):
    net, y0 = Net(), batch(2, 3).requires_grad_()
    y = solve(net, y0, T, gradient=gradient).y
    plain = torch.autograd.grad(y.sum(), (y0, *net.parameters()), retain_graph=True)
    graphed = torch.autograd.grad(y.sum(), (y0, *net.parameters()), create_graph=True)
    assert all(torch.equal(a, b.detach()) for a, b in zip(plain, graphed, strict=True))


@ADJOINTS
def test_a_cotangents_own_second_derivative_raises_too(gradient):
    """d/dv of vᵀJ: also a derivative of the gradient."""
    y0, v = batch(2, 3).requires_grad_(), batch(3, 2, 3).requires_grad_()
    y = solve(Net(), y0, T, gradient=gradient).y
    (first,) = torch.autograd.grad(y, y0, v, create_graph=True)
    with pytest.raises(SecondDerivativeError):
        torch.autograd.grad(first.sum(), v)


# Errors


@EVERY
@pytest.mark.parametrize("when", ["first", "later"])
def test_an_exception_of_func_passes_unchanged(when, gradient):
    class Own(Exception):
        pass

    count = 0

    def func(t, y):
        nonlocal count
        count += 1
        if when == "first" or count > 5:
            raise Own("mine")
        return -y

    with pytest.raises(Own, match="mine") as caught:
        solve(func, f64(1.0).requires_grad_(), T, gradient=gradient)
    assert type(caught.value) is Own


@pytest.mark.parametrize("gradient", [Discrete(keep="state"), Backsolve()], ids=repr)
@pytest.mark.parametrize("kind", [ValueError, AssertionError, KeyboardInterrupt, ZeroDivisionError])
def test_an_exception_of_func_passes_unchanged_in_the_backward_pass(kind, gradient):
    broken = False

    def func(t, y):
        if broken:
            raise kind("mine")
        return -y

    y = solve(func, f64(1.0).requires_grad_(), T, gradient=gradient, params=[]).y
    broken = True
    with pytest.raises(kind, match="mine") as caught:
        y.sum().backward()
    assert type(caught.value) is kind


class Wrong(Swing):
    """A dynamics one of whose answers is not what it should be."""

    def __init__(self, fault):
        super().__init__()
        self.fault = fault

    def vjp(self, saved, cotangent):
        z_bar, deltas = super().vjp(saved, cotangent)
        if self.fault == "cotangent":
            z_bar = z_bar[0]
        return (None if self.fault == "none" else z_bar), deltas

    def parameter_gradients(self, saved, deltas, weights):
        w_bar, g_bar = super().parameter_gradients(saved, deltas, weights)
        if self.fault == "order":
            return g_bar, w_bar
        return (w_bar,) if self.fault == "number" else (w_bar, g_bar)

    def forward(self, t, z):
        dz, saved = super().forward(t, z)
        return (dz[0] if self.fault == "forward" else dz), saved


@ADJOINTS
@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("cotangent", "vjp returned"),
        ("none", "vjp returned"),
        ("order", "keep the order of theta"),
        ("number", "returned 1 gradients for the 2 tensors"),
        ("forward", "shape"),
    ],
)
def test_a_dynamics_that_answers_in_the_wrong_shape_is_told_so(fault, text, gradient):
    with pytest.raises(adamode.AdamodeError, match=text):
        solve(Wrong(fault), batch(2, 2, 3).requires_grad_(), T, gradient=gradient).y.sum().backward()


@ADJOINTS
def test_a_dynamics_may_leave_out_frozen_parameters(gradient):
    class Sparing(Swing):
        def parameter_gradients(self, saved, deltas, weights):
            return None, super().parameter_gradients(saved, deltas, weights)[1]

    swing, whole = Sparing(), Swing()
    swing.w.requires_grad_(False)
    for dynamics in (swing, whole):
        solve(dynamics, batch(2, 2, 3), T, gradient=gradient).y.sum().backward()
    assert swing.w.grad is None
    assert torch.equal(swing.gamma.grad, whole.gamma.grad)


@EVERY
def test_anything_with_a_dynamics_methods_is_one(gradient):
    """API: a dynamics derives from `Dynamics` (or has its methods)."""
    swing = Swing()

    class Duck:
        theta, forward = swing.theta, staticmethod(swing.forward)
        vjp, parameter_gradients = staticmethod(swing.vjp), staticmethod(swing.parameter_gradients)

    z0 = batch(2, 2, 3).requires_grad_()
    found = torch.autograd.grad(solve(Duck(), z0, T, gradient=gradient).y.sum(), (z0, swing.w))
    expected = torch.autograd.grad(solve(swing, z0, T, gradient=gradient).y.sum(), (z0, swing.w))
    assert isinstance(Duck(), Dynamics)
    assert not isinstance(Net(), Dynamics)
    assert worst(found, expected) == 0


@EVERY
def test_gradcheck_in_everything(gradient):
    y0, w = batch(1, 2).requires_grad_(), batch(2, 2, seed=3).requires_grad_()
    t = f64(0.0, 0.3, 0.5).requires_grad_()

    def run(y0, t, w):
        func = lambda t, y: torch.tanh(y @ w) + t * y  # noqa: E731
        return solve(func, y0, t, gradient=gradient, params=[w], rtol=1e-12, atol=1e-12).y

    assert torch.autograd.gradcheck(run, (y0, t, w), atol=1e-6, rtol=1e-4)


@ADJOINTS
def test_statistics_of_the_backward_pass_are_filled_by_it(gradient):
    y0 = batch(2, 3).requires_grad_()
    sol = solve(Net(), y0, T, gradient=gradient)
    assert sol.stats.nfe_backward == 0
    sol.y.sum().backward()
    assert sol.stats.nfe_backward > 0
