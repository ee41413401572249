"""Is what a case returned right? Bounds, comparisons, and the list of what may be refused."""

from __future__ import annotations

import dataclasses
import gc
import re
import traceback
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from whole_solves import COUNTS, differences, walks_alike

from adamode import AdamodeError, SolverError
from adamode.solvers.methods import METHODS as TABLEAUS

from .alphabet import LOW, METHODS, Case, consistent
from .forms import MOST_CALLS, REFUSED_FUNCS, RanAwayError
from .numbers import NoNumbersError, Numbers, numbers_of
from .perform import Found, Leaves, leaves_of, perform, perform_eagerly, surroundings
from .truth import exact_values
from .zeros import STEEPEST, WITHOUT_SLOPE

# A solve's error is tolerance × steps × growth: the flows grow at most by e² over a span and take 5 to 40
# steps, those of order 2 some hundreds. Over 300 cases the largest error of a value was 0.25 of its bound,
# of a gradient 0.15 (`--ratios` shows them). At the tolerance of most cases, 1e-7, the bound is 1e-5 of a
# gradient's size.
FACTOR, LOW_FACTOR = 100.0, 400.0
SLOPES = 10.0  # × the flow's rate: an interpolant's slope is off by its error over a step's length
FIXED = 1.0  # × (rate × step)^order
BACKWARD = ("dt_first", "dt_last", "n_accepted_backward", "n_rejected_backward", "reconstruction_error")
ROUNDING = {False: 1e-11, True: 3e-5}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """kind: "right", "refused", "wrong" or "crashed".  what: why, or which refusal.
    ratios: error ÷ bound of everything that was compared.  tried: what came of a whole solve."""

    kind: str
    what: str = ""
    ratios: dict[str, float] = dataclasses.field(default_factory=dict)
    tried: str = ""

    @property
    def fine(self) -> bool:
        return self.kind in ("right", "refused")


# (name, of which cases, the type of the error, what its text holds)
Refusal = tuple[str, Callable[[Case], bool], type[Exception], str]
REFUSALS: tuple[Refusal, ...] = (
    ("func changes its argument", lambda c: c.func == "in_place", AdamodeError, "changed its y in place"),
    ("func changes a leaf", lambda c: c.func == "in_place", RuntimeError, "in-place|inplace"),
    ("func returns another shape", lambda c: c.func == "other_shape", AdamodeError, "returned shape"),
    ("event without a slope", lambda c: c.event in WITHOUT_SLOPE, AdamodeError, "slope"),
    ("backsolve left the solution", lambda c: c.gradient == "backsolve", AdamodeError, "reconstruct|rebuilt"),
    ("norm is NaN", lambda c: c.norm == "nan", SolverError, "NON_FINITE|UNDERFLOW|norm"),
    ("event never comes", lambda c: c.quirk == "never", SolverError, "never"),
    ("transform of torch.func", lambda c: c.quirk == "transform", AdamodeError, "torch.func|vmap"),
    ("graph on an overwritten buffer", lambda c: c.func == "buffer", RuntimeError, "inplace operation"),
)


def judge(case: Case) -> Verdict:
    """Runs one case."""
    try:
        numbers = numbers_of(case)
    except NoNumbersError:
        case = consistent(dataclasses.replace(case, event="none", face="solve", quirk="none"))
        numbers = numbers_of(case)
    try:
        verdict, watched = _compared(case, numbers)
    except RanAwayError:
        return Verdict("crashed", f"func was called {MOST_CALLS} times")
    except Exception as error:  # whatever it is: that is what a fuzzer looks for
        return _raised(case, error)
    if verdict.fine and watched() is not None:
        gc.collect()
        if watched() is not None:
            return Verdict("wrong", "the solve is never freed")
    return verdict


