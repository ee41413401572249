"""The real files, where ADAMODE_DATA has them."""

import os

import pytest
import torch

from adamode.solvers.errors import MissingDataError
from adamode.train.data import load_data

pytestmark = pytest.mark.skipif(
    not os.environ.get("ADAMODE_DATA"), reason="ADAMODE_DATA does not say where real data are"
)


@pytest.fixture(scope="module")
def real():
    """Loads each data set once, or skips."""
    loaded = {}

    def load(name):
        try:
            return loaded.setdefault(name, loaded[name] if name in loaded else load_data(name))
        except MissingDataError as error:
            pytest.skip(str(error))

    return load


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_real_images_are_balanced_to_a_few_and_share_none_between_parts(real, name):
    data = real(name)
    seen = [{bytes(image.numpy()) for image in part.images} for part in (data.train, data.val, data.test)]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]
    counts = torch.bincount(data.train.labels, minlength=10).double()
    assert counts.min() > 0.85 * counts.mean()  # MNIST's rarest digit, 5, has 0.90 of the mean


def test_a_linear_classifier_learns_real_mnist(real):
    """Labels belong to their images: least squares on 28×28 pixels is known to reach 80 to 86 %."""
    data = real("mnist")
    x, y = data.train.__getitems__(list(range(len(data.train))))
    test, labels = data.test.__getitems__(list(range(len(data.test))))
    x, test = (torch.nn.functional.pad(v.flatten(1).double(), (0, 1), value=1.0) for v in (x, test))
    targets = torch.nn.functional.one_hot(y, 10).double()
    penalty = 100 * torch.eye(x.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(x.T @ x + penalty, x.T @ targets)
    assert ((test @ weights).argmax(1) == labels).double().mean() > 0.75


def test_the_real_silverbox_has_its_known_length_and_scale(real):
    data = real("silverbox")
    assert "sample of" not in data.card.note
    x, y = data.test[0]
    assert x.shape == (40_475, 3)
    # the arrow grows: its last tenth is louder than its first tenth by far
    assert y[-4000:].std() > 5 * y[:4000].std()
    training = 10 * data.train.inputs[:, :, 0].std()  # mV
    assert float(training) == pytest.approx(22.3, abs=0.3)


def test_silence_surrounds_the_realisations_of_the_real_multisine(real):
    """The cut between training and validation lies in it: a window across loses nothing."""
    data = real("silverbox")
    silence = data.val.inputs[0, :30, 0]
    assert silence.std() < 0.1 * data.val.inputs[5, :, 0].std()


def test_the_papers_first_samples_are_the_arrows_quiet_start(real):
    data = real("silverbox-paper")
    assert 10 * float(data.train.targets.std()) < 10  # mV, of 53 mV over the whole recording
    assert data.test.targets.shape == (1, 3999, 1)
