"""Runs as they lie in a folder, to be listed and compared: settings, metrics, no weights. Without torch."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..solvers.errors import CheckpointError
from .known import NOT_COMPARED, find_runs
from .measures import measure_of, merit
from .run_files import RunFiles

_OF_AN_EPOCH = ("epoch", "seconds", "val_loss", "nfe_forward", "nfe_backward")
_NUMBERS = (*_OF_AN_EPOCH, "val_", "test_", "efficacy_", "parameters")


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """One run. state: "finished", "unfinished", "failed" (a step could not be made since the last epoch)
    or "unreadable" (then ``problem`` says why, and settings is None).

    settings: as they stand in its config.json; a run of an earlier version may lack some.
    history: its epochs' rows of metrics.
    final: the last line of a finished run, else None.
    """

    name: str
    folder: Path
    state: str
    settings: dict[str, Any] | None
    history: tuple[dict[str, Any], ...] = ()
    final: dict[str, Any] | None = None
    problem: str = ""

    @property
    def best_row(self) -> dict[str, Any]:
        """The epoch that was best in validation; empty where none has ended."""
        return max(self.history, key=merit, default={})

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rest = {"history": list(self.history), "final": self.final, "problem": self.problem}
        return {
            "name": self.name,
            "folder": str(self.folder),
            "state": self.state,
            "config": self.settings,
            **rest,
        }


def list_runs(output_dir: str | os.PathLike[str], names: Sequence[str] = ()) -> list[RunSummary]:
    """The runs in a folder, by name; only ``names`` where given. Other folders and files are passed over.

    Raises: ArgumentError for a folder that is not there or a name that is none of its runs.
    """
    found = find_runs(output_dir, names)
    return [_summary(name, path) for name, path in found.items()]


def _summary(name: str, path: Path) -> RunSummary:
    folder = RunFiles(path)
    try:
        settings = folder.read_settings()
        if "epochs" not in settings:
            raise CheckpointError(f"{str(folder.config)!r} is not a run's configuration: no epochs.")
        rows = folder.read_metrics()
        _check_rows(folder.metrics, rows)
        history = tuple(row for row in rows if not row.get("final"))
        final = next((row for row in rows if row.get("final")), None)
    except (CheckpointError, OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        return RunSummary(name, path, "unreadable", None, problem=str(error))
    state = "unfinished" if final is None else "finished"
    if final is None and folder.failure.exists():
        kept = folder.checkpoint.stat().st_mtime if folder.checkpoint.exists() else 0.0
        state = "failed" if folder.failure.stat().st_mtime >= kept else state
    return RunSummary(name, path, state, settings, history, final)


def _check_rows(path: Path, rows: Sequence[Any]) -> None:
    """Raises CheckpointError, by line, for what no epoch of a run wrote, or lacks a number to compare."""
    for line, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise CheckpointError(f"{str(path)!r}, line {line} is no row of metrics.")
        wrong = [
            name
            for name, value in row.items()
            if name.startswith(_NUMBERS) and not isinstance(value, int | float | None)
        ]
        if not row.get("final"):
            wrong += [name for name in _OF_AN_EPOCH if row.get(name) is None]
            wrong += [] if measure_of(row) is not None else ["the validation's quality"]
        if wrong:
            raise CheckpointError(f"{str(path)!r}, line {line} has no number for {wrong[0]}.")


def differing_settings(runs: Sequence[RunSummary]) -> list[str]:
    """Names of the settings that decide numbers and are not the same in all runs that have them."""
    found: dict[str, set[str]] = {}
    for run in runs:
        for name, value in (run.settings or {}).items():
            found.setdefault(name, set()).add(json.dumps(value))
    return [name for name, values in found.items() if name not in NOT_COMPARED and len(values) > 1]
