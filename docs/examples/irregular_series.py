# %% [markdown]
# # Series with times of their own, and with gaps
#
# A patient is measured when there is time, a sensor loses packets: series have their own times, differ in
# length, and have holes. A neural controlled differential equation (Kidger et al., 2020) takes them as they
# are,
#
# $$z' = F_\theta(z)\,X'(t),$$
#
# where $X$ is a curve through what has been observed. `adamode.Signal` is that curve. Here the series are
# points on spirals, and the network is to say whether they turn to the left or to the right.

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
# Each of 48 series has between 5 and 8 observations within $0 \le t \le 1$. Shorter rows are padded: the last
# time is repeated, and what stands in the values there does not count.

# %%
SERIES, LONGEST = 48, 8
lengths = torch.randint(5, LONGEST + 1, (SERIES,))
times = torch.rand(SERIES, LONGEST).sort(dim=1).values
times[:, 0] = 0.0
for row, length in zip(times, lengths, strict=True):
    row[length - 1 :] = 1.0

left = torch.arange(SERIES) % 2  # 1: to the left
phase = 2 * torch.pi * torch.rand(SERIES, 1)
angle = phase + 5 * (2 * left[:, None] - 1) * times
points = torch.stack((angle.cos(), angle.sin()), dim=-1) * (1 - 0.5 * times[..., None])

# %% [markdown]
# One coordinate in five was never measured. NaN says so, channel by channel.

# %%
points[torch.rand(points.shape) < 0.2] = torch.nan
print("observations:", lengths[:6].tolist(), "…")
print(f"missing: {points.isnan().double().mean():.0%}")

# Output:
# observations: [5, 8, 6, 5, 8, 8] …
# missing: 20%

# %% [markdown]
# ## The curve
#
# The curve has time as a further channel, from which the network knows how fast a series turns.
# `kind="linear"` goes straight from one observation to the next, and straight over a hole. The equation needs
# the curve's derivative.

# %%
curve = adamode.Signal(times, torch.cat((times[..., None], points), dim=-1), kind="linear")
driver = curve.derivative()
print("at t = 0.5 the curves are", tuple(curve(torch.tensor(0.5)).shape))

# Output:
# at t = 0.5 the curves are (48, 3)


# %%
class Controlled(nn.Module):
    def __init__(self, hidden: int, channels: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(hidden, 16), nn.Tanh(), nn.Linear(16, hidden * channels), nn.Tanh()
        )

    def forward(self, t: Tensor, z: Tensor, dx: Tensor) -> Tensor:
        matrix = self.network(z).unflatten(-1, (z.shape[-1], dx.shape[-1]))
        return (matrix @ dx[..., None])[..., 0]


# %% [markdown]
# ## The solve
#
# `signal=` hands the derivative to the field as its third argument. `stepping="per_sample"` gives each series
# steps of its own, so that each has to stop at its own kinks only.

# %%
STEPS = 25
ends, tolerances = torch.tensor([0.0, 1.0]), {"method": "bosh3", "rtol": 1e-2, "atol": 1e-2}
field, first, last = Controlled(6, 3), nn.Linear(2, 6), nn.Linear(6, 1)
optimizer = torch.optim.Adam([*field.parameters(), *first.parameters(), *last.parameters()], lr=0.05)
observed_first = points[:, 0].nan_to_num()
losses = []
for _ in range(STEPS):
    z0 = first(observed_first)
    sol = adamode.solve(field, z0, ends, signal=driver, stepping="per_sample", **tolerances)
    score = last(sol.y[-1])[:, 0]
    loss = nn.functional.binary_cross_entropy_with_logits(score, left.double())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
right = ((score > 0) == left).double().mean()
print(f"loss at the start: {losses[0]:.3f}")
print("a tenth of it at the end, or less:", losses[-1] <= losses[0] / 10)
print(f"told right: {right:.0%}")
print("steps:", sol.stats.n_accepted[:6].tolist(), "…")

# Output:
# loss at the start: 0.794
# a tenth of it at the end, or less: True
# told right: 100%
# steps: [7, 8, 7, 6, 10, 10] …

# %% [markdown]
# The first series turns to the right. Dots are its measurements, lines the curve that the network saw.

# %%
figure, (series, training) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
fine = torch.linspace(0, 1, 201)
for channel, name in enumerate(("$x_1$", "$x_2$")):
    (line,) = series.plot(fine, curve(fine)[:, 0, channel + 1], label=name)
    series.plot(times[0], points[0, :, channel], "o", color=line.get_color())
series.set(title="The first series", xlabel="t")
series.legend()
training.plot(losses)
training.set(title="Training", xlabel="step", ylabel="cross entropy")
figure.savefig("irregular_series.png")
