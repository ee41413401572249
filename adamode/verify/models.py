"""`verify_models`: the nine models, each against its references, by variant, gradient and stepping mode."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..adjoint.gradients import Backsolve, Direct, Discrete, Gradient, Interpolating, Reversible
from ..adjoint.proof.comparisons import BOUND_EXACT, Check, compare
from ..adjoint.proof.references import References, gradient_checks
from ..adjoint.proof.solves import GradientProblem
from ..known import GRADIENTS
from ..models.dynamics.adamnode import FORMS
from ..solvers.errors import AdamodeError, check_choice
from .analytic import closed_solution, has_closed_solution
from .rows import ModelReport, ModelRow, PrintedError
from .statements import check_statements
from .zoo import Instance, Variant, chosen_variants

STEPPINGS = ("shared", "per_sample")
CHOICES: dict[str, Gradient] = {
    "discrete": Discrete(),
    "discrete-state": Discrete(keep="state"),
    "discrete-checkpoints": Discrete(checkpoints=2),
    "interpolating": Interpolating(),
    "backsolve": Backsolve(),
    "reversible": Reversible(),
}
CONTINUOUS = ("interpolating", "backsolve")
DISCRETE = tuple(name for name, choice in CHOICES.items() if isinstance(choice, Discrete))
# Implicit methods are checked along two steps, of which one has an output inside, with equations solved to
# rounding: what Newton's iteration leaves is the only difference between both gradients.
IMPLICIT, LENGTH, SOLVED = ("kvaerno5", "radau5"), 0.5, 1e-12
# `Discrete` is exact at any tolerance, and is checked where its steps are large. What follows the
# tolerance must reach 1e-7 at the tight one, and all must against the solution itself.
LOOSE, TIGHT, FINE = 1e-6, 1e-10, 1e-12
BOUND_TIGHT = 1e-7
BOUND_FORWARD = 1e-13  # both are derivatives of the same steps


class VerificationError(AdamodeError, RuntimeError):
    """A model raised where a gradient was expected: it fails the verification.

    The message names the model and its variant; ``__cause__`` is what it raised.
    """


@dataclasses.dataclass(frozen=True)
class Plan:
    """How one instance is checked.

    Of the discrete adjoints along large steps: loose_method, loose (tolerance). Of what follows the
    tolerance: tight_method, tight, and its bound.  implicit: also along implicit steps.
    """

    instance: Instance
    loose_method: str = "dopri5"
    tight_method: str = "dop853"
    loose: float = LOOSE
    tight: float = TIGHT
    bound: float = BOUND_TIGHT
    times: tuple[float, ...] = (0.0, 0.37, 1.0)
    implicit: bool = True

    def problem(
        self, tolerance: float, method: str, stepping: str, dt: float | None = None
    ) -> tuple[Any, GradientProblem]:
        """The instance's solve at a tolerance, or by fixed steps."""
        arguments = {"rtol": tolerance, "atol": tolerance, "method": method, "stepping": stepping}
        return self.instance.problem(**arguments, t=self.times, **({} if dt is None else {"dt": dt}))


def verify_models(
    *,
    models: Iterable[str] | None = None,
    denominators: Iterable[str] | None = None,
    activations: Iterable[str] | None = None,
    forms: Iterable[str] = FORMS,
    gradients: Iterable[str] = GRADIENTS,
    full: bool = False,
    seed: int = 0,
    seeds_printed: int = 8,
    device: str = "cpu",
) -> ModelReport:
    """Checks the models' hand-derived gradients, in float64 and both stepping modes.

    models: None for all.
    denominators: AdamNODE's; None for all.
    activations: GHBNODE's and GNesterovNODE's; None for all.
    forms: of AdamODE's VJP; those that are not "exact" are measured and not judged.
    gradients: by name; "discrete" and the others of `GRADIENTS`.
    seed: of the weights, the states and the cotangents.
    device: where it computes.
    full: every adaptive method, other fields, decreasing times and three seeds besides.
    seeds_printed: problems over which the printed forms' errors are summed up.
    Raises ArgumentError for an unknown name, with the nearest, VerificationError where a model raises.
    """
    forms, gradients = tuple(forms), tuple(gradients)
    for form in forms:
        check_choice("form", form, FORMS)
    for gradient in gradients:
        check_choice("gradient", gradient, GRADIENTS)
    variants = chosen_variants(
        *(None if x is None else tuple(x) for x in (models, denominators, activations))
    )
    if "exact" not in forms:  # the others are AdamODE's alone
        variants = tuple(v for v in variants if v.model == "adamnode")
    rows: list[ModelRow] = []
    for variant in variants:
        for plan in plans(variant, seed, device, full=full):
            try:
                rows += plan_rows(plan, gradients, forms if variant.model == "adamnode" else ("exact",))
            except Exception as error:  # a model's, since the arguments are known to be right
                raise VerificationError(f"{variant}: {type(error).__name__}: {error}") from error
    adam = any(v.model == "adamnode" for v in variants)
    printed = tuple(printed_error(f, range(seeds_printed), device) for f in forms if adam and f != "exact")
    return ModelReport(tuple(rows), printed, check_statements(device) if printed else ())


