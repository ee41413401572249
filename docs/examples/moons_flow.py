# %% [markdown]
# # A continuous normalising flow on two moons
#
# A flow carries points of a simple density, here the standard normal one, along an ODE to where the data are.
# The density goes with the points: it falls where the flow spreads,
#
# $$\frac{d}{dt} \log p(x(t)) = -\operatorname{tr} \frac{\partial f}{\partial x},$$
#
# so that the likelihood of data is known and can be maximised (Chen et al., 2018).

# %%
import matplotlib.pyplot as plt
import torch
from torch import Tensor

import adamode

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## The data
#
# Two half circles that reach into each other, with noise.

# %%
NOISE = 0.1


def moons(n: int) -> Tensor:
    angle = torch.pi * torch.rand(n)
    upper = torch.stack((angle.cos(), angle.sin()), dim=1)
    lower = torch.stack((1 - angle.cos(), 0.5 - angle.sin()), dim=1)
    on_upper = torch.rand(n, 1) < 0.5
    return torch.where(on_upper, upper, lower) - torch.tensor([0.5, 0.25]) + NOISE * torch.randn(n, 2)


# %% [markdown]
# ## The flow
#
# `Flow` makes a density of any block. `log_prob` solves from the data back to the normal density, together
# with the trace, which for an `MLP` is computed by hand and exactly. The data have an entropy of 1.01 nats,
# so no density reaches more than -1.01.

# %%
flow = adamode.Flow(adamode.NODE(adamode.models.fields.MLP(2, (32, 32)), rtol=1e-3, atol=1e-3))
held_out = moons(500)
before = flow.log_prob(held_out).mean()

STEPS = 100
optimizer = torch.optim.Adam(flow.parameters(), lr=0.05)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
for _ in range(STEPS):
    loss = -flow.log_prob(moons(200)).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()

with torch.no_grad():
    after = flow.log_prob(held_out).mean()
print(f"log-likelihood of points that no step has seen: {before:.2f} before, {after:.2f} after")

# Output:
# log-likelihood of points that no step has seen: -2.31 before, -1.31 after

# %% [markdown]
# ## Is it a density?
#
# A density integrates to 1. We add this one up over a fine grid, whose points are solved as one batch.

# %%
side = torch.linspace(-3, 3, 81)
grid = torch.cartesian_prod(side, side)
with torch.no_grad():
    density = flow.log_prob(grid).exp().view(81, 81)
cell = (side[1] - side[0]) ** 2
print(f"integral over the grid: {density.sum() * cell:.3f}")

# Output:
# integral over the grid: 1.001

# %% [markdown]
# Samples go the other way, from the normal density to the data. `rsample` would keep their gradient.

# %%
drawn = flow.sample(1000)
figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharex=True, sharey=True, layout="constrained")
axes[0].scatter(*moons(1000).T, s=3)
axes[0].set_title("data")
axes[1].imshow(density.T.numpy(), origin="lower", extent=(-3, 3, -3, 3))
axes[1].set_title("learnt density")
axes[2].scatter(*drawn.T, s=3)
axes[2].set_title("samples of the flow")
for axis in axes:
    axis.set(xlim=(-2.2, 2.2), ylim=(-1.6, 1.6), aspect="equal")
figure.savefig("moons_flow.png")
