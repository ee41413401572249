"""Inputs on the scale that a run was trained on: what is on another is refused, or warned of."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from adamode import AdamodeWarning, ArgumentError, TrainConfig, Trainer
from adamode.cli.app import app
from adamode.models import card
from adamode.solvers.errors import CheckpointError, DataError
from adamode.train.data import DataOptions, load_data
from adamode.train.data.own import load_own
from adamode.train.evaluation import load_data_of, load_run, untrained_run
from adamode.train.prediction import predict_file
from adamode.train.saved import save_run

RNG = np.random.default_rng(0)
LABELS = np.arange(40) % 2
PIXELS = RNG.integers(0, 256, (40, 5, 5, 1), dtype=np.uint8)


def saved(path, **named):
    np.savez(path, **named)
    return path


def untrained(path, **settings):
    """(a run with its first weights, its data)."""
    config = TrainConfig(model="node", data=str(path), **settings)
    return untrained_run(config), load_own(config.data_options())


# Pixels and floats

UNIT = PIXELS / 255.0
TRUTH = PIXELS > 127
DEEP = PIXELS.astype(np.uint16) * 257
SCALES = {"pixels": PIXELS, "floats": UNIT, "truth": TRUTH, "16 bits": DEEP}
SAME = {  # what is the same scale as each, beside itself
    "pixels": {"int64": PIXELS.astype(np.int64), "whole floats": PIXELS.astype(float)},
    "floats": {"float32": UNIT.astype(np.float32), "float16": UNIT.astype(np.float16)},
    "truth": {"uint8": TRUTH.astype(np.uint8), "floats": TRUTH.astype(float)},
    "16 bits": {},
}


@pytest.mark.parametrize("targets", ["classes", "values"])
@pytest.mark.parametrize("trained", SCALES)
def test_an_image_on_the_scale_of_training_is_taken_and_on_another_refused(tmp_path, trained, targets):
    y = LABELS if targets == "classes" else np.linspace(0, 1, 40)
    run, data = untrained(saved(tmp_path / "a.npz", x=SCALES[trained], y=y))

    def answers(x):
        found = predict_file(run, data, saved(tmp_path / "new.npz", x=x))
        return found.values if found.probabilities is None else found.probabilities

    own = answers(SCALES[trained][:3])
    for name, x in SAME[trained].items():
        assert np.allclose(answers(x[:3]), own, atol=1e-3 if name == "float16" else 1e-6), name
    for name, x in SCALES.items():
        if name == trained:
            continue
        with pytest.raises(DataError, match="the model was trained on"):
            answers(x[:3])


def test_a_picture_of_truth_values_has_white_1(tmp_path):
    run, data = untrained(saved(tmp_path / "a.npz", x=TRUTH, y=LABELS))
    Image.fromarray((TRUTH[0, :, :, 0] * 255).astype(np.uint8)).save(tmp_path / "a.png")
    by_file = predict_file(run, data, tmp_path / "a.png").probabilities
    by_array = predict_file(run, data, saved(tmp_path / "new.npz", x=TRUTH[:1])).probabilities
    assert np.allclose(by_file, by_array)
    unit = load_own(DataOptions(path=str(tmp_path / "a.npz"), normalise="unit"))
    assert unit.train.__getitems__([0, 1, 2])[0].max() == 1


def test_arrays_for_a_builder_keep_their_kind_of_number(tmp_path):
    data = load_own(DataOptions(path=str(saved(tmp_path / "a.npz", x=RNG.random((40, 2, 3, 5)), y=LABELS))))
    data.raw.check_scale(RNG.random((2, 2, 3, 5)).astype(np.float32), "x")
    with pytest.raises(DataError, match="has dtype uint8; the model was trained on float64"):
        data.raw.check_scale(np.zeros((2, 2, 3, 5), np.uint8), "x")


def test_parts_of_other_bit_depths_are_refused(tmp_path):
    parts = {"x_train": PIXELS, "y_train": LABELS, "x_test": DEEP, "y_test": LABELS}
    with pytest.raises(DataError, match="the parts differ in shape or kind"):
        load_own(DataOptions(path=str(saved(tmp_path / "a.npz", **parts))))


# Units


@pytest.mark.parametrize("factor", [1.0, 3.0, 100.0, -100.0])
def test_points_in_another_unit_are_warned_of_with_their_column(tmp_path, factor):
    x = RNG.random((40, 3))
    run, data = untrained(saved(tmp_path / "a.npz", x=x, y=LABELS))
    other = x[:4] * np.asarray([1.0, factor, 1.0])
    new = saved(tmp_path / "new.npz", x=other)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        predict_file(run, data, new)
    told = [str(w.message) for w in told if issubclass(w.category, AdamodeWarning)]
    assert len(told) == (abs(factor) > 5)
    if told:
        low, high = x[:, 1].min(), x[:, 1].max()  # of the training part: some are among the others
        assert "entry x, column 1 has" in told[0]
        worst = other[:, 1][np.abs(other[:, 1] - (low + high) / 2).argmax()]
        assert f"has {worst:g}, where the model was trained on 0." in told[0]


@pytest.mark.parametrize("column", ["u", "y"])
def test_a_recording_in_another_unit_is_warned_of(tmp_path, column):
    def written(name, scale_u=1.0, scale_y=1.0):
        u = np.sin(np.arange(200) * 0.3)
        rows = np.stack((u * scale_u, np.cos(u) * scale_y), axis=1)
        np.savetxt(tmp_path / name, rows, delimiter=",", header="u,y", comments="")
        return tmp_path / name

    run, data = untrained(written("a.csv"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predict_file(run, data, written("b.csv"))
    with pytest.warns(AdamodeWarning, match=f"{'inputs' if column == 'u' else 'outputs'}.* in the same unit"):
        predict_file(run, data, written("c.csv", **{f"scale_{column}": 1000.0}))


def test_a_column_that_never_varied_says_nothing_of_units(tmp_path):
    x = np.concatenate((RNG.random((40, 1)), np.ones((40, 1))), axis=1)
    run, data = untrained(saved(tmp_path / "a.npz", x=x, y=LABELS))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predict_file(run, data, saved(tmp_path / "new.npz", x=x[:2] * [1.0, 50.0]))


# The run's own data


def test_other_data_than_the_runs_are_refused_where_they_would_scale_its_inputs(tmp_path):
    x = RNG.random((40, 3))
    first = saved(tmp_path / "a.npz", x=x, y=LABELS)
    common = {"model": "node", "epochs": 1, "output_dir": str(tmp_path / "runs"), "name": "r"}
    Trainer(TrainConfig(data=str(first), **common), quiet=True).fit()
    run = load_run(tmp_path / "runs" / "r")
    moved = first.rename(tmp_path / "moved.npz")
    assert load_data_of(run, path=str(moved)).card.sha256 == run.data_sha256
    other = saved(tmp_path / "other.npz", x=10 * x, y=LABELS)
    with pytest.raises(CheckpointError, match="was made with other data"):
        load_data_of(run, path=str(other))
    for command in (["evaluate"], ["predict", str(other)], ["export"]):
        arguments = [command[0], str(tmp_path / "runs" / "r"), *command[1:], "--data", str(other)]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2, result.output
        assert "was made with other data" in " ".join(result.stderr.split())


@pytest.mark.parametrize("kind", ["digits", "points", "floats"])
def test_a_saved_models_card_says_how_inputs_are_scaled(tmp_path, kind):
    x = {"digits": None, "points": RNG.random((40, 3)), "floats": UNIT}[kind]
    if x is None:
        run, data = untrained_run(TrainConfig(model="node", dataset="digits")), load_data("digits")
        x = data.val.images.numpy()
    else:
        split = np.asarray(["train"] * 20 + ["val"] * 10 + ["test"] * 10)
        run, data = untrained(saved(tmp_path / "a.npz", x=x, y=LABELS, split=split))
        x = x[20:30] if kind == "points" else x[20:30].transpose(0, 3, 1, 2)
    told = card(save_run(run, data, tmp_path / "model"))["scaling"]["x"]
    offset, factor = (np.asarray(told[name]) for name in ("offset", "factor"))
    if x.ndim == 4:
        offset, factor = (a[:, None, None] for a in (offset, factor))
    inputs = data.val.__getitems__(list(range(len(x))))[0]
    assert torch.allclose(torch.from_numpy((x - offset) * factor).float(), inputs, atol=1e-5)


# Classes


@pytest.mark.parametrize("how", ["column", "parts"])
def test_a_class_that_none_trains_is_refused(tmp_path, how):
    x, y = RNG.random((12, 3)), np.asarray([0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 2])
    if how == "column":
        split = np.asarray(["train"] * 8 + ["val"] * 2 + ["test"] * 2)
        path = saved(tmp_path / "a.npz", x=x, y=y, split=split)
    else:
        path = saved(tmp_path / "a.npz", x_train=x[:8], y_train=y[:8], x_test=x[8:], y_test=y[8:])
    with pytest.raises(DataError, match="class '2' has no sample in the training part"):
        load_own(DataOptions(path=str(path)))


def test_a_class_that_none_trains_is_refused_in_python(tmp_path):
    x, y = torch.rand(12, 3), torch.tensor([0, 1] * 5 + [0, 2])
    parts = ((x[:8], y[:8]), (x[8:10], y[8:10]), (x[10:], y[10:]))
    with pytest.raises(ArgumentError, match="class 2 is in validation or test, and no training sample"):
        Trainer(TrainConfig(model="node", output_dir=str(tmp_path)), data=parts)


def test_data_beside_a_data_set_of_another_shape_are_refused(tmp_path):
    x, y = torch.rand(12, 3), torch.tensor([0, 1] * 6)
    parts = ((x[:8], y[:8]), (x[8:10], y[8:10]), (x[10:], y[10:]))
    with pytest.raises(ArgumentError, match=r"dataset='digits' was given, and data= of another shape"):
        Trainer(TrainConfig(model="node", dataset="digits", output_dir=str(tmp_path)), data=parts)
    assert (
        Trainer(TrainConfig(model="node", output_dir=str(tmp_path)), data=parts).config.dataset
        == "own-points"
    )
