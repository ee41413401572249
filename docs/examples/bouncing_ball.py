# %% [markdown]
# # A bouncing ball
#
# A ball falls, hits the floor and comes back with a part of its speed. The impact is an event: a time that
# the solver finds. The bounce is its reset: the state after it. Both have derivatives, so that what the floor
# keeps of the speed can be learnt from the times of the impacts.

# %%
import math

import matplotlib.pyplot as plt
import torch
from torch import Tensor

import adamode

torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## The solve
#
# The state is `[height, speed]`. The event fires where its function comes to 0, here where the height does. A
# ball that has left the floor is above it, so the event is ready for the next impact.

# %%
GRAVITY, HEIGHT = 9.81, 1.0


def flight(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack((y[1], torch.full_like(y[1], -GRAVITY)))


def drop(restitution: Tensor) -> adamode.Solution:
    """The ball's first two seconds."""

    def bounce(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack((y[0], -restitution * y[1]))

    floor = adamode.Event(lambda t, y: y[0], reset=bounce)
    times = torch.linspace(0, 2, 201)
    return adamode.solve(flight, torch.tensor([HEIGHT, 0.0]), times, events=floor, rtol=1e-8, atol=1e-8)


restitution = torch.tensor(0.8, requires_grad=True)
sol = drop(restitution)
impacts = sol.t_events[0]
before, after = sol.y_events[0][0], sol.y_after[0][0]
print("impacts at", impacts.detach())
print(f"speed before and after the first: {before[1]:.4f} and {after[1]:.4f} m/s")

# Output:
# impacts at tensor([0.4515, 1.1740, 1.7519])
# speed before and after the first: -4.4294 and 3.5436 m/s

# %% [markdown]
# ## The gradient
#
# The first fall takes $t_1 = \sqrt{2h/g}$, and each flight $e$ times as long as the one before, so the third
# impact is at $t_1 (1 + 2e + 2e^2)$. Its derivative in $e$ is $t_1 (2 + 4e)$.

# %%
(slope,) = torch.autograd.grad(impacts[2], restitution)
fall = math.sqrt(2 * HEIGHT / GRAVITY)
print(f"d t3 / d e: {slope:.6f}, by hand {fall * (2 + 4 * 0.8):.6f}")

# Output:
# d t3 / d e: 2.347923, by hand 2.347923

# %% [markdown]
# ## Learn the restitution
#
# A microphone has heard another ball hit the floor three times. Newton's method on the last impact, with the
# gradient through all three bounces, finds what this floor keeps.

# %%
heard = torch.tensor([0.4508, 1.0829, 1.5259])
guess = torch.tensor(0.9, requires_grad=True)
for step in range(4):
    sol = drop(guess)
    miss = sol.t_events[0][2] - heard[2]
    (slope,) = torch.autograd.grad(miss, guess)
    print(f"step {step}: e = {guess:.5f}, the third impact is off by {miss:+.5f} s")
    guess = (guess - miss / slope).detach().requires_grad_()

# Output:
# step 0: e = 0.90000, the third impact is off by +0.46983 s
# step 1: e = 0.71419, the third impact is off by +0.03118 s
# step 2: e = 0.69997, the third impact is off by +0.00018 s
# step 3: e = 0.69988, the third impact is off by +0.00000 s

# %%
figure, axis = plt.subplots(figsize=(7, 3.5), layout="constrained")
for keeps, color in ((0.8, "tab:blue"), (guess.item(), "tab:orange")):
    sol = drop(torch.tensor(keeps))
    axis.plot(sol.t, sol.y[:, 0], color=color, label=f"e = {keeps:.2f}")
axis.plot(heard, torch.zeros(3), "kx", label="heard impacts")
axis.set(xlabel="time in s", ylabel="height in m")
axis.legend()
figure.savefig("bouncing_ball.png")
