"""One explicit Runge–Kutta step: pure, unrolled, without a branch on a tensor's value; and where stages live.

    Y_i = y + dt Σ_j a_ij k_j,   k_i = f(t + c_i dt, Y_i),   y1 = y + dt Σ_i b_i k_i

The last stage is always f(t1, y1): where a method is not FSAL it is added. An accepted step hands
it on as the next first stage, so it costs nothing, and NaN in it is seen before y1 is accepted.

Two ways to hold the stages, one algorithm. `StageBuffer` writes them into one tensor, so that a
stage is one matrix–vector product whatever its row's length (11 µs against 35 µs as a loop on a
3×256×8 state). `StageList` is out of place and keeps autograd's graph.

Source: Hairer, Nørsett, Wanner, Solving Ordinary Differential Equations I, II.1, Eq. (1.8).
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..methods.tableau import Numeric, Tableau
from .besides import Paired, Solved
from .clocks import sent

FEW = 2**17  # numbers of a state whose looks are made together: eight such states are 4 MiB in float32


def dense_strides(x: Tensor) -> tuple[int, ...]:
    """x's strides where it fills its memory without gaps in some order of its axes, else those of a
    contiguous tensor of its shape."""
    if x.is_contiguous():
        return x.stride()
    expected = 1
    for size, stride in sorted(zip(x.shape, x.stride(), strict=True), key=lambda pair: pair[::-1]):
        if size == 1:
            continue
        if stride != expected:
            return x.new_empty(x.shape, device="meta").stride()
        expected *= size
    return x.stride()


def with_strides(x: Tensor, strides: tuple[int, ...]) -> Tensor:
    """x, or a copy of it, with those strides."""
    return x if x.stride() == strides else x.new_empty_strided(x.shape, strides).copy_(x)


def regular(x: Tensor) -> Tensor:
    """x, or a copy: without gaps in memory, and with a new tensor's strides along axes of size 1."""
    strides, expected = [0] * x.dim(), 1
    order = sorted(range(x.dim()), key=lambda d: (dense_strides(x)[d], x.shape[d], -d))
    for d in order:
        strides[d] = expected
        expected *= x.shape[d]
    if x.is_contiguous():
        strides = list(x.new_empty(x.shape, device="meta").stride())
    return with_strides(x, tuple(strides))


def rows_like(n: int, x: Tensor, strides: tuple[int, ...]) -> Tensor:
    """Uninitialised [n, *x.shape], each row in the given dense order."""
    return x.new_empty_strided((n, *x.shape), (x.numel(), *strides))


def flat_rows(rows: Tensor) -> Tensor:
    """[n, *S] of `rows_like` as [n, S's size]: each row as it lies in memory."""
    size = rows[0].numel() if len(rows) else 0
    return rows.as_strided((len(rows), size), (size, 1))


# A field returns the derivative and whatever its VJP wants kept; the solver only carries the latter.
Field = Callable[[Tensor, Tensor], tuple[Tensor, Any]]
Evaluation = tuple[Tensor, Any]


def owned(field: Field) -> Field:
    """The field with its derivative in memory of its own: func may hand back one buffer at every call."""

    def evaluate(t: Tensor, z: Tensor) -> Evaluation:
        k, saved = field(t, z)
        return k.clone(), saved

    return evaluate


class Stages(abc.ABC):
    """Where the k_i of one attempt live.

    dt: float, or a tensor that broadcasts against the state.
    rows: the stages, as they were stored.
    weights: of the Y_i, in the form that `_weighted` takes.
    ``out_of_place``: derivatives can be followed through them.
    """

    rows: Sequence[Tensor]
    out_of_place = False

    def __init__(self, numeric: Numeric, dt: float | Tensor, weights: Sequence[Any]):
        self.numeric, self.dt, self.weights = numeric, dt, weights

    @abc.abstractmethod
    def put(self, i: int, k: Tensor) -> None:
        """Stores k_i; stages come in order."""

    @abc.abstractmethod
    def _weighted(self, y: Tensor | None, weights: Any) -> Tensor:
        """y + dt Σ w_i k_i (or without y and dt where y is None). The sum meets y once: y's rounding is the
        coarse one."""

    @abc.abstractmethod
    def errors(self) -> tuple[Tensor, ...]:
        """dt Σ (b_i − b̂_i) k_i, for each embedded solution."""

    @abc.abstractmethod
    def combine(self, y: Tensor | None, weights: Sequence[float]) -> Tensor:
        """y + dt Σ w_i k_i (or without y and dt where y is None: a derivative)."""

    def several(self, y: Tensor, rows: Sequence[Sequence[float]]) -> list[Tensor]:
        """`combine` with each row of weights."""
        return [self.combine(y, weights) for weights in rows]

    @abc.abstractmethod
    def looks(self, y: Tensor, table: Tensor) -> Iterator[Tensor]:
        """`combine` with each row of weights, on the device; a stage that was not put is left out."""

    @abc.abstractmethod
    def nought(self) -> Tensor:
        """Like the state: 0, or NaN where a stage is not finite."""

    @abc.abstractmethod
    def move(self, n: int, by: Tensor) -> None:
        """Adds the same to the first n stages."""

    def get(self, i: int) -> Tensor:
        """Stage k_i as it was stored."""
        return self.rows[i]

    def advance(self, y: Tensor, i: int) -> Tensor:
        """Y_i = y + dt Σ_j a_ij k_j, from the stages put so far."""
        return self._weighted(y, self.weights[i])

    def probe(self, error: Tensor) -> Tensor:
        """Sum, 0-d, of the (first) error estimate and of the stages that it does not weigh: non-finite if any
        stage is (or, rarely, if it overflows)."""
        return sum((self.rows[i].sum() for i in self.numeric.unseen), error.sum())


