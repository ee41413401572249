"""Butcher tableaus: exact numbers, checked when made, with derived properties.

A tableau is written in exact fractions and converted to a dtype once, in `numeric`. Every flag
(FSAL, which weights vanish) is derived from the numbers and never typed by hand.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:  # names of methods are known without torch
    import torch
    from torch import Tensor

Row = tuple[Fraction, ...]
Number = TypeVar("Number", float, "Tensor")
_TOLERANCE = Fraction(1, 10**15)  # for tableaus whose published numbers are rounded


def q(text: str) -> Row:
    """Reads a row of exact fractions or decimals: ``q("0 1/5 -44/45 0.161")``."""
    return tuple(Fraction(word) for word in text.split())


def padded(row: Row, n: int) -> Row:
    """The row with zeros behind it, n entries."""
    return (*row, *[Fraction(0)] * (n - len(row)))


def join_smoothly(low: tuple[Row, ...], b: Row, last: int) -> tuple[Row, ...]:
    """Completes an interpolant so that values and slopes agree with the step's at both ends.

    low: for each stage (dense stages included) the coefficients of θ, …, θ^(d−2) in b_i(θ).
    Those of θ^(d−1) and θ^d follow from b_i(1) = b_i and b_i'(1) = 1 for stage ``last``, which is
    f(t1, y1), and 0 for the others. Returns d coefficients a stage.
    """
    n, rows = len(low[0]) + 1, []
    for i, (row, weight) in enumerate(zip(low, padded(b, len(low)), strict=True)):
        value = weight - sum(row, Fraction(0))
        slope = int(i == last) - sum((k * w for k, w in enumerate(row, 1)), Fraction(0))
        rows.append((*row, (n + 1) * value - slope, slope - n * value))
    return tuple(rows)


def hermite(b: Row, last: int) -> tuple[Row, ...]:
    """Weights of the cubic Hermite interpolant through y0, f0, y1, f1 (order 3 if b's is).

    Row i holds b_i(θ)'s coefficients of θ, θ², θ³; stage 0 is f(t0, y0) and stage ``last`` is
    f(t1, y1). Source: Hairer, Nørsett, Wanner I, II.6, Eq. (6.7).
    """
    return join_smoothly(tuple((Fraction(int(i == 0)),) for i in range(last + 1)), b, last)


@dataclasses.dataclass(frozen=True)
class Tableau:
    """A Runge–Kutta method: explicit, or with implicit stages that follow one another or are coupled; or a
    Rosenbrock method, which has rows of gamma besides (`methods.rosenbrock`).

    name: as given to ``method=``.
    order: of the propagated solution.
    c, a, b: nodes, lower triangular rows, weights. Row i has i entries; i + 1 where the stage is implicit,
        the last the diagonal's; as many as there are stages where it is coupled with later ones.
    b_hat, order_hat: embedded weights for the error estimate, and their order.
    b_hat_2, order_hat_2: a second, coarser embedded solution (dop853); the two estimates e and e₂ are
        combined to |e|²/√(|e|² + 0.01|e₂|²).
    dense, dense_order: row i holds the coefficients of θ, θ², … in b_i(θ), for each stage of
    `rows`; empty means cubic Hermite, whose order min(3, order) is filled in.
    c_dense, a_dense: further stages that only the dense output needs; they follow the stage f(t1, y1) and are
        evaluated only where an output or an event lies inside a step.
    rounded: the published numbers are rounded; the conditions hold to 1e-15, not exactly.
    beyond: a node lies past the step's end, so that f is evaluated there.
    gamma: of a Rosenbrock method, for each stage the weights of dt J k_j, its own last; none for the first.
    between: of a method that changes between two, the explicit and the implicit one; all numbers are those of
        the explicit one.
    leapfrog: the first stage is a velocity that steps carry along, and the last one the velocity at the end,
        neither an evaluation of f (`methods.alf`).

    Raises ValueError where the numbers contradict each other. The order conditions themselves are
    tested, not checked here: they cost up to half a second at order 8.
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
    order_hat_2: int | None = None
    dense: tuple[Row, ...] = ()
    dense_order: int = 0
    c_dense: Row = ()
    a_dense: tuple[Row, ...] = ()
    rounded: bool = False
    beyond: bool = False
    gamma: tuple[Row, ...] = ()
    between: tuple[Tableau, ...] = ()
    leapfrog: bool = False

    def __post_init__(self) -> None:
        self._check_shapes()
        self._check_sums()
        if self.dense:
            self._check_dense()
        else:
            alone = self.dense_order <= 3 and not self.c_dense
            self._must(alone, "c_dense and a dense_order above 3 mean nothing without the rows of dense")
            object.__setattr__(self, "dense_order", min(3, self.order))
        # Asked for once, here: what traces a program does not know the lock around a cached property.
        _ = (
            self.fsal,
            self.implicit,
            self.coupled,
            self.n_stages,
            self.wants_jacobian,
            self.dense_needs_end,
            self.adaptive and self.error_order,
        )

    def _check_shapes(self) -> None:
        s, k, rows = len(self.c), len(self.c_dense), len(self.a)
        fits = 0 < s == rows == len(self.b) and len(self.a_dense) == k
        self._must(fits, f"{s}+{k} nodes, {rows}+{len(self.a_dense)} rows, {len(self.b)} weights")
        for i, row in enumerate(self.a + self.a_dense):
            length = i if i < s else i - s + self.n_stages
            solved = 0 < i < s and len(row) > length and row[-1] != 0
            own = length + solved  # with the diagonal's
            if solved and len(row) == s:  # coupled with those that follow
                own = s
            self._must(len(row) == own, f"row {i} has {len(row)} entries, not {length}")
        for i, row in enumerate(self.gamma):
            own = i + 1 if i else 0
            fits = len(row) == own and len(self.gamma) == s and row[-1:] == self.gamma[-1][-1:] * (i > 0)
            self._must(fits, f"row {i} of gamma has {len(row)} entries, not {own}, or a diagonal of its own")
        for b_hat in (self.b_hat, self.b_hat_2):
            # An embedded solution may also use f(t1, y1), the last stage.
            n = s if b_hat is None else len(b_hat)
            fits = n in (s, self.n_stages)
            self._must(fits, f"embedded weights have length {n}, not {s} or {self.n_stages}")
        second = self.b_hat_2 is not None
        paired = (self.b_hat is None) == (self.order_hat is None)
        self._must(paired, "b_hat and order_hat belong together")
        paired = second == (self.order_hat_2 is not None) and (self.b_hat is not None or not second)
        self._must(paired, "b_hat_2 and order_hat_2 belong together, and need b_hat")

    def _check_sums(self) -> None:
        for i, (c, row) in enumerate(zip(self.c + self.c_dense, self.a + self.a_dense, strict=True)):
            self._must_vanish(sum(row, Fraction(0)) - c, f"row {i} minus c")
            # Dynamics may not be defined outside the step: f is not evaluated there but where that is said.
            self._must(c >= 0 and (c <= 1 or self.beyond), f"node {i} is {float(c):g}, outside [0, 1]")
        for label, weights in (("b", self.b), ("b_hat", self.b_hat), ("b_hat_2", self.b_hat_2)):
            if weights is not None:
                self._must_vanish(sum(weights, Fraction(0)) - 1, f"Σ{label} − 1")

    def _check_dense(self) -> None:
        n, degree, order = len(self.dense), len(self.dense[0]), self.dense_order
        self._must(n == self.n_stages + len(self.c_dense), f"dense has {n} rows, not one for each stage")
        self._must({len(row) for row in self.dense} == {degree}, "the rows of dense differ in length")
        self._must(1 <= order <= degree, f"dense_order is {order}, the degree {degree}")
        for i, (row, weight) in enumerate(zip(self.dense, padded(self.b, n), strict=True)):
            self._must_vanish(sum(row, Fraction(0)) - weight, f"b_{i}(1) − b_{i}")
        for k, column in enumerate(zip(*self.dense, strict=True)):
            self._must_vanish(sum(column, Fraction(0)) - (k == 0), f"θ^{k + 1} in Σ b_i(θ) − θ")

    def _must_vanish(self, value: Fraction, what: str) -> None:
        self._must(abs(value) <= (_TOLERANCE if self.rounded else 0), f"{what} is {float(value):.3e}, not 0")

    def _must(self, fine: bool, what: str) -> None:
        if not fine:
            raise ValueError(f"tableau {self.name}: {what}")

    def __hash__(self) -> int:
        # Equal tableaus have equal names; hashing all fractions took 0.07 ms (dopri5) to 0.6 ms (dop853)
        # at each `numeric`.
        return hash((self.name, self.order))

    @functools.cached_property
    def fsal(self) -> bool:
        """Whether the last stage is f(t1, y1), so that it is the next step's first."""
        return self.c[-1] == 1 and padded(self.a[-1], len(self.b)) == self.b

    @functools.cached_property
    def implicit(self) -> bool:
        """Whether a stage is on its own right side, so that it must be solved for."""
        return bool(self.gamma) or any(len(row) > i for i, row in enumerate(self.a))

    @functools.cached_property
    def coupled(self) -> bool:
        """Whether implicit stages depend on later ones, so that they are solved for together."""
        return any(len(row) > i + 1 for i, row in enumerate(self.a))

    @property
    def parts(self) -> tuple[Tableau, ...]:
        """The methods that take its steps."""
        return self.between or (self,)

    @functools.cached_property
    def wants_jacobian(self) -> bool:
        """Whether steps are solved for, all of them or those of the implicit one of two."""
        return self.implicit or any(part.implicit for part in self.between)

    @property
    def by_stages(self) -> bool:
        """Whether steps are those of `step.runge_kutta.rk_step`."""
        return not (self.wants_jacobian or self.leapfrog)

    @property
    def adaptive(self) -> bool:
        """Whether there is an embedded solution to estimate the error with."""
        return self.b_hat is not None

    @functools.cached_property
    def n_stages(self) -> int:
        """Stages of one attempt, f(t1, y1) included: it is the last of them, FSAL or not."""
        return len(self.c) + (0 if self.fsal else 1)

    @functools.cached_property
    def error_order(self) -> int:
        """Exponent's denominator in step size control: the estimate is O(dt^error_order)."""
        self._must(self.adaptive, "has no embedded solution")
        assert self.order_hat is not None
        order = min(self.order, self.order_hat) + 1
        if self.order_hat_2 is None:
            return order
        return 2 * order - min(self.order, self.order_hat_2) - 1  # of |e|²/√(|e|² + 0.01|e₂|²)

    @functools.cached_property
    def interpolant(self) -> tuple[Row, ...]:
        """One row of polynomial coefficients for each stage, f(t1, y1) and dense stages included."""
        return self.dense or hermite(self.b, self.n_stages - 1)

    @functools.cached_property
    def dense_needs_end(self) -> bool:
        """Whether the dense output needs f(t1, y1) or further stages (linear interpolation does not)."""
        return bool(self.c_dense) or any(w != 0 for w in self.interpolant[self.n_stages - 1])

    @functools.lru_cache(maxsize=64)  # noqa: B019  (tableaus are few and live as long as the program)
    def with_interpolant(self, kind: str) -> Tableau:
        """The same method with "linear" or "cubic" (Hermite) interpolation between its steps."""
        rows: tuple[Row, ...] = ()
        if kind == "linear":
            rows = tuple((w,) for w in padded(self.b, self.n_stages))
        order = 1 if kind == "linear" else 0  # 0: filled in for Hermite's
        return dataclasses.replace(self, dense=rows, dense_order=order, c_dense=(), a_dense=())

    @functools.cached_property
    def beta(self) -> tuple[Row, ...]:
        """Rows of all that a linear f sees: a, and gamma on it."""
        if not self.gamma:
            return self.a
        pairs = zip(self.a, self.gamma, strict=True)
        return tuple(tuple(x + y for x, y in zip(padded(a, len(g)), g, strict=True)) for a, g in pairs)

    def rows(self) -> tuple[Row, ...]:
        """All stage rows: the method's, f(t1, y1)'s (a = b) and the dense output's."""
        end = () if self.fsal else (self.b,)
        return self.a + end + self.a_dense

    def nodes(self) -> Row:
        """All nodes, in the order of `rows`."""
        return self.c + (() if self.fsal else (Fraction(1),)) + self.c_dense

    def errors(self) -> tuple[Row, ...]:
        """Weights of the error estimates (b − b̂), each padded to n_stages; one or two of them."""
        n = self.n_stages
        pairs = [zip(padded(self.b, n), padded(w, n), strict=True) for w in (self.b_hat, self.b_hat_2) if w]
        return tuple(tuple(x - y for x, y in pair) for pair in pairs)

    @functools.lru_cache(maxsize=256)  # noqa: B019  (as `with_interpolant`)
    def numeric(self, dtype: torch.dtype, device: torch.device) -> Numeric:
        """The numbers as tensors and floats of one dtype and device (cached)."""
        import torch

        # Outside inference mode and the levels of torch.func, or a later solve could not use the cache.
        with torch.inference_mode(False), torch._C._DisableFuncTorch():
            return _converted(self, dtype, device)


@dataclasses.dataclass(frozen=True, eq=False)
class Numeric:
    """A tableau's numbers, converted once.

    a: [n, n] with one row a stage (`Tableau.rows`).
    c: floats.
    b: [n_stages].
    errors: [0, 1 or 2, n_stages].
    dense: [n, degree], b_i(θ)'s coefficients of θ, θ², …
    a_rows, error_rows: (index, value) of each row's nonzero entries, those of a before the diagonal.
    diagonal: a_ii of each stage; 0: it is explicit.
    dense_rows, slope_rows: the coefficients of 1, θ, θ², … in b_i(θ) and b_i'(θ), as floats: to read them
        from a tensor would wait for the device.
    b_index, b_nonzero: the weights that do not vanish, for quadratures.
    a_vectors: the rows of a up to the diagonal, as views.
    back_vectors: for each stage i before the last, m = n_stages − 1, a_ji for j = i + 1 … m − 1 and b_i: what
        the discrete adjoint multiplies (Ȳ_{i+1} … Ȳ_{m−1}, λ) with.
    unseen: the stages that the first error estimate gives no weight.
    """

    a: torch.Tensor
    b: torch.Tensor
    errors: torch.Tensor
    dense: torch.Tensor
    c: tuple[float, ...]
    a_rows: tuple[tuple[tuple[int, float], ...], ...]
    error_rows: tuple[tuple[tuple[int, float], ...], ...]
    dense_rows: tuple[tuple[float, ...], ...]
    slope_rows: tuple[tuple[float, ...], ...]
    b_index: tuple[int, ...]
    b_nonzero: torch.Tensor
    a_vectors: tuple[torch.Tensor, ...]
    back_vectors: tuple[torch.Tensor, ...]
    unseen: tuple[int, ...]
    diagonal: tuple[float, ...]

    @functools.cached_property
    def in_turn(self) -> bool:
        """Whether every row of a weighs the stage before it alone (Euler, midpoint), so that a step needs no
        stage after the next evaluation."""
        return all([j for j, _ in row] == [i - 1] for i, row in enumerate(self.a_rows) if i > 0)


def _converted(tableau: Tableau, dtype: torch.dtype, device: torch.device) -> Numeric:
    import torch

    rows, n = tableau.rows(), len(tableau.rows())

    def tensor(values: list[list[float]]) -> torch.Tensor:
        exact = torch.tensor(values, dtype=torch.float64, device="cpu")
        return exact.to(device=device, dtype=dtype, non_blocking=True)

    def nonzero(row: Row) -> tuple[tuple[int, float], ...]:
        return tuple((j, float(w)) for j, w in enumerate(row) if w != 0)

    b = [float(w) for w in padded(tableau.b, tableau.n_stages)]
    dense = [[float(w) for w in row] for row in tableau.interpolant]
    m = tableau.n_stages - 1
    a_table = tensor([[float(w) for w in padded(row, n)] for row in rows])
    transposed = [[float(rows[j][i]) if j > i else 0.0 for j in range(m)] + [b[i]] for i in range(m)]
    table = tensor(transposed)
    seen = {j for j, w in enumerate(tableau.errors()[0]) if w != 0} if tableau.errors() else set()
    return Numeric(
        a=a_table,
        b=tensor([b])[0],
        errors=tensor([[float(w) for w in row] for row in tableau.errors()]).reshape(-1, len(b)),
        dense=tensor(dense),
        c=tuple(float(c) for c in tableau.nodes()),
        a_rows=tuple(nonzero(row[:i]) for i, row in enumerate(rows)),
        error_rows=tuple(nonzero(row) for row in tableau.errors()),
        dense_rows=tuple((0.0, *row) for row in dense),
        slope_rows=tuple(tuple(k * w for k, w in enumerate(row, 1)) for row in dense),
        b_index=tuple(i for i, w in enumerate(b) if w != 0),
        b_nonzero=tensor([[w for w in b if w != 0]])[0],
        a_vectors=tuple(a_table[i, :i] for i in range(n)),
        back_vectors=tuple(table[i, i + 1 :] for i in range(m)),
        unseen=tuple(i for i in range(tableau.n_stages) if i not in seen),
        diagonal=tuple(float(row[i]) if len(row) > i else 0.0 for i, row in enumerate(rows)),
    )


def polynomial(coefficients: Sequence[float], x: Number) -> Number:
    """c_0 + c_1 x + c_2 x² + …, by Horner's rule."""
    value = 0.0 * x
    for coefficient in reversed(coefficients):
        value = value * x + coefficient
    return value


def weights(numeric: Numeric, theta: float) -> list[float]:
    """b_i(θ) for every stage."""
    return [polynomial(row, theta) for row in numeric.dense_rows]


def derivative_weights(numeric: Numeric, theta: float) -> list[float]:
    """b_i'(θ) for every stage."""
    return [polynomial(row, theta) for row in numeric.slope_rows]


def theta_weights(numeric: Numeric, theta: Tensor, *, derivative: bool = False) -> Tensor:
    """b_i(θ), or b_i'(θ), for every stage, [n, *theta.shape].

    By Horner's rule, entry by entry: powers and products of matrices round by the place that a θ has among
    others, which dop853's large coefficients make 1e-13.
    """
    flat, columns = theta.reshape(1, -1), numeric.dense.double()[:, :, None].unbind(1)
    total: Tensor = (columns[0] * flat).new_zeros(())
    for power in range(len(columns), 0, -1):
        column = columns[power - 1]
        total = (power * column if derivative else column).addcmul(total, flat)
    return (total if derivative else total * flat).view(-1, *theta.shape)
