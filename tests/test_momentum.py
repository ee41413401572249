"""The momentum family: one dynamics and its special cases, the authors' variables, times, and divergences."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from scipy.special import jv
from torch import nn

import adamode
from adamode import HBNODE, Backsolve, Direct, Discrete, GNesterovNODE, MomentumNODE, NesterovNODE
from adamode.adjoint.dynamics.protocol import Dynamics
from adamode.models import create
from adamode.models.dynamics import GeneralisedNesterovODE, HeavyBallODE, MomentumODE, NesterovODE
from adamode.models.fields import MLP, Conv, Linear
from adamode.solvers.errors import ArgumentError, ArgumentTypeError

D = torch.float64
FINE = {"rtol": 1e-10, "atol": 1e-10}
steppings = pytest.mark.parametrize("stepping", ["shared", "per_sample"])


def field(seed: int = 0) -> MLP:
    torch.manual_seed(seed)
    return MLP(3, (7,)).to(D)


def state(seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 4, 3, generator=generator, dtype=D)


def solved(block, **more):
    """h(T), dL/dh0, dL/dm0 and dL/dθ by name."""
    h0, m0 = (x.clone().requires_grad_() for x in state())
    end = block(h0, m0)
    end.sin().sum().backward()
    own = {name: p.grad for name, p in block.named_parameters() if p.grad is not None}
    return {"h": end.detach(), "h0": h0.grad, "m0": m0.grad, **own}


def alike(found, expected, bound=1e-12):
    assert found.keys() == expected.keys()
    for name, x in found.items():
        assert (x - expected[name]).abs().max() <= bound * expected[name].abs().max(), name


SPECIAL = {
    "heavy ball": (lambda f, **o: HBNODE(f, gamma=0.3, **o), {"damping": "constant", "gamma": 0.3}),
    "nesterov": (lambda f, **o: NesterovNODE(f, **o), {"damping": "nesterov"}),
}


@steppings
@pytest.mark.parametrize("gradient", [Discrete(), Backsolve()], ids=repr)
@pytest.mark.parametrize("t", [(1.0, 2.0), (2.0, 0.5)])
@pytest.mark.parametrize("case", SPECIAL)
def test_the_heavy_ball_and_nesterov_are_momentum_under_their_dampings(case, t, gradient, stepping):
    special, settings = SPECIAL[case]
    options = {"t": t, "stepping": stepping, "gradient": gradient}
    block = special(field(), **options).to(D)
    alike(solved(MomentumNODE(field(), **settings, **options).to(D)), solved(block))


@pytest.mark.parametrize("case", SPECIAL)
def test_a_learned_damping_can_become_either(case):
    special, settings = SPECIAL[case]
    block = MomentumNODE(field(), gamma=settings.get("gamma", 0.5), r=3.0, **FINE).to(D)
    gone, left = ("raw_r", "raw_gamma") if case == "heavy ball" else ("raw_gamma", "raw_r")
    with torch.no_grad():  # softplus and sigmoid are 0 at −800 in float64
        getattr(block.dynamics, gone).fill_(-800.0)
        if case == "nesterov":
            block.dynamics.raw_r.fill_(math.log(math.expm1(3.0)))  # in float64
    found, expected = solved(block), solved(special(field(), t=(1.0, 2.0), **FINE).to(D))
    assert found.pop(f"dynamics.{gone}") == 0.0
    if case == "nesterov":  # its r is no parameter
        assert found.pop(f"dynamics.{left}") != 0.0
    alike(found, expected, 1e-9)


def test_the_heavy_ball_keeps_its_names():
    block = HBNODE(MLP(2, (3,)))
    assert {"dynamics.raw_gamma", "dynamics.field.layers.0.weight"} <= set(block.state_dict())
    assert isinstance(block.dynamics, HeavyBallODE)
    assert block.settings.t == (0.0, 1.0)
    assert set(NesterovNODE(MLP(2, (3,))).state_dict()) == {f"dynamics.{n}" for n in FIELD_NAMES}


FIELD_NAMES = [f"field.layers.{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")]


def test_dampings_are_what_they_say():
    t = torch.tensor([0.5, 1.0, 4.0], dtype=D)
    learned = MomentumNODE(field(), gamma=0.2, r=1.5, shift=0.25).to(D)
    assert torch.allclose(learned.damping_at(t), 0.2 + 1.5 / (t + 0.25))
    assert torch.allclose(MomentumNODE(field(), damping="nesterov").damping_at(t), 3 / t)
    constant = MomentumNODE(field(), damping="constant", gamma=0.2).to(D)
    assert constant.damping_at(t).item() == pytest.approx(0.2)
    assert learned.dynamics.r.item() == pytest.approx(1.5)


def test_under_a_linear_field_nesterov_moves_as_bessels_function():
    """h'' + (3/t) h' + ω² h = 0 has the solution J₁(ωt)/(ωt): Su, Boyd, Candès, Sec. 3.2."""
    omega = torch.tensor([1.0, 4.0], dtype=D)
    linear = Linear(2).double()
    with torch.no_grad():
        linear.layer.weight.copy_(torch.diag(omega**2))
        linear.layer.bias.zero_()
    t = torch.tensor([0.1, 1.0, 7.0], dtype=D)
    x = (omega * t[:, None]).numpy()
    h, m = torch.from_numpy(jv(1, x) / x), omega * torch.from_numpy(jv(2, x) / x)  # m = −h'
    path = NesterovNODE(linear, **FINE).trajectory(h[:1], t, m0=m[:1])
    torch.testing.assert_close(path["h"][:, 0].detach(), h, rtol=0, atol=1e-9)
    torch.testing.assert_close(path["m"][:, 0].detach(), m, rtol=0, atol=1e-9)


