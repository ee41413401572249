"""A figure's folder says what it holds, and pieces of something else are never taken for its own."""

import dataclasses
import json

import pytest
import torch

from adamode.models.provenance import git_state
from adamode.reproduce.machinery import work as reproduce_work
from adamode.reproduce.machinery.work import IDENTITY, Allowed, Work
from adamode.solvers.errors import CheckpointError


@dataclasses.dataclass(frozen=True)
class Settings:
    points: int = 3
    datasets: tuple[str, ...] = ("mnist",)


def work_in(folder, scale="smoke", **allowed):
    return Work(folder / "fig1", folder / "runs", scale, Allowed(say=lambda text: None, **allowed))


@pytest.fixture
def made(tmp_path):
    work = work_in(tmp_path)
    work.open("fig1", Settings())
    assert work.part("piece", lambda: 1) == 1
    return tmp_path


def test_a_piece_is_computed_once(made):
    work = work_in(made)
    work.open("fig1", Settings())
    assert work.part("piece", lambda: 2) == 1
    work.open("fig1", Settings(datasets=("cifar10",)))  # pieces of each are apart
    assert work.part("other", lambda: 3) == 3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"scale": "sample"}, "its scale is not this one's"),
        ({"threads": 2}, "its threads is not this one's: 1 there, 2 here"),
        ({"device": "cuda"}, "its device is not this one's"),
    ],
)
def test_another_scale_device_or_number_of_threads_is_refused(made, change, says):
    with pytest.raises(CheckpointError, match=says):
        work_in(made, **change).open("fig1", Settings())


def test_other_settings_are_refused_by_name(made):
    with pytest.raises(CheckpointError, match="points: 3 there, 4 here"):
        work_in(made).open("fig1", Settings(points=4))


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "null", '"x"', "{}", "[" * 100_000])
def test_a_damaged_identity_is_refused_and_the_folder_is_to_go_not_the_file(made, content):
    (made / "fig1" / IDENTITY).write_text(content)
    with pytest.raises(CheckpointError, match="delete the folder"):
        work_in(made).open("fig1", Settings())


def test_pieces_without_an_identity_are_not_adopted(made):
    (made / "fig1" / IDENTITY).unlink()
    with pytest.raises(CheckpointError, match="holds finished pieces"):
        work_in(made).open("fig1", Settings())


def test_a_damaged_piece_is_named(made):
    (made / "fig1" / "parts" / "piece.json").write_text('{"sec')
    with pytest.raises(CheckpointError, match=r"piece\.json' cannot be read.*delete it to make it anew"):
        work_in(made).part("piece", lambda: 1)


def test_a_piece_that_json_cannot_hold_leaves_nothing(made):
    with pytest.raises(ValueError, match="JSON"):
        work_in(made).part("odd", lambda: float("nan"))
    assert json.loads((made / "fig1" / "parts" / "piece.json").read_text())["value"] == 1
    assert not (made / "fig1" / "parts" / "odd.json").exists()


def test_a_call_that_made_nothing_binds_no_other(tmp_path):
    work_in(tmp_path).open("fig1", Settings())
    work_in(tmp_path, threads=2).open("fig1", Settings(points=4))
    assert work_in(tmp_path, threads=2).part("piece", lambda: 1) == 1
    with pytest.raises(CheckpointError, match="its threads is not this one's: 2 there, 1 here"):
        work_in(tmp_path).open("fig1", Settings(points=4))


def test_pieces_of_another_torch_are_refused(made, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "1.0")
    with pytest.raises(CheckpointError, match=r"its torch is not this one's: .* there, '1\.0' here"):
        work_in(made).open("fig1", Settings())


def test_a_piece_without_a_value_is_named(made):
    (made / "fig1" / "parts" / "piece.json").write_text('{"seconds": 1}')
    with pytest.raises(CheckpointError, match=r"piece\.json.* has no value; delete it"):
        work_in(made).part("piece", lambda: 1)


def test_a_piece_says_which_code_made_it(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce_work, "_git", git_state)  # kept once a process, wherever that began
    assert work_in(tmp_path).part("piece", lambda: 1) == 1
    content = json.loads((tmp_path / "fig1" / "parts" / "piece.json").read_text())
    assert content["git"] == git_state()
