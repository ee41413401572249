"""The nine blocks as modules: equations, gradients, starts, copies, any field, and what they refuse."""

import copy
import dataclasses
import math
import pickle
import typing
import warnings

import pytest
import torch
from references import reference_solution
from torch import nn

import adamode
from adamode import (
    ANODE,
    GHBNODE,
    HBNODE,
    NODE,
    SONODE,
    AdamNODE,
    GNesterovNODE,
    MomentumNODE,
    NesterovNODE,
)
from adamode.adjoint.gradients import Backsolve, Direct, Discrete, Interpolating
from adamode.models.block import SolverOptions, SolveSettings
from adamode.models.fields import MLP, Conv
from adamode.solvers.errors import AdamodeError, ArgumentError, ArgumentTypeError, DynamicsError

pytestmark = pytest.mark.usefixtures("float64")
FINE = {"rtol": 1e-9, "atol": 1e-9}
C = 3
GAMMA, XI, ALPHA, BETA, EPS, R = 0.3, 0.8, 0.3, 0.6, 1e-3, 2.0


class Case:
    """A block class, its settings, its starts beside h0, its field's sizes, and its equations."""

    def __init__(self, cls, starts, rhs, *, pad=0, joined=1, **settings):
        self.cls, self.starts, self.rhs, self.pad, self.joined = cls, starts, rhs, pad, joined
        self.settings = settings

    def sizes(self):
        return self.joined * (C + self.pad), C + self.pad

    def block(self, field=None, **more):
        dim, out = self.sizes()
        field = MLP(dim, (5,), out_dim=out) if field is None else field
        return self.cls(field, **{**self.settings, **more})

    def values(self, *shape):
        """h0 and the other starts, v0 of AdamNODE positive."""
        found = {name: torch.randn(shape) for name in ("h0", *self.starts)}
        if self.cls is AdamNODE:
            found["v0"] = torch.rand(shape) + 0.1
        return found


def node(f, t, h):
    return (f(t, h),)


def sonode(f, t, h, v):
    return v, f(t, torch.cat((h, v), dim=1))


def hbnode(f, t, h, m):
    return -m, f(t, h) - GAMMA * m


def ghbnode(f, t, h, m):
    return torch.tanh(-m), f(t, h) - GAMMA * m + XI * h


def adamnode(f, t, h, m, v):
    return -m / (v + EPS).sqrt(), (1 - ALPHA) * (-f(t, h) - m), (1 - BETA) * (f(t, h) ** 2 - v)


def nesterovnode(f, t, h, m):
    return -m, f(t, h) - 3 / (t + 1) * m


def gnesterovnode(f, t, h, m):
    k = (t + 1) ** -1.5 * torch.exp((t + 1) / 2)
    slope = (1 - torch.tanh(k) ** 2) * k * (0.5 - 1.5 / (t + 1))
    return slope / torch.tanh(k) * h - torch.tanh(k) * torch.tanh(m), torch.tanh(f(t, h)) - m + XI * h


def momentumnode(f, t, h, m):
    return -m, f(t, h) - (GAMMA + R / (t + 1)) * m


FROM_0 = {"shift": 1.0, "t": (0.0, 1.0)}
CASES = {
    "node": Case(NODE, (), node),
    "anode": Case(ANODE, (), node, pad=2, augment=2),
    "sonode": Case(SONODE, ("v0",), sonode, joined=2),
    "hbnode": Case(HBNODE, ("m0",), hbnode, gamma=GAMMA),
    "ghbnode": Case(GHBNODE, ("m0",), ghbnode, gamma=GAMMA, xi=XI),
    "adamnode": Case(AdamNODE, ("m0", "v0"), adamnode, alpha=ALPHA, beta=BETA, eps=EPS),
    "nesterovnode": Case(NesterovNODE, ("m0",), nesterovnode, **FROM_0),
    "gnesterovnode": Case(GNesterovNODE, ("m0",), gnesterovnode, xi=XI, **FROM_0),
    "momentumnode": Case(MomentumNODE, ("m0",), momentumnode, gamma=GAMMA, r=R, **FROM_0),
}
every_block = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def gradients(block, values, weight):
    """Of a weighted sum of h(T) with respect to every start and every parameter."""
    inputs = {name: value.clone().requires_grad_() for name, value in values.items()}
    loss = (block(**inputs) * weight).sum()
    return torch.autograd.grad(loss, (*inputs.values(), *block.parameters()))


def closest(found, expected, bound):
    for got, want in zip(found, expected, strict=True):
        assert (got - want).abs().max() <= bound * want.abs().max().clamp_min(1e-3)


def with_gradient(block, gradient):
    other = copy.deepcopy(block)
    other.settings = dataclasses.replace(block.settings, gradient=gradient)
    return other


