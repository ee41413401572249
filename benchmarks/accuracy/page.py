"""docs/accuracy.md: the tables with the words between them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from adamode.verify.published import PublishedReport
from adamode.verify.published.layout import markdown_tables

from . import tables
from .controllers import CONTROLLERS, costs
from .heterogeneous import MODES, Batch, solve_batch
from .measurements import Measurements, geometric_mean
from .solvers import OURS

HEAD = """# How accurate, at what cost?

This page compares our solvers with those of scipy, torchdiffeq and torchode on ten non-stiff problems. It is
written by `python -m benchmarks.accuracy`, run from the repository's root (it needs torchdiffeq 0.2.5 and
torchode 1.0.1); a test measures a part of it again.

## How it was measured

The problems are two of each class of DETEST (Hull, Enright, Fellen, Sedgwick 1972), on [0, 20], chosen
before anything was measured. Tolerances: rtol = atol. All in float64, `solve(..., gradient=None)` with its
defaults; the other codes with theirs.

- **Error**: the maximum, over 21 outputs (t = 0, 1, …, 20) and all components, of
  |y − reference| / (1 + |reference|). The outputs are interpolated by each code, since that is what a user
  gets. The reference is scipy's DOP853 at rtol 1e-13, atol 1e-14, restarted at every output; the table says
  by how much the reference moves when both are ten times looser; its own error is about a tenth of that.
- **Evaluations**: calls of the right-hand side, counted inside it. The first step's probe, rejected steps,
  and stages that only serve the output are included.
- **One cell** is the geometric mean of nine solves at tolerances spread evenly over the decade around the
  tolerance that names it (for torchdiffeq and torchode: of three). The error of one solve is partly luck: on
  an orbit the errors of the steps change sign and may cancel.
- **At equal error**: our evaluations, divided by what the other code needs for the error that we achieved
  (log evaluations over log error, interpolated between its tolerances from 1e-2 to 1e-11).
- A dash means "not compared": the error is above 0.1 (no digit is right), below 30 times the reference's own
  error, or outside the range that the other code achieved.

"""

EQUAL = """## Evaluations at equal error

Below 1 we need fewer.

"""

EQUAL_AFTER = """
Over all {cells} cells the geometric mean is **{mean}**, the worst cell {worst}.{above}

Where single cells are high:

- **D5, D2** (orbits) and **B1**, between 1e-4 and 1e-8: along the line the error of the codes of order 5
  changes its sign, ours and theirs at different tolerances (B1: RK45's at 2e-5, `tsit5`'s at 2e-7; D5:
  RK45's at 4e-6, `dopri5`'s at 1e-8). One code's dip stands beside the other's bump.
- **`dopri5` against torchode's tsit5** compares two methods; our `tsit5` needs what torchode's does.
- **`dop853` and `dopri8` against torchdiffeq's dopri8**: torchdiffeq's output costs no evaluation, but its
  interpolant has order 4 at most, so that a small error needs a far smaller tolerance: many cells have no
  counterpart, and the mean is {td8}. Where the steps are short beside the distance of the outputs (D2, D5)
  this hurts it less.

"""

ACHIEVED = """## Achieved error ÷ tolerance

A tolerance bounds the error of one step, not that of the solution; the problem decides by how much the two
differ. What counts is whether their ratio stays alike over eight decades, compared with scipy's.

"""

ACHIEVED_AFTER = """
*error over scipy's*: geometric mean, at the same tolerance, over all cells with a correct digit. *error
falls by*: for a tolerance ten times smaller, the mean over three decades (1e-5 to 1e-8), the least and the
most of the ten problems; then single decades.

**Where we are above twice scipy's error.** With order 5 (D5, B1) scipy's error changes its sign there, and
ours does so one or two decades later. With `dop853` (E2, B1) a few of the nine solves have an error ten times
their neighbours', as scipy's have at other tolerances: with steps this long both estimates of one step can be
small by chance. With `I(look_ahead=False)` `dopri5` and `dop853` take exactly scipy's steps and no cell
differs; the default has errors below scipy's as a rule, for the same or fewer evaluations. Other controllers
of the family (pcoeff 0.1 … 0.4, icoeff 0.3 … 0.9, tried on the ten and on B2, B5, D3, E1) have such cells
elsewhere, as many or more.

**Straightness.** Most problems keep to 5 … 20 for each decade. The exceptions of order 5 are the changes of
sign above (D2, D5, B1), where scipy's lines bend as well; those of order 8 are errors that grow from far
below the tolerance towards it (A5), and single solves of long steps, of which scipy's lines have more.
"""

HETEROGENEOUS = """## A batch of very different samples

van der Pol, 256 samples, μ from 1 to 100 in equal ratios, `dopri5`. The table counts rows: the samples that
the right-hand side evaluates, summed over its calls. With shared steps, or without `compact`, all samples are
evaluated as often as the slowest one asks.

"""

HETEROGENEOUS_AFTER = """
If a sample's steps were proportional to μ (stability decides them), this spread would give max μ / mean μ =
100 · ln 100 / 99 = 4.65. The ratio is larger where samples of small μ leave their stiff stretch before the
end, and smaller where accuracy demands steps of all samples.

"""

CONTROLLER = """## Choosing a controller

The same ten problems, 1e-3 to 1e-10: evaluations at equal error and the error at equal tolerance, both over
those of the classical controller `I`, and the share of attempts that were rejected at 1e-6.

"""

CONTROLLER_AFTER = """
- **Recommended**: the default, Hairer's `PI`.
- `I(look_ahead=False)` where runs are to be compared with scipy's step by step: with `dopri5` and `dop853` it
  takes the same steps.
