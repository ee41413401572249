"""From settings to a model."""

from __future__ import annotations

from typing import Any

from torch import nn

from .. import models
from ..adjoint.gradient import Backsolve, Direct, Discrete, Interpolating
from .config import TrainConfig
from .data import model_task

_GRADIENTS = {
    "discrete": Discrete,
    "interpolating": Interpolating,
    "backsolve": Backsolve,
    "direct": Direct,
}


def build_model(config: TrainConfig) -> nn.Module:
    """Encoder → block → head as the configuration says; weights from torch's global generator.

    Raises: ArgumentError for an unknown model, with the nearest names.
    """
    overrides: dict[str, Any] = {
        "rtol": config.rtol,
        "atol": config.atol,
        "method": config.method,
        "stepping": config.stepping,
        "gradient": _GRADIENTS[config.gradient](),
    }
    if config.denominator:
        overrides["denominator"] = config.denominator
    for name in ("hidden", "channels", "match_parameters"):
        if getattr(config, name):
            overrides[name] = getattr(config, name)
    if config.block == "identity":
        overrides["block"] = "identity"
    return models.create(config.model, task=model_task(config.dataset), **overrides)
