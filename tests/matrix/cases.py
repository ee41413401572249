"""The combinations: stepping × gradient × state × direction × options, and which of them are walked."""

from __future__ import annotations

import dataclasses
import itertools

import torch
from torch import Tensor

from adamode import Backsolve, Direct, Discrete, Interpolating, Reversible

from .problem import JUMP, STATES, B

STEPPINGS = ("shared", "per_sample")
GROUPS = "groups"  # per sample in all that is refused and right; walked with some gradients
GRADIENTS = {
    "Discrete()": Discrete(),
    'Discrete(keep="state")': Discrete(keep="state"),
    "Discrete(checkpoints=2)": Discrete(checkpoints=2),
    "Interpolating()": Interpolating(),
    "Backsolve()": Backsolve(),
    "Reversible()": Reversible(),
    "Direct()": Direct(),
    "None": None,
}
OPTIONS = {
    "outputs": "output times inside the steps",
    "dense": "`dense=True`, `sol(q)`",
    "asked per sample": "`dense=True`, `sol(q, per_sample=True)`",
    "watched": "`events=` that let the solve go on",
    "terminal": "`events=` of which one ends the solve",
    "jump_at": "`jump_at=`",
    "step_at": "`step_at=`",
    "signal": "`signal=`, held and known on both sides of a jump",
    "dt": "`dt=`",
    "steps": '`save="steps"`',
    "end": '`save="end"`',
    "own times": "`t` of shape `[B, T]`",
    "padded": "`t` whose last time is repeated",
    "stays": "a start that is the end (per sample: of one sample)",
    "all stay": "a start that is the end, everywhere",
    "t wants a gradient": "`t.requires_grad`",
    "compact": "`compact=True`",
    "sync_every": "`sync_every=4`",
    "NaN": "a sample that starts with NaN",
    "trace": "`trace=True`",
    "twice": "a second derivative (`create_graph=True`)",
}
# With these a whole solve can be one program, each in some stepping, with some gradient.
WHOLE = frozenset(
    (
        *("outputs", "end", "own times", "padded", "stays", "all stay", "t wants a gradient"),
        *("dt", "sync_every", "NaN"),
    )
)
_DISCRETE = ("None", "Discrete()", 'Discrete(keep="state")')
BY_PROGRAMS = {"shared": (*_DISCRETE, "Interpolating()", "Backsolve()"), "per_sample": _DISCRETE}
EXCLUDING = (
    {"steps", "end"},
    {"all stay", "stays"},
    {"all stay", "own times"},
    {"all stay", "padded"},
)
CELLS = tuple(itertools.product(STATES, (False, True)))  # state, backwards


@dataclasses.dataclass(frozen=True)
class Case:
    """One combination; gradient and state by their names.  implicit: a method with implicit steps."""

    stepping: str
    gradient: str
    state: str
    backwards: bool
    options: frozenset[str]
    compiled: bool = False
    implicit: str = ""

    def __str__(self) -> str:
        way = "backwards" if self.backwards else "forwards"
        along = (", compile=True" if self.compiled else "") + (f", {self.implicit}" if self.implicit else "")
        options = ", ".join(sorted(self.options)) or "–"
        return f"{self.stepping}, {self.gradient}, {self.state}, {way}{along}: {options}"

    @property
    def per_sample(self) -> bool:
        return self.stepping != "shared"

    @property
    def asked_stepping(self) -> str | Tensor:
        """What `solve` is given; samples with times of their own are groups of one."""
        if self.stepping != GROUPS:
            return self.stepping
        alone = {"own times", "padded", "stays"} & self.options
        return torch.arange(B) if alone else torch.tensor([4, 4, -1])


def times_of(case: Case) -> Tensor:
    """t, [T] or [B, T]; in the direction of time's flow first, reversed where the case runs backwards."""
    chosen, one = case.options, (0.0, 0.4)
    rows = [(0.0, 0.4), (JUMP, 0.38), (0.05, 0.3)] if "own times" in chosen else [one] * B
    ends = torch.tensor([row[::-1] if case.backwards else row for row in rows], dtype=torch.float64)
    inner = {"outputs", "padded"} & chosen
    fractions = torch.tensor([0.0, 0.3, 0.55, 0.8, 1.0] if inner else [0.0, 1.0], dtype=torch.float64)
    t = ends[:, :1] + fractions * (ends[:, 1:] - ends[:, :1])
    t[:, -1] = ends[:, 1]  # exactly
    if not case.per_sample and "own times" not in chosen:  # one row, with what is asked of some row
        if {"stays", "all stay"} & chosen:
            t[:] = t[:, :1].clone()
        if "padded" in chosen:
            t[:, -1] = t[:, -2]
        return t[0].clone()
    if "padded" in chosen:
        t[2, -2:] = t[2, -3].clone()
    if "stays" in chosen:
        t[1] = t[1, 0].clone()
    if "all stay" in chosen:
        t = t[:, :1].expand(-1, t.shape[1]).clone()
    return t if {"own times", "padded", "stays", "all stay"} & chosen else t[0].clone()


def possible(options: frozenset[str]) -> bool:
    """Whether the options can be asked for together at all."""
    return not any(both <= options for both in EXCLUDING)
