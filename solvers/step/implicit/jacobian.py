"""∂f/∂y of every sample, [b, n, n]: given, or made of f by forward mode, or by reverse mode; and ∂f/∂t."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import AdamodeWarning, DynamicsError, first_line
from ..clocks import Clocks, Each, sent
from ..field import dual, leaf
from .samples import Samples

NEAR = 100.0  # in roots of eps: differences of f come nearer
Plain = Callable[[Tensor, Tensor], Tensor]
Given = Callable[[Tensor, Tensor], Any]  # (t, z) → blocks [b, n, n], or the whole [N, N]


class Jacobian:
    """∂f/∂z of a packed state, as rows of it see it.

    f: the packed function; forward mode must go through it, else reverse mode.
    given: the Jacobian itself, where someone has it; whose: what it is called in a message.
    batch: the axis of samples; with one clock samples may depend on each other, and the first call finds out
        whether they do: f is differentiated once along a direction in all entries. Then all is one block.
    ``free``: it is known by its products alone.
    """

    free = False

    def __init__(
        self,
        f: Plain,
        clocks: Clocks,
        batch: int | None,
        given: Given | None = None,
        whose: str = "jac",
    ):
        self.f, self.given, self.whose = f, given, whose
        self.samples = Samples(batch)
        self.known = isinstance(clocks, Each) or batch is None  # whether samples are independent
        self.forward_mode = True
        self.compared = False  # with the derivative of f by autograd

    @property
    def calls_f(self) -> bool:
        """Whether an evaluation is one of f."""
        return self.given is None

    def __call__(self, t: Tensor, z: Tensor) -> Tensor:
        """[b, n, n] at the state z; t as f wants it."""
        if self.given is not None:
            return self._checked(self.given(t, z), t, z)
        if not self.known and not self._independent(t, z):
            self.samples = Samples(None)
        self.known = True
        return self._made(t, z)

    def in_time(self, t: Tensor, z: Tensor) -> Tensor:
        """∂f/∂t, a state; each sample's by its own time, where it has one."""
        return self._either(self._along_time, self._along_time_by_vjps, t, z)

    def _along_time(self, t: Tensor, z: Tensor) -> Tensor:
        load_rules()
        t, z = t.contiguous(), z.contiguous()  # as for `_columns`
        found: Tensor = torch.func.jvp(lambda s: self.f(s, z), (t,), (torch.ones_like(t),))[1]
        return found.to(z.dtype)

    def _along_time_by_vjps(self, t: Tensor, z: Tensor) -> Tensor:
        """The VJP is linear in its cotangent, and its derivative by that is ∂f/∂t."""
        followed = torch.is_grad_enabled()
        with torch.enable_grad():
            own = t if followed and t.requires_grad else leaf(t)
            dz = self.f(own, z)
            if not dz.requires_grad:
                return torch.zeros_like(z)
            v = torch.zeros_like(dz, requires_grad=True)
            flags: Any = {"create_graph": True, "allow_unused": True}
            bar = torch.autograd.grad(dz, own, v, **flags)[0]
            if bar is None or not bar.requires_grad:
                return torch.zeros_like(z)
            flags["create_graph"] = followed
            found = torch.autograd.grad(bar.sum(), v, **flags)[0]
        return torch.zeros_like(z) if found is None else found

    def contracted(
        self,
        t: Tensor,
        z: Tensor,
        cotangents: Sequence[Tensor],
        directions: Sequence[Tensor],
        in_time: Sequence[float],
    ) -> Tensor:
        """Σ_i ⟨a_i, (∂f/∂z) v_i + s_i ∂f/∂t⟩ by f itself, 0-d, with a graph to z and to what f is made of."""
        if not self.forward_mode or dual():
            return self._contracted_by_vjps(t, z, cotangents, directions, in_time)
        s = sent(in_time, t.device, t.dtype)
        along = s.reshape(-1, *[1] * t.dim()) * torch.ones_like(t)

        def derivative(ahead: Tensor, v: Tensor) -> Tensor:
            found: Tensor = torch.func.jvp(self.f, (t, z), (ahead, v))[1]
            return found

        load_rules()
        t, z = t.contiguous(), z.contiguous()  # as for `_columns`
        moved = torch.func.vmap(derivative)(along, torch.stack(list(directions)))
        total: Tensor = (torch.stack(list(cotangents)).conj() * moved).sum().real
        return total

    def _contracted_by_vjps(
        self,
        t: Tensor,
        z: Tensor,
        cotangents: Sequence[Tensor],
        directions: Sequence[Tensor],
        in_time: Sequence[float],
    ) -> Tensor:
        """⟨a, (∂f/∂z) v⟩ = ⟨(∂f/∂z)ᵀ a, v⟩, one VJP each."""
        own = t.detach().requires_grad_()
        dz, total = self.f(own, z), z.new_zeros(()).real
        if not dz.requires_grad:
            return total
        flags: Any = {"create_graph": True, "allow_unused": True}
        for a, v, s in zip(cotangents, directions, in_time, strict=True):
            time_bar, bar = torch.autograd.grad(dz, (own, z), a, **flags)
            if bar is not None:
                total = total + (bar.conj() * v).sum().real
            if time_bar is not None and s:
                total = total + s * time_bar.sum()
        return total

    def compare(self, t: Tensor, z: Tensor, blocks: Tensor) -> None:
        """Raises DynamicsError where the Jacobian is not the derivative of f by autograd; once a solve.

        blocks: the Jacobian at z. A host read. Only a method that loses its order otherwise asks for it.
        """
        if self.compared:
            return
        self.compared, z = True, z.detach()
        numbers = torch.arange(z.numel(), dtype=torch.float64, device=z.device).reshape(z.shape)
        a, v = ((w * numbers + 0.3).cos().to(z.dtype) for w in (1.7, 2.3))
        said = self._said(t, z, blocks.detach(), a, v)
        if said is None:
            return
        with torch.enable_grad():
            found = self.contracted(t, z.clone().requires_grad_(), [a], [v], [0.0]).detach()
        off, size = (said.sum() - found).abs(), said.abs().sum()
        if bool(off > NEAR * torch.finfo(z.dtype).eps ** 0.5 * size):  # host read
            raise DynamicsError(
                f"{self.whose} is not the derivative of func that autograd finds at "
                f"t={float(t.reshape(-1)[0]):.6g}: it is off by {float(off / size):.2g} of its size. A "
                "Rosenbrock method then loses its order: correct it, let func be differentiated, or choose "
                "radau5 or kvaerno5, whose iteration it only slows down."
            )

    def _said(self, t: Tensor, z: Tensor, blocks: Tensor, a: Tensor, v: Tensor) -> Tensor | None:
        """The terms of ⟨a, J v⟩ by what is to be compared; None where it is autograd's."""
        if self.given is None:
            return None
        rows = torch.einsum("bij,bj->bi", blocks, self.samples.rows(v))
        return self.samples.rows(a) * rows

    def _made(self, t: Tensor, z: Tensor) -> Tensor:
        """By derivatives of f along each entry of a sample, of all samples at once."""
        return self._either(self._by_forward_mode, self._by_reverse_mode, t, z)

    def _either(self, forward: Plain, reverse: Plain, t: Tensor, z: Tensor) -> Tensor:
        """By forward mode; where that cannot be by reverse mode, from then on."""
        if not self.forward_mode or dual():
            return reverse(t, z)
        try:
            return forward(t, z)
        except (NotImplementedError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            found = reverse(t, z)  # an error of f's own comes out of this as well
            self._told(error)
            return found

    def _told(self, error: Exception) -> None:
        """From now on by VJPs, which is said once."""
        self.forward_mode = False
        warnings.warn(
            f"func cannot be differentiated in forward mode ({first_line(error, 160)}): "
            "its Jacobian is made of VJPs, row by row. Give jac=…, or forward-mode rules.",
            AdamodeWarning,
            stacklevel=4,
        )

    def _columns(self, t: Tensor, z: Tensor, directions: Tensor) -> Tensor:
        """(∂f/∂z) v for every v in directions, [m, *S]."""

        def along(v: Tensor) -> Tensor:
            found: Tensor = torch.func.jvp(lambda x: self.f(t, x), (z,), (v,))[1]
            return found

        load_rules()
        z, directions = z.contiguous(), directions.contiguous()  # dual numbers want memory of their own
        # A tangent of a 0-d number times a Python number may come out as another dtype.
        return torch.func.vmap(along)(directions).to(z.dtype)

    def _by_forward_mode(self, t: Tensor, z: Tensor) -> Tensor:
        columns = self._columns(t, z, self.samples.basis(z))
        return torch.stack([self.samples.rows(column) for column in columns], 2)

    def _by_reverse_mode(self, t: Tensor, z: Tensor) -> Tensor:
        followed = torch.is_grad_enabled()
        with torch.enable_grad():
            own = z if followed and z.requires_grad else leaf(z)
            dz = self.f(t, own)
            if not dz.requires_grad:
                rows = self.samples.rows(z)
                return rows.new_zeros((*rows.shape, rows.shape[1]))
            found = []
            for v in self.samples.basis(z):
                flags: Any = {"retain_graph": True, "allow_unused": True, "create_graph": followed}
                bar = torch.autograd.grad(dz, own, v, **flags)[0]
                found.append(self.samples.rows(torch.zeros_like(z) if bar is None else bar))
        return torch.stack(found, 1)

    @torch.no_grad()
    def _independent(self, t: Tensor, z: Tensor) -> bool:
        """Whether entries of one sample change f of that sample alone: every second sample moves."""
        axis = self.samples.axis
        assert axis is not None
        size = z.shape[axis]
        if size < 2:
            return True
        try:
            numbers = torch.arange(z.numel(), dtype=z.dtype, device=z.device)
            moved = (1.7 * numbers + 0.3).cos().reshape(z.shape)
            shape = [-1 if i == axis else 1 for i in range(z.dim())]
            step = torch.arange(1, size + 1, dtype=z.dtype, device=z.device).reshape(shape)
            return self._splits(t, z, moved, step)
        except (NotImplementedError, RuntimeError):
            return False  # without forward mode: one block is right in any case

    def _splits(self, t: Tensor, z: Tensor, v: Tensor, weights: Tensor) -> bool:
        """Whether f' (w ∘ v) = w ∘ f' v for a number w of each sample."""
        both = self._columns(t, z, torch.stack((v, weights * v, torch.cos(3.0 * weights) * v)))
        plain, first, second = both.unbind()
        scale = torch.stack((first, weights * plain)).abs().amax()
        off = torch.stack((first - weights * plain, second - torch.cos(3.0 * weights) * plain)).abs().amax()
        return bool(off <= 1e3 * torch.finfo(z.dtype).eps * scale)  # host read

    def _checked(self, found: Any, t: Tensor, z: Tensor) -> Tensor:
        """What the caller's function returned."""
        rows = self.samples.rows(z)
        (b, n), whole = rows.shape, z.numel()
        wanted = [(b, n, n)] + ([(n, n)] if b == 1 else []) + ([] if self.known else [(whole, whole)])
        if not isinstance(found, Tensor) or tuple(found.shape) not in wanted:
            is_tensor = isinstance(found, Tensor)
            what = f"shape {tuple(found.shape)}" if is_tensor else f"a {type(found).__name__}"
            shapes = " or ".join(str(shape) for shape in wanted)
            raise DynamicsError(
                f"{self.whose} returned {what} for a state of shape {tuple(z.shape)}: it must return df/dy, "
                f"{shapes}, row i the derivatives of entry i of f."
            )
        if found.device != z.device or found.dtype != z.dtype:
            raise DynamicsError(
                f"{self.whose} returned a tensor of {found.dtype} on {found.device} for a state of {z.dtype} "
                f"on {z.device}: convert it."
            )
        if tuple(found.shape) == (whole, whole) and (b, n) != (1, whole):
            self.samples = Samples(None)
        if found.dim() == 2:
            found = found[None]
        self._refuse_nan(found, t)
        return found

    def _refuse_nan(self, found: Tensor, t: Tensor) -> None:
        bad = torch.isnan(found).flatten(1).any(1)
        if not math.isnan(float(found.detach().sum())) or not bool(bad.any()):  # host reads
            return
        i = int(bad.to(torch.int8).argmax())
        time = float(t.reshape(-1)[i if t.numel() > 1 else 0])
        raise DynamicsError(
            f"{self.whose} returned NaN for sample {i} at t={time:.6g}, where f itself is finite: give its "
            "derivative there, or leave jac out and let f be differentiated."
        )


@functools.cache
def load_rules() -> None:
    """Loads torch's rules of forward mode, whose first use warns of how torch makes them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        x = torch.ones((), dtype=torch.float32, device="cpu")
        torch.func.jvp(torch.exp, (x,), (x,))
