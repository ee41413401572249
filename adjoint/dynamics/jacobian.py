"""∂f/∂y for implicit methods: the caller's jac, a dynamics' own, or made of f."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...solvers.step.clocks import Clocks, Each
from ...solvers.step.field import Layout
from ...solvers.step.implicit.jacobian import Given, Jacobian
from ...solvers.step.implicit.krylov import Products
from .protocol import Dynamics

UserJacobian = Callable[[Tensor, Any], Tensor]


def jacobian_of(
    func: Any,
    plain: Callable[[Tensor, Tensor], Tensor],
    jac: UserJacobian | None,
    layout: Layout,
    z0: Tensor,
    clocks: Clocks,
    *,
    free: bool = False,
) -> Jacobian:
    """The Jacobian of a checked problem.

    plain: f on the packed state.
    free: known by its products alone.
    Samples are along the axis that `Dynamics` says, or the clocks; with one clock along axis 0 of a state of
    two or more axes, where f does not mix them.
    """
    axis: int | None = None
    if isinstance(clocks, Each):
        axis = clocks.batch
    elif isinstance(func, Dynamics):
        axis = 1
    elif layout.single and z0.dim() > 1:
        axis = 0
    if free:
        return Products(plain, clocks, axis, independent=isinstance(func, Dynamics))
    if jac is not None:
        return Jacobian(plain, clocks, axis, _unpacked(jac, layout))
    own = getattr(func, "jacobian", None) if isinstance(func, Dynamics) else None
    if callable(own):
        return Jacobian(plain, clocks, axis, own, f"{type(func).__name__}.jacobian")
    if isinstance(func, Dynamics):
        return DynamicsJacobian(func, plain, clocks, axis)
    return Jacobian(plain, clocks, axis)


def _unpacked(jac: UserJacobian, layout: Layout) -> Given:
    """The caller's function on the packed state."""
    return lambda t, z: jac(layout.time(t), layout.unpack(z))


class DynamicsJacobian(Jacobian):
    """The Jacobian of a dynamics: by forward mode through it, else by its own VJPs."""

    def __init__(self, func: Dynamics, plain: Callable[[Tensor, Tensor], Tensor], clocks: Clocks, axis: Any):
        super().__init__(plain, clocks, axis)
        self.func, self.known = func, True
        self.whose = f"{type(func).__name__}.vjp"

    def _said(self, t: Tensor, z: Tensor, blocks: Tensor, a: Tensor, v: Tensor) -> Tensor:
        """By the VJP that was derived by hand."""
        _, saved = self.func.forward(t, z)
        return self.func.vjp(saved, a)[0] * v

    def _by_reverse_mode(self, t: Tensor, z: Tensor) -> Tensor:
        dz, saved = self.func.forward(t, z)
        bars = [self.func.vjp(saved, v)[0] for v in self.samples.basis(torch.zeros_like(dz))]
        return torch.stack([self.samples.rows(bar) for bar in bars], 1)
