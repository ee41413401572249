# %% [markdown]
# # Your own field in an AdamNODE
#
# A block such as `AdamNODE` solves a system of equations that is driven by a field $f(t, h)$, and the field
# is yours: any module that returns something of the shape of $h$. The block has a state of three parts, the
# features $h$, a momentum $m$ and a second moment $v$, as the optimiser Adam has:
#
# $$h' = -m / \sqrt{v + \varepsilon},\quad m' = (1-\alpha)(-f - m),\quad v' = (1-\beta)(f^2 - v)$$
#
# We train it, and a plain neural ODE with the same field, to tell a disk from the ring around it.

# %%
import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

import adamode

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## The data
#
# 100 points in a disk are of class 0, 100 points in the ring around it are of class 1.

# %%
radius = torch.cat((0.6 * torch.rand(100).sqrt(), 1.0 + 0.4 * torch.rand(100)))
angle = 2 * torch.pi * torch.rand(200)
points = torch.stack((radius * angle.cos(), radius * angle.sin()), dim=1)
labels = (radius > 0.8).long()

# %% [markdown]
# ## The field
#
# Time comes as a 0-d tensor. This field sees it as one more feature.


# %%
class Field(nn.Module):
    def __init__(self, features: int = 2, width: int = 16) -> None:
        super().__init__()
        self.inner = nn.Linear(features + 1, width)
        self.outer = nn.Linear(width, features)

    def forward(self, t: Tensor, h: Tensor) -> Tensor:
        time = t.expand(len(h), 1)
        return self.outer(torch.tanh(self.inner(torch.cat((h, time), dim=1))))


# %% [markdown]
# ## Two blocks, one field
#
# A block is a module: it goes where a layer goes, and its parameters, $\alpha$ and $\beta$ among them, are
# learnt with all others. AdamNODE starts at $v_0 = 1$: from $v_0 = 0$ its first steps would be stiff.

# %%
STEPS = 60


def train(block: nn.Module, head: nn.Module, **starts: Tensor) -> float:
    """Trains block and head; the share of points that they tell right."""
    optimizer = torch.optim.Adam([*block.parameters(), *head.parameters()], lr=0.05)
    for _ in range(STEPS):
        scores = head(block(points, **starts))
        loss = nn.functional.cross_entropy(scores, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (scores.argmax(dim=1) == labels).double().mean().item()


torch.manual_seed(1)
node, node_head = adamode.NODE(Field(), rtol=1e-3, atol=1e-3), nn.Linear(2, 2)
print("NODE is right on 95 % of the points:    ", train(node, node_head) > 0.95)

torch.manual_seed(1)
adam, adam_head = adamode.AdamNODE(Field(), alpha=0.5, beta=0.9, rtol=1e-3, atol=1e-3), nn.Linear(2, 2)
print("AdamNODE is right on 95 % of the points:", train(adam, adam_head, v0=torch.ones_like(points)) > 0.95)

# Output:
# NODE is right on 95 % of the points:     False
# AdamNODE is right on 95 % of the points: True

# %% [markdown]
# After a neural ODE no straight line tells disk and ring apart: its solutions do not cross, so the disk stays
# inside the ring. With a momentum the paths of two points may cross.
#
# ## What a solve cost, and where the points went

# %%
stats = adam.last_stats
print(stats.status.name, stats.nfe, "evaluations forward,", stats.nfe_backward, "back")
path = adam.trajectory(points, torch.linspace(0, 1, 25), v0=torch.ones_like(points))
print({name: tuple(block.shape) for name, block in path.items()})

# Output:
# SUCCESS 26 evaluations forward, 24 back
# {'h': (25, 200, 2), 'm': (25, 200, 2), 'v': (25, 200, 2)}

# %%
figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
ends = {"start": points, "NODE, t = 1": node(points), "AdamNODE, t = 1": path["h"][-1]}
for axis, (title, h) in zip(axes, ends.items(), strict=True):
    axis.scatter(*h.detach().T, c=labels, cmap="coolwarm", s=12)
    axis.set(title=title, xlabel="$h_1$", ylabel="$h_2$")
for i in range(0, 200, 10):
    axes[2].plot(*path["h"][:, i].detach().T, color="0.7", linewidth=0.7, zorder=0)
figure.savefig("own_field.png")
