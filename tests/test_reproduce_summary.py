"""The figures as Markdown: every claim and number is there, and no text of theirs can break a table."""

import dataclasses
import re

from planted_figures import planted

from adamode.reproduce.machinery.figure import HOLDS, Claim, Outcome
from adamode.reproduce.machinery.report import write_report
from adamode.reproduce.machinery.result import reproduce
from adamode.reproduce.machinery.work import Allowed

ODD = Claim("a | b\nc", "1 %", "2 %", HOLDS, "because | of it")


def made(tmp_path, rows):
    figure = planted(
        "fig1",
        compute=lambda settings, work: Outcome(rows, findings=("found\nout",)),
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
