import json

import pytest
import torch
from standin import Explodes, StandIn, build_standin

from adamode import AdamodeError, ArgumentError, TrainConfig, Trainer
from adamode.solvers.errors import NonFiniteDynamics, TrainingError
from adamode.solvers.status import Status
from adamode.train.checkpoint import load_checkpoint

EPOCH_KEYS = [
    *("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy"),
    *("nfe_forward", "nfe_backward", "efficacy_forward", "efficacy_backward"),
    *("seconds", "peak_memory_mib", "skipped_batches"),
]


def config_for(folder, **settings):
    return TrainConfig(
        output_dir=str(folder), **{"epochs": 2, "batch_size": 64, "lr": 0.01, "name": "run", **settings}
    )


def test_a_run_leaves_config_metrics_and_checkpoint(tmp_path):
    config = config_for(tmp_path)
    records = []
    result = Trainer(config, build=build_standin, on_epoch=records.append, quiet=True).fit()
    run = tmp_path / "run"
    assert sorted(p.name for p in run.iterdir()) == [
        *("best.pt", "checkpoint.pt", "config.json", "config.toml", "metrics.csv", "metrics.jsonl")
    ]
    assert json.loads((run / "config.json").read_text())["lr"] == 0.01
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [list(row) for row in rows[:-1]] == [EPOCH_KEYS] * 2
    assert list(rows[-1]) == [
        *("final", "test_loss", "test_accuracy", "efficacy_forward", "efficacy_backward", "parameters")
    ]
    assert rows[-1]["final"] is True
    assert [record.row for record in records] == rows[:-1] == list(result.history)
    assert rows[-1]["efficacy_forward"] == result.test_accuracy / result.nfe_forward
    assert rows[-1]["efficacy_backward"] == result.test_accuracy / rows[-2]["nfe_backward"]


