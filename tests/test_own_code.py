"""Fields, builders and data of one's own, by the commands that a user types."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from own_code import ConvNet, Net, flat
from test_own_data import X, Y, arrays, pictures, recording
from torch import nn
from typer.testing import CliRunner

import adamode
from adamode import ArgumentError, TrainConfig, Trainer
from adamode.cli.app import app
from adamode.models import create
from adamode.models.export import with_fixed_steps
from adamode.solvers.errors import CheckpointError, MissingDataError, TrainingError
from adamode.train.data import DATASETS, load_data, model_task
from adamode.train.data.own.given import as_data_set
from adamode.train.evaluation import judge, load_data_of, load_run
from adamode.train.own import name_of, own_field, resolve

runner = CliRunner()


def call(*arguments):
    return runner.invoke(app, [str(a) for a in arguments])


def plain(text):
    return re.sub(r"\s+", " ", text)


def train(place, *arguments):
    result = call("train", "--output-dir", place, "--epochs", 1, "--quiet", *arguments)
    assert result.exit_code == 0, result.output
    return result


FIVE = ("node", "sonode", "anode", "hbnode", "adamnode")


# One command each


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Runs on a folder, points, a recording, with a field and with a builder of one's own."""
    place = tmp_path_factory.mktemp("own")
    pictures(place / "pets", count=6)
    arrays(place / "points.npz", x=X, y=Y)
    arrays(place / "values.npz", x=X, y=X[:, :2])
    recording(
        place / "rec.csv", n=150, names="u1,y1,u2,y2", more=(np.arange(150.0), np.sin(np.arange(150.0)))
    )
    runs = place / "runs"
    train(runs, "--data", place / "pets", "--name", "pets", "--model", "node")
    train(runs, "--data", place / "points.npz", "--model", "anode", "--name", "points")
    train(runs, "--data", place / "values.npz", "--model", "sonode", "--name", "values")
    train(runs, "--data", place / "rec.csv", "--model", "hbnode", "--name", "rec", "--window", 8)
    train(runs, "--field", "own_code:Net", "--dataset", "circles", "--name", "field", "--batch-size", 500)
    train(runs, "--model", "own_code:small", "--dataset", "circles", "--name", "model", "--batch-size", 500)
    return place


RUNS = ("pets", "points", "values", "rec", "field", "model")


@pytest.mark.parametrize("name", RUNS)
def test_a_run_on_ones_own_is_evaluated_as_it_was_tested(place, name):
    result = call("evaluate", name, "--output-dir", place / "runs", "--json", "-")
    assert result.exit_code == 0, result.output
    final = json.loads((place / "runs" / name / "metrics.jsonl").read_text().splitlines()[-1])
    told = json.loads(result.stdout)
    quality = "accuracy" if "test_accuracy" in final else "rmse"
    assert told[quality] == pytest.approx(final[f"test_{quality}"], rel=1e-6)
    assert told["loss"] == pytest.approx(final["test_loss"], rel=1e-6)


@pytest.mark.parametrize("name", RUNS)
def test_the_same_command_by_its_settings_finds_the_run_finished(place, name):
    config = place / "runs" / name / "config.toml"
    result = call("train", "--config", config, "--quiet")
    assert result.exit_code == 0, result.output
    assert "finished already" in result.stdout


def test_runs_on_ones_own_are_listed(place):
    result = call("runs", "--output-dir", place / "runs", "--json", "-", "--no-picture")
    found = {run["name"]: run for run in json.loads(result.stdout)["runs"]}
    assert set(found) == set(RUNS)
    assert {run["state"] for run in found.values()} == {"finished"}
    assert found["model"]["config"]["model"] == "own_code:small"
    assert found["rec"]["config"]["sizes"] == "inputs=2,outputs=2"


def test_the_data_of_a_run_are_known_by_their_contents_and_may_lie_elsewhere(place, tmp_path):
    moved = arrays(tmp_path / "moved.npz", x=X, y=Y)
    told = ("evaluate", "points", "--output-dir", place / "runs", "--data")
    assert call(*told, moved).exit_code == 0
    config = TrainConfig.from_toml(place / "runs" / "points" / "config.toml", data=str(moved))
    assert not Trainer(config, quiet=True).fit().trained
    arrays(tmp_path / "other.npz", x=X + 1, y=Y)
    other = TrainConfig.from_toml(place / "runs" / "points" / "config.toml", data=str(tmp_path / "other.npz"))
    with pytest.raises(CheckpointError, match="made with other data"):
        Trainer(other, quiet=True).fit()
    result = call(*told, place / "pets")
    assert result.exit_code == 2
    assert "the settings are for own-points with features=3,classes=2" in plain(result.stderr)


