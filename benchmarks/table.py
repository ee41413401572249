"""``python -m benchmarks.table FOLDER``: the finished runs of one data set as a table, a line a model.

The runs are those of ``adamode sweep --models all --seeds … --dataset …``. Of values (Silverbox) it tells the
free runs' errors, of classes the accuracy, NFE and efficacy. A mean over n seeds has Student's interval at
95 % (`adamode.reproduce`'s); an accuracy also has Wilson's, of the test images alone: seeds share them, so a
mean over seeds is no surer than that. Several folders are one table.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from adamode import models
from adamode.reproduce.machinery.paired import interval

SILVERBOX = ("arrow", "arrow-inside", "multisine")
DIGITS_TESTED = 359
WAYS = ("forward", "backward")
Z95 = 1.959964  # of the normal distribution, two sides


class Finished(NamedTuple):
    """One finished run: its settings, its epochs' lines of metrics, and the last line of all."""

    config: dict[str, Any]
    epochs: list[dict[str, Any]]
    end: dict[str, Any]

    @property
    def seconds(self) -> float:
        """Of training."""
        return sum(row["seconds"] for row in self.epochs)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of JSON lines; none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def finished(folders: Sequence[Path], dataset: str = "") -> dict[str, list[Finished]]:
    """The finished runs below the folders, by model, in the order of models and of seeds.

    dataset: "" is every one.
    """
    found: dict[str, list[Finished]] = {}
    for path in sorted(path for folder in folders for path in folder.glob("*/metrics.jsonl")):
        rows, config = read_rows(path), json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
        if rows and rows[-1].get("final") and dataset in ("", config["dataset"]):
            found.setdefault(config["model"], []).append(Finished(config, rows[:-1], rows[-1]))
    in_order = (name for name in models.names() if name in found)
    return {model: sorted(found[model], key=lambda run: int(run.config["seed"])) for model in in_order}


def wilson(share: float, n: int) -> tuple[float, float]:
    """E. B. Wilson's interval at 95 % of a share of n (J. Am. Stat. Assoc. 22, 1927)."""
    middle = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * (share * (1 - share) / n + Z95**2 / (4 * n * n)) ** 0.5
    return middle - half, middle + half


def table(folders: Sequence[Path], images: int = DIGITS_TESTED, dataset: str = "") -> str:
    """Markdown: the finished runs in the folders, by model.

    images: how many there are in the test, for Wilson's interval.
    dataset: the only one whose runs are read; "" is for folders that hold one alone.
    """
    found = finished(folders, dataset)
    if not found:
        return "no finished run"
    of_values = all("test_rmse" in run.end for runs in found.values() for run in runs)
    return _values(found) if of_values else _classes(found, images)


def _values(found: dict[str, list[Finished]]) -> str:
    parts = " | ".join(f"{part}, free run" for part in SILVERBOX)
    lines = [f"| model | parameters | {parts} | s of training |", "|---" * (len(SILVERBOX) + 3) + "|"]
    for model, runs in found.items():
        errors = [(run.end["test_rmse"], *run.end["more_tests"].values()) for run in runs]
        cells = [_spread(part) for part in zip(*errors, strict=True)]
        seconds = statistics.mean(run.seconds for run in runs)
        lines.append(f"| {model} | {runs[0].end['parameters']} | {' | '.join(cells)} | {seconds:.0f} |")
    return "\n".join(lines)


def _classes(found: dict[str, list[Finished]], images: int) -> str:
    lines = [
        "| model | parameters | training loss | accuracy, % | of seeds | of images | NFE | efficacy | s |",
        "|---" * 9 + "|",
    ]
    for model, runs in found.items():
        accuracy = [100 * run.end["test_accuracy"] for run in runs]
        seeds = interval(accuracy)
        low, high = wilson(seeds.mean / 100, images)
        nfe = [statistics.mean(run.epochs[-1][f"nfe_{way}"] for run in runs) for way in WAYS]
        loss = [statistics.mean(run.epochs[at]["train_loss"] for run in runs) for at in (0, -1)]
        gain = [statistics.mean(run.end[f"efficacy_{way}"] for run in runs) for way in WAYS]
        cells = [
            model,
            f"{runs[0].end['parameters']:,}",
            " → ".join(f"{value:.2f}" for value in loss),
            f"{seeds.mean:.1f} ({', '.join(f'{value:.1f}' for value in accuracy)})",
            f"{seeds.low:.1f} – {seeds.high:.1f}" if seeds.n > 1 else "one seed",
            f"{100 * low:.1f} – {100 * high:.1f}",
            " / ".join(f"{value:.1f}" for value in nfe),
            " / ".join(f"{value:.4f}".lstrip("0") for value in gain),
            f"{statistics.mean(run.seconds for run in runs):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", leaders(found)])


def leaders(found: dict[str, list[Finished]]) -> str:
    """How often each model has the highest accuracy and efficacy of all with a seed; ties count for each."""
    told = []
    for column in ("test_accuracy", "efficacy_forward", "efficacy_backward"):
        by_seed: dict[int, dict[str, float]] = {}
        for model, runs in found.items():
            for run in runs:
                by_seed.setdefault(run.config["seed"], {})[model] = run.end[column]
        whole = [own for own in by_seed.values() if len(own) == len(found)]
        wins = Counter(model for own in whole for model, value in own.items() if value == max(own.values()))
        each = ", ".join(f"{model} {wins[model]}" for model in found if wins[model])
        told.append(f"{column} is highest, of {len(whole)} seeds: {each or 'none'}")
    return "\n".join(told)


def _spread(values: Sequence[float]) -> str:
    """The mean, and each value in brackets."""
    return f"{statistics.mean(values):.2f} ({', '.join(f'{v:.2f}' for v in values)})"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="of runs")
    parser.add_argument("--dataset", default="", help="whose runs alone are read, where there are others")
    parser.add_argument("--images", type=int, default=DIGITS_TESTED, help="in the test (the digits': 359)")
    asked = parser.parse_args()
    print(table(asked.folders, asked.images, asked.dataset))


if __name__ == "__main__":
    main()
