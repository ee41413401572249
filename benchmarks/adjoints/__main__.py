"""``python -m benchmarks.adjoints``: measures all, writes the tables of docs/adjoints.md and a picture."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch

from adamode import Backsolve

from . import cost, growth, guard, slopes, tables
from .cases import MODELS
from .page import machine, write
from .picture import draw

DOCS = Path(__file__).parents[2] / "docs"
PARTS = ("cost", "slopes", "memory", "guard")
Say = Callable[[str], None]


def measure_cost(quick: bool, say: Say) -> dict[str, str]:
    models, tolerances = (MODELS[:1], cost.TOLERANCES[:1]) if quick else (MODELS, cost.TOLERANCES)
    rounds = 2 if quick else 11
    found, doubt, steps = cost.costs(models, tolerances, rounds, say)
    details = []
    for name in models:
        own = ", ".join(f"{steps[name, tol]} at {tables.decade(tol)}" for tol in tolerances)
        own += f"; reference good to {tables.power(doubt[name])}"
        details.append(f"**{name}** (steps: {own})\n\n{tables.cells(found, name, tolerances)}")
    parts = {"summary": tables.summary(found, tolerances), "cost": "\n".join(details)}
    if not quick:
        wide, wide_steps = cost.wide_costs(7, say)
        own = ", ".join(f"{n} at {tables.decade(tol)}" for (_, tol), n in wide_steps.items())
        cells = tables.cells(wide, "AdamNODE, wide", cost.WIDE)
        parts["wide"] = f"Steps: {own}.\n\n{cells}"
    return parts


def measure_slopes(quick: bool, say: Say) -> dict[str, str]:
    models = MODELS[:1] if quick else MODELS
    tolerances = slopes.TOLERANCES[:3] if quick else slopes.TOLERANCES
    found = {}
    for name in models:
        found[name] = slopes.lines(name, tolerances)
        say(f"slopes of {name}")
    return {"slopes": tables.slopes(found, tolerances)}


def measure_memory(quick: bool, say: Say) -> dict[str, str]:
    steps = growth.STEPS[:2] if quick else growth.STEPS
    found, state = growth.growth(steps, say)
    if not quick:
        draw(found, steps, state, DOCS / "images" / "adjoint-memory.png")
    batches = growth.per_sample(growth.BATCHES[:2] if quick else growth.BATCHES)
    say("memory over the batch")
    kept = f"Kept between the two passes (one state is {state / 1024:.0f} KiB):\n\n"
    peak = "\nPeak of forward and backward:\n\n"
    return {
        "memory": kept + tables.growth(found, steps, "kept") + peak + tables.growth(found, steps, "peak"),
        "retaken": tables.retakes(growth.STEPS),
        "batches": tables.batches(batches),
    }


def measure_guard(quick: bool, say: Say) -> dict[str, str]:
    seeds = range(2) if quick else range(guard.CASES)
    found = {}
    for name, choice in (("Backsolve()", Backsolve()), ("Backsolve(anchors=0)", Backsolve(anchors=0))):
        found[name] = guard.study(seeds, choice)
        say(f"guard, {name}")
    return {"guard": tables.guard(found)}


MEASURE = {"cost": measure_cost, "slopes": measure_slopes, "memory": measure_memory, "guard": measure_guard}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adjoints", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a small part, to the terminal; no file is written"
    )
    parser.add_argument("--only", choices=PARTS, help="this part alone; the others' tables stay as they are")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # states are small: more threads only wait for each other
    begin = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - begin:6.0f} s  {what}", flush=True)

    chosen = (arguments.only,) if arguments.only else PARTS
    parts: dict[str, str] = {}
    for name in chosen:
        parts |= MEASURE[name](arguments.quick, say)
    if arguments.quick:
        print("\n\n".join(f"{name}\n\n{text}" for name, text in parts.items()))
        return
    if not arguments.only:
        parts["machine"] = machine()
    write(DOCS / "adjoints.md", parts)
    say(f"wrote {DOCS / 'adjoints.md'}")


if __name__ == "__main__":
    main()
