"""func as the engine sees it: one packed tensor in, one out, counted and checked, the user's autocast
state around it, and what else is around: transforms of torch.func, forward-mode AD."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils import _pytree as pytree

from ..errors import ArgumentError, ArgumentTypeError, DynamicsError, SolverError
from ..stats import Stats


def same_numbers(k: Any, like: Tensor) -> Any:
    """What func returned for one member of a tuple, in the member's shape where only axes of length 1 differ.

    torchdiffeq lays members flat side by side, whatever their shapes; programs return [B] for [B, 1].
    """
    if not isinstance(k, Tensor) or k.shape == like.shape:
        return k
    fits = [n for n in k.shape if n != 1] == [n for n in like.shape if n != 1]
    return k.reshape(like.shape) if fits else k


def check_derivative(k: Any, like: Tensor, cast: bool) -> Tensor:
    """What func returned, checked against the state (already packed).

    cast: another floating dtype is converted.
    """
    if not isinstance(k, Tensor):
        raise DynamicsError(
            f"func returned a {type(k).__name__} where the state is a tensor: return dy/dt in the "
            "structure of y."
        )
    if k.shape != like.shape:
        raise DynamicsError(
            f"func returned shape {tuple(k.shape)} for a state of shape {tuple(like.shape)}: dy/dt "
            "must have the shape of y."
        )
    if k.device != like.device:
        raise DynamicsError(f"func returned a tensor on {k.device} for a state on {like.device}.")
    if k.dtype != like.dtype:
        if not (cast and k.dtype.is_floating_point):
            raise DynamicsError(
                f"func returned dtype {k.dtype} for a state of {like.dtype}: convert one of them."
            )
        k = k.to(like.dtype)
    return k


HALF = (torch.float16, torch.bfloat16)
COMPLEX = (torch.complex64, torch.complex128)


def widened(x: Tensor) -> Tensor:
    """x, or x in float32 where it has half precision."""
    return x.float() if x.dtype in HALF else x


def as_complex(x: Tensor) -> Tensor:
    """The pairs (real, imaginary) along the last axis as complex numbers; a view where memory allows."""
    aligned = x.stride(-1) == 1 and not any(s % 2 for s in (*x.stride()[:-1], x.storage_offset()))
    return torch.view_as_complex(x if aligned else x.contiguous())


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a pytree lies in one real tensor.

    A complex number lies there as the pair of its real and imaginary part. The derivative with respect to
    such a pair is what PyTorch calls the gradient of a complex tensor, so the engine knows nothing of them.
    Half precision lies there as float32: func computes in it, and nothing is summed in it.

    single: the state is one tensor.
    shapes: of the leaves, in pytree order.
    batched: leaves are flattened from axis 1 on, and joined along the last axis.
    kind: the leaves' dtype where the engine has another.
    """

    spec: Any
    shapes: tuple[torch.Size, ...]
    single: bool
    batched: bool = False
    kind: torch.dtype | None = None

    @property
    def paired(self) -> bool:
        """Whether the leaves are complex."""
        return self.kind in COMPLEX

    @property
    def direct(self) -> bool:
        """Whether the state is one tensor and is not touched."""
        return self.single and self.kind is None

    @property
    def sizes(self) -> list[int]:
        """Numbers of each leaf in the packed tensor's last axis."""
        skip, each = 1 if self.batched else 0, 2 if self.paired else 1
        return [each * math.prod(shape[skip:]) for shape in self.shapes]

    def inside(self, leaf: Tensor) -> Tensor:
        """A leaf in the engine's real numbers."""
        return torch.view_as_real(leaf.resolve_conj()) if leaf.dtype in COMPLEX else widened(leaf)

    def pack(self, tree: Any) -> Tensor:
        """The pytree as one tensor."""
        return self.joined([self.inside(leaf) for leaf in pytree.tree_leaves(tree)])

    def joined(self, leaves: list[Tensor]) -> Tensor:
        """Leaves in the engine's numbers as one tensor."""
        if self.single:
            return leaves[0]
        if self.batched:
            return torch.cat([leaf.flatten(1) if leaf.dim() > 1 else leaf[:, None] for leaf in leaves], 1)
        return torch.cat([leaf.reshape(-1) for leaf in leaves])

    def time(self, t: Tensor) -> Tensor:
        """Per-sample times of the packed state, with the dimensions of y0's first leaf."""
        if self.direct or not self.batched:
            return t
        return t.view(-1, *[1] * (len(self.shapes[0]) - 1))

    def matched(self, tree: Any) -> list[Any] | None:
        """The leaves of a tree of the state's structure, in its order; None where it is another.

        Members of a dict go by their keys, whatever their order; a list will do for a tuple.
        """
        leaves, spec = pytree.tree_flatten(tree)
        return leaves if spec == self.spec else _aligned(tree, self.spec)

    def leaves(self, z: Tensor) -> list[Tensor]:
        """The leaves, views, half precision in float32; z may have further axes in front (times, stages)."""
        if self.single:
            return [as_complex(z) if self.paired else z]
        # The batch may have shrunk (compact), so its size is z's and not the leaf's.
        front = z.shape[:-1]
        pieces = torch.split(z, self.sizes, dim=-1)
        tails = [shape[1:] if self.batched else shape for shape in self.shapes]
        if self.paired:
            pairs = [piece.reshape((*front, *tail, 2)) for piece, tail in zip(pieces, tails, strict=True)]
            return [as_complex(pair) for pair in pairs]
        return [piece.reshape((*front, *tail)) for piece, tail in zip(pieces, tails, strict=True)]

    def unpack(self, z: Tensor) -> Any:
        """The pytree again; z may have further axes in front."""
        if self.direct:
            return z
        leaves = self.leaves(z)
        if self.kind in HALF:
            leaves = [leaf.to(self.kind) for leaf in leaves]
        return pytree.tree_unflatten(leaves, self.spec)

    def seen_by_norm(self, z: Tensor) -> Any:
        """The pytree as a norm gets it: scaled errors may be larger than half precision goes."""
        return pytree.tree_unflatten(self.leaves(z), self.spec)


