"""Every command prints, whatever signs the terminal or pipe has."""

import io
import sys
import unicodedata

import pytest

from adamode.cli import main
from adamode.cli.terminal import PLAIN, plain

HELPS = [
    (command, "--help")
    for command in (
        *("train", "evaluate", "predict", "export", "runs", "sweep"),
        *("models", "data", "verify", "inspect", "reproduce", "cache", "cite"),
    )
]
PRINTS = [
    ("inspect", "--list"),
    ("models", "--explain", "adamnode"),
    ("data",),
    ("cite", "kvaerno5", "heun2", "--format", "text"),
    ("verify", "--help"),
    ("train", "--model", "nobody", "--name", "α"),
    ("runs", "--output-dir", "no-such-folder"),
]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("arguments", [*HELPS, *PRINTS], ids=" ".join)
def test_a_command_prints_where_its_signs_are_missing(encoding, arguments, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding, newline="\n") for _ in range(2))
    monkeypatch.setattr(sys, "argv", ["adamode", *arguments])
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with pytest.raises(SystemExit):
        main()
    out.flush()
    err.flush()
    # click writes UTF-8 where it finds ASCII, which it takes for a mistake; all else writes what there is.
    said = (out.buffer.getvalue() + err.buffer.getvalue()).decode(
        "utf-8" if encoding == "ascii" else encoding
    )
    assert said.strip()
    assert "UnicodeEncodeError" not in said


@pytest.mark.parametrize(
    ("sign", "letters"),
    [
        ("α", "alpha"),
        ("Δ", "delta"),
        ("é", "e"),
        ("ø", "o"),
        ("æ", "ae"),
        ("²", "2"),
        ("→", "->"),
        ("─", "-"),
        ("│", "|"),
        ("字", "?"),
    ],
)
def test_signs_become_letters(sign, letters):
    assert plain(sign) == letters


def test_all_replacements_are_ascii():
    assert all(letters.isascii() for letters in PLAIN.values())
    for code in range(0xA0, 0x2FFF):
        if unicodedata.category(chr(code)) != "Cn":
            assert plain(chr(code)).isascii()


def test_a_terminal_with_all_signs_is_left_alone(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="strict")
    monkeypatch.setattr(sys, "argv", ["adamode", "--version"])
    monkeypatch.setattr(sys, "stdout", out)
    with pytest.raises(SystemExit):
        main()
    assert out.errors == "strict"
