"""One batch: what is asked of the model, forward, backward, what it cost; and what is said when it fails.

Forward NFE: evaluations of f in the forward solve of a batch, the first step's probe and rejected
steps included. Backward NFE: evaluations of f's VJP. Both are counted by the engine, read from
the model's statistics after each batch, and averaged over samples, so that a short last batch
counts for what it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..models.block import SolveSettings
from ..solvers.errors import (
    AdamodeError,
    ArgumentError,
    ReconstructionError,
    SolverError,
    TrainingError,
    first_line,
)
from ..solvers.status import Status
from .data.splits import Examples
from .distributed import Ranks
from .objective import Objective
from .regularise import penalty_of

DECAY, DECAY_EVERY = 0.95, 1000  # the released code's, for CIFAR-10

LEARNS_NOTHING = (
    "the model learns nothing here: its output depends on no parameter, as with block='identity' where "
    "neither encoder nor head has any. Take block='ode'."
)
CANNOT_BE_SOLVED = (SolverError, ReconstructionError)


@dataclasses.dataclass
class EpochSums:
    """Sums over the samples seen so far in a pass; part of every checkpoint.

    score: right answers, squared errors, or nats.
    skipped: batches that could not be solved and were left out (``on_solver_error="skip"``).
    penalty: weighted penalties, of which the loss does not know.
    """

    samples: int = 0
    loss: float = 0.0
    score: float = 0.0
    nfe_forward: float = 0.0
    nfe_backward: float = 0.0
    seconds: float = 0.0
    skipped: int = 0
    penalty: float = 0.0

    def add(self, n: int, loss: float, score: float, nfe: tuple[float, float], penalty: float = 0.0) -> None:
        """Adds a batch of n samples: its sums of losses, of scores, of NFE and penalties over the samples."""
        self.penalty += penalty
        self.samples += n
        self.loss += loss
        self.score += score
        self.nfe_forward += nfe[0]
        self.nfe_backward += nfe[1]

    def mean(self, name: str) -> float:
        """Mean over samples of loss, nfe_forward or nfe_backward."""
        return getattr(self, name) / self.samples


def solve_counts(model: nn.Module, n: int) -> tuple[float, float]:
    """(forward, backward) NFE of the model's last call, summed over its n samples.

    Where one step size serves the batch each sample counts every evaluation; per-sample counts are
    added up, exactly. (0, 0) where nothing was solved.
    """
    stats = last_stats(model)
    if stats is None:
        return 0.0, 0.0
    return _sum(getattr(stats, "nfe", 0), n), _sum(getattr(stats, "nfe_backward", 0), n)


def last_stats(model: nn.Module) -> Any:
    """What the model's, or its block's, last solve left; None where there was none."""
    stats = getattr(model, "last_stats", None)
    return getattr(getattr(model, "block", None), "last_stats", None) if stats is None else stats


def _sum(count: Any, n: int) -> float:
    if isinstance(count, Tensor) and count.ndim:
        return float(count.double().sum()) * (n / count.numel())  # host read; a sample may have several rows
    return float(count or 0) * n


def step_size(schedule: str, lr: float, step: int, steps: int) -> float:
    """Step size of optimiser step number ``step`` (from 0) of ``steps``.

    "constant": lr.
    "cosine": from lr down to 0, lr/2 · (1 + cos(π step/steps)).
    "decay": lr, multiplied by 0.95 after each 1,000 steps.
    Source: I. Loshchilov, F. Hutter, SGDR, ICLR 2017, Eq. (5), without restarts; the decay is the
    one of the AdamNODE authors' released code.
    """
    if schedule == "constant":
        return float(lr)
    if schedule == "decay":
        return lr * DECAY ** (step // DECAY_EVERY)
    return lr / 2 * (1 + math.cos(math.pi * step / steps))


class SamplesFailed(TrainingError):
    """Per-sample stepping gave up on samples of a batch: their outputs are NaN."""


def parts_of_batches(
    data: Examples, order: Tensor, batch_size: int, ranks: Ranks, start: int = 0
) -> Iterator[tuple[Tensor, Tensor] | None]:
    """This rank's part of each global batch of ``data`` in ``order``, from batch number ``start`` on.

    None where a batch has fewer samples than there are ranks and nothing is left for this one. No global
    random number is drawn: a run that starts in the middle of an epoch sees the same numbers
    afterwards as one that did not stop.
    """
    for batch in order.split(batch_size)[start:]:
        mine = ranks.part(batch)
        yield data.__getitems__(mine) if mine else None


def choose_augmentation(data: Examples, seed: int, epoch: int) -> None:
    """Tells a data set that augments which random numbers are those of an epoch."""
    if hasattr(data, "set_epoch"):
        data.set_epoch(seed, epoch)


@contextlib.contextmanager
def mixed_precision(model: nn.Module, amp: str, device: torch.device) -> Iterator[None]:
    """Encoder, head and field under autocast to bfloat16; the block's state stays in its parameters' dtype.

    amp: "off" or "bf16".
    """
    if amp == "off":
        yield
        return
    block = getattr(model, "block", None)
    handle = None
    if isinstance(block, nn.Module):
        handle = block.register_forward_pre_hook(_full_precision, with_kwargs=True)
    try:
        with torch.autocast(device.type, torch.bfloat16):
            yield
    finally:
        if handle is not None:
            handle.remove()


def _full_precision(
    block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    dtype = next((p.dtype for p in block.parameters()), torch.float32)

    def cast(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    return tuple(cast(a) for a in args), {name: cast(value) for name, value in kwargs.items()}


@contextlib.contextmanager
def solving_with(model: nn.Module, **changes: Any) -> Iterator[None]:
    """The model's block solves with other `SolveSettings` inside; a model without a block as ever."""
    block: Any = getattr(model, "block", None)
    own = getattr(block, "settings", None)
    if not isinstance(own, SolveSettings):
        yield
        return
    block.settings = dataclasses.replace(own, **changes)
    try:
        yield
    finally:
        block.settings = own