def plans(variant: Variant, seed: int, device: str, *, full: bool) -> Iterator[Plan]:
    """One plan, or (full) the product with fields, methods, directions of time and seeds."""
    yield Plan(Instance(variant, seed, device=device))
    if not full:
        return
    for field in ("conv", "autograd", "scaled"):
        yield Plan(Instance(variant, seed, field, device))
    for loose, large, tight, small in (
        ("bosh3", 1e-4, "tsit5", 1e-9),
        ("adaptive_heun", 1e-3, "dopri5", 1e-9),
        ("fehlberg2", 1e-3, "bosh3", 1e-6),
        ("tsit5", 1e-6, "dopri8", 1e-10),
        ("dopri8", 1e-6, "dop853", 1e-11),
        ("dop853", 1e-6, "dop853", 1e-8),
    ):
        instance, bound = Instance(variant, seed + 1, device=device), max(1e3 * small, BOUND_TIGHT)
        yield Plan(instance, loose, tight, large, small, bound, implicit=False)
    for more in (1, 2):
        yield Plan(Instance(variant, seed + more, device=device))
    yield Plan(Instance(variant, seed, device=device, least=5.0), times=(1.0, 0.7, 0.5))


def plan_rows(plan: Plan, gradients: Sequence[str], forms: Sequence[str]) -> list[ModelRow]:
    """All comparisons of one instance; the fine solve and the closed solution are shared by all."""
    rows: list[ModelRow] = []
    tight = tuple(g for g in gradients if g in ("discrete", *CONTINUOUS))
    judged = "exact" in forms
    fine = None
    if tight and judged:
        _, problem = plan.problem(FINE, "dop853", "shared")
        fine = problem.gradient(Direct())
    for stepping in STEPPINGS:
        rows += _loose_rows(plan, stepping, [g for g in gradients if g in DISCRETE], forms)
        rows += _tight_rows(plan, stepping, tight, forms, fine)
        if judged:
            rows += _analytic_rows(plan, stepping, tight)
            if "reversible" in gradients:
                rows += _reversible_rows(plan, stepping)
    if judged and plan.implicit and all(row.ok is not False for row in rows):
        # A VJP that is wrong leaves no transposed equations to solve.
        rows += _implicit_rows(plan, [g for g in gradients if g in DISCRETE])
    return rows


def _implicit_rows(plan: Plan, gradients: Sequence[str]) -> list[ModelRow]:
    """The transposed equations of implicit steps against autograd through solved ones,: two of
    Newton's own corrections at the solution, with their graph."""
    rows: list[ModelRow] = []
    for stepping in STEPPINGS if gradients else ():
        for method in IMPLICIT:
            _, problem = plan.problem(SOLVED, method, stepping, LENGTH * abs(plan.times[-1] - plan.times[0]))
            expected = problem.gradient(Direct())
            for gradient in gradients:
                found = problem.gradient(CHOICES[gradient])
                checks = _compared(problem, "newton", found, expected, BOUND_EXACT)
                rows += _rows(plan, method, stepping, gradient, "exact", checks)
    return rows


def _reversible_rows(plan: Plan, stepping: str) -> list[ModelRow]:
    """The gradient with rebuilt states against autograd through the same steps of a pair."""
    choice = CHOICES["reversible"]
    assert isinstance(choice, Reversible)
    _, problem = plan.problem(plan.loose, plan.loose_method, stepping)
    expected = problem.gradient(Direct(choice.coupling))
    checks = _compared(problem, "autograd", problem.gradient(choice), expected, BOUND_EXACT)
    return _rows(plan, plan.loose_method, stepping, "reversible", "exact", checks)


def _loose_rows(plan: Plan, stepping: str, gradients: Sequence[str], forms: Sequence[str]) -> list[ModelRow]:
    """The discrete adjoints against autograd and differences through the same large steps."""
    if not gradients:
        return []
    dynamics, problem = plan.problem(plan.loose, plan.loose_method, stepping)
    references = problem.references(entries=0 if "exact" in forms else None)
    rows = []
    for gradient in gradients:
        for form in forms:
            found = _gradient(dynamics, problem, gradient, form)
            checks = _against(found, references, BOUND_EXACT if form == "exact" else None)
            if form == "exact":
                checks += _forwards(problem, found)
            rows += _rows(plan, plan.loose_method, stepping, gradient, form, checks)
    return rows


