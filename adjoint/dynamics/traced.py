"""How a compiled program evaluates what it is given: a `Dynamics`, or a module of the user's.

A program gets its owner as an argument and must not hold it, so these are stateless.
"""

from __future__ import annotations

import abc
from typing import Any

import torch
from torch import Tensor, nn

from .protocol import Dynamics

Gradients = list["Tensor | None"]


class Calls(abc.ABC):
    """f, its linearisation and its VJP for an owner, to be traced."""

    @abc.abstractmethod
    def evaluate(self, owner: Any, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """(dz, what a step may keep for `vjp`), for the forward solve."""

    def linearise(self, owner: Any, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """(dz, what `vjp` wants) of a stage taken again in the same program as its VJP."""
        return self.evaluate(owner, t, z)

    @abc.abstractmethod
    def theta(self, owner: Any) -> list[Tensor]:
        """What `gradients` gives gradients of."""

    @abc.abstractmethod
    def vjp(self, owner: Any, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """(z̄, deltas)."""

    @abc.abstractmethod
    def gradients(self, owner: Any, saved: list[Any], deltas: list[Any]) -> Gradients:
        """One for each of θ, summed over the stages."""


class DynamicsCalls(Calls):
    """Of a `Dynamics`: its own methods."""

    def evaluate(self, owner: Dynamics, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """Its forward."""
        return owner.forward(t, z)

    def theta(self, owner: Dynamics) -> list[Tensor]:
        """Its own."""
        return list(owner.theta())

    def vjp(self, owner: Dynamics, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """Its own `vjp`."""
        return owner.vjp(saved, cotangent)

    def gradients(self, owner: Dynamics, saved: list[Any], deltas: list[Any]) -> Gradients:
        """Its parameter_gradients, all stages at once."""
        return list(owner.parameter_gradients(saved, deltas, None))


def module_vjp(module: nn.Module, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
    """(module(t, z), its pullback to z and the parameters that require gradients), to be traced."""
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}

    def f(z: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(trained, values, strict=True)), (t, z))

    dz, pullback, *_ = torch.func.vjp(f, z, *trained.values())
    return dz, pullback


class ModuleCalls(Calls):
    """Of an `nn.Module` f(t, y): its call, and the VJP that torch.func makes of it."""

    def evaluate(self, owner: nn.Module, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """(f(t, z), nothing): the way back takes the stage again."""
        return owner(t, z), None

    def linearise(self, owner: nn.Module, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """(f(t, z), its pullback to z and the parameters that require gradients)."""
        return module_vjp(owner, t, z)

    def theta(self, owner: nn.Module) -> list[Tensor]:
        """The parameters that require gradients."""
        return [p for p in owner.parameters() if p.requires_grad]

    def vjp(self, owner: nn.Module, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """(z̄, the parameters' gradients of this stage)."""
        z_bar, *gradients = saved(cotangent)
        return z_bar, gradients

    def gradients(self, owner: nn.Module, saved: list[Any], deltas: list[Any]) -> Gradients:
        """The sum over the stages."""
        return [sum(parts[1:], parts[0]) for parts in zip(*deltas, strict=True)]
