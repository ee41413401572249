"""The report of ``adamode verify --html``: each number beside the formula that it is the value of."""

from __future__ import annotations

import itertools

from .. import report as html
from .derivations import DERIVATIONS, GENERAL
from .layout import SHORT, VariantTable, variant_tables
from .rows import ModelReport

Column = tuple[str, str, str]  # form, gradient, reference
WIDEST = 8  # columns of numbers that fit 1280 pixels
PRINTED = "The printed forms of c, measured and not judged: a wrong gradient"
REFERENCES = (
    "autograd: plain backpropagation through the same steps.",
    "differences: central differences of fourth order through the same steps, along a random direction of "
    "the block or parameter.",
    "fine solve: autograd through a solve with DOP853 at a tolerance of 1e-12.",
    "analytic: the closed solution of the same model over an affine field (matrix exponential; for AdamODE, "
    "which is never linear, and for a damping that depends on time, integrals at W_h = 0; GHBNODE with tanh "
    "and GNesterovNODE with σ have none).",
)
GRADIENTS = (
    "discrete: the exact derivative of the steps, with kept stages, stages computed again, and checkpoints.",
    "reversible: the exact derivative of a pair's steps, with every state rebuilt from the last.",
    "interpolating: the adjoint ODE backwards, with z(t) from the forward pass.",
    "backsolve: state and adjoint backwards together.",
)


def html_page(report: ModelReport, settings: str) -> str:
    """The whole page. settings: one line on how it was made."""
    judged = sum(row.ok is not None for row in report.rows)
    verdict = (
        html.paragraph(f"All {judged} comparisons are within their bounds.", "ok")
        if report.ok
        else html.paragraph(f"{len(report.failures)} of {judged} comparisons miss their bounds.", "fails")
    )
    body = [html.paragraph(settings, "quiet"), verdict]
    if report.failures:
        body.append(html.items([row.failure() for row in report.failures]))
    body += [
        html.heading("What is checked"),
        html.formulas(GENERAL),
        html.paragraph(
            "Each cell is the largest relative error over both stepping modes (shared, per sample) and all "
            "methods and fields of this run: the difference at the worst entry, over the largest entry."
        ),
        html.items((*GRADIENTS, *REFERENCES)),
    ]
    for one in variant_tables(report):
        body += _variant(one)
    body += _errata(report)
    return html.page("adamode verify: the hand-derived gradients", body)


def _variant(one: VariantTable) -> list[str]:
    found = [html.heading(one.title), html.formulas(DERIVATIONS[one.model].equations)]
    for exact in (True, False):
        for i, columns in enumerate(_parts([c for c in one.columns if (c[0] == "exact") is exact])):
            caption = "" if exact or i else PRINTED
            found.append(_table(one, columns, caption, exact=exact, formulas=i == 0))
    return found


def _parts(columns: list[Column]) -> list[list[Column]]:
    """The columns of several tables that fit a screen; what is of one gradient stays together."""
    parts: list[list[Column]] = []
    for _, group in itertools.groupby(columns, lambda c: c[:2]):
        more = list(group)
        if parts and len(parts[-1]) + len(more) <= WIDEST:
            parts[-1] += more
        else:
            parts.append(more)
    return parts


def _table(one: VariantTable, columns: list[Column], caption: str, *, exact: bool, formulas: bool) -> str:
    """One table. formulas: whether it says what each quantity is."""
    named = ["", "what it is"] if formulas else [""]
    groups: list[tuple[str, int]] = [("", len(named))]
    for form, gradient, _ in columns:
        words = gradient if exact else f"{gradient}, form {form}"
        if groups[-1][0] == words:
            groups[-1] = (words, groups[-1][1] + 1)
        else:
            groups.append((words, 1))
    rows = []
    for quantity in one.quantities:
        cells = [one.cells.get((quantity, c)) for c in columns]
        numbers = [("–", "quiet") if c is None else (str(c), _kind(c.ok)) for c in cells]
        verdict = one.verdict(quantity) if exact else "not judged"
        kind = {"ok": "ok", "FAILS": "fails"}.get(verdict, "quiet")
        told = [(quantity, ""), (one.formula(quantity), "formula text")][: len(named)]
        rows.append([*told, *numbers, (verdict, kind)])
    if exact:
        empty = [("", "")] * (len(named) - 1)
        bounds = [(one.bound(c), "quiet") for c in columns]
        rows.append([("bound", "quiet"), *empty, *bounds, ("", "")])
    head = [*named, *(SHORT[c[2]] for c in columns), ""]
    return html.table(head, rows, caption, html.group_row([*groups, ("", 1)]))


def _kind(ok: bool | None) -> str:
    return "fails" if ok is False else ""


def _errata(report: ModelReport) -> list[str]:
    if not report.printed and not report.statements:
        return []
    found = [html.heading("The paper's printed adjoint"), html.items([e.sentence() for e in report.printed])]
    rows = []
    for s in report.statements:
        measured = "; ".join(f"{name}: {value:.2g}" for name, value in s.measured.items())
        kind = "fails" if s.verdict == "false" else "ok"
        rows.append([*((cell, "text") for cell in (s.where, s.claim)), (s.verdict, kind), (s.why, "text")])
        rows[-1].append((measured, "text"))
    return [*found, html.table(["place", "statement", "verdict", "why", "measured"], rows)]
