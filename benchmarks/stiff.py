"""``python -m benchmarks.stiff``: work and precision on stiff problems, beside scipy and diffrax.

Robertson's problem, HIRES, van der Pol's with ε = 1e-6 and the Brusselator on 500 points, to the ends whose
solutions are published, in float64 and on one thread. Calls of f are counted in f; the error is the largest
of a component over (floor + its size), the floor being what atol resolves. Of diffrax calls are counted in a
run of their own (those that XLA keeps; a Jacobian is one, whatever its columns), and time is that of a second
call.

Of the Brusselator's Jacobian ours, diffrax and scipy know nothing; "banded" is scipy told of its diagonals.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adamode import SolverError, solve
from adamode.plotting import LOOKS, save_figure
from adamode.verify.stiff import BY_NAME, off
from adamode.verify.stiff.problems import Stiff, hires, robertson

LINE = "brusselator_1d_hw"
CASES = {
    "robertson_hw": "Robertson to 1e11",
    "hires_hw": "HIRES",
    "vdpol_hw": "van der Pol, 1e-6",
    LINE: "Brusselator, 1000 numbers",
}
OURS, SCIPY, DIFFRAX = ("kvaerno5", "radau5", "auto"), ("Radau", "BDF", "LSODA"), "diffrax Kvaerno5"
GMRES, BANDED = "kvaerno5 gmres", tuple(f"scipy {name} banded" for name in SCIPY)
CODES = (*OURS, *(f"scipy {name}" for name in SCIPY), DIFFRAX)
CODES_LINE = ("kvaerno5", GMRES, "radau5", "auto", *(f"scipy {name}" for name in SCIPY), *BANDED, DIFFRAX)
RTOLS, RTOLS_LINE = (1e-4, 1e-6, 1e-8), (1e-4, 1e-6)
UNCOUNTED = ("vdpol_hw",)  # by diffrax: it does not arrive in 400,000 steps; counted, that is many minutes
BAND = 2  # of the Brusselator's Jacobian, on either side of the diagonal: u and v by turns
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "stiff-work-precision.png"


@dataclasses.dataclass(frozen=True)
class Point:
    """One solve; seconds: of the processor; error: NaN where the solve did not reach the end; calls: 0 where
    they were not counted."""

    problem: str
    code: str
    rtol: float
    error: float
    calls: int
    seconds: float


class Counted:
    """f, and how often it was called."""

    def __init__(self, problem: Stiff):
        self.problem, self.calls = problem, 0

    def __call__(self, t: Any, y: Any) -> torch.Tensor:
        self.calls += 1
        return self.problem.f(t, y)


def measured(name: str, code: str, rtol: float) -> Point:
    """One solve by one code."""
    problem = BY_NAME[name]
    if code == DIFFRAX:
        end, calls, seconds = by_diffrax(name, rtol)
    else:
        f = Counted(problem)
        begin = time.process_time()
        if code.startswith("scipy"):
            end = _scipys(problem, f, code.split()[1], rtol, banded=code in BANDED)
        else:
            end = _ours(problem, f, code, rtol)
        calls, seconds = f.calls, time.process_time() - begin
    error = math.nan if end is None else off(problem, end, rtol) * rtol
    return Point(name, code, rtol, error, calls, seconds)


def _ours(problem: Stiff, f: Counted, code: str, rtol: float) -> list[float] | None:
    method, linear_solver = ("kvaerno5", "gmres") if code == GMRES else (code, "lu")
    y0 = torch.tensor(problem.start, dtype=torch.float64)
    t = torch.tensor([0.0, problem.end], dtype=torch.float64)
    options = {"method": method, "linear_solver": linear_solver, "gradient": None}
    try:
        sol = solve(f, y0, t, rtol=rtol, atol=rtol * problem.floor, **options)
    except SolverError:
        return None
    return sol.y[-1].tolist()


def _scipys(
    problem: Stiff, f: Counted, method: str, rtol: float, *, banded: bool = False
) -> list[float] | None:
    from scipy.integrate import solve_ivp
    from scipy.sparse import diags_array

    def g(t: float, y: Any) -> Any:
        return f(t, torch.as_tensor(y)).numpy()

    known: dict[str, Any] = {}
    if banded and method == "LSODA":
        known = {"lband": BAND, "uband": BAND}
    elif banded:
        n = len(problem.start)
        ones, places = [np.ones(n - abs(k)) for k in range(-BAND, BAND + 1)], range(-BAND, BAND + 1)
        known = {"jac_sparsity": diags_array(ones, offsets=list(places), shape=(n, n))}
    tolerances = {"rtol": rtol, "atol": rtol * problem.floor}
    found = solve_ivp(g, (0.0, problem.end), problem.start, method, **tolerances, **known)
    return found.y[:, -1].tolist() if found.success else None


def in_jax(name: str) -> Callable[[Any], Any]:
    """A problem's right-hand side, y → dy/dt, of jax's arrays."""
    import jax.numpy as jnp

    def line(y: Any) -> Any:
        u, v = y[::2], y[1::2]
        reaction, n = u * u * v, u.shape[0]

        def spread(w: Any, edge: float) -> Any:
            return 0.02 * (n + 1) ** 2 * jnp.diff(jnp.pad(w, 1, constant_values=edge), 2)

        du = 1 + reaction - 4 * u + spread(u, 1.0)
        return jnp.stack((du, 3 * u - reaction + spread(v, 3.0)), -1).reshape(-1)

    columns: dict[str, Callable[..., Sequence[Any]]] = {
        "robertson_hw": robertson,
        "hires_hw": hires,
        "vdpol_hw": lambda a, b: (b, ((1 - a * a) * b - a) / 1e-6),
    }
    return line if name == LINE else lambda y: jnp.stack(columns[name](*y))


def by_diffrax(name: str, rtol: float) -> tuple[list[float] | None, int, float]:
    """The end, calls of f (of f's columns in a Jacobian none), seconds of a second call."""
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    problem, calls, own = BY_NAME[name], [0], in_jax(name)

    def count(t: Any) -> Any:
        calls[0] += 1
        return np.zeros(())

    @jax.custom_jvp
    def ticked(t: Any) -> Any:
        """0, and one call more; of a result that nobody wants it is left out, as f is."""
        return jax.pure_callback(count, jax.ShapeDtypeStruct((), jnp.float64), t, vmap_method="sequential")

    ticked.defjvp(lambda primals, tangents: (ticked(*primals), jnp.zeros(())))

    def run(counting: bool) -> Callable[[Any], Any]:
        def f(t: Any, y: Any, args: Any) -> Any:
            found = own(y)
            return found + ticked(t) if counting else found

        control = diffrax.PIDController(rtol=rtol, atol=rtol * problem.floor)
        return jax.jit(
            lambda y0: diffrax.diffeqsolve(
                diffrax.ODETerm(f), diffrax.Kvaerno5(), 0.0, problem.end, None, y0,
                stepsize_controller=control, max_steps=400_000, throw=False,
                saveat=diffrax.SaveAt(t1=True), adjoint=diffrax.DirectAdjoint(),
            )
        )  # fmt: skip

    y0 = jnp.asarray(problem.start, dtype=jnp.float64)
    if name not in UNCOUNTED:
        jax.block_until_ready(run(True)(y0).ys)
    timed = run(False)
    found = jax.block_until_ready(timed(y0))
    begin = time.process_time()
    jax.block_until_ready(timed(y0).ys)
    seconds = time.process_time() - begin
    reached = bool(found.result == diffrax.RESULTS.successful)
    return (found.ys[-1].tolist() if reached else None), calls[0], seconds


def table(points: Sequence[Point]) -> str:
    """Markdown: calls (error) milliseconds; the Brusselator, of other codes, has a table with a line each."""
    small = [p for p in points if p.problem != LINE]
    large = [p for p in points if p.problem == LINE]
    return "\n\n".join([*([_wide(small)] if small else []), *([_long(large)] if large else [])])


def _wide(points: Sequence[Point]) -> str:
    codes = [code for code in CODES if any(p.code == code for p in points)]
    lines = ["| problem | rtol | " + " | ".join(codes) + " |", "|---" * (len(codes) + 2) + "|"]
    for name, title in CASES.items():
        for rtol in sorted({p.rtol for p in points if p.problem == name}, reverse=True):
            found = {p.code: p for p in points if (p.problem, p.rtol) == (name, rtol)}
            cells = [_cell(found.get(code)) for code in codes]
            lines.append(f"| {title} | {rtol:.0e} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _long(points: Sequence[Point]) -> str:
    rtols = sorted({p.rtol for p in points}, reverse=True)
    lines = [f"| {CASES[LINE]} | " + " | ".join(f"{x:.0e}" for x in rtols) + " |"]
    lines.append("|---" * (len(rtols) + 1) + "|")
    for code in [code for code in CODES_LINE if any(p.code == code for p in points)]:
        found = {p.rtol: p for p in points if p.code == code}
        lines.append(f"| {code} | " + " | ".join(_cell(found.get(x)) for x in rtols) + " |")
    return "\n".join(lines)


def _cell(p: Point | None) -> str:
    if p is None:
        return "–"
    calls = f"{p.calls:,}" if p.calls else "?"
    return "not reached" if math.isnan(p.error) else f"{calls} ({p.error:.1e}) {1e3 * p.seconds:.0f}"


def draw(figure: Any, points: Sequence[Point]) -> None:
    """Calls and time over the error, a column a problem; the Brusselator has a table only."""
    names = [name for name in CASES if name != LINE and any(p.problem == name for p in points)]
    looks = [*LOOKS, {"color": "#8C6D1F", "marker": "*", "linestyle": (0, (3, 1, 1, 1))}]
    axes = figure.subplots(2, len(names), squeeze=False)
    for column, name in enumerate(names):
        for code, look in zip(CODES, looks, strict=True):
            found = [p for p in points if (p.problem, p.code) == (name, code) and p.error > 0]
            own = sorted(found, key=lambda p: p.rtol)
            for axis, key in zip(axes[:, column], ("calls", "seconds"), strict=True):
                axis.loglog([p.error for p in own], [getattr(p, key) for p in own], label=code, **look)
        for axis in axes[:, column]:
            axis.invert_xaxis()
        axes[0, column].set_title(CASES[name])
        axes[1, column].set_xlabel("error")
    axes[0, 0].set_ylabel("calls of f")
    axes[1, 0].set_ylabel("processor time, s")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(CODES))


def main() -> int:
    """Measures, prints the tables, and draws the picture where --picture asks for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--problem", choices=CASES, action="append")
    parser.add_argument("--code", choices=dict.fromkeys((*CODES, *CODES_LINE)), action="append")
    parser.add_argument("--rtol", type=float, action="append")
    parser.add_argument(
        "--keep", type=Path, help="a file of points, a line each: known ones are not measured"
    )
    parser.add_argument("--picture", action="store_true", help=f"write {PICTURE.name} in docs/images")
    given = parser.parse_args()
    torch.set_num_threads(1)
    points = kept(given.keep)
    for name in given.problem or CASES:
        for code in [x for x in _codes(name) if x in (given.code or _codes(name))]:
            for rtol in given.rtol or (RTOLS_LINE if name == LINE else RTOLS):
                if (name, code, rtol) not in {(p.problem, p.code, p.rtol) for p in points}:
                    points.append(measured(name, code, rtol))
                    print(points[-1], file=sys.stderr, flush=True)
                    keep(given.keep, points[-1])
    print(table(points))
    if given.picture:
        save_figure(PICTURE, lambda figure: draw(figure, points), size=(11, 6))
    return 0


def _codes(name: str) -> Sequence[str]:
    return CODES_LINE if name == LINE else CODES


def kept(path: Path | None) -> list[Point]:
    """The points of a file, none where there is no file."""
    if path is None or not path.exists():
        return []
    return [Point(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def keep(path: Path | None, point: Point) -> None:
    """Writes a point behind the others."""
    if path is not None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dataclasses.asdict(point)) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
