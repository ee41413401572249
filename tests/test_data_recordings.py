"""CSV and MATLAB files, the Silverbox's parts, and the sequences that models simulate."""

import numpy as np
import pytest
import scipy.io
import torch
from data_files import csv_text, recording

from adamode.solvers.errors import ArgumentError, DataError, MissingDataError
from adamode.train.data import DataOptions, load_data
from adamode.train.data.arx import ARX, arx_errors, fit_arx
from adamode.train.data.columns import read_columns
from adamode.train.data.matlab import read_matlab
from adamode.train.data.sequences import Recording, one_step_ahead, sequences, windows

NAMES = ("V1", "V2")


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def read(path):
    return read_columns(path, NAMES)


@pytest.fixture(scope="module")
def silverbox(tmp_path_factory):
    """A folder with a recording of the benchmark's length: noise, in MATLAB's format."""
    folder = tmp_path_factory.mktemp("silverbox")
    u, y = recording(131_072)
    scipy.io.savemat(folder / "SNLS80mV.mat", {"V1": u[None], "V2": y[None]})
    return folder


# Files.


def test_a_csv_in_the_benchmarks_layout_is_read_to_the_digit(tmp_path):
    u, y = recording(50)
    found = read(write(tmp_path / "a.csv", csv_text(u, y)))
    assert np.array_equal(found[0], u)
    assert np.array_equal(found[1], y)


@pytest.mark.parametrize(
    "text",
    [
        "V2,V1\n2,1\n4,3\n",
        "\ufeffV1, V2\n1, 2\n3, 4\n\n\n",
        "t,V1,x,V2\n0,1,a,2\n1,3,b,4",
        "V1,V2\r\n1e0,2.0\r\n3,4\r\n",
    ],
    ids=["other order", "byte order mark, blanks", "more columns", "Windows"],
)
def test_columns_are_found_by_name(tmp_path, text):
    u, y = read(write(tmp_path / "a.csv", text))
    assert u.tolist() == [1, 3]
    assert y.tolist() == [2, 4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"a\.csv' is empty"),
        ("V1,V2\n", "has a header and no rows"),
        ("V1,y\n1,2\n", r"line 1: column 'V2' missing; there are 'V1', 'y'"),
        ("1,2\n3,4\n", r"line 1: column 'V1' and 'V2' missing; there are '1', '2'"),
        ("V1;V2\n1;2\n", r"column 'V1' and 'V2' missing; there are 'V1;V2'"),
        ("V1,V2\n1,2\n3,four\n", r"row 2 \(line 3\), column 'V2' is 'four'"),
        ("V1,V2\n1,2\n3\n5,6\n", r"row 2 \(line 3\), column 'V2' is missing: the row ends"),
        ("V1,V2\n1,2\n,4\n", r"row 2 \(line 3\), column 'V1' is ''"),
        ("V1,V2\n1,2\n\n5,6\n", r"row 2 \(line 3\), column 'V1' is missing"),
        ("V1,V2\n1,nan\n3,NaN\n", r"row 1 \(line 2\), column 'V2' is nan \(and 1 more rows\)"),
        ("V1,V2\n1,2\n-inf,4\n", r"row 2 \(line 3\), column 'V1' is -inf"),
    ],
)
def test_a_csv_that_does_not_fit_is_told_file_row_and_column(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as caught:
        read(write(tmp_path / "a.csv", text))
    assert "a.csv" in str(caught.value)


def test_bytes_that_are_no_text_are_a_data_error(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"V1,V2\n1,\xff\n")
    with pytest.raises(DataError, match=r"a\.csv' is no UTF-8 text: byte 8 is 0xff"):
        read(tmp_path / "a.csv")


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i2", "u1", "i4"])
def test_a_matlab_file_reads_as_scipy_reads_it(tmp_path, dtype, packed):
    generator = np.random.default_rng(0)
    content = {
        "V1": (100 * generator.random((1, 33))).astype(dtype),
        "V2": (100 * generator.random((33, 1))).astype(dtype),
        "matrix": (100 * generator.random((3, 4))).astype(dtype),
        "long_name_of_a_thing": np.array([[7.0]]),
        "text": "hello",
        "empty": np.zeros((0, 0)),
    }
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, content, do_compression=packed)
    reference = scipy.io.loadmat(path)
    found = read_matlab(path.read_bytes(), "here")
    for name in ("V1", "V2", "matrix", "long_name_of_a_thing", "empty"):
        assert np.array_equal(found[name].values, reference[name])
    assert (found["text"].kind, found["text"].values) == ("char", None)
    u, y = read(path)
    assert u.dtype == y.dtype == np.float64
    assert u.tolist() == reference["V1"][0].tolist()
    assert y.tolist() == reference["V2"][:, 0].tolist()


