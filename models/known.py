"""What models and their settings are called. Without torch, so that a misspelt name is refused at once."""

from __future__ import annotations

from typing import Literal, get_args

from ..solvers.errors import check_choice

MODELS = (
    *("node", "anode", "sonode", "hbnode", "ghbnode", "adamnode"),
    *("nesterovnode", "gnesterovnode", "momentumnode"),
)
TASKS = (
    *("digits", "mnist", "cifar10", "silverbox", "silverbox-network", "robertson"),
    *("spiral", "circles", "density", "density-8x8"),
)
DenominatorName = Literal["exact", "softplus", "sigmoid"]
DENOMINATORS: tuple[DenominatorName, ...] = get_args(DenominatorName)
DampingName = Literal["constant", "nesterov", "learned"]
DAMPINGS: tuple[DampingName, ...] = get_args(DampingName)
SaturationName = Literal["identity", "tanh", "hardtanh"]
SATURATIONS: tuple[SaturationName, ...] = get_args(SaturationName)


def check_model(model: str) -> None:
    """Raises ArgumentError, with the nearest names, for a model that is not known."""
    check_choice("model", model, MODELS)


def check_task(task: str) -> None:
    """The same for a task."""
    check_choice("task", task, TASKS)
