"""Whole-solve programs, run as the plain functions that they are made of, give what the eager way gives."""

from __future__ import annotations

import pytest
import torch
from dynamics_zoo import VARIANTS, draw
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from problems import Net, Swing, f64, worst
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from whole_solves import Given, Shared, compared, plain

from adamode import PI, PID, AdamodeWarning, Backsolve, Direct, Discrete, I, Interpolating, solve
from adamode.solvers.device import natives, programs
from adamode.solvers.methods import METHODS

pytestmark = pytest.mark.native

EXACT, SINGLE = 1e-10, 2e-3  # of float32 the error ratios, and with them the steps, are rounded
GRADIENTS = {
    "none": None,
    "stages": Discrete(),
    "state": Discrete(keep="state"),
}
CONTROLLERS = {
    "PI": PI(),
    "I": I(),
    "PID": PID(0.3, 0.5, 0.1, safety=0.8),
    "short": PI(dt_max=0.11),
    "forced": PI(dt_min=0.2, force_dt_min=True),
    "as torchdiffeq": I(accept_factor_min=1.0, regrow=True, look_ahead=False),
}


def state(form, dtype=torch.float64):
    """A start of each form that a state can have."""
    numbers = torch.linspace(-1.0, 1.2, 24, dtype=dtype)
    return {
        "0-d": numbers[3],
        "[B]": numbers[:3],
        "[B, d]": numbers[:6].view(3, 2),
        "one sample": numbers[:2].view(1, 2),
        "transposed": numbers[:6].view(2, 3).t(),
        "expanded": numbers[:2].expand(3, 2),
        "odd stride": numbers.view(4, 3, 2)[1::2, :, 0].t(),
        "channels last": numbers.view(3, 2, 2, 2).contiguous(memory_format=torch.channels_last),
    }[form]


FORMS = ("0-d", "[B]", "[B, d]", "one sample", "transposed", "expanded", "odd stride", "channels last")
TIMES = ("one list", "own", "padded", "stays")


