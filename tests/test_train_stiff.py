"""Training with implicit methods, and a stiff system learnt from data."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from test_train_resume import assert_equal_bit_for_bit

from adamode import ArgumentError, ArgumentTypeError, TrainConfig, Trainer, models
from adamode.models.export import with_fixed_steps
from adamode.models.fields import MLP, Linear, Relaxing
from adamode.solvers.methods import IMPLICIT
from adamode.train.build import build_model
from adamode.train.data import load_data
from adamode.train.data.robertson import PARTS, SHARES, UNIT, reaction
from adamode.train.evaluation import judge, load_data_of, load_run
from adamode.train.step import Objective, descend

D = torch.float64


@pytest.fixture(scope="module")
def data():
    return load_data("robertson")


def gradients(data, **settings):
    config = TrainConfig(**{"dataset": "circles", "dtype": "float64", "rtol": 1e-6, "atol": 1e-6, **settings})
    torch.manual_seed(0)
    model = build_model(config).to(D)
    x, y = data.train.__getitems__(list(range(3)))
    descend(model, x.to(D), y, Objective.of(data), total=3, parts=1, amp="off")
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
@pytest.mark.parametrize("method", IMPLICIT)
def test_a_training_step_by_an_implicit_method_has_an_explicit_ones_gradient(method, stepping):
    data = load_data("circles")
    found = gradients(data, model="hbnode", method=method, stepping=stepping)
    want = gradients(data, model="hbnode", method="dopri5")
    # both solve to 1e-6, in a unit interval of a field of about unit size
    assert (found - want).abs().max() < 1e-4 * want.abs().max()


def test_the_data_are_robertsons_by_another_solver_and_no_start_is_in_two_parts(data):
    x, y = data.test.__getitems__([0])
    share = SHARES[PARTS["test"]][0]
    seconds = (UNIT * x[0, :, 0]).numpy()
    found = solve_ivp(
        lambda t, y: reaction(t, torch.from_numpy(y)[None])[0].numpy(),
        (0.0, seconds[-1]),
        [share, 0.0, 1.0 - share],
        t_eval=seconds[1::7],
        method="LSODA",
        rtol=1e-7,
        atol=1e-12,
    )
    for species, there in ((0, share), (2, 1.0 - share)):
        unit = there / x[0, 0, 1 + species].item()
        np.testing.assert_allclose(y[0, ::7, species] * unit, found.y[species], rtol=1e-5, atol=1e-7)
    units = found.y[1] / y[0, ::7, 1].numpy()  # of B, which no start has any of
    np.testing.assert_allclose(units, units[-1], rtol=1e-4)
    assert data.train.targets[:, :, 1].max() == pytest.approx(1.0, rel=1e-12)
    starts = [tuple(s) for part in (data.train, data.val, data.test) for s in part.inputs[:, 0, 1:].tolist()]
    assert len(set(starts)) == len(starts) == 15


def test_the_input_shows_the_first_state_and_nothing_of_what_comes(data):
    for part in (data.train, data.val, data.test):
        assert part.inputs.shape[1:] == (51, 4)
        assert part.targets.shape[1:] == (50, 3)
        assert not part.inputs[:, 1:, 1:].any()
        assert part.inputs[:, 0, 0].eq(0).all()
        assert torch.equal(part.inputs[:, :, 0], part.inputs[:1, :, 0].expand(len(part), -1))


def test_the_loss_falls_and_a_resumed_run_is_equal_bit_for_bit(tmp_path, data, monkeypatch):
    monkeypatch.setattr("adamode.train.trainer.load_data", lambda name, options: data)
    settings = {"model": "node", "dataset": "robertson", "schedule": "constant", "hidden": 6}

    def train(folder, epochs, resume=False):
        config = TrainConfig(**settings, epochs=epochs, output_dir=str(tmp_path / folder))
        assert (config.method, config.dtype, config.stepping) == ("radau5", "float64", "shared")
        return Trainer(config, quiet=True).fit(resume=resume)

    result = train("whole", 4)
    losses = [row["train_loss"] for row in result.history]
    assert losses[-1] < 0.9 * losses[0]
    train("parts", 1)
    again = train("parts", 4, resume=True)
    assert_equal_bit_for_bit(result.folder, again.folder)


@pytest.mark.parametrize("name", models.names())
def test_every_model_gives_states_at_the_times_and_learns(name, data):
    torch.manual_seed(0)
    model = models.create(name, "robertson").to(D)
    x, y = data.val.__getitems__([0, 1])
    output = model(x[:, :40])
    assert output.shape == (2, 39, 3)
    (output - y[:, :39]).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    control = models.create(name, "robertson", block="identity").to(D)(x)
    assert torch.equal(control, x[:, :1, 1:].expand(-1, 50, -1))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda x: x.numpy(), ArgumentTypeError, "is a ndarray"),
        (lambda x: x[:, :, :3], ArgumentError, r"\[B, L, 4\]"),
        (lambda x: x[:, :1], ArgumentError, "L ≥ 2"),
        (
            lambda x: x * torch.tensor([1.0, 2.0], dtype=D)[:, None, None],
            ArgumentError,
            "same for every sample",
        ),
    ],
)
def test_an_input_that_means_nothing_is_refused(change, error, text, data):
    model = models.create("node", "robertson").to(D)
    with pytest.raises(error, match=text):
        model(change(data.val.inputs[:2].clone()))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"rates": (1.0, -1.0, 1.0)}, "rates=.*positive"),
        ({"rates": (1.0, 1.0)}, "2 rates.*3"),
        ({"channels": 4}, "channels=4 must be the 3 features"),
        ({"start": "encoder"}, "trajectories have no encoder"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, text):
    with pytest.raises(ArgumentError, match=text):
        models.create("node", "robertson", **settings)


def test_a_relaxing_field_needs_a_field_of_its_size():
    with pytest.raises(ArgumentTypeError, match="inner is a Linear"):
        Relaxing(torch.nn.Linear(2, 2), (1.0, 1.0))
    with pytest.raises(ArgumentError, match="take at least as many"):
        Relaxing(MLP(1, (2,), out_dim=2), (1.0, 1.0))
    assert Relaxing(Linear(2), (1.0, 5.0)).linearised is not None


def test_what_reads_its_steps_from_values_is_not_exported():
    with pytest.raises(ArgumentError, match="time series has no fixed graph"):
        with_fixed_steps(models.create("node", "robertson"), 4)
    with pytest.raises(ArgumentError, match="method='radau5' takes implicit steps"):
        with_fixed_steps(models.create("node", "circles", method="radau5"), 4)


def test_a_model_that_learns_nothing_is_refused_before_anything_is_written(tmp_path, data, monkeypatch):
    monkeypatch.setattr("adamode.train.trainer.load_data", lambda name, options: data)
    for model in ("node", "adamnode"):  # no parameters, and parameters that the output does not depend on
        config = TrainConfig(model=model, dataset="robertson", block="identity", output_dir=str(tmp_path))
        with pytest.raises(ArgumentError, match="learns nothing"):
            Trainer(config, quiet=True).fit()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_node_learns_robertsons_reaction_to_two_per_cent_of_each_species(tmp_path):
    """200 steps, about two minutes; measured: docs/train.md."""
    config = TrainConfig(model="node", dataset="robertson", output_dir=str(tmp_path))
    result = Trainer(config, quiet=True).fit()
    run = load_run(result.folder)
    data = load_data_of(run)
    with torch.no_grad():
        error = (run.model(data.test.inputs) - data.test.targets).abs().mean((0, 1))
    assert error.max() < 0.02, error
    assert judge(run, data, "test").value < 0.02
