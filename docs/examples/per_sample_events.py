# %% [markdown]
# # Each sample ends where it ends
#
# Four balls are thrown, each with a drag of its own, and each comes down at a time of its own. With
# `stepping="per_sample"` every sample has its own steps, events and status, and a terminal event ends its
# sample alone. We look for the angle at which each ball flies farthest, by the gradient of the place where it
# lands.

# %%
import matplotlib.pyplot as plt
import torch
from torch import Tensor

import adamode

torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## The flight
#
# The state of a ball is its position and its velocity, `[B, 4]`. A drag against the velocity grows with its
# square. The last "ball" is a balloon: it rises.

# %%
SPEED = 20.0  # m/s
drag = torch.tensor([0.0, 0.01, 0.05, 0.05])  # 1/m
lift = torch.tensor([-9.81, -9.81, -9.81, 0.5])  # m/s²


def flight(t: Tensor, y: Tensor) -> Tensor:
    velocity = y[:, 2:]
    speed = velocity.norm(dim=1)
    force = -drag[:, None] * speed[:, None] * velocity
    weight = torch.stack((torch.zeros_like(lift), lift), dim=1)
    return torch.cat((velocity, force + weight), dim=1)


ground = adamode.Event(lambda t, y: y[:, 1], direction=-1)  # on the way down; ends its sample


def throw(angle: Tensor, times: Tensor) -> adamode.Solution:
    """angle: [B], in radians."""
    still = torch.zeros_like(angle)
    start = torch.stack((still, still, SPEED * angle.cos(), SPEED * angle.sin()), dim=1)
    return adamode.solve(flight, start, times, events=ground, stepping="per_sample", rtol=1e-6, atol=1e-6)


four_seconds = torch.tensor([0.0, 4.0])
sol = throw(torch.full((4,), torch.pi / 4), four_seconds)
for status, landings in zip(sol.status, sol.t_events[0], strict=True):
    print(adamode.Status(int(status)).name, landings)

# Output:
# EVENT tensor([2.8832])
# EVENT tensor([2.6733])
# EVENT tensor([2.2018])
# SUCCESS tensor([])

# %% [markdown]
# `t_events` has an entry for each event, and in it one for each sample. The balloon has an empty one: it
# never came down, and its status says that its solve went to the end of the four seconds.
#
# ## The gradient of where it lands
#
# `y_events` are the states there. Without drag the range is $v^2 \sin(2\varphi)/g$, and its derivative in
# $\varphi$ is $2 v^2 \cos(2\varphi)/g$.

# %%
angle = torch.full((4,), torch.pi / 6, requires_grad=True)
sol = throw(angle, four_seconds)
ranges = torch.stack([state[0, 0] for state in sol.y_events[0][:3]])
(slope,) = torch.autograd.grad(ranges.sum(), angle)
print("ranges in m:      ", ranges.detach())
print("slopes in m/rad:  ", slope)
print(f"of the first, by hand: {2 * SPEED**2 * 0.5 / 9.81:.4f}")

# Output:
# ranges in m:       tensor([35.3119, 28.5249, 17.2067])
# slopes in m/rad:   tensor([40.7747, 25.4410,  8.3901,  0.0000])
# of the first, by hand: 40.7747

# %% [markdown]
# ## The best angles
#
# Gradient ascent, one angle each. The balloon's gradient is 0, since nothing of it is in the sum.

# %%
for _ in range(15):
    sol = throw(angle, four_seconds)
    ranges = torch.stack([state[0, 0] for state in sol.y_events[0][:3]])
    (slope,) = torch.autograd.grad(ranges.sum(), angle)
    angle = (angle + 0.006 * slope).detach().requires_grad_()
print("best angles in degrees:", angle.detach().rad2deg()[:3])
print("ranges in m:           ", ranges.detach())

# Output:
# best angles in degrees: tensor([45.0000, 42.9764, 38.6824])
# ranges in m:            tensor([40.7747, 31.3915, 17.8296])

# %%
sol = throw(angle.detach(), torch.linspace(0, 4, 161))
figure, axis = plt.subplots(figsize=(8, 3.2), layout="constrained")
for i in range(4):
    axis.plot(sol.y[:, i, 0], sol.y[:, i, 1], label=f"drag {drag[i]:g}/m" if i < 3 else "balloon")
axis.axhline(0, color="0.5", linewidth=0.8)
axis.set(xlabel="m", ylabel="m", aspect="equal")
axis.legend()
figure.savefig("per_sample_events.png")