def handed_on(model: nn.Module, solved: bool, ranks: Ranks) -> float | None:
    """The first |dt| for the next batch: what the last solve would try next, the smallest of the ranks'.

    solved: whether this rank had a part of the batch.  None where no rank solved in shared stepping.
    """
    dt = getattr(last_stats(model), "dt_last", None) if solved else None
    mine = dt if isinstance(dt, float) and 0 < dt < math.inf else math.inf
    smallest = -ranks.max(-mine)
    return smallest if smallest < math.inf else None


def descend(
    model: nn.Module, x: Tensor, y: Tensor, objective: Objective, *, total: int, parts: int, amp: str
) -> EpochSums:
    """Adds to the gradients of the loss: the sum over x's samples, divided by ``total``.

    parts: x is cut into so many pieces, one forward and backward pass each, to save memory.
    Raises: SolverError, ReconstructionError, SamplesFailed where a piece cannot be solved; ArgumentError
    where the loss depends on no parameter.
    """
    sums = EpochSums()
    for xs, ys in zip(x.chunk(parts), y.chunk(parts), strict=True):
        with mixed_precision(model, amp, x.device):
            output = model(xs)
        check_samples(model)
        loss = objective.loss(output, ys)
        if not loss.requires_grad:
            raise ArgumentError(LEARNS_NOTHING)
        extra = penalty_of(last_stats(model), objective.weights, len(ys))
        aim = loss if extra is None else loss + extra
        (aim * (len(ys) / total)).backward()
        value, score, *more = read_values(
            loss, objective.score(output, ys), *([] if extra is None else [extra])
        )
        counts, penalty = solve_counts(model, len(ys)), more[0] if more else 0.0
        sums.add(len(ys), value * len(ys), score, counts, penalty * len(ys))
    return sums


