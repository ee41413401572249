"""Models by name and task: how they are made, how many parameters they have, and widths that match."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..solvers.errors import ArgumentError, nearest
from .assemble import block_keywords, build
from .block import Block
from .checks import check_sizes
from .dynamics import (
    ANODE,
    GHBNODE,
    HBNODE,
    NODE,
    SONODE,
    AdamNODE,
    GNesterovNODE,
    MomentumNODE,
    NesterovNODE,
)
from .known import MODELS, TASKS, check_model, check_task
from .presets import BY_TASK, settings_of

OwnMaker = Callable[[int, int], Any]
_CLASSES: tuple[type[Block], ...] = (
    *(NODE, ANODE, SONODE, HBNODE, GHBNODE, AdamNODE),
    *(NesterovNODE, GNesterovNODE, MomentumNODE),
)
BLOCKS = {kind.__name__.lower(): kind for kind in _CLASSES}

# A choice, and no optimum: on the digits AdamNODE with 3 channels and 8 hidden ones and one with 8 and 4, of
# about as many parameters, learn alike (8 epochs, seeds 0, 1, 2: 91.9 and 92.1 %).
LEAST_HIDDEN = 8


@dataclasses.dataclass(frozen=True)
class Size:
    """One line of the table of models: how many parameters are learnt, and how far that is from a target.

    model, task: by name.
    parameters: how many numbers are learnt.
    target: the number asked for, or AdamNODE's where none was.
    width: the settings that decide it, such as {"hidden": 16}.
    """

    model: str
    task: str
    parameters: int
    target: int
    width: dict[str, int]

    @property
    def difference(self) -> int:
        """parameters − target."""
        return self.parameters - self.target


def names() -> tuple[str, ...]:
    """The models that `create` knows."""
    return MODELS


def tasks(model: str | None = None) -> tuple[str, ...]:
    """The tasks that there are settings for, or that a model has: all but densities for ANODE.

    model: by name; None for the tasks alone.
    """
    if model is None:
        return TASKS
    check_model(model)
    return tuple(task for task in TASKS if _why_not(model, task) == "")


def _why_not(model: str, task: str) -> str:
    """Why a model is none for a task; "" where it is one."""
    if "draws" not in BY_TASK[task] or BLOCKS[model] is not ANODE:
        return ""
    return (
        f"{model} appends zeros to x, which have no density, so it is no model for task {task!r}: take node, "
        "or a model with momenta, which are drawn (hbnode, ghbnode, adamnode, sonode)."
    )


def defaults(model: str, task: str) -> dict[str, Any]:
    """The settings of `create` by name, with the values they have where none are given.

    model, task: by name.
    """
    check_model(model)
    check_task(task)
    reason = _why_not(model, task)
    if reason:
        raise ArgumentError(f"model={reason}")
    found = {**block_keywords(BLOCKS[model]), **settings_of(model, task)}
    if "t" not in BY_TASK[task]:  # a sequence brings its own times
        del found["t"]
    return found


def create(
    model: str,
    task: str = "digits",
    *,
    match_parameters: int | None = None,
    field: OwnMaker | None = None,
    **overrides: Any,
) -> nn.Module:
    """Encoder → block → head as the command line trains it; weights from torch's global generator.

    model: "node", "anode", "sonode", "hbnode", "ghbnode", "adamnode", "nesterovnode", "gnesterovnode" or
        "momentumnode".
    task: "digits", "mnist", "cifar10" (x [B, C, H, W] → logits), "spiral", "circles" (x [B, 2] → logits),
        "silverbox" (the authors' linear field) and "silverbox-network" (x [B, L, 3] → outputs [B, L − n, 1],
        see `SeriesModel`), "robertson" (x [B, L, 4] → states [B, L − 1, 3], see `TrajectoryModel`),
        "density", "density-8x8" (x [B, 2], [B, 1, 8, 8] → log p(x) [B], see `DensityModel`).
    match_parameters: the width whose number of learnt parameters is nearest to this (see `matched`).
    field: your own in the place of ours, called with the channels that it takes and gives; it returns a
        module f(t, h), or a function without parameters.
    overrides: any setting by name (`defaults` lists them), such as widths, rates, solver settings, and
    ``block="identity"``, which puts the identity in the block's place, as a control.
    Raises ArgumentError for an unknown model, task or setting, with the nearest names, and for sizes
    that do not fit together.
    """
    settings = _settings(model, task, overrides)
    if match_parameters is not None and field is not None:
        raise ArgumentError(
            f"match_parameters={match_parameters} chooses the width of our field, and field=… is your own: "
            "leave one of the two out."
        )
    if match_parameters is not None:
        settings.update(matched(model, task, match_parameters, **overrides))
    return build(BLOCKS[model], settings if field is None else {**settings, "field": field})


def parameters(model: str, task: str, **overrides: Any) -> int:
    """How many numbers the model learns; no weights are drawn and no memory is used for them.

    model, task: by name.
    overrides: settings of `create`.
    """
    with torch.device("meta"):
        built = create(model, task, **overrides)
    return sum(p.numel() for p in built.parameters() if p.requires_grad)


def matched(model: str, task: str, target: int, **overrides: Any) -> dict[str, int]:
    """The width, {setting: value}, with the number of parameters nearest to target.

    model, task: by name.
    target: that number.
    overrides: settings of `create`.

    The width is ``hidden``; for a linear field, which has none, ``channels``. Where the registered channels
    (by their head) leave no room for 8 hidden ones, there are fewer channels too, as many as leave that room;
    channels or width among the overrides are left as they are.
    Raises ArgumentError for a target below 1 or where the width itself is among the overrides.
    """
    check_sizes(match_parameters=target)
    settings = _settings(model, task, overrides)
    name = "hidden" if settings["hidden"] else "channels"
    if name in overrides:
        raise ArgumentError(
            f"match_parameters={target} chooses {name}, given as {overrides[name]!r}: leave one out."
        )

    def width(least: int, fewer: dict[str, int]) -> tuple[int, dict[str, int]]:
        """(parameters, the width) nearest to target, at fewer channels."""
        count = functools.partial(parameters, model, task, **{**overrides, **fewer})
        chosen = {name: _nearest_width(lambda n: count(**{name: n}), target, least)}
        return count(**chosen), {**fewer, **chosen}

    if name == "channels":
        return width(1 + settings.get("augment", 0), {})[1]
    found: list[tuple[int, dict[str, int]]] = []
    for fewer in range(1 if {"channels", "augment"} & overrides.keys() else settings.get("channels", 1)):
        try:
            count, chosen = width(1, _with_fewer_channels(settings, fewer) if fewer else {})
        except ArgumentError:  # so few channels do not fit the task
            continue
        if chosen["hidden"] >= LEAST_HIDDEN:
            return chosen
        found.append((abs(count - target), chosen))
    return min(found, key=lambda pair: pair[0])[1]


def _with_fewer_channels(settings: dict[str, Any], fewer: int) -> dict[str, int]:
    """fewer channels of h; a model that appends zeros appends so many fewer."""
    width = {"channels": settings["channels"] - fewer}
    if "augment" in settings:
        if settings["augment"] <= fewer:
            raise ArgumentError("nothing would be left to append")
        width["augment"] = settings["augment"] - fewer
    return width


def _nearest_width(count: Callable[[int], int], target: int, least: int) -> int:
    """The n ≥ least with count(n), which grows with n, nearest to target; the less of two equally near."""
    low, high = least, 2 * least  # bracket the target, then bisect
    while count(high) < target:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < target else (low, middle)
    return min((low, high), key=lambda n: abs(count(n) - target))


def sizes(task: str | None = None, match_parameters: int | None = None) -> list[Size]:
    """The table of models by task, at their registered or their matched widths.

    task: None for all.
    match_parameters: the number of parameters that each width is matched to; None leaves the widths alone.
    """
    if task is not None:
        check_task(task)
    rows = []
    for each in TASKS if task is None else (task,):
        target = parameters("adamnode", each) if match_parameters is None else match_parameters
        for model in MODELS:
            if each not in tasks(model):
                continue
            if match_parameters is None:
                chosen = defaults(model, each)
                name = "hidden" if chosen["hidden"] else "channels"
                width = {name: chosen[name]}
            else:
                width = matched(model, each, match_parameters)
            rows.append(Size(model, each, parameters(model, each, **width), target, width))
    return rows


def _settings(model: str, task: str, overrides: dict[str, Any]) -> dict[str, Any]:
    settings = defaults(model, task)
    for name in overrides:
        if name not in settings:
            raise ArgumentError(f"{name!r} is not a setting of {model} on {task}: {nearest(name, settings)}")
    return {**settings, **overrides}
