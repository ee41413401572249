"""What a user's file may say of the public face: it passes `mypy --strict` and pyright, and it runs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import adamode


class Oscillator(nn.Module):
    """y' = A y."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.5))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt."""
        return torch.stack((y[1], -self.rate * y[0]))


def decay(t: Tensor, y: Tensor) -> Tensor:
    """y' = −y."""
    return -y


def moved(t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """q' = p, p' = −q."""
    q, p = y
    return p, -q


y0 = torch.tensor([1.0, 0.5], dtype=torch.float64)
t = torch.linspace(0.0, 1.0, 3, dtype=torch.float64)


def end_of(rtol: float, gradient: adamode.Discrete | adamode.Interpolating | None) -> Tensor:
    """y at the end: a result whose type is known, so that no Any is returned."""
    return adamode.solve(decay, y0, t, rtol=rtol, gradient=gradient).y[-1]  # [2]


def shared() -> tuple[int, str, list[float]]:
    """Status and counts of a solve with one step size are plain numbers."""
    sol = adamode.solve(
        Oscillator().double(),
        y0,
        t,
        method="tsit5",
        rtol=1e-6,
        atol=1e-8,
        gradient=adamode.Discrete(keep="state", checkpoints=4),
        controller=adamode.PI(safety=0.8),
        events=[
            adamode.Event(lambda t, y: y[0] + 2.0, direction=-1),
            adamode.Event(lambda t, y: y[0] - 2.0, reset=lambda t, y: 0.5 * y),
            adamode.Impulse([0.5], lambda t, y: y + 1.0),
        ],
        dense=True,
        trace=True,
        norm="max",
    )
    half: Tensor = sol(torch.tensor(0.5, dtype=torch.float64))
    torch.autograd.backward(sol.y[-1].sum() + 0 * half.sum())
    slope: Tensor = sol.derivative(t)[0]
    rows = [row.t for row in sol.trace or ()]
    steps: int = sol.stats.n_steps + sol.stats.nfe
    last: float = sol.stats.dt_last
    return steps, sol.status.name, [last, *rows, *slope.tolist()]


def per_sample() -> list[int]:
    """With a step size for each sample they are tensors."""
    batch = y0[:, None]
    sol = adamode.solve(decay, batch, t, stepping="per_sample", save="end", gradient=None)
    done = bool((sol.status == int(adamode.Status.SUCCESS)).all())
    counts: list[int] = sol.stats.nfe.tolist() if done else []
    return counts


def pytree() -> Tensor:
    """The result has y0's structure."""
    q, p = adamode.solve(moved, (y0, y0), t, gradient=adamode.Backsolve(rtol=1e-8)).y
    q, p = adamode.solve(moved, (y0, y0), t, gradient=adamode.Reversible(coupling=0.9)).y
    density = adamode.LogDensity(decay, "hutchinson", probes=2, noise="gauss", generator=torch.Generator())
    normal = torch.distributions.Normal(torch.zeros(len(y0), 1, 1, dtype=y0.dtype), 1.0)
    momenta = torch.distributions.Independent(normal, 2)
    flow = adamode.Flow(adamode.HBNODE(decay).to(y0), auxiliary=lambda x: momenta)
    likelihood: Tensor = flow.log_prob(y0[:, None], samples=3) + 1.0
    moved_on, _ = adamode.solve(density, (y0[:, None], y0), t).y
    leaf = adamode.solve(lambda t, y: {"x": -y["x"]}, {"x": y0}, t).y["x"]
    return q + p + leaf + moved_on[..., 0] + likelihood


def driven(t: Tensor, y: Tensor, u: Tensor) -> Tensor:
    """dy/dt under an input."""
    return u - y


def under_an_input() -> Tensor:
    """Values, their derivative as an input, and a question."""
    signal = adamode.Signal(t, torch.ones(len(t), 1), kind="cubic", mask=None)
    sol = adamode.solve(driven, y0, t, signal=signal)
    each = adamode.solve(driven, y0[:, None], t, stepping="per_sample", signal=signal.derivative())
    return sol.y[-1] + each.y[-1, :, 0] + signal(t).sum() + signal.derivative(t).sum()


def stiff() -> Tensor:
    """With ∂f/∂y of each sample, and without a matrix."""
    sol = adamode.solve(
        decay, y0[:, None], t, method="radau5", jac=lambda t, y: -torch.ones(len(y), 1, 1, dtype=y.dtype)
    )
    free = adamode.solve(decay, y0, t, method="kvaerno5", linear_solver="gmres")
    return sol.y[-1, :, 0] + free.y[-1]


def kept(sol: adamode.Solution) -> adamode.Stats:
    """Whatever solve it came from."""
    return sol.stats


def torchdiffeq_face(adjoint: bool) -> Tensor:
    """The same calls as torchdiffeq's."""
    options = {"first_step": 0.1}
    if adjoint:
        return adamode.odeint_adjoint(Oscillator().double(), y0, t, adjoint_rtol=1e-6)
    pair: tuple[Tensor, Tensor] = adamode.odeint(moved, (y0, y0), t, method="dopri5", options=options)
    when, y = adamode.odeint_event(decay, y0, t[0], event_fn=lambda t, y: y[0] - 0.5)
    also, _ = adamode.odeint(decay, y0, t[:2], event_fn=lambda t, y: y[0] - 0.5)
    return adamode.odeint(decay, y0, t) + pair[0] + y[-1] + when + also


def penalised() -> Tensor:
    """A penalty is a tensor."""
    sol = adamode.solve(decay, y0, t, penalties=("kinetic", "error"))
    return sol.penalty("kinetic") + sol.penalty("error")


def samples() -> Tensor:
    """The last state in y0's structure."""
    pair: tuple[Tensor, Tensor] = adamode.sample(moved, (y0, y0), (0.0, 1.0), method="midpoint", steps=4)
    return pair[0] + adamode.sample(decay, y0, t, callback=lambda i, t, y, nfe: print(i + nfe, t, y.shape))


def blocks(field: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The blocks are modules."""
    block = adamode.AdamNODE(field, denominator="softplus", adjoint_form="exact", t=(0.0, 0.5))
    heavy = adamode.GHBNODE(field, activation="hardtanh", stepping="per_sample")
    path = block.trajectory(torch.ones(3, 2), torch.tensor([0.0, 0.5]))
    family = adamode.MomentumNODE(field, damping="nesterov", shift=1.0, t=(0.0, 1.0))
    nesterov = adamode.NesterovNODE(field)(
        adamode.GNesterovNODE(field, activation="identity", xi=None)(torch.ones(3, 2))
    )
    damping: Tensor = family.damping_at(torch.ones(()))
    return heavy(block(torch.ones(3, 2))) + path["h"][-1] + block.alpha + heavy.xi + nesterov * damping


def failing() -> float | None:
    """An error says where the solve stopped."""
    try:
        adamode.solve(lambda t, y: y * y, 10 * y0, t)
    except adamode.SolverError as error:
        return error.t if error.status is not adamode.Status.SUCCESS else None
    except (adamode.ArgumentError, adamode.AdamodeError):
        raise
    return None


def settings(epochs: int) -> adamode.Trainer:
    """A run of training."""
    return adamode.Trainer(adamode.TrainConfig(epochs=epochs, dataset="circles", rtol=1e-3))


def ones_own(x: Tensor, y: Tensor) -> adamode.Trainer:
    """Training on data made in Python, and a model written and read."""
    block = adamode.NODE(lambda t, h: -h)
    block.save("folder", {"seed": 0})
    again: nn.Module = adamode.load("folder", field=lambda t, h: -h)
    config = adamode.TrainConfig(data="table.npz", split="7", field="mine:Net")
    return adamode.Trainer(config, data=((x, y), (x, y), (x, y)), build=lambda settings: again)
