"""What is said of a data file that cannot be read."""

from __future__ import annotations

from pathlib import Path

from ...solvers.errors import DataError


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
