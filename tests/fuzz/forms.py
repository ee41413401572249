"""What a user's state and a user's func may look like, around one and the same right-hand side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from adamode import Dynamics

from .flows import Flow, Theta

# form of the state → D, the entries of a sample
STATES = {"0d": 1, "B": 1, "BD": 2, "image": 4, "tuple": 3, "dict": 4, "blocks": 4}
FUNCS = (
    "closure",
    "module",
    "hand",
    "buffer",
    "view",
    "expanded",
    "itself",
    "after",
    "in_place",
    "other_shape",
)
REFUSED_FUNCS = ("in_place", "other_shape")
MOST_CALLS = 60_000  # an event is given up after 2,000 accepted steps: dop853 takes 12 to 20 calls for each


class RanAwayError(Exception):
    """func was called more often than any of these problems needs."""


def to_state(form: str, y: Tensor) -> Any:
    """[…, B, D] in the user's form; front axes stay in front."""
    front = y.shape[:-2]
    if form == "0d":
        return y.reshape(front)
    if form == "B":
        return y[..., 0]
    if form == "image":
        return y.unflatten(-1, (2, 2, 1))
    if form == "tuple":
        return y[..., :2], y[..., 2]
    if form == "dict":
        return {"a": y[..., :1, None], "b": y[..., 1:]}
    if form == "blocks":
        return y.unflatten(-1, (2, 2)).movedim(-2, -3)
    return y


def from_state(form: str, state: Any) -> Tensor:
    """The user's form as […, B, D]."""
    if form == "0d":
        return state[..., None, None]
    if form == "B":
        return state[..., None]
    if form == "image":
        return state.flatten(-3)
    if form == "tuple":
        return torch.cat((state[0], state[1][..., None]), -1)
    if form == "dict":
        return torch.cat((state["a"].flatten(-2), state["b"]), -1)
    if form == "blocks":
        return state.movedim(-3, -2).flatten(-2)
    return state


def from_sample(form: str, state: Any) -> Tensor:
    """States of one sample, [n, *S] in the user's form, as [n, D]."""
    if form == "blocks":
        return state.flatten(-2)
    batched = pytree.tree_map(lambda leaf: leaf[:, None], state)  # [n, B = 1, *S]
    return from_state(form, batched)[:, 0]


def column(t: Tensor) -> Tensor:
    """f's t as the right-hand side wants it: 0-d, or [b, 1]."""
    return t if t.dim() == 0 else t.reshape(-1, 1)


def dressed(form: str, leaf: Tensor) -> Tensor:
    """A leaf of dy/dt as a func of this form returns it."""
    if form == "view":
        return torch.stack((leaf, torch.zeros_like(leaf)), -1)[..., 0]
    if form == "expanded":  # uniform flows only: one number for a sample, or for all
        return leaf.reshape(len(leaf), -1)[:, :1].reshape(-1, *[1] * (leaf.dim() - 1)).expand(leaf.shape)
    if form == "after":
        return leaf.clone().mul_(0.5).mul_(2.0)
    if form == "other_shape":
        return leaf[..., None]
    return leaf


class Field:
    """func of one case: counts its calls, and how many of them made a graph."""

    def __init__(self, flow: Flow, state: str, form: str, theta: Theta):
        self.flow, self.state, self.form, self.theta = flow, state, form, theta
        self.calls = self.calls_with_grad = 0
        self.memory: dict[tuple[int, ...], Tensor] = {}

    def rate(self, t: Tensor, y: Any) -> Any:
        """dy/dt in the user's form, in new memory."""
        self.calls += 1
        if self.calls > MOST_CALLS:
            raise RanAwayError
        dy = self.flow.rhs(column(t), from_state(self.state, y), self.theta)
        self.calls_with_grad += dy.requires_grad
        return to_state(self.state, dy)

    def __call__(self, t: Tensor, y: Any) -> Any:
        """The same as the case's kind of func returns it."""
        if self.form == "itself":
            self.rate(t, y)
            return y
        if self.form == "in_place":
            pytree.tree_map(lambda leaf: leaf.mul_(1.0), y)
            return self.rate(t, y)
        if self.form == "buffer":
            return pytree.tree_map(self._buffered, self.rate(t, y))
        return pytree.tree_map(lambda leaf: dressed(self.form, leaf), self.rate(t, y))

    def _buffered(self, leaf: Tensor) -> Tensor:
        """One and the same memory, overwritten at every call."""
        held = self.memory.setdefault(tuple(leaf.shape), torch.empty_like(leaf))
        return held.detach_().copy_(leaf)


