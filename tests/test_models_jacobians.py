"""The models' Jacobians by hand against forward mode, and where there is none."""

import dataclasses

import pytest
import torch
from dynamics_zoo import VARIANTS, draw

import adamode
from adamode.models.dynamics import NeuralODE, SecondOrderODE
from adamode.models.fields import MLP, Linear, Relaxing, Total
from adamode.solvers.step.implicit.jacobian import load_rules

D = torch.float64


def whole(dynamics, t, z):
    """∂F/∂z of each sample by forward mode, [B, n, n]."""
    load_rules()
    found = torch.func.jacfwd(lambda z: dynamics.forward(t, z)[0])(z)  # [K, B, D, K, B, D]
    n = z.numel() // z.shape[1]
    return torch.stack([found[:, b, :, :, b].reshape(n, n) for b in range(z.shape[1])])


@pytest.mark.parametrize(("model", "options"), VARIANTS)
@pytest.mark.parametrize("each", [False, True])
def test_by_hand_it_is_that_of_forward_mode(model, options, each):
    drawn = draw(model, options)
    z = drawn.z0.clone()
    z[1:] = z[1:] + 0.3
    times = torch.tensor([[0.3], [0.7]], dtype=D)
    t = times if each else times[0, 0]
    found = drawn.dynamics.jacobian(t, z)
    torch.testing.assert_close(found, whole(drawn.dynamics, t, z), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_of_other_activations_and_of_a_linear_field(activation):
    for field in (MLP(3, (5, 4), activation=activation), Linear(3)):
        dynamics = NeuralODE(field).double()
        z, t = torch.linspace(-1, 1, 6, dtype=D).reshape(1, 2, 3), torch.tensor(0.3, dtype=D)
        torch.testing.assert_close(dynamics.jacobian(t, z), whole(dynamics, t, z), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [NeuralODE, SecondOrderODE])
def test_of_a_relaxing_field(kind):
    n = 1 + (kind is SecondOrderODE)  # blocks of the state, which its field sees
    dynamics = kind(Relaxing(MLP(3 * n, (5,), out_dim=3, time=False), (1.0, 7.0, 0.5))).double()
    z, t = torch.linspace(-1, 1, 6 * n, dtype=D).reshape(n, 2, 3), torch.tensor(0.3, dtype=D)
    torch.testing.assert_close(dynamics.jacobian(t, z), whole(dynamics, t, z), rtol=1e-12, atol=1e-12)
    without = Total(MLP(3 * n, (5,), out_dim=3))  # has no `linearised`
    assert kind(Relaxing(without, (1.0, 7.0, 0.5))).jacobian is None


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
@pytest.mark.parametrize("model", ["node", "adamnode"])
def test_an_implicit_solve_takes_it(model, stepping):
    drawn = draw(model, {})
    options = {"method": "kvaerno3", "dt": 0.5, "rtol": 1e-11, "atol": 1e-13, "stepping": stepping}
    found, calls = [], []
    for by_hand in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            if not by_hand:
                patch.setattr(type(drawn.dynamics), "jacobian", None)
            drawn.dynamics.zero_grad()
            sol = adamode.solve(drawn.dynamics, drawn.z0, torch.tensor([0.0, 1.0], dtype=D), **options)
            sol.y[-1].square().sum().backward()
        calls.append(torch.as_tensor(sol.stats.nfe))
        found.append(torch.cat([p.grad.flatten() for p in drawn.dynamics.parameters()]))
    torch.testing.assert_close(*found, rtol=1e-8, atol=1e-10)
    assert (calls[0] < calls[1]).all()


def test_a_class_or_a_field_of_the_users_has_none():
    class Own(NeuralODE):
        def forward(self, t, z):
            f, saved = super().forward(t, z)
            return 2 * f, saved

    assert Own(Linear(2)).jacobian is None
    assert NeuralODE(lambda t, h: -h).jacobian is None
    assert dataclasses.replace(draw("node", {})).dynamics.jacobian is not None
