"""The norm "blocks": no block of a state can hide its error behind the others."""

from __future__ import annotations

import pytest
import torch

import adamode
from adamode.models.dynamics import HeavyBallODE
from adamode.models.fields import MLP

D = torch.float64
T = torch.tensor([0.0, 3.0], dtype=D)


def test_a_block_alone_decides_as_if_it_were_the_whole_state():
    fast = lambda t, z: torch.stack((z[0] * 0, torch.cos(5 * t) * z[1]))  # noqa: E731
    z0 = torch.ones(2, 3, dtype=D)
    alone = adamode.solve(lambda t, y: torch.cos(5 * t) * y, z0[1], T, gradient=None)
    blocks = adamode.solve(fast, z0, T, norm="blocks", gradient=None)
    mean = adamode.solve(fast, z0, T, gradient=None)
    assert blocks.stats.n_steps == alone.stats.n_steps > mean.stats.n_steps
    assert torch.allclose(blocks.y[:, 1], alone.y, rtol=1e-13)


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
def test_a_dynamics_blocks_are_its_axis_0(stepping):
    torch.manual_seed(0)
    dynamics = HeavyBallODE(MLP(3, (5,)).to(D), gamma=0.4).to(D)
    z0 = torch.randn(2, 1, 3, dtype=D)
    sol = adamode.solve(dynamics, z0, T, norm="blocks", stepping=stepping, gradient=None, dt0=0.01)

    def largest(z):
        by_block = z.square().mean(2).sqrt()  # [K, B]
        return by_block.amax(0) if stepping == "per_sample" else by_block.amax()

    own = adamode.solve(dynamics, z0, T, norm=largest, stepping=stepping, gradient=None, dt0=0.01)
    assert int(sol.stats.n_steps) == int(own.stats.n_steps)
    assert torch.allclose(sol.y, own.y, rtol=1e-12)


def test_the_entries_of_a_vector_are_its_blocks():
    y0 = torch.tensor([1.0, 1e-3, 2.0], dtype=D)
    blocks, largest = (
        adamode.solve(lambda t, y: -t * y, y0, T, norm=norm, gradient=None) for norm in ("blocks", "max")
    )
    assert torch.equal(blocks.y, largest.y)


def test_an_unknown_norm_offers_the_nearest():
    with pytest.raises(adamode.ArgumentError, match="did you mean 'blocks'"):
        adamode.solve(lambda t, y: -y, torch.ones(2), T.float(), norm="block")
