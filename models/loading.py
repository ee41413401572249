"""A saved model read back: our own classes by name, weights from safetensors; no code is run from files."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ..adjoint import gradients
from ..solvers.errors import AdamodeError, ArgumentError, CheckpointError, nearest
from . import block, density_model, dynamics, fields, flow, model, series, trajectory
from .saving import CONFIG, FORMAT, TORCHS_OWN, WEIGHTS

# What making parts from wrong numbers was seen to raise; torch's own are RuntimeErrors.
_UNMADE = (AdamodeError, TypeError, ValueError, KeyError, AttributeError, RuntimeError, OverflowError)
_ROOMS = (fields, dynamics, model, series, trajectory, block, flow, density_model)
Own = Callable[..., Any]


def load(folder: str | os.PathLike[str], **own: Own) -> nn.Module:
    """The model, or block, that ``save`` wrote into a folder, on the CPU, with its weights and dtypes.

    folder: that one.
    own: the parts that are not this package's, by the name of the argument that they were given as, such as
        ``field=Net()``; their weights are read from the folder. An error says which are needed.
    The global random numbers do not move. `card` reads the model's card.
    Raises: CheckpointError for a folder that holds no such model, or a damaged one; ArgumentError where a
    part of your own is missing, is not needed or does not fit.
    """
    place = Path(folder)
    content = _read(place)
    tensors = _weights(place, content["sha256"])
    maker = _Maker(str(place), own)
    with torch.random.fork_rng(devices=[]):
        try:
            made = maker.made(content["module"], "module")
        except ArgumentError as error:
            if maker.asked:
                raise
            raise _damaged(place, str(error)) from error
        except _UNMADE as error:
            raise _damaged(place, str(error)) from error
    if not isinstance(made, nn.Module):
        raise _damaged(place, f"its module is {made!r}")
    for name in own:
        if name not in maker.used:
            raise ArgumentError(
                f"{name}=…: the model in {str(place)!r} takes no such part: "
                f"{nearest(name, maker.used) if maker.used else 'all of its parts are known; leave it out.'}"
            )
    _fill(made, tensors, place)
    for name, p in made.named_parameters():
        p.requires_grad_(name not in content["frozen"])
    return made


def card(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The card of a saved model: its parameters, versions, commit; data, seed, evaluations where known.

    folder: that ``save`` wrote.
    Raises: CheckpointError for a folder that holds no such model.
    """
    told: dict[str, Any] = _read(Path(folder))["card"]
    return told


class _Maker:
    """Makes parts from their descriptions, and remembers which of the user's were used.

    asked: whether something of the user's was missing or wrong, so that the fault is not the file's.
    """

    def __init__(self, folder: str, own: dict[str, Own]):
        self.folder, self.own, self.asked = folder, own, False
        self.used: set[str] = set()
        self.classes: dict[str, Any] = {f"torch.nn.{name}": getattr(nn, name) for name in TORCHS_OWN}
        for room in (*_ROOMS, gradients):
            ours = inspect.getmembers(room, inspect.isclass)
            self.classes.update((name, cls) for name, cls in ours if cls.__module__.startswith(_package()))

    def made(self, told: Any, argument: str) -> Any:
        """A part from its description, given as this argument; other values are themselves."""
        if isinstance(told, list):
            return [self.made(one, argument) for one in told]
        if not isinstance(told, dict):
            return told
        if "own" in told:
            return self._own(str(told["own"]), argument)
        name, arguments = told["class"], told["arguments"]
        if name not in self.classes:
            raise CheckpointError(f"it has a part {name!r} that this version does not know")
        cls = self.classes[name]
        kinds = inspect.signature(cls.__init__).parameters
        many = [n for n in arguments if n in kinds and kinds[n].kind is inspect.Parameter.VAR_POSITIONAL]
        values = {n: self.made(value, n) for n, value in arguments.items()}
        parts = [part for n in many for part in values.pop(n)]
        tuples = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
        return cls(*parts, **tuples)

    def _own(self, what: str, argument: str) -> Any:
        if argument not in self.own:
            self.asked = True
            raise ArgumentError(
                f"{argument}: the model in {self.folder!r} has a part of your own there, {what}; give one: "
                f"adamode.load({self.folder!r}, {argument}=…)."
            )
        part = self.own[argument]
        if not callable(part):
            self.asked = True
            raise ArgumentError(
                f"{argument}={part!r} cannot be called; give a module like {what}, whose place it takes."
            )
        self.used.add(argument)
        return part


def _package() -> str:
    return __name__.split(".")[0] + "."


def _read(place: Path) -> dict[str, Any]:
    try:
        content = json.loads((place / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"folder={str(place)!r} holds no saved model: {CONFIG} cannot be read ({error}). Give a folder "
            "that save(folder) wrote; that of a training run is read by `adamode evaluate`."
        ) from error
    keys = {"module", "frozen", "sha256", "card"}
    if not isinstance(content, dict) or content.get("format") != FORMAT or not content.keys() >= keys:
        raise CheckpointError(
            f"{str(place / CONFIG)!r} was not written by save(folder) of this version (format={FORMAT!r} "
            f"with {', '.join(sorted(keys))} is needed)."
        )
    frozen = content["frozen"]
    if not isinstance(frozen, list) or not all(isinstance(name, str) for name in frozen):
        raise _damaged(place, f"frozen={frozen!r} must be a list of names")
    return content


def _weights(place: Path, sha256: str) -> dict[str, Tensor]:
    path = place / WEIGHTS
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{str(path)!r} cannot be read ({error}).") from error
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise CheckpointError(
            f"{str(path)!r} is not the file that {CONFIG} was written with (another SHA-256): it is damaged, "
            "or one of the two is of another model. Save the model again."
        )
    try:
        return safetensors.torch.load(raw)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{str(path)!r} is not a safetensors file ({error}).") from error


def _fill(made: nn.Module, tensors: dict[str, Tensor], place: Path) -> None:
    """Weights in the dtypes that they were saved in."""
    for name, value in [*made.named_parameters(), *made.named_buffers()]:
        if name in tensors and value.dtype != tensors[name].dtype:
            value.data = value.data.to(tensors[name].dtype)
    try:
        made.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"the weights in {str(place)!r} do not fit the model: {error}") from error


def _damaged(place: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{str(place / CONFIG)!r} describes no model that this version can make: {reason.rstrip('.')}. It is "
        "damaged, or of another version."
    )
