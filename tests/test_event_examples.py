"""Two programs of the kind that torchdiffeq ships, a bouncing ball and one whose physics is learnt: with
the import alone changed they find torchdiffeq's event times, and losses as they train."""

import pytest
import torch
import torchdiffeq
from torch import nn

import adamode

TIGHT = {"rtol": 1e-8, "atol": 1e-8}


def bounces(library, interface, n, y0, gravity, keep):
    """The times of n impacts of a ball that keeps a part of its speed; its state beside its radius."""

    class Flight(nn.Module):
        def __init__(self):
            super().__init__()
            self.gravity = nn.Parameter(gravity)

        def forward(self, t, state):
            _, speed, log_radius = state
            return speed, -self.gravity + 0 * speed, 0 * log_radius

    flight, times, state = Flight(), [], y0
    now = torch.zeros(1, dtype=torch.float64)
    for _ in range(n):
        now, path = library.odeint_event(
            flight,
            state,
            now,
            event_fn=lambda t, s: s[0] - s[2].exp(),
            odeint_interface=getattr(library, interface),
            **TIGHT,
        )
        height, speed, log_radius = (x[-1] for x in path)
        state = (height + 1e-7, -keep * speed, log_radius)
        times.append(now)
    return flight, torch.cat([t.reshape(1) for t in times])


@pytest.mark.parametrize("interface", ["odeint", "odeint_adjoint"])
def test_the_impacts_of_a_bouncing_ball_are_torchdiffeqs_and_so_are_their_slopes(interface):
    found = []
    for library in (adamode, torchdiffeq):
        y0 = [torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (10.0, 0.0, -1.6)]
        flight, times = bounces(library, interface, 5, tuple(y0), torch.tensor([9.8]).double(), 0.8)
        found.append((times.detach(), *torch.autograd.grad(times[-1], (*y0, flight.gravity))))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


class Learnt(nn.Module):
    """A ball whose acceleration, ground and bounce are parameters; its flights end past the observations,
    where the event function turns to 0 for good."""

    def __init__(self, library, seed):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.library = library
        self.height, self.speed = (nn.Parameter(torch.tensor([x], dtype=torch.float64)) for x in (10.0, 0.0))
        self.root = nn.Parameter(torch.rand(1, generator=draw, dtype=torch.float64))
        self.pull = nn.Parameter(torch.rand(1, generator=draw, dtype=torch.float64) - 1.0)
        self.bounce = nn.Parameter(torch.rand(1, generator=draw, dtype=torch.float64) + 0.5)

    def forward(self, t, state):
        height, speed, root = state
        return speed, 10.0 * torch.tanh(self.pull) + 0 * height, 0 * root

    def path(self, times):
        """The heights at the times, and the events'."""

        def ground(t, state):
            return torch.zeros_like(t) if t > times[-1] + 1e-7 else state[0] - state[2].square()

        now, state = torch.zeros(1, dtype=torch.float64), (self.height, self.speed, self.root)
        heights, events = [self.height], []
        while now < times[-1]:
            if len(events) == 5:
                ending, when = state, times[-1]
            else:
                when, path = self.library.odeint_event(self, state, now, event_fn=ground, **TIGHT)
                ending = tuple(x[-1] for x in path)
            inside = times[(times > now) & (times <= when)]
            grid = torch.cat((now.reshape(1), inside))
            if len(inside):
                heights.append(self.library.odeint(self, state, grid, **TIGHT)[0][1:].reshape(-1))
            height, speed, root = ending
            speed = -torch.sigmoid(self.bounce) * speed
            state, now = (height + 1e-7 * speed, speed, root), when
            events.append(when.detach().reshape(()))
        return torch.cat(heights), torch.stack(events)


def trained(library, iterations, seed):
    """Losses and event times of a training, observations of a ball with g = 9.8."""
    times = torch.linspace(0.0, 3.6, 30, dtype=torch.float64)
    first = (2 * 9.8 / 9.8**2 * 9.8) ** 0.5
    after = times - first
    target = torch.where(after < 0, 10 - 4.9 * times**2, 0.2 + 8.0 * after - 4.9 * after**2).clamp(min=0.1)
    model = Learnt(library, seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    losses, events = [], []
    for _ in range(iterations):
        optimizer.zero_grad()
        heights, when = model.path(times)
        loss = ((heights - target) / (target + 1e-3)).abs().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        events.append(when)
    return losses, events


def test_a_ball_whose_physics_is_learnt_trains_as_with_torchdiffeq():
    ours, theirs = trained(adamode, 4, seed=1), trained(torchdiffeq, 4, seed=1)
    assert ours[0] == pytest.approx(theirs[0], rel=0.01)
    assert ours[0][-1] < ours[0][0]
    for mine, other in zip(ours[1], theirs[1], strict=True):
        assert len(mine) > 1
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)
