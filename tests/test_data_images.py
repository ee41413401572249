"""MNIST and CIFAR-10 from every layout, what a damaged file is told, and the transforms."""

import pickle

import numpy as np
import pytest
import torch
from data_files import cifar_arrays, load, mnist_arrays, write_idx_files, write_npz

from adamode.solvers.errors import ArgumentError, DataError, MissingDataError
from adamode.train.data import load_data
from adamode.train.data.images import Normalisation
from adamode.train.data.splits import balanced_subset, batches


def images_of(data):
    return torch.cat([data.train.images, data.val.images]), torch.cat([data.train.labels, data.val.labels])


def same_pairs(data, x, y):
    """Whether training and validation together hold exactly the pairs of x and y."""
    found = sorted((bytes(i.numpy()), int(n)) for i, n in zip(*images_of(data), strict=True))
    return found == sorted((i.tobytes(), int(n)) for i, n in zip(x, y, strict=True))


@pytest.fixture
def mnist(tmp_path):
    return write_npz(tmp_path, "mnist", mnist_arrays())


def test_mnist_from_npz_keeps_every_image_with_its_label(mnist):
    data, arrays = load("mnist", mnist), mnist_arrays()
    assert same_pairs(data, arrays["x_train"], arrays["y_train"])
    assert np.array_equal(data.test.images[:, 0].numpy(), arrays["x_test"])
    assert np.array_equal(data.test.labels.numpy(), arrays["y_test"])
    assert data.test.labels.dtype == torch.int64
    assert (data.task, data.classes, data.card.shape) == ("classification", 10, (1, 28, 28))
    # a tenth of 6 images a class rounds to 1
    assert data.card.counts == {"train": 50, "validation": 10, "test": 20}


@pytest.mark.parametrize("packed", [True, False], ids=["gz", "plain"])
@pytest.mark.parametrize("place", [".", "MNIST/raw"])
def test_mnist_from_idx_files_equals_mnist_from_npz(tmp_path, mnist, place, packed):
    folder = tmp_path / "idx"
    write_idx_files(folder / place, mnist_arrays(), packed=packed)
    one, other = load("mnist", folder), load("mnist", mnist)
    assert one.card.sha256 == other.card.sha256
    assert torch.equal(one.train.images, other.train.images)
    assert torch.equal(one.test.labels, other.test.labels)
    assert len(one.card.files) == 4


def test_cifar10_from_npz_puts_the_channels_first(tmp_path):
    arrays = cifar_arrays()
    arrays["y_train"] = arrays["y_train"][:, None].astype(np.int64)  # Keras' labels are a column
    data = load("cifar10", write_npz(tmp_path, "cifar10", arrays))
    assert np.array_equal(data.test.images.numpy(), arrays["x_test"].transpose(0, 3, 1, 2))
    assert same_pairs(data, arrays["x_train"].transpose(0, 3, 1, 2), arrays["y_train"][:, 0])


