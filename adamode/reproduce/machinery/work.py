"""Where a figure is made: its folder, the pieces finished so far, and what the caller allows it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from ... import __version__
from ...models.provenance import git_state
from ...solvers.errors import ArgumentError, CheckpointError
from ...solvers.write_aside import write_aside
from .figure import MACHINERY

say = MACHINERY.say
IDENTITY = "made-with.json"
RESULT = "result.json"


@dataclasses.dataclass(frozen=True)
class Allowed:
    """What a caller allows every figure.

    data_dir: folder of the data files; "" is the environment variable ADAMODE_DATA.  jobs: processes at
    once, where a figure trains models.  threads: of torch on the CPU, in each of them.
    """

    data_dir: str = ""
    device: str = "cpu"
    threads: int = 1
    jobs: int = 2
    say: Callable[[str], None] = print


@dataclasses.dataclass(frozen=True)
class Work:
    """One figure's place: ``folder`` is its own, ``runs`` the training runs that several figures share."""

    folder: Path
    runs: Path
    scale: str
    allowed: Allowed

    def open(self, figure: str, settings: Any) -> None:
        """Makes the folder, or goes on with what is there.

        Raises: CheckpointError where it holds the figure made by another version or torch, at another scale,
        on another device, with other threads or settings, or does not say what it holds; ArgumentError where
        it cannot be written.
        """
        made = {"figure": figure, "version": __version__, "torch": torch.__version__, "scale": self.scale}
        how = {"device": self.allowed.device, "threads": self.allowed.threads, "settings": plain(settings)}
        here = {**made, **how}
        path = self.folder / IDENTITY
        if self._holds_something():
            if not path.exists():
                raise CheckpointError(say("no identity", folder=str(self.folder), file=IDENTITY))
            self._compare(_identity(path, here), here)
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_aside(path, json.dumps(here, indent=2) + "\n")
        except OSError as error:
            raise ArgumentError(say("not written", folder=str(self.folder), error=error)) from error

    def _compare(self, there: dict[str, Any], here: dict[str, Any]) -> None:
        """Raises: CheckpointError where the folder holds something else than what is asked for."""
        for name in here:
            if _fixed(there.get(name)) != _fixed(here[name]):
                difference = _difference(there.get(name), here[name])
                told = {**there, "folder": str(self.folder), "name": name, "difference": difference}
                raise CheckpointError(say("other folder", **told))

    def _holds_something(self) -> bool:
        """Whether a piece, or the result, was finished here; a call that failed before binds no other."""
        return (self.folder / RESULT).exists() or any((self.folder / "parts").glob("*.json"))

    def part(self, name: str, compute: Callable[[], Any]) -> Any:
        """A piece of the figure: read, if it was finished before, else computed and kept.

        name: a file's name without ending.  compute: returns plain values that JSON can hold, no number of
        them infinite or NaN. What is returned has been through JSON, so that it is the same either way.
        """
        path = self.folder / "parts" / f"{name}.json"
        if path.exists():
            return read_field(path, "value")
        self.allowed.say(f"{self.folder.name}: {name}")
        start = time.perf_counter()
        with computing(self.allowed.threads):
            value = compute()
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"seconds": round(time.perf_counter() - start, 2), "git": _git(), "value": value}
        write_aside(path, json.dumps(content, allow_nan=False) + "\n")
        return read_field(path, "value")


@contextlib.contextmanager
def computing(threads: int) -> Iterator[None]:
    """Torch with so many threads and without the caller's random numbers moving on."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.set_num_threads(before)


def damaged(path: Path, said: str) -> CheckpointError:
    """The error for a file of which ``said`` is the case."""
    return CheckpointError(say("damaged", path=str(path), said=said))


def read_json(path: Path, refused: Callable[[Path, str], CheckpointError] = damaged) -> Any:
    """What a JSON file holds. Raises: CheckpointError, made by ``refused``, if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise refused(path, say("unreadable", error=error)) from error


def read_field(path: Path, name: str, kind: Any = object) -> Any:
    """A field of what a JSON file holds. Raises: CheckpointError where it lacks or is of another kind."""
    content = read_json(path)
    if not isinstance(content, dict) or name not in content or not isinstance(content[name], kind):
        raise damaged(path, f"is damaged: it has no {name}")
    return content[name]


def plain(settings: Any) -> dict[str, Any]:
    """A dataclass as JSON holds it. Raises: ValueError where a number is infinite or NaN."""
    held: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings), allow_nan=False))
    return held


@functools.cache
def _git() -> dict[str, Any]:
    """The commit of the code that is running: as it was when this process first asked."""
    return git_state()


def _identity(path: Path, here: dict[str, Any]) -> dict[str, Any]:
    """What the folder says that it holds. Raises: CheckpointError where it does not say."""
    there = read_json(path, _nameless)
    if not isinstance(there, dict) or set(there) != set(here):
        raise _nameless(path, say("silent identity"))
    return there


def _nameless(path: Path, said: str) -> CheckpointError:
    return CheckpointError(say("bad identity", said=said, path=str(path), folder=str(path.parent)))


def _fixed(value: Any) -> Any:
    """Settings without the data sets: the pieces of each are apart, and either may be asked for later."""
    return {k: v for k, v in value.items() if k != "datasets"} if isinstance(value, dict) else value


def _difference(there: Any, here: Any) -> str:
    if isinstance(there, dict) and isinstance(here, dict):
        names = [n for n in sorted({*there, *here}) if there.get(n) != here.get(n)]
        return ", ".join(f"{n}: {there.get(n)!r} there, {here.get(n)!r} here" for n in names)
    return f"{there!r} there, {here!r} here"
