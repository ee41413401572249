"""AdamNODE as a module: values, gradients, statistics, and what it refuses."""

import copy
import dataclasses
import math
import pickle

import pytest
import torch
from references import reference_solution

from adamode.adjoint.gradients import Backsolve, Direct, Discrete
from adamode.models import AdamNODE
from adamode.models.fields import MLP, AutogradField, Conv
from adamode.solvers.errors import AdamodeError, ArgumentError, ArgumentTypeError, DynamicsError
from adamode.solvers.status import Status

pytestmark = pytest.mark.usefixtures("float64")
FINE = {"rtol": 1e-10, "atol": 1e-10}


def start(*shape):
    return torch.randn(shape), torch.randn(shape), torch.rand(shape) + 0.1


def gradients(block, h0, m0, v0, weight):
    inputs = [x.clone().requires_grad_() for x in (h0, m0, v0)]
    loss = (block(inputs[0], m0=inputs[1], v0=inputs[2]) * weight).sum()
    return torch.autograd.grad(loss, (*inputs, *block.parameters()))


def closest(found, expected, bound):
    for got, want in zip(found, expected, strict=True):
        assert (got - want).abs().max() <= bound * want.abs().max()


def test_the_block_solves_its_equations():
    block, (h0, m0, v0) = AdamNODE(MLP(2, (5,)), alpha=0.3, beta=0.6, **FINE), start(3, 2)

    def rhs(t, z):
        h, m, v = z
        f = block.field(t, h)
        return torch.stack((-m / (v + 1e-3).sqrt(), 0.7 * (-f - m), 0.4 * (f**2 - v)))

    expected = reference_solution(rhs, torch.stack((h0, m0, v0)), (0.0, 1.0))[-1, 0]
    torch.testing.assert_close(block(h0, m0, v0), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("field", [lambda: MLP(4, (6,)), lambda: AutogradField(MLP(4, (6,)))])
@pytest.mark.parametrize(
    ("gradient", "bound"), [(Discrete(), 1e-12), (Discrete(keep="state"), 1e-12), (Backsolve(), 1e-7)]
)
@pytest.mark.parametrize("denominator", ["exact", "softplus", "sigmoid"])
def test_every_gradient_agrees_with_backpropagation_through_the_steps(field, gradient, bound, denominator):
    block = AdamNODE(field(), alpha=0.3, beta=0.6, denominator=denominator, gradient=gradient, **FINE)
    direct = copy.deepcopy(block)
    direct.settings = dataclasses.replace(block.settings, gradient=Direct())
    values, weight = start(2, 4), torch.randn(2, 4)
    closest(gradients(block, *values, weight), gradients(direct, *values, weight), bound)


@pytest.mark.parametrize("gradient", [Discrete(), Backsolve()])
def test_images_and_per_sample_and_a_decreasing_time(gradient):
    stepping = "per_sample" if isinstance(gradient, Discrete) else "shared"
    # Backwards in time v falls below zero, where the exact denominator has no value.
    settings = {"t": (1.0, 0.2), "denominator": "softplus", "stepping": stepping, **FINE}
    block = AdamNODE(Conv(2, 3, activation="tanh"), gradient=gradient, **settings)
    direct = copy.deepcopy(block)
    direct.settings = dataclasses.replace(block.settings, gradient=Direct())
    values, weight = start(2, 2, 3, 3), torch.randn(2, 2, 3, 3)
    closest(gradients(block, *values, weight), gradients(direct, *values, weight), 1e-7)


def test_a_plain_module_and_a_hand_written_field_give_the_same():
    mlp = MLP(4, (6,))
    fast = AdamNODE(mlp)
    slow = AdamNODE(AutogradField(mlp))
    values, weight = start(3, 4), torch.randn(3, 4)
    assert torch.allclose(fast(*values), slow(*values), rtol=1e-13, atol=1e-13)
    closest(gradients(fast, *values, weight), gradients(slow, *values, weight), 1e-10)


def test_a_functions_captured_tensor_gets_its_gradient():
    w = torch.randn(4, requires_grad=True)
    block = AdamNODE(lambda t, h: torch.tanh(w * h) + t, **FINE)
    h0, m0, v0 = start(3, 4)
    (found,) = torch.autograd.grad(block(h0, m0, v0).sum(), w)
    direct = AdamNODE(lambda t, h: torch.tanh(w * h) + t, gradient=Direct(), **FINE)
    (expected,) = torch.autograd.grad(direct(h0, m0, v0).sum(), w)
    closest([found], [expected], 1e-12)


def test_blocks_not_given_start_at_zero():
    block, (h0, m0, v0) = AdamNODE(MLP(4, (6,)), denominator="softplus"), start(3, 4)
    zeros = torch.zeros_like(h0)
    assert torch.equal(block(h0), block(h0, m0=zeros, v0=zeros))
    assert not torch.equal(block(h0), block(h0, m0=m0))
    assert not torch.equal(block(h0, m0=m0), block(h0, m0=m0, v0=v0))


def test_the_exact_denominator_passes_from_m0_and_v0_zero():
    """Stages with v + ε < 0 are met there; they are rejected steps and no NaN."""
    block, h0 = AdamNODE(MLP(4, (6,)), eps=1e-8), torch.randn(16, 4)
    h = block(h0)
    h.sum().backward()
    assert h.isfinite().all()
    assert all(p.grad.isfinite().all() for p in block.parameters())


def test_trajectory_starts_at_the_start_and_ends_where_the_block_ends():
    block, (h0, m0, v0) = AdamNODE(MLP(4, (6,)), **FINE), start(3, 4)
    path = block.trajectory(h0, torch.tensor([0.0, 0.5, 1.0]), m0=m0, v0=v0)
    assert list(path) == ["h", "m", "v"]
    assert all(x.shape == (3, 3, 4) for x in path.values())
    assert torch.equal(path["h"][0], h0)
    assert torch.equal(path["m"][0], m0)
    assert torch.equal(path["v"][0], v0)
    torch.testing.assert_close(path["h"][-1], block(h0, m0, v0), rtol=1e-9, atol=1e-9)


def test_last_stats_tell_the_last_call_and_its_backward_pass():
    block, values = AdamNODE(MLP(4, (6,))), start(3, 4)
    assert block.last_stats is None
    h = block(*[x.requires_grad_() for x in values])
    stats = block.last_stats
    assert stats.status is Status.SUCCESS
    assert stats.nfe == 6 * stats.n_steps + 2
    assert stats.nfe_backward == 0
    h.sum().backward()
    assert stats.nfe_backward == 6 * stats.n_accepted
    with torch.no_grad():
        block(*values)
    assert block.last_stats is not stats
    assert block.last_stats.nfe_backward == 0


def test_frozen_rates_stay_and_the_fields_parameters_learn():
    block, values = AdamNODE(MLP(4, (6,)), learnable=False), start(3, 4)
    block(*values).sum().backward()
    assert block.dynamics.raw_alpha.grad is None
    assert all(p.grad is not None for p in block.field.parameters())


def test_the_printed_form_gives_another_gradient_and_the_same_value():
    exact = AdamNODE(MLP(4, (6,)), alpha=0.3, beta=0.4, **FINE)
    printed = AdamNODE(exact.field, alpha=0.3, beta=0.4, adjoint_form="paper", **FINE)
    values, weight = start(3, 4), torch.randn(3, 4)
    assert torch.equal(exact(*values), printed(*values))
    right, wrong = (gradients(block, *values, weight)[0] for block in (exact, printed))
    assert (wrong - right).abs().max() > 0.05 * right.abs().max()


def test_state_dict_deepcopy_pickle_and_save(tmp_path):
    block, values = AdamNODE(Conv(2, 3), alpha=0.37), start(1, 2, 3, 3)
    expected = block(*values)
    assert block.alpha.item() == pytest.approx(0.37, rel=1e-12)
    for other in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert other.last_stats is None
        assert torch.equal(other(*values), expected)
    torch.save(block.state_dict(), tmp_path / "w.pt")
    fresh = AdamNODE(Conv(2, 3))
    fresh.load_state_dict(torch.load(tmp_path / "w.pt", weights_only=True))
    assert torch.equal(fresh(*values), expected)


def test_to_moves_the_whole_block_to_float32():
    block = AdamNODE(MLP(4, (6,))).to(torch.float32)
    h0, m0, v0 = (x.float() for x in start(3, 4))
    h = block(h0, m0, v0)
    h.sum().backward()
    assert h.dtype == torch.float32
    assert {p.grad.dtype for p in block.parameters()} == {torch.float32}


def block_call(**settings):
    return lambda: AdamNODE(MLP(4, (6,)), **settings)(torch.randn(3, 4))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (block_call(rtol=0.0), ArgumentError, "rtol"),
        (block_call(atol=math.nan), ArgumentError, "atol"),
        (block_call(t=(0.0, 0.0)), ArgumentError, "differ"),
        (block_call(t=(0.0, math.inf)), ArgumentError, "finite"),
        (block_call(t=(0.0, 0.5, 1.0)), ArgumentError, "start and end"),
        (block_call(method="dopri55"), ArgumentError, "did you mean 'dopri5'"),
        (block_call(stepping="per-sample"), ArgumentError, "did you mean 'per_sample'"),
        (block_call(gradient="discrete"), ArgumentTypeError, "Discrete()"),
        (block_call(alpha=1.5), ArgumentError, "alpha=1.5"),
        (lambda: AdamNODE(7), ArgumentTypeError, "cannot be called"),
        (lambda: AdamNODE(MLP(4))(torch.randn(4)), ArgumentError, r"\[B, C, …\]"),
        (lambda: AdamNODE(MLP(4))([1.0]), ArgumentTypeError, "list"),
        (lambda: AdamNODE(MLP(4))(torch.randn(3, 5)), DynamicsError, "the field takes 4"),
        (lambda: AdamNODE(MLP(4))(torch.ones(3, 4, dtype=torch.int64)), AdamodeError, "int64"),
        (lambda: AdamNODE(MLP(4))(torch.randn(3, 4).float()), ArgumentError, "float32"),
        (lambda: AdamNODE(MLP(4))(torch.full((3, 4), math.nan)), ArgumentError, "nan"),
        (lambda: AdamNODE(MLP(4))(torch.randn(3, 4), m0=torch.zeros(3, 5)), ArgumentError, "m0"),
        (lambda: AdamNODE(MLP(4))(torch.randn(3, 4), v0=0.0), ArgumentTypeError, "v0"),
        (lambda: AdamNODE(lambda t, h: h[:1])(torch.randn(3, 4)), AdamodeError, "shape"),
    ],
)
def test_bad_input_is_an_error_that_names_it(call, error, text):
    with pytest.raises(error, match=text):
        call()