# Predict


def test_predict_takes_arrays_and_says_the_classes_names(place, tmp_path):
    run = ("predict", "points", "--output-dir", place / "runs")
    result = call(*run, place / "points.npz", "--json", tmp_path / "a.json", "--output", tmp_path / "a.npz")
    assert result.exit_code == 0, result.output
    loaded = load_run(place / "runs" / "points")
    data = load_data_of(loaded)
    with torch.no_grad():
        expected = loaded.model(torch.from_numpy(data.raw.x.apply(X)).float()).double().softmax(1)
    told = json.loads((tmp_path / "a.json").read_text())
    assert len(told) == len(X)
    assert np.allclose([row["probabilities"] for row in told], expected, atol=1e-6)
    assert {row["label"] for row in told} <= {"0", "1"}
    with np.load(tmp_path / "a.npz") as written:
        assert np.allclose(written["probabilities"], expected, atol=1e-6)
    assert "and 30 more" in result.stdout


def test_predict_gives_values_in_the_files_own_units(place, tmp_path):
    run = ("predict", "values", "--output-dir", place / "runs")
    assert call(*run, place / "values.npz", "--output", tmp_path / "v.csv").exit_code == 0
    loaded = load_run(place / "runs" / "values")
    data = load_data_of(loaded)
    with torch.no_grad():
        scaled = loaded.model(torch.from_numpy(data.raw.x.apply(X)).float()).double().numpy()
    table = np.loadtxt(tmp_path / "v.csv", delimiter=",", skiprows=1, usecols=(1, 2))
    assert np.allclose(table, data.raw.y.undo(scaled), atol=1e-5)


def test_predict_simulates_a_recording_from_its_first_rows(place, tmp_path):
    lines = (place / "rec.csv").read_text().splitlines()
    blank = [",".join(c if k in (0, 2) else "" for k, c in enumerate(line.split(","))) for line in lines[9:]]
    (tmp_path / "next.csv").write_text("\n".join([*lines[:9], *blank]))
    run = ("predict", "rec", "--output-dir", place / "runs", "--json", "-")
    known, unknown = (json.loads(call(*run, p).stdout)[0] for p in (place / "rec.csv", tmp_path / "next.csv"))
    assert known["values"] == unknown["values"]
    assert np.shape(known["values"]) == (142, 2)
    truth = np.loadtxt(place / "rec.csv", delimiter=",", skiprows=1)[8:, [1, 3]]
    assert known["rmse"] == pytest.approx(np.sqrt(np.mean((np.asarray(known["values"]) - truth) ** 2)))
    assert unknown["rmse"] is None
    (tmp_path / "short.csv").write_text("\n".join([*lines[:5], *blank]))
    result = call(*run, tmp_path / "short.csv")
    assert result.exit_code == 2
    assert "row 5, column 'y1' is missing; the model is given the first 8 rows" in plain(result.stderr)


def test_predict_takes_pictures_and_images_as_arrays_alike(place):
    from PIL import Image

    files = [place / "pets" / "cats" / "1.png", place / "pets" / "dogs" / "2.png"]
    raw = np.stack([np.asarray(Image.open(f)) for f in files])
    path = arrays(place / "two.npz", x=raw)
    run = ("predict", "pets", "--output-dir", place / "runs", "--json", "-")
    one, two = (json.loads(call(*run, *given).stdout) for given in (files, [path]))
    # A batch shares its steps, so a picture alone is solved with others: the same within the tolerance, 1e-3.
    assert np.allclose(*([row["probabilities"] for row in rows] for rows in (one, two)), atol=5e-3)
    assert "label" in one[0]


STRETCH = np.ones((2, 20, 2))
PIXELS = np.arange(2 * 6 * 6 * 3, dtype=np.uint8).reshape(2, 6, 6, 3)


def test_predict_takes_pixels_of_any_dtype(place):
    answers = []
    for dtype in (np.uint8, np.int64, ">i4", np.float32, ">f8"):
        path = arrays(place / "pixels.npz", x=PIXELS.astype(dtype))
        result = call("predict", "pets", path, "--output-dir", place / "runs", "--json", "-")
        answers.append([row["probabilities"] for row in json.loads(result.stdout)])
    assert all(answer == answers[0] for answer in answers)