def read_values(loss: Tensor, score: Tensor, *more: Tensor) -> list[float]:
    """A batch's loss and score, and more, as numbers."""
    return torch.stack([x.detach().double() for x in (loss, score, *more)]).tolist()  # one host read


def check_samples(model: nn.Module) -> None:
    """Raises SamplesFailed if the last solve, per sample, gave up on some."""
    status = getattr(last_stats(model), "status", None)
    if not isinstance(status, Tensor):
        return
    failed = [(i, s) for i, s in enumerate(status.tolist()) if s not in (Status.SUCCESS, Status.EVENT)]
    if failed:  # host read above
        first, reason = failed[0]
        raise SamplesFailed(
            f"{len(failed)} of {len(status)} samples could not be solved; the first is sample {first} of "
            f"the batch ({Status(reason).name})"
        )


@contextlib.contextmanager
def start_seen(block: nn.Module) -> Iterator[dict[str, Tensor]]:
    """A dict that the block's calls inside fill with what they start from: h0, and m0, v0 … as given."""
    seen: dict[str, Tensor] = {}

    def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.update(kwargs, **dict(zip(("h0",), args, strict=False)))

    handle = block.register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def norms_of_state(model: nn.Module, x: Tensor) -> str:
    """The norms of h, m, v … at the block's start and end for a batch, as a sentence; "" without a block.

    For a message about a step that failed: whatever goes wrong here is part of the sentence.
    """
    block: Any = getattr(model, "block", None)
    if not hasattr(block, "trajectory") or not hasattr(block, "settings"):
        return ""
    with torch.no_grad(), start_seen(block) as seen, contextlib.suppress(AdamodeError):
        model(x)
    if not seen:
        return ""
    start = {name.rstrip("0"): value for name, value in seen.items() if isinstance(value, Tensor)}
    told = "Norms at the block's start: " + _listed(start)
    try:
        t = torch.tensor(block.settings.t, dtype=torch.float64, device=x.device)
        with torch.no_grad():
            path = block.trajectory(t=t, **seen)
        return f"{told}; at its end: {_listed({name: value[-1] for name, value in path.items()})}."
    except (AdamodeError, RuntimeError, TypeError) as error:
        return f"{told}; its end is not reached ({first_line(error, 80)})."


def _listed(blocks: dict[str, Tensor]) -> str:
    return ", ".join(f"‖{name}‖ = {value.double().norm().item():.4g}" for name, value in blocks.items())


def not_finite(sums: EpochSums, norm: float, model: nn.Module, x: Tensor | None) -> str:
    """What is to be said of a step whose loss, or the norm of its gradient, is not finite; "" where both are.

    x: the batch, for the norms of the block's state.
    """
    if math.isfinite(sums.loss) and math.isfinite(norm):
        return ""
    told = f"the loss is {sums.loss / sums.samples:.6g} and the norm of its gradient {norm:.6g}"
    state = "" if x is None else norms_of_state(model, x)
    return f"{told}. {state}".rstrip(". ")


def agree(sums: EpochSums, failure: str, ranks: Ranks) -> str:
    """Adds up a batch's sums over the ranks, in place; returns what went wrong on any of them, or ""."""
    if ranks.world == 1:
        return failure
    values = [sums.samples, sums.loss, sums.score, sums.nfe_forward, sums.nfe_backward, sums.penalty]
    samples, *rest, failed = ranks.sum([*map(float, values), float(bool(failure))])
    sums.samples = round(samples)
    sums.loss, sums.score, sums.nfe_forward, sums.nfe_backward, sums.penalty = rest
    if not failed:
        return ""
    return "; ".join(f"rank {r}: {text}" for r, text in enumerate(ranks.gather(failure)) if text)


def on_device(part: tuple[Tensor, Tensor], device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Inputs and targets on the device; floats in the model's dtype."""
    x, y = (value.to(device) for value in part)
    return tuple(v.to(dtype) if v.is_floating_point() else v for v in (x, y))  # type: ignore[return-value]
