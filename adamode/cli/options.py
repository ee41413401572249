"""The settings of a training run as options of a command: one table, for ``train`` and ``sweep``."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from ..models.known import MODELS
from ..solvers.methods import CHANGING, IMPLICIT
from ..solvers.methods import METHODS as EXPLICIT
from ..train.known import CHOICES, DATASETS, NORMALISATIONS

METHODS = (*EXPLICIT, *IMPLICIT, *CHANGING)
KNOWN = {"model": MODELS, "dataset": DATASETS, "method": METHODS, "normalise": NORMALISATIONS, **CHOICES}


@dataclasses.dataclass(frozen=True)
class Setting:
    """A field of `adamode.TrainConfig` as an option.

    default: what the help says the value is where the option is not given.  A ``bool`` is a switch.
    """

    name: str
    kind: type
    help: str
    default: str = ""

    @property
    def flag(self) -> str:
        """The option's name on the command line."""
        return "--" + self.name.replace("_", "-")

    def completed(self, incomplete: str) -> list[str]:
        """What the shell offers for a value that begins so."""
        return [value for value in KNOWN[self.name] if value.startswith(incomplete)]

    def parameter(self) -> inspect.Parameter:
        """A keyword of a command, None (False for a switch) where it is not given."""
        kind: Any = bool
        value: bool | None = False
        panel = PANEL_OF.get(self.name, OTHERS)
        if self.kind is bool:
            option = typer.Option(self.flag, help=self.help, rich_help_panel=panel)
        else:
            option = typer.Option(
                help=self.help,
                show_default=self.default or False,
                rich_help_panel=panel,
                autocompletion=self.completed if self.name in KNOWN else None,
            )
            kind, value = self.kind | None, None
        annotation = Annotated[kind, option]
        return inspect.Parameter(
            self.name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=annotation
        )


# Of the help: each group of settings under its own heading.
OTHERS = "Run"
PANELS = {
    "Model": ("model", "block", "denominator", "hidden", "channels", "match_parameters"),
    "Scales and rates": (
        "state_unit",
        "field_scale",
        "field_gain",
        "alpha",
        "beta",
        "gamma",
        "xi",
        "damping",
        "shift",
    ),
    "Your own": ("data", "split", "inputs", "outputs", "image_size", "sizes", "field", "build"),
    "Data": (
        *("dataset", "data_dir", "download", "augment", "normalise", "train_size", "val_size", "test_size"),
        *("window", "given"),
    ),
    "Training": (
        *("epochs", "batch_size", "lr", "schedule", "clip", "regularise", "patience", "accumulate", "amp"),
        *("dtype", "seed", "deterministic", "test_every_epoch", "on_solver_error"),
    ),
    "Solver": ("rtol", "atol", "method", "stepping", "gradient", "compile", "sync_every", "hand_on_dt"),
}
PANEL_OF = {name: panel for panel, names in PANELS.items() for name in names}