def _raised(case: Case, error: Exception) -> Verdict:
    text = f"{type(error).__name__}: {error}"
    for name, applies, kind, pattern in REFUSALS:
        if applies(case) and isinstance(error, kind) and re.search(pattern, str(error)):
            return Verdict("refused", name)
    if isinstance(error, AdamodeError):
        return Verdict("wrong", f"refused: {text}")
    frames = traceback.extract_tb(error.__traceback__)
    place = next(
        (f for f in reversed(frames) if "/tests/" not in f.filename and "torch" not in f.filename), None
    )
    where = "" if place is None else f" ({place.filename.rsplit('/', 2)[-1]}:{place.lineno})"
    return Verdict("crashed", f"{text[:300]}{where}")


def _compared(case: Case, numbers: Numbers) -> tuple[Verdict, Callable[[], object]]:
    leaves, exact_leaves = leaves_of(case, numbers, exact=False), leaves_of(case, numbers, exact=True)
    found = perform(case, numbers, leaves)
    watched = weakref.ref(found.field)
    if case.func in REFUSED_FUNCS:
        return Verdict("wrong", f"func that is {case.func} was taken"), watched
    if case.quirk == "never":
        return Verdict("wrong", "an event was found that never comes"), watched
    if case.norm == "nan" and not case.fixed:
        return _of_no_norm(case, found), watched
    exact = exact_values(case, numbers, exact_leaves, found.times)
    ratios: dict[str, float] = {}
    grads: dict[str, Tensor] = {}
    wrong = _values(case, numbers, found, exact, ratios)
    if not wrong and exact_leaves.wanted():
        wrong = _gradients(case, numbers, (found, leaves), (exact, exact_leaves), ratios, grads)
    wrong = wrong or _labels(case, found)
    if found.tried == "made" and not wrong:
        wrong = _unlike_the_eager(case, numbers, exact, (found, grads))
    elif found.tried not in ("", "stranded"):
        wrong = wrong or f"no whole solve: {found.tried}"
    return Verdict("wrong" if wrong else "right", wrong, ratios, found.tried), watched


def _of_no_norm(case: Case, found: Found) -> Verdict:
    """No step can be judged: per sample it must be said by a status, and nothing be returned."""
    moved = found.values["y"][1:].detach()
    if case.per_sample and case.times.startswith("stay"):
        return Verdict("right")  # a sample at rest takes no step
    ended = case.per_sample and bool((found.status == 0).any())
    if not case.per_sample or ended or (moved.isfinite().any() and case.save == "times"):
        return Verdict("wrong", "a norm that is NaN was taken")
    return Verdict("refused", "norm is NaN, said by the status")


def _compares(case: Case, name: str) -> bool:
    """One step over the whole span has no accuracy to speak of; what it returns must still be consistent.

    Where it ends at an event, what is asked for lies on either side of it.
    """
    ends = case.terminal and name in ("asked", "slopes")
    return not (case.dt == 1.0 and (name[:2] in ("te", "ye") or ends))


def _values(
    case: Case, numbers: Numbers, found: Found, exact: dict[str, Tensor], ratios: dict[str, float]
) -> str:
    """What is wrong with the values; "" if nothing."""
    for name, x in exact.items():
        if not _compares(case, name):
            continue
        y, x = found.values[name].detach().double(), x.detach()
        if y.shape != x.shape:
            return f"{name} has shape {tuple(y.shape)}, not {tuple(x.shape)}: {y.flatten()[:4].tolist()}"
        if (y.isnan() != x.isnan()).any():
            return f"{name} is NaN at other places: {y.flatten()[:6].tolist()} for {x.flatten()[:6].tolist()}"
        there = ~x.isnan()
        if not there.any():
            continue
        error, size = float((y - x)[there].abs().max()), 1 + float(x[there].abs().max())
        ratios[name.rstrip("0123456789")] = ratio = error / bound(case, numbers, name, size)
        if not ratio <= 1:
            return f"{name} is {error:.2e} off, {ratio:.1e} times its bound"
    return ""


