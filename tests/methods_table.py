"""The table of methods in docs/methods.md, from the tableaus and from measured slopes.

``python tests/methods_table.py`` writes the page; a test compares it.
"""

from __future__ import annotations

from pathlib import Path

from fixed_steps import dense_error, slope, step_error

from adamode.solvers.methods import METHODS
from adamode.solvers.methods.tableau import Tableau

CITATIONS = {
    "euler": ("Euler", 1768),
    "midpoint": ("Runge", 1895),
    "heun2": ("Heun", 1900),
    "heun3": ("Heun", 1900),
    "rk4": ("Kutta", 1901),
    "rk4_classic": ("Kutta", 1901),
    "adaptive_heun": ("Heun", 1900),
    "fehlberg2": ("Fehlberg", 1969),
    "bosh3": ("Bogacki, Shampine", 1989),
    "dopri5": ("Dormand, Prince", 1980),
    "tsit5": ("Tsitouras", 2011),
    "dopri8": ("Prince, Dormand", 1981),
    "dop853": ("Hairer, Nørsett, Wanner", 1993),
}

HEAD = """# The explicit methods

`method=` takes one of these names. Every adaptive one can also run with a fixed step.

- **order**: that of the solution that is propagated; **embedded**: that of the solution the error is
  estimated with (`dop853` has two). Both hold by all conditions on rooted trees, in exact fractions
  (`tests/test_order_conditions.py`), and the next order's do not.
- **evaluations**: of f in one attempt. The last is f(t1, y1), evaluated by every adaptive method; where
  it is the next step's first it comes free (**FSAL** yes), so an accepted step costs one fewer.
- **for output**: further evaluations in a step that has an output or an event inside.
- **dense order**: that of the interpolant inside a step. One below the order is enough: its error
  O(hᵖ) inside a step is as small as the solution's own, summed over steps.
- **observed**: the slope from n to 2n steps on a nonlinear, non-autonomous system with a closed
  solution, for the solution and (less one, since it is a local error) for the interpolant.

"""

TAIL = """
`rk4` is Kutta's 3/8 rule, which is what torchdiffeq means by the name; the method of most books is
`rk4_classic`. `dopri8` has the coefficients that torchdiffeq has, but a dense output of order 7 with
three further stages of our own (derived in `docs/derive/dopri8_dense_output.py`), since the cubic
through both ends would be far less accurate than the steps.

This page is written by `python tests/methods_table.py`; a test compares it.
"""


def steps(tableau: Tableau) -> int:
    """Steps from which slopes are taken: enough for each to have settled."""
    return {5: 192, 8: 24}.get(tableau.order, 96)


def observed_order(tableau: Tableau) -> float:
    """Slope of the error at the end of a solve."""
    return slope(lambda n: step_error(tableau, n), steps(tableau))


def observed_dense_order(tableau: Tableau) -> float:
    """Slope of the interpolant's local error, less one."""
    return slope(lambda n: dense_error(tableau, n), steps(tableau)) - 1


def _row(tableau: Tableau) -> str:
    embedded = [str(p) for p in (tableau.order_hat, tableau.order_hat_2) if p is not None]
    authors, year = CITATIONS[tableau.name]
    cells = (
        f"`{tableau.name}`",
        str(tableau.order),
        ", ".join(embedded) or "–",
        "yes" if tableau.fsal else "no",
        str(tableau.n_stages if tableau.adaptive else len(tableau.c)),
        str(len(tableau.c_dense) + (0 if tableau.adaptive else tableau.n_stages - len(tableau.c))),
        str(tableau.dense_order),
        f"{observed_order(tableau):.2f}",
        f"{observed_dense_order(tableau):.2f}",
        f"{authors} {year}",
    )
    return "| " + " | ".join(cells) + " |"


def page() -> str:
    """The page as it should be."""
    names = (
        *("method", "order", "embedded", "FSAL", "evaluations", "for output", "dense order"),
        *("observed", "observed, dense", "source"),
    )
    rows = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|", *map(_row, METHODS.values())]
    return HEAD + "\n".join(rows) + "\n" + TAIL


if __name__ == "__main__":
    target = Path(__file__).parents[1] / "docs" / "methods.md"
    scratch = target.with_suffix(".tmp")
    scratch.write_text(page(), encoding="utf-8")
    scratch.replace(target)
