"""Programs on disk, found again by any later process of the same user.

A package is a file of native code, so what is loaded must be what was written, by this user: beside each lies
a note with its checksum, both are written aside and renamed, and a folder or a file that others can write is
not used. A solve never fails because of the store: where it cannot be used, a private folder takes its place.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import AdamodeWarning
from .locks import locked

FORMAT = 1  # of the note
LIMIT = 10**9  # bytes: some 500 programs
WAIT = 300.0  # seconds for another process that builds the same: four times the longest build seen
_NAMES = re.compile(
    r"(?P<key>[0-9a-f]{16,128})\.(?P<kind>pt2|json|lock)|building-(?P<of>[0-9a-f]{16,128})-\w+"
)


class Package(NamedTuple):
    """A program on disk.

    about: what its maker has said of it.  made, used: seconds since 1970.
    """

    key: str
    path: Path
    about: Mapping[str, Any]
    bytes: int
    made: float
    used: float


class _Refused(Exception):
    """A folder or a file that is not to be used, and why."""


def default_folder() -> Path:
    """Where packages are kept: ADAMODE_CACHE, else the folder ``adamode`` in the user's cache."""
    given = os.environ.get("ADAMODE_CACHE")
    if given:
        return Path(given).expanduser().absolute()
    if sys.platform == "win32":
        caches = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/AppData/Local")
    elif sys.platform == "darwin":
        caches = os.path.expanduser("~/Library/Caches")
    else:
        caches = os.path.expanduser("~/.cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or caches).absolute() / "adamode"


def size_limit() -> int:
    """Bytes that packages may take together: ADAMODE_CACHE_SIZE (a number with KB, MB or GB), else 1 GB."""
    given = os.environ.get("ADAMODE_CACHE_SIZE", "").strip()
    found = re.fullmatch(r"(\d+(?:\.\d*)?)\s*([KMGT]?)B?", given, re.IGNORECASE)
    if found is None:
        if given:
            _say(f"ADAMODE_CACHE_SIZE={given!r} is no size; give a number with KB, MB or GB. 1 GB is taken.")
        return LIMIT
    return int(float(found[1]) * 1000 ** " KMGT".index(found[2].upper() or " "))


def store() -> Store:
    """The user's, as the environment says now."""
    return _store(default_folder(), os.getpid())


@functools.cache
def _store(folder: Path, process: int) -> Store:
    """process: a forked one has a private folder of its own."""
    return Store(folder)


class Store:
    """Packages in a folder, by key: hexadecimal digits, a digest of all that the program depends on."""

    def __init__(self, root: Path):
        self.root = root
        self._private: Path | None = None

    # -- for a solve --------------------------------------------------------------------------------------

    def find(self, key: str) -> Path | None:
        """The package, checked to be whole and ours; None where there is none."""
        _check_key(key)
        try:
            folder = self._folder()
            return None if folder is None else self._whole(folder, key)
        except (OSError, _Refused):
            return None

    def make(
        self, key: str, about: Mapping[str, Any], build: Callable[[Path], None], *, wait: float = WAIT
    ) -> Path | None:
        """The package, built unless it is there.

        about: what `packages` shall tell of it: texts and numbers.
        build: writes the program to a path that ends in .pt2; what it raises is passed on.
        wait: seconds for another process that builds the same package.
        None: that took longer, or nothing can be written anywhere; the caller goes without.
        """
        _check_key(key)
        folder = self._folder()
        if folder is None:
            return None
        with contextlib.ExitStack() as stack:
            try:
                got = stack.enter_context(locked(folder / f"{key}.lock", wait))
            except OSError as error:
                _say(f"{str(folder)!r} has no room for programs ({error}); this one is not kept.")
                return None
            if not got:
                return self.find(key)
            try:
                found = self._whole(folder, key)
            except (OSError, _Refused) as refused:
                _say(f"The program {folder / key}.pt2 is not used ({refused}); it is built anew.")
                found = None
            return found or self._built(folder, key, about, build)

    # -- for whoever looks after it -----------------------------------------------------------------------

    def trouble(self) -> str | None:
        """Why the folder is not used; None where it is, or where it is not there yet."""
        try:
            _check_owned(os.stat(self.root), self.root)
        except FileNotFoundError:
            return None
        except (OSError, _Refused) as refused:
            return str(refused)
        return None

    def packages(self) -> list[Package]:
        """All that have a note, the last used first."""
        found = []
        for key, kinds in self._entries(self.root).items():
            with contextlib.suppress(OSError, _Refused):
                if {"pt2", "json"} <= kinds:
                    found.append(_noted(self.root, key))
        return sorted(found, key=lambda package: -package.used)

    def clear(self) -> tuple[int, int]:
        """Removes all packages but those that are just being built: (how many, bytes)."""
        n, total = 0, 0
        for key, kinds in self._entries(self.root).items():
            with locked(self.root / f"{key}.lock", 0.0) as got:
                if got:
                    path = self.root / f"{key}.pt2"
                    total += path.stat().st_size if path.exists() else 0
                    n += "pt2" in kinds
                    _remove(self.root, key)
        return n, total

    # -- within -------------------------------------------------------------------------------------------

    def _folder(self) -> Path | None:
        """The folder, made where it is not there; a private one where it must not or cannot be used."""
        if self._private is not None and self._private.is_dir():
            return self._private
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_owned(os.stat(self.root), self.root)
            if not os.access(self.root, os.W_OK | os.X_OK):
                raise _Refused(f"{str(self.root)!r} cannot be written")
            return self.root
        except (OSError, _Refused) as refused:
            _say(
                f"Programs are kept in a private folder, for this process alone: {refused}. Name another "
                "folder in ADAMODE_CACHE, or make that one yours alone (chmod go-w)."
            )
        try:
            self._private = Path(tempfile.mkdtemp(prefix="adamode-"))
        except OSError:
            return None
        atexit.register(_remove_of, os.getpid(), self._private)
        return self._private

    def _whole(self, folder: Path, key: str) -> Path | None:
        """The package of this key.

        None: there is none, or none yet.
        Raises: _Refused for one that is damaged or that others could have written, OSError.
        """
        for _ in range(2):  # another process may just put a new one into its place
            try:
                note, path = _read_note(folder, key), folder / f"{key}.pt2"
                found = _checksum(path)
            except FileNotFoundError:
                return None
            if found == note["sha256"]:
                with contextlib.suppress(OSError):
                    os.utime(folder / f"{key}.json")  # when it was last used
                return path
        raise _Refused("its checksum is not that of its note: it is damaged")

    def _built(
        self, folder: Path, key: str, about: Mapping[str, Any], build: Callable[[Path], None]
    ) -> Path | None:
        try:
            _remove(folder, key)  # what is left of another, and of a builder that was killed
            aside = Path(tempfile.mkdtemp(prefix=f"building-{key}-", dir=folder))
        except OSError as error:
            _say(f"{str(folder)!r} has no room for programs ({error}); this one is not kept.")
            return None
        try:
            began = time.time()
            build(aside / f"{key}.pt2")
            seconds = time.time() - began
            try:
                _keep(folder, key, aside, {"about": dict(about), "made": began, "seconds": seconds})
            except OSError as error:
                _say(f"A program could not be kept in {str(folder)!r}: {error}.")
                return None
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._drop_old(folder, key)
        return folder / f"{key}.pt2"

    def _drop_old(self, folder: Path, kept: str) -> None:
        """Removes what killed builders left, and what was not used for longest where all take too much."""
        whole, total, limit = [], 0, size_limit()
        for key, kinds in self._entries(folder).items():
            if {"pt2", "json"} <= kinds:
                with contextlib.suppress(OSError, _Refused):
                    whole.append(_noted(folder, key))
                    continue
            self._remove_unless_locked(folder, key)
        for package in sorted(whole, key=lambda package: (package.key == kept, package.used), reverse=True):
            total += package.bytes
            if total > limit and package.key != kept:
                self._remove_unless_locked(folder, package.key)

    def _remove_unless_locked(self, folder: Path, key: str) -> None:
        with locked(folder / f"{key}.lock", 0.0) as got:
            if got:
                _remove(folder, key)

    def _entries(self, folder: Path) -> dict[str, set[str]]:
        """Keys and what is there of each; files of other names are nobody's business."""
        found: dict[str, set[str]] = {}
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for name in sorted(os.listdir(folder)):
                match = _NAMES.fullmatch(name)
                if match:
                    key = match["key"] or match["of"]
                    found.setdefault(key, set()).add(match["kind"] or "building")
        return found


def _check_key(key: str) -> None:
    if not re.fullmatch("[0-9a-f]{16,128}", key):
        raise ValueError(f"key={key!r} names a file: it must be 16 to 128 hexadecimal digits.")


def _keep(folder: Path, key: str, aside: Path, note: dict[str, Any]) -> None:
    """Puts a built package into its place: the note comes last, and without one there is no package."""
    built, written = aside / f"{key}.pt2", aside / f"{key}.json"
    os.chmod(built, 0o600)
    note = {"format": FORMAT, "key": key, "sha256": _checksum(built), **note}
    with open(written, "x", encoding="utf-8", opener=functools.partial(os.open, mode=0o600)) as file:
        json.dump(note, file, default=str)
    for path in (built, written):
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(path, folder / path.name)
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _remove(folder: Path, key: str) -> None:
    """The note first: a package without one is none."""
    for kind in ("json", "pt2"):
        path = folder / f"{key}.{kind}"
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
    for aside in folder.glob(f"building-{key}-*"):
        shutil.rmtree(aside, ignore_errors=True)


def _noted(folder: Path, key: str) -> Package:
    note, path = _read_note(folder, key), folder / f"{key}.pt2"
    used = (folder / f"{key}.json").stat().st_mtime
    return Package(key, path, note["about"], path.stat().st_size, float(note["made"]), used)


def _read_note(folder: Path, key: str) -> dict[str, Any]:
    with _opened(folder / f"{key}.json") as handle:
        text = os.read(handle, 1 << 20)
    try:
        note = json.loads(text)
        if note["format"] == FORMAT and note["key"] == key and isinstance(note["about"], dict):
            return {**note, "sha256": str(note["sha256"]), "made": float(note["made"])}
    except (ValueError, TypeError, KeyError):
        raise _Refused("its note cannot be read") from None
    raise _Refused("its note is of another kind")


def _checksum(path: Path) -> str:
    total = hashlib.sha256()
    with _opened(path) as handle:
        while part := os.read(handle, 1 << 20):
            total.update(part)
    return total.hexdigest()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A file of ours that nobody else can write. Raises: _Refused, OSError."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise _Refused(f"{str(path)!r} is no file")
        _check_owned(found, path)
        yield handle
    finally:
        os.close(handle)


def _check_owned(found: os.stat_result, path: Path) -> None:
    """Raises: _Refused where others than this user could have written it."""
    if not hasattr(os, "geteuid"):
        return
    if found.st_uid != os.geteuid():
        raise _Refused(f"{str(path)!r} belongs to another user")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _Refused(f"{str(path)!r} can be written by others")


_SAID: set[str] = set()


def _say(text: str) -> None:
    """Warns, of each thing once."""
    if text not in _SAID:
        _SAID.add(text)
        warnings.warn(text, AdamodeWarning, stacklevel=4)


def _remove_of(process: int, folder: Path) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
