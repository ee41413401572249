"""``python -m benchmarks.flows``: flows of a checkerboard, ours and torchdiffeq's.

All see the same batches, from the same start weights of the same network, for the same number of steps.
Prints a line a flow and seed: nats of the test set (negative log-likelihood; with momenta the evidence bound,
and the weighted one), evaluations of f a training step, and seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal

import adamode
from adamode.models.density_model import NormalMomenta
from adamode.models.fields import MLP

WIDTHS, BATCH, RATE, TOLERANCE = (64, 64), 256, 3e-3, 1e-4
ENTROPY = math.log(32)  # nats of the checkerboard itself: uniform on 8 squares of side 2
DRAWS = 64  # of the weighted bound, at the end
FLOWS = ("node", "torchdiffeq", "hbnode", "ghbnode", "adamnode", "hbnode+q", "ghbnode+q", "adamnode+q")


def checkerboard(n: int, generator: torch.Generator) -> Tensor:
    """Points uniform on the dark squares of a 4 × 4 board of side 8, [n, 2]."""
    x = torch.rand((n, 2), generator=generator) * torch.tensor([8.0, 2.0])
    row = torch.randint(0, 2, (n,), generator=generator) * 2 + (x[:, 0] // 2) % 2
    return torch.stack((x[:, 0] - 4, x[:, 1] + 2 * row - 4), 1)


class Theirs(nn.Module):
    """The same flow by torchdiffeq, its trace by autograd."""

    def __init__(self, field: nn.Module):
        super().__init__()
        self.field, self.calls = field, 0

    def forward(self, t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """(f, tr ∂f/∂x)."""
        self.calls += 1
        with torch.enable_grad():
            x = y[0] if y[0].requires_grad else y[0].detach().requires_grad_()
            f = self.field(t, x)
            rows = (torch.autograd.grad(f[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(2))
            return f, sum(rows, torch.zeros_like(y[1]))

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact but for the solver's tolerance, [B]."""
        import torchdiffeq

        times, start = torch.tensor([1.0, 0.0]), (x.requires_grad_(), torch.zeros(len(x)))
        both = torchdiffeq.odeint(self, start, times, rtol=TOLERANCE, atol=TOLERANCE)
        return Normal(0.0, 1.0).log_prob(both[0][-1]).sum(1) + both[1][-1]


def build(name: str, seed: int, end: float = 1.0) -> nn.Module:
    """The flow of that name, the same network in each. end: where the data are; torchdiffeq's are at 1."""
    torch.manual_seed(seed)
    field, kind = MLP(2, WIDTHS), name.removesuffix("+q")
    if kind == "torchdiffeq":
        return Theirs(field)
    options: dict[str, Any] = {"rtol": TOLERANCE, "atol": TOLERANCE, "t": (0.0, end)}
    if kind == "node":
        return adamode.Flow(adamode.NODE(field, **options))
    if kind == "adamnode":
        options |= {"denominator": "softplus"}
    make: Callable[..., Any] = {
        "hbnode": adamode.HBNODE,
        "ghbnode": adamode.GHBNODE,
        "adamnode": adamode.AdamNODE,
    }[kind]
    auxiliary = NormalMomenta(2, 2 if kind == "adamnode" else 1) if name.endswith("+q") else None
    return adamode.Flow(make(field, **options), auxiliary=auxiliary)


@dataclasses.dataclass(frozen=True)
class Row:
    """What came out. nats: −log p(x), or −the evidence bound; weighted: −the weighted bound."""

    flow: str
    seed: int
    nats: float
    weighted: float
    nfe: float
    seconds: float

    def __str__(self) -> str:
        both = f"{self.nats:.3f} | {'–' if math.isnan(self.weighted) else f'{self.weighted:.3f}'}"
        return f"| {self.flow} | {self.seed} | {both} | {self.nfe:.0f} | {self.seconds:.0f} |"


def train(name: str, seed: int, steps: int, end: float) -> tuple[Row, nn.Module]:
    """Trains a flow by Adam, the rate falling to 0 along a cosine."""
    flow, make = build(name, seed, end), torch.Generator().manual_seed(1000 + seed)
    optimiser = torch.optim.Adam(flow.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    began, calls = time.perf_counter(), 0
    for _ in range(steps):
        loss = -flow.log_prob(checkerboard(BATCH, make)).mean()  # type: ignore[operator]
        calls += flow.calls if isinstance(flow, Theirs) else flow.last_stats.nfe  # type: ignore[union-attr]
        flow.calls = 0  # type: ignore[assignment]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    seconds = time.perf_counter() - began
    torch.manual_seed(0)
    nats, weighted = tested(flow)
    return Row(name, seed, nats, weighted, calls / steps, seconds), flow


@torch.no_grad()
def tested(flow: Any) -> tuple[float, float]:
    """Nats of points that no training saw, exact or by the evidence bound, and by the weighted one."""
    x = checkerboard(4096, torch.Generator().manual_seed(1))
    if isinstance(flow, Theirs) or len(flow.blocks) == 1:
        return float(-flow.log_prob(x).mean()), math.nan
    bounds = [flow.bounds(part, DRAWS) for part in x.split(512)]
    evidence, weighted = (torch.cat([bound[i] for bound in bounds]).mean() for i in range(2))
    return -float(evidence), -float(weighted)


def picture(flow: Any, path: Path) -> None:
    """Samples of a flow of ours."""
    from adamode.plotting import BLUE, save_figure

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.scatter(*flow.sample(4000).t().numpy(), s=1, color=BLUE)
        axes.set(xlim=(-5, 5), ylim=(-5, 5), aspect="equal")

    save_figure(path, draw, size=(4.0, 4.0))


def rows(names: list[str], seeds: int, steps: int, end: float) -> Iterator[tuple[Row, nn.Module]]:
    """Every flow with every seed."""
    for seed in range(seeds):
        for name in names:
            yield train(name, seed, steps, end)


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flows", description=__doc__)
    parser.add_argument("--flows", nargs="+", choices=FLOWS, default=list(FLOWS))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--end", type=float, default=1.0, help="of the time of our flows, from 0")
    parser.add_argument("--picture", type=Path, help="a folder for samples of each flow of ours")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(f"checkerboard: {ENTROPY:.3f} nats at best; {given.steps} steps of {BATCH}\n")
    print("| flow | seed | nats | weighted | NFE | seconds |\n|---|---|---|---|---|---|")
    for row, flow in rows(given.flows, given.seeds, given.steps, given.end):
        print(row, flush=True)
        if given.picture is not None and not isinstance(flow, Theirs):
            picture(flow, given.picture / f"{row.flow}-{row.seed}.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
