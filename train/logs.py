"""The progress bar of a run, and the lines that stay above it."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from tqdm import tqdm

from .metrics import EpochSums


class ProgressBar:
    """tqdm over all optimiser steps of a run: loss, accuracy, NFE forward and backward.

    Quiet: neither bar nor lines. Where stderr is not a terminal, it is redrawn rarely.
    """

    def __init__(self, total: int, done: int, *, quiet: bool):
        self._quiet = quiet
        self._bar = tqdm(
            total=total,
            initial=done,
            unit="step",
            disable=quiet,
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 10.0,
        )

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def step(self, sums: EpochSums) -> None:
        """One optimiser step was made; ``sums`` are those of the epoch so far."""
        if self._quiet:
            return
        self._bar.set_postfix_str(
            f"loss {sums.mean('loss'):.3f}, acc {100 * sums.accuracy:.1f} %, "
            f"nfe {sums.mean('nfe_forward'):.0f}/{sums.mean('nfe_backward'):.0f}",
            refresh=False,
        )
        self._bar.update()

    def epoch(self, row: dict[str, Any], epochs: int) -> None:
        """An epoch has ended with this row of metrics."""
        if not self._quiet:
            tqdm.write(epoch_line(row, epochs), file=sys.stdout)


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """One row of metrics.jsonl for people."""
    return (
        f"epoch {row['epoch']:>3}/{epochs}  "
        f"train loss {row['train_loss']:.4f} acc {100 * row['train_accuracy']:5.1f} %  "
        f"val loss {row['val_loss']:.4f} acc {100 * row['val_accuracy']:5.1f} %  "
        f"NFE {row['nfe_forward']:.1f} forward {row['nfe_backward']:.1f} backward  "
        f"{row['seconds']:.1f} s"
    )


def say(text: object, *, quiet: bool) -> None:
    """Prints to stdout unless quiet."""
    if not quiet:
        print(text, flush=True)
