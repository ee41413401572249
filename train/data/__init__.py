"""Data sets by name. One file each; a data set says where it came from.

For the loop over epochs, ``data = load_data(name, options)`` is a `DataSet`:

- ``data.train, data.val, data.test`` (and ``data.more_tests``, by name) are torch data sets of
  (input, target); `splits.batches` cuts any of them into batches.
- ``data.task == "classification"``: inputs [B, C, H, W] or [B, D] float32, targets [B] int64 in
  0 … ``data.classes`` − 1. Cross entropy, accuracy.
- ``data.task == "regression"``: inputs float32, targets float32 of the shape of the model's output.
  The Silverbox sets are sequences: input [B, L, 3], target [B, L − given, 1]. Column 0 of the input is
  the voltage that drives the circuit, at times 0, 1 … L−1; column 1 is the measured output in the first
  ``data.given`` rows and 0 after them, so that nothing of what is to be simulated leaks; column 2 is 1
  in those rows and 0 after them. A model returns the outputs of rows given … L−1. Mean squared error
  over all entries; its root × ``data.per_unit`` is in ``data.unit`` (mV). L is one number per set:
  windows in training and validation, one long free run in the tests.
  Robertson's reaction has float64 trajectories: input [B, 51, 4], target [B, 50, 3]. Column 0 of the input is
  the time, the same for all samples; the others hold the state in row 0 and 0 after it.
- ``data.task == "density"``: inputs float32, targets [B] float64: log|det ∂x/∂w| of the preparation of the
  input x from the data w, 0 for points. What is learnt is log p(x), and log p(w) is that plus the target;
  of images w is in levels of grey, with noise (``data.pixels``). Negative log-likelihood, in nats; ×
  ``data.per_unit`` it is in ``data.unit``, of images bits/dim.
- Where ``hasattr(data.train, "set_epoch")``, call ``data.train.set_epoch(seed, epoch)`` before each
  epoch: it chooses the random numbers of augmentation or noise, per image, whatever the batches.
- ``data.card`` is printed before training; its ``sha256`` identifies the data.
- ``model_task(name)`` is the task under which the models are registered: "silverbox-network" for
  silverbox and silverbox-simulated, "silverbox", the authors' models, for silverbox-paper; "density" and
  "density-8x8" for densities of points and of images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from ...solvers.errors import ArgumentError
from ..known import ABOUT, ARRAYS, IMAGES, POINTS, RECORDING, check_dataset
from .card import DataCard
from .checkerboard import load_checkerboard
from .cifar10 import load_cifar10
from .circles import load_circles
from .digits import load_digits_data
from .digits_density import PIXELS as DIGITS
from .digits_density import load_digits_density
from .duffing import load_silverbox_simulated
from .mnist import load_mnist
from .mnist8 import PIXELS as MNIST8
from .mnist8 import load_mnist8_density
from .moons import load_moons
from .options import DataOptions
from .own import load_own
from .pixels import Pixels
from .rings import load_rings
from .robertson import load_robertson
from .silverbox import load_silverbox, load_silverbox_paper
from .spiral import load_spiral
from .splits import DataSet, LabelledImages, Samples, batches


@dataclasses.dataclass(frozen=True)
class Entry:
    """A data set of the registry: how it is loaded, the options it takes, what it is in one line.

    load: from its options to the data set.
    takes: names of the options that it has.
    about: that line.
    model_task: the task that models are registered under, where it is not the data set's name.
    pixels: of a density of images, how whole numbers become inputs.
    normalise: of `DataOptions`, where none is asked for; "" where it is not an option.
    """

    load: Callable[[DataOptions], DataSet]
    takes: tuple[str, ...]
    about: str
    model_task: str | None = None
    pixels: Pixels | None = None
    normalise: str = ""


_SIZES = ("train_size", "val_size", "test_size")
_IMAGES = ("augment", "normalise", *_SIZES)
_SERIES = ("window", "given")
PLANE, SMALL_IMAGES = "density", "density-8x8"  # tasks of the models

DATASETS: dict[str, Entry] = {
    "digits": Entry(load_digits_data, _IMAGES, ABOUT["digits"], normalise="standard"),
    # The paper's tasks have the pixels of the authors' code.
    "mnist": Entry(load_mnist, _IMAGES, ABOUT["mnist"], normalise="unit"),
    "cifar10": Entry(load_cifar10, _IMAGES, ABOUT["cifar10"], normalise="unit"),
    "silverbox": Entry(load_silverbox, _SERIES, ABOUT["silverbox"], "silverbox-network"),
    "silverbox-paper": Entry(load_silverbox_paper, ("given",), ABOUT["silverbox-paper"], "silverbox"),
    "silverbox-simulated": Entry(
        load_silverbox_simulated, _SERIES, ABOUT["silverbox-simulated"], "silverbox-network"
    ),
    "robertson": Entry(load_robertson, (), ABOUT["robertson"]),
    "spiral": Entry(load_spiral, (), ABOUT["spiral"]),
    "circles": Entry(load_circles, (), ABOUT["circles"]),
    "moons": Entry(load_moons, (), ABOUT["moons"], PLANE),
    "checkerboard": Entry(load_checkerboard, (), ABOUT["checkerboard"], PLANE),
    "rings": Entry(load_rings, (), ABOUT["rings"], PLANE),
    "digits-density": Entry(load_digits_density, _SIZES, ABOUT["digits-density"], SMALL_IMAGES, DIGITS),
    "mnist8-density": Entry(load_mnist8_density, _SIZES, ABOUT["mnist8-density"], SMALL_IMAGES, MNIST8),
}


# One's own data, by what they are; where they lie is an option.
_FROM_PATH = ("path", "split", "normalise")
OWN: dict[str, Entry] = {
    IMAGES: Entry(
        load_own, (*_FROM_PATH, *_IMAGES, "image_size"), "your own images with their classes", "digits"
    ),
    POINTS: Entry(load_own, _FROM_PATH, "your own points, with classes or values", "spiral"),
    RECORDING: Entry(
        load_own,
        (*_FROM_PATH, "inputs", "outputs", "window", "given"),
        "your own recording of inputs and outputs",
        "silverbox-network",
    ),
    # No registered model takes these; a builder of one's own has some settings to start from.
    ARRAYS: Entry(load_own, _FROM_PATH, "your own arrays, for a model of your own", "spiral"),
}
KNOWN = {**DATASETS, **OWN}


def model_task(name: str) -> str:
    """The task under which models for a data set are registered.

    name: of the data set.
    """
    check_dataset(name)
    return KNOWN[name].model_task or name


def default_normalise(name: str) -> str:
    """What a data set does to pixels where nothing is asked for; "" where it has none.

    name: of the data set.
    """
    check_dataset(name)
    return KNOWN[name].normalise


def load_data(name: str, options: DataOptions | None = None) -> DataSet:
    """Training, validation and test set, with their card.

    name: one of `DATASETS`, or of `OWN` for a file of one's own.
    options: where its files are, and how they are prepared; None takes its defaults.

    Raises: ArgumentError for an unknown name or an option that the data set does not have; DataError,
    with file, row and column, for files that are missing, damaged or not what they should be.
    """
    check_dataset(name)
    options = DataOptions() if options is None else options
    entry = KNOWN[name]
    for option in options.asked():
        if option not in entry.takes:
            those = ", ".join(known for known, other in KNOWN.items() if option in other.takes)
            raise ArgumentError(
                f"{option}={getattr(options, option)!r} is not an option of data set {name!r}, but of "
                f"{those}."
            )
    if options.normalise is None and entry.normalise:
        options = dataclasses.replace(options, normalise=entry.normalise)
    return entry.load(options)


__all__ = [
    "DATASETS",
    "OWN",
    "DataCard",
    "DataOptions",
    "DataSet",
    "Entry",
    "LabelledImages",
    "Pixels",
    "Samples",
    "batches",
    "check_dataset",
    "default_normalise",
    "load_data",
    "model_task",
]
