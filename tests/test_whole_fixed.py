"""Fixed steps as one native program: the numbers and counts of the eager way, and its errors."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adamode
from adamode.adjoint.discrete import whole as discrete_whole
from adamode.models.dynamics import AdamODE
from adamode.models.fields import MLP
from adamode.solvers.device import along, native, natives, whole

pytestmark = pytest.mark.native
METHODS = ("euler", "midpoint", "heun2", "heun3", "rk4", "dopri5")
TIMES = {
    "the end": [0.0, 1.0],
    "points of the grid": [0.0, 0.25, 0.75, 1.0],
    "inside steps": [0.0, 0.1, 0.2, 0.25, 0.6, 1.0],
    "inside the last step, which is shorter": [0.0, 0.3, 0.8, 0.9],
}
STATES = {"0-d": (), "[B]": (3,), "[B, d]": (3, 2)}


class Field(nn.Module):
    """Nonlinear in t and y, sample by sample."""

    def __init__(self, rate: float = 1.3):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(rate, dtype=torch.float64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.sin(self.rate.to(y.dtype) * y + t)


class Ratio(nn.Module):
    """y′ = −y / (1 − t): what a sampler of flow matching meets at its end, where it is not defined."""

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return -y / (1.0 - t)


class Lost(nn.Module):
    """Not finite after a while."""

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.where(t > 0.6, math.nan, y)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The functions run as they are; which were made."""
    made: list[str] = []
    monkeypatch.setattr(natives, "MODE", "plain")
    programs = ((along, "along_program"), (whole, "solve_program"), (discrete_whole, "walk_program"))
    for module, name in programs:
        _recorded(monkeypatch, module, name, made)
    return made


def _recorded(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, made: list[str]) -> None:
    make = getattr(module, name)

    def recorded(*given: Any) -> Any:
        made.append(name)
        return make(*given)

    for user in ("whole", "whole_grid"):
        path = f"adamode.adjoint.engine.{user}"
        monkeypatch.setattr(f"{path}.{name}", recorded, raising=False)


def state(name: str, dtype: torch.dtype) -> Tensor:
    shape = STATES[name]
    return torch.linspace(-1, 1, math.prod(shape), dtype=dtype).reshape(shape)


def both(func: nn.Module, y0: Tensor, t: Tensor, **more: Any) -> tuple[adamode.Solution, adamode.Solution]:
    """By the program, and eagerly."""
    options = {"gradient": None, "dt": 0.25, **more}
    found = adamode.solve(func, y0, t, compile=True, **options)
    return found, adamode.solve(func, y0, t, **options)


def assert_alike(found: adamode.Solution, wanted: adamode.Solution) -> None:
    """To rounding of another order of sums, and in every count."""
    eps = torch.finfo(wanted.y.dtype).eps
    torch.testing.assert_close(found.y, wanted.y, rtol=45 * eps, atol=45 * eps)  # 1e-14 in float64
    for name in ("nfe", "n_accepted", "n_rejected", "dt_first", "dt_last", "n_calls"):
        mine, theirs = (torch.as_tensor(getattr(sol.stats, name)) for sol in (found, wanted))
        assert torch.equal(mine, theirs), name
    assert torch.equal(found.t, wanted.t)
    assert torch.equal(torch.as_tensor(found.status), torch.as_tensor(wanted.status))


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("method", METHODS)
def test_a_shared_grid_gives_the_numbers_and_counts_of_the_eager_way(plain, method, sign, times) -> None:
    t = sign * torch.tensor(TIMES[times], dtype=torch.float64)
    for dtype in (torch.float64, torch.float32):
        for name in STATES:
            field = Field()
            found, wanted = both(field, state(name, dtype), t, method=method)
            assert_alike(found, wanted)
            assert plain.pop() == "along_program"


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("method", METHODS)
def test_a_clock_a_sample_gives_the_numbers_and_counts_of_the_eager_way(plain, method, sign, times) -> None:
    ends = torch.tensor([1.0, 0.7, 1.3], dtype=torch.float64)
    t = sign * torch.tensor(TIMES[times], dtype=torch.float64) * ends[:, None]
    for dtype in (torch.float64, torch.float32):
        for name in ("[B]", "[B, d]"):
            found, wanted = both(Field(), state(name, dtype), t, method=method, stepping="per_sample")
            assert_alike(found, wanted)
            assert plain.pop() == "solve_program"


def gradients(
    func: nn.Module, y0: Tensor, t: Tensor, *, timed: bool, **more: Any
) -> tuple[Any, list[Tensor]]:
    """The solution, and of a loss of all its values the gradients by y0, θ and (timed) t."""
    y0, t = y0.clone().requires_grad_(), t.clone().requires_grad_(timed)
    sol = adamode.solve(func, y0, t, **{"dt": 0.25, "gradient": adamode.Discrete(), **more})
    loss = (sol.y * torch.cos(torch.arange(sol.y.numel(), dtype=sol.y.dtype)).view(sol.y.shape)).sum()
    return sol, list(torch.autograd.grad(loss, [y0, *func.parameters(), *([t] if timed else [])]))