def test_cifar10_from_torchvisions_folder_equals_cifar10_from_npz(tmp_path, monkeypatch):
    from hashlib import md5

    from torchvision.datasets import CIFAR10

    arrays = cifar_arrays(train=20, test=10)
    base = tmp_path / "cifar-10-batches-py"
    base.mkdir()

    def entry(name, content):
        raw = pickle.dumps(content)
        (base / name).write_bytes(raw)
        return [name, md5(raw).hexdigest()]

    def batch(name, part):
        planes = arrays[f"x_{part}"].transpose(0, 3, 1, 2).reshape(-1, 3072)
        return entry(name, {"data": planes, "labels": arrays[f"y_{part}"].tolist()})

    monkeypatch.setattr(CIFAR10, "train_list", [batch("data_batch_1", "train")])
    monkeypatch.setattr(CIFAR10, "test_list", [batch("test_batch", "test")])
    meta = entry("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})
    data = load("cifar10", tmp_path)
    other = tmp_path / "npz"
    other.mkdir()
    assert data.card.sha256 == load("cifar10", write_npz(other, "cifar10", arrays)).card.sha256
    assert [f.name for f in data.card.files] == ["data_batch_1", "test_batch"]
    # A pickle that torchvision does not know is never opened.
    (base / "data_batch_1").write_bytes(pickle.dumps({"data": 0}))
    with pytest.raises(DataError, match=r"cifar-10-batches-py.*cannot be read"):
        load("cifar10", tmp_path)


def test_the_card_says_sample_of_and_gives_the_files_checksum(mnist):
    from hashlib import sha256

    card = load("mnist", mnist).card
    assert "sample of mnist: 60 of 60,000 train images and 20 of 10,000 test images" in card.note
    raw = (mnist / "mnist.npz").read_bytes()
    assert (card.files[0].sha256, card.files[0].size) == (sha256(raw).hexdigest(), len(raw))
    assert card.files[0].sha256[:16] in str(card)


def test_the_full_data_set_is_not_called_a_sample(mnist, monkeypatch):
    import dataclasses

    from adamode.train.data import mnist as module

    whole = dataclasses.replace(module.KIND, full={"train": 60, "test": 20})
    monkeypatch.setattr(module, "KIND", whole)
    assert "sample of" not in load("mnist", mnist).card.note


def test_standard_inputs_have_mean_zero_and_variance_one_over_training_only(tmp_path):
    data = load("cifar10", write_npz(tmp_path, "cifar10", cifar_arrays()), normalise="standard")
    x = data.train.__getitems__(list(range(len(data.train))))[0].double()
    assert x.mean((0, 2, 3)).abs().max() < 1e-6  # float32 rounding of values of order 1
    assert (x.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-6
    val = data.val.__getitems__(list(range(len(data.val))))[0].double()
    assert val.mean((0, 2, 3)).abs().max() > 1e-5  # validation decided nothing


def test_unit_inputs_are_the_bytes_over_255_and_the_default(mnist):
    data = load("mnist", mnist)
    assert "pixels in [0, 1]" in data.card.note
    assert torch.equal(data.test[3][0], data.test.images[3].float() / 255)


def test_a_channel_without_contrast_stays_finite(tmp_path):
    arrays = {**cifar_arrays(), "x_train": np.full((60, 32, 32, 3), 7, np.uint8)}
    data = load("cifar10", write_npz(tmp_path, "cifar10", arrays), normalise="standard")
    assert torch.equal(data.train[0][0], torch.zeros(3, 32, 32))


def test_train_size_takes_each_class_as_often(mnist):
    data = load("mnist", mnist, train_size=25)
    counts = torch.bincount(data.train.labels, minlength=10)
    assert counts.sum() == 25
    assert counts.max() - counts.min() == 1
    assert torch.equal(data.train.images, load("mnist", mnist, train_size=25).train.images)
    assert "cut to 25 of 50" in data.card.note
    with pytest.raises(ArgumentError, match="train_size=51: mnist has only 50 training images"):
        load("mnist", mnist, train_size=51)


def test_test_size_cuts_the_test_and_a_longer_validation_alone(mnist):
    data, whole = load("mnist", mnist, test_size=5), load("mnist", mnist)
    assert data.card.counts == {"train": 50, "validation": 5, "test": 5}
    assert torch.bincount(data.test.labels, minlength=10).max() == 1
    assert torch.equal(data.train.images, whole.train.images)
    assert torch.equal(data.train[0][0], whole.train[0][0])  # normalised alike
    assert "test set cut to 5 of 20 images by test_size" in data.card.note
    assert load("mnist", mnist, test_size=15).card.counts["validation"] == 10
    with pytest.raises(ArgumentError, match="test_size=21: mnist has only 20 test images"):
        load("mnist", mnist, test_size=21)


def test_val_size_cuts_the_validation_whatever_test_size_says(mnist):
    assert load("mnist", mnist, val_size=3).card.counts == {"train": 50, "validation": 3, "test": 20}
    assert load("mnist", mnist, val_size=4, test_size=2).card.counts["validation"] == 4
    with pytest.raises(ArgumentError, match="val_size=11: mnist has only 10 validation images"):
        load("mnist", mnist, val_size=11)


def test_a_balanced_subset_of_unequal_classes_takes_the_small_ones_whole():
    labels = np.array([0] * 10 + [1] * 2)
    assert np.bincount(labels[balanced_subset(labels, 6)]).tolist() == [4, 2]


def test_augmentation_depends_on_seed_epoch_and_image_alone(tmp_path):
    train = load("cifar10", write_npz(tmp_path, "cifar10", cifar_arrays()), augment=True).train
    train.set_epoch(seed=1, epoch=2)
    before = torch.get_rng_state()
    whole = train.__getitems__(list(range(20)))[0]
    torch.rand(7)
    backwards = train.__getitems__(list(reversed(range(20))))[0].flip(0)
    assert torch.equal(whole, backwards)
    assert torch.equal(whole[4], train[4][0])
    for seed, epoch in ((1, 3), (2, 2)):
        train.set_epoch(seed, epoch)
        assert not torch.equal(whole, train.__getitems__(list(range(20)))[0])
    torch.set_rng_state(before)
    train.__getitems__([0, 1])
    assert torch.equal(torch.get_rng_state(), before)


def test_augmented_images_are_shifted_or_flipped_copies(tmp_path):
    arrays = {**cifar_arrays(), "x_train": np.zeros((60, 32, 32, 3), np.uint8)}
    arrays["x_train"][:, 10:16, 10:16] = np.arange(1, 7, dtype=np.uint8)[None, None, :, None]
    folder = write_npz(tmp_path, "cifar10", arrays)
    train = load("cifar10", folder, augment=True, normalise="unit").train
    train.set_epoch(0, 0)
    x = (train.__getitems__(list(range(len(train))))[0][:, 0] * 255).round().int()
    flipped = 0
    for image in x:
        rows, cols = image.nonzero(as_tuple=True)
        assert abs(int(rows.min()) - 10) <= 4
        stripe = image[rows.min(), cols.min() : cols.max() + 1].tolist()
        assert stripe in ([1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1])
        flipped += stripe[0] == 6
    assert 10 <= flipped <= 40  # of 50: half, within 4 standard deviations


def test_augmented_images_want_an_epoch_and_others_are_untouched(tmp_path):
    data = load("cifar10", write_npz(tmp_path, "cifar10", cifar_arrays()), augment=True)
    with pytest.raises(RuntimeError, match="set_epoch"):
        data.train[0]
    plain = load("cifar10", tmp_path)
    assert torch.equal(data.test[0][0], plain.test[0][0])
    assert torch.equal(data.val[0][0], plain.val[0][0])


def test_batches_of_augmented_images_draw_no_global_number(mnist):
    data = load("mnist", mnist, augment=True)
    data.train.set_epoch(0, 0)
    before = torch.get_rng_state()
    x, y = next(iter(batches(data.train, torch.arange(50), 32)))
    assert x.shape == (32, 1, 28, 28)
    assert y.shape == (32,)
    assert torch.equal(torch.get_rng_state(), before)


# Where files are looked for.


@pytest.mark.parametrize(
    ("name", "looked_for"),
    [("mnist", "mnist.npz, train-images-idx3-ubyte"), ("cifar10", "cifar10.npz, cifar-10-batches-py/")],
)
def test_what_is_missing_is_told_with_what_was_looked_for_and_how_to_get_it(tmp_path, name, looked_for):
    with pytest.raises(MissingDataError) as caught:
        load(name, tmp_path)
    for part in (repr(str(tmp_path)), looked_for, "--download"):
        assert part in str(caught.value)
    with pytest.raises(MissingDataError, match="does not exist"):
        load(name, tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is not a folder"):
        load(name, tmp_path / "file")


def test_the_environment_says_where_if_the_caller_does_not(mnist, monkeypatch):
    monkeypatch.delenv("ADAMODE_DATA", raising=False)
    with pytest.raises(MissingDataError, match=r"no folder was given.*ADAMODE_DATA"):
        load_data("mnist")
    monkeypatch.setenv("ADAMODE_DATA", str(mnist))
    assert load_data("mnist").card.counts["train"] == 50
    with pytest.raises(MissingDataError, match="does not exist"):
        load("mnist", mnist / "other")  # the caller's word wins


def test_nothing_is_downloaded_unasked_and_then_only_what_is_missing(tmp_path, mnist, monkeypatch):
    asked = []

    class Fetched:
        def __init__(self, root, download):
            asked.append((root, download))
            write_idx_files(tmp_path / "new" / "MNIST" / "raw", mnist_arrays(), packed=True)

    monkeypatch.setattr("torchvision.datasets.MNIST", Fetched)
    with pytest.raises(MissingDataError):
        load("mnist", tmp_path / "new")
    load("mnist", mnist, download=True)
    assert asked == []
    assert load("mnist", tmp_path / "new", download=True).card.counts["train"] == 50
    assert asked == [(str(tmp_path / "new"), True)]


def test_a_download_that_fails_is_a_data_error(tmp_path, monkeypatch):
    def refuse(root, **settings):
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr("torchvision.datasets.MNIST", refuse)
    monkeypatch.setattr("torchvision.datasets.CIFAR10", refuse)
    for name in ("mnist", "cifar10"):
        with pytest.raises(DataError, match="Error downloading"):
            load(name, tmp_path, download=True)


@pytest.mark.parametrize("channels", [1, 3])
def test_normalisation_is_torchvisions_bit_for_bit(channels):
    from torchvision.transforms import v2

    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, channels, 8, 8), dtype=torch.uint8, generator=generator)
    mean, std = ((1 + 100 * torch.rand(channels, generator=generator)).double().tolist() for _ in range(2))
    theirs = v2.Compose([v2.ToDtype(torch.float32), v2.Normalize(mean, std)])
    ours = Normalisation(tuple(mean), tuple(std))
    for x in (images, images[0]):
        assert torch.equal(ours(x), theirs(x))
