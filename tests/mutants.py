"""Every mutant of the nine dynamics' files, one sign, factor, constant or name wrong in each.

    python tests/mutants.py [--model NAME] [--with tests|verify|both] [--list]

Each mutant is put in a copy of the repository, never in place, and judged by that model's tests and by
``adamode verify --model``: exit status 1 kills it. The exit status is 1 where a mutant survives that is
not in EQUIVALENT.
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODELS = (
    *("node", "anode", "sonode", "hbnode", "ghbnode", "adamnode"),
    *("nesterovnode", "gnesterovnode", "momentumnode"),
)
FOLDERS = ("adamode", "adjoint", "models", "solvers", "train", "tests")
# Names of one kind: taking another of its group is a mistake that someone makes.
SWAPS = (("a_h", "a_m", "a_v"), ("h", "m", "v"), ("h_bar", "m_bar", "v_bar"), ("a", "b"), ("gamma", "xi"))
SKIP = {"__init__", "theta", "augment"}  # no formulas in them

# (model, line without blanks around it, before → after) → why nothing can tell the difference
EQUIVALENT: dict[tuple[str, str, str], str] = {
    (
        "sonode",
        "h_bar, from_v = both.split(a_h.shape[1], dim=1)  # ∂v'/∂h = f_h",
        "a_h → a_v",
    ): "only the shape is read, and all blocks have one shape",
}

# Lines that ``adamode verify`` measures and does not judge: the printed forms have no bound.
PRINTED = ("return a_v - a_m", "return b * a_v - a * a_m")


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One change of one file: text[start:end] becomes `after`."""

    model: str
    function: str
    kind: str
    line: int
    start: int
    end: int
    before: str
    after: str

    def source(self, text: str) -> str:
        """The file with the change in it; its lines keep their numbers."""
        return text[: self.start] + self.after + text[self.end :]

    def __str__(self) -> str:
        return f"{self.model}.py:{self.line}  {self.kind}: {self.before}  →  {self.after}"


def path_of(model: str) -> Path:
    return Path("models", "dynamics", f"{model}.py")


def text_of(model: str) -> str:
    return (ROOT / path_of(model)).read_text(encoding="utf-8")


def mutants(model: str) -> list[Mutant]:
    """All of one model's file, in the order of its lines."""
    text = text_of(model)
    tree = ast.parse(text)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    found = [
        mutant
        for function in functions
        if function.name not in SKIP
        for mutant in _of_function(model, text, function)
    ]
    return sorted(found, key=lambda m: (m.start, m.end, m.after))


def _of_function(model: str, text: str, function: ast.FunctionDef) -> Iterator[Mutant]:
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def offset(line: int, column: int) -> int:
        whole = text[starts[line - 1] : starts[line]].encode()
        return starts[line - 1] + len(whole[:column].decode())

    def change(node: ast.expr, kind: str, after: str) -> Mutant:
        start = offset(node.lineno, node.col_offset)
        end = offset(node.end_lineno or node.lineno, node.end_col_offset or 0)
        return Mutant(model, function.name, kind, node.lineno, start, end, text[start:end], after)

    names = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    for statement in function.body:
        if isinstance(statement, ast.Expr):
            continue  # the docstring
        for node in ast.walk(statement):
            if isinstance(node, ast.expr):
                for kind, after in _changes(node, names):
                    yield change(node, kind, after)


def _changes(node: ast.expr, names: set[str]) -> Iterator[tuple[str, str]]:
    """(kind, new text) of everything that may be wrong at one node of a function that has these names."""
    if isinstance(node, ast.BinOp):
        left, right = _text(node.left), _text(node.right)
        if isinstance(node.op, ast.Add):
            yield "sign", f"({left} - {right})"
        elif isinstance(node.op, ast.Sub):
            yield "sign", f"({left} + {right})"
        elif isinstance(node.op, ast.Mult):
            yield "factor", f"({left})"
            yield "factor", f"({right})"
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        yield from _of_call(node, node.func)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "sign", f"({_text(node.operand)})"
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield "constant", {2: "1", 1: "0", 0: "1"}.get(node.value, str(node.value + 1))
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        for group in SWAPS:
            known = [name for name in group if name in names]
            if node.id in known and len(known) > 1:
                yield "name", known[(known.index(node.id) + 1) % len(known)]


