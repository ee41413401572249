"""The choices of one case, drawn from a seed; what cannot stand together is put right, not thrown away."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

from .flows import FLOWS
from .forms import FUNCS, REFUSED_FUNCS, STATES
from .zeros import KINDS

# method → the tolerance that it is asked for; None: no error estimate
METHODS: dict[str, float | None] = {
    "dopri5": 1e-7,
    "tsit5": 1e-7,
    "dop853": 1e-9,
    "dopri8": 1e-9,
    "bosh3": 1e-5,
    "adaptive_heun": 1e-4,
    "fehlberg2": 1e-4,
    "rk4": None,
    "rk4_classic": None,
    "heun2": None,
    "heun3": None,
    "midpoint": None,
    "euler": None,
}
FINE = ("dopri5", "tsit5", "dop853", "dopri8")  # asked for seven digits and more
LOW = ("euler", "midpoint", "heun2", "adaptive_heun", "fehlberg2")  # of order 1 and 2
GRADIENTS = ("stages", "state", "checkpoints", "interpolating", "backsolve", "direct", "none", "reversible")
TIMES = ("shared", "own", "padded", "stay_one", "stay_all")
COMPILED = ("no", "whole", "attempts")
NORMS = ("rms", "max", "blocks", "signed", "own", "nan")
# Functions that a program can be made of: they keep nothing from call to call
COMPARABLE = ("module", "hand", "view", "expanded", "itself", "after")
# What a whole solve cannot be made with, and what it is made with instead
INSTEAD = {
    "flow": {"jump": "wave"},
    "state": {"tuple": "BD", "dict": "BD"},
    "stepping": {"groups": "per_sample"},
    "gradient": {"checkpoints": "state", "direct": "stages", "reversible": "state"},
    "save": {"steps": "times"},
    "norm": {"own": "rms", "signed": "rms"},
    "quirk": {"transform": "none"},
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One program. dt: part of the span that a fixed step takes (0: adaptive). dt_max: the same for the
    longest step (0: none). compiled: "whole": by whole-solve programs, run as the functions that they are
    made of; "attempts": by those of single attempts; "no". quirk: what is around the solve ("device": another
    default device; "nan": one sample starts with NaN; "first": a first step as long as the span;
    "transform": torch.func.grad; "never": an event that does not come)."""

    seed: int
    number: int
    flow: str = "linear"
    face: str = "solve"
    method: str = "dopri5"
    stepping: str = "shared"
    gradient: str = "stages"
    state: str = "BD"
    func: str = "closure"
    backwards: bool = False
    single: bool = False
    batch: int = 2
    times: str = "shared"
    n_times: int = 3
    save: str = "times"
    dt: float = 0.0
    dt_max: float = 0.0
    dense: bool = False
    compact: bool = False
    sync_every: int = 1
    compiled: str = "no"
    norm: str = "rms"
    stops: bool = False
    event: str = "none"
    terminal: bool = False
    direction: int = 0
    own_level: bool = False
    loss: str = "y"
    wants_t: bool = False
    wants_y0: bool = True
    wants_theta: bool = True
    quirk: str = "none"

    @property
    def per_sample(self) -> bool:
        return self.stepping != "shared"

    @property
    def groups(self) -> list[int] | None:
        """Numbers of the groups; samples with times of their own are groups of one."""
        if self.stepping != "groups":
            return None
        return [b % 2 - 1 if self.times == "shared" else b for b in range(self.batch)]

    @property
    def events(self) -> bool:
        return self.event != "none"

    @property
    def fixed(self) -> bool:
        return self.dt > 0

    @property
    def rtol(self) -> float:
        tol = METHODS[self.method] or 1e-6
        return max(tol, 1e-5) if self.single else tol

    def __str__(self) -> str:
        default = Case(self.seed, self.number)
        shown = [f"{k}={v!r}" for k, v in dataclasses.asdict(self).items() if v != getattr(default, k)]
        return f"case {self.number} of seed {self.seed}: {', '.join(shown)}"


