"""``python -m benchmarks.steps``: processor time of a training step of each model, on its first weights.

Models take turns. A cell is the least of the rounds, with the evaluations of f, forward / backward, of one
sample. Data sets whose files are not there are left out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import torch

from adamode import TrainConfig, models
from adamode.solvers.errors import MissingDataError
from adamode.train.build import build_model
from adamode.train.data import load_data
from adamode.train.objective import Objective
from adamode.train.reproducible import seed_everything
from adamode.train.step import solve_counts

DATASETS = ("digits", "mnist", "silverbox")


def steps(dataset: str, rounds: int) -> dict[str, tuple[float, float, float]]:
    """{model: (seconds, NFE forward, NFE backward)} of a batch of the recipe's size.

    Raises: MissingDataError where the data set's files are not there.
    """
    found: dict[str, tuple[float, float, float]] = {}
    ready = {}
    for name in models.names():
        config = TrainConfig(model=name, dataset=dataset)
        data = load_data(dataset, config.data_options())
        seed_everything(0)
        x, y = data.train.__getitems__(list(range(config.batch_size)))
        ready[name] = (build_model(config).train(), Objective.of(data), x.float(), y)
    for _ in range(rounds):
        for name, (model, objective, x, y) in ready.items():
            begin = time.process_time()
            objective.loss(model(x), y).backward()
            took = time.process_time() - begin
            model.zero_grad()
            least = min(took, found.get(name, (took,))[0])
            forward, backward = solve_counts(model, len(y))
            found[name] = (least, forward / len(y), backward / len(y))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    columns = {}
    for dataset in DATASETS:
        try:
            columns[dataset] = steps(dataset, asked.rounds)
        except MissingDataError as error:
            print(f"{dataset}: {error}\n")
    print(f"| model | {' | '.join(f'{name}, s (NFE)' for name in columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    for name in models.names():
        cells = [f"{s:.3g} ({f:.0f} / {b:.0f})" for s, f, b in (found[name] for found in columns.values())]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
