"""Models by name, and their parts."""

import copy
import pickle

import pytest
import torch

from adamode import models
from adamode.models.model import ConvEncoder, DeepConvEncoder, LearnedStart, PoolHead, ThirdsStart, ZeroStart
from adamode.solvers.errors import ArgumentError

X = torch.rand(3, 1, 8, 8)


def test_the_digits_model_trains_end_to_end():
    model = models.create("adamnode", task="digits")
    labels = torch.tensor([0, 1, 2])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        loss = torch.nn.functional.cross_entropy(model(X), labels)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert model.last_stats.nfe > 6
    assert model.last_stats.nfe_backward > 5


def test_the_identity_has_the_same_encoder_and_head_and_solves_nothing():
    torch.manual_seed(3)
    whole = models.create("adamnode")
    torch.manual_seed(3)
    control = models.create("adamnode", block="identity")
    h = whole.encoder(X)
    torch.testing.assert_close(control(X), control.head(control.encoder(X)))
    assert [p.shape for p in control.encoder.parameters()] == [p.shape for p in whole.encoder.parameters()]
    assert [p.shape for p in control.head.parameters()] == [p.shape for p in whole.head.parameters()]
    assert control.block(h) is h
    assert control.last_stats.nfe == 0


def test_overrides_reach_the_block():
    model = models.create("adamnode", alpha=0.2, beta=0.3, hidden=5, t=(0.0, 0.5), rtol=1e-5, learnable=False)
    assert model.block.alpha.item() == pytest.approx(0.2)
    assert model.block.settings.t == (0.0, 0.5)
    assert model.block.settings.rtol == 1e-5
    assert model.block.field.layers[1].weight.shape == (5, 6, 3, 3)
    assert not model.block.dynamics.raw_alpha.requires_grad


def test_a_model_survives_deepcopy_pickle_and_state_dict():
    model = models.create("adamnode")
    expected = model(X)
    assert torch.equal(copy.deepcopy(model)(X), expected)
    assert torch.equal(pickle.loads(pickle.dumps(model))(X), expected)
    other = models.create("adamnode")
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(X), expected)


@pytest.mark.parametrize(
    ("arguments", "settings", "text"),
    [
        (("adamnod",), {}, "did you mean 'adamnode'"),
        (("adamnode", "digit"), {}, "did you mean 'digits'"),
        (("adamnode",), {"hiden": 3}, "did you mean 'hidden'"),
        (("adamnode",), {"block": "identiy"}, "did you mean 'identity'"),
        (("adamnode",), {"start": "zero"}, "did you mean 'zeros'"),
        (("node",), {"alpha": 0.3}, "'alpha' is not a setting of node on digits"),
        (("hbnode", "silverbox"), {"t": (0.0, 1.0)}, "'t' is not a setting"),
        (("adamnode",), {"start": "encoder"}, "must be even"),
        (("adamnode", "mnist"), {"channels": 6}, "must be even"),
        (("node", "cifar10"), {"channels": 2}, "too few for images of 3"),
        (("anode",), {"augment": 8}, "augment=8"),
        (("node",), {"hidden": 0}, "hidden=0"),
        (("node", "spiral"), {"channels": 1}, "2 features"),
        (("node", "spiral"), {"start": "encoder"}, "no encoder"),
        (("node",), {"match_parameters": 0}, "match_parameters=0"),
        (("node",), {"match_parameters": 9, "hidden": 3}, "leave one out"),
        (("adamnode",), {"denominator": "exakt"}, "did you mean 'exact'"),
    ],
)
def test_unknown_names_offer_the_nearest(arguments, settings, text):
    with pytest.raises(ArgumentError, match=text):
        models.create(*arguments, **settings)


MODELS, TASKS = models.names(), models.tasks()
INPUTS = {
    "digits": (1, 8, 8),
    "mnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
    "spiral": (2,),
    "circles": (2,),
}


def test_the_nine_models_have_settings_for_every_task():
    six = ("node", "anode", "sonode", "hbnode", "ghbnode", "adamnode")
    assert (*six, "nesterovnode", "gnesterovnode", "momentumnode") == MODELS
    densities = {"density", "density-8x8"}
    assert set(TASKS) == {*INPUTS, "silverbox", "silverbox-network", "robertson", *densities}
    assert models.tasks("hbnode") == TASKS
    assert set(models.tasks("anode")) == set(TASKS) - densities