SETTINGS = (
    Setting("model", str, "Which model; package.module:builder makes your own.", "adamnode"),
    Setting("dataset", str, "Which data set (`adamode data`); digits need no download.", "digits"),
    Setting("data", str, "A folder of pictures by class, an .npz with x and y, a recording as .csv."),
    Setting("split", str, "Of your own data: a seed, or the column of the parts.", "split, else seed 0"),
    Setting("inputs", str, "Of a recording: the inputs' columns, with commas.", "u, u1 …"),
    Setting("outputs", str, "Of a recording: the outputs' columns, with commas.", "y, y1 …"),
    Setting("image_size", int, "Squeeze your own pictures to N×N.", "0"),
    Setting("sizes", str, "Sizes of the data, as a run's settings have them.", "the data's"),
    Setting("field", str, "Your own field f(t, h) in any model: package.module:function."),
    Setting("build", str, "Your own builder, as --model package.module:function."),
    Setting("block", str, "ode, or identity: the same model without it, as a control.", "ode"),
    Setting("epochs", int, "Passes over the training set.", "digits: 20"),
    Setting("batch_size", int, "Samples of one optimiser step, over all processes.", "digits: 32"),
    Setting("lr", float, "Adam's first step size.", "digits: 0.01"),
    Setting(
        "schedule",
        str,
        "cosine brings the step size down to 0; constant; decay: ×0.95 each 1,000 steps.",
        "digits: cosine",
    ),
    Setting("clip", float, "Largest norm of a gradient.", "digits: 1.0"),
    Setting("rtol", float, "The solver's relative tolerance.", "digits: 0.001"),
    Setting("atol", float, "The solver's absolute tolerance.", "digits: 0.001"),
    Setting("method", str, "The solver's method: explicit, implicit (radau5 …), or auto.", "digits: dopri5"),
    Setting("stepping", str, "shared: one step size for the batch; per_sample.", "shared"),
    Setting("gradient", str, "discrete, interpolating, backsolve, direct or reversible.", "discrete"),
    Setting("compile", bool, "Compile training's steps (torch.compile): minutes at first, then faster."),
    Setting("sync_every", int, "Attempts queued on the device before the host looks once.", "1"),
    Setting("hand_on_dt", bool, "Start each batch with the last one's step size; saves an evaluation."),
    Setting("state_unit", float, "What is 1 in the block's state (Silverbox: times 10 mV).", "digits: 1.0"),
    Setting("field_scale", float, "s of the field g·F(s·h): its inputs' scale.", "digits: 1.0"),
    Setting("field_gain", float, "g of the field g·F(s·h): its output's scale.", "digits: 1.0"),
    Setting("denominator", str, "AdamNODE's D(v): exact, softplus or sigmoid.", "exact"),
    Setting("alpha", float, "AdamNODE's first α; 1 − α is the damping per unit of time.", "digits: 0.0474"),
    Setting("beta", float, "AdamNODE's first β; 1 − β is the rate at which v follows f².", "digits: 0.95"),
    Setting("gamma", float, "First damping γ of HBNODE, GHBNODE, MomentumNODE.", "hbnode: 0.0635"),
    Setting("xi", float, "First ξ > 0 of GHBNODE and GNesterovNODE, which pulls to 0.", "ghbnode: 2.13"),
    Setting("damping", str, "MomentumNODE's: constant γ, nesterov 3/τ, learned γ + r/τ.", "learned"),
    Setting("shift", float, "τ = t + shift of a damping that depends on time.", "0.0"),
    Setting("hidden", int, "Width of the field.", "digits: 16"),
    Setting("channels", int, "Channels of the block.", "digits: 8"),
    Setting("match_parameters", int, "Width with the number of parameters nearest to this; 0: as is.", "0"),
    Setting("regularise", str, "Penalties of the solver in the loss: error=0.1,kinetic=0.01."),
    Setting("patience", int, "Stop after so many epochs without a better validation; 0: never.", "0"),
    Setting("accumulate", int, "Cut each batch into so many pieces, to save memory.", "1"),
    Setting("amp", str, "bf16: encoder, head and field in bfloat16, the state as it was; off.", "off"),
    Setting("dtype", str, "float32 or float64.", "digits: float32"),
    Setting("deterministic", bool, "Torch's deterministic algorithms only."),
    Setting("test_every_epoch", bool, "Measure the test set after every epoch too; it chooses nothing."),
    Setting("on_solver_error", str, "stop, or skip a batch that cannot be solved.", "stop"),
    Setting("seed", int, "Of the weights and the order of the samples.", "0"),
    Setting("device", str, "cpu, cuda, cuda:1 …", "cpu"),
    Setting("threads", int, "CPU threads of torch.", "1"),
    Setting("checkpoint_every", int, "Optimiser steps between checkpoints inside an epoch.", "100"),
    Setting("tensorboard", bool, "Write TensorBoard's files beside the others."),
    Setting("data_dir", str, "Folder of the data files.", "$ADAMODE_DATA"),
    Setting("download", bool, "Fetch data files that are missing into the folder."),
    Setting("augment", bool, "Random crops (and flips) of the training images."),
    Setting("normalise", str, "Pixels; standard: mean 0, variance 1; unit: to 0 … 1.", "digits: standard"),
    Setting("train_size", int, "At most so many training images, balanced over the classes.", "all"),
    Setting("val_size", int, "At most so many validation images, where not as many as test images.", "all"),
    Setting("test_size", int, "At most so many validation and test images, in the same way.", "all"),
    Setting("window", int, "Silverbox: samples simulated in a training window; 0: its own default.", "0"),
    Setting("given", int, "Silverbox: measured outputs shown before them; 0: its own default.", "0"),
    Setting("name", str, "Name of the run's folder.", "MODEL-DATASET"),
    Setting("output_dir", str, "Folder that holds the runs.", "runs"),
)


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command that takes ``settings``, a dict of the options given, an option for each.

    Its other parameters stay options of their own.
    """
    own = inspect.signature(command, eval_str=True).parameters
    names = {setting.name for setting in SETTINGS}

    def with_options(**values: Any) -> None:
        given = {n: values.pop(n) for n in list(values) if n in names and n not in own}
        command(settings={n: v for n, v in given.items() if v is not None and v is not False}, **values)

    options = [setting.parameter() for setting in SETTINGS if setting.name not in own]
    others = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for name, p in own.items() if name != "settings"]
    with_options.__name__, with_options.__doc__ = command.__name__, command.__doc__
    with_options.__module__ = command.__module__
    parameters = [*options, *others]
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_options
