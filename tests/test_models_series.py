"""Silverbox's models: from known rows, under an input, to the rows to come."""

import copy

import pytest
import torch

from adamode import models
from adamode.adjoint.gradients import Backsolve, Direct, Interpolating
from adamode.models.series import SeriesStart
from adamode.solvers.errors import ArgumentError, ArgumentTypeError

pytestmark = pytest.mark.usefixtures("float64")
MODELS = models.names()


def sequences(batch=3, rows=12, known=4):
    x = torch.randn(batch, rows, 3)
    x[:, :, 2] = 0
    x[:, :known, 2] = 1
    x[:, known:, 1] = 0
    return x


def gradients(model, x, weight):
    return torch.autograd.grad((model(x) * weight).sum(), [p for p in model.parameters() if p.requires_grad])


@pytest.mark.parametrize("hidden", [0, 4])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_predicts_the_rows_that_are_not_known_and_learns(name, hidden):
    model, x = models.create(name, "silverbox", hidden=hidden, scale=0.3), sequences()
    y = model(x)
    assert y.shape == (3, 8, 1)
    found = gradients(model, x, torch.randn(3, 8, 1))
    assert all(g.isfinite().all() for g in found)
    assert model.last_stats.nfe_backward >= 6 * 8  # a step a row, at least


@pytest.mark.parametrize(
    "gradient", [None, Interpolating(), Backsolve()], ids=["discrete", "interp", "backsolve"]
)
@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_through_the_steps(name, gradient):
    settings = {"scale": 0.3, "rtol": 1e-8, "atol": 1e-8, "start": "learned"}
    model = models.create(
        name, "silverbox", **settings, **({} if gradient is None else {"gradient": gradient})
    )
    direct = models.create(name, "silverbox", gradient=Direct(), **settings)
    direct.load_state_dict(model.state_dict())
    x, weight = sequences(2, 6, 2), torch.randn(2, 4, 1)
    bound = 1e-11 if gradient is None else 1e-5
    for found, want in zip(gradients(model, x, weight), gradients(direct, x, weight), strict=True):
        assert (found - want).abs().max() <= bound * want.abs().max().clamp_min(1e-3)


def test_the_prediction_depends_on_known_outputs_and_on_inputs_up_to_its_own_row():
    model, x = models.create("hbnode", "silverbox", scale=0.3), sequences(1, 8, 3)
    before = model(x)
    later = x.clone()
    later[0, 6, 0] += 1.0  # the input between rows 5 and 6 changes with it
    assert torch.allclose(model(later)[0, :3], before[0, :3], rtol=1e-6, atol=1e-8)
    assert (model(later)[0, 3:] - before[0, 3:]).abs().min() > 1e-4
    earlier = x.clone()
    earlier[0, 2, 1] += 1.0
    assert (model(earlier)[0] - before[0]).abs().min() > 1e-2


