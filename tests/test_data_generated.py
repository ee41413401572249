"""Generated data: the simulated Silverbox, the spiral, the circles."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from adamode.train.data import load_data
from adamode.train.data.duffing import (
    CUBIC,
    DAMPING,
    MASS,
    RATE,
    STIFFNESS,
    arrows,
    multisines,
    simulate,
)


@pytest.fixture(scope="module")
def simulated():
    return load_data("silverbox-simulated")


def test_the_simulation_agrees_with_scipy_on_the_equation_in_volts_and_seconds():
    u = 2 * multisines(1, np.random.default_rng(5))[:, :40]  # twice the data's: the cubic term counts
    times = np.arange(40) / RATE

    def equation(t, state):
        y, v = state
        force = np.interp(t, times, u[0])
        return [v, (force - DAMPING * v - STIFFNESS * y - CUBIC * y**3) / MASS]

    reference = solve_ivp(
        equation,
        (0, times[-1]),
        [0, 0],
        t_eval=times,
        method="DOP853",
        rtol=1e-10,
        atol=1e-12,
        max_step=0.1 / RATE,
    ).y[0]
    scale = np.abs(reference).max()
    coarse, fine = (np.abs(simulate(u, substeps=n)[0] - reference).max() / scale for n in (2, 8))
    # order 5: quartering the step divides the error by about 4⁵
    assert fine < 1e-7
    assert fine * 100 < coarse < 1e-3


def test_a_linear_oscillator_far_below_resonance_follows_its_stiffness():
    ramp = np.linspace(0, 1e-4, 300)[None]  # slow, and so small that the cubic term is nothing
    y = simulate(ramp)
    # y ≈ (u − d u̇/k)/k after the start has died out; inertia adds nothing on a ramp
    expected = (ramp[0] - DAMPING / STIFFNESS * (ramp[0, 1] - ramp[0, 0]) * RATE) / STIFFNESS
    assert y[0, 150:] == pytest.approx(expected[150:], rel=1e-3)


def test_the_simulated_inputs_have_the_measured_scale_and_band():
    u = multisines(3, np.random.default_rng(0))
    assert np.sqrt(np.mean(u**2, axis=1)) == pytest.approx(0.022, rel=1e-9)
    power = np.abs(np.fft.rfft(u)) ** 2
    above = np.fft.rfftfreq(1024, 1 / RATE) > 200
    assert power[:, above].max() < 1e-20 * power.max()
    assert power[:, ::2].max() < 1e-20 * power.max()  # odd harmonics only
    grown = arrows(20, np.random.default_rng(0))
    early, late = (np.sqrt(np.mean(grown[:, part] ** 2)) for part in (slice(256), slice(768, None)))
    assert 5 < late / early < 9  # a ramp: √(37/48) : √(1/48) is 6.1


def test_simulated_is_said_wherever_it_is_shown(simulated):
    assert "SIMULATED" in simulated.card.source
    assert "not measured" in str(simulated.card)
    assert "simulated" in simulated.name


def test_the_simulated_set_has_the_form_of_the_measured_one(simulated):
    assert simulated.train.inputs.shape == (720, 82, 3)
    assert simulated.train.targets.shape == (720, 32, 1)
    assert simulated.test.inputs.shape == (2, 1024, 3)
    assert simulated.test.targets.shape == (2, 974, 1)
    assert (simulated.task, simulated.given, simulated.unit, simulated.per_unit) == (
        "regression",
        50,
        "mV",
        10.0,
    )
    # measured: 22 mV and 54 mV over the multisines
    assert 10 * float(simulated.train.targets.std()) == pytest.approx(54, rel=0.15)


@pytest.mark.parametrize("name", ["spiral", "circles"])
def test_generated_points_are_the_same_in_every_run_and_no_point_is_in_two_parts(name):
    one = load_data(name)
    torch.manual_seed(99)
    np.random.seed(99)
    two = load_data(name)
    assert one.card == two.card
    parts = [one.train, one.val, one.test]
    assert [len(part) for part in parts] == [1000, 200, 1000]
    every = torch.cat([part.inputs for part in parts])
    assert len(every.unique(dim=0)) == 2200
    for part in parts:
        assert torch.bincount(part.targets).tolist() == [len(part) // 2] * 2
    assert every.dtype == torch.float32
    assert (one.task, one.classes, one.card.shape) == ("classification", 2, (2,))


def test_the_disc_lies_inside_the_ring():
    data = load_data("circles")
    radius = data.train.inputs.norm(dim=1)
    disc, ring = radius[data.train.targets == 0], radius[data.train.targets == 1]
    # float32 rounding of the points
    assert disc.max() <= 0.5 + 1e-6
    assert ring.min() >= 1 - 1e-6
    assert ring.max() <= 1.5 + 1e-6
    # even over the area: half of the disc's points lie inside 0.5/√2, here within 4 standard deviations
    assert abs(int((disc < 0.5 / 2**0.5).sum()) - 250) < 4 * (500 / 4) ** 0.5


def test_the_arms_of_the_spiral_are_half_a_turn_apart_and_no_line_separates_them():
    data = load_data("spiral")
    x, y = data.train.inputs.double(), data.train.targets
    turned = torch.where(y[:, None] == 1, -x, x)  # the second arm turned back onto the first
    radius = turned.norm(dim=1)
    angle = torch.atan2(turned[:, 1], turned[:, 0])
    off = torch.remainder(angle - 3 * torch.pi * radius + torch.pi, 2 * torch.pi) - torch.pi
    # the arm climbs 1 in 3π along its angle: the distance from it is this much less than along the circle
    distance = (radius * off / torch.hypot(torch.ones_like(radius), 3 * torch.pi * radius))[radius > 0.3]
    assert float(distance.std()) == pytest.approx(0.03, rel=0.1)
    assert distance.abs().max() < 1 / 6  # half of what lies between the arms, 1/(2 · 1.5)
    inputs = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
    signs = 2 * y[:, None].double() - 1
    line = torch.linalg.lstsq(inputs, signs).solution
    assert ((inputs @ line > 0) == (signs > 0)).double().mean() < 0.75
