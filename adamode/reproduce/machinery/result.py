"""One figure, made: its outcome, its verdicts and pictures, and the file that holds them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ... import __version__
from ...models.provenance import git_state
from ...plotting import save_figure
from ...solvers.errors import ArgumentError, CheckpointError, MissingDataError, nearest
from ...solvers.write_aside import write_aside
from ...train.listing import list_runs
from ...train.reproducible import processor, versions
from ..catalogue import FIGURES, SHARED_RUNS
from . import theirs
from .figure import SCALES, Claim, Figure, Outcome, Picture
from .training import TrainingSettings, data_sets
from .work import RESULT, Allowed, Work, damaged, plain, read_field, read_json, say

_SPENT = "seconds.json"
_PNG_BEGINS, _PNG_ENDS = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_KINDS: dict[str, Any] = {"str": str, "float": (int, float), "dict": dict, "list": list}  # of annotations
_PACKAGES = ("python", "torch", "numpy", "scipy", "torchvision", "matplotlib")
_COMPARED = "torchdiffeq"  # optional: a figure with training runs measures with it where it is installed


@dataclasses.dataclass(frozen=True)
class Result:
    """What result.json holds, in its order.

    rows, variants, findings: of `Outcome`.  pictures: {"file", "caption"} of each, in the same folder.
    version: of adamode; versions: of what it rests on.  machine: processor, cores, device, threads, jobs.
    git: as a run's, and as it was when this was put together: each piece and each run has its own.
    seconds: of work, over all calls that it took.  command: makes it again.  runs: for a figure that trains,
    the finished training runs on its data sets that were there, with their epochs.
    """

    figure: str
    scale: str
    settings: dict[str, Any]
    rows: list[dict[str, Any]]
    claims: list[Claim]
    variants: dict[str, Any]
    findings: list[str]
    pictures: list[dict[str, str]]
    version: str
    versions: dict[str, str]
    machine: dict[str, Any]
    git: dict[str, Any]
    seconds: float
    command: str
    runs: dict[str, int]

    def text(self) -> str:
        """As JSON. Raises: ValueError where a number is infinite or NaN."""
        return json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def reproduce(
    figure: Figure, scale: str, output_dir: str | os.PathLike[str], allowed: Allowed, **changes: Any
) -> Result:
    """Makes a figure in <output_dir>/<its name>, or goes on where it was left: pictures and result.json.

    changes: fields of the scale's settings with another value, such as datasets=("mnist",).
    Raises: ArgumentError for a scale or a field that there is not, CheckpointError where the folder holds
    the figure of another version, scale or settings, MissingDataError where its data are not there, and
    what the computing raises.
    """
    settings, work = _opened(figure, scale, Path(output_dir), allowed, changes)
    with _counted(work.folder), _with_remedy(scale):
        outcome = figure.compute(settings, work)
        claims = figure.judge(settings, outcome)
        pictures = _draw(figure, settings, outcome, work.folder)
    installed = versions()
    result = Result(
        figure=figure.name,
        scale=scale,
        settings=plain(settings),
        claims=claims,
        **{**vars(outcome), "findings": list(outcome.findings)},
        pictures=pictures,
        version=__version__,
        versions={name: installed[name] for name in _PACKAGES if name in installed} | _compared(figure),
        machine=_machine(allowed),
        git=git_state(),
        seconds=_spent(work.folder),
        command=_command(figure, scale, allowed, changes),
        runs=_runs(figure, work, settings)[0],
    )
    try:
        text = result.text()
    except ValueError as error:
        raise ValueError(say("no json", figure=figure.name, error=error)) from error
    write_aside(work.folder / RESULT, text)
    return result


def _compared(figure: Figure) -> dict[str, str]:
    """The version of what a figure with training runs is compared with, where it is installed."""
    version = theirs.installed() if FIGURES[figure.name].runs == SHARED_RUNS else ""
    return {_COMPARED: version} if version else {}


def _opened(
    figure: Figure, scale: str, place: Path, allowed: Allowed, changes: Mapping[str, Any]
) -> tuple[Any, Work]:
    """The settings with their changes, and the figure's folder, opened for them."""
    settings = chosen_settings(figure, scale, **changes)
    work = Work(place / figure.name, place / SHARED_RUNS, scale, allowed)
    work.open(figure.name, settings)
    return settings, work


