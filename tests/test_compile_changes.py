"""What changes between compiled solves is never met by a program of before."""

import warnings

import pytest
import torch
from problems import f64, worst
from torch import nn

from adamode import AdamodeWarning, ArgumentError, Backsolve, Discrete, Dynamics, Interpolating, solve
from adamode.models.dynamics import NeuralODE
from adamode.models.fields import Conv
from adamode.solvers.device.programs import PATIENCE

OPTIONS = {"method": "bosh3", "rtol": 1e-3, "atol": 1e-4}
Y = f64(0.5, -1.0, 0.3, 0.2, 1.0, 2.0).view(3, 2)
T = f64(0.0, 0.01, 0.4, 0.7, 1.5)
EVERY = pytest.mark.parametrize("every", [1, 4])


ENDS = T[[0, -1]]


@pytest.fixture(autouse=True)
def tracing(monkeypatch):
    monkeypatch.setattr("adamode.solvers.device.programs.BACKEND", "aot_eager")


@pytest.fixture
def captured(monkeypatch, tracing):
    """Programs are captured and run as they are: where a test asks when one is made anew, and by whom it is
    met, and not what becomes of its graph. That takes half the time."""
    monkeypatch.setattr("adamode.solvers.device.programs.BACKEND", "eager")


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(2, 2).double()

    def forward(self, t, y):
        return torch.tanh(self.inner(y)) * torch.cos(t)


def gradients(func, y0, t, inputs=(), **options):
    y0 = y0.clone(memory_format=torch.preserve_format).requires_grad_()
    sol = solve(func, y0, t, **{**OPTIONS, **options})
    return [sol.y, *torch.autograd.grad(torch.sin(sol.y + 1).sum(), (y0, *inputs))]


def assert_alike(func, y0, t, inputs, every, bound=1e-10, **options):
    plain = gradients(func, y0, t, inputs, **options)
    fast = gradients(func, y0, t, inputs, compile=True, sync_every=every, **options)
    assert worst(fast, plain) <= bound


@EVERY
@pytest.mark.parametrize(
    "choice",
    [
        {},
        pytest.param({"gradient": Backsolve()}, marks=pytest.mark.slow),
        pytest.param({"gradient": Interpolating()}, marks=pytest.mark.slow),
    ],
    ids=repr,
)
def test_states_in_channels_last_order(every, choice):
    torch.manual_seed(0)
    func = NeuralODE(Conv(2, 3, activation="tanh")).double()
    z = torch.randn(1, 2, 2, 4, 3, dtype=torch.float64)
    assert_alike(func, z, T, tuple(func.parameters()), every, bound=1e-8, **choice)


SLOW = pytest.mark.slow


