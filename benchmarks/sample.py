"""``python -m benchmarks.sample``: a sampler's fixed steps, `adamode.sample` beside torchdiffeq's `odeint`.

A batch of 64 states of d numbers in float32, 50 steps, one thread, no gradient; torchdiffeq as samplers call
it, with the times as its grid. The two take turns, and a ratio is that of the medians of processor time. The
field is a sine, which costs next to nothing, or a network d → 64 → d.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
import torchdiffeq
from torch import Tensor, nn

from adamode import sample

BATCH, STEPS, METHODS, SIZES = 64, 50, ("euler", "midpoint"), (32, 128, 512, 1024)
Field = Callable[[Tensor, Tensor], Tensor]


def fields(d: int) -> dict[str, Field]:
    """The fields for states of d numbers."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(d, 64), nn.SiLU(), nn.Linear(64, d))
    return {"sine": lambda t, y: torch.sin(y), "network": lambda t, y: net(y)}


def ratio(field: Field, d: int, method: str, rounds: int) -> tuple[float, float]:
    """Our median processor time as a part of torchdiffeq's; and ours, in seconds."""
    y0, t = torch.randn(BATCH, d), torch.linspace(0, 1, STEPS + 1)
    ways = (
        lambda: sample(field, y0, t, method=method),
        lambda: torchdiffeq.odeint(field, y0, t, method=method)[-1],
    )
    found: tuple[list[float], list[float]] = ([], [])
    with torch.no_grad():
        torch.testing.assert_close(ways[0](), ways[1](), rtol=1e-4, atol=1e-4)
        for _ in range(rounds):
            for way, seconds in zip(ways, found, strict=True):
                start = time.process_time()
                way()
                seconds.append(time.process_time() - start)
    ours, theirs = map(statistics.median, found)
    return ours / theirs, ours


def table(sizes: Sequence[int], rounds: int) -> str:
    """The ratios, a line a method and field."""
    lines = ["| method | field | " + " | ".join(f"d = {d}" for d in sizes) + " |"]
    lines.append("|---" * (2 + len(sizes)) + "|")
    for method in METHODS:
        for name in ("sine", "network"):
            cells = (ratio(fields(d)[name], d, method, rounds) for d in sizes)
            lines.append(
                f"| {method} | {name} | "
                + " | ".join(f"{part:.2f} ({s * 1e3:.1f})" for part, s in cells)
                + " |"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sample", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100, help="of each, by turns")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of a state")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("adamode.sample's processor time over torchdiffeq's (milliseconds of ours)\n")
    print(table(given.sizes, given.rounds))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
