"""The equation that the continuous adjoints solve backwards: of the state, or a stand-in for it, and a.

    d/dt (z, a) = (F, −(∂F/∂z)ᵀa) at z(t),    dL/dθ = ∫_{t0}^{tn} (∂F/∂θ)ᵀa dt

Backsolve rebuilds z with a. The stored z(t_i) is put back at every observation, which confines the drift to
one interval, and the distance is recorded as the reconstruction error. The interpolating adjoint takes
z(t) from the accepted steps' interpolant, and carries a q with q' = F beside a. q serves the step sizes
alone: a may be constant where F, and with it ∂F/∂θ, varies (y' = c (1 + sin 20t)), and steps that a alone is
content with would leave dL/dθ, a quadrature on them, without any control. F is evaluated anyway.

Sources: R. T. Q. Chen et al., Neural ordinary differential equations, NeurIPS 2018, App. B (backsolve);
Y. Ma et al., A comparison of automatic differentiation and continuous sensitivity analysis for derivatives
of differential equation solutions, HPEC 2021 (there "interpolating adjoint").
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...solvers.errors import ReconstructionError, SolverError, solver_error
from ..dynamics.protocol import Dynamics, named_blocks
from ..dynamics.traced import Calls, ModuleCalls
from .stepping import Observations, Stepping

WAY_OUT = (
    "adamode.solve(..., gradient=adamode.Discrete()), or Interpolating(), takes the state from the forward "
    "pass and does not rebuild it."
)


@dataclasses.dataclass(eq=False)
class Carrier(abc.ABC):
    """The reverse field, of (t, pair). The pair, [2, *z], is the state, or a stand-in for it, and a.

    dynamics: F with its VJP.
    seen: the observations, whose stored states the pair begins with.
    stepping: of both solves, with the stats that count evaluations.
    """

    whose: ClassVar[str]
    dynamics: Dynamics
    seen: Observations
    stepping: Stepping[Any, Any]

    @abc.abstractmethod
    def state(self, t: Tensor, pair: Tensor) -> Tensor:
        """z at t, as f wants it."""

    @abc.abstractmethod
    def known(self, error: SolverError, i: int) -> list[str]:
        """Sentences about a failure on the way to observation i, the last of them the way out."""

    def prepare(self, times: Sequence[float]) -> None:  # noqa: B027  (most need no times)
        """Times of the next calls, in order, from a stepper that has them as floats."""

    def __call__(self, t: Tensor, pair: Tensor) -> tuple[Tensor, tuple[Any, Any]]:
        """(F, −(∂F/∂z)ᵀa), and what the quadrature needs."""
        self.stepping.stats.nfe_backward += 1
        dz, saved = self.dynamics.forward(t, self.state(t, pair))
        z_bar, deltas = self.dynamics.vjp(saved, pair[1])
        return torch.stack((dz, z_bar.neg())), (saved, deltas)

    def start(self, i: int, a: Tensor) -> Tensor:
        """The pair at observation i, the stored state put back."""
        return torch.stack((self.seen.values[i], a))

    def rebuilt(self, pair: Tensor) -> Tensor | None:
        """z in the pair, where it is solved backwards."""
        return None

    def landed(self, i: int, pair: Tensor, moved: bool | Tensor) -> None:  # noqa: B027
        """Called when the clocks that moved have reached observation i."""

    def explained(self, error: SolverError, i: int) -> SolverError:
        """A failure on the way to observation i, said to be the reverse solve's."""
        said = (f"This is the reverse solve of {self.whose}.", error.detail, *self.known(error, i))
        detail = " ".join(sentence for sentence in said if sentence)
        return solver_error(error.t, error.dt, error.status, error.stats, detail)