def test_a_matlab_file_of_the_other_byte_order_is_read():
    import struct

    def element(kind, body):
        return struct.pack(">II", kind, len(body)) + body + b"\0" * (-len(body) % 8)

    parts = [(6, struct.pack(">II", 6, 0)), (5, struct.pack(">2i", 1, 2)), (1, b"V1")]
    matrix = b"".join(element(*part) for part in [*parts, (9, struct.pack(">2d", 1.5, -2.5))])
    raw = b"MATLAB 5.0".ljust(124) + b"\x01\x00MI" + element(14, matrix)
    assert read_matlab(raw, "here")["V1"].values.tolist() == [[1.5, -2.5]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"V1": [1.0], "W": [2.0]}, r"variable 'V2' missing; the file has 'V1', 'W'"),
        ({"V1": [1.0, 2], "V2": "text"}, "variable 'V2' is char; an array of real numbers"),
        ({"V1": [1.0, 2], "V2": [1j, 2]}, "variable 'V2' is complex"),
        ({"V1": [1.0, 2], "V2": [True, False]}, "variable 'V2' is logical"),
        ({"V1": {"a": 1}, "V2": [1.0]}, "variable 'V1' is struct"),
        ({"V1": np.ones((2, 2)), "V2": np.ones((2, 2))}, r"variable 'V1' has shape \(2, 2\)"),
        ({"V1": [1.0, 2], "V2": [1.0]}, r"different lengths \(V1 2, V2 1\)"),
        ({"V1": [1.0, 2], "V2": [3.0, np.nan]}, r"row 2, column 'V2' is nan"),
    ],
)
def test_a_matlab_file_that_does_not_fit_is_told_what_is_wrong(tmp_path, content, message):
    scipy.io.savemat(tmp_path / "a.mat", content)
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path / "a.mat")
    assert "a.mat" in str(caught.value)


def test_other_formats_called_mat_are_told_apart(tmp_path):
    path = tmp_path / "a.mat"
    for raw, message in (
        (b"\x89HDF\r\n\x1a\n" + bytes(600), "MATLAB 7.3 file"),
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(600), "MATLAB 7.3 file"),
        (b"V1,V2\n1,2\n", "is not a MATLAB file of level 5"),
        (b"", "is not a MATLAB file of level 5"),
    ):
        path.write_bytes(raw)
        with pytest.raises(DataError, match=message):
            read(path)


@pytest.mark.parametrize("packed", [True, False])
def test_a_damaged_matlab_file_is_a_data_error_or_reads_numbers(tmp_path, packed):
    path = tmp_path / "a.mat"
    u, y = recording(40)
    scipy.io.savemat(path, {"V1": u[None], "V2": y[None]}, do_compression=packed)
    raw, generator = path.read_bytes(), np.random.default_rng(0)
    for length in range(0, len(raw), 11):
        path.write_bytes(raw[:length])
        with pytest.raises(DataError, match=r"a\.mat"):
            read(path)
    refused = 0
    for _ in range(200):
        damaged = bytearray(raw)
        damaged[generator.integers(120, 180)] ^= 1 << generator.integers(8)
        path.write_bytes(bytes(damaged))
        try:
            found = read(path)
        except DataError:
            refused += 1
        else:  # an uncompressed file has no checksum: a flipped bit of a number is another number
            assert all(len(column) == 40 and np.isfinite(column).all() for column in found)
    assert refused > 50


# The Silverbox.


def test_csv_and_mat_give_the_same_silverbox(tmp_path):
    u, y = recording(6000)
    (tmp_path / "one" / "SilverboxFiles").mkdir(parents=True)
    (tmp_path / "two").mkdir()
    write(tmp_path / "one" / "SilverboxFiles" / "SNLS80mV.csv", csv_text(u, y))
    scipy.io.savemat(tmp_path / "two" / "SNLS80mV.mat", {"V1": u[:, None], "V2": y[:, None]})
    one, two = (load_data("silverbox-paper", DataOptions(data_dir=tmp_path / n)) for n in ("one", "two"))
    assert one.card.sha256 == two.card.sha256
    assert torch.equal(one.test.inputs, two.test.inputs)
    assert one.card.files[0].name == "SNLS80mV.csv"


