"""A native program that one process has built: another loads it, and one whose model was edited does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.native

MODEL = """
    import torch
    from torch import nn

    RATE = 0.5


    def pulled(y):
        return -RATE * y


    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.drive = nn.Parameter(torch.tensor([0.25, 1.0], dtype=torch.float64))

        def forward(self, t, y):
            return pulled(y) + self.drive
"""
EDITS = {
    "none": ("", ""),
    "a comment": ("    return -RATE", "    # towards zero\n    return -RATE"),
    "a value of a parameter": ("[0.25, 1.0]", "[0.5, 2.0]"),
    "a helper": ("-RATE * y", "-RATE * y * y"),
    "a constant": ("RATE = 0.5", "RATE = 0.75"),
    "a parameter's shape": ("[0.25, 1.0]", "[0.25]"),
}
ALIKE = ("none", "a comment", "a value of a parameter")
# Of the model in each folder: what was asked to be built, what was loaded, and the end of the solve by a
# program and without. A process that is not to build is stopped where it would.
SOLVES = """
import importlib, json, sys, warnings

import torch

import adamode
from adamode.solvers.device import native

builds, *folders = sys.argv[1:]
build, load = native.build, native.Native


def asked(*arguments):
    found["built"] += 1
    if builds != "builds":
        raise RuntimeError("it is not to be built")
    build(*arguments)


def loaded(path):
    found["loaded"].append(path.stem)
    return load(path)


native.build, native.Native = asked, loaded
every = []
for folder in folders:
    found = {"built": 0, "loaded": []}
    sys.modules.pop("model", None)
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    func = importlib.import_module("model").Model()
    sys.path.remove(folder)
    y0, t = torch.tensor([1.0, 2.0], dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    options = {"method": "euler", "dt": 0.125, "gradient": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is not to be built
        ends = [adamode.solve(func, y0, t, compile=fast, **options).y[-1].tolist() for fast in (True, False)]
    every.append({**found, "ends": ends})
print(json.dumps(every))
"""


def solved(builds, folders, cache):
    """By a process of its own."""
    process = subprocess.run(
        [sys.executable, "-c", SOLVES, builds, *map(str, folders)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ADAMODE_CACHE": str(cache), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """(what the process tells that builds, {edit: what the later one tells})."""
    folders = {}
    for edit, (old, new) in EDITS.items():
        text = textwrap.dedent(MODEL)
        assert old in text, edit
        folders[edit] = tmp_path_factory.mktemp("model")
        (folders[edit] / "model.py").write_text(text.replace(old, new, 1))
    cache = tmp_path_factory.mktemp("cache") / "programs"
    (first,) = solved("builds", [folders["none"]], cache)
    return first, dict(zip(EDITS, solved("loads", folders.values(), cache), strict=True))


def test_a_program_is_built_once_and_loaded_by_another_process_where_it_is_the_same(processes):
    first, later = processes
    assert first["built"] == len(first["loaded"]) == 1
    for edit in ALIKE:
        assert (later[edit]["built"], later[edit]["loaded"]) == (0, first["loaded"]), edit
    assert later["none"]["ends"] == first["ends"]


@pytest.mark.parametrize("edit", [edit for edit in EDITS if edit not in ALIKE])
def test_a_process_whose_model_was_edited_asks_for_another_program(edit, processes):
    _, later = processes
    assert (later[edit]["built"], later[edit]["loaded"]) == (1, [])


@pytest.mark.parametrize("edit", EDITS)
def test_the_numbers_are_those_of_the_model_that_is_there(edit, processes):
    first, later = processes
    program, eager = later[edit]["ends"]
    assert program == pytest.approx(eager, rel=1e-13)
    if edit not in ("none", "a comment"):
        assert program != pytest.approx(first["ends"][0], rel=1e-3)
