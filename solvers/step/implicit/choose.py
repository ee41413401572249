"""Which steps an implicit method takes, and who takes those that are not `rk_step`'s."""

from __future__ import annotations

from typing import Any

from ...methods.tableau import Tableau
from ..clocks import Clocks
from ..pairs import pair_of
from ..taker import Taker
from .esdirk import ImplicitSteps
from .jacobian import Jacobian
from .krylov import KrylovSteps
from .newton import Measure
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


def taker_of(tableau: Tableau, settings: Any, clocks: Clocks, **options: Any) -> Taker:
    """What takes a method's steps in a solve where `rk_step` does not.

    settings: of the solve, of either stepping.
    options: of `ImplicitSteps`.
    """
    if not tableau.implicit:
        return pair_of(tableau, settings.coupling, clocks, judged=not settings.fixed)
    assert settings.jacobian is not None
    measure = Measure(clocks, settings.norm, settings.tolerance)
    return implicit_steps(tableau, settings.jacobian, measure, stubborn=settings.fixed, **options)
