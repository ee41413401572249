"""Proof of gradients: `check_vjp` and `check_gradient` for anyone's code, `verify_models` for ours.

report = adamode.verify.check_gradient(func, y0, t, rtol=1e-8)
assert report.ok, report
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..adjoint.dynamics.protocol import Dynamics
from ..adjoint.gradients import Discrete
from ..adjoint.proof.comparisons import BOUND_EXACT, Check
from ..adjoint.proof.references import gradient_checks, vjp_case
from ..adjoint.proof.slopes import Taylor, taylor
from ..adjoint.proof.solves import GAP_TOLERANCES, Gap, GradientProblem, bound_of, gaps, gradient_taylor
from ..known import GRADIENTS
from ..solvers.errors import ArgumentError
from .models import STEPPINGS, VerificationError, verify_models
from .report import Report
from .rows import ModelReport, ModelRow, PrintedError
from .statements import Statement
from .zoo import MODELS

ENTRIES = 2  # of each block and parameter that `check_vjp` differences: the largest, and another at random


def check_vjp(dynamics: Dynamics, t: Tensor | float, z: Tensor, *, seed: int = 0) -> Report:
    """Checks one evaluation: vjp and parameter_gradients, with a random cotangent w.

    dynamics: derives from `adamode.Dynamics`.
    t: 0-d (or per sample).
    z: [K, B, *S]. float32 modules are checked as a copy in float64.
    seed: of w, u and the entries that are differenced.

    For each block and each parameter that learns: autograd, central differences of single entries, and
    the dot-product test ⟨Ju, w⟩ = ⟨u, Jᵀw⟩ with a random u; over all together the slope of the Taylor
    remainder. Where forward is not differentiable by autograd, differences alone decide.
    Bounds: 1e-9 and 1e-7 of the largest entry.
    Raises ArgumentError or ArgumentTypeError for what cannot be checked, NotRepeatableError where forward is
    random.
    """
    case = vjp_case(dynamics, t, z, seed=seed, entries=ENTRIES)
    rows = gradient_checks(case.found, case.references, BOUND_EXACT)
    return Report(tuple(rows), taylor(case.value, case.references.quantities, case.found, seed))


def check_gradient(
    func: Any,
    y0: Any,
    t: Tensor,
    *,
    seed: int = 0,
    gap_tolerances: Sequence[float] = GAP_TOLERANCES,
    **solve_arguments: Any,
) -> Report:
    """Checks the gradient of a solve, dL/dy0 and dL/dθ for L = Σ w·y with random w.

    func: a `Dynamics`, a module, or a function.
    y0, t: as `adamode.solve` takes them.
    solve_arguments: what else it takes; gradient=Discrete() where not given.
    seed: of w and u.
    gap_tolerances: at which `Interpolating` and `Backsolve` are compared with `Discrete`, for information; ()
        to leave it out.

    For each leaf (or block) and parameter: autograd, a central difference of the largest entry, and the
    dot-product test ⟨Ju, w⟩ = ⟨u, Jᵀw⟩ with a random u; over all together the slope of the Taylor
    remainder (judged for Discrete, Reversible and Direct). All go through the steps of the unperturbed solve.
    Bounds: 1e-9 for Discrete, Reversible and Direct, 1000 times the tolerance for Backsolve and
    Interpolating; 1e-7 at best for differences.
    Raises ArgumentError or ArgumentTypeError for what cannot be checked, NotRepeatableError where func is
    random, SolverError where the solve cannot go on.
    """
    choice = solve_arguments.pop("gradient", Discrete())
    if choice is None:
        raise ArgumentError("gradient=None gives no gradient to check: leave it out, or choose another.")
    problem = GradientProblem(func, y0, t, solve_arguments, seed=seed, steps=choice)
    problem.refuse_random()
    references = problem.references()
    found = problem.gradient(choice)
    rows = gradient_checks(found, references, bound_of(choice, problem.arguments))
    return Report(tuple(rows), gradient_taylor(problem, found, choice), gaps(problem, gap_tolerances))


__all__ = [
    "GRADIENTS",
    "MODELS",
    "STEPPINGS",
    "Check",
    "Gap",
    "ModelReport",
    "ModelRow",
    "PrintedError",
    "Report",
    "Statement",
    "Taylor",
    "VerificationError",
    "check_gradient",
    "check_vjp",
    "verify_models",
]
