"""torchdiffeq in the solver's place: its gradient, counts and memory, and what is said where it lacks."""

from __future__ import annotations

import dataclasses
import importlib.util

import pytest
import torch
from planted_figures import planted as planted_figure

from adamode.reproduce import fig2, fig4, table1
from adamode.reproduce.machinery import theirs, training
from adamode.reproduce.machinery.figure import UNTOLD, Outcome
from adamode.reproduce.machinery.result import finished, reproduce
from adamode.reproduce.machinery.work import Allowed, Work
from adamode.train.step import solving_with

needs_it = pytest.mark.skipif(
    importlib.util.find_spec("torchdiffeq") is None, reason="torchdiffeq is not installed"
)
QUIET = Allowed(say=lambda words: None)
SMOKE = dataclasses.replace(
    table1.FIGURE.settings["smoke"], measured=("node", "hbnode", "adamnode"), batch_size=2
)


def work_in(folder, **allowed):
    quiet = dataclasses.replace(QUIET, **allowed)
    return Work(folder / "table1", folder / "runs", "smoke", quiet)


def run_of(model, folder):
    """An untrained run on the digits."""
    jobs = training.plan_runs(SMOKE, work_in(folder))
    return training.untrained(next(job.config for job in jobs if job.config.model == model))


def gradients(model):
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@needs_it
@pytest.mark.parametrize("model", ["hbnode", "adamnode"])
def test_its_step_has_our_gradient_and_counts_calls_of_f(model, tmp_path, monkeypatch):
    again = training.Again(run_of(model, tmp_path), work_in(tmp_path))
    again.model.double()
    x, y = next(again.batches(1, 2))
    x, block, calls = x.double(), again.model.block, []
    with solving_with(again.model, rtol=1e-7, atol=1e-7):
        ours = again.step(x, y)
        right = gradients(again.model)
        forward = block.dynamics.forward
        monkeypatch.setattr(block.dynamics, "forward", lambda t, z: (calls.append(t), forward(t, z))[1])
        found = theirs.their_step(again, x, y)
    assert again.model.block is block
    assert found.nfe_forward + found.nfe_backward == 2 * len(calls)  # a batch of two
    assert found.nfe_forward > 2 * 8
    assert found.nfe_backward > 2 * 8
    assert found.loss == pytest.approx(ours.loss, rel=1e-6)
    # The adjoint is the equation's, ours that of the steps; the ReLU's kinks part them (measured: .0017).
    off, size = (torch.cat([g.flatten() for g in part]) for part in (gradients(again.model), right))
    assert (off - size).norm() < 0.01 * size.norm()


@needs_it
def test_a_gradient_that_is_not_a_number_is_said(tmp_path, monkeypatch):
    run = run_of("adamnode", tmp_path)

    def spoilt(again, *arguments):
        first = next(again.model.parameters())
        first.grad = torch.full_like(first, torch.nan)

    monkeypatch.setattr(training.Again, "step", spoilt)
    row = table1.measured(run, table1.THEIRS, SMOKE, work_in(tmp_path))
    assert row["problem"] == "FloatingPointError: a gradient is not finite"
    assert row["peak_mib"] is None
    cost = fig2.torchdiffeq_cost(run, 1, work_in(tmp_path))
    assert (cost["nfe_forward"], cost["problem"]) == (None, row["problem"])


def test_where_it_is_not_installed_the_row_says_so_and_nothing_is_kept(tmp_path, monkeypatch):
    for module in (theirs, table1, fig2, fig4):
        monkeypatch.setattr(module, "installed", lambda: "")
    settings = dataclasses.replace(SMOKE, measured=("node", "adamnode"))
    outcome = table1.FIGURE.compute(settings, work_in(tmp_path, jobs=0))
    assert all(row["mib_torchdiffeq"] is None and row["mib_backsolve"] > 0 for row in outcome.rows)
    said = theirs.absent()
    assert "which is not installed: pip install torchdiffeq" in said
    assert outcome.findings.count(said) == 1
    of_cifar = Outcome([{**row, "dataset": "cifar10"} for row in outcome.rows])
    most, ratio, _, ours = table1.FIGURE.judge(dataclasses.replace(settings, stand_in=""), of_cifar)
    assert (most.verdict, most.ours, ratio.verdict, ratio.ours) == (UNTOLD, "none", UNTOLD, "not measured")
    assert ours.verdict != UNTOLD
    assert not list((tmp_path / "table1" / "parts").glob("*torchdiffeq*"))
    step = fig4._theirs(run_of("adamnode", tmp_path), fig4.FIGURE.settings["smoke"], work_in(tmp_path))
    assert step is None


def test_a_result_is_made_again_where_it_has_come_since(tmp_path, monkeypatch):
    figure = planted_figure("table1")
    monkeypatch.setattr(theirs, "installed", lambda: "")
    reproduce(figure, "smoke", tmp_path, QUIET)
    assert finished(figure, "smoke", tmp_path, QUIET) is not None
    monkeypatch.setattr(theirs, "installed", lambda: "0.2.5")
    assert finished(figure, "smoke", tmp_path, QUIET) is None
    result = reproduce(figure, "smoke", tmp_path, QUIET)
    assert result.versions["torchdiffeq"] == "0.2.5"
    assert finished(figure, "smoke", tmp_path, QUIET) is not None


def test_the_paper_s_memory_on_a_line_with_what_was_measured_is_told():
    paper = table1.PAPER_MIB
    rows = [{"mib_torchdiffeq": (mib - 2000) / 1.5, "paper_mib": mib} for mib in paper.values()]
    told = table1._like("cifar10", rows)
    assert "MiB of the 6 models are 2000 + 1.50 × those of torchdiffeq's adjoint here, to within 0." in told
    assert "brings the paper's ratios nearer to 1" in told
    assert "too few models" in table1._like("cifar10", rows[:2])
