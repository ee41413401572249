"""AdamODE: its equation, its VJP against autograd and finite differences, and the printed Eq. 15."""

import copy
import math
import pickle

import pytest
import torch

from adamode.models.denominators import DENOMINATORS, get_denominator
from adamode.models.dynamics import AdamODE
from adamode.models.dynamics.field_dynamics import Sigmoid, Softplus
from adamode.models.fields import MLP, AutogradField, Conv
from adamode.solvers.errors import ArgumentError, ArgumentTypeError

ALPHA, BETA, EPS = 0.3, 0.6, 1e-2


@pytest.fixture(autouse=True)
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(1)
    yield
    torch.set_default_dtype(before)


def make(field=None, **settings):
    settings = {"alpha": ALPHA, "beta": BETA, "eps": EPS, **settings}
    return AdamODE(MLP(4, (6,)) if field is None else field, **settings)


def state(shape=(4,), batch=3):
    z = torch.randn(3, batch, *shape)
    z[2] = z[2].abs() + 0.1
    return z


def by_autograd(dynamics, t, z, cotangent):
    """(z̄ of each block, gradient of each parameter) through the equation, written out again here."""
    h, m, v = (block.clone().requires_grad_() for block in z)
    a, b = torch.sigmoid(dynamics.raw_alpha), torch.sigmoid(dynamics.raw_beta)
    f = dynamics.field(t, h)
    d = {
        "exact": lambda: (v + dynamics.eps) ** -0.5,
        "softplus": lambda: 1 / (torch.log1p(v.exp()).sqrt() + dynamics.eps),
        "sigmoid": lambda: 1 / ((1 / (1 + (-v).exp())).sqrt() + dynamics.eps),
    }[dynamics.denominator]()
    dz = torch.stack((-m * d, a * (-f - m), b * (f**2 - v)))
    theta = dynamics.theta()
    found = torch.autograd.grad(dz, (h, m, v, *theta), cotangent)
    return dz, found[:3], found[3:]


def close(found, expected):
    return (found - expected).abs().max() <= 1e-12 * expected.abs().max()


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("per_sample", [False, True])
def test_forward_and_vjp_equal_autograd_through_the_equation(denominator, per_sample):
    dynamics, z, cotangent = make(denominator=denominator), state(), torch.randn(3, 3, 4)
    t = torch.rand(3, 1) if per_sample else torch.tensor(0.7)
    dz, blocks, theta = by_autograd(dynamics, t, z, cotangent)
    with torch.no_grad():
        found, saved = dynamics.forward(t, z)
        z_bar, deltas = dynamics.vjp(saved, cotangent)
        gradients = dynamics.parameter_gradients([saved], [deltas], None)
    assert close(found, dz)
    for name, got, want in zip("hmv", z_bar, blocks, strict=True):
        assert close(got, want), name
    assert len(gradients) == len(dynamics.theta())
    for i, (got, want) in enumerate(zip(gradients, theta, strict=True)):
        assert got.shape == want.shape
        assert close(got, want), i


@pytest.mark.parametrize("field", [lambda: Conv(2, 3), lambda: AutogradField(Conv(2, 3))])
def test_vjp_on_images(field):
    dynamics, z, cotangent = make(field()), state((2, 4, 4)), torch.randn(3, 3, 2, 4, 4)
    t = torch.tensor(0.3)
    _, blocks, theta = by_autograd(dynamics, t, z, cotangent)
    with torch.no_grad():
        _, saved = dynamics.forward(t, z)
        z_bar, deltas = dynamics.vjp(saved, cotangent)
        gradients = dynamics.parameter_gradients([saved], [deltas], None)
    assert all(close(got, want) for got, want in zip(z_bar, blocks, strict=True))
    assert all(close(got, want) for got, want in zip(gradients, theta, strict=True))


@pytest.mark.parametrize("weighting", ["stages", "stages and samples"])
def test_weights_come_in_when_the_step_is_accepted(weighting):
    dynamics, n = make(), 4
    weights = torch.randn(n) if weighting == "stages" else torch.randn(n, 3)
    kept, expected = [], [torch.zeros_like(p) for p in dynamics.theta()]
    for i in range(n):
        z, cotangent, t = state(), torch.randn(3, 3, 4), torch.rand(())
        with torch.no_grad():
            _, saved = dynamics.forward(t, z)
            kept.append((saved, dynamics.vjp(saved, cotangent)[1]))
        weighted = cotangent * (weights[i] if weights.ndim == 1 else weights[i][None, :, None])
        for total, g in zip(expected, by_autograd(dynamics, t, z, weighted)[2], strict=True):
            total += g
    with torch.no_grad():
        found = dynamics.parameter_gradients([s for s, _ in kept], [d for _, d in kept], weights)
    assert all(close(got, want) for got, want in zip(found, expected, strict=True))