def times(kind, n, batch, backwards):
    """[n], or a row a sample: with times of its own, an end repeated, or one sample that stays."""
    t = torch.linspace(0.0, 1.5, n, dtype=torch.float64)
    if kind != "one list":
        t = t[None] * torch.linspace(1.0, 0.4, batch, dtype=torch.float64)[:, None] + 0.1
        if kind == "padded":
            t[-1, n // 2 :] = t[-1, n // 2].clone()
        if kind == "stays":
            t[-1] = t[-1, 0].clone()
    return -t if backwards else t


def tolerances(kind, y0, per_sample):
    """rtol and atol: numbers, a tensor of the state's form that is both, or one a sample."""
    if kind == "a number" or (kind == "a sample" and not (per_sample and y0.dim())):
        return {"rtol": 1e-4, "atol": 1e-5}
    if kind == "a sample":
        each = torch.logspace(-5, -3, len(y0), dtype=y0.dtype)
        return {"rtol": each.view(-1, *[1] * (y0.dim() - 1)), "atol": 1e-5}
    every = torch.logspace(-5, -3, max(y0.numel(), 1), dtype=y0.dtype).view(y0.shape)
    return {"rtol": every, "atol": every}


@settings(max_examples=60, phases=[Phase.explicit, Phase.generate])  # to shrink one takes minutes
@given(
    method=st.sampled_from(["dopri5", "tsit5", "bosh3", "dop853", "dopri8", "adaptive_heun"]),
    stepping=st.sampled_from(["shared", "per_sample"]),
    gradient=st.sampled_from(sorted(GRADIENTS)),
    form=st.sampled_from(FORMS),
    kind=st.sampled_from(TIMES),
    n=st.sampled_from([2, 3, 9, 33]),
    backwards=st.booleans(),
    first=st.sampled_from(["estimated", "a number", "a sample"]),
    most=st.sampled_from([100_000, 100_000, 100_000, 4]),
    controller=st.sampled_from(sorted(CONTROLLERS)),
    tolerance=st.sampled_from(["a number", "a sample", "of the state"]),
    norm=st.sampled_from(["rms", "max", "blocks"]),
    single=st.booleans(),
    wants=st.sampled_from(["y0 t theta", "y0", "theta", "t"]),
    piece=st.sampled_from([128, 3]),
)
def test_a_whole_solve_is_the_eager_one(
    method, stepping, gradient, form, kind, n, backwards, first, most, controller, tolerance, norm, single,
    wants, piece,
):  # fmt: skip
    if METHODS[method].order > 5:  # in float32 their error estimate is rounding, which decides on steps
        single = False
    dtype, per_sample = torch.float32 if single else torch.float64, stepping == "per_sample"
    y0 = state("[B]" if per_sample and form == "0-d" else form, dtype)
    t = times(kind if per_sample else "one list", n, len(y0) if y0.dim() else 1, backwards)
    dt0 = {"estimated": None, "a number": 0.05}.get(first, torch.linspace(0.02, 0.1, 8)[: len(t)])
    if first == "a sample":
        dt0 = torch.linspace(0.02, 0.1, len(y0)).double() if per_sample else 0.07
    inner = len(METHODS[method].c_dense) > 0 and t.shape[-1] > 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("adamode.solvers.device.whole.LONGEST", piece)
        compared(
            Shared(dtype),
            y0,
            t,
            bound=SINGLE if single else EXACT,
            whole=False if inner else None if most == 4 or kind == "stays" else True,
            wants=wants,
            method=method,
            stepping=stepping,
            gradient=GRADIENTS[gradient],
            dt0=dt0,
            max_steps=most,
            controller=CONTROLLERS[controller],
            norm=norm,
            **tolerances(tolerance, y0, per_sample),
        )


T = f64(0.0, 0.3, 0.9, 1.5)
ENDS = T[[0, -1]]
OPTIONS = {"method": "bosh3", "rtol": 1e-4, "atol": 1e-5}
STEPPINGS = pytest.mark.parametrize("stepping", ["shared", "per_sample"])


@STEPPINGS
@pytest.mark.parametrize(("model", "variant"), VARIANTS, ids=repr)
def test_every_model_and_its_gradients(model, variant, stepping):
    drawn = draw(model, variant)
    for t in (T, ENDS):
        compared(drawn.dynamics, drawn.z0, t, stepping=stepping, **OPTIONS)


@STEPPINGS
@pytest.mark.parametrize("norm", ["rms", "max", "blocks"])
def test_blocks_with_a_norm_and_an_image(norm, stepping):
    drawn = draw("sonode", {}, (2, 1, 3, 4))
    z0 = drawn.z0[:, :, 0].contiguous().unsqueeze(2)
    compared(drawn.dynamics, z0, T, stepping=stepping, norm=norm, **OPTIONS)
    per_sample = times("padded", 9, 2, True) if stepping == "per_sample" else -T
    compared(Swing(), torch.cos(torch.arange(12.0).double()).view(2, 2, 3), per_sample, stepping=stepping,
             norm=norm, **OPTIONS)  # fmt: skip


class Modules(nn.Module):
    """Layers of torch's, one of them without a bias, one frozen, one that is used twice."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.again = nn.Linear(3, 3), nn.Linear(3, 3, bias=False)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.norm = nn.LayerNorm(3)
        self.double()

    def forward(self, t, y):
        y = self.again(torch.tanh(self.again(self.norm(y))))
        return torch.sin(self.first(y)) * torch.cos(t) + 0.1 * self.frozen(y)


@STEPPINGS
@pytest.mark.parametrize("parametrized", [False, True])
def test_modules_of_layers(parametrized, stepping):
    func = Modules()
    if parametrized:
        nn.utils.parametrizations.weight_norm(func.first)
    y0 = torch.cos(torch.arange(12.0).double()).view(4, 3)
    for t in (T, ENDS):
        compared(func, y0, t, stepping=stepping, **OPTIONS)


@STEPPINGS
@pytest.mark.parametrize("wants", ["theta", "y0", "t", "theta t"])
@pytest.mark.parametrize("make", [Shared, Net])
def test_only_what_is_asked_for_has_a_gradient(make, wants, stepping):
    compared(make(), torch.ones(2, 3).double(), T, wants=wants, stepping=stepping, **OPTIONS)


@STEPPINGS
def test_a_module_without_parameters(stepping):
    class Wave(nn.Module):
        def forward(self, t, y):
            return torch.cos(t) * torch.sin(y)

    compared(Wave(), f64(0.3, 0.5), T, wants="y0 t", stepping=stepping, **OPTIONS)


@STEPPINGS
@pytest.mark.parametrize("what", ["y", "a view of y", "y transposed twice", "a parameter"])
def test_a_func_that_returns_memory_of_its_inputs(what, stepping):
    for gradient in (Discrete(), Backsolve(), Interpolating()):
        if stepping == "shared" or isinstance(gradient, Discrete):
            compared(
                Given(what), torch.ones(2, 3).double(), T, stepping=stepping, gradient=gradient, **OPTIONS
            )


@STEPPINGS
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_under_every_grad_mode(mode, stepping):
    func, y0 = Shared(), f64(0.3, 0.5, -1.0)
    with mode():
        expected = solve(func, y0, T, stepping=stepping, **OPTIONS)
        with plain() as made:
            found = solve(func, y0, T, stepping=stepping, compile=True, **OPTIONS)
    assert made == [True]
    assert found.y.requires_grad == expected.y.requires_grad
    assert found.y.is_inference() == expected.y.is_inference()
    assert float((found.y - expected.y).detach().abs().max()) <= 1e-12


@STEPPINGS
@pytest.mark.parametrize("save", ["end", "times", "steps"])
def test_what_is_saved(save, stepping):
    whole = save != "steps"
    func, y0 = Shared(), f64(0.3, 0.5, -1.0)
    compared(func, y0, T, stepping=stepping, save=save, whole=whole, **OPTIONS)


@pytest.mark.parametrize(
    ("choice", "stepping"),
    [
        (Interpolating(), "per_sample"),
        (Backsolve(), "per_sample"),
        (Direct(), "shared"),
        (Direct(), "per_sample"),
        (Discrete(checkpoints=2), "shared"),
        (Discrete(checkpoints=2), "per_sample"),
    ],
    ids=repr,
)
def test_other_gradients_are_made_in_other_ways(choice, stepping):
    compared(Shared(), f64(0.3, 0.5, -1.0), T, stepping=stepping, gradient=choice, whole=False, **OPTIONS)


class Counted(TorchDispatchMode):
    """Counts evaluations of `Erf`: its VJP has no erf in it."""

    def __init__(self):
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.n += func is torch.ops.aten.erf.default
        return func(*args, **(kwargs or {}))


class Erf(nn.Module):
    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(f64(0.7)[0])

    def forward(self, t, y):
        return torch.erf(self.rate * y) * torch.cos(t)


@pytest.mark.parametrize(
    ("stepping", "gradient"),
    [
        *(("shared", gradient) for gradient in (None, Discrete(), Backsolve(), Interpolating())),
        *(("per_sample", gradient) for gradient in (None, Discrete())),
    ],
    ids=repr,
)
@pytest.mark.parametrize("dt", [None, 0.4])
def test_the_counts_are_the_evaluations_made(dt, gradient, stepping):
    if dt is not None and isinstance(gradient, Backsolve | Interpolating):
        return  # by no whole program
    func, y0 = Erf(), f64(0.3, 0.5, -1.0).requires_grad_()
    with plain() as made:
        for _ in range(2):  # a program's function is traced, once
            with Counted() as forward:
                sol = solve(func, y0, T, stepping=stepping, gradient=gradient, dt=dt, compile=True, **OPTIONS)
            with Counted() as back:
                if gradient is not None:
                    sol.y.sum().backward()
    assert made == [True, True]
    assert forward.n == (sol.stats.nfe if stepping == "shared" else sol.stats.n_calls)
    # A continuous adjoint's VJP evaluates func with it; the discrete one's takes a stage again.
    again = 0 if isinstance(gradient, Discrete | None) else sol.stats.nfe_backward
    assert back.n == sol.stats.nfe_recomputed + again


class Centred(nn.Module):
    """Of a tree or a tensor: what it does to leaves apart is not what it does to them together."""

    def forward(self, t, y):
        return pytree.tree_map(lambda leaf: torch.cos(t) - leaf + leaf.mean(-1, keepdim=True), y)


@STEPPINGS
@pytest.mark.parametrize("mode", ["plain", "off"])
@pytest.mark.parametrize("gradient", [None, Discrete()], ids=repr)
def test_a_state_of_several_leaves_is_never_given_as_one_tensor(gradient, mode, stepping, monkeypatch):
    monkeypatch.setattr(programs, "BACKEND", "eager")
    monkeypatch.setattr(natives, "MODE", mode)
    y0 = (torch.ones(2, 2).double(), f64(3.0, -1.0).view(2, 1))
    how = {"norm": "max", "stepping": stepping, "gradient": gradient, **OPTIONS}
    expected = solve(Centred(), y0, ENDS, **how)
    with pytest.warns(AdamodeWarning, match="does nothing here"):
        found = solve(Centred(), y0, ENDS, compile=True, **how)
    assert worst(found.y, expected.y) <= 1e-12
