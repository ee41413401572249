"""Published gradients by every adjoint, and a published Hessian through the steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ...adjoint.arguments import STEPPINGS, Stepping
from ...adjoint.gradients import Backsolve, Direct, Reversible
from ...adjoint.solve import solve
from ...adjoint.torchdiffeq.odeint import odeint
from ..models import CHOICES
from .gradient_values import (
    HESSIAN_AT,
    HESSIAN_SPAN,
    HESSIAN_START,
    HESSIAN_VALUES,
    LOTKA_VOLTERRA_GRADIENT,
    ROBERTSON_GRADIENT,
    Expected,
    LotkaVolterra,
    Robertson,
    hessian_field,
)
from .report import PublishedRow
from .value import error_of

METHOD, RTOL, ATOL = "dop853", 1e-12, 1e-14
ADJOINTS = {
    n: choice for n, choice in {**CHOICES, "direct": Direct()}.items() if not isinstance(choice, Reversible)
}
STIFF_METHODS, STIFF_RTOL, STIFF_ATOL = ("kvaerno5", "radau5"), 1e-7, 1e-13
LOTKA_VOLTERRA, ROBERTSON = "lotka-volterra-gradient", "robertson-gradient"
HESSIAN = "cvodes-hessian"
GRADIENT_PROBLEMS = (LOTKA_VOLTERRA, ROBERTSON, HESSIAN)


def gradient_rows(problems: Sequence[str], device: str, say: Callable[[str], None]) -> Iterator[PublishedRow]:
    """The rows of the problems named, with dop853 at rtol 1e-12; Robertson's by implicit methods, at 1e-7."""
    if LOTKA_VOLTERRA in problems:
        say(LOTKA_VOLTERRA)
        for stepping in STEPPINGS:
            for name, choice in ADJOINTS.items():
                found, nfe = lotka_volterra(choice, stepping, device)
                for expected in LOTKA_VOLTERRA_GRADIENT:
                    yield _row(LOTKA_VOLTERRA, found, expected, nfe, f"{name}, {stepping}")
    if ROBERTSON in problems:
        say(ROBERTSON)
        for method in STIFF_METHODS:
            for stepping in STEPPINGS:
                yield from robertson_rows(method, stepping, device)
    if HESSIAN in problems:
        say(HESSIAN)
        for name in ("direct", "odeint"):
            parts, nfe = cvodes_hessian(name, device)
            for part, references in HESSIAN_VALUES.items():
                for expected in references:
                    yield _row(f"cvodes-{part}", parts[part], expected, nfe, name)


def robertson_rows(method: str, stepping: Stepping, device: str) -> Iterator[PublishedRow]:
    """By every adjoint that stiff problems have: what contracts grows backwards, so backsolve is left out."""
    for name, choice in ADJOINTS.items():
        if isinstance(choice, Backsolve):
            continue
        found, nfe = robertson(choice, method, stepping, device)
        for expected in ROBERTSON_GRADIENT:
            ones = dataclasses.replace(expected, values=(1.0,) * len(expected.values))
            share = found / torch.tensor(expected.values, dtype=torch.float64)
            row = _row(ROBERTSON, share, ones, nfe, f"{method}, {name}, {stepping}")
            yield dataclasses.replace(row, method=method, rtol=STIFF_RTOL)


def robertson(choice: Any, method: str, stepping: Stepping, device: str = "cpu") -> tuple[Tensor, int]:
    """dG/dp, [3]; how often f was called, in the backward pass too."""
    field = Robertson().to(device)
    y0 = torch.tensor([field.start], dtype=torch.float64, device=device)
    t = torch.tensor(field.span, dtype=torch.float64)
    options: dict[str, Any] = {"method": method, "rtol": STIFF_RTOL, "atol": STIFF_ATOL, "stepping": stepping}
    found = solve(field, y0, t, gradient=choice, **options)
    found.y[-1, 0, 3].backward()
    assert field.p.grad is not None
    return field.p.grad.cpu(), _calls(found.stats)


def _calls(stats: Any) -> int:
    """Of f, in both directions; per sample every statistic is [1]."""
    return int(torch.as_tensor(stats.nfe).sum() + torch.as_tensor(stats.nfe_backward).sum())


def lotka_volterra(choice: Any, stepping: Stepping, device: str = "cpu") -> tuple[Tensor, int]:
    """dG/dy(0) and dG/dp, [6]; how often f was called, in the backward pass too."""
    field = LotkaVolterra().to(device)
    y0 = torch.tensor([field.start], dtype=torch.float64, device=device, requires_grad=True)
    t = torch.tensor(field.span, dtype=torch.float64)
    found = solve(field, y0, t, method=METHOD, rtol=RTOL, atol=ATOL, gradient=choice, stepping=stepping)
    ((found.y[-1] - 1).square().sum() / 2).backward()
    assert y0.grad is not None
    assert field.p.grad is not None
    return torch.cat((y0.grad[0], field.p.grad)).cpu(), _calls(found.stats)


def cvodes_hessian(name: str, device: str = "cpu") -> tuple[dict[str, Tensor], int]:
    """Of G = ∫‖y‖²/2: "end" y(2), "integral" G, "gradient" dG/dp, "hessian" d²G/dp² row by row; calls of f.

    name: "direct" for solve with Direct(), "odeint" for odeint.
    """
    p = torch.tensor(HESSIAN_AT, dtype=torch.float64, device=device, requires_grad=True)
    y0 = torch.tensor(HESSIAN_START, dtype=torch.float64, device=device)
    t = torch.tensor(HESSIAN_SPAN, dtype=torch.float64)
    calls = 0

    def f(t: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return hessian_field(t, y, p)

    if name == "direct":
        end = solve(f, y0, t, method=METHOD, rtol=RTOL, atol=ATOL, gradient=Direct(), params=(p,)).y[-1]
    else:
        end = odeint(f, y0, t.to(device), method=METHOD, rtol=RTOL, atol=ATOL)[-1]
    (gradient,) = torch.autograd.grad(end[3], p, create_graph=True)
    rows = [torch.autograd.grad(g, p, retain_graph=True)[0] for g in gradient]
    parts = {"end": end[:3], "integral": end[3:], "gradient": gradient, "hessian": torch.cat(rows)}
    return {part: value.detach().cpu() for part, value in parts.items()}, calls


def _row(problem: str, found: Tensor, expected: Expected, nfe: int, gradient: str) -> PublishedRow:
    return PublishedRow(
        problem,
        METHOD,
        RTOL,
        error_of(found, expected.values),
        expected.bound,
        nfe,
        expected.source,
        expected.reason,
        gradient=gradient,
    )
