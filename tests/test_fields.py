"""Fields: the hand-derived path against autograd through the plain one, in float64."""

import copy
import pickle

import pytest
import torch

from adamode.models.fields import MLP, AutogradField, Conv, as_field
from adamode.solvers.errors import ArgumentError, ArgumentTypeError, DynamicsError

B = 3


@pytest.fixture(autouse=True)
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


class Plain(torch.nn.Module):
    """A user's field: no methods of ours."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(4, 4)

    def forward(self, t, h):
        return torch.tanh(self.inner(h)) * (1 + t)


FIELDS = {
    "mlp": (lambda: MLP(4, (5, 6)), (4,)),
    "mlp without time": (lambda: MLP(4, (5,), time=False), (4,)),
    "mlp relu": (lambda: MLP(4, (5, 6), activation="relu"), (4,)),
    "mlp sigmoid": (lambda: MLP(4, (5, 6), activation="sigmoid"), (4,)),
    "mlp without hidden layers": (lambda: MLP(4, ()), (4,)),
    "conv": (lambda: Conv(2, 3), (2, 5, 4)),
    "conv tanh": (lambda: Conv(2, 3, activation="tanh"), (2, 3, 3)),
    "autograd": (lambda: AutogradField(Plain()), (4,)),
    "autograd of mlp": (lambda: AutogradField(MLP(4, (5, 6))), (4,)),
}


@pytest.fixture(params=FIELDS)
def case(request):
    make, shape = FIELDS[request.param]
    return make(), shape


def times(n, shape, per_sample):
    if per_sample:
        return [torch.rand(B, *(1,) * len(shape)) for _ in range(n)]
    return list(torch.rand(n))


def relative(found, expected):
    return ((found - expected).abs().max() / expected.abs().max().clamp_min(1e-300)).item()


@pytest.mark.parametrize("per_sample", [False, True])
def test_forward_equals_the_plain_module(case, per_sample):
    field, shape = case
    (t,), h = times(1, shape, per_sample), torch.randn(B, *shape)
    with torch.no_grad():
        f, _ = field.forward(t, h)
        assert relative(f, field(t, h)) < 1e-14


@pytest.mark.parametrize("per_sample", [False, True])
def test_time_is_seen_and_samples_are_independent(case, per_sample):
    field, shape = case
    (t,), h = times(1, shape, per_sample), torch.randn(B, *shape)
    with torch.no_grad():
        f, _ = field.forward(t, h)
        one, _ = field.forward(t[1:2] if per_sample else t, h[1:2])
        torch.testing.assert_close(one, f[1:2], rtol=1e-13, atol=1e-14)
        if getattr(field, "time", True):
            later, _ = field.forward(t + 0.5, h)
            assert (later - f).abs().max() > 1e-4


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("weighting", ["none", "stages", "stages and samples"])
def test_vjp_and_stacked_parameter_gradients_equal_autograd(case, per_sample, weighting):
    field, shape = case
    n, theta = 3, field.theta()
    ts, hs = times(n, shape, per_sample), torch.randn(n, B, *shape)
    cotangents = torch.randn(n, B, *shape)
    weights = {"none": None, "stages": torch.randn(n), "stages and samples": torch.randn(n, B)}[weighting]
    with torch.no_grad():
        saved = [field.forward(t, h)[1] for t, h in zip(ts, hs, strict=True)]
        pulled = [field.vjp(s, c) for s, c in zip(saved, cotangents, strict=True)]
        found = field.parameter_gradients(saved, [deltas for _, deltas in pulled], weights)
    expected = [torch.zeros_like(p) for p in theta]
    for i in range(n):
        h = hs[i].clone().requires_grad_()
        (h_bar,) = torch.autograd.grad(field(ts[i], h), h, cotangents[i], retain_graph=True)
        assert relative(pulled[i][0], h_bar) < 1e-13
        w = torch.ones(B) if weights is None else weights[i].expand(B)
        weighted = cotangents[i] * w.reshape(B, *(1,) * len(shape))
        for total, g in zip(expected, torch.autograd.grad(field(ts[i], h), theta, weighted), strict=True):
            total += g
    assert len(found) == len(theta)
    for got, want in zip(found, expected, strict=True):
        assert got.shape == want.shape
        assert relative(got, want) < 1e-12


def test_a_frozen_parameter_gets_no_gradient_and_the_others_keep_theirs():
    field = MLP(4, (5,))
    t, h, c = torch.tensor(0.3), torch.randn(B, 4), torch.randn(B, 4)
    with torch.no_grad():
        _, saved = field.forward(t, h)
        _, deltas = field.vjp(saved, c)
        free = field.parameter_gradients([saved], [deltas], None)
        field.layers[0].weight.requires_grad_(False)
        field.layers[1].bias.requires_grad_(False)
        frozen = field.parameter_gradients([saved], [deltas], None)
    assert [g is None for g in frozen] == [True, False, False, True]
    assert torch.equal(frozen[1], free[1])
    assert torch.equal(frozen[2], free[2])


def test_autograd_field_leaves_frozen_parameters_out_and_counts_shared_ones_once():
    plain = Plain()
    plain.twin = plain.inner
    plain.inner.bias.requires_grad_(False)
    assert [p.shape for p in AutogradField(plain).theta()] == [(4, 4)]


def test_autograd_field_takes_a_functions_own_parameters():
    w = torch.randn(4, requires_grad=True)
    field = AutogradField(lambda t, h: w * h * t, params=(w,))
    with torch.no_grad():
        _, saved = field.forward(torch.tensor(2.0), h := torch.randn(B, 4))
        _, deltas = field.vjp(saved, c := torch.randn(B, 4))
        (w_bar,) = field.parameter_gradients([saved], [deltas], torch.tensor([0.5]))
    torch.testing.assert_close(w_bar, (c * h).sum(0))


def test_a_field_that_ignores_h_or_everything_has_a_zero_vjp():
    w = torch.randn(4, requires_grad=True)
    for func in (lambda t, h: w.expand_as(h), lambda t, h: torch.ones_like(h)):
        field = AutogradField(func, params=(w,))
        with torch.no_grad():
            _, saved = field.forward(torch.tensor(2.0), torch.randn(B, 4))
            h_bar, _ = field.vjp(saved, torch.randn(B, 4))
        assert torch.equal(h_bar, torch.zeros(B, 4))


def test_autograd_field_under_grad_mode_is_part_of_the_callers_graph():
    field, h = AutogradField(Plain()), torch.randn(B, 4, requires_grad=True)
    f, _ = field.forward(torch.tensor(0.2), h)
    (found,) = torch.autograd.grad(f.sum(), h)
    (expected,) = torch.autograd.grad(field(torch.tensor(0.2), h).sum(), h)
    assert torch.equal(found, expected)


def test_forward_of_an_autograd_field_works_in_inference_mode():
    field = AutogradField(Plain())
    with torch.inference_mode():
        f, _ = field.forward(torch.tensor(0.2), torch.randn(B, 4))
    assert f.shape == (B, 4)


def test_fields_survive_state_dict_deepcopy_and_pickle(case):
    field, shape = case
    t, h = torch.tensor(0.4), torch.randn(B, *shape)
    expected = field(t, h)
    other = copy.deepcopy(field)
    for p in other.parameters():
        torch.nn.init.zeros_(p)
    assert not torch.equal(other(t, h), expected)
    other.load_state_dict(field.state_dict())
    assert torch.equal(other(t, h), expected)
    assert torch.equal(pickle.loads(pickle.dumps(field))(t, h), expected)


def test_the_conv_fields_time_channel_feels_the_border():
    """Zero padding: the 3×3 kernel of a constant channel sums fewer entries at the border."""
    field = Conv(1, 1)
    with torch.no_grad():
        for layer in field.layers:
            layer.bias.zero_()
            layer.weight.zero_()
        field.layers[1].weight[0, 1] = 1  # only the time channel of the 3×3 kernel
        field.layers[2].weight[0, 0] = 1
        f, _ = field.forward(torch.tensor(1.0), torch.zeros(1, 1, 3, 3))
    assert f[0, 0].tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]


@pytest.mark.parametrize(
    ("field", "h", "text"),
    [
        (lambda: MLP(4), (3, 5), r"\[B, 4\]"),
        (lambda: MLP(4), (3, 4, 1), r"\[B, 4\]"),
        (lambda: Conv(2, 3), (3, 4, 5, 5), r"\[B, 2, H, W\]"),
        (lambda: AutogradField(lambda t, h: h[:, :1]), (3, 4), "must have h's shape"),
        (lambda: AutogradField(lambda t, h: h.float()), (3, 4), "dtype"),
        (lambda: AutogradField(lambda t, h: None), (3, 4), "NoneType"),
    ],
)
def test_what_does_not_fit_is_an_error_that_says_what_would(field, h, text):
    with pytest.raises(DynamicsError, match=text):
        field().forward(torch.tensor(0.0), torch.zeros(h))


def test_bad_settings_are_refused():
    with pytest.raises(ArgumentError, match="did you mean 'tanh'"):
        MLP(4, activation="tan")
    with pytest.raises(ArgumentError, match="≥ 1"):
        MLP(4, (0,))
    with pytest.raises(ArgumentError, match="hidden"):
        Conv(2, 0)
    with pytest.raises(ArgumentTypeError, match="cannot be called"):
        as_field(3)


def test_as_field_keeps_what_has_the_methods_and_wraps_the_rest():
    mlp = MLP(4)
    assert as_field(mlp) is mlp
    assert isinstance(as_field(Plain()), AutogradField)
