import dataclasses
import math

import pytest

from adamode import AdamodeError, ArgumentError, ArgumentTypeError, TrainConfig


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
