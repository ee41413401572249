"""How time grows with batch, dimension, steps and the samples' differences; memory with the steps.

Steps are fixed where only a size shall change, so that every point makes the same evaluations. p between
neighbours is log(t₂/t₁)/log(n₂/n₁): 1 is linear, 0 is overhead alone.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from typing import Any

import torch

from adamode import Backsolve, Discrete, Interpolating
from adamode.models.dynamics import AdamODE
from adamode.models.fields import MLP

from .cases import Case, start
from .job import Job, Unavailable
from .measure import Row, Say, Settings, run_rounds
from .peers.ours import MODES, STEPPINGS, forward_job, gradient_job
from .plain import VanDerPol, oscillators, plain_of
from .way import OURS

BATCHES = (1, 4, 16, 64, 256, 1024, 4096, 16384)
DIMENSIONS = (2, 8, 32, 128, 512, 1024, 2048, 4096)
STEPS = (10, 30, 100, 300, 1000, 3000, 10000)
STIFFNESS = (1.0, 3.0, 10.0, 30.0, 100.0)
MEMORY_STEPS = (10, 30, 100, 300, 1000, 3000)
GRADIENTS: dict[str, dict[str, Any]] = {
    "discrete": {"gradient": Discrete()},
    "discrete-state": {"gradient": Discrete(keep="state")},
    "interpolating": {"gradient": Interpolating()},
    "backsolve": {"gradient": Backsolve()},
    **{f"discrete/{mode}": {"gradient": Discrete(), **extra} for mode, extra in MODES.items() if mode},
}
Sizes = Sequence[float]


def selected(patterns: str | None) -> dict[str, dict[str, Any]]:
    """Those of GRADIENTS that fit ("adamode/discrete/compiled", …); without patterns the eager ones: each
    size of each compiled one is compiled anew."""
    if not patterns:
        return {name: a for name, a in GRADIENTS.items() if "compile" not in a}
    wanted = [part.strip() for part in patterns.split(",")]
    return {name: a for name, a in GRADIENTS.items() if any(fnmatch(f"adamode/{name}", w) for w in wanted)}


@dataclasses.dataclass(frozen=True)
class Growth:
    """seconds: by way, one for each size; NaN where it could not run.
    more: other numbers, likewise.
    """

    what: str
    sizes: Sizes
    seconds: dict[str, list[float]]
    more: dict[str, list[float]] = dataclasses.field(default_factory=dict)


def exponents(sizes: Sizes, values: Sequence[float]) -> list[float]:
    """p between each size and the one before; NaN for the first."""
    found = [math.nan]
    for (n1, t1), (n2, t2) in zip(
        zip(sizes, values, strict=True), list(zip(sizes, values, strict=True))[1:], strict=False
    ):
        found.append(math.log(t2 / t1) / math.log(n2 / n1) if t1 > 0 and t2 > 0 else math.nan)
    return found


def _network_case(batch: int, dim: int, seed: int = 0) -> Case:
    """AdamNODE, 64–64, T = 1, in float32."""
    torch.manual_seed(seed)
    dynamics = AdamODE(MLP(dim, (64, 64)), alpha=0.3, beta=0.4, eps=1e-2).double()
    z0 = start(batch, dim)
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    return Case("", dynamics, plain_of(dynamics), z0, t, torch.randn(1, *z0.shape, dtype=z0.dtype), 1e-5)


def _fixed(case: Case, arguments: dict[str, Any], steps: int) -> Job:
    """A gradient with so many steps of the same size."""
    return gradient_job(case, case.dynamics, case.z0, {**arguments, "dt": 1.0 / steps})


def medians(makers: dict[str, Callable[[], Job]], settings: Settings) -> dict[str, float]:
    """CPU seconds (on a device, those between events) by name, in turn; NaN for what cannot run."""
    jobs: list[tuple[Row, Job]] = []
    found = dict.fromkeys(makers, math.nan)
    for name, make in makers.items():
        try:
            jobs.append((Row(name, OURS), make()))
        except (Unavailable, RuntimeError):
            continue
    run_rounds(jobs, settings)
    for row, job in jobs:
        clock = "wall" if getattr(job, "cuda", False) else "cpu"
        found[row.way] = statistics.median(row.seconds(clock))
        job.close()
    return found


def over(
    what: str,
    sizes: Sizes,
    jobs: Callable[[float], dict[str, Callable[[], Job]]],
    settings: Settings,
    say: Say,
) -> Growth:
    """One column a size."""
    seconds: dict[str, list[float]] = {}
    for n in sizes:
        for name, value in medians(jobs(n), settings).items():
            seconds.setdefault(name, []).append(value)
        say(f"scaling: {what} {n:g}")
    return Growth(what, sizes, seconds)


def _gradient_jobs(case: Case, steps: int, choices: dict[str, Any]) -> dict[str, Callable[[], Job]]:
    return {name: (lambda a=a: _fixed(case, a, steps)) for name, a in choices.items()}


def heterogeneity(
    stiffness: Sizes, batch: int, end: float, settings: Settings, say: Say, **to: Any
) -> Growth:
    """Van der Pol with μ from 1 to each limit, forward only; rows: evaluations of f × samples."""
    rows: dict[str, list[float]] = {name: [] for name in STEPPINGS}

    def jobs(limit: float) -> dict[str, Callable[[], Job]]:
        mu = torch.logspace(0, math.log10(limit), batch, dtype=torch.float64)
        z0 = oscillators(mu)
        t = torch.tensor([0.0, end], dtype=torch.float64)
        case = Case("", None, VanDerPol(), z0, t, torch.zeros(1, *z0.shape), 1e-5, kind="forward").to(**to)
        for name, arguments in STEPPINGS.items():
            rows[name].append(float(forward_job(case, arguments).counts().rows or 0))
        return {name: (lambda a=a: forward_job(case, a)) for name, a in STEPPINGS.items()}

    found = over("largest μ of the batch", stiffness, jobs, settings, say)
    return dataclasses.replace(found, more={f"rows, {name}": values for name, values in rows.items()})


def measure(
    settings: Settings, say: Say, *, quick: bool, device: str, ways: str | None = None
) -> list[Growth]:
    """All growths of time. ways: patterns of names, see `selected`."""
    choices = selected(ways)
    to = {"dtype": torch.float32, "device": device}
    settings = Settings(min(settings.rounds, 3 if quick else 9), settings.budget / 10, least=1)
    cut = (lambda sizes: sizes[:3]) if quick else (lambda sizes: sizes)

    def batch(n: float) -> dict[str, Callable[[], Job]]:
        return _gradient_jobs(_network_case(int(n), 8).to(**to), 10, choices)

    def dimension(n: float) -> dict[str, Callable[[], Job]]:
        return _gradient_jobs(_network_case(16, int(n)).to(**to), 10, choices)

    def steps(n: float) -> dict[str, Callable[[], Job]]:
        return _gradient_jobs(_network_case(16, 8).to(**to), int(n), choices)

    return [
        over("B", cut(BATCHES), batch, settings, say),
        over("D", cut(DIMENSIONS), dimension, settings, say),
        over("steps", cut(STEPS), steps, settings, say),
        heterogeneity(cut(STIFFNESS), 16 if quick else 256, 1.0 if quick else 5.0, settings, say, **to),
    ]


def table(found: Growth) -> str:
    """Markdown: a row a way, its milliseconds and below them p between neighbours."""
    known = {name: v for name, v in found.seconds.items() if not all(map(math.isnan, v))}
    lines = [
        "| " + " | ".join([f"ms over {found.what}", *(f"{n:,g}" for n in found.sizes)]) + " |",
        "|---|" + "---:|" * len(found.sizes),
    ]
    for name, values in known.items():
        cells = ["–" if math.isnan(v) else f"{1e3 * v:.3g}" for v in values]
        lines.append("| " + " | ".join([name, *cells]) + " |")
        powers = ["" if math.isnan(p) else f"{p:.2f}" for p in exponents(found.sizes, values)]
        lines.append("| " + " | ".join(["p", *powers]) + " |")
    for name, values in found.more.items():
        lines.append("| " + " | ".join([name, *(f"{v:,.0f}" for v in values)]) + " |")
    missing = [name for name in found.seconds if name not in known]
    text = "\n".join(lines) + "\n"
    return text + (f"\nUnavailable here: {', '.join(missing)}.\n" if missing else "")


def memory_tables(say: Say, *, quick: bool) -> str:
    """Bytes over the steps for each adjoint, by the adjoint study's own measurement."""
    try:
        from ..adjoints import growth, tables
    except ImportError as problem:  # it compares with torchdiffeq
        return f"Memory over the steps is not measured: {problem}.\n"
    steps = MEMORY_STEPS[:3] if quick else MEMORY_STEPS
    found, state = growth.growth(steps, say)
    parts = [f"Memory over the steps, B = 16, D = 8, float64 (one state is {state / 1024:.0f} KiB)."]
    for which, words in (("kept", "Kept between the two passes"), ("peak", "Peak of both")):
        parts.append(f"{words}:\n\n{tables.growth(found, steps, which)}")
        lines = []
        for name, one in found.items():
            powers = exponents(steps, getattr(one, which))[1:]
            lines.append(f"{tables.code(name)}: " + ", ".join(f"{p:.2f}" for p in powers))
        parts.append("p between neighbours – " + "; ".join(lines) + ".\n")
    return "\n\n".join(parts)


def text(growths: Sequence[Growth], memory: str) -> str:
    """All tables of a growth, as Markdown."""
    return "\n".join([*(table(one) for one in growths), memory])
