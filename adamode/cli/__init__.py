"""The command line. Commands parse, call the library, print and choose the exit status."""

from __future__ import annotations


def main() -> None:
    """Runs the program ``adamode``."""
    from .app import app
    from .terminal import say_what_can_be_shown

    say_what_can_be_shown()
    app(prog_name="adamode")
