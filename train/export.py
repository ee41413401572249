"""A run's inference as a `torch.export` program, with as many equal steps as its tolerance asks for."""

from __future__ import annotations

import dataclasses
import importlib
import io
import json
import math
import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..models.block import Block
from ..models.export import FixedBlock, with_fixed_steps
from ..solvers.errors import AdamodeError, ArgumentError, first_line
from ..solvers.write_aside import write_aside
from .data import DataSet
from .evaluation import LoadedRun

MOST_STEPS = 1024  # ten doublings: what needs more is stiff for some inputs
SAMPLE = 256  # inputs that the steps are chosen on: all of the digits' validation part and a batch of images
EXTRA = "adamode.json"
Runs = Callable[[Tensor], Tensor]
TOLD = ("model", "dataset", "method", "rtol", "atol", "dtype")


@dataclasses.dataclass(frozen=True)
class Steps:
    """How many equal steps, and how near they come to the adaptive solve.

    steps: 0 where nothing is solved.
    evaluations: of f in one call.
    difference: the largest of any output of the sample from the adaptive solve's.
    bound: atol + rtol · the largest output.
    converged: halving the steps changes no output by more than half the bound; where the difference is above
        the bound nevertheless, it is the adaptive solve's own error.
    samples: how many were compared.
    """

    steps: int
    evaluations: int
    difference: float
    bound: float
    converged: bool
    samples: int


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written, and what it gave when it was read back.

    reloaded: the largest difference from the same steps in eager mode, and ``adaptive`` that from the
    run's own adaptive solve, on batches of ``batch_sizes``, none of which was traced.
    """

    path: str
    chosen: Steps
    shape: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    reloaded: float
    adaptive: float
    epoch: int
    bytes: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)


def export_run(
    run: LoadedRun,
    data: DataSet,
    path: str | os.PathLike[str],
    *,
    steps: int | None = None,
    onnx: bool = False,
) -> Exported:
    """Writes encoder → block → head of a run as a program of `torch.export`, for batches of any size.

    data: the run's; the first 256 inputs of its validation part choose the steps.
    steps: that many instead, however far from the adaptive solve.
    onnx: write an ONNX file in place of torch's.

    The program is read back and compared before the file is written, aside and renamed. It computes in the
    run's dtype, without mixed precision.
    Raises: ArgumentError for a model of a time series, for steps below 1, where 1024 steps are not
    enough, and for what `torch.export` cannot trace; SolverError; OSError if the file cannot be written.
    """
    count = min(SAMPLE, len(data.val))
    x = data.val.__getitems__(list(range(count)))[0].to(run.device, run.dtype)
    with torch.no_grad():
        with_fixed_steps(run.model, 1 if steps is None else steps)  # refused before the adaptive solve
        chosen = choose_steps(run.model, x, steps=steps)
        fixed = with_fixed_steps(run.model, max(1, chosen.steps))
        example = x[:2].expand(2, *x.shape[1:]).clone()
        about = {
            **{name: getattr(run.config, name) for name in TOLD},
            "epoch": run.epoch,
            "device": str(run.device),
            "input": ["batch", *x.shape[1:]],
            **dataclasses.asdict(chosen),
        }
        program, again = (as_onnx if onnx else as_program)(fixed, example, about)
        sizes = tuple(sorted({1, min(3, count), count} - {2}))
        pairs = [(again(x[:n]), fixed(x[:n]), run.model(x[:n])) for n in sizes]
    reloaded = max(_largest(got - eager) for got, eager, _ in pairs)
    if not reloaded <= chosen.bound:
        raise ArgumentError(
            f"the exported program, read back, differs from the model by {reloaded:.3g} (bound "
            f"{chosen.bound:.3g}), so it was not written; please report this with torch's version."
        )
    write_aside(path, program)
    adaptive = max(_largest(got - own) for got, _, own in pairs)
    shape = tuple(x.shape[1:])
    return Exported(os.fspath(path), chosen, shape, sizes, reloaded, adaptive, run.epoch, len(program))


def choose_steps(model: nn.Module, x: Tensor, *, steps: int | None = None) -> Steps:
    """Doubles the number of equal steps until the outputs for x are as the adaptive solve's.

    That is: within atol + rtol · the largest output of them; or, since an adaptive solve has an error of its
    own, until doubling changes no output by more than half of that.
    steps: only measures this many.
    Raises: ArgumentError where 1024 steps are not enough, SolverError.
    """
    own = model(x)
    settings = [part.settings for part in model.modules() if isinstance(part, Block)]
    if not settings:
        return Steps(0, 0, 0.0, 0.0, True, len(x))
    bound = max(s.atol + s.rtol * _largest(own) for s in settings)
    if not math.isfinite(bound):
        raise ArgumentError("the run's model gives numbers that are not finite for its validation data.")
    before, n = None, 1 if steps is None else steps
    while True:
        fixed = with_fixed_steps(model, n)
        output = fixed(x)
        difference = _largest(output - own)
        # Two coarse solutions can be equally wrong: they say nothing below four steps.
        settled = before is not None and n > 4 and _largest(output - before) <= bound / 2
        if steps is not None or difference <= bound or settled:
            evaluations = sum(p.steps.evaluations for p in fixed.modules() if isinstance(p, FixedBlock))
            return Steps(n, evaluations, difference, bound, settled, len(x))
        if n >= MOST_STEPS:
            raise ArgumentError(
                f"{n} equal steps are still {difference:.3g} from the adaptive solve, whose tolerance allows "
                f"{bound:.3g}: the equations are stiff for some inputs. Name a number with --steps if that "
                "error will do, or train with a looser --rtol and --atol."
            )
        before, n = output, 2 * n


def traced(model: nn.Module, example: Tensor, about: dict[str, Any]) -> bytes:
    """The bytes of a .pt2 file: the model's graph, its first dimension of any size ≥ 1.

    about: kept in the file under the name "adamode.json".
    Raises: ArgumentError, with the reason, for what `torch.export` cannot trace.
    """
    batch = torch.export.Dim("batch")
    buffer = io.BytesIO()
    try:
        program = torch.export.export(model, (example,), dynamic_shapes=({0: batch},))
        torch.export.save(program, buffer, extra_files={EXTRA: json.dumps(about)})
    except AdamodeError:
        raise
    except Exception as error:  # the tracer raises a dozen unrelated types
        raise ArgumentError(
            f"torch.export cannot trace this model ({type(error).__name__}: {first_line(error)}). From "
            "Python: load_run(folder).model(x), see docs/train.md."
        ) from error
    return buffer.getvalue()


def as_program(model: nn.Module, example: Tensor, about: dict[str, Any]) -> tuple[bytes, Runs]:
    """A program's bytes, and the program read back from them. Raises: ArgumentError, as `traced`."""
    program = traced(model, example, about)
    return program, torch.export.load(io.BytesIO(program)).module()