def test_reported_numbers_are_those_of_a_plain_loop_without_the_trainer(tmp_path):
    """Softmax regression on the same data, written out here: the same losses, to rounding."""

    def build(config):
        model = StandIn()
        model.dropout.p = 0.0
        return model

    config = config_for(tmp_path, batch_size=2000, epochs=3, clip=0.5)  # one step an epoch
    result = Trainer(config, build=build, quiet=True).fit()

    from adamode.train.data import load_data

    data = load_data("digits")
    torch.manual_seed(config.seed)
    layer = torch.nn.Linear(64, 10)
    optimizer, clipped = torch.optim.Adam(layer.parameters(), lr=config.lr), False

    def loss_and_accuracy(part):
        x = torch.stack([part[i][0] for i in range(len(part))]).flatten(1)
        logits = layer(x)
        return torch.nn.functional.cross_entropy(logits, part.labels), (
            logits.argmax(1) == part.labels
        ).double().mean()

    for row, share in zip(result.history, (1, 0.75, 0.25), strict=True):  # ½(1 + cos 0, 60°, 120°)
        optimizer.param_groups[0]["lr"] = share * config.lr
        loss, accuracy = loss_and_accuracy(data.train)
        # the order of summation differs: float32 rounding over 1,259 samples
        assert row["train_loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert row["train_accuracy"] == pytest.approx(accuracy.item(), abs=1e-9)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.cat([p.grad.flatten() for p in layer.parameters()]).norm()
        clipped = clipped or norm > config.clip
        for p in layer.parameters():
            p.grad *= min(1.0, config.clip / norm)
        optimizer.step()
        val_loss, val_accuracy = loss_and_accuracy(data.val)
        assert row["val_loss"] == pytest.approx(val_loss.item(), rel=1e-5)
        assert row["val_accuracy"] == pytest.approx(val_accuracy.item(), abs=1e-9)
    assert clipped
    assert result.best_epoch == 3
    test_loss, test_accuracy = loss_and_accuracy(data.test)
    assert result.test_loss == pytest.approx(test_loss.item(), rel=1e-5)
    assert result.test_accuracy == pytest.approx(test_accuracy.item(), abs=1e-9)


def test_nfe_is_averaged_over_samples_not_batches(tmp_path):
    result = Trainer(config_for(tmp_path), build=build_standin, quiet=True).fit()
    last = 1259 - 19 * 64  # the stand-in counts 14 and 12 there, 8 and 6 elsewhere
    assert result.history[0]["nfe_forward"] == pytest.approx(8 + 6 * last / 1259)
    assert result.nfe_backward == pytest.approx(6 + 6 * last / 1259)
    assert result.nfe_forward == pytest.approx(8 + 6 * (359 % 64) / 359)


def test_two_runs_of_one_seed_are_equal_and_of_two_seeds_are_not(tmp_path):
    losses = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.rand(3)  # what happened before must not matter
        config = config_for(tmp_path, name=name, seed=seed)
        losses.append(Trainer(config, build=build_standin, quiet=True).fit().test_loss)
    assert losses[0] == losses[1] != losses[2]


def test_a_nan_loss_stops_with_its_batch_and_the_last_good_checkpoint(tmp_path):
    config = config_for(tmp_path, checkpoint_every=4)
    with pytest.raises(TrainingError, match=r"epoch 1, batch 10 .*loss is nan"):
        # the rehearsal before the run is made on a copy: call 10 is the eleventh step
        Trainer(config, build=lambda config: Explodes(10), quiet=True).fit()
    good = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    failing = load_checkpoint(tmp_path / "run" / "failure.pt")
    assert (good["batch"], failing["batch"]) == (8, 10)
    for state in (good, failing):
        assert all(torch.isfinite(w).all() for w in state["model"].values())
    Trainer(config, build=build_standin, quiet=True).fit(resume=True)


def test_a_nan_gradient_of_a_finite_loss_never_reaches_the_weights(tmp_path):
    class RootAtZero(StandIn):
        def forward(self, x):
            return super().forward(x) + (self.layer.weight.sum() * 0).sqrt()

    with pytest.raises(TrainingError, match=r"first batch.*norm of its gradient nan"):
        Trainer(config_for(tmp_path), build=lambda config: RootAtZero(), quiet=True).fit()
    assert list(tmp_path.iterdir()) == []

    class RootLater(StandIn):
        calls = 0

        def forward(self, x):
            self.calls += self.training
            logits = super().forward(x)
            return logits + (self.layer.weight.sum() * 0).sqrt() if self.calls == 4 else logits

    with pytest.raises(TrainingError, match=r"batch 3 .*norm of its gradient nan"):
        Trainer(config_for(tmp_path), build=lambda config: RootLater(), quiet=True).fit()
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_an_infinite_loss_of_the_untrained_model_is_found_before_anything_is_written(tmp_path):
    with pytest.raises(TrainingError, match=r"first batch: the loss is nan.*Nothing was written"):
        Trainer(config_for(tmp_path), build=lambda config: Explodes(0), quiet=True).fit()
    assert list(tmp_path.iterdir()) == []


class CannotBeSolved(StandIn):
    def forward(self, x):
        raise NonFiniteDynamics(0.5, 1e-9, Status.NON_FINITE)


def test_a_solve_that_fails_on_the_first_batch_stops_before_anything_is_written(tmp_path):
    with pytest.raises(TrainingError, match=r"first batch.*NON_FINITE at t=0\.5") as failure:
        Trainer(config_for(tmp_path), build=lambda config: CannotBeSolved(), quiet=True).fit()
    assert isinstance(failure.value.__cause__, NonFiniteDynamics)
    assert list(tmp_path.iterdir()) == []


def test_a_solve_that_fails_in_a_step_names_the_batch(tmp_path):
    class FailsLater(StandIn):
        calls = 0

        def forward(self, x):
            self.calls += 1
            if self.calls == 6:
                raise NonFiniteDynamics(0.5, 1e-9, Status.NON_FINITE)
            return super().forward(x)

    with pytest.raises(TrainingError, match=r"epoch 1, batch 5 .*NON_FINITE"):
        Trainer(config_for(tmp_path), build=lambda config: FailsLater(), quiet=True).fit()
    assert load_checkpoint(tmp_path / "run" / "failure.pt")["batch"] == 5


def test_what_the_model_refuses_is_refused_before_anything_is_written(tmp_path):
    class Refuses(StandIn):
        def forward(self, x):
            raise ArgumentError("rtol=1e-30 is below what float32 resolves")

    with pytest.raises(ArgumentError, match="1e-30"):
        Trainer(config_for(tmp_path), build=lambda config: Refuses(), quiet=True).fit()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("device", ["cuda:99", "warp", "meta"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_written(tmp_path, device):
    with pytest.raises(ArgumentError, match=f"device='{device}'"):
        Trainer(config_for(tmp_path, device=device), build=build_standin, quiet=True).fit()
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(AdamodeError, match=r"output_dir=.*runs"):
        Trainer(config_for(tmp_path / "runs"), build=build_standin, quiet=True).fit()
    assert (tmp_path / "runs").read_text() == "a file"


def test_a_disk_that_fills_up_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
    import os

    flushed, fsync = [], os.fsync

    def full(descriptor):
        flushed.append(descriptor)
        if len(flushed) > 16:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr("adamode.solvers.write_aside.os.fsync", full)
    with pytest.raises(TrainingError, match=r"checkpoint\.pt.*No space left.*--resume"):
        Trainer(config_for(tmp_path, checkpoint_every=7), build=build_standin, quiet=True).fit()
    monkeypatch.undo()
    # two flushes a file: two of the configuration, checkpoints after 7, 14 and 20 steps, the best
    # weights, two of metrics
    state = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert (state["epoch"], state["batch"]) == (1, 0)


def test_the_number_of_threads_is_put_back(tmp_path):
    before = torch.get_num_threads()
    Trainer(config_for(tmp_path, threads=before + 1, epochs=1), build=build_standin, quiet=True).fit()
    assert torch.get_num_threads() == before


def test_progress_shows_loss_accuracy_and_nfe_and_quiet_shows_nothing(tmp_path, capfd):
    Trainer(config_for(tmp_path), build=build_standin).fit()
    out, err = capfd.readouterr()
    assert "1259" in out
    assert "epoch  2/2  train 0." in out
    assert "NFE 8/6" in out
    assert err == ""  # the bar is for a terminal
    Trainer(config_for(tmp_path, name="quiet"), build=build_standin, quiet=True).fit()
    assert capfd.readouterr() == ("", "")
