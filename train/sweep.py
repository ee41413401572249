"""Many runs, each in a process of its own, a bounded number at once; what is finished is not run again."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..solvers.errors import ArgumentError
from .config import TrainConfig
from .own_settings import plain_name, run_name
from .runs import RunFolder

LOGS = "sweep-logs"  # in the folder of the runs; it holds no config.json, so it is taken for no run


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of a sweep, checked. state: "new", "unfinished" (it will be gone on with) or "finished"."""

    config: TrainConfig
    state: str

    def command(self) -> list[str]:
        """The process that makes it: this Python, the program, the settings from a file."""
        program = [sys.executable, "-m", "adamode", "train", "--config", str(self.settings), "--quiet"]
        return [*program, "--resume"] if self.state == "unfinished" else program

    @property
    def settings(self) -> Path:
        """The TOML file that the process reads."""
        return Path(self.config.output_dir) / LOGS / f"{self.config.name}.toml"

    @property
    def log(self) -> Path:
        """What the process says."""
        return Path(self.config.output_dir) / LOGS / f"{self.config.name}.log"


@dataclasses.dataclass(frozen=True)
class Ended:
    """A job that ended: its exit status (0 done) and the last line that it said."""

    job: Job
    status: int
    said: str


def plan(base: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]) -> list[Job]:
    """One job for each combination of the axes' values over the common settings.

    base: settings of `TrainConfig`; ``name``, where given, begins every run's name.
    axes: {setting: values}, for instance {"model": ["node", "adamnode"], "seed": [0, 1, 2]}.
    Every configuration is checked, and every folder looked at, before anything is started.
    Raises: ArgumentError for settings that mean nothing, CheckpointError for a folder that holds another
    run under the name.
    """
    for name, values in axes.items():
        if name in ("name", "output_dir") or not values:
            raise ArgumentError(f"{name}={list(values)!r} cannot be swept over; give values of a setting.")
        if len(set(map(str, values))) < len(values):
            raise ArgumentError(f"{name}={list(values)!r}: a value is there twice; name each once.")
    jobs = []
    for values in itertools.product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        config = TrainConfig.from_dict({**base, **chosen})
        jobs.append(_looked_up(dataclasses.replace(config, name=_name(config, base, chosen))))
    return jobs


def _name(config: TrainConfig, base: Mapping[str, Any], chosen: Mapping[str, Any]) -> str:
    """For instance adamnode-digits-seed=1-lr=0.01."""
    control = "-identity" if config.block == "identity" else ""
    stem = [str(base["name"])] if base.get("name") else []
    stem.append(run_name(config.model, config.dataset, config) + control)
    rest = [plain_name(f"{k}={v}") for k, v in chosen.items() if k not in ("model", "dataset", "block")]
    return "-".join([*stem, *rest])


def _looked_up(config: TrainConfig) -> Job:
    folder = RunFolder(config.folder)
    if not folder.path.exists() or not any(folder.path.iterdir()):
        return Job(config, "new")
    state = folder.open(config, resume=folder.checkpoint.exists())
    if state is None:
        return Job(config, "new")
    # One that was made shorter goes on to the length asked for; one that stopped early has its reason.
    short = state["epoch"] < config.epochs and not config.patience
    return Job(config, "unfinished" if state["final"] is None or short else "finished")


def run_sweep(
    jobs: Sequence[Job],
    *,
    at_once: int,
    on_start: Callable[[Job], None] = lambda job: None,
    on_end: Callable[[Ended], None] = lambda ended: None,
    poll: float = 0.1,  # seconds between looks, against runs of minutes
) -> list[Ended]:
    """Runs what is not finished, at most ``at_once`` processes at a time; a failure stops no other run.

    What a run says is kept in <output_dir>/sweep-logs/<name>.log. Ctrl-C asks all processes to save
    their checkpoints and end, and waits for them. Raises: ArgumentError where a log cannot be written.
    """
    waiting = [job for job in jobs if job.state != "finished"]
    running: dict[subprocess.Popen[bytes], Job] = {}
    ended: list[Ended] = []
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                running[_start(job)] = job
                on_start(job)
            for process in [p for p in running if p.poll() is not None]:
                job = running.pop(process)
                ended.append(Ended(job, process.returncode, _last_line(job.log)))
                on_end(ended[-1])
            if running:
                time.sleep(poll)
    except BaseException:
        for process in running:
            with contextlib.suppress(OSError):
                process.terminate()
        for process in running:
            process.wait()
        raise
    return ended


def _start(job: Job) -> subprocess.Popen[bytes]:
    # Each run is one process, also where the sweep itself was started by torchrun.
    ranks = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    environment = {k: v for k, v in os.environ.items() if k not in ranks}
    environment["OMP_NUM_THREADS"] = str(job.config.threads)
    try:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        job.config.to_toml(job.settings)
        with open(job.log, "wb") as log:
            return subprocess.Popen(
                job.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the sweep alone, which then asks each to save
            )
    except OSError as error:
        raise ArgumentError(
            f"output_dir={job.config.output_dir!r}: the run's process and log cannot be made ({error}); "
            "choose another --output-dir."
        ) from error


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return next((line for line in reversed(lines) if line.startswith("error:")), lines[-1] if lines else "")
