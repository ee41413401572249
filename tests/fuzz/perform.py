"""One case as a program: the call, and all that it returns in the form that the exact answer has."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from whole_solves import alone

import adamode
from adamode.solvers.device import natives, programs

from .alphabet import METHODS, Case
from .forms import Field, from_sample, from_state, make_func, make_plain, to_state
from .numbers import Numbers

GRADIENTS = {
    "stages": adamode.Discrete(),
    "state": adamode.Discrete(keep="state"),
    "checkpoints": adamode.Discrete(checkpoints=3),
    "interpolating": adamode.Interpolating(),
    "backsolve": adamode.Backsolve(),
    "direct": adamode.Direct(),
    "none": None,
    "reversible": adamode.Reversible(),
}


@dataclasses.dataclass(frozen=True)
class Leaves:
    """What is differentiated, by name: y0, t, asked, level, theta0, theta1, …"""

    y0: Tensor
    t: Tensor
    asked: Tensor
    level: Tensor
    theta: tuple[Tensor, ...]

    def wanted(self) -> dict[str, Tensor]:
        """Those that want a gradient."""
        named = {"y0": self.y0, "t": self.t, "asked": self.asked, "level": self.level}
        named |= {f"theta{i}": p for i, p in enumerate(self.theta)}
        return {name: x for name, x in named.items() if x.requires_grad}


def leaves_of(case: Case, numbers: Numbers, *, exact: bool) -> Leaves:
    """Fresh ones: for the exact answer in float64 and without NaN, or as the program gets them."""
    dtype = torch.float32 if case.single and not exact else torch.float64
    y0 = numbers.y0.clone()
    if case.quirk == "nan" and not exact:
        y0[-1] = torch.nan

    # With gradient=None they want gradients that nobody gives them: the result is to be detached.
    there = not exact or case.gradient != "none"

    def leaf(x: Tensor, wanted: bool) -> Tensor:
        return x.to(dtype).clone().requires_grad_(wanted and there)

    timed = case.wants_t and case.save != "steps"
    return Leaves(
        leaf(y0, case.wants_y0),
        leaf(numbers.t, timed),
        leaf(numbers.asked, case.wants_t and case.dense),
        leaf(numbers.level, case.own_level),
        tuple(nn.Parameter(p.to(dtype).clone(), case.wants_theta and there) for p in numbers.theta),
    )


@dataclasses.dataclass(frozen=True)
class Found:
    """values by name: y [n, B, D], asked [Q, B, D], slopes (of the dense output) [Q, B, D], event times
    te0, te1, … of each sample [n] and states ye0, … [n, D] (shared: [n, B, D]).

    times: of y, [n] or [n, B].  status: as int, or [B].  field: what func is made of.
    calls_with_grad: how many of func's calls made a graph, where it counts them.
    stats: of `solve`.  tried: what came of whole solves.
    """

    values: dict[str, Tensor]
    times: Tensor
    status: Any
    field: Any
    calls_with_grad: int = 0
    stats: Any = None
    tried: str = ""


def perform(case: Case, numbers: Numbers, leaves: Leaves) -> Found:
    """The call; whatever it raises passes."""
    with surroundings(case) as tried:
        if case.face != "solve":
            field = Field(numbers.flow, case.state, case.func, leaves.theta)
            return _by_the_face(case, numbers, leaves, field)
        if case.compiled == "whole":
            func = make_plain(numbers.flow, case.state, case.func, leaves.theta)
            found = _solved(case, numbers, leaves, func)
            return dataclasses.replace(found, field=func, tried=",".join(tried))
        field = Field(numbers.flow, case.state, case.func, leaves.theta)
        found = _solved(case, numbers, leaves, make_func(field))
        return dataclasses.replace(found, field=field, calls_with_grad=field.calls_with_grad)


def perform_eagerly(case: Case, numbers: Numbers, leaves: Leaves) -> Found:
    """The func of a case that is compiled, without; each attempt looked at, since one made in vain counts."""
    case = dataclasses.replace(case, compiled="no", sync_every=1)
    with surroundings(case):
        func = make_plain(numbers.flow, case.state, case.func, leaves.theta)
        return _solved(case, numbers, leaves, func)


@contextlib.contextmanager
def surroundings(case: Case) -> Iterator[list[str]]:
    """Warnings are errors, but for our own; where the case says so, the default device is another one.

    No program is compiled to native code. What comes of each whole solve that is tried.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", adamode.AdamodeWarning)
        tried: list[str] = []
        if case.compiled == "whole":
            tried = stack.enter_context(alone())
        elif case.compiled == "attempts":
            stack.enter_context(mock.patch.object(natives, "MODE", "off"))
            stack.enter_context(mock.patch.object(programs, "BACKEND", "aot_eager"))
        if case.quirk == "device":
            stack.enter_context(torch.device("meta"))
        yield tried


