"""``python -m benchmarks.speed.page FILE.json …``: writes what was measured into docs/speed.md.

Each file is one that ``python -m benchmarks --json FILE`` wrote; the words of the page are a person's.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..adjoints.page import write

PAGE = Path(__file__).parents[2] / "docs" / "speed.md"
Row = dict[str, Any]


def _milliseconds(row: Row, clock: str) -> float:
    return 1e3 * statistics.median(sample[clock] for sample in row["samples"])


def _quartiles(row: Row, clock: str) -> str:
    values = sorted(1e3 * sample[clock] for sample in row["samples"])
    if len(values) < 4:
        return ""
    low, _, high = statistics.quantiles(values, n=4)
    return f"{low:.3g}–{high:.3g}"


def _number(value: Any, form: str = "{:,}") -> str:
    return "" if value is None else form.format(value)


def table(case: dict[str, Any]) -> str:
    """One case as Markdown: a way a line, those that could not run with their reason."""
    clock, lines = case["clock"], []
    unit = "wall ms" if clock == "wall" else "CPU ms"
    head = f"| way | {unit} | quartiles | rounds | gradient error | f | f again | VJPs | first call, s |"
    rows = [row for row in case["rows"] if row["samples"]]
    for row in rows:
        error = row.get("error")
        cells = (
            row["way"],
            f"{_milliseconds(row, clock):.3g}",
            _quartiles(row, clock),
            str(len(row["samples"])),
            "" if error is None else f"{error:.1e}",
            *(_number(row.get("counts", {}).get(key)) for key in ("nfe", "nfe_backward", "vjps")),
            _number(row.get("first"), "{:.0f}"),
        )
        lines.append("| " + " | ".join(cells) + " |")
    missing = [f"{row['way']}: {row['reason']}" for row in case["rows"] if not row["samples"]]
    text = "\n".join([head, "|" + "---|" * 9, *lines])
    return text + ("\n\nNot measured: " + "; ".join(missing) + "." if missing else "")


def main(paths: Sequence[str]) -> None:
    """Fills the page from the files."""
    parts: dict[str, str] = {}
    for path in paths:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        parts["machine"] = f"{found['machine']}; load when it began: {found['load']:.1f}."
        for case in found["cases"]:
            parts[case["case"]] = table(case)
    write(PAGE, parts)


if __name__ == "__main__":
    main(sys.argv[1:])