def _tight_rows(
    plan: Plan, stepping: str, gradients: Sequence[str], forms: Sequence[str], fine: Any
) -> list[ModelRow]:
    """The continuous adjoints against autograd and differences, and all against the fine solve."""
    if not gradients:
        return []
    dynamics, problem = plan.problem(plan.tight, plan.tight_method, stepping)
    continuous = [g for g in gradients if g in CONTINUOUS]
    references = problem.references(entries=0 if "exact" in forms else None) if continuous else None
    rows: list[ModelRow] = []
    for gradient in gradients:
        for form in forms if gradient in continuous else ("exact",):
            if form == "exact" and fine is None:
                continue
            found, checks = _gradient(dynamics, problem, gradient, form), []
            if references is not None and gradient in continuous:
                checks += _against(found, references, plan.bound if form == "exact" else None)
            if form == "exact":
                checks += _compared(problem, "fine-solve", found, fine, plan.bound)
            rows += _rows(plan, plan.tight_method, stepping, gradient, form, checks)
    return rows


def _analytic_rows(plan: Plan, stepping: str, gradients: Sequence[str]) -> list[ModelRow]:
    """Against the closed solution of the same model over an affine field."""
    instance = dataclasses.replace(plan.instance, field="affine")
    if not has_closed_solution(instance) or plan.instance.field != "mlp":
        return []
    affine = dataclasses.replace(plan, instance=instance)
    dynamics, problem = affine.problem(plan.tight, plan.tight_method, stepping)
    exact = problem.gradient_of(closed_solution(instance, dynamics))
    rows: list[ModelRow] = []
    for gradient in gradients:
        checks = _compared(problem, "analytic", problem.gradient(CHOICES[gradient]), exact, plan.bound)
        rows += _rows(affine, plan.tight_method, stepping, gradient, "exact", checks)
    return rows


def _gradient(dynamics: Any, problem: GradientProblem, gradient: str, form: str) -> tuple[Tensor, ...]:
    if form == "exact":
        return problem.gradient(CHOICES[gradient])
    dynamics.adjoint_form = form
    try:
        return problem.gradient(CHOICES[gradient])
    finally:
        dynamics.adjoint_form = "exact"


def _against(found: Any, references: References, bound: float | None) -> list[Check]:
    return gradient_checks(found, references, bound, direction="finite-differences")


def _forwards(problem: GradientProblem, found: Sequence[Tensor]) -> list[Check]:
    """⟨J u, w⟩ by forward mode against ⟨u, Jᵀ w⟩, u of each quantity, and of all at once, along the signs of
    the gradient: nothing cancels."""
    ahead = problem.forward([x.sign() for x in found], Discrete())
    names = [*(q.name for q in problem.quantities()), "all"]
    sums = [x.abs().sum() for x in found]
    triples = zip(names, [*sums, torch.stack(sums).sum()], ahead, strict=True)
    return [compare(name, "forward", x[None], along[None], BOUND_FORWARD) for name, x, along in triples]


def _compared(
    problem: GradientProblem, reference: str, found: Any, expected: Any, bound: float
) -> list[Check]:
    triples = zip(problem.quantities(), found, expected, strict=True)
    return [compare(q.name, reference, got, want, bound) for q, got, want in triples]


def _rows(
    plan: Plan, method: str, stepping: str, gradient: str, form: str, checks: Sequence[Check]
) -> list[ModelRow]:
    v = plan.instance.variant
    choices = v.model, v.denominator, v.activation, v.damping
    what = *choices, plan.instance.field, method, gradient, stepping, form
    return [ModelRow(*what, **vars(check), ok=check.ok) for check in checks]


def printed_error(form: str, seeds: Iterable[int], device: str = "cpu") -> PrintedError:
    """How far dL/dz(t0) is off under a printed form, exact denominator, discrete adjoint."""
    whole, h_block = [], []
    for seed in seeds:
        instance = Instance(Variant("adamnode", "exact"), seed, device=device)
        dynamics, problem = instance.problem(rtol=LOOSE, atol=LOOSE)
        exact = torch.stack(problem.gradient(Discrete())[:3])
        found = torch.stack(_gradient(dynamics, problem, "discrete", form)[:3])
        whole.append(((found - exact).norm() / exact.norm()).item())
        h_block.append(((found[0] - exact[0]).norm() / exact[0].norm()).item())
    return PrintedError(form, tuple(whole), tuple(h_block))
