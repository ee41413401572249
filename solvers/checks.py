"""Every check of input, at the door: before the first evaluation, naming argument, value and way out."""

from __future__ import annotations

import functools
import inspect
import itertools
import math
import numbers
from collections.abc import Iterable, Iterator, Sequence
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as torch_module

from .errors import ArgumentError, ArgumentTypeError, first_line
from .step.field import HALF, Layout, around, forwards, transformed

_functorch = torch._C._functorch


def traced() -> bool:
    """Whether operators are recorded for a graph, with no numbers at hand."""
    keys = torch._C._TorchDispatchModeKey
    return any(torch._C._get_dispatch_mode(key) is not None for key in (keys.PROXY, keys.FAKE))


def wrapped(x: Tensor) -> bool:
    """Whether a transform of torch.func has put a layer of its own around x."""
    return bool(_functorch.is_functorch_wrapped_tensor(x))


def layers(x: Tensor) -> Iterator[Tensor]:
    """x, and the tensors that it wraps, from the innermost transform outwards."""
    yield x
    while _functorch.is_functorch_wrapped_tensor(x):
        x = _functorch.get_unwrapped(x)
        yield x


def batched(x: Tensor) -> bool:
    """Whether a `vmap`, at any depth, gives x a hidden axis."""
    # is_grads_batched of torch.autograd.grad still has an older kind.
    return any(
        _functorch.is_batchedtensor(layer) or _functorch.is_legacy_batchedtensor(layer) for layer in layers(x)
    )


def has_tangent(x: Tensor) -> bool:
    """Whether forward-mode AD follows x."""
    return forwards() and any(forward_ad.unpack_dual(layer).tangent is not None for layer in layers(x))


def followed(x: Tensor) -> bool:
    """Whether a derivative with respect to x, by any of the transforms around it, may be asked for."""
    return any(layer.requires_grad for layer in layers(x)) or has_tangent(x)


def moves(x: Tensor) -> bool:
    """Whether x needs a gradient, or a transform around the caller may ask for its derivative."""
    return followed(x) if transformed() else x.requires_grad


def check_readable(x: Tensor, argument: str) -> None:
    """ArgumentError, or ArgumentTypeError, where the host could read no numbers of x."""
    if wrapped(x) and batched(x):
        raise ArgumentTypeError(
            f"{argument} is batched by vmap, but a solve decides its steps by its tensors' values: leave "
            "vmap out and give the whole batch as y0 (each sample's own steps and times: "
            "solve(stepping='per_sample')); for a Jacobian, torch.func.jacrev or torch.func.jacfwd with "
            "gradient=adamode.Direct()."
        )
    if traced():
        raise ArgumentError(
            f"{argument} is traced (torch.func.linearize, make_fx, torch.export), but a solve decides its "
            "steps by its tensors' values, so one graph is not right for other values: trace only func, or "
            "export a model with a fixed number of steps (adamode export); in linearize's place "
            "torch.func.jvp, and torch.func.vmap over its tangents."
        )
    if x.device.type == "meta":
        raise ArgumentError(
            f"{argument} is on the meta device, which holds no numbers: a solve decides its steps by them. "
            "Make it on the CPU or another device (torch.set_default_device and `with torch.device(…):` say "
            "where tensors are made)."
        )


STATE_DTYPES = (torch.float32, torch.float64)


def all_finite(x: Tensor) -> bool:
    """Whether every entry is a finite number (one host read; more only where one is not).

    The sum is one pass, a sixth of what isfinite takes; where it overflows, every entry is looked at.
    """
    x = x.detach()
    return math.isfinite(float(x.sum())) or bool(torch.isfinite(x).all())  # host read


def check_state(z: Tensor, argument: str = "y0", *, allow_non_finite: bool = False) -> None:
    """The state's dtype, size and finiteness (one host read)."""
    if z.dtype not in STATE_DTYPES:
        wide = "complex64" if z.is_complex() else "float32"
        raise ArgumentTypeError(
            f"{argument} has dtype {z.dtype}; a state must be real or complex, of single or double "
            f"precision, or torch.bfloat16 or torch.float16: {argument}.to(torch.{wide})."
        )
    if z.layout != torch.strided:
        raise ArgumentTypeError(
            f"{argument} is a {z.layout} tensor; a state is dense: {argument}.to_dense()."
        )
    check_readable(z, argument)
    if z.numel() == 0:
        raise ArgumentError(f"{argument} is empty, shape {tuple(z.shape)}: there is nothing to solve.")
    if not allow_non_finite and not all_finite(z):  # host read
        bad = (~torch.isfinite(z)).nonzero()[0].tolist()
        raise ArgumentError(
            f"{argument} holds {z[tuple(bad)].item()} at index {tuple(bad)}: a solve must begin with "
            "finite numbers."
        )


