"""A training run that keeps every gradient it steps along; in this process, or started by torchrun.

usage: torchrun … train_worker.py FOLDER SETTINGS   (settings: JSON of a TrainConfig)
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import torch
from torch import nn

from adamode.train import TrainConfig, Trainer
from adamode.train.build import build_model
from adamode.train.step import EpochSums


class Fails(nn.Module):
    """A model whose solve fails on one rank, in one training step."""

    def __init__(self, model: nn.Module, rank: int, at: int):
        super().__init__()
        self.model, self.rank, self.at, self.calls = model, rank, at, 0

    def forward(self, x):
        from adamode.solvers.errors import NonFiniteDynamics
        from adamode.solvers.status import Status

        if self.training:
            self.calls += 1
            rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
            if self.calls == self.at + 1 and rank == self.rank:
                raise NonFiniteDynamics(0.5, 1e-9, Status.NON_FINITE)
        return self.model(x)

    @property
    def last_stats(self):
        return self.model.last_stats


def train(folder: Path, *, fails: tuple[int, int] | None = None, norm: bool = False, **settings):
    """Trains; returns the result and, on rank 0, writes gradients.pt: a list over optimiser steps."""
    config = TrainConfig(output_dir=str(folder), name="run", **settings)
    seen: list[dict[str, torch.Tensor]] = []
    passes: list[dict[str, float]] = []

    def build(config):
        model = build_model(config)
        if norm:
            model = nn.Sequential(nn.BatchNorm2d(1), model)
        return model if fails is None else Fails(model, *fails)

    class Watched(Trainer):
        def _train_step(self, part):
            step = self.optimizer.step

            def stepped():
                named = self.model.named_parameters()
                seen.append({n.removeprefix("model."): p.grad.clone() for n, p in named})
                step()

            self.optimizer.step = stepped
            super()._train_step(part)
            self.optimizer.step = step
            passes.append(dataclasses.asdict(self.position.sums))

        def _evaluate(self, *arguments):
            sums: EpochSums = super()._evaluate(*arguments)
            passes.append(dataclasses.asdict(sums))
            return sums

    trainer = Watched(config, build=build, quiet=True)
    result = trainer.fit(resume=(folder / "run" / "checkpoint.pt").exists())
    if trainer.ranks.rank == 0:
        torch.save({"gradients": seen, "passes": passes}, folder / "gradients.pt")
    return result


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), **json.loads(sys.argv[2]))
