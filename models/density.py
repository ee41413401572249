"""The log-density of what a field carries along: x and ℓ solved together, ℓ' = tr ∂f/∂x."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..adjoint.dynamics.adapt import check_independent_samples
from ..adjoint.dynamics.protocol import Dynamics, LeafDynamics, PerSolve, Started, Traced
from ..solvers.checks import STATE_DTYPES, check_call, check_positive
from ..solvers.errors import ArgumentError, ArgumentTypeError, DynamicsError, check_choice
from ..solvers.step.field import transformed
from .block import Block
from .fields.by_autograd import WAY, AutogradField, is_compiled
from .fields.dense_trace import DenseTrace
from .fields.field import Field, Gradients
from .fields.trace import dense_trace, directions, mixed_sample, value_and_trace

Trace = Literal["exact", "hutchinson"]
Noise = Literal["rademacher", "gauss"]
TRACES, NOISES = get_args(Trace), get_args(Noise)
_PACKAGE = __name__.partition(".")[0]
MIXED = ("and then the density of one sample has no meaning", "")


class LogDensity(nn.Module, PerSolve):
    """x' = f(t, x), ℓ' = tr ∂f/∂x: a func of `adamode.solve` on the tuple (x [B, *S], ℓ [B]).

    With ℓ(t0) = 0, ℓ(t1) = log|det ∂x(t1)/∂x(t0)| and log p1(x(t1)) = log p0(x(t0)) − ℓ(t1), in both
    directions of time. Sample i of f must depend on no other sample of x.

    field: f(t, x) → dx, a module or a plain function. The derivative of the trace is by hand for an `MLP` or
        `Linear` of `models.fields`, and by autograd (twice) otherwise.
    trace: "exact" (as many VJPs of f as x has numbers; of an `MLP` with up to two hidden layers a product or
        two), or "hutchinson": the mean of eᵀ(∂f/∂x)e over probes e, unbiased, a VJP each.
    probes: how many, or the probes themselves, [K, B, *S], of x's dtype and device.
    noise: "rademacher", ±1, with which the estimate varies least, or "gauss".
    generator: of the probes; None: torch's own of x's device.

    Probes are drawn once a solve, when it starts, and are the same in its backward pass: several solves of
    one object may be under way. A field that is not ours is evaluated once more at the start (which is
    counted), to check whether it mixes samples.
    Raises ArgumentError or ArgumentTypeError for bad settings, a state that is no such tuple, probes that do
    not fit x, or a field that mixes samples (such as BatchNorm in training mode).
    In penalties=, 'kinetic' and 'jacobian' are those of f without ℓ, as regularised flows define them.
    Source: R. T. Q. Chen, Y. Rubanova, J. Bettencourt, D. Duvenaud, NeurIPS 2018, Thm. 1; W. Grathwohl et
    al., FFJORD, ICLR 2019.
    """

    penalised = 1  # of the parts (f, tr ∂f/∂x)

    def __init__(
        self,
        field: Callable[[Tensor, Tensor], Tensor],
        trace: Trace = "exact",
        probes: int | Tensor = 1,
        noise: Noise = "rademacher",
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        check_choice("trace", trace, TRACES)
        check_choice("noise", noise, NOISES)
        if not isinstance(probes, Tensor):
            check_positive(probes, "probes", integer=True)
        elif trace == "exact":
            raise ArgumentError("probes is a tensor, but trace='exact' has no probes: trace='hutchinson'.")
        if generator is not None and not isinstance(generator, torch.Generator):
            raise ArgumentTypeError(f"generator={generator!r} must be a torch.Generator, or None.")
        self.field, self.trace, self.noise, self.generator = read_field(field), trace, noise, generator
        self.probes = probes

    def forward(self, t: Tensor, y: Any) -> tuple[Tensor, Tensor]:
        """(x', ℓ') outside a solve. Raises ArgumentError where probes would have to be drawn: each call would
        be of another function."""
        if self.trace == "hutchinson" and not isinstance(self.probes, Tensor):
            raise ArgumentError(
                "LogDensity(trace='hutchinson') was called outside adamode's solve, and its probes are drawn "
                "once a solve: func = density.at_start(t, (x, l)).func draws them once, and func(t, (x, l)) "
                "is then the same function at every call."
            )
        x = check_pair(y)
        return Density(self.field, self._probes(x))(t, y)

    def at_start(self, t: Tensor, y0: Any) -> Started:
        """The func with the probes of one solve, after a look at the field."""
        x = check_pair(y0)
        spent = self._check_field(t, x)
        probes = self._probes(x)
        density, by_layers = Density(self.field, probes), dense_trace(self.field, probes)
        # A plain function's parameters are looked for by the solve.
        func = density if isinstance(self.field, nn.Module) else density.forward
        if by_layers is not None:
            return Started(func, DenseDensity(by_layers), spent)
        lean = functools.partial(density, graph=False)
        return Started(func, None, spent, Traced(lean, functools.partial(directions, probes=probes)))

    def _check_field(self, t: Tensor, x: Tensor) -> int:
        """Whether samples are mixed; how many evaluations that took."""
        check_independent_samples(self.field, MIXED)
        ours = isinstance(self.field, Field) and type(self.field).__module__.partition(".")[0] == _PACKAGE
        if ours or transformed() or len(x) == 1:
            return 0
        row = mixed_sample(self.field, t, x)
        if row is not None:
            raise ArgumentError(
                f"field mixes samples, {MIXED[0]}: sample {row} of x changes other samples' rows of f(t, x) "
                "too. Let row i of f(t, x) depend only on row i of x."
            )
        return 1

    @torch.no_grad()
    def _probes(self, x: Tensor) -> Tensor | None:
        """[K, B, *S]; None for the exact trace."""
        if self.trace == "exact":
            return None
        if isinstance(self.probes, Tensor):
            return check_probes(self.probes, x)
        if self.generator is not None and self.generator.device.type != x.device.type:
            raise ArgumentError(
                f"generator is on {self.generator.device}, x on {x.device}, where its probes are drawn: "
                f"torch.Generator('{x.device}')."
            )
        shape, make = (self.probes, *x.shape), self.generator
        if self.noise == "gauss":
            return torch.randn(shape, dtype=x.dtype, device=x.device, generator=make)
        signs = torch.randint(0, 2, shape, dtype=x.dtype, device=x.device, generator=make)
        return signs.mul_(2).sub_(1)


class Density(nn.Module):
    """(x', ℓ') = (f, tr ∂f/∂x), or its estimate by these probes, [K, B, *S]: always the same function."""

    def __init__(self, field: Callable[[Tensor, Tensor], Tensor], probes: Tensor | None):
        super().__init__()
        self.field, self.probes = field, probes

    def forward(self, t: Tensor, y: Any, *, graph: bool = True) -> tuple[Tensor, Tensor]:
        """Raises DynamicsError where the batch is not the one of the probes. graph: of the trace too."""
        x, _ = y
        check_batch(x, self.probes)
        return value_and_trace(self.field, t, x, self.probes, graph=graph)


class DenseDensity(LeafDynamics):
    """The same of a dense field, by its layers: x̄ = (∂f/∂x)ᵀc + g ∂τ/∂x from cotangents c of f and g of τ."""

    def __init__(self, trace: DenseTrace):
        self.trace, self.field = trace, trace.field

    def theta(self) -> tuple[Tensor, ...]:
        """The field's."""
        return self.field.theta()

    def for_solve(self) -> DenseDensity:
        """The density with what the layers alone make of the trace."""
        other = DenseDensity(self.trace.for_solve())
        other.field = self.field.for_solve()
        return other

    def forward(self, t: Tensor, y: list[Tensor]) -> tuple[list[Tensor], Any]:
        """([f, τ], what the field saves): of the trace nothing is kept."""
        x, _ = y
        check_batch(x, self.trace.probes)
        f, saved = self.field.forward(t, x)
        return [f, self.trace.value(saved)], saved

    def vjp(self, saved: Any, cotangents: list[Tensor]) -> tuple[list[Tensor], Any]:
        """([x̄, 0], (the field's deltas, g)): the trace enters where a layer meets σ."""
        c, g = cotangents
        x_bar, deltas = self.field.vjp(saved, c, self.trace.inside(saved, g))
        return [x_bar, torch.zeros_like(g)], (deltas, g)

    def parameter_gradients(self, saved: list[Any], deltas: list[Any], weights: Tensor | None) -> Gradients:
        """The field's, and at each weight the trace's own; the time's column has none."""
        found = list(self.field.parameter_gradients(saved, [own for own, _ in deltas], weights))
        if not saved or all(bar is None for bar in found[::2]):
            return tuple(found)
        for i, own in enumerate(self.trace.weight_gradients(saved, [g for _, g in deltas], weights)):
            bar = found[2 * i]
            if bar is not None:
                bar[:, : own.shape[1]] += own
        return tuple(found)


