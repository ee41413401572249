"""`adamode data`."""

import json

import numpy as np
import pytest
from data_files import mnist_arrays
from typer.testing import CliRunner

from adamode.cli.app import app
from adamode.train.data import DATASETS

runner = CliRunner()


def data(*arguments, env=None):
    return runner.invoke(app, ["data", *arguments], env={"ADAMODE_DATA": None, **(env or {})})


@pytest.fixture
def folder(tmp_path):
    np.savez(tmp_path / "mnist.npz", **mnist_arrays())
    return tmp_path


def test_one_data_set_is_shown_by_its_card(folder):
    result = data("mnist", "--data-dir", str(folder))
    assert result.exit_code == 0, result.stderr
    for part in ("mnist: 80 inputs of shape 1×28×28, 10 classes", "mnist.npz", "sample of mnist"):
        assert part in result.stdout


def test_the_environment_says_where(folder):
    result = data("mnist", env={"ADAMODE_DATA": str(folder)})
    assert result.exit_code == 0, result.stderr


def test_all_data_sets_are_listed_and_what_is_missing_is_said(folder):
    result = data("--data-dir", str(folder))
    assert result.exit_code == 0, result.stderr
    for name in DATASETS:
        assert f"data      {name}: " in result.stdout
    assert "cifar10: not here (32×32 colour images" in result.stdout
    assert "looked for cifar10.npz" in result.stdout


def test_json_on_the_standard_output_is_alone(folder):
    result = data("--data-dir", str(folder), "--json", "-")
    assert result.exit_code == 0, result.stderr
    rows = {row["name"]: row for row in json.loads(result.stdout)["data"]}
    assert list(rows) == list(DATASETS)
    assert rows["mnist"]["counts"] == {"train": 50, "validation": 10, "test": 20}
    assert len(rows["mnist"]["files"][0]["sha256"]) == 64
    assert (rows["mnist"]["available"], rows["silverbox"]["available"]) == (True, False)
    assert "SNLS80mV.csv" in rows["silverbox"]["error"]


def test_json_goes_to_a_file_and_a_path_that_cannot_be_is_said_first(tmp_path):
    result = data("circles", "--json", str(tmp_path / "card.json"))
    assert result.exit_code == 0, result.stderr
    assert json.loads((tmp_path / "card.json").read_text())["data"][0]["name"] == "circles"
    assert "data      circles" in result.stdout
    for bad in (tmp_path, tmp_path / "no" / "card.json"):
        result = data("circles", "--json", str(bad))
        assert result.exit_code == 2
        assert "--json" in result.stderr
        assert result.stdout == ""


def test_quiet_prints_nothing_where_nothing_is_wrong():
    result = data("circles", "--quiet")
    assert (result.exit_code, result.stdout) == (0, "")


def test_an_unknown_name_gets_the_nearest_and_status_2():
    result = data("mnits")
    assert result.exit_code == 2
    assert "did you mean 'mnist'" in result.stderr


def test_a_missing_or_damaged_data_set_has_status_2(folder):
    result = data("cifar10", "--data-dir", str(folder))
    assert result.exit_code == 2
    assert "looked for cifar10.npz" in result.stderr
    assert data("cifar10").exit_code == 2
    (folder / "mnist.npz").write_bytes((folder / "mnist.npz").read_bytes()[:1000])
    for arguments in (["mnist"], []):  # a list does not hide a damaged file
        result = data(*arguments, "--data-dir", str(folder))
        assert result.exit_code == 2
        assert "mnist.npz" in result.stderr


def test_download_wants_a_name():
    result = data("--download")
    assert result.exit_code == 2
    assert "adamode data mnist" in result.stderr