@pytest.mark.parametrize("every", [pytest.param(1, marks=SLOW), 4])
@pytest.mark.parametrize(
    "shape", ["transposed", "odd stride", pytest.param("expanded", marks=SLOW), "0-d", "1-d"]
)
def test_states_of_every_layout(every, shape, request):
    if shape in ("0-d", "1-d"):  # of one layout: lowering has nothing to permute
        request.getfixturevalue("captured")

    class Wave(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

        def forward(self, t, y):
            return -torch.sin(self.a * y) * torch.cos(t)

    y0 = {
        "transposed": Y.t(),
        "odd stride": torch.randn(3, 4, 2, dtype=torch.float64)[:, :1].permute(1, 0, 2),
        "expanded": f64(0.3, 0.9).expand(3, 2),
        "0-d": torch.tensor(0.5, dtype=torch.float64),
        "1-d": f64(0.5, 0.1),
    }[shape]
    func = Wave()
    assert_alike(func, y0, T, tuple(func.parameters()), every)


@EVERY
def test_hooks_that_come_and_go_are_seen(every, captured):
    func = Layer()
    params = tuple(func.parameters())
    assert_alike(func, Y, ENDS, params, every)
    for part in (func.inner, func):
        handle = part.register_forward_hook(lambda module, inputs, out: out * 0.5)
        assert_alike(func, Y, ENDS, params, every)
        handle.remove()
    assert_alike(func, Y, ENDS, params, every)


@pytest.mark.parametrize("every", [1, pytest.param(4, marks=SLOW)])
def test_a_plain_value_that_a_stage_saves_is_of_its_own_solve(every, captured):
    class Scaled(nn.Module, Dynamics):
        def __init__(self):
            super().__init__()
            self.w, self.c = nn.Parameter(torch.tensor(0.7, dtype=torch.float64)), 1.0

        def theta(self):
            return (self.w,)

        def forward(self, t, z):
            return -self.w * self.c * z, (z if self.c < 2 else z * 1.0, self.c, None)

        def vjp(self, saved, a):
            return -self.w * saved[1] * a, (a,)

        def parameter_gradients(self, saved, deltas, weights):
            return (sum(-(s[1] * s[0] * d[0]).sum() for s, d in zip(saved, deltas, strict=True)),)

    func = Scaled()
    for func.c in (1.0, 3.0, 1.5):
        for _ in range(2):
            assert_alike(func, Y[None], ENDS, (func.w,), every)


@pytest.mark.parametrize("every", [1, pytest.param(4, marks=SLOW)])
def test_a_leaf_that_func_captures_is_missed_in_no_solve(every, captured):
    outside = torch.tensor(0.5, dtype=torch.float64)

    class Captures(Layer):
        def forward(self, t, y):
            return super().forward(t, y) * outside

    func = Captures()
    solve(func, Y, ENDS, gradient=None, compile=True, sync_every=every, **OPTIONS)
    gradients(func, Y, ENDS, compile=True, sync_every=every)
    outside.requires_grad_()
    with pytest.raises(ArgumentError, match="params"):
        gradients(func, Y, ENDS, compile=True, sync_every=every)


@pytest.mark.parametrize("every", [1, pytest.param(4, marks=SLOW)])
def test_freezing_between_the_passes_is_refused_as_without(every, captured):
    class Three(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Parameter(f64(v)) for v in (0.3, 0.7, -0.2))
            self.c.requires_grad_(False)

        def forward(self, t, y):
            return self.a * torch.sin(y) + self.b * torch.cos(y) + self.c * y

    for options in ({}, {"compile": True, "sync_every": every}):
        func = Three()
        sol = solve(
            func, Y.clone().requires_grad_(), ENDS, gradient=Discrete(keep="state"), **OPTIONS, **options
        )
        func.a.requires_grad_(False)
        func.c.requires_grad_(True)
        with pytest.raises(RuntimeError, match="require grad"):
            sol.y.sum().backward()


@pytest.mark.slow
def test_a_func_that_counts_its_calls_is_told_so_and_left_uncompiled(captured):
    class Counting(Layer):
        def __init__(self):
            super().__init__()
            self.nfe = 0

        def forward(self, t, y):
            self.nfe += 1
            return super().forward(t, y)

    func = Counting()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(PATIENCE + 2):
            assert_alike(func, Y, ENDS, tuple(func.parameters()), 1)
    texts = [str(w.message) for w in caught if w.category is AdamodeWarning]
    assert any("has changed itself" in text or "cannot be compiled" in text for text in texts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_alike(func, Y, ENDS, tuple(func.parameters()), 1)


@EVERY
def test_an_exception_of_func_passes_through_and_later_solves_go_on(every, captured):
    class Moody(Layer):
        bad = False

        def forward(self, t, y):
            if self.bad:
                raise KeyError("mine")
            return super().forward(t, y)

    func = Moody()
    assert_alike(func, Y, ENDS, (), every)
    func.bad = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(KeyError, match="mine"):
            gradients(func, Y, ENDS, compile=True, sync_every=every)
    func.bad = False
    assert_alike(func, Y, ENDS, (), every)
