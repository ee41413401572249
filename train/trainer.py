"""The loop over epochs, on one page, and what it hands out."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from ..solvers.errors import ArgumentError, CheckpointError, TrainingError
from .build import build_for_training
from .checkpoint import save_checkpoint
from .config import TrainConfig
from .data import DataSet, load_data
from .data.own.given import as_data_set
from .data.splits import Examples
from .device import checked_device
from .distributed import Ranks, own_device, refuse_batch_statistics, restarted
from .evaluation import evaluate
from .interrupt import Interrupted, StopRequest
from .logs import BoardWriter, ProgressBar, board, say
from .metrics import count_parameters, peak_memory_mib
from .objective import Objective
from .own import made_by, name_of
from .own_settings import refuse_other_data, refuse_other_sizes
from .position import EpochRecord, Position, TrainResult, checked_listener
from .regularise import weights_of
from .reproducible import STRIDE, deterministic, epoch_order, restore_rng_state, rng_state, seed_everything
from .runs import RunFolder
from .step import (
    CANNOT_BE_SOLVED,
    LEARNS_NOTHING,
    EpochSums,
    SamplesFailed,
    agree,
    choose_augmentation,
    descend,
    handed_on,
    not_finite,
    on_device,
    parts_of_batches,
    solving_with,
    step_size,
)
from .text import wrapped


class Trainer:
    """Trains one model on one data set: ``Trainer(config).fit()``.

    config: the run's settings. They keep the name of ``build``, "module:function", for other commands.
    build: makes the model from the configuration (default: `adamode.models.create`'s).
    data: in place of the configuration's: a `DataSet`, or (train, val, test), each tensors (inputs, targets)
        or a torch data set of such pairs. ``config`` is then the one for them, `TrainConfig.for_data`.
    on_epoch: called with an `EpochRecord` after each epoch, on rank 0.
    quiet: no bar, no lines.
    After `fit`, ``model`` holds the weights that were tested. Started by torchrun, the processes train
    together (`adamode.train.distributed`).
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    device: torch.device
    ranks: Ranks
    objective: Objective
    steps: int  # optimiser steps of an epoch

    def __init__(
        self,
        config: TrainConfig,
        *,
        build: Callable[[TrainConfig], nn.Module] | None = None,
        data: DataSet | Sequence[Any] | None = None,
        on_epoch: Callable[[EpochRecord], None] | None = None,
        quiet: bool = False,
    ):
        self._given = None if data is None else as_data_set(data)
        if self._given is not None:
            config = config.for_data(self._given)
        if build is not None:
            config = dataclasses.replace(config, build=name_of(build))
        self.config, self.quiet = config, quiet
        self.folder, self.position, self._build = RunFolder(config.folder), Position(), build
        self._on_epoch, self._dtype = checked_listener(on_epoch), getattr(torch, config.dtype)

    def __repr__(self) -> str:
        return f"Trainer({self.config!r})"

    def fit(self, *, resume: bool = False) -> TrainResult:
        """Trains to the last epoch, tests, and returns the result; a finished run is only read.

        Seeds the global random generators. Ctrl-C and SIGTERM save a checkpoint and raise
        `Interrupted` (a KeyboardInterrupt).
        Raises: CheckpointError where the run's folder does not fit, ArgumentError for settings
        that the model refuses (nothing is written then), TrainingError where training cannot go on.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(self.config.threads)
        try:
            self.device = checked_device(own_device(self.config.device))
            with Ranks.join(self.device) as self.ranks, deterministic(self.config.deterministic):
                return self._fit(resume=resume)
        finally:
            torch.set_num_threads(threads)

    def _fit(self, *, resume: bool) -> TrainResult:
        self.quiet = self.quiet or self.ranks.rank > 0
        # Processes that torchrun started anew find the run that they had begun.
        resume = resume or (restarted() and self.folder.checkpoint.exists())
        state = self.ranks.first(lambda: self.folder.open(self.config, resume=resume))
        several = "" if self.ranks.world == 1 else f"; {self.ranks.world} processes"
        say(f"run       {self.folder.path}{several}", quiet=self.quiet)
        if self.config.tensorboard:
            board()
        data = self._given or load_data(self.config.dataset, self.config.data_options())
        refuse_other_sizes(self.config, data)
        say(wrapped(str(data.card), " " * 10), quiet=self.quiet)  # what follows imports for seconds
        self._set_up(data, state)
        trained = self.position.final is None
        if trained:
            self._announce()
            self._run(data)
        return self.position.result(self.folder, trained=trained)

    def _set_up(self, data: DataSet, state: dict[str, Any] | None) -> None:
        """Model, optimiser and position: new, or those of a checkpoint's state."""
        seed_everything(self.config.seed)
        self.objective = Objective.of(data, weights_of(self.config.regularise))
        own, said = self._build, f"build={self.config.build!r}"
        made = build_for_training(self.config) if own is None else made_by(own, self.config, said)
        self.model = made.to(self.device, self._dtype)
        refuse_batch_statistics(self.model.train(), self.ranks.world)
        self.ranks.share_weights(self.model)
        if not count_parameters(self.model):
            raise ArgumentError(LEARNS_NOTHING)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=float(self.config.lr))
        self.position, self._n, self._data = Position(), len(data.train), data.card.sha256
        self.steps = -(-self._n // self.config.batch_size)
        if self.ranks.rank:  # other ranks draw other masks for their samples
            torch.manual_seed(self.config.seed + self.ranks.rank * STRIDE)
        if state is None:
            self._rehearse(data)
            self.ranks.first(lambda: self.folder.create(self.config))
            return
        refuse_other_data(state["data"], data, self.folder.checkpoint, given=self._given is not None)
        self._restore(state)
        if not self.position.over(self.config.epochs, self.config.patience):
            self.position.final = None  # a finished run may be made longer
            self.ranks.first(lambda: self.folder.create(self.config))
        elif self.position.final is not None:
            self.model.load_state_dict(self._best_weights())
        # A kill may have come between the checkpoint and the files that are written from it.
        self._write_metrics()
        self._write_best()

    def _rehearse(self, data: DataSet) -> None:
        """One batch forwards and backwards on a copy of the model, before anything is written.

        What the model refuses, it refuses here. The random generators are put back.
        """
        choose_augmentation(data.train, self.config.seed, 0)
        before, model = rng_state(), copy.deepcopy(self.model).train()
        first = torch.arange(min(self._n, self.config.batch_size))
        part = next(parts_of_batches(data.train, first, self.config.batch_size, self.ranks))
        failure, cause = "", None
        try:
            if part is not None:
                x, y = on_device(part, self.device, self._dtype)
                with solving_with(model, compile=False):  # the copy's programs would go with it
                    sums = self._descend(model, x, y, total=len(first))
                norm = nn.utils.clip_grad_norm_(model.parameters(), self.config.clip).item()  # host read
                failure = not_finite(sums, norm, model, x)
        except (*CANNOT_BE_SOLVED, SamplesFailed) as error:
            failure, cause = str(error), error
        told = agree(EpochSums(), failure, self.ranks)
        if told:
            raise TrainingError(
                f"the untrained model fails on the first batch: {told.rstrip('.')}. Nothing was written."
            ) from cause
        restore_rng_state(before)

    def _run(self, data: DataSet) -> None:
        config, position = self.config, self.position
        total, done = config.epochs * self.steps, position.epoch * self.steps + position.batch
        with contextlib.ExitStack() as stack:
            stop = stack.enter_context(StopRequest())
            bar = stack.enter_context(ProgressBar(total, done, objective=self.objective, quiet=self.quiet))
            writer = None
            if config.tensorboard and self.ranks.rank == 0:
                writer = BoardWriter(self.folder.path / "tensorboard", position.epoch)
                stack.callback(writer.close)
            while not position.over(config.epochs, config.patience):
                self._train_epoch(data.train, stop, bar)
                val = self._evaluate(self.model, data.val, stop)
                test = self._evaluate(self.model, data.test, stop) if config.test_every_epoch else None
                memory = peak_memory_mib(self.device)
                memory = None if memory is None else self.ranks.max(memory)
                position.sums.seconds = self.ranks.max(position.sums.seconds)
                best = position.end_epoch(val, memory, self.objective, test=test)
                if best:
                    position.keep_best(copy.deepcopy(self.model.state_dict()))
                self._save()
                if best:
                    self._write_best()
                self._write_metrics()
                bar.epoch(position.history[-1], config.epochs)
                if writer is not None:
                    writer.epoch(position.history[-1])
                self._hand_out(data)
            tested = copy.deepcopy(self.model)
            tested.load_state_dict(self._best_weights())
            with solving_with(tested, compile=False):  # one pass does not repay it
                more = {name: self._evaluate(tested, part, stop) for name, part in data.more_tests.items()}
                position.finish(self._evaluate(tested, data.test, stop), tested, self.objective, more)
            self._save()  # with the last weights, so that a longer run can go on from them
            self._write_metrics()
            self.model = tested

    def _best_weights(self) -> dict[str, Any]:
        best = self.position.best
        assert best is not None  # the first epoch is the best so far
        weights: dict[str, Any] = best["model"]
        return weights

    def _hand_out(self, data: DataSet) -> None:
        if self._on_epoch is not None and self.ranks.rank == 0:
            history = tuple(self.position.history)
            self._on_epoch(EpochRecord(self.folder, history[-1], history, self.model, data))

    def _train_epoch(self, data: Examples, stop: StopRequest, bar: ProgressBar) -> None:
        """The rest of the epoch under way, with a checkpoint every so many steps."""
        config, position = self.config, self.position
        self.model.train()
        choose_augmentation(data, config.seed, position.epoch)
        order = epoch_order(len(data), config.seed, position.epoch)
        for part in parts_of_batches(data, order, config.batch_size, self.ranks, start=position.batch):
            self._stop_if_asked(stop)
            start = time.perf_counter()
            self._train_step(None if part is None else on_device(part, self.device, self._dtype))
            position.sums.seconds += time.perf_counter() - start
            position.batch += 1
            bar.step(position.sums)
            if position.batch % config.checkpoint_every == 0:
                self._save()
        if position.sums.samples == 0:
            raise TrainingError(
                f"epoch {position.epoch + 1}: not one batch could be solved. Try a looser --rtol and "
                "--atol, a smaller --lr or another --denominator."
            )

    def _descend(self, model: nn.Module, x: Tensor, y: Tensor, *, total: int) -> EpochSums:
        config = self.config
        changes: dict[str, Any] = {} if self.position.dt is None else {"dt0": self.position.dt}
        if self.objective.weights:
            changes["penalties"] = tuple(name for name, _ in self.objective.weights)
        with solving_with(model, **changes):
            return descend(model, x, y, self.objective, total=total, parts=config.accumulate, amp=config.amp)

    def _train_step(self, part: tuple[Tensor, Tensor] | None) -> None:
        """One optimiser step on all ranks' parts. On failure weights and position stay what they were."""
        config, position = self.config, self.position
        self.optimizer.zero_grad(set_to_none=True)
        total = min(config.batch_size, self._n - position.batch * config.batch_size)
        sums, failure, cause = EpochSums(), "", None
        try:
            if part is not None:
                sums = self._descend(self.model, *part, total=total)
        except (*CANNOT_BE_SOLVED, SamplesFailed) as error:
            failure, cause = f"the solver could not go on: {error}", error
        failure = agree(sums, failure, self.ranks)
        if failure and config.on_solver_error == "stop":
            self._fail(failure, cause)
        if failure:
            self._skip(failure)
            return
        dt = handed_on(self.model, part is not None, self.ranks) if config.hand_on_dt else None
        self.ranks.add_gradients(self.model.parameters())
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip).item()  # host read
        told = not_finite(sums, norm, self.model, None if part is None else part[0])
        if told:
            self._fail(told, None)
        done = position.epoch * self.steps + position.batch
        lr = step_size(config.schedule, config.lr, done, config.epochs * self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        counts = (sums.nfe_forward, sums.nfe_backward)
        position.sums.add(sums.samples, sums.loss, sums.score, counts, sums.penalty)
        position.dt = dt

    def _keep_failure(self) -> None:
        """The state before the failing step, in failure.pt, for study."""
        state = self._state()
        self.ranks.first(lambda: save_checkpoint(self.folder.failure, state))

    def _skip(self, what: str) -> None:
        """Counts and reports a batch that is left out; the weights stay what they were."""
        self.optimizer.zero_grad(set_to_none=True)
        self._keep_failure()
        self.position.sums.skipped += 1
        epoch, batch = self.position.epoch + 1, self.position.batch
        say(
            f"epoch {epoch}, batch {batch} (counted from 0) skipped: {what}", quiet=self.quiet, above_bar=True
        )

    def _fail(self, what: str, cause: Exception | None) -> NoReturn:
        self._keep_failure()
        epoch, batch = self.position.epoch + 1, self.position.batch
        raise TrainingError(
            f"epoch {epoch}, batch {batch} (counted from 0): {what}. The weights before this step "
            f"are in {str(self.folder.failure)!r}; {str(self.folder.checkpoint)!r}, if there is one, "
            "is the last good checkpoint. Try a smaller --lr, a tighter --rtol and --atol, or "
            "--gradient discrete."
        ) from cause

    def _evaluate(self, model: nn.Module, data: Examples, stop: StopRequest) -> EpochSums:
        """Loss, score and forward NFE over a data set, in batches of the training's size."""
        sums, config = EpochSums(), self.config
        passes = evaluate(
            model,
            data,
            self.objective,
            batch_size=config.batch_size,
            ranks=self.ranks,
            amp=config.amp,
            dtype=self._dtype,
        )
        try:
            self._stop_if_asked(stop)
            for so_far in passes:
                sums = so_far
                self._stop_if_asked(stop)
        except TrainingError as error:
            raise TrainingError(
                f"epoch {self.position.epoch + 1}, {error}; {str(self.folder.checkpoint)!r}, if there is "
                "one, is the last good checkpoint. Try a smaller --lr."
            ) from error
        return sums

    def _stop_if_asked(self, stop: StopRequest) -> None:
        signum = int(self.ranks.max(stop.signum or 0))
        if signum:
            self._save()
            raise Interrupted(signum)

    def _state(self) -> dict[str, Any]:
        """Everything that decides the next number; the generators of all ranks."""
        first, *others = self.ranks.gather(rng_state())
        return {
            "config": self.config.to_dict(),
            "data": self._data,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": {**first, "others": others},
            **self.position.to_checkpoint(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.position = Position.from_checkpoint(state)
            generators = [state["rng"], *state["rng"]["others"]]
            if self.ranks.rank < len(generators):  # else there are more ranks now, seeded anew
                restore_rng_state(generators[self.ranks.rank])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"checkpoint {str(self.folder.checkpoint)!r} does not fit this model: {error}"
            ) from error

    def _save(self) -> None:
        state = self._state()
        self.ranks.first(lambda: save_checkpoint(self.folder.checkpoint, state))

    def _write_best(self) -> None:
        best = self.position.best
        if best is None:
            return
        metrics = {name: value for name, value in best.items() if name not in ("epoch", "model")}
        content = {"epoch": best["epoch"], "metrics": metrics, "model": best["model"]}
        state = {"config": self.config.to_dict(), **content}
        self.ranks.first(lambda: save_checkpoint(self.folder.best, state))

    def _write_metrics(self) -> None:
        history, final = self.position.history, self.position.final
        self.ranks.first(lambda: self.folder.write_metrics(history, final))

    def _announce(self) -> None:
        config = self.config
        block = "" if config.block == "ode" else f", block replaced by the {config.block}"
        text = (
            f"model     {config.model}: {count_parameters(self.model):,} parameters{block}; "
            f"{config.method}, rtol {config.rtol:g}, atol {config.atol:g}, gradient {config.gradient}"
        )
        say(wrapped(text, " " * 10), quiet=self.quiet)
