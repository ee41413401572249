"""What a figure or table of the paper is made of: settings for each scale, a table, pictures, verdicts.

What it says lies in words/<figure>.ini: sentences with gaps for the numbers that are found.
"""

from __future__ import annotations

import configparser
import dataclasses
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

SCALES = ("smoke", "sample", "full-small", "paper")
VERDICTS = ("holds", "holds in part", "does not hold", "cannot be told at this scale")
HOLDS, IN_PART, FAILS, UNTOLD = VERDICTS
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of the paper and what came out here.

    claim: what the paper says, in a sentence.  paper, ours: the two numbers, with their units, as text
    ("10^18.6", "+20 %").  verdict: one of `VERDICTS`.  why: the evidence for the verdict, in a sentence or
    two.
    """

    claim: str
    paper: str
    ours: str
    verdict: str
    why: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"verdict={self.verdict!r} must be one of {', '.join(VERDICTS)}.")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What was computed: plain values that JSON can hold; a number that is not finite is None.

    rows: the table of the figure in the authors' setting, a dict a row.  variants: every other setting, by
    name.  findings: what was found out about a claim that does not reproduce, a sentence each.
    """

    rows: list[dict[str, Any]]
    variants: dict[str, Any] = dataclasses.field(default_factory=dict)
    findings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Picture:
    """draw(figure, settings, outcome) draws into an empty matplotlib figure of ``size`` inches.

    caption: a sentence for below the picture and for those who cannot see it.
    """

    draw: Callable[[Any, Any, Outcome], None]
    size: tuple[float, float]
    caption: str


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure or table of the paper.

    name: of its command ("fig1").  says: the paper's claim in a sentence.  settings: a frozen dataclass for
    each of `SCALES`; its fields are plain values.  compute(settings, work) makes the outcome, piece by piece
    through `Work.part`, so that it can be gone on with.  judge(settings, outcome) says which claims hold.
    pictures: by file name without ".png"; the first is in the paper's layout.  columns: of the rows, those
    that the page shows, with their headings.  kind: what its verdicts are about, a name in `KINDS`.
    """

    name: str
    title: str
    says: str
    settings: Mapping[str, Any]
    compute: Callable[[Any, Any], Outcome]  # settings, the `Work` that keeps parts
    judge: Callable[[Any, Outcome], list[Claim]]
    pictures: Mapping[str, Picture]
    columns: Mapping[str, str]
    kind: str = "training"


_NOTHING = "\0"  # in the place of a gap that stays empty: the blank before it goes too
_FORMS: Mapping[str, Callable[[Any], str]] = {
    "share": lambda value: f"{100 * value:.3g} %",
    "model": lambda value: MODEL_NAMES[value],
    "capital": lambda value: value.capitalize(),
}


class _Gaps(string.Formatter):
    """`str.format` with gaps for what may lack: {value:form unit|otherwise} is "otherwise" for None, or "–".

    Forms beside Python's own: "pow2" is the power of ten of a log10, with two digits; "share" a part of 1
    in per cent; "model" the name of a model; "capital" a word at the beginning of a sentence;
    "? (# gave up)|otherwise" what follows the ?, with the value in the place of #, and "otherwise" for 0.
    """

    def __init__(self, say: Callable[..., str]):
        self._say = say

    def get_value(self, key: int | str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The value for a gap; a gap for which there is none is the sentence of that name."""
        return kwargs[str(key)] if key in kwargs else self._say(str(key), **kwargs)

    def format_field(self, value: Any, format_spec: str) -> str:
        """The value in the form."""
        return self._formed(value, format_spec) or _NOTHING

    def _formed(self, value: Any, format_spec: str) -> str:
        form, bar, otherwise = format_spec.partition("|")
        if form.startswith("?"):
            return form[1:].replace("#", str(value)) if value else otherwise
        if value is None:
            return otherwise if bar else "–"
        if form.startswith("pow"):
            return f"10^{value:.{form[3:]}f}"
        if form in _FORMS:
            return _FORMS[form](value)
        number, space, unit = form.partition(" ") if isinstance(value, float) else (form, "", "")
        return f"{super().format_field(value, number)}{space}{unit}"


def words_of(file: str) -> str:
    """What a file in words/ holds."""
    return (Path(__file__).parent.parent / "words" / file).read_text(encoding="utf-8")


class Words:
    """The words of the figure called ``name``: title, claim of the paper, headings, captions, sentences.

    Raises: KeyError for a sentence, a claim or a gap that there is not.
    """

    def __init__(self, name: str):
        self.name, self._gaps = name, _Gaps(self.say)
        parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",))
        parser.read_string(words_of(f"{name}.ini"))
        self._sections = {
            title: {key: " ".join(text.split()) for key, text in section.items()}
            for title, section in parser.items()
        }

    def table(self, section: str) -> Mapping[str, str]:
        """The words of a section, by name."""
        return self._sections[section]

    def say(self, sentence: str, /, **values: Any) -> str:
        """A sentence by its name, its gaps filled."""
        return self._filled(self._sections["sentences"][sentence], values)

    def each(self, sentence: str, rows: Iterable[Row] | Mapping[str, Any], between: str = "; ") -> str:
        """The sentence for each row, one after the other; of a mapping, for each "key" and its "value"."""
        if isinstance(rows, Mapping):
            rows = [{"key": key, "value": value} for key, value in rows.items()]
        return between.join(self.say(sentence, **row) for row in rows)

    def claim(self, name: str, verdict: str, /, **values: Any) -> Claim:
        """A claim by its name.

        values: of its gaps; ``told`` is False where such settings cannot tell, whatever the verdict is.
        """
        texts = self._sections[f"claim {name}"]
        filled = {part: self._filled(text, values) for part, text in texts.items()}
        return Claim(**filled, verdict=verdict if values.get("told", True) else UNTOLD)

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
        return Figure(
            name=self.name,
            title=about["title"],
            says=about["says"],
            settings=settings,
            compute=compute,
            judge=judge,
            pictures=drawn,
            columns=columns,
            kind=about["kind"],
        )

    def _filled(self, text: str, values: Mapping[str, Any]) -> str:
        filled = self._gaps.vformat(text, (), values)
        return re.sub(f" {_NOTHING}|^{_NOTHING} ?|{_NOTHING}", "", filled)


MACHINERY = Words("machinery")
MODEL_NAMES: Mapping[str, str] = MACHINERY.table("models")
KINDS: Mapping[str, str] = MACHINERY.table("kinds")  # of verdicts, for the top of the page
