"""One's own data: a folder of pictures, an ``.npz`` with x and y, a recording, or sets made in Python."""

from __future__ import annotations

from ..raw import Raw, Scaling
from .kinds import ARRAYS, IMAGES, POINTS, RECORDING, load_own, look

__all__ = ["ARRAYS", "IMAGES", "POINTS", "RECORDING", "Raw", "Scaling", "load_own", "look"]
