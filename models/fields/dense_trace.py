"""The trace of a dense field's Jacobian by its layers, and its derivative by hand.

With s_l = σ'(a_l), a_l what layer l hands to σ, J = W_L diag(s_{L−1}) W_{L−1} … diag(s_1) W_1, W_1 without
the time's column. Its trace is a sum over columns, tr J = Σ_e eᵀJe, where e runs over the unit vectors;
Hutchinson's estimate of it is the mean over probes e. Of one to three layers the exact sum over e is done
beforehand, and no product with a vector e is left (docs/densities.md derives both).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .dense import _Dense
from .field import get_activation, weighted

Inside = list[Tensor | None]  # cotangents at a_1 … a_{L−1}, None where 0


class DenseTrace:
    """tr ∂f/∂x of a `MLP` or `Linear` field with as many features of f as of x, [B].

    probes: E, [K, B, d], of Hutchinson's estimate; None: the exact trace.
    ``saved`` is what the field's `forward` saved, its inputs.
    made: what is the same at every evaluation of a solve.
    """

    def __init__(self, field: _Dense, probes: Tensor | None = None, made: Any = None):
        self.field, self.probes, self.made = field, probes, made
        self.depth = len(field.layers)
        self.sigma = get_activation(field.activation)

    @classmethod
    def of(cls, field: _Dense, probes: Tensor | None = None) -> DenseTrace:
        """The one of so many layers, and with probes or without."""
        if len(field.layers) == 1:
            return _OfOne(field, probes)
        small = probes is None and len(field.layers) <= 3
        return {2: _OfTwo, 3: _OfThree}[len(field.layers)](field) if small else _ByColumns(field, probes)

    def for_solve(self) -> DenseTrace:
        """With what is the same at every evaluation; autograd sees none of it."""
        return type(self)(self.field, self.probes, self._make())

    @property
    def weights(self) -> list[Tensor]:
        """W_1 … W_L, the first without the time's column."""
        return [layer.weight for layer in self.field._views()]

    def value(self, saved: Any) -> Tensor:
        """The trace τ of each sample, [B]."""
        _, inputs = saved
        return self._value(self._slopes(inputs), len(inputs[0]))

    def inside(self, saved: Any, g: Tensor) -> Inside:
        """g ∂τ/∂a_l, [B, …] each. g: [B], the cotangent of τ."""
        _, inputs = saved
        if self.sigma.second is None:
            return []
        slopes = self._slopes(inputs)
        own = self._to_slopes(slopes, g)
        pairs = zip(own, inputs[1:], slopes, strict=True)
        return [bar * self.sigma.second(y, s) for bar, y, s in pairs]

    def weight_gradients(
        self, saved: Sequence[Any], cotangents: Sequence[Tensor], weights: Tensor | None
    ) -> Iterator[Tensor]:
        """Σᵢ wᵢ gᵢ ∂τᵢ/∂W_l over n stages, one layer at a time: together they may be as large as the rest of
        a walk back. The first is without the time's column. weights: as of a field."""
        found: list[Tensor] = []
        for (_, inputs), g in zip(saved, weighted(list(cotangents), weights), strict=True):
            own = self._collected(self._slopes(inputs), g)
            found = [total.add_(x) for total, x in zip(found, own, strict=True)] if found else own
        return self._to_weights(found)

    def _slopes(self, inputs: list[Tensor]) -> list[Tensor]:
        return [self.sigma.slope(y) for y in inputs[1:]]

    def _core(self) -> Any:
        """What is the same at every evaluation."""
        return self._make() if self.made is None else self.made

    def _make(self) -> Any:
        raise NotImplementedError

    def _value(self, slopes: list[Tensor], batch: int) -> Tensor:
        raise NotImplementedError

    def _to_slopes(self, slopes: list[Tensor], g: Tensor) -> list[Tensor]:
        """The cotangents g ∂τ/∂s_l."""
        raise NotImplementedError

    def _collected(self, slopes: list[Tensor], g: Tensor) -> list[Tensor]:
        """Of one stage, summed over samples: new tensors, of which `_to_weights` is a linear function."""
        raise NotImplementedError

    def _to_weights(self, collected: list[Tensor]) -> Iterator[Tensor]:
        yield from collected


class _OfOne(DenseTrace):
    """J = W: tr W, or the mean of eᵀWe, whatever x is."""

    def _make(self) -> Tensor:
        (weight,) = self.weights
        if self.probes is None:
            return weight.diagonal().sum()
        return (torch.matmul(self.probes, weight.t()) * self.probes).sum(2).mean(0)

    def _value(self, slopes: list[Tensor], batch: int) -> Tensor:
        return self._core().expand(batch)

    def _to_slopes(self, slopes: list[Tensor], g: Tensor) -> list[Tensor]:
        return []

    def _collected(self, slopes: list[Tensor], g: Tensor) -> list[Tensor]:
        if self.probes is None:
            return [torch.eye(self.field.layers[0].weight.shape[0], dtype=g.dtype, device=g.device) * g.sum()]
        e = self.probes.flatten(0, 1)
        return [torch.mm((self.probes * (g / len(self.probes))[:, None]).flatten(0, 1).t(), e)]


