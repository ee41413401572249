"""One's own data: a folder of pictures, an .npz, a recording, or sets made in Python."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset

from adamode import ArgumentError, ArgumentTypeError, TrainConfig
from adamode.solvers.errors import DataError, MissingDataError
from adamode.train.data import DataOptions, DataSet, load_data
from adamode.train.data.own import load_own, look
from adamode.train.data.own.given import as_data_set
from adamode.train.data.raw import Scaling
from adamode.train.own_settings import kind_of


def own(path, **options):
    return load_own(DataOptions(path=str(path), **options))


def pictures(folder, classes=("cats", "dogs"), count=10, size=(6, 6), mode="RGB", parts=("",)):
    rng = np.random.default_rng(0)
    for part in parts:
        for k, name in enumerate(classes):
            place = folder / part / name
            place.mkdir(parents=True)
            for i in range(count):
                a = rng.integers(0, 60, (size[1], size[0], 3), dtype=np.uint8) + 100 * k
                Image.fromarray(a.astype(np.uint8)).convert(mode).save(place / f"{i}.png")
    return folder


def rows(data):
    return [len(part) for part in (data.train, data.val, data.test)]


def recording(path, n=400, names="u,y", more=()):
    rng = np.random.default_rng(0)
    u, y = rng.standard_normal(n), np.zeros(n)
    for i in range(1, n):
        y[i] = 0.9 * y[i - 1] + 0.5 * u[i - 1] + 3
    columns = [u, y, *more]
    lines = [names, *(",".join(str(c[i]) for c in columns) for i in range(n))]
    path.write_text("\n".join(lines) + "\n")
    return path


# A folder


def test_pictures_by_class_become_images_in_three_parts_with_a_card(tmp_path):
    data = own(pictures(tmp_path / "pets", count=10))
    assert rows(data) == [14, 2, 4]
    assert (data.task, data.classes, data.card.labels) == ("classification", 2, ("cats", "dogs"))
    assert data.card.shape == (3, 6, 6)
    assert "cats, dogs" in str(data.card)
    assert "by seed 0" in str(data.card)
    x, y = data.train.__getitems__(list(range(14)))
    assert torch.bincount(y).tolist() == [7, 7]
    assert x.mean(dim=(0, 2, 3)).abs().max() < 1e-5
    whole = sorted(int(v) for part in (data.train, data.val, data.test) for v in part.images.sum((1, 2, 3)))
    everything = [np.asarray(Image.open(p)).sum() for p in tmp_path.rglob("*.png")]
    assert whole == sorted(int(v) for v in everything)  # each in exactly one part


def test_the_split_follows_a_seed_or_the_folders(tmp_path):
    folder = pictures(tmp_path / "a", count=10)
    first, again, other = own(folder), own(folder, split="0"), own(folder, split="1")
    assert torch.equal(first.test.images, again.test.images)
    assert not torch.equal(first.test.images, other.test.images)
    assert first.card.sha256 == other.card.sha256
    parted = own(pictures(tmp_path / "b", count=4, parts=("train", "val", "test")))
    assert rows(parted) == [8, 8, 8]
    assert "parts by 'folders'" in parted.card.note


def test_grey_pictures_have_one_channel_and_others_are_squeezed(tmp_path):
    assert own(pictures(tmp_path / "grey", mode="L")).card.shape == (1, 6, 6)
    folder = pictures(tmp_path / "wide", size=(8, 6))
    with pytest.raises(DataError, match=r"0\.png' has 8×6 pixels, and is no square.*--image-size"):
        own(folder)
    assert own(folder, image_size=4).card.shape == (3, 4, 4)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "dogs" / "3.png").write_bytes(b"x"), r"3\.png' cannot be read as a picture"),
        (lambda f: (f / "dogs" / "3.png").write_bytes((f / "dogs" / "3.png").read_bytes()[:60]), r"3\.png'"),
        (lambda f: (f / "owls").mkdir(), "owls' holds no pictures"),
        (lambda f: [p.unlink() for p in list((f / "dogs").iterdir())[2:]], "class 'dogs' has 2 samples"),
    ],
)
def test_a_folder_that_is_not_what_it_should_be_is_refused_by_path(tmp_path, spoil, message):
    folder = pictures(tmp_path / "pets", count=4)
    spoil(folder)
    with pytest.raises(DataError, match=message):
        own(folder)


def test_classes_may_be_called_by_numbers(tmp_path):
    for classes in (("0", "1"), ("0", "1", "2")):
        data = own(pictures(tmp_path / str(len(classes)), classes=classes, count=4))
        assert data.card.labels == classes


@pytest.mark.parametrize(("ending", "kind"), [("png", "<u2"), ("tif", "<u2"), ("tif", ">u2")])
def test_pictures_of_16_bits_keep_their_greys(tmp_path, ending, kind):
    values = np.arange(36, dtype=np.uint8).reshape(6, 6) * 7
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.fromarray((values.astype(np.uint16) * 257).astype(kind)).save(
                tmp_path / name / f"{i}.{ending}"
            )
    images = own(tmp_path).train.images
    assert images.shape[1:] == (1, 6, 6)
    assert torch.equal(images[0, 0], torch.from_numpy(values))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pictures_whose_white_is_not_known_are_refused(tmp_path, dtype):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.fromarray(np.ones((6, 6), dtype)).save(tmp_path / name / f"{i}.tif")
    with pytest.raises(DataError, match="whose white is not known"):
        own(tmp_path)


def test_one_class_or_parts_that_lack_are_refused(tmp_path):
    with pytest.raises(DataError, match="pictures of 1 classes"):
        own(pictures(tmp_path / "one", classes=("cats",)))
    with pytest.raises(DataError, match="none for test"):
        own(pictures(tmp_path / "two", parts=("train", "val")))
    with pytest.raises(MissingDataError, match="does not exist"):
        own(tmp_path / "nowhere")
    with pytest.raises(DataError, match="has no columns"):
        own(pictures(tmp_path / "three"), split="part")


# Arrays


def arrays(path, **named):
    np.savez(path, **named)
    return path


X = np.random.default_rng(0).standard_normal((40, 3))
Y = (X[:, 0] > 0).astype(int)


@pytest.mark.parametrize(
    ("x", "y", "kind", "sizes"),
    [
        (X, Y, "own-points", {"features": 3, "classes": 2}),
        (X[:, 0], Y, "own-points", {"features": 1, "classes": 2}),
        (X, Y.astype(str), "own-points", {"features": 3, "classes": 2}),
        (X, X[:, :2], "own-points", {"features": 3, "classes": 2}),
        (X, X[:, 0], "own-points", {"features": 3, "classes": 1}),
        (np.ones((40, 5, 5), np.uint8), Y, "own-images", {"image_channels": 1, "size": 5, "classes": 2}),
        (np.ones((40, 5, 5, 3), np.uint8), Y, "own-images", {"image_channels": 3, "size": 5, "classes": 2}),
        (np.ones((40, 4, 5, 5)), X[:, 0], "own-images", {"image_channels": 4, "size": 5, "classes": 1}),
        (np.ones((40, 30, 2)), np.ones((40, 30, 1)), "own-recording", {"inputs": 2, "outputs": 1}),
        (np.ones((40, 30, 2)), np.ones((40, 30)), "own-recording", {"inputs": 2, "outputs": 1}),
        (np.ones((40, 30, 2)), Y, "own-arrays", {}),
        (np.ones((40, 2, 3, 5)), Y, "own-arrays", {}),
    ],
)
def test_dtypes_and_shapes_say_what_arrays_are(tmp_path, x, y, kind, sizes):
    path = arrays(tmp_path / "a.npz", x=x, y=y)
    assert look(DataOptions(path=str(path))) == (kind, sizes)
    data = own(path)
    assert data.name == kind
    assert sum(rows(data)) >= 40
    config = TrainConfig(model="node" if sizes else "own_code:sums", data=str(path))
    assert (config.dataset, config.data_sizes) == (kind, sizes)


def test_points_are_scaled_by_the_training_part_and_labels_are_counted_from_0(tmp_path):
    data = own(arrays(tmp_path / "a.npz", x=5 + 3 * X, y=Y * 4 + 3))
    x, y = data.train.__getitems__(list(range(len(data.train))))
    assert torch.allclose(x.mean(0), torch.zeros(3), atol=1e-6)
    assert torch.allclose(x.std(0, correction=0), torch.ones(3), atol=1e-6)
    assert (data.card.labels, y.unique().tolist()) == (("3", "7"), [0, 1])
    assert data.val.inputs.mean().abs() > 1e-3  # decides nothing
    values = own(arrays(tmp_path / "v.npz", x=X, y=2 + 4 * X[:, 0]))
    assert values.per_unit == pytest.approx((2 + 4 * X[:, 0])[sorted_rows(values)].std(), rel=1e-6)
    unit = own(tmp_path / "v.npz", normalise="unit")
    assert (unit.train.inputs.min(), unit.train.inputs.max()) == (0, 1)


def sorted_rows(data):
    """The rows of X that are the training part."""
    x = data.raw.x.undo(data.train.inputs.numpy())
    return [int(np.abs(X - row).sum(1).argmin()) for row in x]


@pytest.mark.parametrize(
    ("column", "split"), [("split", None), ("fold", "fold")], ids=["by its name", "asked for"]
)
def test_an_array_says_the_parts(tmp_path, column, split):
    parts = np.asarray(["train"] * 20 + ["val"] * 5 + ["Test"] * 15)
    data = own(arrays(tmp_path / "a.npz", x=X, y=Y, **{column: parts}), split=split)
    assert rows(data) == [20, 5, 15]
    assert np.allclose(data.raw.x.undo(data.test.inputs.numpy()), X[25:], atol=1e-5)
    numbers = own(arrays(tmp_path / "n.npz", x=X, y=Y, split=np.repeat([0, 1, 2], [20, 5, 15])))
    assert rows(numbers) == [20, 5, 15]


def test_files_with_parts_of_their_own_keep_their_test(tmp_path):
    kept = {"x_train": X[:30], "y_train": Y[:30], "x_test": X[30:], "y_test": Y[30:]}
    data = own(arrays(tmp_path / "a.npz", **kept))
    assert rows(data) == [27, 3, 10]
    more = {**kept, "x_val": X[:4], "y_val": Y[:4]}
    assert rows(own(arrays(tmp_path / "b.npz", **more))) == [30, 4, 10]


WITH_NAN = np.where(np.arange(120).reshape(40, 3) == 52, np.nan, X)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"x": X}, "has x; x and y are needed"),
        ({"x": X, "y": Y[:-1]}, "both need one row a sample"),
        ({"x": WITH_NAN, "y": Y}, "entry x: row 17, column 1 is nan"),
        ({"x": X, "y": np.where(Y, np.inf, 0.0)}, "entry y: row"),
        ({"x": X.astype(complex), "y": Y}, "real numbers"),
        ({"x": X, "y": np.arange(40)}, "40 classes in 40 samples: values to be predicted must be floats"),
        ({"x": X, "y": np.zeros(40, int)}, "one class, 0"),
        ({"x": X, "y": np.stack([Y, Y], 1)}, "labels must be"),
        ({"x": X, "y": Y, "split": np.full(40, "train")}, "no sample 'val'"),
        ({"x": X, "y": Y, "split": np.full(40, "tain")}, "row 1 is 'tain'"),
        ({"x": X, "y": Y, "split": np.full(40, "")}, "row 1 is ''; it must be train"),
        ({"x": X, "y": Y, "split": np.zeros(3)}, r"split has shape \(3,\); one value for each"),
        ({"x": X, "y": Y, "split": np.arange(80).reshape(40, 2) % 3}, r"split has shape \(40, 2\)"),
        ({"x": X, "y": X[:, :0]}, r"entry y has shape \(40, 0\)"),
        ({"x_train": X[:1], "y_train": X[:1, 0], "x_test": X, "y_test": X[:, 0]}, "x_train has one sample"),
        ({"x": np.asarray([{}] * 40), "y": Y}, "Python objects"),
    ],
)
def test_arrays_that_are_not_what_they_should_be_are_refused_by_entry_and_row(tmp_path, named, message):
    with pytest.raises(DataError, match=message):
        own(arrays(tmp_path / "a.npz", **named))


def test_a_damaged_archive_and_unknown_columns_are_refused(tmp_path):
    path = arrays(tmp_path / "a.npz", x=X, y=Y)
    with pytest.raises(DataError, match="has no 'fold'"):
        own(path, split="fold")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"a\.npz' cannot be read"):
        own(path)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DataError, match=r"the ending '\.txt' is not known"):
        own(tmp_path / "a.txt")
    (tmp_path / "a").write_text("")
    with pytest.raises(DataError, match="the file has no ending; give a folder"):
        own(tmp_path / "a")
    with pytest.raises(ArgumentError, match="window=4 is not an option"):
        own(arrays(tmp_path / "b.npz", x=X, y=Y), window=4)


# Recordings


def test_a_recording_is_cut_in_time_and_scaled_as_the_silverbox_is(tmp_path):
    data = own(recording(tmp_path / "r.csv"), window=20)
    assert (data.given, data.card.shape) == (8, (28, 3))
    x, y = data.train.__getitems__([0])
    assert (x.shape, y.shape) == ((1, 28, 3), (1, 20, 1))
    assert data.test.inputs.shape == (1, 80, 3)
    assert "70 % training" in data.card.note
    u = data.raw.x.undo(data.test.inputs[0, :, :1].double().numpy())
    truth = np.loadtxt(tmp_path / "r.csv", delimiter=",", skiprows=1)[320:, :1]
    assert np.allclose(u, truth, atol=1e-5)
    measured = data.raw.y.undo(data.test.targets[0].double().numpy())
    assert np.allclose(
        measured, np.loadtxt(tmp_path / "r.csv", delimiter=",", skiprows=1)[328:, 1:], atol=1e-4
    )


def test_columns_can_be_named_and_be_several_and_a_clock_gives_the_step(tmp_path):
    t = 0.5 * np.arange(400)
    path = recording(tmp_path / "r.csv", names="V1,V2,time", more=(t,))
    with pytest.raises(ArgumentError, match="say with --inputs and --outputs"):
        own(path)
    data = own(path, inputs="V1", outputs="V2")
    assert data.dt == 0.5
    both = recording(tmp_path / "b.csv", names="u1,y1,u2,y2", more=(t, t**2))
    data = own(both)
    assert (data.raw.inputs, data.raw.outputs) == (("u1", "u2"), ("y1", "y2"))
    assert data.card.shape[1] == 5
    assert look(DataOptions(path=str(both)))[1] == {"inputs": 2, "outputs": 2}


def test_a_seed_or_a_column_chooses_the_stretches_of_a_recording(tmp_path):
    path = recording(tmp_path / "r.csv")
    chosen = own(path, split="3")
    assert chosen.test.inputs.shape == (2, 40, 3)
    assert "by seed 3" in chosen.card.note
    parts = ["train"] * 200 + ["val"] * 100 + ["test"] * 100
    named = own(recording(tmp_path / "c.csv", names="u,y,split", more=(parts,)))
    assert named.test.inputs.shape == (1, 100, 3)


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (7, "1,", "row 6 .line 7., column 'y' is ''"),
        (7, "1,x", "row 6 .line 7., column 'y' is 'x'"),
        (7, "nan,1", "row 6 .line 7., column 'u' is nan"),
        (7, "1", "column 'y' is missing"),
    ],
)
def test_a_damaged_recording_is_refused_by_row_and_column(tmp_path, line, text, message):
    path = recording(tmp_path / "r.csv")
    lines = path.read_text().splitlines()
    lines[line - 1] = text
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=message):
        own(path)


def test_a_recording_of_two_columns_of_one_name_or_in_another_form_is_refused(tmp_path):
    twice = recording(tmp_path / "r.csv", names="u,y,y", more=(np.zeros(400),))
    with pytest.raises(DataError, match="line 1: 2 columns are called 'y'"):
        own(twice)
    with pytest.raises(DataError, match="2 columns are called 'y'"):
        own(twice, inputs="u", outputs="y")
    text = recording(tmp_path / "s.csv").read_text()
    (tmp_path / "s.csv").write_text(text.replace(",", ";"))
    with pytest.raises(ArgumentError, match="Columns are separated by commas"):
        own(tmp_path / "s.csv")
    (tmp_path / "s.csv").write_bytes(text.encode("utf-16"))
    with pytest.raises(DataError, match="is no UTF-8 text: byte 0 is 0xff"):
        own(tmp_path / "s.csv")
    (tmp_path / "s.csv").write_text("\n" + text)
    with pytest.raises(DataError, match="or its first line is"):
        own(tmp_path / "s.csv")
    scipy = pytest.importorskip("scipy.io")
    scipy.savemat(tmp_path / "m.mat", {"u": X[:, 0], "y": X[:, 1]})
    with pytest.raises(ArgumentError, match="'u' is an input and an output"):
        own(tmp_path / "m.mat", inputs="u", outputs="u")


def test_an_uneven_clock_and_a_short_recording_are_refused(tmp_path):
    t = np.arange(400.0)
    t[100] += 0.4
    with pytest.raises(DataError, match=r"row 101 \(line 102\), column 't' is 100\.4"):
        own(recording(tmp_path / "r.csv", names="u,y,t", more=(t,)))
    with pytest.raises(DataError, match="at least 10"):
        own(recording(tmp_path / "s.csv", n=5))
    with pytest.raises(ArgumentError, match="given=90: a stretch of the test has 80 rows"):
        own(recording(tmp_path / "l.csv"), given=90)


def test_scalings_are_undone(tmp_path):
    values = np.stack([X[:, 0], np.full(40, 0.1)], axis=1)
    for kind in ("standard", "unit"):
        scaling = Scaling.of(values, kind)
        assert np.allclose(scaling.undo(scaling.apply(values)), values, rtol=1e-14)
        assert np.abs(scaling.apply(values)[:, 1]).max() < 1e-15  # what does not vary is not blown up


@pytest.mark.parametrize("kind", ["standard", "unit"])
def test_numbers_of_any_size_are_scaled_alike(kind):
    expected = Scaling.of(X, kind).apply(X)
    for power in (-600, -60, 60, 600):  # the squares of 2^±600 are no float64 any more
        values = X * 2.0**power
        assert np.array_equal(Scaling.of(values, kind).apply(values), expected)
    assert np.isfinite(Scaling.of(X * 1e-310, kind).factor).all()


# Made in Python


class Listed(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, i):
        return X[i].astype(np.float32), int(Y[i])


def test_tensors_and_torch_data_sets_become_a_data_set():
    x, y = torch.from_numpy(X).float(), torch.from_numpy(Y)
    data = as_data_set(((x[:20], y[:20]), TensorDataset(x[20:30], y[20:30]), Listed()))
    assert (data.task, data.classes, rows(data)) == ("classification", 2, [20, 10, 12])
    batch = data.test.__getitems__([3, 1])
    assert torch.equal(batch[0], x[[3, 1]])
    assert batch[1].tolist() == Y[[3, 1]].tolist()
    assert as_data_set(data) is data
    values = as_data_set(((x, x[:, 0]), (x, x[:, 0]), (x, x[:, 0])))
    assert (values.task, values.train[0][1].shape) == ("regression", (1,))
    assert values.card.sha256 != data.card.sha256


class Values(Listed):
    def __getitem__(self, i):
        return X[i].tolist(), float(X[i, 0])


class Batches(Values):
    def __getitems__(self, indices):
        return torch.from_numpy(X[indices]), torch.from_numpy(X[indices, 0])


@pytest.mark.parametrize(
    "source", [Values(), Batches(), Subset(TensorDataset(torch.ones(9, 3), torch.ones(9)), [3])]
)
def test_a_number_a_sample_is_a_value_in_every_kind_of_data_set(source):
    data = as_data_set((source,) * 3)
    assert (data.train[0][1].shape, data.train.__getitems__([0])[1].shape) == ((1,), (1, 1))
    assert kind_of(data) == ("own-points", {"features": 3, "classes": 1})


def test_arrays_of_another_order_of_bytes_are_taken():
    part = (X.astype(">f4"), Y.astype(">i8"))
    inputs, labels = as_data_set((part,) * 3).train.__getitems__([3, 4])
    assert torch.equal(inputs, torch.from_numpy(X[3:5].astype(np.float32)))
    assert labels.tolist() == Y[3:5].tolist()


class Uneven(Listed):
    def __getitem__(self, i):
        return X[i, : 1 + i], 1.0


def test_samples_of_different_shapes_are_refused_by_number():
    with pytest.raises(ArgumentError, match=r"sample 2 has shapes \(3,\).*sample 1 \(2,\)"):
        as_data_set((Uneven(),) * 3).train.__getitems__([1, 2])


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (3, ArgumentTypeError),
        (((X, np.full(40, "a")),) * 3, ArgumentTypeError),
        (([({}, 1)] * 3,) * 3, ArgumentTypeError),
        ((1, 2, 3), ArgumentTypeError),
        (((torch.rand(3, 2), torch.zeros(3).long()),) * 2, ArgumentTypeError),
        (((torch.rand(3, 2), torch.zeros(2).long()),) * 3, ArgumentError),
        (((torch.rand(3, 2), torch.zeros(3).long()),) * 3, ArgumentError),
        (((torch.rand(3, 2), torch.tensor([0, 1, -1])),) * 3, ArgumentError),
        (
            ((torch.rand(3, 2), torch.tensor([0, 1, 1])), *((torch.rand(3, 4), torch.ones(3)),) * 2),
            ArgumentError,
        ),
    ],
)
def test_what_is_no_data_is_refused(data, error):
    with pytest.raises(error, match="data"):
        as_data_set(data)


def test_a_configuration_is_fitted_to_data_and_one_of_the_right_sizes_stays():
    x, y = torch.rand(9, 5), torch.arange(9) % 3
    data = as_data_set(((x, y),) * 3)
    config = TrainConfig(model="anode", epochs=2).for_data(data)
    assert (config.dataset, config.sizes, config.channels) == ("own-points", "features=5,classes=3", 6)
    assert (config.epochs, config.name, config.rtol) == (2, "anode-own-points", 1e-4)
    circles = load_data("circles")
    assert TrainConfig(dataset="circles").for_data(circles).dataset == "circles"
    digits = TrainConfig()
    assert digits.for_data(load_data("digits")) is digits
    assert isinstance(dataclasses.replace(circles, dt=None), DataSet)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": "a.npz", "dataset": "mnist"}, "give one of the two"),
        ({"dataset": "own-points"}, "give their path"),
        ({"dataset": "own-points", "sizes": "features=2"}, "have features, classes"),
        ({"dataset": "own-points", "sizes": "features=0,classes=2"}, "must be a size"),
        ({"dataset": "own-points", "sizes": "legs=2"}, "must be a size"),
        ({"image_size": -1}, "image_size=-1"),
    ],
)
def test_settings_of_ones_own_data_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ArgumentError, match=message):
        TrainConfig(**settings)


def test_a_home_that_is_not_there_is_data_that_are_not_there():
    with pytest.raises(MissingDataError, match="does not exist"):
        load_data("mnist", DataOptions(data_dir="~nobody_of_this_name/x"))
    with pytest.raises(MissingDataError, match="does not exist"):
        own("~nobody_of_this_name/x.npz")
