"""Densities in training: nats and bits counted rightly, runs that repeat and resume, samples, refusals."""

import json
import math

import numpy as np
import pytest
import torch
from torch.distributions import Distribution, Independent, SigmoidTransform, TransformedDistribution, Uniform
from typer.testing import CliRunner

import adamode
from adamode import AdamodeWarning, ArgumentError, TrainConfig, Trainer, models
from adamode.cli.app import app
from adamode.models.density_model import DensityModel, NormalMomenta
from adamode.models.export import with_fixed_steps
from adamode.models.fields import MLP
from adamode.train.data import DATASETS, DataOptions, load_data, plane
from adamode.train.distributed import Ranks
from adamode.train.evaluation import evaluate, judge, load_data_of, load_run
from adamode.train.listing import list_runs
from adamode.train.measures import merit
from adamode.train.objective import Objective
from adamode.train.samples import draw_samples
from adamode.train.step import SamplesFailed

D = torch.float64
runner = CliRunner()
SMALL = {"train_size": 64, "test_size": 20, "hidden": 6, "epochs": 2, "batch_size": 32, "rtol": 1e-3}
MOMENTA = ("sonode", "hbnode", "ghbnode", "adamnode", "nesterovnode", "gnesterovnode", "momentumnode")


def call(*arguments):
    return runner.invoke(app, [str(a) for a in arguments])


def fit(folder, resume=False, on_epoch=None, **settings):
    chosen = {"dataset": "digits-density", "model": "hbnode", "name": "run", **SMALL, **settings}
    config = TrainConfig(output_dir=str(folder), **chosen)
    trainer = Trainer(config, quiet=True, on_epoch=on_epoch)
    return trainer.fit(resume=resume)