def test_predict_refuses_what_is_of_another_kind(place, tmp_path):
    for name, path, words in (
        ("points", place / "rec.csv", "is a recording, and own-points has none"),
        ("points", arrays(tmp_path / "w.npz", x=X[:, :2]), "the model takes [N, 3]"),
        ("points", arrays(tmp_path / "n.npz", x=np.full((2, 3), np.nan)), "is nan"),
        ("points", place / "pets" / "cats" / "1.png", "no pictures"),
        ("rec", arrays(tmp_path / "r.npz", x=X), "entry y is missing"),
        ("rec", arrays(tmp_path / "s.npz", x=STRETCH, y=STRETCH.astype(str)), "entry y is missing, empty or"),
        ("rec", arrays(tmp_path / "c.npz", x=STRETCH * 1j, y=STRETCH), "entry x is missing, empty or"),
        ("pets", arrays(tmp_path / "f.npz", x=PIXELS / 255), "whole numbers 0 … 255"),
        ("pets", arrays(tmp_path / "u.npz", x=PIXELS.astype(np.uint16) * 257), "whole numbers 0 … 255"),
    ):
        result = call("predict", name, path, "--output-dir", place / "runs")
        assert result.exit_code == 2, result.output
        assert words in plain(result.stderr)


# Export, save, resume, sweep


@pytest.mark.parametrize("name", ["pets", "field", "model"])
def test_runs_on_ones_own_are_exported(place, name, tmp_path):
    result = call(
        "export", name, "--output-dir", place / "runs", "--output", tmp_path / "m.pt2", "--steps", 2
    )
    assert result.exit_code == 0, result.output
    assert torch.export.load(tmp_path / "m.pt2") is not None


def test_a_run_is_saved_with_its_card_and_loaded_without_unpickling(place, tmp_path):
    run = ("export", "points", "--output-dir", place / "runs", "--format", "safetensors")
    assert call(*run, "--output", tmp_path / "m").exit_code == 0
    told = adamode.models.card(tmp_path / "m")
    assert (told["seed"], told["data"]["labels"]) == (0, ["0", "1"])
    assert told["evaluations"]["nfe_forward"] > 0
    assert "test_accuracy" in told["test"]
    loaded = load_run(place / "runs" / "points")
    x = torch.rand(3, 3)
    assert torch.equal(adamode.load(tmp_path / "m")(x), loaded.model(x))
    run = ("export", "field", "--output-dir", place / "runs", "--format", "safetensors")
    assert call(*run, "--output", tmp_path / "f").exit_code == 0
    again = adamode.load(tmp_path / "f", field=Net(2, 2))
    assert torch.equal(again(x[:, :2]), load_run(place / "runs" / "field").model(x[:, :2]))


