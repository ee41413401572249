"""The loop over epochs, on one page, and what it hands out."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from ..solvers.errors import CheckpointError, ReconstructionError, SolverError, TrainingError
from .build import build_model
from .checkpoint import save_checkpoint
from .config import TrainConfig
from .data import Splits, load_data
from .data.splits import LabelledImages, batches
from .device import checked_device
from .interrupt import Interrupted, StopRequest
from .logs import ProgressBar, say
from .metrics import EpochSums, count_parameters, peak_memory_mib, solve_counts
from .position import EpochRecord, Position, TrainResult
from .reproducible import epoch_order, restore_rng_state, rng_state, seed_everything
from .runs import RunFolder
from .schedule import step_size


class Trainer:
    """Trains one model on one data set: ``Trainer(config).fit()``.

    build: makes the model from the configuration (default: `adamode.models.create`'s).
    on_epoch: called with an `EpochRecord` after each epoch.  quiet: no bar, no lines.
    After `fit`, ``model`` holds the weights that were tested.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    device: torch.device
    steps: int  # optimiser steps of an epoch

    def __init__(
        self,
        config: TrainConfig,
        *,
        build: Callable[[TrainConfig], nn.Module] = build_model,
        on_epoch: Callable[[EpochRecord], None] | None = None,
        quiet: bool = False,
    ):
        self.config, self.quiet = config, quiet
        self.folder, self.position = RunFolder(config.folder), Position()
        self._build, self._on_epoch = build, on_epoch

    def fit(self, *, resume: bool = False) -> TrainResult:
        """Trains to the last epoch, tests, and returns the result; a finished run is only read.

        Seeds the global random generators. Ctrl-C and SIGTERM save a checkpoint and raise
        `Interrupted` (a KeyboardInterrupt).
        Raises: CheckpointError where the run's folder does not fit, ArgumentError for settings
        that the model refuses (nothing is written then), TrainingError where training cannot go on.
        """
        state = self.folder.open(self.config, resume=resume)
        threads = torch.get_num_threads()
        torch.set_num_threads(self.config.threads)
        try:
            self.device = checked_device(self.config.device)
            data = load_data(self.config.dataset)
            self._set_up(data, state)
            if self.position.final is None:
                self._announce(data)
                self._run(data)
                return self.position.result(self.folder, trained=True)
            return self.position.result(self.folder, trained=False)
        finally:
            torch.set_num_threads(threads)

    def _set_up(self, data: Splits, state: dict[str, Any] | None) -> None:
        """Model, optimiser and position: new, or those of a checkpoint's state."""
        seed_everything(self.config.seed)
        self.model = self._build(self.config).to(self.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=self.config.lr)
        self.position = Position()
        if state is None:
            self._rehearse(data)
            self.folder.create(self.config)
            return
        self._restore(state)
        if self.position.epoch < self.config.epochs:
            self.position.final = None  # a finished run may be made longer
            self.folder.create(self.config)
        elif self.position.final is not None:
            self.model.load_state_dict(self.position.best["model"])
        self._write_metrics()  # a kill may have come between checkpoint and metrics

    def _rehearse(self, data: Splits) -> None:
        """One batch forwards and backwards on a copy of the model, before anything is written.

        What the model refuses, it refuses here. The random generators are put back.
        """
        before, model = rng_state(), copy.deepcopy(self.model).train()
        x, y = next(iter(batches(data.train, torch.arange(len(data.train)), self.config.batch_size)))
        try:
            nn.functional.cross_entropy(model(x.to(self.device)), y.to(self.device)).backward()
        except (SolverError, ReconstructionError) as error:
            raise TrainingError(
                f"the untrained model cannot be solved on the first batch: {error} Nothing was written."
            ) from error
        restore_rng_state(before)

    def _run(self, data: Splits) -> None:
        config, position = self.config, self.position
        self.steps = -(-len(data.train) // config.batch_size)
        total, done = config.epochs * self.steps, position.epoch * self.steps + position.batch
        with StopRequest() as stop, ProgressBar(total, done, quiet=self.quiet) as bar:
            while position.epoch < config.epochs:
                self._train_epoch(data.train, stop, bar)
                val = self._evaluate(self.model, data.val, stop)
                if position.end_epoch(val, peak_memory_mib(self.device)):
                    position.keep_best(copy.deepcopy(self.model.state_dict()))
                self._save()
                self._write_metrics()
                bar.epoch(position.history[-1], config.epochs)
                if self._on_epoch is not None:
                    history = tuple(position.history)
                    self._on_epoch(EpochRecord(self.folder, history[-1], history))
            tested = copy.deepcopy(self.model)
            tested.load_state_dict(position.best["model"])
            position.finish(self._evaluate(tested, data.test, stop), tested)
            self._save()  # with the last weights, so that a longer run can go on from them
            self._write_metrics()
            self.model = tested

    def _train_epoch(self, data: LabelledImages, stop: StopRequest, bar: ProgressBar) -> None:
        """The rest of the epoch under way, with a checkpoint every so many steps."""
        config, position = self.config, self.position
        self.model.train()
        order = epoch_order(len(data), config.seed, position.epoch)
        for x, y in batches(data, order, config.batch_size, start=position.batch):
            self._stop_if_asked(stop)
            start = time.perf_counter()
            self._train_step(x.to(self.device), y.to(self.device))
            position.sums.seconds += time.perf_counter() - start
            position.batch += 1
            bar.step(position.sums)
            if position.batch % config.checkpoint_every == 0:
                self._save()

    def _train_step(self, x: Tensor, y: Tensor) -> None:
        """One optimiser step. On failure weights and position stay what they were."""
        self.optimizer.zero_grad(set_to_none=True)
        try:
            logits = self.model(x)
            loss = nn.functional.cross_entropy(logits, y)
            loss.backward()
        except (SolverError, ReconstructionError) as error:
            self._fail(f"the solver could not go on: {error}", error)
        correct = (logits.argmax(1) == y).sum()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        numbers = torch.stack([n.detach().double() for n in (loss, norm, correct)])
        value, norm, correct = numbers.tolist()  # host read
        if not (math.isfinite(value) and math.isfinite(norm)):
            self._fail(f"the loss is {value:.6g} and the norm of its gradient {norm:.6g}", None)
        done = self.position.epoch * self.steps + self.position.batch
        lr = step_size(self.config.schedule, self.config.lr, done, self.config.epochs * self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.position.sums.add(len(y), value, int(correct), solve_counts(self.model))

    def _fail(self, what: str, cause: Exception | None) -> NoReturn:
        """Keeps the state before the failing step in failure.pt, for study, and raises."""
        save_checkpoint(self.folder.failure, self._state())
        epoch, batch = self.position.epoch + 1, self.position.batch
        raise TrainingError(
            f"epoch {epoch}, batch {batch} (counted from 0): {what}. The weights before this step "
            f"are in {str(self.folder.failure)!r}; {str(self.folder.checkpoint)!r}, if there is one, "
            "is the last good checkpoint. Try a smaller --lr, a tighter --rtol and --atol, or "
            "--gradient discrete."
        ) from cause

    @torch.no_grad()
    def _evaluate(self, model: nn.Module, data: LabelledImages, stop: StopRequest) -> EpochSums:
        """Loss, accuracy and forward NFE over a data set, in batches of the training's size."""
        model.eval()
        sums = EpochSums()
        for x, y in batches(data, torch.arange(len(data)), self.config.batch_size):
            self._stop_if_asked(stop)
            x, y = x.to(self.device), y.to(self.device)
            logits = model(x)
            loss = float(nn.functional.cross_entropy(logits, y))  # host read
            correct = int((logits.argmax(1) == y).sum())  # host read
            if not math.isfinite(loss):
                raise TrainingError(
                    f"epoch {self.position.epoch + 1}: the loss on unseen data is {loss}; "
                    f"{str(self.folder.checkpoint)!r}, if there is one, is the last good checkpoint. "
                    "Try a smaller --lr."
                )
            sums.add(len(y), loss, correct, (solve_counts(model)[0], 0.0))
        return sums

    def _stop_if_asked(self, stop: StopRequest) -> None:
        if stop.signum is not None:
            self._save()
            raise Interrupted(stop.signum)

    def _state(self) -> dict[str, Any]:
        """Everything that decides the next number."""
        return {
            "config": self.config.to_dict(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": rng_state(),
            **self.position.to_checkpoint(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.position = Position.from_checkpoint(state)
            restore_rng_state(state["rng"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"checkpoint {str(self.folder.checkpoint)!r} does not fit this model: {error}"
            ) from error

    def _save(self) -> None:
        save_checkpoint(self.folder.checkpoint, self._state())

    def _write_metrics(self) -> None:
        self.folder.write_metrics(self.position.history, self.position.final)

    def _announce(self, data: Splits) -> None:
        config = self.config
        block = "" if config.block == "ode" else f", block replaced by the {config.block}"
        text = (
            f"{data.card}\n"
            f"model     {config.model}: {count_parameters(self.model):,} parameters{block}; "
            f"{config.method}, rtol {config.rtol:g}, atol {config.atol:g}, gradient {config.gradient}\n"
            f"run       {self.folder.path}"
        )
        say(text, quiet=self.quiet)
