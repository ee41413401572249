"""``adamode inspect``: what it prints, writes, refuses, and how it ends."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from adamode.cli.app import app

runner = CliRunner()
PNG = b"\x89PNG\r\n\x1a\n"


def inspect(*arguments, folder):
    return runner.invoke(app, ["inspect", *arguments, "--output-dir", str(folder)])


def files(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_an_inspection_leaves_pictures_traces_and_a_summary(tmp_path):
    result = inspect("detest-b5", "--method", "dopri5,rk4", "--t-end", "4", "--rows", "4", folder=tmp_path)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "detest-b5"
    both = ("dopri5", "rk4")
    pictures = [
        "solution.png",
        "work-precision.png",
        *(f"{k}-{m}.png" for k in ("steps", "stability") for m in both),
    ]
    traces = [f"trace-{m}.{suffix}" for m in both for suffix in ("csv", "json")]
    assert files(folder) == sorted([*pictures, *traces, "summary.json"])
    assert all((folder / name).read_bytes().startswith(PNG) for name in pictures)
    page = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert [solve["method"] for solve in page["solves"]] == list(both)
    assert page["solves"][0]["largest_error"] < 1e-4
    assert {rung["method"] for rung in page["work_precision"]} == set(both)
    assert page["reference"]["kind"] == "closed solution"
    assert "dt·|λ|" in result.stdout
    assert f"… {page['solves'][0]['n_accepted'] + page['solves'][0]['n_rejected'] - 4} more" in result.stdout


def test_a_solve_that_fails_is_drawn_as_far_as_it_came_and_ends_with_1(tmp_path):
    result = inspect(
        *("robertson", "--method", "dopri5", "--max-steps", "50", "--t-end", "0.3", "--no-work-precision"),
        folder=tmp_path,
    )
    assert result.exit_code == 1
    assert "error: dopri5: MAX_STEPS" in result.stderr
    assert "the problem is stiff there" in result.stderr
    folder = tmp_path / "robertson"
    assert {"solution.png", "steps-dopri5.png", "stability-dopri5.png"} <= set(files(folder))
    record = json.loads((folder / "trace-dopri5.json").read_text(encoding="utf-8"))
    assert (record["status"], len(record["rows"])) == ("MAX_STEPS", 50)


def test_a_blow_up_without_a_reference_says_so(tmp_path):
    (tmp_path / "own.py").write_text("def pole(t, y):\n    return y * y\n", encoding="utf-8")
    name = f"{tmp_path / 'own.py'}:pole"
    result = inspect(
        name, "--method", "bosh3", "--y0", "1", "--t-end", "2", "--rtol", "1e-3", folder=tmp_path
    )
    assert result.exit_code == 1
    assert "reference: none" in result.stdout
    assert "no work–precision picture" in result.stdout
    assert "steps-bosh3.png" in files(tmp_path / "pole")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["vanderpol"], "did you mean 'van-der-pol'"),
        (["lorenz", "--method", "dopri6"], "did you mean 'dopri8' or 'dopri5'"),
        (["lorenz", "--method", ","], "--method=','"),
        (["lorenz", "--dtype", "float16"], "--dtype='float16'"),
        (["lorenz", "--rtol", "-1"], "rtol=-1.0"),
        (["lorenz", "--dtype", "float32", "--rtol", "1e-12"], "below what torch.float32 resolves"),
        (["lorenz", "--t-end", "0"], "an end that is not the start"),
        (["lorenz", "--y0", "1,x,2"], "must be numbers with commas"),
        (["lorenz", "--threads", "0"], "--threads=0"),
        (["lorenz", "--device", "nonsense"], "--device='nonsense'"),
        (["lorenz", "--max-steps", "0"], "max_steps"),
        (["lorenz", "--method", "dopri5,tsit5", "--page", "x.html"], "give one method with --page"),
        (["lorenz", "--page", "not/there/x.html"], "--page='not/there/x.html' must be a file"),
    ],
)
def test_a_wrong_call_says_what_is_wrong_writes_nothing_and_ends_with_2(arguments, says, tmp_path):
    result = inspect(*arguments, folder=tmp_path)
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert files(tmp_path) == []


def test_the_list_names_every_problem():
    from adamode.inspect.catalogue import PROBLEMS

    result = runner.invoke(app, ["inspect", "--list"], env={"COLUMNS": "900"})
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()[2:]] == list(PROBLEMS)
    narrow = runner.invoke(app, ["inspect", "--list"], env={"COLUMNS": "80"}).stdout
    assert max(map(len, narrow.splitlines())) <= 80
    assert narrow.split() == result.stdout.split()  # nothing is left out


INTERRUPTED = """
calls = 0

def slow(t, y):
    global calls
    calls += 1
    if calls == 200:
        raise KeyboardInterrupt
    return 1j.real - y
"""


def test_ctrl_c_in_a_solve_leaves_a_clean_message_and_no_file(tmp_path):
    (tmp_path / "own.py").write_text(INTERRUPTED, encoding="utf-8")
    out = tmp_path / "out"
    result = inspect(f"{tmp_path / 'own.py'}:slow", "--y0", "3", "--t-end", "1000", folder=out)
    assert result.exit_code == 130
    assert "interrupted." in result.stderr
    assert "Traceback" not in result.output
    assert files(out) == []


def test_ctrl_c_while_a_picture_is_drawn_leaves_whole_files_only(tmp_path, monkeypatch):
    def interrupt(figure, study):
        raise KeyboardInterrupt

    monkeypatch.setattr("adamode.inspect.page.draw_steps", interrupt)
    result = inspect("detest-a1", "--method", "dopri5", "--no-work-precision", folder=tmp_path)
    assert result.exit_code == 130
    assert files(tmp_path / "detest-a1") == ["solution.png", "trace-dopri5.csv", "trace-dopri5.json"]


def test_quiet_prints_the_summary_only(tmp_path):
    result = inspect("detest-a1", "--method", "dopri5", "--no-work-precision", "--quiet", folder=tmp_path)
    assert result.exit_code == 0
    lines = result.stdout.strip().splitlines()
    assert lines[0].startswith("method")
    assert lines[-1] == f"written   {tmp_path / 'detest-a1'}"
    assert len(lines) == 6


@pytest.mark.parametrize(
    ("arguments", "ways"),
    [
        (["detest-a1", "--no-work-precision"], 0),
        (["node", "--adjoint", "--gradient", "discrete,backsolve"], 2),
    ],
)
def test_a_page_is_written_of_one_method(arguments, ways, tmp_path):
    page = tmp_path / "solve.html"
    result = inspect(*arguments, "--quiet", "--page", str(page), folder=tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith(f"written   {page}\n")
    data = json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)[1])
    assert data["method"] == "dopri5"
    assert len(data["ways"]) == ways


def test_a_solve_that_fails_has_its_page(tmp_path):
    page = tmp_path / "solve.html"
    result = inspect(
        "blow-up", "--no-work-precision", "--quiet", "--page", str(page), folder=tmp_path / "out"
    )
    assert result.exit_code == 1
    assert "STEP_UNDERFLOW at t=1.57" in page.read_text(encoding="utf-8")


def test_a_progress_bar_goes_to_stderr(tmp_path, monkeypatch):
    monkeypatch.setattr("adamode.inspect.progress.INTERVAL", 0.0)
    plain = ["detest-a1", "--method", "dopri5", "--no-work-precision", "--quiet"]
    noisy = inspect(*plain[:-1], "--rows", "0", "--progress", folder=tmp_path)
    assert noisy.exit_code == 0
    assert "%|" not in noisy.stdout
