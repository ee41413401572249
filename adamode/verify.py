"""Proof of gradients: `check_vjp` and `check_gradient` for anyone's code, `verify_models` for ours.

report = adamode.verify.check_gradient(func, y0, t, rtol=1e-8)
assert report.ok, report
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from .adjoint.dynamics import Dynamics
from .adjoint.gradient import Backsolve, Discrete, Interpolating
from .adjoint.verify import Check, vjp_checks
from .adjoint.verify_solve import GradientProblem, gradient_checks
from .models.denominators import DENOMINATORS
from .models.dynamics import AdamODE
from .models.dynamics.adamnode import FORMS
from .models.fields import MLP
from .solvers.errors import ArgumentError, nearest

MODELS = ("adamnode",)
GRADIENTS = ("discrete", "interpolating", "backsolve")
STEPPINGS = ("shared", "per_sample")
# The continuous adjoints follow the tolerance, and must reach 1e-7 at this one; discrete is exact at any.
TOLERANCE = {"discrete": 1e-6, "interpolating": 1e-10, "backsolve": 1e-10}
_CHOICES = {"discrete": Discrete(), "interpolating": Interpolating(), "backsolve": Backsolve()}
_BOUNDS = {"discrete": 1e-9, "interpolating": 1e-7, "backsolve": 1e-7}


@dataclasses.dataclass(frozen=True)
class Report:
    """rows: one `Check` for each block or parameter and reference (quantity, reference,
    relative_error, bound, ok; index, found, expected where the error is largest).

    Prints as a table; what fails is named with its index and both numbers.
    """

    rows: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether every row is within its bound."""
        return all(row.ok is not False for row in self.rows)

    def __str__(self) -> str:
        table = [("quantity", "reference", "relative error", "bound", "")]
        table += [
            (r.quantity, r.reference, f"{r.relative_error:.1e}", _bound(r.bound), _VERDICT[r.ok])
            for r in self.rows
        ]
        lines = aligned(table)
        for r in self.rows:
            if r.ok is False:
                lines.append(
                    f"{r.quantity}{list(r.index)}: hand-derived {r.found:.12g}, {r.reference} "
                    f"{r.expected:.12g}"
                )
        return "\n".join(lines)


_VERDICT = {True: "ok", False: "FAILS", None: "not judged"}


def _bound(bound: float | None) -> str:
    return "" if bound is None else f"{bound:.0e}"


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Rows of text as lines with aligned columns."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in table]


def check_vjp(dynamics: Dynamics, t: Tensor | float, z: Tensor, *, seed: int = 0) -> Report:
    """Checks one evaluation: vjp and parameter_gradients against autograd and finite differences.

    dynamics: derives from `adamode.Dynamics`.  t: 0-d (or per sample).  z: [K, B, *S]. float32 modules
    are checked as a copy in float64. Where forward is not differentiable by autograd, finite
    differences alone decide. Bounds: 1e-9 and 1e-7 of the largest entry.
    Raises ArgumentError or ArgumentTypeError for what cannot be checked.
    """
    return Report(tuple(vjp_checks(dynamics, t, z, seed=seed)))


def check_gradient(func: Any, y0: Any, t: Tensor, *, seed: int = 0, **solve_arguments: Any) -> Report:
    """Checks the gradient of a solve, dL/dy0 and dL/dθ for L = Σ w·y with random w.

    func: a `Dynamics`, a module, or a function; y0, t and the other arguments as `adamode.solve` takes
    them (gradient=Discrete() where not given). References go through the same steps. Bounds: 1e-9
    for Discrete and Direct, 1000 times the tolerance for Backsolve; 1e-7 at best for differences.
    Raises ArgumentError or ArgumentTypeError for what cannot be checked, SolverError where the solve
    cannot go on.
    """
    choice = solve_arguments.pop("gradient", Discrete())
    problem = GradientProblem(func, y0, t, solve_arguments, seed=seed)
    return Report(tuple(gradient_checks(problem, choice, problem.references())))