def test_an_exported_program_runs_in_onnxruntime(place, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    import onnxruntime

    run = ("export", "points", "--output-dir", place / "runs", "--format", "onnx", "--steps", 3)
    result = call(*run, "--output", tmp_path / "m.onnx", "--json", tmp_path / "told.json")
    assert result.exit_code == 0, result.output
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    fixed = with_fixed_steps(load_run(place / "runs" / "points").model, 3)
    for n in (1, 5):
        x = torch.rand(n, 3)
        got = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
        assert np.allclose(got, fixed(x).detach(), atol=1e-5)
    assert json.loads((tmp_path / "told.json").read_text())["reloaded"] < 1e-5


def test_a_missing_package_of_onnx_is_named(place, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    run = ("export", "points", "--output-dir", place / "runs", "--format", "onnx")
    result = call(*run, "--output", tmp_path / "m.onnx")
    assert result.exit_code == 2
    assert "pip install onnx onnxscript onnxruntime" in plain(result.stderr)


def test_a_builder_of_ones_own_goes_on_and_is_swept(tmp_path):
    settings = ("--dataset", "circles", "--batch-size", 500, "--schedule", "constant")
    train(tmp_path, "--model", "own_code:small", *settings)
    longer = ("--epochs", 2, "--resume", "--quiet", "--output-dir", tmp_path)
    assert call("train", "--model", "own_code:small", *settings, *longer).exit_code == 0
    rows = (tmp_path / "small-circles" / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == 3
    sweep = (
        "sweep",
        "--models",
        "own_code:small,node",
        "--seeds",
        "0-1",
        "--dry-run",
        "--output-dir",
        tmp_path,
    )
    result = call(*sweep, "--dataset", "circles")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("new ") == 4


# Builders from Python


def test_a_run_of_a_function_given_in_python_is_known_by_its_name(tmp_path):
    config = TrainConfig(epochs=1, output_dir=str(tmp_path), name="a", train_size=100)
    Trainer(config, build=flat, quiet=True).fit()
    assert TrainConfig.from_toml(tmp_path / "a" / "config.toml").build == "own_code:flat"
    assert call("evaluate", tmp_path / "a").exit_code == 0
    assert call("export", tmp_path / "a", "--output", tmp_path / "m.pt2").exit_code == 0


def test_a_function_made_inside_another_is_told_so_and_taken_from_python(tmp_path):
    def build(config):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    config = TrainConfig(epochs=1, output_dir=str(tmp_path), name="a", train_size=100)
    Trainer(config, build=build, quiet=True).fit()
    result = call("evaluate", tmp_path / "a")
    assert result.exit_code == 2
    assert "a function that was made inside another" in plain(result.stderr)
    assert "load_run(folder, build=…)" in plain(result.stderr)
    run = load_run(tmp_path / "a", build=build)
    assert judge(run, load_data("digits")).samples == 359


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("own_code:", "must be package.module:function"),
        (":flat", "must be package.module:function"),
        ("no_such_module:f", "cannot be imported .ModuleNotFoundError"),
        ("own_code:flatt", "has no 'flatt': did you mean 'flat'"),
        ("own_code:number", "is a int, which cannot be called"),
    ],
)
def test_what_cannot_be_taken_by_name_is_refused(text, message, tmp_path):
    with pytest.raises(ArgumentError, match=f"model='{text}'.*{message}|model='{text}'.*{message}"):
        resolve(text, "model")
    for option in ("--model", "--field"):
        if ":" in text and text != ":flat":
            result = call("train", option, text, "--output-dir", tmp_path / "runs", "--name", "x")
            assert result.exit_code == 2, result.output
    assert list(tmp_path.iterdir()) == []


def test_what_returns_no_module_or_does_not_fit_is_refused(tmp_path):
    for arguments, words in (
        (("--model", "own_code:nothing"), "returned a int; a builder takes the configuration"),
        (("--field", "own_code:nothing"), "returned a int; it must return an nn.Module f(t, h)"),
        (("--model", "own_code:a_pair", "--dataset", "circles"), "output is a tuple; a tensor is needed"),
        (("--model", "own_code:one_number", "--dataset", "circles"), "number for each of them, [64, 2]"),
        (("--field", "own_code:of_three"), "needs 3 arguments; it is called with at most two"),
        (("--field", "own_code:Net", "--match-parameters", 500), "field=… is your own"),
        (("--data", arrays(tmp_path / "s.npz", x=np.ones((40, 2, 3, 5)), y=Y)), "give a builder of your own"),
    ):
        result = call("train", *arguments, "--output-dir", tmp_path / "runs", "--name", "x")
        assert result.exit_code == 2, result.output
        assert words in plain(result.stderr)
    assert not (tmp_path / "runs").exists()


def test_a_module_that_fails_when_imported_is_said_with_its_error(tmp_path, monkeypatch):
    (tmp_path / "breaks_when_imported.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError, match="ZeroDivisionError: division by zero"):
        resolve("breaks_when_imported:f", "model")
    (tmp_path / "lies_here.py").write_text("def f(config):\n    return config\n")
    assert resolve("lies_here:f", "model")(3) == 3  # the current folder is searched


def test_names_of_functions_lead_back_to_them():
    assert name_of(flat) == "own_code:flat"
    assert resolve(name_of(flat), "build") is flat
    assert "<lambda>" in name_of(lambda config: None)
    import functools

    assert "<" in name_of(functools.partial(flat))


# Fields in every model


@pytest.mark.parametrize("task", ["digits", "circles", "silverbox-network", "robertson"])
@pytest.mark.parametrize("name", FIVE)
def test_a_field_of_ones_own_goes_into_every_model_and_gets_its_gradients(name, task):
    make = own_field("own_code:ConvNet" if task == "digits" else "own_code:Net")
    settings = {"method": "dopri5", "gradient": adamode.Direct()} if task == "robertson" else {}
    torch.manual_seed(0)
    model = create(name, task, field=make, **settings).double()
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    if task == "circles":
        x = torch.rand(2, 2, dtype=torch.float64)
    if task in ("silverbox-network", "robertson"):
        width = {"robertson": 4}.get(task, 3)
        x = torch.zeros(2, 6, width, dtype=torch.float64)
        x[:, :, 0] = torch.linspace(0, 1, 6)
        x[:, :1, 1:] = 1
    by_hand = torch.autograd.grad(model(x).square().sum(), own(model))
    settings["gradient"] = adamode.Direct()
    torch.manual_seed(0)
    direct = create(name, task, field=make, **settings).double()
    by_autograd = torch.autograd.grad(direct(x).square().sum(), own(direct))
    assert any(g.abs().max() > 0 for g in by_hand)
    for one, two in zip(by_hand, by_autograd, strict=True):
        assert torch.allclose(one, two, rtol=1e-9, atol=1e-11)


def own(model):
    (net,) = [m for m in model.modules() if isinstance(m, Net | ConvNet)]
    return list(net.parameters())


def test_a_function_of_time_is_the_field_itself():
    model = create("node", "circles", field=own_field("own_code:decay"))
    x = torch.rand(3, 2)
    h = model.block(x)
    assert torch.allclose(h, x * torch.e**-1, atol=1e-3)
    assert not list(model.block.parameters())


# Data from Python


def test_the_trainer_takes_data_made_in_python_goes_on_and_refuses_others(tmp_path):
    x, y = torch.from_numpy(X).float(), torch.from_numpy(Y)
    parts = ((x[:20], y[:20]), (x[20:30], y[20:30]), (x[30:], y[30:]))
    config = TrainConfig(model="node", epochs=1, schedule="constant", output_dir=str(tmp_path), name="a")
    trainer = Trainer(config, data=parts, quiet=True)
    result = trainer.fit()
    assert trainer.config.sizes == "features=3,classes=2"
    longer = TrainConfig(model="node", epochs=2, schedule="constant", output_dir=str(tmp_path), name="a")
    assert Trainer(longer, data=parts, quiet=True).fit(resume=True).trained
    other = ((x[:20] + 1, y[:20]), *parts[1:])
    with pytest.raises(CheckpointError, match="made with other data"):
        Trainer(longer, data=other, quiet=True).fit()
    found = judge(load_run(tmp_path / "a"), as_data_set(parts))
    assert (found.samples, result.parameters) == (10, found.parameters)
    told = call("evaluate", tmp_path / "a")
    assert told.exit_code == 2
    assert "these data were given in Python" in plain(told.stderr)


# Every model on every data set


HEAVY = ("mnist", "cifar10", "silverbox-paper")  # some tenths to two seconds of a processor a step
OFTEN = ("sonode", "silverbox-paper")  # whose loss was infinite
CASES = [
    pytest.param(
        name,
        dataset,
        marks=[pytest.mark.slow] if dataset in HEAVY and (name, dataset) != OFTEN else [],
    )
    for dataset in DATASETS
    for name in adamode.models.names()
    if model_task(dataset) in adamode.models.tasks(name)
]
LOADED = {}


@pytest.mark.parametrize(("name", "dataset"), CASES)
def test_every_model_starts_on_every_data_set_with_its_defaults(name, dataset, tmp_path, monkeypatch):
    """A whole optimiser step of a run, after its rehearsal."""
    config = TrainConfig(model=name, dataset=dataset, epochs=1, batch_size=4, output_dir=str(tmp_path))
    try:
        data = LOADED.setdefault(dataset, LOADED.get(dataset) or load_data(dataset, config.data_options()))
    except MissingDataError as error:
        pytest.skip(f"no files: {error}")
    steps = []

    class Stopped(Exception):
        pass

    def stop(self):
        steps.append([p.grad for p in self.param_groups[0]["params"]])
        raise Stopped

    monkeypatch.setattr("torch.optim.Adam.step", stop)
    with pytest.raises(Stopped):
        Trainer(config, data=data, quiet=True).fit()
    assert all(torch.isfinite(g).all() for g in steps[0] if g is not None)


def test_a_start_that_explodes_is_found_before_a_folder_is_made(tmp_path, monkeypatch):
    """A second-order model whose state grows beyond what a square of float32 holds in 1,000 rows."""
    grows = create("sonode", "silverbox")
    with torch.no_grad():
        for p in grows.block.parameters():
            p.fill_(0.005)  # e^73, whose square float32 does not hold
    rows = torch.zeros(1, 1000, 3)
    rows[:, :, 0], rows[:, 0, 1:] = 1, 1
    parts = ((rows, torch.zeros(1, 999, 1)),) * 3
    config = TrainConfig(model="sonode", dataset="silverbox-paper", output_dir=str(tmp_path))
    with pytest.raises(TrainingError, match=r"first batch: the loss is (inf|nan).*Nothing was written"):
        Trainer(config, data=parts, build=lambda c: grows, quiet=True).fit()
    assert list(tmp_path.iterdir()) == []
