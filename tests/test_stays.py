"""Per sample a start may be the end: every output there is the state at the start, with all its gradients."""

from __future__ import annotations

import pytest
import torch
from problems import EVERY_GRADIENT

import adamode

K = 0.7


def solved(
    gradient: object, t: torch.Tensor, shape: tuple[int, ...]
) -> tuple[torch.Tensor, adamode.Solution]:
    y0 = torch.ones(*shape, dtype=torch.float64, requires_grad=True)
    sol = adamode.solve(
        lambda t, y: -K * y,
        y0,
        t,
        stepping="per_sample",
        gradient=gradient,
        dense=True,
        rtol=1e-8,
        atol=1e-10,
    )
    return y0, sol


@pytest.mark.parametrize("shape", [(2,), (2, 3)])
@pytest.mark.parametrize("gradient", EVERY_GRADIENT, ids=str)
@pytest.mark.parametrize("all_stay", [True, False])
def test_all_outputs_of_a_sample_that_stays_count(
    gradient: object, shape: tuple[int, ...], all_stay: bool
) -> None:
    ends = [2.0, 2.0, 2.0] if all_stay else [2.0, 1.5, 1.0]
    t = torch.tensor([[1.0, 1.0, 1.0], ends], dtype=torch.float64)
    y0, sol = solved(gradient, t, shape)
    (y0_bar,) = torch.autograd.grad(sol.y.sum(), y0)
    exact = torch.exp(-K * (t - t[:, :1])).sum(1)
    assert torch.allclose(y0_bar.reshape(2, -1)[:, 0], exact, rtol=1e-7)


@pytest.mark.parametrize("shape", [(2,), (2, 3)])
@pytest.mark.parametrize("gradient", EVERY_GRADIENT, ids=str)
def test_a_question_at_a_sample_that_stays_has_value_slope_and_gradient(
    gradient: object, shape: tuple[int, ...]
) -> None:
    t = torch.tensor([[1.0, 1.0], [2.0, 2.0]], dtype=torch.float64)
    y0, sol = solved(gradient, t, shape)
    q = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    value = sol(q, per_sample=True)
    assert torch.equal(value, y0)
    assert torch.allclose(sol.derivative(q, per_sample=True), -K * y0, rtol=1e-15)
    q_bar, y0_bar = torch.autograd.grad(value.sum(), (q, y0))
    assert torch.allclose(q_bar, -K * y0.detach().reshape(2, -1).sum(1), rtol=1e-15)
    assert torch.equal(y0_bar, torch.ones_like(y0))


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
def test_without_a_gradient_answers_are_detached_even_from_the_times_asked_for(stepping: str) -> None:
    y0 = torch.ones(2, dtype=torch.float64, requires_grad=True)
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    sol = adamode.solve(lambda t, y: -y, y0, t, stepping=stepping, gradient=None, dense=True)
    q = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64, requires_grad=True)
    assert not sol(q).requires_grad
    assert not sol.derivative(q).requires_grad


@pytest.mark.parametrize("gradient", ["keeps states", "keeps some", "interpolates"])
@pytest.mark.parametrize("method", ["dopri5", "radau5", "auto"])
def test_a_sample_that_stays_at_a_jump_is_no_func_with_memory(gradient, method):
    """Its one evaluation lies behind the jump; one before it would pass for randomness."""
    kinds = {
        "keeps states": adamode.Discrete(keep="state"),
        "keeps some": adamode.Discrete(checkpoints=2),
        "interpolates": adamode.Interpolating(),
    }
    rate = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    y0 = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    t = torch.tensor([[0.0, 0.4], [0.2, 0.2], [0.1, 0.3]], dtype=torch.float64)

    def f(t, y):
        return -torch.where(t > 0.2, 5 * rate, rate) * y

    options = {"stepping": "per_sample", "method": method, "rtol": 1e-8, "atol": 1e-10, "params": [rate]}
    y = adamode.solve(f, y0, t, jump_at=[0.2], gradient=kinds[gradient], **options).y[-1]
    exact = (
        torch.exp(-rate * torch.tensor([[0.2 + 5 * 0.2], [0.0], [0.1 + 5 * 0.1]], dtype=torch.float64)) * y0
    )
    found, want = (torch.autograd.grad(x.square().sum(), (y0, rate)) for x in (y, exact))
    for a, b in zip(found, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