class StageBuffer(Stages):
    """Stages in one tensor [n, *S], for solves without autograd.

    dt: float, or a tensor [B, 1, …] that broadcasts against the state (per-sample steps).
    storage: memory of an earlier attempt to write over.
    """

    def __init__(self, numeric: Numeric, like: Tensor, dt: float | Tensor, storage: Tensor | None = None):
        super().__init__(numeric, dt, numeric.a_vectors)
        self.shape = like.shape
        self.strides = dense_strides(like) if storage is None else storage.stride()[1:]
        self.k = rows_like(len(numeric.a_rows), like, self.strides) if storage is None else storage
        self.flat = flat_rows(self.k)
        # Made once: each view costs as much as a small product.
        self.rows = self.k.unbind()
        self.columns = [self.flat[:i].t() for i in range(1, len(self.rows) + 1)]
        # Of a buffer that is used again: a weighted sum until y is added, flat and in the state's shape.
        self.sum: tuple[Tensor, Tensor] | None = None
        self.seen: tuple[Tensor, Sequence[Tensor]] | None = None  # of the looks, flat and each in that shape
        self.count = 0

    def again(self, dt: float | Tensor) -> StageBuffer:
        """The same memory for another attempt."""
        self.dt, self.count = dt, 0
        if self.sum is None:
            flat = self.k.new_empty(self.flat.shape[1])
            self.sum = flat, flat.as_strided(self.shape, self.strides)
        return self

    def put(self, i: int, k: Tensor) -> None:
        """Stores stage k_i."""
        target = self.rows[i]
        if k is not target:
            target.copy_(k)
        self.count = i + 1

    def _weighted(self, y: Tensor | None, weights: Tensor) -> Tensor:
        """Of the first stages, as many as weights."""
        columns = self.columns[weights.numel() - 1]
        if self.sum is None or y is None:
            product = torch.mv(columns, weights).as_strided(self.shape, self.strides)
        else:
            flat, product = self.sum
            torch.mv(columns, weights, out=flat)
        if y is None:
            return product
        if isinstance(self.dt, float):
            return torch.add(y, product, alpha=self.dt)
        return torch.addcmul(y, product, self.dt)

    def errors(self) -> tuple[Tensor, ...]:
        """Error estimates."""
        return tuple(self._weighted(None, row).mul_(self.dt) for row in self.numeric.errors)

    def combine(self, y: Tensor | None, weights: Sequence[float]) -> Tensor:
        """Dense output and its derivative; a stage that was not put has weight 0, and is not read."""
        return self._weighted(y, sent(weights[: self.count], self.k.device, self.k.dtype))

    def several(self, y: Tensor, rows: Sequence[Sequence[float]]) -> list[Tensor]:
        """One product for all where it can be: y is the same for them."""
        if len(rows) < 2 or not isinstance(self.dt, float):
            return super().several(y, rows)
        table = sent([row[: self.count] for row in rows], self.k.device, self.k.dtype)  # as in `combine`
        product = torch.mm(table, self.flat[: table.shape[1]])
        product = product.as_strided((len(rows), *self.shape), (product.shape[1], *self.strides))
        return list(torch.add(y, product, alpha=self.dt).unbind())

    def looks(self, y: Tensor, table: Tensor) -> Iterator[Tensor]:
        """One product for all of a small state's, in memory of its own; a large one's one after the other."""
        table = table[:, : self.count]
        if self.flat.shape[1] > FEW:
            return (self._weighted(y, row) for row in table.unbind())
        if self.seen is None:
            memory = rows_like(len(table), y, self.strides)
            self.seen = flat_rows(memory), memory.unbind()
        product, rows = self.seen
        torch.mm(table, self.flat[: self.count], out=product)
        if isinstance(self.dt, float):
            return (torch.add(y, row, alpha=self.dt) for row in rows)
        return (torch.addcmul(y, row, self.dt) for row in rows)

    def nought(self) -> Tensor:
        """Zeros, NaN where a stage is not finite."""
        return (self.k[: self.count] * 0.0).sum(0)

    def move(self, n: int, by: Tensor) -> None:
        """To the rows of the buffer, in place."""
        self.k[:n].add_(by)