def test_a_linear_second_order_model_solves_the_driven_oscillator():
    """v' = −h + u with u = 1 from h = 0, v = 0 is h = 1 − cos t."""
    model = models.create("sonode", "silverbox", start="zeros", rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        layer = model.block.field.inner.layer
        layer.weight.copy_(torch.tensor([[-1.0, 0.0, 1.0]]))
        layer.bias.zero_()
    x = torch.zeros(1, 6, 3)
    x[:, :, 0], x[:, 0, 2] = 1.0, 1.0
    expected = 1 - torch.cos(torch.arange(1.0, 6.0))
    torch.testing.assert_close(model(x)[0, :, 0], expected, rtol=1e-7, atol=1e-7)


def test_adamnodes_start_is_the_output_w_and_w_squared():
    start = SeriesStart(2, ("m0", "v0"), "learned")
    known = torch.randn(3, 5, 2)
    found = start(known)
    assert torch.equal(found["h0"][:, 0], known[:, -1, 1])
    assert torch.equal(found["m0"], start.w[1:].expand(3, 2))
    assert torch.equal(found["v0"], found["m0"] ** 2)


def test_the_encoder_reads_the_last_known_rows_and_zeros_where_there_are_fewer():
    start = SeriesStart(1, ("m0",), "encoder", given=3)
    known = torch.randn(2, 5, 2)
    changed = known.clone()
    changed[:, 1] += 1
    assert torch.equal(start(known)["m0"], start(changed)["m0"])
    changed[:, 2] += 1
    assert not torch.equal(start(known)["m0"], start(changed)["m0"])
    padded = torch.cat((torch.zeros(2, 2, 2), known[:, -1:]), 1)
    torch.testing.assert_close(start(known[:, -1:])["m0"], start(padded)["m0"])


def test_the_identity_holds_the_last_known_output():
    model, x = models.create("anode", "silverbox", block="identity"), sequences()
    assert torch.equal(model(x), x[:, 3:4, 1:2].expand(3, 8, 1))
    assert model.last_stats.nfe == 0


def test_a_copy_and_loaded_weights_predict_the_same():
    model, x = models.create("ghbnode", "silverbox", hidden=3), sequences()
    expected = model(x)
    assert torch.equal(copy.deepcopy(model)(x), expected)
    other = models.create("ghbnode", "silverbox", hidden=3)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), expected)


def bad(**change):
    x = sequences()
    for index, value in change.pop("set", {}).items():
        x[index] = value
    return x


def test_a_unit_changes_scale_and_not_the_linear_models_solution():
    one, ten = (
        models.create("hbnode", "silverbox", scale=0.3, unit=u, rtol=1e-10, atol=1e-10) for u in (1, 10)
    )
    for p in (one.block.field.inner.layer.bias, one.start.encoder.bias):
        p.data.zero_()  # a bias is in units of the state
    ten.load_state_dict(one.state_dict())
    x = sequences(2, 8, 3)
    assert torch.allclose(one(x), ten(x), rtol=1e-7)
    ten.block.field.inner.layer.bias.data.fill_(0.1)
    one.block.field.inner.layer.bias.data.fill_(1.0)
    assert torch.allclose(one(x), ten(x), rtol=1e-7)
    with pytest.raises(ArgumentError, match="unit"):
        models.create("hbnode", "silverbox", unit=0.0)


@pytest.mark.parametrize("name", MODELS)
def test_the_network_task_learns_in_every_parameter(name):
    model, x = models.create(name, "silverbox-network"), sequences()
    found = gradients(model, x, torch.randn(3, 8, 1))
    assert all(g.isfinite().all() for g in found)


SERIES = models.create("node", "silverbox").double()


@pytest.mark.parametrize(
    ("x", "error", "text"),
    [
        ([1.0], ArgumentTypeError, "list"),
        (torch.zeros(3, 4), ArgumentError, r"\[B, L, 3\]"),
        (torch.zeros(3, 4, 2), ArgumentError, r"\[B, L, 3\]"),
        (torch.zeros(2, 4, 3, dtype=torch.float64), ArgumentError, "it is 1 in 0 rows"),
        (torch.ones(2, 4, 3, dtype=torch.float64), ArgumentError, "1 … 3"),
        (bad(set={(1, 3, 2): 0.0}), ArgumentError, "same n"),
        (bad(set={(0, 1, 2): 0.0}), ArgumentError, "first n rows"),
        (bad(set={(0, 1, 0): float("nan")}), ArgumentError, "finite"),
    ],
)
def test_sequences_that_are_not_what_they_should_be_are_refused(x, error, text):
    with pytest.raises(error, match=text):
        SERIES(x.double() if isinstance(x, torch.Tensor) else x)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"given": 0}, "given=0"),
        ({"hidden": -1}, "hidden=-1"),
        ({"start": "lerned"}, "did you mean 'learned'"),
    ],
)
def test_bad_settings_of_a_series_are_refused(settings, text):
    with pytest.raises(ArgumentError, match=text):
        models.create("node", "silverbox", **settings)