def bound(case: Case, numbers: Numbers, name: str, size: float) -> float:
    """The largest error that is honest: tolerance × conditioning, or that of a fixed step."""
    slope = name in ("slopes", "dt", "dasked")
    if case.events and (name[:2] in ("te", "ye") or case.loss in ("all", "events")):
        size = size / STEEPEST  # of the event's own slope
    if case.fixed:
        order = min(TABLEAUS[case.method].order, 3 if case.face == "solve" else 2) - slope
        if case.flow == "jump" and case.face != "solve":
            order = 1  # nobody told the steps of the jump
        h = numbers.flow.rate * case.dt * numbers.span
        terms = 2 if name.startswith("d") else 1  # a gradient has the error of the state, and its own
        return size * (terms * FIXED * h**order + ROUNDING[case.single])
    factor = LOW_FACTOR if case.method in LOW else FACTOR
    if slope:
        factor *= SLOPES * numbers.flow.rate
    return size * (factor * case.rtol + ROUNDING[case.single])


def _labels(case: Case, found: Found) -> str:
    """What is to be known without looking at numbers."""
    if case.gradient == "none" and any(x.requires_grad for x in found.values.values()):
        return "gradient=None, and a result requires a gradient"
    backsolve = case.gradient == "backsolve" and not case.dense and case.func != "hand"
    if backsolve and found.calls_with_grad > 4:
        return f"{found.calls_with_grad} evaluations of the forward solve had autograd on and a graph"
    return ""


def _loss(case: Case, values: dict[str, Tensor], exact: dict[str, Tensor]) -> Tensor:
    """A weighted sum of a selection, of the size of one of its terms; the same for both."""
    make = torch.Generator().manual_seed(case.number)
    total, terms = torch.zeros((), dtype=torch.float64), 0
    for name, like in sorted(exact.items()):
        weights = torch.randn(like.shape, generator=make, dtype=torch.float64)
        keep = torch.rand(like.shape, generator=make) < (0.4 if case.loss == "some" else 1.1)
        event = name[:2] in ("te", "ye")
        if name == "slopes" or not _compares(case, name) or (event and case.loss in ("y", "some")):
            continue
        if event and case.event in WITHOUT_SLOPE and case.loss != "events":
            continue
        if not event and case.loss == "events":
            continue
        keep &= ~like.isnan()
        total, terms = total + (weights[keep] * values[name][keep].double()).sum(), terms + int(keep.sum())
    return total / max(terms, 1) ** 0.5


def _gradients(
    case: Case,
    numbers: Numbers,
    ours: tuple[Found, Leaves],
    truth: tuple[dict[str, Tensor], Leaves],
    ratios: dict[str, float],
    grads: dict[str, Tensor],
) -> str:
    """What is wrong with the gradients, which go into `grads`; "" if nothing."""
    (found, leaves), (exact, exact_leaves) = ours, truth
    loss, expected_loss = _loss(case, found.values, exact), _loss(case, exact, exact)
    if not expected_loss.requires_grad:
        return ""  # nothing that is wanted moves what was selected
    expected = _grads(expected_loss, exact_leaves.wanted())
    largest = max(float(x.abs().max()) for x in expected.values())
    slopeless = case.event in WITHOUT_SLOPE and case.loss == "events"
    if not loss.requires_grad:
        return "" if largest == 0 or slopeless else "the loss has no graph"
    with surroundings(case):
        grads |= _grads(loss, leaves.wanted())
        if case.quirk == "transform":
            grads = {"y0": _transformed(case, numbers, leaves, exact)}
    for name, x in expected.items():
        g = grads[name]
        if slopeless and g.isnan().any():
            continue
        if not g.isfinite().all():
            return f"dL/d{name} is {g.flatten()[:4].tolist()}"
        error, size = float((g - x).abs().max()), 1 + float(x.abs().max())
        ratio = error / bound(case, numbers, f"d{name}", size)
        if slopeless:
            continue
        ratios[f"d{name.rstrip('0123456789')}"] = ratio
        if not ratio <= 1:
            text = f"{g.flatten()[:4].tolist()} for {x.flatten()[:4].tolist()}"
            return f"dL/d{name} is {error:.2e} off, {ratio:.1e} times its bound: {text}"
    return _own_slope(case, numbers, grads, exact) if _exact_slope(case) else ""