def _check_form(t: Any, argument: str, rule: str, lead: tuple[int, ...]) -> None:
    """Times: floating point, of shape [*lead, T] with T ≥ 2, and readable."""
    if not isinstance(t, Tensor):
        raise ArgumentTypeError(f"{argument} is a {type(t).__name__}; give a tensor of times, {rule}.")
    if not t.dtype.is_floating_point:
        raise ArgumentTypeError(
            f"{argument} has dtype {t.dtype}; times must be floating point: {argument}.double()."
        )
    if t.dim() != len(lead) + 1 or t.shape[:-1] != lead or t.shape[-1] < 2:
        raise ArgumentError(f"{argument} has shape {tuple(t.shape)}, {t.numel()} entries; it must be {rule}.")
    check_readable(t, argument)


def _check_finite(times: list[float], argument: str) -> None:
    for i, value in enumerate(times):
        if not math.isfinite(value):
            raise ArgumentError(f"{argument}[{i}] is {value}: times must be finite.")


def check_constant(x: Any, argument: str) -> None:
    """ArgumentError for what decides steps and carries a tangent: it would be lost without a word."""
    if isinstance(x, Tensor) and has_tangent(x):
        raise ArgumentError(f"{argument} carries a tangent, but has no derivative here: {argument}.detach().")


def check_unfollowed(k: Tensor) -> Tensor:
    """What func returned where nothing is to follow it; ArgumentError where something does."""
    if has_tangent(k) or (around() and followed(k)):
        raise ArgumentError(
            "func returned a value that a transform of torch.func, or forward-mode AD, follows, but its "
            "first value carried no tangent: a tensor with a tangent enters only at later times. Use "
            "gradient=adamode.Direct(), which follows every evaluation (or None, for no derivative)."
        )
    return k


def check_one_cotangent(g: Tensor, many: bool) -> None:
    """ArgumentError for several cotangents at once, on an axis that torch hides.

    many: those of is_grads_batched are taken.
    """
    if batched(g) and not (many and torch._C._functorch.is_legacy_batchedtensor(g)):
        raise ArgumentError(
            "several backward passes at once (is_grads_batched=True, vectorize=True, a vmap around vjp) "
            "reach an adjoint, which walks back for one cotangent: ask for one at a time, or use "
            "gradient=adamode.Direct() (adamode.odeint)."
        )


def check_stops(times: Sequence[float] | Tensor | None, argument: str) -> tuple[float, ...]:
    """Times that steps must hit, as floats: finite; () for None."""
    if times is None:
        return ()
    if isinstance(times, Tensor):
        check_readable(times, argument)
        check_constant(times, argument)
    values = torch.as_tensor(times, dtype=torch.float64, device="cpu").reshape(-1).tolist()
    _check_finite(values, argument)
    return tuple(values)


def check_times(t: Any, argument: str = "t") -> list[float]:
    """The times as floats: finite, strictly monotone, at least two. One host read, of any device."""
    _check_form(t, argument, "1-D, with at least two times: the start and one output", ())
    times = [float(x) for x in t.detach().double().tolist()]  # host read
    _check_finite(times, argument)
    increasing = times[1] > times[0]
    for i, (a, b) in enumerate(itertools.pairwise(times)):
        if a == b or (b > a) != increasing:
            raise ArgumentError(
                f"{argument} must be strictly increasing or strictly decreasing, but {argument}[{i}]="
                f"{a!r} is followed by {argument}[{i + 1}]={b!r}."
            )
    return times


def check_sample_times(t: Any, z: Tensor, batch: int, argument: str = "t") -> Tensor:
    """Per-sample times [B, T] in float64 on z's device, from [T] or [B, T].

    t: each sample's times are strictly monotone, or so at first and then equal to their end (where they are
        fewer than another's, they are padded with their last time).
    One host read, of which samples' times are wrong.
    """
    if isinstance(t, Tensor) and t.dim() == 1:
        check_times(t, argument)
        return t.detach().double().to(z.device, non_blocking=True).expand(batch, -1)
    _check_form(t, argument, f"[T] or [B, T] with B={batch}, with at least two times", (batch,))
    times = t.detach().double()
    steps = times.diff(dim=1)
    rest = times == times[:, -1:]
    padded = rest[:, 1:] & rest[:, :-1] & (rest.long().flip(1).cumprod(1).flip(1) > 0)[:, :-1]
    monotone = ((steps > 0) | padded).all(1) | ((steps < 0) | padded).all(1)
    bad = ~monotone | ~torch.isfinite(times).all(1)
    wrong = [i for i, flag in enumerate(bad.tolist()) if flag]  # host read
    if wrong:
        raise ArgumentError(
            f"{argument}[{wrong[0]}] = {times[wrong[0]].tolist()} must be finite and strictly monotone; only "
            "the last time may be repeated, at the end (a shorter row, or a sample that stays)."
        )
    return times.to(z.device, non_blocking=True)


