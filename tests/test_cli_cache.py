"""``adamode cache``."""

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from adamode.cli.app import app
from adamode.cli.cache import age_text, size_text
from adamode.solvers.device.packages import store

runner = CliRunner()
KEYS = ["a" * 64, "b" * 64]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAMODE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def two(folder):
    for key, model in zip(KEYS, ("AdamODE", "Layer"), strict=True):
        about = {"model": model, "method": "dopri5", "shapes": "[32, 8]"}
        store().make(key, about, lambda path: path.write_bytes(b"x" * 1500))
    return folder


def run(*arguments, answer=None):
    return runner.invoke(app, ["cache", *arguments], input=answer)


def test_each_program_has_a_line_with_what_it_is_and_the_last_used_comes_first(two):
    os.utime(two / f"{KEYS[0]}.json", (0, 0))
    heading, first, second = run("list").stdout.splitlines()
    assert heading.split() == ["model", "method", "shapes", "size", "age", "last", "used"]
    assert first.split()[:6] == ["Layer", "dopri5", "[32,", "8]", "1.5", "KB"]
    assert second.startswith("AdamODE")
    assert second.endswith(" d")


def test_an_empty_store_is_said_and_not_made(folder):
    result = run("list")
    assert (result.exit_code, result.stdout) == (0, f"no programs in {str(folder)!r}.\n")
    assert run("size").stdout == "0 programs, 0 B of 1 GB\n"
    assert run("clear").stdout == "removed 0, 0 B\n"
    assert not folder.exists()


def test_the_folder_and_the_sizes_are_told(two, monkeypatch):
    assert run("path").stdout == f"{two}\n"
    monkeypatch.setenv("ADAMODE_CACHE_SIZE", "20 MB")
    assert run("size").stdout == "2 programs, 3 KB of 20 MB\n"


def test_clear_asks_and_leaves_all_where_the_answer_is_no(two):
    result = run("clear", answer="n\n")
    assert result.exit_code == 1
    assert len(store().packages()) == 2
    assert run("clear", answer="y\n").exit_code == 0
    assert store().packages() == []


def test_clear_with_yes_leaves_files_of_others_alone(two):
    (two / "notes.txt").write_text("mine")
    (two / "cafe.pt2").write_text("a key has 16 digits or more")
    assert run("clear", "--yes").stdout == "removed 2, 3 KB\n"
    assert sorted(path.name for path in two.iterdir()) == ["cafe.pt2", "notes.txt"]


def test_a_folder_that_solves_do_not_use_is_told_so(two):
    two.chmod(0o777)
    result = run("list")
    assert "can be written by others" in result.stderr
    assert len(result.stdout.splitlines()) == 3


def test_the_commands_import_no_torch(folder):
    code = (
        "import sys\n"
        "from adamode.cli.app import app\n"
        "for arguments in (['-h'], ['cache', '-h'], ['cache', 'list'], ['cache', 'clear', '--yes']):\n"
        "    app(arguments, standalone_mode=False)\n"
        "sys.exit('imported torch' if 'torch' in sys.modules else 0)\n"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr


def test_help_is_there_for_each_command():
    for command in ("list", "path", "size", "clear"):
        result = run(command, "--help")
        assert result.exit_code == 0
        assert "Usage" in result.stdout


def test_sizes_and_ages_have_a_unit_that_suits_them():
    assert [size_text(n) for n in (0, 999, 2_345_678, 1e9)] == ["0 B", "999 B", "2.346 MB", "1 GB"]
    assert [age_text(s) for s in (-1, 59, 60, 7_200, 200_000)] == ["0 s", "59 s", "1 min", "2 h", "2 d"]
