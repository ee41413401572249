"""What all whole solves of one form of an owner share."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...solvers.device.native import Values, values_of
from ...solvers.device.programs import Row
from ...solvers.device.saved import Recipe, recipe_of
from ...solvers.device.whole import Form, Stand, form_key
from ..dynamics.protocol import Dynamics


class Plan(NamedTuple):
    """What all solves of one form of an owner share: the keys of its programs, and where its values stand.

    idle, sums: what a solve hands in that has not begun, and a walk, (λ, held, θ's sums): no program writes
        to them.
    kept: of each leaf that a stage keeps an example.
    latest: what the last solve began with.
    """

    form: Form
    solve_key: tuple[Any, ...]
    walk_key: tuple[Any, ...]
    values: Values
    idle: Stand
    sums: tuple[Tensor, Tensor, list[Tensor]]
    kept: tuple[Tensor, ...]
    latest: Latest


class Latest:
    """What was made last, made anew for another key."""

    def __init__(self) -> None:
        self._last: tuple[Hashable, Any] = (None, None)

    def find(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What belongs to the key; for None always anew."""
        known, found = self._last
        if key is None or key != known:
            found = make()
            self._last = (key, found)
        return found


def make_plan(
    of: tuple[nn.Module, Any, Any],
    form: Form,
    y: Tensor,
    places: int,
    kept: tuple[Tensor, ...],
    theta: tuple[Tensor, ...],
) -> Plan:
    """of: the owner, its fingerprint and its entries.  places: of the outputs."""
    owner, *known = of
    clocks = form.rules.clocks.shape(y)
    lanes = clocks[0] if clocks else 1
    likeness = (tuple(y.shape), y.stride(), str(y.dtype), str(y.device))
    key = (*known, likeness, (places, lanes), form_key(form))
    row = torch.zeros((len(Row._fields), *clocks), dtype=torch.float64, device=y.device)
    under_way = torch.zeros((), dtype=torch.bool, device=y.device)
    place = torch.ones(lanes, dtype=torch.int64, device=y.device)
    # Each a tensor of its own: an exported program takes two that are one for one ever after.
    idle = Stand(under_way, row, y, torch.zeros_like(y), place)
    sums = (torch.zeros_like(y), torch.zeros_like(y), [torch.zeros_like(p) for p in theta])
    return Plan(form, (*key, "solve"), (*key, "walk"), Values(owner), idle, sums, kept, Latest())


def kept_by(owner: Dynamics, t: Tensor, y: Tensor) -> tuple[Recipe, tuple[Tensor, ...]] | None:
    """How a stage's activations are made whole, and examples of the leaves that must be kept; None where they
    are not to be: views of the state that depend on its memory, or a copy of a parameter each time."""
    try:
        _, saved = owner.forward(t, y)
        recipe = recipe_of(saved, t, y)
        if recipe is None or recipe.views:
            return None
        leaves = recipe.lean(saved)
    except Exception:  # the solve itself raises func's own error
        return None
    homes = {x.untyped_storage().data_ptr() for x in values_of(owner).values()}  # type: ignore[arg-type]
    if any(x.untyped_storage().data_ptr() in homes or x.device != y.device for x in leaves):
        return None
    return recipe, tuple(torch.empty_like(x, device="meta") for x in leaves)
