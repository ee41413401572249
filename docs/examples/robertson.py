# %% [markdown]
# # Robertson's reaction: stiff, with gradients
#
# Three substances react at rates that are nine orders of magnitude apart (Robertson, 1966):
#
# $$a' = -k_1 a + k_3 b c, \quad b' = k_1 a - k_2 b^2 - k_3 b c, \quad c' = k_2 b^2$$
#
# An explicit method may take no step longer than the fastest reaction, however smooth the solution is. An
# implicit one, here Radau IIA of order 5, takes steps that the solution allows, and its gradient is as exact.

# %%
import matplotlib.pyplot as plt
import torch
from torch import Tensor

import adamode

torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## Two methods
#
# $b$ stays near $10^{-5}$, so that atol must be far below that.

# %%
RATES = torch.tensor([0.04, 3e7, 1e4])
start = torch.tensor([1.0, 0.0, 0.0])
tolerances = {"rtol": 1e-5, "atol": 1e-9}


def robertson(t: Tensor, y: Tensor, rates: Tensor) -> Tensor:
    (a, b, c), (k1, k2, k3) = y, rates
    first, second, third = k1 * a, k2 * b * b, k3 * b * c
    return torch.stack((third - first, first - second - third, second))


def reaction(t: Tensor, y: Tensor) -> Tensor:
    return robertson(t, y, RATES)


short = torch.tensor([0.0, 0.3])
for method in ("dopri5", "radau5"):
    sol = adamode.solve(reaction, start, short, method=method, gradient=None, **tolerances)
    print(f"{method}: {sol.stats.n_accepted} steps to t = 0.3, c = {sol.y[-1, 2]:.6f}")

# Output:
# dopri5: 206 steps to t = 0.3, c = 0.011292
# radau5: 22 steps to t = 0.3, c = 0.011292

# %% [markdown]
# ## A long time
#
# The reaction lives on a logarithmic scale. Here are its concentrations from $t = 10^{-5}$ to $10^4$.

# %%
times = torch.cat((torch.zeros(1), torch.logspace(-5, 4, 46)))


def concentrations(log_rates: Tensor) -> adamode.Solution:
    rates = log_rates.exp()
    return adamode.solve(
        lambda t, y: robertson(t, y, rates), start, times, method="radau5", params=(rates,), **tolerances
    )


log_rates = RATES.log().requires_grad_()
sol = concentrations(log_rates)
print(sol.stats.n_accepted, "steps; at the end", sol.y[-1].detach())

# Output:
# 86 steps; at the end tensor([1.0730e-01, 4.8002e-07, 8.9270e-01])

# %% [markdown]
# ## The gradient in the rates
#
# How much does the product at the end grow if a rate grows by one per cent? The derivative in the logarithm
# of the rate says it. Each step is transposed by the implicit function theorem, and Newton's iteration itself
# is not differentiated. Two further solves, with $k_1$ moved up and down, say the same.

# %%
(slope,) = torch.autograd.grad(sol.y[-1, 2], log_rates)
print("dc/dlog k:", slope)
moved = torch.tensor([0.01, 0.0, 0.0])
with torch.no_grad():
    up, down = (concentrations(log_rates + sign * moved).y[-1, 2] for sign in (1, -1))
print(f"dc/dlog k1 by differences: {(up - down) / 0.02:.5f}")

# Output:
# dc/dlog k: tensor([ 0.1375,  0.0684, -0.1368])
# dc/dlog k1 by differences: 0.13751

# %%
figure, axis = plt.subplots(figsize=(7, 3.5), layout="constrained")
a, b, c = sol.y.detach()[1:].T
axis.semilogx(times[1:], a, label="a")
axis.semilogx(times[1:], 2e4 * b, label="20,000 b")
axis.semilogx(times[1:], c, label="c")
axis.set(xlabel="t", ylabel="concentration")
axis.legend()
figure.savefig("robertson.png")
