"""A state as rows, one a sample: what a Jacobian's blocks belong to."""

from __future__ import annotations

import dataclasses

from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Samples:
    """Which axis of a state counts samples that do not depend on each other; None: all of it is one."""

    axis: int | None = None

    def rows(self, z: Tensor) -> Tensor:
        """[b, n] of a state; its axes in front of the samples' come first in a row."""
        if self.axis is None:
            return z.reshape(1, -1)
        return z.movedim(self.axis, 0).reshape(z.shape[self.axis], -1)

    def state(self, rows: Tensor, like: Tensor) -> Tensor:
        """The state of rows [b, n], in like's shape."""
        if self.axis is None:
            return rows.reshape(like.shape)
        front = like.movedim(self.axis, 0)
        return rows.reshape(front.shape).movedim(0, self.axis)

    def basis(self, like: Tensor) -> Tensor:
        """[n, *S]: in each the same entry of every sample is 1, all else 0."""
        n = self.rows(like).shape[1]
        eye = like.new_zeros((n, n))
        eye.fill_diagonal_(1.0)
        count = like.numel() // max(n, 1)
        if self.axis is None:
            return eye.reshape(n, *like.shape)
        front = like.movedim(self.axis, 0).shape
        each = eye[:, None].expand(n, count, n).reshape(n, *front)
        return each.movedim(1, self.axis + 1)
