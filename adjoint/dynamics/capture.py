"""What an evaluation of func depends on besides its arguments, read from its autograd graph."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge


@dataclasses.dataclass(frozen=True)
class Captured:
    """leaves: tensors that need a gradient and that the graph reaches.  foreign: the name of an
    operation outside func whose result func uses (then that result's history is outside the solve)."""

    leaves: list[Tensor]
    foreign: str | None


def mark() -> int:
    """A number: operations recorded from now on have a higher one."""
    with torch.enable_grad():
        node = (torch.zeros((), dtype=torch.float32, device="cpu", requires_grad=True) + 0).grad_fn
    assert node is not None
    return node._sequence_nr()


def captured(dz: GradientEdge | None, z: Tensor, known: Sequence[Tensor], since: int) -> Captured:
    """Walks dz's graph back to z, to the tensors in `known` (leaves or not), and to everything else.

    since: `mark()` before the evaluation.
    """
    stops = {p.grad_fn for p in known if p.grad_fn is not None}
    names = {id(p) for p in known} | {id(z)}
    leaves: dict[int, Tensor] = {}
    foreign: str | None = None
    seen: set[Any] = set(stops)
    stack: list[Any] = [] if dz is None else [dz.node]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and not node.next_functions:
            if id(variable) not in names:
                leaves[id(variable)] = variable
        elif node._sequence_nr() < since:
            foreign = node.name()
        else:
            stack.extend(parent for parent, _ in node.next_functions)
    return Captured(list(leaves.values()), foreign)


def describe(tensor: Tensor, func: Callable[..., Any]) -> str:
    """The tensor's name in func's closure or globals where it has one, and its shape."""
    for name, value in _surroundings(func):
        if value is tensor:
            return f"{name}, shape {tuple(tensor.shape)}"
        if isinstance(value, nn.Module):
            for inner, p in value.named_parameters():
                if p is tensor:
                    return f"{name}.{inner}, shape {tuple(tensor.shape)}"
    return f"a tensor of shape {tuple(tensor.shape)}"


def _surroundings(func: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """Names and values that func can see outside itself."""
    target = func.forward if isinstance(func, nn.Module) else func
    try:
        seen = inspect.getclosurevars(getattr(target, "__func__", target))
    except TypeError:
        return
    yield from seen.nonlocals.items()
    yield from seen.globals.items()
    owner = getattr(target, "__self__", None)
    if owner is not None:
        yield from (("self." + name, value) for name, value in vars(owner).items())
