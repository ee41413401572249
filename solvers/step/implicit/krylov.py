"""The systems (I − h J) x = b by GMRES: J enters by its products alone, and no matrix is made.

Every sample has a Krylov space of its own; one product serves all of them, J being block diagonal. Unknowns
are measured in the step's tolerances, so that what is left of b is as well. u, with u₀ = 1 and uᵀH̄ = 0, gives
the residual of the least-squares problem before it is solved: ‖b − A x_j‖ = ‖b‖/‖u‖.

Sources: Y. Saad, M. H. Schultz, GMRES: a generalized minimal residual algorithm, SIAM J. Sci. Stat. Comput.
7 (1986) 856–869; E. H. Ayachour, A fast implementation for GMRES method, J. Comput. Appl. Math. 159 (2003)
269–283; P. N. Brown, A. C. Hindmarsh, Reduced storage matrix methods in stiff ODE systems, Appl. Math.
Comput. 31 (1989) 40–91 (the tolerance).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import DynamicsError, first_line
from ..clocks import Clocks
from ..runge_kutta import Evaluation, Field, Stages, StepResult
from .esdirk import ImplicitSteps
from .jacobian import Jacobian, Plain, load_rules
from .samples import Samples

RESTART = 30  # vectors of a state's size that are kept
CYCLES = 40  # restarts at most
STALLED = 0.9  # a cycle that leaves more of the residual than so is the last
FORCING = 1e-3  # what a correction may leave of its right-hand side: as a good Jacobian does
BELOW = 0.1  # … or less than so much of what Newton may leave
LOST = 0.1  # a solution that leaves more is none; √eps times so much of a transposed system
ROUNDING = 1e2  # in units of eps: what a transposed system may leave
Product = Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class Reduced:
    """x, [b, n]; left: ‖b − A x‖, [b]; products: how many each sample took part in."""

    x: Tensor
    left: Tensor
    products: Tensor


def gmres(apply: Product, b: Tensor, target: Tensor) -> Reduced:
    """A x = b of every row, until ‖b − A x‖ ≤ target or no restart helps any more. A host read a product.

    apply: rows [b, n] → A of them.
    b: [b, n].
    target: [b].
    """
    x, left = torch.zeros_like(b), torch.linalg.vector_norm(b, dim=1)
    products, residual, going = torch.zeros_like(left, dtype=torch.int64), b, left > target
    for cycle in range(CYCLES):
        if not bool(going.any()):  # host read
            break
        if cycle:
            residual = b - apply(x)
            products = products + going
        before = torch.linalg.vector_norm(residual, dim=1)
        made = _cycle(apply, residual, target, going)
        x, products = x + made.x, products + made.products
        left = torch.where(going, made.left, left)
        going = going & (left > target) & (left <= STALLED * before)
    return Reduced(x, left, products)


def _cycle(apply: Product, b: Tensor, target: Tensor, going: Tensor) -> Reduced:
    """The best x of a Krylov space of RESTART dimensions, or of fewer where that is enough."""
    rows, n = b.shape
    most = min(RESTART, n)
    size = torch.linalg.vector_norm(b, dim=1)
    v, h, u = (
        b.new_zeros((most + 1, rows, n)),
        b.new_zeros((rows, most + 1, most)),
        b.new_zeros((rows, most + 1)),
    )
    u[:, 0], products, left, on = 1.0, torch.zeros_like(going, dtype=torch.int64), size, going & (size > 0)
    v[0] = torch.where(on[:, None], b / size[:, None], 0.0)
    for j in range(most):
        products = products + on
        w, known = apply(v[j]), v[: j + 1]
        for _ in range(2):  # classical Gram–Schmidt, twice: as orthogonal as rounding allows
            part = torch.einsum("jrn,rn->rj", known, w)
            w = w - torch.einsum("jrn,rj->rn", known, part)
            h[:, : j + 1, j] += part
        length = torch.linalg.vector_norm(w, dim=1)
        h[:, j + 1, j] = torch.where(
            on, length, 1.0
        )  # the column of a sample that is through asks for nothing
        u[:, j + 1] = torch.where(on, -(u[:, : j + 1] * h[:, : j + 1, j]).sum(1) / length, 0.0)
        left = torch.where(on, size / torch.linalg.vector_norm(u, dim=1), left)
        on = on & (left > target)
        v[j + 1] = torch.where(on[:, None], w / length[:, None], 0.0)
        if not bool(on.any()):  # host read
            break
    q, r = torch.linalg.qr(h[:, : j + 2, : j + 1])
    y = torch.linalg.solve_triangular(r, (q[:, 0] * size[:, None])[..., None], upper=True)[..., 0]
    x = torch.einsum("jrn,rj->rn", v[: j + 1], y)
    return Reduced(torch.where(going[:, None], x, 0.0), left, products)


class Products(Jacobian):
    """∂f/∂z by its products with states, in forward mode: nothing of the size n × n.

    independent: whether the samples along the axis are known not to depend on each other.
    """

    free = True

    def __init__(self, f: Plain, clocks: Clocks, batch: int | None, *, independent: bool = False):
        super().__init__(f, clocks, batch)
        self.known = self.known or independent

    @property
    def calls_f(self) -> bool:
        """No evaluation is one of a matrix."""
        return False

    def find_samples(self, t: Tensor, z: Tensor) -> None:
        """Which entries depend on which, where that is not known."""
        if not self.known:
            self.along(t, z, torch.zeros_like(z))  # says what is wrong with f
            self.samples = self.samples if self._independent(t, z) else Samples(None)
        self.known = True

    def along(self, t: Tensor, z: Tensor, v: Tensor) -> Tensor:
        """(∂f/∂z) v.  Raises DynamicsError where f cannot be differentiated in forward mode."""
        load_rules()
        try:
            found: Tensor = torch.func.jvp(lambda x: self.f(t, x), (z.contiguous(),), (v.contiguous(),))[1]
        except (NotImplementedError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            self.f(t, z)  # an error of f's own comes out of this
            raise DynamicsError(
                f"linear_solver='gmres' takes derivatives of func in forward mode, which failed "
                f"({first_line(error, 160)}): give its autograd functions a jvp, or choose "
                "linear_solver='lu'."
            ) from error
        return found.to(z.dtype)


class Krylov:
    """(I − h J)⁻¹ of states by GMRES, J at (t, z).

    at: (t, z).
    rate: h, 0-d or [b]; where it is 0 the system is the identity.
    unit: like the state, in what unknowns are measured.
    enough: 0-d or [b], what may be left in any case, the RMS of a sample's entries in units.
    count: told of each product.
    calls: products of the last solution, of each sample, or at most where all have one clock.
    """

    def __init__(
        self,
        jacobian: Products,
        at: tuple[Tensor, Tensor],
        rate: Tensor,
        unit: Tensor,
        enough: Tensor,
        count: Callable[[], None],
    ):
        self.jacobian, self.at, self.rate, self.enough, self.count = jacobian, at, rate, enough, count
        jacobian.find_samples(*at)
        self.unit = jacobian.samples.rows(unit)
        self.calls: Any = 0

    def solve(self, b: Tensor) -> Tensor:
        """(I − h J)⁻¹ b; NaN for a sample whose iteration stalls."""
        samples, h = self.jacobian.samples, self.rate.reshape(-1, 1)

        def apply(v: Tensor) -> Tensor:
            self.count()
            moved = samples.rows(self.jacobian.along(*self.at, samples.state(self.unit * v, b)))
            return v - torch.where(h == 0, 0.0, h * moved / self.unit)

        scaled = samples.rows(b) / self.unit
        size = torch.linalg.vector_norm(scaled, dim=1)
        target = torch.maximum(self.enough * scaled.shape[1] ** 0.5, FORCING * size)
        found = gmres(apply, scaled, target)
        solved = (found.left <= LOST * size) | (found.left <= target)
        self.calls = found.products.amax() if self.rate.dim() == 0 else found.products
        return samples.state(self.unit * torch.where(solved[:, None], found.x, torch.nan), b)


class KrylovSteps(ImplicitSteps):
    """Implicit steps whose systems are solved by products with J at the step's start; nothing is kept."""

    jacobian: Products

    def accepted(self, which: Tensor) -> None:
        """No Jacobian grows old."""

    def restarted(self, which: Tensor) -> None:
        """No Jacobian grows old."""

    def select(self, keep: Tensor) -> None:
        """Samples leave the batch; keep holds the positions of those that stay."""
        self.newton.select(keep)

    def __call__(
        self, field: Field, y: Tensor, first: Evaluation, times: Sequence[Tensor], stages: Stages
    ) -> StepResult:
        """One attempt from y, as of `ImplicitSteps`."""
        self.unit = self.measure.tolerance.scale(y.detach()).expand_as(y)
        return super().__call__(field, y, first, times, stages)

    def _renewed(self, t: Tensor, y: Tensor, span: Tensor) -> Tensor:
        return torch.zeros_like(span, dtype=torch.bool)

    def _system(self, t: Tensor, y: Tensor, rate: Tensor) -> Krylov:
        kappa = self.measure.kappa(self.unit)
        enough = BELOW * kappa / rate.abs().clamp(min=torch.finfo(y.dtype).tiny)
        count = functools.partial(self.count, 0, 1)
        return Krylov(self.jacobian, (t, y.detach()), rate, self.unit, enough, count)

    _anew = _system

    def _fastest(self, scale: Tensor) -> None:
        """There is no matrix."""


def solve_transposed(through: Product, samples: Samples, length: Tensor, b: Tensor) -> Tensor:
    """w − length Jᵀ w = b, as near to rounding as the iteration comes.

    through: w → Jᵀ w.
    length: as it broadcasts against the state.
    Raises DynamicsError where the iteration stalls.
    """

    def apply(rows: Tensor) -> Tensor:
        w = samples.state(rows, b)
        return samples.rows(w - torch.where(length == 0, 0.0, length * through(w)))

    rows = samples.rows(b)
    size = torch.linalg.vector_norm(rows, dim=1)
    eps = torch.finfo(b.dtype).eps
    found = gmres(apply, rows, ROUNDING * eps * size)
    known = torch.isfinite(size) & (size > 0)
    worst = float(torch.where(known, found.left / size, 0.0).amax())  # host read
    if not worst <= LOST * eps**0.5:
        raise DynamicsError(
            f"the transposed equations of a step: GMRES stalled with {worst:.2g} of the cotangent left, "
            f"after {int(found.products.amax())} products. Choose linear_solver='lu', or tighter rtol/atol: "
            "the shorter a step, the fewer products."
        )
    return samples.state(found.x, b)
