"""What a solve cost."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Generic

from torch import Tensor
from typing_extensions import TypeVar

# Both are a tensor, [B], in per-sample stepping.
Count = TypeVar("Count", bound="int | Tensor", default=Any)
Length = TypeVar("Length", bound="float | Tensor", default=Any)
_ZERO: Any = 0  # where a count of either type begins
_NOT_YET: Any = math.nan


@dataclasses.dataclass(repr=False)
class Stats(Generic[Count, Length]):
    """What a solve cost; in per-sample stepping the counts and dt are tensors, one entry a sample.

    nfe: every call of func, the first step's probe included; a batched call counts once (per sample: the
        evaluations at which the sample was still under way).
    n_calls: batched calls of func in per-sample stepping.
    n_accepted, n_rejected: steps; n_steps is their sum.
    n_newton: of the rejected steps of an implicit method, those whose equations were not solved.
    n_jacobians: its evaluations of ∂f/∂y, each one of nfe as well.
    dt_first, dt_last: |dt| tried first, and
    |dt| that would be tried next (hand it to the next solve as ``dt0``).
    nfe_backward: evaluations of func's VJP in the backward pass, filled by it.
    nfe_recomputed: evaluations of func that only rebuild a state in the backward pass.
    n_accepted_backward, n_rejected_backward: steps of a continuous adjoint.
    reconstruction_error: backsolve only: the largest RMS distance, in units of the tolerance, between the
        state solved backwards and the stored one.
    """

    nfe: Count = _ZERO
    n_accepted: Count = _ZERO
    n_rejected: Count = _ZERO
    dt_first: Length = _NOT_YET
    dt_last: Length = _NOT_YET
    n_calls: int = 0
    nfe_backward: int = 0
    nfe_recomputed: int = 0
    n_accepted_backward: Count = _ZERO
    n_rejected_backward: Count = _ZERO
    n_newton: Count = _ZERO
    n_jacobians: Count = _ZERO
    reconstruction_error: float = math.nan

    @property
    def n_steps(self) -> Count:
        """Attempts: accepted and rejected."""
        return self.n_accepted + self.n_rejected  # type: ignore[operator, return-value]  # of one type

    def __repr__(self) -> str:
        """What is known and not 0; of many samples the least and the largest number."""
        told = []
        for name in Stats.__dataclass_fields__:
            value = getattr(self, name)
            numbers = value.flatten().tolist() if isinstance(value, Tensor) else [value]  # host read
            known = [x for x in numbers if not math.isnan(x)]
            if any(known) or name in ("nfe", "n_accepted", "n_rejected"):
                told.append(f"{name}={_short(value, numbers, known)}")
        return f"Stats({', '.join(told)})"


def _short(value: Any, numbers: list[float], known: list[float]) -> str:
    """A number with three digits; several samples' in brackets, or their range."""
    words = [str(x) if isinstance(x, int) else f"{x:.3g}" for x in numbers]
    if not isinstance(value, Tensor):
        return words[0]
    if len(words) <= 6:
        return f"[{', '.join(words)}]"
    least, most = (words[numbers.index(x)] for x in (min(known), max(known)))
    if least == most:
        return f"{least} ({len(words)} samples)"
    return f"{least} … {most} ({len(words)} samples)"
