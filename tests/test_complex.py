"""Complex states: values, norms, and gradients by PyTorch's convention, in both faces."""

import math

import pytest
import torch
from problems import EVERY_GRADIENT, Swing, f64, relative

import adamode
from adamode import AdamodeWarning, ArgumentTypeError, Direct, Discrete, DynamicsError, Event

torchdiffeq = pytest.importorskip("torchdiffeq")

T = f64(0.0, 0.3, 1.0, 1.75)


class Turning(torch.nn.Module):
    """Nowhere holomorphic; a complex parameter and a real one. It works on one tensor [B, 3]."""

    def __init__(self, dtype=torch.complex128):
        super().__init__()
        make = torch.Generator().manual_seed(0)
        draw = lambda *s: torch.randn(s, generator=make, dtype=torch.complex128) / 2  # noqa: E731
        self.w = torch.nn.Parameter(draw(3, 3).to(dtype))
        self.b = torch.nn.Parameter(draw(3).real.to(dtype.to_real()))

    def forward(self, t, y):
        return torch.tanh(y @ self.w) * torch.cos(t) + 1j * self.b * y.conj() - 0.1 * y * y.abs()


class AsReal(torch.nn.Module):
    """The same on [B, 3, 2], real and imaginary parts."""

    def __init__(self):
        super().__init__()
        self.inner = Turning()

    def forward(self, t, y):
        t = t.squeeze(-1) if t.dim() else t
        return torch.view_as_real(self.inner(t, torch.view_as_complex(y)))


def start(dtype=torch.complex128):
    return torch.randn((4, 3), dtype=torch.complex128, generator=torch.Generator().manual_seed(3)).to(dtype)


def loss(y):
    return y.abs().square().sum() + (y[-1].real * y[1].imag).sin().sum()


def gradients(f, y, inputs):
    return torch.autograd.grad(loss(y), [*inputs, *f.parameters()])


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("t", [T, T.flip(0)], ids=["up", "down"])
@pytest.mark.parametrize("method", ["dopri5", "bosh3", "rk4", "explicit_adams", "implicit_adams"])
def test_values_and_counts_are_torchdiffeq_s(method, t, dtype):
    options = {"step_size": 0.0625, "max_order": 4, "max_iters": 9} if "adams" in method else {}
    rtol = 1e-4 if dtype == torch.complex64 else 1e-6

    def solved(library):
        calls, f = [], Turning(dtype)
        g = lambda t, y: calls.append(t.dtype) or f(t, y)  # noqa: E731
        settings = {"rtol": rtol, "atol": rtol / 10, "options": options}
        with torch.no_grad():
            y = library.odeint(g, start(dtype), t, method=method, **settings)
        return y, calls

    (ours, calls), (theirs, others) = solved(adamode), solved(torchdiffeq)
    assert ours.dtype == theirs.dtype == dtype
    assert set(calls) == {dtype.to_real()}
    # dopri5's and bosh3's outputs inside a step are read off another interpolant.
    fixed = "adams" in method or method == "rk4"
    rounding = 1e-5 if dtype == torch.complex64 else 1e-12
    assert relative(ours, theirs) < (rounding if fixed else 200 * rtol)
    assert abs(len(calls) - len(others)) <= (0 if fixed else 0.05 * len(others) + 2)


def test_a_tuple_of_real_and_complex_is_complex_as_torch_cat_has_it():
    pair = (torch.tensor([1.0, 2.0]), torch.tensor([1j, 2.0 + 1j], dtype=torch.complex128))

    def f(t, y):
        return y[1] * 1j, -y[0] + 0.1 * y[1]

    ours, theirs = (lib.odeint(f, pair, T, method="rk4") for lib in (adamode, torchdiffeq))
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype == torch.complex128
        assert relative(a, b) < 1e-14


def test_gradients_of_a_holomorphic_solution_are_the_known_ones():
    w, y0 = (torch.tensor(x, dtype=torch.complex128, requires_grad=True) for x in (0.3 + 0.8j, 0.5 - 1j))
    y = adamode.odeint(lambda t, y: w * y, y0[None], f64(0.0, 1.0), rtol=1e-11, atol=1e-12)
    size = y[-1].abs().square().sum()  # |y0|² exp(2 Re w)
    g_w, g_y0 = torch.autograd.grad(size, (w, y0))
    assert relative(g_w, 2 * size.detach() + 0j) < 1e-9
    assert relative(g_y0, 2 * y0.detach() * math.exp(0.6)) < 1e-9


