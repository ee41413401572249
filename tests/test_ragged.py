"""Rows of times that are shorter than others are padded with their last time, as torchode pads them."""

from __future__ import annotations

import pytest
import torch
from problems import EVERY_GRADIENT

import adamode

RATES = torch.tensor([0.5, 0.8, 1.0, 0.3], dtype=torch.float64)
TIMES = torch.tensor(
    [[0, 0.5, 1, 1, 1], [0, 0.3, 0.6, 0.9, 1.2], [0, 0, 0, 0, 0], [0, 2, 2, 2, 2]], dtype=torch.float64
)


@pytest.mark.parametrize("gradient", EVERY_GRADIENT, ids=str)
@pytest.mark.parametrize(("shape", "sign"), [((4,), 1.0), ((4, 2), -1.0)])
def test_a_repeated_last_time_gives_its_value_and_its_gradients_again(
    gradient: object, shape: tuple[int, ...], sign: float
) -> None:
    def alike(x: torch.Tensor) -> torch.Tensor:
        return x.reshape(*x.shape, *[1] * (len(shape) - 1))

    y0 = torch.ones(*shape, dtype=torch.float64, requires_grad=True)
    rates, t = RATES.clone().requires_grad_(), (sign * TIMES).requires_grad_()
    sol = adamode.solve(
        lambda t, y: -alike(rates) * y,
        y0,
        t,
        stepping="per_sample",
        gradient=gradient,
        rtol=1e-9,
        atol=1e-11,
        params=[rates],
    )
    exact = alike(torch.exp(-rates[:, None] * (t - t[:, :1])).t()) * y0
    weights = alike(torch.arange(1.0, 6.0, dtype=torch.float64)[:, None])
    assert torch.allclose(sol.y, exact, rtol=1e-8)
    ours = torch.autograd.grad((sol.y * weights).sum(), (y0, rates, t))
    theirs = torch.autograd.grad((exact * weights).sum(), (y0, rates, t))
    for found, expected in zip(ours, theirs, strict=True):
        assert torch.allclose(found, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("row", [[0.0, 0.5, 0.5, 1.0], [0.0, 0.0, 0.5, 1.0], [0.0, 1.0, 0.5, 0.5]])
def test_a_time_repeated_before_the_last_is_refused(row: list[float]) -> None:
    t = torch.tensor([row, [0.0, 1.0, 2.0, 3.0]])
    with pytest.raises(adamode.ArgumentError, match=r"t\[0\].*may be repeated, at the end"):
        adamode.solve(lambda t, y: -y, torch.ones(2), t, stepping="per_sample")


@pytest.mark.parametrize("gradient", [*EVERY_GRADIENT, None], ids=str)
def test_many_outputs_in_one_step_are_written_together(gradient: object) -> None:
    """Each operation a step, not one an output: calls of the dispatcher grow with steps alone."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        n = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.n += 1
            return func(*args, **(kwargs or {}))

    counts = []
    for outputs in (10, 1000):
        y0 = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
        with Count() as count:
            t = torch.linspace(0, 1, outputs, dtype=torch.float64)
            adamode.solve(lambda t, y: -y, y0, t, stepping="per_sample", gradient=gradient)
        counts.append(count.n)
    assert counts[1] < 1.2 * counts[0]
