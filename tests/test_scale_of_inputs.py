"""Inputs on the scale that a run was trained on: what is on another is refused, or warned of."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from adamode import AdamodeWarning, ArgumentError, TrainConfig, Trainer
from adamode.cli.app import app
from adamode.models import card
from adamode.solvers.errors import CheckpointError, DataError
from adamode.train.data import DataOptions, load_data
from adamode.train.data.own import load_own
from adamode.train.data.own.given import as_data_set
from adamode.train.evaluation import LoadedRun, load_data_of, load_run, untrained_run
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


@pytest.mark.parametrize("trained", ["pixels", "floats"])
def test_images_that_are_faint_beside_those_of_training_are_warned_of(tmp_path, trained):
    x = PIXELS if trained == "pixels" else PIXELS.astype(float)
    targets = LABELS if trained == "pixels" else np.linspace(0, 1, 40)
    run, data = untrained(saved(tmp_path / "a.npz", x=x, y=targets))
    for faint in (TRUTH.astype(x.dtype), 0.01 * x if trained == "floats" else x // 20):
        with pytest.warns(AdamodeWarning, match="has no number above .* trained on numbers up to 25"):
            predict_file(run, data, saved(tmp_path / "new.npz", x=faint[:3]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for fine in (x[:3], x[:3] // 2, 0 * x[:3]):
            predict_file(run, data, saved(tmp_path / "new.npz", x=fine))


def test_invert_of_what_is_no_picture_is_refused(tmp_path):
    run, data = untrained(saved(tmp_path / "a.npz", x=PIXELS, y=LABELS))
    with pytest.raises(ArgumentError, match=r"invert=True: .* is no picture"):
        predict_file(run, data, tmp_path / "a.npz", invert=True)


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


def test_whole_numbers_of_32_and_64_bits_are_on_one_scale(tmp_path):
    x = PIXELS.astype(np.int64)
    run, data = untrained(saved(tmp_path / "a.npz", x=x, y=LABELS))
    own, other = (
        predict_file(run, data, saved(tmp_path / "new.npz", x=x[:3].astype(kind))).probabilities
        for kind in (np.int64, np.int32)
    )
    assert np.array_equal(own, other)
    with pytest.raises(DataError, match="has dtype int16; the model was trained on int64"):
        predict_file(run, data, saved(tmp_path / "new.npz", x=x[:3].astype(np.int16)))


class FirstNumbers(nn.Module):
    """Any inputs ↦ their first two numbers."""

    def forward(self, x):
        return x.flatten(1)[:, :2]


def asked(data, path):
    """The answers of a model that any shape fits."""
    plain = TrainConfig(model="node", dataset="circles")
    return predict_file(LoadedRun(plain, FirstNumbers(), 0, torch.device("cpu")), data, path)


GIVEN = {
    "pixels": (torch.from_numpy(PIXELS).movedim(3, 1), PIXELS, UNIT),
    "floats": (torch.from_numpy(UNIT).movedim(3, 1), UNIT, PIXELS),
    "half precision": (torch.from_numpy(UNIT).movedim(3, 1).bfloat16(), UNIT, PIXELS),
    "truth": (torch.from_numpy(TRUTH).movedim(3, 1), TRUTH, PIXELS),
    "counts": (torch.arange(480).view(40, 3, 4), np.arange(12).reshape(1, 3, 4), np.zeros((1, 3, 4))),
}


@pytest.mark.parametrize("name", GIVEN)
def test_data_given_in_python_say_their_scale_too(tmp_path, name):
    x, right, wrong = GIVEN[name]
    data = as_data_set([(x, torch.from_numpy(LABELS))] * 3)
    asked(data, saved(tmp_path / "a.npz", x=right[:1]))
    with pytest.raises(DataError, match="the model was trained on"):
        asked(data, saved(tmp_path / "a.npz", x=wrong[:1]))


@pytest.mark.parametrize("shape", [(8, 8, 3), (3, 8, 8), (5, 4, 4), (4, 4, 4)])
def test_what_already_has_the_shape_of_training_is_left_as_it_is(tmp_path, shape):
    x = RNG.random((40, *shape))
    path = saved(tmp_path / "a.npz", x=x, y=RNG.random((40, *shape[:2], 2)))
    data = load_own(DataOptions(path=str(path)))
    assert (data.name, data.card.shape) == ("own-arrays", shape)
    assert np.allclose(asked(data, path).values, x.reshape(40, -1)[:, :2])


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


def clocked(path, dt, name="t"):
    """A recording with rows dt apart; 0: without a clock."""
    u = np.sin(np.arange(200) * 0.3)
    columns, names = [u, np.cos(u)], "u,y"
    if dt:
        columns, names = [*columns, 7 + dt * np.arange(200)], f"u,y,{name}"
    np.savetxt(path, np.stack(columns, axis=1), delimiter=",", header=names, comments="")
    return path


def test_a_recording_with_rows_at_another_distance_is_refused(tmp_path):
    run, data = untrained(clocked(tmp_path / "a.csv", 0.1))
    own = predict_file(run, data, tmp_path / "a.csv").values
    for same in (clocked(tmp_path / "b.csv", 0.1, "Time"), clocked(tmp_path / "c.csv", 0)):
        assert np.array_equal(predict_file(run, data, same).values, own)
    with pytest.raises(DataError, match=r"'t' has steps of 0\.2; the model was trained on rows 0\.1 apart"):
        predict_file(run, data, clocked(tmp_path / "d.csv", 0.2))
    lines = (tmp_path / "a.csv").read_text().splitlines()
    (tmp_path / "gap.csv").write_text("\n".join([*lines[:90], *lines[95:]]))
    with pytest.raises(DataError, match="times must increase in even steps"):
        predict_file(run, data, tmp_path / "gap.csv")


def test_where_training_had_no_clock_none_is_compared(tmp_path):
    run, data = untrained(clocked(tmp_path / "a.csv", 0))
    predict_file(run, data, clocked(tmp_path / "b.csv", 0.2))


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


PART = np.asarray(["train"] * 20 + ["val"] * 10 + ["test"] * 10)
POINTS = RNG.random((40, 3))


OTHERS = {  # two files whose samples are the same numbers, and their training's are not
    "parts by a column": [{"x": POINTS, "y": LABELS, "split": split} for split in (PART, PART[::-1])],
    "parts by names": [
        {"x_train": POINTS[:n], "y_train": LABELS[:n], "x_test": POINTS[n:], "y_test": LABELS[n:]}
        for n in (20, 30)
    ],
    "truth values": [{"x": x, "y": LABELS} for x in (TRUTH, TRUTH.astype(np.uint8))],
    "names of classes": [{"x": POINTS, "y": y} for y in (LABELS, np.asarray(["no", "yes"])[LABELS])],
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_same_numbers_in_another_role_are_other_data(tmp_path, name):
    first, second = (
        load_own(DataOptions(path=str(saved(tmp_path / f"{i}.npz", **named)))).card.sha256
        for i, named in enumerate(OTHERS[name])
    )
    again = load_own(DataOptions(path=str(saved(tmp_path / "again.npz", **OTHERS[name][0])))).card.sha256
    assert first == again != second


def test_other_parts_of_a_recording_are_other_data(tmp_path):
    u = np.sin(np.arange(60) * 0.3)
    found = []
    for parts in (
        ["train"] * 30 + ["val"] * 15 + ["test"] * 15,
        ["test"] * 15 + ["val"] * 15 + ["train"] * 30,
    ):
        rows = [f"{a},{b},{part}" for a, b, part in zip(u, u**2, parts, strict=True)]
        (tmp_path / "a.csv").write_text("\n".join(["u,y,split", *rows]))
        found.append(load_own(DataOptions(path=str(tmp_path / "a.csv"))).card.sha256)
    assert found[0] != found[1]


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
