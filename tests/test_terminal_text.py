"""What is printed fits 80 columns, a file gets no bar, and a failing report says in pytest what fails."""

from __future__ import annotations

import dataclasses
import io
import math
import pickle
import sys

import pytest
from _pytest._io.saferepr import DEFAULT_REPR_MAX_SIZE, saferepr
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from adamode.adjoint.proof.comparisons import Check
from adamode.adjoint.proof.slopes import Taylor
from adamode.cli.app import app, paragraphs
from adamode.cli.models import _table as models_table
from adamode.cli.runs import table as runs_table
from adamode.cli.train import told_efficacy
from adamode.models import sizes
from adamode.solvers.errors import first_line
from adamode.train.logs import ProgressBar, epoch_line
from adamode.train.measures import MEASURES
from adamode.train.text import SHOWN, aligned, failing_first, shortened, within, wrapped
from adamode.verify.layout import text_tables as model_tables
from adamode.verify.published.layout import conclusion as published_conclusion
from adamode.verify.published.layout import text_tables as published_tables
from adamode.verify.published.report import PublishedReport, PublishedRow
from adamode.verify.report import Report
from adamode.verify.rows import ModelReport, ModelRow
from adamode.verify.stiff.report import StiffReport, StiffRow, text_table


def widest(text):
    return max(map(len, text.splitlines()))


# Tables and sentences

words = st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1, max_size=30)


@given(rows=st.integers(1, 5), columns=st.integers(1, 9), data=st.data())
def test_a_wide_table_becomes_blocks_with_every_cell_in_order(rows, columns, data):
    table = [[data.draw(words) for _ in range(columns)] for _ in range(rows)]
    blocks = "\n".join(within(table, 70)).split("\n\n")
    assert all(widest(block) <= 70 for block in blocks)
    assert [block.splitlines()[0].split()[0] for block in blocks] == [table[0][0]] * len(blocks)
    for i, row in enumerate(table):
        assert [cell for block in blocks for cell in block.splitlines()[i].split()[1:]] == row[1:]


def test_a_narrow_table_is_one_block_and_headings_go_on():
    table = [["", "left", "", "right"], ["a", "1", "2", "3"]]
    assert within(table) == aligned(table)
    assert within(table, 9, spanning=1) == ["   left", "a  1", "", "   left", "a  2", "", "   right", "a  3"]


@given(st.lists(words, min_size=1, max_size=40).map(" ".join))
def test_no_word_is_cut(text):
    whole = set(text.split())
    assert set(wrapped(text, "  ", 50).split()) == whole
    assert set(shortened(text, 50).split()) <= {*whole, "…"}
    short = first_line(text, 50)
    assert len(short) <= 50
    assert short == " ".join(text.split()) if len(text) <= 50 else set(short.split()) <= {*whole, "…"}


def test_a_first_line_is_the_first_that_says_something():
    assert first_line(ValueError("\n  two  words\nmore")) == "two words"
    assert first_line("") == "no reason given"
    assert first_line("a" * 30, 10) == "a" * 9 + "…"


def test_helps_paragraphs_are_lines():
    assert paragraphs("One\n    two.\n\n    Three.\n    ") == "One two.\n\nThree. ".strip()


# Reports

FAILS = Check("encoder.layers.0.weight", "finite-differences", 0.3, 1e-7, (12, 3), 1.23456789012, 2.0)
FINE = dataclasses.replace(FAILS, relative_error=1e-12)
ROW = ModelRow(
    *("adamnode", "exact", None, None, "mlp", "dopri5", "discrete", "shared", "exact", "a_h", "autograd"),
    *(0.3, 1e-9, False, (0, 1), 1.0, 2.0),
)
PUBLISHED = PublishedRow(
    *("Arenstorf orbit", "dopri5", 1e-6, 0.5, 0.1, 300, "HNW I, II.0", "κ·rtol·100"), condition=3.0
)
STIFF = StiffRow("robertson", "radau5", 1e-4, 1e5, 900)


