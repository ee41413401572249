"""A model as a folder that nothing has to be unpickled from: its parts in JSON, its numbers in safetensors.

    <folder>/config.json         what the model is made of, the weights' SHA-256, the card
            /model.safetensors   every parameter and buffer
            /README.md           the card, to read

`describe` says what a module is made of: its class and the arguments that make it anew. Only classes of this
package (and two of torch's layers) are described; anything else is told as the user's own, and `load` asks
for it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ..solvers.errors import ArgumentError
from ..solvers.write_aside import write_aside
from .provenance import git_state

FORMAT = "adamode-model-1"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
TORCHS_OWN = {"Linear": ("in_features", "out_features"), "Identity": ()}
Describe = Callable[[Any], dict[str, Any]]
# Arguments that are not kept under their own names; all others are attributes.
_ARGUMENTS: dict[str, Describe] = {
    "MLP": lambda m: {
        "dim": m.channels_in,
        "hidden": [layer.out_features for layer in m.layers[:-1]],
        "out_dim": m.channels_out,
    },
    "Linear": lambda m: {"dim": m.channels_in, "out_dim": m.channels_out, "scale": 1.0},
    "Conv": lambda m: {
        "channels": m.channels_in,
        "hidden": m.layers[0].out_channels,
        "out_channels": m.channels_out,
    },
    "Relaxing": lambda m: {"rates": m.rates.tolist()},
    "ConvEncoder": lambda m: {
        "in_channels": m.conv.in_channels,
        "out_channels": m.conv.out_channels,
        "kernel": m.conv.kernel_size[0],
    },
    "DeepConvEncoder": lambda m: {
        "in_channels": m.layers[0].in_channels,
        "hidden": m.layers[0].out_channels,
        "out_channels": m.layers[2].out_channels,
    },
    "LearnedStart": lambda m: {"channels": len(next(m.parameters()))},
    "PoolHead": lambda m: {
        "channels": m.linear.in_features // m.cells**2,
        "classes": m.linear.out_features,
    },
    "FlatHead": lambda m: {"features": m.linear.in_features, "classes": m.linear.out_features},
    "GNesterovNODE": lambda m: _without_force(m.dynamics),
    "GeneralisedNesterovODE": lambda m: _without_force(m),
    "SeriesStart": lambda m: {
        "others": [*m.drawn, *([] if m.squared is None else [m.squared])],
        "scale": 1.0,  # of weights that are replaced
    },
}


def _of_flow(flow: Any) -> dict[str, Any]:
    if flow.base is not None or getattr(flow.density, "trace", "exact") != "exact":
        raise ArgumentError(
            "a flow with a base of its own, or a trace by probes, cannot be saved: save its block, and make "
            "the flow anew from that."
        )
    return {"block_or_dynamics": describe(flow.block), "auxiliary": _value(flow.auxiliary), "base": None}


_ARGUMENTS["Flow"] = _of_flow


def _without_force(dynamics: Any) -> dict[str, Any]:
    """Whether there is a number ξ among the weights, the arguments say."""
    return {} if dynamics.scalars else {"xi": None}


def save(module: nn.Module, folder: str | os.PathLike[str], card: Mapping[str, Any] | None = None) -> Path:
    """Writes a model, or a block, into ``folder``, which is made; returns its path. Nothing is pickled.

    card: what is known beside the model (data, seed, evaluations …), as JSON has it; torch's version and the
        commit are added.
    Raises: ArgumentError for a folder that holds other files under these names, or cannot be written, and for
    what JSON or safetensors cannot hold.
    """
    place = Path(folder)
    _refuse_others(place)
    tensors = {name: _plain(name, value) for name, value in module.state_dict().items()}
    weights = safetensors.torch.save(tensors, metadata={"format": "pt"})
    told = {**(card or {}), **_origin(module)}
    content = {
        "format": FORMAT,
        "module": describe(module),
        "frozen": [name for name, p in module.named_parameters() if not p.requires_grad],
        "sha256": hashlib.sha256(weights).hexdigest(),
        "card": told,
    }
    try:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"card={card!r} cannot be written as JSON: {error}.") from error
    try:
        place.mkdir(parents=True, exist_ok=True)
        write_aside(place / WEIGHTS, weights)
        write_aside(place / CONFIG, text + "\n")
        write_aside(place / CARD, page(type(module).__name__, told))
    except OSError as error:
        raise ArgumentError(f"folder={str(folder)!r} cannot be written ({error}); choose another.") from error
    return place


def describe(module: Any) -> dict[str, Any]:
    """{"class", "arguments"} of a part of this package, {"own": its name} of anything else.

    Raises: ArgumentError for a block that solves in groups of samples, which are those of one batch.
    """
    cls = type(module)
    if cls.__name__ == "AutogradField" and _is_ours(cls):
        inner = describe(module.func)
        if "own" in inner:  # a block makes the adapter anew
            return inner
        return {"class": cls.__name__, "arguments": {"func": inner, "joined": module.joined}}
    if isinstance(module, nn.Module) and cls.__module__.startswith("torch.nn."):
        if cls.__name__ in TORCHS_OWN:
            found = {name: getattr(module, name) for name in TORCHS_OWN[cls.__name__]}
            return {"class": f"torch.nn.{cls.__name__}", "arguments": found}
    elif _is_ours(cls):
        return {"class": cls.__name__, "arguments": _arguments(module)}
    named = module if inspect.isroutine(module) else cls
    return {"own": f"{named.__module__}.{named.__qualname__}"}


def _is_ours(cls: type) -> bool:
    return cls.__module__.startswith(__name__.rpartition(".")[0] + ".")


def _arguments(module: Any) -> dict[str, Any]:
    """The arguments that make a part of this package anew, its weights apart."""
    found = _ARGUMENTS.get(type(module).__name__, lambda m: {})(module)
    settings = getattr(module, "settings", None)
    if dataclasses.is_dataclass(settings):
        found.update(_solver(settings))
    init = type(module).__init__
    parameters = {} if init is nn.Module.__init__ else inspect.signature(init).parameters
    for name, parameter in parameters.items():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:  # the parts of a sum
            found[name] = [_value(part) for part in getattr(module, name)]
        elif name not in ("self", *found) and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            value = getattr(getattr(module, "dynamics", module), name, getattr(module, name, None))
            # A number that is learnt stands among the weights.
            if not isinstance(value, Tensor) and (value is not None or parameter.default is None):
                found[name] = _value(value)
            elif parameter.default is inspect.Parameter.empty:
                raise ArgumentError(
                    f"{type(module).__name__}: its argument {name} is not known any more; it cannot be saved."
                )
    return found


def _solver(settings: Any) -> dict[str, Any]:
    """How a block solves; dt0 and penalties are a training run's."""
    found = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    found = {name: value for name, value in found.items() if name not in ("dt0", "penalties")}
    if isinstance(found["stepping"], Tensor):
        raise ArgumentError(
            "stepping=tensor: the block solves in groups of samples, which are those of one batch: set "
            "stepping='per_sample' or 'shared' before it is saved."
        )
    gradient = found["gradient"]
    if gradient is not None:
        found["gradient"] = {"class": type(gradient).__name__, "arguments": dataclasses.asdict(gradient)}
    return {**found, "t": list(found["t"])}


