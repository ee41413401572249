"""`adamode cite`: every name has its sources, every source a name, and the file is BibTeX."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

import adamode
from adamode import citation
from adamode.adjoint.arguments import PENALTIES
from adamode.adjoint.gradients import CHOICES
from adamode.cli.app import app
from adamode.models import names as models
from adamode.solvers.errors import ArgumentError
from adamode.solvers.methods import EVERY, OF_THE_FACE
from adamode.train.data import DATASETS

ROOT = Path(__file__).resolve().parent.parent
BIB = ROOT / "adamode" / "references.bib"
NEEDED = {
    "article": ("journal",),
    "book": ("publisher",),
    "incollection": ("booktitle", "publisher"),
    "inproceedings": ("booktitle",),
    "misc": ("eprint", "archiveprefix"),
    "software": ("version",),
    "techreport": ("institution",),
}


def cite(*arguments):
    return CliRunner().invoke(app, ["cite", *arguments])


def test_every_name_has_sources_and_no_other_name_has():
    assert set(citation.METHODS) == {*EVERY, *OF_THE_FACE}
    assert set(citation.GRADIENTS) == {choice.__name__.lower() for choice in CHOICES}
    assert set(citation.MODELS) == set(models())
    assert set(citation.DATA) == set(DATASETS)
    assert set(PENALTIES) < set(citation.PARTS)
    assert sum(map(len, citation.KINDS.values())) == len(citation.KNOWN)  # no name means two things
    assert all(citation.KNOWN.values())


def test_every_source_has_a_name_and_every_key_a_source():
    asked = {key for keys in citation.KNOWN.values() for key in keys}
    assert asked == set(citation.references())


def test_the_file_is_bibtex_with_the_fields_of_each_kind():
    text = BIB.read_text(encoding="ascii")
    found = citation.references()
    assert list(found) == [citation.ITSELF, *sorted(set(found) - {citation.ITSELF}, key=_order)]
    assert len(found) == text.count("\n@")  # none was passed over
    for reference in found.values():
        assert reference.bibtex.count("{") == reference.bibtex.count("}")
        assert {"author", "title", "year", *NEEDED[reference.kind]} <= set(reference.fields)
        assert re.fullmatch(r"1[6-9]\d\d|20\d\d", reference.fields["year"])
        assert reference.key == citation.ITSELF or reference.key.endswith(reference.fields["year"])
        assert re.fullmatch(r"10\.\d{4,5}/\S+", reference.fields.get("doi", "10.1000/1"))
        assert re.fullmatch(r"\d{4}\.\d{4,5}", reference.fields.get("eprint", "2000.0000"))
        assert not set("{}\\") & set(reference.text())  # all of LaTeX's letters are known


def _order(key):
    return re.sub(r"\d", "", key), key


def test_a_line_that_is_no_field_is_refused_by_name():
    with pytest.raises(ArgumentError, match="knuth1984"):
        citation.read("@book{knuth1984,\n  author = {Knuth, D. E.},\n  year 1984,\n}\n")


@pytest.mark.parametrize("name", sorted(set(EVERY)))
def test_a_methods_file_names_the_same_source(name):
    first = citation.references()[citation.METHODS[name][0]]
    said = ast.get_docstring(ast.parse((ROOT / "solvers" / "methods" / f"{name}.py").read_text("utf-8")))
    assert first.said("year") in said
    assert all(author.split(",")[0] in said for author in first.authors())


def test_bibtex_is_what_the_file_has_with_what_each_is_the_source_of():
    printed = cite("dopri5", "adamnode", "silverbox").stdout
    entries = citation.read(printed)
    expected = ["adamode", "dormand1980", "shampine1986", "cho2022", "wigren2013"]
    assert [entry.key for entry in entries] == expected
    assert all(entry.bibtex in BIB.read_text(encoding="ascii") for entry in entries)
    assert printed.splitlines().count("% dopri5") == 2
    assert [entry.key for entry in citation.read(cite().stdout)] == ["adamode"]


def test_text_says_it_in_words_and_each_publication_once():
    said = cite("moons", "digits", "kvaerno5", "--format", "text").stdout
    assert said.count("Pedregosa") == 1
    assert "moons, digits: F. Pedregosa et al. Scikit-learn" in said
    assert "A. Kværnø. Singly diagonally implicit Runge–Kutta" in said
    assert max(map(len, said.splitlines())) <= 80


def test_a_run_is_cited_by_its_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {"model": "anode", "dataset": "circles", "method": "bosh3", "gradient": "backsolve"}
    settings |= {"stepping": "per_sample", "regularise": "error=0.1,kinetic=0.01", "build": "mine:builder"}
    for folder in (tmp_path / "there", tmp_path / "runs" / "dopri5-run"):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    expected = ["adamode", "dupont2019", "bogacki1989", "chen2018", "lienen2022", "pal2021", "finlay2020"]
    for name in ("there", str(tmp_path / "there"), "dopri5-run"):
        assert [entry.key for entry in citation.read(cite(name).stdout)] == expected
    (tmp_path / "empty").mkdir()
    refused = cite("empty")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "config.json" in refused.stderr


def test_a_name_is_known_in_any_case_and_with_either_dash(tmp_path, monkeypatch):
    assert citation.as_bibtex(["AdamNODE", "per-sample"]) == citation.as_bibtex(["adamnode", "per_sample"])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "config.json").write_text('{"method": "bosh3", "model": ["node"]}', "utf-8")
    assert "Alpaydin" in cite("Digits").stdout
    assert "Alpaydin" not in cite("./digits").stdout
    assert "Bogacki" in cite("./digits").stdout


def test_a_misspelt_name_or_form_is_refused_with_the_nearest():
    refused = cite("dopri6")
    assert refused.exit_code == 2
    assert "'dopri5'" in refused.stderr
    assert cite("dopri5", "--format", "ris").exit_code == 2


def test_the_list_has_every_name():
    told = cite("--list").stdout.replace("\n", " ")
    assert all(re.search(rf"[ ,]{re.escape(name)}\b", told) for name in citation.KNOWN)


def test_one_version_and_title_everywhere():
    own = citation.references()[citation.ITSELF]
    cff = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert own.fields["version"] == adamode.__version__
    assert f"version: {adamode.__version__}\n" in cff
    assert own.said("title") in cff
