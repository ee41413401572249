"""The linear field, and fields under an input signal."""

import copy
import pickle

import numpy as np
import pytest
import torch

from adamode import GHBNODE, HBNODE, NODE, SONODE, AdamNODE
from adamode.adjoint.gradients import Backsolve, Direct, Discrete, Interpolating
from adamode.models.fields import MLP, Driven, Linear, Relaxing, Scaled, Signal, Total
from adamode.solvers.errors import ArgumentError, ArgumentTypeError, DynamicsError

pytestmark = pytest.mark.usefixtures("float64")
B, N, U = 3, 2, 1
TIMES = torch.tensor([0.0, 0.4, 1.0, 2.5], dtype=torch.float64)


def signal(each=True):
    return Signal(TIMES, torch.randn(B, 4, U) if each else torch.randn(4, U))


FIELDS = {
    "linear": lambda: Linear(N),
    "linear under a signal": lambda: Driven(Linear(N + U, out_dim=N)).with_signal(signal()),
    "linear under one signal for all": lambda: Driven(Linear(N + U, out_dim=N)).with_signal(signal(False)),
    "sum": lambda: Total(Linear(N), MLP(N, (4,)), MLP(N, (3,))),
    "scaled": lambda: Scaled(Total(Linear(N), MLP(N, (4,))), scale=3.0, gain=0.7),
    "scaled under a signal": lambda: Driven(
        Scaled(MLP(N + U, (4,), out_dim=N), scale=0.2, gain=9.0)
    ).with_signal(signal()),
    "relaxing": lambda: Relaxing(MLP(N, (4,), time=False), (1.0, 30.0)),
    "mlp under a signal": lambda: Driven(MLP(N + U, (4,), out_dim=N)).with_signal(signal()),
}
every_field = pytest.mark.parametrize("make", FIELDS.values(), ids=FIELDS)
every_t = pytest.mark.parametrize(
    "t", [torch.tensor(0.7), torch.tensor([[0.1], [0.7], [2.2]])], ids=["0-d", "[B, 1]"]
)


