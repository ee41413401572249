"""Which path a dynamics takes through the engine, said from the types of its parts alone."""

from __future__ import annotations

import dataclasses

from torch import nn

from .fields.by_autograd import AutogradField, is_compiled
from .fields.driven import Driven

HAND_WRITTEN, AUTOGRAD = "hand-written", "autograd"


@dataclasses.dataclass(frozen=True)
class Explanation:
    """The path of one dynamics.

    dynamics, field: names of their classes; the field's is the user's own, not its wrapper's.
    vjp: "hand-written" (the fast path: one product a layer gives all stages' parameter gradients) or
        "autograd" (one graph a stage).
    channels_last: whether the state of images lies so in memory.
    not_compiled: why compile=True would change nothing; "" where attempts become compiled programs.
    """

    dynamics: str
    field: str
    vjp: str
    channels_last: bool
    not_compiled: str


def explain(dynamics: nn.Module) -> Explanation:
    """Says how a block's dynamics is evaluated, differentiated, laid out in memory and compiled.

    Nothing is evaluated. Compiling can still fail in a field that reads values on the host, and
    `adamode.solve` warns then. A solve that cannot be compiled for its settings warns there, too.
    """
    field = getattr(dynamics, "field", dynamics)
    by_autograd = isinstance(field, AutogradField)
    return Explanation(
        dynamics=type(dynamics).__name__,
        field=_name(field.func) if by_autograd else _name(field),
        vjp=AUTOGRAD if by_autograd else HAND_WRITTEN,
        channels_last=bool(getattr(dynamics, "channels_last", False)),
        not_compiled=_not_compiled(field),
    )


def _not_compiled(field: nn.Module) -> str:
    if isinstance(field, Driven):
        return "every batch brings an input signal of its own, and each would be compiled anew"
    if not isinstance(field, AutogradField) or isinstance(field.func, nn.Module):
        return ""
    return (
        f"autograd differentiates {_name(field.func)}, a function whose parameters no program knows; make it "
        "an nn.Module, or give a Field with a hand-written VJP"
    )


def _name(func: object) -> str:
    """The class of a module, or a function's own name."""
    if is_compiled(func):
        return f"torch.compile({type(func._modules['_orig_mod']).__name__})"  # type: ignore[attr-defined]
    if isinstance(func, Driven):  # its VJP is the inner field's
        return f"Driven({type(func.inner).__name__})"
    if isinstance(func, nn.Module) or not hasattr(func, "__name__"):
        return type(func).__name__
    return func.__name__
