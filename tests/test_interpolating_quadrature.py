"""Parameters' gradients are controlled where the adjoint itself is constant: y' = c (1 + sin ωt)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import adamode


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
@pytest.mark.parametrize(
    ("method", "backwards"), [("dopri5", None), ("tsit5", None), ("dop853", None), ("dop853", "bosh3")]
)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_constant_adjoint_does_not_let_the_reverse_steps_grow(
    stepping: str, method: str, backwards: str | None, sign: float
) -> None:
    omega, end = 20.0, 3.0
    c = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    y0 = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    sol = adamode.solve(
        lambda t, y: c * (1 + torch.sin(omega * t)) + 0 * y,
        y0,
        torch.tensor([0.0, sign * end], dtype=torch.float64),
        method=method,
        rtol=1e-6,
        atol=1e-6,
        stepping=stepping,
        gradient=adamode.Interpolating(method=backwards),
    )
    (c_bar,) = torch.autograd.grad(sol.y[-1].sum(), c)
    exact = 2 * (sign * end + (1 - math.cos(omega * end)) / omega)
    # Steps of 1e-6 add up to the 40 half periods' worth of them at most; without control it was .5.
    assert c_bar.item() == pytest.approx(exact, rel=4e-5)


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
@pytest.mark.parametrize("gradient", [adamode.Interpolating(), adamode.Backsolve()], ids=str)
@pytest.mark.parametrize("shape", [(2,), (2, 3)])
def test_a_jump_inside_is_passed_backwards(stepping: str, gradient: object, shape: tuple[int, ...]) -> None:
    """y' = c before t = .5 and 3c after it: y(1) = y0 + 2c."""
    c = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    y0 = torch.ones(*shape, dtype=torch.float64, requires_grad=True)
    sol = adamode.solve(
        lambda t, y: c * (1 + 2 * (t >= 0.5).double()) + 0 * y,
        y0,
        torch.tensor([0.0, 0.2, 1.0], dtype=torch.float64),
        stepping=stepping,
        gradient=gradient,
        jump_at=[0.5],
    )
    y0_bar, c_bar = torch.autograd.grad(sol.y[-1].sum(), (y0, c))
    assert torch.allclose(y0_bar, torch.ones_like(y0))
    assert c_bar.item() == pytest.approx(2.0 * y0.numel(), rel=1e-9)


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
def test_the_modulus_of_a_norm_counts(stepping: str) -> None:
    """A norm that is negative would accept every step."""
    axis = None if stepping == "shared" else 1

    def negative(e: torch.Tensor) -> torch.Tensor:
        return -e.square().mean(axis).sqrt()

    y0, t = torch.ones(3, 2, dtype=torch.float64), torch.tensor([0.0, 2.0], dtype=torch.float64)
    own, usual = (
        adamode.solve(lambda t, y: -y * y, y0, t, stepping=stepping, norm=norm, gradient=None)
        for norm in (negative, "rms")
    )
    assert torch.allclose(own.y, usual.y, rtol=1e-12)  # its mean is summed in another order


@pytest.mark.parametrize("sync_every", [1, 4])
def test_a_step_size_that_is_not_a_number_ends_a_solve_at_once(sync_every: int) -> None:
    from adamode.solvers.step.controller import PID

    class Lost(PID):
        """A controller whose arithmetic has failed."""

        def factor_accepted(self, e0: Any, *arguments: object) -> Any:
            return e0 * math.nan

    y0, t = torch.ones(3, dtype=torch.float64), torch.tensor([0.0, 2.0], dtype=torch.float64)
    options = {"controller": Lost(), "max_steps": 1000, "gradient": None, "sync_every": sync_every}
    with pytest.raises(adamode.SolverError) as failed:
        adamode.solve(lambda t, y: -y, y0, t, **options)
    assert failed.value.stats.n_steps == 1
    sol = adamode.solve(lambda t, y: -y, y0, t, stepping="per_sample", **options)
    assert (sol.status == int(adamode.Status.STEP_UNDERFLOW)).all()
    assert sol.stats.n_steps.tolist() == [1, 1, 1]


@pytest.mark.parametrize("returned", [(3, 1), (1, 3)])
@pytest.mark.parametrize("face", [adamode.odeint, adamode.odeint_adjoint, adamode.solve])
def test_a_result_of_another_shape_with_as_many_entries_is_refused(
    face: object, returned: tuple[int, ...]
) -> None:
    options = {"adjoint_params": ()} if face is adamode.odeint_adjoint else {}
    with pytest.raises(adamode.AdamodeError, match=r"shape \(\d, \d\) for a state of shape \(3,\)"):
        face(lambda t, y: -y.view(returned), torch.ones(3), torch.tensor([0.0, 1.0]), **options)


def test_members_of_a_tuple_may_have_axes_of_length_one_as_in_torchdiffeq() -> None:
    y0 = (torch.ones(3, 2), torch.zeros(3, 1))
    func = lambda t, y: (-y[0], y[0].sum(1))  # noqa: E731
    x, trace = adamode.odeint(func, y0, torch.tensor([0.0, 1.0]))
    assert trace.shape == (2, 3, 1)
    assert torch.allclose(trace[-1], 2 * (1 - x[-1, :, :1]), atol=1e-6)
