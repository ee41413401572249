# %% [markdown]
# # A neural ODE learns a spiral
#
# A particle falls into the origin on a spiral. Its law of motion is $y' = A^\top y^3$, but we pretend to know
# only its positions at 201 times. A neural ODE puts a network in the place of the unknown right-hand side,
# $y' = f_\theta(y)$, solves the equation, and learns $\theta$ from the distance between solution and data.

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
# `solve` integrates the true law. The state is one point, `[2]`, so the solution at all times is `[201, 2]`.
# No gradient is wanted here, and `gradient=None` says so.

# %%
A = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]])


def spiral(t: Tensor, y: Tensor) -> Tensor:
    return y**3 @ A


times = torch.linspace(0, 10, 201)
start = torch.tensor([1.5, 0.0])
data = adamode.solve(spiral, start, times, rtol=1e-9, atol=1e-9, gradient=None).y
print(tuple(data.shape), "from", data[0], "to", data[-1])

# Output:
# (201, 2) from tensor([1.5000, 0.0000]) to tensor([-0.6564,  0.3508])

# %% [markdown]
# Long trajectories make hard losses: an error at the start moves everything after it. So we cut the data into
# 40 short pieces of 6 points, where the last point of a piece is the first one of the next. The pieces are a
# batch, and one solve takes care of all of them: `[times, pieces, 2]`.

# %%
pieces = data.unfold(0, 6, 5).permute(2, 0, 1)
print(tuple(pieces.shape))

# Output:
# (6, 40, 2)

# %% [markdown]
# ## The neural ODE
#
# Any module or function `f(t, y)` is a right-hand side. This one is given $y^3$, which is a hint on the law,
# as in torchdiffeq's example of the same name.


# %%
class Field(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 2))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.network(y**3)


# %% [markdown]
# Every step of the training sees all pieces, so L-BFGS, which wants a loss without noise, needs few of them.
# `loss.backward()` runs the discrete adjoint, the exact derivative of the steps that the solver has taken.

# %%
field = Field()
optimizer = torch.optim.LBFGS(field.parameters(), max_iter=60, line_search_fn="strong_wolfe")
losses = []


def distance_to_pieces() -> Tensor:
    sol = adamode.solve(field, pieces[0], times[:6], rtol=1e-3, atol=1e-4)
    loss = (sol.y - pieces).square().mean()
    optimizer.zero_grad()
    loss.backward()
    losses.append(loss.item())
    return loss


optimizer.step(distance_to_pieces)
print(f"loss at the start: {losses[0]:.4f}")
print("a thousandth of it at the end, or less:", losses[-1] <= losses[0] / 1000)

# Output:
# loss at the start: 0.0443
# a thousandth of it at the end, or less: True

# %% [markdown]
# ## The whole spiral
#
# The network has seen pieces alone. Solved from the start to the end, it draws the whole spiral.

# %%
with torch.no_grad():
    learnt = adamode.solve(field, start, times, rtol=1e-6, atol=1e-6).y
distance = (learnt - data).norm(dim=1)
print("curves that are closer than 0.1 on average:", bool(distance.mean() < 0.1))

# Output:
# curves that are closer than 0.1 on average: True

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
left.plot(*data.T, ".", color="0.6", label="data")
left.plot(*learnt.T, color="tab:blue", label="neural ODE")
left.set(title="One solve from the start", xlabel="$y_1$", ylabel="$y_2$", aspect="equal")
left.legend()
right.semilogy(losses)
right.set(title="Training", xlabel="step", ylabel="mean squared distance")
figure.savefig("spiral.png")
