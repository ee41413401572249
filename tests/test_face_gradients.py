"""Gradients as programs take them: inside func, with respect to times, twice, in replicas."""

import copy
import math

import pytest
import torch
from problems import f64
from torch import nn

import adamode

T = f64(0.0, 0.5, 1.0)


class Hamilton(nn.Module):
    """x' = J ∇H by autograd inside, without enable_grad, as Hamiltonian nets are often written."""

    def __init__(self):
        super().__init__()
        self.stiffness = nn.Parameter(f64(2.0)[0])

    def forward(self, t, x):
        if not x.requires_grad:
            x = x.requires_grad_()
        energy = (self.stiffness * x[0] ** 2 + x[1] ** 2) / 2
        (slope,) = torch.autograd.grad(energy, x, create_graph=True)
        return torch.stack((slope[1], -slope[0]))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("wanted", [False, True])
@pytest.mark.parametrize("solver", [adamode.odeint, adamode.odeint_adjoint])
def test_func_may_differentiate_inside(solver, wanted, frozen):
    field = Hamilton()
    field.stiffness.requires_grad_(not frozen)
    x0 = f64(1.0, 0.0).requires_grad_(wanted)
    y = solver(field, x0, T)
    w = math.sqrt(2.0)
    assert torch.allclose(y[:, 0].detach(), torch.cos(w * T), atol=1e-6)
    if y.requires_grad:
        y[-1, 0].backward()
    if wanted:
        assert x0.grad[0].item() == pytest.approx(math.cos(w), abs=1e-6)
    if not frozen and (wanted or solver is adamode.odeint_adjoint):
        assert field.stiffness.grad.item() == pytest.approx(-math.sin(w) / (2 * w), abs=1e-6)


def test_the_slope_of_an_event_may_differentiate_inside():
    field, x0 = Hamilton(), f64(1.0, 0.0).requires_grad_()
    when, _ = adamode.odeint_event(field, x0, f64(0.0)[0], event_fn=lambda t, x: x[0])
    when.backward()
    w = math.sqrt(2.0)
    assert when.item() == pytest.approx(math.pi / (2 * w), abs=1e-6)
    assert field.stiffness.grad.item() == pytest.approx(-math.pi / (4 * w**3), abs=1e-6)


@pytest.mark.parametrize("times", [[0.0, 0.4, 1.0], [1.0, 0.6, 0.0]])
def test_first_and_second_derivatives_with_respect_to_state_times_and_parameters(times):
    def value(y0, t, w):
        def pendulum(t, y):
            return torch.stack((y[1], -w * torch.sin(y[0]) * t))

        return adamode.odeint(pendulum, y0, t, rtol=1e-10, atol=1e-10)

    inputs = (f64(0.5, 1.0).requires_grad_(), f64(*times).requires_grad_(), f64(0.7)[0].requires_grad_())
    assert torch.autograd.gradcheck(value, inputs)
    assert torch.autograd.gradgradcheck(value, inputs)


def test_the_first_derivative_with_respect_to_outputs_costs_no_evaluation():
    counts = []
    for wanted in (False, True):
        calls = []

        def decay(t, y, calls=calls):
            calls.append(t)
            return -y

        t = torch.linspace(0, 1, 9, dtype=torch.float64).requires_grad_(wanted)
        y = adamode.odeint(decay, f64(1.0).requires_grad_(), t)
        y.sum().backward()
        counts.append(len(calls))
    assert counts[1] - counts[0] == 2  # both for the start


def test_a_state_of_no_dimension_has_time_gradients_under_the_adjoint():
    y0, t = f64(1.0)[0].requires_grad_(), T.clone().requires_grad_()
    y = adamode.odeint_adjoint(lambda t, y: -y, y0, t, adjoint_params=())
    y[-1].backward()
    e = math.exp(-1.0)
    assert torch.allclose(t.grad, f64(e, 0.0, -e), atol=1e-7)
    assert y0.grad.item() == pytest.approx(e, abs=1e-7)


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, 2), nn.Tanh()).double()

    def forward(self, t, y):
        return self.inner(y)


def replica_of(module):
    """As nn.parallel.replicate leaves it: parameters are tensors with a history, and no Parameters."""
    twin = module._replicate_for_data_parallel()
    twin._former_parameters = {}
    for name, parameter in module._parameters.items():
        copied = parameter * 1.0
        setattr(twin, name, copied)
        twin._former_parameters[name] = copied
    for name, child in module._modules.items():
        twin._modules[name] = replica_of(child)
    return twin


def test_a_replica_of_data_parallel_gets_its_gradients_under_the_adjoint():
    whole = Linear()
    split = copy.deepcopy(whole)
    y0 = torch.ones(3, 2, dtype=torch.float64)
    adamode.odeint_adjoint(whole, y0, T)[-1].sum().backward()
    replica = replica_of(split)
    assert not list(replica.parameters())
    adamode.odeint_adjoint(replica, y0, T)[-1].sum().backward()
    for a, b in zip(whole.parameters(), split.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize(
    "returned",
    [lambda y: y, lambda y: y.flip(0), lambda y: y[:1].expand(3), lambda y: y.view(1, 3)[0]],
    ids=["itself", "flipped", "expanded", "view"],
)
def test_func_may_return_its_argument_or_a_view_of_it(returned):
    y0 = f64(1.0, 2.0, 3.0).requires_grad_()
    through_steps = adamode.odeint(lambda t, y: returned(y), y0, T)
    adjoint = adamode.odeint_adjoint(lambda t, y: returned(y), y0, T, adjoint_params=())
    with torch.no_grad():
        plain = adamode.odeint(lambda t, y: returned(y), y0, T)
    assert torch.allclose(plain, through_steps, rtol=1e-12)
    assert torch.allclose(adjoint, through_steps, rtol=1e-12)
    gradients = [torch.autograd.grad(y[-1].pow(2).sum(), y0)[0] for y in (through_steps, adjoint)]
    assert torch.allclose(*gradients, rtol=1e-6)


def test_a_value_changed_before_the_backward_pass_is_noticed():
    p = nn.Parameter(f64(1.0))
    y0 = f64(1.0, 2.0).requires_grad_()
    y = adamode.odeint_adjoint(lambda t, y: -p * y**2, y0, T, adjoint_params=(p,))
    with torch.no_grad():
        p.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.jacrev])
def test_torch_func_differentiates_odeint_and_is_refused_by_the_adjoint(transform):
    def last(solver, **more):
        return lambda y: solver(lambda t, y: -y, y, T, **more)[-1].sum()

    found = transform(last(adamode.odeint))(f64(1.0, 2.0))
    assert torch.allclose(found, f64(1.0, 1.0) * math.exp(-1.0), atol=1e-7)
    with pytest.raises(ValueError, match=r"torch.func is around this solve.*adamode.odeint"):
        transform(last(adamode.odeint_adjoint, adjoint_params=()))(f64(1.0, 2.0))


@pytest.mark.parametrize("solver", [adamode.odeint, adamode.odeint_adjoint])
def test_vmap_around_a_solve_is_refused_with_the_way_out(solver):
    more = {} if solver is adamode.odeint else {"adjoint_params": ()}
    with pytest.raises(TypeError, match=r"batched by vmap.*whole batch as y0"):
        torch.func.vmap(lambda y: solver(lambda t, y: -y, y, T, **more))(torch.ones(3, 2))
