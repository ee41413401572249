"""Sums over the stages of a step, for the gradients of a layer's weight and bias.

A layer's input at stage i is x_i, [R, in], the cotangent at its output δ_i, [R, out]; R rows are the
samples, or samples by places with the sample outermost.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Entries of a stage's δ and x. Below, joining the stages and one product is faster (64 columns, 16 rows:
# 15 µs against 22); above, copying costs more than it saves (256 rows: 175 µs against 157; 4096 rows of 192
# columns: 7.1 ms against 5.6).
JOINED_BELOW = 8192


def weighted(deltas: list[Tensor], weights: Tensor | None) -> list[Tensor]:
    """w_i δ_i. weights: [n], [n, B], or None for ones."""
    if weights is None:
        return deltas
    if weights.ndim == 1:
        return [delta * w for delta, w in zip(deltas, weights.unbind(), strict=True)]
    return [
        (delta.reshape(w.shape[0], -1) * w[:, None]).view(delta.shape)
        for delta, w in zip(deltas, weights.unbind(), strict=True)
    ]


def layer_gradients(
    deltas: list[Tensor], inputs: list[Tensor], times: list[Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """(Σ_i δ_iᵀ x_i, Σ_i Σ_r δ_i): [out, in] and [out].

    times: of the stages, 0-d or one for each sample; the weight then has one more column, Σ_i Σ_r t_i δ_i.
    """
    if len(deltas) > 1 and deltas[0].numel() + inputs[0].numel() < JOINED_BELOW:
        if times is not None:
            times = [_rows(times, deltas)]
        deltas, inputs = [torch.cat(deltas)], [torch.cat(inputs)]
    # A product with the narrow side first takes a third of the time (8 × 256 × 64: 6 µs against 20).
    turned = deltas[0].shape[1] > inputs[0].shape[1]
    pairs = zip(inputs, deltas, strict=True) if turned else zip(deltas, inputs, strict=True)
    weight = None
    for left, right in pairs:
        left = left.t()
        weight = torch.mm(left, right) if weight is None else weight.addmm_(left, right)
    assert weight is not None  # a step has a stage
    if turned:
        weight = weight.t()
    sums = deltas[0].sum(0)
    column = None if times is None else _in_time(deltas[0], sums, times[0])
    for i, delta in enumerate(deltas[1:], 1):
        own = delta.sum(0)
        sums = sums.add_(own)
        if column is not None and times is not None:
            column = column.add_(_in_time(delta, own, times[i]))
    return (weight if column is None else torch.cat((weight, column[:, None]), dim=1)), sums


def _in_time(delta: Tensor, own: Tensor, t: Tensor) -> Tensor:
    """Σ_r t δ, [out]; own: Σ_r δ. t: 0-d, or [B, 1, …] where R is B by places."""
    if t.ndim == 0:
        return own * t
    times = t.reshape(-1)
    return torch.mv(delta.reshape(times.shape[0], -1).t(), times).view(-1, delta.shape[1]).sum(0)


def _rows(times: list[Tensor], deltas: list[Tensor]) -> Tensor:
    """The time of each row of the joined stages."""
    rows = len(deltas[0])
    if all(t.ndim == 0 for t in times):
        return torch.stack(times)[:, None].expand(-1, rows).reshape(-1)
    return torch.cat(
        [
            t.reshape(-1, 1).expand(-1, rows // t.numel()).reshape(-1) if t.ndim else t.expand(rows)
            for t in times
        ]
    )