@pytest.fixture
def few_points(monkeypatch):
    """Points of the plane, but few."""
    monkeypatch.setattr(plane, "COUNTS", {"train": 128, "validation": 32, "test": 64})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with momenta and one without."""
    folder = tmp_path_factory.mktemp("runs")
    fit(folder)
    fit(folder, model="node", name="node")
    return folder


def still(dim, dtype=D, **flow):
    """A flow that moves nothing."""
    field = MLP(dim, (3,)).to(dtype)
    with torch.no_grad():
        for p in field.parameters():
            p.zero_()
    return adamode.Flow(adamode.NODE(field), **flow)


def passed(model, data, part="test"):
    """(loss, quality) of a pass."""
    objective = Objective.of(data)
    passes = list(
        evaluate(model, getattr(data, part), objective, batch_size=50, ranks=Ranks(), dtype=torch.float64)
    )
    return passes[-1].mean("loss"), objective.measure(passes[-1])


def test_grey_noise_has_as_many_bits_as_its_levels():
    """x is a logit of something uniform, so under that base v + u is uniform on [0, 17)⁶⁴, whatever the
    images: 64 log 17 nats, and log2 17 bits per dimension."""
    data = load_data("digits-density", DataOptions(train_size=20, test_size=30))
    margin = torch.tensor(data.pixels.margin, dtype=D)
    uniform = Uniform(margin.expand(64), (1 - margin).expand(64), validate_args=False)
    base = Independent(TransformedDistribution(uniform, [SigmoidTransform().inv]), 1)
    loss, bits = passed(DensityModel(still(64, base=base), (1, 8, 8)), data)
    # float32 inputs and 4.3 the slope of log σ'
    assert loss == pytest.approx(64 * math.log(17), rel=1e-6)
    assert bits == pytest.approx(math.log2(17), rel=1e-6)


def test_nats_of_points_under_a_normal_density_are_in_closed_form():
    data = load_data("rings")
    loss, nats = passed(DensityModel(still(2), (2,)), data)
    expected = math.log(2 * math.pi) + data.test.inputs.double().square().sum(1).mean().item() / 2
    assert loss == nats == pytest.approx(expected, rel=1e-12)


def test_the_volume_of_the_preparation_is_what_makes_a_density_of_one_pixel_sum_to_one():
    pixels = load_data("digits-density").pixels
    w = ((torch.arange(20_000, dtype=D) + 0.5) / 20_000 * 17)[:, None]
    x, volume = pixels.encode(w)
    base = Uniform(-3.0, 3.0)  # of x in ± logit(0.95) = 2.944, all of what w can be
    total = (base.log_prob(x)[:, 0] + volume).exp().mean() * 17
    assert total.item() == pytest.approx(math.log(0.95 / 0.05) / 3.0, rel=1e-6)


@pytest.mark.parametrize("task", ["density", "density-8x8"])
@pytest.mark.parametrize("name", ["node", *MOMENTA])
def test_every_model_but_anode_is_a_density_and_every_parameter_learns(name, task):
    torch.manual_seed(0)
    model = models.create(name, task, hidden=5, draws=2)
    x = torch.randn(3, *model.shape)
    log_p = model(x)
    assert log_p.shape == (3,)
    log_p.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.last_stats.nfe > 6
    assert model.sample(2).shape == x[:2].shape
    assert model.exact == (name == "node")
    with pytest.raises(ArgumentError, match="for samples of"):
        model(x[..., :1])


def test_anode_has_no_density_and_the_error_says_what_has(tmp_path):
    for make in (
        lambda: models.create("anode", "density"),
        lambda: TrainConfig(model="anode", dataset="moons"),
    ):
        with pytest.raises(ArgumentError, match=r"appends zeros to x, which have no density.*take node"):
            make()
    assert "density" not in models.tasks("anode")
    assert "density" in models.tasks("node")
    assert [row.model for row in models.sizes("density")] == ["node", *MOMENTA]
    result = call("models", "--model", "anode", "--task", "density")
    assert result.exit_code == 2
    result = call("sweep", "--models", "all", "--dataset", "moons", "--output-dir", tmp_path)
    assert result.exit_code == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"denominator": "exact"}, "a flow must cover the whole space"),
        ({"block": "identity"}, "learns nothing"),
        ({"amp": "bf16"}, "leave amp out|Leave amp out"),
        ({"channels": 3}, "has no channels"),
    ],
)
def test_what_a_density_cannot_be_is_refused_before_anything_is_written(tmp_path, settings, words):
    with pytest.raises(ArgumentError, match=words):
        fit(tmp_path, model="adamnode", **settings)
    assert not list(tmp_path.iterdir())


def test_registered_densities_are_of_about_equal_size():
    for task in ("density", "density-8x8"):
        for row in models.sizes(task):
            assert abs(row.difference) < 0.02 * row.target, row


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.tensor([[0.0, 1.0], [2.0, math.nan]]), r"x holds nan at index \(1, 1\)"),
        (torch.zeros(0, 2), "at least one sample"),
        (torch.zeros(2, 2, dtype=torch.float64), "h0 has dtype torch.float64"),
    ],
)
@pytest.mark.parametrize("validated", [True, False])
def test_what_momenta_cannot_be_drawn_for_is_refused(x, words, validated, monkeypatch):
    monkeypatch.setattr(Distribution, "_validate_args", validated)
    model = models.create("hbnode", "density")
    with pytest.raises(ArgumentError, match=words):
        model(x)


def test_q_begins_as_the_standard_normal_and_training_takes_one_draw_where_evaluation_takes_many():
    x = torch.randn(4, 3, dtype=D)
    q = NormalMomenta(3, 2, 5).double()(x)
    assert (tuple(q.batch_shape), tuple(q.event_shape)) == ((4,), (2, 3))
    assert (q.mean == 0).all()
    assert (q.stddev == 1).all()
    model = models.create("hbnode", "density", hidden=5, draws=7).double()
    seen = []
    own = model.flow.log_prob
    model.flow.log_prob = lambda x, samples: seen.append(samples) or own(x, samples)
    x = torch.randn(4, 2, dtype=D)
    model.train()(x)
    model.eval()(x)
    assert seen == [1, 7]


def test_a_pass_repeats_and_leaves_the_random_numbers_of_training_alone(finished):
    run = load_run(finished / "run")
    data = load_data_of(run)
    before = torch.get_rng_state()
    one, two = judge(run, data), judge(run, data)
    assert one == two
    assert torch.equal(torch.get_rng_state(), before)
    (listed,) = list_runs(finished, ["run"])
    assert one.value == listed.final["test_bits_per_dim"]
    assert one.loss == pytest.approx(one.value * 64 * math.log(2), rel=1e-6)  # a mean in float32
    single, many = (judge(run, data, draws=k) for k in (1, 200))
    assert single.loss > one.loss > many.loss
    assert run.model.draws == 16
    result = call("evaluate", "run", "--output-dir", finished, "--draws", 200, "--json", "-")
    assert json.loads(result.stdout)["bits_per_dim"] == many.value
    result = call("evaluate", "node", "--output-dir", finished, "--draws", 2)
    assert result.exit_code == 2
    assert "has no momenta to draw" in " ".join(result.stderr.split())


def test_a_pass_with_a_clock_a_sample_counts_evaluations_a_sample_and_not_a_draw():
    model = models.create("hbnode", "density", hidden=5, draws=6, stepping="per_sample").eval()
    data = load_data("moons")
    x = data.test.inputs[:50]
    with torch.no_grad():
        model(x)
    rows = model.last_stats.nfe
    assert rows.shape == (300,)
    first = next(iter(evaluate(model, data.test, Objective.of(data), batch_size=50, ranks=Ranks())))
    assert rows.min() <= first.mean("nfe_forward") <= rows.max()


def test_the_best_epoch_is_the_one_with_the_lowest_nats(few_points, tmp_path):
    result = fit(tmp_path, model="node", dataset="moons", train_size=0, test_size=0, lr=0.1, epochs=3)
    rows = result.history
    best = min(rows, key=lambda row: row["val_nats"])
    assert result.best_epoch == best["epoch"]
    assert all(row["val_nats"] == pytest.approx(row["val_loss"], rel=1e-6) for row in rows)  # float32
    assert (result.test_accuracy, result.test_rmse, result.test_bits_per_dim) == (None, None, None)
    assert result.value == result.test_nats
    assert merit({"val_nats": -1.0, "val_loss": -1.0}) > merit({"val_nats": 2.0, "val_loss": 2.0})
    text = call("runs", "--output-dir", tmp_path).stdout
    assert f"{result.test_nats:.3f} nats" in text
    assert f"{best['val_nats']:.3f} nats" in text


class Stops(Exception):
    """Where a run is cut off."""


@pytest.mark.parametrize("model", ["node", "adamnode"])
def test_a_run_that_was_cut_off_goes_on_bit_for_bit(tmp_path, model, monkeypatch):
    """In the middle of the second epoch, with draws and noise."""
    settings = {"model": model, "checkpoint_every": 1, "epochs": 3}
    whole = fit(tmp_path / "whole", **settings)
    own, calls = DensityModel.forward, []

    def stopping(self, x):
        calls.append(self.training)
        if sum(calls) == 5:  # one is the rehearsal, two an epoch
            raise Stops
        return own(self, x)

    monkeypatch.setattr(DensityModel, "forward", stopping)
    with pytest.raises(Stops):
        fit(tmp_path / "cut", **settings)
    monkeypatch.setattr(DensityModel, "forward", own)
    torch.manual_seed(5)
    resumed = fit(tmp_path / "cut", resume=True, **settings)
    times = ("seconds", "peak_memory_mib")
    for one, other in zip(whole.history, resumed.history, strict=True):
        assert {k: v for k, v in one.items() if k not in times} == {
            k: v for k, v in other.items() if k not in times
        }
    assert whole.test_bits_per_dim == resumed.test_bits_per_dim
    assert len({row["train_loss"] for row in whole.history}) == 3


@pytest.mark.parametrize("model", ["node", "hbnode"])
def test_penalties_of_the_solver_go_with_densities(tmp_path, model):
    text = "kinetic=0.1,jacobian=0.1,error=1.0" if model == "node" else "kinetic=0.1,error=1.0"
    result = fit(tmp_path, model=model, regularise=text, epochs=1)
    assert result.history[0]["train_penalty"] > 0


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
def test_penalties_of_a_log_density_are_of_the_field_alone(stepping):
    torch.manual_seed(0)
    field, x, t = MLP(2, (8, 8)).double(), torch.randn(5, 2, dtype=D), torch.tensor([1.0, 0.0])

    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.field = field

        def forward(self, t, y):
            return self.field(t, y)

    options = {"rtol": 1e-8, "atol": 1e-8, "stepping": stepping, "penalties": ("kinetic", "jacobian")}
    found = []
    for func, y0 in ((adamode.LogDensity(field), (x, x.new_zeros(5))), (Plain(), x)):
        torch.manual_seed(1)  # of the jacobian's probe
        sol = adamode.solve(func, y0, t, **options)
        told = [sol.penalty(name) for name in options["penalties"]]
        bars = torch.autograd.grad(sum(p.sum() for p in told), list(field.parameters()), allow_unused=True)
        found.append([*told, *(b for b in bars if b is not None)])
    for one, other in zip(*found, strict=True):  # two solves with other steps, each to 1e-8
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def test_draws_are_of_the_seed_in_the_datas_units_and_torch_goes_on_as_it_was(finished):
    run = load_run(finished / "run")
    pixels = DATASETS["digits-density"].pixels
    before = torch.get_rng_state()
    one, two, three = (draw_samples(run.model, 5, pixels=pixels, seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, two)
    assert not torch.equal(one, three)
    low, high = -17 * 0.05 / 0.9, 17 * 0.95 / 0.9
    assert low < one.min() < one.max() < high
    torch.manual_seed(0)
    assert torch.equal(one, pixels.decode(run.model.sample(5)))


def test_predict_writes_samples(finished, tmp_path):
    for name in ("a.npz", "b.csv"):
        arguments = ("--samples", 4, "--seed", 3, "--output", tmp_path / name, "--output-dir", finished)
        result = call("predict", "run", *arguments)
        assert result.exit_code == 0, result.stderr
        assert "4 samples of shape (1, 8, 8)" in result.stdout
    run = load_run(finished / "run")
    drawn = draw_samples(run.model, 4, pixels=DATASETS["digits-density"].pixels, seed=3).numpy()
    assert np.array_equal(np.load(tmp_path / "a.npz")["samples"], drawn)
    lines = (tmp_path / "b.csv").read_text().splitlines()
    assert lines[0].split(",")[::63] == ["x1", "x64"]
    rows = np.array([line.split(",") for line in lines[1:]], dtype=np.float32)
    assert np.array_equal(rows, drawn.reshape(4, 64))
    result = call("predict", finished / "node", "--samples", 2)
    assert result.exit_code == 0
    assert (finished / "node" / "samples.npz").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give files, or --samples N"),
        (["a.png", "--samples", "3"], "one of the two"),
        (["--samples", "3", "--output", "a.txt"], "must end in .npz or .csv"),
        (["--samples", "3", "--output", "no/such/a.csv"], "folder that exists"),
        (["a.png", "--output", "a.csv"], "is a density"),
        (["a.png", "--output", "a.txt"], "must end in .npz or .csv"),  # before anything is read
        (["a.png"], "is a density"),
    ],
)
def test_predict_refuses_what_means_nothing(finished, arguments, words):
    result = call("predict", "run", *arguments, "--output-dir", finished)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())


def test_samples_of_a_run_that_is_no_density_are_refused(tmp_path):
    settings = {"train_size": 20, "test_size": 20, "epochs": 1, "hidden": 2, "channels": 4}
    Trainer(TrainConfig(output_dir=str(tmp_path), name="run", **settings), quiet=True).fit()
    result = call("predict", tmp_path / "run", "--samples", 3)
    assert result.exit_code == 2
    text = " ".join(result.stderr.split())
    assert "gives answers, not samples; train a density, on one of moons, checkerboard, rings" in text


def test_a_density_is_not_exported(finished):
    result = call("export", "run", "--output-dir", finished)
    assert result.exit_code == 2
    assert "a density is not exported" in " ".join(result.stderr.split())
    with pytest.raises(ArgumentError, match="sample"):
        with_fixed_steps(models.create("node", "density"), 2)


def test_samples_are_drawn_as_a_picture_after_each_epoch(few_points, tmp_path, monkeypatch):
    from adamode import sample_pictures

    titles, own = [], sample_pictures.draw_samples_beside
    monkeypatch.setattr(
        sample_pictures,
        "draw_samples_beside",
        lambda path, data, drawn, title: titles.append(title) or own(path, data, drawn, title),
    )
    monkeypatch.setattr(sample_pictures, "POINTS", 50)
    place = ("--output-dir", tmp_path, "--name", "run", "--hidden", 6)
    result = call("train", "--model", "node", "--dataset", "moons", "--epochs", 2, *place)
    assert result.exit_code == 0, result.output
    best = load_run(tmp_path / "run").epoch
    assert [title.split(": ")[1] for title in titles] == [
        "samples after epoch 1",
        "samples after epoch 2",
        f"samples of the best weights, epoch {best}",
    ]
    picture = tmp_path / "run" / "plots" / "samples.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert str(picture) in result.stdout
    assert "nats" in result.stdout
    assert sorted(path.name for path in picture.parent.iterdir()) == ["samples.png", "training.png"]


def test_a_flow_that_cannot_be_drawn_from_has_no_picture_and_training_goes_on(tmp_path, monkeypatch):
    def fails(self, n):
        raise SamplesFailed("not today")

    monkeypatch.setattr(DensityModel, "sample", fails)
    place = ("--output-dir", tmp_path, "--name", "run", "--dataset", "digits-density", "--epochs", 1)
    result = call("train", "--model", "node", *place, "--train-size", 32, "--test-size", 20, "--hidden", 4)
    assert result.exit_code == 0, result.output
    assert "no picture of samples after epoch 1: not today" in result.stdout
    assert not (tmp_path / "run" / "plots" / "samples.png").exists()
    result = call("predict", tmp_path / "run", "--samples", 2)
    assert result.exit_code != 0
    assert "not today" in result.stderr


def test_a_density_by_a_trace_says_that_it_is_not_compiled():
    with pytest.warns(AdamodeWarning, match="compile=True does nothing here: a density by a trace"):
        model = models.create("node", "density", compile=True)
    assert not model.block.settings.compile
    assert models.create("hbnode", "density", compile=True).block.settings.compile
