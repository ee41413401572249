"""Scales of state and field: what they leave as it is, what they change, and how they are asked for."""

import json

import pytest
import torch

from adamode import NODE, ArgumentError, ArgumentTypeError, Direct, Discrete, TrainConfig, models
from adamode.models.export import with_fixed_steps
from adamode.models.fields import MLP, Conv, Linear, Scaled, Total
from adamode.models.fields.own import OwnField
from adamode.train.build import build_model
from adamode.train.data import DataOptions, load_data
from adamode.verify.zoo import Instance, Variant
from benchmarks import scales, search, table
from benchmarks.search import SPACES, trials

U = 5.0
TASKS = {"digits": (2, 1, 8, 8), "spiral": (3, 2)}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", ["node", "anode", "sonode", "hbnode"])
def test_a_model_that_is_linear_in_scale_is_the_same_in_another_unit(name, task):
    plain = models.create(name, task, state_unit=1.0, field_scale=1.0, field_gain=1.0)
    settings = {"state_unit": U, "field_scale": U, "field_gain": 1 / U, "atol": plain.block.settings.atol / U}
    other = models.create(name, task, **settings)
    weights = {k.replace("field.", "field.inner.", 1): v for k, v in plain.state_dict().items()}
    for key in weights:  # numbers in units of the state: HBNODE's m0
        if key.startswith("start."):
            weights[key] = weights[key] / U
    other.load_state_dict(weights)
    x = torch.randn(TASKS[task])
    torch.testing.assert_close(other(x), plain(x), rtol=1e-10, atol=1e-12)
    assert other.last_stats.nfe == plain.last_stats.nfe


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("task", ["digits", "spiral", "robertson", "silverbox-network"])
@pytest.mark.parametrize("name", models.names())
def test_every_model_of_every_kind_takes_the_scales_and_learns_with_them(name, task):
    model = models.create(name, task, state_unit=2.0, field_scale=3.0, field_gain=0.5)
    rows = torch.zeros(2, 5, 4)
    rows[:, 1:, 0], rows[:, 0, 1] = torch.logspace(-9, 0, 4), 1.0
    series = torch.randn(2, 12, 3)
    series[:, :, 2], series[:, 10:, 1] = 0, 0
    series[:, :10, 2] = 1
    x = {"robertson": rows, "silverbox-network": series, "digits": torch.randn(2, 1, 8, 8)}.get(task)
    output = model(torch.randn(2, 2) if x is None else x)
    learnt = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(output.square().sum(), learnt)
    assert all(g.isfinite().all() for g in found)
    field = model.block.field
    inner = field if isinstance(field, Scaled) else field.inner
    assert (inner.scale, inner.gain) == (3.0, 0.5)


def test_without_scales_parameters_keep_their_names():
    assert "block.dynamics.field.layers.0.weight" in models.create("node", "spiral").state_dict()


def test_a_scaled_field_keeps_what_its_inner_one_says_of_itself():
    field = Scaled(Conv(2, 3), scale=2.0, gain=0.5)
    assert (field.channels_in, field.channels_out, field.channels_last) == (2, 2, True)
    assert Scaled(Total(Linear(2)), scale=2.0).linearised is None  # a sum has none
    f, slopes = Scaled(MLP(2, (3,)), scale=2.0, gain=0.5).linearised(torch.tensor(0.0), torch.zeros(1, 2))
    plain, of_inner = MLP(2, (3,)).linearised(torch.tensor(0.0), torch.zeros(1, 2))
    assert (f.shape, slopes.shape) == (plain.shape, of_inner.shape)


