"""Implicit steps without matrices: GMRES against LU, its gradients, and what is said where it cannot."""

import math

import pytest
import torch
from problems import Opaque

import adamode
from adamode.adjoint.discrete import implicit
from adamode.models.fields.dense import MLP
from adamode.solvers.errors import NewtonDiverged
from adamode.solvers.status import Status
from adamode.solvers.step.implicit import krylov

D = torch.float64
METHODS = ("kvaerno3", "kvaerno5")
STEPPINGS = ("shared", "per_sample")


def times(*t):
    return torch.tensor(t, dtype=D)


def brusselator(rates=(3.0,), n=12):
    """u' = 1 + u²v − 4u + α u_xx, v' = 3u − u²v + α v_xx, α = 0.02: [B, 2n].

    rates: a number a sample in place of 3.
    """
    alpha, eye = 0.02 * (n + 1) ** 2, torch.eye(n, dtype=D)
    heat = alpha * (
        torch.diag(torch.ones(n - 1, dtype=D), 1) + torch.diag(torch.ones(n - 1, dtype=D), -1) - 2 * eye
    )
    linear = torch.stack([torch.cat((torch.cat((heat - (rate + 1) * eye, 0 * eye), 1),
                                     torch.cat((rate * eye, heat), 1))) for rate in rates])  # fmt: skip
    source = torch.zeros(2, n, dtype=D)
    source[0] += 1
    source[:, 0] += alpha * times(1, 3)
    source[:, -1] += alpha * times(1, 3)
    source = source.flatten()

    def f(t, y):
        u, v = y.chunk(2, -1)
        meet = u * u * v
        own = linear if y.dim() > 1 else linear[0]
        moved = (own.to(y.dtype) @ y[..., None])[..., 0]
        return source.to(y.dtype) + moved + torch.cat((meet, -meet), -1)

    x = torch.arange(1, n + 1, dtype=D) / (n + 1)
    y0 = torch.cat((1 + torch.sin(2 * math.pi * x), torch.full((n,), 3.0, dtype=D)))
    return f, y0.repeat(len(rates), 1)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("restart", [4, 30])
def test_every_row_of_gmres_is_solved_to_its_own_target(restart, transposed, monkeypatch):
    monkeypatch.setattr(krylov, "RESTART", restart)
    generator = torch.Generator().manual_seed(0)
    a = torch.eye(9, dtype=D) + 0.2 * torch.randn(5, 9, 9, dtype=D, generator=generator)
    a = a.mT if transposed else a
    b = torch.randn(5, 9, dtype=D, generator=generator)
    b[3] = 0.0
    target = torch.tensor([1e-1, 1e-3, 1e-6, 1e-6, 1e-11], dtype=D)
    found = krylov.gmres(lambda v: torch.einsum("bij,bj->bi", a, v), b, target)
    left = (torch.einsum("bij,bj->bi", a, found.x) - b).norm(dim=1)
    assert (left <= target).all()
    torch.testing.assert_close(found.left, left, rtol=1e-3, atol=1e-14)
    assert (found.x[3] == 0).all()
    assert found.products[3] == 0 < found.products[0] < found.products[1] < found.products[2]


def test_a_krylov_space_that_ends_early_has_the_solution():
    """An eigenvector is solved by one product, and the identity."""
    a = torch.diag(times(1, 2, 3, 4))
    b = torch.stack((times(0, 3, 0, 0), times(1, 1, 0, 0)))
    found = krylov.gmres(lambda v: v @ a, b, torch.full((2,), 1e-13, dtype=D))
    torch.testing.assert_close(found.x, b / torch.diagonal(a))
    assert found.products.tolist() == [1, 2]


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_gmres_takes_the_steps_of_lu(method, stepping, dtype):
    f, y0 = brusselator((3.0, 2.0))
    rtol = 1e-3 if dtype == torch.float32 else 1e-5
    options = {"method": method, "rtol": rtol, "atol": rtol, "stepping": stepping, "gradient": None}
    for t in (torch.tensor([0.0, 0.3, 1.0], dtype=dtype), torch.tensor([0.0, -0.01], dtype=dtype)):
        lu = adamode.solve(f, y0.to(dtype), t, **options)
        sol = adamode.solve(f, y0.to(dtype), t, linear_solver="gmres", **options)
        torch.testing.assert_close(sol.y, lu.y, rtol=30 * rtol, atol=30 * rtol)
        steps = torch.as_tensor(lu.stats.n_accepted)
        assert (torch.as_tensor(sol.stats.n_accepted) <= steps + 3).all()
        assert (torch.as_tensor(sol.stats.n_jacobians) == 0).all()