def test_the_papers_task_is_centred_times_100_and_starts_from_one_output(tmp_path):
    u, y = recording(6000)
    write(tmp_path / "SNLS80mV.csv", csv_text(u, y))
    data = load_data("silverbox-paper", DataOptions(data_dir=tmp_path))
    x, target = data.train[0]
    assert x.shape == (1000, 3)
    assert target.shape == (999, 1)
    v1, v2 = (100 * (column - column.mean()) for column in (u, y))
    assert torch.equal(x[:, 0], torch.from_numpy(v1[:1000]).float())
    assert torch.equal(target[:, 0], torch.from_numpy(v2[1:1000]).float())
    assert x[0, 1] == np.float32(v2[0])
    assert x[1:, 1:].abs().max() == 0
    assert torch.equal(data.test[0][1][:, 0], torch.from_numpy(v2[1001:5000]).float())
    assert torch.equal(data.val[0][0][:, 0], torch.from_numpy(v1[5000:6000]).float())
    assert (data.task, data.classes, data.given, data.unit) == ("regression", 0, 1, "mV")
    assert "sample of the Silverbox recording: 6,000 of 131,072 rows" in data.card.note


def test_the_benchmarks_parts_are_the_benchmarks_ranges(silverbox):
    _, y = recording(131_072)
    data = load_data("silverbox", DataOptions(data_dir=silverbox))
    assert "sample of" not in data.card.note
    mean = y[40_650:92_690].mean()  # training alone decides it
    tests = {"test": data.test, **data.more_tests}
    ranges = {"test": (100, 40_575), "arrow-inside": (100, 32_100), "multisine": (105_712, 127_400)}
    for name, (start, stop) in ranges.items():
        x, target = tests[name][0]
        assert x.shape == (stop - start, 3)
        assert torch.equal(target[:, 0], torch.from_numpy(100 * (y[start + 50 : stop] - mean)).float())
        assert torch.equal(x[:50, 1], torch.from_numpy(100 * (y[start : start + 50] - mean)).float())
        assert x[50:, 1:].abs().max() == 0
        assert (x[:50, 2] == 1).all()
    assert data.train.inputs.shape == (1624, 82, 3)
    assert data.train.targets.shape == (1624, 32, 1)
    # 10 mV a unit: an error in these units × per_unit is in mV
    assert float(tests["test"][0][1].std()) * data.per_unit == pytest.approx(1000 * 0.05, rel=0.02)
    assert data.dt == pytest.approx(1 / 610.35)


def test_training_windows_simulate_each_row_once_and_never_touch_a_test(silverbox):
    u, _ = recording(131_072)
    data = load_data("silverbox", DataOptions(data_dir=silverbox, window=100, given=20))
    mean = u[40_650:92_690].mean()
    simulated = data.train.inputs[:, 20:, 0].reshape(-1)
    assert torch.equal(
        simulated, torch.from_numpy(100 * (u[40_670 : 40_670 + len(simulated)] - mean)).float()
    )
    assert 92_690 - 100 < 40_670 + len(simulated) <= 92_690
    first = data.val.inputs[0, 0, 0]
    assert first == np.float32(100 * (u[92_690] - mean))


def test_what_is_missing_or_too_short_is_told(tmp_path):
    with pytest.raises(MissingDataError) as caught:
        load_data("silverbox", DataOptions(data_dir=tmp_path))
    for part in ("SNLS80mV.csv", "SNLS80mV.mat", "nonlinearbenchmark.org", "silverbox-simulated"):
        assert part in str(caught.value)
    write(tmp_path / "SNLS80mV.csv", csv_text(*recording(5999)))
    with pytest.raises(DataError, match=r"has 5,999 rows, and 127,400 are needed"):
        load_data("silverbox", DataOptions(data_dir=tmp_path))
    with pytest.raises(DataError, match=r"has 5,999 rows, and 6,000 are needed"):
        load_data("silverbox-paper", DataOptions(data_dir=tmp_path))


def test_windows_that_fit_nowhere_are_an_argument_error(silverbox):
    with pytest.raises(ArgumentError, match=r"window=60000 with given=50 needs 60050 samples"):
        load_data("silverbox", DataOptions(data_dir=silverbox, window=60_000))
    with pytest.raises(ArgumentError, match=r"given=1000 must be below"):
        load_data("silverbox-paper", DataOptions(data_dir=silverbox, given=1000))


