# %% [markdown]
# # Fit a model by multiple shooting
#
# Hares $x$ and lynxes $y$ live by the equations of Lotka and Volterra,
#
# $$x' = \alpha x - \beta x y, \qquad y' = \delta x y - \gamma y.$$
#
# We are given noisy counts and look for the four parameters. Shooting, a solve from a start to the end whose
# distance to the data is minimised, often sticks where the phases of two oscillations do not match. Multiple
# shooting cuts the time into segments. Each has a start of its own, which is an unknown too, and a penalty
# draws the end of each segment to the start of the next (Bock, 1983). The segments are a batch, and so one
# solve.

# %%
from collections.abc import Callable

import matplotlib.pyplot as plt
import torch
from torch import Tensor

import adamode

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## The data
#
# 61 counts of each in 30 years, with an error of 5 per cent.

# %%
TRUE = torch.tensor([1.1, 0.4, 0.4, 0.1])  # α, β, γ, δ
times = torch.linspace(0, 30, 61)


def solve(start: Tensor, t: Tensor, log_parameters: Tensor) -> Tensor:
    """The populations, [T, …, 2]. Logarithms keep what is positive positive."""
    parameters = log_parameters.exp()

    def lotka_volterra(t: Tensor, y: Tensor) -> Tensor:
        prey, predator = y.unbind(dim=-1)
        alpha, beta, gamma, delta = parameters
        eaten = prey * predator
        return torch.stack((alpha * prey - beta * eaten, delta * eaten - gamma * predator), dim=-1)

    return adamode.solve(lotka_volterra, start, t, params=[parameters], rtol=1e-5, atol=1e-5).y


with torch.no_grad():
    truth = solve(torch.tensor([10.0, 5.0]), times, TRUE.log())
counts = truth * torch.exp(0.05 * torch.randn_like(truth))

# %% [markdown]
# ## Shooting
#
# Everything is compared as a logarithm, since errors are in per cent. The guess has all parameters at 0.5.

# %%
GUESS = torch.full((4,), 0.5).log()


def misfit(found: Tensor, given: Tensor) -> Tensor:
    return (found / given).log().square().mean()


def minimise(loss: Callable[[], Tensor], unknowns: list[Tensor], iterations: int) -> None:
    """L-BFGS with a line search."""
    optimizer = torch.optim.LBFGS(unknowns, max_iter=iterations, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)


single = GUESS.clone().requires_grad_()
minimise(lambda: misfit(solve(counts[0], times, single), counts), [single], iterations=12)
with torch.no_grad():
    stuck = solve(counts[0], times, single)
print("parameters:", [round(x, 2) for x in single.exp().tolist()], "true:", TRUE.tolist())
print("an error of more than 50 %:", bool(misfit(stuck, counts).sqrt() > 0.5))

# Output:
# parameters: [1.55, 0.45, 1.09, 0.28] true: [1.1, 0.4, 0.4, 0.1]
# an error of more than 50 %: True

# %% [markdown]
# ## Multiple shooting
#
# A segment has 6 counts, and its last one is the first of the next segment. The 12 starts begin at the
# counts. The loss is the misfit to all counts, with the gaps between the segments as a penalty.

# %%
segments = counts.unfold(0, 6, 5).permute(2, 0, 1)  # [6, 12, 2]
starts = segments[0].log().requires_grad_()
multiple = GUESS.clone().requires_grad_()


def loss() -> Tensor:
    found = solve(starts.exp(), times[:6], multiple)
    ends, next_starts = found[-1, :-1], starts[1:].exp()
    return misfit(found, segments) + misfit(ends, next_starts)


minimise(loss, [multiple, starts], iterations=25)
with torch.no_grad():
    fitted = solve(starts.exp(), times[:6], multiple)
print("parameters:", [round(x, 2) for x in multiple.exp().tolist()], "true:", TRUE.tolist())
print(f"error: {misfit(fitted, segments).sqrt():.1%}")
print(f"gaps:  {misfit(fitted[-1, :-1], fitted[0, 1:]).sqrt():.1%}")

# Output:
# parameters: [1.09, 0.39, 0.4, 0.1] true: [1.1, 0.4, 0.4, 0.1]
# error: 4.6%
# gaps:  0.7%

# %%
figure, axis = plt.subplots(figsize=(8, 3.2), layout="constrained")
axis.plot(times, counts[:, 0], ".", color="0.5", label="counts")
axis.plot(times, stuck[:, 0], color="tab:red", label="shooting")
lines = axis.plot(times.unfold(0, 6, 5).T, fitted[:, :, 0], color="tab:blue")
lines[0].set_label("multiple shooting")
axis.set(xlabel="year", ylabel="hares")
axis.legend()
figure.savefig("multiple_shooting.png")
