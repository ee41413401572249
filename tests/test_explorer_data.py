"""The numbers in an explorer's page are those of the trace, for every kind of solve; no browser is needed."""

import base64
import csv
import io
import json
import math
import re

import numpy as np
import pytest
import torch
from problems import f64
from virtual_device import VirtualDevice, there

import adamode
from adamode import Direct, Discrete, Event, Impulse, Reversible, Signal, SolverError
from adamode.inspect.catalogue import find_problem
from adamode.inspect.explorer.page import explore
from adamode.inspect.explorer.studies import write_study
from adamode.inspect.study import Settings, study
from adamode.inspect.tables import trace_csv
from adamode.models.dynamics import HeavyBallODE
from adamode.models.fields import MLP
from adamode.solvers.errors import ArgumentError, ArgumentTypeError

D = torch.float64


def van_der_pol(t, y):
    a, b = y.unbind(-1)
    return torch.stack((b, 5 * (1 - a * a) * b - a), -1)


def wave(t, y):
    return -y + torch.sin(3 * t) * y


def data_of(path):
    """The data that stand in a page."""
    text = path.read_text(encoding="utf-8")
    assert "http" not in re.sub(r"http://www\.w3\.org/\S*", "", text)  # nothing is fetched
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def vectors(data, name, *shape):
    raw = np.frombuffer(base64.b64decode(data["vectors"][name]), dtype="<f8")
    return raw.reshape(len(data["columns"]["t"]), *shape)


def number(x):
    return math.nan if x is None else x


def check(data, trace):
    """Columns against the trace's rows; stages against their norms; the decision against the controller's."""
    columns, n = data["columns"], len(data["columns"]["t"])
    c, stages, errors = len(data["labels"]), data["vectors"]["stages"], data["vectors"]["errors"]
    y0, k = vectors(data, "y0", c), vectors(data, "k", stages, c)
    error, scale = vectors(data, "error", errors, c), vectors(data, "scale", c)
    assert n > 0
    for i in range(n):
        row = trace[columns["number"][i] - 1]
        for name in ("t", "dt", "error_ratio", "factor", "y_norm", "stiffness"):
            assert number(columns[name][i]) == pytest.approx(getattr(row, name), rel=0, abs=0, nan_ok=True)
        assert (columns["accepted"][i], columns["nfe"][i], columns["sample"][i]) == (
            row.accepted,
            row.nfe,
            row.sample,
        )
        if c == data["entries"]:
            assert np.sqrt(np.mean(y0[i] ** 2)) == pytest.approx(row.y_norm, rel=1e-12)
            norms = np.sqrt(np.mean(k[i, : len(row.stage_norms)] ** 2, axis=1))
            assert norms == pytest.approx(np.array(row.stage_norms), rel=1e-12, nan_ok=True)
        if errors == 1 and data["norm"] == "rms" and c == data["entries"] and math.isfinite(row.error_ratio):
            own = np.sqrt(np.mean((error[i, 0] / scale[i]) ** 2))
            assert own == pytest.approx(row.error_ratio, rel=1e-5 if data["dtype"] == "float32" else 1e-10)


def page_of(tmp_path, f=van_der_pol, y0=None, t=(0.0, 3.0), **options):
    """A solve, its page's data checked against its trace."""
    y0 = f64(2.0, 0.0) if y0 is None else y0
    sol = adamode.solve(f, y0, f64(*t) if isinstance(t, tuple) else t, trace=True, **options)
    data = data_of(sol.explore(tmp_path / "solve.html"))
    check(data, sol.trace)
    return data, sol


def with_jump(t, y):
    return -y + torch.where(t < 1.5, 0.0, 5.0)


def oscillator(t, y):
    return {"x": y["v"], "v": -y["x"]}