def check_batch(x: Tensor, probes: Tensor | None) -> None:
    """Raises DynamicsError where probes were drawn for more samples, or fewer."""
    if probes is not None and len(x) != probes.shape[1]:
        raise DynamicsError(
            f"{len(x)} samples are under way, and probes were drawn for {probes.shape[1]}: leave compact "
            "out, or take trace='exact'."
        )


def read_field(field: Any) -> Any:
    """The field, without the wrapper that gives it a VJP; ArgumentError or ArgumentTypeError for what has no
    density."""
    if isinstance(field, AutogradField):
        field = field.func
    if isinstance(field, Block):
        raise ArgumentTypeError(
            f"field is a {type(field).__name__}, a block h0 ↦ h(T): give its network, block.field, or take "
            "adamode.Flow(block)."
        )
    if Dynamics in type(field).__mro__:  # a field of ours has the same four methods
        raise ArgumentTypeError(
            f"field is a {type(field).__name__}, a Dynamics on blocks: give its network f(t, x), or take its "
            "own divergence(t, z), or adamode.Flow."
        )
    if not callable(field):
        raise ArgumentTypeError(f"field={field!r} cannot be called; give f(t, x) that returns dx like x.")
    check_call(field, "field", "field(t, h)", WAY)
    if is_compiled(field):
        raise ArgumentError(
            "field is compiled by torch.compile, whose programs are not differentiated twice, as the trace's "
            "gradient needs: give the module itself."
        )
    if isinstance(field, Field) and field.channels_in != field.channels_out:
        raise ArgumentError(
            f"field takes {field.channels_in} features and returns {field.channels_out}: there is a trace "
            "only where f has x's shape."
        )
    return field


