"""A forward pass whose evaluations nobody will differentiate builds no graph for them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import adamode

RECORDED_NOWHERE = (
    adamode.Backsolve(),
    adamode.Interpolating(),
    adamode.Discrete(keep="state"),
    adamode.Discrete(checkpoints=4),
)


class Field(nn.Module):
    """Notes of each call whether autograd records it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2, dtype=torch.float64)
        self.recorded: list[bool] = []

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        dy = torch.tanh(self.linear(y))
        self.recorded.append(dy.requires_grad)
        return dy


def solved(field: Field, gradient: object, stepping: str) -> torch.Tensor:
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    y0 = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    return adamode.solve(field, y0, t, gradient=gradient, stepping=stepping).y


@pytest.mark.parametrize("gradient", RECORDED_NOWHERE, ids=str)
def test_only_the_first_evaluation_is_recorded_to_see_what_func_captures(gradient: object) -> None:
    field = Field()
    solved(field, gradient, "shared")
    assert len(field.recorded) > 10
    assert sum(field.recorded) == 1


@pytest.mark.parametrize("gradient", RECORDED_NOWHERE[:2], ids=str)
def test_only_the_first_evaluation_is_recorded_per_sample(gradient: object) -> None:
    field = Field()
    solved(field, gradient, "per_sample")
    assert sum(field.recorded) == 1


def test_the_control_discrete_with_its_stages_records_them_all() -> None:
    field = Field()
    solved(field, adamode.Discrete(), "shared")
    assert all(field.recorded)


def test_odeint_adjoint_records_one_evaluation_forwards() -> None:
    field, t = Field(), torch.tensor([0.0, 1.0], dtype=torch.float64)
    y = adamode.odeint_adjoint(field, torch.ones(3, 2, dtype=torch.float64), t)
    assert sum(field.recorded) == 1
    y[-1].sum().backward()
    assert field.linear.weight.grad is not None


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
def test_a_func_that_differentiates_inside_is_solved_as_ever(stepping: str) -> None:
    """y' = −∇V, V = k Σ y⁴/4; func does not turn gradients on by itself."""
    found = []
    for gradient in (*RECORDED_NOWHERE, adamode.Discrete()):
        k = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

        def flow(t: torch.Tensor, y: torch.Tensor, k: torch.Tensor = k) -> torch.Tensor:
            (slope,) = torch.autograd.grad((k * y**4 / 4).sum(), y, create_graph=True)
            return -slope

        y0 = torch.tensor([1.0, 0.5], dtype=torch.float64, requires_grad=True)
        t = torch.tensor([0.0, 1.0], dtype=torch.float64)
        sol = adamode.solve(flow, y0, t, gradient=gradient, stepping=stepping, rtol=1e-9, atol=1e-11)
        found.append(torch.autograd.grad(sol.y[-1].sum(), (y0, k)))
    for y0_bar, k_bar in found:
        exact = (1 + torch.tensor([1.0, 0.25], dtype=torch.float64)) ** -1.5
        assert torch.allclose(y0_bar, exact, rtol=1e-7)
        assert torch.allclose(k_bar, found[-1][1], rtol=1e-7)


def test_funcs_own_error_is_not_tried_again() -> None:
    calls = []

    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.k = nn.Parameter(torch.ones(()))

        def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            calls.append(1)
            if len(calls) == 5:
                raise RuntimeError("the fifth call")
            return -self.k * y

    with pytest.raises(RuntimeError, match="the fifth call"):
        adamode.odeint_adjoint(Fails(), torch.ones(2), torch.tensor([0.0, 1.0]))
    assert len(calls) == 5
