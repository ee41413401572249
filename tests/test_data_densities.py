"""Data of densities: what is generated has the entropy that its card says, and pixels become numbers of the
line whose density is counted rightly."""

import math

import numpy as np
import pytest
import torch
from data_files import mnist_arrays

from adamode.solvers.errors import ArgumentError
from adamode.train.data import DATASETS, DataOptions, Pixels, checkerboard, load_data, moons, rings
from adamode.train.data.image_density import pooled_to_8
from adamode.train.data.pixels import Dequantised

D = torch.float64


def of_checkerboard(x):
    """The density's logarithm at points [N, 2]; −∞ between the dark squares."""
    dark = ((np.floor((x + 4) / 2)).sum(1) % 2 == 0) & (np.abs(x) < 4).all(1)
    return np.where(dark, -math.log(32), -np.inf)


def of_moons(x):
    """By quadrature over the angle; the normal's deviation is 0.2 and an arc's step π/100."""
    angle = (np.arange(200) + 0.5) / 200 * np.pi
    total = 0.0
    for lower in (False, True):
        centres = moons.arc(angle, np.full(200, lower))
        square = ((x[:, None] - centres) ** 2).sum(2)
        total = total + np.exp(-square / (2 * 0.2**2)).mean(1) / (2 * np.pi * 0.2**2)
    return np.log(total / 2)


def of_rings(x):
    r = np.hypot(*x.T)
    radial = sum(np.exp(-((r - k) ** 2) / (2 * 0.15**2)) for k in (1, 2, 3)) / 3
    return np.log(radial / (0.15 * math.sqrt(2 * np.pi)) / (2 * np.pi * r))


TRUE = {
    "checkerboard": (of_checkerboard, checkerboard),
    "moons": (of_moons, moons),
    "rings": (of_rings, rings),
}


@pytest.mark.parametrize("name", TRUE)
def test_the_points_have_the_entropy_that_the_card_says(name):
    log_density, module = TRUE[name]
    points = load_data(name).train.inputs.double().numpy()
    told = -log_density(points)
    error = told.std() / math.sqrt(len(told))
    assert abs(told.mean() - module.ENTROPY) <= 4 * error + 1e-12
    side = np.linspace(-5, 5, 121)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2) + 1e-3  # r = 0 is no point of it
    density = np.exp(log_density(grid))
    area = (side[1] - side[0]) ** 2
    assert density.sum() * area == pytest.approx(1, abs=0.03)  # squares end between points of the grid
    entropy = -(density * np.log(np.where(density > 0, density, 1))).sum() * area
    assert entropy == pytest.approx(module.ENTROPY, abs=0.11 if name == "checkerboard" else 1e-3)


@pytest.mark.parametrize("name", TRUE)
def test_generated_points_are_the_same_in_every_run_and_no_point_is_in_two_parts(name):
    one = load_data(name)
    np.random.seed(99)
    torch.manual_seed(99)
    assert one.card == load_data(name).card
    parts = [one.train, one.val, one.test]
    assert [len(part) for part in parts] == list(one.card.counts.values())
    every = torch.cat([part.inputs for part in parts])
    assert len(every.unique(dim=0)) == len(every)
    assert (one.task, one.unit, one.card.classes, one.pixels) == ("density", "nats", 0, None)
    assert all((part.targets == 0).all() for part in parts)
    with pytest.raises(ArgumentError, match="train_size"):
        load_data(name, DataOptions(train_size=10))


@pytest.mark.parametrize("pixels", [Pixels(17), Pixels(2, margin=0.2), Pixels(256, margin=1e-6)])
def test_pixels_go_to_the_line_and_back_and_their_volume_is_the_jacobians(pixels):
    w = torch.rand(3, 1, 2, 2, dtype=D, generator=torch.Generator().manual_seed(0)) * pixels.levels
    w[0, 0, 0, 0] = 0.0
    x, volume = pixels.encode(w)
    torch.testing.assert_close(pixels.decode(x), w, rtol=1e-12, atol=1e-9)
    for i in range(3):
        jacobian = torch.autograd.functional.jacobian(lambda v: pixels.encode(v[None])[0].flatten(), w[i])
        expected = torch.linalg.slogdet(jacobian.view(4, 4)).logabsdet
        torch.testing.assert_close(volume[i], expected, rtol=1e-12, atol=0)


def test_noise_is_that_of_the_epoch_and_the_image_alone_and_always_the_same_where_nothing_is_trained():
    images = torch.randint(0, 17, (6, 1, 8, 8), dtype=torch.uint8)
    one, other = (Dequantised(images, Pixels(17)) for _ in range(2))
    before = torch.get_rng_state()
    first = one.__getitems__([2, 5])
    assert torch.equal(first[0], other.__getitems__([5, 2])[0].flip(0))
    one.set_epoch(0, 1)
    assert not torch.equal(one[5][0], other[5][0])
    other.set_epoch(0, 1)
    assert torch.equal(one[5][0], other.__getitems__([0, 5, 1])[0][1])
    other.set_epoch(0, 2)
    assert not torch.equal(one[5][0], other[5][0])
    assert torch.equal(torch.get_rng_state(), before)
    whole = one.pixels.decode(one.__getitems__(list(range(6)))[0].double())
    noise = whole - images  # float32 rounding of x, × the slope of w in x, at most 17/4
    assert noise.min() > -1e-5
    assert noise.max() < 1 + 1e-5
    assert noise.mean().item() == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / noise.numel()))


def test_the_digits_density_is_of_the_digits_images():
    options = DataOptions(train_size=50, test_size=20)
    data, labelled = load_data("digits-density", options), load_data("digits", options)
    assert (data.task, data.unit, data.card.shape) == ("density", "bits/dim", (1, 8, 8))
    assert data.per_unit == 1 / (64 * math.log(2))
    for part in ("train", "val", "test"):
        mine, theirs = getattr(data, part), getattr(labelled, part)
        assert torch.equal(mine.images, theirs.images)
        assert int(mine.images.max()) <= 16
    assert DATASETS["digits-density"].pixels == data.pixels
    x, volume = data.test.__getitems__([0, 1])
    assert (x.dtype, volume.dtype, x.shape, volume.shape) == (torch.float32, D, (2, 1, 8, 8), (2,))


def test_images_of_28_pixels_are_pooled_to_8():
    images = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    images[0, 0, 2:6, 6:10] = 100
    images[0, 0, 0, 0] = 255  # alone in its 4 × 4, three quarters of which are padding
    small = pooled_to_8(images)
    expected = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    expected[0, 0, 1, 2], expected[0, 0, 0, 0] = 100, 16
    assert torch.equal(small, expected)


def test_mnist8_is_mnist_pooled(tmp_path):
    np.savez(tmp_path / "mnist.npz", **mnist_arrays())
    options = DataOptions(data_dir=str(tmp_path), train_size=30, test_size=10, val_size=3)
    data, whole = (load_data(name, options) for name in ("mnist8-density", "mnist"))
    assert torch.equal(data.train.images, pooled_to_8(whole.train.images))
    assert [len(part) for part in (data.train, data.val, data.test)] == [30, 3, 10]
    assert data.card.sha256 == whole.card.sha256
    assert "sample of mnist" in data.card.note