@pytest.mark.parametrize("stepping", ["shared", "per_sample", torch.tensor([0, 0, 1, 1])], ids=str)
@pytest.mark.parametrize("gradient", EVERY_GRADIENT, ids=str)
def test_every_gradient_is_that_of_the_real_and_imaginary_parts(gradient, stepping):
    y0, t = start().requires_grad_(), T.clone().requires_grad_()
    parts = torch.view_as_real(start()).requires_grad_()
    arguments = {"method": "rk4", "dt": 0.125, "stepping": stepping}
    f, real = Turning(), AsReal()
    sol = adamode.solve(f, y0, t, gradient=gradient, **arguments)
    twin = adamode.solve(real, parts, t, gradient=gradient, **arguments)
    assert torch.equal(torch.view_as_real(sol.y), twin.y)
    found = gradients(f, sol.y, (y0, t))
    wanted = gradients(real, torch.view_as_complex(twin.y), (parts, t))
    for a, b in zip(found, (torch.view_as_complex(wanted[0]), *wanted[1:]), strict=True):
        assert relative(a, b) < 1e-13
    through = gradients(f, adamode.solve(f, y0, t, gradient=Direct(), **arguments).y, (y0, t))
    exact = isinstance(gradient, (Direct, Discrete))
    for a, b in zip(found, through, strict=True):
        assert relative(a, b) < (1e-12 if exact else 1e-2)


@pytest.mark.parametrize("options", [{}, {"adjoint_method": "dopri8"}, {"method": "scipy_solver"}], ids=str)
def test_the_adjoint_of_the_face(options):
    f, y0, t = Turning(), start().requires_grad_(), T.clone().requires_grad_()
    tol = {"rtol": 1e-7, "atol": 1e-8}
    wanted = gradients(f, adamode.odeint(f, y0, t, **tol), (y0, t))
    found = gradients(f, adamode.odeint_adjoint(f, y0, t, **tol, **options), (y0, t))
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == b.dtype
        assert relative(a, b) < 1e-5


def spin(t, y):
    return y * (1j * (1 + y.abs().square()) - 0.2 * torch.cos(t))


@pytest.mark.parametrize("norm", ["rms", "max", "blocks"])
@pytest.mark.parametrize("stepping", ["shared", "per_sample", torch.tensor([0, 0, 1, 1])], ids=str)
def test_steps_know_moduli_only(stepping, norm):
    """A state that is turned takes the same steps."""
    turn = torch.tensor(1j, dtype=torch.complex128) ** 0.37
    arguments = {"stepping": stepping, "norm": norm, "rtol": 1e-6, "atol": 1e-7}
    plain = adamode.solve(spin, start(), T, **arguments)
    turned = adamode.solve(spin, start() * turn, T, **arguments)
    assert torch.equal(torch.as_tensor(plain.stats.nfe), torch.as_tensor(turned.stats.nfe))
    assert relative(torch.as_tensor(turned.stats.dt_last), torch.as_tensor(plain.stats.dt_last)) < 1e-6
    assert relative(turned.y, plain.y * turn) < 1e-10


def test_parts_judged_apart_are_not_turned_alike():
    """What the test above would see: the same problem on real and imaginary parts."""

    def parts(t, y):
        return torch.view_as_real(spin(t, torch.view_as_complex(y)))

    turn = torch.tensor(1j, dtype=torch.complex128) ** 0.37
    plain, turned = (
        adamode.solve(parts, torch.view_as_real(y0), T, norm="max", rtol=1e-6, atol=1e-7)
        for y0 in (start(), start() * turn)
    )
    assert abs(turned.stats.dt_last / plain.stats.dt_last - 1) > 1e-3


