"""Which steps an implicit method takes."""

from __future__ import annotations

from typing import Any

from ...methods.tableau import Tableau
from .esdirk import ImplicitSteps
from .jacobian import Jacobian
from .krylov import KrylovSteps
from .radau import CoupledSteps
from .rosenbrock import RosenbrockSteps


def implicit_steps(tableau: Tableau, jacobian: Jacobian, *arguments: Any, **options: Any) -> ImplicitSteps:
    """What takes the steps of an implicit method, whose arguments are those of `ImplicitSteps`."""
    kind: type[ImplicitSteps] = ImplicitSteps
    if tableau.gamma:
        kind = RosenbrockSteps
    elif tableau.coupled:
        kind = CoupledSteps
    elif jacobian.free:
        kind = KrylovSteps
    return kind(tableau, jacobian, *arguments, **options)
