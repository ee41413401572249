"""Signs that a terminal cannot show: each in the letters that it has.

A pipe on Windows often has cp1252, a bare container ASCII: Python then ends a program amid a line.
"""

from __future__ import annotations

import codecs
import sys
import unicodedata

HANDLER = "adamode-plain"
_PAIRS = (
    '×x ·* –- —- −- →-> ←<- ↦-> ≤<= ≥>= ≈~ ≠!= ≪<< ≫>> ±+- ∞inf √sqrt ‖|| ∂d ⟨< ⟩> ’\' ✓ok ✗x •* “" ”" …... '
    "øo ØO æae"
)
PLAIN = {pair[0]: pair[1:] for pair in _PAIRS.split()}


def plain(sign: str) -> str:
    """ASCII for one sign: a sign like it, a Greek letter's name, the letter without its accent, else "?"."""
    if sign in PLAIN:
        return PLAIN[sign]
    name = unicodedata.name(sign, "")
    if name.startswith("GREEK"):
        return name.split(" WITH ")[0].split()[-1].lower()
    if name.startswith("BOX DRAWINGS"):
        return {"HORIZONTAL": "-", "VERTICAL": "|"}.get(name.split()[-1], "+")
    return unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode() or "?"


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(plain, error.object[error.start : error.end])), error.end


def say_what_can_be_shown() -> None:
    """From now on stdout and stderr show `plain` signs where their encoding has none, and raise nothing."""
    codecs.register_error(HANDLER, _replaced)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # a notebook's stream, which takes all, has none
        if reconfigure is not None and codecs.lookup(stream.encoding).name != "utf-8":
            reconfigure(errors=HANDLER)
