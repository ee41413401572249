"""The methods by name: explicit, implicit, a pair's. One file each: citation, tableau, interpolant."""

from __future__ import annotations

import collections
from collections.abc import Mapping

from ..errors import ArgumentError, nearest
from .adams import ADAMS
from .adaptive_heun import ADAPTIVE_HEUN
from .alf import ALF
from .auto import AUTO
from .bosh3 import BOSH3
from .dop853 import DOP853
from .dopri5 import DOPRI5
from .dopri8 import DOPRI8
from .euler import EULER
from .fehlberg2 import FEHLBERG2
from .heun2 import HEUN2
from .heun3 import HEUN3
from .kvaerno3 import KVAERNO3
from .kvaerno5 import KVAERNO5
from .midpoint import MIDPOINT
from .radau5 import RADAU5
from .rk4 import RK4
from .rk4_classic import RK4_CLASSIC
from .rodas3 import RODAS3
from .rodas5p import RODAS5P
from .tableau import Tableau
from .tsit5 import TSIT5

_BY_ORDER = (
    *(EULER, MIDPOINT, HEUN2, HEUN3, RK4, RK4_CLASSIC),
    *(ADAPTIVE_HEUN, FEHLBERG2, BOSH3, DOPRI5, TSIT5, DOPRI8, DOP853),
)
METHODS: dict[str, Tableau] = {tableau.name: tableau for tableau in _BY_ORDER}
FOREIGN = "scipy_solver"
OF_THE_FACE = (*ADAMS, FOREIGN)  # no tableau is theirs: torchdiffeq's call alone has them
IMPLICIT: dict[str, Tableau] = {
    tableau.name: tableau for tableau in (KVAERNO3, KVAERNO5, RADAU5, RODAS3, RODAS5P)
}
PAIRS: dict[str, Tableau] = {ALF.name: ALF}  # steps of (y, v), which `step.pairs` takes
CHANGING: dict[str, Tableau] = {AUTO.name: AUTO}
EVERY: Mapping[str, Tableau] = collections.ChainMap(METHODS, IMPLICIT, CHANGING, PAIRS)


def get_method(name: str, argument: str = "method", *, implicit: bool = False) -> Tableau:
    """The tableau called ``name``; an unknown name is an ArgumentError that offers the nearest.

    implicit: whether the caller can do with an implicit method, or with one that has implicit steps.
    """
    known = {**METHODS, **IMPLICIT, **CHANGING} if implicit else METHODS
    if isinstance(name, str) and name in known:
        return known[name]
    if isinstance(name, str) and name in OF_THE_FACE:
        raise ArgumentError(
            f"{argument}={name!r} is there for programs of torchdiffeq: adamode.odeint(…, method={name!r}) "
            f"and odeint_adjoint take it. Here use one of {', '.join(sorted(known))}."
        )
    if isinstance(name, str) and name in PAIRS:
        raise ArgumentError(
            f"{argument}={name!r} steps a pair of state and velocity, which only the forward solve of "
            f"adamode.solve has: adamode.solve(…, method={name!r}). Here use one of "
            f"{', '.join(sorted(known))}."
        )
    if isinstance(name, str) and name in EVERY:
        raise ArgumentError(
            f"{argument}={name!r} takes implicit steps, which adamode.solve, the reverse solves of its "
            f"adjoints, the models and `adamode train` have: use those, or one of {', '.join(METHODS)}."
        )
    raise ArgumentError(f"{argument}={name!r} is not a known method: {nearest(name, known)}")
