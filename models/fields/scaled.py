"""A field between scales: what it sees and what it gives, each times a constant."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...solvers.checks import check_positive
from ...solvers.errors import ArgumentTypeError
from .field import Field, Gradients, copied


class Scaled(Field):
    """f(t, h) = g·F(t, s·h): a field F of unit size for a state of another size.

    inner: F, a `Field`.
    scale: s > 0. With a state of size 1/s the inner field sees numbers of size 1.
    gain: g > 0. A dynamics that takes A·f with a small rate A gets a field of size 1/A with g = 1/A, and
        F's weights start, and are learnt, at their usual size.
    Raises ArgumentTypeError for another inner field, ArgumentError for a scale or gain that is not positive.
    """

    def __init__(self, inner: Field, *, scale: float = 1.0, gain: float = 1.0):
        super().__init__()
        if not isinstance(inner, Field):
            raise ArgumentTypeError(
                f"Scaled: inner is a {type(inner).__name__}; give a Field, such as Linear or MLP."
            )
        check_positive(scale, "scale")
        check_positive(gain, "gain")
        self.inner, self.scale, self.gain = inner, float(scale), float(gain)
        self.channels_in, self.channels_out = inner.channels_in, inner.channels_out
        self.channels_last, self.places = inner.channels_last, inner.places

    def theta(self) -> tuple[Tensor, ...]:
        """The parameters of F."""
        return self.inner.theta()

    def for_solve(self) -> Any:
        """The field with F as in the solve."""
        return copied(self, inner=self.inner.for_solve())

    def reference(self, t: Tensor, h: Tensor) -> Tensor:
        """g·F(t, s·h)."""
        return self.gain * self.inner.reference(t, self.scale * h)

    def forward(self, t: Tensor, h: Tensor) -> tuple[Tensor, Any]:
        """(f, F's saved)."""
        f, saved = self.inner.forward(t, self.scale * h)
        return self.gain * f, saved

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """(h̄, F's deltas): h̄ = s·(∂F/∂x)ᵀ(g·c), and g·c is what reaches F's parameters."""
        bar, deltas = self.inner.vjp(saved, self.gain * cotangent)
        return self.scale * bar, deltas

    def parameter_gradients(self, saved: list[Any], deltas: list[Any], weights: Tensor | None) -> Gradients:
        """The gradients of F: the scale and the gain are given."""
        return self.inner.parameter_gradients(saved, deltas, weights)

    @property
    def linearised(self) -> Any:
        """(t, h) → (f, ∂f/∂h), [B, n] and [B, n, in]; None where F has no `linearised`."""
        return self._linearised if getattr(self.inner, "linearised", None) is not None else None

    def _linearised(self, t: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        f, slopes = self.inner.linearised(t, self.scale * h)  # type: ignore[operator]
        return self.gain * f, self.gain * self.scale * slopes


def scaled(field: Field, scale: float, gain: float) -> Field:
    """The field between these scales: itself where both are 1, so that its parameters keep their names."""
    return field if scale == 1 == gain else Scaled(field, scale=scale, gain=gain)
