# %% [markdown]
# # Verify an adjoint that you have derived yourself
#
# A gradient that is wrong by a factor trains all the same, only worse. So a derivative by hand needs a proof.
# Here we write a dynamics with its own vector–Jacobian product (VJP), have it checked, and then see what the
# check says of a mistake that is easily made.
#
# The dynamics is Hopfield's network of continuous neurons, with weights $W$ and inputs $b$:
#
# $$z' = F(z) = -z + W \tanh(z) + b$$

# %%
import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

import adamode

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## The derivative by hand
#
# With $s = \tanh(z)$ and a cotangent $a$ of $F$,
#
# $$\bar z = -a + (1 - s^2) \odot W^\top a, \qquad \bar W = a\,s^\top, \qquad \bar b = a.$$
#
# States are `[blocks, B, N]`, with one block here. Each sample is a row, so $W^\top a$ is `a @ self.W`. The
# second result of `forward` is what `vjp` gets as its first argument. The second result of `vjp` is kept for
# `parameter_gradients`, which adds up many stages at once: `weights` are the stages' weights, `[n]`, or `[n,
# B]` where each sample has its own steps.


# %%
class Hopfield(adamode.Dynamics, nn.Module):
    def __init__(self, neurons: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(neurons, neurons) / neurons**0.5)
        self.b = nn.Parameter(0.1 * torch.randn(neurons))

    def theta(self) -> tuple[Tensor, ...]:
        return self.W, self.b

    def forward(self, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        s = torch.tanh(z)
        return -z + s @ self.W.T + self.b, s

    def vjp(self, s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        return -a + (1 - s**2) * (a @ self.W), a

    def parameter_gradients(
        self, saved: list[Tensor], deltas: list[Tensor], weights: Tensor | None
    ) -> tuple[Tensor, ...]:
        s, a = torch.stack(saved), torch.stack(deltas)  # [n, 1, B, N]
        if weights is not None:
            a = a * weights.reshape(len(a), 1, -1, 1)
        return torch.einsum("nkbi,nkbj->ij", a, s), a.sum(dim=(0, 1, 2))


# %% [markdown]
# ## One evaluation
#
# `check_vjp` compares with autograd, with finite differences and with the dot-product test, for each block of
# the state (`a_0` is its only cotangent) and each parameter. `print(report)` would show them as a table.

# %%
z = torch.randn(1, 3, 5)
hopfield = Hopfield(5)
report = adamode.verify.check_vjp(hopfield, 0.0, z)
print("right:", report.ok, "for", sorted({row.quantity for row in report.rows}))
print("largest error is below 1e-10:", max(row.relative_error for row in report.rows) < 1e-10)

# Output:
# right: True for ['W', 'a_0', 'b']
# largest error is below 1e-10: True

# %% [markdown]
# ## A whole solve
#
# `check_gradient` takes what `solve` takes, so try it as you will use it. In a test of your own one line is
# enough: `assert report.ok, report`.

# %%
times = torch.tensor([0.0, 1.0, 2.0])
for stepping in ("shared", "per_sample"):
    report = adamode.verify.check_gradient(hopfield, z, times, stepping=stepping, gap_tolerances=())
    print(f"{stepping}: {report.ok}")

# Output:
# shared: True
# per_sample: True

# %% [markdown]
# ## A mistake
#
# A transpose is easily forgotten. All shapes fit all the same, and a loss may still fall. The check names the
# block's cotangent alone, since the parameters' gradients are as they were.


# %%
class Wrong(Hopfield):
    def vjp(self, s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        return -a + (1 - s**2) * (a @ self.W.T), a


wrong = Wrong(5)
found = adamode.verify.check_vjp(wrong, 0.0, z)
print("right:", found.ok, "wrong in", sorted({row.quantity for row in found.rows if not row.ok}))

# Output:
# right: False wrong in ['a_0']

# %% [markdown]
# The remainder $|L(x + hu) - L(x) - h\langle g, u\rangle|$ tells the same at a glance: it falls like $h^2$
# where $g$ is the gradient, and like $h$ where $g$ is something else.

# %%
right = adamode.verify.check_vjp(hopfield, 0.0, z)
print(f"slopes: {right.taylor.slope:.1f} and {found.taylor.slope:.1f}")
figure, axis = plt.subplots(figsize=(5, 3.6), layout="constrained")
axis.loglog(right.taylor.steps, right.taylor.remainders, "o-", label="derived")
axis.loglog(found.taylor.steps, found.taylor.remainders, "s-", label="with the mistake")
axis.set(xlabel="$h$", ylabel="remainder")
axis.legend()
figure.savefig("verify_adjoint.png")

# Output:
# slopes: 2.0 and 1.0