class StageList(Stages):
    """Stages as separate tensors, out of place, so that autograd can follow.

    They are held as they come: what func returned must be `owned` where it is not part of a program.
    """

    out_of_place = True

    def __init__(self, numeric: Numeric, dt: float | Tensor):
        super().__init__(numeric, dt, numeric.a_rows)
        self.rows: list[Tensor] = []

    def put(self, i: int, k: Tensor) -> None:
        """Holds it as it is."""
        self.rows.append(k)

    def _weighted(self, y: Tensor | None, terms: Sequence[tuple[int, float]]) -> Tensor:
        if not terms:
            return torch.zeros_like(self.rows[0]) if y is None else y
        (j, w), *rest = terms
        if y is not None and not rest and isinstance(self.dt, float) and abs(math.frexp(w)[0]) == 0.5:
            return torch.add(y, self.rows[j], alpha=self.dt * w)  # a power of two scales exactly
        total = self.rows[j] * w
        for j, w in rest:
            total = torch.add(total, self.rows[j], alpha=w)
        return total if y is None else self._beyond(y, total)

    def _beyond(self, y: Tensor, total: Tensor) -> Tensor:
        """y + dt · total."""
        return torch.add(y, total, alpha=self.dt) if isinstance(self.dt, float) else y + total * self.dt

    def errors(self) -> tuple[Tensor, ...]:
        """Error estimates."""
        return tuple(self._weighted(None, terms) * self.dt for terms in self.numeric.error_rows)

    def combine(self, y: Tensor | None, weights: Sequence[float]) -> Tensor:
        """Dense output and its derivative."""
        return self._weighted(y, [(j, w) for j, w in enumerate(weights) if w != 0])

    def looks(self, y: Tensor, table: Tensor) -> Iterator[Tensor]:
        """Dense output at each look."""
        k = torch.stack(self.rows[: table.shape[1]])
        return (self._beyond(y, torch.tensordot(row[: len(k)], k, 1)) for row in table.unbind())

    def nought(self) -> Tensor:
        """Zeros, NaN where a stage is not finite."""
        total = self.rows[0] * 0.0
        for k in self.rows[1:]:
            total = total + k * 0.0
        return total

    def move(self, n: int, by: Tensor) -> None:
        """Out of place."""
        self.rows[:n] = [k + by for k in self.rows[:n]]


class Quadrature(NamedTuple):
    """y1 = y0 + dt Σ w_i k_i by its evaluations of f: weights [n], and what the field saved at each."""

    weights: Tensor
    saved: list[Any]


@dataclasses.dataclass
class StepResult:
    """y1, its stages (k_1 … k_n, the last f(t1, y1) if evaluated) and what the field saved at each.

    past: the step's quadrature, where it is not that of its stages (a multistep method's).
    solved: of an implicit step.
    paired: of a pair's.
    """

    y1: Tensor
    stages: Stages
    saved: list[Any]
    past: Quadrature | None = None
    solved: Solved | None = None
    paired: Paired | None = None

    @property
    def quadrature(self) -> Quadrature:
        """How an integral along the step is taken."""
        if self.past is not None:
            return self.past
        numeric = self.stages.numeric
        return Quadrature(numeric.b_nonzero, [self.saved[i] for i in numeric.b_index])

    def errors(self) -> tuple[Tensor, ...]:
        """The error estimates, one or two."""
        other = self.solved or self.paired
        own = None if other is None else other.errors
        return self.stages.errors() if own is None else own

    @property
    def apart(self) -> tuple[Tensor, Tensor] | None:
        """How far the two solutions of a pair are apart at both ends; None of other steps."""
        return None if self.paired is None else self.paired.apart

    @property
    def ends(self) -> tuple[Tensor, ...]:
        """All that stands at the end: y1, and its partner."""
        return (self.y1,) if self.paired is None else (self.y1, self.paired.end)

    def probe(self, error: Tensor) -> Tensor:
        """A sum, 0-d, that is not finite if any entry of stages and ends is not (or, rarely, if it
        overflows).

        error: the (first) error estimate.
        """
        total = self.stages.probe(error)
        for end in self.ends:
            total = total + end.sum()
        return total

    def nought(self) -> Tensor:
        """Like the state: 0, or NaN where a stage or an end is not finite."""
        total = self.stages.nought()
        for end in self.ends:
            total = total + end * 0.0
        return total


def rk_step(
    field: Field,
    y: Tensor,
    first: Evaluation,
    times: Sequence[Tensor],
    tableau: Tableau,
    stages: Stages,
    *,
    evaluate_end: bool = True,
) -> StepResult:
    """One attempt from y.

    first: (k_1, saved_1), the evaluation at (t, y), handed over from the step before; k_1 in memory of
    its own (`owned`).
    times: t + c_i dt for each stage, as the field wants them.
    evaluate_end: False leaves out f(t1, y1) (the last step of a fixed grid).
    """
    n = tableau.n_stages
    stages.put(0, first[0])
    saved = [first[1]]
    for i in range(1, n):
        y_i = stages.advance(y, i)
        if i == n - 1 and not evaluate_end:
            break
        k, kept = field(times[i], y_i)
        stages.put(i, k)
        saved.append(kept)
    return StepResult(y_i, stages, saved)
