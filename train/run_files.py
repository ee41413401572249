"""Layout of a run's folder, and how its settings and metrics are read. Nothing here imports torch.

    <output_dir>/<name>/config.json     settings, the versions of all packages, the state of git
                       /config.toml     the same, to train with again: --config
                       /metrics.jsonl   one line an epoch, a last one when finished
                       /metrics.csv     the same as a table
                       /checkpoint.pt   everything that decides the next number, the best weights too
                       /best.pt         the weights that were best in validation
                       /plots/          pictures, drawn by others

The checkpoint is the truth: metrics.jsonl is written from the rows inside it, so after a kill
at any moment the two agree again as soon as the run goes on.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from ..solvers.errors import CheckpointError
from .known import CHECKPOINT, SETTINGS

TABLES = ("versions", "git")  # of a run's config.json and config.toml, beside the settings


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """The files of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """config.json."""
        return self.path / SETTINGS

    @property
    def metrics(self) -> Path:
        """metrics.jsonl."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoint(self) -> Path:
        """checkpoint.pt."""
        return self.path / CHECKPOINT

    @property
    def best(self) -> Path:
        """best.pt: config, epoch, metrics and the weights (``model``) that were best in validation."""
        return self.path / "best.pt"

    @property
    def table(self) -> Path:
        """metrics.csv."""
        return self.path / "metrics.csv"

    @property
    def failure(self) -> Path:
        """failure.pt: a checkpoint of the state before the step that could not be made."""
        return self.path / "failure.pt"

    @property
    def plots(self) -> Path:
        """The folder plots/ of its pictures."""
        return self.path / "plots"

    def read_settings(self) -> dict[str, Any]:
        """The settings in config.json, as they stand. Raises: CheckpointError if they cannot be read."""
        try:
            content = json.loads(self.config.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{str(self.config)!r} cannot be read ({error}); choose another --name."
            ) from error
        if not isinstance(content, dict):
            raise CheckpointError(f"{str(self.config)!r} is not a run's configuration.")
        return {name: value for name, value in content.items() if name not in TABLES}

    def read_metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl; empty where there is none."""
        if not self.metrics.exists():
            return []
        return [json.loads(line) for line in self.metrics.read_text(encoding="utf-8").splitlines()]
