"""The catalogue of problems: closed solutions, constants, names, and a user's own."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from adamode.inspect.catalogue import PROBLEMS, find_problem
from adamode.inspect.detest import _GRAVITY, _PLANETS, _SUN, DETEST, c5
from adamode.inspect.problem import Problem
from adamode.inspect.reference import find_reference
from adamode.solvers.errors import ArgumentError, ArgumentTypeError

CLOSED = [problem for problem in PROBLEMS.values() if problem.solution is not None]


@pytest.mark.parametrize("problem", CLOSED, ids=lambda problem: problem.name)
def test_a_closed_solution_starts_at_y0_and_solves_the_equation(problem):
    end = 1.5 if problem.name == "blow-up" else problem.span[1]
    times = (problem.span[0], end / 2, end)
    assert problem.solution(times[0]) == pytest.approx(problem.y0, rel=1e-14, abs=1e-14)
    scipys = find_reference(dataclasses.replace(problem, solution=None), times)
    # Measured: 8.3e-11 in detest-d5, whose orbit at ε = 0.9 magnifies the reference's own 1e-13.
    assert max(find_reference(problem, times).errors(scipys.values)) < 2e-10


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=lambda problem: problem.name)
def test_every_problem_has_an_equation_a_source_and_a_finite_start(problem):
    y0 = problem.state(torch.float64)
    dy = problem.f(torch.tensor(problem.span[0], dtype=torch.float64), y0)
    assert dy.shape == y0.shape
    assert bool(torch.isfinite(dy).all())
    assert "'" in problem.equation
    assert problem.source


def test_detest_has_its_25_problems_five_a_class():
    names = [f"detest-{letter}{i}" for letter in "abcde" for i in range(1, 6)]
    assert [problem.name for problem in DETEST] == names


def test_the_five_planets_have_the_axes_of_the_real_ones():
    """In astronomical units, by vis-viva; the problem's orbits are of one moment, hence 3 %."""
    x, v = PROBLEMS["detest-c5"].state(torch.float64).view(2, 5, 3)
    mu = _GRAVITY * (_SUN + torch.tensor(_PLANETS, dtype=torch.float64))
    axes = 1 / (2 / x.norm(dim=1) - v.square().sum(1) / mu)
    assert axes.tolist() == pytest.approx([5.204, 9.583, 19.19, 30.07, 39.48], rel=0.03)


def test_the_five_planets_feel_newtons_forces_seen_from_the_sun():
    y = PROBLEMS["detest-c5"].state(torch.float64)
    bodies = torch.cat((torch.zeros(1, 3, dtype=torch.float64), y[:15].view(5, 3)))
    mass = (_SUN, *_PLANETS)
    pull = torch.zeros(6, 3, dtype=torch.float64)
    for i in range(6):
        for j in range(6):
            if i != j:
                gap = bodies[j] - bodies[i]
                pull[i] += _GRAVITY * mass[j] * gap / gap.norm() ** 3
    found = c5(torch.tensor(0.0), y)
    torch.testing.assert_close(found[15:].view(5, 3), pull[1:] - pull[0], rtol=1e-13, atol=1e-16)
    assert torch.equal(found[:15], y[15:])


@pytest.mark.parametrize("name", ["rosenbrock", "robertson", "detest-c2", "detest-b4"])
def test_the_jacobian_is_that_of_f(name):
    problem = PROBLEMS[name]
    t, y = torch.tensor(0.3, dtype=torch.float64), problem.state(torch.float64) + 0.1
    direction = torch.linspace(0.5, 1.5, len(y), dtype=torch.float64)
    h = 1e-6
    slope = (problem.f(t, y + h * direction) - problem.f(t, y - h * direction)) / (2 * h)
    torch.testing.assert_close(problem.jacobian_at(t, y) @ direction, slope, rtol=1e-6, atol=1e-7)


def test_an_unknown_name_offers_the_nearest():
    with pytest.raises(ArgumentError, match="did you mean 'van-der-pol'"):
        find_problem("vanderpol")


def test_another_start_drops_the_closed_solution_and_another_end_keeps_it():
    assert find_problem("detest-a1", t_end=3.0).span == (0.0, 3.0)
    assert find_problem("detest-a1", t_end=3.0).solution is not None
    assert find_problem("detest-a1", y0=[2.0]).solution is None
    with pytest.raises(ArgumentError, match="y0 has 2 numbers; detest-a1 has 1"):
        find_problem("detest-a1", y0=[2.0, 1.0])


OWN = """
from adamode.inspect.problem import Problem

def decay(t, y):
    \"\"\"y' = −3 y\"\"\"
    return -3 * y

ready = Problem("mine", decay, [1.0], (0, 1))

def make():
    return ready

def wrong():
    return 5

number = 5
"""


def test_a_file_gives_a_problem_a_function_that_makes_one_or_an_f(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(OWN, encoding="utf-8")
    assert find_problem(f"{file}:ready").name == "mine"
    assert find_problem(f"{file}:make", t_end=2.0).span == (0.0, 2.0)
    found = find_problem(f"{file}:decay", y0=[2.0], t_end=4.0, t_start=1.0)
    assert (found.name, found.y0, found.span, found.equation) == ("decay", (2.0,), (1.0, 4.0), "y' = −3 y")


@pytest.mark.parametrize(
    ("name", "y0", "says"),
    [
        ("redy", None, "has no 'redy': did you mean 'ready'"),
        ("number", None, "is a int"),
        ("wrong", None, "returned a int"),
        ("decay", None, "--y0 1,0 --t-end 10"),
        ("decay", [1.0], "needs an end of time"),
    ],
)
def test_a_file_with_something_else_says_what_is_wanted(tmp_path, name, y0, says):
    file = tmp_path / "own.py"
    file.write_text(OWN, encoding="utf-8")
    with pytest.raises(ArgumentError, match=says):
        find_problem(f"{file}:{name}", y0=y0)


def test_a_module_is_looked_for_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "own_problem_module.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert find_problem("own_problem_module:ready").name == "mine"


def test_a_module_that_fails_says_how(tmp_path):
    (tmp_path / "bad.py").write_text("1/0", encoding="utf-8")
    with pytest.raises(ArgumentError, match=r"could not be imported \(ZeroDivisionError"):
        find_problem(f"{tmp_path / 'bad.py'}:x")
    with pytest.raises(ArgumentError, match="could not be imported"):
        find_problem("no_such_module_anywhere:x")


def test_a_problem_that_cannot_be_solved_is_refused_when_made():
    f = PROBLEMS["detest-a1"].f
    with pytest.raises(ArgumentError, match="an end that is not the start"):
        Problem("p", f, (1.0,), (1.0, 1.0))
    with pytest.raises(ArgumentError, match="must be finite"):
        Problem("p", f, (float("nan"),), (0.0, 1.0))
    with pytest.raises(ArgumentTypeError, match="must be callable"):
        Problem("p", None, (1.0,), (0.0, 1.0))
    with pytest.raises(ArgumentTypeError, match="must be numbers"):
        Problem("p", f, ("x",), (0.0, 1.0))


def test_where_scipy_does_not_reach_the_end_there_is_no_reference():
    problem = dataclasses.replace(PROBLEMS["blow-up"], solution=None)
    assert find_reference(problem, (0.0, 1.0, 2.0)) is None
