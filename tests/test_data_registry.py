"""The registry, its options, the card, and batches of any data set."""

import json

import pytest
import torch

from adamode.solvers.errors import ArgumentError, ArgumentTypeError
from adamode.train.data import DATASETS, OWN, DataOptions, batches, load_data, model_task
from adamode.train.data.options import SPECIAL
from adamode.train.data.splits import Samples


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"normalise": "std"}, r"normalise='std' is not known: .*standard"),
        ({"train_size": 0}, "train_size=0 must be at least 1"),
        ({"window": -3}, "window=-3 must be at least 1"),
    ],
)
def test_an_option_without_meaning_is_refused(settings, message):
    with pytest.raises(ArgumentError, match=message):
        DataOptions(**settings)


@pytest.mark.parametrize(
    "settings",
    [{"data_dir": 3}, {"download": 1}, {"augment": "yes"}, {"train_size": 2.0}, {"given": True}],
)
def test_an_option_of_the_wrong_type_is_refused(settings):
    with pytest.raises(ArgumentTypeError, match=next(iter(settings))):
        DataOptions(**settings)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "spiral",
            {"augment": True},
            "augment=True is not an option of data set 'spiral', but of digits, mnist",
        ),
        ("digits", {"window": 5}, "window=5 is not an option of data set 'digits', but of silverbox"),
        ("silverbox-paper", {"window": 5}, "window=5 is not an option of data set 'silverbox-paper'"),
    ],
)
def test_an_option_that_a_data_set_does_not_have_is_refused_and_not_ignored(name, settings, message):
    with pytest.raises(ArgumentError, match=message):
        load_data(name, DataOptions(**settings))


def test_every_option_that_the_registry_names_exists_and_every_data_set_has_a_line():
    entries = [*DATASETS.values(), *OWN.values()]
    for entry in entries:
        assert set(entry.takes) <= set(SPECIAL)
        assert entry.about
    assert {name for entry in entries for name in entry.takes} == set(SPECIAL)


def test_the_papers_silverbox_has_the_authors_models_and_the_benchmarks_has_ours():
    assert model_task("silverbox-paper") == "silverbox"
    assert model_task("silverbox") == model_task("silverbox-simulated") == "silverbox-network"
    assert model_task("digits") == "digits"
    with pytest.raises(ArgumentError, match="did you mean 'silverbox'"):
        model_task("silverbx")


def test_digits_take_the_options_of_images():
    data = load_data("digits", DataOptions(normalise="unit", train_size=100, augment=True))
    data.train.set_epoch(0, 0)
    x, y = data.train.__getitems__(list(range(100)))
    assert x.shape == (100, 1, 8, 8)
    assert torch.bincount(y).tolist() == [10] * 10
    assert (x * 16).frac().abs().max() == 0
    assert x.max() == 1


def test_the_card_is_plain_json():
    card = load_data("circles").card
    again = json.loads(json.dumps(card.as_dict()))
    assert again["counts"] == {"train": 1000, "validation": 200, "test": 1000}
    assert again["shape"] == [2]


def test_batches_of_ready_samples_equal_the_samples():
    data = Samples(torch.arange(12.0).reshape(6, 2), torch.arange(6))
    found = list(batches(data, torch.tensor([4, 0, 5, 2]), 3))
    assert [y.tolist() for _, y in found] == [[4, 0, 5], [2]]
    assert found[0][0].tolist() == [[8, 9], [0, 1], [10, 11]]
    assert data[3][0].tolist() == [6, 7]
