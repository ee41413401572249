"""What is made once a solve, or for several steps: never stale, keeps nothing alive, changes no number."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from problems import f64
from torch import Tensor, nn

import adamode
from adamode.adjoint.dynamics import adapt, by_autograd
from adamode.models.dynamics import AdamODE, GeneralisedHeavyBallODE, HeavyBallODE, NeuralODE
from adamode.models.fields import MLP, Linear, Total

T = f64(0.0, 0.7, 0.8, 0.9, 1.0)
MAKE = {
    "adam": lambda field: AdamODE(field, alpha=0.3, beta=0.4, eps=1e-2),
    "heavy ball": lambda field: HeavyBallODE(field, gamma=0.3),
    "generalised": lambda field: GeneralisedHeavyBallODE(field, gamma=0.3, xi=0.5),
    "node": NeuralODE,
}


def dynamics(name: str) -> nn.Module:
    torch.manual_seed(0)
    return MAKE[name](Total(MLP(2, (5,)), Linear(2))).double()


def start(func: nn.Module) -> Tensor:
    torch.manual_seed(1)
    z0 = torch.rand(len(func.blocks), 3, 2, dtype=torch.float64) + 0.5
    return z0.requires_grad_()


def gradients(func: nn.Module, **options: object) -> list[Tensor]:
    z0 = start(func)
    sol = adamode.solve(func, z0, T, rtol=1e-6, atol=1e-8, **options)
    return list(torch.autograd.grad(sol.y.square().sum(), [z0, *func.parameters()]))


def apart(found: list[Tensor], expected: list[Tensor]) -> float:
    pairs = zip(found, expected, strict=True)
    return max(float((x - y).abs().max() / y.abs().max().clamp_min(1e-300)) for x, y in pairs)


@pytest.mark.parametrize("name", MAKE)
def test_weights_that_change_between_solves_are_the_new_ones(name: str) -> None:
    func = dynamics(name)
    before = gradients(func)
    with torch.no_grad():
        for p in func.parameters():
            p.mul_(1.25)
    fresh = dynamics(name)
    fresh.load_state_dict(func.state_dict())
    found = gradients(func)
    assert all(map(torch.equal, found, gradients(fresh)))
    assert apart(found, before) > 1e-2  # the negative control
    assert apart(found, gradients(func, gradient=adamode.Direct())) < 1e-10  # rounding


@pytest.mark.parametrize("name", MAKE)
def test_weights_that_change_before_the_way_back_are_told(name: str) -> None:
    func = dynamics(name)
    sol = adamode.solve(func, start(func), T)
    with torch.no_grad():
        next(func.field.parameters()).add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        sol.y.sum().backward()


def test_a_solve_that_is_gone_keeps_no_weights() -> None:
    func = dynamics("adam")
    weight = weakref.ref(func.field.parts[0].layers[0].weight)
    gradients(func)
    sol = adamode.solve(func, start(func), T)
    del func, sol
    gc.collect()
    assert weight() is None


def test_a_class_of_the_users_keeps_what_it_writes_on_itself() -> None:
    class Counting(NeuralODE):
        calls = 0

        def forward(self, t: Tensor, z: Tensor) -> tuple[Tensor, object]:
            self.calls += 1
            return super().forward(t, z)

    func = Counting(MLP(2, (5,))).double()
    sol = adamode.solve(func, start(func), T)
    assert func.calls == sol.stats.nfe > 0


def test_stages_summed_at_once_or_step_by_step_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    summed = AdamODE.parameter_gradients

    def counted(self: AdamODE, saved: list, deltas: list, weights: Tensor | None) -> tuple:
        calls.append(len(saved))
        return summed(self, saved, deltas, weights)

    monkeypatch.setattr(AdamODE, "parameter_gradients", counted)
    found, together = gradients(dynamics("adam")), calls[:]
    calls.clear()
    monkeypatch.setattr(adapt, "TOGETHER", 1)
    expected = gradients(dynamics("adam"))
    assert sum(calls) == sum(together)
    assert len(calls) > len(together) == 1
    assert apart(found, expected) < 1e-13


def test_a_vjp_is_the_same_without_the_engine_called_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> list[Tensor]:
        torch.manual_seed(0)
        func = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2)).double()
        y0 = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
        sol = adamode.solve(lambda t, y: func(y), y0, T, params=func.parameters())
        return list(torch.autograd.grad(sol.y.sum(), [y0, *func.parameters()]))

    assert by_autograd._engine() is not None
    ours = found()
    monkeypatch.setattr(by_autograd, "_engine", lambda: None)
    assert all(map(torch.equal, ours, found()))


def test_an_engine_of_another_torch_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(*arguments: object) -> None:
        raise TypeError("unexpected keyword argument")

    monkeypatch.setattr(torch.autograd.graph, "_engine_run_backward", other)
    assert by_autograd._engine.__wrapped__() is None


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_outputs_in_one_step_are_those_asked_for_one_by_one(sign: float) -> None:
    func, times = dynamics("node"), sign * f64(0.0, 0.31, 0.35, 0.4, 0.5)
    together = adamode.solve(func, start(func), times, dt=0.25).y.detach()
    for i in range(1, 4):
        alone = adamode.solve(func, start(func), times[[0, i, 4]], dt=0.25).y.detach()
        assert apart([together[i]], [alone[1]]) < 1e-14  # rounding: sums in another order
