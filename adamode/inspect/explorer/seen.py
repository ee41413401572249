"""What the attempts of a solve were made of, as arrays on the host, as much as a page holds."""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...adjoint.arguments import Request, clocks_differ
from ...adjoint.dynamics.protocol import Dynamics, named_blocks
from ...adjoint.solve import blocks_of
from ...solvers.attempts import Attempts, Look, TraceRow, kept_entries
from ...solvers.errors import ArgumentError

Floats = npt.NDArray[np.float64]

MOST_ROWS = 1500  # attempts in a page
BUDGET = 560_000  # characters of the vectors in a page


@dataclasses.dataclass(frozen=True)
class Seen:
    """The attempts that a page shows, in order.

    rows: of the trace; number: of each its number among all attempts, from 1.
    looks: of each what it was made of, and the position of its sample there.
    y0, y1: [n, c], of c entries; errors: [n, e, c] (NaN behind a method's own); stages: [n, s, c].
    positions: of these entries in a clock's state; labels: their names.
    """

    request: Request
    rows: list[TraceRow]
    number: list[int]
    looks: list[tuple[Look, int]]
    y0: Floats
    y1: Floats
    errors: Floats
    stages: Floats
    positions: list[int]
    labels: list[str]

    @property
    def many(self) -> bool:
        """Whether samples have clocks of their own."""
        return clocks_differ(self.request.options.stepping)

    @property
    def batch(self) -> int:
        """The state's axis of samples."""
        return 1 if isinstance(self.request.func, Dynamics) else 0


def seen_of(attempts: Any) -> Seen:
    """Those of a trace. Raises ArgumentError where there is nothing to show."""
    if not isinstance(attempts, Attempts):
        raise ArgumentError("this solve has no trace: solve with trace=True, and every attempt is kept.")
    if not attempts:
        raise ArgumentError("the trace is empty: the solve made no attempt.")
    if attempts.request is None:
        raise ArgumentError(
            "this trace came from a file, and what its attempts were made of did not: explore the "
            "solution where it was solved."
        )
    chosen = _chosen(attempts)
    if not chosen:
        raise ArgumentError(
            "this solve was made under a transform of torch.func: what its attempts were made of was not "
            "kept. Explore the same solve outside it."
        )
    looks = [attempts.seen[i] for i in chosen]
    rows = [attempts[i] for i in chosen]
    known = [look for look in looks if look is not None]
    vectors = _vectors(known)
    n_errors = max(look.errors for look, _ in known)
    n_stages = max(len(v) - 2 - look.errors for v, (look, _) in zip(vectors, known, strict=True))
    width = vectors[0].shape[1]
    size = len(known) * (2 + n_errors + n_stages + 3) * 8 * 4 / 3
    request = attempts.request
    most = max(1, min(width, int(BUDGET / size)))
    entries = kept_entries(width, blocks_of(request), most)
    entries = list(range(width)) if entries is None else entries
    errors = np.full((len(known), n_errors, len(entries)), math.nan)
    stages = np.full((len(known), n_stages, len(entries)), math.nan)
    for i, (v, (look, _)) in enumerate(zip(vectors, known, strict=True)):
        own = v[:, entries]
        errors[i, : look.errors] = own[2 : 2 + look.errors]
        stages[i, : len(own) - 2 - look.errors] = own[2 + look.errors :]
    y0, y1 = (np.stack([v[k, entries] for v in vectors]) for k in (0, 1))
    positions = entries if attempts.kept is None else [attempts.kept[i] for i in entries]
    numbers = [i + 1 for i in chosen]
    return Seen(
        *(request, rows, numbers, known, y0, y1, errors, stages),
        positions=positions,
        labels=labels_of(request, positions),
    )


def _chosen(attempts: Attempts) -> list[int]:
    """The rows with looks; of too many the first and the last, or with clocks a sample the first samples'."""
    with_looks = [i for i, look in enumerate(attempts.seen) if look is not None]
    if len(with_looks) <= MOST_ROWS:
        return with_looks
    counts: dict[int | None, int] = {}
    for i in with_looks:
        counts[attempts[i].sample] = counts.get(attempts[i].sample, 0) + 1
    total, kept = 0, set[int | None]()
    for sample in sorted(counts, key=lambda b: -1 if b is None else b):
        total += counts[sample]
        if kept and total > MOST_ROWS:
            break
        kept.add(sample)
    own = [i for i in with_looks if attempts[i].sample in kept]
    half = MOST_ROWS // 2
    return own if len(own) <= MOST_ROWS else own[:half] + own[-half:]


def _vectors(looks: Sequence[tuple[Look, int]]) -> list[Floats]:
    """Of each [2 + e + s, c]; one read of the device for all."""
    each = {id(look): look for look, _ in looks}
    flat = np.array(torch.cat([look.vectors.reshape(-1) for look in each.values()]).tolist())
    found, begun = {}, 0
    for key, look in each.items():
        n = look.vectors.numel()
        found[key] = flat[begun : begun + n].reshape(look.vectors.shape)
        begun += n
    return [found[id(look)][:, at] if look.vectors.dim() == 3 else found[id(look)] for look, at in looks]


def labels_of(request: Request, positions: Sequence[int]) -> list[str]:
    """Names of entries: y1, y2 …, or with indices from 0: h[0,2], y[1,0]."""
    layout, z0, func = request.layout, request.z0, request.func
    many, by_hand = clocks_differ(request.options.stepping), isinstance(func, Dynamics)
    shape = list(z0.shape)
    if many:
        del shape[1 if by_hand else 0]
    names = named_blocks(func)
    if not layout.single:
        return [f"z{i + 1}" for i in positions]
    found = []
    for i in positions:
        index = [int(k) for k in np.unravel_index(i, shape)] if shape else []
        name, part = "y", ""
        if layout.paired:
            part = ("Re ", "Im ")[index.pop()]
        if by_hand:
            block = index.pop(0)
            name = names[block] if names else f"z{block}"
        if len(index) == 1 and not by_hand:
            found.append(f"{part}{name}{index[0] + 1}")
        else:
            found.append(f"{part}{name}" + (f"[{','.join(str(k) for k in index)}]" if index else ""))
    return found


def packed(x: Floats) -> str:
    """Float64, little-endian, in base64: an exact number takes 11 characters."""
    return base64.b64encode(np.ascontiguousarray(x, dtype="<f8").tobytes()).decode("ascii")
