"""`save(folder)` and `adamode.load(folder)`: the same model again, from JSON and safetensors alone."""

import json
import pickle

import pytest
import torch
from torch import nn

import adamode
from adamode import ArgumentError
from adamode.models import card, create, names, tasks
from adamode.models.block import IdentityBlock
from adamode.models.fields import MLP, AutogradField, Conv, Driven, Linear, Relaxing, Total
from adamode.solvers.errors import CheckpointError

BLOCKS = ("NODE", "ANODE", "SONODE", "HBNODE", "GHBNODE", "AdamNODE")


class Own(nn.Module):
    """A field of a user's own, for a state of n features."""

    def __init__(self, n_in=3, n_out=3):
        super().__init__()
        self.layer = nn.Linear(n_in, n_out)

    def forward(self, t, h):
        return torch.tanh(self.layer(h)) * torch.cos(t)


def block(name, field=None, **settings):
    cls, double = getattr(adamode, name), 2 if name == "SONODE" else 1
    more = {"augment": 1} if name == "ANODE" else {}
    width = 3 + more.get("augment", 0)
    inner = MLP(double * width, (5,), out_dim=width) if field is None else field(double * width, width)
    return cls(inner, **more, **settings)


def inputs(task):
    if task in ("digits", "mnist", "cifar10"):
        size, channels = {"digits": (8, 1), "mnist": (28, 1), "cifar10": (32, 3)}[task]
        return torch.rand(2, channels, size, size)
    if task.startswith("silverbox"):
        x = torch.zeros(2, 12, 3)
        x[:, :, 0], x[:, :8, 1], x[:, :8, 2] = torch.randn(2, 12), torch.randn(2, 8), 1
        return x
    if task == "robertson":
        x = torch.zeros(2, 4, 4)
        x[:, :, 0], x[:, 0, 1] = torch.tensor([0.0, 1e-5, 1e-4, 1e-3]), 1
        return x
    return torch.randn(2, 1, 8, 8) if task == "density-8x8" else torch.randn(2, 2)


def same(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("name", "task"), [(n, task) for n in names() for task in tasks(n) if task not in ("mnist", "cifar10")]
)
def test_every_model_of_every_task_comes_back_with_its_numbers_settings_and_answers(name, task, tmp_path):
    model = create(name, task)
    model.save(tmp_path / "m")
    state = torch.get_rng_state()
    again = adamode.load(tmp_path / "m")
    assert torch.equal(torch.get_rng_state(), state)
    assert list(again.state_dict()) == list(model.state_dict())
    assert same(model, again)
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in again.parameters()]
    assert again.block.settings == model.block.settings
    assert str(again) == str(model)
    x = inputs(task)
    seed = torch.get_rng_state()  # a density draws momenta
    with torch.no_grad():
        first = model(x)
        torch.set_rng_state(seed)
        assert torch.equal(again(x), first)


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("field", [None, Own])
def test_a_block_comes_back_also_with_a_field_of_ones_own(name, field, tmp_path):
    made = block(name, field, rtol=1e-6, method="tsit5", t=(0.0, 2.0), gradient=adamode.Backsolve(anchors=3))
    made.double()
    made.save(tmp_path)
    width = 4 if name == "ANODE" else 3
    own = {} if field is None else {"field": Own(6 if name == "SONODE" else width, width)}
    again = adamode.load(tmp_path, **own)
    assert type(again) is type(made)
    assert again.settings == made.settings
    assert {p.dtype for p in again.parameters()} == {torch.float64}
    h0 = torch.rand(4, 3, dtype=torch.float64)
    one, two = made(h0), again(h0)
    assert torch.equal(one, two)


def test_frozen_numbers_stay_frozen_and_settings_of_a_dynamics_are_kept(tmp_path):
    made = adamode.AdamNODE(MLP(3), alpha=0.3, eps=1e-2, denominator="sigmoid", learnable=False)
    made.save(tmp_path / "a")
    again = adamode.load(tmp_path / "a")
    assert (again.dynamics.denominator, again.dynamics.eps) == ("sigmoid", 1e-2)
    assert not again.dynamics.raw_alpha.requires_grad
    assert again.alpha.item() == pytest.approx(0.3, rel=1e-6)
    adamode.GHBNODE(MLP(3), activation="hardtanh").save(tmp_path / "g")
    assert adamode.load(tmp_path / "g").dynamics.activation == "hardtanh"


def test_a_model_without_its_restoring_force_comes_back_without(tmp_path):
    made = adamode.GNesterovNODE(MLP(3), xi=None)
    made.save(tmp_path)
    h0 = torch.rand(2, 3)
    assert torch.equal(adamode.load(tmp_path)(h0), made(h0))


@pytest.mark.parametrize(
    "field",
    [
        lambda: Linear(3),
        lambda: Total(Linear(3), MLP(3, (4,), activation="relu", time=False)),
        lambda: Relaxing(MLP(3, (4,)), (1.0, 2.0, 3.0)),
        lambda: AutogradField(Linear(3)),
    ],
)
def test_every_field_of_the_library_comes_back(field, tmp_path):
    made = adamode.NODE(field())
    made.save(tmp_path)
    h0 = torch.rand(2, 3)
    assert torch.equal(adamode.load(tmp_path)(h0), made(h0))