def chosen_settings(figure: Figure, scale: str, **changes: Any) -> Any:
    """The settings of a scale with ``changes``. Raises: ArgumentError for what there is not."""
    if scale not in SCALES:
        raise ArgumentError(say("no scale", scale=scale, nearest=nearest(scale, SCALES)))
    settings = figure.settings[scale]
    known = [field.name for field in dataclasses.fields(settings)]
    for name in changes:
        if name not in known:
            told = {"name": name, "value": changes[name], "nearest": nearest(name, known)}
            raise ArgumentError(say("no setting", figure=figure.name, **told))
    return dataclasses.replace(settings, **changes)


def finished(
    figure: Figure, scale: str, output_dir: str | os.PathLike[str], allowed: Allowed, **changes: Any
) -> Result | None:
    """The result that is there, if `reproduce` with the same arguments would make it again just so.

    None where there is none, or a picture of it lacks or is damaged; for a figure that trains also where
    runs were finished since, or where this call may train and a run is unfinished or nothing was allowed
    then (``jobs=0``).
    Raises: CheckpointError where it is of another version, scale or other settings.
    """
    settings, work = _opened(figure, scale, Path(output_dir), allowed, changes)
    path = work.folder / RESULT
    if not path.exists():
        return None
    result = read_result(path, scale)
    done, others = _runs(figure, work, settings)
    trains = bool(FIGURES[figure.name].runs) and allowed.jobs > 0
    whole = (
        result.settings == plain(settings)
        and all(_is_whole(path.parent / picture["file"]) for picture in result.pictures)
        and result.runs == done
        and result.versions.get(_COMPARED) == _compared(figure).get(_COMPARED)
        and not (trains and (others or result.machine.get("jobs") == 0))
    )
    return result if whole else None


def read_result(path: Path, scale: str | None = None) -> Result:
    """What a result.json holds.

    Raises: CheckpointError where it cannot be read, lacks something, is damaged, is of another version of
    adamode, or (where ``scale`` is given) of another scale.
    """
    content = read_json(path)
    kinds = {field.name: _KINDS[str(field.type).partition("[")[0]] for field in dataclasses.fields(Result)}
    if not isinstance(content, dict) or "version" not in content:
        raise damaged(path, "is not a figure's result")
    if content["version"] != __version__:
        told = {"version": content["version"], "here": __version__}
        raise CheckpointError(say("other version", path=str(path), **told))
    if odd := sorted(set(content) ^ set(kinds)):
        raise damaged(path, f"is not a figure's result ({', '.join(odd)})")
    if scale is not None and content["scale"] != scale:
        raise CheckpointError(say("other scale", path=str(path), there=content["scale"], here=scale))
    wrong = [name for name, kind in kinds.items() if not _is_right(name, content[name], kind)]
    if wrong or content["figure"] != path.parent.name:
        raise damaged(path, f"is damaged: {', '.join(wrong) or 'figure'} cannot be right")
    try:
        claims = [Claim(**claim) for claim in content["claims"]]
    except (TypeError, ValueError) as error:
        raise damaged(path, f"is damaged: its claims cannot be read ({error})") from error
    return Result(**{**content, "claims": claims})


def read_picture(path: Path) -> bytes:
    """A picture's PNG. Raises: CheckpointError if it is damaged, OSError if it cannot be read."""
    png = path.read_bytes()
    if not (png.startswith(_PNG_BEGINS) and png.endswith(_PNG_ENDS)):
        raise damaged(path, "is not a whole PNG")
    return png


def _is_whole(path: Path) -> bool:
    with contextlib.suppress(CheckpointError, OSError):
        return bool(read_picture(path))
    return False


