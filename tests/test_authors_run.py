"""Training is the authors': our losses against those of a run of their released code, step by step."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from adamode import TrainConfig
from adamode.train.build import build_model
from adamode.train.data import load_data
from adamode.train.data.splits import batches
from adamode.train.reproducible import epoch_order
from adamode.train.step import Objective, descend

FILE = "mnist_authors_run.npz"
# Filled in below.
BOUNDS = {"adamnode": 1e-4, "hbnode": 2e-3}


@pytest.fixture(scope="module")
def theirs():
    """The arrays of their run; skips without them or MNIST's sample."""
    folder = Path(os.environ.get("ADAMODE_DATA") or ".")
    for name in (FILE, "mnist.npz"):
        if not os.environ.get("ADAMODE_DATA") or not (folder / name).exists():
            pytest.skip(f"ADAMODE_DATA has no {name}")
    with np.load(folder / FILE) as arrays:
        return dict(arrays)


@pytest.mark.slow
@pytest.mark.parametrize("name", BOUNDS)
def test_an_epoch_of_mnist_has_the_authors_losses_and_evaluations(theirs, name):
    config = TrainConfig(model=name, dataset="mnist", train_size=1000, val_size=100, test_size=1000)
    data, model = load_data("mnist", config.data_options()), build_model(config)
    weights = {k.removeprefix(f"{name}/"): v for k, v in theirs.items() if k.startswith(f"{name}/")}
    losses, evaluations = weights.pop("losses")[0], weights.pop("nfe_forward")[0]
    model.load_state_dict({k: torch.from_numpy(weights[k]) for k in model.state_dict()})
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
    objective, found, nfe = Objective.of(data), [], []
    order = epoch_order(len(data.train), 0, 0)
    for x, y in batches(data.train, order, config.batch_size):
        optimizer.zero_grad()
        sums = descend(model, x, y, objective, total=len(y), parts=1, amp="off")
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        found.append(sums.mean("loss"))
        nfe.append(sums.mean("nfe_forward"))
    assert np.abs(np.array(found) - losses).max() < BOUNDS[name]
    assert set(nfe) == {evaluations}
