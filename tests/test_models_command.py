"""``adamode models``."""

import json

import pytest
from typer.testing import CliRunner

from adamode import models
from adamode.cli.app import app

runner = CliRunner()


def run(*arguments):
    return runner.invoke(app, ["models", *arguments])


def rows(*arguments):
    result = run(*arguments, "--json", "-")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_every_model_of_every_task_has_a_row():
    found = rows()
    assert [(row["task"], row["model"]) for row in found] == [
        (task, model) for task in models.tasks() for model in models.names() if task in models.tasks(model)
    ]
    adam = {row["task"]: row["parameters"] for row in found if row["model"] == "adamnode"}
    assert adam["digits"] == 3_532
    for row in found:
        assert row["target"] == adam[row["task"]]
        assert row["difference"] == row["parameters"] - row["target"]


def test_matched_widths_are_near_and_are_what_create_takes():
    found = rows("--task", "digits", "--match-parameters", "45000")
    assert [row["model"] for row in found] == list(models.names())
    for row in found:
        assert abs(row["relative_difference"]) < 0.02
        built = models.create(row["model"], "digits", **row["width"])
        assert sum(p.numel() for p in built.parameters()) == row["parameters"]


def test_the_table_says_what_the_json_says(tmp_path):
    path = tmp_path / "sizes.json"
    result = run("--task", "mnist", "--json", str(path))
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    written = json.loads(path.read_text())
    assert len(lines) == 1 + len(written) == 10
    for line, row in zip(lines[1:], written, strict=True):
        assert line.split()[:2] == ["mnist", row["model"]]
        assert f"{row['parameters']:,}" in line
        assert f"{100 * row['relative_difference']:+.2f} %" in line
    assert run("--task", "mnist", "--quiet").stdout == ""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--task", "minst"), "did you mean 'mnist'"),
        (("--match-parameters", "0"), "match_parameters=0"),
        (("--json", "/no/such/folder/x.json"), "--json"),
    ],
)
def test_a_wrong_call_is_status_2_and_says_why(arguments, text):
    result = run(*arguments)
    assert result.exit_code == 2
    assert text in result.stderr
