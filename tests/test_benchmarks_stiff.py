"""The stiff benchmark: its tables, its file of points, and a small part of it."""

import dataclasses
import math

import pytest
import torch
from benchmark_package import benchmark_module

from adamode.verify.stiff import BY_NAME

stiff = benchmark_module("", "stiff")
SMALL = stiff.Point("hires_hw", "radau5", 1e-4, 2.5e-9, 12345, 0.25)
LARGE = stiff.Point(stiff.LINE, stiff.GMRES, 1e-4, 3e-5, 100, 1.5)


def test_a_cell_has_calls_error_and_time_and_what_is_missing_says_so():
    lost = dataclasses.replace(SMALL, code="scipy BDF", error=math.nan)
    later = dataclasses.replace(SMALL, rtol=1e-6)
    lines = stiff.table([later, SMALL, lost]).splitlines()
    assert lines[0] == "| problem | rtol | radau5 | scipy BDF |"
    assert lines[2] == "| HIRES | 1e-04 | 12,345 (2.5e-09) 250 | not reached |"
    assert lines[3] == "| HIRES | 1e-06 | 12,345 (2.5e-09) 250 | – |"


def test_the_brusselator_has_a_table_of_its_own_a_line_a_code():
    banded = dataclasses.replace(LARGE, code="scipy BDF banded", rtol=1e-6)
    small, large = stiff.table([SMALL, banded, LARGE]).split("\n\n")
    assert "Brusselator" not in small
    assert large.splitlines()[0] == "| Brusselator, 1000 numbers | 1e-04 | 1e-06 |"
    assert large.splitlines()[2:] == [
        "| kvaerno5 gmres | 100 (3.0e-05) 1500 | – |",
        "| scipy BDF banded | – | 100 (3.0e-05) 1500 |",
    ]


def test_points_are_kept_and_a_solve_that_failed_too(tmp_path):
    path = tmp_path / "points"
    assert stiff.kept(path) == stiff.kept(None) == []
    for point in (SMALL, dataclasses.replace(LARGE, error=math.nan)):
        stiff.keep(path, point)
    first, second = stiff.kept(path)
    assert first == SMALL
    assert math.isnan(second.error)
    assert second.code == LARGE.code


def test_the_picture_has_a_line_a_code_and_no_brusselator():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    stiff.draw(figure, [SMALL, LARGE])
    assert [axis.get_title() for axis in figure.axes] == ["HIRES", ""]
    assert len(figure.axes[0].lines) == len(stiff.CODES)


@pytest.mark.parametrize("code", ["auto", "scipy Radau", "scipy LSODA"])
def test_a_point_is_measured_with_every_call_counted(code):
    if code.startswith("scipy"):
        pytest.importorskip("scipy")
    point = stiff.measured("hires_hw", code, 1e-3)
    assert (point.problem, point.code, point.rtol) == ("hires_hw", code, 1e-3)
    assert point.error < 1e-3
    assert 100 < point.calls < 1500


@pytest.mark.parametrize("code", [*stiff.BANDED, stiff.GMRES])
def test_bands_and_gmres_give_the_brusselator_s_solution(code, monkeypatch):
    """Of 20 points and up to t = 0.1: against scipy's, which knows nothing."""
    pytest.importorskip("scipy")
    short = dataclasses.replace(BY_NAME[stiff.LINE], start=BY_NAME[stiff.LINE].start[:40], end=0.1)
    monkeypatch.setitem(stiff.BY_NAME, stiff.LINE, short)
    monkeypatch.setattr(stiff, "off", lambda problem, end, rtol: torch.tensor(end))
    got, want = (stiff.measured(stiff.LINE, name, 1e-6) for name in (code, "scipy Radau"))
    assert float((got.error - want.error).abs().max()) < 1e-10  # both times rtol
    assert got.calls < want.calls or code == stiff.GMRES
