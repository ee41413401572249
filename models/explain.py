"""Which path a dynamics takes through the engine, said from the types of its parts alone."""

from __future__ import annotations

import dataclasses

from torch import nn

from .fields.by_autograd import AutogradField, is_compiled
from .fields.driven import Driven
from .fields.own import OwnField
from .fields.scaled import Scaled

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
    return Explanation(
        dynamics=type(dynamics).__name__,
        field=_name(field),
        vjp=AUTOGRAD if isinstance(_layers(field)[-1], AutogradField) else HAND_WRITTEN,
        channels_last=bool(getattr(dynamics, "channels_last", False)),
        not_compiled=_not_compiled(field),
    )


def _layers(field: nn.Module) -> list[nn.Module]:
    """A field, and what it is around, from the outside to the one whose VJP it has."""
    found = [field]
    while isinstance(found[-1], Scaled | Driven | OwnField):
        found.append(found[-1].inner)
    return found


def _not_compiled(field: nn.Module) -> str:
    layers = _layers(field)
    if any(isinstance(layer, Driven) for layer in layers):
        return "every batch brings an input signal of its own, and each would be compiled anew"
    last = layers[-1]
    if not isinstance(last, AutogradField) or isinstance(last.func, nn.Module):
        return ""
    return (
        f"autograd differentiates {_name(last.func)}, a function whose parameters no program knows; make it "
        "an nn.Module, or give a Field with a hand-written VJP"
    )


def _name(func: object) -> str:
    """The class of a module, and that of what it is around; a function's own name."""
    if is_compiled(func):
        return f"torch.compile({type(func._modules['_orig_mod']).__name__})"  # type: ignore[attr-defined]
    if isinstance(func, Driven | Scaled):
        return f"{type(func).__name__}({_name(func.inner)})"
    if isinstance(func, OwnField):
        return _name(func.inner)
    if isinstance(func, AutogradField):
        return _name(func.func)
    if isinstance(func, nn.Module) or not hasattr(func, "__name__"):
        return type(func).__name__
    return func.__name__
