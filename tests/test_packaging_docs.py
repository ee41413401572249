"""The documentation's Python code runs, as printed, page by page, and prints what stands below it."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# A block of code, and what it prints where that follows it.
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace, text = {"__name__": "__page__"}, page.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        line = text[: block.start()].count("\n") + 1
        capsys.readouterr()
        exec(compile("\n" * line + block.group(1), str(page), "exec"), namespace)
        if block.group(2) is not None:
            assert capsys.readouterr().out == block.group(2), f"{page.name}, below line {line}"


def test_the_readme_opens_with_two_commands_of_one_line_each():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[:2]
    assert [block.count("\n") for block in blocks] == [1, 1]
    assert "adamode train" in blocks[0]
    assert "pytest" in blocks[1]


def test_links_between_pages_lead_somewhere():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_sdist_takes_every_folder_and_no_picture_is_large():
    packages = {"adamode", "solvers", "adjoint", "models", "train"}  # setuptools takes them by itself
    taken = {"LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.cfg", *packages}
    for line in (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines():
        command, *names = line.split()
        taken.update(names if command in ("include", "graft") else ())
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("no git here to ask what is tracked")
    asked = ["git", "-c", "safe.directory=*", "ls-files"]
    tracked = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert {name.partition("/")[0] for name in tracked} == taken
    pictures = [ROOT / name for name in tracked if name.endswith(".png")]
    assert all(picture.stat().st_size < 1_000_000 for picture in pictures)


def test_the_metadata_say_who_and_for_which_python():
    cfg = configparser.ConfigParser()
    cfg.read(ROOT / "setup.cfg", encoding="utf-8")
    told, least = cfg["metadata"], cfg["options"]["python_requires"].removeprefix(">=")
    versions = re.findall(r"Python :: (3\.\d+)$", told["classifiers"], re.MULTILINE)
    assert versions[0] == least
    minors = [int(version[2:]) for version in versions]
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert told["author"]
    assert "adjoint" in told["keywords"]
    assert "references.bib" in cfg["options.package_data"]["adamode"]