def draw(seed: int, number: int, compiled: str | None = None) -> Case:
    """Case `number` of `seed`. compiled: the same with this choice, as far as it can be."""
    dice = random.Random(f"adamode {seed} {number}")

    def one(options: Sequence[Any], *weights: float) -> Any:
        return dice.choices(options, weights or None)[0]

    def chance(p: float) -> bool:
        return dice.random() < p

    free = Case(
        seed,
        number,
        flow=one(list(FLOWS)),
        face=one(("solve", "odeint", "odeint_adjoint", "odeint_event"), 7, 1, 1, 1),
        method=one(list(METHODS), 6, 2, 3, 2, 2, 1, 1, 3, 1, 1, 1, 1, 0.5),
        stepping=one(("shared", "per_sample", "groups"), 4, 5, 1),
        gradient=one(GRADIENTS, 3, 1, 1, 2, 2, 2, 1, 1),
        state=one(list(STATES), 1, 2, 4, 1, 1, 1, 2),
        func=one(FUNCS, 5, 3, 1, 2, 1, 1, 1, 0.5, 0.2, 0.2),
        backwards=chance(0.3),
        single=chance(0.1),
        batch=one((1, 2, 3), 1, 3, 3),
        times=one(TIMES, 5, 3, 1, 1, 0.5),
        n_times=one((2, 3, 5)),
        save=one(("times", "steps", "end"), 6, 1, 1),
        dt=one((0.0, 0.07, 0.25, 1.0), 6, 1, 1, 0.5),
        dt_max=one((0.0, 0.3), 3, 1),
        dense=chance(0.25),
        compact=chance(0.2),
        sync_every=one((1, 4), 6, 1),
        compiled=one(COMPILED, 1, 0.2, 0.004),
        norm=one(NORMS, 9, 1, 1, 1, 1, 0.2),
        stops=chance(0.15),
        event=one(("none", *KINDS), 7, 3, *[1] * (len(KINDS) - 2), 2),
        terminal=chance(0.5),
        direction=one((0, 1, -1), 2, 1, 1),
        own_level=chance(0.3),
        loss=one(("y", "all", "events", "some"), 3, 3, 1, 1),
        wants_t=chance(0.3),
        wants_y0=chance(0.8),
        wants_theta=chance(0.9),
        quirk=one(("none", "device", "nan", "first", "transform", "never"), 14, 1, 1, 2, 0.7, 0.3),
    )
    return consistent(free if compiled is None else but(free, face="solve", compiled=compiled))


def consistent(case: Case) -> Case:
    """The nearest case whose choices can stand together."""
    for repair in (_form, _face, _compiled, _stepping, _steps, _event, _around, _form):
        case = repair(case)
    return case


def but(case: Case, **changes: Any) -> Case:
    """The case with other choices."""
    return dataclasses.replace(case, **changes)


def _form(c: Case) -> Case:
    """State, func and flow."""
    if c.func == "hand" or c.state == "blocks":
        c = but(c, func="hand", state="blocks") if c.face == "solve" else but(c, func="closure", state="BD")
    if c.func == "itself":
        c = but(c, flow="itself")
    if c.func == "expanded" and not FLOWS[c.flow].uniform:
        c = but(c, flow="poly" if c.fixed else "quadrature")
    if c.func in ("expanded", "itself", *REFUSED_FUNCS) and c.state not in ("B", "BD"):
        c = but(c, state="BD")
    if c.flow == "quadrature" and (c.single or c.fixed or c.method not in FINE):
        c = but(c, flow="poly")  # at a loose tolerance a step may well hold a period
    if c.func == "other_shape" and c.face != "solve" and c.state == "B":
        c = but(c, batch=max(c.batch, 2))  # there a single number may have axes of length 1
    if c.flow == "ball":
        c = but(c, state="BD", func="closure" if c.func in ("hand", "expanded") else c.func)
    return but(c, batch=1) if c.state == "0d" else c


