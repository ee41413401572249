"""The tables of methods in docs/methods.md, from the tableaus and from measured slopes.

``python tests/methods_table.py`` writes the page; a test compares it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from fixed_steps import dense_error, slope, step_error

from adamode import citation
from adamode.solvers.methods import IMPLICIT, METHODS
from adamode.solvers.methods.stability import stability_function
from adamode.solvers.methods.tableau import Tableau
from adamode.solvers.step.implicit.rosenbrock import coupling_of

HEAD = """# The methods

## Explicit

`method=` takes one of these names. Every adaptive one can also run with a fixed step.

- **order**: the order of the solution that is propagated; **embedded**: the order of the solution that the
  error estimate uses (`dop853` has two). All conditions on rooted trees hold for both, in exact fractions
  (`tests/test_order_conditions.py`), and those of the next order do not.
- **evaluations**: of f in one attempt. The last is f(t1, y1), evaluated by every adaptive method; where it is
  also the first of the next step (**FSAL** yes), an accepted step costs one evaluation less.
- **for output**: further evaluations in a step that has an output or an event inside.
- **dense order**: the order of the interpolant inside a step. One below the method's order is enough: its
  error O(hᵖ) inside a step is as small as the solution's own, summed over steps.
- **observed**: the slope from n to 2n steps on a nonlinear, non-autonomous system with a closed
  solution, for the solution and (less one, since it is a local error) for the interpolant.

"""

AFTER = """
`rk4` is Kutta's 3/8 rule, which is what torchdiffeq means by the name; the method of most books is
`rk4_classic`. `dopri8` has the coefficients that torchdiffeq has, but a dense output of order 7 with
three further stages of our own (derived in `docs/derive/dopri8_dense_output.py`), since the cubic
through both ends would be far less accurate than the steps.

## Implicit

For [stiff problems](stiff.md), in `adamode.solve`, the models and `adamode train`. All are L-stable:
|R(z)| ≤ 1 wherever Re z ≤ 0, and R(z) → 0 as z → −∞, where a step multiplies y by R(hλ) for y' = λy
([what that does to gradients](stiff.md#fast-modes-and-gradients)).

- **order**, **embedded**, **dense order**: as above; all conditions on rooted trees hold, to the digits that
  the coefficients are published with, and the slopes are observed (`tests/test_implicit.py`).
- **systems**: linear or nonlinear systems in a step, of n equations for a state (or a sample) of n numbers.
  Those of `radau5` are coupled: one correction solves one real and one complex system of n.
- **evaluations**: of f, without those for ∂f/∂y, in an attempt where the systems are linear, else in one
  correction by Newton's iteration. The number of corrections is known only afterwards (`sol.stats.nfe`).
- **largest node**: the latest time at which f is evaluated, in steps.
- **R(−10)**, **R(−1000)**: how much of a fast mode a step leaves.

"""

TAIL = """
The dense output uses the stages of the step and no further evaluation; for `rodas3` and `kvaerno3` it is the
cubic through both ends. A step of `rodas5p` also evaluates ∂f/∂y and ∂f/∂t once and counts as ten, one of
`rodas3` as five.

`auto` takes steps of `dopri5` and of `radau5`, with the numbers of both
([changing methods](stiff.md#changing-methods)).

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


def source(tableau: Tableau) -> str:
    """Who published it, and when."""
    return citation.references()[citation.METHODS[tableau.name][0]].short()


def _row(tableau: Tableau) -> str:
    embedded = [str(p) for p in (tableau.order_hat, tableau.order_hat_2) if p is not None]
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
        source(tableau),
    )
    return "| " + " | ".join(cells) + " |"


KINDS = {"radau5": "collocation", "kvaerno3": "ESDIRK", "kvaerno5": "ESDIRK"}


def _implicit_row(tableau: Tableau) -> str:
    left = stability_function(tableau, torch.tensor([-10.0, -1000.0], dtype=torch.float64)).tolist()
    systems = len(tableau.c) - 1  # the first stage is f(t0, y0), there from the step before
    if tableau.gamma:
        how, evaluations = "linear", str(sum(not known for known in coupling_of(tableau).known[1:]) + 1)
    elif tableau.coupled:
        how, evaluations = "coupled", f"{systems} a correction"
    else:
        how, evaluations = "one after another", "1 a correction"
    cells = (
        f"`{tableau.name}`",
        KINDS.get(tableau.name, "Rosenbrock"),
        str(tableau.order),
        str(tableau.order_hat),
        f"{systems}, {how}",
        evaluations,
        f"{max(float(c) for c in tableau.c):.3g}",
        *(f"{r:.2g}".replace("-", "−") for r in left),
        str(tableau.dense_order),
        source(tableau),
    )
    return "| " + " | ".join(cells) + " |"


def _table(names: tuple[str, ...], rows: Iterable[str]) -> str:
    return "\n".join(["| " + " | ".join(names) + " |", "|---" * len(names) + "|", *rows]) + "\n"


def page() -> str:
    """The page as it should be."""
    names = (
        *("method", "order", "embedded", "FSAL", "evaluations", "for output", "dense order"),
        *("observed", "observed, dense", "source"),
    )
    implicit = (
        *("method", "kind", "order", "embedded", "systems", "evaluations", "largest node"),
        *("R(−10)", "R(−1000)", "dense order", "source"),
    )
    explicit, others = map(_row, METHODS.values()), map(_implicit_row, IMPLICIT.values())
    return HEAD + _table(names, explicit) + AFTER + _table(implicit, others) + TAIL


if __name__ == "__main__":
    target = Path(__file__).parents[1] / "docs" / "methods.md"
    scratch = target.with_suffix(".tmp")
    scratch.write_text(page(), encoding="utf-8")
    scratch.replace(target)
