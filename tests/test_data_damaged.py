"""What a damaged or foreign file of images is told: file, entry, row and value."""

import gzip

import numpy as np
import pytest
from data_files import IDX_NAMES, cifar_arrays, idx_bytes, load, mnist_arrays, write_idx_files, write_npz

from adamode.solvers.errors import DataError, MissingDataError


@pytest.fixture
def mnist(tmp_path):
    return write_npz(tmp_path, "mnist", mnist_arrays())


def test_a_truncated_npz_is_named_at_any_length(mnist):
    path = mnist / "mnist.npz"
    raw = path.read_bytes()
    for length in (0, 1, 3, 100, len(raw) // 2, len(raw) - 1):
        path.write_bytes(raw[:length])
        with pytest.raises(DataError, match=r"mnist\.npz"):
            load("mnist", mnist)


def test_a_flipped_byte_in_an_npz_names_the_entry(mnist):
    path = mnist / "mnist.npz"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 3] ^= 0xFF  # in the middle of x_train
    path.write_bytes(bytes(raw))
    with pytest.raises(DataError, match=r"mnist\.npz', entry x_train: cannot be read"):
        load("mnist", mnist)


def test_changed_bytes_in_an_npz_are_a_data_error_or_change_nothing(mnist):
    path = mnist / "mnist.npz"
    np.savez(path, **mnist_arrays(train=20, test=10))
    raw, whole = path.read_bytes(), load("mnist", mnist).card.sha256
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(raw)
        # the first entry's headers, or the directory at the end: the middle has checksums
        start = generator.choice([0, len(raw) - 400])
        damaged[start + generator.integers(0, 250)] = generator.integers(0, 256)
        path.write_bytes(bytes(damaged))
        try:
            assert load("mnist", mnist).card.sha256 == whole
        except DataError:
            refused += 1
    assert refused > 100


def test_an_npz_without_a_key_lists_those_it_has(tmp_path):
    arrays = mnist_arrays()
    del arrays["y_test"]
    with pytest.raises(DataError, match=r"lacks y_test; it holds x_test, x_train, y_train"):
        load("mnist", write_npz(tmp_path, "mnist", arrays))


def test_python_objects_in_an_npz_are_not_read(tmp_path):
    arrays = {**mnist_arrays(), "x_train": np.array([object()] * 60)}
    with pytest.raises(DataError, match=r"entry x_train: cannot be read"):
        load("mnist", write_npz(tmp_path, "mnist", arrays))


def test_a_text_called_npz_is_no_archive(tmp_path):
    (tmp_path / "mnist.npz").write_text("hello")
    with pytest.raises(DataError, match=r"is not an \.npz archive: it begins with b'he'"):
        load("mnist", tmp_path)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("y_train", lambda y: np.where(np.arange(len(y)) == 17, 12, y), r"y_train: row 17 is 12; .* 0 … 9"),
        ("y_test", lambda y: y.astype(np.int64) - 1, r"y_test: row 0 is -1 \(and 1 more\)"),
        ("y_train", lambda y: y.astype(np.float32), r"y_train has dtype float32; labels must be whole"),
        ("y_train", lambda y: y[:-1], r"y_train has shape \(59,\), but there are 60 images"),
        ("x_train", lambda x: x[:, 1:], r"x_train has shape \(60, (27, 28|31, 32, 3)\); it must be \[N, "),
        ("x_test", lambda x: x / 255.0, r"x_test has dtype float64; images must be uint8"),
        ("x_test", lambda x: x[:0], r"x_test is empty"),
        ("x_train", lambda x: x.reshape(60, -1), r"x_train has shape \(60, (784|3072)\)"),
    ],
)
def test_arrays_that_do_not_fit_are_named_with_row_and_value(tmp_path, name, key, change, message):
    arrays = mnist_arrays() if name == "mnist" else cifar_arrays()
    arrays[key] = change(arrays[key])
    with pytest.raises(DataError, match=message) as caught:
        load(name, write_npz(tmp_path, name, arrays))
    assert f"{name}.npz" in str(caught.value)


@pytest.mark.parametrize("packed", [True, False], ids=["gz", "plain"])
def test_a_truncated_or_longer_idx_file_is_named(tmp_path, packed):
    write_idx_files(tmp_path, mnist_arrays(), packed=packed)
    path = tmp_path / (IDX_NAMES["x_train"] + ".gz" * packed)
    raw = path.read_bytes()
    for length in (0, 3, 9, len(raw) // 2, len(raw) - 1):
        path.write_bytes(raw[:length])
        with pytest.raises(DataError, match=r"train-images-idx3-ubyte"):
            load("mnist", tmp_path)
    longer = idx_bytes(mnist_arrays()["x_train"]) + b"\0"
    path.write_bytes(gzip.compress(longer) if packed else longer)
    with pytest.raises(DataError, match="longer than its header says"):
        load("mnist", tmp_path)


def test_an_idx_file_of_the_wrong_magic_is_told_what_it_is(tmp_path):
    arrays = mnist_arrays()
    write_idx_files(tmp_path, arrays, packed=False)
    (tmp_path / IDX_NAMES["x_train"]).write_bytes(idx_bytes(arrays["y_train"]))
    with pytest.raises(DataError, match=r"magic number 2049; .* has 2051\. This is .* of labels"):
        load("mnist", tmp_path)
    (tmp_path / IDX_NAMES["x_train"]).write_bytes(idx_bytes(arrays["x_train"], magic=0x0D03))
    with pytest.raises(DataError, match="magic number 3331"):
        load("mnist", tmp_path)


def test_labels_out_of_range_in_an_idx_file_are_named(tmp_path):
    arrays = mnist_arrays()
    arrays["y_test"][5] = 10
    write_idx_files(tmp_path, arrays, packed=True)
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz': row 5 is 10"):
        load("mnist", tmp_path)


def test_one_missing_idx_file_is_named(tmp_path):
    write_idx_files(tmp_path, mnist_arrays(), packed=True)
    (tmp_path / (IDX_NAMES["y_test"] + ".gz")).unlink()
    with pytest.raises(MissingDataError, match=r"lacks t10k-labels-idx1-ubyte\[\.gz\]"):
        load("mnist", tmp_path)


def test_a_folder_in_place_of_the_file_is_no_file(tmp_path):
    (tmp_path / "mnist.npz").mkdir()
    with pytest.raises(MissingDataError, match=r"looked for mnist\.npz"):
        load("mnist", tmp_path)
