"""Flows: exact likelihoods on x alone, bounds with momenta, draws, and refusals."""

from __future__ import annotations

import math

import pytest
import torch
from host_reads import host_reads
from torch.distributions import Categorical, Distribution, Independent, MultivariateNormal, Normal

import adamode
from adamode import AdamNODE, ArgumentError, ArgumentTypeError, Flow, LogDensity
from adamode.models.density_model import NormalMomenta
from adamode.models.dynamics import HeavyBallODE
from adamode.models.fields import MLP, Conv, Linear, OwnField

D = torch.float64
TIGHT = {"rtol": 1e-9, "atol": 1e-11}
A = torch.tensor([[0.3, -1.1], [0.8, -0.5]], dtype=D)


def linear(matrix=A):
    field = Linear(2).double()
    with torch.no_grad():
        field.layer.weight.copy_(matrix)
        field.layer.bias.copy_(torch.tensor([0.2, -0.4]))
    return field


def gaussian(matrix, offset, mean, covariance, t=1.0):
    """Of x(t), x' = A x + b, from a normal x(0), by the exponential of [[A, b], [0, 0]]."""
    n = len(matrix)
    whole = torch.zeros(n + 1, n + 1, dtype=D)
    whole[:n, :n], whole[:n, n] = matrix, offset
    flow = torch.matrix_exp(whole * t)
    end = flow[:n, :n] @ mean + flow[:n, n]
    return MultivariateNormal(end, flow[:n, :n] @ covariance @ flow[:n, :n].t())


def points(n=5, seed=1, dtype=D):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
@pytest.mark.parametrize("based", [False, True])
def test_a_linear_field_maps_a_gaussian_to_a_gaussian(based, stepping):
    mean, covariance = torch.zeros(2, dtype=D), torch.eye(2, dtype=D)
    if based:
        mean, covariance = torch.tensor([1.0, -2.0], dtype=D), torch.tensor([[2.0, 0.3], [0.3, 0.5]], dtype=D)
    base = MultivariateNormal(mean, covariance) if based else None
    field = linear()
    flow = Flow(adamode.NODE(field, **TIGHT, stepping=stepping), base)
    exact = gaussian(A, field.layer.bias.detach(), mean, covariance)
    torch.testing.assert_close(flow.log_prob(points()).detach(), exact.log_prob(points()), rtol=0, atol=1e-6)
    torch.manual_seed(0)
    drawn = flow.sample(4000)
    assert not drawn.requires_grad
    spread = exact.covariance_matrix.diagonal().sqrt()
    assert ((drawn.mean(0) - exact.mean).abs() < 4 * spread / 4000**0.5).all()
    error = (drawn.t().cov() - exact.covariance_matrix).abs()  # of an entry: √((c_ij² + c_ii c_jj)/n)
    assert (error < 4 * torch.outer(spread, spread) * math.sqrt(2 / 4000)).all()


def test_a_block_a_dynamics_a_density_and_a_field_say_the_same():
    field, x = MLP(2, (6,)).double(), points()
    block = adamode.NODE(field, **TIGHT)
    probes = torch.eye(2, dtype=D)[:, None].expand(2, 5, 2) * math.sqrt(2)  # of which the estimate is exact
    given = [block.dynamics, LogDensity(field), LogDensity(field, "hutchinson", probes=probes), field]
    wanted = Flow(block).log_prob(x)
    for one in given:
        torch.testing.assert_close(Flow(one, **TIGHT).log_prob(x), wanted, rtol=1e-7, atol=1e-7)
    plain = Flow(lambda t, x: field(t, x), Independent(Normal(torch.zeros(2, dtype=D), 1.0), 1), **TIGHT)
    torch.testing.assert_close(plain.log_prob(x), wanted, rtol=1e-7, atol=1e-7)
    (gradient,) = torch.autograd.grad(plain.rsample(3).sum(), field.layers[0].bias)
    assert gradient.any()