def _value(value: Any) -> Any:
    """A part, or something that JSON has."""
    if isinstance(value, nn.Module) or callable(value):
        return describe(value)
    return list(value) if isinstance(value, tuple) else value


def _plain(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise ArgumentError(f"the module's state {name!r} is a {type(value).__name__}, not a tensor.")
    return value.detach().cpu().contiguous().clone()  # safetensors refuses shared memory


def _refuse_others(place: Path) -> None:
    """A folder may hold a model saved before, and files of other names."""
    if place.exists() and not place.is_dir():
        raise ArgumentError(f"folder={str(place)!r} is a file; name a folder.")
    if not any((place / name).exists() for name in (CONFIG, WEIGHTS, CARD)):
        return
    try:
        there = json.loads((place / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        there = None
    if not isinstance(there, dict) or there.get("format") != FORMAT:
        raise ArgumentError(
            f"folder={str(place)!r} holds files called {CONFIG}, {WEIGHTS} or {CARD} that are no saved "
            "model; choose another folder."
        )


def _origin(module: nn.Module) -> dict[str, Any]:
    parameters = list(module.parameters())
    found: dict[str, Any] = {
        "parameters": sum(p.numel() for p in parameters),
        "dtype": sorted({str(p.dtype).removeprefix("torch.") for p in parameters}),
        "torch": str(torch.__version__),
        "commit": git_state(),
    }
    last = getattr(module, "last_stats", None)
    spent = {name: getattr(last, name, None) for name in ("nfe", "nfe_backward")}
    counts = {name: n for name, n in spent.items() if isinstance(n, int) and n}
    return {**found, "last_solve": counts} if counts else found


def page(name: str, card: Mapping[str, Any]) -> str:
    """The card as a page of Markdown, with the heading that model hubs read."""
    lines = ["---", "library_name: adamode", "tags:", "- neural-ode", "---", "", f"# {name}", ""]
    lines += ["| what | value |", "|---|---|"]
    for key, value in card.items():
        told = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        lines.append(f"| {key} | {str(told).replace('|', chr(92) + '|').replace(chr(10), '<br>')} |")
    lines += ["", "```text", "import adamode", 'model = adamode.load("FOLDER")', "```", ""]
    return "\n".join(lines)
