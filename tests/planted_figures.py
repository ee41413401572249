"""Figures that take no time, in the place of the paper's: what is made around them is what is tested."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from adamode.reproduce.machinery.figure import FAILS, HOLDS, IN_PART, UNTOLD, Claim, Figure, Outcome, Picture
from adamode.reproduce.machinery.work import Work

EVIL = "<script>alert('&')</script>"


@dataclasses.dataclass(frozen=True)
class Settings:
    points: int = 3
    seeds: tuple[int, ...] = (0, 1)


@dataclasses.dataclass(frozen=True)
class DataSettings(Settings):
    datasets: tuple[str, ...] = ("mnist", "cifar10")


def compute(settings: Any, work: Work) -> Outcome:
    squares = work.part("squares", lambda: [k * k for k in range(settings.points)])
    rows = [{"model": "adamnode", "k": k, "square": float(s)} for k, s in enumerate(squares)]
    rows[0]["square"] = None
    return Outcome(
        rows, variants={"cubes": [k**3 for k in range(settings.points)]}, findings=(f"{EVIL} odd",)
    )


def judge(settings: Any, outcome: Outcome) -> list[Claim]:
    last = outcome.rows[-1]["square"]
    return [
        Claim(f"squares grow {EVIL}", "×4", f"×{last:g}", HOLDS, f"the last is {last:g} & more"),
        Claim("they grow for ever", "∞", "4", UNTOLD, "three of them were looked at."),
        Claim("all are even", "3 of 3", "2 of 3", IN_PART, "1 is not."),
        Claim("none is 0", "0 of 3", "1 of 3", FAILS, "0 is."),
    ]


def draw(figure: Any, settings: Any, outcome: Outcome) -> None:
    figure.text(0.1, 0.5, ", ".join(str(row["square"]) for row in outcome.rows[:5]))  # axes take longest


def planted(
    name: str,
    compute: Callable[[Any, Work], Outcome] = compute,
    judge: Callable[[Any, Outcome], list[Claim]] = judge,
    kind: Any = Settings,
) -> Figure:
    """A figure called ``name`` that squares 3, 20 or 30 numbers."""
    return Figure(
        name=name,
        title="squares of numbers",
        says="Squares grow faster than what is squared.",
        settings={
            "smoke": kind(),
            "sample": kind(points=20),
            "full-small": kind(points=25),
            "paper": kind(points=30),
        },
        compute=compute,
        judge=judge,
        pictures={
            name: Picture(draw, (8, 3), f"The squares, {EVIL}, of {name}."),
            f"{name}-more": Picture(draw, (4, 3), "The same, smaller."),
        },
        columns={"model": "model", "k": "number", "square": "its square"},
    )
