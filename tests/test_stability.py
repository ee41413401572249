"""Stability polynomials: exact coefficients, values against real steps, limits against the book."""

import math
from fractions import Fraction

import pytest
import torch

from adamode.solvers.methods import IMPLICIT, METHODS
from adamode.solvers.methods.stability import real_stability_limit, stability_function, stability_polynomial
from adamode.solvers.methods.tableau import q

EVERY = list(METHODS.values())


@pytest.mark.parametrize("tableau", EVERY, ids=lambda m: m.name)
def test_polynomial_is_the_exponential_series_to_the_order_and_no_further(tableau):
    rounding = Fraction(1, 10**16) if tableau.rounded else 0
    found = stability_polynomial(tableau)
    for k in range(tableau.order + 1):
        assert abs(found[k] - Fraction(1, math.factorial(k))) <= rounding
    if len(found) > tableau.order + 1:
        beyond = found[tableau.order + 1] - Fraction(1, math.factorial(tableau.order + 1))
        assert abs(beyond) > Fraction(1, 10**9)


def test_polynomials_of_known_methods():
    """dopri5: Hairer, Wanner II, IV.2, Eq. (2.12)."""
    assert stability_polynomial(METHODS["rk4"]) == stability_polynomial(METHODS["rk4_classic"])
    assert stability_polynomial(METHODS["dopri5"]) == q("1 1 1/2 1/6 1/24 1/120 1/600")
    assert stability_polynomial(METHODS["fehlberg2"]) == q("1 1 1/2 255/262144")
    assert stability_polynomial(METHODS["adaptive_heun"], embedded=True) == q("1 1")


@pytest.mark.parametrize("tableau", EVERY, ids=lambda m: m.name)
def test_values_are_those_of_one_step_of_a_linear_equation(tableau):
    z = torch.tensor([0.3, -1.2 + 0.7j, 2.0j, -2.5], dtype=torch.complex128)
    stages = []
    for row in tableau.a:
        stages.append(z * (1 + sum((float(w) * k for w, k in zip(row, stages, strict=True)), 0 * z)))
    step = 1 + sum(float(w) * k for w, k in zip(tableau.b, stages, strict=True))
    torch.testing.assert_close(stability_function(tableau, z), step, rtol=1e-12, atol=1e-12)


def test_real_limits_are_the_known_ones():
    known = {"euler": 2, "heun2": 2, "heun3": 2.5127, "rk4": 2.7853, "bosh3": 2.5127, "dopri5": 3.3066}
    for name, limit in known.items():
        assert real_stability_limit(METHODS[name]) == pytest.approx(limit, abs=1e-4)


@pytest.mark.parametrize("tableau", EVERY, ids=lambda m: m.name)
def test_step_is_stable_inside_the_real_limit_and_not_beyond(tableau):
    limit = real_stability_limit(tableau)
    inside = torch.linspace(-limit, 0, 999, dtype=torch.float64)
    assert stability_function(tableau, inside).abs().max() <= 1 + 1e-12
    assert stability_function(tableau, torch.tensor(-limit - 1e-3, dtype=torch.float64)).abs() > 1


def test_a_method_without_an_embedded_solution_has_no_embedded_polynomial():
    with pytest.raises(ValueError, match="rk4: has no embedded solution"):
        stability_polynomial(METHODS["rk4"], embedded=True)


@pytest.mark.parametrize("tableau", IMPLICIT.values(), ids=lambda m: m.name)
@pytest.mark.parametrize("asked", [stability_polynomial, real_stability_limit])
def test_an_implicit_method_has_no_polynomial(tableau, asked):
    with pytest.raises(ValueError, match=f"{tableau.name}: is implicit"):
        asked(tableau)
