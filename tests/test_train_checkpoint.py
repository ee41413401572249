import pytest
import torch

from adamode.solvers.errors import CheckpointError, TrainingError
from adamode.solvers.write_aside import write_aside
from adamode.train.checkpoint import KEYS, load_checkpoint, save_checkpoint
from adamode.train.reproducible import (
    epoch_order,
    restore_rng_state,
    rng_state,
    seed_everything,
    versions,
)


@pytest.fixture
def state():
    return dict.fromkeys(KEYS) | {
        "model": {"weight": torch.arange(6.0).reshape(2, 3), "scalar": torch.tensor(2.0)},
        "rng": rng_state(),
        "epoch": 3,
        "history": [{"epoch": 1, "train_loss": 0.1}],
    }


def test_a_checkpoint_comes_back_as_it_was(tmp_path, state):
    save_checkpoint(tmp_path / "c.pt", state)
    back = load_checkpoint(tmp_path / "c.pt")
    assert torch.equal(back["model"]["weight"], state["model"]["weight"])
    assert back["history"] == state["history"]
    assert back["rng"]["python"] == state["rng"]["python"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.pt"]


def test_a_missing_an_empty_and_a_foreign_file_are_refused(tmp_path):
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "text.pt").write_bytes(b"not a checkpoint at all")
    torch.save({"model": torch.zeros(2)}, tmp_path / "foreign.pt")
    torch.save(torch.zeros(2), tmp_path / "tensor.pt")
    for name in ("missing.pt", "empty.pt", "text.pt", "foreign.pt", "tensor.pt"):
        with pytest.raises(CheckpointError, match=name):
            load_checkpoint(tmp_path / name)


class Payload:
    def __reduce__(self):
        return print, ("a checkpoint ran code",)


def test_a_checkpoint_cannot_run_code(tmp_path, capsys):
    torch.save({"model": Payload()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "evil.pt")
    assert capsys.readouterr().out == ""


def test_a_truncated_checkpoint_is_refused_at_every_length(tmp_path, state):
    path = tmp_path / "c.pt"
    save_checkpoint(path, state)
    whole = path.read_bytes()
    for length in range(0, len(whole), len(whole) // 20):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            load_checkpoint(path)


def test_one_flipped_bit_in_a_weight_is_noticed(tmp_path, state):
    path = tmp_path / "c.pt"
    save_checkpoint(path, state)
    data = bytearray(path.read_bytes())
    at = bytes(data).index(torch.arange(6.0).numpy().tobytes())
    data[at + 4] ^= 1
    path.write_bytes(bytes(data))
    assert torch.load(path, weights_only=True)["epoch"] == 3  # torch's reader notices nothing
    with pytest.raises(CheckpointError, match="digest"):
        load_checkpoint(path)


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, state, monkeypatch):
    path = tmp_path / "c.pt"
    save_checkpoint(path, state)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("adamode.solvers.write_aside.os.fsync", full)
    with pytest.raises(TrainingError, match=r"c\.pt.*No space left"):
        save_checkpoint(path, state | {"epoch": 4})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_write_aside_replaces_the_whole_text(tmp_path):
    write_aside(tmp_path / "a.txt", "a long first text")
    write_aside(tmp_path / "a.txt", "zweiter Text: θ")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "zweiter Text: θ"


def test_all_generators_go_on_from_a_saved_state(tmp_path, state):
    import random

    import numpy as np

    def draw():
        return (
            random.random(),
            random.gauss(0, 1),
            np.random.rand(),
            np.random.randn(),
            torch.rand(3).tolist(),
        )

    seed_everything(5)
    draw()
    save_checkpoint(tmp_path / "c.pt", state | {"rng": rng_state()})
    expected = [draw(), draw()]
    seed_everything(6)
    restore_rng_state(load_checkpoint(tmp_path / "c.pt")["rng"])
    assert [draw(), draw()] == expected


def test_the_order_of_an_epoch_is_a_function_of_seed_and_epoch():
    before = torch.get_rng_state()
    first = epoch_order(50, seed=1, epoch=2)
    torch.rand(3)
    torch.set_rng_state(before)
    assert torch.equal(first, epoch_order(50, seed=1, epoch=2))
    assert not torch.equal(first, epoch_order(50, seed=1, epoch=3))
    assert not torch.equal(first, epoch_order(50, seed=2, epoch=2))
    assert sorted(first.tolist()) == list(range(50))
    assert torch.equal(torch.get_rng_state(), before)


def test_versions_name_torch():
    assert versions()["torch"].split("+")[0] == torch.__version__.split("+")[0]
