"""The six public blocks, and a whole model: encoder → start → block → head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..adjoint.arguments import Stepping
from ..adjoint.gradient import Discrete, Gradient
from .block import Block, LastSolve, SolveSettings
from .denominators import DenominatorName
from .dynamics import (
    AdamODE,
    AugmentedNODE,
    GeneralisedHeavyBallODE,
    HeavyBallODE,
    NeuralODE,
    SecondOrderODE,
)
from .dynamics.adamnode import AdjointForm
from .dynamics.anode import augment as with_zeros
from .dynamics.ghbnode import Saturation

Network = nn.Module | Callable[[Tensor, Tensor], Tensor]

# sigmoid(−3) and softplus(2): where the authors of HBNODE start γ and ξ.
GAMMA, XI = 0.04742587317756678, 2.1269280110429727


class NODE(Block):
    """A neural ODE: h' = f(t, h), h0 ↦ h(T).

    field: f(t, h) → dh, any module or function, h [B, C, …], t 0-d ([B, 1, …, 1] per sample).
    learnable: taken as by the other five; there is no number of its own here to freeze.
    t: start and end.  rtol, atol, method, stepping, gradient, compile, sync_every: as in `adamode.solve`
    (`models.explain` says where compile=True does nothing; a block then warns and goes on without).
    Raises ArgumentError or ArgumentTypeError for bad settings, SolverError where a solve cannot go on.
    Source: R. T. Q. Chen, Y. Rubanova, J. Bettencourt, D. Duvenaud, NeurIPS 2018, Eq. 2.
    """

    def __init__(
        self,
        field: Network,
        *,
        learnable: bool = True,
        t: Sequence[float] = (0.0, 1.0),
        rtol: float = 1e-4,
        atol: float = 1e-4,
        method: str = "dopri5",
        stepping: Stepping = "shared",
        gradient: Gradient | None = Discrete(),  # noqa: B008  (frozen)
        compile: bool = False,
        sync_every: int = 1,
    ):
        settings = SolveSettings(t, rtol, atol, method, stepping, gradient, compile, sync_every)
        super().__init__(NeuralODE(field), settings)

    def forward(self, h0: Tensor) -> Tensor:
        """h(T), [B, C, …], like h0."""
        return self.end(h0)

    def trajectory(self, h0: Tensor, t: Tensor) -> dict[str, Tensor]:
        """{"h"} at the times t, [T], as [T, B, C, …]; the start is at t[0]."""
        return self.path(h0, t)


class ANODE(Block):
    """A neural ODE with room to move around itself: NODE on h0 with channels of zeros appended.

    field: f(t, h) → dh on [B, C + augment, …].  augment: how many channels are appended to dim 1
    of h0; h(T) and the trajectory have them too.  The rest is as in `NODE`.
    Raises ArgumentError or ArgumentTypeError for bad settings, SolverError where a solve cannot go on.
    Source: E. Dupont, A. Doucet, Y. W. Teh, Augmented neural ODEs, NeurIPS 2019, Sec. 4.
    """

    def __init__(
        self,
        field: Network,
        *,
        augment: int,
        learnable: bool = True,
        t: Sequence[float] = (0.0, 1.0),
        rtol: float = 1e-4,
        atol: float = 1e-4,
        method: str = "dopri5",
        stepping: Stepping = "shared",
        gradient: Gradient | None = Discrete(),  # noqa: B008  (frozen)
        compile: bool = False,
        sync_every: int = 1,
    ):
        # Its checks, now and not at the first call.
        with_zeros(torch.empty((0, 1), dtype=torch.float32, device="cpu"), augment)
        settings = SolveSettings(t, rtol, atol, method, stepping, gradient, compile, sync_every)
        super().__init__(AugmentedNODE(field), settings, pad=augment)

    @property
    def augment(self) -> int:
        """How many channels of zeros are appended."""
        return self.pad

    def forward(self, h0: Tensor) -> Tensor:
        """h(T), [B, C + augment, …], from h0 [B, C, …]."""
        return self.end(h0)

    def trajectory(self, h0: Tensor, t: Tensor) -> dict[str, Tensor]:
        """{"h"} at the times t, [T], as [T, B, C + augment, …]; the start is at t[0]."""
        return self.path(h0, t)


class SONODE(Block):
    """A second-order neural ODE: h' = v, v' = f(t, [h, v]), (h0, v0) ↦ h(T).

    field: f(t, x) → dv with x = torch.cat([h, v], dim=1), [B, 2C, …], and dv [B, C, …].
    The rest is as in `NODE`.
    Raises ArgumentError or ArgumentTypeError for bad settings, SolverError where a solve cannot go on.
    Source: A. Norcliffe, C. Bodnar, B. Day, N. Simidjievski, P. Liò, NeurIPS 2020, Eq. 4.
    """

    def __init__(
        self,
        field: Network,
        *,
        learnable: bool = True,
        t: Sequence[float] = (0.0, 1.0),
        rtol: float = 1e-4,
        atol: float = 1e-4,
        method: str = "dopri5",
        stepping: Stepping = "shared",
        gradient: Gradient | None = Discrete(),  # noqa: B008  (frozen)
        compile: bool = False,
        sync_every: int = 1,
    ):
        settings = SolveSettings(t, rtol, atol, method, stepping, gradient, compile, sync_every)
        super().__init__(SecondOrderODE(field), settings)

    def forward(self, h0: Tensor, v0: Tensor | None = None) -> Tensor:
        """h(T), [B, C, …], like h0; the velocity v0 is zero where not given."""
        return self.end(h0, v=v0)

    def trajectory(self, h0: Tensor, t: Tensor, v0: Tensor | None = None) -> dict[str, Tensor]:
        """{"h", "v"} at the times t, [T], each [T, B, C, …]; the start is at t[0]."""
        return self.path(h0, t, v=v0)


class _HeavyBall(Block):
    """What both heavy balls have: a damping γ, and a state [h, m]."""

    dynamics: HeavyBallODE | GeneralisedHeavyBallODE

    @property
    def gamma(self) -> Tensor:
        """γ, 0-d."""
        return self.dynamics.gamma

    def forward(self, h0: Tensor, m0: Tensor | None = None) -> Tensor:
        """h(T), [B, C, …], like h0; m0 is zero where not given."""
        return self.end(h0, m=m0)

    def trajectory(self, h0: Tensor, t: Tensor, m0: Tensor | None = None) -> dict[str, Tensor]:
        """{"h", "m"} at the times t, [T], each [T, B, C, …]; the start is at t[0]."""
        return self.path(h0, t, m=m0)


class HBNODE(_HeavyBall):
    """A heavy ball neural ODE: h' = −m, m' = f(t, h) − γ m, (h0, m0) ↦ h(T).

    field: f(t, h) → dh as in `NODE`.  gamma: start value of the damping γ in (0, 1), learnt unless
    ``learnable=False``; the default is the authors' sigmoid(−3).  The rest is as in `NODE`.
    Raises ArgumentError or ArgumentTypeError for bad settings, SolverError where a solve cannot go on.
    Source: H. Xia et al., Heavy ball neural ODEs, NeurIPS 2021; AdamNODE paper, Eq. 3.
    """

    def __init__(
        self,
        field: Network,
        *,
        gamma: float = GAMMA,
        learnable: bool = True,
        t: Sequence[float] = (0.0, 1.0),
        rtol: float = 1e-4,
        atol: float = 1e-4,
        method: str = "dopri5",
        stepping: Stepping = "shared",
        gradient: Gradient | None = Discrete(),  # noqa: B008  (frozen)
        compile: bool = False,
        sync_every: int = 1,
    ):
        dynamics = HeavyBallODE(field, gamma=gamma, learnable=learnable)
        settings = SolveSettings(t, rtol, atol, method, stepping, gradient, compile, sync_every)
        super().__init__(dynamics, settings)


class GHBNODE(_HeavyBall):
    """A generalised heavy ball neural ODE: h' = σ(−m), m' = f(t, h) − γ m + ξ h, (h0, m0) ↦ h(T).

    field: f(t, h) → dh as in `NODE`.  gamma, xi: start values of γ in (0, 1) and ξ > 0, learnt
    unless ``learnable=False``; the defaults are the authors' sigmoid(−3) and softplus(2).
    activation: σ, "tanh" or "hardtanh" (clipped at ±5).  The rest is as in `NODE`.
    Raises ArgumentError or ArgumentTypeError for bad settings, SolverError where a solve cannot go on.
    Source: H. Xia et al., Heavy ball neural ODEs, NeurIPS 2021 (with m and f of the other sign).
    """

    def __init__(
        self,
        field: Network,
        *,
        gamma: float = GAMMA,
        xi: float = XI,
        activation: Saturation = "tanh",
        learnable: bool = True,
        t: Sequence[float] = (0.0, 1.0),
        rtol: float = 1e-4,
        atol: float = 1e-4,
        method: str = "dopri5",
        stepping: Stepping = "shared",
        gradient: Gradient | None = Discrete(),  # noqa: B008  (frozen)
        compile: bool = False,
        sync_every: int = 1,
    ):
        dynamics = GeneralisedHeavyBallODE(
            field, gamma=gamma, xi=xi, activation=activation, learnable=learnable
        )
        settings = SolveSettings(t, rtol, atol, method, stepping, gradient, compile, sync_every)
        super().__init__(dynamics, settings)

    dynamics: GeneralisedHeavyBallODE

    @property
    def xi(self) -> Tensor:
        """ξ, 0-d."""
        return self.dynamics.xi


class AdamNODE(Block):
    """A Neural ODE whose state moves as Adam's does: (h0, m0, v0) ↦ h(T).

        h' = −m·D(v),  m' = (1−α)(−f(t, h) − m),  v' = (1−β)(f(t, h)² − v)

    field: f(t, h) → dh, any module or function, h [B, C, …], t 0-d.  alpha, beta: start values in
    (0, 1), learnt unless ``learnable=False``; the default is the released code's for CIFAR-10
    (1−α = 1−β = sigmoid(3)).  eps: a constant.  denominator: "exact" D = 1/√(v+ε), "softplus",
    "sigmoid".  adjoint_form: "exact", or a wrong gradient for study: "paper" is the printed Eq. 15,
    "paper-rates" the same with the rates 1−α, 1−β put in.  t: start and end.  rtol, atol, method,
    stepping, gradient, compile, sync_every: as in `adamode.solve`.

    With the exact D start from v0 > 0, or take an ε well above the tolerance: from v0 = 0 and
    ε = 1e-8 the equations are stiff at first, and solving them backwards can leave their domain.
    Raises ArgumentError or ArgumentTypeError for bad settings, SolverError where a solve cannot go on.
    Source: Cho, Hong, Lee, Park, "AdamNODEs: When Neural ODE Meets Adaptive Moment Estimation", Eq. 7.
    """

    def __init__(
        self,
        field: Network,
        *,
        alpha: float = 0.0474,
        beta: float = 0.0474,
        eps: float = 1e-3,
        denominator: DenominatorName = "exact",
        adjoint_form: AdjointForm = "exact",
        learnable: bool = True,
        t: Sequence[float] = (0.0, 1.0),
        rtol: float = 1e-4,
        atol: float = 1e-4,
        method: str = "dopri5",
        stepping: Stepping = "shared",
        gradient: Gradient | None = Discrete(),  # noqa: B008  (frozen)
        compile: bool = False,
        sync_every: int = 1,
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
        settings = SolveSettings(t, rtol, atol, method, stepping, gradient, compile, sync_every)
        super().__init__(dynamics, settings)

    dynamics: AdamODE

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

    block: Any  # a `Block`, or what stands in for one: the identity, fixed steps

    def __init__(self, encoder: nn.Module, start: nn.Module, block: nn.Module, head: nn.Module):
        super().__init__()
        self.encoder, self.start, self.block, self.head = encoder, start, block, head

    def forward(self, x: Tensor) -> Tensor:
        """The head's output for a batch x, [B, C, H, W]."""
        start: dict[str, Any] = self.start(x, self.encoder(x))
        output: Tensor = self.head(self.block(**start))
        return output

    @property
    def last_stats(self) -> LastSolve | None:
        """What the block's last solve cost."""
        spent: LastSolve | None = self.block.last_stats
        return spent
