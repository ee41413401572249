"""The adjoint on its way: its values against closed forms, and the rebuilt state beside the forward one."""

from __future__ import annotations

import pytest
import torch

import adamode
from adamode.adjoint.study import adjoint_trajectory
from adamode.models.dynamics import HeavyBallODE
from adamode.models.fields import MLP

D = torch.float64
T = torch.tensor([0.0, 0.4, 1.0], dtype=D)
CHOICES = [adamode.Discrete(), adamode.Discrete(checkpoints=2), adamode.Interpolating(), adamode.Backsolve()]


@pytest.mark.parametrize("gradient", CHOICES, ids=lambda g: type(g).__name__)
def test_the_adjoint_of_a_linear_flow_is_its_transposed_exponential(gradient):
    a = torch.tensor([[0.0, 1.0], [-2.0, -0.3]], dtype=D)
    g = torch.zeros(3, 2, dtype=D)
    g[1], g[2] = torch.tensor([0.5, -1.0], dtype=D), torch.tensor([1.0, 2.0], dtype=D)
    y0 = torch.tensor([1.0, 0.5], dtype=D)
    way = adjoint_trajectory(
        lambda t, y: a @ y, y0, T, g, gradient=gradient, rtol=1e-10, atol=1e-10, params=()
    )
    assert way.t[0] == 1.0
    assert way.t[-1] == 0.0
    for t, found, state in zip(way.t, way.a, way.state, strict=True):
        expected = torch.matrix_exp(a.T * (1.0 - t)) @ g[2]
        jumped = expected + torch.matrix_exp(a.T * (0.4 - t)) @ g[1]
        allowed = {True: [jumped], False: [expected]}[bool(t < 0.4)]
        if t == 0.4:  # shown before and after the cotangent comes in
            allowed = [expected, jumped]
        assert min((found - one).abs().max() for one in allowed) < 1e-8
        assert (state - torch.matrix_exp(a * t) @ y0).abs().max() < 1e-8


def test_backsolve_shows_the_state_that_it_rebuilt_and_norms_by_block():
    torch.manual_seed(0)
    dynamics = HeavyBallODE(MLP(3, (5,)).to(D), gamma=0.4).to(D)
    z0 = torch.randn(2, 4, 3, dtype=D)
    way = adjoint_trajectory(
        dynamics, z0, T, torch.ones(3, 2, 4, 3, dtype=D), gradient=adamode.Backsolve(), rtol=1e-9, atol=1e-9
    )
    norms = way.norms()
    assert set(norms) == {f"{name}, {b}" for name in ("a", "state", "rebuilt − state") for b in "hm"}
    assert way.a.shape == way.state.shape == way.rebuilt.shape
    assert norms["rebuilt − state, h"].max() < 1e-7
    assert norms["a, m"].min() > 0


def test_what_has_no_trajectory_or_another_shape_is_refused():
    y0 = torch.ones(2, dtype=D)
    with pytest.raises(adamode.ArgumentError, match="no adjoint trajectory"):
        adjoint_trajectory(lambda t, y: -y, y0, T, torch.ones(3, 2), gradient=adamode.Direct())
    with pytest.raises(adamode.ArgumentError, match=r"cotangent is \(2,\)"):
        adjoint_trajectory(lambda t, y: -y, y0, T, torch.ones(2))
    with pytest.raises(adamode.ArgumentTypeError, match=r"'rtl'.*rtol"):
        adjoint_trajectory(lambda t, y: -y, y0, T, torch.ones(3, 2), rtl=1)
