"""`docs/house.md` is so: its rooms, its names, and its drawings of who calls whom; and walks stay short."""

from __future__ import annotations

import functools
import itertools
import re
from typing import NamedTuple

import pytest
from benchmark_package import benchmark_module
from import_graph import LIBRARY, ROOT, import_graph, room_graph

from adamode.solvers.methods import get_method
from adamode.solvers.step.clocks import error_ratio

house = benchmark_module("", "house")
Place = house.Place

PAGE = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")
DRAWING = re.compile(r"<!-- walk: ([^>]*) -->\n\n```text\n(.*?)```", re.DOTALL)
NODE = re.compile(r"(?P<tree>[│├└─ ]*)(?P<function>[\w.]+) +(?P<file>\S+\.py)(?:  +(?P<remark>\S.*))?")
INDENT = 3  # characters of the tree a level
# Everybody may know these: the door, and what comes out.
FOR_ALL = {
    f"solvers/{name}"
    for name in (
        *("errors", "status", "stats", "checks", "solution", "trace", "attempts", "pages"),
        *("write_aside", "lazy"),
    )
}


@functools.cache
def calls(what):
    return house.DRAWN[what]()


# How many files a walk enters

COUNTED = ["shared", "per sample", "groups", "accepted step", "accepted step, per sample"]


def surplus(what, found):
    """The files of a walk, where they are more than its aim."""
    files = house.files_in(found)
    return files if len(files) > house.AIMS[what] else []


@pytest.mark.parametrize("what", COUNTED)
def test_a_walk_enters_few_files(what):
    assert surplus(what, calls(what)) == []


def test_a_compiled_walk_enters_few_files(monkeypatch):
    monkeypatch.setattr("adamode.solvers.device.programs.BACKEND", "eager")
    assert surplus("compiled", house.MEASURED["compiled"]()) == []


@pytest.mark.slow
def test_a_training_batch_enters_few_files():
    assert surplus("training batch", calls("training batch")) == []


@pytest.mark.parametrize("what", COUNTED)
def test_a_detour_through_one_more_file_is_seen(monkeypatch, what):
    """The twin of the test above, spoilt: the error is measured on a way through another room."""

    def detour(*arguments):
        get_method("dopri5")
        return error_ratio(*arguments)

    monkeypatch.setattr("adamode.solvers.march.host.error_ratio", detour)
    monkeypatch.setattr("adamode.solvers.step.attempt.error_ratio", detour)
    assert "solvers/methods/__init__.py" in surplus(what, house.MEASURED[what]())


def test_steps_that_are_counted_were_accepted():
    places = {call.place.function for call in calls("accepted step")}
    assert {"Pace.accepted", "RungeKuttaStepper.accept"} <= places
    assert "Pace.rejected" not in places


def test_the_tracer_leaves_nothing_on_its_stack_where_something_is_raised():
    def fails():
        with pytest.raises(ValueError, match="no_such"):
            get_method("no_such")

    found = house.calls_of(lambda: (fails(), get_method("dopri5")))
    assert [call.depth for call in found if call.place.function == "get_method"] == [1, 1]


# The drawings


class Node(NamedTuple):
    place: Place
    depth: int


def nodes_of(drawing):
    """The lines of a drawing; an AssertionError where one is not a node."""
    found = []
    for line in drawing.splitlines():
        match = NODE.fullmatch(line)
        assert match is not None, line
        depth, rest = divmod(len(match["tree"]), INDENT)
        assert rest == 0, line
        found.append(Node(Place(match["file"], match["function"]), depth))
    return found


def arrows_of(nodes):
    """Who is drawn to call whom."""
    found, way = [], []
    for place, depth in nodes:
        assert depth <= len(way), place
        del way[depth:]
        if way:
            found.append((way[-1], place))
        way.append(place)
    return found


def unknown(places):
    """Places whose file, or function, is not there."""
    return [
        f"{place.file}: {place.function}"
        for place in places
        if not (ROOT / place.file).is_file() or place.function not in house.functions_of(place.file).values()
    ]


def never(what, nodes):
    """Arrows that no run of the walk takes."""
    real = house.arrows_in(calls(what))
    return [f"{a.function} → {b.function}" for a, b in arrows_of(nodes) if (a, b) not in real]


DRAWINGS = [(what, nodes_of(text)) for what, text in DRAWING.findall(PAGE)]


