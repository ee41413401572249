"""Penalties of the solver in the loss: which, and how much."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from ..adjoint.arguments import PENALTIES
from ..solvers.errors import ArgumentError, ArgumentTypeError, check_choice

Weights = tuple[tuple[str, float], ...]
OF_ALL_ENTRIES = ("kinetic", "jacobian")  # sums over the batch where it has one clock


def weights_of(text: str) -> Weights:
    """The weights that a text such as "error=0.1,kinetic=1e-3" names; () for "".

    Raises: ArgumentError, ArgumentTypeError for what names none.
    """
    if not isinstance(text, str):
        raise ArgumentTypeError(
            f"regularise={text!r} is {type(text).__name__}; a text such as 'error=0.1' is needed."
        )
    found: dict[str, float] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, number = (piece.strip() for piece in part.partition("="))
        check_choice("regularise", name, PENALTIES)
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not (math.isfinite(weight) and weight > 0) or name in found:
            raise ArgumentError(
                f"regularise={text!r}: {part!r} must be a penalty, once, and its weight, finite and above 0: "
                "error=0.1, several with commas between."
            )
        found[name] = weight
    return tuple(found.items())


def penalty_of(last: Any, weights: Weights, n: int) -> Tensor | None:
    """The weighted penalties of a solve, a mean over its n samples, 0-d; None without weights.

    last: what the model's last solve left; its hold on the penalties ends here.
    """
    if not weights:
        return None
    told: dict[str, Tensor] = last.take_penalties()
    total = None
    for name, weight in weights:
        value = told[name]
        share = value / n if name in OF_ALL_ENTRIES and value.dim() == 0 else value.mean()
        total = share * weight if total is None else total + share * weight
    return total
