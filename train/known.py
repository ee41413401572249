"""What data sets and settings are called. Without torch, so that a misspelt name is refused at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..models.known import DAMPINGS, DENOMINATORS
from ..solvers.errors import ArgumentError, CheckpointError, check_choice, nearest

# What each data set is, in one line.
ABOUT = {
    "digits": "8×8 handwritten digits that come with scikit-learn",
    "mnist": "28×28 handwritten digits",
    "cifar10": "32×32 colour images of ten kinds of things",
    "silverbox": "an electronic Duffing oscillator, measured: the benchmark's task",
    "silverbox-paper": "the same recording: the paper's first 1,000 samples",
    "silverbox-simulated": "a Duffing oscillator like it, simulated",
    "robertson": "a stiff reaction from several starts, solved by radau5",
    "spiral": "two spiral arms in the plane, generated",
    "circles": "a disc inside a ring, generated",
    "moons": "a density: two half circles in the plane, generated",
    "checkerboard": "a density: even on dark squares, generated",
    "rings": "a density: three rings around the origin, generated",
    "digits-density": "a density: the digits' images, dequantised",
    "mnist8-density": "a density: MNIST's images at 8×8, dequantised",
}
DATASETS = tuple(ABOUT)
# Data of one's own, by what they are.
IMAGES, POINTS, RECORDING, ARRAYS = OWN = ("own-images", "own-points", "own-recording", "own-arrays")

CHOICES: dict[str, tuple[str, ...]] = {
    "block": ("ode", "identity"),
    "schedule": ("cosine", "constant", "decay"),
    "stepping": ("shared", "per_sample"),
    "gradient": ("discrete", "interpolating", "backsolve", "direct", "reversible"),
    "denominator": DENOMINATORS,
    "damping": DAMPINGS,
    "amp": ("off", "bf16"),
    "dtype": ("float32", "float64"),
    "on_solver_error": ("stop", "skip"),
}
NORMALISATIONS = ("standard", "unit")  # of pixels
WEIGHTS = ("best", "last")  # of a run
CHECKPOINT, SETTINGS = "checkpoint.pt", "config.json"  # in a run's folder

# Where the run is kept and how fast it goes, not what it computes.
NOT_COMPARED = frozenset(
    {
        "name",
        "output_dir",
        "data_dir",
        "data",  # compared by its checksum
        "build",  # a function may have moved; weights that do not fit are refused
        "download",
        "threads",
        "device",
        "compile",
        "sync_every",
        "checkpoint_every",
        "tensorboard",
    }
)


def check_dataset(name: object) -> None:
    """Refuses what is no data set, nor a kind of one's own.

    name: of a data set.
    Raises ArgumentError, with the nearest names.
    """
    if not isinstance(name, str) or name not in (*DATASETS, *OWN):
        raise ArgumentError(f"dataset={name!r} is not a known data set: {nearest(str(name), DATASETS)}")


def is_own(text: object) -> bool:
    """Whether a text names a function of one's own, and none of this package's models."""
    return isinstance(text, str) and ":" in text


def check_run(folder: str | os.PathLike[str], weights: str = "best") -> None:
    """Raises CheckpointError where no run with weights is in the folder, ArgumentError for other weights."""
    check_choice("weights", weights, WEIGHTS)
    if (Path(folder) / CHECKPOINT).exists():
        return
    begun = (Path(folder) / SETTINGS).exists()
    what = "holds a run without a checkpoint yet" if begun else "is not the folder of a run"
    raise CheckpointError(
        f"{str(folder)!r} {what}; give a folder that `adamode train` made, such as runs/adamnode-digits "
        "(`adamode runs` lists them)."
    )


def find_runs(output_dir: str | os.PathLike[str], names: Sequence[str] = ()) -> dict[str, Path]:
    """The folders of the runs in a folder, by name; only ``names`` where given.

    Raises: ArgumentError for a folder that is not there or a name that is none of its runs.
    """
    place = Path(output_dir)
    if not place.is_dir():
        raise ArgumentError(
            f"output_dir={os.fspath(output_dir)!r} is not a folder; `adamode train` makes 'runs' where it "
            "is called, or name the folder with --output-dir."
        )
    found = {path.name: path for path in sorted(place.iterdir()) if (path / SETTINGS).is_file()}
    for name in names:
        if name not in found:
            raise ArgumentError(
                f"there is no run {name!r} in {os.fspath(output_dir)!r}: {nearest(name, found)}"
            )
    return {name: path for name, path in found.items() if not names or name in names}
