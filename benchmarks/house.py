"""``python -m benchmarks.house``: how many files a solve, a step and a training batch enter, and how deep.

A reader who follows a solve through the library opens the files counted here, so each count has an aim
(`AIMS`), and `docs/house.md` draws the walks. What is counted happens in a third run: nothing is imported
or cached for the first time.
"""

from __future__ import annotations

import argparse
import ast
import functools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn

from adamode import Backsolve, Discrete, TrainConfig, Trainer, solve
from adamode.solvers.device import natives

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("solvers", "adjoint", "models", "train", "adamode")
# Files at most; scipy, torchode, torchdiffeq and diffrax enter 4 to 15 for a solve, and 3 to 6 for a step.
# What samples with clocks of their own need beyond one clock: `step/attempt.py` decides, not the march.
AIMS = {
    "shared": 18,
    "per sample": 18,
    "groups": 19,
    "compiled": 20,
    "accepted step": 6,
    "accepted step, per sample": 7,
    "training batch": 32,
}


class Place(NamedTuple):
    """A function of the library: its file, from the root, and its name with its class, or the function
    around it, in front."""

    file: str
    function: str


class Call(NamedTuple):
    """One call of a function of the library.

    caller: the nearest function of the library below it on the stack; None: the library was entered here.
    depth: how many functions of the library are on the stack, the called one among them.
    """

    place: Place
    caller: Place | None
    depth: int


@functools.cache
def functions_of(file: str) -> dict[int, str]:
    """The names of a file's functions by the line in which they, or their first decorators, begin."""
    found: dict[int, str] = {}

    def look(node: ast.AST, around: tuple[str, ...]) -> None:
        for child in ast.iter_child_nodes(node):
            inner = around
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = (*around, child.name)
                if not isinstance(child, ast.ClassDef):
                    first = min([child.lineno, *(line.lineno for line in child.decorator_list)])
                    found[first] = ".".join(inner)
            look(child, inner)

    look(ast.parse((ROOT / file).read_text(encoding="utf-8")), ())
    return found


@functools.cache
def place_of(code: CodeType) -> Place | None:
    """The function that a frame's code belongs to; None outside the library. A comprehension, or a
    lambda, is its file's, under its own name."""
    path = Path(code.co_filename)
    if not path.is_relative_to(ROOT) or path.relative_to(ROOT).parts[0] not in LAYERS:
        return None
    file = path.relative_to(ROOT).as_posix()
    own = code.co_name.startswith("<")
    return Place(file, code.co_name if own else functions_of(file).get(code.co_firstlineno, code.co_name))


def calls_of(run: Callable[[], Any]) -> list[Call]:
    """All calls of the library's functions while `run` runs, in order, on this thread."""
    calls: list[Call] = []
    stack: list[tuple[FrameType, Place]] = []

    def look(frame: FrameType, event: str, argument: Any) -> None:
        if event == "return":
            if stack and stack[-1][0] is frame:
                stack.pop()
            return
        place = place_of(frame.f_code) if event == "call" else None
        if place is None:
            return
        # A comprehension calls for the function that it stands in.
        caller = next((own for _, own in reversed(stack) if not own.function.startswith("<")), None)
        stack.append((frame, place))
        calls.append(Call(place, caller, len(stack)))

    sys.setprofile(look)
    try:
        run()
    finally:
        sys.setprofile(None)
    return calls


def turn(calls: list[Call], place: Place, n: int) -> list[Call]:
    """From the n-th entry of a function, counted from 0, to the next."""
    entries = [i for i, call in enumerate(calls) if call.place == place]
    return calls[entries[n] : entries[n + 1]]


def inside(calls: list[Call], place: Place, n: int) -> list[Call]:
    """The n-th call of a function, counted from 0, and all that is called in it."""
    start = [i for i, call in enumerate(calls) if call.place == place][n]
    depth = calls[start].depth
    ends = (i for i in range(start + 1, len(calls)) if calls[i].depth <= depth)
    return calls[start : next(ends, len(calls))]


