"""Any user's func as a `Dynamics`, its VJP by autograd."""

from __future__ import annotations

import dataclasses
import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import has_torch_function

from ...solvers.errors import ArgumentError
from ...solvers.step.field import Autocast, widened
from .protocol import Dynamics


@dataclasses.dataclass(frozen=True)
class Captured:
    """leaves: tensors that need a gradient and that the graph reaches.  foreign: the name of an
    operation outside func whose result func uses (then that result's history is outside the solve)."""

    leaves: list[Tensor]
    foreign: str | None


def mark() -> int:
    """A number: operations recorded from now on have a higher one."""
    with torch.enable_grad():
        node = (torch.zeros((), dtype=torch.float32, device="cpu", requires_grad=True) + 0).grad_fn
    assert node is not None
    return node._sequence_nr()


def captured(dz: GradientEdge | None, z: Tensor, known: Sequence[Tensor], since: int) -> Captured:
    """Walks dz's graph back to z, to the tensors in `known` (leaves or not), and to everything else.

    since: `mark()` before the evaluation.
    """
    stops = {p.grad_fn for p in known if p.grad_fn is not None}
    names = {id(p) for p in known} | {id(z)}
    leaves: dict[int, Tensor] = {}
    foreign: str | None = None
    seen: set[Any] = set(stops)
    stack: list[Any] = [] if dz is None else [dz.node]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        parents = node.next_functions  # a list made at every look
        variable = None if parents else getattr(node, "variable", None)
        if variable is not None:
            if id(variable) not in names:
                leaves[id(variable)] = variable
        elif node._sequence_nr() < since:
            foreign = node.name()
        else:
            stack += [parent for parent, _ in parents]
    return Captured(list(leaves.values()), foreign)


class Graph(NamedTuple):
    """One evaluation with its graph: z (a leaf), and where dz's history begins (None where it has none).

    An edge of the graph, not the tensor: func may write its next result into the same one, and the
    tensor's history would then be that evaluation's.
    """

    z: Tensor
    dz: GradientEdge | None


def recorded(f: Callable[[Tensor, Tensor], Tensor], t: Tensor, z: Tensor) -> tuple[Tensor, Graph]:
    """One evaluation of f: dz as f returns it, and the graph."""
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        dz = f(t, z)
        return dz, Graph(z, get_gradient_edge(dz) if dz.requires_grad else None)


Grads = tuple["Tensor | None", ...]


def pulled(edge: GradientEdge, inputs: tuple[Tensor, ...], cotangent: Tensor) -> Grads:
    """`torch.autograd.grad`, None for what the graph does not reach; the graph stays, for the record may be
    walked again, and graphs of stages may share nodes.

    Its checks of what it is given take 30 µs a call, a fifth of the VJP of a small network: the engine is
    called as it calls it where nothing overrides it.
    """
    run = _engine()
    if run is None or has_torch_function(inputs):
        return torch.autograd.grad(edge, inputs, cotangent, retain_graph=True, allow_unused=True)
    return run((edge,), inputs, (cotangent,))


@functools.cache
def _engine() -> Callable[[tuple[GradientEdge], tuple[Tensor, ...], tuple[Tensor]], Grads] | None:
    """Torch's engine itself, (edges, inputs, cotangents) → gradients; None where it is not as known.

    It is no public function: it is tried once, and what it finds is compared.
    """
    try:
        from torch.autograd.graph import _engine_run_backward as backward

        def run(edges: tuple[GradientEdge], inputs: tuple[Tensor, ...], cotangents: tuple[Tensor]) -> Grads:
            # The flags: the graph stays, and there is none of the gradients.
            flags = {"allow_unreachable": True, "accumulate_grad": False}
            return backward(edges, cotangents, True, False, inputs, **flags)

        with torch.inference_mode(False), torch.enable_grad():
            x, y = (torch.ones(2, dtype=torch.float32, device="cpu", requires_grad=True) for _ in range(2))
            edge = get_gradient_edge(x * 3.0)
        for _ in range(2):  # the second time the graph must be there yet
            found, unreached = run((edge,), (x, y), (torch.ones_like(x),))
    except (AttributeError, ImportError, RuntimeError, TypeError, ValueError):
        return None
    return run if unreached is None and found is not None and found.tolist() == [3.0, 3.0] else None


