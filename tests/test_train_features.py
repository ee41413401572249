"""The trainer's options: values, early stop, pieces of batches, bfloat16, skipped batches, event files."""

import csv
import json
import math
import sys

import pytest
import torch
from standin import Explodes, StandIn, build_standin

from adamode import ArgumentError, TrainConfig, Trainer
from adamode.models.provenance import git_state
from adamode.solvers.errors import NonFiniteDynamics, TrainingError
from adamode.solvers.status import Status
from adamode.train.build import build_model
from adamode.train.checkpoint import BEST_KEYS, load_checkpoint
from adamode.train.data import load_data
from adamode.train.reproducible import deterministic
from adamode.train.step import Objective, descend, norms_of_state, step_size

ACCURACY = Objective("accuracy")


def config_for(folder, **settings):
    return TrainConfig(
        output_dir=str(folder), **{"epochs": 2, "batch_size": 64, "lr": 0.01, "name": "run", **settings}
    )


def fit(folder, build=build_standin, *, resume=False, **settings):
    return Trainer(config_for(folder, **settings), build=build, quiet=True).fit(resume=resume)


class LastOutput(torch.nn.Module):
    """Sequences [B, L, 3] → [B, L − given, 1] by one linear map of a row."""

    def __init__(self, given):
        super().__init__()
        self.given, self.layer = given, torch.nn.Linear(3, 1)

    def forward(self, x):
        return self.layer(x)[:, self.given :]


def test_values_are_trained_on_by_their_squared_error_and_reported_in_millivolts(tmp_path):
    data = load_data("silverbox-simulated")
    result = fit(
        tmp_path, lambda config: LastOutput(data.given), dataset="silverbox-simulated", schedule="constant"
    )
    assert result.test_accuracy is None
    assert list(result.history[0])[1:5] == ["train_loss", "train_rmse", "val_loss", "val_rmse"]
    for row in result.history:
        assert row["val_rmse"] == pytest.approx(data.per_unit * math.sqrt(row["val_loss"]), rel=1e-6)
        assert row["efficacy_forward"] is None
    assert result.history[1]["train_loss"] < result.history[0]["train_loss"]
    final = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert final["test_rmse"] == result.test_rmse
    assert "test_accuracy" not in final
    assert set(result.more_tests) == set(data.more_tests)


def test_the_epochs_efficacy_is_validation_accuracy_per_evaluation(tmp_path):
    for row in fit(tmp_path).history:
        assert row["efficacy_forward"] == row["val_accuracy"] / row["nfe_forward"]
        assert row["efficacy_backward"] == row["val_accuracy"] / row["nfe_backward"]


def test_the_test_set_can_be_measured_after_every_epoch_and_chooses_nothing(tmp_path):
    seen, plain = fit(tmp_path / "seen", test_every_epoch=True), fit(tmp_path / "plain")
    shown = {"test_loss", "test_accuracy", "test_nfe_forward"}
    apart = {"seconds", "peak_memory_mib"}
    for row, other in zip(seen.history, plain.history, strict=True):
        assert set(row) - set(other) == shown
        assert all(row[key] == other[key] for key in set(other) - apart)
    best = seen.history[seen.best_epoch - 1]
    assert (best["test_loss"], best["test_accuracy"]) == (seen.test_loss, seen.test_accuracy)
    assert best["test_nfe_forward"] == seen.nfe_forward
    assert len({row["test_loss"] for row in seen.history}) == 2


