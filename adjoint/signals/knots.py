"""From samples with gaps to an interpolant's values, and its slopes, at every time.

Everything is linear in the samples and done channel by channel. Times: [T, 1], or [B, 1, …, T, 1] as they
broadcast against values […, T, U]. ``seen`` says which entries are known; None: all.

The natural cubic spline's slopes m solve, with h_i = t_{i+1} − t_i and d_i = (v_{i+1} − v_i) / h_i,

    m_{i−1} / h_{i−1} + 2 (1/h_{i−1} + 1/h_i) m_i + m_{i+1} / h_i = 3 (d_{i−1} / h_{i−1} + d_i / h_i)

where at both ends the terms without an interval are left out, which makes the second derivative 0 there. The
matrix is symmetric, so the VJP of the slopes is the same system for their cotangents.

Sources: C. de Boor, A practical guide to splines, 1978, ch. IV; P. Kidger et al., Neural controlled
differential equations for irregular time series, NeurIPS 2020, App. A; J. Morrill et al., On the choice of
interpolation scheme for neural CDEs, TMLR 2022 (backward differences).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def knots(kind: str, times: Tensor, values: Tensor, seen: Tensor | None) -> Tensor:
    """[P, …, T, U]: the values at the times, and for a cubic the slopes behind them.

    kind: "hold", "linear", "cubic" (natural) or "hermite" (backward differences).
    values: an entry that is not seen counts for nothing, whatever it is.
    """
    if seen is not None:
        values = torch.where(seen, values, 0.0)
    if kind == "cubic":
        return torch.stack(_natural(times, values, seen))
    if kind == "hold":
        return (values if seen is None else _carried(values, seen))[None]
    values = values if seen is None else _bridged(times, values, seen)
    return values[None] if kind == "linear" else torch.stack((values, _backward_slopes(times, values)))


def _places(seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The known entry at or before each, and the one at or after it; where there is none, the other one; and
    which entries are known or lie outside all known ones."""
    n = seen.shape[-2]
    here = torch.arange(n, dtype=torch.int64, device=seen.device)[:, None]
    before = torch.where(seen, here, -1).cummax(-2).values
    after = torch.where(seen, here, n).flip(-2).cummin(-2).values.flip(-2)
    left, right = torch.where(before < 0, after, before), torch.where(after == n, before, after)
    left, right = (x.clamp(0, n - 1) for x in (left, right))  # a channel without a known entry has none
    return left, right, seen | (before < 0) | (after == n)


def _carried(values: Tensor, seen: Tensor) -> Tensor:
    """The last known value; before the first that one."""
    return values.gather(-2, _places(seen)[0])


def _bridged(times: Tensor, values: Tensor, seen: Tensor) -> Tensor:
    """Gaps filled linearly; before the first known value and after the last these hold."""
    left, right, _ = _places(seen)
    t = times.expand_as(values)
    begin, end = t.gather(-2, left), t.gather(-2, right)
    share = torch.where(end > begin, (t - begin) / torch.where(end > begin, end - begin, 1.0), 0.0)
    return torch.lerp(values.gather(-2, left), values.gather(-2, right), share.to(values.dtype))


def _inverse_steps(times: Tensor) -> Tensor:
    """1/h_i, 0 for the intervals of length 0 behind a shorter sample's last time."""
    h = times.diff(dim=-2)
    return torch.where(h > 0, 1.0 / torch.where(h > 0, h, 1.0), 0.0)


def _backward_slopes(times: Tensor, values: Tensor) -> Tensor:
    """The difference quotient with the sample before; at the first time that of the first interval."""
    slopes = values.diff(dim=-2) * _inverse_steps(times).to(values.dtype)
    return torch.cat((slopes[..., :1, :], slopes), -2)


