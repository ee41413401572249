"""A run's model as a folder of JSON and safetensors, with a card that says where it comes from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..models.saving import save
from .data import DataSet
from .evaluation import LoadedRun

# What of the settings is nobody else's business: where things lay.
_PLACES = ("data_dir", "data", "output_dir", "name", "device")


def save_run(
    run: LoadedRun, data: DataSet, folder: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]] = ()
) -> Path:
    """Writes the model of a run for `adamode.load`; the card names data, seed, settings and results.

    data: the run's.
    rows: of its metrics, `RunFolder.read_metrics`.
    Raises: ArgumentError, as `models.saving.save`.
    """
    return save(run.model, folder, card_of(run, data, rows))


def card_of(run: LoadedRun, data: DataSet, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is known of a run's model beside its weights, as JSON has it."""
    config = run.config
    final: Mapping[str, Any] = next((row for row in rows if row.get("final")), {})
    last: Mapping[str, Any] = next((row for row in rows if row.get("epoch") == run.epoch), {})
    told = data.card.as_dict()
    return {
        "model": config.model,
        "data": {
            name: told[name] for name in ("name", "source", "counts", "shape", "sha256", "labels", "note")
        },
        "scaling": {} if data.raw is None else data.raw.as_dict(),
        "seed": config.seed,
        "epoch": run.epoch,
        "evaluations": {name: last[name] for name in ("nfe_forward", "nfe_backward") if name in last},
        "validation": {name: last[name] for name in last if name.startswith("val_")},
        "test": {name: final[name] for name in final if name.startswith("test_")},
        "settings": {name: value for name, value in config.to_dict().items() if name not in _PLACES},
    }