@pytest.mark.usefixtures("float64")
def test_a_scaled_fields_jacobian_is_autograds():
    field, h = Scaled(MLP(3, (4,)), scale=2.5, gain=0.3), torch.randn(1, 3)
    found = field.linearised(torch.tensor(0.2), h)[1][0]
    expected = torch.autograd.functional.jacobian(lambda x: field(torch.tensor(0.2), x[None])[0], h[0])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Scaled(torch.nn.Linear(2, 2)), ArgumentTypeError, "Linear"),
        (lambda: Scaled(Linear(2), scale=0.0), ArgumentError, "scale=0.0"),
        (lambda: Scaled(Linear(2), gain=float("inf")), ArgumentError, "gain=inf"),
        (lambda: models.create("node", "spiral", state_unit=-1.0), ArgumentError, "state_unit=-1.0"),
        (lambda: TrainConfig(state_unit=0.0), ArgumentError, "state_unit=0"),
        (lambda: TrainConfig(field_gain="1"), ArgumentTypeError, "field_gain='1'"),
        (lambda: TrainConfig(model="node", alpha=0.5), ArgumentError, "node on digits has no alpha"),
        (lambda: TrainConfig(model="adamnode", gamma=0.5), ArgumentError, "adamnode on digits has no gamma"),
        (lambda: TrainConfig(dataset="moons", field_gain=2.0), ArgumentError, "moons has no field_gain"),
        (lambda: TrainConfig(beta=-0.5), ArgumentError, "beta=-0.5"),
        (lambda: build_model(TrainConfig(alpha=1.5)), ArgumentError, "alpha=1.5"),
    ],
)
def test_scales_and_rates_that_mean_nothing_are_refused(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_a_configuration_has_the_registered_scales_and_rates_and_builds_with_its_own():
    config = TrainConfig(model="adamnode", dataset="silverbox")
    preset = models.defaults("adamnode", "silverbox-network")
    names = ("state_unit", "field_scale", "field_gain", "alpha", "beta", "atol")
    assert {n: getattr(config, n) for n in names} == {n: preset[n] for n in names}
    assert TrainConfig(model="node").alpha == TrainConfig(model="node").gamma == 0
    own = {"state_unit": 7.0, "field_scale": 2.0, "field_gain": 3.0, "gamma": 0.3}
    model = build_model(TrainConfig(model="hbnode", dataset="silverbox", **own))
    assert (model.state_unit, model.block.field.inner.scale, model.block.field.inner.gain) == (7.0, 2.0, 3.0)
    assert model.block.gamma.item() == pytest.approx(0.3)


def test_pixels_are_the_data_sets_own_and_a_run_from_before_has_the_pixels_that_it_had():
    assert TrainConfig().normalise == "standard"
    assert TrainConfig(dataset="mnist").normalise == TrainConfig(dataset="cifar10").normalise == "unit"
    assert TrainConfig(dataset="mnist", normalise="").normalise == "standard"
    assert (
        TrainConfig(dataset="circles").normalise
        == TrainConfig(dataset="circles", normalise="").normalise
        == ""
    )
    assert "pixels with mean 0 and variance 1 over the training images" in load_data("digits").card.note
    assert "pixels in [0, 1]" in load_data("digits", DataOptions(normalise="unit")).card.note


def test_adamode_with_a_small_f_is_a_heavy_ball_and_with_a_large_one_is_not():
    t, expected = scales.heavy_ball(scales.DAMPING)
    rows, small = scales.swing(scales.DAMPING, 0.05)
    _, large = scales.swing(scales.DAMPING, 4.0)
    assert torch.equal(rows[::5], t)
    assert (small[::5] - expected).abs().max() < 0.01  # f² ≤ .0025 changes D by .1 %, over 7 swings
    assert (large[::5] - expected).abs().max() > 0.5


@pytest.mark.parametrize("dataset", ["silverbox", "digits"])
def test_a_search_gives_all_models_as_many_trials_with_the_same_units_and_gains(dataset):
    space = SPACES[dataset]
    found = {model: list(trials(model, space, 4)) for model in models.names()}
    assert {len(own) for own in found.values()} == {4}
    assert all(own[0] == {} for own in found.values())
    state = {model: models.defaults(model, space.task)["state_unit"] for model in found}
    for trial in range(1, 4):
        units = [state[m] / own[trial]["field_scale"] for m, own in found.items()]
        assert units == pytest.approx([units[0]] * len(units), rel=0.01)  # three digits are kept
        assert TrainConfig(model="adamnode", dataset=dataset, **found["adamnode"][trial])
    assert "gamma" in found["hbnode"][1]
    assert "gamma" not in found["sonode"][1]


def test_a_search_goes_on_where_it_stopped_and_tells_the_best(tmp_path, monkeypatch):
    record, seen = tmp_path / "search.jsonl", []

    def validation(config, judge):
        seen.append((config.model, config.field_gain, judge))
        return [3.0, 2.0 + len(seen)]

    monkeypatch.setattr(search, "validation", validation)
    search.search(["node"], record, n=1, epochs=2, dataset="silverbox-simulated")
    search.search(["node", "hbnode"], record, n=2, epochs=2, dataset="silverbox-simulated")
    assert len(seen) == 4
    assert {judge for _, _, judge in seen} == {"val_rmse"}
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    assert [(row["model"], row["trial"]) for row in rows] == [
        ("node", 0),
        ("hbnode", 0),
        ("node", 1),
        ("hbnode", 1),
    ]
    assert "| node | 3 | 3 | 0 | registered |" in search.best(record, "val_rmse")


@pytest.mark.parametrize("judge", ["val_rmse", "val_loss"])
def test_a_trial_ends_before_the_test_is_read(monkeypatch, tmp_path, judge):
    class Training:
        def __init__(self, config, *, on_epoch, quiet):
            self.config, self.on_epoch = config, on_epoch

        def fit(self):
            for i in range(self.config.epochs):
                self.on_epoch(type("Record", (), {"row": {judge: 5.0 - i}}))
            raise AssertionError("the test would be read now")

    monkeypatch.setattr(search, "Trainer", Training)
    config = TrainConfig(dataset="silverbox-simulated", epochs=2, output_dir=str(tmp_path))
    assert search.validation(config, judge) == [5.0, 4.0]


def test_wilsons_interval_is_the_one_of_the_quadratic():
    # The ends are the shares p that lie 1.96 standard deviations of p from the share that was seen.
    for share, n in ((0.97, 359), (0.5, 10), (0.05, 20)):
        for end in table.wilson(share, n):
            assert abs(share - end) == pytest.approx(table.Z95 * (end * (1 - end) / n) ** 0.5, abs=1e-9)


def a_run(folder, model, seed, accuracy, *, dataset="digits", finished=True):
    place = folder / f"{model}-{dataset}-{seed}"
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps({"model": model, "seed": seed, "dataset": dataset}))
    epoch = {"seconds": 2.0, "nfe_forward": 26.0, "nfe_backward": 24.0, "train_loss": 1.0}
    end = {"final": True, "test_accuracy": accuracy, "parameters": 10}
    end |= {"efficacy_forward": accuracy / 26, "efficacy_backward": accuracy / 24}
    rows = [epoch, {**epoch, "train_loss": 0.5}, *([end] if finished else [])]
    (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_table_has_the_finished_runs_by_model_and_seed_and_says_who_leads(tmp_path):
    for seed, (node, adamnode) in enumerate([(0.9, 0.8), (0.7, 0.8), (0.8, 0.8)]):
        a_run(tmp_path / "a", "node", seed, node)
        a_run(tmp_path / "b", "adamnode", seed, adamnode, finished=seed < 2)
    a_run(tmp_path / "a", "node", 0, 0.1, dataset="circles")
    told = table.table([tmp_path / "a", tmp_path / "b"], images=100, dataset="digits")
    assert (
        "| node | 10 | 1.00 → 0.50 | 80.0 (90.0, 70.0, 80.0) | 55.2 – 104.8 | 71.1 – 86.7 | 26.0 / 24.0 |"
        in told
    )
    assert "test_accuracy is highest, of 2 seeds: node 1, adamnode 1" in told  # the third seed has one model


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["node", "adamnode"])
def test_a_gradient_through_a_scaled_field_is_the_one_through_the_steps(name):
    variant = Variant(name, "softplus" if name == "adamnode" else None)
    _, problem = Instance(variant, field="scaled").problem(
        rtol=1e-6, atol=1e-6, method="dopri5", stepping="shared"
    )
    found, expected = problem.gradient(Discrete()), problem.gradient(Direct())
    for ours, value in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, value, rtol=1e-9, atol=1e-12)


class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.learnt, self.frozen = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2).requires_grad_(False)

    def forward(self, t, h):
        return self.frozen(torch.tanh(self.learnt(h)))


@pytest.mark.usefixtures("float64")
def test_a_field_of_ones_own_with_frozen_parameters_may_be_scaled():
    own, h0 = Own().double(), torch.randn(3, 2)
    found = []
    for gradient in (Discrete(), Direct()):
        field = Scaled(OwnField(own, 2, 2), scale=2.0, gain=0.5)
        block = NODE(field, rtol=1e-6, atol=1e-6, gradient=gradient)
        found.append(torch.autograd.grad(block(h0).square().sum(), list(own.learnt.parameters())))
    for ours, value in zip(*found, strict=True):
        torch.testing.assert_close(ours, value, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_a_model_with_fixed_steps_keeps_its_unit():
    model = models.create("hbnode", "digits", state_unit=3.0, rtol=1e-8, atol=1e-9)
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(with_fixed_steps(model, 40)(x), model(x), rtol=1e-3, atol=1e-5)