def test_the_table_holds_what_the_json_lines_hold(tmp_path):
    fit(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(lines) == 3
    for row, line in zip(rows, lines, strict=True):
        assert {k: v for k, v in row.items() if v} == {k: str(v) for k, v in line.items() if v is not None}


def test_the_best_weights_have_a_file_of_their_own(tmp_path):
    result = fit(tmp_path)
    best = load_checkpoint(tmp_path / "run" / "best.pt", BEST_KEYS)
    last = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert best["epoch"] == result.best_epoch
    assert best["metrics"]["val_accuracy"] == result.history[result.best_epoch - 1]["val_accuracy"]
    assert all(torch.equal(w, last["best"]["model"][name]) for name, w in best["model"].items())


def test_the_saved_toml_trains_the_same_run_again_and_names_packages_and_commit(tmp_path):
    fit(tmp_path)
    path = tmp_path / "run" / "config.toml"
    assert TrainConfig.from_toml(path) == config_for(tmp_path, build="standin:build_standin")
    text = path.read_text()
    assert f'"torch" = "{torch.__version__.split("+")[0]}' in text
    assert '"pytest" = "' in text
    content = json.loads((tmp_path / "run" / "config.json").read_text())
    assert content["git"] == git_state()


def test_git_state_outside_a_repository_names_nothing_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "here_commit" not in git_state()


def test_training_stops_early_and_stays_stopped(tmp_path):
    class Frozen(StandIn):
        def forward(self, x):
            return super().forward(x).detach() + 0 * self.layer.bias.sum()

    settings = {"epochs": 9, "patience": 2, "schedule": "constant"}
    result = fit(tmp_path, lambda config: Frozen(), **settings)
    assert (len(result.history), result.best_epoch) == (3, 1)
    again = fit(tmp_path, lambda config: Frozen(), resume=True, **settings)
    assert (len(again.history), again.trained) == (3, False)


def test_the_decay_multiplies_the_step_size_after_each_thousand_steps():
    assert step_size("decay", 0.1, 999, 5000) == 0.1
    assert step_size("decay", 0.1, 1000, 5000) == pytest.approx(0.095)
    assert step_size("decay", 0.1, 2500, 5000) == pytest.approx(0.1 * 0.95**2)


def batch_of(n=12):
    data = load_data("digits")
    x, y = data.train.__getitems__(list(range(n)))
    return x.double(), y


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_a_batch_in_pieces_has_the_gradient_of_the_whole():
    """Per sample, where a piece takes the steps that its samples take in the whole; 12 = 5 + 5 + 2."""
    x, y = batch_of()
    config = TrainConfig(stepping="per_sample", hidden=4, dtype="float64")
    torch.manual_seed(0)
    model = build_model(config).double()
    found = []
    for parts in (1, 3):
        model.zero_grad(set_to_none=True)
        sums = descend(model, x, y, ACCURACY, total=12, parts=parts, amp="off")
        found.append((gradients(model), sums))
    for name, gradient in found[0][0].items():
        assert (gradient - found[1][0][name]).abs().max() <= 1e-12 * gradient.abs().max(), name
    assert found[0][1].nfe_forward == found[1][1].nfe_forward
    assert found[0][1].nfe_backward == found[1][1].nfe_backward


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
@pytest.mark.parametrize("dataset", ["digits", "circles"])
@pytest.mark.parametrize("model", ["adamnode", "node", "sonode", "ghbnode"])
def test_bfloat16_reaches_the_field_and_leaves_the_state_in_float32(model, dataset, stepping):
    x, y = load_data(dataset).train.__getitems__(list(range(16)))
    torch.manual_seed(0)
    built = build_model(TrainConfig(model=model, dataset=dataset, stepping=stepping))
    seen = {}
    built.block.register_forward_hook(lambda block, args, out: seen.update(state=out.dtype))
    built.head.register_forward_hook(lambda module, args, out: seen.update(head=out.dtype))
    losses = {}
    for amp in ("off", "bf16"):
        built.zero_grad(set_to_none=True)
        sums = descend(built, x, y, ACCURACY, total=16, parts=1, amp=amp)
        losses[amp] = sums.loss
        if amp == "off":
            exact = {name: gradient.clone() for name, gradient in gradients(built).items()}
    assert seen == {"state": torch.float32, "head": torch.bfloat16}
    assert losses["bf16"] != losses["off"]
    assert losses["bf16"] == pytest.approx(losses["off"], rel=0.05)  # 8 bits of mantissa
    for name, gradient in gradients(built).items():
        assert gradient.dtype == torch.float32, name
    both = [torch.cat([g[name].flatten() for name in exact]) for g in (exact, gradients(built))]
    assert torch.nn.functional.cosine_similarity(*both, dim=0) > 0.95


def test_the_state_stays_float32_where_the_trainer_uses_bfloat16(tmp_path):
    result = fit(tmp_path, build_model, amp="bf16", train_size=64, epochs=1, hidden=4)
    assert math.isfinite(result.test_loss)


class FailsAt(StandIn):
    """A solve that fails in chosen training calls (the rehearsal is made on a copy)."""

    def __init__(self, *at):
        super().__init__()
        self.at, self.calls = at, 0

    def forward(self, x):
        if self.training:
            self.calls += 1
            if self.calls - 1 in self.at:
                raise NonFiniteDynamics(0.5, 1e-9, Status.NON_FINITE)
        return super().forward(x)


def test_a_batch_that_cannot_be_solved_is_skipped_where_asked(tmp_path, capsys):
    trainer = Trainer(config_for(tmp_path, on_solver_error="skip"), build=lambda config: FailsAt(3, 7))
    result = trainer.fit()
    assert [row["skipped_batches"] for row in result.history] == [2, 0]
    said = capsys.readouterr().out
    assert "epoch 1, batch 3 (counted from 0) skipped: the solver could not go on: NON_FINITE" in said
    assert "2 batches skipped" in said
    assert load_checkpoint(tmp_path / "run" / "failure.pt")["batch"] == 7


def test_an_epoch_of_which_no_batch_can_be_solved_stops(tmp_path):
    with pytest.raises(TrainingError, match="not one batch could be solved"):
        fit(
            tmp_path, lambda config: FailsAt(*range(100)) if False else _FailsAlways(), on_solver_error="skip"
        )


class _FailsAlways(FailsAt):
    """All but the rehearsal."""

    rehearsed = False

    def forward(self, x):
        if self.training and _FailsAlways.rehearsed:
            raise NonFiniteDynamics(0.5, 1e-9, Status.NON_FINITE)
        _FailsAlways.rehearsed = True
        return StandIn.forward(self, x)


def test_a_sample_that_per_sample_stepping_gave_up_on_stops_with_its_number(tmp_path):
    class LosesOne(StandIn):
        def forward(self, x):
            logits = super().forward(x)
            self.calls = getattr(self, "calls", 0) + self.training
            if self.training and self.calls == 3:
                status = torch.full((len(x),), int(Status.SUCCESS))
                status[5] = int(Status.MAX_STEPS)
                self.last_stats.status = status
            return logits

    with pytest.raises(
        TrainingError, match=r"batch 2 .*1 of 64 samples.*sample 5 of the batch \(MAX_STEPS\)"
    ):
        fit(tmp_path, lambda config: LosesOne())


def test_a_nan_loss_tells_the_norms_of_the_state(tmp_path):
    """A weight turned NaN: the state is finite at the block's start and not at its end."""

    def build(config):
        model = build_model(config)
        step = {"n": 0}

        def poison(module, args):
            step["n"] += module.training
            if step["n"] == 3 and module.training:  # the rehearsal's copy shares the count
                with torch.no_grad():
                    model.head.get_parameter(next(iter(dict(model.head.named_parameters())))).fill_(math.nan)

        model.register_forward_pre_hook(poison)
        return model

    with pytest.raises(TrainingError) as failure:
        fit(tmp_path, build, train_size=200, hidden=2)
    text = str(failure.value)
    assert "epoch 1, batch 1 (counted from 0): the loss is nan" in text
    for name in ("‖h‖ = ", "‖m‖ = ", "‖v‖ = "):
        assert text.count(name) == 2, text  # at the block's start and end


def test_norms_of_the_state_are_those_of_the_blocks_trajectory():
    x, _ = batch_of(6)
    torch.manual_seed(0)
    model = build_model(TrainConfig(hidden=4)).double()
    starts = {}
    model.block.register_forward_pre_hook(lambda b, args, kwargs: starts.update(kwargs), with_kwargs=True)
    told = norms_of_state(model, x)
    with torch.no_grad():
        path = model.block.trajectory(t=torch.tensor(model.block.settings.t, dtype=torch.float64), **starts)
    for name in "hmv":
        assert f"‖{name}‖ = {starts[name + '0'].norm().item():.4g}" in told
        assert f"‖{name}‖ = {path[name][-1].norm().item():.4g}" in told
    assert norms_of_state(StandIn(), x) == ""


def test_a_nan_loss_of_a_model_without_a_block_says_nothing_of_a_state(tmp_path):
    with pytest.raises(TrainingError, match="loss is nan") as failure:
        fit(tmp_path, lambda config: Explodes(2))
    assert "Norms" not in str(failure.value)


def test_a_read_only_folder_leaves_the_last_good_checkpoint_and_says_so(tmp_path, monkeypatch):
    import adamode.solvers.write_aside as module

    opened = []

    def refusing(path, mode):
        opened.append(path)
        if len(opened) > 8:
            raise PermissionError(30, "Read-only file system")
        return open(path, mode)

    monkeypatch.setattr(module, "open", refusing, raising=False)
    with pytest.raises(TrainingError, match=r"Read-only file system.*last good checkpoint is untouched"):
        fit(tmp_path, checkpoint_every=7)
    monkeypatch.undo()
    state = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert (state["epoch"], state["batch"]) == (1, 0)
    fit(tmp_path, checkpoint_every=7, resume=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "node"}, "model: 'adamnode' there, 'node' asked for"),
        ({"dataset": "circles"}, "dataset: 'digits' there, 'circles' asked for"),
        ({"hidden": 8}, "hidden: 16 there, 8 asked for"),
        ({"channels": 4}, "channels: 8 there, 4 asked for"),
        ({"match_parameters": 9000}, "match_parameters: 0 there, 9000 asked for"),
    ],
)
def test_resume_with_another_model_data_set_or_width_lists_the_differences(tmp_path, changes, words):
    fit(tmp_path, epochs=1)
    with pytest.raises(Exception, match=words):
        fit(tmp_path, epochs=1, resume=True, **changes)


