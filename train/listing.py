"""Runs as they lie in a folder, to be listed and compared. Reads settings and metrics, no weights."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..solvers.errors import CheckpointError
from .config import NOT_COMPARED, TrainConfig
from .known import find_runs
from .objective import merit
from .runs import RunFolder


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """One run. state: "finished", "unfinished", "failed" (a step could not be made since the last epoch)
    or "unreadable" (then ``problem`` says why, and config is None).

    history: its epochs' rows of metrics.
    final: the last line of a finished run, else None.
    """

    name: str
    folder: Path
    state: str
    config: TrainConfig | None
    history: tuple[dict[str, Any], ...] = ()
    final: dict[str, Any] | None = None
    problem: str = ""

    @property
    def best_row(self) -> dict[str, Any]:
        """The epoch that was best in validation; empty where none has ended."""
        return max(self.history, key=merit, default={})

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        config = None if self.config is None else self.config.to_dict()
        rest = {"history": list(self.history), "final": self.final, "problem": self.problem}
        return {"name": self.name, "folder": str(self.folder), "state": self.state, "config": config, **rest}


def list_runs(output_dir: str | os.PathLike[str], names: Sequence[str] = ()) -> list[RunSummary]:
    """The runs in a folder, by name; only ``names`` where given. Other folders and files are passed over.

    Raises: ArgumentError for a folder that is not there or a name that is none of its runs.
    """
    found = find_runs(output_dir, names)
    return [_summary(name, path) for name, path in found.items()]


def _summary(name: str, path: Path) -> RunSummary:
    folder = RunFolder(path)
    try:
        config = folder.read_config()
        rows = folder.read_metrics()
        history = tuple(row for row in rows if not row.get("final"))
        final = next((row for row in rows if row.get("final")), None)
    except (CheckpointError, OSError, json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        return RunSummary(name, path, "unreadable", None, problem=str(error))
    state = "unfinished" if final is None else "finished"
    if final is None and folder.failure.exists():
        kept = folder.checkpoint.stat().st_mtime if folder.checkpoint.exists() else 0.0
        state = "failed" if folder.failure.stat().st_mtime >= kept else state
    return RunSummary(name, path, state, config, history, final)


def differing_settings(runs: Sequence[RunSummary]) -> list[str]:
    """Names of the settings that decide numbers and are not the same in all runs."""
    configs = [run.config for run in runs if run.config is not None]
    return [
        field.name
        for field in dataclasses.fields(TrainConfig)
        if field.name not in NOT_COMPARED and len({getattr(c, field.name) for c in configs}) > 1
    ]
