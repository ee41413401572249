"""Flows: a base density carried along an ODE, on x alone or on x with auxiliary momenta."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from typing_extensions import Unpack

from ..adjoint.dynamics.protocol import Dynamics
from ..adjoint.solve import solve
from ..solvers.checks import all_finite, check_call, check_positive, check_state
from ..solvers.errors import ArgumentError, ArgumentTypeError
from .block import Block, LastSolve, SolverOptions, check_start
from .density import LogDensity, check_dtype
from .dynamics.node import NeuralODE
from .fields.field import Field

Auxiliary = Callable[[Tensor], Distribution]


class Bounds(NamedTuple):
    """Two lower bounds on log p(x), [B] each, from k draws of the auxiliary momenta.

    evidence: the mean over draws of log p(x, m) − log q(m | x): the evidence lower bound.
    weighted: log of the mean of p(x, m)/q(m | x): never below the evidence bound, and it goes to log p(x)
        as k grows.
    """

    evidence: Tensor
    weighted: Tensor

    @property
    def gap(self) -> Tensor:
        """How far the evidence bound is below the weighted one, [B], ≥ 0: what is seen of its gap to
        log p(x), the divergence of q(m | x) from p(m | x)."""
        return self.weighted - self.evidence


class Flow(nn.Module):
    """The density that a solve from t0 to t1 makes of a base density: x(t0) ~ base, x(t1) is data.

    block_or_dynamics: a block (`NODE`, `SONODE`, `HBNODE`, `GHBNODE`, `AdamNODE`, `NesterovNODE`,
        `GNesterovNODE`, `MomentumNODE`), whose settings say how it is solved; a dynamics of these, a
        `LogDensity`, or a field f(t, x), with the keywords of a block.
    base: a `torch.distributions` distribution of x(t0), its event_shape one sample's shape; None: standard
        normal.
    auxiliary: q(m | x) for a state with further blocks: x [B, *S] ↦ a distribution with batch_shape [B] and
        event_shape [blocks − 1, *S]; None: standard normal.
    solver: t, rtol, atol, method, …, of whatever is not a block.

    On x alone (a neural ODE, the continuous normalising flow) `log_prob` is log p(x), with the trace exact,
    or as a `LogDensity` says. With further blocks m (momenta, velocities) the flow is of (x, m), m(t0)
    standard normal, and its density is exact; that of x alone is an integral over m, and `log_prob` a lower
    bound on its logarithm, by draws of m(t1) from q. Blocks with momenta need no trace: their divergence
    depends on no state, and its integral is known. With stepping="per_sample" a sample whose solve fails is
    NaN (a base of your own must let it: validate_args=False).
    Raises ArgumentError or ArgumentTypeError for a block with padding (ANODE), an AdamNODE whose denominator
    is "exact" (its flow does not cover the whole space), and a base or auxiliary that does not fit.
    Source: R. T. Q. Chen et al., NeurIPS 2018, Sec. 4; C.-W. Huang, L. Dinh, A. Courville, Augmented
    normalizing flows, 2020; J. Chen et al., VFlow, ICML 2020; the weighted bound: Y. Burda, R. Grosse,
    R. Salakhutdinov, ICLR 2016.
    """

    def __init__(
        self,
        block_or_dynamics: Any,
        base: Distribution | None = None,
        *,
        auxiliary: Auxiliary | None = None,
        **solver: Unpack[SolverOptions],
    ):
        super().__init__()
        self.block, density = _read(block_or_dynamics, solver)
        self.density = _density_of(self.block) if density is None else density
        if base is not None and not isinstance(base, Distribution):
            raise ArgumentTypeError(
                f"base is a {type(base).__name__}; give a torch.distributions one, or None."
            )
        if auxiliary is not None and not callable(auxiliary):
            raise ArgumentTypeError(f"auxiliary={auxiliary!r} must be callable: x ↦ a distribution.")
        if auxiliary is not None:
            check_call(auxiliary, "auxiliary", "auxiliary(x)", objects=True)
        if auxiliary is not None and len(self.blocks) == 1:
            raise ArgumentError("auxiliary is given, but the flow is on x alone: leave it out.")
        self.base, self.auxiliary = base, auxiliary

    @property
    def last_stats(self) -> LastSolve | None:
        """The cost of the last solve."""
        spent: LastSolve | None = self.block.last_stats
        return spent

    @property
    def blocks(self) -> tuple[str, ...]:
        """The names of the state's blocks, x first."""
        names: tuple[str, ...] = self.block.dynamics.blocks
        return names

    def log_prob(self, x: Tensor, samples: int = 1) -> Tensor:
        """log p(x), [B], for x [B, C, …].

        samples: with further blocks, by so many draws of them, it is the weighted bound (of one draw, the
            evidence bound).
        """
        if len(self.blocks) == 1:
            x0, total = self._carried(_checked(x))
            return self._base_log_prob(x0) + total
        return self.bounds(x, samples).weighted

    def bounds(self, x: Tensor, samples: int = 1) -> Bounds:
        """Both bounds on log p(x), by so many draws of the auxiliary momenta.

        Raises ArgumentError for a flow on x alone, whose `log_prob` is exact.
        """
        check_positive(samples, "samples", integer=True)
        if len(self.blocks) == 1:
            raise ArgumentError("this flow is on x alone: log_prob(x) is log p(x), and there is no bound.")
        x = _checked(x)
        q = self._auxiliary(x)
        momenta = q.rsample((samples,)) if q.has_rsample else q.sample((samples,))  # [k, B, K − 1, *S]
        log_q = _checked_log_q(q.log_prob(momenta))
        rows = x.expand(samples, *x.shape).flatten(0, 1)
        log_joint = self.log_joint(rows, momenta.flatten(0, 1)).view(samples, -1)
        log_w = log_joint - log_q
        return Bounds(log_w.mean(0), torch.logsumexp(log_w, 0) - math.log(samples))

    def log_joint(self, x: Tensor, momenta: Tensor) -> Tensor:
        """log p(x, m) at t1, [B], exact. momenta: [B, blocks − 1, *S]."""
        wanted = (len(x), len(self.blocks) - 1, *_checked(x).shape[1:])
        if tuple(momenta.shape) != wanted:
            raise ArgumentError(f"momenta has shape {tuple(momenta.shape)}; it must be {wanted}.")
        z0, total = self._carried(x, momenta)
        log_base = self._base_log_prob(z0[0])
        log_normal = standard_normal(z0[1:]).log_prob(z0[1:])
        return log_base + log_normal.transpose(0, 1).flatten(1).sum(1) + total

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """Draws of x(t1), [n, *S], without a gradient."""
        return self._drawn(n, differentiable=False)

    def rsample(self, n: int) -> Tensor:
        """Draws of x(t1), [n, *S], differentiable in the dynamics' parameters, and the base's where it has an
        rsample of its own (ArgumentError where it has none)."""
        return self._drawn(n, differentiable=True)

    def _drawn(self, n: int, *, differentiable: bool) -> Tensor:
        check_positive(n, "n", integer=True)
        if self.base is None:
            dtype, device = self._kind()
            x0 = torch.randn((n, *self._shape()), dtype=dtype, device=device)
        elif differentiable and not self.base.has_rsample:
            raise ArgumentError(f"base, a {type(self.base).__name__}, has no rsample: take flow.sample(n).")
        else:
            x0 = self.base.rsample((n,)) if differentiable else self.base.sample((n,))
        momenta = {name: torch.randn_like(x0) for name in self.blocks[1:]}
        found = self.block.path(x0, self._times(x0), **momenta)
        return found[self.blocks[0]][-1]

    def _carried(self, x: Tensor, momenta: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(The state at t0, log|det ∂z(t0)/∂z(t1)|) from t1. With momenta the state is [K, B, *S], else x."""
        times = self._times(x).flip(0)
        if self.density is not None:
            y = x if momenta is None else torch.cat((x[:, None], momenta), 1)
            options = dataclasses.replace(self.block.settings, compile=False).arguments()
            found = solve(self.density, (y, y.new_zeros(len(y))), times, **options)
            told = {name: found.penalty(name) for name in self.block.settings.penalties}
            self.block.last_stats = LastSolve(found.stats, found.status, told)
            start, total = (part[-1] for part in found.y)
            return (start if momenta is None else start.transpose(0, 1)), total
        assert momenta is not None  # a divergence that needs no trace is of more than x
        others = dict(zip(self.blocks[1:], momenta.unbind(1), strict=True))
        path = self.block.path(x, times, **others)
        total = self.block.dynamics.divergence_integral(*times).to(x.dtype) * x[0].numel()
        return torch.stack([path[name][-1] for name in self.blocks]), total.expand(len(x))

    def _times(self, x: Tensor) -> Tensor:
        return torch.tensor(self.block.settings.t, dtype=torch.float64, device=x.device)

    def _base_log_prob(self, x0: Tensor) -> Tensor:
        if self.base is None:
            return standard_normal(x0).log_prob(x0).flatten(1).sum(1)
        if self.base.event_shape != x0.shape[1:]:
            raise ArgumentError(
                f"base has event_shape {tuple(self.base.event_shape)}; of x {tuple(x0.shape)} it must be "
                f"{tuple(x0.shape[1:])}: torch.distributions.Independent(base, {x0.dim() - 1})."
            )
        log_p: Tensor = self.base.log_prob(x0)
        return log_p

    def _auxiliary(self, x: Tensor) -> Distribution:
        shape = (len(x), len(self.blocks) - 1, *x.shape[1:])
        if self.auxiliary is None:
            return Independent(standard_normal(x.new_zeros(shape)), len(shape) - 1)
        self.block.state(x)  # these say what does not fit, before the user's module fails at it
        if not x.numel():
            raise ArgumentError(f"x has shape {tuple(x.shape)}; at least one sample is needed.")
        check_state(x, "x")  # host read
        q = self.auxiliary(x)
        if (
            not isinstance(q, Distribution)
            or (*q.batch_shape, *q.event_shape) != shape
            or len(q.batch_shape) != 1
        ):
            found = f"{tuple(q.batch_shape)}, {tuple(q.event_shape)}" if isinstance(q, Distribution) else q
            raise ArgumentError(
                f"auxiliary(x) is {found}; it must be a distribution with batch_shape ({shape[0]},) and "
                f"event_shape {shape[1:]}."
            )
        return q

    def _shape(self) -> tuple[int, ...]:
        """One sample's, where the field says so."""
        field = self.block.field
        if isinstance(field, Field) and field.channels_out is not None and not field.places:
            return (field.channels_out,)
        raise ArgumentError(
            "the shape of a sample is unknown: only calls of this field show it. Give a base, such as "
            "torch.distributions.Independent(Normal(zeros, ones), zeros.dim())."
        )

    def _kind(self) -> tuple[torch.dtype, torch.device]:
        """Dtype and device of the standard normal: the first parameter's, else torch's defaults."""
        first = next(self.parameters(), None)
        if first is None:
            return torch.get_default_dtype(), torch.get_default_device()
        return first.dtype, first.device


def standard_normal(like: Tensor) -> Normal:
    """Independent standard normals of like's shape.

    Torch validates no values of theirs: the host would wait for each, and a sample that failed is NaN.
    """
    return Normal(torch.zeros_like(like), torch.ones_like(like), validate_args=False)


def _checked_log_q(log_q: Tensor) -> Tensor:
    """log q(m | x) of q's own draws, [k, B]; ArgumentError where q's numbers are not finite."""
    if not all_finite(log_q):  # host read
        k, b = (~torch.isfinite(log_q)).nonzero()[0].tolist()
        raise ArgumentError(
            f"auxiliary(x) of sample {b} draws momenta whose log q(m | x) is {log_q[k, b].item()}: the "
            "numbers that it makes of x must be finite, and scales above 0."
        )
    return log_q


class WholeDensity(nn.Module):
    """(z, ℓ) with ℓ' = div F over the whole state, z as [B, K, *S]."""

    def __init__(self, dynamics: Any):
        super().__init__()
        self.dynamics = dynamics

    def forward(self, t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """(z', ℓ'). t: 0-d, or one a sample."""
        z = y[0].transpose(0, 1)
        t = t if t.dim() == 0 else t[:, 0]
        return self.dynamics.forward(t, z)[0].transpose(0, 1), self.dynamics.divergence(t, z)


def _read(given: Any, solver: SolverOptions) -> tuple[Any, nn.Module | None]:
    """(The block, the density that was given)."""
    if isinstance(given, Block):
        if solver:
            raise ArgumentError(
                f"{', '.join(solver)}: the block has settings of its own: {type(given).__name__}(…, rtol=…)."
            )
        if given.pad:
            raise ArgumentError(
                f"the {type(given).__name__} appends {given.pad} channels of zeros, which have no density: "
                "take a NODE, or a block with momenta (HBNODE, NesterovNODE, AdamNODE, …), which are drawn."
            )
        block, density = given, None
    elif isinstance(given, LogDensity):
        block, density = Block(NeuralODE(given.field), solver), given
    elif isinstance(given, Dynamics) and not isinstance(given, Field):
        if (
            not hasattr(given, "divergence")
            or not isinstance(given, nn.Module)
            or not hasattr(given, "blocks")
        ):
            raise ArgumentTypeError(
                f"{type(given).__name__} has no divergence(t, z), or no names of its blocks: give one of "
                "models.dynamics, or a LogDensity."
            )
        block, density = Block(given, solver), None
    else:
        density = LogDensity(given)
        block = Block(NeuralODE(density.field), solver)
    domain = getattr(block.dynamics, "domain", "")
    if domain:
        raise ArgumentError(f"a flow must cover the whole space, but {domain}.")
    return block, density


def _density_of(block: Block) -> nn.Module | None:
    """The func that is solved for the density of the state; None where the divergence is known."""
    dynamics = block.dynamics
    if isinstance(dynamics, NeuralODE):
        return LogDensity(dynamics.field)
    find = getattr(dynamics, "divergence_integral", None)
    ends = torch.tensor(block.settings.t, dtype=torch.float64, device="cpu")
    return WholeDensity(dynamics) if find is None or find(*ends) is None else None


def _checked(x: Any) -> Tensor:
    """x, [B, C, …], of float32 or float64."""
    if isinstance(x, Tensor):
        check_dtype(x)
    return check_start(x)