def _natural(times: Tensor, values: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
    """Values and slopes of the natural spline through the known entries, at every time.

    Before a channel's first known entry and after its last the nearest known value stands at every time, as
    if seen.
    """
    if seen is None:
        return values, _slopes(times, values)
    left, _, known = _places(seen)
    values = values.gather(-2, left)
    repeated = torch.nn.functional.pad(times.diff(dim=-2) == 0, (0, 0, 1, 0))  # a shorter sample's last time
    known = known & ~repeated
    # Each channel's known entries first, in order, and behind them its last again and again.
    order = (~known).to(torch.int8).argsort(dim=-2, stable=True)
    count = known.sum(-2, keepdim=True)
    place = torch.arange(values.shape[-2], dtype=torch.int64, device=values.device)[:, None]
    order = order.gather(-2, torch.minimum(place, count - 1))
    t, v = times.expand_as(values).gather(-2, order), values.gather(-2, order)
    m = _slopes(t, v)
    i = (known.cumsum(-2) - 1).clamp(min=0)
    i = torch.minimum(i, (count - 2).clamp(min=0))
    (t0, t1), (v0, v1), (m0, m1) = ((x.gather(-2, i), x.gather(-2, i + 1)) for x in (t, v, m))
    h = torch.where(t1 > t0, t1 - t0, 1.0)
    share = ((times - t0) / h).clamp(0, 1)
    flat, (h, s) = ~(t1 > t0), (x.to(values.dtype) for x in (h, share))
    value, slope = ((_sum(w, (v0, m0, v1, m1))) for w in (hermite(s, h), hermite_slopes(s, h)))
    return torch.where(known, values, value), torch.where(flat, 0.0, slope)


def _sum(weights: tuple[Tensor, ...], terms: tuple[Tensor, ...]) -> Tensor:
    total = weights[0] * terms[0]
    for w, x in zip(weights[1:], terms[1:], strict=True):
        total = total + w * x
    return total


def hermite(share: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The cubic's weights of (value, slope) at an interval's start and of those at its end."""
    rest = 1.0 - share
    first = (1.0 + 2.0 * share) * rest * rest
    return first, share * rest * rest * h, share * share * (3.0 - 2.0 * share), -share * share * rest * h


def hermite_slopes(share: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same of its derivative."""
    along = 6.0 * share * (1.0 - share) / h
    rest = 1.0 - share
    return -along, rest * (1.0 - 3.0 * share), along, share * (3.0 * share - 2.0)


def _slopes(times: Tensor, values: Tensor) -> Tensor:
    """Of the natural spline through all values."""
    inverse = _inverse_steps(times)
    nothing = torch.zeros_like(inverse[..., :1, :])
    before, after = torch.cat((nothing, inverse), -2), torch.cat((inverse, nothing), -2)
    diagonal = 2.0 * (before + after)
    diagonal = torch.where(diagonal > 0, diagonal, 1.0).to(values.dtype)  # behind a shorter sample's end
    off = inverse.to(values.dtype)
    quotients = 3.0 * values.diff(dim=-2) * off * off
    nothing = torch.zeros_like(quotients[..., :1, :])
    load = torch.cat((nothing, quotients), -2) + torch.cat((quotients, nothing), -2)
    found: Tensor = _Tridiagonal.apply(diagonal, off, load)
    return found


def _eliminated(diagonal: Tensor, off: Tensor, load: Tensor) -> Tensor:
    """x of the symmetric system with that diagonal and those entries beside it, along axis −2, by Gauss'
    elimination without pivots, which a dominant diagonal needs none of."""
    d, e, b = diagonal.unbind(-2), off.unbind(-2), list(load.unbind(-2))
    ratios: list[Tensor] = []
    pivot = d[0]
    b[0] = b[0] / pivot
    for i in range(1, len(b)):
        ratios.append(e[i - 1] / pivot)
        pivot = d[i] - e[i - 1] * ratios[-1]
        b[i] = (b[i] - e[i - 1] * b[i - 1]) / pivot
    for i in range(len(b) - 2, -1, -1):
        b[i] = b[i] - ratios[i] * b[i + 1]
    return torch.stack(b, -2)


class _Tridiagonal(torch.autograd.Function):
    """`_eliminated`; its VJP and its tangent are the same function, the matrix is a constant."""

    generate_vmap_rule = True

    @staticmethod
    def forward(diagonal: Tensor, off: Tensor, load: Tensor) -> Tensor:
        return _eliminated(diagonal, off, load)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.save_for_forward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[None, None, Tensor]:
        diagonal, off = ctx.saved_tensors
        return None, None, _Tridiagonal.apply(diagonal, off, g)

    @staticmethod
    def jvp(ctx: Any, d: None, o: None, tangent: Tensor) -> Tensor:
        diagonal, off = ctx.saved_tensors
        found: Tensor = _Tridiagonal.apply(diagonal, off, tangent)
        return found
