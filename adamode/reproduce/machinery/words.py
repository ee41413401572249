"""What a figure says: its sentences lie in words/<figure>.ini, with gaps for the numbers that are found."""

from __future__ import annotations

import configparser
import re
import string
from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from typing import Any

from .figure import UNTOLD, Claim, Figure, Outcome, Picture


class _Gaps(string.Formatter):
    """`str.format` with gaps for what may lack: {value:form unit|otherwise} is "otherwise" for None, or "–".

    Forms beside Python's own: "pow2" is the power of ten of a log10, with two digits; "share" a part of 1
    in per cent; "? (# gave up)" the rest of the form with the value in the place of #, and nothing for 0.
    """

    def format_field(self, value: Any, format_spec: str) -> str:
        """The value in the form."""
        form, bar, otherwise = format_spec.partition("|")
        if value is None:
            return otherwise if bar else "–"
        if form.startswith("pow"):
            return f"10^{value:.{form[3:]}f}"
        if form.startswith("?"):
            return form[1:].replace("#", str(value)) if value else ""
        if form == "share":
            return f"{100 * value:.3g} %"
        number, space, unit = form.partition(" ") if isinstance(value, float) else (form, "", "")
        return f"{super().format_field(value, number)}{space}{unit}"


class Words:
    """The words of the figure called ``name``: title, claim of the paper, headings, captions, sentences."""

    def __init__(self, name: str):
        self.name, self._gaps = name, _Gaps()
        parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",))
        place = resources.files(__package__).joinpath("..", "words", f"{name}.ini")
        parser.read_string(place.read_text(encoding="utf-8"))
        self._sections = {
            name: {key: " ".join(text.split()) for key, text in section.items()}
            for name, section in parser.items()
        }

    def say(self, sentence: str, **values: Any) -> str:
        """A sentence by its name, its gaps filled."""
        return self._filled(self._sections["sentences"][sentence], values)

    def each(
        self, sentence: str, rows: Iterable[Mapping[str, Any]], between: str = "; ", **values: Any
    ) -> str:
        """The sentence for each row, one after the other; values: the same for all."""
        return between.join(self.say(sentence, **{**values, **row}) for row in rows)

    def claim(self, name: str, verdict: str, *, told: bool = True, **values: Any) -> Claim:
        """A claim by its name. told: False where such settings cannot tell, whatever the verdict is."""
        texts = self._sections[f"claim {name}"]
        filled = {part: self._filled(text, values) for part, text in texts.items()}
        return Claim(**filled, verdict=verdict if told else UNTOLD)

    def figure(
        self,
        settings: Mapping[str, Any],
        compute: Callable[..., Outcome],
        judge: Callable[..., list[Claim]],
        pictures: Mapping[str, tuple[Callable[..., None], tuple[float, float]]],
    ) -> Figure:
        """The figure. pictures: what draws each, and its size in inches."""
        captions, columns = self._sections["captions"], self._sections["columns"]
        drawn = {name: Picture(draw, size, captions[name]) for name, (draw, size) in pictures.items()}
        about = self._sections["figure"]
        return Figure(self.name, about["title"], about["says"], settings, compute, judge, drawn, columns)

    def _filled(self, text: str, values: Mapping[str, Any]) -> str:
        return re.sub(" {2,}", " ", self._gaps.vformat(text, (), values)).strip()
