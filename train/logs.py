"""The progress bar of a run, and the lines that stay above it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from ..solvers.errors import ArgumentError
from .objective import Objective, measure_of
from .step import EpochSums


class ProgressBar:
    """tqdm over all optimiser steps of a run: loss, accuracy, NFE forward and backward.

    Quiet: neither bar nor lines. Where stderr is not a terminal, it is redrawn rarely.
    """

    def __init__(self, total: int, done: int, *, objective: Objective, quiet: bool):
        self._quiet, self._objective = quiet, objective
        self._bar = tqdm(
            total=total,
            initial=done,
            unit="step",
            disable=quiet,
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 10.0,  # a file gets a line each time
        )

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def step(self, sums: EpochSums) -> None:
        """One optimiser step was made; ``sums`` are those of the epoch so far."""
        if self._quiet or not sums.samples:
            return
        objective = self._objective
        self._bar.set_postfix_str(
            f"loss {sums.mean('loss'):.3f}{objective.kind.loss_unit}, "
            f"{objective.told(objective.measure(sums))}, "
            f"nfe {sums.mean('nfe_forward'):.0f}/{sums.mean('nfe_backward'):.0f}",
            refresh=False,
        )
        self._bar.update()

    def epoch(self, row: dict[str, Any], epochs: int) -> None:
        """An epoch has ended with this row of metrics."""
        if not self._quiet:
            tqdm.write(epoch_line(row, epochs, self._objective.unit), file=sys.stdout)


def epoch_line(row: dict[str, Any], epochs: int, unit: str = "") -> str:
    """One row of metrics.jsonl for people."""
    measure = measure_of(row)
    assert measure is not None  # every epoch has a validation
    train, val = (measure.told(row[f"{part}_{measure.name}"], unit) for part in ("train", "val"))
    skipped = f"  {row['skipped_batches']} batches skipped" if row.get("skipped_batches") else ""
    return (
        f"epoch {row['epoch']:>3}/{epochs}  "
        f"train loss {row['train_loss']:.4f}{measure.loss_unit} {train}  "
        f"val loss {row['val_loss']:.4f}{measure.loss_unit} {val}  "
        f"NFE {row['nfe_forward']:.1f} forward {row['nfe_backward']:.1f} backward  "
        f"{row['seconds']:.1f} s{skipped}"
    )


class BoardWriter:
    """TensorBoard's event files of a run, one scalar a metric and epoch.

    Raises: ArgumentError where the package is missing.
    """

    def __init__(self, folder: Path, done: int):
        writer = board()
        folder.mkdir(parents=True, exist_ok=True)
        # Epochs after the checkpoint that is gone on from are dropped from the picture.
        self._writer = writer(str(folder), purge_step=done + 1 if done else None)

    def epoch(self, row: dict[str, Any]) -> None:
        """Adds an epoch's row of metrics."""
        for name, value in row.items():
            if name != "epoch" and value is not None:
                self._writer.add_scalar(name, value, row["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Ends the files."""
        self._writer.close()


def board() -> Any:
    """TensorBoard's writer class. Raises: ArgumentError, with the way out, where it is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ArgumentError(
            f"--tensorboard: the package is missing ({error}). Install it with "
            "`pip install 'adamode[tensorboard]'` or `pip install tensorboard`, or leave the option out; "
            "metrics.jsonl and metrics.csv are written anyway."
        ) from error
    return SummaryWriter


def say(text: object, *, quiet: bool, above_bar: bool = False) -> None:
    """Prints to stdout unless quiet; above the bar where one is shown."""
    if quiet:
        return
    if above_bar:
        tqdm.write(str(text), file=sys.stdout)
    else:
        print(text, flush=True)