@every_block
def test_a_block_solves_its_equations(case):
    block, values = case.block(**FINE), case.values(2, C)
    padded = [nn.functional.pad(x, (0, case.pad)) for x in values.values()]
    expected = reference_solution(
        lambda t, z: torch.stack(case.rhs(block.field, t, *z)), torch.stack(padded), (0.0, 1.0)
    )
    assert block(**values).shape == (2, C + case.pad)
    torch.testing.assert_close(block(**values), expected[-1, 0], rtol=1e-7, atol=1e-7)
    path = block.trajectory(values["h0"], torch.tensor([0.0, 1.0]), **without_h0(values))
    torch.testing.assert_close(torch.stack(list(path.values()), 1), expected, rtol=1e-7, atol=1e-7)


@every_block
def test_the_state_at_the_start_is_what_was_given_and_zeros(case):
    block, values = case.block(), case.values(2, C)
    own = without_h0(values)
    state = block.state(values["h0"], **{name.rstrip("0"): value for name, value in own.items()})
    padded = [nn.functional.pad(x, (0, case.pad)) for x in values.values()]
    assert torch.equal(state, torch.stack(padded))
    alone = block.state(values["h0"])
    assert torch.equal(alone[0], padded[0])
    assert alone.shape == state.shape
    assert not alone[1:].any()


def without_h0(values):
    return {name: value for name, value in values.items() if name != "h0"}


@every_block
@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
def test_a_blocks_gradients_are_those_through_its_steps(case, stepping):
    block = case.block(stepping=stepping)
    values, weight = case.values(3, C), torch.randn(3, C + case.pad)
    expected = gradients(with_gradient(block, Direct()), values, weight)
    for gradient in (Discrete(), Discrete(keep="state")):
        closest(gradients(with_gradient(block, gradient), values, weight), expected, 1e-12)


@every_block
@pytest.mark.parametrize("gradient", [Interpolating(), Backsolve()], ids=lambda g: type(g).__name__)
def test_a_blocks_continuous_adjoints_agree_with_its_steps(case, gradient):
    block, values = case.block(**FINE), case.values(2, C)
    weight = torch.randn(2, C + case.pad)
    expected = gradients(with_gradient(block, Direct()), values, weight)
    closest(gradients(with_gradient(block, gradient), values, weight), expected, 1e-5)


@every_block
def test_images_go_through_a_block_with_a_convolutional_field(case):
    dim, out = case.sizes()
    block = case.block(Conv(dim, 4, out_channels=out, activation="tanh"))
    values, weight = case.values(2, C, 3, 4), torch.randn(2, C + case.pad, 3, 4)
    expected = gradients(with_gradient(block, Direct()), values, weight)
    closest(gradients(block, values, weight), expected, 1e-12)


@every_block
def test_starts_that_are_not_given_are_zeros(case):
    block, h0 = case.block(), torch.randn(2, C)
    zeros = {name: torch.zeros_like(h0) for name in case.starts}
    assert torch.equal(block(h0), block(h0, **zeros))
    for name in case.starts:  # and a given one counts
        assert not torch.equal(block(h0), block(h0, **{name: torch.full_like(h0, 0.5)}))


@every_block
def test_a_trajectory_names_the_blocks_of_the_state(case):
    block, values = case.block(), case.values(2, C)
    t = torch.tensor([0.0, 0.3, 1.0])
    path = block.trajectory(values["h0"], t, **without_h0(values))
    assert list(path) == [name[0] for name in ("h0", *case.starts)]
    assert {x.shape for x in path.values()} == {(3, 2, C + case.pad)}
    for name, value in without_h0(values).items():
        assert torch.equal(path[name[0]][0], value)
    assert torch.equal(path["h"][0, :, :C], values["h0"])


def test_the_appended_channels_start_at_zero_and_move():
    path = CASES["anode"].block().trajectory(torch.randn(2, C), torch.tensor([0.0, 1.0]))
    assert torch.equal(path["h"][0, :, C:], torch.zeros(2, 2))
    assert path["h"][1, :, C:].abs().min() > 0


@every_block
def test_last_stats_count_the_last_call_and_its_backward_pass(case):
    block, values = case.block(), case.values(2, C)
    assert block.last_stats is None
    h = block(**values)
    stats = block.last_stats
    assert stats.status is adamode.Status.SUCCESS
    assert stats.nfe == 6 * stats.n_steps + 2  # the first evaluation and the first step's probe
    assert stats.nfe_backward == 0
    h.sum().backward()
    assert stats.nfe_backward == 6 * stats.n_accepted
    block(**values)
    assert block.last_stats is not stats
    assert block.last_stats.nfe_backward == 0