@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_a_likelihood_integrates_to_one(dtype):
    """Over a grid as wide as the flow carries the normal; so does that of a flow backwards in time."""
    torch.manual_seed(0)
    for t in ((0.0, 1.0), (1.0, 0.0)):
        flow = Flow(adamode.NODE(MLP(2, (8,)).to(dtype), t=t, rtol=1e-5, atol=1e-6))
        side = torch.linspace(-7, 7, 57, dtype=dtype)
        grid = torch.cartesian_prod(side, side)
        with torch.no_grad():
            total = flow.log_prob(grid).exp().sum() * (side[1] - side[0]) ** 2
        assert total.item() == pytest.approx(1.0, abs=1e-3)
        assert flow.sample(2).dtype is dtype


MOMENTA = ("hbnode", "ghbnode", "adamnode", "sonode", "nesterovnode", "gnesterovnode", "momentumnode")


def momentum_blocks(kind):
    field = linear()
    if kind == "hbnode":
        return adamode.HBNODE(field, gamma=0.7, **TIGHT)
    later = {"shift": 0.4, "t": (0.0, 1.0)}
    if kind == "nesterovnode":
        return adamode.NesterovNODE(field, **later, **TIGHT)
    if kind == "momentumnode":
        return adamode.MomentumNODE(field, gamma=0.3, r=2.0, **later, **TIGHT)
    if kind == "gnesterovnode":
        return adamode.GNesterovNODE(field, **later, **TIGHT)
    if kind == "sonode":
        wide = Linear(4, out_dim=2).double()
        with torch.no_grad():
            wide.layer.weight.copy_(torch.cat((A, A.t() / 2), 1))
        return adamode.SONODE(wide, **TIGHT)
    if kind == "ghbnode":
        return adamode.GHBNODE(MLP(2, (6,)).double(), gamma=0.7, **TIGHT)
    return AdamNODE(MLP(2, (6,)).double(), denominator="softplus", **TIGHT)


def whole(block):
    """The map (z at t0) ↦ (z at t1), flat, of one sample."""

    def end(z):
        parts = z.view(len(block.dynamics.blocks), 1, 2)
        others = dict(zip(block.dynamics.blocks[1:], parts[1:], strict=True))
        found = block.path(parts[0], torch.tensor([0.0, 1.0], dtype=D), **others)
        return torch.stack([found[name][-1, 0] for name in block.dynamics.blocks]).flatten()

    return end


@pytest.mark.parametrize("kind", MOMENTA)
def test_the_joint_density_is_that_of_the_whole_maps_determinant(kind):
    torch.manual_seed(3)
    block = momentum_blocks(kind).double()
    k = len(block.dynamics.blocks)
    z0 = torch.randn(2 * k, dtype=D)
    end = whole(block)(z0).detach()
    jacobian = torch.autograd.functional.jacobian(whole(block), z0)
    exact = Normal(0.0, 1.0).log_prob(z0).sum() - torch.linalg.slogdet(jacobian).logabsdet
    x, momenta = end[:2][None], end[2:].view(1, k - 1, 2)
    joint = Flow(block).log_joint(x, momenta)
    torch.testing.assert_close(joint.detach(), exact[None], rtol=0, atol=1e-6)


def heavy_gaussian(block):
    """The joint normal of (x, m) at t1 under HBNODE with a linear field, from its whole matrix."""
    field, gamma = block.field.layer, block.gamma.detach()
    eye, zero = torch.eye(2, dtype=D), torch.zeros(2, 2, dtype=D)
    matrix = torch.cat((torch.cat((zero, -eye), 1), torch.cat((field.weight.detach(), -gamma * eye), 1)))
    offset = torch.cat((torch.zeros(2, dtype=D), field.bias.detach()))
    return gaussian(matrix, offset, torch.zeros(4, dtype=D), torch.eye(4, dtype=D))