def test_deterministic_runs_use_deterministic_algorithms_and_put_the_setting_back(tmp_path):
    class Asks(StandIn):
        def forward(self, x):
            assert torch.are_deterministic_algorithms_enabled()
            return super().forward(x)

    fit(tmp_path, lambda config: Asks(), deterministic=True)
    assert not torch.are_deterministic_algorithms_enabled()
    with deterministic(False):
        assert not torch.are_deterministic_algorithms_enabled()


def test_tensorboard_without_the_package_says_how_to_get_it_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ArgumentError, match=r"pip install 'adamode\[tensorboard\]'"):
        fit(tmp_path, tensorboard=True)
    assert list(tmp_path.iterdir()) == []


def test_tensorboards_files_hold_the_metrics(tmp_path):
    pytest.importorskip("tensorboard")
    result = fit(tmp_path, tensorboard=True)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    values = [event.value for event in events.Scalars("val_loss")]
    assert values == pytest.approx([row["val_loss"] for row in result.history], rel=1e-6)


@pytest.mark.slow
def test_memory_does_not_grow_over_2000_steps(tmp_path):
    """The process's memory after 300 steps and after 2,000: within 8 MiB (a step's graph is 2)."""

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096 / 2**20

    seen = []

    class Watched(Trainer):
        def _train_step(self, part):
            super()._train_step(part)
            seen.append(resident())

    settings = {"train_size": 400, "batch_size": 4, "epochs": 20, "hidden": 2, "test_size": 10}
    Watched(config_for(tmp_path, **settings, checkpoint_every=1000), quiet=True).fit()
    assert len(seen) == 2000
    assert max(seen[-100:]) - max(seen[300:400]) < 8
