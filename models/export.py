"""A model with a fixed number of equal steps in place of its adaptive solve: what `torch.export` can trace.

An adaptive solve decides its steps from the values it sees, so it has no graph of its own. The same
method with N equal steps has one, and it does not grow with N: the steps are a loop inside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..solvers.errors import ArgumentError, ArgumentTypeError
from ..solvers.methods import get_method
from ..solvers.methods.tableau import Tableau
from ..solvers.step.clocks import times_between
from .block import Block, _with_part, padded, stacked
from .checks import check_sizes
from .density_model import DensityModel
from .fields.by_autograd import AutogradField
from .series import SeriesModel
from .trajectory import TrajectoryModel


class FixedSteps(nn.Module):
    """z(t1) from z(t0) by n equal steps of an explicit Runge–Kutta method.

    dynamics: an `nn.Module` whose ``forward(t, z)`` returns (dz, anything).
    tableau: the method; its error estimate is not used, and neither are stages that only it needs.
    z: [blocks, B, *S].
    ``evaluations``: of f in one call, n times the stages that the weights need.
    Raises ArgumentTypeError or ArgumentError unless n is a whole number ≥ 1.
    """

    dynamics: Any
    times: Tensor

    def __init__(self, dynamics: nn.Module, tableau: Tableau, t0: float, t1: float, n: int):
        super().__init__()
        check_sizes(steps=n)
        self.dynamics, self.n, self.dt = dynamics, n, (t1 - t0) / n
        rows = [[(j, float(w)) for j, w in enumerate(row) if w != 0] for row in (*tableau.a, tableau.b)]
        self.stages = rows[-1][-1][0] + 1  # an FSAL method's last stage is the next step's first
        self.rows, self.weights = rows[: self.stages], rows[-1]
        ends = [t0 + i * self.dt for i in range(n)] + [t1]
        nodes = [float(c) for c in tableau.nodes()]
        times = [times_between(ends[i], ends[i + 1], nodes)[: self.stages] for i in range(n)]
        like = next(dynamics.parameters(), torch.empty(0, dtype=torch.float64, device="cpu"))
        table = torch.tensor(times, dtype=torch.float64, device="cpu")
        self.register_buffer("times", table.to(like))  # [n, stages]

    @property
    def evaluations(self) -> int:
        """The evaluations of f in one call."""
        return self.n * self.stages

    def forward(self, z: Tensor) -> Tensor:
        """z(t1), like z."""
        if torch.compiler.is_exporting():
            return self._loop(z)
        for times in self.times:
            z = self._step(times, z)
        return z

    def _step(self, times: Tensor, z: Tensor) -> Tensor:
        slopes: list[Tensor] = []
        times = times.to(z.dtype)
        for i, row in enumerate(self.rows):
            slopes.append(self.dynamics.forward(times[i], self._add(z, slopes, row))[0])
        return self._add(z, slopes, self.weights)

    def _add(self, z: Tensor, slopes: list[Tensor], row: list[tuple[int, float]]) -> Tensor:
        """z + dt Σ w_j k_j."""
        for j, weight in row:
            z = torch.add(z, slopes[j], alpha=self.dt * weight)
        return z

    def _loop(self, z: Tensor) -> Tensor:
        """The same as a loop of the graph: one step is traced, whatever n is."""
        from torch._higher_order_ops.while_loop import while_loop  # torch.while_loop from 2.14 on

        def goes_on(i: Tensor, z: Tensor) -> Tensor:
            return i < self.n

        def body(i: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
            return i + 1, self._step(self.times.index_select(0, i.reshape(1))[0], z)

        first = torch.zeros((), dtype=torch.int64, device=z.device)
        return while_loop(goes_on, body, (first, z))[1]


class FixedBlock(nn.Module):
    """A block's h(T) by `FixedSteps` with the block's method, interval and parameters (shared)."""

    def __init__(self, block: Block, n: int):
        super().__init__()
        self.pad, settings = block.pad, block.settings
        dynamics: Any = _replaced(
            block.dynamics, lambda part: _Plain(part) if isinstance(part, AutogradField) else None
        )
        self.others = dynamics.blocks[1:]
        t0, t1 = settings.t
        tableau = get_method(settings.method, implicit=True)
        if tableau.wants_jacobian:
            raise ArgumentError(
                f"method={settings.method!r} takes implicit steps: how often they are corrected is read from "
                "values, so it has no fixed graph. Train with an explicit method, or take the model "
                "from Python: load_run(folder).model(x), see docs/train.md."
            )
        self.steps = FixedSteps(dynamics, tableau, t0, t1, n)
        self.training = block.training

    def forward(self, h0: Tensor, *others: Tensor | None, **start: Tensor | None) -> Tensor:
        """h(T), [B, C, …], from h0 and the other starts (``m0``, ``v0``), zeros where not given."""
        start.update((f"{name}0", value) for name, value in zip(self.others, others, strict=False))
        z0 = stacked(padded(h0, self.pad), [start.get(f"{name}0") for name in self.others])
        return self.steps(z0)[0]


class _Plain(nn.Module):
    """An `AutogradField` without the graphs it keeps for its VJP."""

    def __init__(self, field: AutogradField):
        super().__init__()
        self.func = field.func

    def forward(self, t: Tensor, h: Tensor) -> tuple[Tensor, Any]:
        return self.func(t, h), None


def with_fixed_steps(model: nn.Module, n: int) -> nn.Module:
    """The model, or block, with n equal steps of its method in each of its blocks; parameters are shared.

    One without a block, or with the identity in its place, has nothing to solve and is returned as it is.
    Raises ArgumentError for a model of a time series or a density, ArgumentTypeError for what is no module.
    """
    check_sizes(steps=n)
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(f"model is a {type(model).__name__}; give a module.")
    if any(isinstance(part, SeriesModel | TrajectoryModel) for part in model.modules()):
        raise ArgumentError(
            "a model of a time series has no fixed graph: its times, or how many rows are known, are read "
            "from its input. From Python: load_run(folder).model(x), see docs/train.md."
        )
    if any(isinstance(part, DensityModel) for part in model.modules()):
        raise ArgumentError(
            "a density is not exported: its likelihood and its samples are solves in opposite directions. "
            "From Python: load_run(folder).model(x) and .sample(n); or `adamode predict --samples`."
        )
    return _replaced(model, lambda part: FixedBlock(part, n) if isinstance(part, Block) else None)


def _replaced(module: nn.Module, swap: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """The module with what ``swap`` gives in the place of its parts; where it gives None they are shared."""
    own = swap(module)
    if own is not None:
        return own
    parts = {name: _replaced(part, swap) for name, part in module.named_children()}
    changed = {name: part for name, part in parts.items() if part is not module.get_submodule(name)}
    other: nn.Module = _with_part(module, **changed) if changed else module
    return other
