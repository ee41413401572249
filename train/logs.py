"""The progress bar of a run, and the lines that stay above it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm.auto import tqdm

from ..solvers.errors import ArgumentError
from .measures import measure_of
from .objective import Objective
from .step import EpochSums

EVERY = 60.0  # seconds between lines where there is no bar


class ProgressBar:
    """tqdm over all optimiser steps of a run: loss, accuracy, NFE forward and backward.

    Quiet: neither bar nor lines. The bar is for a terminal or a notebook. A file or pipe gets plain lines:
    one an epoch on stdout, and one on stderr in each minute of an epoch.
    """

    def __init__(self, total: int, done: int, *, objective: Objective, quiet: bool):
        self._quiet, self._objective, self._total = quiet, objective, total
        self._bar = tqdm(
            total=total,
            initial=done,
            unit="step",
            disable=quiet or not watched(),
            dynamic_ncols=True,
            mininterval=0.2,
        )
        self._done, self._said = done, time.monotonic()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def step(self, sums: EpochSums) -> None:
        """One optimiser step was made; ``sums`` are those of the epoch so far."""
        self._done += 1
        if self._quiet or not sums.samples:
            return
        if not self._bar.disable:
            self._bar.set_postfix_str(self._told(sums), refresh=False)
            self._bar.update()
        elif time.monotonic() - self._said > EVERY:
            self._said = time.monotonic()
            print(f"step {self._done}/{self._total}  {self._told(sums)}", file=sys.stderr, flush=True)

    def _told(self, sums: EpochSums) -> str:
        objective = self._objective
        return (
            f"loss {sums.mean('loss'):.3f}{objective.kind.loss_unit}, "
            f"{objective.told(objective.measure(sums))}, "
            f"nfe {sums.mean('nfe_forward'):.0f}/{sums.mean('nfe_backward'):.0f}"
        )

    def epoch(self, row: dict[str, Any], epochs: int) -> None:
        """An epoch has ended with this row of metrics."""
        self._said = time.monotonic()
        say(epoch_line(row, epochs, self._objective.unit), quiet=self._quiet, above_bar=True)


def watched() -> bool:
    """Whether someone sees a bar move: on a terminal, or in a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def epoch_line(row: dict[str, Any], epochs: int, unit: str = "") -> str:
    """One row of metrics.jsonl for people, in 80 columns: loss and quality, NFE forward/backward, seconds.

    A density's loss and quality are one number in two units: its quality alone is told.
    """
    measure = measure_of(row)
    assert measure is not None  # every epoch has a validation
    parts = []
    for part in ("train", "val"):
        quality = measure.told(row[f"{part}_{measure.name}"], unit).removeprefix("acc").removeprefix("rmse")
        loss = "" if measure.loss_unit else f"{row[f'{part}_loss']:.4g}, "
        parts.append(f"{part} {loss}{quality.strip()}")
    n, seconds = row.get("skipped_batches"), row["seconds"]
    skipped = f"\n{'':12}{n} {'batch' if n == 1 else 'batches'} skipped" if n else ""
    return (
        f"epoch {row['epoch']:>2}/{epochs}  {'  '.join(parts)}  "
        f"NFE {row['nfe_forward']:.0f}/{row['nfe_backward']:.0f}  "
        f"{seconds:.{0 if seconds >= 100 else 1}f} s{skipped}"
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