class Module(nn.Module):
    """The same as an nn.Module, whose parameters theta are."""

    def __init__(self, field: Field):
        super().__init__()
        self.field, self.theta = field, nn.ParameterList(field.theta)

    def forward(self, t: Tensor, y: Any) -> Any:
        return self.field(t, y)


class Hand(Dynamics):
    """The same as a Dynamics; its products are autograd's, summed as the protocol wants them."""

    def __init__(self, field: Field):
        self.field = field

    def theta(self) -> Theta:
        return self.field.theta

    def rate(self, t: Tensor, z: Tensor) -> Tensor:
        return self.field.rate(t, z)

    def forward(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        return self.rate(t, z), (t, z.detach())

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        (t, z), a = saved, cotangent
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            dz = self.rate(t, z)
            found = torch.autograd.grad(dz, z, a, allow_unused=True)[0]
        return torch.zeros_like(z) if found is None else found, a

    def parameter_gradients(
        self, saved: list[Any], deltas: list[Any], weights: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        wanted = [p for p in self.theta() if p.requires_grad]
        total = [torch.zeros_like(p) for p in wanted]
        ones = [1.0] * len(saved) if weights is None else [w.reshape(-1, 1) for w in weights]
        for weight, (t, z), a in zip(ones, saved, deltas, strict=True):
            with torch.enable_grad():
                dz = self.rate(t, z)
                found = torch.autograd.grad(dz, wanted, weight * a, allow_unused=True) if wanted else ()
            total = [s if g is None else s + g for s, g in zip(total, found, strict=True)]
        named = iter(total)
        return tuple(next(named) if p.requires_grad else None for p in self.theta())


class Plain(nn.Module):
    """func with nothing that a program could not be compared by: it counts no calls."""

    def __init__(self, flow: Flow, state: str, form: str, theta: Theta):
        super().__init__()
        self.rhs, self.state, self.form = flow.rhs, state, form
        self.values = nn.ParameterList(theta)

    def forward(self, t: Tensor, y: Any) -> Any:
        if self.form == "itself":
            return y
        dy = to_state(self.state, self.rhs(column(t), from_state(self.state, y), tuple(self.values)))
        return pytree.tree_map(lambda leaf: dressed(self.form, leaf), dy)


class PlainHand(nn.Module, Dynamics):
    """The same as a Dynamics."""

    def __init__(self, flow: Flow, state: str, theta: Theta):
        super().__init__()
        self.rhs, self.state, self.values = flow.rhs, state, nn.ParameterList(theta)

    def theta(self) -> Theta:
        return tuple(self.values)

    def rate(self, t: Tensor, z: Tensor) -> Tensor:
        return to_state(self.state, self.rhs(column(t), from_state(self.state, z), tuple(self.values)))

    def forward(self, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        return self.rate(t, z), (t, z.detach())

    vjp = Hand.vjp
    parameter_gradients = Hand.parameter_gradients


def make_func(field: Field) -> Callable[[Tensor, Any], Any] | Dynamics:
    """func as `solve` or `odeint` gets it."""
    if field.form == "module":
        return Module(field)
    if field.form == "hand":
        return Hand(field)
    return lambda t, y: field(t, y)


def make_plain(flow: Flow, state: str, form: str, theta: Theta) -> Plain | PlainHand:
    """func as a program can be made of it."""
    return PlainHand(flow, state, theta) if form == "hand" else Plain(flow, state, form, theta)
