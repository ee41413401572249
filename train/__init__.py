"""Training: data sets, the loop over epochs, checkpoints, metrics. No figures, no command line."""

from __future__ import annotations

from .config import TrainConfig
from .position import EpochRecord, TrainResult
from .trainer import Trainer

__all__ = ["EpochRecord", "TrainConfig", "TrainResult", "Trainer"]