def _is_right(name: str, value: Any, kind: Any) -> bool:
    """Whether a field of a result has the shape that it is written with."""
    return isinstance(value, kind) and (kind is not list or all(_is_right_in(name, one) for one in value))


def _is_right_in(name: str, one: Any) -> bool:
    """The same for an entry of a list."""
    if name in ("findings", "rows"):
        return isinstance(one, str if name == "findings" else dict)
    if not isinstance(one, dict) or not all(isinstance(word, str) for word in one.values()):
        return False
    if name == "claims":
        return True
    # A picture's file lies beside the result, and nowhere else.
    return {"file", "caption"} <= set(one) and Path(one["file"]).name == one["file"]


def _runs(figure: Figure, work: Work, settings: Any) -> tuple[dict[str, int], list[str]]:
    """Of the training runs where the figure has its own, on its data sets: epochs of the finished ones, names
    of the others."""
    where = FIGURES[figure.name].runs
    place = work.folder.parent / where
    if not where or not place.is_dir():
        return {}, []
    sets = data_sets(settings) if isinstance(settings, TrainingSettings) else None
    runs = [r for r in list_runs(place) if not (sets and r.settings) or r.settings.get("dataset") in sets]
    done = {run.name: len(run.history) for run in runs if run.state == "finished"}
    return done, [run.name for run in runs if run.name not in done]


def _draw(figure: Figure, settings: Any, outcome: Outcome, folder: Path) -> list[dict[str, str]]:
    for name, picture in figure.pictures.items():

        def draw(empty: Any, picture: Picture = picture) -> None:
            picture.draw(empty, settings, outcome)

        save_figure(folder / f"{name}.png", draw, size=picture.size)
    return [{"file": f"{name}.png", "caption": p.caption} for name, p in figure.pictures.items()]


@contextlib.contextmanager
def _counted(folder: Path) -> Iterator[None]:
    """Adds the time spent inside to what earlier calls took, also when it ends in an error or Ctrl-C."""
    before, start = _spent(folder), time.perf_counter()
    try:
        yield
    finally:
        seconds = round(before + time.perf_counter() - start, 2)
        write_aside(folder / _SPENT, json.dumps({"seconds": seconds}) + "\n")


def _spent(folder: Path) -> float:
    """Seconds that earlier calls took; at least those of the finished pieces: a killed call left no sum."""
    path, parts = folder / _SPENT, sorted((folder / "parts").glob("*.json"))
    return max(_seconds(path) if path.exists() else 0.0, sum(map(_seconds, parts)))


def _seconds(path: Path) -> float:
    return float(read_field(path, "seconds", int | float))


@contextlib.contextmanager
def _with_remedy(scale: str) -> Iterator[None]:
    """A data file that lacks stops no one from seeing the figure made: the error says how."""
    try:
        yield
    except MissingDataError as error:
        if scale == "smoke":
            raise
        raise MissingDataError(say("no data", error=error)) from error


def _machine(allowed: Allowed) -> dict[str, Any]:
    """What it was made on; nothing that tells whose machine it is."""
    device, used = torch.device(allowed.device), {"threads": allowed.threads, "jobs": allowed.jobs}
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else allowed.device
    return {"processor": processor(), "cores": os.cpu_count(), "device": where, **used}


def _command(figure: Figure, scale: str, allowed: Allowed, changes: Mapping[str, Any]) -> str:
    """What makes the same again, but for folders."""
    words = ["adamode", "reproduce", figure.name]
    for name, value in changes.items():
        if name == "datasets":
            words += ["--dataset", ",".join(value)]
        elif name in ("seed", "seeds"):
            words += ["--seed", str(value if name == "seed" else value[0])]
        else:
            words += [f"({name}={value!r}, from Python)"]
    words += ["--scale", scale]
    usual = Allowed()
    for name in ("device", "threads", "jobs"):
        # Without training nothing is made in an empty folder.
        if getattr(allowed, name) != getattr(usual, name) and (name, allowed.jobs) != ("jobs", 0):
            words += [f"--{name}", str(getattr(allowed, name))]
    return " ".join(words)
