"""adamode's own ways. What a way adds to `adamode.solve` is data: an argument that this version does not
know makes the way unavailable, with the reason."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

import adamode
from adamode import ArgumentError, ArgumentTypeError, Backsolve, Direct, Discrete, Interpolating
from adamode.adjoint.dynamics.protocol import Dynamics
from adamode.models.dynamics import AdamODE
from adamode.solvers.device import graphs

from ..cases import Case
from ..job import Counts, Tally, TorchJob, Unavailable
from ..subject import Subject, gradient_call, job, stacked
from ..way import OURS, Way

GRADIENTS: dict[str, Any] = {
    "discrete": Discrete(),
    "discrete-state": Discrete(keep="state"),
    "interpolating": Interpolating(),
    "backsolve": Backsolve(),
    "direct": Direct(),
}
MODES: dict[str, dict[str, Any]] = {
    "": {},
    "compiled": {"compile": True},
    "compiled-sync8": {"compile": True, "sync_every": 8, "captured": False},
    "graph": {"compile": True, "sync_every": 8},
}
GRAPHS = "graph"  # of CUDA
# Forward only, samples that differ: how they step.
STEPPINGS: dict[str, dict[str, Any]] = {
    "shared": {},
    "per-sample": {"stepping": "per_sample"},
    "per-sample-compact": {"stepping": "per_sample", "compact": True},
}


class TalliedDynamics(Dynamics):
    """A dynamics whose evaluations, and VJPs by autograd, are counted: for `Direct`, which keeps no count."""

    def __init__(self, inner: Dynamics):
        self.inner, self.tally = inner, Tally(nn.Identity())

    def theta(self) -> tuple[Tensor, ...]:
        return self.inner.theta()

    def forward(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        self.tally.nfe += 1
        dz, saved = self.inner.forward(t, z)
        return self.tally.seen(dz), saved

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        return self.inner.vjp(saved, cotangent)

    def parameter_gradients(self, saved: list[Any], deltas: list[Any], weights: Tensor | None) -> Any:
        return self.inner.parameter_gradients(saved, deltas, weights)


def solve(func: Any, z0: Tensor, case: Case, *, captured: bool = True, **arguments: Any) -> adamode.Solution:
    """`adamode.solve` at the case's tolerance; Unavailable for arguments that it refuses.

    captured: attempts may be captured as graphs, where the device has such.
    """
    try:
        with contextlib.nullcontext() if captured else mock.patch.dict(graphs.CAPTURES, clear=True):
            return adamode.solve(func, z0, case.t, rtol=case.tol, atol=case.tol, **arguments)
    except (ArgumentTypeError, ArgumentError) as problem:
        raise Unavailable(str(problem)) from problem


def channels_last(case: Case) -> tuple[Any, Tensor]:
    """The dynamics with channels-last kernels, and the state with channels-last strides in each block."""
    dynamics = copy.deepcopy(case.dynamics).to(memory_format=torch.channels_last)
    z0 = case.z0.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    return dynamics, z0


def on_device(name: str, case: Case) -> bool:
    """Whether the case's device knows this way's mode."""
    return GRAPHS not in name.split("/") or case.z0.is_cuda


def gradient_job(case: Case, func: Any, z0: Tensor, arguments: dict[str, Any]) -> TorchJob:
    """Forward and backward; func: a dynamics or a module."""
    theta = tuple(func.theta() if hasattr(func, "theta") else func.parameters())
    last: list[adamode.Solution] = []

    def forward(f: Any, y0: Tensor) -> Tensor:
        last[:] = [solve(f, y0, case, **arguments)]
        return last[0].y[1:]

    subject = Subject(func, z0, case.w, theta, lambda x: x)
    call = gradient_call(subject, forward)

    def count() -> Counts:
        if isinstance(arguments["gradient"], Direct) and not isinstance(func, nn.Module):
            raise TypeError(f"{func!r} cannot be counted")
        if isinstance(arguments["gradient"], Direct):
            tallied = TalliedDynamics(func)
            y0 = z0.detach().requires_grad_()
            torch.autograd.grad((forward(tallied, y0) * case.w).sum(), [y0, *theta])
            return Counts(tallied.tally.nfe, 0, tallied.tally.vjps, int(last[0].stats.n_accepted))
        call()
        stats = last[0].stats
        return Counts(stats.nfe, stats.nfe_recomputed, stats.nfe_backward, int(stats.n_accepted))

    compiled = bool(arguments.get("compile"))
    return TorchJob(call, count, cuda=z0.is_cuda, compiled=compiled)


def forward_job(case: Case, arguments: dict[str, Any]) -> TorchJob:
    """The solution at the end alone."""
    func = case.plain if case.dynamics is None else case.dynamics
    last: list[adamode.Solution] = []

    def call() -> list[Tensor]:
        with torch.no_grad():
            last[:] = [solve(func, case.z0, case, gradient=None, **arguments)]
        return [last[0].y[-1]]

    def count() -> Counts:
        if case.dynamics is not None or arguments.get("compile"):  # compiled, a module cannot count in Python
            call()
            stats = last[0].stats
            nfe, accepted = (int(torch.as_tensor(n).max()) for n in (stats.nfe, stats.n_accepted))
            return Counts(nfe=nfe, accepted=accepted)
        tally = Tally(func)
        with torch.no_grad():
            sol = solve(tally, case.z0, case, gradient=None, **arguments)
        accepted = int(torch.as_tensor(sol.stats.n_accepted).max())
        return Counts(nfe=tally.nfe, rows=tally.rows, accepted=accepted)

    compiled = bool(arguments.get("compile"))
    return TorchJob(call, count, cuda=case.z0.is_cuda, compiled=compiled)


def _gradient_way(name: str, arguments: dict[str, Any], *, layout: bool = False) -> Way:
    def prepare(case: Case, _: Counts | None) -> TorchJob:
        func, z0 = channels_last(case) if layout else (case.dynamics, case.z0)
        return gradient_job(case, func, z0, arguments)

    def fits(case: Case) -> bool:
        fitting = case.kind == "gradient" and not case.users and case.dynamics is not None
        return fitting and (case.convolutional or not layout) and on_device(name, case)

    return Way(name, OURS, prepare, fits, slow="compile" in arguments)


def _forward_way(name: str, arguments: dict[str, Any], *, hetero: bool) -> Way:
    def fits(case: Case) -> bool:
        fitting = case.kind == "forward" and (case.dynamics is None) == hetero
        return fitting and on_device(name, case)

    return Way(name, OURS, lambda case, _: forward_job(case, arguments), fits, slow="compile" in arguments)


def _own_field(case: Case) -> AdamODE:
    """Our dynamics around the user's field: its VJP is autograd's."""
    dynamics = copy.deepcopy(case.dynamics)
    dynamics.field = adamode.models.fields.AutogradField(copy.deepcopy(case.plain.field))
    return dynamics


def _odeint(case: Case) -> TorchJob:
    def forward(f: nn.Module, y0: Tensor) -> Tensor:
        return adamode.odeint(f, y0, case.t, rtol=case.tol, atol=case.tol)[1:]

    return job(case, stacked(case), forward)


def _users_ways() -> list[Way]:
    def fitting(name: str) -> Callable[[Case], bool]:
        return lambda case: case.users and case.kind == "gradient" and on_device(name, case)

    def on_module(arguments: dict[str, Any]) -> Any:
        return lambda case, _: gradient_job(case, case.plain, case.z0, arguments)

    def on_field(arguments: dict[str, Any]) -> Any:
        return lambda case, _: gradient_job(case, _own_field(case), case.z0, arguments)

    found = []
    for mode, extra in MODES.items():
        arguments, end = {"gradient": Discrete(), **extra}, f"/{mode}" if mode else ""
        for kind, make in (("solve-module", on_module), ("own-field", on_field)):
            name = f"adamode/{kind}{end}"
            found.append(Way(name, OURS, make(arguments), fitting(name), slow=bool(extra)))
    odeint = "adamode/odeint"
    found.append(Way(odeint, OURS, lambda case, _: _odeint(case), fitting(odeint)))
    return found


def _fixed_ways() -> list[Way]:
    """Fixed steps, forward only."""

    def by_solve(extra: dict[str, Any]) -> Any:
        def prepare(case: Case, _: Counts | None) -> TorchJob:
            assert case.step is not None
            with warnings.catch_warnings():
                warnings.simplefilter("error", adamode.AdamodeWarning)
                try:
                    return forward_job(case, {"method": case.step[0], "dt": case.step[1], **extra})
                except adamode.AdamodeWarning as declined:  # it would be the way without, under another name
                    raise Unavailable(str(declined)) from declined

        return prepare

    def by_odeint(case: Case, _: Counts | None) -> TorchJob:
        assert case.step is not None
        more = {"method": case.step[0], "options": {"step_size": case.step[1]}}
        return job(case, stacked(case), lambda f, y0: adamode.odeint(f, y0, case.t, **more))

    def fits(case: Case) -> bool:
        return case.kind == "fixed"

    return [
        Way("adamode/fixed/solve", OURS, by_solve({}), fits),
        Way("adamode/fixed/odeint", OURS, by_odeint, fits),
        Way("adamode/fixed/compiled", OURS, by_solve({"compile": True}), fits, slow=True),
    ]


def ways() -> list[Way]:
    """All, the discrete adjoint first: floors repeat its counts."""
    found = []
    for gradient_name, gradient in GRADIENTS.items():
        for mode, extra in MODES.items():
            if extra and gradient_name in ("direct", "discrete-state"):
                continue
            name = "/".join(filter(None, ("adamode", gradient_name, mode)))
            found.append(_gradient_way(name, {"gradient": gradient, **extra}))
            if gradient_name == "discrete":
                found.append(
                    _gradient_way(f"{name}/channels-last", {"gradient": gradient, **extra}, layout=True)
                )
    for mode, extra in MODES.items():
        end = f"/{mode}" if mode else ""
        found.append(_forward_way(f"adamode/forward{end}", extra, hetero=False))
    for stepping, arguments in STEPPINGS.items():
        for mode, extra in MODES.items():
            if extra and arguments.get("compact"):
                continue  # a program is for one batch size
            name = "/".join(filter(None, ("adamode", stepping, mode)))
            found.append(_forward_way(name, {**arguments, **extra}, hetero=True))
    return found + _users_ways() + _fixed_ways()
