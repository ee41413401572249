"""One epoch of training the digits model in the batches of ``adamode train``: the same modules and weights,
the block solved by us or by torchdiffeq. The error is that of the first batch's gradient."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import adamode
from adamode import ArgumentError, ArgumentTypeError, Backsolve, Discrete
from adamode.train.data import load_data
from adamode.train.recipes import RECIPES

from .job import Counts, Tally, TorchJob, Unavailable
from .peers.ours import MODES
from .plain import plain_of
from .reference import error
from .way import OURS, PEER, Way

RECIPE = RECIPES["digits"]
# The recipe's 1e-2 would stop torchdiffeq's adjoint: after 15 to 28 batches its way back leaves v + ε > 0 and
# its step underflows.
LR = 1e-3
REFERENCE = {"method": "dopri5", "rtol": 1e-8, "atol": 1e-8, "gradient": Discrete(keep="state")}


@dataclasses.dataclass(frozen=True)
class Epoch:
    """Batches in their order; weights: of the model at the start.

    tol: of the block's solves.
    """

    name: str
    batches: list[tuple[Tensor, Tensor]]
    weights: dict[str, Tensor]
    tol: float
    kind: str = "epoch"
    # What other ways look for to see whether a case is theirs.
    dynamics: None = None
    users: bool = False
    convolutional: bool = False

    def model(self, **settings: Any) -> nn.Module:
        """The model with these weights; Unavailable for a setting that the block does not have."""
        try:
            found = adamode.models.create(
                "adamnode", "digits", **{"rtol": self.tol, "atol": self.tol, **settings}
            )
        except (ArgumentError, ArgumentTypeError) as problem:
            raise Unavailable(str(problem)) from problem
        some = next(iter(self.weights.values()))
        found.to(some.device, some.dtype).load_state_dict(self.weights)
        return found

    def double(self) -> Epoch:
        """The first batch in float64."""
        x, y = self.batches[0]
        weights = {name: value.double() for name, value in self.weights.items()}
        return dataclasses.replace(self, batches=[(x.double(), y)], weights=weights)


def make(*, seed: int, small: bool, dtype: torch.dtype, device: str) -> Epoch:
    """An epoch of the training images in an order drawn from the seed; small: two batches."""
    torch.manual_seed(seed)
    model = adamode.models.create("adamnode", "digits")
    data = load_data("digits").train
    x, y = data.__getitems__(list(range(len(data))))
    x, y = x.to(device, dtype), y.to(device)
    order = torch.randperm(len(y)).to(device).split(RECIPE.batch_size)
    batches = [(x[rows], y[rows]) for rows in (order[:2] if small else order)]
    weights = {name: p.detach().to(device, dtype) for name, p in model.state_dict().items()}
    return Epoch("digits", batches, weights, model.block.settings.rtol)


def reference(epoch: Epoch) -> list[Tensor]:
    """The first batch's gradient in float64."""
    fine = epoch.double()
    model = fine.model(**REFERENCE)
    x, y = fine.batches[0]
    return list(torch.autograd.grad(cross_entropy(model(x), y), list(model.parameters())))


def doubt(epoch: Epoch) -> float:
    """How far torchdiffeq's gradient at the reference's tolerance is from the reference; NaN without it."""
    if importlib.util.find_spec("torchdiffeq") is None:
        return math.nan
    fine = epoch.double()
    model = fine.model(**REFERENCE)
    parameters = list(model.parameters())
    model.block = TorchdiffeqBlock(model.block, adjoint=False)
    x, y = fine.batches[0]
    return error(torch.autograd.grad(cross_entropy(model(x), y), parameters), reference(epoch))


def train(
    epoch: Epoch, model: nn.Module, parameters: list[nn.Parameter], see: Callable[[], None]
) -> list[Tensor]:
    """The epoch, from the given weights; the first batch's gradients. see: called after each batch."""
    first: list[Tensor] = []
    with torch.no_grad():
        for p, value in zip(parameters, epoch.weights.values(), strict=True):
            p.copy_(value)
    optimiser = torch.optim.Adam(parameters, lr=LR)
    for x, y in epoch.batches:
        optimiser.zero_grad()
        cross_entropy(model(x), y).backward()
        first = first or [p.grad.clone() for p in parameters if p.grad is not None]
        torch.nn.utils.clip_grad_norm_(parameters, RECIPE.clip)
        optimiser.step()
        see()
    return first


