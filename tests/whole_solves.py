"""Whole-solve programs as the plain functions that they are made of, and whether a solve was made by one."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import warnings
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from adamode import solve
from adamode.adjoint.engine import differentiate, speed
from adamode.adjoint.engine.problem import Speed
from adamode.adjoint.engine.whole import WholeSolve
from adamode.solvers.device import natives, programs
from adamode.solvers.methods import METHODS

COUNTS = ("nfe", "n_calls", "n_accepted", "n_rejected", "nfe_backward")


class Shared(nn.Module):
    """A user's module with all that a program must tell apart: a layer used twice, one that is frozen, a
    buffer, a parameter that gets no gradient, time in it. Each entry of the state has a number of its own."""

    def __init__(self, dtype: torch.dtype = torch.float64):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.7, dtype=dtype))
        self.twice = nn.Parameter(torch.tensor(1.3, dtype=dtype))
        self.frozen = nn.Parameter(torch.tensor(0.4, dtype=dtype), requires_grad=False)
        self.idle = nn.Parameter(torch.tensor(2.0, dtype=dtype))
        self.register_buffer("wave", torch.tensor(1.1, dtype=dtype))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        drive = torch.cos(self.wave * t) * torch.sin(self.twice * y)
        return self.twice * drive - self.rate * torch.tanh(y) + self.frozen * torch.cos(3 * t)


class Given(nn.Module):
    """dy/dt is memory that was there before."""

    def __init__(self, what: str):
        super().__init__()
        self.what, self.slope = what, nn.Parameter(torch.linspace(-1.0, 1.0, 6).double().view(2, 3))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        if self.what == "a parameter":
            return self.slope
        return {"y": y, "a view of y": y.view(-1).view(y.shape), "y transposed twice": y.t().t()}[self.what]


@contextlib.contextmanager
def plain() -> Iterator[list[bool]]:
    """Programs are the plain functions, and so are those that take their place where a solve does not arrive.
    Of each solve that could be one: whether it was."""
    made: list[bool] = []
    forward = WholeSolve.forward

    def watched(self: WholeSolve) -> Any:
        found = forward(self)
        made.append(found is not None)
        return found

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(natives, "MODE", "plain"))
        stack.enter_context(mock.patch.object(programs, "BACKEND", "eager"))
        stack.enter_context(mock.patch.object(WholeSolve, "forward", watched))
        yield made


@contextlib.contextmanager
def alone() -> Iterator[list[str]]:
    """As `plain`, but what is no whole solve is stepped without a program: those of before are compiled, for
    seconds, by each case anew.

    Of each solve that could be whole: "made", "stranded" where it did not arrive, or why there is no program.
    """
    tried: list[str] = []

    def uncompiled(problem: Any, gradient: Any) -> Any:
        wish = dataclasses.replace(problem.speed, compile=False)
        own = dataclasses.replace(problem, speed=wish)
        return None if wish == Speed() else speed.queue_for(own, gradient)

    with plain(), mock.patch.object(differentiate, "queue_for", uncompiled):
        forward = WholeSolve.forward

        def watched(self: WholeSolve) -> Any:
            tried.append("stranded")
            found = forward(self)
            tried[-1] = "made"
            return found

        def said(self: natives.Natives, owner: Any, reason: str) -> None:
            tried[-1] = reason

        with (
            mock.patch.object(WholeSolve, "forward", watched),
            mock.patch.object(natives.Natives, "say", said),
        ):
            yield tried


def answer(func: Any, y0: Tensor, t: Tensor, *, wants: str = "y0 t theta", **options: Any) -> dict[str, Any]:
    """What a solve gives, by name: values, counts, step sizes, status, gradients of those that are wanted,
    or the error that it raises."""
    y0 = y0.detach().requires_grad_("y0" in wants)
    t = t.detach().clone().requires_grad_("t" in wants.split())
    theta = [p for p in func.parameters() if p.requires_grad] if "theta" in wants else []
    names = [name for name, p in func.named_parameters() if p.requires_grad] if "theta" in wants else []
    try:
        sol = solve(func, y0, t, **options)
        found = {"y": sol.y.detach(), "status": sol.status, "sol.t": sol.t.detach()}
        if sol.y.requires_grad:
            leaves = [x for x in (y0, t) if x.requires_grad] + theta
            kept = torch.nan_to_num(sol.y)
            weights = torch.cos(torch.arange(kept.numel(), dtype=kept.dtype)).reshape(kept.shape)
            grads = torch.autograd.grad((torch.sin(kept) * weights).sum(), leaves, allow_unused=True)
            told = [*(["y0"] if y0.requires_grad else []), *(["t"] if t.requires_grad else []), *names]
            found |= {f"dL/d{name}": g for name, g in zip(told, grads, strict=True)}
    except Exception as error:  # what is compared with the eager way's
        return {"error": type(error), "text": str(error)}
    found |= {name: getattr(sol.stats, name) for name in COUNTS}
    return found | {"dt_first": sol.stats.dt_first, "dt_last": sol.stats.dt_last}


def differences(found: dict[str, Any], expected: dict[str, Any], bound: float) -> list[str]:
    """What is not alike: numbers to within the bound, relative to the largest entry; all else exactly."""
    wrong = [] if found.keys() == expected.keys() else [f"{sorted(found)} for {sorted(expected)}"]
    for name in found.keys() & expected.keys():
        x, y = found[name], expected[name]
        if isinstance(y, float | Tensor) and not isinstance(x, type(y)):
            wrong.append(f"{name} is {x!r} for {y!r}")
        elif isinstance(y, float | Tensor) and torch.as_tensor(y).is_floating_point():
            x, y = torch.as_tensor(x), torch.as_tensor(y)
            if (x.shape, x.dtype) != (y.shape, y.dtype) or not torch.equal(x.isnan(), y.isnan()):
                wrong.append(f"{name} is {x} for {y}")
                continue
            off = (torch.nan_to_num(x) - torch.nan_to_num(y)).abs()
            most = bound * max(1.0, float(torch.nan_to_num(y).abs().max())) if y.numel() else 0.0
            if name == "dt_last":  # the error estimate of a method of high order is little but rounding:
                most = math.inf if bound > 1e-6 else 1e5 * most  # in float32 nothing else
            if name == "reconstruction_error":  # in tolerances, of a difference
                most = math.inf if bound > 1e-6 else 1e4 * most
            if off.numel() and not float(off.max()) <= most:
                wrong.append(f"{name} is {float(off.max()):.1e} off: {x} for {y}")
        elif isinstance(y, Tensor):
            same = x.dtype == y.dtype and torch.equal(x, y)
            wrong += [] if same else [f"{name} is {x} for {y}"]
        elif name == "text":  # but for its numbers
            wrong += [] if re.sub(r"[\d.e+-]+", "", x) == re.sub(r"[\d.e+-]+", "", y) else [f"{x} for {y}"]
        elif x != y or type(x) is not type(y):
            wrong.append(f"{name} is {x!r} for {y!r}")
    return wrong


def walks_alike(more: int, method: str, stepping: str) -> bool:
    """Whether a discrete walk may take so many VJPs more than the eager one.

    The eager walk of one clock spares the last stage's VJP where nothing comes through it; that of a clock a
    sample walks through attempts that nobody accepted, which here are not kept.
    """
    return (
        0 <= more <= 1 if stepping == "shared" else more <= 0 and more % (METHODS[method].n_stages - 1) == 0
    )


def compared(
    func: Any, y0: Tensor, t: Tensor, *, bound: float = 1e-10, whole: bool | None = True, **options: Any
) -> dict[str, Any]:
    """The answer by whole programs, held against the eager one.

    whole: whether it must have been made by them; None: as may be.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if whole is not True else "error")
        expected = answer(func, y0, t, **options)
        with plain() as made:
            found = answer(func, y0, t, compile=True, **options)
    assert whole is None or made == [whole] or (whole is False and made == []), (made, found)
    if "nfe_backward" in found and "nfe_backward" in expected:
        more = found["nfe_backward"] - expected["nfe_backward"]
        assert walks_alike(more, options["method"], options.get("stepping", "shared")), more
        found = {**found, "nfe_backward": expected["nfe_backward"]}
    wrong = differences(found, expected, bound)
    assert wrong == [], wrong
    return found
