"""Fast paths of fields and dynamics: where they differ by size, memory or trace, the numbers do not."""

from __future__ import annotations

import pytest
import torch
from dynamics_zoo import VARIANTS, draw
from torch.nn.utils import parametrize, prune

from adamode.models.dynamics import AdamODE, HeavyBallODE, NeuralODE, field_dynamics
from adamode.models.fields import MLP, Conv, Linear, Total
from adamode.models.fields import field as layers
from adamode.solvers.errors import DynamicsError

D = torch.float64
LAST = torch.channels_last


def walked(dynamics, times, z, a, weights=None):
    """[dz of each stage, z̄ of each stage, parameters' gradients]."""
    with torch.no_grad():
        values, saved = zip(*(dynamics.forward(t, z) for t in times), strict=True)
        bars, deltas = zip(*(dynamics.vjp(s, a) for s in saved), strict=True)
        return [*values, *bars, *dynamics.parameter_gradients(list(saved), list(deltas), weights)]


def assert_same(found, expected, bound=1e-13):
    for x, y in zip(found, expected, strict=True):
        assert x.shape == y.shape
        assert (x - y).abs().max() <= bound * y.abs().max()


@pytest.mark.parametrize("shape", [(3, 2), (3, 2, 4, 5)], ids=["mlp", "conv"])
@pytest.mark.parametrize("weighting", ["none", "stages", "stages and samples"])
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize(
    ("model", "options"), [v for v in VARIANTS if v[0] in ("ghbnode", "adamnode", "hbnode")]
)
def test_stages_joined_or_apart_give_the_same_gradients(
    model, options, per_sample, weighting, shape, monkeypatch
):
    drawn = draw(model, options, shape, eps=0.03)
    z, a = drawn.z0, torch.randn_like(drawn.z0)
    ones = (1,) * (len(shape) - 1)
    times = [torch.rand(3, *ones, dtype=D) if per_sample else torch.rand((), dtype=D) for _ in range(3)]
    n = {"none": None, "stages": torch.rand(3, dtype=D), "stages and samples": torch.rand(3, 3, dtype=D)}
    joined = walked(drawn.dynamics, times, z, a, n[weighting])
    for module in (layers, field_dynamics):
        monkeypatch.setattr(module, "JOINED_BELOW", 0)
    assert_same(walked(drawn.dynamics, times, z, a, n[weighting]), joined)


@pytest.mark.parametrize("weighting", ["none", "stages", "stages and samples"])
def test_the_linear_field_too(weighting, monkeypatch):
    field, h = Linear(3).double(), torch.randn(5, 3, dtype=D)
    n = {"none": None, "stages": torch.rand(2, dtype=D), "stages and samples": torch.rand(2, 5, dtype=D)}
    deltas = [[torch.randn(5, 3, dtype=D)] for _ in range(2)]
    saved = [(torch.tensor(0.0), [h]), (torch.tensor(0.0), [2 * h])]
    joined = field.parameter_gradients(saved, deltas, n[weighting])
    monkeypatch.setattr(layers, "JOINED_BELOW", 0)
    assert_same(field.parameter_gradients(saved, deltas, n[weighting]), joined)


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("model", ["node", "sonode", "hbnode", "ghbnode", "adamnode"])
def test_channels_last_memory_gives_the_same_numbers(model, per_sample):
    drawn = draw(model, {}, (2, 3, 4, 5), eps=0.03)
    assert drawn.dynamics.channels_last
    z, a = drawn.z0, torch.randn_like(drawn.z0)
    times = [torch.rand(2, 1, 1, 1, dtype=D) if per_sample else torch.rand((), dtype=D) for _ in range(2)]
    plain = walked(drawn.dynamics, times, z, a)
    last = [x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3) for x in (z, a)]
    assert_same(walked(drawn.dynamics, times, *last), plain)


def test_the_conv_field_answers_in_the_order_of_memory_it_was_asked_in():
    field, t = Conv(2, 3).double(), torch.tensor(0.3, dtype=D)
    h = torch.randn(2, 2, 4, 5, dtype=D)
    for order in (torch.contiguous_format, LAST):
        own = h.contiguous(memory_format=order)
        with torch.no_grad():
            f, saved = field.forward(t, own)
            h_bar, _ = field.vjp(saved, own)
        assert f.is_contiguous(memory_format=order)
        assert h_bar.is_contiguous(memory_format=order)
    assert Total(Conv(2, 3), Conv(2, 4)).channels_last
    assert not Total(Linear(2)).channels_last
    assert not MLP(2).channels_last
    assert not NeuralODE(lambda t, h: -h).channels_last


