"""A progress bar for long solves, without a word to the solver: it watches the times func is asked at."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

INTERVAL = 0.2  # seconds between looks at t: on a GPU each look waits for the device


class _Watched(nn.Module):
    """A module, its times looked at; its parameters stay visible."""

    def __init__(self, func: nn.Module, seen: Callable[[Tensor], None]):
        super().__init__()
        self.func, self.seen = func, seen

    def forward(self, t: Tensor, y: Any) -> Any:
        """The watched function's own value at (t, y)."""
        self.seen(t)
        return self.func(t, y)


@contextmanager
def progress(
    func: Callable[[Tensor, Any], Any],
    t0: float,
    t1: float,
    *,
    label: str = "solve",
    delay: float = 1.0,
    **bar_options: Any,
) -> Iterator[Callable[[Tensor, Any], Any]]:
    """Gives func, to be solved with inside the block, and shows on stderr how far it has come.

    t0, t1: where the solve begins and ends.
    delay: seconds before the bar appears; a short solve shows none.
    bar_options: to tqdm. With per-sample steps it shows the mean over the samples. The share of the interval,
        not of the work: small steps make it slow.
    """
    from tqdm.auto import tqdm

    layout = "{desc} {percentage:3.0f} %|{bar}| {postfix} [{elapsed}<{remaining}]"
    often = {"miniters": 0, "mininterval": 0.0}  # INTERVAL decides
    look = {"bar_format": layout, "leave": False, "dynamic_ncols": True}
    options = {**often, **look, "delay": delay, **bar_options}
    with tqdm(total=1.0, desc=label, **options) as bar:
        calls, last = 0, 0.0

        def seen(t: Tensor) -> None:
            nonlocal calls, last
            calls += 1
            now = time.monotonic()
            if now - last < INTERVAL:
                return
            last = now
            with torch.no_grad():
                reached = float(t.double().mean())  # host read
            # A rejected step has looked ahead: the bar does not go back for it.
            share = min(1.0, (reached - t0) / (t1 - t0))
            bar.set_postfix_str(f"t={reached:.4g}, {calls} evaluations", refresh=False)
            bar.update(max(0.0, share - bar.n))

        def watched(t: Tensor, y: Any) -> Any:
            seen(t)
            return func(t, y)

        # solve asks a Module for its parameters, and another callable's graph for its leaves.
        yield _Watched(func, seen) if isinstance(func, nn.Module) else watched
