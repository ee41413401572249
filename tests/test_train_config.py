import copy
import dataclasses
import json
import math
import pickle

import pytest

from adamode import AdamodeError, ArgumentError, ArgumentTypeError, TrainConfig
from adamode.models import registry
from adamode.train.build import build_model


def test_values_not_given_come_from_the_data_sets_recipe():
    config = TrainConfig()
    assert None not in config.to_dict().values()
    assert config.name == "adamnode-digits"
    assert TrainConfig(block="identity").name == "adamnode-digits-identity"


def test_a_configuration_survives_toml(tmp_path):
    config = TrainConfig(lr=1e-5, seed=7, name="läuft-1", output_dir='a "b" \\ c', epochs=3)
    config.to_toml(tmp_path / "run.toml")
    assert TrainConfig.from_toml(tmp_path / "run.toml") == config


def test_arguments_win_over_the_toml_file(tmp_path):
    TrainConfig(epochs=3, seed=5).to_toml(tmp_path / "run.toml")
    config = TrainConfig.from_toml(tmp_path / "run.toml", seed=6)
    assert (config.epochs, config.seed) == (3, 6)


@pytest.mark.parametrize("text", ["epochs = ", "epohcs = 3", "epochs = 'three'", b"\xff\xfe"])
def test_a_bad_toml_file_is_refused(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(AdamodeError, match=r"epochs|cannot be read"):
        TrainConfig.from_toml(path)


def test_a_missing_toml_file_is_named(tmp_path):
    with pytest.raises(ArgumentError, match=r"nowhere\.toml"):
        TrainConfig.from_toml(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("batch_size", -4),
        ("threads", 0),
        ("checkpoint_every", 0),
        ("seed", -1),
        ("seed", 2**32),
        ("lr", 0.0),
        ("lr", math.nan),
        ("clip", 0.0),
        ("rtol", 0.0),
        ("rtol", -1e-3),
        ("rtol", math.nan),
        ("rtol", math.inf),
        ("atol", math.nan),
        ("name", "../elsewhere"),
        ("name", ".."),
        ("name", "a/b"),
        ("name", " "),
        ("output_dir", ""),
        ("model", ""),
    ],
)
def test_a_value_that_means_nothing_is_refused_by_name_and_value(name, value):
    with pytest.raises(ArgumentError) as refusal:
        TrainConfig(**{name: value})
    assert f"{name}={value!r}" in str(refusal.value) or f"{name}={value}" in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 2.0), ("epochs", True), ("batch_size", "64"), ("lr", "fast"), ("rtol", True), ("seed", 1.5)],
)
def test_a_value_of_another_type_is_refused_by_name_and_value(name, value):
    with pytest.raises(ArgumentTypeError, match=f"{name}={value!r}"):
        TrainConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "near"),
    [
        ("dataset", "digit", "digits"),
        ("method", "dopri55", "dopri5"),
        ("gradient", "discret", "discrete"),
        ("denominator", "exakt", "exact"),
        ("stepping", "share", "shared"),
        ("block", "identty", "identity"),
        ("schedule", "cosin", "cosine"),
    ],
)
def test_a_mistyped_name_gets_the_nearest_one(name, value, near):
    with pytest.raises(ArgumentError, match=f"{name}='{value}'.*did you mean '{near}'"):
        TrainConfig(**{name: value})


def test_an_unknown_setting_gets_the_nearest_one():
    with pytest.raises(ArgumentError, match=r"'batchsize'.*did you mean 'batch_size'"):
        TrainConfig.from_dict({"batchsize": 3})


def test_differences_list_what_decides_the_numbers_only():
    config = TrainConfig()
    other = dataclasses.replace(config, lr=0.5, name="b", output_dir="elsewhere", threads=2)
    assert config.differences(other) == {"lr": (config.lr, 0.5)}
    assert config.differences(dataclasses.replace(config)) == {}


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().epochs = 3


GIVEN = {"lr": 0.5, "epochs": 20, "hidden": 4}  # digits have 20 epochs of their own


