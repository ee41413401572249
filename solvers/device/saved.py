"""What a field saves at a stage, as few tensors as a compiled step must hand out, and put together again.

Of what a field saves, some is a view of the stage's state, some is the time: these need not leave a
compiled step. One evaluation outside tells which is which.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

View = tuple[tuple[int, ...], tuple[int, ...], int]  # size, stride, offset into the state's memory


@dataclasses.dataclass(frozen=True)
class Recipe:
    """For each leaf of what a field saves: ("time", None), ("block", i) for the state's i-th block or None
    for the state itself, ("state", another View), ("kept", None) or ("none", None)."""

    spec: Any
    parts: tuple[tuple[str, Any], ...]

    @property
    def key(self) -> tuple[Any, ...]:
        """Hashable: what a program depends on."""
        return (str(self.spec), self.parts)

    @property
    def views(self) -> bool:
        """Whether a leaf is a view that depends on how the state lies in memory."""
        return any(kind == "state" for kind, _ in self.parts)

    def lean(self, saved: Any) -> list[Tensor]:
        """The leaves that must be kept. ValueError where saved is of another form than it was."""
        leaves, spec = pytree.tree_flatten(saved, is_leaf=_is_none)
        if spec != self.spec or any(
            (leaf is None) != (kind == "none") for leaf, (kind, _) in zip(leaves, self.parts, strict=True)
        ):
            raise ValueError("what a stage saves has another form than at the first evaluation")
        return [leaf for leaf, (kind, _) in zip(leaves, self.parts, strict=True) if kind == "kept"]

    def whole(self, time: Tensor, state: Tensor, lean: list[Tensor]) -> Any:
        """What the field saved, from the time, the stage's state and the leaves kept."""
        kept = iter(lean)
        leaves: list[Any] = []  # traced: dynamo does not know list[Any]()
        for kind, value in self.parts:
            if kind == "time":
                leaves.append(time)
            elif kind == "block":
                leaves.append(state if value is None else state[value])
            elif kind == "state":
                size, stride, offset = value
                memory = state.as_strided((state.numel(),), (1,))  # from its own beginning
                leaves.append(memory[offset:].as_strided(size, stride))
            else:
                leaves.append(next(kept) if kind == "kept" else None)
        return pytree.tree_unflatten(leaves, self.spec)


def _is_none(x: Any) -> bool:
    return x is None


def recipe_of(saved: Any, time: Tensor, state: Tensor) -> Recipe | None:
    """The recipe for what a field saved at (time, state); None where it holds other things than tensors
    and None in tuples, lists and dicts (a number may be another the next time), or a graph of autograd's."""
    leaves, spec = pytree.tree_flatten(saved, is_leaf=_is_none)
    parts: list[tuple[str, Any]] = []
    home = state.untyped_storage().data_ptr()
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            if leaf.grad_fn is not None:
                return None
            if leaf is time or (leaf.dim() == 0 and leaf.data_ptr() == time.data_ptr()):
                parts.append(("time", None))
            elif leaf.dtype == state.dtype and leaf.untyped_storage().data_ptr() == home:
                parts.append(_within(leaf, state))
            else:
                parts.append(("kept", None))
        elif leaf is None:
            parts.append(("none", None))
        else:
            return None
    return Recipe(spec, tuple(parts))


def _within(leaf: Tensor, state: Tensor) -> tuple[str, Any]:
    """The part that a view of the state is."""
    offset, form = int(leaf.storage_offset() - state.storage_offset()), (leaf.shape, leaf.stride())
    if form == (state.shape, state.stride()) and not offset:
        return "block", None
    if state.dim() and form == (state.shape[1:], state.stride()[1:]):
        number, rest = divmod(offset, state.stride(0)) if state.stride(0) else (0, offset)
        if not rest and 0 <= number < len(state):
            return "block", number
    return "state", (tuple(leaf.shape), leaf.stride(), offset)


@dataclasses.dataclass(frozen=True)
class Last:
    """What a step's last stage kept."""

    recipe: Recipe
    time: Tensor
    state: Tensor
    lean: list[Tensor]

    def whole(self) -> Any:
        """What the field saved."""
        return self.recipe.whole(self.time, self.state, self.lean)


class KeptStages:
    """What the stages after the first saved, made whole when asked for: a sequence like a step's `saved`,
    whose first entry comes from the step before."""

    def __init__(self, recipe: Recipe, times: list[Tensor], states: list[Tensor], lean: list[Any]):
        self.recipe, self.times, self.states, self.lean = recipe, times, states, lean
        self.first: Any = None
        self.further: list[Any] = []

    def begin(self, first: Any) -> None:
        """Takes the first stage's: what was saved, or the `Last` of the step before."""
        self.first = first

    def end(self) -> Last:
        """The last stage's."""
        return Last(self.recipe, self.times[-1], self.states[-1], self.lean[-1])

    def append(self, saved: Any) -> None:
        """Of a stage that only the dense output needs."""
        self.further.append(saved)

    def __len__(self) -> int:
        return len(self.states) + 1 + len(self.further)

    def __getitem__(self, i: int) -> Any:
        if i == 0 or i == -len(self):
            return self.first.whole() if isinstance(self.first, Last) else self.first
        j = i - 1 if i > 0 else len(self) + i - 1
        if j >= len(self.states):
            return self.further[j - len(self.states)]
        return self.recipe.whole(self.times[j], self.states[j], self.lean[j])