class Absorbing(nn.Module):
    """F = k f − (1/4 − 3/(4τ²)) h, under which NesterovNODE moves as the authors' variables under f."""

    def __init__(self, inner: nn.Module, shift: float):
        super().__init__()
        self.inner, self.shift = inner, shift

    def forward(self, t, h):
        tau = t + self.shift
        return tau**-1.5 * torch.exp(tau / 2) * self.inner(t, h) - (0.25 - 0.75 / tau**2) * h


@pytest.mark.parametrize(("t", "shift"), [((1.0, 2.0), 0.0), ((2.0, 0.5), 0.0), ((0.0, 3.0), 0.4)])
def test_the_authors_variables_without_bounds_are_nesterovs_equations_for_another_field(t, shift):
    theirs = GNesterovNODE(field(), activation="identity", xi=None, t=t, shift=shift, **FINE)
    ours = NesterovNODE(Absorbing(field(), shift), t=t, shift=shift, **FINE)
    h0, m0 = state()
    times = torch.tensor([t[0], (t[0] + t[1]) / 2, t[1]], dtype=D)
    tau = times[:, None, None] + shift
    k, rho = tau**-1.5 * torch.exp(tau / 2), 0.5 - 1.5 / tau
    first = theirs.trajectory(h0, times, m0=m0)
    velocity = rho * first["h"] - k * first["m"]  # h'
    second = ours.trajectory(h0, times, m0=-velocity[0])
    torch.testing.assert_close(first["h"], second["h"], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(-velocity, second["m"], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("bounded", ["tanh", "hardtanh"])
def test_the_generalised_equations_are_the_authors(bounded):
    """x' = σ(p), p' = −p − σ(f) − ξ h, h = σ(k) x, solved in x and p by themselves."""
    block = GNesterovNODE(field(), activation=bounded, xi=0.8, t=(1.0, 3.0), **FINE).to(D)
    sigma = torch.tanh if bounded == "tanh" else nn.Hardtanh(-5.0, 5.0)

    def kappa(t):
        return sigma(t**-1.5 * torch.exp(t / 2))

    def theirs(t, y):
        x, p = y
        h = kappa(t) * x
        return torch.stack((sigma(p), -p - sigma(block.field(t, h)) - 0.8 * h))

    (h0, m0), times = 2 * state(), torch.tensor([1.0, 3.0], dtype=D)
    y = adamode.solve(theirs, torch.stack((h0 / kappa(times[0]), -m0)), times, gradient=None, **FINE).y[-1]
    path = block.trajectory(h0, times, m0=m0)
    torch.testing.assert_close(path["h"][-1], kappa(times[1]) * y[0], rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(path["m"][-1], -y[1], rtol=1e-7, atol=1e-8)


TIMED = {
    "nesterov": lambda **o: NesterovODE(field(), **o),
    "learned": lambda **o: MomentumODE(field(), gamma=0.3, r=2.0, **o).to(D),
    "generalised": lambda **o: GeneralisedNesterovODE(field(), **o).to(D),
}
timed = pytest.mark.parametrize("name", TIMED)


@timed
@steppings
@pytest.mark.parametrize("times", [[1.0, 1.3, 2.0], [2.0, 1.1, 0.6]], ids=["forward", "decreasing"])
def test_times_that_require_grad_get_theirs(name, times, stepping):
    """Against autograd through the same steps, and against differences of fine solves."""
    dynamics, z0, weight = TIMED[name](), state(), state(2)

    def loss(t, gradient=None, tol=1e-12):
        options = {"rtol": tol, "atol": tol, "stepping": stepping, "gradient": gradient, "method": "dop853"}
        return (adamode.solve(dynamics, z0, t, **options).y * weight).sum()

    t = torch.tensor(times, dtype=D)
    if stepping == "per_sample":
        t = t + torch.linspace(0, 0.2, 4, dtype=D)[:, None]  # each sample's own
    leaf = t.clone().requires_grad_()
    found, direct, continuous = (
        torch.autograd.grad(loss(leaf, gradient, 1e-9), leaf)[0]
        for gradient in (Discrete(), Direct(), Backsolve())
    )
    assert (found - direct).abs().max() <= 1e-9 * found.abs().max()
    assert (found - continuous).abs().max() <= 1e-6 * found.abs().max()
    for i in range(3):
        step = torch.zeros_like(t)
        step[..., i] = 1e-4
        change = ((loss(t + step) - loss(t - step)) / 2e-4).item()
        assert found[..., i].sum().item() == pytest.approx(change, abs=1e-6 * found.abs().max().item())


@timed
def test_a_state_of_one_row_of_numbers_images_and_float32_are_solved(name):
    h0 = torch.randn(2, 3, 4, 5)
    for cls in (NesterovNODE, MomentumNODE, GNesterovNODE):
        for stepping in ("shared", "per_sample"):
            block = cls(Conv(3, 4), stepping=stepping, rtol=1e-3, atol=1e-3)
            end = block(h0)
            end.sum().backward()
            assert (end.shape, end.dtype) == (h0.shape, torch.float32)
            assert all(p.grad is not None and p.grad.isfinite().all() for p in block.field.parameters())
    found = adamode.solve(TIMED[name](), state()[:, :1], torch.tensor([1.0, 2.0], dtype=D)).y
    whole = adamode.solve(TIMED[name](), state(), torch.tensor([1.0, 2.0], dtype=D), stepping="per_sample").y
    torch.testing.assert_close(found[:, :, 0], whole[:, :, 0], rtol=1e-5, atol=1e-6)


@timed
@steppings
def test_a_time_that_is_not_after_the_pole_is_refused_by_name(name, stepping):
    make, z0 = TIMED[name], state()
    word = type(make()).__name__
    for times, shift, i in (
        ([0.0, 1.0], 0.0, 0),
        ([1.0, 0.5, -0.1], 0.0, 2),
        ([0.5, 1.0], -0.5, 0),
        ([-0.3, 1.0], 0.2, 0),
    ):
        t = torch.tensor(times, dtype=D)
        with pytest.raises(ArgumentError, match=rf"t\[{i}\]=.*{word} is defined for t > "):
            adamode.solve(make(shift=shift), z0, t, stepping=stepping)
        if stepping == "per_sample":
            rows = torch.stack((t, t, t + 1.0, t + 2.0))
            with pytest.raises(ArgumentError, match=f"{word} is defined for t > "):
                adamode.solve(make(shift=shift), z0, rows, stepping=stepping)
    adamode.solve(make(shift=0.1), z0, torch.tensor([0.0, 1.0], dtype=D), stepping=stepping)
    with pytest.raises(ArgumentError, match="is defined for t > 0"):
        adamode.sample(make(), z0, (1.0, 0.0), steps=4)
    start = torch.tensor([0.0, 1.0], dtype=D)
    with pytest.raises(ArgumentError, match=f"{word} is defined for t > 0"):
        adamode.solve(make(), z0, start, stepping=stepping, penalties=("kinetic",))
    with pytest.raises(ArgumentError, match=f"{word} is defined for t > 0"):
        adamode.odeint(make(), z0, start)
    with pytest.raises(ArgumentError, match=f"{word} is defined for t > 0"):
        adamode.solve(make(), z0, start, events=adamode.Impulse(start[1:] / 2, lambda t, y: y))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: NesterovNODE(MLP(2), t=(0.0, 1.0)),
            ArgumentError,
            r"t\[0\]=0.0: NesterovODE .* t > 0 alone",
        ),
        (lambda: MomentumNODE(MLP(2), t=(1.0, -1.0)), ArgumentError, r"t\[1\]=-1.0: MomentumODE"),
        (lambda: GNesterovNODE(MLP(2), t=(0.0, 1.0)), ArgumentError, "another shift"),
        (lambda: NesterovNODE(MLP(2), shift=math.inf), ArgumentError, "shift=inf must be finite"),
        (lambda: NesterovNODE(MLP(2), shift="1"), ArgumentTypeError, "shift='1' is a str"),
        (lambda: MomentumNODE(MLP(2), damping="nesterof"), ArgumentError, "did you mean 'nesterov'"),
        (lambda: MomentumNODE(MLP(2), r=0.0), ArgumentError, "r=0.0"),
        (lambda: MomentumNODE(MLP(2), gamma=1.0), ArgumentError, "gamma=1.0"),
        (lambda: GNesterovNODE(MLP(2), xi=-1.0), ArgumentError, "xi=-1.0"),
        (lambda: GNesterovNODE(MLP(2), activation="relu"), ArgumentError, "hardtanh, identity, tanh"),
        (lambda: NesterovNODE(MLP(2), gamma=0.1), ArgumentTypeError, "NesterovNODE.*'gamma'"),
    ],
)
def test_bad_settings_are_refused_by_name(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_a_constant_damping_has_no_pole():
    block = MomentumNODE(field(), damping="constant", t=(-1.0, 1.0)).to(D)
    assert block.dynamics.after is None
    assert block(state()[0]).isfinite().all()


def test_a_dynamics_of_the_users_own_may_say_after_which_time_it_is_defined():
    class Late(NesterovODE):
        after = 2.0

    with pytest.raises(ArgumentError, match=r"t\[0\]=1.5: Late is defined for t > 2 alone"):
        adamode.solve(Late(field()), state(), torch.tensor([1.5, 3.0], dtype=D))
    assert Dynamics.after is None


@timed
def test_steps_do_not_leave_the_interval_towards_the_pole(name):
    seen = []
    dynamics = TIMED[name]()
    whole = type(dynamics).forward

    class Watched(type(dynamics)):
        def forward(self, t, z):
            seen.append(t.min().item())
            return whole(self, t, z)

    watched = copy.copy(dynamics)
    watched.__class__ = Watched
    end = adamode.solve(watched, state(), torch.tensor([1.0, 1e-3], dtype=D), rtol=1e-4, atol=1e-4).y[-1]
    assert end.isfinite().all()
    assert min(seen) == 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("bounded", ["tanh", "hardtanh"])
def test_the_generalised_factor_is_at_its_bound_at_all_later_times(bounded, dtype):
    """k = τ^(−3/2) e^(τ/2) overflows at τ = 178 in float32, and a series has a row a unit of time."""
    dynamics = GeneralisedNesterovODE(field(), activation=bounded)
    times = torch.tensor([1e-3, 60.0, 178.0, 1500.0, 4e4], dtype=dtype)
    kappa, rho = dynamics._factor(times)
    assert torch.equal(kappa, torch.full_like(times, 1.0 if bounded == "tanh" else 5.0))
    assert torch.equal(rho, torch.zeros_like(times))
    assert dynamics.divergence_integral(times[1], times[4]) == times[1] - times[4]


@pytest.mark.parametrize("model", ["nesterovnode", "gnesterovnode", "momentumnode"])
def test_a_series_of_many_rows_is_solved(model):
    made = create(model, "silverbox")
    x = torch.zeros(1, 400, 3)
    x[:, :8, 2] = 1
    assert torch.isfinite(made.eval()(x)).all()


def test_a_frozen_block_gives_its_field_alone_gradients():
    for block in (MomentumNODE(field(), learnable=False), GNesterovNODE(field(), learnable=False)):
        found = solved(block.to(D))
        assert {n for n in found if n.startswith("dynamics")} == {f"dynamics.{n}" for n in FIELD_NAMES}
