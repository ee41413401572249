"""The command line. Commands parse, call the library, print and choose the exit status."""

from __future__ import annotations


def main() -> None:
    """Runs the program ``adamode``."""
    from .app import app

    app(prog_name="adamode")
