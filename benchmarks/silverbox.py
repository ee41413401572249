"""``python -m benchmarks.silverbox``: start values for the Silverbox by a search, and a table of runs.

``search`` gives every model as many trials with the same seed and the same few epochs, and judges them by
the validation windows alone: training ends before the test is read. Trial 0 is what is registered; the
others draw what decides scales: the size of the field's inputs, its gain, and the rates that the model has.
``table FOLDER`` reads the runs of ``adamode sweep --models all --seeds 0-2 --dataset silverbox``, whose seeds
are not the search's.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from adamode import SolverError, TrainConfig, Trainer, models
from adamode.solvers.errors import TrainingError
from adamode.train.position import EpochRecord

SEED, TRIALS, EPOCHS = 100, 6, 10
# Drawn evenly in their logarithms. A unit of 3 to 30 (of 10 mV) gives the network inputs of size 0.2 to 2.
RANGES = {
    "unit": (3.0, 30.0),
    "gain": (0.3, 5.0),
    "alpha": (0.03, 0.3),
    "beta": (0.1, 0.9),
    "gamma": (0.02, 0.9),
}
PARTS = ("arrow", "arrow-inside", "multisine")
Settings = dict[str, float]


def trials(model: str, n: int = TRIALS, seed: int = SEED) -> Iterator[Settings]:
    """n settings of `TrainConfig` for a model: what is registered, {}, then drawn ones.

    All models see the same units and gains; a rate is drawn for a model that has it. ``alpha`` and
    ``beta`` in `RANGES` are the rates 1 − α and 1 − β. The field gives units of what it sees, times the
    gain, and over 1 − α where that multiplies it.
    """
    registered = models.defaults(model, "silverbox-network")
    for trial in range(n):
        draw = random.Random(seed * 1000 + trial)
        drawn = {name: low * (high / low) ** draw.random() for name, (low, high) in RANGES.items()}
        if trial == 0:
            yield {}
            continue
        state = registered["state_unit"] / drawn["unit"]
        found = {"field_scale": state, "field_gain": drawn["gain"] / state}
        if "alpha" in registered:
            found["field_gain"] /= drawn["alpha"]
            found |= {"alpha": 1 - drawn["alpha"], "beta": 1 - drawn["beta"]}
        if "gamma" in registered:
            found["gamma"] = drawn["gamma"]
        yield {name: float(f"{value:.3g}") for name, value in found.items()}


class _LongEnoughError(Exception):
    """The last epoch is over: what a run would do next is read the test."""


def validation(config: TrainConfig) -> list[float]:
    """The validation's error after each epoch, in mV; the test is not read."""
    errors: list[float] = []

    def look(record: EpochRecord) -> None:
        errors.append(record.row["val_rmse"])
        if len(errors) == config.epochs:
            raise _LongEnoughError

    try:
        Trainer(config, on_epoch=look, quiet=True).fit()
    except _LongEnoughError:
        return errors
    raise AssertionError("a run is at least one epoch long")


def search(chosen: Sequence[str], record: Path, *, n: int, epochs: int, dataset: str) -> None:
    """Appends a line a trial to ``record``; one of as many epochs that is there already is not made again.

    Raises: ArgumentError for an unknown model or data set. A trial that cannot be solved has lost.
    """
    done = {(row["model"], row["trial"], row["epochs"]) for row in _rows(record)}
    for trial in range(n):
        for model in chosen:
            if (model, trial, epochs) in done:
                continue
            settings, failure = list(trials(model, n))[trial], ""
            with tempfile.TemporaryDirectory() as folder:
                common = {"model": model, "dataset": dataset, "epochs": epochs, "seed": SEED}
                config = TrainConfig.from_dict({**common, "output_dir": folder, **settings})
                errors: list[float] = []
                try:
                    errors = validation(config)
                except (TrainingError, SolverError) as error:
                    failure = str(error)
            row = {"model": model, "trial": trial, "epochs": epochs, "settings": settings}
            with open(record, "a", encoding="utf-8") as file:
                file.write(json.dumps({**row, "val_rmse": errors, "failure": failure}) + "\n")
            print(model, trial, settings, f"{min(errors):.3f} mV" if errors else failure, flush=True)


def best(record: Path) -> str:
    """Markdown: of each model the registered settings' validation error, the least one, and what it had."""
    lines = ["| model | registered, mV | best, mV | trial | settings |", "|---|---|---|---|---|"]
    rows = [row for row in _rows(record) if row["val_rmse"]]
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        least = min(own, key=lambda row: min(row["val_rmse"]))
        first = next((f"{min(row['val_rmse']):.2f}" for row in own if row["trial"] == 0), "failed")
        told = ", ".join(f"{name} {value:g}" for name, value in least["settings"].items()) or "registered"
        lines.append(f"| {model} | {first} | {min(least['val_rmse']):.2f} | {least['trial']} | {told} |")
    return "\n".join(lines)


def table(folder: Path) -> str:
    """Markdown: the finished runs in a folder, by model: mean and each seed of the free runs' errors, mV."""
    parts = " | ".join(f"{part}, free run" for part in PARTS)
    head = f"| model | parameters | {parts} | s of training |"
    lines = [head, "|---" * (len(PARTS) + 3) + "|"]
    found: dict[str, list[tuple[dict[str, Any], dict[str, Any], float]]] = {}
    for path in sorted(folder.glob("*/metrics.jsonl")):
        rows, config = _rows(path), json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
        if rows and rows[-1].get("final"):
            seconds = sum(row["seconds"] for row in rows[:-1])
            found.setdefault(config["model"], []).append((config, rows[-1], seconds))
    for model in (name for name in models.names() if name in found):
        runs = sorted(found[model], key=lambda run: run[0]["seed"])
        errors = [(end["test_rmse"], *end["more_tests"].values()) for _, end, _ in runs]
        cells = [_spread(part) for part in zip(*errors, strict=True)]
        seconds = statistics.mean(took for _, _, took in runs)
        lines.append(f"| {model} | {runs[0][1]['parameters']} | {' | '.join(cells)} | {seconds:.0f} |")
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    """The mean, and each value in brackets."""
    return f"{statistics.mean(values):.2f} ({', '.join(f'{v:.2f}' for v in values)})"


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.silverbox", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    searching = commands.add_parser("search", help="try start values")
    searching.add_argument("record", type=Path, help="a file of JSON lines, which is gone on with")
    searching.add_argument("--models", default=",".join(models.names()))
    searching.add_argument("--trials", type=int, default=TRIALS, help="of each model (6)")
    searching.add_argument("--epochs", type=int, default=EPOCHS, help="of each trial (10)")
    searching.add_argument(
        "--dataset", default="silverbox", help="or silverbox-simulated, which needs no file"
    )
    runs = commands.add_parser("table", help="the table of a folder of runs")
    runs.add_argument("folder", type=Path)
    asked = parser.parse_args()
    if asked.command == "table":
        print(table(asked.folder))
        return
    chosen = asked.models.split(",")
    search(chosen, asked.record, n=asked.trials, epochs=asked.epochs, dataset=asked.dataset)
    print(best(asked.record))


if __name__ == "__main__":
    main()
