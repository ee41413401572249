import numpy as np
import pytest
import torch

from adamode import ArgumentError
from adamode.train.data import DATASETS, load_data
from adamode.train.data import digits as reader
from adamode.train.data.splits import batches, stratified_split


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


def test_every_image_is_in_exactly_one_part(digits):
    parts = (digits.train, digits.val, digits.test)
    assert [len(part) for part in parts] == [1259, 179, 359]
    together = torch.cat([part.images for part in parts]).flatten(1)
    assert len(together) == 1797
    from sklearn.datasets import load_digits

    real = torch.from_numpy(load_digits().data.astype(np.uint8))

    def as_multiset(rows):
        return sorted(map(bytes, rows.numpy()))

    assert as_multiset(together) == as_multiset(real)


def test_labels_belong_to_their_images(digits):
    from sklearn.datasets import load_digits

    known = {}
    for row, label in zip(load_digits().data.astype(np.uint8), load_digits().target, strict=True):
        known.setdefault(bytes(row), set()).add(int(label))
    for image, label in zip(digits.test.images.flatten(1).numpy(), digits.test.labels.tolist(), strict=True):
        assert label in known[bytes(image)]


def test_the_split_does_not_depend_on_the_seed_of_a_run(digits):
    torch.manual_seed(123)
    np.random.seed(123)
    again = load_data("digits")
    assert torch.equal(again.test.images, digits.test.images)
    assert again.card == digits.card


def test_each_class_has_its_share_in_each_part(digits):
    for part, share in ((digits.train, 0.7), (digits.val, 0.1), (digits.test, 0.2)):
        counts = torch.bincount(part.labels, minlength=10)
        totals = sum(torch.bincount(p.labels, minlength=10) for p in (digits.train, digits.val, digits.test))
        # each class rounds its two shares to whole images: within one image of the share
        assert ((counts - share * totals).abs() <= 1).all()


def test_training_inputs_have_mean_zero_and_variance_one(digits):
    x = torch.stack([digits.train[i][0] for i in range(len(digits.train))])
    assert x.shape == (1259, 1, 8, 8)
    assert x.dtype == torch.float32
    assert float(x.double().mean()) == pytest.approx(0, abs=1e-6)  # float32 rounding of the images
    assert float(x.double().std(correction=0)) == pytest.approx(1, abs=1e-6)


def test_a_batch_equals_its_samples(digits):
    x, y = next(iter(batches(digits.val, torch.tensor([5, 3, 8]), 3)))
    for i, index in enumerate((5, 3, 8)):
        assert torch.equal(x[i], digits.val[index][0])
        assert y[i] == digits.val[index][1]


def test_batches_start_where_they_are_told_and_draw_no_random_number(digits):
    order = torch.randperm(len(digits.val))
    before = torch.get_rng_state()
    whole = list(batches(digits.val, order, 50))
    rest = list(batches(digits.val, order, 50, start=2))
    assert torch.equal(torch.get_rng_state(), before)
    assert [len(y) for _, y in whole] == [50, 50, 50, 29]
    assert all(torch.equal(a[0], b[0]) for a, b in zip(whole[2:], rest, strict=True))


def test_the_card_tells_origin_counts_and_checksum(digits):
    text = str(digits.card)
    for word in ("digits", "1797", "1259", "179", "359", "scikit-learn", digits.card.sha256[:16]):
        assert word in text


def test_split_keeps_a_class_too_small_for_its_shares():
    parts = stratified_split(np.array([0, 0, 0, 1]), (0.1, 0.2))
    assert sorted(np.concatenate(parts)) == [0, 1, 2, 3]
    assert 3 in parts[0]


def test_an_unknown_data_set_gets_the_nearest_name():
    with pytest.raises(ArgumentError, match=r"dataset='digts'.*did you mean 'digits'"):
        load_data("digts")
    assert "digits" in DATASETS


def test_they_are_scikit_learns_wherever_its_file_lies(monkeypatch):
    here = reader._read()
    monkeypatch.setattr(reader.importlib.util, "find_spec", lambda name: None)
    elsewhere = reader._read()
    for ours, theirs in zip(here, elsewhere, strict=True):
        assert ours.dtype == theirs.dtype
        assert (ours == theirs).all()
    assert here[0].shape == (1797, 1, 8, 8)