def test_the_bounds_of_a_gaussian_flow_are_below_and_close_in():
    """log p(x) is known. The weighted bound rises with k to it; with the true p(m | x) as auxiliary every
    draw gives it, and there is no gap."""
    block = momentum_blocks("hbnode").double()
    joint = heavy_gaussian(block)
    marginal = MultivariateNormal(joint.mean[:2], joint.covariance_matrix[:2, :2])
    torch.manual_seed(2)
    x = marginal.sample((6,))
    exact = marginal.log_prob(x)
    torch.manual_seed(0)
    with torch.no_grad():
        flow = Flow(block)
        bounds = flow.bounds(x, 4000)
        few = torch.stack([flow.log_prob(x, 4) for _ in range(50)]).mean(0)
    assert (bounds.evidence < few).all()
    assert (few < bounds.weighted).all()
    assert (bounds.gap > 0.01).all()
    assert (bounds.weighted - exact).abs().max() < 0.15

    cov = joint.covariance_matrix
    gain = cov[2:, :2] @ cov[:2, :2].inverse()

    def true(x):
        mean = joint.mean[2:] + (x - joint.mean[:2]) @ gain.t()
        both = MultivariateNormal(mean, cov[2:, 2:] - gain @ cov[:2, 2:])
        return Independent(torch.distributions.TransformedDistribution(both, [_AsBlock()]), 0)

    tight = Flow(block, auxiliary=true)
    bounds = tight.bounds(x, 3)
    torch.testing.assert_close(bounds.evidence.detach(), exact, rtol=0, atol=1e-6)
    assert bounds.gap.abs().max() < 1e-6
    torch.testing.assert_close(tight.log_prob(x).detach(), exact, rtol=0, atol=1e-6)


class _AsBlock(torch.distributions.transforms.ReshapeTransform):
    def __init__(self):
        super().__init__(torch.Size((2,)), torch.Size((1, 2)))


@pytest.mark.parametrize("kind", MOMENTA)
def test_gradients_reach_every_parameter(kind):
    torch.manual_seed(0)
    block = momentum_blocks(kind).double()
    flow = Flow(block)
    torch.manual_seed(1)
    flow.log_prob(points()).mean().backward()
    found = [p.grad.clone() for p in flow.parameters()]
    assert all(g.any() for g in found)
    assert flow.last_stats.nfe_backward > 0
    # Along the gradient the bound of the same draws changes as it says.
    step = 1e-5
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for p, g in zip(flow.parameters(), found, strict=True):
                p.add_(sign * step * g)
            torch.manual_seed(1)
            values.append(flow.log_prob(points()).mean().item())
            for p, g in zip(flow.parameters(), found, strict=True):
                p.sub_(sign * step * g)
    square = sum(float(g.square().sum()) for g in found)
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(square, rel=1e-4)
    flow.zero_grad()
    flow.rsample(3).sum().backward()
    assert flow.block.field.theta()[0].grad.any()
    assert flow.sample(3).shape == (3, 2)


def test_training_lowers_the_negative_log_likelihood():
    torch.manual_seed(0)
    data = points(64) * torch.tensor([2.0, 0.3], dtype=D) + 1.0
    for flow in (Flow(adamode.NODE(MLP(2, (8,)))), Flow(adamode.HBNODE(MLP(2, (8,))))):
        flow.double()
        optimiser, losses = torch.optim.Adam(flow.parameters(), lr=0.05), []
        for _ in range(15):
            loss = -flow.log_prob(data).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0] - 0.3


def test_a_base_without_rsample_is_sampled_but_not_differentiated():
    mixture = torch.distributions.MixtureSameFamily(
        Categorical(torch.ones(2, dtype=D)),
        Independent(Normal(torch.tensor([[-2.0, 0.0], [2.0, 0.0]], dtype=D), 1.0), 1),
    )
    flow = Flow(adamode.NODE(linear()), mixture)
    assert flow.sample(3).shape == (3, 2)
    with pytest.raises(ArgumentError, match="has no rsample"):
        flow.rsample(3)
    assert flow.log_prob(points()).isfinite().all()


