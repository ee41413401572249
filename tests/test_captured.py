"""Tensors that func uses and an adjoint would miss are found and said."""

from __future__ import annotations

import warnings

import pytest
import torch

import adamode
from adamode.adjoint.torchdiffeq import manners as face

D = torch.float64
T = torch.tensor([0.0, 1.0], dtype=D)
outside = torch.nn.Parameter(torch.ones(3, dtype=D))


class Net(torch.nn.Module):
    def __init__(self, context=None):
        super().__init__()
        self.layer = torch.nn.Linear(3, 3, dtype=D)
        self.context = context

    def forward(self, t, y):
        return self.layer(y) * outside if self.context is None else self.layer(y) + self.context


@pytest.fixture(autouse=True)
def forget_warnings(monkeypatch):
    monkeypatch.setattr(face, "_warned", set())


def test_a_parameter_outside_the_module_is_an_error_that_names_it():
    with pytest.raises(adamode.ArgumentError, match=r"uses outside, shape \(3,\).*params=\["):
        adamode.solve(Net(), torch.ones(3, dtype=D), T)


def test_a_tensor_computed_outside_the_module_is_an_error():
    context = torch.nn.Linear(3, 3, dtype=D)(torch.ones(3, dtype=D))
    with pytest.raises(adamode.ArgumentError, match="computed outside it"):
        adamode.solve(Net(context), torch.ones(3, dtype=D), T)


def test_naming_it_gives_its_gradient():
    net = Net()
    y = adamode.solve(net, torch.ones(3, dtype=D), T, params=[*net.parameters(), outside], rtol=1e-9).y
    (found,) = torch.autograd.grad(y[-1].sum(), outside)
    y = adamode.solve(net, torch.ones(3, dtype=D), T, gradient=adamode.Direct(), rtol=1e-9).y
    (expected,) = torch.autograd.grad(y[-1].sum(), outside)
    assert torch.allclose(found, expected, rtol=1e-12)


def test_a_context_named_in_params_gets_its_gradient():
    source = torch.ones(3, dtype=D, requires_grad=True)
    context = source * 2
    net = Net(context)
    y = adamode.solve(net, torch.ones(3, dtype=D), T, params=[*net.parameters(), context]).y
    y[-1].sum().backward()
    assert source.grad.abs().min() > 0


def test_torchdiffeqs_face_warns_once_and_goes_on():
    with pytest.warns(adamode.AdamodeWarning, match="uses outside"):
        adamode.odeint_adjoint(Net(), torch.ones(3, dtype=D), T)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adamode.odeint_adjoint(Net(), torch.ones(3, dtype=D), T)


def test_own_parameters_left_out_of_params_are_left_out_on_purpose():
    net = Net(torch.ones(3, dtype=D))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = adamode.solve(net, torch.ones(3, dtype=D), T, params=[net.layer.bias]).y
    y[-1].sum().backward()
    assert net.layer.weight.grad is None
    assert net.layer.bias.grad is not None
