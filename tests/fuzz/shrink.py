"""A case that fails, made as plain as it can be and still fail."""

from __future__ import annotations

import dataclasses
import re

from .alphabet import Case, consistent
from .judge import Verdict, judge


def shrunk(case: Case) -> tuple[Case, Verdict]:
    """(the plainest case that fails alike, its verdict): each choice at its default where it can be."""
    plain, verdict = Case(case.seed, case.number), judge(case)
    names = [field.name for field in dataclasses.fields(Case) if field.name not in ("seed", "number")]
    for name in names * 2:
        if getattr(case, name) == getattr(plain, name):
            continue
        smaller = consistent(dataclasses.replace(case, **{name: getattr(plain, name)}))
        if smaller == case:
            continue
        found = judge(smaller)
        if subject(found) == subject(verdict):
            case, verdict = smaller, found
    return case, verdict


def subject(verdict: Verdict) -> str:
    """What a verdict is about, without its numbers: another fault has another one."""
    words = re.sub(r"[^A-Za-z/_ ]", "", verdict.what).split()
    return " ".join([verdict.kind, *words[:4]])
