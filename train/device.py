"""The device that a run asks for, checked before anything is computed."""

from __future__ import annotations

import torch

from ..solvers.errors import ArgumentError, first_line


def checked_device(name: str) -> torch.device:
    """The torch device called ``name``. Raises: ArgumentError if there is none here."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = first_line(error, 120)
        raise ArgumentError(
            f"device={name!r} cannot be used here ({reason}); 'cpu' always can, 'cuda' where torch "
            "sees a GPU."
        ) from error
    if device.type == "meta":
        raise ArgumentError("device='meta' holds no numbers; use 'cpu' or 'cuda'.")
    return device
