"""Fixed steps that nobody listens to are the ones that somebody listens to: bit for bit, call for call."""

from __future__ import annotations

import pytest
import torch
from torch.utils import _pytree as pytree

import adamode
from adamode.memory import peak_of
from adamode.solvers.methods import METHODS
from adamode.solvers.step import runge_kutta

FIXED = [name for name, tableau in METHODS.items() if not tableau.adaptive]
STATES = {
    "[3, 2]": lambda dtype: torch.linspace(-1, 1, 6, dtype=dtype).reshape(3, 2),
    "[B]": lambda dtype: torch.linspace(-1, 1, 5, dtype=dtype),
    "0-d": lambda dtype: torch.full((), 0.3, dtype=dtype),
    "not contiguous": lambda dtype: torch.linspace(-1, 1, 6, dtype=dtype).reshape(3, 2).t(),
    "a tuple": lambda dtype: (torch.ones(2, 3, dtype=dtype), torch.full((2,), 0.2, dtype=dtype)),
    "a dict": lambda dtype: {"b": torch.ones(2, dtype=dtype), "a": torch.full((), 0.2, dtype=dtype)},
}
TIMES = {
    "the end": [0.0, 1.0],
    "points of the grid": [0.0, 0.25, 0.75, 1.0],
    "inside steps": [0.0, 0.1, 0.2, 0.25, 0.6, 1.0],
    "a last step that is shorter": [0.0, 0.3, 0.9],
}


class Field:
    """A nonlinear field of t and y with a rate, and the times that it was asked at."""

    def __init__(self, rate: float = 1.3, *, one_buffer: bool = False):
        self.rate = torch.tensor(rate, dtype=torch.float64, requires_grad=True)
        self.calls: list[tuple[float, torch.dtype]] = []
        self.buffers: list[torch.Tensor] | None = [] if one_buffer else None

    def __call__(self, t: torch.Tensor, y: object) -> object:
        self.calls.append((float(t), t.dtype))
        leaves, spec = pytree.tree_flatten(y)
        found = [torch.sin(self.rate.to(leaf.dtype) * leaf + t) for leaf in leaves]
        if self.buffers is not None:
            self.buffers = self.buffers or [torch.empty_like(leaf) for leaf in found]
            found = [buffer.copy_(k) for buffer, k in zip(self.buffers, found, strict=True)]
        return pytree.tree_unflatten(found, spec)


class Listened(Field):
    """The same, with a callback of torchdiffeq's that somebody listens to."""

    def callback_step(self, t0: torch.Tensor, y0: object, dt: torch.Tensor) -> None:
        """Only looks."""


