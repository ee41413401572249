"""What a caller may choose about a data set, in one frozen dataclass."""

from __future__ import annotations

import dataclasses
import os

from ...solvers.errors import ArgumentError, ArgumentTypeError, check_choice
from ..known import NORMALISATIONS

# Options that mean something for some data sets only; the registry says for which.
SPECIAL = (
    *("augment", "normalise", "train_size", "val_size", "test_size", "window", "given"),
    *("path", "split", "inputs", "outputs", "image_size"),
)


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """How a data set is found and prepared. None takes the data set's own default.

    data_dir: folder that holds the files; None is the environment variable ADAMODE_DATA.
    download: fetch what is missing into data_dir (MNIST and CIFAR-10, by torchvision).
    augment: random crops (and flips) of the training images; False by default.
    normalise: "standard" (mean 0, variance 1 over the training images, per channel) or "unit" (to
    [0, 1] and nothing else, as the paper's code does: the default of MNIST and CIFAR-10).
    train_size: so many of the training images, as many of each class as of any other to within one.
    test_size: so many of the test images, in the same way, and of the validation images if those are more.
    val_size: so many of the validation images, where test_size should not decide.
    window, given: of the Silverbox sequences, in samples: simulated ones of a training window, and
    measured outputs shown before them.
    path: of one's own data, a folder or a file.
    split: of one's own data: a whole number as a seed, or the column that says the parts.
    inputs, outputs: columns of one's own recording, several with commas.
    image_size: pixels a side that one's own pictures are squeezed to.

    Raises: ArgumentError, ArgumentTypeError for values that cannot mean anything.
    """

    data_dir: str | None = None
    download: bool = False
    augment: bool | None = None
    normalise: str | None = None
    train_size: int | None = None
    val_size: int | None = None
    test_size: int | None = None
    window: int | None = None
    given: int | None = None
    path: str | None = None
    split: str | None = None
    inputs: str | None = None
    outputs: str | None = None
    image_size: int | None = None

    def __post_init__(self) -> None:
        if self.data_dir is not None:
            if not isinstance(self.data_dir, str | os.PathLike):
                raise _wrong_type("data_dir", self.data_dir, "a folder's path")
            object.__setattr__(self, "data_dir", os.fspath(self.data_dir))
        for name in ("download", "augment"):
            value = getattr(self, name)
            if not isinstance(value, bool) and not (name == "augment" and value is None):
                raise _wrong_type(name, value, "True or False")
        if self.normalise is not None:
            check_choice("normalise", self.normalise, NORMALISATIONS)
        for name in ("path", "split", "inputs", "outputs"):
            if not isinstance(getattr(self, name), str | None):
                raise _wrong_type(name, getattr(self, name), "a text")
        for name in ("train_size", "val_size", "test_size", "window", "given", "image_size"):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise _wrong_type(name, value, "a whole number")
            if value < 1:
                raise ArgumentError(f"{name}={value} must be at least 1.")

    def asked(self) -> tuple[str, ...]:
        """The special options that are not left at their default."""
        return tuple(name for name in SPECIAL if getattr(self, name) not in (None, False))


def _wrong_type(name: str, value: object, needed: str) -> ArgumentTypeError:
    return ArgumentTypeError(f"{name}={value!r} is {type(value).__name__}; {needed} is needed.")