@dataclasses.dataclass(eq=False)
class Rebuilt(Carrier):
    """[z, a]: backsolve."""

    whose = "backsolve, which rebuilds the state backwards"

    distances: list[tuple[int, Tensor]] = dataclasses.field(init=False, default_factory=list)

    def state(self, t: Tensor, pair: Tensor) -> Tensor:
        """The state that the pair holds."""
        return pair[0]

    def rebuilt(self, pair: Tensor) -> Tensor | None:
        """The state that the pair holds."""
        return pair[0]

    def landed(self, i: int, pair: Tensor, moved: bool | Tensor) -> None:
        """Notes how far the rebuilt state is from the stored one."""
        off = self.stepping.distance(pair[0], self.seen.values[i])
        self.distances.append((i, torch.where(moved, off, 0.0) if isinstance(moved, Tensor) else off))

    def judge(self, limit: float) -> ReconstructionError | None:
        """Compares the reconstruction error with its limit; one host read a backward pass."""
        if not self.distances:
            return None
        distances = torch.stack([off for _, off in self.distances]).double()
        found, where = torch.stack(distances.reshape(-1).max(0)).tolist()  # host read; NaN is the largest
        self.stepping.stats.reconstruction_error = found
        if found <= limit:
            return None
        row, sample = divmod(int(where), distances[0].numel())
        time = torch.as_tensor(
            self.seen.times[self.distances[row][0]], dtype=torch.float64, device=distances.device
        ).reshape(-1)[sample]
        whose = f" of sample {sample}" if distances.dim() > 1 else ""
        return ReconstructionError(
            f"backsolve: solved backwards to t={float(time):.6g}, the state{whose} is {found:.3g} tolerances "
            f"(RMS) from the stored one; the limit is {limit:g}. The gradient cannot be trusted there. "
            f"{WAY_OUT} Or solve with a tighter tolerance, or raise reconstruction_limit."
        )

    def known(self, error: SolverError, i: int) -> list[str]:
        """Which block and sample, and how far off the rebuilt state was."""
        said = []
        if error.where is not None:
            half, index = "state" if error.where[0] == 0 else "adjoint", error.where[1:]
            said.append(f"First not finite: {position(index, self.dynamics)} of the {half}.")
        forward = None
        if error.state is not None:
            z, time = self.seen.values[i], self.seen.times[i]
            forward = self.stepping.forward_to(self.dynamics, z, time, error.t)
        if forward is not None:
            off = float(self.stepping.distance(error.state[0], forward))  # host read
            said.append(f"The rebuilt state was {off:.3g} tolerances (RMS) from the forward one there.")
        return [*said, WAY_OUT]


@dataclasses.dataclass(eq=False)
class Interpolated(Carrier):
    """[q, a], q begun at the stored state, so that its tolerance is the state's.

    past: the forward solution as a function of time.
    """

    whose = "the interpolating adjoint"

    past: Callable[[Any], Tensor]
    times: list[float] = dataclasses.field(init=False, default_factory=list)

    def prepare(self, times: Sequence[float]) -> None:
        """Keeps the times at which the forward solution is asked for: none is read from the device."""
        self.times = list(times)

    def state(self, t: Tensor, pair: Tensor) -> Tensor:
        """The forward solution at t."""
        return self.past(self.times.pop(0) if self.times else t)

    def known(self, error: SolverError, i: int) -> list[str]:
        """The way out."""
        return ["adamode.solve(..., gradient=adamode.Discrete()) has no reverse solve that could fail."]


@dataclasses.dataclass(frozen=True)
class Augmented:
    """`Rebuilt`, or `Interpolated`, as a function of the owner of a compiled program, to be traced.

    past: the forward solution as a function of time, where the state is not the pair's own.
    """

    calls: Calls
    past: Callable[[Tensor], Tensor] | None = None

    def evaluate(self, owner: Any, t: Tensor, pair: Tensor) -> tuple[Tensor, Any]:
        """Its value and (what f saved where the quadrature wants it, deltas)."""
        dz, saved = self.calls.linearise(owner, t, pair[0] if self.past is None else self.past(t))
        z_bar, deltas = self.calls.vjp(owner, saved, pair[1])
        if isinstance(self.calls, ModuleCalls):
            saved = None
        return torch.stack((dz, z_bar.neg())), (saved, deltas)


def position(index: tuple[int, ...], dynamics: Dynamics) -> str:
    """An index into a state in words: block and sample where the dynamics names its blocks."""
    blocks = named_blocks(getattr(dynamics, "inner", dynamics))
    if len(index) >= 2 and index[0] < len(blocks):
        return f"block {blocks[index[0]]}, sample {index[1]}, entry {index[2:]}"
    return f"entry {index}"
