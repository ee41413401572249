"""Models by name, and their parts."""

import copy
import pickle

import pytest
import torch

from adamode import models
from adamode.models.augment import LearnedStart, ThirdsStart, ZeroStart
from adamode.models.encoders import ConvEncoder
from adamode.models.heads import PoolHead
from adamode.solvers.errors import ArgumentError

X = torch.rand(3, 1, 8, 8)


def test_the_digits_model_trains_end_to_end():
    model = models.create("adamnode", task="digits")
    labels = torch.tensor([0, 1, 2])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        loss = torch.nn.functional.cross_entropy(model(X), labels)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert model.last_stats.nfe > 6
    assert model.last_stats.nfe_backward > 5


def test_the_identity_has_the_same_encoder_and_head_and_solves_nothing():
    torch.manual_seed(3)
    whole = models.create("adamnode")
    torch.manual_seed(3)
    control = models.create("adamnode", block="identity")
    h = whole.encoder(X)
    torch.testing.assert_close(control(X), control.head(control.encoder(X)))
    assert [p.shape for p in control.encoder.parameters()] == [p.shape for p in whole.encoder.parameters()]
    assert [p.shape for p in control.head.parameters()] == [p.shape for p in whole.head.parameters()]
    assert control.block(h) is h
    assert control.last_stats.nfe == 0


def test_overrides_reach_the_block():
    model = models.create("adamnode", alpha=0.2, beta=0.3, hidden=5, t=(0.0, 0.5), rtol=1e-5, learnable=False)
    assert model.block.alpha.item() == pytest.approx(0.2)
    assert model.block.settings.t == (0.0, 0.5)
    assert model.block.settings.rtol == 1e-5
    assert model.block.field.layers[1].weight.shape == (5, 6, 3, 3)
    assert not model.block.dynamics.raw_alpha.requires_grad


def test_a_model_survives_deepcopy_pickle_and_state_dict():
    model = models.create("adamnode")
    expected = model(X)
    assert torch.equal(copy.deepcopy(model)(X), expected)
    assert torch.equal(pickle.loads(pickle.dumps(model))(X), expected)
    other = models.create("adamnode")
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(X), expected)


@pytest.mark.parametrize(
    ("arguments", "settings", "text"),
    [
        (("adamnod",), {}, "did you mean 'adamnode'"),
        (("adamnode", "digit"), {}, "did you mean 'digits'"),
        (("adamnode",), {"hiden": 3}, "did you mean 'hidden'"),
        (("adamnode",), {"block": "identiy"}, "did you mean 'identity'"),
        (("adamnode",), {"start": "zero"}, "did you mean 'zeros'"),
        (("adamnode",), {"denominator": "exakt"}, "did you mean 'exact'"),
    ],
)
def test_unknown_names_offer_the_nearest(arguments, settings, text):
    with pytest.raises(ArgumentError, match=text):
        models.create(*arguments, **settings)


def test_names_and_tasks_are_what_create_takes():
    for name in models.names():
        for task in models.tasks(name):
            assert isinstance(models.create(name, task=task), models.Model)


def test_thirds_start_cuts_x_o_and_o_squared():
    x, o = torch.randn(2, 1, 3, 3), torch.randn(2, 7, 3, 3)
    found = ThirdsStart()(x, o)
    torch.testing.assert_close(found["h0"], torch.cat((x, o[:, :4]), 1))
    torch.testing.assert_close(found["m0"], torch.cat((o[:, 4:], o[:, :2] ** 2), 1))
    torch.testing.assert_close(found["v0"], o[:, 2:] ** 2)
    with pytest.raises(ArgumentError, match="multiple of 3"):
        ThirdsStart()(x, o[:, :6])


def test_learned_start_begins_with_m0_zero_and_v0_one_and_learns_both():
    o, start = torch.randn(2, 4, 3, 3), LearnedStart(4)
    found = start(X, o)
    assert torch.equal(found["h0"], o)
    assert torch.equal(found["m0"], torch.zeros_like(o))
    torch.testing.assert_close(found["v0"], torch.ones_like(o))
    (found["m0"].sum() + found["v0"].sum()).backward()
    assert start.m0.grad.abs().min() > 0
    assert start.raw_v0.grad.abs().min() > 0


def test_zero_start_leaves_the_other_blocks_to_the_solver():
    assert list(ZeroStart()(X, X)) == ["h0"]


def test_the_encoder_of_kernel_one_sees_single_pixels():
    encoder = ConvEncoder(1, 2)
    x = torch.zeros(1, 1, 8, 8)
    y = x.clone()
    y[0, 0, 4, 4] = 1
    changed = (encoder(y) != encoder(x)).any(1)[0]
    assert changed.nonzero().tolist() == [[4, 4]]


def test_the_head_sees_averages_over_cells_only():
    head, h = PoolHead(2, 10, cells=2), torch.randn(3, 2, 8, 8)
    rolled = torch.cat((h[..., :4].flip(-1), h[..., 4:].flip(-1)), -1)
    torch.testing.assert_close(head(rolled), head(h), rtol=1e-5, atol=1e-6)
    with pytest.raises(ArgumentError, match="cells"):
        PoolHead(2, 10, cells=0)