def assert_same(found: object, wanted: object) -> None:
    for a, b in zip(pytree.tree_leaves(found), pytree.tree_leaves(wanted), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("method", [*FIXED, "dopri5", "bosh3", "dop853"])
def test_solve_gives_the_same_bits_counts_and_calls(method: str, sign: int, times: str) -> None:
    t = sign * torch.tensor(TIMES[times], dtype=torch.float64)
    for dtype in (torch.float64, torch.float32):
        for save in ("times", "steps", "end"):
            fields, found = (Field(), Field(one_buffer=True), Field()), []
            for field, trace in zip(fields, (False, False, True), strict=True):
                y0 = STATES["[3, 2]"](dtype)
                options = {"dt": 0.25, "method": method, "gradient": None, "trace": trace, "save": save}
                with torch.no_grad():
                    found.append(adamode.solve(field, y0, t, **options))
            for quiet, field in zip(found[:2], fields[:2], strict=True):
                assert_same((quiet.t, quiet.y), (found[2].t, found[2].y))
                assert quiet.stats == found[2].stats
                assert field.calls == fields[2].calls


@pytest.mark.parametrize("interp", ["linear", "cubic"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("method", FIXED)
def test_odeint_gives_the_same_bits_and_calls(method: str, sign: int, interp: str) -> None:
    options = {"step_size": 0.25, "interp": interp}
    for make in STATES.values():
        t = sign * torch.tensor(TIMES["inside steps"], dtype=torch.float64)
        quiet, heard = Field(), Listened()
        with torch.no_grad():
            found, wanted = (
                adamode.odeint(f, make(torch.float32), t, method=method, options=options)
                for f in (quiet, heard)
            )
        assert_same(found, wanted)
        assert quiet.calls == heard.calls


@pytest.mark.parametrize("step", [0.25, 1.0])
@pytest.mark.parametrize("interp", ["linear", "cubic"])
@pytest.mark.parametrize("method", FIXED)
def test_a_stage_that_was_not_evaluated_is_not_read(method, interp, step, monkeypatch) -> None:
    """New memory may hold NaN, and 0 · NaN is NaN."""
    plain = runge_kutta.rows_like
    monkeypatch.setattr(runge_kutta, "rows_like", lambda *given: plain(*given).fill_(torch.nan))
    t = torch.tensor(TIMES["inside steps"], dtype=torch.float64)
    options = {"step_size": step, "interp": interp}
    for field in (Field(), Listened()):
        with torch.no_grad():
            y = adamode.odeint(field, torch.ones(5), t, method=method, options=options)
        assert bool(y.isfinite().all())


@pytest.mark.parametrize("one_buffer", [False, True])
@pytest.mark.parametrize("state", ["[3, 2]", "0-d", "a dict"])
@pytest.mark.parametrize("method", FIXED)
def test_gradients_through_the_steps_are_the_same_bits(method: str, state: str, one_buffer: bool) -> None:
    t = torch.tensor(TIMES["inside steps"], dtype=torch.float64)
    found = []
    for trace in (False, True):
        field = Field(one_buffer=one_buffer and not trace)
        y0 = pytree.tree_map(lambda x: x.requires_grad_(), STATES[state](torch.float64))
        options = {"dt": 0.25, "method": method, "gradient": adamode.Direct(), "trace": trace}
        y = adamode.solve(field, y0, t, **options).y
        loss = sum((leaf * leaf).sum() for leaf in pytree.tree_leaves(y))
        inputs = [*pytree.tree_leaves(y0), field.rate]
        found.append([*pytree.tree_leaves(y), *torch.autograd.grad(loss, inputs)])
    assert_same(*found)


@pytest.mark.parametrize(("method", "nfe"), [("euler", 50), ("midpoint", 100), ("heun3", 150), ("rk4", 200)])
def test_no_evaluation_is_made_twice(method: str, nfe: int) -> None:
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    field = Field()
    with torch.no_grad():
        adamode.odeint(field, torch.ones(2), t, method=method, options={"step_size": 0.02})
    assert len(field.calls) == nfe


@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_what_overflows_is_told_with_the_time_of_the_first_output_that_is_lost(method: str) -> None:
    t = torch.tensor([0.0, 0.5, 1.0, 2.0])
    texts = []
    for trace in (False, True):
        options = {"dt": 0.25, "method": method, "gradient": None, "trace": trace}
        with pytest.raises(adamode.SolverError, match="A fixed step cannot be shortened") as caught:
            adamode.solve(lambda t, y: y * torch.where(t > 0.6, torch.inf, 1.0), torch.ones(3), t, **options)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    assert "t=1" in texts[0]


def test_a_state_whose_sum_overflows_is_finite() -> None:
    y0 = torch.full((4,), 3e38)
    sol = adamode.solve(lambda t, y: 0 * y, y0, torch.tensor([0.0, 1.0]), method="euler", dt=0.5)
    assert torch.equal(sol.y[-1], y0)


def test_many_outputs_are_in_memory_once() -> None:
    t = torch.linspace(0, 1, 201, dtype=torch.float64)
    y0 = torch.ones(1000, dtype=torch.float64)

    def call() -> list[torch.Tensor]:
        with torch.no_grad():
            return [adamode.odeint(lambda t, y: -y, y0, t, method="euler")]

    taken, values = peak_of(call, torch.device("cpu")), 201 * 1000 * 8
    assert taken is not None
    # The values, and the few states and stages of one step.
    assert values <= taken < 1.1 * values