def _aligned(tree: Any, spec: Any) -> list[Any] | None:
    """`Layout.matched` for one node."""
    if spec.is_leaf():
        return [tree]
    if isinstance(tree, dict):
        if not issubclass(spec.type, dict) or len(tree) != spec.num_children:
            return None
        keys = list(pytree.tree_unflatten(range(spec.num_leaves), spec))
        if set(keys) != set(tree):
            return None
        members = [tree[key] for key in keys]
    else:
        members = pytree.tree_leaves(tree, is_leaf=lambda node: node is not tree)
        if issubclass(spec.type, dict) or isinstance(tree, Tensor) or len(members) != spec.num_children:
            return None
    found: list[Any] = []
    for member, child in zip(members, spec.children(), strict=True):
        part = _aligned(member, child)
        if part is None:
            return None
        found += part
    return found


def layout_of(y0: Any, *, batched: bool = False, argument: str = "y0") -> Layout:
    """The layout of a state; checks that its leaves can be joined.

    Raises ArgumentTypeError for what is not a tensor, ArgumentError for no leaves, or leaves of
    several dtypes, devices or (batched) batch sizes.
    """
    leaves, spec = pytree.tree_flatten(y0)
    if not leaves:
        raise ArgumentError(f"{argument} holds no tensor: give a tensor, or a tuple, list or dict of them.")
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise ArgumentTypeError(
                f"{argument} holds a {type(leaf).__name__} ({leaf!r}); its leaves must be tensors: "
                "torch.as_tensor(...)."
            )
    for what in ("dtype", "device"):
        found = sorted({str(getattr(leaf, what)) for leaf in leaves})
        if len(found) > 1:
            raise ArgumentError(
                f"{argument}'s tensors have several {what}s ({', '.join(found)}): give all the same."
            )
    if batched:
        sizes = {leaf.shape[0] if leaf.dim() else None for leaf in leaves}
        if None in sizes or len(sizes) > 1:
            raise ArgumentError(
                f"{argument}: per-sample stepping needs axis 0 of each leaf to be the batch; the "
                f"shapes are {[tuple(leaf.shape) for leaf in leaves]}."
            )
    shapes, dtype = tuple(leaf.shape for leaf in leaves), leaves[0].dtype
    kind = dtype if dtype in (*HALF, *COMPLEX) else None
    return Layout(spec, shapes, isinstance(y0, Tensor), batched, kind)


def around() -> bool:
    """Whether a transform of torch.func is around the caller."""
    return torch._C._are_functorch_transforms_active()


def forwards() -> bool:
    """Whether forward-mode AD is on."""
    return forward_ad._current_level >= 0


def dual() -> bool:
    """Whether forward-mode AD is on by itself, outside torch.func, whose own cannot begin within it."""
    return forwards() and not around()


def transformed() -> bool:
    """Whether a transform of torch.func is around the caller, or forward-mode AD is on."""
    return around() or forwards()


def follows() -> bool:
    """Whether someone may follow plain operators: autograd, a transform around the caller, or forward-mode
    AD, which no_grad does not stop."""
    return torch.is_grad_enabled() or transformed()


def still_forwards() -> contextlib.AbstractContextManager[Any]:
    """Forward-mode AD as the caller of a torch.autograd.Function has it: torch stops it inside."""
    return forward_ad._set_fwd_grad_enabled(True) if forwards() else contextlib.nullcontext()


def leaf(x: Tensor) -> Tensor:
    """x without its history, to be differentiated by; forward-mode AD follows it as it does x."""
    with torch.no_grad():
        own = x.view_as(x) if forwards() else x.detach()
    return own.requires_grad_()


