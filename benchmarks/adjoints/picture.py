"""docs/images/adjoint-memory.png: memory over the number of steps, log–log."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from .growth import Growth

STYLE = {
    "Direct()": ("0.55", "s", "--"),
    "Interpolating()": ("tab:purple", "v", "-"),
    'Discrete(keep="stages")': ("tab:red", "o", "-"),
    'Discrete(keep="state")': ("tab:orange", "o", "-"),
    "Discrete(checkpoints=⌈√N⌉)": ("tab:green", "^", "-"),
    "Discrete(checkpoints=⌈log₂N⌉)": ("tab:blue", "D", "-"),
    "Backsolve()": ("black", "x", "-"),
    "Reversible()": ("tab:cyan", "P", "-"),
}


def draw(found: dict[str, Growth], steps: Sequence[int], state: int, target: Path) -> None:
    """Two panels: kept after the forward pass, and the peak of forward and backward."""
    figure, axes = plt.subplots(1, 2, figsize=(12.5, 4.4), sharey=True, layout="constrained")
    titles = ("kept between forward and backward", "peak of forward + backward")
    for axis, title, which in zip(axes, titles, ("kept", "peak"), strict=True):
        for name, growth in found.items():
            colour, marker, line = STYLE[name]
            values = [b / 1024 for b in getattr(growth, which)]
            axis.loglog(steps, values, line, color=colour, marker=marker, markersize=5, label=name)
        axis.axhline(state / 1024, color="0.8", linewidth=1, zorder=0)
        axis.annotate("one state", (steps[0], state / 1024), color="0.5", va="bottom", fontsize=8)
        axis.set(xlabel="steps N", title=title)
        axis.set_xticks(steps, [f"{n:,}" for n in steps])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("tensor memory, KiB")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, loc="outside right center")
    figure.suptitle("AdamNODE's dynamics, B = 16, D = 8, float64, dopri5 with fixed steps", fontsize=11)
    scratch = target.with_name(f".{target.stem}.{os.getpid()}.png")
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(scratch, dpi=110)
    plt.close(figure)
    scratch.replace(target)
