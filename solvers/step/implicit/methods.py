"""Which kind of implicit steps a method takes."""

from __future__ import annotations

from typing import Any

from ...methods.tableau import Tableau
from .esdirk import ImplicitSteps
from .jacobian import Jacobian
from .krylov import KrylovSteps
from .radau import CoupledSteps


def implicit_steps(tableau: Tableau, jacobian: Jacobian, *arguments: Any, **options: Any) -> ImplicitSteps:
    """What takes the steps of an implicit method, whose arguments are those of `ImplicitSteps`."""
    kind = KrylovSteps if jacobian.free else CoupledSteps if tableau.coupled else ImplicitSteps
    return kind(tableau, jacobian, *arguments, **options)
