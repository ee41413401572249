"""States of bfloat16 and float16: func computes in them, sums over steps do not."""

import math

import pytest
import torch
from problems import EVERY_GRADIENT, Swing, relative

import adamode
from adamode import (
    AdamodeWarning,
    ArgumentError,
    ArgumentTypeError,
    Backsolve,
    Discrete,
    Interpolating,
)

SUMMED = [Discrete(), Discrete(keep="state"), Interpolating(), Backsolve()]
HALF = [torch.bfloat16, torch.float16]
T = torch.tensor([0.0, 0.3, 1.0])


class Layer(torch.nn.Module):
    def __init__(self, dtype):
        super().__init__()
        make = torch.Generator().manual_seed(0)
        self.w = torch.nn.Parameter((torch.randn(3, 3, generator=make) / 2).to(dtype))

    def forward(self, t, y):
        assert y.dtype == self.w.dtype
        assert t.dtype == torch.float32
        return torch.tanh(y @ self.w) * torch.cos(t)


def start(dtype):
    return torch.randn((4, 3), generator=torch.Generator().manual_seed(3)).to(dtype)


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
@pytest.mark.parametrize("dtype", HALF)
def test_the_steps_are_float32_s_of_a_func_that_rounds(dtype, stepping):
    f, arguments = Layer(dtype), {"method": "rk4", "dt": 0.1, "stepping": stepping}
    sol = adamode.solve(f, start(dtype), T, **arguments)
    twin = adamode.solve(lambda t, y: f(t, y.to(dtype)).float(), start(dtype).float(), T, **arguments)
    assert sol.y.dtype == dtype
    assert torch.equal(sol.y, twin.y.to(dtype))


@pytest.mark.parametrize("dtype", HALF)
def test_many_short_steps_add_up(dtype):
    y0 = torch.ones(1, dtype=dtype)
    sol = adamode.solve(lambda t, y: torch.ones_like(y), y0, T, method="euler", dt=1e-3)
    assert float(sol.y[-1]) == 2.0
    total = y0.clone()
    for _ in range(1000):
        total = total + 1e-3 * torch.ones_like(total)
    assert float(total) < 1.99  # where each step is rounded: 1 in bfloat16


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
@pytest.mark.parametrize(
    "gradient", [Discrete(), Discrete(keep="state"), Interpolating(), Backsolve()], ids=str
)
def test_a_parameter_s_gradient_is_summed_in_float32(gradient, stepping):
    """dL/dw = ∫ dt = 1 in 500 parts; bfloat16's own sum stands still at half of it."""

    class Drift(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))

        def forward(self, t, y):
            return self.w.expand_as(y)

    f, y0 = Drift(), torch.zeros(1, 1, dtype=torch.bfloat16, requires_grad=True)
    sol = adamode.solve(f, y0, T[::2], method="euler", dt=2e-3, gradient=gradient, stepping=stepping)
    g_y0, g_w = torch.autograd.grad(sol.y[-1].sum(), [y0, f.w])
    assert g_y0.dtype == g_w.dtype == torch.bfloat16
    assert float(g_w) == pytest.approx(1.0, rel=1e-2)
    assert float(g_y0) == 1.0


@pytest.mark.parametrize("gradient", EVERY_GRADIENT, ids=str)
@pytest.mark.parametrize("dtype", HALF)
def test_gradients_are_float32_s_to_the_rounding_of_func(dtype, gradient):
    def found(kind):
        f, y0 = Layer(dtype).to(kind), start(dtype).to(kind).requires_grad_()
        y = adamode.solve(f, y0, T, method="rk4", dt=0.1, gradient=gradient).y
        return torch.autograd.grad(y.float().square().sum(), [y0, f.w])

    for a, b in zip(found(dtype), found(torch.float32), strict=True):
        assert a.dtype == dtype
        assert relative(a.float(), b) < 20 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", HALF)
def test_adaptive_steps_need_a_tolerance_that_func_can_resolve(dtype):
    f, y0 = Layer(dtype), start(dtype)
    with pytest.raises(ArgumentError, match=rf"rtol=1e-05 is below what {dtype} resolves.*autocast"):
        adamode.solve(f, y0, T)
    with pytest.raises(ArgumentError, match=rf"rtol=1e-07 is below what {dtype} resolves"):
        adamode.odeint(f, y0, T)
    with pytest.raises(ArgumentError, match="below what"):
        adamode.odeint(f, y0, T, method="scipy_solver")
    rtol = 4 * torch.finfo(dtype).eps
    exact = adamode.solve(Layer(dtype).float(), y0.float(), T).y
    for y in (adamode.solve(f, y0, T, rtol=rtol).y, adamode.odeint(f, y0, T, rtol=rtol)):
        assert y.dtype == dtype
        assert relative(y.float(), exact) < rtol


@pytest.mark.parametrize("method", ["rk4", "implicit_adams"])
def test_the_face_with_fixed_steps(method):
    f, y0, options = Layer(torch.bfloat16), start(torch.bfloat16), {"step_size": 0.1}
    exact = adamode.odeint(Layer(torch.bfloat16).float(), y0.float(), T)
    for solve in (adamode.odeint, adamode.odeint_adjoint):
        y = solve(f, y0, T, method=method, options=options, rtol=0.1)
        assert relative(y.float(), exact) < 0.02
        (g,) = torch.autograd.grad(y.float().sum(), f.w)
        assert g.dtype == torch.bfloat16


def test_a_tuple_and_time_far_from_zero():
    """Time is not rounded to the state's dtype: 100 and 100.1 are one number in bfloat16."""
    y0 = (torch.zeros(2, dtype=torch.bfloat16), torch.ones(3, dtype=torch.bfloat16))
    t = torch.tensor([100.0, 100.0 + math.pi / 2])
    sol = adamode.solve(lambda t, y: (torch.sin(t - 100.0).expand(2), -y[1]), y0, t, method="rk4", dt=0.01)
    assert float(sol.y[0][-1, 0]) == pytest.approx(1.0, rel=4e-3)
    assert [x.dtype for x in sol.y] == [torch.bfloat16] * 2


def test_what_is_refused_or_slower_says_why():
    with pytest.raises(ArgumentTypeError, match="a VJP by hand is one of real numbers"):
        adamode.solve(Swing(), torch.zeros(2, 4, 3, dtype=torch.bfloat16), T)
    f, y0 = Layer(torch.bfloat16), start(torch.bfloat16)
    for stepping in ("shared", "per_sample"):
        with pytest.warns(AdamodeWarning, match=r"a program is for states of torch\.float32"):
            sol = adamode.solve(f, y0, T[:2], rtol=0.04, compile=True, stepping=stepping, gradient=None)
        assert torch.equal(sol.y, adamode.solve(f, y0, T[:2], rtol=0.04, stepping=stepping, gradient=None).y)
