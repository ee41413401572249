"""Several processes that train one model, as torchrun starts them.

Each rank holds the whole model and a part of every global batch. Ranks talk between the solves, never
inside one: each finishes its forward and backward pass alone, then one sum tells all ranks whether
somebody failed, and one more adds up the gradients. Adaptive solvers take different numbers of steps
on different ranks, and a solve can fail on one of them; a reduction that is started from inside the
backward pass (as `DistributedDataParallel`'s hooks do) would leave the others waiting for a rank that
never comes. The gradient of rank r is that of its samples' losses divided by the size of the *global*
batch, so the sum over ranks is the gradient of one process with that batch, however uneven the parts.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..solvers.errors import AdamodeError, ArgumentError, TrainingError

T = TypeVar("T")
# One rank may validate, draw or wait for a disk while the others are here already.
PATIENCE = timedelta(minutes=30)


def asked_ranks() -> tuple[int, int, int]:
    """(rank, world, local rank) that torchrun's environment asks for; (0, 1, 0) without it.

    Raises: ArgumentError for an environment that makes no sense.
    """
    values = {name: os.environ.get(name, d) for name, d in (("RANK", "0"), ("WORLD_SIZE", "1"))}
    values["LOCAL_RANK"] = os.environ.get("LOCAL_RANK", values["RANK"])
    try:
        rank, world, local = (int(values[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    except ValueError:
        rank, world, local = -1, 0, -1
    if not 0 <= rank < world or local < 0:
        raise ArgumentError(
            f"the environment says {values}; RANK must be 0 … WORLD_SIZE−1. Start with "
            "`torchrun --nproc-per-node N -m adamode train …`, or unset these variables."
        )
    return (rank, world, local) if world > 1 else (0, 1, 0)


def restarted() -> bool:
    """Whether torchrun has started this process again after a failure: then a run is gone on with."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") not in ("", "0")


def own_device(name: str) -> str:
    """The device of this rank: "cuda" becomes "cuda:<local rank>" where there are several ranks."""
    _, world, local = asked_ranks()
    if world > 1 and name.startswith("cuda:"):
        raise ArgumentError(
            f"device={name!r} with {world} processes: each takes a GPU of its own; say --device cuda."
        )
    return f"cuda:{local}" if world > 1 and name == "cuda" else name


@dataclasses.dataclass
class Ranks:
    """The processes of a run; with one process every method is free and changes nothing.

    Made by `Ranks.join`, left as a context. All methods are collective: every rank calls them.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    _ours: bool = False  # whether the process group was made here

    @classmethod
    def join(cls, device: torch.device) -> Ranks:
        """Joins the group that torchrun's environment describes: gloo on CPUs, nccl for GPU tensors."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size(), device)
        rank, world, _ = asked_ranks()
        if world == 1:
            return cls(device=device)
        backend = "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(device)
            backend = "cpu:gloo,cuda:nccl"
        c10d: Any = dist  # its own types leave out what follows
        store, _, _ = next(c10d.rendezvous("env://", timeout=PATIENCE))
        if os.environ.get("GROUP_WORLD_SIZE") == "1":
            # On one node torchrun's store outlives a restart (torch 2.14), and gloo would find the
            # addresses of processes that are dead. Agents of several nodes count restarts each for
            # itself, and make a new store.
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            store = c10d.PrefixStore(f"attempt-{attempt}", store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=PATIENCE)
        return cls(rank, world, device, _ours=True)

    def __enter__(self) -> Ranks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ours and dist.is_initialized():
            dist.destroy_process_group()

    def part(self, indices: Tensor) -> list[int]:
        """This rank's share of a global batch: shares are consecutive and differ by one at most."""
        n = len(indices)
        return indices[n * self.rank // self.world : n * (self.rank + 1) // self.world].tolist()

    def sum(self, values: list[float]) -> list[float]:
        """Sums over ranks, in float64: whole numbers are exact."""
        if self.world == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def max(self, value: float) -> float:
        """The largest over the ranks."""
        if self.world == 1:
            return value
        largest = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return largest.item()

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in the order of ranks."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def first(self, act: Callable[[], T]) -> T:
        """What ``act`` returns on rank 0, on every rank; an error of it is raised on every rank.

        So nobody goes on before rank 0's file is written, or waits for a rank 0 that has stopped.
        """
        if self.world == 1:
            return act()
        outcome: list[Any] = [None, None]
        if self.rank == 0:
            try:
                outcome[0] = act()
            except AdamodeError as error:
                outcome[1] = error
            except BaseException as error:  # told to the others, then raised as it is
                outcome[1] = TrainingError(f"rank 0 stopped: {type(error).__name__}: {error}")
                dist.broadcast_object_list(outcome)
                raise
        dist.broadcast_object_list(outcome)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces each gradient by its sum over ranks; a missing one counts as zeros.

        One reduction a dtype: the models here have a few hundred kilobytes of parameters.
        """
        if self.world == 1:
            return
        groups: dict[torch.dtype, list[nn.Parameter]] = {}
        for p in parameters:
            if p.requires_grad:
                groups.setdefault(p.dtype, []).append(p)
        for members in groups.values():
            parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in members]
            flat = torch.cat([part.reshape(-1) for part in parts])
            dist.all_reduce(flat)
            for p, part in zip(members, flat.split([p.numel() for p in members]), strict=True):
                p.grad = part.reshape(p.shape).clone()

    def share_weights(self, model: nn.Module) -> None:
        """Every rank starts from rank 0's parameters and buffers."""
        if self.world == 1:
            return
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor.detach(), 0)


def refuse_batch_statistics(model: nn.Module, world: int) -> None:
    """Raises ArgumentError where several ranks would not train the model that one would.

    A batch norm in training mode sees the samples of its rank only; a synchronised one would
    communicate inside a solve, where ranks take different numbers of steps, and hang.
    """
    if world == 1:
        return
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            raise ArgumentError(
                f"{name!r} is a {type(module).__name__} in training mode, and there are {world} processes: "
                "its statistics would be those of one process's samples, and synchronising them inside a "
                "solve would hang, because adaptive solvers take different numbers of steps. Use GroupNorm "
                "or LayerNorm, or train with one process."
            )