@dataclasses.dataclass(frozen=True)
class ModelRow:
    """One line of ``adamode verify``: a `Check`'s result and what it was made for."""

    model: str
    denominator: str
    gradient: str
    stepping: str
    form: str
    quantity: str
    reference: str
    relative_error: float
    bound: float | None
    ok: bool | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which has no NaN: an error that is not finite is null."""
        row = dataclasses.asdict(self)
        if not math.isfinite(self.relative_error):
            row["relative_error"] = None
        return row


@dataclasses.dataclass(frozen=True)
class ModelReport:
    """What ``adamode verify`` found. printed: how far the printed Eq. 15 is off, over several seeds."""

    rows: tuple[ModelRow, ...]
    printed: tuple[PrintedError, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every judged row is within its bound."""
        return all(row.ok is not False for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """{"ok", "rows"}."""
        return {"ok": self.ok, "rows": [row.as_dict() for row in self.rows]}


@dataclasses.dataclass(frozen=True)
class PrintedError:
    """‖g − g_exact‖/‖g_exact‖ of dL/dz(t0) under a printed form, one number a seed, and its h block's."""

    form: str
    whole: tuple[float, ...]
    h_block: tuple[float, ...]

    def sentence(self) -> str:
        """Both medians and ranges, in per cent."""
        what = {
            "paper": "Eq. 15 as printed (form paper)",
            "paper-rates": "Eq. 15 with the rates 1−α, 1−β put in (form paper-rates)",
        }[self.form]
        return (
            f"{what}: dL/dz(t0) is off by {_spread(self.whole)} per cent, its h block by "
            f"{_spread(self.h_block)} (median [least, most] of {len(self.whole)} seeds)."
        )


def _spread(errors: Sequence[float]) -> str:
    ordered = [100 * x for x in sorted(errors)]
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    return f"{median:.0f} [{ordered[0]:.0f}, {ordered[-1]:.0f}]"


@dataclasses.dataclass(frozen=True)
class _Case:
    """One problem, from which several gradients and forms are judged by the same references."""

    denominator: str
    stepping: str
    tolerance: float
    seed: int
    device: str

    def build(self) -> tuple[AdamODE, GradientProblem]:
        """AdamODE over a tanh MLP from v0 > 0: [3, 3, 6], three outputs of which one lies inside a step."""
        generator = torch.Generator().manual_seed(self.seed)
        field = MLP(6, (12,)).double()
        with torch.no_grad():
            for p in field.parameters():
                drawn = torch.randn(p.shape, generator=generator, dtype=torch.float64)
                p.copy_(drawn / math.sqrt(p.shape[-1]))
        dynamics = AdamODE(field, alpha=0.3, beta=0.4, eps=1e-3, denominator=self.denominator)
        dynamics = dynamics.double().to(self.device)
        z0 = torch.randn(3, 3, 6, generator=generator, dtype=torch.float64)
        z0[2] = z0[2].square() + 0.1
        t = torch.tensor([0.0, 0.37, 1.0], dtype=torch.float64, device=self.device)
        arguments = {"rtol": self.tolerance, "atol": self.tolerance, "stepping": self.stepping}
        return dynamics, GradientProblem(dynamics, z0.to(self.device), t, arguments, seed=self.seed)


def verify_models(
    *,
    models: Iterable[str] = MODELS,
    denominators: Iterable[str] = DENOMINATORS,
    forms: Iterable[str] = FORMS,
    gradients: Iterable[str] = GRADIENTS,
    seed: int = 0,
    seeds_printed: int = 8,
    device: str = "cpu",
) -> ModelReport:
    """Checks the models' hand-derived gradients, in float64 and both stepping modes.

    forms: of AdamODE's VJP; those that are not "exact" are measured and not judged.
    seeds_printed: problems over which the printed forms' errors are summed up.
    Raises ArgumentError for an unknown name, with the nearest.
    """
    forms = tuple(forms)
    gradients = tuple(gradients)
    _check("model", models, MODELS)
    denominators = tuple(denominators)
    _check("denominator", denominators, DENOMINATORS)
    _check("form", forms, FORMS)
    _check("gradient", gradients, GRADIENTS)
    rows: list[ModelRow] = []
    for denominator in denominators:
        for stepping in STEPPINGS:
            for tolerance in sorted({TOLERANCE[name] for name in gradients}, reverse=True):
                case = _Case(denominator, stepping, tolerance, seed, device)
                chosen = [name for name in gradients if TOLERANCE[name] == tolerance]
                rows += _case_rows(case, chosen, forms)
    printed = tuple(printed_error(f, range(seeds_printed), device) for f in forms if f != "exact")
    return ModelReport(tuple(rows), printed)


def _case_rows(case: _Case, gradients: Sequence[str], forms: Sequence[str]) -> list[ModelRow]:
    dynamics, problem = case.build()
    # Autograd differentiates the equations, whatever the form of the hand-derived VJP.
    references = problem.references(by_differences="exact" in forms)
    rows = []
    for gradient in gradients:
        for form in forms:
            dynamics.adjoint_form = form
            what = ("adamnode", case.denominator, gradient, case.stepping, form)
            bound, judge = _BOUNDS[gradient], form == "exact"
            for c in gradient_checks(problem, _CHOICES[gradient], references, bound, judge=judge):
                rows.append(ModelRow(*what, c.quantity, c.reference, c.relative_error, c.bound, c.ok))
    return rows


def printed_error(form: str, seeds: Iterable[int], device: str = "cpu") -> PrintedError:
    """How far dL/dz(t0) is off under a printed form, exact denominator, discrete adjoint."""
    whole, h_block = [], []
    for seed in seeds:
        dynamics, problem = _Case("exact", "shared", TOLERANCE["discrete"], seed, device).build()
        exact = torch.stack(problem.gradient(Discrete())[:3])
        dynamics.adjoint_form = form
        found = torch.stack(problem.gradient(Discrete())[:3])
        whole.append(((found - exact).norm() / exact.norm()).item())
        h_block.append(((found[0] - exact[0]).norm() / exact[0].norm()).item())
    return PrintedError(form, tuple(whole), tuple(h_block))


def _check(argument: str, values: Iterable[str], known: Sequence[str]) -> None:
    for value in values:
        if value not in known:
            raise ArgumentError(f"{argument}={value!r} is not known: {nearest(value, known)}")


__all__ = ["Check", "ModelReport", "ModelRow", "Report", "check_gradient", "check_vjp", "verify_models"]