def _of_call(node: ast.Call, func: ast.Attribute) -> Iterator[tuple[str, str]]:
    """The same of an operation written as a call: torch.add(x, y), x.mul_(y), x.neg_()."""
    owner, texts = _text(func.value), [_text(x) for x in node.args]
    if func.attr in ("neg", "neg_"):
        yield "sign", owner
    elif func.attr in ("mul_", "addcmul_"):
        yield "factor", owner
    elif owner == "(torch)" and func.attr == "add":
        yield "sign", f"({texts[0]} - {texts[1]})"
    elif owner == "(torch)" and func.attr == "mul":
        yield "factor", f"{texts[0]}.clone()"
        yield "factor", f"{texts[1]}.clone()"
    elif owner == "(torch)" and func.attr == "addcmul":
        yield "factor", f"{texts[0]}.clone()"
        yield "factor", f"({texts[0]} + {texts[1]})"
        yield "factor", f"({texts[0]} + {texts[2]})"


def _text(node: ast.expr) -> str:
    return f"({ast.unparse(node)})"


def equivalent(mutant: Mutant) -> str | None:
    """Why nothing can tell the mutant from the original, or None."""
    line = text_of(mutant.model).splitlines()[mutant.line - 1].strip()
    return EQUIVALENT.get((mutant.model, line, f"{mutant.before} → {mutant.after}"))


def unjudged(mutant: Mutant) -> str | None:
    """Why verify does not kill the mutant though the tests do, or None."""
    text = text_of(mutant.model)
    if text.splitlines()[mutant.line - 1].strip() in PRINTED:
        return "a printed form, which verify measures and does not judge"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name == "_slopes":
            assert node.end_lineno is not None
            if node.lineno <= mutant.line <= node.end_lineno:
                return "the Jacobian, which only implicit methods take"
    return None


def commands(model: str) -> dict[str, list[list[str]]]:
    """What judges a mutant: exit status 1 of a judge's command kills, else its next command is run.

    The part of a verification that is quickest comes first; what it kills, the whole kills.
    """
    options = ["-q", "-x", "-p", "no:cacheprovider", "-k", model]
    tests = ["tests/test_dynamics.py"]
    verify = [sys.executable, "-m", "adamode", "verify", "--model", model, "--quiet"]
    return {
        "tests": [[sys.executable, "-m", "pytest", *tests, *options]],
        "verify": [[*verify, "--gradient", "discrete", "--form", "exact"], verify],
    }


def judge(model: str, source: str, judges: tuple[str, ...]) -> dict[str, int]:
    """The exit status of each judge, in a copy of the repository of its own with that source."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in FOLDERS:
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("setup.cfg", "pyproject.toml"):
            shutil.copy(ROOT / name, copy / name)
        (copy / path_of(model)).write_text(source, encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
        environment["OMP_NUM_THREADS"] = "1"
        status = {}
        for name in judges:
            for command in commands(model)[name]:
                done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, check=False)
                status[name] = done.returncode
                if done.returncode:
                    break
        return status


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--with", dest="judges", choices=("tests", "verify", "both"), default="both")
    parser.add_argument("--list", action="store_true", help="print the mutants and stop")
    given = parser.parse_args()
    made = [m for model in given.model or MODELS for m in mutants(model)]
    if given.list:
        for mutant in made:
            print(mutant)
        print(len(made), "mutants")
        return 0
    judges = ("tests", "verify") if given.judges == "both" else (given.judges,)
    for model in dict.fromkeys(m.model for m in made):
        status = judge(model, text_of(model), judges)
        if any(status.values()):
            print(f"{model}: the original itself does not pass: {status}")
            return 2
    survived, excused = [], 0
    killed_by = dict.fromkeys(judges, 0)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = pool.map(lambda m: judge(m.model, m.source(text_of(m.model)), judges), made)
        for mutant, status in zip(made, results, strict=True):
            killed = {name: code == 1 for name, code in status.items()}
            for name, ok in killed.items():
                killed_by[name] += ok
            verdicts = "  ".join(f"{name}: {'killed' if ok else 'SURVIVED'}" for name, ok in killed.items())
            reason = equivalent(mutant)
            if reason is None and killed.get("tests", True):
                reason = unjudged(mutant)
            print(f"{verdicts}  {mutant}{f'  (excused: {reason})' if reason else ''}", flush=True)
            if reason:
                excused += 1
            elif not all(killed.values()):
                survived.append(mutant)
    print(f"{len(made)} mutants, killed by {killed_by}, {excused} excused, {len(survived)} survived")
    for mutant in survived:
        print("survived:", mutant)
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
