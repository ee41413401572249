"""Finding data files: where they are looked for, and what is said when they are not there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ...solvers.errors import DataError, MissingDataError

VARIABLE = "ADAMODE_DATA"


def data_folder(data_dir: str | None, name: str, remedy: str, *, make: bool = False) -> Path:
    """The folder that holds the files of data set ``name``: data_dir, else $ADAMODE_DATA.

    make: create it if it is not there.
    Raises: MissingDataError where neither is given or the folder is not there, DataError where it is none;
    ``remedy`` says how to get the files.
    """
    folder, origin = data_dir, "--data-dir"
    if folder is None:
        folder, origin = os.environ.get(VARIABLE) or None, VARIABLE
    if folder is None:
        raise MissingDataError(
            f"data set {name!r} is read from files, and no folder was given: use --data-dir FOLDER (in "
            f"Python DataOptions(data_dir=…)) or the environment variable {VARIABLE}. {remedy}"
        )
    path = Path(folder).expanduser()
    if make and not path.exists():
        try:
            path.mkdir(parents=True)
        except OSError as error:
            raise DataError(f"{origin} {str(folder)!r} cannot be made: {error}.") from error
    if not path.exists():
        raise MissingDataError(
            f"{origin} {str(folder)!r} does not exist; {name!r} is looked for there. {remedy}"
        )
    if not path.is_dir():
        raise DataError(f"{origin} {str(folder)!r} is not a folder; {name!r} is looked for there. {remedy}")
    return path


def find_file(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of ``names`` (paths relative to ``folder``) that is a file, or None."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def not_found(name: str, folder: Path, looked_for: Sequence[str], remedy: str) -> MissingDataError:
    """The error that says which files of data set ``name`` were looked for, and how to get them."""
    listed = ", ".join(looked_for)
    return MissingDataError(f"data set {name!r} is not in {str(folder)!r}: looked for {listed}. {remedy}")


def unreadable(path: Path, error: Exception) -> DataError:
    """The error for a file that the system does not let us read, or that is damaged."""
    if isinstance(error, UnicodeDecodeError):
        return DataError(
            f"{str(path)!r} is no UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}. Save "
            "it as UTF-8; spreadsheets call that kind “CSV UTF-8”."
        )
    reason = str(error) or type(error).__name__
    return DataError(
        f"{str(path)!r} cannot be read: {reason.rstrip('.')}. It may be truncated or of another "
        "kind; compare its size with the original's and fetch it again."
    )
