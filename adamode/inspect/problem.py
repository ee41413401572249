"""What a problem of `adamode inspect` is. Nothing here imports torch before it is solved."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from ..solvers.errors import ArgumentError, ArgumentTypeError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Field: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
# Whose functions are as they should be, and are listed without torch.
_CATALOGUE = tuple(f"{__package__}.{name}" for name in ("famous", "detest"))


@dataclasses.dataclass(frozen=True)
class Problem:
    """An initial value problem y' = f(t, y), y(t0) = y0 for t in span = (t0, t1).

    f: t 0-d, y [n] → [n]; its docstring's first paragraph is the equation.
    y0: [n] numbers.
    source: where it is from.
    solution: t → [n] numbers in closed form, or None.
    jacobian: t, y → ∂f/∂y [n, n]; None: by autograd.
    plane: the two components of the phase picture.
    log_time: the picture's axis of time is logarithmic.
    stiff: an explicit method's step is limited by stability.

    Raises ArgumentError or ArgumentTypeError for what cannot be solved.
    """

    name: str
    f: Field
    y0: Sequence[float]
    span: tuple[float, float]
    source: str = ""
    solution: Callable[[float], Sequence[float]] | None = None
    jacobian: Field | None = None
    plane: tuple[int, int] = (0, 1)
    log_time: bool = False
    stiff: bool = False

    def __post_init__(self) -> None:
        if getattr(self.f, "__module__", None) not in _CATALOGUE:
            self._check_calls()
        try:
            y0, (t0, t1) = tuple(float(x) for x in self.y0), (float(x) for x in self.span)
        except (TypeError, ValueError):
            raise ArgumentTypeError(
                f"problem {self.name}: y0={self.y0!r} and span={self.span!r} must be numbers: y0 a flat "
                "sequence, span the start and the end."
            ) from None
        if not y0 or t0 == t1 or not all(math.isfinite(x) for x in (*y0, t0, t1)):
            raise ArgumentError(
                f"problem {self.name}: y0={y0} and span={(t0, t1)} must be finite, with at least one "
                "number in y0 and an end that is not the start."
            )
        object.__setattr__(self, "y0", y0)
        object.__setattr__(self, "span", (t0, t1))

    @property
    def equation(self) -> str:
        """The first paragraph of f's docstring, on one line; "" where it has none."""
        return " ".join((self.f.__doc__ or "").split("\n\n")[0].split())

    def _check_calls(self) -> None:
        """Raises ArgumentTypeError for a function of other arguments than it is called with."""
        from ..solvers.checks import check_call

        given = {"f(t, y)": self.f, "solution(t)": self.solution, "jacobian(t, y)": self.jacobian}
        for call, function in given.items():
            if call == "f(t, y)" or function is not None:
                check_call(function, f"problem {self.name}: {call.partition('(')[0]}", call)

    def state(self, dtype: torch.dtype, device: str = "cpu") -> Tensor:
        """y0 as a tensor."""
        import torch

        return torch.tensor(self.y0, dtype=dtype, device=device)

    def jacobian_at(self, t: Tensor, y: Tensor) -> Tensor:
        """∂f/∂y at (t, y), [n, n]."""
        if self.jacobian is not None:
            return self.jacobian(t, y)
        import torch

        return torch.autograd.functional.jacobian(lambda z: self.f(t, z), y)

    def until(self, t_end: float) -> Problem:
        """The same problem with another end."""
        return dataclasses.replace(self, span=(self.span[0], t_end))
