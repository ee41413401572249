"""`adamode data`."""

import json

import numpy as np
import pytest
from data_files import mnist_arrays
from typer.testing import CliRunner

from adamode.cli.app import app
from adamode.solvers.errors import MissingDataError
from adamode.train.data import DATASETS, DataOptions, load_data
from adamode.train.places import PLACES

runner = CliRunner()


def data(*arguments, env=None):
    return runner.invoke(app, ["data", *arguments], env={"ADAMODE_DATA": None, **(env or {})})


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
    monkeypatch.delenv("ADAMODE_DATA", raising=False)


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
    lines = [line.split() for line in result.stdout.splitlines()]
    states = {line[0]: line[1] for line in lines if line and line[0] in DATASETS}
    assert list(states) == list(DATASETS)
    missing = ("cifar10", "silverbox", "silverbox-paper")
    assert [name for name, state in states.items() if state == "missing"] == list(missing)
    assert [name for name, state in states.items() if state == "there"] == ["mnist", "mnist8-density"]
    assert "looked for cifar10.npz" in " ".join(result.stdout.split())
    assert result.stdout.count("SilverboxFiles.zip") == 1  # of two data sets


def test_the_list_finds_what_reading_finds(folder):
    """The list only looks; --check reads all. They agree on what is there, and the cards are the latter's."""
    listed, checked = (data("--data-dir", str(folder), *more, "--json", "-") for more in ([], ["--check"]))
    for result in (listed, checked):
        assert result.exit_code == 0, result.stderr
    listed, checked = (
        {row["name"]: row for row in json.loads(result.stdout)["data"]} for result in (listed, checked)
    )
    assert list(listed) == list(checked) == list(DATASETS)
    for name, row in listed.items():
        assert row == {key: checked[name][key] for key in row}
        assert set(row) == {"name", "about", "available", *(() if row["available"] else ("error",))}
    assert checked["mnist"]["counts"] == {"train": 50, "validation": 10, "test": 20}
    assert len(checked["mnist"]["files"][0]["sha256"]) == 64
    assert (checked["mnist"]["available"], checked["silverbox"]["available"]) == (True, False)
    assert "SNLS80mV.csv" in listed["silverbox"]["error"]


@pytest.mark.parametrize("name", PLACES)
def test_a_set_without_its_files_is_refused_as_the_list_says(name, tmp_path):
    for data_dir in (None, str(tmp_path), str(tmp_path / "no")):
        said = PLACES[name].missing(data_dir)
        with pytest.raises(MissingDataError) as caught:
            load_data(name, DataOptions(data_dir=data_dir))
        assert str(caught.value) == said


def test_the_list_reads_nothing(tmp_path):
    (tmp_path / "mnist.npz").write_bytes(b"damaged")
    result = data("--data-dir", str(tmp_path))
    assert result.exit_code == 0, result.stderr
    for line in ("mnist                there", "mnist8-density       there"):
        assert line in result.stdout


def test_some_of_the_files_are_not_enough(tmp_path):
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte"):
        (tmp_path / name).touch()
    assert "lacks t10k-labels-idx1-ubyte[.gz]" in PLACES["mnist"].missing(str(tmp_path))
    (tmp_path / "t10k-labels-idx1-ubyte").touch()
    assert PLACES["mnist"].missing(str(tmp_path)) == ""
    (tmp_path / "cifar-10-batches-py").mkdir()
    assert PLACES["cifar10"].missing(str(tmp_path)) == ""


def test_a_folder_that_is_none_is_refused(tmp_path):
    (tmp_path / "file").touch()
    result = data("--data-dir", str(tmp_path / "file"))
    assert result.exit_code == 2
    assert "is not a folder" in result.stderr


def test_check_and_data_of_ones_own_are_two_things(tmp_path):
    result = data("--check", "--data", str(tmp_path))
    assert result.exit_code == 2
    assert "give one of the two" in result.stderr


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
    for arguments in (["mnist"], ["--check"], ["--check", "--quiet"]):  # a list does not hide a damaged file
        result = data(*arguments, "--data-dir", str(folder))
        assert result.exit_code == 2
        assert "mnist.npz" in result.stderr


def test_download_wants_a_name():
    result = data("--download")
    assert result.exit_code == 2
    assert "adamode data mnist" in result.stderr
