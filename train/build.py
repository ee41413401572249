"""From settings to a model."""

from __future__ import annotations

from typing import Any

from torch import nn

from .. import models
from ..adjoint.gradients import Backsolve, Direct, Discrete, Interpolating, Reversible
from ..solvers.errors import ArgumentError
from .config import TrainConfig
from .data import OWN, model_task
from .filled import plain
from .own import built, is_own, own_field
from .own_settings import fitted, preset

_GRADIENTS = {
    "discrete": Discrete,
    "interpolating": Interpolating,
    "backsolve": Backsolve,
    "direct": Direct,
    "reversible": Reversible,
}


def build_for_training(config: TrainConfig) -> nn.Module:
    """`build_model`, compiled where the configuration says so."""
    return build_model(config, compile=config.compile)


def build_model(config: TrainConfig, *, compile: bool = False) -> nn.Module:
    """Encoder → block → head as the configuration says; weights from torch's global generator.

    compile: the block's; not the configuration's, since a single pass (`adamode evaluate`, `predict`) is
    over before a program is compiled.

    Raises: ArgumentError for an unknown model, with the nearest names.
    """
    if config.build or is_own(config.model):
        named = {"build": config.build} if config.build else {"model": config.model}
        ((argument, text),) = named.items()
        return built(text, config, argument)
    overrides: dict[str, Any] = {
        "rtol": config.rtol,
        "atol": config.atol,
        "method": config.method,
        "stepping": config.stepping,
        "gradient": _GRADIENTS[config.gradient](),
    }
    task = model_task(config.dataset)
    if compile:
        overrides["compile"] = True
    if config.sync_every > 1:
        overrides["sync_every"] = config.sync_every
    for name in ("denominator", "damping", "alpha", "beta", "gamma", "xi"):
        if getattr(config, name):  # else the model has none
            overrides[name] = getattr(config, name)
    registered = preset(config.model, config.dataset, config.data_sizes)
    for name in ("state_unit", "field_scale", "field_gain", "shift"):
        if name in registered:
            overrides[name] = getattr(config, name)
    if config.dataset in OWN:
        if not config.data_sizes:
            raise ArgumentError(
                f"model={config.model!r} is for images, points or recordings, and data of the kind "
                f"{config.dataset!r} are none of these: give a builder of your own, --model module:function."
            )
        overrides.update(fitted(models.defaults(config.model, task), config.dataset, config.data_sizes))
    if config.field:
        overrides["field"] = own_field(config.field)
    for name in ("hidden", "channels"):
        # 0 leaves a width to match_parameters; else it is what was asked for, and refused if it can't be.
        if name in registered and (getattr(config, name) or not config.match_parameters):
            overrides[name] = getattr(config, name)
    if config.match_parameters:
        overrides["match_parameters"] = config.match_parameters
    if config.block == "identity":
        overrides["block"] = "identity"
    return models.create(config.model, task=task, **{name: plain(value) for name, value in overrides.items()})