B2 = f64([2.0, 0.0], [0.5, 1.0], [1.0, -1.0])
FIELD = MLP(3, (8,)).double()
HEAVY = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=D)
PER = {"stepping": "per_sample"}
SOLVES = {
    "dopri5": {},
    "backwards in time": {"t": (3.0, 0.0), "y0": f64(0.2, 0.1)},
    "float32": {"y0": torch.tensor([2.0, 0.0]), "rtol": 1e-4},
    "bosh3, I": {"method": "bosh3", "controller": adamode.I()},
    "a PID of three terms": {"controller": adamode.PID(pcoeff=0.3, icoeff=0.3, dcoeff=0.1)},
    "dop853, two estimates": {"method": "dop853"},
    "radau5": {"method": "radau5"},
    "kvaerno5": {"method": "kvaerno5"},
    "rodas5p": {"method": "rodas5p"},
    "auto": {"method": "auto", "t": (0.0, 12.0)},
    "alf": {"method": "alf", "f": wave, "gradient": Reversible(), "t": (0.0, 0.5)},
    "a pair": {"f": wave, "gradient": Reversible(), "t": (0.0, 1.0)},
    "Direct": {"gradient": Direct()},
    "fixed": {"dt": 0.1, "method": "rk4"},
    "fixed, implicit": {"dt": 0.1, "method": "radau5"},
    "max norm": {"norm": "max"},
    "dt_max": {"controller": adamode.PID(dt_max=0.05)},
    "output times and a stop": {"t": f64(*np.linspace(0, 3, 30)), "step_at": [1.234]},
    "a jump": {"f": with_jump, "y0": f64(1.0), "jump_at": [1.5]},
    "an event": {"f": wave, "y0": f64(1.0, 2.0), "events": Event(lambda t, y: y[0] - 0.4)},
    "resets": {"f": wave, "y0": f64(1.0), "events": [Impulse(f64(0.7, 1.9), lambda t, y: y + 1.0)]},
    "a signal": {
        "f": lambda t, y, u: u - y,
        "y0": f64(1.0),
        "signal": Signal(f64(0.0, 1.0, 3.0), f64([0.0], [2.0], [1.0])),
    },
    "per sample": {"y0": B2, **PER},
    "per sample, radau5": {"y0": B2, "method": "radau5", **PER},
    "per sample, compact": {"y0": B2, "compact": True, "t": f64([0, 3], [0, 1], [2, 0.5]), **PER},
    "groups": {"y0": B2, "stepping": torch.tensor([0, 1, 0])},
    "state [B]": {"f": wave, "y0": f64(1.0, 2.0, 3.0), **PER},
    "0-d": {"f": lambda t, y: -y, "y0": torch.tensor(1.0, dtype=D)},
    "a dict": {"f": oscillator, "y0": {"x": f64(1.0), "v": f64(0.0)}},
    "complex": {"f": lambda t, y: 1j * y, "y0": torch.tensor([1 + 0j, 2j])},
    "a dynamics": {"f": HeavyBallODE(FIELD, gamma=0.4), "y0": HEAVY},
    "a dynamics, per sample": {"f": HeavyBallODE(FIELD, gamma=0.4), "y0": HEAVY, **PER},
    "tolerances by entry": {"rtol": f64(1e-4, 1e-6), "atol": f64(1e-6, 1e-8)},
    "tolerances by sample": {"y0": B2, "atol": f64([1e-6], [1e-8], [1e-7]), **PER},
    "more entries than are kept": {"f": wave, "y0": torch.linspace(1, 2, 200, dtype=D)},
    "many samples": {"f": wave, "y0": torch.linspace(1, 2, 400, dtype=D).reshape(40, 10), **PER},
    "queued": {"sync_every": 4, "y0": B2},
}


@pytest.mark.parametrize("name", SOLVES)
def test_a_page_has_the_numbers_of_its_trace(name, tmp_path):
    options = SOLVES[name]
    data, sol = page_of(tmp_path, **options)
    assert data["failure"] is None
    if name not in ("resets", "groups"):
        assert all(d["agrees"] for d in data["decisions"]), (
            "the controller's own code, on the trace's numbers"
        )
    if data["spectra"]["of"][0] is None:
        assert "more entries" in name or "many" in name, data["spectra"]["said"]
    assert len(sol.trace) == data["all"]


def test_the_columns_are_those_of_the_csv(tmp_path):
    one = study(find_problem("van-der-pol"), "dopri5", Settings())
    data = data_of(write_study(tmp_path / "page.html", one))
    rows = list(csv.DictReader(io.StringIO(trace_csv(one))))
    assert len(rows) == data["all"] == len(data["columns"]["t"])
    for name in ("t", "dt", "error_ratio", "factor", "nfe", "y_norm", "stiffness"):
        assert [float(row[name]) for row in rows] == data["columns"][name]
    assert [bool(int(row["accepted"])) for row in rows] == data["columns"]["accepted"]
    k = vectors(data, "k", data["vectors"]["stages"], 2)
    for i in range(7):
        norms = [float(row[f"k{i + 1}"]) for row in rows]
        assert np.sqrt(np.mean(k[:, i] ** 2, axis=1)) == pytest.approx(np.array(norms), rel=1e-12)


