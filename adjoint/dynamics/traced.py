"""How a compiled program evaluates what it is given: a `Dynamics`, or a module of the user's.

A program gets its owner as an argument and must not hold it, so these are stateless.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...solvers.errors import DynamicsError
from .protocol import Dynamics

Gradients = list["Tensor | None"]


class Calls(abc.ABC):
    """f, its linearisation and its VJP for an owner, to be traced."""

    @abc.abstractmethod
    def evaluate(self, owner: Any, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """(dz, what a step may keep for `vjp`), for the forward solve."""

    def split(self, owner: Any, t: Tensor, z: Tensor) -> Calls:
        """The same for a program that is exported. t, z: examples."""
        return self

    def linearise(self, owner: Any, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """(dz, what `vjp` wants) of a stage taken again in the same program as its VJP."""
        return self.evaluate(owner, t, z)

    @abc.abstractmethod
    def theta(self, owner: Any) -> list[Tensor]:
        """What `gradients` gives gradients of."""

    @abc.abstractmethod
    def vjp(self, owner: Any, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """(z̄, deltas)."""

    @abc.abstractmethod
    def gradients(
        self, owner: Any, saved: list[Any], deltas: list[Any], weights: Tensor | None = None
    ) -> Gradients:
        """One for each of θ, summed over the stages, with a weight each or as they are."""


def check_like(found: Any, wanted: Tensor, owner: Any, what: str) -> None:
    """DynamicsError for what is no tensor of that shape: a program would broadcast it silently.

    what: of the owner, for the error. Its name is asked for there alone: a tracer that was asked for it holds
        the owner ever after.
    """
    if not isinstance(found, Tensor) or found.shape != wanted.shape:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        text = f"what {type(owner).__name__}{what} is {shape}; it must have shape {tuple(wanted.shape)}."
        raise DynamicsError(text)


class DynamicsCalls(Calls):
    """The calls of a `Dynamics`: its methods, the shapes of their results checked when they are traced."""

    def evaluate(self, owner: Dynamics, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """Its forward."""
        dz, saved = owner.forward(t, z)
        check_like(dz, z, owner, ".forward returned for dz")
        return dz, saved

    def theta(self, owner: Dynamics) -> list[Tensor]:
        """The tensors that its own `theta` gives."""
        return list(owner.theta())

    def vjp(self, owner: Dynamics, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """Its own `vjp`."""
        z_bar, deltas = owner.vjp(saved, cotangent)
        check_like(z_bar, cotangent, owner, ".vjp returned for the state's cotangent")
        return z_bar, deltas

    def gradients(
        self, owner: Dynamics, saved: list[Any], deltas: list[Any], weights: Tensor | None = None
    ) -> Gradients:
        """Its parameter_gradients, all stages at once."""
        return list(owner.parameter_gradients(saved, deltas, weights))


def module_vjp(module: nn.Module, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
    """(module(t, z), its pullback to z and the parameters that require gradients), to be traced."""
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}

    def f(z: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(trained, values, strict=True)), (t, z))

    dz, pullback, *_ = torch.func.vjp(f, z, *trained.values())
    return dz, pullback


def forward_and_back(module: nn.Module, t: Tensor, z: Tensor) -> tuple[Any, Any, tuple[str, ...]]:
    """module(t, z) as two graphs of torch's operators, and the names of its values, those that require
    gradients first.

    The first: (t, z, *values) → (dz, *saved), the values being parameters and buffers.
    The second: (*saved, cotangent) → gradients of (t, z, *values).
    Raises RuntimeError where the module changes its buffers, or nothing that it uses wants a gradient.
    """
    values = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    values = dict(sorted(values.items(), key=lambda item: not item[1].requires_grad))

    def f(t: Tensor, z: Tensor, *own: Tensor) -> Tensor:
        dz: Tensor = torch.func.functional_call(module, dict(zip(values, own, strict=True)), (t, z))
        return dz

    with torch.enable_grad():
        own = [x.detach().requires_grad_(x.requires_grad) for x in values.values()]
        inputs = (t.detach(), z.detach().requires_grad_(), *own)
        graphs = _two_graphs(f, inputs, module)
        if len(graphs) == 1:  # dz lies in memory of an input, and would be made outside of the graphs
            graphs = _two_graphs(lambda *inputs: f(*inputs).clone(), inputs, module)
    forward, back = graphs
    n_saved = sum(node.op == "placeholder" for node in back.graph.nodes) - 1
    n_made = len(next(node for node in forward.graph.nodes if node.op == "output").args[0])
    if n_made != 1 + n_saved:
        raise RuntimeError(f"{type(module).__name__} changes its buffers")
    return forward, back, tuple(values)


def _two_graphs(f: Callable[..., Tensor], inputs: tuple[Tensor, ...], module: nn.Module) -> list[Any]:
    """The graph of f(t, z, *values), and that of its way back unless torch needs none."""
    from torch._functorch.aot_autograd import aot_function
    from torch._functorch.partitioners import default_partition

    graphs: list[Any] = []

    def kept(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        run: Any = lambda arguments: graph.forward(*arguments)  # noqa: E731
        run._boxed_call = True  # as torch calls what takes its arguments in one list
        return run

    compiler: Any = kept
    dz = aot_function(f, compiler, compiler, partition_fn=default_partition)(*inputs)
    if not dz.requires_grad:
        raise RuntimeError(f"{type(module).__name__} depends neither on y nor on a trained parameter")
    torch.autograd.grad(dz, inputs[1], torch.ones_like(dz), allow_unused=True)
    return graphs


class ModuleCalls(Calls):
    """The calls of an `nn.Module` f(t, y): its call, and the VJP that torch.func makes of it."""

    def evaluate(self, owner: nn.Module, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """(f(t, z), nothing): the way back takes the stage again."""
        dz = owner(t, z)
        check_like(dz, z, owner, " returned for dy/dt")
        return dz, None

    def linearise(self, owner: nn.Module, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """(f(t, z), its pullback to z and the parameters that require gradients)."""
        return module_vjp(owner, t, z)

    def theta(self, owner: nn.Module) -> list[Tensor]:
        """The parameters that require gradients."""
        return [p for p in owner.parameters() if p.requires_grad]

    def split(self, owner: nn.Module, t: Tensor, z: Tensor) -> Calls:
        """Its call and its VJP as two graphs: `torch.export` does not see through torch.func in a loop."""
        trained = tuple(name for name, p in owner.named_parameters() if p.requires_grad)
        return SplitCalls(*forward_and_back(owner, t, z), trained)

    def vjp(self, owner: nn.Module, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """(z̄, the parameters' gradients of this stage)."""
        z_bar, *gradients = saved(cotangent)
        return z_bar, gradients

    def gradients(
        self, owner: nn.Module, saved: list[Any], deltas: list[Any], weights: Tensor | None = None
    ) -> Gradients:
        """The sum over the stages."""
        if weights is not None:
            own = weights.unbind()
            deltas = [[w * x for x in stage] for w, stage in zip(own, deltas, strict=True)]
        return [sum(parts[1:], parts[0]) for parts in zip(*deltas, strict=True)]


class SplitCalls(ModuleCalls):
    """The calls of an `nn.Module` by two graphs of its operators.

    names: of its values, as the graphs take them.
    trained: of the parameters that require gradients, in the module's order.
    """

    def __init__(self, forward: Any, back: Any, names: tuple[str, ...], trained: tuple[str, ...]):
        self.forward, self.back, self.names, self.trained = forward, back, names, trained

    def linearise(self, owner: nn.Module, t: Tensor, z: Tensor) -> tuple[Tensor, Any]:
        """(f(t, z), what its VJP wants)."""
        values = {**dict(owner.named_parameters()), **dict(owner.named_buffers())}
        dz, *saved = self.forward(t, z, *(values[name] for name in self.names))
        return dz, saved

    def vjp(self, owner: nn.Module, saved: Any, cotangent: Tensor) -> tuple[Tensor, Any]:
        """(z̄, the gradients of the parameters that require some)."""
        _, z_bar, *gradients = self.back(*saved, cotangent)
        found, values = dict(zip(self.names, gradients, strict=True)), dict(owner.named_parameters())
        bar = torch.zeros_like(cotangent) if z_bar is None else z_bar
        return bar, [
            torch.zeros_like(values[name]) if found[name] is None else found[name] for name in self.trained
        ]
