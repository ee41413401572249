"""One batch: forward, backward, what it cost; and what is said when it fails."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..models.block import SolveSettings
from ..solvers.errors import AdamodeError, ReconstructionError, SolverError, TrainingError
from ..solvers.status import Status
from .data.splits import Examples
from .distributed import Ranks
from .metrics import EpochSums, last_stats, solve_counts
from .objective import Objective

CANNOT_BE_SOLVED = (SolverError, ReconstructionError)


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
    Raises: SolverError, ReconstructionError, SamplesFailed where a piece cannot be solved.
    """
    sums = EpochSums()
    for xs, ys in zip(x.chunk(parts), y.chunk(parts), strict=True):
        with mixed_precision(model, amp, x.device):
            output = model(xs)
        check_samples(model)
        loss = objective.loss(output, ys)
        (loss * (len(ys) / total)).backward()
        value, score = _read(loss, objective.score(output, ys))
        sums.add(len(ys), value * len(ys), score, solve_counts(model, len(ys)))
    return sums


def _read(loss: Tensor, score: Tensor) -> list[float]:
    return torch.stack([loss.detach().double(), score]).tolist()  # one host read


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
        return f"{told}; its end is not reached ({(str(error).splitlines() or [''])[0][:80]})."


def _listed(blocks: dict[str, Tensor]) -> str:
    return ", ".join(f"‖{name}‖ = {value.double().norm().item():.4g}" for name, value in blocks.items())


@torch.no_grad()
def evaluate(
    model: nn.Module,
    data: Examples,
    objective: Objective,
    *,
    batch_size: int,
    ranks: Ranks,
    amp: str = "off",
    dtype: torch.dtype = torch.float32,
) -> Iterator[EpochSums]:
    """Loss, score and forward NFE over a data set, after each batch; the last yield is the whole.

    Raises: TrainingError, on every rank, where a batch cannot be solved or the loss is not finite.
    """
    model.eval()
    sums = EpochSums()
    order = torch.arange(len(data))
    for number, part in enumerate(parts_of_batches(data, order, batch_size, ranks)):
        batch, failure = EpochSums(), ""
        if part is not None:
            x, y = on_device(part, ranks.device, dtype)
            try:
                with mixed_precision(model, amp, x.device):
                    output = model(x)
                check_samples(model)
                loss, score = _read(objective.loss(output, y), objective.score(output, y))
                batch.add(len(y), loss * len(y), score, (solve_counts(model, len(y))[0], 0.0))
            except (*CANNOT_BE_SOLVED, SamplesFailed) as error:
                failure = str(error)
        told = agree(batch, failure, ranks)
        if told or not torch.isfinite(torch.tensor(batch.loss)):
            reason = told or f"the loss is {batch.loss / batch.samples:.6g}"
            raise TrainingError(f"unseen data, batch {number} (counted from 0): {reason}")
        sums.add(batch.samples, batch.loss, batch.score, (batch.nfe_forward, 0.0))
        yield sums


def agree(sums: EpochSums, failure: str, ranks: Ranks) -> str:
    """Adds up a batch's sums over the ranks, in place; returns what went wrong on any of them, or ""."""
    if ranks.world == 1:
        return failure
    values = [sums.samples, sums.loss, sums.score, sums.nfe_forward, sums.nfe_backward]
    samples, *rest, failed = ranks.sum([*map(float, values), float(bool(failure))])
    sums.samples = round(samples)
    sums.loss, sums.score, sums.nfe_forward, sums.nfe_backward = rest
    if not failed:
        return ""
    return "; ".join(f"rank {r}: {text}" for r, text in enumerate(ranks.gather(failure)) if text)


def on_device(part: tuple[Tensor, Tensor], device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Inputs and targets on the device; floats in the model's dtype."""
    x, y = (value.to(device) for value in part)
    return tuple(v.to(dtype) if v.is_floating_point() else v for v in (x, y))  # type: ignore[return-value]
