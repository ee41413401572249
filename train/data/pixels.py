"""Pixels as numbers of the line, and back: the preparation of a density of images.

A pixel is one of a few whole numbers, and a density of such is unbounded where they are. With noise u,
uniform on [0, 1), v + u has a density, and E_u log p(v + u) is a lower bound on log P(v), the probability of
the whole number: nats, or bits per dimension, are of v + u, with one level as the unit of length.

Source: B. Uria, I. Murray, H. Larochelle, RNADE, NeurIPS 2013; L. Theis, A. van den Oord, M. Bethge, A note
on the evaluation of generative models, ICLR 2016; the logit: L. Dinh, J. Sohl-Dickstein, S. Bengio, Density
estimation using Real NVP, ICLR 2017, Sec. 4.1.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

MARGIN = 0.05  # Real NVP's: no pixel is further out than logit(0.05)
FIXED = 0  # seed of the noise of what is not trained on


@dataclasses.dataclass(frozen=True)
class Pixels:
    """x = logit(a + (1 − 2a) w/levels) of w = v + u, entry by entry.

    levels: a pixel v is 0 … levels − 1.
    margin: a, so that what is in [0, levels) is carried to a bounded interval.
    """

    levels: int
    margin: float = MARGIN

    def encode(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """(x, log|det ∂x/∂w| of each sample [B]), both float64, of w [B, *S]."""
        share = self.margin + (1 - 2 * self.margin) * w.double() / self.levels
        slope = (1 - 2 * self.margin) / self.levels / (share * (1 - share))
        return torch.logit(share), slope.log().flatten(1).sum(1)

    def decode(self, x: Tensor) -> Tensor:
        """w [B, *S], of x's kind: a draw of a flow may be beyond 0 and levels, by less than a/(1 − 2a) of
        them."""
        return (torch.sigmoid(x) - self.margin) * (self.levels / (1 - 2 * self.margin))


class Dequantised(Dataset[tuple[Tensor, Tensor]]):
    """Images with noise, prepared: pairs (x [*S] float32, log|det ∂x/∂w| float64).

    images: [N, *S], whole numbers.

    The noise of an image depends on the two numbers of `set_epoch` and its index alone; before `set_epoch`
    it is always the same.
    """

    def __init__(self, images: Tensor, pixels: Pixels):
        self.images, self.pixels = images, pixels
        self._draw((FIXED,))

    def set_epoch(self, seed: int, epoch: int) -> None:
        """Chooses the noise: call it before each epoch."""
        self._draw((seed, epoch))

    def _draw(self, words: tuple[int, ...]) -> None:
        noise = np.random.default_rng(words).random(tuple(self.images.shape), dtype=np.float32)
        self.noise = torch.from_numpy(noise)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, volume = self.__getitems__([index])
        return x[0], volume[0]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A whole batch at once: ([n, *S], [n])."""
        x, volume = self.pixels.encode(self.images[indices].double() + self.noise[indices])
        return x.float(), volume
