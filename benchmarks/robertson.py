"""``python -m benchmarks.robertson RUN``: what a run of ``adamode train --dataset robertson`` has learnt.

Prints the error of each species, and the evaluations by radau5 and by dopri5 up to growing times from the
test's starts; ``--picture`` draws the test's trajectories beside the model's.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adamode import SolverError
from adamode.plotting import BLUE, ORANGE, save_figure
from adamode.train.data import DataSet
from adamode.train.data.robertson import SPECIES, UNIT
from adamode.train.evaluation import LoadedRun, load_data_of, load_run

ENDS = {"radau5": (1e-4, 1e-2, 1.0, 10.0, UNIT), "dopri5": (1e-4, 1e-2, 1.0, 10.0)}  # seconds
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "robertson-learnt.png"


@torch.no_grad()
def errors(run: LoadedRun, data: DataSet) -> str:
    """Markdown: of each part and species the mean |error| (the largest), in per cent of the range."""
    lines = ["| part | " + " | ".join(SPECIES) + " | all |", "|---" * (len(SPECIES) + 2) + "|"]
    for name, part in (("training", data.train), ("validation", data.val), ("test", data.test)):
        x, y = part.__getitems__(list(range(len(part))))
        off = 100 * (run.model(x.to(run.dtype)) - y).abs()
        cells = [f"{off[..., k].mean():.2f} ({off[..., k].max():.1f})" for k in range(len(SPECIES))]
        lines.append(f"| {name} | {' | '.join(cells)} | {off.mean():.2f} |")
    return "\n".join(lines)


@torch.no_grad()
def evaluations(run: LoadedRun, data: DataSet) -> str:
    """Markdown: evaluations (seconds of the processor) of one solve of the test's starts up to each time."""
    lines = ["| method | to, s | evaluations | attempts | s |", "|---|---|---|---|---|"]
    block: Any = run.model.block
    for method, ends in ENDS.items():
        block.settings = dataclasses.replace(block.settings, method=method)
        for end in ends:
            x, _ = data.test.__getitems__(list(range(len(data.test))))
            x = x[:, :2].to(run.dtype)
            x[:, 1, 0] = end / UNIT
            start = time.process_time()
            try:
                run.model(x)
            except SolverError as error:
                lines.append(f"| {method} | {end:g} | not reached: {error.status.name} | | |")
                continue
            spent = block.last_stats
            took = time.process_time() - start
            lines.append(f"| {method} | {end:g} | {spent.nfe:,} | {spent.n_steps:,} | {took:.2f} |")
    return "\n".join(lines)


def draw(figure: Any, run: LoadedRun, data: DataSet) -> None:
    """A panel a species: points are data, lines the model's."""
    x, y = data.test.__getitems__(list(range(len(data.test))))
    with torch.no_grad():
        found: Tensor = run.model(x.to(run.dtype))
    seconds = UNIT * x[0, 1:, 0]
    axes = figure.subplots(1, len(SPECIES))
    for k, (axis, species) in enumerate(zip(axes, SPECIES, strict=True)):
        for i in range(len(x)):
            names = ("data", "model") if i == 0 else ("", "")
            axis.semilogx(seconds, y[i, :, k], ".", color=BLUE, markersize=4, label=names[0] or None)
            axis.semilogx(seconds, found[i, :, k], color=ORANGE, linewidth=1.2, label=names[1] or None)
        axis.set_title(f"{species}, in units of its range")
        axis.set_xlabel("t, s")
    axes[0].legend()
    figure.suptitle("Robertson's reaction from starts that no training saw", fontsize=10)


def main() -> int:
    """Measures, prints, and draws the picture where --picture asks for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--picture", action="store_true", help=f"write {PICTURE.name} in docs/images")
    given = parser.parse_args()
    torch.set_num_threads(1)
    run = load_run(given.run)
    data = load_data_of(run)
    print(errors(run, data))
    if given.picture:
        save_figure(PICTURE, lambda figure: draw(figure, run, data), size=(10, 3))
    print()
    print(evaluations(run, data))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