- *Not recommended* for smooth problems: the filters `H211PI` and `H312PID`. They are made for step sizes that
  vary smoothly (for a solver inside an optimiser, say) and react late where the solution turns.

All are in `adamode.solvers.step.controller.PRESETS`, with their sources; any other
`PID(pcoeff=…, icoeff=…, dcoeff=…)` can be given:

```python
import torch, adamode
from adamode.solvers.step.controller import PRESETS

y0, t = torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([0.0, 10.0], dtype=torch.float64)
for name, controller in PRESETS.items():
    sol = adamode.solve(lambda t, y: torch.stack((y[1], -y[0])), y0, t, controller=controller, gradient=None)
    print(name, sol.stats.nfe, sol.stats.n_rejected)
```
"""

PUBLISHED = """
## Published values

`adamode verify --suite published --json FILE` solves problems whose results others have published (six to
seven minutes of one core); `python -m benchmarks.accuracy --published FILE` writes this section from what
it found. All in float64 with atol = rtol/1000. Here

- **error** is the largest |found − published| ÷ max(|published|, 1e-3) of any component at the end of the
  span;
- **κ** is the factor by which the problem magnifies the local errors that a tolerance admits. A step from t
  leaves an error d with RMS(d/D) ≤ rtol, D = |y(t)| + 1e-3, which has grown to Φ(T, t) d in the end. A method
  that propagates its higher order makes per unit of time an error in proportion to rtol·ω, where ω = √2
  ‖y''‖ ÷ √(‖y'‖² + ‖y''‖ ‖y‖), each over D, is the rate at which the solution turns, so that κ = max over
  components j of √n ∫ ‖eⱼᵀ Φ(T, t) D(t)‖₂ ω(t) dt ÷ max(|yⱼ(T)|, 1e-3). It is computed from the adjoint
  equation by scipy, not from our errors;
- **bound** is κ·rtol times the number in the first row: ten, for what a leading term leaves open, times
  the method's error of a step over its estimate on y' = λy where that is more than one (`fehlberg2`
  propagates a solution whose error is 85 times its estimate, `bosh3` 2). The uncertainty of the published
  values comes on top. `dop853` at 1e-12 has a bound of 1e-9 besides (1e-5 on Arenstorf's orbits, where half
  a unit in the last digit of the start moves the end by 5e-7);
- **largest share** is the error over its bound where that is largest in the row.

On Arenstorf's orbits κ·rtol is above the orbit's own size at loose tolerances: there it demands nothing.

DETEST's values are those of Enright and Pryce's EVALU (ACM TOMS 13, 1987), the Pleiades' those of the
Bari test set, the gradients those of SUNDIALS' examples; Arenstorf's orbits are closed (Hairer, Nørsett,
Wanner I, II.0). `adamode/verify/published/` has each with its source.

"""

CASES = ((1e-3, 5.0), (1e-3, 20.0), (1e-6, 5.0))  # tolerance, end


def published(report: PublishedReport) -> str:
    """The section of what the suite of published values found: the page's last."""
    return PUBLISHED + markdown_tables(report).rstrip("\n") + "\n"


def with_published(page: str, report: PublishedReport) -> str:
    """The page with that section anew."""
    return page.partition(PUBLISHED.partition("\n\n")[0])[0] + published(report)


def page(known: Measurements, report: PublishedReport, say: Callable[[str], None]) -> str:
    """The whole page; report: of the published values.

    say: told what is measured now.
    """
    say("a batch of very different samples")
    batches: dict[tuple[float, float, str], Batch] = {
        (tol, end, mode): solve_batch(256, end, tol, **options)
        for tol, end in CASES
        for mode, options in MODES.items()
    }
    say(f"the controllers {', '.join(CONTROLLERS)}")
    by_controller = costs(known)
    say("adamode per sample")
    known.all_ours("per_sample")
    say("scipy, torchdiffeq, torchode, and adamode with shared steps")
    found = tables.comparisons(known)
    parts = [HEAD, tables.problems(), "\n", EQUAL, tables.equal_error_summary(found), _after(found)]
    for method in OURS:
        parts += [f"### `{method}`\n\n", tables.equal_error_cells(found, method), "\n"]
    parts += [ACHIEVED, tables.straightness(known), ACHIEVED_AFTER]
    for method in OURS:
        parts += [f"### `{method}`: error ÷ tolerance\n\n", tables.achieved(known, method), "\n"]
    parts += [HETEROGENEOUS, tables.heterogeneous(batches), HETEROGENEOUS_AFTER]
    parts += [CONTROLLER, tables.controllers(by_controller), CONTROLLER_AFTER, published(report)]
    return "".join(parts)


def _after(found: list[tables.Comparison]) -> str:
    cells = np.concatenate([c.cells.ravel() for c in found])
    worst = max(found, key=lambda c: c.worst[0])
    value, problem, tolerance = worst.worst
    eighth = np.concatenate([c.cells.ravel() for c in found if c.other == "torchdiffeq dopri8"])
    above = int((cells > 1.3).sum())
    return EQUAL_AFTER.format(
        cells=int(np.isfinite(cells).sum()),
        mean=tables.number(geometric_mean(cells)),
        worst=f"{tables.number(value)} (`{worst.method}` against {worst.other}, {problem} at {tolerance})",
        above=" No cell is above 1.3." if above == 0 else f" Cells above 1.3: {above}.",
        td8=tables.number(geometric_mean(eighth)) if len(eighth) else math.nan,
    )
