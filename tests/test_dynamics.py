"""The hand-derived VJPs of the dynamics other than AdamODE, against autograd and by hand."""

from __future__ import annotations

import pytest
import torch
from dynamics_zoo import MODELS, faults

from adamode.models.block import augment
from adamode.models.dynamics import (
    AugmentedNODE,
    GeneralisedHeavyBallODE,
    HeavyBallODE,
    NeuralODE,
    SecondOrderODE,
)
from adamode.models.fields import MLP, AutogradField
from adamode.solvers.errors import ArgumentError, ArgumentTypeError, DynamicsError

D = torch.float64


def made(name: str, **options):
    torch.manual_seed(3)
    if name == "sonode":
        field = MLP(6, (7,), out_dim=3).to(D)
        return SecondOrderODE(field).to(D), 2
    field = MLP(3, (7,)).to(D)
    if name == "node":
        return NeuralODE(field).to(D), 1
    if name == "anode":
        return AugmentedNODE(field).to(D), 1
    if name == "hbnode":
        return HeavyBallODE(field, gamma=0.31, **options).to(D), 2
    return GeneralisedHeavyBallODE(field, gamma=0.31, xi=1.7, **options).to(D), 2


CASES = [
    ("node", {}),
    ("anode", {}),
    ("sonode", {}),
    ("hbnode", {}),
    ("ghbnode", {"activation": "tanh"}),
    ("ghbnode", {"activation": "hardtanh"}),
]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_each_block_and_parameter_equals_autograd(name, options):
    dynamics, k = made(name, **options)
    z = (torch.randn(k, 4, 3, dtype=D) * 4).requires_grad_()  # beyond hardtanh's corners too
    t, a = torch.tensor(0.7, dtype=D), torch.randn(k, 4, 3, dtype=D)
    dz, _ = dynamics.forward(t, z)
    expected = torch.autograd.grad(dz, [z, *dynamics.theta()], a)
    with torch.no_grad():
        same, saved = dynamics.forward(t, z.detach())
        z_bar, deltas = dynamics.vjp(saved, a)
        theta_bar = dynamics.parameter_gradients([saved], [deltas], None)
    assert torch.equal(same, dz.detach())
    for found, wanted in zip((z_bar, *theta_bar), expected, strict=True):
        assert (found - wanted).abs().max() <= 1e-13 * wanted.abs().max()


@pytest.mark.parametrize(("name", "options"), CASES)
def test_weights_by_stage_and_sample_enter_the_parameters_gradients_once(name, options):
    dynamics, k = made(name, **options)
    z, a = torch.randn(k, 4, 3, dtype=D), torch.randn(k, 4, 3, dtype=D)
    weights = torch.rand(2, 4, dtype=D)
    with torch.no_grad():
        pairs = [
            (s, dynamics.vjp(s, a)[1])
            for s in (dynamics.forward(torch.tensor(x, dtype=D), z)[1] for x in (0.1, 0.9))
        ]
        found = dynamics.parameter_gradients([s for s, _ in pairs], [d for _, d in pairs], weights)
        by_hand = [torch.zeros_like(p) for p in dynamics.theta()]
        for w, x in zip(weights, (0.1, 0.9), strict=True):
            _, saved = dynamics.forward(torch.tensor(x, dtype=D), z)
            _, deltas = dynamics.vjp(saved, a * w[:, None])
            for total, part in zip(
                by_hand, dynamics.parameter_gradients([saved], [deltas], None), strict=True
            ):
                total += part
    for x, y in zip(found, by_hand, strict=True):
        assert (x - y).abs().max() <= 1e-13 * y.abs().max()


@pytest.mark.parametrize("model", MODELS)
def test_values_vjp_and_parameters_are_those_of_the_equation_under_autograd(model):
    """The equation is written out once more in `dynamics_zoo`; two stages, weights and times by sample."""
    assert faults(model) == []


