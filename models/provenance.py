"""Which commit of this package, and of the folder a program runs in, computed what is kept."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any


def git_state() -> dict[str, Any]:
    """Commit, and whether files differ from it, of this package's checkout and the current folder's.

    Only what there is: empty for an installed package used outside any repository.
    """
    found: dict[str, Any] = {}
    root = Path(__file__).resolve().parent.parent
    places = {"here": Path.cwd()} | ({"adamode": root} if (root / ".git").exists() else {})
    for place, folder in sorted(places.items()):
        commit = _git(folder, "rev-parse", "HEAD")
        if commit:
            found[f"{place}_commit"] = commit
            found[f"{place}_changed"] = bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
    return found


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False, timeout=120
        )
    except (OSError, subprocess.SubprocessError):
        return ""  # no git here
    return done.stdout.strip() if done.returncode == 0 else ""
