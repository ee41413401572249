"""The Jacobian of the interpolating adjoint's reverse field, for a reverse solve by an implicit method."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ...solvers.step.implicit.jacobian import Jacobian
from ...solvers.step.implicit.samples import Samples


class AdjointJacobian(Jacobian):
    """The Jacobian of (q, a) → (F, −(∂F/∂z)ᵀa) at z(t) by the pair: its diagonal blocks are 0 and −Jᵀ.

    forward: ∂F/∂z.
    state: (t, pair) → z(t).
    """

    def __init__(self, forward: Jacobian, state: Callable[[Tensor, Tensor], Tensor]):
        self.forward, self.state = forward, state
        self.samples = self._own_samples()

    def _own_samples(self) -> Samples:
        """The samples of the state, an axis further back."""
        axis = self.forward.samples.axis
        return Samples(None if axis is None else axis + 1)

    @property
    def calls_f(self) -> bool:
        """Whether ∂F/∂z is made of f."""
        return self.forward.calls_f

    def __call__(self, t: Tensor, z: Tensor) -> Tensor:
        """[b, 2n, 2n] at the pair z."""
        blocks = self.forward(t, self.state(t, z))
        self.samples, n = self._own_samples(), blocks.shape[-1]  # known by now
        found = blocks.new_zeros((len(blocks), 2 * n, 2 * n))
        found[:, n:, n:] = -blocks.mT
        return found


def reverse_jacobian(jacobian: Jacobian | None, state: Callable[[Tensor, Tensor], Tensor]) -> Jacobian | None:
    """The Jacobian of a reverse solve whose carrier knows the state; None where no implicit method asks."""
    return None if jacobian is None else AdjointJacobian(jacobian, state)
