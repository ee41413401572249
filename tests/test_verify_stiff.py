"""The suite of stiff problems: its right-hand sides, its verdicts."""

import dataclasses
import math

import pytest
import torch

import adamode
from adamode.verify.stiff import BY_NAME, END, verify_stiff
from adamode.verify.stiff.report import StiffReport, StiffRow, conclusion, text_table
from adamode.verify.stiff.values import INSIDE


def test_every_problem_has_a_start_an_end_and_a_right_hand_side():
    assert set(BY_NAME) == set(END)
    for problem in BY_NAME.values():
        y = torch.tensor(problem.start, dtype=torch.float64)
        f = problem.f(torch.zeros(()), y)
        assert f.shape == y.shape
        assert f.isfinite().all()
        both = problem.f(torch.zeros(()), torch.stack((y, y)))
        torch.testing.assert_close(both[1], f)


def test_small_problems_end_where_it_is_published():
    report = verify_stiff(["hires_hw", "stiff_detest_C5", "stiff_detest_D6"], ["radau5"], rtols=[1e-4])
    assert report.ok, conclusion(report)
    assert {row.method for row in report.rows} <= {"radau5", "scipy Radau"}
    with pytest.raises(adamode.ArgumentError, match="nowhere"):
        verify_stiff(["nowhere"])


def test_robertsons_problem_is_compared_on_its_way(monkeypatch):
    assert [len(row) for row in INSIDE["robertson_hw"].values()] == [3] * 11
    report = verify_stiff(["robertson_hw"], ["radau5"], rtols=[1e-4])
    assert report.ok, conclusion(report)
    moved = {t: (a, b, 1.02 * c) for t, (a, b, c) in INSIDE["robertson_hw"].items()}
    monkeypatch.setitem(INSIDE, "robertson_hw", moved)
    assert not verify_stiff(["robertson_hw"], ["radau5"], rtols=[1e-4]).ok


def test_what_misses_is_told():
    good = StiffRow("a", "radau5", 1e-4, 1.0, 100)
    peer = StiffRow("a", "scipy Radau", 1e-4, 1.0, 120)
    assert StiffReport((good, peer)).ok
    for row in (
        dataclasses.replace(good, error=101.0),
        dataclasses.replace(good, error=math.nan),
        dataclasses.replace(good, calls=181),
        dataclasses.replace(good, error=math.inf, failure="no"),
    ):
        report = StiffReport((row, peer))
        assert not report.ok
        assert "not so: a at 0.0001" in conclusion(report)
        assert "!" in text_table(report)
    other = dataclasses.replace(good, method="kvaerno5", error=2.0, calls=90)
    assert next(iter(StiffReport((good, other, peer)).cases())).best == other
    more = StiffReport((dataclasses.replace(good, calls=130), peer))
    assert not more.ok  # each within 1.5 times, but more on average
