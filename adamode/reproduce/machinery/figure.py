"""What a figure or table of the paper is made of: settings for each scale, a table, pictures, a verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .work import Work

SCALES = ("smoke", "sample", "paper")
HOLDS, IN_PART, FAILS, UNTOLD = (
    "holds",
    "holds in part",
    "does not hold",
    "cannot be told at this scale",
)
VERDICTS = (HOLDS, IN_PART, FAILS, UNTOLD)


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
    that the page shows, with their headings.
    """

    name: str
    title: str
    says: str
    settings: Mapping[str, Any]
    compute: Callable[[Any, Work], Outcome]
    judge: Callable[[Any, Outcome], list[Claim]]
    pictures: Mapping[str, Picture]
    columns: Mapping[str, str]
