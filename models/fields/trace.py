"""The trace of a field's Jacobian, exact or by Hutchinson's probes, and fields whose samples are mixed.

Hutchinson's estimate is the mean of eᵀ(∂f/∂x)e over probes e with mean 0 and covariance 1.
Source: M. F. Hutchinson, Commun. Stat. Simul. 18 (1989) 1059–1076; in flows W. Grathwohl, R. T. Q. Chen,
J. Bettencourt, I. Sutskever, D. Duvenaud, FFJORD, ICLR 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ...solvers.checks import has_tangent
from ...solvers.errors import DynamicsError
from ...solvers.step.field import around, leaf
from .dense import _Dense
from .dense_trace import DenseTrace

Function = Callable[[Tensor, Tensor], Tensor]
_PACKAGE = __name__.partition(".")[0]


def dense_trace(field: Any, probes: Tensor | None = None) -> DenseTrace | None:
    """The trace by layers; None of a field that is none of our dense ones with plain layers."""
    if not isinstance(field, _Dense) or type(field).__module__.partition(".")[0] != _PACKAGE:
        return None
    # A parametrised layer makes its weight of other tensors, and what is by hand is the weight's gradient.
    plain = all(layer._parameters.keys() >= {"weight", "bias"} for layer in field.layers)
    return DenseTrace.of(field, probes) if plain else None


def value_and_trace(
    field: Function, t: Tensor, x: Tensor, probes: Tensor | None = None, *, graph: bool = True
) -> tuple[Tensor, Tensor]:
    """(f(t, x), tr ∂f/∂x), like x and [B], differentiable under grad mode.

    field: f(t, x) → dx, of which row i depends on row i of x alone.
    x: [B, *S].
    probes: [K, B, *S] of Hutchinson's estimate; None: the exact trace, by as many VJPs as x has numbers.
    graph: of the trace too, of a field that is differentiated by autograd.
    Raises DynamicsError where f is not like x.
    """
    by_layers = dense_trace(field, probes)
    if by_layers is not None:
        f, saved = by_layers.field.forward(t, x)
        return f, by_layers.value(saved)
    if around():
        return _by_transform(field, t, x, probes)
    if torch.is_inference_mode_enabled():
        with torch.inference_mode(False):
            return _by_autograd(field, t.clone(), x.clone(), probes, graph)
    return _by_autograd(field, t, x, probes, graph)


def _by_autograd(
    field: Function, t: Tensor, x: Tensor, probes: Tensor | None, graph: bool
) -> tuple[Tensor, Tensor]:
    outer = torch.is_grad_enabled()
    with torch.enable_grad():
        own = x if outer and x.requires_grad else leaf(x)
        f = checked(field(t, own), x)
        total = torch.zeros_like(f.flatten(1).sum(1) if f.dim() > 1 else f)
        if f.requires_grad:
            for e, weight in directions(x, probes):
                (bar,) = torch.autograd.grad(
                    f, (own,), e, create_graph=outer and graph, retain_graph=True, allow_unused=True
                )
                if bar is None:
                    break
                total = total + _per_row(bar * e) * weight
    if outer:
        return f, total
    return (f, total) if has_tangent(f) or has_tangent(total) else (f.detach(), total.detach())


def _by_transform(field: Function, t: Tensor, x: Tensor, probes: Tensor | None) -> tuple[Tensor, Tensor]:
    """The same by torch.func, inside whose transforms autograd's own is not to be called."""
    f, pullback, *_ = torch.func.vjp(lambda own: checked(field(t, own), own), x)
    terms = [_per_row(pullback(e)[0] * e) * weight for e, weight in directions(x, probes)]
    return f, sum(terms[1:], terms[0])


def _per_row(product: Tensor) -> Tensor:
    return product.flatten(1).sum(1) if product.dim() > 1 else product


def directions(x: Tensor, probes: Tensor | None) -> Iterator[tuple[Tensor, float]]:
    """Each e, like x, and its weight."""
    if probes is not None:
        yield from ((e, 1 / len(probes)) for e in probes)
        return
    shape = x.shape[1:]
    for i in range(math.prod(shape)):
        e = torch.zeros(math.prod(shape), dtype=x.dtype, device=x.device)
        e[i] = 1.0
        yield e.view(shape).expand(x.shape), 1.0


def checked(f: Any, x: Tensor) -> Tensor:
    """What a field returned; DynamicsError where it is not like x."""
    if not isinstance(f, Tensor):
        raise DynamicsError(f"field(t, x) returned a {type(f).__name__}; it must return a tensor like x.")
    if f.dtype != x.dtype and f.is_floating_point() and torch.is_autocast_enabled(x.device.type):
        f = f.to(x.dtype)
    if (f.shape, f.dtype, f.device) != (x.shape, x.dtype, x.device):
        raise DynamicsError(
            f"field(t, x) returned {tuple(f.shape)} of {f.dtype} on {f.device} for x {tuple(x.shape)} of "
            f"{x.dtype} on {x.device}; dx must be like x."
        )
    return f


def mixed_sample(field: Function, t: Tensor, x: Tensor) -> int | None:
    """A row of f that depends on another row of x, or None; one host read.

    With cotangents w_j u at f's rows, x̄_i = w_i G_ii + Σ_j≠i w_j G_ij, G_ij the pullback of u from f's row j
    to row i. It is compared for two sets of w, w = 1 and powers of two, so that without other rows the two
    differ by an exact factor and what is left is no rounding. Rows whose w are alike are not told apart: of
    any 8 that follow one another none are.
    """
    with torch.inference_mode(False), torch.enable_grad():
        own = x.detach().clone().requires_grad_()
        f = checked(field(t.detach().clone(), own), own)
        if not f.requires_grad:
            return None
        rows = torch.arange(len(x), dtype=torch.int64, device=x.device)
        level = (rows + 3 * (rows // 8) + 5 * (rows // 64)) % 8
        w = (2.0 ** level.to(x.dtype)).view(-1, *[1] * (x.dim() - 1))
        n = math.prod(x.shape[1:])
        u = 1 + torch.arange(n, dtype=x.dtype, device=x.device).mul(0.618034).frac().view(x.shape[1:])
        both = [
            torch.autograd.grad(f, (own,), c.expand(x.shape), retain_graph=True, allow_unused=True)[0]
            for c in (u[None], w * u)
        ]
    plain, tilted = both
    if plain is None or tilted is None:
        return None
    tiny = torch.finfo(x.dtype).tiny
    allowed = 1e3 * (torch.finfo(x.dtype).eps * torch.maximum(_size(plain), _size(tilted / w)) + tiny)
    off = _size(tilted / w - plain)
    worst, row = (off - allowed).max(0)
    found, row_found = torch.stack((worst.double(), row.double())).tolist()  # host read
    return int(row_found) if found > 0 else None


def _size(x: Tensor) -> Tensor:
    """The largest entry of each row."""
    return x.abs().flatten(1).amax(1) if x.dim() > 1 else x.abs()
