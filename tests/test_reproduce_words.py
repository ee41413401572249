"""Sentences with gaps: what stands in a gap, what where nothing is known, and that each can be parsed."""

import string

import pytest

from adamode.reproduce.catalogue import FIGURES, load
from adamode.reproduce.machinery.figure import FAILS, HOLDS, MACHINERY, UNTOLD, Words, words_of
from adamode.reproduce.machinery.paired import interval

FILES = (*FIGURES, "machinery")


@pytest.fixture
def words(monkeypatch):
    """Of a planted file."""

    def planted(text):
        monkeypatch.setattr("adamode.reproduce.machinery.figure.words_of", lambda file: text)
        return Words("planted")

    return planted


@pytest.mark.parametrize(
    ("gap", "value", "said"),
    [
        ("{x}", "a  b", "a  b"),  # blanks of a value are its own
        ("{x:.2f}", 1.005, "1.00"),
        ("{x:.2f mV}", 2.0, "2.00 mV"),
        ("{x:.2f mV}", None, "–"),
        ("{x:.1e|none (failed)}", None, "none (failed)"),
        ("{x:pow2}", 18.604, "10^18.60"),
        ("{x:pow1}", None, "–"),
        ("{x:share}", 0.5, "50 %"),
        ("{x:model}", "adamnode", "AdamNODE"),
        ("{x:capital}", "rosenbrock", "Rosenbrock"),
        ("{x:+.0f %}", interval([5.0]), "+5 % (1 seed)"),
        ("A{x:? (# gave up)}, B", 3, "A (3 gave up), B"),
        ("A{x:? (# gave up)}, B", 0, "A, B"),
        ("A {x:?and so on} B", False, "A B"),
        ("{x:?first} B", "", "B"),
        ("{x:?#|none}", "", "none"),
        ("{x:?{other}|none}", True, "Another, True."),
    ],
)
def test_a_gap_is_filled_in_its_form(words, gap, value, said):
    found = words(f"[sentences]\nmain = {gap}\nother = Another, {{x}}.\n")
    assert found.say("main", x=value) == said


def test_a_sentence_is_told_for_each_row_or_key(words):
    found = words("[sentences]\nrow = {a} of {b}\nkey = {key}: {value:.1f|-}\n")
    assert found.each("row", [{"a": 1, "b": 2}, {"a": 3, "b": 4}]) == "1 of 2; 3 of 4"
    assert found.each("key", {"x": 0.25, "y": None}, ", ") == "x: 0.2, y: -"
    with pytest.raises(KeyError, match="b"):
        found.say("row", a=1)


def test_a_claim_takes_its_verdict_unless_it_cannot_be_told(words):
    found = words(
        "[claim size]\nclaim = {n} times\npaper = 18\nours = {n}\nwhy = {rule}\n[sentences]\nrule = So.\n"
    )
    claim = found.claim("size", HOLDS, n=3)
    assert (claim.claim, claim.paper, claim.ours, claim.verdict, claim.why) == (
        "3 times",
        "18",
        "3",
        HOLDS,
        "So.",
    )
    assert found.claim("size", FAILS, told=False, n=3).verdict == UNTOLD


@pytest.mark.parametrize("name", FILES)
def test_every_sentence_can_be_parsed(name):
    found = MACHINERY if name == "machinery" else Words(name)
    assert words_of(f"{name}.ini").startswith("#")
    for section in found._sections.values():
        for text in section.values():
            list(string.Formatter().parse(text))


@pytest.mark.parametrize("name", FIGURES)
def test_every_picture_and_column_of_a_figure_has_words(name):
    figure = load(name)
    assert all(picture.caption for picture in figure.pictures.values())
    assert all(figure.columns.values())
    assert figure.title
    assert figure.says.endswith(".")