@pytest.mark.parametrize(("sign", "timed"), [(1, False), (-1, True)])
@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("method", ["euler", "midpoint", "heun2", "dopri5"])
@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
def test_gradients_are_those_of_the_eager_way(plain, stepping, method, sign, times, timed) -> None:
    t, own = sign * torch.tensor(TIMES[times], dtype=torch.float64), stepping == "per_sample"
    if own:
        t = t * torch.tensor([1.0, 0.7, 1.3], dtype=torch.float64)[:, None]
    for name in STATES if not own else ("[B]", "[B, d]"):
        options = {"method": method, "timed": timed, "stepping": stepping}
        y0 = state(name, torch.float64)
        found, mine = gradients(Field(), y0, t, compile=True, **options)
        wanted, theirs = gradients(Field(), y0, t, **options)
        assert_alike(found, wanted)
        torch.testing.assert_close(mine, theirs, rtol=1e-13, atol=1e-13)
        assert plain[-2:] == ["solve_program" if own else "along_program", "walk_program"]


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("n", [128, 129, 300])
def test_gradients_through_several_pieces_of_memory_are_the_same(plain, n: int, timed: bool) -> None:
    t = torch.tensor([0.0, 0.1, 0.502, 0.999, 1.0], dtype=torch.float64)
    found = [
        gradients(
            Field(), state("[B, d]", torch.float64), t, timed=timed, method="midpoint", dt=1 / n, **more
        )[1]
        for more in ({"compile": True}, {})
    ]
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", ["euler", "midpoint"])
def test_gradients_need_no_value_at_the_end_of_the_last_step(plain, method: str) -> None:
    """The dynamics is not defined there."""
    for times in ([0.0, 1.0], [0.0, 0.1, 0.5, 1.0]):
        t, func, found = torch.tensor(times, dtype=torch.float64), Ratio(), []
        for more in ({"compile": True}, {}):
            found.append(
                gradients(func, state("[B]", torch.float64), t, timed=False, method=method, **more)[1]
            )
        torch.testing.assert_close(*found, rtol=1e-13, atol=1e-13)
        assert bool(found[0][0].isfinite().all())
    assert plain == ["along_program", "walk_program"] * 2


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
@pytest.mark.parametrize("times", TIMES)
def test_a_dynamics_of_blocks_does_the_same(plain, times: str, stepping: str) -> None:
    dynamics = AdamODE(MLP(2, (3,)).double(), alpha=0.3, beta=0.7, eps=1e-2)
    z0 = torch.linspace(-1, 1, 18, dtype=torch.float64).reshape(3, 3, 2)
    t = torch.tensor(TIMES[times], dtype=torch.float64)
    assert_alike(*both(dynamics, z0, t, method="rk4", stepping=stepping))
    options = {"method": "rk4", "stepping": stepping, "timed": True}
    mine, theirs = (gradients(dynamics, z0, t, **options, **more)[1] for more in ({"compile": True}, {}))
    torch.testing.assert_close(mine, theirs, rtol=1e-13, atol=1e-13)
    forward = "along_program" if stepping == "shared" else "solve_program"
    assert plain == [forward, forward, "walk_program"]


@pytest.mark.parametrize("times", TIMES)
def test_times_to_hit_and_the_end_alone_are_parts_of_the_grid(plain, times: str) -> None:
    t = torch.tensor(TIMES[times], dtype=torch.float64)
    for more in ({"step_at": [0.33, 0.66]}, {"save": "end"}, {"norm": lambda y: y.abs().amax()}):
        assert_alike(*both(Field(), state("[B, d]", torch.float64), t, method="midpoint", **more))
        assert plain.pop() == "along_program"


@pytest.mark.parametrize("times", TIMES)
def test_one_program_serves_every_number_of_steps(plain, times: str) -> None:
    field, y0, t = Field(), state("[B, d]", torch.float64), torch.tensor(TIMES[times], dtype=torch.float64)
    for n in (1, 3, 127, 128, 129, 300):
        assert_alike(*both(field, y0, t, method="midpoint", dt=float(t[-1]) / n))
    assert plain == ["along_program"]


def test_an_output_at_every_step_of_a_long_grid_is_written(plain) -> None:
    t = torch.linspace(0, 1, 301, dtype=torch.float64)
    assert_alike(*both(Field(), state("[B]", torch.float64), t, method="heun2", dt=1 / 300))
    assert_alike(*both(Field(), state("[B]", torch.float64), t, method="heun2", dt=1 / 77))