def test_every_product_is_counted_as_a_call():
    f, y0 = brusselator()
    calls = []

    def counted(t, y):
        calls.append(0)
        return f(t, y)

    sol = adamode.solve(counted, y0[0], times(0, 1), method="kvaerno3", linear_solver="gmres", gradient=None)
    assert abs(sol.stats.nfe - len(calls)) <= 1


def test_a_sample_goes_its_way_as_if_it_were_alone():
    rates = (3.0, 1.0)
    f, y0 = brusselator(rates)
    options = {"method": "kvaerno3", "linear_solver": "gmres", "gradient": None, "stepping": "per_sample"}
    sol = adamode.solve(f, y0, times(0, 1), **options)
    for i, rate in enumerate(rates):
        alone = adamode.solve(brusselator((rate,))[0], y0[:1], times(0, 1), **options)
        torch.testing.assert_close(sol.y[:, i], alone.y[:, 0], rtol=1e-9, atol=1e-12)
        for name in ("nfe", "n_accepted", "n_rejected", "n_newton"):
            assert getattr(sol.stats, name)[i] == getattr(alone.stats, name)[0], name


def test_samples_that_depend_on_each_other_have_one_space():
    f = lambda t, y: 40 * (y.roll(1, 0) + y.roll(-1, 0) - 2 * y) - y**3  # noqa: E731
    y0 = torch.linspace(0, 1, 8, dtype=D).reshape(4, 2)
    options = {"rtol": 1e-7, "atol": 1e-9, "gradient": None}
    sol = adamode.solve(f, y0, times(0, 0.2), method="kvaerno5", linear_solver="gmres", **options)
    torch.testing.assert_close(sol.y, adamode.solve(f, y0, times(0, 0.2), **options).y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(), (2, 2, 2)])
def test_states_of_any_shape_and_a_jump(shape):
    f = lambda t, y: -50 * (y - torch.where(t < 0.5, 1.0, 2.0) * torch.cos(y))  # noqa: E731
    options = {"jump_at": [0.5], "gradient": None, "rtol": 1e-6, "atol": 1e-8}
    y0 = torch.full(shape, 1.5, dtype=D)
    sol = adamode.solve(f, y0, times(0, 1), method="kvaerno3", linear_solver="gmres", **options)
    torch.testing.assert_close(sol.y, adamode.solve(f, y0, times(0, 1), **options).y, rtol=1e-4, atol=1e-5)


def gradients(stepping="shared", gradient=None, **options):
    f, y0 = brusselator((3.0, 2.0), n=4)
    k = torch.tensor(1.3, dtype=D, requires_grad=True)
    y0, t = y0.requires_grad_(), torch.tensor([0.0, 0.13, 0.4], dtype=D, requires_grad=True)
    given = {"method": "kvaerno3", "dt": 0.2, "rtol": 1e-11, "atol": 1e-13, "params": [k], **options}
    sol = adamode.solve(lambda t, y: k * f(t, y), y0, t, stepping=stepping,
                        gradient=gradient or adamode.Discrete(), **given)  # fmt: skip
    weights = torch.sin(torch.arange(sol.y.numel(), dtype=D)).reshape(sol.y.shape)
    return torch.autograd.grad((sol.y * weights).sum(), (k, y0, t))


@pytest.mark.parametrize(("method", "stepping"), [("kvaerno3", "per_sample"), ("kvaerno5", "shared")])
def test_gradients_are_those_of_factored_systems(method, stepping):
    want = gradients(stepping, method=method)
    for gradient in (adamode.Discrete(), adamode.Discrete(checkpoints=2)):
        found = gradients(stepping, gradient, method=method, linear_solver="gmres")
        for x, y in zip(found[:2], want[:2], strict=True):
            torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9 * float(y.abs().max()))
        torch.testing.assert_close(found[2], want[2], rtol=1e-7, atol=1e-7)


def test_a_planted_fault_in_the_transposed_product_is_seen(monkeypatch):
    want = gradients(linear_solver="gmres")
    through = implicit.solve_transposed
    monkeypatch.setattr(implicit, "solve_transposed", lambda f, s, length, b: through(f, s, 0.9 * length, b))
    assert float((gradients(linear_solver="gmres")[0] / want[0] - 1).abs()) > 1e-6