@every_field
@every_t
def test_a_fields_vjp_is_autograds(make, t):
    t = t.double()
    field, h, c = make(), torch.randn(B, N, requires_grad=True), torch.randn(2, B, N)
    weights = torch.rand(2, B)
    with torch.no_grad():
        f, saved = field.forward(t, h)
        (h_bar, deltas), (_, more) = field.vjp(saved, c[0]), field.vjp(saved, c[1])
        theta_bar = field.parameter_gradients([saved, saved], [deltas, more], weights)
    reference = field(t, h)
    torch.testing.assert_close(f, reference, rtol=1e-13, atol=1e-13)
    (expected,) = torch.autograd.grad(reference, h, c[0], retain_graph=True)
    torch.testing.assert_close(h_bar, expected, rtol=1e-12, atol=1e-13)
    weighted = (weights[:, :, None] * c).sum(0)
    for found, want in zip(theta_bar, torch.autograd.grad(reference, field.theta(), weighted), strict=True):
        torch.testing.assert_close(found, want, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_a_frozen_parameter_of_the_linear_field_gets_no_gradient(frozen):
    field = Linear(N)
    getattr(field.layer, frozen).requires_grad_(False)
    _, saved = field.forward(torch.tensor(0.0), torch.randn(B, N))
    found = dict(
        zip(("weight", "bias"), field.parameter_gradients([saved], [[torch.randn(B, N)]], None), strict=True)
    )
    assert [name for name, value in found.items() if value is None] == [frozen]


def test_the_signal_is_linear_between_its_samples_and_holds_outside():
    s, t = signal(), np.array([-1.0, 0.0, 0.1, 0.4, 0.9, 1.0, 2.0, 2.5, 9.0])
    for sample in range(B):
        expected = np.interp(t, TIMES.numpy(), s.values[sample, :, 0].numpy())
        found = [s.at(torch.tensor(x), B)[sample, 0].item() for x in t]
        assert found == pytest.approx(expected, rel=1e-13, abs=1e-13)
        each = [s.at(torch.full((B, 1), x), B)[sample, 0].item() for x in t]
        assert each == pytest.approx(expected, rel=1e-13, abs=1e-13)


def test_a_driven_linear_node_solves_its_equation():
    """h' = −h + u with u = t on [0, 1] from h = 0 is t − 1 + e^−t."""
    field = Driven(Linear(2, out_dim=1))
    with torch.no_grad():
        field.inner.layer.weight.copy_(torch.tensor([[-1.0, 1.0]]))
        field.inner.layer.bias.zero_()
    t = torch.linspace(0, 1, 5)
    block = NODE(field, rtol=1e-9, atol=1e-9).driven(Signal(t, t[:, None].clone()))
    h = block.trajectory(torch.zeros(1, 1), t)["h"][:, 0, 0]
    torch.testing.assert_close(h, t - 1 + torch.exp(-t), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("cls", [NODE, SONODE, HBNODE, GHBNODE, AdamNODE], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("gradient", [Discrete(), Discrete(keep="state"), Interpolating(), Backsolve()])
def test_a_later_signal_does_not_reach_an_earlier_solves_gradient(cls, gradient):
    inner = Linear((2 if cls is SONODE else 1) * N + U, out_dim=N)
    more = {"denominator": "softplus"} if cls is AdamNODE else {}
    start = {"v0": torch.ones(B, N)} if cls in (SONODE, AdamNODE) else {}
    first, second, h0 = signal(), signal(), torch.randn(B, N, requires_grad=True)
    t = torch.tensor([0.0, 1.0, 2.0])
    exact = isinstance(gradient, Discrete)  # of the steps, whatever the tolerance
    tol = 1e-5 if exact else 1e-9

    def gradients(choice, interrupted):
        block = cls(Driven(inner), gradient=choice, rtol=tol, atol=tol, **more)
        loss = block.driven(first).path(h0, t, step_at=TIMES[1:3], **{k[0]: v for k, v in start.items()})["h"]
        if interrupted:
            block.driven(second).path(h0, t)
        return torch.autograd.grad(loss.square().sum(), (h0, *inner.parameters()))

    bound = 1e-12 if exact else 1e-6
    for found, want in zip(gradients(gradient, True), gradients(Direct(), False), strict=True):
        assert (found - want).abs().max() <= bound * want.abs().max()


def test_a_driven_copy_shares_its_parameters_and_leaves_the_block_as_it_was():
    block = HBNODE(Driven(Linear(N + U, out_dim=N)))
    other = block.driven(signal())
    assert [id(p) for p in other.parameters()] == [id(p) for p in block.parameters()]
    assert block.field.signal is None
    assert other.field.signal is not None
    assert copy.deepcopy(other).field.signal is None  # data is no part of what is kept
    assert pickle.loads(pickle.dumps(other)).field.signal is None


def test_per_sample_steps_see_each_samples_own_input():
    field = Driven(Linear(N + U, out_dim=N))
    whole, h0, t = signal(), torch.randn(B, N), torch.tensor([0.0, 1.0])
    block = NODE(field, stepping="per_sample", rtol=1e-8, atol=1e-8)
    together = block.driven(whole).trajectory(h0, t)["h"]
    for i in range(B):
        alone = block.driven(Signal(TIMES, whole.values[i : i + 1])).trajectory(h0[i : i + 1], t)["h"]
        # Step sizes across a kink move with the last bit of the error estimate: equal to the tolerance.
        torch.testing.assert_close(together[:, i : i + 1], alone, rtol=1e-7, atol=1e-8)


def test_scale_shrinks_the_linear_fields_start():
    torch.manual_seed(1)
    whole = Linear(3).layer.weight
    torch.manual_seed(1)
    torch.testing.assert_close(Linear(3, scale=0.1).layer.weight, 0.1 * whole)


ONE = torch.zeros(2, dtype=torch.float64)


def wanting(inputs):
    return Driven(Linear(3)).with_signal(Signal(TIMES, torch.ones(4, inputs, requires_grad=True)))


def deep():
    return Driven(Linear(3)).with_signal(Signal(TIMES, torch.ones(2, 2, 4, 1)))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: Linear(0), ArgumentError, "dim=0"),
        (lambda: Linear(2, out_dim=1.5), ArgumentError, "out_dim=1.5"),
        (lambda: Linear(2)(ONE[0], torch.zeros(3, 4)), DynamicsError, r"\[B, 2\]"),
        (lambda: Total(), ArgumentError, "at least one"),
        (lambda: Total(Linear(2), Linear(3)), ArgumentError, "all of one size"),
        (lambda: Driven(torch.nn.Linear(2, 2)), ArgumentTypeError, "give a Linear or MLP"),
        (lambda: Driven(Linear(2), inputs=2), ArgumentError, "inputs=2"),
        (lambda: Driven(Linear(3, out_dim=2))(ONE[0], torch.zeros(3, 2)), DynamicsError, "no input signal"),
        (lambda: Driven(Linear(3), inputs=2).with_signal(signal()), ArgumentError, "takes 2"),
        (lambda: HBNODE(Linear(2)).driven(signal()), ArgumentTypeError, "needs a Driven"),
        (lambda: Signal([0.0], ONE), ArgumentTypeError, "times is list"),
        (lambda: Signal(torch.tensor([0, 1]), ONE), ArgumentTypeError, "int64"),
        (lambda: Signal(torch.tensor([0.0, 0.0]), ONE[:, None]), ArgumentError, "increasing"),
        (lambda: Signal(TIMES, ONE[:, None]), ArgumentError, r"\[4, U\]"),
        (lambda: Signal(TIMES, torch.full((4, 1), torch.nan)), ArgumentError, "nothing to interpolate"),
        (lambda: wanting(1), ArgumentError, "detach"),
        (lambda: deep(), ArgumentError, r"takes \[T, U\]"),
        (lambda: signal().at(ONE[0], 5), DynamicsError, "has 3 samples, the state 5"),
    ],
)  # fmt: skip
def test_bad_fields_and_signals_are_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()