def as_onnx(model: nn.Module, example: Tensor, about: dict[str, Any]) -> tuple[bytes, Runs]:
    """The bytes of an ONNX file, its first dimension of any size, and what onnxruntime makes of it.

    about: kept among the file's metadata under "adamode.json".
    Raises: ArgumentError where onnx, onnxscript or onnxruntime is not installed, or the model cannot be
    written.
    """
    try:
        # By name: a type checker need not know them. Torch's exporter needs the last.
        onnx, onnxruntime, _ = (
            importlib.import_module(name) for name in ("onnx", "onnxruntime", "onnxscript")
        )
    except ImportError as error:
        raise ArgumentError(
            f"ONNX needs the package {error.name!r}: pip install onnx onnxscript onnxruntime."
        ) from error
    batch = torch.export.Dim("batch")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter, about itself
            made: Any = torch.onnx.export(
                model, (example.cpu(),), dynamo=True, dynamic_shapes=({0: batch},), verbose=False
            )
            proto = made.model_proto
        proto.metadata_props.add(key=EXTRA, value=json.dumps(about))
        content = proto.SerializeToString()
        onnx.checker.check_model(content)
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:  # as with the tracer
        raise ArgumentError(
            f"this model cannot be written as ONNX ({type(error).__name__}: {first_line(error)}); take "
            "torch's program."
        ) from error
    name = session.get_inputs()[0].name

    def again(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: x.cpu().numpy()})[0]).to(x.device)

    return content, again


def _largest(x: Tensor) -> float:
    """The largest |x|; infinite where any is not finite."""
    largest = float(x.abs().max())
    return largest if math.isfinite(largest) else math.inf
