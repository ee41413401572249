"""Which steps an implicit method takes."""

from __future__ import annotations

from typing import Any

from ...methods.tableau import Tableau
from .esdirk import ImplicitSteps
from .radau import CoupledSteps
from .rosenbrock import RosenbrockSteps


def implicit_steps(tableau: Tableau, *arguments: Any, **options: Any) -> ImplicitSteps:
    """What takes the steps of an implicit method, whose arguments are those of `ImplicitSteps`."""
    kind = CoupledSteps if tableau.coupled else RosenbrockSteps if tableau.gamma else ImplicitSteps
    return kind(tableau, *arguments, **options)
