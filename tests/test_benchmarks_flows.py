"""The benchmark of flows: its data, its flows' common start, and a few steps of it."""

import math

import pytest
import torch
from benchmark_package import benchmark_module

flows = benchmark_module("", "flows")


def test_a_checkerboard_is_uniform_on_its_dark_squares():
    x = flows.checkerboard(4000, torch.Generator().manual_seed(0))
    squares = ((x + 4) // 2).long()
    assert (squares.sum(1) % 2 == 0).all()
    counts = torch.bincount(squares[:, 0] * 4 + squares[:, 1], minlength=16)
    dark = counts[counts > 0].double()
    assert len(dark) == 8
    assert ((dark - 500).abs() < 4 * math.sqrt(500)).all()


def test_ours_and_theirs_begin_alike():
    pytest.importorskip("torchdiffeq")
    x = flows.checkerboard(8, torch.Generator().manual_seed(0))
    ours, theirs = (flows.build(name, 0).log_prob(x.clone()) for name in ("node", "torchdiffeq"))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_a_few_steps_make_a_line_each(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(flows, "DRAWS", 2)
    assert flows.main(["--flows", "node", "adamnode+q", "--steps", "2", "--picture", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert [line.split(" | ")[0] for line in lines] == ["| node", "| adamnode+q"]
    assert len(list(tmp_path.glob("*.png"))) == 2
