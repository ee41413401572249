"""Events as torchdiffeq's examples use them: cut-off functions, events that never come, bounces."""

import math

import pytest
import torch
from problems import f64

import adamode


def fall(t, y):
    return torch.stack((y[1], torch.full_like(y[1], -10.0)))


@pytest.mark.parametrize("edge", [0.3, 0.5, 0.7310585])
def test_an_event_function_that_is_cut_off_to_zero_fires_at_the_edge(edge):
    def height_until(t, y):
        return torch.zeros_like(t) if t > edge else y[0]

    when, _ = adamode.odeint_event(fall, f64(10.0, 0.0), f64(0.0)[0], event_fn=height_until)
    assert when.item() == pytest.approx(edge, abs=1e-6)


def test_a_yes_or_no_fires_where_it_turns_in_either_direction_of_time():
    when, _ = adamode.odeint_event(
        lambda t, y: torch.ones_like(y),
        f64(1.0),
        f64(0.0)[0],
        event_fn=lambda t, y: y[0] > 0.7,
        reverse_time=True,
    )
    assert when.item() == pytest.approx(-0.3, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("still", [True, False])
def test_an_event_that_never_comes_is_an_error_soon(dtype, still):
    calls = []

    def field(t, y):
        calls.append(t)
        return 0 * y if still else torch.ones_like(y)

    with pytest.raises(RuntimeError, match="never changed its sign"):
        adamode.odeint_event(field, torch.ones(3, dtype=dtype), f64(0.0)[0], event_fn=lambda t, y: y[0] + 1)
    assert len(calls) < 3000


@pytest.mark.parametrize("solver", [adamode.odeint, adamode.odeint_adjoint])
def test_the_second_bounce_depends_on_start_and_speed_as_mechanics_says(solver):
    more = {} if solver is adamode.odeint else {"adjoint_params": ()}
    height, t0 = f64(5.0).requires_grad_(), f64(0.0).requires_grad_()

    def motion(t, state):
        return state[1], torch.full_like(state[1], -10.0)

    def next_hit(state, t):
        return adamode.odeint_event(
            motion, state, t, event_fn=lambda t, s: s[0], odeint_interface=solver, **more
        )

    first, fallen = next_hit((height, f64(0.0)), t0)
    speed = -0.5 * fallen[1][-1]
    second, _ = next_hit((torch.full_like(speed, 1e-12), speed), first)
    # first = √(2h/g), second = first + 2·½·√(2gh)/g = 2 √(2h/g)
    assert second.item() == pytest.approx(2.0, abs=1e-6)
    slopes = torch.autograd.grad(second.sum(), (height, t0))
    assert slopes[0].item() == pytest.approx(1.0 / math.sqrt(2 * 10 * 5) * 2, abs=1e-6)
    assert slopes[1].item() == pytest.approx(1.0, abs=1e-6)


def test_an_adjoint_callback_finds_state_and_adjoint_where_torchdiffeq_puts_them():
    seen = []

    class Field(torch.nn.Module):
        def forward(self, t, y):
            return -y

        def callback_step_adjoint(self, t0, y0, dt):
            seen.append(y0)

    y0 = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    y = adamode.odeint_adjoint(Field(), y0, f64(0.0, 1.0))
    y[-1].sum().backward()
    time, state, adjoint = seen[0][:3]
    assert time.shape == ()
    assert torch.equal(state, y[-1].detach())
    assert torch.equal(adjoint, torch.ones_like(y0))
