"""The site: its reference has every public name, its navigation every page, and its code does as it says."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
import shutil
import types
from pathlib import Path, PurePosixPath

import pytest
from example_outputs import EXAMPLES, cells

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
MKDOCS = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
LISTS = ("adamode", "adamode.models", "adamode.models.fields", "adamode.models.dynamics")
LISTS += ("adamode.train", "adamode.train.data", "adamode.verify")


@functools.cache
def entries():
    """The names that the reference has."""
    pages = sorted((DOCS / "api").glob("*.md"))
    return [name for page in pages for name in re.findall(r"^::: (\S+)$", page.read_text("utf-8"), re.M)]


def resolved(name):
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


def test_every_public_name_has_an_entry_in_the_reference():
    there = {id(resolved(name)) for name in entries()}
    public = [f"{module}.{name}" for module in LISTS for name in importlib.import_module(module).__all__]
    errors = vars(importlib.import_module("adamode.solvers.errors")).items()
    raised = [name for name, thing in errors if isinstance(thing, type) and issubclass(thing, Exception)]
    public += [f"adamode.solvers.errors.{name}" for name in raised]
    assert [name for name in public if id(resolved(name)) not in there] == []


def test_no_name_has_two_entries():
    assert len(entries()) == len({id(resolved(name)) for name in entries()})


def test_the_navigation_has_every_page_and_no_other():
    nav = MKDOCS.partition("\nnav:\n")[2].partition("\n\n")[0]
    named = re.findall(r"([\w/*.-]+\.md)$", nav, re.M)
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert [page for page in pages if not any(PurePosixPath(page).match(name) for name in named)] == []
    plain = {name for name in named if "*" not in name and not name.startswith("repository/")}
    assert plain - pages == set()


@functools.cache
def site_code(name, *needed):
    """A module of `.ci/site`."""
    for package in needed:
        pytest.importorskip(package, reason=f"{package} is not installed: pip install '.[docs]'")
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / "site" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """The package as griffe reads it for the site."""
    site_code("docstrings", "griffe")
    import griffe

    place = tmp_path_factory.mktemp("staged")
    for layer in ("", "solvers", "adjoint", "models", "train"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(
            ROOT / (layer or "adamode"), place / "adamode" / layer, ignore=ignore, dirs_exist_ok=True
        )
    extensions = griffe.load_extensions(str(ROOT / ".ci" / "site" / "docstrings.py"))
    loader = griffe.GriffeLoader(extensions=extensions, search_paths=[place], allow_inspection=False)
    package = loader.load("adamode", try_relative_path=False)
    loader.resolve_aliases()
    return package


def rows(thing):
    tables = [s for s in thing.docstring.parsed if s.kind.value in ("parameters", "attributes")]
    return [row for table in tables for row in table.value]


def test_every_argument_of_a_public_name_has_a_row_in_its_table(loaded):
    missing = {}
    for name in entries():
        thing = loaded[name.removeprefix("adamode.")]
        thing = thing.final_target if thing.is_alias else thing
        own = thing.is_function or (thing.is_class and ("__init__" in thing.members or not thing.bases))
        if not own:
            continue
        told = {row.name.lstrip("*") for row in rows(thing)}
        keywords = {p.name for p in thing.parameters if p.kind and p.kind.value == "variadic keyword"}
        wanted = {p.name for p in thing.parameters if not p.name.startswith("_")} - {"self", "cls", "return"}
        others = told - wanted  # a row for a keyword that `**solver` takes tells what it is
        lacking = wanted - told - (keywords if others else set())
        if lacking:
            missing[name] = sorted(lacking)
    assert missing == {}


def test_a_docstring_becomes_tables_with_links(loaded):
    solve = loaded["solve"].final_target
    assert [row.name for row in rows(solve)][:5] == ["func", "y0", "t", "rtol", "atol"]
    method = next(row for row in rows(solve) if row.name == "method")
    assert (method.value, str(method.annotation)) == ("'dopri5'", "str")
    assert "[methods](../methods.md)" in method.description
    headed = [section.value for section in solve.docstring.parsed if section.kind.value == "text"]
    assert any(text.startswith("**Errors:** [`ArgumentError`][adamode.ArgumentError]") for text in headed)
    inherited = loaded["Backsolve"].final_target  # its rtol stands in a base class
    assert {row.name: row.value for row in rows(inherited)}["rtol"] == "None"
    assert loaded["solve"].final_target.filepath == ROOT / "adjoint" / "solve.py"


@pytest.fixture(scope="module")
def hooks():
    return site_code("hooks", "mkdocs", "math_core")


def test_a_link_that_leaves_docs_leads_to_a_page_of_the_site(hooks):
    text = "[a](../README.md) [b](../../CONTRIBUTING.md#style) [c](../../solvers/status.py) [d](https://x.org/y.md)"
    assert hooks.relinked(text, "docs/study/trace.md") == (
        "[a](../README.md) [b](../repository/CONTRIBUTING.md#style) "
        "[c](../repository/solvers/status.py.md) [d](https://x.org/y.md)"
    )
    assert (
        hooks.relinked("[h](docs/house.md) [c](CHANGELOG.md)", "README.md")
        == "[h](../house.md) [c](CHANGELOG.md)"
    )


def test_an_example_becomes_a_page_of_text_code_and_output(hooks):
    program = "# %% [markdown]\n# # Title\n#\n# Text.\n\n# %%\nprint(1)\n\n# Output:\n# 1\n"
    assert hooks.cells(program) == "# Title\n\nText.\n\n```python\nprint(1)\n```\n\n```text\n1\n```\n"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_cell_of_an_example_is_on_its_page(hooks, path):
    page = hooks.as_page(f"docs/examples/{path.name}")
    assert page.startswith("# ")
    for cell in cells(path.read_text(encoding="utf-8")):
        told = cell.text.strip() if cell.code is None else f"```python\n{cell.code.strip()}\n```"
        assert told in page
        assert cell.output is None or f"```text\n{cell.output.rstrip()}\n```" in page


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_page_of_an_example_shows_what_it_draws(hooks, path):
    page = hooks.as_page(f"docs/examples/{path.name}")
    title = page.partition("\n")[0].removeprefix("# ")
    assert page.count("![") == 1
    assert f"```\n\n![{title}](../images/examples/{path.stem}.png)\n" in page


def test_patterns_of_the_navigation_are_spelled_out(hooks):
    nav = [
        {"Home": "index.md"},
        {"Study": ["b.md", "s/*.md"]},
        {"None": ["e/*.md"]},
        {"One": "c*.md"},
        {"No": "d*.md"},
    ]
    pages = ["b.md", "citation.md", "index.md", "s/a.md", "s/z.md"]
    spelled = hooks.spelled(nav, pages, set(hooks.named(nav)))
    assert spelled == [{"Home": "index.md"}, {"Study": ["b.md", "s/a.md", "s/z.md"]}, {"One": "citation.md"}]


def test_formulas_become_mathml_and_a_wrong_one_is_a_warning(hooks, caplog):
    page = types.SimpleNamespace(file=types.SimpleNamespace(src_uri="a.md"))
    html = r'<p><span class="arithmatex">\(a &lt; b\)</span></p><div class="arithmatex">\[\frac{a}{b}\]</div>'
    made = hooks.on_page_content(html, page=page)
    assert "arithmatex" not in made
    assert "<mfrac><mi>a</mi><mi>b</mi></mfrac>" in made
    assert "&lt;" in made
    hooks.on_page_content(r'<span class="arithmatex">\(\nosuchcommand\)</span>', page=page)
    assert "a.md" in caplog.text


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('<a href="no.html">', "no.html is not there"),
        ('<img src="no.png">', "no.png is not there"),
        ('<a href="#no">', "#no: no such anchor"),
        ('<a href="b.html#no">', "b.html#no: no such anchor"),
        ('<script src="https://x.org/a.js"></script>', "loads https://x.org/a.js"),
        ('<link rel="stylesheet" href="//x.org/a.css">', "loads //x.org/a.css"),
        ('<style>@import "https://x.org/a.css";</style>', "loads https://x.org/a.css"),
        ('<a href="https://arxiv.org/abs/1">', None),
        ('<a href="b.html#there">', None),
    ],
)
def test_what_is_wrong_with_a_built_page_is_a_warning(hooks, tmp_path, caplog, body, said):
    (tmp_path / "a.html").write_text(body)
    (tmp_path / "b.html").write_text('<h2 id="there">b</h2>')
    hooks.on_post_build(types.SimpleNamespace(site_dir=tmp_path))
    assert [record.getMessage() for record in caplog.records] == ([f"a.html: {said}"] if said else [])


def test_the_picture_of_the_first_page_is_one_that_the_readme_has():
    picture = re.search(r"!\[.*?\]\((images/\S+)\)", (DOCS / "index.md").read_text("utf-8"))
    assert f"(docs/{picture[1]})" in (ROOT / "README.md").read_text("utf-8")