@pytest.mark.parametrize("method", ["dopri5", "dop853", "radau5"])
def test_the_dense_output_of_the_page_is_the_solutions(method, tmp_path):
    data, sol = page_of(tmp_path, method=method, dense=True)
    y0, k = vectors(data, "y0", 2), vectors(data, "k", data["vectors"]["stages"], 2)
    rows = data["methods"][method]["dense"]
    for i in range(0, data["all"], 5):
        if data["columns"]["accepted"][i]:
            t, dt, theta = data["columns"]["t"][i], data["columns"]["dt"][i], 0.3
            weights = [sum(w * theta ** (p + 1) for p, w in enumerate(row)) for row in rows]
            own = y0[i] + dt * np.array(weights) @ k[i, : len(weights)]
            assert own == pytest.approx(sol(f64(t + theta * dt))[0].numpy(), rel=1e-9, abs=1e-12)


def test_the_eigenvalues_are_those_of_the_jacobian(tmp_path):
    data, _ = page_of(tmp_path)
    y0, values = vectors(data, "y0", 2), data["spectra"]["values"]
    for i in range(0, data["all"], 9):
        a, b = y0[i]
        jacobian = np.array([[0.0, 1.0], [-10 * a * b - 1, 5 * (1 - a * a)]])
        found = [complex(*z) for z in values[data["spectra"]["of"][i]]]
        assert sorted(found, key=abs) == pytest.approx(sorted(np.linalg.eigvals(jacobian), key=abs), rel=1e-9)


def test_newtons_corrections_are_told_of_each_system(tmp_path):
    data, sol = page_of(tmp_path, method="kvaerno5", t=(0.0, 1.0))
    for systems in data["newton"]["systems"]:
        assert len(systems) == 6  # a system for each implicit stage
        assert all(1 <= len(sizes) <= 10 for sizes in systems)
    assert sum(data["newton"]["renewed"]) == sol.stats.n_jacobians


def test_an_iteration_that_failed_is_told(tmp_path):
    one = study(find_problem("robertson"), "radau5", Settings())
    data = data_of(write_study(tmp_path / "page.html", one))
    check(data, one.rows)
    kappa, newton = data["newton"]["kappa"], data["columns"]["newton"]
    assert sum(newton) == one.stats.n_newton > 0
    for (sizes,), unsolved in zip(data["newton"]["systems"], newton, strict=True):
        if unsolved:
            assert sizes[-1] > kappa
        else:
            assert len(sizes) == 1 or sizes[-1] < sizes[0]
    assert {d["kind"] for d in data["decisions"]} == {"accepted", "rejected", "newton"}
    assert all(d["agrees"] for d in data["decisions"])


def test_a_failed_solve_has_a_page(tmp_path):
    with pytest.raises(SolverError) as caught:
        adamode.solve(lambda t, y: 1 + y * y, f64(0.0), f64(0.0, 2.0), trace=True)
    data = data_of(explore(caught.value, tmp_path / "failed.html"))
    check(data, caught.value.trace)
    assert data["status"] == "STEP_UNDERFLOW"
    assert str(caught.value) == data["failure"]
    assert not data["columns"]["accepted"][-1]


@pytest.mark.parametrize("gradient", [Discrete(), adamode.Interpolating(), adamode.Backsolve(), Reversible()])
def test_the_way_back_is_that_of_the_gradient(gradient, tmp_path):
    func = HeavyBallODE(FIELD, gamma=0.4)
    y0 = HEAVY.clone().requires_grad_()
    sol = adamode.solve(func, y0, f64(0.0, 0.5, 1.0), trace=True, gradient=gradient)
    cotangent = torch.randn(sol.y.shape, generator=torch.Generator().manual_seed(1), dtype=D)
    data = data_of(sol.explore(tmp_path / "back.html", cotangent=cotangent))
    sol.y.backward(cotangent)
    (way,) = data["ways"]
    assert way["blocks"] == ["h", "m"]
    assert (way["t"][0], way["t"][-1]) == (1.0, 0.0)
    entries = (y0.grad - cotangent[0]).reshape(2, -1)  # the last row is before the start's own cotangent
    for block in range(2):
        shown = len(way["labels"][block])
        assert way["a"][-1][block] == pytest.approx(entries[block, :shown].tolist(), rel=1e-9)
        rms = float(entries[block].square().mean().sqrt())
        assert way["norms"][f"a_{way['blocks'][block]}"][-1] == pytest.approx(rms, rel=1e-9)
    vjps = way["vjps"]
    assert len(vjps["t"]) == sol.stats.nfe_backward
    assert 0 <= len(vjps["t"]) - way["steps"]["nfe"][-1] <= 1  # the discrete one's last is after its steps
    assert all(0.0 <= t <= 1.0 for t in vjps["t"])
    # The first VJP is of the end's own cotangent, but for the step's weight in the discrete adjoint.
    if isinstance(gradient, adamode.Interpolating | adamode.Backsolve):
        first = cotangent[-1].reshape(2, -1).square().mean(1).sqrt().tolist()
        assert vjps["cotangent"][0] == pytest.approx(first, rel=1e-9)
    assert ("off_h" in way["norms"]) == isinstance(gradient, adamode.Backsolve | Reversible)


