"""Butcher tableaus: exact numbers, checked when made, with derived properties.

A tableau is written in exact fractions and converted to a dtype once, in `numeric`. Every flag
(FSAL, which weights vanish) is derived from the numbers and never typed by hand.
"""

from __future__ import annotations

import dataclasses
import functools
from fractions import Fraction

import torch

Row = tuple[Fraction, ...]
_TOLERANCE = Fraction(1, 10**14)  # for tableaus whose published numbers are rounded decimals


def q(text: str) -> Row:
    """Reads a row of exact fractions or decimals: ``q("0 1/5 -44/45 0.161")``."""
    return tuple(Fraction(word) for word in text.split())


def hermite(b: Row, last: int) -> tuple[Row, ...]:
    """Weights of the cubic Hermite interpolant through y0, f0, y1, f1 (order 3).

    Row i holds b_i(θ)'s coefficients of θ, θ², θ³; stage 0 is f(t0, y0) and stage ``last`` is
    f(t1, y1). Source: Hairer, Nørsett, Wanner I, II.6, Eq. (6.7).
    """
    rows = [[Fraction(0), 3 * w, -2 * w] for w in b]
    rows += [[Fraction(0)] * 3 for _ in range(last + 1 - len(b))]
    for q_, value in enumerate((1, -2, 1)):
        rows[0][q_] += value
    for q_, value in enumerate((0, -1, 1)):
        rows[last][q_] += value
    return tuple(tuple(row) for row in rows)


@dataclasses.dataclass(frozen=True)
class Tableau:
    """An explicit Runge–Kutta method.

    name: as given to ``method=``.  order: of the propagated solution.
    c, a, b: nodes, strictly lower triangular rows (row i has i entries), weights.
    b_hat, order_hat: embedded weights for the error estimate, and their order.
    b_hat_2: a second embedded solution (dop853): the two estimates are combined nonlinearly.
    dense: row i holds the coefficients of θ, θ², … in b_i(θ); empty means cubic Hermite.
    c_dense, a_dense: further stages that only the dense output needs; they follow the stage
    f(t1, y1) and are evaluated only where an output or an event lies inside a step.
    rounded: the published numbers are rounded decimals; conditions hold to 1e-14, not exactly.

    Source: Hairer, Nørsett, Wanner, Solving Ordinary Differential Equations I, II.1, II.4, II.6.
    """

    name: str
    order: int
    c: Row
    a: tuple[Row, ...]
    b: Row
    b_hat: Row | None = None
    order_hat: int | None = None
    b_hat_2: Row | None = None
    dense: tuple[Row, ...] = ()
    dense_order: int = 3
    c_dense: Row = ()
    a_dense: tuple[Row, ...] = ()
    rounded: bool = False

    def __post_init__(self) -> None:
        s = len(self.c)
        if len(self.a) != s or len(self.b) != s:
            raise ValueError(f"tableau {self.name}: {s} nodes, {len(self.a)} rows, {len(self.b)} weights")
        for weights in (self.b_hat, self.b_hat_2):
            # An embedded solution may also use f(t1, y1), the stage after the last.
            if weights is not None and len(weights) not in (s, s + 1):
                raise ValueError(f"tableau {self.name}: embedded weights have length {len(weights)}")
        if (self.b_hat is None) != (self.order_hat is None):
            raise ValueError(f"tableau {self.name}: b_hat and order_hat belong together")
        for i, (c, row) in enumerate(zip(self.c + self.c_dense, self.a + self.a_dense, strict=True)):
            length = i if i < s else i - s + self.n_stages
            if len(row) != length:
                raise ValueError(f"tableau {self.name}: row {i} has {len(row)} entries, not {length}")
            self._must_vanish(sum(row, Fraction(0)) - c, f"row {i} minus c")
        for label, weights in (("b", self.b), ("b_hat", self.b_hat), ("b_hat_2", self.b_hat_2)):
            if weights is not None:
                self._must_vanish(sum(weights, Fraction(0)) - 1, f"Σ{label} − 1")
        if self.dense and len(self.dense) != self.n_stages + len(self.c_dense):
            raise ValueError(f"tableau {self.name}: dense needs a row for each stage")
        for i, row in enumerate(self.dense):
            weight = self.b[i] if i < s else Fraction(0)
            self._must_vanish(sum(row, Fraction(0)) - weight, f"b_{i}(1) − b_{i}")

    def _must_vanish(self, value: Fraction, what: str) -> None:
        if abs(value) > (_TOLERANCE if self.rounded else 0):
            raise ValueError(f"tableau {self.name}: {what} is {float(value):.3e}, not 0")

    @property
    def fsal(self) -> bool:
        """Whether the last stage is f(t1, y1), so that it is the next step's first."""
        return self.c[-1] == 1 and self.b[-1] == 0 and self.a[-1] == self.b[:-1]

    @property
    def adaptive(self) -> bool:
        """Whether there is an embedded solution to estimate the error with."""
        return self.b_hat is not None

    @property
    def n_stages(self) -> int:
        """Stages of one attempt, f(t1, y1) included: it is the last of them, FSAL or not."""
        return len(self.c) + (0 if self.fsal else 1)

    @property
    def error_order(self) -> int:
        """Exponent's denominator in step size control: the local error is O(dt^error_order)."""
        if self.order_hat is None:
            raise ValueError(f"tableau {self.name} has no embedded solution")
        return min(self.order, self.order_hat) + 1

    @property
    def interpolant(self) -> tuple[Row, ...]:
        """One row of polynomial coefficients for each stage, f(t1, y1) and dense stages included."""
        return self.dense or hermite(self.b, self.n_stages - 1)

    @property
    def dense_needs_end(self) -> bool:
        """Whether the dense output needs f(t1, y1) or further stages (linear interpolation does not)."""
        return bool(self.c_dense) or any(w != 0 for w in self.interpolant[self.n_stages - 1])

    def with_interpolant(self, kind: str) -> Tableau:
        """The same method with "linear" or "cubic" (Hermite) interpolation between its steps."""
        if kind == "linear":
            rows = tuple((w,) for w in (*self.b, *[Fraction(0)] * (self.n_stages - len(self.b))))
            order = 1
        else:
            rows, order = hermite(self.b, self.n_stages - 1), 3
        return dataclasses.replace(self, dense=rows, dense_order=order, c_dense=(), a_dense=())

    def rows(self) -> tuple[Row, ...]:
        """All stage rows: the method's, f(t1, y1)'s (a = b) and the dense output's."""
        end = () if self.fsal else (self.b,)
        return self.a + end + self.a_dense

    def nodes(self) -> Row:
        """All nodes, in the order of `rows`."""
        return self.c + (() if self.fsal else (Fraction(1),)) + self.c_dense

    def errors(self) -> tuple[Row, ...]:
        """Weights of the error estimates (b − b̂), each padded to n_stages; one or two of them."""
        n, found = self.n_stages, []
        for b_hat in (self.b_hat, self.b_hat_2):
            if b_hat is not None:
                pad = [Fraction(0)] * n
                b, b_hat = [*self.b, *pad][:n], [*b_hat, *pad][:n]
                found.append(tuple(x - y for x, y in zip(b, b_hat, strict=True)))
        return tuple(found)

    def numeric(self, dtype: torch.dtype, device: torch.device) -> Numeric:
        """The numbers as tensors and floats of one dtype and device (cached)."""
        return _numeric(self, dtype, device)


