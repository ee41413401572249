"""Data sets made in Python as one `DataSet`: (train, val, test), each tensors or a torch data set."""

from __future__ import annotations

import hashlib
from collections.abc import Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from ....solvers.errors import ArgumentError, ArgumentTypeError
from ..card import DataCard, checksum
from ..raw import Raw
from ..splits import DataSet, Examples, Samples

NAMES = ("train", "validation", "test")


class Pairs:
    """A torch data set of pairs (input, target), numbers or tensors, which also hands out whole batches."""

    def __init__(self, source: Any):
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = (_tensor(a) for a in self.source[index])
        return x, y[None] if y.is_floating_point() and y.ndim == 0 else y

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A whole batch at once."""
        pairs = [self[i] for i in indices]
        for i, pair in zip(indices, pairs, strict=True):
            if [a.shape for a in pair] != [a.shape for a in pairs[0]]:
                (x, y), (first_x, first_y) = pair, pairs[0]
                raise ArgumentError(
                    f"data: sample {i} has shapes {tuple(x.shape)} and {tuple(y.shape)}, sample {indices[0]} "
                    f"{tuple(first_x.shape)} and {tuple(first_y.shape)}; they must be alike."
                )
        return torch.stack([x for x, _ in pairs]), _targets(torch.stack([y for _, y in pairs]))


def as_data_set(data: Any) -> DataSet:
    """A `DataSet` as it is; of (train, val, test) one of their kind: whole-number targets are classes.

    Each part is a pair of tensors (inputs, targets), a `TensorDataset`, or any torch data set of such pairs.
    Raises: ArgumentError, ArgumentTypeError for what is none of these, empty, or of other shapes than
    training's.
    """
    if isinstance(data, DataSet):
        return data
    if not isinstance(data, tuple | list) or len(data) != len(NAMES):
        raise ArgumentTypeError(
            f"data is a {type(data).__name__}; give a DataSet, or (train, val, test), each (inputs, "
            f"targets) or a "
            "torch data set of such pairs."
        )
    parts = [_part(part, name) for part, name in zip(data, NAMES, strict=True)]
    train, val, test = parts
    samples = [part[0] for part in parts]
    x, y = samples[0]
    for (other_x, other_y), name in zip(samples[1:], NAMES[1:], strict=True):
        if (other_x.shape, other_y.shape) != (x.shape, y.shape):
            raise ArgumentError(
                f"data: a sample of {name} has shapes {tuple(other_x.shape)} and {tuple(other_y.shape)}, "
                f"one of "
                f"training {tuple(x.shape)} and {tuple(y.shape)}; they must be alike."
            )
    labelled = not y.is_floating_point()
    if labelled and y.ndim:
        raise ArgumentError(
            f"data: a target has shape {tuple(y.shape)}; a whole number is a class, one a sample."
        )
    classes = _classes(parts) if labelled else 0
    known = all(isinstance(part, Samples) for part in parts)
    card = DataCard(
        name="own-arrays",
        source="given in Python",
        counts={name: len(part) for name, part in zip(NAMES, parts, strict=True)},
        shape=tuple(x.shape),
        classes=classes,
        sha256=_checksum(parts),
        note="" if known else "the checksum is of first and last samples: the rest is read when needed",
        task="classification" if labelled else "regression",
    )
    return DataSet(train, val, test, card, raw=_raw(train))


def _raw(train: Examples) -> Raw:
    """On which scale the inputs are, where a dtype says it: as of files, of points none does."""
    if not isinstance(train, Samples) or train.inputs.ndim == 2:
        return Raw()
    x = train.inputs
    if x.dtype == torch.bool:
        return Raw(white=1.0)
    image = x.ndim == 4 and x.shape[2] == x.shape[3]
    if x.dtype == torch.uint8 and image:
        return Raw(white=255.0)
    return Raw(dtype="float32" if x.is_floating_point() else str(x.dtype).removeprefix("torch."))


def _part(part: Any, name: str) -> Examples:
    if isinstance(part, TensorDataset):
        part = tuple(part.tensors)
    pair = isinstance(part, tuple | list) and len(part) == 2
    if pair and all(isinstance(a, Tensor | np.ndarray) for a in part):
        inputs, targets = (_tensor(a) for a in part)
        if inputs.ndim < 1 or targets.ndim < 1 or len(inputs) != len(targets) or not len(inputs):
            raise ArgumentError(
                f"data: {name} has inputs {tuple(inputs.shape)} and targets {tuple(targets.shape)}; one row "
                "a sample each, and at least one, is needed."
            )
        return Samples(inputs, _targets(targets))
    if isinstance(part, Samples) or _hands_out_batches(part):
        found: Examples = part
        return found
    if not isinstance(part, Dataset) or not isinstance(part, Sized) or not len(part):
        raise ArgumentTypeError(
            f"data: {name} is a {type(part).__name__}; give a pair of tensors (inputs, targets), or a torch "
            "data set with a length, not empty, of such pairs."
        )
    return Pairs(part)


def _hands_out_batches(part: Any) -> bool:
    """Whether whole batches come as two tensors, targets as `_targets` has them, and not as samples."""
    if not hasattr(part, "__getitems__") or not isinstance(part, Sized) or not len(part):
        return False
    batch = part.__getitems__([0])  # type: ignore[attr-defined]
    pair = isinstance(batch, tuple) and len(batch) == 2 and all(isinstance(a, Tensor) for a in batch)
    return pair and batch[1].shape == _targets(batch[1]).shape


def _tensor(a: Any) -> Tensor:
    """A part of a sample, or of many. Raises: ArgumentTypeError for what are no numbers."""
    try:
        if isinstance(a, np.ndarray):  # torch knows the machine's own order of bytes alone
            return torch.as_tensor(a.astype(a.dtype.newbyteorder("="), copy=False))
        return torch.as_tensor(a)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentTypeError(
            f"data: a {type(a).__name__} cannot become a tensor ({error}); give tensors, arrays or numbers."
        ) from error


def _targets(targets: Tensor) -> Tensor:
    """Values as [N, …], classes as int64 [N]."""
    if targets.is_floating_point():
        return targets[:, None] if targets.ndim == 1 else targets
    return targets.reshape(len(targets), -1)[:, 0].long() if targets[0].numel() == 1 else targets.long()


def _classes(parts: list[Any]) -> int:
    """The number of classes. Raises: ArgumentError for other labels, or a class that none trains."""
    found = []
    for part in parts:
        own = isinstance(part, Samples)
        labels = part.targets if own else torch.stack([part[i][1] for i in range(len(part))])
        found.append(set(labels.reshape(-1).tolist()))
    seen = set[int]().union(*found)
    smallest, largest = min(seen), max(seen)
    if smallest < 0 or largest < 1:
        raise ArgumentError(
            f"data: the labels are {smallest} … {largest}; classes are 0 … K−1, at least two. Values must "
            "be floats."
        )
    lacking = sorted(seen - found[0])
    if lacking:
        raise ArgumentError(
            f"data: class {lacking[0]} is in validation or test, and no training sample has it: no model "
            "could name it. Give it training samples, or leave its samples out."
        )
    return largest + 1


def _array(a: Tensor) -> np.ndarray:
    """A tensor's numbers; of bfloat16, which NumPy does not know, the bits."""
    a = a.detach().cpu()
    found: np.ndarray = (a.view(torch.int16) if a.dtype == torch.bfloat16 else a).numpy()
    return found


def _checksum(parts: list[Any]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        ends = (0, len(part) - 1)
        pairs = [(part.inputs, part.targets)] if isinstance(part, Samples) else [part[i] for i in ends]
        for pair in pairs:
            digest.update(checksum(*map(_array, pair)).encode())
        digest.update(str(len(part)).encode())
    return digest.hexdigest()
