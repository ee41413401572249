"""The Silverbox: an electronic circuit that behaves like a Duffing oscillator, measured.

T. Wigren, J. Schoukens, Three free data sets for development and benchmarking in nonlinear system
identification, European Control Conference (2013) 2933–2938: V1 drives the circuit, V2 is its output,
both in volts, 131,072 samples at 610.35 Hz. First comes the "arrow", noise whose amplitude grows, then
ten realisations of a multisine.
"""

from __future__ import annotations

from pathlib import Path

from ...solvers.errors import ArgumentError, DataError
from ..places import SILVERBOX
from .card import DataCard, checksum, file_record
from .columns import read_columns
from .options import DataOptions
from .raw import Raw, Scaling
from .sequences import Recording, sequence_data_set, sequences, windows
from .splits import DataSet

RATE = 610.35  # Hz
LENGTH = 131_072
SCALE = 100.0  # the paper's: one unit is 10 mV
SOURCE = "Silverbox benchmark (Wigren, Schoukens 2013), measured, SNLS80mV"

# The ranges of the benchmark's own loader (nonlinear_benchmarks), in samples. The multisines are cut
# 3 : 1 into training with validation, and test; the arrow's last part is beyond what was trained on.
ARROW = slice(100, 40_575)
ARROW_INSIDE = slice(100, 32_100)
TRAINING = slice(40_650, 92_690)  # six realisations; 92,690 lies in the silence after them
VALIDATION = slice(92_690, 105_712)  # the rest of the training range: one and a half
MULTISINE = slice(105_712, 127_400)
GIVEN, WINDOW = 50, 32  # outputs shown before a simulation (the benchmark's number), window of training

# The paper's task, as the authors' code runs it: one trajectory of 1,000 samples from its first output;
# the next 4,000 are the test. The 1,000 after them, which nobody else uses, are our validation.
PAPER_TRAINING, PAPER_TEST, PAPER_VALIDATION = slice(0, 1000), slice(1000, 5000), slice(5000, 6000)


def read_silverbox(folder: Path, needed: int) -> tuple[Recording, Path]:
    """The recording in ``folder``, in volts, and the file it comes from.

    Raises: DataError where there is none, it is damaged, or it has fewer than ``needed`` samples.
    """
    path = SILVERBOX.find(folder)
    u, y = read_columns(path, ("V1", "V2"))
    if len(u) < needed:
        raise DataError(
            f"{str(path)!r} has {len(u):,} rows, and {needed:,} are needed: the recording has {LENGTH:,}. "
            "It is truncated or another file."
        )
    return Recording(u, y, 1 / RATE), path


def load_silverbox(options: DataOptions) -> DataSet:
    """The benchmark's task: train on multisines, simulate the arrow from its first 50 outputs.

    Means are those of the training samples; ×100, so one unit is 10 mV. Test: the whole arrow as one
    free run. more_tests: "arrow-inside" (the arrow without its loudest part) and "multisine".
    """
    window, given = options.window or WINDOW, options.given or GIVEN
    folder = SILVERBOX.folder(options.data_dir)
    raw, path = read_silverbox(folder, needed=MULTISINE.stop)
    training = raw[TRAINING]
    offset = (float(training.u.mean()), float(training.y.mean()))
    scaled = raw.scaled(offset, SCALE)
    parts = {
        "train": sequences(windows([scaled[TRAINING]], window, given), given),
        "validation": sequences(windows([scaled[VALIDATION]], window, given), given),
        "test": sequences([scaled[ARROW]], given),
        "arrow-inside": sequences([scaled[ARROW_INSIDE]], given),
        "multisine": sequences([scaled[MULTISINE]], given),
    }
    note = (
        f"windows of {window} samples after {given} given ones; test: free run over the arrow's "
        f"{len(scaled[ARROW]):,} samples after {given} given ones; means {1e3 * offset[0]:.3f} and "
        f"{1e3 * offset[1]:.3f} mV removed (of the training samples), ×100"
    )
    card = _card("silverbox", raw, path, (given + window, 3), note)
    return sequence_data_set(card, parts, given, 1 / RATE, in_volts(offset))


def load_silverbox_paper(options: DataOptions) -> DataSet:
    """The AdamNODE paper's task: the first 1,000 samples as one trajectory from its first output.

    Means of the whole recording removed, ×100. Test: the next 4,000 samples, as in the authors' code.
    """
    given = options.given or 1
    if given >= 1000:
        raise ArgumentError(f"given={given} must be below the 1,000 samples of silverbox-paper's training.")
    folder = SILVERBOX.folder(options.data_dir)
    raw, path = read_silverbox(folder, needed=PAPER_VALIDATION.stop)
    offset = (float(raw.u.mean()), float(raw.y.mean()))
    scaled = raw.scaled(offset, SCALE)
    parts = {
        "train": sequences([scaled[PAPER_TRAINING]], given),
        "validation": sequences([scaled[PAPER_VALIDATION]], given),
        "test": sequences([scaled[PAPER_TEST]], given),
    }
    note = (
        "one trajectory a part: training on samples 0 … 999, test on 1,000 … 4,999, validation (ours) on "
        f"5,000 … 5,999; means {1e3 * offset[0]:.3f} and {1e3 * offset[1]:.3f} mV removed (of the whole "
        "recording), ×100"
    )
    card = _card("silverbox-paper", raw, path, (1000, 3), note)
    return sequence_data_set(card, parts, given, 1 / RATE, in_volts(offset))


def in_volts(offset: tuple[float, float]) -> Raw:
    """A file of the Silverbox's columns, in volts, as the models see it."""
    u, y = (Scaling((mean,), (SCALE,)) for mean in offset)
    return Raw(("V1",), ("V2",), u, y, step=1 / RATE)


def _card(name: str, raw: Recording, path: Path, shape: tuple[int, ...], note: str) -> DataCard:
    if len(raw) != LENGTH:
        note = f"sample of the Silverbox recording: {len(raw):,} of {LENGTH:,} rows; {note}"
    return DataCard(
        name=name,
        source=SOURCE,
        counts={},
        shape=shape,
        classes=0,
        sha256=checksum(raw.u, raw.y),
        note=note,
        files=(file_record(path),),
        task="regression",
    )