def test_a_driven_field_and_one_of_images_come_back(tmp_path):
    adamode.NODE(Driven(Linear(5, out_dim=3), inputs=2)).save(tmp_path / "d")
    assert adamode.load(tmp_path / "d").field.inputs == 2
    made = adamode.SONODE(Conv(4, 6, out_channels=2))
    made.save(tmp_path / "c")
    h0 = torch.rand(2, 2, 5, 5)
    assert torch.equal(adamode.load(tmp_path / "c")(h0), made(h0))


def test_a_control_without_its_block_comes_back(tmp_path):
    create("anode", "digits", block="identity").save(tmp_path)
    assert isinstance(adamode.load(tmp_path).block, IdentityBlock)


def test_the_folder_holds_json_safetensors_and_a_page_and_the_card_says_what_is_known(tmp_path):
    made = create("node", "circles")
    made(torch.rand(3, 2)).sum().backward()
    made.save(tmp_path, {"seed": 3, "data": {"name": "circles", "sha256": "ab"}})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    told = card(tmp_path)
    assert (told["seed"], told["data"]["name"]) == (3, "circles")
    assert told["parameters"] == sum(p.numel() for p in made.parameters())
    assert told["last_solve"]["nfe"] == made.last_stats.nfe
    assert told["torch"] == torch.__version__
    assert '"circles"' in (tmp_path / "README.md").read_text()


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("something was unpickled")

    create("adamnode", "circles").save(tmp_path)
    for place in ("pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load"):
        monkeypatch.setattr(place, refuse)
    adamode.load(tmp_path)


def test_a_part_of_ones_own_is_asked_for_and_a_wrong_one_refused(tmp_path):
    adamode.NODE(Own()).save(tmp_path)
    with pytest.raises(ArgumentError, match=r"field: .* a part of your own there, test_saved_models.Own"):
        adamode.load(tmp_path)
    with pytest.raises(ArgumentError, match="field=3 cannot be called"):
        adamode.load(tmp_path, field=3)
    with pytest.raises(CheckpointError, match="do not fit the model"):
        adamode.load(tmp_path, field=Own(4, 4))
    with pytest.raises(ArgumentError, match=r"head=….*takes no such part"):
        adamode.load(tmp_path, field=Own(), head=Own())


def described(folder):
    return json.loads((folder / "config.json").read_text())


def change(content, folder):
    (folder / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "holds no saved model"),
        (lambda f: (f / "config.json").write_text("{"), "holds no saved model"),
        (lambda f: (f / "config.json").write_text("[]"), "was not written by save"),
        (lambda f: (f / "config.json").write_text("[" * 100_000), "holds no saved model"),
        (lambda f: change({**described(f), "frozen": 3}, f), "frozen=3 must be a list of names"),
        (lambda f: change({**described(f), "frozen": [[1]]}, f), "must be a list of names"),
        (lambda f: (f / "model.safetensors").unlink(), "cannot be read"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 100), "another SHA-256"),
    ],
)
def test_a_damaged_folder_is_refused(damage, message, tmp_path):
    create("node", "circles").save(tmp_path)
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        adamode.load(tmp_path)


@pytest.mark.parametrize(
    "told",
    [
        {"class": "system", "arguments": {}},
        {"class": "os.system", "arguments": {"command": "true"}},
        {"class": "NODE", "arguments": {"field": 3}},
        {"class": "NODE", "arguments": {"nothing": 3}},
        {"class": "MLP", "arguments": {"dim": -1}},
        {"class": "FlatHead", "arguments": {"features": -1, "classes": 2}},
        {"class": "torch.nn.Linear", "arguments": {"in_features": 10**9, "out_features": 10**9}},
        {"class": "NODE"},
        3,
        {},
    ],
)
def test_a_description_that_makes_no_model_is_refused_and_only_our_classes_are_made(told, tmp_path):
    create("node", "circles").save(tmp_path)
    change({**described(tmp_path), "module": told}, tmp_path)
    with pytest.raises(CheckpointError):
        adamode.load(tmp_path)


def test_other_files_are_not_written_over_but_a_model_is(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ArgumentError, match="no saved model; choose another folder"):
        create("node", "circles").save(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
    made = create("node", "circles")
    create("hbnode", "circles").save(tmp_path / "m")
    made.save(tmp_path / "m")
    assert same(made, adamode.load(tmp_path / "m"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="is a file"):
        made.save(tmp_path / "file")


def test_what_cannot_be_kept_is_refused(tmp_path):
    grouped = adamode.NODE(MLP(3), stepping=torch.tensor([0, 1]))
    with pytest.raises(ArgumentError, match="groups of samples"):
        grouped.save(tmp_path)
    with pytest.raises(ArgumentError, match="cannot be written as JSON"):
        create("node", "circles").save(tmp_path, {"x": object()})
    assert list(tmp_path.iterdir()) == []


def test_a_loaded_model_can_be_pickled_and_trained_as_the_first(tmp_path):
    made = create("adamnode", "circles")
    made.save(tmp_path)
    again = adamode.load(tmp_path)
    assert same(pickle.loads(pickle.dumps(again)), made)
    x = torch.rand(4, 2)
    for model in (made, again):
        model(x).square().sum().backward()
    for p, q in zip(made.parameters(), again.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)
