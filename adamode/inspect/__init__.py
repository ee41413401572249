"""Study of one solve: problems by name, what each attempt did, work against precision, pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..solvers.lazy import when_used

if not TYPE_CHECKING:  # its modules are attributes, imported when they are first used
    __getattr__, __dir__ = when_used(__name__, {})