def test_what_cannot_be_shown_is_refused_by_name(tmp_path):
    y0, t = f64(1.0), f64(0.0, 1.0)
    page = tmp_path / "x.html"
    untraced = adamode.solve(wave, y0, t)
    traced = adamode.solve(wave, y0, t, trace=True, gradient=None)
    many = adamode.solve(wave, y0, t, trace=True, stepping="per_sample")
    with pytest.raises(ArgumentError, match="trace=True"):
        untraced.explore(page)
    with pytest.raises(ArgumentError, match="gradient=None"):
        traced.explore(page, cotangent=torch.ones(2, 1, dtype=D))
    with pytest.raises(ArgumentError, match="per sample"):
        many.explore(page, cotangent=torch.ones(2, 1, dtype=D))
    with pytest.raises(ArgumentError, match="no folder"):
        traced.explore(tmp_path / "not" / "there.html")
    for folder in (tmp_path, ""):
        with pytest.raises(ArgumentError, match="is a folder; give a file in it"):
            traced.explore(folder)
    with pytest.raises(ArgumentTypeError, match="path=None"):
        traced.explore(None)
    turning = adamode.solve(lambda t, y: 1j * y, y0 + 0j, t, trace=True)
    with pytest.raises(ArgumentError, match="complex state"):
        turning.explore(page, cotangent=torch.ones(2, 1, dtype=torch.complex128))
    with pytest.raises(ArgumentTypeError, match="Solution"):
        explore(traced.trace, page)
    assert not page.exists()


def test_a_page_of_500_attempts_stays_below_a_megabyte(tmp_path):
    for n, method in ((64, "dopri5"), (2, "dop853")):
        y0 = torch.linspace(1, 2, n, dtype=D)
        sol = adamode.solve(wave, y0, f64(0.0, 5.0), dt=0.01, trace=True, method=method)
        path = sol.explore(tmp_path / "long.html")
        data = data_of(path)
        assert len(data["columns"]["t"]) == 500
        assert path.stat().st_size < 1_000_000
        check(data, sol.trace)


def test_words_of_the_user_are_no_part_of_the_page(tmp_path):
    def f(t, y):
        return -y

    f.__name__ = "</script><script>alert(1)</script>{{data}}"
    sol = adamode.solve(f, f64(1.0), f64(0.0, 1.0), trace=True)
    data = data_of(sol.explore(tmp_path / "words.html"))
    assert data["words"]["title"] == f.__name__
    text = (tmp_path / "words.html").read_text(encoding="utf-8")
    assert text.count("<script") == 2


def test_a_trace_keeps_a_bounded_number_of_vectors(tmp_path):
    sol = adamode.solve(wave, f64(1.0), f64(0.0, 26.0), dt=0.01, method="euler", trace=True, gradient=None)
    assert len(sol.trace) == 2600
    known = [i for i, seen in enumerate(sol.trace.seen) if seen is not None]
    assert known == [*range(1000), *range(1600, 2600)]
    data = data_of(sol.explore(tmp_path / "page.html"))
    assert data["columns"]["number"] == [*range(1, 751), *range(1851, 2601)]
    check(data, sol.trace)


def test_a_solve_under_a_transform_has_a_trace_and_no_page(tmp_path):
    kept = []

    def end(y0):
        kept.append(adamode.solve(wave, y0, f64(0.0, 1.0), trace=True))
        return kept[0].y[-1]

    torch.func.jvp(end, (f64(1.0),), (f64(1.0),))
    assert kept[0].trace[0].accepted
    with pytest.raises(ArgumentError, match=r"torch\.func"):
        kept[0].explore(tmp_path / "page.html")


@pytest.mark.parametrize("options", [{}, {"method": "dop853"}, PER], ids=["dopri5", "dop853", "per sample"])
def test_a_solve_elsewhere_has_the_page_of_one_here(options, tmp_path):
    y0 = f64([2.0, 0.0], [0.5, 1.0])
    own = adamode.solve(van_der_pol, y0, f64(0.0, 0.5), trace=True, gradient=None, **options)
    page = data_of(own.explore(tmp_path / "here.html"))
    with VirtualDevice():
        far = adamode.solve(van_der_pol, there(y0), f64(0.0, 0.5), trace=True, gradient=None, **options)
        other = data_of(far.explore(tmp_path / "there.html"))
    check(other, own.trace)
    assert other["spectra"] == page["spectra"]
    assert other["vectors"] == page["vectors"]
