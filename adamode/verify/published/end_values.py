"""The problems whose end is published: DETEST, Arenstorf's two orbits, the Pleiades."""

from __future__ import annotations

import dataclasses

from ...inspect.detest import DETEST
from ...inspect.famous import FAMOUS
from .detest_values import END_VALUES, SOURCE
from .value import EndValue, digits_hold

_FAMOUS = {problem.name: problem for problem in FAMOUS}

# Test Set for Initial Value Problem Solvers (Bari; F. Mazzia, C. Magherini), problem Pleiades, by PSIDE with
# rtol = atol = 1e-16 on a Cray C90; as in deTestSet, src/Ex_pleiades.f: x, y, x', y' of the seven stars.
_PLEIADES = (
    *(0.3706139143970502, 3.237284092057233, -3.222559032418324, 0.6597091455775310),
    *(0.3425581707156584, 1.562172101400631, -0.7003092922212495),
    *(-3.943437585517392, -3.271380973972550, 5.225081843456543, -2.590612434977470),
    *(1.198213693392275, -0.2429682344935824, 1.091449240428980),
    *(3.417003806314313, 1.354584501625501, -2.590065597810775, 2.025053734714242),
    *(-1.155815100160448, -0.8072988170223021, 0.5952396354208710),
    *(-3.741244961234010, 0.3773459685750630, 0.9386858869551073, 0.3667922227200571),
    *(-0.3474046353808490, 2.344915448180937, -1.947020434263292),
)


def _detest() -> tuple[EndValue, ...]:
    found = []
    for problem in DETEST:
        name = problem.name.removeprefix("detest-")
        digits, values = END_VALUES[name]
        found.append(EndValue(problem, values, digits_hold(digits, values), SOURCE + name.upper()))
    return tuple(found)


def _closed_orbits() -> tuple[EndValue, ...]:
    """Both orbits end where they start, as far as the digits of their start and period go.

    All of a double's digits are given. Half a unit in the last of the start's speed, 2.2e-16, is magnified
    by 2e9 in the worst component, and the orbits close to no better than 5e-7 whatever solves them.
    """
    long = _FAMOUS["arenstorf"]
    short = dataclasses.replace(
        long,
        name="arenstorf-short",
        y0=(0.994, 0.0, 0.0, -2.0317326295573368357302057924),
        span=(0.0, 11.124340337266085134999734047),
    )
    source = "HNW I, II.0, Eq. (0.2): the orbit is closed; {} loops"
    return (
        EndValue(long, tuple(long.y0), 5e-7, source.format("four")),
        EndValue(short, tuple(short.y0), 5e-7, source.format("three")),
    )


END = (
    *_detest(),
    *_closed_orbits(),
    EndValue(
        _FAMOUS["pleiades"],
        _PLEIADES,
        digits_hold(12, _PLEIADES),
        "Test Set for IVP Solvers (Bari), Pleiades; HNW I, II.10",
    ),
)
