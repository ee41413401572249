"""The methods by name. One file each: citation, tableau, interpolant."""

from __future__ import annotations

from ..errors import ArgumentError, nearest
from .adams import ADAMS
from .adaptive_heun import ADAPTIVE_HEUN
from .bosh3 import BOSH3
from .dop853 import DOP853
from .dopri5 import DOPRI5
from .dopri8 import DOPRI8
from .euler import EULER
from .fehlberg2 import FEHLBERG2
from .heun2 import HEUN2
from .heun3 import HEUN3
from .midpoint import MIDPOINT
from .rk4 import RK4
from .rk4_classic import RK4_CLASSIC
from .tableau import Tableau
from .tsit5 import TSIT5

_BY_ORDER = (
    *(EULER, MIDPOINT, HEUN2, HEUN3, RK4, RK4_CLASSIC),
    *(ADAPTIVE_HEUN, FEHLBERG2, BOSH3, DOPRI5, TSIT5, DOPRI8, DOP853),
)
METHODS: dict[str, Tableau] = {tableau.name: tableau for tableau in _BY_ORDER}
FOREIGN = "scipy_solver"
OF_THE_FACE = (*ADAMS, FOREIGN)  # no tableau is theirs: torchdiffeq's call alone has them


def get_method(name: str, argument: str = "method") -> Tableau:
    """The tableau called ``name``; an unknown name is an ArgumentError that offers the nearest."""
    if isinstance(name, str) and name in OF_THE_FACE:
        raise ArgumentError(
            f"{argument}={name!r} is there for programs of torchdiffeq: adamode.odeint(…, method={name!r}) "
            f"and odeint_adjoint take it. Here use one of {', '.join(sorted(METHODS))}."
        )
    if not isinstance(name, str) or name not in METHODS:
        raise ArgumentError(f"{argument}={name!r} is not a known method: {nearest(name, METHODS)}")
    return METHODS[name]
