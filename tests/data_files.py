"""Small data files in the layouts that adamode reads, for tests."""

import gzip
import struct

import numpy as np

from adamode.train.data import DataOptions, load_data

IDX_NAMES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


def image_arrays(shape, train=60, test=20):
    """x_train, y_train, x_test, y_test: random images of ``shape`` and labels 0 … 9 in turn."""
    generator = np.random.default_rng(3)
    arrays = {}
    for part, count in (("train", train), ("test", test)):
        arrays[f"x_{part}"] = generator.integers(0, 256, (count, *shape), dtype=np.uint8)
        arrays[f"y_{part}"] = (np.arange(count) % 10).astype(np.uint8)
    return arrays


def mnist_arrays(**counts):
    return image_arrays((28, 28), **counts)


def cifar_arrays(**counts):
    return image_arrays((32, 32, 3), **counts)


def idx_bytes(array, magic=None):
    magic = 0x0800 | array.ndim if magic is None else magic
    return struct.pack(f">I{array.ndim}I", magic, *array.shape) + array.tobytes()


def write_idx_files(folder, arrays, *, packed):
    """The four files of MNIST, in gzip if packed."""
    folder.mkdir(parents=True, exist_ok=True)
    for key, name in IDX_NAMES.items():
        raw = idx_bytes(arrays[key])
        (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(raw) if packed else raw)


def recording(rows, seed=4):
    """V1 and V2 [rows]: noise, with means like the measured ones."""
    generator = np.random.default_rng(seed)
    return 0.006 + 0.02 * generator.standard_normal(rows), 0.001 + 0.05 * generator.standard_normal(rows)


def csv_text(u, y):
    """The benchmark's own layout: quoted names, a trailing comma, no newline at the end."""
    rows = "\n".join(f"{a!r},{b!r}," for a, b in zip(u.tolist(), y.tolist(), strict=True))
    return f'"V1","V2",\n{rows}'


def load(name, folder, **options):
    """The data set called ``name`` from the files in ``folder``."""
    return load_data(name, DataOptions(data_dir=folder, **options))


def write_npz(folder, name, arrays):
    """Writes <name>.npz and returns the folder."""
    np.savez_compressed(folder / f"{name}.npz", **arrays)
    return folder
