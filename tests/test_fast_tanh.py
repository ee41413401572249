import math

import torch

from adamode.solvers.device.tanh import fast_tanh, tanh_in_programs


def units_in_the_last_place(found, x):
    exact = torch.tanh(x.double())
    unit = 2.0 ** (torch.floor(torch.log2(exact.abs().clamp(min=2.0**-126))) - 23)
    return (found.double() - exact).abs() / unit


def test_it_is_right_to_seven_units_in_the_last_place():
    small = torch.logspace(-37, 1.3, 200_001)
    x = torch.cat((torch.linspace(-12, 12, 1_000_001), small, -small)).float()
    found = fast_tanh(x)
    assert units_in_the_last_place(found, x).max() <= 7
    assert found.abs().max() <= 1  # 1 − y² is not negative
    assert torch.equal(fast_tanh(-x), -found)


def test_ends_zero_and_nan():
    x = torch.tensor([math.inf, -math.inf, 0.0, -0.0, 1e30, -1e30, math.nan])
    found = fast_tanh(x)
    assert found[:6].tolist() == [1.0, -1.0, 0.0, 0.0, 1.0, -1.0]
    assert math.copysign(1.0, found[3].item()) == -1.0
    assert found[6].isnan()


def test_double_precision_keeps_torchs_own():
    assert tanh_in_programs(torch.ones(2, dtype=torch.float64)) is NotImplemented
    assert torch.allclose(tanh_in_programs(torch.ones(2)), torch.tanh(torch.ones(2)), rtol=1e-6)