# Sequences.


def ramp(n, start=0.0):
    k = np.arange(n) + start
    return Recording(k, 1000 + k, dt=0.1)


def test_a_sequence_shows_the_given_outputs_and_hides_the_rest():
    samples = sequences([ramp(4), ramp(4, 10)], given=2)
    x, y = samples.inputs, samples.targets
    assert x[1].tolist() == [[10, 1010, 1], [11, 1011, 1], [12, 0, 0], [13, 0, 0]]
    assert y[:, :, 0].tolist() == [[1002, 1003], [1012, 1013]]
    assert x.dtype == y.dtype == torch.float32


def test_windows_cover_each_part_without_crossing_into_the_next():
    cut = windows([ramp(10), ramp(7, 100)], window=3, given=2)
    assert [part.u.tolist() for part in cut] == [
        [0, 1, 2, 3, 4],
        [3, 4, 5, 6, 7],
        [100, 101, 102, 103, 104],
    ]


def linear_recording(n=300):
    """y[k] = 1.2 y[k−1] − 0.5 y[k−2] + 0.3 u[k] + 0.1 u[k−1] − 0.2 u[k−2], exactly."""
    generator = np.random.default_rng(0)
    u = generator.standard_normal(n)
    y = generator.standard_normal(n)
    for k in range(2, n):
        y[k] = 1.2 * y[k - 1] - 0.5 * y[k - 2] + 0.3 * u[k] + 0.1 * u[k - 1] - 0.2 * u[k - 2]
    return Recording(u, y, 1.0)


def test_arx_recovers_the_model_that_made_the_data():
    whole = linear_recording()
    model = fit_arx([whole[:100], whole[100:200]], order=2)
    assert model.a == pytest.approx([1.2, -0.5], abs=1e-12)
    assert model.b == pytest.approx([0.3, 0.1, -0.2], abs=1e-12)
    assert model.stable  # roots 0.6 ± 0.37i
    rest = whole[200:]
    assert model.predict(rest) == pytest.approx(rest.y[2:], abs=1e-12)
    assert model.simulate(rest, given=7) == pytest.approx(rest.y[7:], abs=1e-11)


def test_arx_in_free_run_does_not_look_at_the_outputs_it_simulates():
    part = linear_recording(50)
    model = fit_arx([linear_recording()], order=2)
    spoilt = Recording(part.u, np.concatenate((part.y[:10], np.full(40, 1e6))), 1.0)
    assert np.array_equal(model.simulate(spoilt, given=10), model.simulate(part, given=10))


def test_an_unstable_arx_is_told_apart():
    assert not ARX(np.array([1.01]), np.array([1.0, 0.0])).stable
    assert ARX(np.array([0.99]), np.array([1.0, 0.0])).stable


def test_arx_refuses_orders_that_cannot_be():
    part = linear_recording(20)
    for order in (0, True, 1.5, -1):
        with pytest.raises(ArgumentError, match="order="):
            fit_arx([part], order)
    with pytest.raises(ArgumentError, match="order=9 has 19 coefficients, and there are 11 rows"):
        fit_arx([part], 9)
    with pytest.raises(ArgumentError, match="given=1 is less than the order 2"):
        fit_arx([part], 2).simulate(part, given=1)


def test_arx_errors_are_in_millivolts_over_the_rows_after_the_given_ones(silverbox):
    data = load_data("silverbox", DataOptions(data_dir=silverbox))
    errors = arx_errors(data, order=2)
    assert list(errors) == ["test", "arrow-inside", "multisine"]
    # noise cannot be foretold: what is left is the output's own standard deviation, 50 mV
    for row in errors.values():
        assert row["one_step"] == pytest.approx(50, rel=0.02)
        assert row["free_run"] == pytest.approx(50, rel=0.02)


def test_one_step_ahead_shows_the_measured_rows_before_each_row_of_the_free_run():
    free = sequences([ramp(9)], given=3)
    ahead = one_step_ahead(free, given=3)
    assert ahead.inputs.shape == (6, 4, 3)
    assert torch.equal(ahead.targets.flatten(), free.targets.flatten())
    y = torch.from_numpy(ramp(9).y).float()
    for k in range(6):
        assert torch.equal(ahead.inputs[k, :3, 1], y[k : k + 3])
        assert ahead.inputs[k, 3, 1] == 0
