"""The decision whether a run may start, go on or is finished, and what its folder is written from."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from pathlib import Path
from typing import Any

from ..models.provenance import git_state
from ..solvers.errors import AdamodeError, ArgumentError, CheckpointError, TrainingError
from ..solvers.write_aside import write_aside
from .checkpoint import load_checkpoint
from .config import OPEN_ENDED, TrainConfig, toml_line
from .measures import MEASURES
from .reproducible import versions
from .run_files import RunFiles

FINAL_KEYS = (
    *("test_loss", *(f"test_{name}" for name in MEASURES), "more_tests"),
    *("efficacy_forward", "efficacy_backward", "parameters"),
)


@dataclasses.dataclass(frozen=True)
class RunFolder(RunFiles):
    """The files of one run, opened and written."""

    def open(self, config: TrainConfig, *, resume: bool) -> dict[str, Any] | None:
        """What there is to go on from: a checkpoint's state, or None to start anew.

        Reads only. Raises: CheckpointError where the folder holds another configuration, an
        unfinished run (without ``resume``), nothing to go on from (with it), or foreign files.
        """
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            if resume:
                raise CheckpointError(
                    f"--resume: there is no run at {str(self.path)!r}; start it without --resume, or "
                    "name the run with --name and --output-dir."
                )
            return None
        if not self.path.is_dir() or not (self.config.exists() or self.checkpoint.exists()):
            raise CheckpointError(
                f"{str(self.path)!r} exists and is not the folder of a run (no config.json); choose "
                "another --name or --output-dir."
            )
        if not self.checkpoint.exists():  # killed before anything was learnt: nothing to lose
            self._refuse_differences(self.read_config(), config, resume=resume)
            return None
        state = load_checkpoint(self.checkpoint)
        self._refuse_differences(_config_of(state["config"], self.checkpoint), config, resume=resume)
        if resume and config.epochs < state["epoch"] + (state["batch"] > 0):
            raise CheckpointError(
                f"--resume: epochs={config.epochs}, but the run at {str(self.path)!r} is in epoch "
                f"{state['epoch'] + (state['batch'] > 0)} already; give as many or more."
            )
        if not resume and state["final"] is None:
            raise CheckpointError(
                f"{str(self.path)!r} holds an unfinished run of this configuration ({state['epoch']} "
                f"of {config.epochs} epochs): go on with --resume, or choose another --name."
            )
        return state

    def _refuse_differences(self, there: TrainConfig, here: TrainConfig, *, resume: bool) -> None:
        found = there.differences(here)
        if resume and here.schedule in OPEN_ENDED:
            # A run may be made longer, unless its step sizes have come down to 0 at its end; `open`
            # refuses to make it shorter than it is.
            found.pop("epochs", None)
        if found:
            listed = ", ".join(f"{k}: {a!r} there, {b!r} asked for" for k, (a, b) in found.items())
            raise CheckpointError(
                f"{str(self.path)!r} holds a run of another configuration ({listed}); choose another "
                "--name, or ask for the settings that it has."
            )

    def read_config(self) -> TrainConfig:
        """The settings in config.json. Raises: CheckpointError if they cannot be read."""
        return _config_of(self.read_settings(), self.config)

    def create(self, config: TrainConfig) -> None:
        """Makes the folder and writes config.json and config.toml.

        Raises: ArgumentError if it cannot be written there.
        """
        tables = {"versions": versions(), "git": git_state()}
        content = {**config.to_dict(), **tables}
        lines = [config.toml()]
        for table, values in tables.items():
            lines.append(f"\n[{table}]\n")
            lines.extend(toml_line(json.dumps(name), value) for name, value in values.items())
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_aside(self.path / "config.toml", "".join(lines))
            write_aside(self.config, json.dumps(content, indent=2) + "\n")
        except OSError as error:
            raise ArgumentError(
                f"output_dir={os.fspath(config.output_dir)!r}: the run's folder cannot be written "
                f"({error}); choose another --output-dir."
            ) from error

    def write_metrics(self, history: list[dict[str, Any]], final: dict[str, Any] | None) -> None:
        """Writes metrics.jsonl and metrics.csv from the rows so far and, of a finished run, its last line.

        Raises: TrainingError if the disk refuses; the file that was there stays.
        """
        last = (
            []
            if final is None
            else [{"final": True, **{k: final[k] for k in FINAL_KEYS if final.get(k, {}) != {}}}]
        )
        rows = [*history, *last]
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        columns = list(dict.fromkeys(key for row in rows for key in row))
        table = io.StringIO()
        writer = csv.DictWriter(table, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        try:
            write_aside(self.table, table.getvalue())
            write_aside(self.metrics, text)
        except OSError as error:
            raise TrainingError(
                f"{str(self.metrics)!r} could not be written ({error}); the checkpoint beside it holds "
                "its rows. Free some space or make the folder writable, then go on with --resume."
            ) from error


def _config_of(settings: Any, source: Path) -> TrainConfig:
    try:
        return TrainConfig.from_dict(settings)
    except (AdamodeError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{str(source)!r} holds settings that this version does not know ({error})."
        ) from error