def test_a_norm_of_the_caller_s_gets_complex_numbers():
    seen = []

    def norm(y):
        seen.append((y.dtype, y.shape))
        return y.abs().amax()

    sol = adamode.solve(spin, start(), T, norm=norm)
    assert set(seen) == {(torch.complex128, (4, 3))}
    assert torch.equal(sol.y, adamode.solve(spin, start(), T, norm="max").y)


@pytest.mark.parametrize("rtol", [f64(1e-6, 1e-3, 1e-5), [1e-3, 1e-6, 1e-4, 1e-5]], ids=["entries", "rows"])
def test_tolerances_are_of_complex_entries(rtol):
    whole = torch.as_tensor(rtol, dtype=torch.float64)
    whole = whole[:, None].expand(4, 3) if isinstance(rtol, list) else whole.expand(4, 3)
    found, wanted = (adamode.solve(spin, start(), T, rtol=x) for x in (rtol, whole))
    assert torch.equal(found.y, wanted.y)
    pair = adamode.solve(
        lambda t, y: (spin(t, y[0]), -y[1]), (start(), start()[0]), T, rtol=(1e-3, 1e-9), atol=(1e-5, 1e-9)
    )
    assert relative(pair.y[1], start()[0] * torch.exp(-T)[:, None]) < 1e-7


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
def test_outputs_events_and_questions_are_complex(stepping):
    shapes, one = [], stepping == "shared"

    def f(t, y):
        shapes.append(t.shape)
        return spin(t, y)

    event = Event(lambda t, y: y[0, 0].real if one else y[:, 0].real, terminal=False)
    arguments = {"stepping": stepping, "rtol": 1e-9, "atol": 1e-10}
    sol = adamode.solve(f, start(), 3 * T, dense=True, events=event, **arguments)
    assert set(shapes) == {() if one else (4, 1)}
    assert relative(sol(3 * T), sol.y) < 1e-7
    assert relative(sol.derivative(3 * T[1:2])[0], spin(3 * T[1], sol.y[1])) < 1e-4
    first = sol.y_events[0][:, 0, 0] if one else sol.y_events[0][0][:, 0]
    assert len(first)
    assert first.dtype == torch.complex128
    assert float(first.real.abs().max()) < 1e-9


def test_an_event_of_the_face_and_its_gradient():
    y0 = torch.tensor([1.0 + 0j], dtype=torch.complex128, requires_grad=True)
    t0 = f64(0.0)[0]
    when, _ = adamode.odeint_event(lambda t, y: 1j * y, y0, t0, event_fn=lambda t, y: y[0].real)
    assert float(when.detach()) == pytest.approx(math.pi / 2, abs=1e-6)
    (g,) = torch.autograd.grad(when, y0)
    assert relative(g, torch.tensor([0.0 - 1j], dtype=torch.complex128)) < 1e-5  # a turn ahead: sooner by it


def test_what_func_returns():
    y0 = start()
    with pytest.raises(DynamicsError, match=r"torch\.float64 for a state of torch\.complex128"):
        adamode.solve(lambda t, y: y.real, y0, T)
    ours, theirs = (lib.odeint(lambda t, y: y.real, y0, T, method="rk4") for lib in (adamode, torchdiffeq))
    assert relative(ours, theirs) < 1e-14


@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_what_is_refused_says_why():
    with pytest.raises(ArgumentTypeError, match="a VJP by hand is one of real numbers"):
        adamode.solve(Swing(), start().expand(2, 4, 3), T)
    with pytest.raises(ArgumentTypeError, match="a tolerance is real"):
        adamode.solve(spin, start(), T, rtol=start().abs() + 0j)
    with pytest.raises(ArgumentTypeError, match=r"complex32.*y0\.to\(torch\.complex64\)"):
        adamode.solve(spin, start().to(torch.complex32), T)


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
@pytest.mark.parametrize("wish", [{"compile": True}, {"sync_every": 4}], ids=str)
def test_what_cannot_be_hastened_is_solved_all_the_same(wish, stepping):
    arguments = {"stepping": stepping, "gradient": None, "save": "end"}
    with pytest.warns(AdamodeWarning, match="does nothing here: the errors of complex numbers"):
        sol = adamode.solve(Turning(), start(), T, **wish, **arguments)
    assert torch.equal(sol.y, adamode.solve(Turning(), start(), T, **arguments).y)
