"""``adamode inspect --adjoint``: the six models and other problems, what is written, refused, and kept."""

from __future__ import annotations

import csv
import json
import math

import pytest
import torch
from typer.testing import CliRunner

import adamode
from adamode.cli.app import app
from adamode.inspect.adjoint import study_adjoints
from adamode.inspect.dynamics import MODELS, Wanted, find_adjoint_problem, model_problem
from adamode.inspect.study import Settings
from adamode.models.denominators import DENOMINATORS

runner = CliRunner()
PNG = b"\x89PNG\r\n\x1a\n"
ALL = ("discrete", "interpolating", "backsolve")


def inspect(*arguments, folder):
    return runner.invoke(app, ["inspect", *arguments, "--adjoint", "--output-dir", str(folder)])


def files(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def written(folder, gradient):
    """(rows of the csv, rows of the steps, the json) of a gradient."""
    tables = []
    for suffix in (".csv", "-steps.csv"):
        with open(folder / f"adjoint-{gradient}{suffix}", encoding="utf-8", newline="") as file:
            tables.append(list(csv.DictReader(file)))
    return *tables, json.loads((folder / f"adjoint-{gradient}.json").read_text(encoding="utf-8"))


def file_names(gradients):
    suffixes = ("-steps.csv", ".csv", ".json")
    return sorted(["adjoint.png", *(f"adjoint-{g}{suffix}" for g in gradients for suffix in suffixes)])


LINEAR = '''
import torch

A = torch.tensor([[0.0, 1.0], [-2.0, -0.3]], dtype=torch.float64)


def swing(t, y):
    """y1' = y2, y2' = −2 y1 − 0.3 y2"""
    return A @ y
'''


def test_a_linear_problems_files_hold_the_transposed_exponential(tmp_path):
    (tmp_path / "own.py").write_text(LINEAR, encoding="utf-8")
    end, a = 3.0, torch.tensor([[0.0, 1.0], [-2.0, -0.3]], dtype=torch.float64)
    tight = ("--y0", "1,0.5", "--t-end", str(end), "--rtol", "1e-10", "--atol", "1e-10", "--seed", "5")
    result = inspect(f"{tmp_path / 'own.py'}:swing", *tight, folder=tmp_path)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "swing"
    assert files(folder) == file_names(ALL)
    assert (folder / "adjoint.png").read_bytes().startswith(PNG)
    w = torch.randn(2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    y0 = torch.tensor([1.0, 0.5], dtype=torch.float64)
    for gradient in ALL:
        rows, _, page = written(folder, gradient)
        assert (page["problem"], page["seed"], page["status"], page["failure"]) == ("swing", 5, "ok", None)
        for row, found in zip(rows, page["a"], strict=True):
            t = float(row["t"])
            expected = torch.matrix_exp(a.T * (end - t)) @ w
            assert (torch.tensor(found, dtype=torch.float64) - expected).abs().max() < 1e-8
            assert float(row["a"]) == pytest.approx(float(expected.square().mean().sqrt()), abs=1e-8)
            state = torch.matrix_exp(a * t) @ y0
            assert float(row["state"]) == pytest.approx(float(state.square().mean().sqrt()), abs=1e-8)
        assert float(rows[-1]["t"]) == 0.0
        assert page["start_gradient_norm"] == pytest.approx(float((torch.matrix_exp(a.T * end) @ w).norm()))
        assert ("off" in rows[0]) == (page["rebuilt"] is not None) == (gradient == "backsolve")
    assert max(float(row["off"]) for row in written(folder, "backsolve")[0]) < 1e-7


def test_the_steps_of_both_directions_stand_in_one_file(tmp_path):
    result = inspect("hbnode", "--gradient", "discrete,backsolve", "--rows", "3", folder=tmp_path)
    assert result.exit_code == 0, result.output
    for gradient in ("discrete", "backsolve"):
        _, steps, page = written(tmp_path / "hbnode", gradient)
        there = [row for row in steps if row["direction"] == "forward"]
        back = [row for row in steps if row["direction"] == "backward"]
        assert len(there) + len(back) == len(steps)
        assert [float(row["dt"]) for row in there] == [row["dt"] for row in page["forward"]]
        assert [float(row["t"]) for row in back] == [row["t"] for row in page["backward"]]
        assert float(back[0]["t"]) == 2.0
        assert sum(float(row["dt"]) for row in there if row["accepted"] == "1") == pytest.approx(2.0)
        assert sum(float(row["dt"]) for row in back if row["accepted"] == "1") == pytest.approx(-2.0)
        assert page["norms"].keys() >= {"a_h", "a_m", "state_h", "state_m"}
    assert "backward, backsolve\n" in result.stdout
    assert "backward, discrete\n" not in result.stdout  # the same steps


@pytest.mark.parametrize("name", MODELS)
def test_each_models_adjoints_agree_with_backpropagation_through_the_steps(name):
    problem = model_problem(name, seed=3)
    assert problem.loss == "L = w·h(T), w from N(0, 1)"
    assert problem.cotangent(3)[1, 1:].eq(0).all()
    settings = Settings(rtol=1e-8, atol=1e-8)
    studies = list(study_adjoints(problem, ALL, "dopri5", settings, seed=3))
    z0 = problem.z0.clone().requires_grad_()
    t = torch.tensor(problem.span, dtype=torch.float64)
    sol = adamode.solve(problem.func, z0, t, rtol=1e-8, atol=1e-8, gradient=adamode.Direct())
    (expected,) = torch.autograd.grad((sol.y * problem.cotangent(3)).sum(), z0)
    for study, bound in zip(studies, (1e-12, 1e-6, 1e-6), strict=True):
        off = (study.start_gradient - expected).norm() / expected.norm()
        assert off < bound
        assert study.difference == pytest.approx(float(off), abs=1e-11)
        assert set(study.way.norms()) >= {f"a, {block}" for block in problem.blocks}


@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_adamnode_has_its_three_denominators(denominator):
    problem = model_problem("adamnode", denominator=denominator)
    assert problem.func.denominator == denominator
    assert problem.z0[2].min() > 0
    (study,) = study_adjoints(problem, ["interpolating"], "tsit5", Settings(rtol=1e-8, atol=1e-8))
    assert 0 < study.difference < 1e-6


def test_one_seed_gives_one_problem_and_another_seed_another():
    first, again, other = (model_problem("adamnode", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.z0, again.z0)
    same = zip(first.func.theta(), again.func.theta(), strict=True)
    assert all(torch.equal(x, y) for x, y in same)
    assert not torch.equal(first.z0, other.z0)
    assert not torch.equal(first.func.theta()[2], other.func.theta()[2])


CONTRACTS = "def contracts(t, y):\n    return -50.0 * y\n"


def test_a_reverse_solve_that_fails_ends_with_1_and_the_others_are_drawn(tmp_path):
    (tmp_path / "own.py").write_text(CONTRACTS, encoding="utf-8")
    name = f"{tmp_path / 'own.py'}:contracts"
    result = inspect(name, "--y0", "1", "--t-end", "3", folder=tmp_path)
    assert result.exit_code == 1
    assert "error: backsolve: " in result.stderr
    assert "backsolve: backsolve" not in result.stderr
    assert "Discrete()" in result.stderr
    folder = tmp_path / "contracts"
    assert files(folder) == file_names(ALL)
    rows, steps, page = written(folder, "backsolve")
    assert page["failure"].removeprefix("backsolve: ") in result.stderr
    assert rows
    assert {row["direction"] for row in steps} == {"forward", "given up", "backward"}
    assert page["status"] != "ok"
    for gradient in ("discrete", "interpolating"):
        assert written(folder, gradient)[2]["status"] == "ok"
    line = next(line for line in result.stdout.splitlines() if line.startswith("backsolve"))
    assert page["status"] in line


def test_a_forward_solve_that_fails_says_so_and_ends_with_1(tmp_path):
    result = inspect("blow-up", "--t-end", "5", folder=tmp_path)
    assert result.exit_code == 1
    assert "error: the forward solve: STEP_UNDERFLOW at t=1.57" in result.stderr
    assert "without --adjoint draws how far it came" in result.stderr
    assert files(tmp_path) == []


def test_a_small_limit_on_steps_stops_a_reverse_solve_where_it_is():
    problem = model_problem("adamnode")
    (study,) = study_adjoints(problem, ["interpolating"], "dopri5", Settings(max_steps=13))
    assert study.status == "MAX_STEPS"
    assert study.start_gradient is None
    assert math.isnan(study.difference)
    assert len(study.way.backward) == 13


OWN = '''
import torch
from torch import nn
import adamode
from adamode.inspect.dynamics import AdjointProblem


class Spiral(nn.Module, adamode.Dynamics):
    """h' = −m,  m' = κ h"""

    blocks = ("h", "m")

    def __init__(self):
        super().__init__()
        self.kappa = nn.Parameter(torch.tensor(2.0))

    def theta(self):
        return (self.kappa,)

    def forward(self, t, z):
        return torch.stack((-z[1], self.kappa * z[0])), z

    def vjp(self, z, a):
        return torch.stack((self.kappa * a[1], -a[0])), (a[1] * z[0]).flatten(1).sum(1)

    def parameter_gradients(self, saved, deltas, weights):
        found = torch.stack(deltas)
        return ((found if weights is None else found * weights.reshape(len(found), -1)).sum(),)


spiral = Spiral()


def batched():
    return AdjointProblem("pair", Spiral(), torch.ones(2, 3, 1), (0.0, 1.0))
'''


def test_a_dynamics_of_ones_own_is_studied_in_float64_and_left_as_it_is(tmp_path):
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    place = tmp_path / "own.py"
    found = find_adjoint_problem(f"{place}:spiral", Wanted(y0=[1.0, 2.0, 0.0, 0.5], t_end=1.0))
    assert found.z0.tolist() == [[[1.0, 2.0]], [[0.0, 0.5]]]
    assert found.func.kappa.dtype == torch.float64
    result = inspect(f"{place}:spiral", "--y0", "1,0", "--t-end", "1", folder=tmp_path)
    assert result.exit_code == 0, result.output
    assert "spiral: h' = −m, m' = κ h" in result.stdout
    a = torch.tensor([[0.0, -1.0], [2.0, 0.0]], dtype=torch.float64)
    w = torch.randn(2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.matrix_exp(a.T) @ torch.tensor([float(w[0]), 0.0], dtype=torch.float64)
    for gradient in ALL:
        page = written(tmp_path / "spiral", gradient)[2]
        assert torch.tensor(page["start_gradient"]).flatten().tolist() == pytest.approx(
            expected.tolist(), abs=1e-5
        )
    pair = find_adjoint_problem(f"{place}:batched", Wanted(t_end=0.5))
    assert (pair.name, pair.span, pair.z0.dtype) == ("pair", (0.0, 0.5), torch.float64)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["adamnod"], "did you mean 'adamnode'"),
        (["lorenzz"], "did you mean 'lorenz'"),
        (["adamnode", "--gradient", "backsolv"], "did you mean 'backsolve'"),
        (["adamnode", "--gradient", "direct"], "no adjoint to show"),
        (["adamnode", "--gradient", ","], "--gradient=','"),
        (["adamnode", "--denominator", "sigmoidd"], "did you mean 'sigmoid'"),
        (["hbnode", "--denominator", "sigmoid"], "only adamnode has"),
        (["adamnode", "--method", "dopri5,tsit5"], "give one method"),
        (["adamnode", "--method", "dopri6"], "did you mean 'dopri8' or 'dopri5'"),
        (["adamnode", "--progress"], "--progress"),
        (["adamnode", "--y0", "1,2"], "y0 has 2 numbers; adamnode has 36"),
        (["lorenz", "--y0", "1,2"], "y0 has 2 numbers"),
        (["adamnode", "--t-end", "0"], "an end that is not the start"),
        (["adamnode", "--rtol", "0"], "rtol=0.0"),
        (["own.py:spiral"], "give its start and end"),
        (["own.py:spiral", "--y0", "1,2,3", "--t-end", "1"], "2 blocks"),
        (["own.py:spirall"], "did you mean 'spiral'"),
    ],
)
def test_a_wrong_call_says_what_is_wrong_writes_nothing_and_ends_with_2(
    arguments, says, tmp_path, monkeypatch
):
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    result = inspect(*arguments, folder=tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert files(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["lorenz", "--gradient", "discrete"], "--gradient='discrete' needs --adjoint"),
        (["lorenz", "--seed", "1"], "--seed=1 needs --adjoint"),
        (["adamnode"], "add --adjoint"),
    ],
)
def test_what_belongs_to_the_adjoint_needs_it(arguments, says, tmp_path):
    result = runner.invoke(app, ["inspect", *arguments, "--output-dir", str(tmp_path)])
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert files(tmp_path) == []


