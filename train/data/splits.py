"""Labelled images as an ordinary torch data set, and the cut into three."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .card import DataCard

# The split is part of a data set and not of a run: every seed and model sees the same test images.
SPLIT_SEED = 0


class LabelledImages(Dataset[tuple[Tensor, Tensor]]):
    """Images [N, C, H, W] of any dtype with labels [N]; ``transform`` makes them floats.

    ``transform`` must treat a batch as it treats a single image (as normalisation does).
    """

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable[[Tensor], Tensor]):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(self.images[index]), self.labels[index]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A whole batch at once: ([n, C, H, W], [n])."""
        return self.transform(self.images[indices]), self.labels[indices]


@dataclasses.dataclass(frozen=True)
class Splits:
    """Three data sets of (input, label) and the card that says what they are."""

    train: LabelledImages
    val: LabelledImages
    test: LabelledImages
    card: DataCard


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


def batches(data: LabelledImages, order: Tensor, batch_size: int, start: int = 0) -> DataLoader:
    """Batches (inputs, labels) of ``data`` in ``order``, from batch number ``start`` on.

    The last batch may be smaller. No global random number is drawn: a run that starts in the
    middle of an epoch sees the same numbers afterwards as one that did not stop.
    """
    chunks = [chunk.tolist() for chunk in order.split(batch_size)][start:]
    return DataLoader(
        data,
        batch_sampler=chunks,  # type: ignore[arg-type]
        collate_fn=_whole_batch,
        generator=torch.Generator(),  # else the loader draws its seed from the global one
    )


def _whole_batch(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch
