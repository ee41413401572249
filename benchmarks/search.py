"""``python -m benchmarks.search DATASET RECORD``: start values, with as many trials for each model.

Every model has as many trials, with the same seed and the same epochs, and the validation alone judges:
training ends before the test is read. Trial 0 is what is registered; the others draw what decides
scales: the size of the field's inputs, its gain, and the rates that the model has. The seed is not one of
those that a table of runs is made with (`benchmarks.table`).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from adamode import SolverError, TrainConfig, Trainer, models
from adamode.solvers.errors import TrainingError
from adamode.train.position import EpochRecord

from .table import read_rows

SEED, TRIALS = 100, 6
Settings = dict[str, float]
Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Space:
    """What is drawn for a data set, and how long a trial is.

    task: whose registered settings trial 0 has.
    epochs: of a trial.
    judge: the column of a run's metrics that is to be least.
    ranges: of each drawn number, which is drawn evenly in its logarithm. ``alpha`` and ``beta`` are the rates
        1 − α and 1 − β; ``shift`` is in rows. ``unit`` is what is 1 in the field's inputs, in the units in
        which data come in.
    """

    task: str
    epochs: int
    judge: str
    ranges: dict[str, Range]


# A unit of 3 to 30 (of 10 mV) gives the network inputs of size 0.2 to 2.
_SILVERBOX = Space(
    "silverbox-network",
    epochs=10,
    judge="val_rmse",
    ranges={
        "unit": (3.0, 30.0),
        "gain": (0.3, 5.0),
        "alpha": (0.03, 0.3),
        "beta": (0.1, 0.9),
        "gamma": (0.02, 0.9),
        "shift": (1.0, 100.0),
    },
)
# 180 validation images tell accuracies apart by half a per cent at best, so the loss judges.
_DIGITS = Space(
    "digits",
    epochs=20,
    judge="val_loss",
    ranges={
        "unit": (0.3, 3.0),
        "gain": (0.3, 5.0),
        "alpha": (0.1, 0.98),
        "beta": (0.02, 0.5),
        "gamma": (0.02, 0.9),
    },
)
SPACES = {"silverbox": _SILVERBOX, "silverbox-simulated": _SILVERBOX, "digits": _DIGITS}


def trials(model: str, space: Space, n: int = TRIALS, seed: int = SEED) -> Iterator[Settings]:
    """n settings of `TrainConfig` for a model: what is registered, {}, then drawn ones.

    All models see the same units and gains; a rate is drawn for a model that has it. The field gives units
    of what it sees, times the gain, and over 1 − α where that multiplies it.
    """
    registered = models.defaults(model, space.task)
    for trial in range(n):
        draw = random.Random(seed * 1000 + trial)
        drawn = {name: low * (high / low) ** draw.random() for name, (low, high) in space.ranges.items()}
        if trial == 0:
            yield {}
            continue
        state = registered["state_unit"] / drawn["unit"]
        found = {"field_scale": state, "field_gain": drawn["gain"] / state}
        if "alpha" in registered:
            found["field_gain"] /= drawn["alpha"]
            found |= {"alpha": 1 - drawn["alpha"], "beta": 1 - drawn["beta"]}
        found |= {name: drawn[name] for name in ("gamma", "shift") if name in registered and name in drawn}
        yield {name: float(f"{value:.3g}") for name, value in found.items()}


class _LongEnoughError(Exception):
    """The last epoch is over: what a run would do next is read the test."""


def validation(config: TrainConfig, judge: str) -> list[float]:
    """The judging column after each epoch; the test is not read."""
    found: list[float] = []

    def look(record: EpochRecord) -> None:
        found.append(record.row[judge])
        if len(found) == config.epochs:
            raise _LongEnoughError

    try:
        Trainer(config, on_epoch=look, quiet=True).fit()
    except _LongEnoughError:
        return found
    raise AssertionError("a run is at least one epoch long")


def search(chosen: Sequence[str], record: Path, *, dataset: str, n: int = TRIALS, epochs: int = 0) -> None:
    """Appends a line a trial to ``record``; one of as many epochs that is there already is not made again.

    epochs: 0 is the space's.
    Raises: ArgumentError for an unknown model or data set. A trial that cannot be solved has lost.
    """
    space = SPACES[dataset]
    epochs = epochs or space.epochs
    done = {(row["model"], row["trial"], row["epochs"]) for row in read_rows(record)}
    for trial in range(n):
        for model in chosen:
            if (model, trial, epochs) in done:
                continue
            settings, failure = list(trials(model, space, n))[trial], ""
            with tempfile.TemporaryDirectory() as folder:
                common = {"model": model, "dataset": dataset, "epochs": epochs, "seed": SEED}
                config = TrainConfig.from_dict({**common, "output_dir": folder, **settings})
                values: list[float] = []
                try:
                    values = validation(config, space.judge)
                except (TrainingError, SolverError) as error:
                    failure = str(error)
            row = {"model": model, "trial": trial, "epochs": epochs, "settings": settings}
            with open(record, "a", encoding="utf-8") as file:
                file.write(json.dumps({**row, space.judge: values, "failure": failure}) + "\n")
            print(model, trial, settings, f"{min(values):.4g}" if values else failure, flush=True)


def best(record: Path, judge: str) -> str:
    """Markdown: of each model what is registered came to, the least value, and what had it."""
    lines = [f"| model | registered, {judge} | best, {judge} | trial | settings |", "|---|---|---|---|---|"]
    rows = [row for row in read_rows(record) if row.get(judge)]
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        least = min(own, key=lambda row: min(row[judge]))
        first = next((f"{min(row[judge]):.4g}" for row in own if row["trial"] == 0), "failed")
        told = ", ".join(f"{name} {value:g}" for name, value in least["settings"].items()) or "registered"
        lines.append(f"| {model} | {first} | {min(least[judge]):.4g} | {least['trial']} | {told} |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument("dataset", choices=tuple(SPACES), help="silverbox-simulated needs no file")
    parser.add_argument("record", type=Path, help="a file of JSON lines, which is gone on with")
    parser.add_argument("--models", default=",".join(models.names()))
    parser.add_argument("--trials", type=int, default=TRIALS, help="of each model (6)")
    parser.add_argument("--epochs", type=int, default=0, help="of each trial (10; digits 20)")
    asked = parser.parse_args()
    chosen = asked.models.split(",")
    search(chosen, asked.record, dataset=asked.dataset, n=asked.trials, epochs=asked.epochs)
    print(best(asked.record, SPACES[asked.dataset].judge))


if __name__ == "__main__":
    main()
