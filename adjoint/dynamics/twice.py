"""A func with the trace of its own derivative beside it, by autograd, whose second derivatives are not kept.

Where all evaluations of a solve are kept, so are their graphs, and the graph of a trace is as large as that
of the function itself. It can be made of that one whenever it is wanted, by the VJP taken anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...solvers.step.field import Autocast, Layout
from .by_autograd import AutogradDynamics, Captured, Graph
from .protocol import Traced

# Numbers of a state from which on: the VJP once more takes 1.17 to 1.23 times the time of a solve and its way
# back (B × d = 512 × 2 to 16 × 784, two hidden layers), and a small state's graphs are small.
LARGE = 2**12


class TwiceDynamics(AutogradDynamics):
    """As `AutogradDynamics` of a func on (x, ℓ) whose second member is Σ_k w_k ⟨e_k, (∂f/∂x)ᵀ e_k⟩ a row.

    lean: the packed function without a graph of the second member.
    traced: what says e_k and w_k.
    """

    def __init__(
        self,
        f: Callable[[Tensor, Tensor], Tensor],
        params: Sequence[Tensor],
        autocast: Autocast,
        missed: Callable[[Captured], None] | None,
        *,
        lean: Callable[[Tensor, Tensor], Tensor],
        layout: Layout,
        traced: Traced,
    ):
        super().__init__(f, params, autocast, missed)
        self.lean, self.layout, self.traced, self.many = lean, layout, traced, False

    def keep_many(self) -> None:
        """The graph of the second member is made anew by each VJP."""
        self.many = not self.late

    def _leaves_out(self, z: Tensor) -> bool:
        return self.many and z.numel() >= LARGE

    def evaluated(
        self, f: Callable[[Tensor, Tensor], Tensor], t: Tensor, z: Tensor, inputs: tuple[Tensor, ...] = ()
    ) -> tuple[Tensor, Graph]:
        """As `AutogradDynamics.evaluated`."""
        return super().evaluated(self.lean if self._leaves_out(z) else f, t, z, inputs)

    def vjp(self, saved: Graph, cotangent: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...] | Tensor]:
        """(z̄, gradients of the parameters for this cotangent; where they come late, the cotangent)."""
        if saved.dz is None or not self._leaves_out(saved.z):
            found: tuple[Tensor, tuple[Tensor | None, ...] | Tensor] = super().vjp(saved, cotangent)
            return found
        g = self.layout.leaves(cotangent)[1]
        outputs: list[Any] = [saved.dz]
        cotangents = [cotangent]
        with torch.enable_grad(), self.autocast.inside():
            for e, weight in self.traced.directions(self.layout.leaves(saved.z)[0]):
                along = self._packed(e, g)
                (bar,) = torch.autograd.grad(
                    *(saved.dz, saved.z, along), create_graph=True, retain_graph=True, allow_unused=True
                )
                if bar is None or not bar.requires_grad:  # the trace is 0, or constant
                    continue
                outputs.append(bar)
                cotangents.append(self._packed(e * (g * weight).view(-1, *[1] * (e.dim() - 1)), g))
        z_bar, *rest = torch.autograd.grad(
            outputs, (saved.z, *self.params), cotangents, retain_graph=True, allow_unused=True
        )
        return torch.zeros_like(saved.z) if z_bar is None else z_bar, tuple(rest)

    def _packed(self, x: Tensor, like: Tensor) -> Tensor:
        """(x, 0) as one tensor."""
        return self.layout.joined([x, torch.zeros_like(like)])
