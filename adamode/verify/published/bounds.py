"""How large the error at the end of a span may be, from the problem and the method alone."""

from __future__ import annotations

import dataclasses
import functools
import math

from ...solvers.methods.stability import stability_polynomial
from ...solvers.methods.tableau import Tableau
from .value import EndValue

# κ and the method's factor are leading terms in h, found on the linear test equation and with one rate of
# turning for all derivatives: a decade is what that leaves open.
SAFETY = 10.0
PROMISED = {"dop853": (1e-12, 1e-9)}  # method: (rtol, error) that holds whatever κ is
# Of the 1e6 by which Arenstorf's orbits magnify errors, and a component that is 0 counted from 1e-3.
PROMISED_FOR = {"arenstorf": 1e-5, "arenstorf-short": 1e-5}


@functools.lru_cache(maxsize=64)
def method_factor(tableau: Tableau) -> float:
    """The error of a step ÷ h over its estimate, both per their power of h·ω, or 1 where that is less.

    On y' = λy, z = hλ: C = |R(z) − e^z| ÷ z^(p+1) over Ĉ = |estimate| ÷ z^p as z → 0, p the method's order.
    Two estimates count as the solver combines them, |e|² ÷ √(|e|² + 0.01 |e₂|²).
    Raises ValueError where the estimate is not of the order of h^p: then κ does not bound the error.
    """
    p = tableau.order
    error = abs(_coefficient(tableau, p + 1) - 1 / math.factorial(p + 1))
    power, estimate = _estimate(tableau)
    if tableau.b_hat_2 is not None:
        coarse = dataclasses.replace(
            tableau, b_hat=tableau.b_hat_2, order_hat=tableau.order_hat_2, b_hat_2=None, order_hat_2=None
        )
        power_2, estimate_2 = _estimate(coarse)
        power, estimate = 2 * power - power_2, estimate**2 / (0.1 * estimate_2)
    if power != p:
        raise ValueError(f"{tableau.name}: its estimate is of h^{power}, its order {p}")
    return max(1.0, error / estimate)


def _coefficient(tableau: Tableau, power: int, embedded: bool = False) -> float:
    found = stability_polynomial(tableau, embedded)
    return float(found[power]) if power < len(found) else 0.0


def _estimate(tableau: Tableau) -> tuple[int, float]:
    """The first power of z in y1 − ŷ1, and its coefficient."""
    assert tableau.order_hat is not None
    power = tableau.order_hat + 1
    return power, abs(_coefficient(tableau, power) - _coefficient(tableau, power, True))


def bound_of(value: EndValue, tableau: Tableau, rtol: float, condition: float) -> tuple[float, str]:
    """The bound of a solve's error, and what it is made of."""
    factor = method_factor(tableau)
    found = SAFETY * factor * condition * rtol + value.uncertainty
    reason = f"{SAFETY:g} × {factor:.2g} (method) × {condition:.2g} (κ) × rtol + {value.uncertainty:.0e}"
    at, promised = PROMISED.get(tableau.name, (math.nan, math.nan))
    promised = PROMISED_FOR.get(value.name, promised)
    if rtol == at and promised < found:
        return promised, f"{tableau.name} at {rtol:g} is promised to reach it"
    return found, reason
