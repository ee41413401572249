"""Robertson's stiff reaction: trajectories from several starts, solved with our own engine.

A → B at 0.04 a second, B + B → B + C at 3·10⁷, B + C → A + C at 10⁴. Sources: H. H. Robertson, 1966, in
J. Walsh (ed.), Numerical Analysis: an Introduction, p. 178; as a task for a neural ODE, with rows evenly
spaced in log t from (1, 0, 0): S. Kim, W. Ji, S. Deng, Y. Ma, C. Rackauckas, Chaos 31, 093122 (2021).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...adjoint.solve import solve
from .card import DataCard, checksum
from .options import DataOptions
from .splits import DataSet, Samples

FIRST, LAST, ROWS = -5, 5, 50  # 10⁻⁵ … 10⁵ seconds; B is built up in the first thousandth of one
UNIT = 10.0**LAST  # the unit of time, 28 hours
SPECIES = ("A", "B", "C")
# What of A there is at first; the rest is C. Between each two for training lies one that is not.
SHARES = tuple(np.linspace(1.0, 0.3, 15).tolist())
PARTS = {"train": slice(0, None, 2), "validation": slice(1, None, 4), "test": slice(3, None, 4)}
RTOL, ATOL = 1e-5, 1e-10  # at most 2.2e-7 of a unit from what 1e-9 and 1e-15 give


def reaction(t: Tensor, y: Tensor) -> Tensor:
    """dy/dt a second, [B, 3], of the shares y of A, B and C."""
    a, b, c = y.unbind(-1)
    decay, meet, back = 0.04 * a, 3e7 * b * b, 1e4 * b * c
    return torch.stack((back - decay, decay - back - meet, meet), dim=-1)


def trajectories(shares: tuple[float, ...], times: Tensor) -> Tensor:
    """States [B, T, 3] at the times [T] in seconds, from (s, 0, 1 − s) at times[0] for each share s."""
    start = torch.tensor([[s, 0.0, 1.0 - s] for s in shares], dtype=torch.float64)
    solution = solve(
        reaction,
        start,
        times,
        method="radau5",
        rtol=RTOL,
        atol=ATOL,
        step_at=times[1:-1],  # a step's end is more accurate than what is between
        gradient=None,
    )
    return solution.y.transpose(0, 1).contiguous()


def load_robertson(options: DataOptions) -> DataSet:
    """Inputs [B, 51, 4], targets [B, 50, 3], float64: the time and the first state → the states after it.

    Each species is in units of its range over the training rows, and time in units of 10⁵ s.
    """
    rows = torch.logspace(FIRST, LAST, ROWS, dtype=torch.float64)
    seconds = torch.cat((torch.zeros_like(rows[:1]), rows))
    y = trajectories(SHARES, seconds)
    shown = y[PARTS["train"]].flatten(0, 1)
    unit = shown.amax(0) - shown.amin(0)
    parts = {name: samples(seconds / UNIT, (y / unit)[part]) for name, part in PARTS.items()}
    units = ", ".join(f"{s} {u:.3g}" for s, u in zip(SPECIES, unit.tolist(), strict=True))
    card = DataCard(
        name="robertson",
        source="generated: Robertson's stiff reaction, solved by radau5",
        counts={name: len(part) for name, part in parts.items()},
        shape=(ROWS + 1, 4),
        classes=0,
        sha256=checksum(y.numpy()),
        note=f"{ROWS} rows, 1e{FIRST} to 1e{LAST} s; units: {units} of the whole, {UNIT:g} s; no noise",
        task="regression",
    )
    return DataSet(parts["train"], parts["validation"], parts["test"], card)


def samples(times: Tensor, y: Tensor) -> Samples:
    """Trajectories y, [B, T, n], at the times [T] as inputs [B, T, 1 + n] and targets [B, T − 1, n].

    Column 0 of the input is the time, the others hold the state in row 0 and 0 after it.
    """
    inputs = torch.zeros(*y.shape[:2], 1 + y.shape[2], dtype=y.dtype)
    inputs[:, :, 0], inputs[:, 0, 1:] = times, y[:, 0]
    return Samples(inputs, y[:, 1:])
