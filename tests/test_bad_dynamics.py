"""What a dynamics may do wrong, in every adjoint and both steppings: an error that names it, or right."""

from __future__ import annotations

import pytest
import torch
from problems import Net, Swing, f64, worst
from torch import nn

import adamode
from adamode import Backsolve, Direct, Discrete, Interpolating, solve

T = f64(0.0, 0.4, 1.0)
ALL = {
    "stages": Discrete(),
    "state": Discrete(keep="state"),
    "checkpoints": Discrete(checkpoints=2),
    "interpolating": Interpolating(),
    "backsolve": Backsolve(),
}
ADJOINTS = pytest.mark.parametrize("gradient", ALL.values(), ids=ALL)
STEPPINGS = pytest.mark.parametrize("stepping", ["shared", "per_sample"])
TIGHT = {"rtol": 1e-9, "atol": 1e-9}
NEAR = 1e-6  # of the continuous adjoints at 1e-9; discrete is far below


def start(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


class Faulty(Swing):
    """A dynamics one of whose answers is not what it should be."""

    def __init__(self, fault):
        super().__init__()
        self.fault = fault

    def vjp(self, saved, cotangent):
        z_bar, deltas = super().vjp(saved, cotangent)
        return {"one block": z_bar[:1], "a number": 1.0}.get(self.fault, z_bar), deltas

    def parameter_gradients(self, saved, deltas, weights):
        w_bar, g_bar = super().parameter_gradients(saved, deltas, weights)
        return {
            "one missing": (w_bar,),
            "one too many": (w_bar, g_bar, g_bar),
            "mixed": (g_bar, w_bar),
            "transposed": (w_bar[:1], g_bar),
            "numbers": (w_bar, 1.0),
            "nothing": None,
        }.get(self.fault, (w_bar, g_bar))


@ADJOINTS
@STEPPINGS
@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("one block", r"Faulty\.vjp returned \(1, 2, 3\)"),
        ("a number", r"Faulty\.vjp returned float"),
        ("one missing", r"Faulty\.parameter_gradients returned 1 gradients for the 2"),
        ("one too many", r"Faulty\.parameter_gradients returned 3 gradients for the 2"),
        ("mixed", r"entry 0 has shape \(\), but theta\(\)\[0\] has \(3, 3\)"),
        ("transposed", r"entry 0 has shape \(1, 3\)"),
        ("numbers", r"parameter_gradients: entry 1 is a float"),
        ("nothing", r"parameter_gradients returned a NoneType"),
    ],
)
def test_a_wrong_answer_is_an_error_that_names_it(fault, text, stepping, gradient):
    y = solve(Faulty(fault), start(2, 2, 3).requires_grad_(), T, gradient=gradient, stepping=stepping).y
    with pytest.raises(adamode.DynamicsError, match=text):
        y.sum().backward()


@ADJOINTS
@STEPPINGS
@pytest.mark.parametrize("frozen", ["one", "all"])
def test_frozen_parameters_get_nothing_and_change_nothing(frozen, stepping, gradient):
    net, whole = Net(), Net()
    for p in [net.w1] if frozen == "one" else net.parameters():
        p.requires_grad_(False)
    found, expected = start(2, 3).requires_grad_(), start(2, 3).requires_grad_()
    for func, y0 in ((net, found), (whole, expected)):
        solve(func, y0, T, gradient=gradient, stepping=stepping).y.sum().backward()
    assert worst([found.grad], [expected.grad]) <= 1e-12
    assert net.w1.grad is None
    if frozen == "one":
        assert worst([net.w2.grad, net.mu.grad], [whole.w2.grad, whole.mu.grad]) <= 1e-12


