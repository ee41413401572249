"""All settings of a run in one frozen dataclass, checked when made."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ..solvers.errors import ArgumentError, ArgumentTypeError, nearest
from .checks import (
    POSITIVE,
    check_count,
    check_name,
    check_settings,
    check_text,
    checked_finite,
    checked_positive,
)
from .data import OWN, DataOptions, DataSet, default_normalise
from .filled import filled, is_filled, plain
from .known import ARRAYS, NOT_COMPARED
from .own_settings import OwnSettings, fits, kind_of, preset, run_name, settled, told
from .recipes import ANY_DATA, RECIPES, Recipe
from .regularise import weights_of
from .run_files import TABLES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Schedules whose first steps do not depend on how many there will be: such a run can be made longer.
OPEN_ENDED = frozenset({"constant", "decay"})

# Settings whose default belongs to the model as it is registered for the task.
_OF_THE_MODEL = ("rtol", "atol", "method", "stepping")
_SCALES = ("state_unit", "field_scale", "field_gain")
# What only some models have, and what stands for having none.
_OF_SOME: dict[str, Any] = {
    "denominator": "",
    "damping": "",
    "shift": 0.0,
    "hidden": 0,
    "channels": 0,
    **dict.fromkeys(_SCALES, 1.0),
}
_OF_SOME |= dict.fromkeys(("alpha", "beta", "gamma", "xi"), 0.0)
_TO_FILL_IN: Any = None  # an object once made has none of these, so its fields are not optional


@dataclasses.dataclass(frozen=True)
class TrainConfig(OwnSettings):
    """Settings of a training run. Values that are None are filled in when the object is made, and filled in
    anew by `dataclasses.replace`, which keeps those that were given. Its repr shows these; `toml` has all.

    model, dataset: names in the registries; a model "package.module:function" is made by that builder.
    data, split, inputs, outputs, image_size, sizes, field, build: see `OwnSettings`.
    block: "ode", or "identity" to train the same model without the block (a control).
    epochs: None takes the data set's recipe, as for the next four.
    batch_size: samples of one optimiser step, over all processes.
    lr: Adam's first step size.
    schedule: "cosine" brings it down to 0 at the last step; "constant"; "decay": ×0.95 each 1,000 steps.
    clip: gradients of a larger norm are scaled down to it.
    rtol, atol: of the solver, forwards and backwards; None takes what the model is registered with for the
        task, as for the next five.
    method, stepping: as in `adamode.solve`.
    state_unit: what is 1 in the block's state, in the data's unit (Silverbox: 10 mV; others: what the encoder
        gives).
    field_scale, field_gain: s and g of the field g·F(s·h): see `adamode.models.fields.Scaled`. Densities have
        none of these three.
    denominator: AdamNODE's D(v); "" for models without one.
    alpha, beta, gamma, xi: start values of AdamNODE's α and β and of the heavy balls' γ and ξ; 0 for models
        without.
    damping: MomentumNODE's: "constant" γ, "nesterov" 3/τ or "learned" γ + r/τ; "" for models without.
    shift: of the time, τ = t + shift, in the damping of NesterovNODE, GNesterovNODE and MomentumNODE.
    hidden: width of the field.
    channels: of the block's h; 0 where there is no such width, or it is matched.
    match_parameters: the width whose number of parameters is nearest to this; 0 leaves the widths alone.
    gradient: "discrete", "interpolating", "backsolve", "direct" or "reversible".
    compile, sync_every: as in `adamode.solve`; the numbers agree to rounding. What is made once (the test,
        `adamode evaluate`) is not compiled.
    hand_on_dt: a training batch starts with the step size that the last one ended with, which saves an
        evaluation of f; shared stepping only.
    regularise: penalties of the solver that training adds to the loss, each with its weight, a mean over
        samples: "error=0.1", "error=0.1,kinetic=0.01"; "" for none (docs/penalties.md).
    patience: stop after so many epochs in a row without a better validation; 0 never does.
    accumulate: cut each batch into so many pieces, one backward pass each, to save memory.
    amp: "bf16" runs encoder, head and field under autocast; the solver's state keeps its dtype.
    dtype: of weights, inputs and state; None takes the data set's recipe.
    deterministic: torch's deterministic algorithms only.
    test_every_epoch: measure the test set after every epoch too, for curves of it; it chooses nothing.
    on_solver_error: "stop", or "skip" to leave out a batch that cannot be solved and go on.
    seed: of the weights and the order of the samples.
    device: "cpu", "cuda", "cuda:1" ….
    threads: of torch on the CPU.
    checkpoint_every: optimiser steps between checkpoints inside an epoch (one is written at the end of every
        epoch anyway).
    tensorboard: write its event files too.
    data_dir: folder of the data files; "" is the environment variable ADAMODE_DATA.
    download: fetch what is missing there.
    normalise: of pixels, as in `adamode.train.data.DataOptions`; None takes the data set's own, "" where
        it has none. (Runs made when every data set was standardised have "", and mean that.)
    augment, train_size, val_size, test_size, window, given: as there; 0 takes the data set's own default.
    output_dir: where runs are kept.
    name: of the run's folder there; None is "<model>-<dataset>".

    Raises: ArgumentError, ArgumentTypeError for values that cannot mean anything.
    """

    model: str = "adamnode"
    dataset: str = _TO_FILL_IN
    block: str = "ode"
    epochs: int = _TO_FILL_IN
    batch_size: int = _TO_FILL_IN
    lr: float = _TO_FILL_IN
    schedule: str = _TO_FILL_IN
    clip: float = _TO_FILL_IN
    rtol: float = _TO_FILL_IN
    atol: float = _TO_FILL_IN
    method: str = _TO_FILL_IN
    stepping: str = _TO_FILL_IN
    gradient: str = "discrete"  # exact for the steps taken, and the fastest measured
    compile: bool = False  # compiling takes longer than a short run
    sync_every: int = 1
    hand_on_dt: bool = False  # a batch's numbers would depend on the batch before
    state_unit: float = _TO_FILL_IN
    field_scale: float = _TO_FILL_IN
    field_gain: float = _TO_FILL_IN
    denominator: str = _TO_FILL_IN
    alpha: float = _TO_FILL_IN
    beta: float = _TO_FILL_IN
    gamma: float = _TO_FILL_IN
    xi: float = _TO_FILL_IN
    damping: str = _TO_FILL_IN
    shift: float = _TO_FILL_IN
    hidden: int = _TO_FILL_IN
    channels: int = _TO_FILL_IN
    match_parameters: int = 0
    regularise: str = ""
    patience: int = 0
    accumulate: int = 1
    amp: str = "off"
    dtype: str = _TO_FILL_IN
    deterministic: bool = False
    test_every_epoch: bool = False
    on_solver_error: str = "stop"
    seed: int = 0
    device: str = "cpu"  # 8×8 images do not fill a GPU, and a CPU run repeats bit for bit
    threads: int = 1  # small tensors lose more by a second thread than they gain
    checkpoint_every: int = 100
    tensorboard: bool = False
    data_dir: str = ""
    download: bool = False
    augment: bool = False
    normalise: str = _TO_FILL_IN
    train_size: int = 0
    val_size: int = 0
    test_size: int = 0
    window: int = 0
    given: int = 0
    name: str = _TO_FILL_IN
    output_dir: str = "runs"

    given_settings: ClassVar[frozenset[str]] = frozenset()  # of an object: those that were not left out

    def __post_init__(self) -> None:
        for name, value in vars(self).copy().items():
            if isinstance(value, os.PathLike):
                object.__setattr__(self, name, os.fspath(value))
            if is_filled(value):  # for another object, which this one replaces
                object.__setattr__(self, name, None)
        given = frozenset(name for name, value in self.to_dict().items() if value is not None)
        object.__setattr__(self, "given_settings", given)
        check_settings(self.to_dict())
        dataset, sizes = settled(self.dataset, self, self.data_options())
        unasked = self.dataset is None and not self.data
        object.__setattr__(self, "dataset", filled(dataset) if unasked else dataset)
        object.__setattr__(self, "sizes", sizes)
        model_preset = preset(self.model, self.dataset, self.data_sizes)
        self._fill_from_model(model_preset)
        if not self.normalise:  # "": of a run from before
            pixels = default_normalise(self.dataset)
            old = self.normalise == "" and pixels
            object.__setattr__(self, "normalise", "standard" if old else filled(pixels))
        recipe = RECIPES.get(self.dataset, ANY_DATA)
        self._fill(dataclasses.asdict(recipe), tuple(Recipe.__dataclass_fields__))
        for name in POSITIVE:
            number = checked_positive(name, getattr(self, name))
            object.__setattr__(self, name, self._as_given(name, number))
        switches = ("deterministic", "tensorboard", "download", "augment", "compile", "hand_on_dt")
        for name in (*switches, "test_every_epoch"):
            if not isinstance(getattr(self, name), bool):
                raise ArgumentTypeError(f"{name}={getattr(self, name)!r} must be true or false.")
        if self.hand_on_dt and self.stepping == "per_sample":
            raise ArgumentError(
                "hand_on_dt=True: with stepping='per_sample' every sample has its own step size, and the "
                "next batch has other samples: take stepping='shared' or leave hand_on_dt out."
            )
        if weights_of(self.regularise) and self.block == "identity":
            raise ArgumentError(
                f"regularise={self.regularise!r} with block='identity', which solves nothing: leave it out."
            )
        if self.amp != "off" and "draws" in model_preset:
            raise ArgumentError(
                f"amp={self.amp!r} with a density: a change of volume summed in bfloat16 is lost in its "
                "rounding. Leave amp out."
            )
        self._check_texts()

    def __repr__(self) -> str:
        told = [
            f"{field.name}={plain(getattr(self, field.name))!r}"
            for field in dataclasses.fields(self)
            if field.name in self.given_settings and getattr(self, field.name) != field.default
        ]
        return f"TrainConfig({', '.join(told)})"

    def _as_given(self, name: str, value: float) -> float:
        """The value, marked where it was filled in."""
        checked: float = value if name in self.given_settings else filled(value)
        return checked

    def __deepcopy__(self, memo: dict[int, Any]) -> TrainConfig:
        return self  # nothing in it can change

    def __setstate__(self, state: dict[str, Any]) -> None:
        given = state["given_settings"]
        for name, value in state.items():
            object.__setattr__(self, name, value if name in given else filled(value))

    def _check_texts(self) -> None:
        check_text("device", self.device)
        check_text("output_dir", self.output_dir)
        if not isinstance(self.data_dir, str):
            raise ArgumentTypeError(f"data_dir={self.data_dir!r} must be the path of a folder.")
        self.data_options()
        if self.name is None:
            control = "-identity" if self.block == "identity" else ""
            object.__setattr__(self, "name", filled(run_name(self.model, self.dataset, self) + control))
        check_name(self.name)

    def _fill_from_model(self, preset: Mapping[str, Any]) -> None:
        """Settings that the model is registered with; those it does not have can only be absent."""
        self._fill(preset, _OF_THE_MODEL)
        check_count("match_parameters", self.match_parameters, smallest=0)
        for name, absent in _OF_SOME.items():
            value, own = getattr(self, name), preset.get(name) or absent
            if name == "gamma" and self.damping == "nesterov":
                own = absent  # 3/τ has no number of its own
            lacks = own == absent and not (name in (*_SCALES, "shift") and name in preset)
            if value not in (None, absent) and lacks:
                raise ArgumentError(
                    f"{name}={value!r}: {self.model} on {self.dataset} has no {name}; leave it out."
                )
            if value is None:
                matched = self.match_parameters and absent == 0 and isinstance(absent, int)  # by the registry
                object.__setattr__(self, name, filled(absent if matched else own))
            if isinstance(absent, int):
                check_count(name, getattr(self, name), smallest=0)
            elif isinstance(absent, float) and not lacks:
                check = checked_finite if name == "shift" else checked_positive
                object.__setattr__(self, name, self._as_given(name, check(name, getattr(self, name))))

    def _fill(self, values: Mapping[str, Any], names: tuple[str, ...]) -> None:
        for name in names:
            if getattr(self, name) is None:
                object.__setattr__(self, name, filled(values[name]))

    @property
    def folder(self) -> Path:
        """Where the run is written: output_dir/name."""
        return Path(self.output_dir) / str(self.name)

    def data_options(self) -> DataOptions:
        """How the data set is found and prepared."""
        return DataOptions(
            data_dir=self.data_dir or None,
            download=self.download,
            augment=self.augment or None,
            normalise=self.normalise or None,
            train_size=self.train_size or None,
            val_size=self.val_size or None,
            test_size=self.test_size or None,
            window=self.window or None,
            given=self.given or None,
            **self.own_options(),
        )

    def for_data(self, data: DataSet) -> TrainConfig:
        """These settings for data that are given in Python; what was left out is filled in for their kind.

        The same settings where the data set's own models are of the data's sizes.
        """
        kind, sizes = kind_of(data)
        if kind not in OWN or (self.dataset, self.sizes) == (kind, told(sizes)):
            return self
        asked = kind == ARRAYS and "dataset" in self.given_settings
        if data.name == self.dataset or asked or fits(self.model, self.dataset, sizes):
            return self
        settings = {name: value for name, value in self.to_dict().items() if name in self.given_settings}
        if settings.get("dataset", kind) not in (kind, ARRAYS):
            raise ArgumentError(
                f"dataset={self.dataset!r} was given, and data= of another shape: {kind} with {told(sizes)}. "
                "Leave dataset out: what is left open then follows from the data."
            )
        return TrainConfig(**{**settings, "dataset": kind, "sizes": told(sizes)})

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain values; ``TrainConfig(**config.to_dict())`` is equal to config."""
        return {name: plain(value) for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> TrainConfig:
        """The configuration with these settings; an unknown name is an ArgumentError."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in settings:
            if name not in known:
                raise ArgumentError(f"{name!r} is not a setting of a training run: {nearest(name, known)}")
        return cls(**settings)

    def to_toml(self, path: str | os.PathLike[str]) -> None:
        """Writes all settings to a TOML file that `from_toml` reads back to an equal object."""
        from ..solvers.write_aside import write_aside

        write_aside(path, self.toml())

    def toml(self) -> str:
        """All settings as the lines of a TOML file."""
        return "".join(toml_line(name, value) for name, value in self.to_dict().items())

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str], **overrides: Any) -> TrainConfig:
        """Reads settings from a TOML file; ``overrides`` win over the file.

        Raises: ArgumentError if the file cannot be read, is not TOML or holds unknown settings.
        """
        return cls.from_dict({**cls.table_of(path), **overrides})

    @staticmethod
    def table_of(path: str | os.PathLike[str]) -> dict[str, Any]:
        """The settings that a TOML file holds, not yet checked. Raises: ArgumentError, as `from_toml`."""
        try:
            settings = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ArgumentError(
                f"config={str(path)!r} cannot be read: {error}. Give a TOML file with lines such as "
                "`epochs = 20`."
            ) from error
        # The file that a run leaves says in tables what computed it; these are no settings.
        return {k: v for k, v in settings.items() if k not in TABLES or not isinstance(v, dict)}

    def differences(self, other: TrainConfig) -> dict[str, tuple[Any, Any]]:
        """Settings that decide the numbers and differ: {name: (here, there)}."""
        return {
            field.name: (getattr(self, field.name), getattr(other, field.name))
            for field in dataclasses.fields(self)
            if field.name not in NOT_COMPARED and getattr(self, field.name) != getattr(other, field.name)
        }


def toml_line(name: str, value: Any) -> str:
    """``name = value`` for a text, number or truth value."""
    # JSON's texts and numbers are valid TOML; ensure_ascii would write surrogate pairs.
    return f"{name} = {json.dumps(value, ensure_ascii=False)}\n".replace("\x7f", "\\u007F")