@dataclasses.dataclass(frozen=True, eq=False)
class Numeric:
    """A tableau's numbers, converted once.

    a: [n, n] with one row a stage (`Tableau.rows`).  c: floats.  b: [n_stages].
    errors: [1 or 2, n_stages].  dense: [n, degree], b_i(θ)'s coefficients of θ, θ², …
    a_rows: (index, value) of each row's entries that are not zero; dense_rows: dense as floats.
    transposed: [m, m + 1] with m = n_stages − 1; row i holds a_ji in column j > i and b_i in column
    m: what the discrete adjoint multiplies (Ȳ_0 … Ȳ_{m−1}, λ) with.
    b_index, b_nonzero: the weights that do not vanish, for quadratures.
    """

    a: torch.Tensor
    b: torch.Tensor
    errors: torch.Tensor
    dense: torch.Tensor
    c: tuple[float, ...]
    a_rows: tuple[tuple[tuple[int, float], ...], ...]
    dense_rows: tuple[tuple[float, ...], ...]
    transposed: torch.Tensor
    b_index: tuple[int, ...]
    b_nonzero: torch.Tensor


@functools.lru_cache(maxsize=256)
def _numeric(tableau: Tableau, dtype: torch.dtype, device: torch.device) -> Numeric:
    rows, n = tableau.rows(), len(tableau.rows())

    def tensor(values: list[list[float]]) -> torch.Tensor:
        # Outside inference mode, or a later solve that needs gradients could not use the cache.
        with torch.inference_mode(False):
            return torch.tensor(values, dtype=torch.float64).to(device=device, dtype=dtype)

    def nonzero(row: Row) -> tuple[tuple[int, float], ...]:
        return tuple((j, float(w)) for j, w in enumerate(row) if w != 0)

    b = [float(w) for w in tableau.b] + [0.0] * (tableau.n_stages - len(tableau.b))
    dense = [[float(w) for w in row] for row in tableau.interpolant]
    m = tableau.n_stages - 1
    transposed = [[float(rows[j][i]) if j > i else 0.0 for j in range(m)] + [b[i]] for i in range(m)]
    return Numeric(
        a=tensor([[float(w) for w in row] + [0.0] * (n - len(row)) for row in rows]),
        b=tensor([b])[0],
        errors=tensor([[float(w) for w in row] for row in tableau.errors()]),
        dense=tensor(dense),
        c=tuple(float(c) for c in tableau.nodes()),
        a_rows=tuple(nonzero(row) for row in rows),
        dense_rows=tuple(tuple(row) for row in dense),
        transposed=tensor(transposed),
        b_index=tuple(i for i, w in enumerate(b) if w != 0),
        b_nonzero=tensor([[w for w in b if w != 0]])[0],
    )