@every_block
def test_a_block_survives_state_dict_deepcopy_pickle_and_save(case, tmp_path):
    block, values = case.block(), case.values(2, C)
    expected = block(**values)
    torch.save(block, tmp_path / "block.pt")
    torch.save(block.state_dict(), tmp_path / "weights.pt")
    fresh = case.block()
    assert not torch.equal(fresh(**values), expected)
    fresh.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    whole = torch.load(tmp_path / "block.pt", weights_only=False)
    for other in (fresh, whole, copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert torch.equal(other(**values), expected)
    assert copy.deepcopy(block).last_stats is None


@every_block
def test_to_takes_the_whole_block_along(case):
    block = case.block().to(torch.float32)
    values = {name: value.float() for name, value in case.values(2, C).items()}
    h = block(**values)
    h.sum().backward()
    assert h.dtype == torch.float32
    assert {p.grad.dtype for p in block.parameters()} == {torch.float32}


class Users(nn.Module):
    """A field as a user writes it."""

    def __init__(self, dim, out):
        super().__init__()
        self.a, self.b = nn.Linear(dim, 6), nn.Linear(6, out)

    def forward(self, t, h):
        return self.b(torch.tanh(self.a(h) + t))


@every_block
def test_any_module_is_a_field(case):
    block, values = case.block(Users(*case.sizes())), case.values(2, C)
    weight = torch.randn(2, C + case.pad)
    expected = gradients(with_gradient(block, Direct()), values, weight)
    closest(gradients(block, values, weight), expected, 1e-12)
    assert {"dynamics.field.func.a.weight", "dynamics.field.func.b.bias"} <= set(block.state_dict())


@every_block
def test_any_function_is_a_field_and_what_it_captures_gets_its_gradient(case):
    dim, out = case.sizes()
    w = torch.randn(dim, out, requires_grad=True)

    def field(t, h):
        return torch.tanh(h @ w + t)

    values = case.values(2, C)
    found, expected = (
        torch.autograd.grad(case.block(field, gradient=gradient)(**values).sum(), w)
        for gradient in (Discrete(), Direct())
    )
    closest(found, expected, 1e-12)


@every_block
@pytest.mark.parametrize("kind", ["user", "hand-written"])
def test_a_compiled_field_gives_the_same_values_and_gradients(case, kind):
    dim, out = case.sizes()
    field = Users(dim, out) if kind == "user" else MLP(dim, (5,), out_dim=out)
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, on import
        compiled = case.block(torch.compile(field, backend="aot_eager"))
        values, weight = case.values(2, C), torch.randn(2, C + case.pad)
        found = gradients(compiled, values, weight)
    closest(found, gradients(case.block(field), values, weight), 1e-9)


OWN = {"HBNODE": 1, "GHBNODE": 2, "AdamNODE": 2, "GNesterovNODE": 1, "MomentumNODE": 2}


@every_block
def test_every_block_takes_learnable_and_freezes_its_own_numbers(case):
    block = case.block(learnable=False)
    own = [p for name, p in block.named_parameters() if ".raw_" in name]
    assert len(own) == OWN.get(case.cls.__name__, 0)
    assert not any(p.requires_grad for p in own)
    assert all(p.requires_grad for p in block.field.parameters())


@pytest.mark.parametrize(
    ("block", "name", "value"),
    [
        (HBNODE(MLP(2), gamma=0.37), "gamma", 0.37),
        (GHBNODE(MLP(2), gamma=0.37), "gamma", 0.37),
        (GHBNODE(MLP(2), xi=1.5), "xi", 1.5),
        (GNesterovNODE(MLP(2), xi=0.7), "xi", 0.7),
        (AdamNODE(MLP(2), beta=0.9), "beta", 0.9),
        (HBNODE(MLP(2)), "gamma", 1 / (1 + math.exp(3))),
        (GHBNODE(MLP(2)), "xi", math.log(1 + math.exp(2))),
    ],
)
def test_start_values_come_out_as_they_were_given(block, name, value):
    assert float(getattr(block, name).detach()) == pytest.approx(value, rel=1e-6)


def test_hardtanh_limits_the_speed_of_a_generalised_heavy_ball():
    still, h0, m0 = lambda t, h: 0 * h, torch.zeros(1, 2), torch.full((1, 2), 50.0)
    slow = GHBNODE(still, gamma=1e-6, xi=1e-6, activation="hardtanh", **FINE)(h0, m0)
    torch.testing.assert_close(slow, torch.full((1, 2), -5.0), rtol=1e-3, atol=0)


@every_block
def test_time_may_run_backwards_and_returns_to_the_start(case):
    block, values, t = case.block(**FINE), case.values(2, C), torch.tensor([0.0, 0.4])
    path = block.trajectory(values["h0"], t, **without_h0(values))
    ends = {f"{name}0": value[-1] for name, value in path.items()}
    h0, rest = ends.pop("h0"), ends
    if case.pad:  # the block pads again what is padded already: go back through its dynamics
        block = NODE(block.field, **FINE)
    back = block.trajectory(h0, t.flip(0), **rest)
    torch.testing.assert_close(back["h"][-1, :, :C], values["h0"], rtol=1e-5, atol=1e-5)


def hb(**settings):
    return HBNODE(MLP(C), **settings)


H0 = torch.zeros(2, C, dtype=torch.float64)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: hb(gama=0.3), ArgumentTypeError, "HBNODE.*'gama'.*did you mean 'gamma'"),
        (lambda: NODE(MLP(C), alpha=0.3), ArgumentTypeError, "NODE.*'alpha': take one of"),
        (lambda: hb()(H0, mo=H0), ArgumentTypeError, "'mo'.*did you mean 'm0'"),
        (lambda: hb()(H0, v0=H0), ArgumentTypeError, "HBNODE block.*'v0'.*Known: h0, m0"),
        (lambda: hb()(H0, m0=H0[:1]), ArgumentError, "m0 is \\(1, 3\\)"),
        (lambda: hb()(H0, m0=H0.float()), ArgumentError, "m0.*float32"),
        (lambda: hb()(H0, m0=1.0), ArgumentTypeError, "m0 is a float"),
        (lambda: SONODE(MLP(2 * C, out_dim=C))(H0, v0=H0[:, :1]), ArgumentError, "v0 is \\(2, 1\\)"),
        (lambda: SONODE(MLP(C))(H0), DynamicsError, r"field takes 3.*f\(t, \[h, v\]\).*takes 6"),
        (lambda: ANODE(MLP(C), augment=2)(H0), DynamicsError, "5 channels"),
        (lambda: ANODE(MLP(C), augment=-1), ArgumentError, "augment=-1"),
        (lambda: ANODE(MLP(C), augment=1.5), ArgumentTypeError, "augment=1.5"),
        (lambda: ANODE(MLP(C), augment=1)(torch.zeros(3)), ArgumentError, r"\[B, C, …\]"),
        (lambda: ANODE(MLP(C), augment=1)([1.0]), ArgumentTypeError, "list"),
        (lambda: hb(t=(1.0, 1.0)), ArgumentError, "differ"),
        (lambda: hb(t=(0.0, math.nan)), ArgumentError, "finite"),
        (lambda: hb(t=3.0), ArgumentError, "start and end"),
        (lambda: hb(t=("a", "b")), ArgumentError, "start and end"),
        (lambda: hb(gamma=0.0), ArgumentError, "gamma=0.0"),
        (lambda: GHBNODE(MLP(C), xi=-1.0), ArgumentError, "xi=-1.0"),
        (lambda: GHBNODE(MLP(C), activation="tahn"), ArgumentError, "did you mean 'tanh'"),
        (lambda: NODE(MLP(C, out_dim=2))(H0), DynamicsError, "returns 2"),
        (lambda: NODE(lambda t, h: h[:, :1])(H0), AdamodeError, "shape"),
        (lambda: NODE(None), ArgumentTypeError, "cannot be called"),
        (lambda: hb().trajectory(H0, torch.tensor([0.0, 0.0, 1.0])), ArgumentError, "t"),
        (lambda: hb().trajectory(H0, [0.0, 1.0]), AdamodeError, "t"),
    ],
)
def test_a_block_refuses_bad_input_and_names_it(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_the_nine_blocks_are_public():
    for case in CASES.values():
        assert getattr(adamode, case.cls.__name__) is case.cls
        assert case.cls.__name__ in adamode.__all__


def test_the_solver_keywords_have_one_type_and_one_default():
    typed, settings = typing.get_type_hints(SolverOptions), typing.get_type_hints(SolveSettings)
    assert {name: settings[name] for name in typed} == typed
    assert settings.keys() - typed.keys() == {"dt0", "penalties"}  # a training run's alone
    for case in CASES.values():
        assert case.block().settings == SolveSettings()
        assert case.block(method="tsit5").settings == SolveSettings(method="tsit5")


def test_dt0_is_no_keyword_of_a_block():
    with pytest.raises(ArgumentTypeError, match=r"HBNODE.*'dt0'"):
        hb(dt0=0.1)


def test_a_class_of_ones_own_may_take_keywords_of_its_own():
    class Named(HBNODE):
        def __init__(self, field, **more):
            self_name = more.pop("name")
            super().__init__(field, **more)
            self.name = self_name

    block = Named(MLP(C), name="ball", rtol=1e-3)
    assert (block.name, block.settings.rtol) == ("ball", 1e-3)
    with pytest.raises(ArgumentTypeError, match=r"Named got an unknown .*'rtoll'.*did you mean 'rtol'"):
        Named(MLP(C), name="ball", rtoll=1e-3)
