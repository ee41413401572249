"""Any pytree of tensors as one tensor, and back.

A single tensor travels as it is. Leaves of several shapes are laid flat side by side: [n] with one
step size for all, [B, n] where steps are per sample (the batch is axis 0 of each leaf). Packing is
made of differentiable operations, so autograd sees through it.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..errors import ArgumentError, ArgumentTypeError


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a pytree lies in one tensor.

    single: the state is one tensor and is not touched.  shapes: of the leaves, in pytree order.
    batched: leaves are flattened from axis 1 on, and joined along the last axis.
    """

    spec: Any
    shapes: tuple[torch.Size, ...]
    single: bool
    batched: bool = False

    @property
    def sizes(self) -> list[int]:
        """Entries of each leaf in the packed tensor's last axis."""
        skip = 1 if self.batched else 0
        return [math.prod(shape[skip:]) for shape in self.shapes]

    def pack(self, tree: Any) -> Tensor:
        """The pytree as one tensor."""
        leaves = pytree.tree_leaves(tree)
        if self.single:
            return leaves[0]
        start = 1 if self.batched else 0
        if self.batched:
            return torch.cat([leaf.flatten(start) if leaf.dim() > 1 else leaf[:, None] for leaf in leaves], 1)
        return torch.cat([leaf.reshape(-1) for leaf in leaves])

    def time(self, t: Tensor) -> Tensor:
        """Per-sample times of the packed state, with the dimensions of y0's first leaf."""
        if self.single or not self.batched:
            return t
        return t.view(-1, *[1] * (len(self.shapes[0]) - 1))

    def matched(self, tree: Any) -> list[Any] | None:
        """The leaves of a tree of the state's structure, in its order; None where it is another.

        Members of a dict go by their keys, whatever their order; a list will do for a tuple.
        """
        leaves, spec = pytree.tree_flatten(tree)
        return leaves if spec == self.spec else _aligned(tree, self.spec)

    def leaves(self, z: Tensor) -> list[Tensor]:
        """Views of the leaves; z may have further axes in front (times, stages)."""
        if self.single:
            return [z]
        # The batch may have shrunk (compact), so its size is z's and not the leaf's.
        front = z.shape[:-1]
        pieces = torch.split(z, self.sizes, dim=-1)
        tails = [shape[1:] if self.batched else shape for shape in self.shapes]
        return [piece.reshape((*front, *tail)) for piece, tail in zip(pieces, tails, strict=True)]

    def unpack(self, z: Tensor) -> Any:
        """The pytree again; z may have further axes in front."""
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
    shapes = tuple(leaf.shape for leaf in leaves)
    return Layout(spec, shapes, isinstance(y0, Tensor), batched)