@pytest.mark.parametrize("form", ["paper", "paper-rates"])
def test_the_printed_forms_change_the_h_block_and_the_fields_gradient_only(form):
    exact = make()
    printed = copy.deepcopy(exact)
    printed.adjoint_form = form
    t, z, cotangent = torch.tensor(0.7), state(), torch.randn(3, 3, 4)
    with torch.no_grad():
        (_, saved), (_, same) = exact.forward(t, z), printed.forward(t, z)
        (z_bar, deltas), (z_printed, deltas_printed) = (
            exact.vjp(saved, cotangent),
            printed.vjp(same, cotangent),
        )
        gradients = exact.parameter_gradients([saved], [deltas], None)
        gradients_printed = printed.parameter_gradients([same], [deltas_printed], None)
    _, a_m, a_v = cotangent
    c = {"paper": -a_m + a_v, "paper-rates": -(1 - ALPHA) * a_m + (1 - BETA) * a_v}[form]
    h = z[0].clone().requires_grad_()
    f = exact.field(t, h)
    h_bar, *theta = torch.autograd.grad(f, (h, *exact.field.theta()), c)
    assert close(z_printed[0], h_bar)
    assert all(close(got, want) for got, want in zip(gradients_printed[2:], theta, strict=True))
    assert not torch.allclose(z_printed[0], z_bar[0], rtol=0.05)
    assert torch.equal(z_printed[1:], z_bar[1:])
    assert gradients_printed[:2] == gradients[:2]


def test_start_values_come_out_as_given():
    for alpha, beta in ((0.37, 0.9), (1e-3, 0.5), (0.9933, 0.0067)):
        dynamics = make(alpha=alpha, beta=beta)
        assert dynamics.alpha.item() == pytest.approx(alpha, rel=1e-12)
        assert dynamics.beta.item() == pytest.approx(beta, rel=1e-12)


def test_learnable_false_freezes_the_rates_and_keeps_the_fields_gradient():
    dynamics = make(learnable=False)
    assert not dynamics.raw_alpha.requires_grad
    assert not dynamics.raw_beta.requires_grad
    with torch.no_grad():
        _, saved = dynamics.forward(torch.tensor(0.0), state())
        _, deltas = dynamics.vjp(saved, torch.randn(3, 3, 4))
        gradients = dynamics.parameter_gradients([saved], [deltas], None)
    assert gradients[:2] == (None, None)
    assert all(g is not None for g in gradients[2:])


def test_exact_denominator_outside_its_domain_is_nan_and_the_others_are_finite():
    v = torch.tensor([-1.0, -200.0, -1000.0])
    assert get_denominator("exact").value(v, 1e-3).isnan().all()
    for name in ("softplus", "sigmoid"):
        kind = get_denominator(name)
        d = kind.value(v, 1e-8)
        assert d.isfinite().all()
        assert kind.derivative(v, d, 1e-8).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_softplus_denominator_has_its_limit_derivative_where_softplus_underflows(dtype):
    v = torch.tensor([-150.0, -900.0], dtype=dtype)
    kind = get_denominator("softplus")
    derivative = kind.derivative(v, kind.value(v, 1e-8), 1e-8)
    expected = 0.0 if dtype is torch.float32 else -0.5 * 1e16 * math.exp(-75)
    assert derivative[0].item() == pytest.approx(expected, rel=1e-6)
    assert derivative[1].item() == 0


@pytest.mark.parametrize("name", DENOMINATORS)
def test_denominators_derivative_is_the_slope_of_its_value(name):
    kind, step = get_denominator(name), 1e-5
    v = torch.tensor([0.05, 0.5, 3.0, 19.999995, 25.0])
    slope = (kind.value(v + step, EPS) - kind.value(v - step, EPS)) / (2 * step)
    torch.testing.assert_close(kind.derivative(v, kind.value(v, EPS), EPS), slope, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("transform", [Sigmoid, Softplus])
@pytest.mark.parametrize("value", [1e-6, 0.37, 0.999])
def test_transforms_invert_and_differentiate(transform, value):
    raw = torch.tensor(transform.inverse("x", value), requires_grad=True)
    (slope,) = torch.autograd.grad(transform.value(raw), raw)
    assert transform.value(raw).item() == pytest.approx(value, rel=1e-9)
    assert transform.derivative(raw).item() == pytest.approx(slope.item(), rel=1e-12)


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"alpha": 0.0}, ArgumentError, "alpha=0.0 is not between 0 and 1"),
        ({"beta": 1.0}, ArgumentError, "beta=1.0"),
        ({"alpha": math.nan}, ArgumentError, "alpha=nan"),
        ({"alpha": "0.3"}, ArgumentTypeError, "str"),
        ({"eps": -1e-8}, ArgumentError, "eps"),
        ({"eps": math.nan}, ArgumentError, "eps"),
        ({"denominator": "softplu"}, ArgumentError, "did you mean 'softplus'"),
        ({"adjoint_form": "papers"}, ArgumentError, "did you mean 'paper'"),
    ],
)
def test_bad_settings_are_refused(settings, error, text):
    with pytest.raises(error, match=text):
        make(**settings)


def test_dynamics_survive_state_dict_deepcopy_and_pickle():
    dynamics, t, z = make(), torch.tensor(0.1), state()
    with torch.no_grad():
        expected = dynamics.forward(t, z)[0]
        other = make(MLP(4, (6,)), alpha=0.9)
        other.load_state_dict(dynamics.state_dict())
        for copied in (other, copy.deepcopy(dynamics), pickle.loads(pickle.dumps(dynamics))):
            assert torch.equal(copied.forward(t, z)[0], expected)