def files_in(calls: list[Call]) -> list[str]:
    """The files entered."""
    return sorted({call.place.file for call in calls})


def arrows_in(calls: list[Call]) -> set[tuple[Place, Place]]:
    """Who called whom."""
    return {(call.caller, call.place) for call in calls if call.caller is not None}


class Field(nn.Module):
    """dy/dt of a user's: two layers on three numbers a sample."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(y)


def third(run: Callable[[], Any]) -> list[Call]:
    """The calls of a third run."""
    run()
    run()
    return calls_of(run)


def a_solve(**options: Any) -> list[Call]:
    """A solve from 0 to 1 of four samples; its backward pass too, where it has a gradient."""
    func = Field()

    def run() -> None:
        y0 = torch.ones(4, 3, requires_grad=True)
        sol = solve(func, y0, torch.tensor([0.0, 1.0]), **options)
        if options["gradient"] is not None:
            sol.y[-1].sum().backward()

    return third(run)


def an_accepted_step(stepping: str) -> list[Call]:
    """One turn of the loop over attempts, all of which are accepted, in a solve without a gradient."""
    loop = Place("solvers/march/host.py", "RungeKuttaStepper.attempt")
    if stepping == "per_sample":
        loop = Place("solvers/march/clocked.py", "ClockedMarch.attempts")
    func, y0, times = Field(), torch.ones(4, 3), torch.tensor([0.0, 1.0, 2.0])
    return turn(third(lambda: solve(func, y0, times, stepping=stepping, gradient=None)), loop, 1)


def a_training_batch() -> list[Call]:
    """The third batch of an epoch: forward, backward, and the optimiser's step."""
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(output_dir=folder, epochs=1)
        calls = calls_of(Trainer(config, quiet=True).fit)
    return inside(calls, Place("train/trainer.py", "Trainer._train_step"), 2)


def a_whole_solve(**options: Any) -> list[Call]:
    """A solve and its gradient by whole programs, the functions that they are made of in their place."""
    with mock.patch.object(natives, "MODE", "plain"):
        return a_solve(compile=True, **options)


MEASURED: dict[str, Callable[[], list[Call]]] = {
    "shared": lambda: a_solve(gradient=Discrete()),
    "per sample": lambda: a_solve(gradient=Discrete(), stepping="per_sample"),
    "groups": lambda: a_solve(gradient=Discrete(), stepping=torch.tensor([0, 0, 1, 1])),
    "compiled": lambda: a_solve(gradient=Discrete(), compile=True),
    "accepted step": lambda: an_accepted_step("shared"),
    "accepted step, per sample": lambda: an_accepted_step("per_sample"),
    "training batch": a_training_batch,
}
# Beyond those: walks that `docs/house.md` draws.
DRAWN: dict[str, Callable[[], list[Call]]] = {
    **MEASURED,
    "backsolve": lambda: a_solve(gradient=Backsolve()),
    "whole": lambda: a_whole_solve(gradient=Discrete()),
}


def lines_in(files: list[str]) -> int:
    """The lines of those files."""
    return sum(len((ROOT / file).read_text(encoding="utf-8").splitlines()) for file in files)


def main() -> int:
    """Prints the table; 1 where a count is above its aim."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.house", description=__doc__)
    parser.add_argument("--files", action="store_true", help="list the files, and what is entered there")
    parser.add_argument("--only", choices=MEASURED, help="measure this alone")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| what | files | aim | lines in them | depth |\n|---|---|---|---|---|")
    above = 0
    for what in MEASURED if arguments.only is None else [arguments.only]:
        calls = MEASURED[what]()
        files, depth = files_in(calls), max(call.depth for call in calls)
        above += len(files) > AIMS[what]
        print(f"| {what} | {len(files)} | {AIMS[what]} | {lines_in(files):,} | {depth} |", flush=True)
        for file in files if arguments.files else ():
            names = sorted({call.place.function for call in calls if call.place.file == file})
            print(f"    {file}: {', '.join(name for name in names if not name.startswith('<'))}")
    return int(above > 0)


if __name__ == "__main__":
    raise SystemExit(main())