@pytest.mark.parametrize("task", INPUTS)
@pytest.mark.parametrize("name", MODELS)
def test_every_model_of_a_task_gives_logits_and_every_parameter_learns(name, task):
    model = models.create(name, task=task)
    x = torch.rand(2, *INPUTS[task])
    logits = model(x)
    assert logits.shape == (2, 2 if len(INPUTS[task]) == 1 else 10)
    logits.square().sum().backward()
    learnt = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learnt)
    assert model.last_stats.nfe > 6
    control = models.create(name, task=task, block="identity")
    assert control(x).shape == logits.shape


# The authors' models have 85,235 … 86,179 and 171,635 … 173,611; HBNODE's training log on MNIST prints
# 85,930. NesterovNODE and GNesterovNODE have its width, without γ, and with ξ on MNIST.
AUTHORS = {
    "mnist": (85_316, 85_462, 86_179, 85_930, 85_235, 85_829, 85_929, 85_930, 85_931),
    "cifar10": (173_611, 172_452, 171_635, 172_916, 172_916, 173_069, 172_915, 172_915, 172_917),
}


@pytest.mark.parametrize("task", AUTHORS)
def test_parameters_are_the_authors(task):
    for name, count in zip(MODELS, AUTHORS[task], strict=True):
        assert models.parameters(name, task) == count, name


def test_adamnode_on_digits_is_the_model_that_it_was():
    assert models.parameters("adamnode", "digits") == 3_532


@pytest.mark.parametrize("task", ["digits", "spiral", "circles", "mnist", "cifar10"])
def test_registered_sizes_match_within_two_per_cent(task):
    for row in models.sizes(task):
        assert abs(row.difference) < 0.02 * row.target, row


def test_counting_draws_nothing_and_counts_what_learns():
    before = torch.get_rng_state()
    count = models.parameters("ghbnode", "cifar10")
    assert torch.equal(torch.get_rng_state(), before)
    model = models.create("ghbnode", "cifar10")  # its ξ is fixed
    assert count == sum(p.numel() for p in model.parameters()) - 1
    assert not model.block.dynamics.raw_xi.requires_grad
    assert model.block.xi.item() == pytest.approx(1.5)


@pytest.mark.parametrize(("name", "task"), [("node", "digits"), ("adamnode", "mnist"), ("anode", "spiral")])
def test_a_matched_width_is_the_nearest(name, task):
    target = 45_000
    width = models.matched(name, task, target)["hidden"]
    off = [abs(models.parameters(name, task, hidden=w) - target) for w in (width - 1, width, width + 1)]
    assert min(off) == off[1]
    model = models.create(name, task, match_parameters=target)
    assert sum(p.numel() for p in model.parameters()) == models.parameters(name, task, hidden=width)


def test_a_linear_field_is_matched_by_its_channels_and_a_wide_one_by_its_width():
    assert models.matched("hbnode", "silverbox", 100).keys() == {"channels"}
    assert models.matched("hbnode", "digits", 1, channels=8) == {"hidden": 1}
    assert models.matched("anode", "silverbox", 1)["channels"] == 2  # one of them is appended


@pytest.mark.parametrize("task", ["mnist", "cifar10", "digits", "circles"])
def test_where_the_head_alone_is_larger_a_match_takes_fewer_channels(task):
    """On CIFAR-10 the head on AdamNODE's 15 channels has 153,610 parameters."""
    for row in models.sizes(task, 45_000):
        assert abs(row.difference) < 0.05 * 45_000, row
        assert row.width["hidden"] >= 8
    x = torch.rand(2, *INPUTS[task])
    model = models.create("anode", task, match_parameters=45_000)
    assert model(x).shape == (2, 2 if task == "circles" else 10)


def test_the_authors_settings_are_the_paper_tasks_defaults():
    mnist, cifar = (models.create("adamnode", task) for task in ("mnist", "cifar10"))
    assert 1 - mnist.block.alpha.item() == pytest.approx(0.0066929, rel=1e-4)  # sigmoid(−5)
    assert 1 - mnist.block.beta.item() == pytest.approx(0.9933071, rel=1e-4)
    assert mnist.block.dynamics.denominator == "softplus"
    assert 1 - cifar.block.alpha.item() == pytest.approx(0.9525741, rel=1e-4)
    assert 1 - cifar.block.beta.item() == pytest.approx(0.9525741, rel=1e-4)
    assert cifar.block.dynamics.denominator == "sigmoid"
    assert (mnist.block.settings.rtol, cifar.block.settings.atol) == (1e-4, 1e-5)
    assert mnist.block.dynamics.eps == cifar.block.dynamics.eps == 1e-8


