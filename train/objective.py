"""Where adamode/reproduce asks for `Objective`, which is in `train.step`."""

from __future__ import annotations

from .step import Objective as Objective