class TorchdiffeqBlock(nn.Module):
    """Solves our block's equations, written plainly, with torchdiffeq."""

    def __init__(self, block: Any, adjoint: bool):
        super().__init__()
        import torchdiffeq

        self.plain: nn.Module = plain_of(block.dynamics)
        self.odeint = torchdiffeq.odeint_adjoint if adjoint else torchdiffeq.odeint
        self.settings = block.settings

    def forward(self, h0: Tensor, m0: Tensor | None = None, v0: Tensor | None = None) -> Tensor:
        """h(T), like h0."""
        z0 = torch.stack([torch.zeros_like(h0) if x is None else x for x in (h0, m0, v0)])
        t = torch.tensor(self.settings.t, dtype=torch.float64, device=h0.device)
        return self.odeint(self.plain, z0, t, rtol=self.settings.rtol, atol=self.settings.atol)[-1, 0]


def _ours(epoch: Epoch, **settings: Any) -> TorchJob:
    model = epoch.model(**settings)
    parameters = list(model.parameters())

    def count() -> Counts:
        found = [0, 0, 0]

        def see() -> None:
            stats = model.block.last_stats
            for i, name in enumerate(("nfe", "nfe_recomputed", "nfe_backward")):
                found[i] += getattr(stats, name)

        train(epoch, model, parameters, see)
        return Counts(*found)

    compiled = bool(settings.get("compile"))
    return TorchJob(
        lambda: train(epoch, model, parameters, _unseen), count, cuda=parameters[0].is_cuda, compiled=compiled
    )


def _theirs(epoch: Epoch, *, adjoint: bool) -> TorchJob:
    model = epoch.model()
    parameters = list(model.parameters())
    model.block = TorchdiffeqBlock(model.block, adjoint)

    def count() -> Counts:
        other = copy.deepcopy(model)
        own = [dict(other.named_parameters())[name] for name in _names(model, parameters)]
        tally = Tally(other.block.plain)
        other.block.plain = tally
        forward = [0]
        other.block.register_forward_pre_hook(lambda *_: forward.append(-tally.nfe))
        other.block.register_forward_hook(lambda *_: forward.append(tally.nfe))
        train(epoch, other, own, _unseen)
        return Counts(nfe=sum(forward), nfe_backward=tally.nfe - sum(forward), vjps=tally.vjps)

    return TorchJob(lambda: train(epoch, model, parameters, _unseen), count, cuda=parameters[0].is_cuda)


def _unseen() -> None:
    pass


def _names(model: nn.Module, parameters: list[nn.Parameter]) -> list[str]:
    names = {id(p): name for name, p in model.named_parameters()}
    return [names[id(p)] for p in parameters]


def ways() -> list[Way]:
    """Ours by the discrete adjoint and backsolve, torchdiffeq's adjoint and backpropagation."""

    def fits(case: Any) -> bool:
        return case.kind == "epoch"

    def ours(settings: dict[str, Any]) -> Any:
        return lambda epoch, _: _ours(epoch, **settings)

    def theirs(adjoint: bool) -> Any:
        return lambda epoch, _: _theirs(epoch, adjoint=adjoint)

    found = []
    for name, gradient in (("discrete", Discrete()), ("backsolve", Backsolve())):
        for mode, extra in MODES.items():
            settings = {"gradient": gradient, **extra}
            end = "/".join(filter(None, ("adamode", name, mode)))
            found.append(Way(end, OURS, ours(settings), fits, slow=bool(extra)))
    for name, adjoint in (("adjoint", True), ("direct", False)):
        found.append(Way(f"torchdiffeq/{name}", PEER, theirs(adjoint), fits, "torchdiffeq"))
    return found