def test_ghbnode_has_the_authors_squash_and_restoring_force():
    expected = {
        "mnist": ("tanh", 2.1269, True),
        "cifar10": ("tanh", 1.5, False),
        "silverbox": ("hardtanh", 0.6931, False),
    }
    for task, (activation, xi, learnt) in expected.items():
        dynamics = models.create("ghbnode", task).block.dynamics
        assert dynamics.activation == activation
        assert dynamics.xi.item() == pytest.approx(xi, rel=1e-3)
        assert dynamics.raw_xi.requires_grad == learnt
        assert dynamics.gamma.item() == pytest.approx(0.0474, rel=1e-3)  # sigmoid(−3)


def test_node_starts_from_the_image_and_anode_pads_it_with_zeros():
    x = torch.rand(2, 3, 32, 32)
    for name in ("node", "anode"):
        model = models.create(name, "cifar10")
        assert model.start(x, model.encoder(x)).keys() == {"h0"}
        assert torch.equal(model.encoder(x), x)
    assert model.block(x).shape == (2, 13, 32, 32)


@pytest.mark.parametrize(("name", "other"), [("sonode", "v0"), ("hbnode", "m0"), ("gnesterovnode", "m0")])
def test_encoder_starts_cut_x_and_o_in_two(name, other):
    x = torch.rand(2, 3, 32, 32)
    model = models.create(name, "cifar10")
    o = model.encoder(x)
    start = model.start(x, o)
    assert torch.equal(start["h0"], torch.cat((x, o[:, :9]), 1))
    assert torch.equal(start[other], o[:, 9:])


@pytest.mark.parametrize("start", ["zeros", "learned", "encoder"])
@pytest.mark.parametrize("name", MODELS)
def test_every_start_fits_every_model(name, start):
    for encoder in ("pixel", "deep"):
        model = models.create(name, "digits", start=start, encoder=encoder, channels=5)
        assert model(X).shape == (3, 10)


def test_the_deep_encoder_is_three_convolutions_with_leaky_slopes():
    encoder, x = DeepConvEncoder(1, 4, 2), torch.randn(2, 1, 5, 5)
    first, second, last = encoder.layers

    def sigma(y):
        return torch.where(y > 0, y, 0.3 * y)

    torch.testing.assert_close(encoder(x), last(sigma(second(sigma(first(x))))))


def test_thirds_start_cuts_x_o_and_o_squared():
    x, o = torch.randn(2, 1, 3, 3), torch.randn(2, 7, 3, 3)
    found = ThirdsStart()(x, o)
    torch.testing.assert_close(found["h0"], torch.cat((x, o[:, :4]), 1))
    torch.testing.assert_close(found["m0"], torch.cat((o[:, 4:], o[:, :2] ** 2), 1))
    torch.testing.assert_close(found["v0"], o[:, 2:] ** 2)
    with pytest.raises(ArgumentError, match="multiple of 3"):
        ThirdsStart()(x, o[:, :6])


def test_learned_start_begins_with_m0_zero_and_v0_one_and_learns_both():
    o, start = torch.randn(2, 4, 3, 3), LearnedStart(4)
    found = start(X, o)
    assert torch.equal(found["h0"], o)
    assert torch.equal(found["m0"], torch.zeros_like(o))
    torch.testing.assert_close(found["v0"], torch.ones_like(o))
    (found["m0"].sum() + found["v0"].sum()).backward()
    assert start.m0.grad.abs().min() > 0
    assert start.raw_v0.grad.abs().min() > 0


def test_zero_start_leaves_the_other_blocks_to_the_solver():
    assert list(ZeroStart()(X, X)) == ["h0"]


def test_the_encoder_of_kernel_one_sees_single_pixels():
    encoder = ConvEncoder(1, 2)
    x = torch.zeros(1, 1, 8, 8)
    y = x.clone()
    y[0, 0, 4, 4] = 1
    changed = (encoder(y) != encoder(x)).any(1)[0]
    assert changed.nonzero().tolist() == [[4, 4]]


def test_the_head_sees_averages_over_cells_only():
    head, h = PoolHead(2, 10, cells=2), torch.randn(3, 2, 8, 8)
    rolled = torch.cat((h[..., :4].flip(-1), h[..., 4:].flip(-1)), -1)
    torch.testing.assert_close(head(rolled), head(h), rtol=1e-5, atol=1e-6)
    with pytest.raises(ArgumentError, match="cells"):
        PoolHead(2, 10, cells=0)
