"""The protocol of a dynamics with a hand-derived VJP.

What every adjoint needs of dz/dt = F(t, z; θ) is one product: given a cotangent a of dz, the pair
(∂F/∂z)ᵀa and (∂F/∂θ)ᵀa. `Dynamics` says how to hand it in.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from ...solvers.errors import ArgumentError

# How func is called, without an input and with one, and the ways out for a func of other arguments.
UNDRIVEN = (
    "func(t, y)",
    "give lambda t, y: net(y), or a module with forward(self, t, y)",
    ", or give solve the input of a func(t, y, u) by signal=…",
)
DRIVEN = ("func(t, y, u)", "give lambda t, y, u: net(y, u), or a module with forward(self, t, y, u)")


class Dynamics(abc.ABC):
    """dz/dt = F(t, z; θ) on a state of K blocks, z: [K, B, *S], with its hand-derived VJP.

    An `nn.Module` may derive from it as well. The adjoints call `forward` and `vjp` with autograd
    off; `gradient=Direct()` calls `forward` with autograd on and differentiates dz. A class that has
    the four methods without deriving from this one passes for it (`isinstance`).
    """

    after: float | None = None  # F is defined for later times alone; None: for all

    @classmethod
    def __subclasshook__(cls, other: type) -> Any:
        if cls is not Dynamics:
            return NotImplemented
        needed = ("theta", "forward", "vjp", "parameter_gradients")
        has_all = all(any(name in base.__dict__ for base in other.__mro__) for name in needed)
        return True if has_all else NotImplemented

    @abc.abstractmethod
    def theta(self) -> tuple[Tensor, ...]:
        """The leaf tensors F depends on, in the order in which gradients are returned."""

    @abc.abstractmethod
    def forward(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """(dz, saved): dz like z; saved holds the values that `vjp` needs (activations, f, …).

        t: 0-d, or [B, 1, …, 1] with the dimensions of one block (per-sample stepping).
        """

    def value(self, t: Tensor, z: Tensor) -> Tensor:
        """Only dz, for a pass that needs no `saved`."""
        return self.forward(t, z)[0]

    def for_solve(self) -> Dynamics:
        """The dynamics as it is used in one solve: what depends on θ alone may be made here, once."""
        return self

    @abc.abstractmethod
    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """((∂F/∂z)ᵀa, deltas) for a = cotangent, [K, B, *S]; deltas are not summed over B.

        One pass through the network, its input side only: what the parameters' gradients need is
        left in deltas.
        """

    @abc.abstractmethod
    def parameter_gradients(
        self, saved: list[Any], deltas: list[Any], weights: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Σᵢ wᵢ (∂F/∂θ)ᵀaᵢ over n stages at once, in the order of `theta`.

        weights: [n], [n, B] (per-sample steps), or None for ones.
        """


class LeafDynamics(abc.ABC):
    """A func(t, y) on a pytree with its hand-derived VJP: a `Dynamics` whose states, derivatives and
    cotangents are lists of the tree's leaves."""

    @abc.abstractmethod
    def theta(self) -> tuple[Tensor, ...]:
        """The same as of a `Dynamics`."""

    def for_solve(self) -> Any:
        """The same as of a `Dynamics`."""
        return self

    @abc.abstractmethod
    def forward(self, t: Tensor, y: list[Tensor]) -> tuple[list[Tensor], Any]:
        """(dy, saved). t: as func gets it."""

    @abc.abstractmethod
    def vjp(self, saved: Any, cotangents: list[Tensor]) -> tuple[list[Tensor], Any]:
        """(one cotangent for each leaf of y, deltas)."""

    @abc.abstractmethod
    def parameter_gradients(
        self, saved: list[Any], deltas: list[Any], weights: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """The same as of a `Dynamics`."""


class Traced(NamedTuple):
    """Of a func on (x, ℓ), ℓ' = Σ_k w_k ⟨e_k, (∂x'/∂x)ᵀ e_k⟩ a row.

    func: the same with no graph of ℓ'.
    directions: x → each e_k, like x, and its w_k.
    """

    func: Callable[[Tensor, Any], Any]
    directions: Callable[[Tensor], Iterator[tuple[Tensor, float]]]


class Started(NamedTuple):
    """A func as it is in one solve.

    func: func(t, y), the same function at every evaluation of the solve and of its way back.
    by_hand: the same with its VJP by hand, where it has one.
    spent: how many evaluations its making took.
    traced: the trace that is a part of it, where that is by autograd.
    """

    func: Callable[[Tensor, Any], Any]
    by_hand: LeafDynamics | None
    spent: int
    traced: Traced | None = None


class PerSolve(abc.ABC):
    """A func that is another one in each solve, since it has something of its own for the solve's state, such
    as random numbers that are drawn once. It remembers no solve: several may be under way."""

    @abc.abstractmethod
    def at_start(self, t: Tensor, y0: Any) -> Started:
        """The func of a solve that begins at (t, y0). t: as func gets it."""


def named_blocks(func: Any) -> tuple[str, ...]:
    """The names in ``blocks`` of a `Dynamics`, or (): another module may mean something else by it."""
    blocks = getattr(func, "blocks", ()) if isinstance(func, Dynamics) else ()
    named = isinstance(blocks, (tuple, list)) and all(isinstance(block, str) for block in blocks)
    return tuple(blocks) if named else ()


def check_blocks(dynamics: Dynamics, z: Tensor, name: str) -> None:
    """Raises ArgumentError where z, [K, …], has not the K that a dynamics with named ``blocks`` has."""
    blocks = named_blocks(dynamics)
    if blocks and len(blocks) != len(z):
        raise ArgumentError(
            f"{name} has shape {tuple(z.shape)}: {len(z)} blocks along dim 0, but {type(dynamics).__name__} "
            f"has {len(blocks)}: {', '.join(blocks)}."
        )


def check_after(func: Any, times: Sequence[float], name: str = "t") -> None:
    """Raises ArgumentError where a dynamics that is defined for t > ``after`` alone is solved elsewhere."""
    after = getattr(func, "after", None) if isinstance(func, Dynamics) else None
    if after is None:
        return
    for i, time in enumerate(times):
        if not time > after:
            owner = type(getattr(func, "stands_for", func)).__name__
            raise ArgumentError(
                f"{name}[{i}]={time!r}: {owner} is defined for t > {after:g} alone. Start and "
                f"end later (say at {after + 1:g}), or give it another shift=…, which is added to t."
            )
