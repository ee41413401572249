"""Small solves that between them use every option of `solve`, for walks over steppings and gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from problems import Net, Swing, Tree, f64
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from adamode import Backsolve, Direct, Discrete, Event, Interpolating, Reversible, Signal, Solution, solve

STEPPINGS = ("shared", "per_sample")
GRADIENTS = (
    None,
    Discrete(),
    Discrete(checkpoints=2),
    Interpolating(),
    Backsolve(),
    Reversible(),
    Direct(),
)
Y = f64(0.4, -1.1, 0.8, 0.3, 0.7, -0.2).view(2, 3)
TREE = {"a": Y, "b": f64(0.5, -0.4)}
T = f64(0.0, 0.21, 0.5)


@dataclasses.dataclass(frozen=True)
class Bundle:
    """func, y0 and t of one solve, and its options by stepping; ask: what else to ask of the solution."""

    func: Callable[[], nn.Module]
    y0: Any
    t: Tensor
    options: Callable[[bool], dict[str, Any]] = lambda per_sample: {}
    ask: Callable[[Solution], list[Any]] = lambda sol: []


class Under(nn.Module):
    """A network under an input."""

    def __init__(self):
        super().__init__()
        self.net = Net()

    def forward(self, t: Tensor, y: Tensor, u: Tensor) -> Tensor:
        return self.net(t, y) + u


def signal(per_sample: bool) -> Signal:
    """An input with a gap, of all samples or of each at its own times."""
    times = f64(0.0, 0.2, 0.35, 0.5)
    if per_sample:
        times = torch.stack((times, f64(0.0, 0.3, 0.5, 0.5)))
    values = f64(0.3, -0.2, 0.5, 0.1).view(4, 1).expand(2, 4, 3).clone()
    values[0, 1, 2] = torch.nan
    return Signal(times, values, "cubic" if per_sample else "hold")


def event(per_sample: bool, level: float, *, terminal: bool) -> Event:
    """Where y[0, 0] (of each sample: y[0]) comes to a level."""
    fn = (lambda t, y: y[:, 0] - level) if per_sample else (lambda t, y: y[0, 0] - level)
    return Event(fn, terminal=terminal)


def own_norm(per_sample: bool) -> Callable[[Tensor], Any]:
    """A number of Python, as a user may well return."""
    return (lambda z: z.abs().amax(1)) if per_sample else (lambda z: float(z.abs().max()))


def dense(sol: Solution) -> list[Any]:
    at = torch.tensor([[0.05, 0.3], [0.45, 0.5]], dtype=torch.float64, device=sol.t.device)
    return [sol(at), sol.derivative(at)]


def events_found(sol: Solution) -> list[Any]:
    return [sol.t, sol.t_events, sol.y_events]


BUNDLES = {
    "max norm": Bundle(Net, Y, T, lambda per_sample: {"norm": "max", "compact": per_sample}),
    "stops, dense output, trace": Bundle(
        Net,
        Y,
        T,
        lambda per_sample: {
            "jump_at": [0.1, 0.3],
            "step_at": f64(0.4),
            "dt0": f64(0.05, 0.1) if per_sample else 0.1,
            "dense": True,
            "trace": True,
        },
        dense,
    ),
    "every step, an event, tolerances as tensors": Bundle(
        Net,
        Y,
        T,
        lambda per_sample: {
            "save": "steps",
            "events": event(per_sample, 0.48, terminal=False),
            "rtol": f64(1e-2, 1e-3, 1e-2),
            "atol": f64(1e-3)[0],
            "jump_at": 0.25,
        },
        events_found,
    ),
    "fixed steps backwards to an event": Bundle(
        Net,
        Y,
        -T,
        lambda per_sample: {
            "dt": 0.15,
            "method": "rk4",
            "events": [event(per_sample, 0.32, terminal=True)],
            "dense": True,
        },
        events_found,
    ),
    "the end alone, a norm of one's own, a pytree's tolerances": Bundle(
        Net,
        Y,
        T,
        lambda per_sample: {"save": "end", "norm": own_norm(per_sample), "method": "dop853", "dense": True},
        dense,
    ),
    "a pytree": Bundle(Tree, TREE, T, lambda per_sample: {"rtol": (1e-2, 1e-3), "step_at": 0.3}),
    "a signal": Bundle(Under, Y, T, lambda per_sample: {"signal": signal(per_sample), "compact": per_sample}),
    "a hand-written dynamics": Bundle(
        Swing,
        torch.stack((Y, 0.5 * Y)),
        T,
        lambda per_sample: {"norm": "blocks", **({"compact": True} if per_sample else {"sync_every": 2})},
    ),
    "an integral beside the state": Bundle(
        Net, Y, T, lambda per_sample: {"penalties": ("kinetic",)}, lambda sol: [sol.penalty("kinetic")]
    ),
    "sums over the steps of a dynamics": Bundle(
        Swing,
        torch.stack((Y, 0.5 * Y)),
        T,
        lambda per_sample: {"penalties": ("kinetic", "error")},
        lambda sol: [sol.penalty("kinetic"), sol.penalty("error")],
    ),
}


@dataclasses.dataclass(frozen=True)
class Given:
    """The arguments of one solve, on their device."""

    func: nn.Module
    y0: Any
    t: Tensor
    options: dict[str, Any]
    ask: Callable[[Solution], list[Any]]


def moved(x: Any, there: Callable[[Any], Any]) -> Any:
    """An option on a device."""
    if isinstance(x, Signal):
        return Signal(there(x.times), there(x.values).requires_grad_(), x.kind)
    return there(x) if isinstance(x, Tensor) else x


def given(name: str, stepping: str, there: Callable[[Any], Any], *, t_there: bool = True) -> Given:
    """A bundle's arguments.  there: moves to the device.  t_there: else the times stay on the host."""
    bundle, per_sample, t = BUNDLES[name], stepping == "per_sample", BUNDLES[name].t
    if per_sample and bundle.func is Swing:
        t = torch.stack((t, 0.6 * t))  # [B, T]
    t = t.clone().requires_grad_()
    options = {"rtol": 1e-2, "atol": 1e-3, "stepping": stepping, **bundle.options(per_sample)}
    return Given(
        there(bundle.func()),
        there(tree_map(lambda x: x.clone().requires_grad_(), bundle.y0)),
        there(t) if t_there else t,
        {name: moved(x, there) for name, x in options.items()},
        bundle.ask,
    )


def answer(asked: Given, gradient: Any) -> list[Tensor]:
    """All that a solve says and all its gradients, flat."""
    sol = solve(asked.func, asked.y0, asked.t, gradient=gradient, **asked.options)
    said = [x for x in tree_leaves([sol.y, asked.ask(sol)]) if isinstance(x, Tensor)]
    loss = sum((torch.nan_to_num(x) ** 2).sum().to(said[0], non_blocking=True) for x in said)
    inputs = (*tree_leaves(asked.y0), asked.t, *asked.func.parameters())
    grads = torch.autograd.grad(loss, inputs, allow_unused=True) if loss.requires_grad else ()
    return [*said, *(torch.zeros_like(x) if g is None else g for g, x in zip(grads, inputs, strict=False))]


def outcome(asked: Given, gradient: Any) -> list[Tensor] | tuple[str, str]:
    """The answer, or the kind of error and its text."""
    try:
        return answer(asked, gradient)
    except Exception as error:
        return type(error).__name__, str(error)