def _grads(loss: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {
        name: torch.zeros_like(x) if g is None else g.double()
        for (name, x), g in zip(leaves.items(), found, strict=True)
    }


def _transformed(case: Case, numbers: Numbers, leaves: Leaves, exact: dict[str, Tensor]) -> Tensor:
    """dL/dy0 by torch.func.grad around the whole program."""

    def loss(y0: Tensor) -> Tensor:
        return _loss(case, perform(case, numbers, dataclasses.replace(leaves, y0=y0)).values, exact)

    return torch.func.grad(loss)(leaves.y0.detach()).double()


def _unlike_the_eager(
    case: Case, numbers: Numbers, exact: dict[str, Tensor], ours: tuple[Found, dict[str, Tensor]]
) -> str:
    """What a whole solve gave otherwise than the eager one does, its counts included; "" if nothing."""
    found, grads = ours
    leaves = leaves_of(case, numbers, exact=False)
    other, others = perform_eagerly(case, numbers, leaves), {}
    if grads:
        loss = _loss(case, other.values, exact)
        with surroundings(case):
            others = _grads(loss, leaves.wanted())
    whole, eager = _answer(found, grads), _answer(other, others)
    discrete = case.gradient in ("stages", "state")
    if discrete and walks_alike(whole["nfe_backward"] - eager["nfe_backward"], case.method, case.stepping):
        whole["nfe_backward"] = eager["nfe_backward"]
    if case.single or METHODS[case.method] == 1e-9:  # what judges a step is little but rounding
        whole |= {name: eager[name] for name in ("dt_last", "reconstruction_error")}
    if case.single:
        whole |= {name: eager[name] for name in (*COUNTS, *BACKWARD)}
    return "; ".join(differences(whole, eager, 2e-3 if case.single else 1e-9))


def _answer(found: Found, grads: dict[str, Tensor]) -> dict[str, Any]:
    """All that a solve and its way back told."""
    told = {name: getattr(found.stats, name) for name in (*COUNTS, *BACKWARD)}
    told |= {f"dL/d{name}": g for name, g in grads.items()}
    return told | {"y": found.values["y"].detach(), "times": found.times, "status": found.status}


def _exact_slope(case: Case) -> bool:
    """Whether the gradient has to be that of the numbers themselves: fixed steps, and not by a continuous
    adjoint. An event's time moves by the implicit function theorem with f, not with the interpolant."""
    return (
        case.fixed
        and not case.single
        and case.gradient in ("stages", "state", "checkpoints", "direct", "reversible")
        and not (case.events and (case.loss in ("all", "events") or case.save == "steps"))
        and not case.wants_t
    )


def _own_slope(case: Case, numbers: Numbers, grads: dict[str, Tensor], exact: dict[str, Tensor]) -> str:
    """The gradient against central differences of the program's own values, along one direction."""
    make = torch.Generator().manual_seed(case.number + 1)
    direction = {name: torch.randn(g.shape, generator=make, dtype=torch.float64) for name, g in grads.items()}
    plain = dataclasses.replace(case, wants_y0=False, wants_theta=False, own_level=False)
    ends = []
    for step in (1e-5, -1e-5):  # truncation 1e-10, rounding 1e-11
        leaves = leaves_of(plain, numbers, exact=False)
        named = {"y0": leaves.y0, "level": leaves.level}
        named |= {f"theta{i}": p for i, p in enumerate(leaves.theta)}
        for name, d in direction.items():
            named[name].data.add_(step * d)
        ends.append(float(_loss(case, perform(plain, numbers, leaves).values, exact)))
    slope = (ends[0] - ends[1]) / 2e-5
    own = sum(float((direction[name] * g).sum()) for name, g in grads.items())
    if abs(slope - own) <= 1e-7 * (1 + abs(slope) + sum(float(g.abs().max()) for g in grads.values())):
        return ""
    return f"the gradient along a direction is {own:.9f}; the values' own slope is {slope:.9f}"
