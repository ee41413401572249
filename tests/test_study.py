"""The adjoint on its way: its values against closed forms, and the rebuilt state beside the forward one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import adamode
from adamode.adjoint.proof.study import adjoint_trajectory
from adamode.models.dynamics import HeavyBallODE
from adamode.models.fields import MLP
from adamode.solvers.errors import ReconstructionError

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


def decay(rate, end, **arguments):
    """The adjoint of y' = −rate y, L = y(end)."""
    t, g = torch.tensor([0.0, end], dtype=D), torch.tensor([[0.0], [1.0]], dtype=D)
    y0 = torch.ones(1, dtype=D)
    return adjoint_trajectory(lambda t, y: -rate * y, y0, t, g, rtol=1e-6, atol=1e-8, params=(), **arguments)


@pytest.mark.parametrize("gradient", [adamode.Interpolating(), adamode.Backsolve()], ids=["a", "z and a"])
def test_every_attempt_of_the_reverse_solve_is_handed_out_in_its_order(gradient):
    y0 = torch.tensor([2.0, 0.0], dtype=D)
    g = torch.ones(2, 2, dtype=D)

    def swing(t, y):
        return torch.stack((y[1], -5 * torch.sin(y[0]) + torch.cos(3 * t)))

    way = adjoint_trajectory(swing, y0, T[[0, 2]] * 6, g, gradient=gradient, rtol=1e-4, atol=1e-4, params=())
    accepted = [row for row in way.backward if row.accepted]
    assert len(accepted) == way.stats.n_accepted_backward == len(way.t) - 1
    assert len(way.backward) - len(accepted) == way.stats.n_rejected_backward > 0
    assert [row.t for row in accepted] == way.t[:-1].tolist()
    assert all(row.accepted == (row.error_ratio <= 1) for row in way.backward)
    assert [row.nfe for row in way.backward] == sorted(row.nfe for row in way.backward)
    assert way.backward[-1].nfe == way.stats.nfe_backward
    assert [row.accepted for row in way.forward].count(True) == way.stats.n_accepted
    assert way.given_up is None
    assert way.failure is None


@pytest.mark.parametrize("checkpoints", [None, 3])
def test_the_discrete_adjoint_walks_the_accepted_steps_back(checkpoints):
    way = decay(2.0, 3.0, gradient=adamode.Discrete(checkpoints=checkpoints))
    there = [row for row in way.forward if row.accepted]
    back = way.backward
    assert [row.dt for row in back] == [-row.dt for row in reversed(there)]
    assert [row.t for row in back] == way.t[:-1].tolist()
    assert [row.error_ratio for row in back] == [row.error_ratio for row in reversed(there)]
    vjps = [row.nfe for row in back]
    assert vjps == sorted(vjps)
    assert 0 < vjps[0] < vjps[-1] <= way.stats.nfe_backward


def test_a_reverse_solve_begun_anew_shows_the_one_that_holds_and_keeps_the_other():
    way = decay(1.0, 14.0, gradient=adamode.Backsolve())
    assert way.failure is None
    lost = way.given_up
    assert lost.t[0].item() == lost.backward[0].t == way.backward[0].t == 14.0
    assert len(lost.t) == 1 + [row.accepted for row in lost.backward].count(True)
    assert lost.norms()["rebuilt − state"].max() > 1e-4  # 100 tolerances of 1e-6 at y = 1
    assert way.t.tolist() == sorted(way.t.tolist(), reverse=True)
    assert (way.t[0].item(), way.t[-1].item()) == (14.0, 0.0)
    assert way.stats.nfe_backward == way.backward[-1].nfe > lost.backward[-1].nfe
    # Put back on the forward state sixteen times on the way, it never strays far.
    assert way.norms()["rebuilt − state"].max() < 1e-5
    assert way.a[-1].item() == pytest.approx(math.exp(-14.0), rel=1e-4)


def test_a_walk_back_that_fails_raises_or_is_kept_as_far_as_it_came():
    short = adamode.Backsolve(anchors=0)
    with pytest.raises(ReconstructionError, match="backsolve: solved backwards to t=0"):
        decay(1.0, 20.0, gradient=short)
    way = decay(1.0, 20.0, gradient=short, partial=True)
    assert isinstance(way.failure, ReconstructionError)
    assert len(way.t) == len([row for row in way.backward if row.accepted]) + 1
    assert way.norms()["rebuilt − state"].max() > 1e-3
    way = decay(1.0, 20.0, gradient=short, partial=True, max_steps=len(way.forward))
    assert isinstance(way.failure, adamode.SolverError)
    assert 0 < way.t[-1].item() < 20.0
    assert len(way.backward) == len(way.forward)
    with pytest.raises(adamode.SolverError):
        decay(1.0, 20.0, gradient=short, max_steps=len(way.forward))


def test_a_forward_solve_that_fails_has_its_trace():
    with pytest.raises(adamode.SolverError) as caught:
        decay(1.0, 20.0, max_steps=5, partial=True)
    assert len(caught.value.trace) == 5


def test_a_modules_own_blocks_are_not_taken_for_names():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])

        def forward(self, t, y):
            return torch.tanh(self.blocks[1](self.blocks[0](y)))

    y0 = torch.ones(2, 2, dtype=D)
    way = adjoint_trajectory(Net().to(D), y0, T, torch.ones(3, 2, 2, dtype=D))
    assert way.blocks == ()
    assert set(way.norms()) == {"a", "state"}