def _norm(case: Case) -> Any:
    """A named one, a signed one (its modulus counts), the user's own rms, or one that is NaN."""

    def per_sample(z: Any) -> Tensor:
        y = from_state(case.state, z)
        return y.pow(2).mean(-1).sqrt()

    def signed(z: Any) -> Tensor:
        rms = per_sample(z)
        return -rms if case.per_sample else -rms.max()

    def own(z: Any) -> Tensor:
        rms = per_sample(z)
        return rms if case.per_sample else rms.max()

    def nothing(z: Any) -> Tensor:
        return own(z) * torch.nan

    return {"signed": signed, "own": own, "nan": nothing}.get(case.norm, case.norm)


def _event_fn(case: Case, numbers: Numbers, leaves: Leaves) -> Any:
    """fn(t, y) as Event wants it: a number, or one a sample."""
    zero, level = numbers.zero, leaves.level + (1e3 if case.quirk == "never" else 0.0)
    assert zero is not None

    def fn(t: Tensor, state: Any) -> Tensor:
        y = from_state(case.state, state)
        if case.per_sample:
            return zero.value(t.reshape(-1), y, level)
        return zero.value(t, y[0], level)

    return fn


def _solved(case: Case, numbers: Numbers, leaves: Leaves, func: Any) -> Found:
    options: dict[str, Any] = {
        "method": case.method,
        "rtol": case.rtol,
        "atol": case.rtol,
        "stepping": case.stepping if case.groups is None else torch.tensor(case.groups, device="cpu"),
        "gradient": GRADIENTS[case.gradient],
        "save": case.save,
        "dense": case.dense,
        "compact": case.compact,
        "sync_every": case.sync_every,
        "norm": _norm(case),
        "compile": case.compiled != "no",
    }
    if case.fixed:
        options["dt"] = case.dt * numbers.span
    if case.dt_max:
        options["controller"] = adamode.PI(dt_max=case.dt_max * numbers.span)
    if case.quirk == "first":
        options["dt0"] = numbers.span
    if numbers.stops:
        options["jump_at"] = list(numbers.stops)
    if case.stops:
        options["step_at"] = [0.3, 0.8]
    if case.events:
        fn = _event_fn(case, numbers, leaves)
        options["events"] = adamode.Event(fn, terminal=case.terminal, direction=case.direction)
    y0 = to_state(case.state, leaves.y0)
    sol = adamode.solve(func, y0, leaves.t, **options)
    values = {"y": from_state(case.state, sol.y)}
    if case.dense:
        own = leaves.asked.dim() == 2
        values["asked"] = from_state(case.state, sol(leaves.asked, per_sample=own))
        values["slopes"] = from_state(case.state, sol.derivative(leaves.asked, per_sample=own))
    if case.events and case.per_sample:
        for b, (when, state) in enumerate(zip(sol.t_events[0], sol.y_events[0], strict=True)):
            values[f"te{b}"], values[f"ye{b}"] = when, from_sample(case.state, state)
    elif case.events:
        values["te0"] = sol.t_events[0]
        values["ye0"] = from_state(case.state, sol.y_events[0])
    return Found(values, sol.t.detach().double(), sol.status, func, stats=sol.stats)


def _by_the_face(case: Case, numbers: Numbers, leaves: Leaves, field: Field) -> Found:
    options: dict[str, Any] = {}
    if METHODS[case.method] is None:
        options["step_size"] = case.dt * numbers.span
    else:
        if case.quirk == "first":
            options["first_step"] = numbers.span
        if case.dt_max:
            options["max_step"] = case.dt_max * numbers.span
        if numbers.stops:
            options["jump_t"] = torch.tensor(numbers.stops, dtype=torch.float64, device="cpu")
        if case.stops:
            options["step_t"] = torch.tensor([0.3, 0.8], dtype=torch.float64, device="cpu")
        if case.norm in ("signed", "own", "nan"):
            options["norm"] = _norm(case)
    adjoint = case.gradient == "backsolve"
    more = {"rtol": case.rtol, "atol": case.rtol, "method": case.method, "options": options}
    if adjoint:
        more["adjoint_params"] = tuple(p for p in leaves.theta if p.requires_grad)
    call = adamode.odeint_adjoint if adjoint else adamode.odeint
    func, y0 = make_func(field), to_state(case.state, leaves.y0)
    if case.face != "odeint_event":
        y = call(func, y0, leaves.t, **more)
        return Found(
            {"y": from_state(case.state, y)}, leaves.t.detach().double(), 0, field, field.calls_with_grad
        )
    when, state = adamode.odeint_event(
        func,
        y0,
        leaves.t[0],
        event_fn=_event_fn(case, numbers, leaves),
        reverse_time=case.backwards,
        odeint_interface=call,
        **more,
    )
    y = from_state(case.state, state)
    values = {"y": y[:1], "te0": when.reshape(1), "ye0": y[1:]}
    return Found(values, leaves.t[:1].detach().double(), 0, field, field.calls_with_grad)