class AutogradDynamics(Dynamics):
    """dz = f(t, z) on the packed state, with the graph of each evaluation kept until its VJP.

    f: the packed function.
    params: what gradients are wanted for; None finds the leaves that the first evaluation's graph reaches.
        All VJPs of one evaluation are one `torch.autograd.grad`, for state and parameters together: splitting
        them costs a third more.
    late: a cotangent's weight is known only later and differs by sample (the continuous adjoints per sample),
        so the parameters get one weighted call for all stages of a step.
    missed: called once, with what the first evaluation's graph reaches besides z and params.
    """

    def __init__(
        self,
        f: Callable[[Tensor, Tensor], Tensor],
        params: Sequence[Tensor],
        autocast: Autocast,
        missed: Callable[[Captured], None] | None = None,
    ):
        self.f, self.autocast, self.missed = f, autocast, missed
        self.late = False
        self.inside = False  # func was seen to differentiate inside
        self.returned: tuple[weakref.ref[Tensor], int] | None = None  # the last result, and its version
        unique: dict[int, Tensor] = {id(p): p for p in params if p.requires_grad}
        self.params = tuple(unique.values())

    def keep_many(self) -> None:
        """Many evaluations are kept before their VJPs are asked for."""

    def weigh_late(self) -> None:
        """A cotangent's weights come with `parameter_gradients` only, one a sample."""
        self.late = True

    def theta(self) -> tuple[Tensor, ...]:
        """The parameters, each once."""
        return self.params

    def forward(self, t: Tensor, z: Tensor) -> tuple[Tensor, Graph]:
        """dz without its graph, and the graph."""
        return self.evaluated(self.f, t, z)

    def evaluated(
        self, f: Callable[[Tensor, Tensor], Tensor], t: Tensor, z: Tensor, inputs: tuple[Tensor, ...] = ()
    ) -> tuple[Tensor, Graph]:
        """`forward` by f, which leaves in inputs enter besides."""
        if self.missed is None:
            dz, graph = recorded(f, t, z)
            self._cut_if_overwritten(dz)
            return dz.detach(), graph
        missed, self.missed, since = self.missed, None, mark()
        dz, graph = self.evaluated(f, t, z, inputs)
        found = captured(graph.dz, graph.z, (*self.params, *inputs), since)
        if found.leaves or found.foreign:
            missed(found)
        return dz, graph

    def value(self, t: Tensor, z: Tensor) -> Tensor:
        """dz without a graph. A func that differentiates inside, and does not ask for it, gets one."""
        if self.missed is not None or self.inside:
            return self.forward(t, z)[0]
        try:
            with torch.no_grad():
                return self.f(t, z)
        except RuntimeError as error:
            if "require grad" not in str(error):
                raise
            self.inside = True
            return self.forward(t, z)[0]

    def _cut_if_overwritten(self, dz: Tensor) -> None:
        """Frees the history of a tensor into which func writes all its results.

        The next result would carry the graphs of all before it, and every VJP would walk through them.
        """
        if self.returned is not None:
            before, version = self.returned
            if before() is dz and dz._version != version and dz.grad_fn is not None and not dz._is_view():
                dz.detach_()
        self.returned = None if dz.is_inference() else (weakref.ref(dz), dz._version)

    def vjp(self, saved: Graph, cotangent: Tensor) -> tuple[Tensor, Any]:
        """(z̄, gradients of the parameters for this cotangent; where they come late, the cotangent)."""
        if saved.dz is None:  # f depends on neither the state nor a parameter
            return torch.zeros_like(saved.z), (None,) * len(self.params)
        inputs = (saved.z,) if self.late else (saved.z, *self.params)
        z_bar, *rest = pulled(saved.dz, inputs, cotangent)
        z_bar = torch.zeros_like(saved.z) if z_bar is None else z_bar
        return z_bar, cotangent if self.late else tuple(rest)

    def parameter_gradients(
        self, saved: list[Graph], deltas: list[Any], weights: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """The weighted sum over stages of what `vjp` found."""
        if self.late:
            return self.weighted(saved, deltas, weights, self.params)
        factors = [None] * len(deltas) if weights is None else list(weights.unbind())
        totals: list[Tensor | None] = [None] * len(self.params)
        for i, own in enumerate(zip(*deltas, strict=True)):
            pairs = zip(own, factors, strict=True)
            terms = [widened(g) if w is None else widened(g) * w for g, w in pairs if g is not None]
            if len(terms) > 1:
                total = terms[0] + terms[1]  # autograd's own results may share memory: these are new
                for term in terms[2:]:
                    total.add_(term)
                totals[i] = total
            elif terms:
                totals[i] = terms[0]
        return tuple(totals)

    def weighted(
        self,
        saved: list[Graph],
        cotangents: list[Tensor],
        weights: Tensor | None,
        inputs: tuple[Tensor, ...],
    ) -> tuple[Tensor | None, ...]:
        """One `torch.autograd.grad` by the inputs over all stages; weights [n, B], the batch is axis 0."""
        outputs: list[GradientEdge] = []
        weighted: list[Tensor] = []
        for i, (graph, a) in enumerate(zip(saved, cotangents, strict=True)):
            if graph.dz is not None:
                outputs.append(graph.dz)
                weighted.append(a if weights is None else a * weights[i].view(-1, *[1] * (a.dim() - 1)))
        if not outputs or not inputs:
            return (None,) * len(inputs)
        return torch.autograd.grad(outputs, inputs, weighted, retain_graph=True, allow_unused=True)


def discover_parameters(f: Callable[[Tensor, Tensor], Tensor], t: Tensor, z: Tensor) -> list[Tensor]:
    """The leaves that need a gradient and that f's graph reaches, by one evaluation.

    A tensor computed outside f and captured by it (not a leaf) is an ArgumentError: its history is
    outside the solve, so it must be named in ``params``.
    """
    since = mark()
    _, graph = recorded(f, t, z)
    found = captured(graph.dz, graph.z, (), since)
    if found.foreign is not None:
        raise ArgumentError(
            f"func uses a tensor that was computed outside it (by {found.foreign}) and needs a "
            "gradient; name it: params=[that tensor, …], or compute it inside func, or use "
            "gradient=adamode.Direct()."
        )
    return found.leaves
