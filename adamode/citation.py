"""Which publications stand behind which name: methods, gradients, models, data sets, and further parts.

The publications themselves stand in ``references.bib``, once. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .solvers.errors import ArgumentError, CheckpointError, did_you_mean
from .train.known import SETTINGS
from .train.text import wrapped

ITSELF = "adamode"
WIDTH = 79  # of the form that is read, which goes into files
_DOPRI5 = ("dormand1980", "shampine1986")
_ADAMS = ("bashforth1883", "moulton1926", "hairer1993")
_DIGITS = ("alpaydin1998", "pedregosa2011")
_DEQUANTISED = ("uria2013", "dinh2017")

METHODS: Mapping[str, tuple[str, ...]] = {
    "euler": ("euler1768",),
    "midpoint": ("runge1895",),
    "heun2": ("heun1900",),
    "heun3": ("heun1900",),
    "rk4": ("kutta1901",),
    "rk4_classic": ("kutta1901",),
    "adaptive_heun": ("heun1900", "hairer1993"),
    "fehlberg2": ("fehlberg1969",),
    "bosh3": ("bogacki1989",),
    "dopri5": _DOPRI5,
    "tsit5": ("tsitouras2011",),
    "dopri8": ("prince1981", "enright1986"),
    "dop853": ("hairer1993",),
    "kvaerno3": ("kvaerno2004",),
    "kvaerno5": ("kvaerno2004",),
    "radau5": ("hairer1996",),
    "rodas3": ("sandu1997",),
    "rodas5p": ("steinebach2023",),
    "auto": ("petzold1983", *_DOPRI5, "hairer1996"),
    "alf": ("mutze2013", "zhuang2021"),
    "explicit_adams": _ADAMS,
    "implicit_adams": _ADAMS,
    "fixed_adams": _ADAMS,
    "scipy_solver": ("virtanen2020",),
}
GRADIENTS: Mapping[str, tuple[str, ...]] = {
    "discrete": ("hager2000", "sandu2006"),
    "interpolating": ("ma2021",),
    "backsolve": ("chen2018",),
    "direct": ("paszke2019",),
    "reversible": ("mccallum2024",),
}
MODELS: Mapping[str, tuple[str, ...]] = {
    "node": ("chen2018",),
    "anode": ("dupont2019",),
    "sonode": ("norcliffe2020",),
    "hbnode": ("xia2021",),
    "ghbnode": ("xia2021",),
    "adamnode": ("cho2022",),
    "nesterovnode": ("nguyen2022", "su2016"),
    "gnesterovnode": ("nguyen2022", "su2016"),
    "momentumnode": ("xia2021", "nguyen2022", "su2016"),
}
DATA: Mapping[str, tuple[str, ...]] = {
    "digits": _DIGITS,
    "mnist": ("lecun1998",),
    "cifar10": ("krizhevsky2009",),
    "silverbox": ("wigren2013",),
    "silverbox-paper": ("wigren2013", "cho2022"),
    "silverbox-simulated": ("wigren2013",),
    "robertson": ("robertson1966", "kim2021"),
    "spiral": (ITSELF,),
    "circles": ("dupont2019",),
    "moons": ("pedregosa2011",),
    "checkerboard": ("grathwohl2019",),
    "rings": ("grathwohl2019",),
    "digits-density": (*_DIGITS, *_DEQUANTISED),
    "mnist8-density": ("lecun1998", *_DEQUANTISED),
}
PARTS: Mapping[str, tuple[str, ...]] = {
    "controller": ("hairer1993", "soderlind2003"),
    "events": ("shampine2000",),
    "flow": ("chen2018", "grathwohl2019"),
    "per_sample": ("lienen2022",),
    "signal": ("kidger2020", "morrill2022"),
    "kinetic": ("finlay2020",),
    "jacobian": ("finlay2020",),
    "error": ("pal2021",),
    "stiffness": ("pal2021",),
}
KINDS = {"methods": METHODS, "gradients": GRADIENTS, "models": MODELS, "data sets": DATA, "parts": PARTS}
KNOWN: Mapping[str, tuple[str, ...]] = {name: keys for kind in KINDS.values() for name, keys in kind.items()}

# LaTeX's letters in references.bib, for the form that is read.
_SIGNS = {
    r"{\ae}": "æ",
    r"{\o}": "ø",
    r"{\`e}": "è",
    r"{\`o}": "ò",
    r"{\"a}": "ä",
    r"{\"o}": "ö",
    r"{\"u}": "ü",
    r"{\"U}": "Ü",
    r"\&": "&",
    "--": "–",
}


@dataclasses.dataclass(frozen=True)
class Reference:
    """One publication.

    kind: of the entry: article, book …
    key: by which LaTeX knows it.
    fields: by name, in LaTeX's letters, on one line each.
    bibtex: the entry as it stands in the file.
    """

    kind: str
    key: str
    fields: Mapping[str, str]
    bibtex: str

    def said(self, name: str) -> str:
        """A field as it is read; "" where there is none."""
        text = self.fields.get(name, "")
        for sign, letter in _SIGNS.items():
            text = text.replace(sign, letter)
        return text.replace("{", "").replace("}", "")

    def authors(self) -> list[str]:
        """Their names, "family, initials" as they are sorted."""
        return self.said("author").split(" and ")

    def short(self) -> str:
        """Family names and year: "Dormand, Prince 1980"."""
        return f"{', '.join(author.split(',')[0] for author in self.authors())} {self.said('year')}"

    def text(self) -> str:
        """The publication on one line: authors, title, where, when, and its DOI or arXiv number."""
        turned = [" ".join(reversed(author.split(", "))) for author in self.authors()]
        where = self.said("journal") or self.said("booktitle") or self.said("publisher")
        where = where or " ".join(filter(None, (self.said("institution"), self.said("number"))))
        if self.said("journal"):
            number = f"({self.said('number')})" if self.said("number") else ""
            where = " ".join(filter(None, (where, self.said("volume") + number)))
        version = f"Version {self.said('version')}" if self.said("version") else ""
        when = ", ".join(filter(None, (where, self.said("pages"), version, self.said("year"))))
        told = [", ".join(turned).replace(", others", " et al"), self.said("title"), when]
        if self.said("doi"):
            told.append(f"https://doi.org/{self.fields['doi']}")
        elif self.said("eprint"):
            told.append(f"arXiv {self.said('eprint')}")
        return ". ".join(told)


@functools.lru_cache(maxsize=1)
def references() -> dict[str, Reference]:
    """All publications by key, as ``references.bib`` has them."""
    text = (Path(__file__).parent / "references.bib").read_text(encoding="ascii")
    return {reference.key: reference for reference in read(text)}


def read(text: str) -> list[Reference]:
    """The entries of a BibTeX file whose entries end with a brace in a line of its own.

    Raises ArgumentError for an entry with a line that is no field.
    """
    found = []
    for entry in re.finditer(r"^@(\w+)\{([\w-]+),\n(.*?)^\}$", text, re.MULTILINE | re.DOTALL):
        kind, key, body = entry.groups()
        lines = re.split(r",\n", re.sub(r"\n\s{6,}", " ", body))
        fields = {}
        for line in filter(str.strip, lines):
            field = re.fullmatch(r"\s*(\w+)\s*=\s*\{(.*)\}", line)
            if field is None:
                raise ArgumentError(f"{key}: {line.strip()!r} is not a field, name = {{value}}.")
            fields[field.group(1)] = field.group(2)
        found.append(Reference(kind, key, fields, entry.group(0)))
    return found


def known_as(name: str) -> str | None:
    """A name as it stands in `KNOWN`, given in any case and with either dash: AdamNODE, per-sample."""
    lower = name.lower()
    spelt = (lower, lower.replace("-", "_"), lower.replace("_", "-"))
    return next((one for one in spelt if one in KNOWN), None)


def keys_of(name: str) -> tuple[str, ...]:
    """The publications behind a name of `KNOWN`, or behind adamode. Raises ArgumentError for another."""
    if name == ITSELF:
        return (ITSELF,)
    if name not in KNOWN:
        raise ArgumentError(
            f"{name!r} is neither a method, gradient, model, data set or part of adamode, nor the folder of "
            f"a run: {did_you_mean(name, KNOWN)}`adamode cite --list` prints all names."
        )
    return KNOWN[name]


def names_in_run(folder: Path) -> list[str]:
    """What a run used, by its config.json: model, data set, method, gradient and, where they are not the
    default, steps per sample and penalties. A model or data of the user's own has no source here.

    Raises CheckpointError for a folder without settings.
    """
    path = folder / SETTINGS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read ({error}): give the folder of a run.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{str(path)!r} is not a run's configuration.")
    given: list[Any] = [content.get(name) for name in ("model", "dataset", "method", "gradient", "stepping")]
    penalties = content.get("regularise") or ""
    given += [part.partition("=")[0].strip() for part in str(penalties).split(",")]
    return [name for name in given if isinstance(name, str) and name in KNOWN]


def behind(names: Iterable[str]) -> dict[str, list[str]]:
    """Keys of the publications, adamode's own first, each once, with the names that ask for it.

    Raises ArgumentError for a name that is not known.
    """
    found: dict[str, list[str]] = {ITSELF: []}
    for name in dict.fromkeys(known_as(name) or name for name in names):
        for key in keys_of(name):
            found.setdefault(key, []).append(name)
    found[ITSELF] = [name for name in found[ITSELF] if name != ITSELF]
    return found


def as_bibtex(names: Iterable[str]) -> str:
    """Entries for a .bib file; a comment before each says what it is the source of."""
    entries = []
    for key, asked in behind(names).items():
        heading = f"% {', '.join(asked)}\n" if asked else ""
        entries.append(heading + references()[key].bibtex)
    return "\n\n".join(entries)


def as_text(names: Iterable[str]) -> str:
    """The same to be read: a paragraph a publication."""
    paragraphs = []
    for key, asked in behind(names).items():
        told = f"{', '.join(asked)}: " if asked else ""
        paragraphs.append(wrapped(told + references()[key].text(), "    ", WIDTH))
    return "\n".join(paragraphs)
