"""A lock between processes that ends with the process that holds it, however that ends."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows: there processes build side by side, and the last one's file stays
    fcntl = None  # type: ignore[assignment]

PAUSE = 0.05  # seconds between two tries
# What a file system says that knows no locks.
_UNKNOWN = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
# A process's locks are its threads' alike, so the threads have one of their own.
_THREADS: dict[str, threading.Lock] = defaultdict(threading.Lock)


@contextlib.contextmanager
def locked(path: Path, wait: float) -> Iterator[bool]:
    """Whether the lock was got within ``wait`` seconds; it is given back at the end.

    The kernel gives it back where the process is killed, so none is ever stale. Where the file system has no
    locks, it counts as got.
    """
    until = time.monotonic() + wait
    inside = _THREADS[str(path)]
    if not inside.acquire(timeout=max(wait, 0.0)):
        yield False
        return
    try:
        handle = _acquired(path, until)
        if handle is None:
            yield False
            return
        try:
            yield True
        finally:
            _release(path, handle)
    finally:
        inside.release()


def _acquired(path: Path, until: float) -> int | None:
    """The file that holds the lock; None where another process has it for too long.

    Its last holder removes the file: a lock on a file that is no longer there is nobody's.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        try:
            if fcntl is not None:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(handle, path):
                return handle
        except OSError as error:
            if error.errno in _UNKNOWN:
                return handle
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                os.close(handle)
                raise
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        if time.monotonic() >= until:
            return None
        time.sleep(PAUSE)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _release(path: Path, handle: int) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
    os.close(handle)