def test_the_equations_are_the_papers():
    t, h, m = torch.tensor(0.0, dtype=D), torch.full((1, 3), 0.5, dtype=D), torch.full((1, 3), 2.0, dtype=D)
    heavy, _ = made("hbnode")
    f = heavy.field(t, h)
    dz, _ = heavy.forward(t, torch.stack((h, m)))
    assert torch.allclose(dz[0], -m) and torch.allclose(dz[1], f - 0.31 * m)  # noqa: PT018
    general, _ = made("ghbnode")
    dz, _ = general.forward(t, torch.stack((h, m)))
    assert torch.allclose(dz[0], torch.tanh(-m))
    assert torch.allclose(dz[1], f - 0.31 * m + 1.7 * h)
    second, _ = made("sonode")
    dz, _ = second.forward(t, torch.stack((h, m)))
    assert torch.equal(dz[0], m)
    assert torch.allclose(dz[1], second.field(t, torch.cat((h, m), 1)))


def test_start_values_come_out_as_given_and_freeze():
    general = GeneralisedHeavyBallODE(MLP(2, (3,)), gamma=0.25, xi=2.5, learnable=False)
    assert float(general.gamma) == pytest.approx(0.25)
    assert float(general.xi) == pytest.approx(2.5)
    z = torch.randn(2, 4, 2)
    with torch.no_grad():
        _, saved = general.forward(torch.tensor(0.0), z)
        _, deltas = general.vjp(saved, z)
        own = general.parameter_gradients([saved], [deltas], None)[:2]
    assert own == (None, None)


def test_hardtanh_has_no_slope_at_its_corner():
    general, _ = made("ghbnode", activation="hardtanh")
    z = torch.zeros(2, 1, 3, dtype=D)
    z[1] = torch.tensor([5.0, -5.0, 4.999], dtype=D)
    a = torch.zeros_like(z)
    a[0] = 1.0
    with torch.no_grad():
        _, saved = general.forward(torch.tensor(0.0, dtype=D), z)
        z_bar, _ = general.vjp(saved, a)
    assert z_bar[1, 0].tolist() == [0.0, 0.0, -1.0]


def test_bad_numbers_are_refused_by_name():
    field = MLP(2, (3,))
    with pytest.raises(ArgumentError, match=r"gamma=1\.5"):
        HeavyBallODE(field, gamma=1.5)
    with pytest.raises(ArgumentError, match=r"xi=-1"):
        GeneralisedHeavyBallODE(field, gamma=0.5, xi=-1)
    with pytest.raises(ArgumentError, match=r"activation='relu' is not known: take one of hardtanh, tanh"):
        GeneralisedHeavyBallODE(field, gamma=0.5, xi=1, activation="relu")
    with pytest.raises(ArgumentError, match="augment=-1"):
        augment(torch.zeros(2, 1), -1)
    with pytest.raises(ArgumentTypeError, match=r"augment=1\.5"):
        augment(torch.zeros(2, 1), 1.5)


def test_augmenting_appends_zeros_to_dim_1():
    h = torch.randn(2, 3, 4)
    wide = augment(h, 2)
    assert wide.shape == (2, 5, 4)
    assert torch.equal(wide[:, :3], h)
    assert not wide[:, 3:].any()


def test_a_second_order_field_of_the_users_own_returns_the_channels_of_h_alone():
    torch.manual_seed(0)
    mlp = MLP(6, (7,), out_dim=3).to(D)
    for field in (lambda t, hv: mlp(t, hv), AutogradField(lambda t, hv: mlp(t, hv))):
        second, z = SecondOrderODE(field), torch.randn(2, 4, 3, dtype=D)
        a = torch.randn(2, 4, 3, dtype=D)
        found, expected = second.forward(torch.tensor(0.3, dtype=D), z), SecondOrderODE(mlp)
        dz, saved = expected.forward(torch.tensor(0.3, dtype=D), z)
        assert torch.allclose(found[0], dz)
        assert torch.allclose(second.vjp(found[1], a)[0], expected.vjp(saved, a)[0])
    wrong = SecondOrderODE(lambda t, hv: hv)
    with pytest.raises(DynamicsError, match=r"\(4, 6\).*must return \(4, 3\)"):
        wrong.forward(torch.tensor(0.3, dtype=D), z)
