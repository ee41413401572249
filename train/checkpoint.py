"""One file that holds everything that decides the next number of a run.

Written aside, flushed and renamed; read with ``weights_only=True``, so that a file from a stranger
cannot run code; and signed with a digest of its contents, because torch's reader does not notice
a flipped byte inside a tensor.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch

from ..solvers.errors import CheckpointError, TrainingError, first_line
from ..solvers.write_aside import write_aside

FORMAT = "adamode-checkpoint-3"
KEYS = frozenset(
    {
        "config",
        "data",
        "model",
        "optimizer",
        "rng",
        "epoch",
        "batch",
        "dt",
        "sums",
        "history",
        "best",
        "final",
    }
)


def save_checkpoint(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Writes ``state`` (keys `KEYS`; tensors, numbers, texts, lists, tuples, dicts) to ``path``.

    Raises: TrainingError if the disk refuses; the checkpoint that was there stays.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "digest": _digest(state), **state}, buffer)
    try:
        write_aside(path, buffer.getvalue())
    except OSError as error:
        raise TrainingError(
            f"checkpoint {str(path)!r} could not be written ({error}); the last good checkpoint is "
            "untouched. Free some space or make the folder writable, then go on with --resume."
        ) from error


BEST_KEYS = frozenset({"config", "model", "epoch", "metrics"})


def load_checkpoint(path: str | os.PathLike[str], keys: frozenset[str] = KEYS) -> dict[str, Any]:
    """Reads what `save_checkpoint` wrote, with all tensors on the CPU.

    keys: what a file of this kind must hold (`KEYS`; `BEST_KEYS` for the best weights alone).

    Raises: CheckpointError for a file that is missing, damaged or not a checkpoint of this project.
    """
    path = Path(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen unrelated types for damaged files
        raise CheckpointError(
            f"checkpoint {str(path)!r} cannot be read ({type(error).__name__}: {first_line(error, 120)}): "
            "it is missing, damaged or not a checkpoint. Restore it from a copy, or train again "
            "under another --name."
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or not content.keys() >= keys:
        raise CheckpointError(
            f"checkpoint {str(path)!r} was not written by this project (a file with format={FORMAT!r} "
            "is needed). Give the folder of a run that `adamode train` made."
        )
    state = {key: content[key] for key in keys}
    if content.get("digest") != _digest(state):
        raise CheckpointError(
            f"checkpoint {str(path)!r} is damaged: its contents do not match their digest. Restore "
            "it from a copy, or train again under another --name."
        )
    return state


def _digest(value: Any) -> str:
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    """Adds a nested value to a digest; dictionaries in the order of their keys' texts."""
    if isinstance(value, torch.Tensor):
        digest.update(f"tensor {value.dtype} {tuple(value.shape)}".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    elif isinstance(value, dict):
        digest.update(f"dict {len(value)}".encode())
        for key in sorted(value, key=repr):
            digest.update(repr(key).encode())
            _feed(digest, value[key])
    elif isinstance(value, list | tuple):
        digest.update(f"{type(value).__name__} {len(value)}".encode())
        for item in value:
            _feed(digest, item)
    else:
        digest.update(f"{type(value).__name__} {value!r} ".encode())
