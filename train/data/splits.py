"""Samples as ordinary torch data sets, the three parts of a data set, and how they are cut and batched."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .card import DataCard
from .pixels import Pixels
from .raw import Raw

# The split is part of a data set and not of a run: every seed and model sees the same test images.
SPLIT_SEED = 0


class Examples(Protocol):
    """A data set of pairs (input, target) that also hands out a whole batch at once."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]: ...

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]: ...


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """Ready inputs with targets.

    inputs: [N, *S].
    targets: [N, *R].
    """

    def __init__(self, inputs: Tensor, targets: Tensor):
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index], self.targets[index]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A whole batch at once: ([n, *S], [n, *R])."""
        return self.inputs[indices], self.targets[indices]


class LabelledImages(Dataset[tuple[Tensor, Tensor]]):
    """Images with labels.

    images: [N, C, H, W], of any dtype.
    labels: [N].
    transform: makes images floats; it must treat a batch as it treats a single image (as normalisation does).
    augment: a random transform of one image that keeps its shape.

    The draws of ``augment`` depend only on the two numbers of `set_epoch` and the image's index: not on the
    order of the images, the batch size or the number of processes, and no global generator moves.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        transform: Callable[[Tensor], Tensor],
        augment: Callable[[Tensor], Tensor] | None = None,
    ):
        self.images, self.labels, self.transform, self.augment = images, labels, transform, augment
        self._epoch: tuple[int, int] | None = None

    def set_epoch(self, seed: int, epoch: int) -> None:
        """Chooses the random numbers of ``augment``: call it before each epoch."""
        self._epoch = (seed, epoch)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        images, labels = self.__getitems__([index])
        return images[0], labels[0]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A whole batch at once: ([n, C, H, W], [n])."""
        images = self.images[indices]
        if self.augment is not None:
            images = self._augmented(images, indices, self.augment)
        return self.transform(images), self.labels[indices]

    def _augmented(self, images: Tensor, indices: list[int], augment: Callable[[Tensor], Tensor]) -> Tensor:
        if self._epoch is None:
            raise RuntimeError("augmented images need set_epoch(seed, epoch) before they are read.")
        # torchvision's transforms draw from torch's global CPU generator: it is seeded per image
        # (some µs; fork_rng takes 250 µs) and put back.
        before = torch.get_rng_state()
        try:
            done = []
            for image, index in zip(images, indices, strict=True):
                words = np.random.SeedSequence((*self._epoch, index)).generate_state(2)
                torch.default_generator.manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)
                done.append(augment(image))
        finally:
            torch.set_rng_state(before)
        return torch.stack(done)


@dataclasses.dataclass(frozen=True)
class DataSet:
    """Three sets of (input, target), the card that says what they are, and how to judge on them.

    train, val, test: torch data sets of such pairs.
    card: origin, counts, checksum.
    task: "classification" (targets: labels, int64), "regression" (targets: floats of the shape of
    the model's output) or "density" (targets: what the preparation of the input adds to its log-density).
    given: rows of a sequence whose measured output the input shows; targets begin after them.
    unit, per_unit: an RMSE in the targets' scale times per_unit is in this unit ("mV").
    dt: seconds between two rows of a sequence; a model's time runs in rows, 0 … L−1.
    raw: how a file's numbers become inputs, and outputs a file's numbers.
    more_tests: further test sets by name, each to be reported beside ``test``.
    pixels: of a density of images, how their whole numbers became inputs.
    """

    train: Examples
    val: Examples
    test: Examples
    card: DataCard
    given: int = 0
    unit: str = ""
    per_unit: float = 1.0
    dt: float | None = None
    raw: Raw | None = None
    more_tests: Mapping[str, Examples] = dataclasses.field(default_factory=dict)
    pixels: Pixels | None = None

    @property
    def name(self) -> str:
        """The name in the registry."""
        return self.card.name

    @property
    def task(self) -> str:
        """One of "classification", "regression" and "density"."""
        return self.card.task

    @property
    def classes(self) -> int:
        """Number of labels; 0 where there are none."""
        return self.card.classes


def stratified_split(labels: np.ndarray, shares: tuple[float, float]) -> tuple[np.ndarray, ...]:
    """Indices (train, val, test), sorted; val and test get ``shares`` of each class.

    The same labels give the same split, always (`SPLIT_SEED`).
    """
    generator = np.random.default_rng(SPLIT_SEED)
    train, val, test = [], [], []
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        n_val, n_test = (round(share * len(members)) for share in shares)
        val.append(members[:n_val])
        test.append(members[n_val : n_val + n_test])
        train.append(members[n_val + n_test :])
    return tuple(np.sort(np.concatenate(part)) for part in (train, val, test))


def balanced_subset(labels: np.ndarray, size: int) -> np.ndarray:
    """Sorted indices of ``size`` samples (all, where there are fewer), each class as often as any other.

    Classes differ by at most one, unless one has too few. The same labels give the same subset.
    """
    generator = np.random.default_rng(SPLIT_SEED)
    members = [generator.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    rounds = [np.asarray([m[i] for m in members if i < len(m)]) for i in range(max(map(len, members)))]
    return np.sort(np.concatenate(rounds)[:size])


def batches(data: Examples, order: Tensor, batch_size: int, start: int = 0) -> DataLoader[Any]:
    """Batches (inputs, targets) of ``data`` in ``order``, from batch number ``start`` on.

    data: a torch data set of pairs.
    order: [N], the samples' numbers.
    batch_size: samples a batch.
    start: number of the first batch.

    The last batch may be smaller. No global random number is drawn: a run that starts in the
    middle of an epoch sees the same numbers afterwards as one that did not stop.
    """
    chunks: Any = [chunk.tolist() for chunk in order.split(batch_size)][start:]
    source: Any = data  # has what a Dataset has
    return DataLoader(
        source,
        batch_sampler=chunks,
        collate_fn=_whole_batch,
        generator=torch.Generator(),  # else the loader draws its seed from the global one
    )


def _whole_batch(batch: Any) -> Any:
    return batch