def _face(c: Case) -> Case:
    """torchdiffeq's face has shared steps and its own two gradients."""
    adaptive = METHODS[c.method] is not None
    if c.face == "solve":
        return c if adaptive or c.fixed else but(c, dt=0.25)
    c = but(c, stepping="shared", save="times", dense=False, compiled="no", sync_every=1)
    c = but(c, norm="rms" if c.norm in ("max", "blocks") else c.norm, dt=0.0 if adaptive else c.dt or 0.25)
    c = but(c, state="tuple" if c.state == "dict" else c.state)
    by_adjoint = c.face == "odeint_adjoint" or (
        c.face == "odeint_event" and c.gradient in ("backsolve", "interpolating")
    )
    c = but(c, gradient="backsolve" if by_adjoint else "direct")
    if c.face != "odeint_event":
        return but(c, event="none")
    c = but(c, terminal=True, direction=0, n_times=2, event=c.event if c.events else "level")
    return but(c, dt_max=0.3)  # there is no end that could limit a step


def _stepping(c: Case) -> Case:
    """What per-sample steps have alone."""
    if not c.per_sample:
        return but(c, times="shared", compact=False)
    if c.state == "0d":
        c = but(c, state="B")
    if c.times == "padded":
        c = but(c, n_times=5, batch=max(c.batch, 2))
    return but(c, times="own") if c.times == "stay_one" and c.batch == 1 else c


def _steps(c: Case) -> Case:
    """Step sizes."""
    if c.fixed:
        c = but(c, dt_max=0.0, norm="rms")
        if c.method in LOW:
            c = but(c, dt=min(c.dt, 0.07))  # long steps would show nothing
        if c.events:  # such that it fires where it should; or one step, in which it is watched only
            c = but(c, method="rk4" if c.face != "solve" or c.method in LOW else c.method)
            watched = c.dt == 1.0 and c.face == "solve"
            c = but(c, terminal=False, loss="y") if watched else but(c, dt=0.07)
    return c


def _compiled(c: Case) -> Case:
    """A func that can be compiled; most cases such that a whole solve can be."""
    if c.compiled == "no":
        return c
    if c.compiled == "attempts":
        return but(c, func="hand" if c.state == "blocks" else "module", method="bosh3", event="none", dt=0.0)
    c = but(c, func=c.func if c.func in COMPARABLE else "module", norm="rms" if c.norm == "nan" else c.norm)
    if c.number % 4 == 0:  # as drawn
        return c
    c = but(c, event="none", dense=False, compact=False, stops=False)
    c = but(c, **{name: other.get(getattr(c, name), getattr(c, name)) for name, other in INSTEAD.items()})
    if c.method in ("dop853", "dopri8") and c.n_times > 2 and c.save == "times":
        c = but(c, method="tsit5")  # their dense output needs stages of its own
    continuous = c.gradient in ("interpolating", "backsolve")
    return but(c, gradient="stages") if continuous and (c.per_sample or c.fixed) else c


def _event(c: Case) -> Case:
    """Events need a flow whose zeros are cheap to find, and enough of it."""
    if not c.events:
        return but(c, loss="y" if c.loss == "events" else c.loss, own_level=False, terminal=False)
    if c.flow == "swing" or (c.flow == "jump" and c.face == "odeint_event"):
        c = but(c, flow="wave")
    if c.times in ("stay_one", "stay_all", "padded"):
        c = but(c, times="own" if c.per_sample else "shared")
    return but(c, terminal=True, direction=0) if c.event == "late_zero" else c


def _around(c: Case) -> Case:
    """What is differentiated, and what stands around the solve."""
    if c.gradient == "none":
        c = but(c, own_level=False)
    alone = not c.per_sample or c.batch == 1 or c.times in ("stay_all", "stay_one") or c.events
    if c.quirk == "transform":
        c = but(c, wants_t=False, wants_y0=True, wants_theta=False, own_level=False)
        c = but(c, quirk="none" if c.gradient == "none" or c.func in ("buffer", *REFUSED_FUNCS) else c.quirk)
    if c.quirk == "never":
        c = but(c, quirk="none") if c.face != "odeint_event" else but(c, flow="wave", event="level")
        kept = c.func if c.func in ("buffer", "view", "module", "after") else "closure"
        c = but(c, dt_max=0.0, backwards=False, func=kept) if c.quirk == "never" else c
    if c.norm == "nan" and (c.compiled != "no" or c.quirk != "none" or c.func in REFUSED_FUNCS or c.events):
        c = but(c, norm="own")
    if (c.quirk == "nan" and alone) or (c.quirk == "first" and c.fixed):
        c = but(c, quirk="none")
    return c