def report(n_failing):
    rows = tuple(dataclasses.replace(FAILS, index=(i, 3)) for i in range(n_failing))
    return Report((*[FINE] * 50, *rows), Taylor((1.0,), (1.0,), 2.0, True))


REPORTS = {
    "one": (report(1), ["1 of 52 checks FAIL", "encoder.layers.0.weight[0, 3]", "1.23456789012"]),
    "many": (report(30), ["30 of 81 checks FAIL", "encoder.layers.0.weight[0, 3]", "more"]),
    "slope": (Report((FINE,), Taylor((1.0,), (1.0,), 1.0, False)), ["1 of 2 checks FAIL", "slope 1.00"]),
    "models": (ModelReport((dataclasses.replace(ROW, ok=True), ROW)), ["1 of 2", "a_h[0, 1]", "adamnode"]),
    "published": (PublishedReport((PUBLISHED,)), ["1 of 1", "Arenstorf orbit, dopri5", "off by"]),
    "stiff": (StiffReport((STIFF,)), ["1 of 1", "robertson at rtol 0.0001", "1e+05 tolerances"]),
}


@pytest.mark.parametrize("name", REPORTS)
def test_pytest_shows_what_fails(name):
    found, said = REPORTS[name]
    assert not found.ok
    shown = saferepr(found, DEFAULT_REPR_MAX_SIZE)
    assert DEFAULT_REPR_MAX_SIZE == SHOWN
    assert shown == repr(found)  # nothing is cut
    for words in said:
        assert words in shown
    assert repr(pickle.loads(pickle.dumps(found))) == shown


def test_a_report_without_failures_is_short():
    assert repr(report(0)) == "<Report: all of 51 checks ok>"
    assert repr(StiffReport(())) == "<StiffReport: all of 0 checks ok>"


def test_printed_what_fails_comes_first_and_none_is_left_out():
    lines = str(report(30)).splitlines()
    assert all(line.startswith("FAILS: encoder") for line in lines[:30])
    assert lines[30].startswith("quantity")


@given(st.lists(st.lists(words, min_size=1, max_size=30).map(" ".join), min_size=1, max_size=12))
def test_the_repr_never_has_more_than_pytest_shows(failures):
    text = failing_first("Report", 99, failures)
    assert len(text) <= SHOWN
    shown = len([line for line in text.splitlines()[1:] if not line.startswith("… and ")])
    assert text.endswith(f"… and {len(failures) - shown} more") or shown == len(failures)


# Tables of commands


def test_tables_fit_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    references = ("autograd", "forward", "newton", "finite-differences", "fine-solve", "analytic")
    gradients = ("discrete", "interpolating", "backsolve", "reversible")
    rows = [
        dataclasses.replace(ROW, reference=reference, gradient=gradient, quantity=quantity)
        for reference in references
        for gradient in gradients
        for quantity in ("a_h", "a_m", "a_v", "field.layers.0.weight")
    ]
    told = model_tables(ModelReport(tuple(rows)))
    assert widest(told) <= 80
    for word in ("differences", "backsolve", "FAILS", "field.layers.0.weight"):
        assert word in told
    several = [dataclasses.replace(PUBLISHED, rtol=10.0**-k, method=m) for k in range(3, 11) for m in "ab"]
    both = PublishedReport((*several, dataclasses.replace(PUBLISHED, condition=None, gradient="x")))
    assert widest(published_tables(both)) <= 80
    good = PublishedReport((dataclasses.replace(PUBLISHED, error=0.01),))
    assert widest(published_conclusion(good)) <= 80
    stiff = StiffReport(tuple(dataclasses.replace(STIFF, method=f"method{i}") for i in range(9)))
    assert widest(text_table(stiff)) <= 80
    assert widest(runs_table([("a-long-name-of-a-run-in-a-folder",) * 6] * 3)) <= 80


def test_the_table_of_models_fits_80_columns():
    rows = [
        {**dataclasses.asdict(size), "difference": size.difference, "relative_difference": -0.1234}
        for size in sizes("silverbox-network")
    ]
    assert widest(models_table(rows)) <= 80