@pytest.fixture(params=[True, False], ids=["validated", "not validated"])
def validated(request, monkeypatch):
    """Whether torch validates what distributions are given, which it does unless Python runs with -O."""
    monkeypatch.setattr(Distribution, "_validate_args", request.param)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_q_whose_numbers_are_not_finite_is_refused_in_one_way(validated, wrong):
    q = NormalMomenta(2, 1, 4).double()
    with torch.no_grad():
        q.net[-1].bias[0] = wrong
    with pytest.raises(ArgumentError, match=r"auxiliary\(x\) of sample 0 draws momenta whose log q"):
        Flow(adamode.HBNODE(linear()), auxiliary=q).double().log_prob(points(), 3)


def test_what_a_q_of_ones_own_refuses_is_told_as_it_is():
    def q(x):
        raise ValueError("no such station")

    with pytest.raises(ValueError, match="no such station"):
        Flow(adamode.HBNODE(linear()), auxiliary=q).double().log_prob(points())


@pytest.mark.parametrize("kind", ["node", "hbnode"])
def test_a_sample_that_fails_is_nan_and_the_others_have_a_density(validated, kind):
    make = {"node": adamode.NODE, "hbnode": adamode.HBNODE}[kind]
    field = OwnField(lambda t, h: h * torch.where(h[:, :1] < -1, math.nan, 0.5), 2, 2)
    flow = Flow(make(field, stepping="per_sample")).double()
    x = torch.tensor([[0.1, 0.2], [-2.0, 0.1], [0.3, 0.1]], dtype=D)
    torch.manual_seed(0)
    found = flow.log_prob(x)
    assert found.isnan().tolist() == [False, True, False]
    assert found[[0, 2]].isfinite().all()


def test_torchs_validation_reads_nothing_on_the_host(monkeypatch):
    flow, counted = Flow(adamode.HBNODE(linear()), auxiliary=NormalMomenta(2, 1, 4)).double(), []
    for on in (True, False):
        monkeypatch.setattr(Distribution, "_validate_args", on)
        torch.manual_seed(0)
        with host_reads() as reads:
            flow.log_prob(points(), 2)
        counted.append(reads)
    assert counted[0] == counted[1]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Flow(adamode.ANODE(MLP(3), augment=1)), ArgumentError, "zeros"),
        (lambda: Flow(AdamNODE(MLP(2))), ArgumentError, "softplus"),
        (lambda: Flow(adamode.NODE(MLP(2)), rtol=1e-3), ArgumentError, "rtol"),
        (lambda: Flow(MLP(2), tol=1e-3), ArgumentTypeError, "tol"),
        (lambda: Flow(adamode.NODE(MLP(2)), 3.0), ArgumentTypeError, "base"),
        (lambda: Flow(adamode.NODE(MLP(2)), auxiliary=Normal), ArgumentError, "x alone"),
        (lambda: Flow(adamode.HBNODE(MLP(2)), auxiliary=3), ArgumentTypeError, "auxiliary=3"),
        (lambda: Flow(3), ArgumentTypeError, "field=3"),
        (lambda: Flow(MLP(2, out_dim=3)), ArgumentError, "returns 3"),
        (lambda: Flow(MLP(2)).sample(0), ArgumentError, "n=0"),
        (lambda: Flow(adamode.NODE(Conv(1, 2))).sample(2), ArgumentError, "Give a base"),
        (lambda: Flow(MLP(2)).bounds(points(dtype=torch.float32)), ArgumentError, "log_prob"),
        (lambda: Flow(adamode.HBNODE(MLP(2))).log_prob(points().float(), 0), ArgumentError, "samples=0"),
        (lambda: Flow(MLP(2)).log_prob(points().half()), ArgumentTypeError, "float16"),
        (lambda: Flow(MLP(2), Normal(0.0, 1.0)).log_prob(points().float()), ArgumentError, "Independent"),
        (
            lambda: Flow(adamode.HBNODE(MLP(2)), auxiliary=lambda x: Normal(x, 1.0)).log_prob(
                points().float()
            ),
            ArgumentError,
            "batch_shape",
        ),
        (
            lambda: Flow(HeavyBallODE(MLP(2), gamma=0.5)).log_joint(points(), points()),
            ArgumentError,
            "momenta has shape",
        ),
    ],
)
def test_what_is_wrong_is_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()
