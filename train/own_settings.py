"""The settings of a run on one's own data, with one's own field or model."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..models import defaults
from ..solvers.errors import ArgumentError, ArgumentTypeError, CheckpointError
from .data import OWN, DataOptions, DataSet, model_task
from .data.own import ARRAYS, IMAGES, POINTS, RECORDING, look
from .own import is_own

Sizes = dict[str, int]
_KNOWN: dict[str, tuple[str, ...]] = {
    IMAGES: ("image_channels", "size", "classes"),
    POINTS: ("features", "classes"),
    RECORDING: ("inputs", "outputs"),
    ARRAYS: (),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnSettings:
    """What a run has that is the user's own; each is "" (or 0) where it has nothing.

    data: path of a folder of pictures by class, an .npz with x and y, or a recording as .csv (docs/own.md).
    split: a whole number as a seed, or the column (array) that says which samples train, validate and test.
    inputs, outputs: the recording's columns, several with commas; "" takes u, u1 … and y, y1 ….
    image_size: pixels a side that pictures are squeezed to.
    sizes: what a model must know of the data, such as "features=4,classes=3"; "" reads it from them.
    field: "package.module:function", the block's field in place of ours.
    build: "package.module:function", what makes the model in place of ours; so does a model with a colon.
    """

    data: str = ""
    split: str = ""
    inputs: str = ""
    outputs: str = ""
    image_size: int = 0
    sizes: str = ""
    field: str = ""
    build: str = ""

    def own_options(self) -> dict[str, Any]:
        """These settings as those of `DataOptions`."""
        return {
            "path": self.data or None,
            "split": self.split or None,
            "inputs": self.inputs or None,
            "outputs": self.outputs or None,
            "image_size": self.image_size or None,
        }

    @property
    def data_sizes(self) -> Sizes:
        """``sizes`` as numbers by name."""
        return sizes_of(self.sizes)


def sizes_of(text: str) -> Sizes:
    """The numbers that a text such as "features=4,classes=3" names. Raises: ArgumentError."""
    found: Sizes = {}
    for part in filter(None, text.split(",")):
        name, _, number = (piece.strip() for piece in part.partition("="))
        if not re.fullmatch(r"[1-9]\d*", number) or not any(name in names for names in _KNOWN.values()):
            raise ArgumentError(f"sizes={text!r}: {part!r} must be a size of the data, such as classes=3.")
        found[name] = int(number)
    return found


def told(sizes: Mapping[str, int]) -> str:
    """Sizes as a text that `sizes_of` reads."""
    return ",".join(f"{name}={n}" for name, n in sizes.items())


def settled(dataset: str | None, own: OwnSettings, options: DataOptions) -> tuple[str, str]:
    """(the data set, the sizes) of a run, as far as they were not given.

    Raises: ArgumentError where both a data set and one's own data are asked for, or sizes lack; DataError.
    """
    for name in ("data", "split", "inputs", "outputs", "sizes", "field", "build"):
        value = getattr(own, name)
        if not isinstance(value, str):
            raise ArgumentTypeError(f"{name}={value!r} is {type(value).__name__}; a text is needed.")
    if dataset not in OWN:
        if own.data and dataset is not None:
            raise ArgumentError(f"data={own.data!r} and dataset={dataset!r}: give one of the two.")
        if not own.data:
            return dataset or "digits", own.sizes
    if dataset == ARRAYS and not own.data:  # given in Python, for a model that knows them
        return ARRAYS, own.sizes
    if own.sizes and dataset is not None:
        kind, sizes = dataset, own.sizes
    elif own.data:
        kind, found = look(options)
        sizes = told(found)
        if dataset not in (None, kind):
            raise ArgumentError(f"dataset={dataset!r}: {own.data!r} is of the kind {kind!r}; leave it out.")
    else:
        raise ArgumentError(f"dataset={dataset!r} is for data of your own: give their path, data=….")
    if set(sizes_of(sizes)) != set(_KNOWN[kind]):
        raise ArgumentError(
            f"sizes={sizes!r}: data of the kind {kind!r} have {', '.join(_KNOWN[kind]) or 'none'}."
        )
    return kind, sizes


def preset(model: str, dataset: str, sizes: Sizes) -> dict[str, Any]:
    """The settings of a model as they are registered for a data set, fitted to the sizes of one's own.

    A model of one's own has NODE's: its builder may take from them what it likes.
    """
    found = defaults("node" if is_own(model) else model, model_task(dataset))
    return {**found, **fitted(found, dataset, sizes)}


def fitted(found: Mapping[str, Any], dataset: str, sizes: Sizes) -> dict[str, Any]:
    """What of the registered settings other sizes change."""
    if dataset not in OWN or dataset == ARRAYS:
        return {}
    more: dict[str, Any] = dict(sizes)
    # A point is itself part of the state, and so is a recording's output.
    if dataset == POINTS:
        more["channels"] = found["channels"] - found["features"] + sizes["features"]
    if dataset == RECORDING:
        more["channels"] = found["channels"] - 1 + sizes["outputs"]
    return more


def run_name(model: str, dataset: str, own: OwnSettings) -> str:
    """The name of a run that was given none, without what no folder may be called."""
    parts = [model.rpartition(":")[2], Path(own.data).stem or dataset, own.field.rpartition(":")[2]]
    return "-".join(plain_name(part) for part in parts if part).lstrip(".-+=") or dataset


def plain_name(text: str) -> str:
    """A text without what no folder may be called."""
    return re.sub(r"[^\w.+=-]+", "-", text)


def kind_of(data: DataSet) -> tuple[str, Sizes]:
    """(the kind, the sizes) of a data set made in Python; (its own name, {}) for another task."""
    if data.task not in ("classification", "regression"):
        return data.name, {}
    x, y = data.val[0]  # training's may be augmented, which needs an epoch
    labelled = data.task == "classification"
    numbers = data.classes if labelled else (y.shape[0] if y.ndim == 1 else 0)
    if data.given and x.ndim == 2 and y.ndim == 2 and x.shape[1] > y.shape[1] + 1:
        return RECORDING, {"inputs": x.shape[1] - y.shape[1] - 1, "outputs": y.shape[1]}
    if x.ndim == 3 and x.shape[1] == x.shape[2] and numbers:
        return IMAGES, {"image_channels": x.shape[0], "size": x.shape[1], "classes": numbers}
    if x.ndim == 1 and numbers:
        return POINTS, {"features": x.shape[0], "classes": numbers}
    return ARRAYS, {}


def fits(model: str, dataset: str, sizes: Sizes) -> bool:
    """Whether the models registered for a data set are of these sizes."""
    found = preset(model, dataset, {})
    if dataset in OWN or not sizes:
        return False
    if "inputs" in sizes:
        return "given" in found and set(sizes.values()) == {1}
    return all(found.get(name) == n for name, n in sizes.items())


def refuse_other_sizes(config: Any, data: DataSet) -> None:
    """Raises ArgumentError where one's own data are not of the kind and sizes that the configuration says."""
    if config.dataset not in OWN:
        return
    kind, sizes = kind_of(data)
    if (kind, sizes) != (config.dataset, config.data_sizes):
        raise ArgumentError(
            f"the data are {kind} with {told(sizes) or 'no sizes'}, and the settings are for "
            f"{config.dataset} with "
            f"{config.sizes or 'none'}: leave dataset and sizes out, so that they are read from the data."
        )


def refuse_other_data(sha256: str, data: DataSet, checkpoint: Path, *, given: bool) -> None:
    """The same name, but other data behind it: a run of two data sets would be neither's.

    sha256: of the checkpoint's data.
    given: whether the data were given in Python.
    Generated sets follow from the settings, up to the rounding of the machine's own exp and cos.
    Raises: CheckpointError.
    """
    if (data.card.files or data.name in OWN or given) and sha256 != data.card.sha256:
        raise CheckpointError(
            f"checkpoint {str(checkpoint)!r} was made with other data: its {data.name} had "
            f"sha256 {sha256[:16]}…, that of {data.card.source} is {data.card.sha256[:16]}…. Give the "
            "--data-dir or --data of the first part, or train again under another --name."
        )