@pytest.mark.parametrize("method", ["euler", "midpoint"])
def test_f_is_not_evaluated_at_the_end_of_the_last_step(plain, method: str) -> None:
    for times in ([0.0, 1.0], [0.0, 0.1, 0.5, 1.0]):
        t = torch.tensor(times, dtype=torch.float64)
        found, wanted = both(Ratio(), state("[B]", torch.float64), t, method=method)
        assert bool(found.y.isfinite().all())
        assert_alike(found, wanted)


@pytest.mark.parametrize("times", [[0.0, 1.0], [0.0, 0.55, 0.7, 0.9, 1.0]])
def test_what_is_not_finite_is_told_by_the_eager_way(plain, times: list[float]) -> None:
    t, texts = torch.tensor(times, dtype=torch.float64), []
    for compiled in (True, False):
        with pytest.raises(adamode.SolverError, match="A fixed step cannot be shortened") as caught:
            adamode.solve(Lost(), torch.ones(2), t, method="euler", dt=0.25, gradient=None, compile=compiled)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    assert plain == ["along_program"]


def test_a_sample_that_is_not_finite_ends_as_in_the_eager_way(plain) -> None:
    t = torch.tensor([[0.0, 0.5], [0.0, 1.0]], dtype=torch.float64)
    y0 = torch.ones(2, 3, dtype=torch.float64)
    found, wanted = both(Lost(), y0, t, method="euler", stepping="per_sample")
    assert found.status.tolist() == wanted.status.tolist()
    torch.testing.assert_close(found.y, wanted.y, equal_nan=True)
    assert plain == ["solve_program"]


def test_more_steps_than_allowed_are_refused_as_in_the_eager_way(plain) -> None:
    t = torch.tensor([0.0, 1.0])
    for compiled in (True, False):
        with pytest.raises(adamode.SolverError, match="makes 100 steps"):
            adamode.solve(
                Field(),
                torch.ones(2),
                t,
                method="euler",
                dt=0.01,
                max_steps=99,
                gradient=None,
                compile=compiled,
            )


@pytest.mark.parametrize("more", [{"jump_at": [0.5]}, {"dense": True}, {"trace": True}, {"save": "steps"}])
def test_what_the_host_must_see_is_solved_without_and_said(plain, more: dict[str, Any]) -> None:
    t, y0 = torch.tensor([0.0, 1.0]), torch.ones(2)
    with pytest.warns(adamode.AdamodeWarning, match="a fixed step"):
        adamode.solve(Field(), y0, t, method="rk4", dt=0.25, gradient=None, compile=True, **more)
    assert plain == []


def test_a_func_that_differentiates_inside_is_not_evaluated_where_there_is_no_program(plain) -> None:
    """Under no_grad, which is around a whole solve, it cannot be."""

    class Inner(nn.Module):
        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            y = y.detach().requires_grad_()
            return torch.autograd.grad((y**4).sum(), y)[0]

    def refuse(*_: Any) -> None:
        return None

    t, y0 = torch.tensor(TIMES["inside steps"]), torch.full((2,), 0.3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(natives.Natives, "find", refuse)
        options = {"method": "rk4", "dt": 0.25, "gradient": adamode.Discrete()}
        compiled = adamode.solve(Inner(), y0, t, compile=True, **options)
    assert torch.equal(compiled.y, adamode.solve(Inner(), y0, t, **options).y)


@pytest.mark.slow
@pytest.mark.inductor
def test_native_programs_do_the_same(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ADAMODE_CACHE", str(tmp_path))
    field, t = Field(), torch.tensor(TIMES["inside the last step, which is shorter"], dtype=torch.float64)
    y0 = state("[B, d]", torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for stepping, times in (("shared", t), ("shared", t[[0, -1]]), ("per_sample", t)):
            for n in (1, 4, 300):
                more: dict[str, Any] = {"method": "midpoint", "dt": 0.9 / n, "stepping": stepping}
                assert_alike(*both(field, y0, times, **more))
    programs = natives.Natives.of(field).known.values()
    assert len(programs) == 3
    assert all(isinstance(program, native.Native) for program in programs)


@pytest.mark.slow
@pytest.mark.inductor
@pytest.mark.parametrize("func", [Field, Ratio])
def test_native_gradients_are_the_same(tmp_path, monkeypatch, func: type[nn.Module]) -> None:
    monkeypatch.setenv("ADAMODE_CACHE", str(tmp_path))
    made, y0 = func(), state("[B, d]", torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for times in ([0.0, 1.0], [0.0, 0.1, 0.5, 1.0]):
            t = torch.tensor(times, dtype=torch.float64)
            for n in (1, 4, 300) if len(times) == 2 else (4, 300):  # Ratio has no output inside a step to 1
                options: dict[str, Any] = {"method": "midpoint", "dt": 1.0 / n, "timed": func is Field}
                mine, theirs = (
                    gradients(made, y0, t, **options, **more)[1] for more in ({"compile": True}, {})
                )
                torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    programs = natives.Natives.of(made).known.values()
    assert len(programs) == 4
    assert all(isinstance(program, native.Native) for program in programs)