def test_a_large_tanh_layer_is_as_accurate_as_torchs_own(monkeypatch):
    torch.manual_seed(0)
    rows = layers._FUSED_FROM // 16
    x, weight, bias = torch.randn(rows, 8), torch.randn(16, 9)[:, :8], torch.randn(16)
    tanh = layers.get_activation("tanh")
    exact = torch.tanh(x.double() @ weight.double().t() + bias.double())
    eps = torch.finfo(torch.float32).eps
    for op in (layers._linear_tanh, lambda: None):
        monkeypatch.setattr(layers, "_linear_tanh", op)
        found = tanh.layer(x, weight, bias, fused=True)
        # The sum of 9 products rounds by a few ε of its largest term; tanh adds 1.5 units.
        assert (found - exact).abs().max() < 16 * eps
        small = tanh.layer(x * 1e-4, weight, bias * 0, fused=True)  # relative to itself where it is small
        wanted = torch.tanh(x.double() * 1e-4 @ weight.double().t())
        assert (small - wanted).norm() < 4 * eps * wanted.norm()


def test_autocast_shortens_a_large_layer_as_it_does_a_small_one():
    torch.manual_seed(0)
    field, h, t = MLP(8, (16,)), torch.randn(layers._FUSED_FROM // 16, 8), torch.tensor(0.2)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        whole, _ = field.forward(t, h)
        part, _ = field.forward(t, h[:4])
    assert whole.dtype is torch.bfloat16
    assert torch.equal(whole[:4], part)


@pytest.mark.parametrize("move", ["parametrised", "pruned", "replaced", "loaded"])
def test_weights_are_read_anew_at_each_call(move):
    torch.manual_seed(0)
    field, other = MLP(3, (4,)).double(), MLP(3, (4,)).double()
    t, h = torch.tensor(0.3, dtype=D), torch.randn(5, 3, dtype=D)
    with torch.no_grad():
        before, _ = field.forward(t, h)
        if move == "parametrised":
            parametrize.register_parametrization(field.layers[0], "weight", torch.nn.Tanh())
        elif move == "pruned":
            prune.l1_unstructured(field.layers[0], "weight", amount=0.5)
        elif move == "replaced":
            field.layers[1] = other.layers[1]
        else:
            field.load_state_dict(other.state_dict())
        after, _ = field.forward(t, h)
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, field(t, h).detach(), rtol=1e-14, atol=1e-15)


# Lowering is tried on the smaller field: the dynamics' own operations are the same.
@pytest.mark.parametrize(
    ("shape", "backend"), [((3, 2), "aot_eager"), ((2, 2, 3, 4), "eager")], ids=["mlp", "conv"]
)
@pytest.mark.parametrize(("model", "options"), VARIANTS)
def test_each_part_is_one_graph_under_torch_compile(model, options, shape, backend):
    torch._dynamo.reset()
    drawn = draw(model, options, shape, eps=0.03)
    dynamics, z, a = drawn.dynamics, drawn.z0, torch.randn_like(drawn.z0)
    t = torch.tensor(0.4, dtype=D)

    def step(t, z, a):
        dz, saved = dynamics.forward(t, z)
        z_bar, deltas = dynamics.vjp(saved, a)
        return dz, z_bar, *dynamics.parameter_gradients([saved, saved], [deltas, deltas], None)

    with torch.no_grad():
        expected = step(t, z, a)
        found = torch.compile(step, fullgraph=True, backend=backend)(t, z, a)
    assert_same(found, expected)


def test_a_field_of_another_shape_is_an_error_that_says_so():
    wide = MLP(2, (3,), out_dim=3)
    z = torch.rand(3, 4, 2)
    for dynamics, start in (
        (AdamODE(wide, alpha=0.3, beta=0.3, eps=0.1), z),
        (HeavyBallODE(wide, gamma=0.5), z[:2]),
    ):
        with torch.no_grad(), pytest.raises(DynamicsError, match=r"returned \(4, 3\).*h's shape"):
            dynamics.forward(torch.tensor(0.0), start)