def check_tolerance(
    value: Any, name: str, z: Tensor, layout: Layout, *, zero: bool = False
) -> float | Tensor:
    """A tolerance as a float or a tensor that broadcasts against the state.

    zero: whether it may be 0 (one of rtol and atol alone says enough).
    """
    if isinstance(value, (tuple, list)):
        return _by_member(value, name, z, layout, zero)
    if isinstance(value, Tensor):
        if value.requires_grad:
            raise ArgumentError(f"{name} requires a gradient, and none is defined for it: {name}.detach().")
        check_readable(value, name)
        check_constant(value, name)
        if value.is_complex():
            raise ArgumentTypeError(f"{name} has dtype {value.dtype}; a tolerance is real: {name}.real.")
        value = value.to(z)
        if value.dim() == 0:
            return check_tolerance(float(value), name, z, layout, zero=zero)  # host read
        try:
            fits = torch.broadcast_shapes(value.shape, layout.shapes[0]) == layout.shapes[0]
        except RuntimeError:
            fits = False
        if not layout.single or not fits:
            raise ArgumentError(
                f"{name} has shape {tuple(value.shape)}, which does not broadcast to the state's "
                f"{[tuple(s) for s in layout.shapes]}."
            )
        zero = zero or name.endswith("rtol")
        fine = (value >= 0 if zero else value > 0) & torch.isfinite(value)
        if not bool(fine.all()):
            found = value.flatten()[fine.flatten().to(torch.int8).argmin()].item()
            raise ArgumentError(f"{name} must be positive and finite everywhere; it holds {found}.")
        return value[..., None] if layout.paired else value
    if isinstance(value, bool) or not isinstance(value, numbers.Real):  # numpy's floats too
        raise ArgumentTypeError(f"{name}={value!r} must be a number, a tensor, or one number a member.")
    number = float(value)
    if not (0 < number < math.inf) and not (zero and number == 0):
        raise ArgumentError(f"{name}={value!r} must be positive and finite, such as 1e-5.")
    return number


def _by_member(
    value: tuple[Any, ...] | list[Any], name: str, z: Tensor, layout: Layout, zero: bool
) -> Tensor:
    """One tolerance for each leaf, laid out as the state is."""
    if layout.single:
        # Blocks of a [K, …] state, or a plain list of numbers along axis 0.
        shape = layout.shapes[0]
        if not shape or len(value) != shape[0]:
            raise ArgumentError(f"{name} has {len(value)} entries, the state's axis 0 has {shape[:1]}.")
        each = [check_tolerance(v, f"{name}[{i}]", z, layout, zero=zero) for i, v in enumerate(value)]
        axes = len(shape) - 1 + layout.paired
        return torch.tensor(each, dtype=z.dtype, device=z.device).view(-1, *[1] * axes)
    if len(value) != len(layout.shapes):
        raise ArgumentError(
            f"{name} has {len(value)} entries for a state of {len(layout.shapes)} tensors: one for each."
        )
    pieces = []
    for i, (member, shape) in enumerate(zip(value, layout.shapes, strict=True)):
        alone = Layout(None, (shape,), single=True)
        number = check_tolerance(member, f"{name}[{i}]", z, alone, zero=zero)
        piece = torch.as_tensor(number, dtype=z.dtype, device=z.device).expand(shape)
        pieces.append(piece[..., None].expand(*shape, 2) if layout.paired else piece)
    return layout.joined(pieces)


def check_resolution(rtol: float | Tensor, name: str, dtype: torch.dtype) -> None:
    """Refuses an rtol that the dtype cannot resolve."""
    least = 4 * torch.finfo(dtype).eps
    value = float(rtol.min()) if isinstance(rtol, Tensor) else rtol
    if value < least:
        way_out = "solve in torch.float64"
        if dtype in HALF:
            way_out = (
                "give a fixed step, or y0.float(): under torch.autocast the network still computes in half "
                "precision"
            )
        raise ArgumentError(
            f"{name}={value:g} is below what {dtype} resolves: the least that makes sense is "
            f"{least:.1e}. Loosen it or {way_out}."
        )


