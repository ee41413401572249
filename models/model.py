"""The public blocks, and a whole model: encoder → start → block → head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from ..adjoint.gradient import Discrete, Gradient
from .block import Block, LastSolve, SolveSettings
from .dynamics.adamnode import AdamODE


class AdamNODE(Block):
    """A Neural ODE whose state moves as Adam's does: (h0, m0, v0) ↦ h(T).

        h' = −m·D(v),  m' = (1−α)(−f(t, h) − m),  v' = (1−β)(f(t, h)² − v)

    field: f(t, h) → dh, any module or function, h [B, C, …], t 0-d.  alpha, beta: start values in
    (0, 1), learnt unless ``learnable=False``; the default is the released code's for CIFAR-10
    (1−α = 1−β = sigmoid(3)).  eps: a constant.  denominator: "exact" D = 1/√(v+ε), "softplus",
    "sigmoid".  adjoint_form: "exact", or a wrong gradient for study: "paper" is the printed Eq. 15,
    "paper-rates" the same with the rates 1−α, 1−β put in.  t: start and end.  rtol, atol, method,
    stepping, gradient: as in `adamode.solve`.

    With the exact D start from v0 > 0, or take an ε well above the tolerance: from v0 = 0 and
    ε = 1e-8 the equations are stiff at first, and solving them backwards can leave their domain.
    Raises ArgumentError or ArgumentTypeError for bad settings, SolverError where a solve cannot go on.
    Source: Cho, Hong, Lee, Park, "AdamNODEs: When Neural ODE Meets Adaptive Moment Estimation", Eq. 7.
    """

    def __init__(
        self,
        field: nn.Module | Callable[[Tensor, Tensor], Tensor],
        *,
        alpha: float = 0.0474,
        beta: float = 0.0474,
        eps: float = 1e-3,
        denominator: str = "exact",
        adjoint_form: str = "exact",
        learnable: bool = True,
        t: Sequence[float] = (0.0, 1.0),
        rtol: float = 1e-4,
        atol: float = 1e-4,
        method: str = "dopri5",
        stepping: str = "shared",
        gradient: Gradient | None = Discrete(),  # noqa: B008  (frozen)
    ):
        dynamics = AdamODE(
            field,
            alpha=alpha,
            beta=beta,
            eps=eps,
            denominator=denominator,
            adjoint_form=adjoint_form,
            learnable=learnable,
        )
        super().__init__(dynamics, SolveSettings(t, rtol, atol, method, stepping, gradient))

    @property
    def alpha(self) -> Tensor:
        """α, 0-d."""
        return self.dynamics.alpha

    @property
    def beta(self) -> Tensor:
        """β, 0-d."""
        return self.dynamics.beta

    def forward(self, h0: Tensor, m0: Tensor | None = None, v0: Tensor | None = None) -> Tensor:
        """h(T), [B, C, …], like h0; m0, v0 are zeros where not given."""
        return self.end(h0, m=m0, v=v0)

    def trajectory(
        self, h0: Tensor, t: Tensor, m0: Tensor | None = None, v0: Tensor | None = None
    ) -> dict[str, Tensor]:
        """{"h", "m", "v"} at the times t, [T], each [T, B, C, …]; the start is at t[0]."""
        return self.path(h0, t, m=m0, v=v0)


class Model(nn.Module):
    """encoder(x) = o, start(x, o) = (h0, …), block = h(T), head(h(T)) = output."""

    def __init__(self, encoder: nn.Module, start: nn.Module, block: nn.Module, head: nn.Module):
        super().__init__()
        self.encoder, self.start, self.block, self.head = encoder, start, block, head

    def forward(self, x: Tensor) -> Tensor:
        """The head's output for a batch x, [B, C, H, W]."""
        start: dict[str, Any] = self.start(x, self.encoder(x))
        return self.head(self.block(**start))

    @property
    def last_stats(self) -> LastSolve | None:
        """What the block's last solve cost."""
        return self.block.last_stats
