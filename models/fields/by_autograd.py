"""Any other f(t, h) as a field: its VJP by autograd.

It is also the slow twin of the hand-written ones: ``AutogradField(mlp)`` differentiates ``mlp(t, h)`` by
autograd.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...adjoint.dynamics.by_autograd import discover_parameters
from ...adjoint.dynamics.traced import module_vjp
from ...solvers.checks import check_call, has_tangent
from ...solvers.errors import ArgumentTypeError, DynamicsError
from ...solvers.step.field import around, leaf
from .field import Field, Gradients, copied, per_sample

# The way out for a field of other arguments. A lambda's weights would be none of the block's parameters.
WAY = "give it inside a module with forward(self, t, h), which returns net(h)"


class AutogradField(nn.Module):
    """Any f(t, h) → dh, an `nn.Module` or a function, with the field's four methods by autograd.

    func: f.
    params: the leaf tensors that a function depends on (a module's parameters are known); None: those that
        its graph reaches, looked up by `discover`.
    joined: how many blocks h joins in dim 1 (2 in the second-order model); f has the channels of one.
    channels_out: of f, where h joins something that is not a block, such as an input.
    The graph of each evaluation is in saved. Parameters' gradients of n stages are one
    `torch.autograd.grad` call over all of them, with the weights in the cotangents.
    Inside a compiled program there are no graphs: there `torch.func.vjp` makes the VJP of a module.
    """

    def __init__(
        self,
        func: Callable[[Tensor, Tensor], Tensor],
        params: tuple[Tensor, ...] | None = None,
        *,
        joined: int = 1,
        channels_out: int | None = None,
    ):
        super().__init__()
        check_call(func, "field", "field(t, h)", WAY)
        self.func, self.joined, self.channels_out = func, joined, channels_out
        self.open = params is None and not isinstance(func, nn.Module)
        self.params = tuple(params or ())

    _held: tuple[Tensor, ...] | None = None

    def for_solve(self) -> Any:
        """With the parameters of now: `torch.func.functional_call` takes its own away before the way back."""
        return copied(self, _held=self.theta())

    def __call__(self, t: Tensor, h: Tensor) -> Tensor:
        """f(t, h) itself."""
        return self.func(t, h)

    def theta(self) -> tuple[Tensor, ...]:
        """The parameters that require gradients, each once."""
        if self._held is not None:
            return self._held
        own = self.func.parameters() if isinstance(self.func, nn.Module) else ()
        found = {id(p): p for p in (*own, *self.params) if p.requires_grad}
        return tuple(found.values())

    def discover(self, t: Tensor, h: Tensor) -> int:
        """Finds a function's leaf tensors where none were named; returns the evaluations of f spent."""
        if self.open and torch.is_grad_enabled():
            self.params = tuple(discover_parameters(self.func, t, h))
            return 1
        return 0

    def forward(self, t: Tensor, h: Tensor) -> tuple[Tensor, Any]:
        """(f, (h, f with its graph)). Under grad mode f stays part of the caller's graph."""
        if torch.compiler.is_compiling():
            return self._traced(t, h)
        if torch.is_inference_mode_enabled() or around():  # no graph can be recorded, and none is wanted
            return self._checked(self.func(t, h), h), None
        outer = torch.is_grad_enabled()
        with torch.enable_grad():
            if not (outer and h.requires_grad):
                h = leaf(h)
            f = self._checked(self.func(t, h), h)
        return (f if outer or has_tangent(f) else f.detach()), (h, f)

    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """((∂f/∂h)ᵀc, c): the parameters' part waits for the weights (in a program: is there already)."""
        if callable(saved):
            h_bar, *gradients = saved(cotangent)
            return h_bar, gradients
        h, f = saved
        if not f.requires_grad:  # a constant field
            return torch.zeros_like(h), cotangent
        # The graph stays: the parameters' gradients follow, and FSAL stages are used twice.
        (h_bar,) = torch.autograd.grad(f, (h,), cotangent, retain_graph=True, allow_unused=True)
        return (torch.zeros_like(h) if h_bar is None else h_bar), cotangent

    def parameter_gradients(self, saved: list[Any], deltas: list[Any], weights: Tensor | None) -> Gradients:
        """One weighted `torch.autograd.grad` over all stages."""
        if deltas and isinstance(deltas[0], list):
            return tuple(sum(parts[1:], parts[0]) for parts in zip(*deltas, strict=True))
        theta = self.theta()
        outputs, cotangents = [], []
        for i, ((_, f), c) in enumerate(zip(saved, deltas, strict=True)):
            if f.requires_grad:
                outputs.append(f)
                cotangents.append(c if weights is None else c * per_sample(weights[i], c))
        if not theta or not outputs:
            return tuple(None for _ in theta)
        return torch.autograd.grad(outputs, theta, cotangents, retain_graph=True, allow_unused=True)

    def _traced(self, t: Tensor, h: Tensor) -> tuple[Tensor, Any]:
        """(f, its pullback to h and the parameters that require gradients), to be compiled."""
        if not isinstance(self.func, nn.Module) or self.params:
            raise DynamicsError("a plain function's parameters are not known; make it an nn.Module")
        value, pullback = module_vjp(self.func, t, h)
        return self._checked(value, h), pullback

    def _checked(self, f: Any, h: Tensor) -> Tensor:
        if not isinstance(f, Tensor):
            raise DynamicsError(f"field(t, h) returned a {type(f).__name__}; it must return a tensor like h.")
        like = tuple(h.shape)
        if self.joined > 1 or self.channels_out is not None:
            like = (h.shape[0], self.channels_out or h.shape[1] // self.joined, *h.shape[2:])
        if f.shape != like or f.dtype != h.dtype or f.device != h.device:
            seen, must = "h", "dh must have h's shape, dtype and device"
            if like != tuple(h.shape):
                seen, must = "[h, v]" if self.joined > 1 else "[h, …]", f"it must return {like}, like h alone"
            raise DynamicsError(
                f"field(t, {seen}) returned {tuple(f.shape)} of {f.dtype} on {f.device} for {seen} "
                f"{tuple(h.shape)} of {h.dtype} on {h.device}; {must}."
            )
        return f


def as_field(field: Any, *, joined: int = 1) -> Any:
    """The field itself where it has the four methods, else `AutogradField` around it.

    field: f(t, h) → dh.
    joined: see `AutogradField`.
    Raises ArgumentTypeError for something that cannot be called.
    """
    if isinstance(field, AutogradField) and field.joined != joined:
        return AutogradField(field.func, None if field.open else field.params, joined=joined)
    if isinstance(field, (Field, AutogradField)):
        return field
    if is_compiled(field):
        # torch.compile's wrapper shows its module's methods, but its forward is the module's call.
        return AutogradField(field, joined=joined)
    if all(
        callable(getattr(field, name, None)) for name in ("vjp", "parameter_gradients", "theta", "forward")
    ):
        return field
    if callable(field):
        return AutogradField(field, joined=joined)
    raise ArgumentTypeError(
        f"field={field!r} cannot be called; give a module or a function f(t, h) that returns dh like h."
    )


def is_compiled(func: object) -> bool:
    """Whether func is a module that `torch.compile` has wrapped."""
    return "_orig_mod" in getattr(func, "_modules", ())