def check_pair(y: Any) -> Tensor:
    """x of (x, ℓ); ArgumentError or ArgumentTypeError for another state."""
    wanted = "a LogDensity is solved on the tuple (x [B, *S], l [B]), l zeros at first"
    if not isinstance(y, (tuple, list)) or len(y) != 2 or not all(isinstance(part, Tensor) for part in y):
        raise ArgumentTypeError(f"y0 is a {type(y).__name__}; {wanted}.")
    x, total = y
    if x.dim() == 0 or total.shape != x.shape[:1]:
        raise ArgumentError(f"y0 has shapes {tuple(x.shape)} and {tuple(total.shape)}; {wanted}.")
    check_dtype(x)
    return x


def check_dtype(x: Tensor) -> None:
    """ArgumentTypeError for points, whose density is asked for, of another dtype than float32 or float64."""
    if x.dtype not in STATE_DTYPES:
        raise ArgumentTypeError(f"x has dtype {x.dtype}; a density is one of torch.float32 or float64.")


def check_probes(probes: Tensor, x: Tensor) -> Tensor:
    """Given probes; ArgumentError where they do not fit x."""
    if probes.dim() != x.dim() + 1 or probes.shape[1:] != x.shape or not len(probes):
        raise ArgumentError(
            f"probes has shape {tuple(probes.shape)}; for x {tuple(x.shape)} it must be [K, "
            f"{', '.join(map(str, x.shape))}], K ≥ 1."
        )
    if (probes.dtype, probes.device) != (x.dtype, x.device):
        raise ArgumentError(
            f"probes is {probes.dtype} on {probes.device}, x {x.dtype} on {x.device}: probes.to(x)."
        )
    return probes.detach()