def test_the_walks_are_drawn():
    assert [(what, nodes[0].place.function) for what, nodes in DRAWINGS] == [
        ("shared", "solve"),
        ("per sample", "sample_solve"),
        ("whole", "_by_whole_programs"),
        ("shared", "Solve.backward"),
        ("backsolve", "Solve.backward"),
        ("whole", "_by_whole_programs.walk"),
    ]
    assert PAGE.count("<!-- walk: ") == len(DRAWINGS)


@pytest.mark.parametrize(("what", "nodes"), DRAWINGS, ids=[f"{w}-{n[0].place.function}" for w, n in DRAWINGS])
def test_every_function_of_a_drawing_is_there_and_every_arrow_a_call(what, nodes):
    assert unknown([node.place for node in nodes]) == []
    assert never(what, nodes) == []


def test_an_arrow_that_never_happens_is_seen():
    what, nodes = DRAWINGS[0]
    march = next(node for node in nodes if node.place.function == "march")
    wrong = Node(Place("adjoint/discrete/walk.py", "step_back"), march.depth + 1)
    at = nodes.index(march) + 1
    spoilt = [*nodes[:at], wrong, *nodes[at:]]
    assert unknown([wrong.place]) == []
    assert never(what, spoilt) == ["march → step_back"]


def test_a_function_that_is_not_there_is_seen():
    assert unknown([Place("solvers/march/host.py", "Pace.refused"), Place("solvers/no.py", "march")]) == [
        "solvers/march/host.py: Pace.refused",
        "solvers/no.py: march",
    ]


@pytest.mark.parametrize("line", ["march  the loop", "│  march   solvers/march/host.py  ", "─ a   b.py"])
def test_a_line_that_is_no_node_is_seen(line):
    with pytest.raises(AssertionError):
        nodes_of(line)


# The rest of the page


def table_between(mark):
    """The cells of the rows of a table, but for its head."""
    text = PAGE.split(f"<!-- {mark} -->")[1].split(f"<!-- /{mark} -->")[0]
    rows = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_each_arrow_between_the_rooms_drawn_is_an_import():
    lines = re.search(r"## Rooms\n\n```text\n(.*?)\n\nlayers", PAGE, re.DOTALL)[1].splitlines()
    knows = {room.strip("`"): found for room, _, found in table_between("rooms")}
    checked = 0
    for line in filter(None, lines):
        first, *others = line.split("←")
        if not line.startswith(" "):
            layer, first = first.split()
        rooms = [f"{layer}/{room.strip()}" for room in (first, *others)]
        for known, knower in itertools.pairwise(rooms):
            assert f"`{known}`" in knows[knower], line
            checked += 1
    assert checked == 10


def short(room):
    return room.removeprefix("adamode.").replace(".", "/")


def test_each_room_knows_whom_the_page_says():
    graph = room_graph(import_graph({path: path.read_text(encoding="utf-8") for path in LIBRARY}))
    real = {
        short(room): {short(other) for other in found} - FOR_ALL
        for room, found in graph.items()
        if short(room).startswith(("solvers/", "adjoint/")) and short(room) not in FOR_ALL
    }
    told = {
        room.strip("`"): set(re.findall(r"`([^`]*)`", knows)) for room, _, knows in table_between("rooms")
    }
    assert told == real


def test_the_aims_of_the_page_are_those_that_are_held():
    assert {what: int(files) for what, files in table_between("aims")} == house.AIMS


def names_in(file):
    """Functions, with what is around them in front, classes and constants of a file."""
    tops = re.findall(r"^(?:class )?([A-Z]\w*)", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    return {*house.functions_of(file).values(), *tops}


def test_names_and_files_of_the_page_are_there():
    files = set(re.findall(r"`([\w/]+/(?:\w+\.py)?)`", PAGE))
    assert files
    assert [file for file in files if not (ROOT / file).exists()] == []
    named = re.findall(r"\| `([\w.]+)` \| `([\w/]+\.py)` \|", PAGE)
    named += re.findall(r"`([\w.]+)`\s\(`([\w/]+\.py)`\)", PAGE)
    assert len(named) > 20
    assert [(name, file) for name, file in named if name not in names_in(file)] == []


def test_a_page_is_found_from_the_readme_and_contributing():
    for page in ("README.md", "CONTRIBUTING.md"):
        assert "(docs/house.md)" in (ROOT / page).read_text(encoding="utf-8")