def check_positive(value: Any, name: str, *, integer: bool = False) -> None:
    """A positive, finite number."""
    kinds: Any = numbers.Integral if integer else numbers.Real
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise ArgumentTypeError(f"{name}={value!r} must be {'an integer' if integer else 'a number'}.")
    if not (0 < value < math.inf):
        raise ArgumentError(f"{name}={value!r} must be positive and finite.")


def check_params(params: Any, argument: str = "params") -> list[Tensor]:
    """The tensors whose gradients are wanted, as a list."""
    if isinstance(params, Tensor) or not isinstance(params, Iterable):
        raise ArgumentTypeError(
            f"{argument} is a {type(params).__name__}; give an iterable of tensors, such as (w, b) or "
            "module.parameters()."
        )
    found = list(params)
    for i, p in enumerate(found):
        if not isinstance(p, Tensor):
            raise ArgumentTypeError(f"{argument}[{i}] is a {type(p).__name__} ({p!r}); it must be a tensor.")
    return found


Runs = tuple[FunctionType, int, frozenset[str]]


def runs(func: Any, before: int = 0, named: frozenset[str] = frozenset()) -> Runs | None:
    """The Python function that a call of func runs, how many arguments stand before the caller's, and the
    names of those beside them; None where it is not known: of built-ins, programs, modules with hooks."""
    kind = type(func)
    if kind is FunctionType:
        return func, before, named
    if kind is MethodType:
        return runs(func.__func__, before + 1, named)
    if kind is functools.partial:
        held = any(type(x).__name__ == "_PlaceholderType" for x in func.args)
        return None if held else runs(func.func, before + len(func.args), named | func.keywords.keys())
    if issubclass(kind, nn.Module) and kind.__call__ is nn.Module.__call__:
        hooks = ("_forward_pre_hooks", "_compiled_call_impl", "_call_impl")
        changed = torch_module._global_forward_pre_hooks or any(vars(func).get(name) for name in hooks)
        changed = changed or kind._call_impl is not nn.Module._call_impl
        return None if changed else runs(func.forward, before, named)
    call: Any = next((vars(base)["__call__"] for base in kind.__mro__ if "__call__" in vars(base)), None)
    own = type(call) in (FunctionType, staticmethod)
    return runs(call.__get__(func, kind), before, named) if own else None


def check_call(
    func: Any, argument: str, call: str, way: str = "", more: str = "", *, objects: bool = False
) -> None:
    """ArgumentTypeError for what cannot be called with so many arguments; what is not known may pass.

    call: as in "fn(t, y)".
    way: the way out for one that takes fewer, where it is not a lambda.
    more: what else helps one that needs more.
    objects: whether a class is right, whose call makes an object.
    """
    if not callable(func):
        raise ArgumentTypeError(f"{argument}={first_line(repr(func), 60)} must be callable as {call}.")
    said = f"{argument} is called as {call}, but"
    new: Any = object.__new__
    plain = isinstance(func, type) and func.__new__ is new
    if plain and not objects and type(func).__call__ is type.__call__:
        raise ArgumentTypeError(f"{said} {func.__name__} is a class: give an object, {func.__name__}(…).")
    if (found := runs(func)) is None:
        return
    function, before, named = found
    code, given = function.__code__, before + call.count(",") + 1
    last = code.co_argcount + code.co_kwonlyargcount
    free = code.co_argcount - len(function.__defaults__ or ())
    names, places = code.co_varnames[:last], code.co_varnames[: code.co_argcount]
    known = named.union(function.__kwdefaults__ or ())
    lacking = [name for name in (*places[given:free], *names[code.co_argcount :]) if name not in known]
    twice = named.intersection(places[code.co_posonlyargcount : given])
    unknown = sorted(named.difference(names[code.co_posonlyargcount :]))
    unknown = [] if code.co_flags & inspect.CO_VARKEYWORDS else unknown
    spread = code.co_flags & inspect.CO_VARARGS and function is not nn.Module.forward  # torch's own raises
    if not (lacking or twice or unknown) and (spread or given <= code.co_argcount):
        return
    asked, name = call[call.index("(") + 1 : -1], function.__qualname__.rpartition("<locals>.")[2]
    if function is nn.Module.forward:
        raise ArgumentTypeError(f"{said} {type(func).__name__} has no forward: write forward(self, {asked}).")
    if unknown:
        way = f"it has no {', '.join(unknown)}, which a functools.partial binds"
    elif lacking:
        way = f"bind {', '.join(lacking)} beforehand (functools.partial, or lambda {asked}: …){more}"
    way = way or f"give one of these arguments, such as lambda {asked}: …"
    raise ArgumentTypeError(f"{said} {name} takes ({', '.join(names[before:])}): {way}.")
