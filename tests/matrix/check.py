"""Solves one combination and holds every number of it against the closed solution."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from typing import Any

import torch
from torch import Tensor
from whole_solves import alone

from adamode import AdamodeError, AdamodeWarning, Event, Signal, Solution, Status, solve

from .cases import GRADIENTS, Case, times_of
from .problem import JUMP, KICK, STATES, B, Blocks, BlocksModule, Closed, Field

# Relative to the largest entry or 1. dopri8 at rtol 1e-7, atol 1e-9 in float64; over all right combinations
# the largest errors measured are 7e-9 (values), 9e-8 (y' of the dense output), 3e-8 (gradients), 3e-8 (second
# derivatives). A gradient that is 1e-6 off is seen: shown on dL/dt_0 times 1 + 1e-6.
BOUNDS = {"value": 1e-7, "slope": 1e-6, "gradient": 2e-7, "curvature": 1e-6}
SOLVER = {"method": "dopri8", "rtol": 1e-7, "atol": 1e-9}
COMPILED = {"method": "dopri5", "rtol": 1e-10, "atol": 1e-11}  # its outputs need no stages of their own
IMPLICIT = {"rtol": 1e-9, "atol": 1e-11}
FEWEST = {"dopri8": 12, "dopri5": 6, "radau5": 3, "auto": 3}  # evaluations an accepted step
LATER, EARLIER = 0.03, -0.05  # of the events besides the one at the level


class Wrong(Exception):
    """A number, a shape or a status that is not the closed solution's."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """kind: "right", "wrong", "refused" (an AdamodeError) or "crash" (any other error).

    text: what was wrong, or the error's own.  warned: the texts of AdamodeWarnings.  off: the largest
    errors found of values, slopes and gradients.  tried: what came of a whole solve.
    """

    kind: str
    text: str = ""
    error: type[BaseException] | None = None
    warned: tuple[str, ...] = ()
    off: dict[str, float] = dataclasses.field(default_factory=dict)
    tried: str = ""


def run(case: Case) -> Outcome:
    """One combination, solved, checked and differentiated."""
    with (
        warnings.catch_warnings(record=True) as caught,
        alone() if case.compiled else contextlib.nullcontext([]) as tried,
    ):
        warnings.simplefilter("always")
        check = Check(case)
        try:
            check.everything()
            kind, text, error = "right", "", None
        except Wrong as wrong:
            kind, text, error = "wrong", str(wrong), None
        except AdamodeError as refusal:
            kind, text, error = "refused", str(refusal), type(refusal)
        except Exception as crash:
            kind, text, error = "crash", f"{type(crash).__name__}: {crash}", type(crash)
    foreign = [w for w in caught if not issubclass(w.category, AdamodeWarning)]
    if foreign:
        kind, text = "crash", f"{foreign[0].category.__name__}: {foreign[0].message}"
    told = tuple(str(w.message) for w in caught if w not in foreign)
    return Outcome(kind, text, error, told, check.off, ",".join(tried))


def pattern(x: Tensor) -> Tensor:
    """Weights for a loss that no permutation and no sign leaves as it is."""
    return torch.cos(1.7 * torch.arange(x.numel(), dtype=torch.float64) + 1).reshape(x.shape)


class Check:
    """One case: its inputs, what it should give, what was found."""

    def __init__(self, case: Case):
        self.case, self.state, self.gradient = case, STATES[case.state], GRADIENTS[case.gradient]
        self.off = dict.fromkeys(BOUNDS, 0.0)
        self.clocks = range(B if case.per_sample else 1)
        kick = KICK if "jump_at" in case.options else 0.0
        blocks = BlocksModule if case.compiled else Blocks
        self.func = blocks(kick) if case.state == "Dynamics" else Field(kick)
        self.solver = COMPILED if case.compiled else SOLVER
        if case.implicit:
            self.solver = {"method": case.implicit, **IMPLICIT}
        leaves = self.state.start(case.backwards)
        if "NaN" in case.options:
            (leaves[0] if self.state.batch is None else leaves[0].select(self.state.batch, 2)).fill_(math.nan)
        self.leaves = [leaf.requires_grad_() for leaf in leaves]
        self.level = torch.tensor(0.6 if case.backwards else 0.4, dtype=torch.float64, requires_grad=True)
        self.t = times_of(case).requires_grad_("t wants a gradient" in case.options)
        self.kick, self.before = kick, 0.0
        self.signal = self.make_signal() if "signal" in case.options else None
        # What has a gradient goes by name; a loss of what was found and one of what should be.
        self.inputs = {f"leaf {i} of y0": leaf for i, leaf in enumerate(self.leaves)}
        self.inputs |= {"p": self.func.p, "q": self.func.q}
        if self.t.requires_grad:
            self.inputs["t"] = self.t
        if self.signal is not None:
            self.inputs["the signal's values"] = self.signal.values
        self.found_loss = self.known_loss = torch.zeros((), dtype=torch.float64)

    def make_signal(self) -> Signal:
        """What is there before the jump and after it, of all samples or of each."""
        values = torch.tensor([[0.1, 0.9, 0.3], [0.2, 0.4, 0.5], [-0.2, 0.7, 0.6]], dtype=torch.float64)
        values = values if self.case.per_sample else values[0]
        values = values[..., None].requires_grad_()
        self.before = values[..., 0, 0]
        self.kick = self.kick + values[..., 1, 0] - self.before
        times = torch.tensor([-0.1, JUMP, 0.5], dtype=torch.float64)
        return Signal(times.expand(B, -1) if "compact" in self.case.options else times, values, "hold")

    # -- what is asked -------------------------------------------------------------------------------------

    def solve(self) -> Solution:
        """The solve."""
        chosen, case = self.case.options, self.case
        asked: dict[str, Any] = {}
        if "dt" in chosen:
            asked["dt"] = 0.025 if case.compiled else 0.1
        if "jump_at" in chosen:
            asked["jump_at"] = [JUMP]
        if "step_at" in chosen:
            asked["step_at"] = [0.25]
        if self.signal is not None:
            asked["signal"] = self.signal
        if {"steps", "end"} & chosen:
            asked["save"] = "steps" if "steps" in chosen else "end"
        if "sync_every" in chosen:
            asked["sync_every"] = 4
        for name in ("compact", "trace"):
            asked[name] = name in chosen
        asked["dense"] = bool({"dense", "asked per sample"} & chosen)
        self.events, self.offsets = self.make_events()
        if self.events:
            asked["events"] = self.events
            self.inputs["the event's level"] = self.level
        return solve(
            self.func,
            self.state.pack(self.leaves),
            self.t,
            stepping=case.asked_stepping,
            gradient=self.gradient,
            compile=case.compiled,
            **self.solver,
            **asked,
        )

    def make_events(self) -> tuple[list[Event], list[float | None]]:
        """The events, and where each lies from the level (None: it never fires)."""
        way = -1 if self.case.backwards else 1

        def at(offset: float) -> Any:
            def fn(t: Tensor, y: Any) -> Tensor:
                first = self.state.first(y)
                if not self.case.per_sample and first.dim():
                    first = first[0]
                return first - (self.level + way * offset)

            return fn

        events: list[Event] = []
        offsets: list[float | None] = []
        if "watched" in self.case.options:
            events += [Event(at(EARLIER), terminal=False, direction=way)]
            events += [Event(at(EARLIER), terminal=False, direction=-way)]
            offsets += [way * EARLIER, None]
        if "terminal" in self.case.options:
            events += [Event(at(LATER), terminal=False), Event(at(0.0))]
            offsets += [way * LATER, 0.0]
        return events, offsets

    # -- comparing -----------------------------------------------------------------------------------------

    def compare(self, what: str, found: Tensor, known: Tensor, kind: str = "value") -> None:
        """Raises Wrong unless shapes, NaNs and numbers agree."""
        if found.shape != known.shape:
            raise Wrong(f"{what} has shape {tuple(found.shape)} for {tuple(known.shape)}")
        f, k = found.detach().double(), known.detach()
        if not torch.equal(f.isnan(), k.isnan()):
            raise Wrong(f"{what} is {f.tolist()} for {k.tolist()}")
        off = float(torch.where(k.isnan(), 0.0, (f - k).abs()).max()) if k.numel() else 0.0
        off /= max(1.0, float(torch.nan_to_num(k).abs().max())) if k.numel() else 1.0
        self.off[kind] = max(self.off[kind], off)
        if not off <= BOUNDS[kind]:
            raise Wrong(f"{what} is {off:.1e} off: {f.tolist()} for {k.tolist()}")

    def leaves_agree(self, what: str, found: list[Tensor], known: list[Tensor]) -> None:
        """The same of each leaf, which then counts in the losses."""
        for i, (f, k) in enumerate(zip(found, known, strict=True)):
            self.agree(f"{what}, leaf {i}" if len(found) > 1 else what, f, k)

    def agree(self, what: str, found: Tensor, known: Tensor) -> None:
        """The same of a tensor; NaNs count in no loss."""
        self.compare(what, found, known)
        if self.gradient is None and found.requires_grad:
            raise Wrong(f"{what} has a graph though gradient=None")
        weights = pattern(known) / max(1, known.numel()) ** 0.5
        self.found_loss = self.found_loss + (torch.where(known.isnan(), 0.0, found) * weights).sum()
        self.known_loss = self.known_loss + (torch.where(known.isnan(), 0.0, known) * weights).sum()

    # -- what should be ------------------------------------------------------------------------------------

    def everything(self) -> None:
        """Solves and checks."""
        sol = self.solve()
        t = self.t
        self.rows = t if t.dim() == 1 else t.t()  # [T] or [T, B]
        finite = [torch.where(leaf.isnan(), 0.5, leaf) for leaf in self.leaves]  # NaN · 0 is no zero
        of_func = (self.state, finite, self.func.p, self.func.q)
        self.closed = Closed(*of_func, self.kick, self.rows[0], self.before)
        self.way = -1.0 if self.case.backwards else 1.0
        clocks = self.rows.detach().expand(len(self.clocks), -1).t() if t.dim() == 1 else self.rows.detach()
        self.starts, last = clocks[0], clocks[-1]
        self.failed = [bool(self.per_clock_nan(c)) for c in self.clocks]
        self.times_of_events = [
            [
                None
                if o is None or self.failed[c]
                else self.closed.crossing(self.level + o, c, float(last[c]))
                for c in self.clocks
            ]
            for o in self.offsets
        ]
        ends = [float(x) for x in last]
        self.stopped = [False] * len(ends)
        for event, times in zip(self.events, self.times_of_events, strict=True):
            for c, when in enumerate(times):
                if event.terminal and when is not None:
                    ends[c], self.stopped[c] = when.item(), True
        self.ends = torch.tensor(ends, dtype=torch.float64)
        self.statuses(sol)
        self.outputs(sol)
        self.event_lists(sol)
        if {"dense", "asked per sample"} & self.case.options:
            self.queries(sol)
        if "trace" in self.case.options and len(sol.trace or ()) != int(
            torch.as_tensor(sol.stats.n_steps).sum()
        ):
            raise Wrong("the trace has not one row an attempt")
        self.gradients(sol)

    def per_clock_nan(self, clock: int) -> Tensor:
        leaf = self.leaves[0].detach()
        own = leaf.select(self.state.batch, clock) if self.case.per_sample else leaf
        return own.isnan().any()

    def statuses(self, sol: Solution) -> None:
        """Status and counts."""
        known = [
            Status.NON_FINITE if bad else Status.EVENT if stopped else Status.SUCCESS
            for bad, stopped in zip(self.failed, self.stopped, strict=True)
        ]
        found = sol.status.tolist() if isinstance(sol.status, Tensor) else [sol.status]
        if found != known:
            raise Wrong(f"status is {found} for {known}")
        s = sol.stats
        nfe, accepted, rejected = (
            torch.as_tensor(x).reshape(-1) for x in (s.nfe, s.n_accepted, s.n_rejected)
        )
        moved, least = (self.ends != self.starts) & ~torch.tensor(self.failed), FEWEST[self.solver["method"]]
        if len(nfe) != len(self.clocks) or bool((accepted[moved] < 1).any()) or bool((rejected < 0).any()):
            raise Wrong(f"stats do not fit: {s}")
        if bool((accepted[~moved] > 0).any()) or bool((nfe[moved] < least * accepted[moved]).any()):
            raise Wrong(f"stats do not fit: {s}")

    def until(self, t: Tensor) -> Tensor:
        """Which times, [n] or [n, B], a clock reaches, [n, clocks]."""
        wide = t.detach()[:, None] if t.dim() == 1 else t.detach()
        return (wide - self.ends) * self.way <= BOUNDS["value"]  # an event's own time is as good as that

    def expected(self, t: Tensor) -> list[Tensor]:
        """The closed leaves at times [n] or [n, B]; NaN where a clock does not come to."""
        if t.dim() < self.rows.dim():  # of all samples
            t = t[:, None].expand(-1, B)
        reached = self.until(t) & (~torch.tensor(self.failed) | (t == self.rows[0]).reshape(len(t), -1))
        reached = reached if self.case.per_sample else reached[:, 0]
        values = self.closed.at(torch.where(t.isnan(), self.rows[0], t))
        known = [
            torch.where(self.state.spread(reached, y, 1), v, math.nan)
            for y, v in zip(self.leaves, values, strict=True)
        ]
        if any(self.failed):  # at its start it is what it was
            at_start = (t == self.rows[0]).reshape(len(t), -1)
            own = torch.tensor(self.failed) & at_start
            known = [
                torch.where(self.state.spread(own, y, 1), y, k)
                for y, k in zip(self.leaves, known, strict=True)
            ]
        return known

    def outputs(self, sol: Solution) -> None:
        """sol.t and sol.y."""
        rows = self.rows
        if "end" in self.case.options:
            rows = rows[-1:]
        if "steps" in self.case.options:
            rows = self.steps_taken(sol)
        else:
            self.compare("sol.t", sol.t, rows)
        self.leaves_agree("sol.y", self.state.leaves(sol.y), self.expected(rows))

    def steps_taken(self, sol: Solution) -> Tensor:
        """The times of save="steps", checked; of them the first and the end are the user's."""
        t = sol.t.detach().double()
        wide = t[:, None] if t.dim() == 1 else t
        if not torch.equal(wide[0], self.starts.expand(wide.shape[1])):
            raise Wrong(f"sol.t begins with {wide[0].tolist()} for {self.starts.tolist()}")
        for c in self.clocks:
            if self.failed[c] or (self.starts[c] == self.ends[c]):
                continue
            own = wide[:, c] if wide.shape[1] > 1 else wide[:, 0]
            own = own[~own.isnan()]
            n = int(torch.as_tensor(sol.stats.n_accepted).reshape(-1)[c]) + 1
            if len(own) != n or bool((own.diff() * self.way <= 0).any()):
                raise Wrong(f"sol.t of clock {c} is {own.tolist()}, {n - 1} steps")
            if abs(float(own[-1] - self.ends[c])) > BOUNDS["value"]:
                raise Wrong(f"sol.t of clock {c} ends with {float(own[-1])} for {float(self.ends[c])}")
        last = self.rows[-1]
        mine = torch.where(t == last.detach(), last, t)
        return torch.cat((self.rows[:1].expand(1, *t.shape[1:]), mine[1:]))

    def event_lists(self, sol: Solution) -> None:
        """sol.t_events and sol.y_events."""
        if len(sol.t_events) != len(self.events) or len(sol.y_events) != len(self.events):
            raise Wrong(f"{len(sol.t_events)} lists of event times for {len(self.events)} events")
        for e, times in enumerate(self.times_of_events):
            for c, when in enumerate(times):
                if when is not None and (when.item() - float(self.ends[c])) * self.way > 1e-12:
                    when = None  # after a terminal one
                where = f"event {e}, clock {c}"
                found_t, found_y = sol.t_events[e], sol.y_events[e]
                if self.case.per_sample:
                    found_t, found_y = found_t[c], found_y[c]
                known = [self.event_state(y, c, when) for y in self.leaves]
                t = when.reshape(1) if when is not None else torch.empty(0, dtype=torch.float64)
                self.agree(f"t_events, {where}", found_t, t)
                self.leaves_agree(f"y_events, {where}", self.state.leaves(found_y), known)

    def event_state(self, leaf: Tensor, clock: int, when: Tensor | None) -> Tensor:
        """A leaf's (a sample's) state at an event, [0 or 1, …]."""
        own, t0 = leaf, self.rows[0]
        if self.case.per_sample:
            own = leaf.select(self.state.batch, clock)
            t0 = t0 if t0.dim() == 0 else t0[clock]
        if when is None:
            return own.detach().new_empty((0, *own.shape))
        kick, before = self.closed.of(clock)
        one = Closed(self.state, [own], self.func.p, self.func.q, kick, t0, before)
        return one.at(when.reshape(1))[0]

    # -- dense output --------------------------------------------------------------------------------------

    def queries(self, sol: Solution) -> None:
        """sol(q) and sol.derivative(q), of all at once or of each sample at its own times."""
        kicked = bool(self.func.kick) or self.signal is not None
        last = 0.97 if any(self.stopped) or kicked else 1.0
        first = 0.03 if kicked else 0.0  # at the jump there are two derivatives
        fractions = torch.tensor([first, 0.37, 0.71, last], dtype=torch.float64)
        low = (self.starts * self.way).max() * self.way
        high = (self.ends * self.way).min() * self.way
        apart = float((high - low) * self.way) < 0
        if "asked per sample" in self.case.options or apart:
            own = self.starts + fractions[:, None] * (self.ends - self.starts)
            own[-1] = self.ends if last == 1.0 else own[-1]  # exactly
            self.query(sol, own.expand(-1, B), per_sample=True)
        else:
            self.query(sol, low + fractions * (high - low))

    def query(self, sol: Solution, q: Tensor, **how: bool) -> None:
        """One question, and its derivative."""
        q = q.clone().requires_grad_(self.gradient is not None)
        if q.requires_grad:
            self.inputs["the query's times"] = q
        found = self.state.leaves(sol(q, **how))
        self.leaves_agree("sol(q)", found, self.expected(q))
        slopes = self.state.leaves(sol.derivative(q, **how))
        for f, k in zip(slopes, map(self.masked, self.closed.slope(q)), strict=True):
            if f.requires_grad != (self.case.gradient == "Direct()"):
                raise Wrong(f"sol.derivative(q).requires_grad is {f.requires_grad}")
            self.compare("sol.derivative(q)", f, k, "slope")

    def masked(self, values: Tensor) -> Tensor:
        """[n, *leaf] with NaN for samples that failed."""
        if not any(self.failed):
            return values
        return torch.where(self.state.spread(torch.tensor(self.failed), values[0]), math.nan, values)

    def gradients(self, sol: Solution) -> None:
        """dL/d of everything that has a gradient, and once more where asked."""
        if self.gradient is None:
            return
        wanted = list(self.inputs.values())
        again = "twice" in self.case.options
        known = torch.autograd.grad(self.known_loss, wanted, allow_unused=True, create_graph=again)
        found = torch.autograd.grad(self.found_loss, wanted, allow_unused=True, create_graph=again)
        self.gradients_agree("dL", found, known)
        if again:
            losses = [self.combined(g) for g in (found, known)]
            nothing = (None,) * len(wanted)  # a derivative without a graph is a constant
            twice = [
                torch.autograd.grad(x, wanted, allow_unused=True) if x.requires_grad else nothing
                for x in losses
            ]
            self.gradients_agree("d²L", *twice)
        moved = (self.starts != self.ends) & ~torch.tensor(self.failed)
        if self.case.gradient != "Direct()" and bool(moved.any()) and sol.stats.nfe_backward <= 0:
            raise Wrong(f"nfe_backward is {sol.stats.nfe_backward}")

    def combined(self, gradients: tuple[Tensor | None, ...]) -> Tensor:
        """A loss of first derivatives."""
        parts = [(g * pattern(g)).nan_to_num().sum() for g in gradients if g is not None and g.requires_grad]
        return torch.stack(parts).sum() if parts else torch.zeros(())

    def gradients_agree(
        self, what: str, found: tuple[Tensor | None, ...], known: tuple[Tensor | None, ...]
    ) -> None:
        """All of them; what is wrong is named together."""
        wrong = []
        for (name, x), f, k in zip(self.inputs.items(), found, known, strict=True):
            zero = torch.zeros_like(x)
            try:
                pair = (zero if f is None else f, zero if k is None else k)
                self.compare(f"{what}/d({name})", *pair, "gradient" if what == "dL" else "curvature")
            except Wrong as one:
                wrong.append(str(one))
        if wrong:
            raise Wrong("; ".join(wrong))