class _OfTwo(DenseTrace):
    """τ = c·s_1 with c_k = Σ_i W_1[k, i] W_2[i, k]."""

    def _make(self) -> Tensor:
        first, last = self.weights
        return (first * last.t()).sum(1)

    def _value(self, slopes: list[Tensor], batch: int) -> Tensor:
        return torch.mv(slopes[0], self._core())

    def _to_slopes(self, slopes: list[Tensor], g: Tensor) -> list[Tensor]:
        return [torch.outer(g, self._core())]

    def _collected(self, slopes: list[Tensor], g: Tensor) -> list[Tensor]:
        return [torch.mv(slopes[0].t(), g)]

    def _to_weights(self, collected: list[Tensor]) -> Iterator[Tensor]:
        ((c_bar,), (first, last)) = collected, self.weights
        yield c_bar[:, None] * last.t()
        yield first.t() * c_bar


class _OfThree(DenseTrace):
    """τ = s_2ᵀ C s_1 with C = W_2 ⊙ M, M = (W_1 W_3)ᵀ."""

    def _make(self) -> tuple[Tensor, Tensor]:
        first, middle, last = self.weights
        m = torch.mm(first, last).t()
        return middle * m, m

    def _value(self, slopes: list[Tensor], batch: int) -> Tensor:
        c, _ = self._core()
        return (torch.mm(slopes[0], c.t()) * slopes[1]).sum(1)

    def _to_slopes(self, slopes: list[Tensor], g: Tensor) -> list[Tensor]:
        (c, _), (one, two), g = self._core(), slopes, g[:, None]
        return [torch.mm(two * g, c), torch.mm(one * g, c.t())]

    def _collected(self, slopes: list[Tensor], g: Tensor) -> list[Tensor]:
        one, two = slopes
        return [torch.mm((two * g[:, None]).t(), one)]

    def _to_weights(self, collected: list[Tensor]) -> Iterator[Tensor]:
        ((c_bar,), (_, m), (first, middle, last)) = collected, self._core(), self.weights
        p_bar = (c_bar * middle).t()  # of W_1 W_3
        yield torch.mm(p_bar, last.t())
        yield c_bar * m
        yield torch.mm(first.t(), p_bar)


class _ByColumns(DenseTrace):
    """τ = Σ_e (Wᵀ_L e)ᵀ diag(s_{L−1}) … diag(s_1) W_1 e: forwards U_l = s_l ⊙ A_l, A_{l+1} = U_l Wᵀ_{l+1} on
    [K, B, …], backwards its transpose. Nothing of it is kept: it is made again on the way back."""

    def _make(self) -> tuple[Tensor, Tensor]:
        """(A_1 = E Wᵀ_1, R = E W_L/K), or of the unit vectors, [d, 1, …]."""
        weights = self.weights
        if self.probes is None:
            return weights[0].t()[:, None], weights[-1][:, None]
        ends = torch.matmul(self.probes, weights[0].t()), torch.matmul(self.probes, weights[-1])
        return ends[0], ends[1] / len(self.probes)

    def _tilted(self, slopes: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """([A_1, …, A_{L−1}], R)."""
        first, last = self._core()
        found = [first]
        for slope, weight in zip(slopes[:-1], self.weights[1:-1], strict=True):
            found.append(torch.matmul(found[-1] * slope, weight.t()))
        return found, last

    def _value(self, slopes: list[Tensor], batch: int) -> Tensor:
        tilted, last = self._tilted(slopes)
        return (tilted[-1] * last * slopes[-1]).sum((0, 2))

    def _backwards(self, slopes: list[Tensor], g: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """([A_l], [the cotangents of U_l]), l = 1 … L − 1."""
        tilted, last = self._tilted(slopes)
        bars = [last * g[:, None]]
        for slope, weight in zip(slopes[:0:-1], self.weights[-2:0:-1], strict=True):
            bars.append(torch.matmul(bars[-1] * slope, weight))
        return tilted, bars[::-1]

    def _to_slopes(self, slopes: list[Tensor], g: Tensor) -> list[Tensor]:
        return [(a * bar).sum(0) for a, bar in zip(*self._backwards(slopes, g), strict=True)]

    def _collected(self, slopes: list[Tensor], g: Tensor) -> list[Tensor]:
        """Of A_1, of R (divided by K), and the gradients of the layers between."""
        tilted, bars = self._backwards(slopes, g)
        a_bars = [bar * slope for bar, slope in zip(bars, slopes, strict=True)]
        u = [a * slope for a, slope in zip(tilted, slopes, strict=True)]
        between = [
            torch.mm(a_bar.flatten(0, 1).t(), below.flatten(0, 1))
            for a_bar, below in zip(a_bars[1:], u[:-1], strict=True)
        ]
        ends = [a_bars[0], u[-1] * g[:, None]]
        if self.probes is None:
            return [x.sum(1) for x in ends] + between
        return ends + between

    def _to_weights(self, collected: list[Tensor]) -> Iterator[Tensor]:
        first, last, *between = collected
        if self.probes is None:  # of unit vectors, [d, …]: a row each
            yield first.t()
            yield from between
            yield last
            return
        e = self.probes.flatten(0, 1).t()
        yield torch.mm(e, first.flatten(0, 1)).t()
        yield from between
        yield torch.mm(e, last.flatten(0, 1)).div_(len(self.probes))
