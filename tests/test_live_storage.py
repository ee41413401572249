"""The meter of live storage: what is counted, what is not, and when it ends."""

import gc

import pytest
import torch
from torch import nn

import adamode
from adamode.memory import MIB, LiveStorage, parameter_bytes, peak_of

CPU = torch.device("cpu")
QUARTER = MIB // 4  # float32 entries of one MiB


def test_an_allocation_is_counted_and_freed_again():
    with LiveStorage() as meter:
        x = torch.zeros(QUARTER)
        assert (meter.now, meter.peak) == (MIB, MIB)
        del x
        assert (meter.now, meter.peak) == (0, MIB)


def test_what_lives_at_once_adds_up_and_what_does_not_does_not():
    def one_after_another():
        for _ in range(5):
            torch.zeros(QUARTER)

    def together():
        return [torch.zeros(QUARTER) for _ in range(5)]

    assert peak_of(one_after_another, CPU) == MIB
    assert peak_of(together, CPU) == 5 * MIB


def test_a_view_is_not_counted_twice_and_keeps_its_storage_alive():
    with LiveStorage() as meter:
        x = torch.zeros(4, QUARTER // 4)
        views = [x[0], x.t(), x.flatten(), x.detach(), *x.unbind(0)]
        assert meter.now == MIB
        del x
        gc.collect()
        assert meter.now == MIB
        views.clear()
        assert meter.now == 0


def test_what_lived_before_is_not_counted():
    before = torch.zeros(QUARTER)
    with LiveStorage() as meter:
        before.add_(1)
        before[:10].view(2, 5).mul_(2)
        assert meter.peak == 0
        before = before + 1  # a new one, while the old is freed
    assert meter.peak == MIB


def test_what_torch_makes_from_python_numbers_is_counted():
    with LiveStorage() as meter:
        kept = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert meter.now == 16
    del kept
    assert meter.now == 0


def test_a_storage_that_grows_counts_with_its_new_size():
    with LiveStorage() as meter:
        x = torch.zeros(QUARTER)
        x.resize_(2 * QUARTER)
        assert meter.now == 2 * MIB


class Planted(torch.autograd.Function):
    """The identity; its backward pass holds so many MiB for a moment."""

    @staticmethod
    def forward(ctx, x, mib):
        ctx.mib = mib
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        held = [torch.zeros(QUARTER) for _ in range(ctx.mib)]
        return gradient + sum(h[0] for h in held), None


@pytest.mark.parametrize("mib", [3, 17])
def test_an_allocation_in_a_backward_pass_written_in_python_is_counted(mib):
    x = torch.zeros(8, requires_grad=True)

    def step():
        Planted.apply(x, mib).sum().backward()

    assert mib * MIB <= peak_of(step, CPU) < mib * MIB + 1000


def test_a_backward_pass_is_counted_to_the_byte():
    """∂L/∂W, L and ∂L/∂L: the layer's output is freed before, and its gradient is L's, expanded."""
    weight = torch.randn(QUARTER // 64, 64, requires_grad=True)  # 1 MiB
    x = torch.randn(64)

    def step():
        (weight @ x).sum().backward()

    assert peak_of(step, CPU) == MIB + 4 + 4


class Decay(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(64, 64)

    def forward(self, t, h):
        return torch.tanh(self.inner(h)) * torch.cos(20 * t)


@pytest.mark.parametrize(
    ("gradient", "grows"),
    [(adamode.Discrete(), True), (adamode.Direct(), True), (adamode.Backsolve(anchors=0), False)],
    ids=["discrete", "direct", "backsolve"],
)
def test_memory_grows_with_the_steps_where_it_should(gradient, grows):
    """Ten times the steps; the block does not count what this meter counts."""
    field = Decay()

    def measured(rtol):
        block = adamode.NODE(field, rtol=rtol, atol=rtol, gradient=gradient).double()
        h0 = torch.randn(256, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        block.zero_grad(set_to_none=True)
        peak = peak_of(lambda: block(h0).sum().backward(), CPU)
        return peak, block.last_stats.n_accepted

    (small, few), (large, many) = measured(1e-3), measured(1e-9)
    assert many > 4 * few
    assert (large > 3 * small) if grows else (large < 1.2 * small)


def test_the_bytes_of_parameters_are_counted_once_where_two_layers_share_them():
    first, second = nn.Linear(10, 10, bias=False), nn.Linear(10, 10, bias=False)
    assert parameter_bytes(nn.Sequential(first, second)) == 800
    second.weight = first.weight
    assert parameter_bytes(nn.Sequential(first, second)) == 400
