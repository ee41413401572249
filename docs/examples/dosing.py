# %% [markdown]
# # Doses of a drug, and how fast it is absorbed
#
# A drug that is swallowed is absorbed from the gut into the blood, and eliminated from there:
#
# $$a' = -k_a a, \qquad c' = k_a a / V - k_e c,$$
#
# with the amount $a$ in the gut in mg, the concentration $c$ in the blood in mg/l, and rates per hour. Each
# dose is a jump of $a$ at a known time, an `Impulse`. Three patients take the drug at times of their own, and
# one forgets a dose.

# %%
import matplotlib.pyplot as plt
import torch
from torch import Tensor

import adamode

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## The model
#
# Patients are the batch: the state is `[3, 2]`. The times of the doses are `[3, 3]`, a row for each patient.
# A time that stands twice in a row counts once, which is how the second patient has one dose fewer.

# %%
DOSE, VOLUME, ELIMINATION = 100.0, 20.0, 0.15  # mg, l, 1/h
doses = torch.tensor([[0.0, 8.0, 16.0], [0.0, 16.0, 16.0], [0.0, 10.0, 16.0]])
hours = torch.linspace(0, 24, 49)


def concentration(absorption: Tensor) -> Tensor:
    """c at all hours, [49, 3]. absorption: k_a of each patient, [3], per hour."""

    def body(t: Tensor, y: Tensor) -> Tensor:
        gut, blood = y.unbind(dim=1)
        absorbed = absorption * gut
        return torch.stack((-absorbed, absorbed / VOLUME - ELIMINATION * blood), dim=1)

    swallow = adamode.Impulse(doses, lambda t, y: y + torch.tensor([DOSE, 0.0]))
    options = {"stepping": "per_sample", "params": [absorption], "rtol": 1e-6, "atol": 1e-6}
    return adamode.solve(body, torch.zeros(3, 2), hours, events=[swallow], **options).y[..., 1]


absorption = torch.tensor([1.2, 0.8, 0.5], requires_grad=True)
c = concentration(absorption)
print("highest concentration in mg/l:", c.detach().amax(dim=0))
print("after 24 hours:               ", c[-1].detach())

# Output:
# highest concentration in mg/l: tensor([5.4066, 3.7803, 5.2015])
# after 24 hours:                tensor([2.3952, 2.0114, 3.0839])

# %% [markdown]
# ## The gradient through the doses
#
# The concentrations of several doses add up. That of one dose $D$ is known in closed form (Bateman, 1910),
# $s$ hours after it:
#
# $$c(s) = \frac{D}{V} \frac{k_a}{k_a - k_e} (e^{-k_e s} - e^{-k_a s})$$
#
# The derivative of this formula in $k_a$ must be what the adjoint finds.

# %%
(slope,) = torch.autograd.grad(c[-1].sum(), absorption)


def bateman(k_a: Tensor) -> Tensor:
    """c after 24 hours, in closed form, of each patient."""
    k_a, since = k_a[:, None], 24 - doses
    single = k_a / (k_a - ELIMINATION) * (torch.exp(-ELIMINATION * since) - torch.exp(-k_a * since))
    taken = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 1]])
    return DOSE / VOLUME * (taken * single).sum(dim=1)


(by_hand,) = torch.autograd.grad(bateman(absorption).sum(), absorption)
print("dc(24)/dk_a:", slope)
print("by hand:    ", by_hand)

# Output:
# dc(24)/dk_a: tensor([-0.2821, -0.4984, -1.5045])
# by hand:     tensor([-0.2821, -0.4984, -1.5045])

# %% [markdown]
# ## Learn the absorption from samples of blood
#
# Blood is taken every three hours, with an error of 0.1 mg/l. L-BFGS finds each patient's $k_a$.

# %%
taken_at = slice(6, None, 6)
blood = c.detach()[taken_at] + 0.1 * torch.randn(8, 3)
log_rate = torch.zeros(3, requires_grad=True)  # k_a begins at 1/h; its logarithm keeps it positive
optimizer = torch.optim.LBFGS([log_rate], max_iter=8, line_search_fn="strong_wolfe")


def misfit() -> Tensor:
    optimizer.zero_grad()
    loss = (concentration(log_rate.exp())[taken_at] - blood).square().sum()
    loss.backward()
    return loss


optimizer.step(misfit)
print("k_a, learnt:", [round(k, 2) for k in log_rate.exp().tolist()], "true:", absorption.tolist())

# Output:
# k_a, learnt: [1.13, 0.91, 0.51] true: [1.2, 0.8, 0.5]

# %%
fitted = concentration(log_rate.exp()).detach()
figure, axis = plt.subplots(figsize=(7, 3.5), layout="constrained")
for patient, color in enumerate(("tab:blue", "tab:orange", "tab:green")):
    axis.plot(hours, fitted[:, patient], color=color, label=f"patient {patient + 1}")
    axis.plot(hours[taken_at], blood[:, patient], "o", color=color, markersize=4)
axis.set(xlabel="hours", ylabel="concentration in mg/l", xticks=range(0, 25, 4))
axis.legend()
figure.savefig("dosing.png")
