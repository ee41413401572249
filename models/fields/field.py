"""The protocol of a field f(t, h), a network with a hand-derived VJP, and the layers that ours are made of.

A dynamics calls four methods: `forward`, `vjp`, `parameter_gradients`, `theta`. Our own fields write them
by hand, from activations with their derivatives and from sums over the stages of a step; `AutogradField`
gives any other `f(t, h)` the same four.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...solvers.errors import DynamicsError, check_choice
from ...solvers.step.field import transformed

Gradients = tuple[Tensor | None, ...]


class Field(nn.Module, abc.ABC):
    """f(t, h; θ) with a hand-derived VJP. h: [B, *S]; t: 0-d, or [B, 1, …, 1] with h's dimensions.

    ``field(t, h)`` is f by torch's own operations (`reference`): an ordinary module under autograd.
    The four methods below are the fast path; module hooks do not fire there.
    ``channels_in``, ``channels_out``: sizes of dim 1 of h and of f, for the checks of a block;
    None where a field leaves that to its own checks.
    """

    channels_in: int | None = None
    channels_out: int | None = None
    channels_last = False  # whether h, [B, C, H, W], is best in channels-last memory
    places = ""  # dimensions of h after its channels, for the check of its shape

    def __call__(self, t: Tensor, h: Tensor) -> Tensor:
        """f(t, h), differentiable by autograd."""
        return self.reference(t, h)

    @abc.abstractmethod
    def reference(self, t: Tensor, h: Tensor) -> Tensor:
        """f(t, h) in torch's plain operations: the specification of the fast path."""

    @abc.abstractmethod
    def forward(self, t: Tensor, h: Tensor) -> tuple[Tensor, Any]:
        """(f, saved): saved holds the activations that `vjp` and `parameter_gradients` need."""

    @abc.abstractmethod
    def vjp(self, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """((∂f/∂h)ᵀc, deltas): deltas are the cotangents at each layer's output, not summed over B."""

    @abc.abstractmethod
    def parameter_gradients(self, saved: list[Any], deltas: list[Any], weights: Tensor | None) -> Gradients:
        """Σᵢ wᵢ (∂f/∂θ)ᵀcᵢ over n stages, one product a layer; None for a frozen parameter.

        weights: [n], [n, B], or None for ones. The order is that of `theta`.
        """

    def theta(self) -> tuple[Tensor, ...]:
        """The parameters, frozen ones included, in the order of `nn.Module.parameters`."""
        return tuple(self.parameters())

    def for_solve(self) -> Any:
        """The field as it is used in one solve: what it makes of its parameters alone may be made here."""
        return self

    def _check(self, h: Tensor) -> None:
        if h.ndim != 2 + self.places.count(",") or h.shape[1] != self.channels_in:
            raise DynamicsError(
                f"{type(self).__name__} field: h has shape {tuple(h.shape)}; it must be "
                f"[B, {self.channels_in}{self.places}]."
            )


class Layered(Field):
    """A field of layers with a weight and a bias each, saved as (t, [input of each layer])."""

    layers: Any  # the layers in their order: an nn.ModuleList, or a tuple
    activation = "tanh"
    timed = 0  # how many layers, from the first on, see the time as one more channel

    def reference(self, t: Tensor, h: Tensor) -> Tensor:
        """f(t, h) with the time put beside the channels and the layers as torch has them."""
        self._check(h)
        sigma = get_activation(self.activation).value
        time, x = t.expand(h.shape[0], 1, *h.shape[2:]), h
        for i, layer in enumerate(self.layers):
            x = sigma(x) if i else x
            x = layer(torch.cat((x, time), dim=1) if i < self.timed else x)
        return x

    def parameter_gradients(self, saved: list[Any], deltas: list[Any], weights: Tensor | None) -> Gradients:
        """(W̄_1, b̄_1, …), each a sum over all stages and samples."""
        found: list[Tensor | None] = []
        times = [t for t, _ in saved]
        for i, (weight, bias) in enumerate(weights_of(self.layers)):
            pair: tuple[Tensor | None, Tensor | None] = (None, None)
            if weight.requires_grad or bias.requires_grad:
                delta, x = weighted([d[i] for d in deltas], weights), [inputs[i] for _, inputs in saved]
                pair = self._layer_gradients(i, delta, x, times if i < self.timed else None)
            found += [own if p.requires_grad else None for p, own in zip((weight, bias), pair, strict=True)]
        return tuple(found)

    @abc.abstractmethod
    def _layer_gradients(
        self, i: int, deltas: list[Tensor], inputs: list[Tensor], times: list[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """(W̄, b̄) of layer i from the cotangents at its output, its inputs and times, one of each a stage."""


def copied(module: nn.Module, **found: Any) -> Any:
    """The module with attributes of its own in front of its parameters, buffers and modules, which it shares:
    for the length of a solve. One of a user's class is itself, for it may keep things on itself."""
    if type(module).__module__.partition(".")[0] != __name__.partition(".")[0]:
        return module
    other = object.__new__(type(module))
    other.__dict__.update(module.__dict__)
    other.__dict__.update(found)
    return other


def in_place() -> bool:
    """Whether results may be written over memory of our own: nothing follows or traces the operations."""
    return not (torch.is_grad_enabled() or torch.compiler.is_compiling() or transformed())


def weights_of(layers: Any) -> list[tuple[Tensor, Tensor]]:
    """(weight, bias) of each layer."""
    if torch.compiler.is_compiling():
        return [(layer.weight, layer.bias) for layer in layers]
    found = []
    for layer in layers:
        # `nn.Module.__getattr__` takes 1 µs. What is not there (a parametrisation, pruning) is asked for.
        own = layer._parameters
        weight, bias = own.get("weight"), own.get("bias")
        found.append((layer.weight if weight is None else weight, layer.bias if bias is None else bias))
    return found


def per_sample(weights: Tensor, like: Tensor) -> Tensor:
    """Weights, 0-d or [B], shaped to multiply a tensor [B, …]."""
    return weights.reshape(-1, *(1,) * (like.ndim - 1)) if weights.ndim else weights


# Entries of a stage's δ and x. Below, joining the stages and one product is faster (64 columns, 16 rows:
# 15 µs against 22); above, copying costs more than it saves (256 rows: 175 µs against 157; 4096 rows of 192
# columns: 7.1 ms against 5.6).
JOINED_BELOW = 8192


def weighted(deltas: list[Tensor], weights: Tensor | None) -> list[Tensor]:
    """w_i δ_i. weights: [n], [n, B], or None for ones."""
    if weights is None:
        return deltas
    if weights.ndim == 1:
        return [delta * w for delta, w in zip(deltas, weights.unbind(), strict=True)]
    return [
        (delta.reshape(w.shape[0], -1) * w[:, None]).view(delta.shape)
        for delta, w in zip(deltas, weights.unbind(), strict=True)
    ]


def layer_gradients(
    deltas: list[Tensor], inputs: list[Tensor], times: list[Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """(Σ_i δ_iᵀ x_i, Σ_i Σ_r δ_i): [out, in] and [out].

    times: of the stages, 0-d or one for each sample; the weight then has one more column, Σ_i Σ_r t_i δ_i.
    """
    if len(deltas) > 1 and deltas[0].numel() + inputs[0].numel() < JOINED_BELOW:
        if times is not None:
            times = [_rows(times, deltas)]
        deltas, inputs = [torch.cat(deltas)], [torch.cat(inputs)]
    # A product with the narrow side first takes a third of the time (8 × 256 × 64: 6 µs against 20).
    turned = deltas[0].shape[1] > inputs[0].shape[1]
    pairs = zip(inputs, deltas, strict=True) if turned else zip(deltas, inputs, strict=True)
    weight = None
    for left, right in pairs:
        left = left.t()
        weight = torch.mm(left, right) if weight is None else weight.addmm_(left, right)
    assert weight is not None  # a step has a stage
    if turned:
        weight = weight.t()
    sums = deltas[0].sum(0)
    column = None if times is None else _in_time(deltas[0], sums, times[0])
    for i, delta in enumerate(deltas[1:], 1):
        own = delta.sum(0)
        sums = sums.add_(own)
        if column is not None and times is not None:
            column = column.add_(_in_time(delta, own, times[i]))
    return (weight if column is None else torch.cat((weight, column[:, None]), dim=1)), sums


def _in_time(delta: Tensor, own: Tensor, t: Tensor) -> Tensor:
    """Σ_r t δ, [out]; own: Σ_r δ. t: 0-d, or [B, 1, …] where R is B by places."""
    if t.ndim == 0:
        return own * t
    times = t.reshape(-1)
    return torch.mv(delta.reshape(times.shape[0], -1).t(), times).view(-1, delta.shape[1]).sum(0)


def _rows(times: list[Tensor], deltas: list[Tensor]) -> Tensor:
    """The time of each row of the joined stages."""
    rows = len(deltas[0])
    if all(t.ndim == 0 for t in times):
        return torch.stack(times)[:, None].expand(-1, rows).reshape(-1)
    return torch.cat(
        [
            t.reshape(-1, 1).expand(-1, rows // t.numel()).reshape(-1) if t.ndim else t.expand(rows)
            for t in times
        ]
    )


# Activations from which oneDNN's linear layer with tanh is faster: it costs 16 µs a call, leaves caches cold
# for what follows, and saves 2 ns of torch's 2.6 ns a tanh (f of a 64–64 network: 256 rows 200 µs against
# 240, 512 rows 330 against 290, 2048 rows 1190 against 640).
_FUSED_FROM = 32768


@dataclasses.dataclass(frozen=True)
class Activation:
    """y = value(x), in_place(x) over x itself; backward(ȳ, y) → x̄, one kernel that needs the output only.

    second: σ'' from y and s = σ'; None where it is 0.
    """

    name: str
    value: Callable[[Tensor], Tensor]
    in_place: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]
    second: Callable[[Tensor, Tensor], Tensor] | None = None

    def slope(self, y: Tensor) -> Tensor:
        """The derivative σ' from y."""
        return self.backward(torch.ones_like(y), y)

    def layer(
        self, x: Tensor, weight: Tensor, bias: Tensor, *, fused: bool, turned: Tensor | None = None
    ) -> Tensor:
        """value(x Wᵀ + b). x: [R, in]; weight: [out, in]; bias: [out] or [R, out]; turned: Wᵀ, where at hand.

        fused: oneDNN may do it in one call where that is faster: no autograd follows, nothing traces it.
        """
        if fused and self.name == "tanh" and x.shape[0] * weight.shape[0] >= _FUSED_FROM and bias.ndim == 1:
            op = _linear_tanh()
            if op is not None and _plain(x, weight, bias):
                # With a strided weight it falls back to a loop, a hundred times slower.
                return op(x, weight.contiguous(), bias, "tanh", [], "")
        return self.in_place(torch.addmm(bias, x, weight.t() if turned is None else turned))


def _plain(*tensors: Tensor) -> bool:
    """float32 on the CPU, and products not shortened by autocast."""
    ours = all(x.dtype is torch.float32 and x.device.type == "cpu" for x in tensors)
    return ours and not torch.is_autocast_enabled("cpu") and bool(torch.backends.mkldnn.enabled)


@functools.cache
def _linear_tanh() -> Callable[..., Tensor] | None:
    """oneDNN's tanh(x Wᵀ + b), as accurate as torch's (1.5 units in the last place); None without it.

    The operator is inductor's and no public one: it is tried once, and compared.
    """
    x = torch.linspace(-2.0, 2.0, 8, dtype=torch.float32, device="cpu").view(4, 2)
    weight, bias = x[:3].contiguous(), x.flatten()[:3].contiguous()
    try:
        op = torch.ops.mkldnn._linear_pointwise.default
        found = op(x, weight, bias, "tanh", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return None
    return op if torch.allclose(found, F.linear(x, weight, bias).tanh(), rtol=1e-6, atol=1e-6) else None


# Resolved once: a call through `torch.ops.aten` looks its overload up each time.
_TANH = torch.ops.aten.tanh_backward.default
_THRESHOLD = torch.ops.aten.threshold_backward.default
_SIGMOID = torch.ops.aten.sigmoid_backward.default


def _relu_backward(cotangent: Tensor, y: Tensor) -> Tensor:
    return _THRESHOLD(cotangent, y, 0)  # ȳ where y > 0; 0 at 0, as torch has it


_ACTIVATIONS = {
    activation.name: activation
    for activation in (
        Activation("tanh", torch.tanh, torch.tanh_, _TANH, lambda y, s: -2 * y * s),  # ȳ(1 − y²)
        Activation("relu", torch.relu, torch.relu_, _relu_backward),
        Activation(
            "sigmoid", torch.sigmoid, torch.sigmoid_, _SIGMOID, lambda y, s: (1 - 2 * y) * s
        ),  # ȳ y(1 − y)
    )
}


def get_activation(name: str) -> Activation:
    """The activation of that name; an unknown one is an ArgumentError that offers the nearest."""
    check_choice("activation", name, _ACTIVATIONS)
    return _ACTIVATIONS[name]