def test_a_wide_terminal_gets_wide_tables(monkeypatch):
    table = [["a" * 30] * 5]
    monkeypatch.setenv("COLUMNS", "200")
    assert len(within(table)) == 1
    monkeypatch.setenv("COLUMNS", "80")
    assert len(within(table)) == 7


# Training


def row(measure, **more):
    value = 0.98765 if measure == "accuracy" else 12.3456
    quality = {f"{part}_{measure}": value for part in ("train", "val")}
    counts = {"nfe_forward": 123.4, "nfe_backward": 118.6, "seconds": 1234.56}
    return {"epoch": 100, "train_loss": 1.23456, "val_loss": 1.34567, **quality, **counts, **more}


@pytest.mark.parametrize("measure", MEASURES)
def test_an_epochs_line_fits_80_columns(measure):
    line = epoch_line(row(measure), 100, "mV" if measure == "rmse" else "")
    assert len(line) <= 80
    told = {"accuracy": "1.235, 98.8 %", "rmse": "1.235, 12.35 mV", "nats": "12.346 nats"}
    assert line.startswith(f"epoch 100/100  train {told.get(measure, '12.346 bits/dim')}  val 1")
    assert line.endswith("NFE 123/119  1235 s")
    skipped = epoch_line(row(measure, skipped_batches=1), 100).splitlines()
    assert skipped[1].strip() == "1 batch skipped"


class Sums:
    samples = 3

    def mean(self, name):
        return 1.5


class Objective:
    unit = ""
    kind = MEASURES["accuracy"]

    def measure(self, sums):
        return 0.5

    def told(self, value):
        return self.kind.told(value)


def trained(monkeypatch, stream, clock=lambda: 0.0):
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr("adamode.train.logs.time.monotonic", clock)
    with ProgressBar(4, 0, objective=Objective(), quiet=False) as bar:
        for _ in range(4):
            bar.step(Sums())
        bar.epoch(row("accuracy"), 100)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_file_gets_lines_and_no_bar(monkeypatch, capsys):
    quick, slow = io.StringIO(), io.StringIO()
    trained(monkeypatch, quick)
    assert quick.getvalue() == ""
    times = iter(range(0, 10_000, 70))
    trained(monkeypatch, slow, lambda: next(times))
    lines = slow.getvalue().splitlines()
    assert "\r" not in slow.getvalue()
    assert lines[0] == "step 1/4  loss 1.500, acc  50.0 %, nfe 2/2"
    assert widest(slow.getvalue()) <= 80
    assert capsys.readouterr().out.count("epoch 100/100") == 2


def test_a_terminal_and_a_notebook_get_a_bar(monkeypatch):
    terminal, notebook = Terminal(), io.StringIO()
    trained(monkeypatch, terminal)
    assert "\r" in terminal.getvalue()
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    trained(monkeypatch, notebook)
    assert "4/4" in notebook.getvalue()


def test_an_efficacy_is_told_with_its_pass_or_not_at_all():
    accuracy, values = MEASURES["accuracy"], MEASURES["rmse"]
    both = told_efficacy(accuracy, (0.5, "forward"), (0.25, "backward"))
    assert both == "0.5000 forward, 0.2500 backward (test accuracy ÷ NFE)"
    assert told_efficacy(values, (None, "forward"), (None, "backward")) == "none: values are predicted"
    assert math.isfinite(len(both))


# Shell completion


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("adamode tr", ["train"]),
        ("adamode train --model no", ["node"]),
        ("adamode train --dataset sil", ["silverbox", "silverbox-paper", "silverbox-simulated"]),
        ("adamode train --method dop", ["dop853", "dopri5", "dopri8"]),
        ("adamode sweep --gradient b", ["backsolve"]),
    ],
)
def test_the_shell_completes_commands_and_names(line, offered):
    environment = {
        "_ADAMODE_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split()) - 1),
    }
    told = CliRunner().invoke(app, [], prog_name="adamode", env=environment).stdout
    assert sorted(told.split()) == sorted(offered)