@pytest.mark.parametrize("kind", ["node", "adamnode"])
def test_a_dynamics_is_differentiated_in_forward_mode(kind):
    torch.manual_seed(0)
    field = MLP(2, (5,)).double()
    block = adamode.NODE(field) if kind == "node" else adamode.AdamNODE(field).double()
    z0 = torch.rand(len(block.dynamics.blocks), 3, 2, dtype=D)
    options = {"method": "kvaerno5", "rtol": 1e-9, "atol": 1e-11}
    found = []
    for solver in ("lu", "gmres"):
        block.zero_grad()
        adamode.solve(block.dynamics, z0, times(0, 1), linear_solver=solver, **options).y[-1].sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in block.parameters()]))
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_a_func_without_forward_mode_is_refused(stepping):
    options = {"method": "kvaerno5", "linear_solver": "gmres", "gradient": None, "stepping": stepping}
    with pytest.raises(adamode.DynamicsError, match=r"forward mode.*linear_solver='lu'"):
        adamode.solve(lambda t, y: -Opaque.apply(y), times(1, 2)[:, None], times(0, 1), **options)
    calls = []

    def fails(t, y):
        calls.append(0)
        if len(calls) > 3:
            raise RuntimeError("of its own")
        return -y

    with pytest.raises(RuntimeError, match="of its own"):
        adamode.solve(fails, times(1, 2)[:, None], times(0, 1), **options)


@pytest.mark.parametrize("fixed", [False, True])
def test_an_iteration_that_stalls_ends_the_solve(fixed, monkeypatch):
    """One vector of a shift's Krylov space is orthogonal to the solution: nothing is gained."""
    monkeypatch.setattr(krylov, "RESTART", 1)
    f = lambda t, y: 1e12 * torch.stack((y[..., 1], -y[..., 0]), -1)  # noqa: E731
    options = {"method": "kvaerno3", "linear_solver": "gmres", "gradient": None, "rtol": 1e-3,
               "dt" if fixed else "dt0": 0.1, "max_steps": 30}  # fmt: skip
    if fixed:
        with pytest.raises(NewtonDiverged, match="NEWTON at t="):
            adamode.solve(f, times(1, 0), times(0, 1), **options)
    sol = adamode.solve(f, times(1, 0)[None], times(0, 1), stepping="per_sample", **options)
    assert sol.status.tolist() == [int(Status.NEWTON if fixed else Status.MAX_STEPS)]
    assert int(sol.stats.n_newton) > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "dopri5"}, "explicit"),
        ({"method": "radau5"}, "coupled"),
        ({"jac": lambda t, y: -torch.eye(2)}, "leave jac out"),
        ({"gradient": adamode.Direct()}, "Direct"),
        ({"gradient": adamode.Interpolating()}, "reverse solve"),
        ({"linear_solver": "qr"}, "gmres"),
    ],
)
def test_what_has_no_way_without_matrices_is_refused(options, said):
    given = {"method": "kvaerno5", "linear_solver": "gmres", **options}
    with pytest.raises(adamode.ArgumentError, match=said):
        adamode.solve(lambda t, y: -y, times(1, 2), times(0, 1), **given)


def test_interpolating_by_an_explicit_method_goes_with_it():
    f, y0 = brusselator(n=4)
    grads = []
    for solver, gradient in (("lu", None), ("gmres", adamode.Interpolating(method="dopri5"))):
        z = y0.clone().requires_grad_()
        y = adamode.solve(f, z, times(0, 0.2), method="kvaerno5", rtol=1e-8, atol=1e-10, params=[],
                          linear_solver=solver, gradient=gradient or adamode.Discrete()).y  # fmt: skip
        grads.append(torch.autograd.grad(y[-1].square().sum(), z)[0])
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_state_of_100_000_numbers_is_solved():
    """The heat equation on a square of 320 × 320 points: its lowest mode decays by a known rate."""
    n = 320

    def heat(t, y):
        row, column = torch.zeros_like(y[:1]), torch.zeros_like(y[:, :1])
        upright = torch.cat((row, y[:-1])) + torch.cat((y[1:], row))
        across = torch.cat((column, y[:, :-1]), 1) + torch.cat((y[:, 1:], column), 1)
        return (n + 1) ** 2 * (upright + across - 4 * y)

    x = torch.arange(1, n + 1, dtype=D) / (n + 1)
    mode, other = torch.sin(math.pi * x), torch.sin(40 * math.pi * x)
    rates = [2 * (n + 1) ** 2 * (2 - 2 * math.cos(k * math.pi / (n + 1))) for k in (1, 40)]
    y0 = (torch.outer(mode, mode) + torch.outer(other, other)).requires_grad_()
    sol = adamode.solve(heat, y0, times(0, 0.001), method="kvaerno3", linear_solver="gmres", rtol=1e-3,
                        atol=1e-4, params=[])  # fmt: skip
    want = torch.outer(mode, mode) * math.exp(-rates[0] * 0.001)
    torch.testing.assert_close(sol.y[-1].detach(), want, rtol=0, atol=3e-4)
    (found,) = torch.autograd.grad((sol.y[-1] * torch.outer(mode, mode)).sum(), y0)
    torch.testing.assert_close(found, want, rtol=0, atol=3e-4)