class Autocast:
    """The autocast state at the start of a solve, to run func under it again, then or later.

    The engine's own arithmetic runs without autocast: it would turn its products to half precision.
    """

    def __init__(self, device: torch.device):
        kind = device.type
        self.kind = kind
        # A device type without autocast raises where it is asked.
        self.enabled = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        self.dtype = torch.get_autocast_dtype(kind) if self.enabled else None

    def inside(self) -> contextlib.AbstractContextManager[Any]:
        """For calls of func."""
        if not self.enabled:
            return contextlib.nullcontext()
        return torch.autocast(self.kind, dtype=self.dtype)

    def outside(self) -> contextlib.AbstractContextManager[Any]:
        """For the engine's arithmetic."""
        if not self.enabled:
            return contextlib.nullcontext()
        return torch.autocast(self.kind, enabled=False)


class PackedFunction:
    """f(t, z) on the packed state from the user's func(t, y), or func(t, y, u) under an input.

    cast: torchdiffeq's manners: results of another floating dtype are converted to the state's, and members
        of a tuple, or a single number, may have further axes of length 1.
    """

    def __init__(self, func: Callable[..., Any], layout: Layout, autocast: Autocast, cast: bool):
        self.func, self.layout, self.autocast = func, layout, autocast
        self.manners, self.cast = cast, cast or autocast.enabled or layout.kind in HALF

    def __call__(self, t: Tensor, z: Tensor, *inputs: Tensor) -> Tensor:
        """dz on the packed state; func is given the inputs behind it."""
        version = None if z.is_inference() else z._version
        dz = self._evaluate(t, z, *inputs)
        if version is not None and z._version != version:
            raise DynamicsError(
                "func changed its y in place: the stages after it would begin from another state. Work on a "
                "copy (y.clone()), or write y = y + … for y += …."
            )
        return dz

    def _evaluate(self, t: Tensor, z: Tensor, *inputs: Tensor) -> Tensor:
        if self.layout.direct and not self.autocast.enabled:
            return self._checked(self.func(t, z, *inputs), z)
        with self.autocast.inside():
            dy = self.func(self.layout.time(t), self.layout.unpack(z), *inputs)
        if self.layout.single:
            return self.layout.inside(self._checked(dy, self.layout.leaves(z)[0]))
        return self._pack(dy, z)

    def _pack(self, dy: Any, z: Tensor) -> Tensor:
        """func's pytree as one tensor, each leaf checked against the state's."""
        leaves = self.layout.matched(dy)
        if leaves is None:
            found, spec = pytree.tree_flatten(dy)
            raise DynamicsError(
                f"func returned {len(found)} tensors ({spec}) for a state of {len(self.layout.shapes)} "
                f"({self.layout.spec}): return dy/dt in the structure of y."
            )
        likes = self.layout.leaves(z)
        return self.layout.pack([self._checked(k, y) for k, y in zip(leaves, likes, strict=True)])

    def _checked(self, k: Any, like: Tensor) -> Tensor:
        if self.manners and (not self.layout.single or like.numel() == 1):
            k = same_numbers(k, like)
        return check_derivative(k, like, self.cast)


class ValueField:
    """A function as a field that hands out values alone: nothing is saved, and no graph.

    mode: the grad mode that the function is called under, which may differentiate inside.
    """

    def __init__(self, f: Callable[[Tensor, Tensor], Tensor], mode: Callable[[], Any]):
        self.f, self.mode = f, mode

    def __call__(self, t: Tensor, z: Tensor) -> tuple[Tensor, None]:
        """Its value, detached."""
        with self.mode():
            return self.f(t, z).detach(), None


class CountedField:
    """A field that counts its calls in `stats.nfe`: what evaluations cost where the state has one clock."""

    def __init__(self, field: Callable[[Tensor, Tensor], tuple[Tensor, Any]], stats: Stats):
        self.field, self.stats = field, stats

    def __call__(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """The field's value, counted."""
        self.stats.nfe += 1
        return self.field(t, z)


class CountedBatches:
    """A field that counts its calls in `stats.n_calls`, for states whose samples may leave the batch; the
    march knows which samples an evaluation is for, and counts those.

    batch: the state's batch axis.
    whole: how many samples the solve began with.
    """

    def __init__(
        self, field: Callable[[Tensor, Tensor], tuple[Tensor, Any]], stats: Stats, batch: int, whole: int
    ):
        self.field, self.stats, self.batch, self.whole = field, stats, batch, whole

    def __call__(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """The field's value, counted; a failure with fewer samples says that func must not depend on them."""
        self.stats.n_calls += 1
        here = z.shape[self.batch]
        if here == self.whole:
            return self.field(t, z)
        try:
            return self.field(t, z)
        except (DynamicsError, RuntimeError, IndexError) as error:
            if isinstance(error, (SolverError, torch.OutOfMemoryError)):
                raise
            raise DynamicsError(
                f"func failed with the {here} of {self.whole} samples still under way, "
                "after it had worked with all of them. compact=True takes finished samples out of the "
                "batch, so func must hold no data of its own for each sample (put it into the state, "
                f"with derivative 0) or leave compact out. It said: {error}"
            ) from error
