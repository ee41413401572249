"""The figures as Markdown: every claim and number is there, and no text of theirs can break a table."""

import dataclasses
import re

from planted_figures import planted

from adamode.reproduce.machinery.figure import HOLDS, UNTOLD, Claim, Outcome
from adamode.reproduce.machinery.report import write_report
from adamode.reproduce.machinery.result import reproduce
from adamode.reproduce.machinery.work import Allowed

ODD = Claim("a | b\nc", "1 %", "2 %", HOLDS, "because | of it")


def made(tmp_path, rows, variants=None):
    figure = planted(
        "fig1",
        compute=lambda settings, work: Outcome(rows, variants or {}, findings=("found\nout",)),
        judge=lambda s, o: [ODD],
    )
    reproduce(figure, "smoke", tmp_path, Allowed(say=lambda text: None))
    return figure


def test_claims_rows_and_pictures_are_told_and_cells_stay_cells(tmp_path, monkeypatch):
    rows = [{"model": "node", "square": 1.5}, {"model": "adamnode", "square": None}]
    figure = dataclasses.replace(made(tmp_path, rows), columns={"model": "model", "square": "what | it is"})
    monkeypatch.setattr("adamode.reproduce.machinery.report.load", lambda name: figure)
    write_report(tmp_path, "smoke")
    text = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert r"| a \| b c | 1 % | 2 % | **holds** | because \| of it |" in text
    assert "| model | what \\| it is |\n| --- | --- |\n| node | 1.5 |\n| adamnode | – |" in text
    assert "- found out" in text
    assert "    adamode reproduce fig1 --scale smoke" in text
    for picture in re.findall(r"\]\((\S+)\)", text):
        assert (tmp_path / picture).is_file()
    assert str(tmp_path) not in text


def test_a_long_table_stays_in_the_result(tmp_path, monkeypatch):
    figure = made(tmp_path, [{"model": "node", "square": float(i)} for i in range(43)])
    monkeypatch.setattr("adamode.reproduce.machinery.report.load", lambda name: figure)
    write_report(tmp_path, "smoke")
    assert "### Table" not in (tmp_path / "summary.md").read_text(encoding="utf-8")


def test_verdicts_after_each_epoch_are_a_table_by_steps(tmp_path, monkeypatch):
    about = {"claim": "it leads", "epoch": 1, "steps": 32, "of": 18_750}
    verdicts = [
        {**about, "ours": "+3 %", "verdict": UNTOLD, "but": "not learnt"},
        {**about, "epoch": 2, "steps": 64, "ours": "+9 %", "verdict": HOLDS, "but": ""},
    ]
    epochs = [{"dataset": "mnist", "verdicts": verdicts}, {"dataset": "cifar10", "verdicts": []}]
    figure = made(tmp_path, [{"model": "node", "square": 1.5}], {"epochs": epochs})
    monkeypatch.setattr("adamode.reproduce.machinery.report.load", lambda name: figure)
    page, _ = write_report(tmp_path, "smoke")
    text = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "### mnist: verdicts by the optimiser steps made, of the paper's 18,750" in text
    assert "| claim | 32 steps | 64 steps |\n| --- | --- | --- |\n" in text
    assert "| it leads | +3 %: cannot be told (not learnt) | +9 %: holds |" in text
    assert "cifar10: verdicts" not in text
    assert '<td class="untold" data-label="32 steps">' in page.read_text(encoding="utf-8")