def test_quiet_prints_the_summary_only(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    result = inspect("node", "--gradient", "interpolating", "--quiet", folder=tmp_path)
    assert result.exit_code == 0, result.output
    lines = result.stdout.strip().splitlines()
    assert lines[0].split()[:2] == ["gradient", "status"]
    assert lines[2].split()[:2] == ["interpolating", "ok"]
    assert lines[2].split()[-2:] == ["1e-06", "1e-08"]
    assert 0 < float(lines[2].split()[-3]) < 1e-5  # of the discrete one, which is computed for it
    assert lines[-1] == f"written   {tmp_path / 'node'}"
    assert files(tmp_path / "node") == file_names(["interpolating"])


def test_ctrl_c_in_a_later_gradient_keeps_the_files_of_the_earlier(tmp_path, monkeypatch):
    def interrupt(*arguments, gradient, **more):
        if isinstance(gradient, adamode.Backsolve):
            raise KeyboardInterrupt
        return real(*arguments, gradient=gradient, **more)

    from adamode.inspect import adjoint

    real = adjoint.adjoint_trajectory
    monkeypatch.setattr(adjoint, "adjoint_trajectory", interrupt)
    result = inspect("node", folder=tmp_path)
    assert result.exit_code == 130
    expected = set(file_names(["discrete", "interpolating"])) - {"adjoint.png"}
    assert set(files(tmp_path / "node")) == expected


def test_a_logarithmic_time_and_a_float32_state_are_drawn(tmp_path):
    few = ("--t-end", "0.3", "--gradient", "discrete,interpolating", "--rows", "0")
    result = inspect("robertson", "--dtype", "float32", "--rtol", "1e-3", *few, folder=tmp_path)
    assert result.exit_code == 0, result.output
    assert files(tmp_path / "robertson") == file_names(["discrete", "interpolating"])


def test_the_help_says_what_the_adjoint_is_and_which_models_there_are():
    result = runner.invoke(app, ["inspect", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == 0
    for word in ("--adjoint", "--gradient", "--seed", "--denominator", *MODELS):
        assert word in result.stdout