@pytest.mark.parametrize("model", registry.names())
@pytest.mark.parametrize("given", [{}, GIVEN], ids=["defaults", "given"])
def test_a_replaced_model_has_its_own_defaults_and_what_was_given_stays(model, given):
    replaced = dataclasses.replace(TrainConfig(**given), model=model)
    assert replaced == TrainConfig(model=model, **given)
    assert dataclasses.replace(replaced, model="adamnode") == TrainConfig(model="adamnode", **given)


@pytest.mark.parametrize("dataset", ["mnist", "silverbox", "robertson", "moons"])
def test_a_replaced_data_set_has_its_own_recipe(dataset):
    given = {key: GIVEN[key] for key in ("lr", "epochs")}
    replaced = dataclasses.replace(TrainConfig(**given), dataset=dataset)
    assert replaced == TrainConfig(dataset=dataset, **given)
    assert replaced.epochs == 20


def test_a_value_that_equals_a_default_is_kept_where_it_was_given():
    plain = TrainConfig()
    assert dataclasses.replace(plain, dataset="mnist").epochs == 10
    assert dataclasses.replace(plain, dataset="mnist", epochs=20).epochs == 20
    assert dataclasses.replace(TrainConfig(epochs=20), dataset="mnist").epochs == 20


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_a_copy_knows_what_was_given(copied):
    config = copied(TrainConfig(lr=0.5))
    assert config == TrainConfig(lr=0.5)
    assert dataclasses.replace(config, model="node") == TrainConfig(model="node", lr=0.5)


def test_no_file_knows_of_filled_values():
    plain = TrainConfig()
    assert {type(value) for value in plain.to_dict().values()} == {int, float, str, bool}
    for name in ("lr", "batch_size", "schedule"):
        value = getattr(plain, name)
        copied = pickle.loads(pickle.dumps(value))
        assert (type(copied), copied) == (type(plain.to_dict()[name]), value)
    assert TrainConfig.from_dict(json.loads(json.dumps(plain.to_dict()))) == plain


@pytest.mark.parametrize("given", [{}, {"model": "node", "lr": 0.5}, {"dataset": "silverbox", "seed": 3}])
def test_the_repr_is_what_was_given_and_makes_an_equal_object(given):
    config = TrainConfig(**given)
    assert eval(repr(config)) == config
    assert repr(config) == f"TrainConfig({', '.join(f'{k}={v!r}' for k, v in given.items())})"


# Numbers of the models with momentum


def test_momentums_numbers_reach_the_model():
    made = build_model(TrainConfig(model="momentumnode", damping="nesterov", shift=0.5))
    assert (made.block.dynamics.damping, made.block.dynamics.shift) == ("nesterov", 0.5)
    for model in ("ghbnode", "gnesterovnode"):
        assert build_model(TrainConfig(model=model, xi=0.7)).block.xi.item() == pytest.approx(0.7)
    assert build_model(TrainConfig(model="nesterovnode", shift=-0.25)).block.dynamics.shift == -0.25


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": "node", "xi": 1.0}, "node on digits has no xi"),
        ({"model": "hbnode", "shift": 1.0}, "hbnode on digits has no shift"),
        ({"damping": "nesterov"}, "adamnode on digits has no damping"),
        ({"model": "momentumnode", "damping": "nestrov"}, "did you mean 'nesterov'"),
        ({"model": "momentumnode", "damping": "nesterov", "gamma": 0.1}, "no gamma"),
        ({"model": "nesterovnode", "shift": float("inf")}, "shift=inf must be finite"),
        ({"model": "ghbnode", "xi": -1.0}, "xi=-1.0 must be finite and above 0"),
    ],
)
def test_numbers_that_a_model_has_not_are_refused(settings, words):
    with pytest.raises(ArgumentError, match=words):
        TrainConfig(**settings)


def test_settings_of_a_run_from_before_are_those_of_then():
    old = TrainConfig(model="momentumnode").to_dict()
    for name in ("xi", "damping", "shift"):
        del old[name]
    assert TrainConfig.from_dict(old) == TrainConfig(model="momentumnode")
