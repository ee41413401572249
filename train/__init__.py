"""Training: data sets, the loop over epochs, checkpoints, metrics. No figures, no command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..solvers.lazy import when_used

if TYPE_CHECKING:  # for type checkers and editors, which do not run `__getattr__`
    from .config import TrainConfig
    from .position import EpochRecord, TrainResult
    from .trainer import Trainer
else:  # what stands in `known` is found without torch
    __getattr__, __dir__ = when_used(
        __name__,
        {
            "EpochRecord": "position",
            "TrainConfig": "config",
            "TrainResult": "position",
            "Trainer": "trainer",
        },
    )

__all__ = ["EpochRecord", "TrainConfig", "TrainResult", "Trainer"]