class Twice(nn.Module):
    """One tensor under two names."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(start(3, 3) / 2)
        self.second = self.first

    def forward(self, t, y):
        return torch.tanh(y @ self.first) @ self.second.T


class TwiceByHand(Swing):
    """W enters theta() twice: the two halves of its gradient are handed in apart."""

    def theta(self):
        return self.w, self.gamma, self.w

    def parameter_gradients(self, saved, deltas, weights):
        w_bar, g_bar = super().parameter_gradients(saved, deltas, weights)
        return w_bar * 0.25, g_bar, w_bar * 0.75


@ADJOINTS
@STEPPINGS
@pytest.mark.parametrize("given", [False, True])
def test_a_parameter_under_two_names_gets_its_sum_once(given, stepping, gradient):
    func, y0 = Twice(), start(2, 3).requires_grad_()
    params = [func.first, func.second] if given else None
    results = []
    for choice in (gradient, Direct()):
        y = solve(func, y0, T, gradient=choice, stepping=stepping, params=params, **TIGHT).y
        results.append(torch.autograd.grad((y**2).sum(), (y0, func.first)))
    assert worst(*results) <= NEAR


@ADJOINTS
@STEPPINGS
def test_a_tensor_twice_in_theta_gets_both_shares(stepping, gradient):
    twice, once, z0 = TwiceByHand(), Swing(), start(2, 2, 3)
    for func in (twice, once):
        solve(func, z0, T, gradient=gradient, stepping=stepping).y.sum().backward()
    assert worst([twice.w.grad, twice.gamma.grad], [once.w.grad, once.gamma.grad]) <= 1e-12


@ADJOINTS
@STEPPINGS
def test_a_leaf_in_a_closure_is_found(stepping, gradient):
    scale, y0 = start(3).requires_grad_(), start(2, 3).requires_grad_()
    func = lambda t, y: torch.sin(y * scale)  # noqa: E731
    results = []
    for choice in (gradient, Direct()):
        y = solve(func, y0, T, gradient=choice, stepping=stepping, **TIGHT).y
        results.append(torch.autograd.grad((y**2).sum(), (y0, scale)))
    assert worst(*results) <= NEAR


@ADJOINTS
@STEPPINGS
def test_a_computed_tensor_in_a_closure_is_an_error_that_says_params(stepping, gradient):
    scale = start(3).requires_grad_() * 2
    with pytest.raises(adamode.ArgumentError, match=r"computed outside it.*params=\["):
        solve(lambda t, y: y * scale, start(2, 3), T, gradient=gradient, stepping=stepping)


@ADJOINTS
@STEPPINGS
def test_a_second_derivative_is_an_error_that_names_direct_and_create_graph_is_harmless(stepping, gradient):
    net, y0 = Net(), start(2, 3).requires_grad_()
    y = solve(net, y0, T, gradient=gradient, stepping=stepping).y
    plain = torch.autograd.grad(y.sum(), (y0, net.w1), retain_graph=True)
    graphed = torch.autograd.grad(y.sum(), (y0, net.w1), create_graph=True)
    assert all(torch.equal(a, b.detach()) for a, b in zip(plain, graphed, strict=True))
    with pytest.raises(adamode.AdamodeError, match=r"Direct\(\)"):
        graphed[0].square().sum().backward()


@STEPPINGS
@pytest.mark.parametrize("gradient", [adamode.Interpolating(), adamode.Backsolve()], ids=repr)
@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.vjp, torch.func.vmap])
def test_transforms_of_torch_func_are_refused_with_the_way_out(transform, stepping, gradient):
    net = Net()
    run = lambda y0: solve(net, y0, T, gradient=gradient, stepping=stepping).y.sum()  # noqa: E731
    y0 = start(4, 2, 3) if transform is torch.func.vmap else start(2, 3)
    with pytest.raises(adamode.AdamodeError, match=r"transform of torch\.func.*Direct\(\)|batched by vmap"):
        transform(run, y0) if transform is torch.func.vjp else transform(run)(y0)


@ADJOINTS
@STEPPINGS
@pytest.mark.parametrize("what", ["output", "parameter", "start"])
def test_a_saved_tensor_changed_in_place_fires_torchs_version_check(what, stepping, gradient):
    net, leaf = Net(), start(2, 3).requires_grad_()
    y0 = leaf * 1
    y = solve(net, y0, T, gradient=gradient, stepping=stepping).y
    loss = y.sum()
    with torch.no_grad():
        {"output": y, "parameter": net.w2, "start": y0}[what].mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@ADJOINTS
@STEPPINGS
def test_autograd_inside_func_needs_no_enable_grad(stepping, gradient):
    """y' = −∇E(y), E = Σ (W y)⁴/4, the gradient taken by autograd inside func, under no_grad too."""
    w, y0 = (start(3, 3) / 3).requires_grad_(), start(2, 3).requires_grad_()

    def func(t, y):
        y = y if y.requires_grad else y.requires_grad_()
        return -torch.autograd.grad(((y @ w) ** 4).sum() / 4, y, create_graph=True)[0]

    results = []
    for f, choice in ((func, gradient), (lambda t, y: -((y @ w) ** 3) @ w.T, Direct())):
        y = solve(f, y0, T, gradient=choice, stepping=stepping, params=[w], **TIGHT).y
        results.append(torch.autograd.grad((y**2).sum(), (y0, w)))
    assert worst(*results) <= NEAR


class Normed(nn.Module):
    """BatchNorm: in training mode its value depends on the batch."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3, dtype=torch.float64)

    def forward(self, t, y):
        return torch.tanh(self.norm(y))


@ADJOINTS
def test_batch_norm_in_training_mode_is_refused_per_sample_and_repeats_in_shared_stepping(gradient):
    func, y0 = Normed(), start(4, 3).requires_grad_()
    with pytest.raises(adamode.ArgumentError, match=r"func\.norm is a BatchNorm1d in training mode"):
        solve(func, y0, T, gradient=gradient, stepping="per_sample")
    results = []
    for choice in (gradient, Direct()):
        y = solve(func, y0, T, gradient=choice, **TIGHT).y
        results.append(torch.autograd.grad((y**2).sum(), (y0, func.norm.weight)))
    assert worst(*results) <= NEAR  # its value is the batch's statistics alone, whatever the running ones


@pytest.mark.parametrize("name", ["state", "checkpoints", "interpolating", "backsolve"])
@STEPPINGS
def test_dropout_is_found_where_stages_are_evaluated_anew(name, stepping):
    func, y0 = nn.Sequential(nn.Linear(3, 3, dtype=torch.float64), nn.Dropout(0.5)), start(4, 3)
    f = lambda t, y: func(y)  # noqa: E731
    y = solve(f, y0, T, gradient=ALL[name], stepping=stepping, dt=0.25, params=func.parameters()).y
    with pytest.raises(adamode.NotRepeatableError, match="dropout"):
        y.sum().backward()
