"""A func that gives two values at one place is told from a stiff one, soon."""

from __future__ import annotations

import pickle

import pytest
import torch

import adamode
from adamode.solvers.errors import random_sentence
from adamode.solvers.march import repeats
from adamode.solvers.step.clocks import unlike
from adamode.verify import check_gradient, check_vjp

T = torch.tensor([0.0, 1.0], dtype=torch.float64)
Y0 = torch.linspace(-1.0, 1.0, 8, dtype=torch.float64).reshape(2, 4)


def noisy(t, y):
    return -y + 0.1 * torch.randn_like(y)


def steep(t, y):
    """Needs short steps, and is one function."""
    return -3e5 * (y - torch.cos(t))


class Dropped(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5)).double()

    def forward(self, t, y):
        return self.net(y).tanh()


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(repeats, "FIRST", 60)


WAYS = {
    "plain": {"gradient": None},
    "discrete": {},
    "direct": {"gradient": adamode.Direct()},
    "queued": {"sync_every": 7, "gradient": None},
    "backwards": {"gradient": None, "backwards": True},
}


def solve(func, stepping="shared", backwards=False, **options):
    t = T.flip(0) if backwards else T
    y0 = Y0.clone().requires_grad_(options.get("gradient", 1) is not None)
    return adamode.solve(func, y0, t, rtol=1e-8, atol=1e-8, stepping=stepping, **options)


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
@pytest.mark.parametrize("way", WAYS)
def test_noise_is_said_after_so_many_attempts(way, stepping):
    with pytest.raises(
        adamode.SolverError, match=r"^func is random: .*func\.eval\(\).*\(MAX_STEPS at"
    ) as info:
        solve(noisy, stepping, **WAYS[way])
    assert "stiff" not in str(info.value)
    if stepping == "shared":
        stats = info.value.stats
        assert 60 <= stats.n_accepted + stats.n_rejected < 67  # a queue ends first


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
def test_dropout_is_said_and_eval_solves(stepping):
    torch.manual_seed(0)
    func = Dropped()
    with pytest.raises(adamode.SolverError, match="func is random"):
        solve(func, stepping, gradient=None)
    solve(func.eval(), stepping, gradient=None)


def test_a_solve_that_fails_asks_before_it_speaks_of_step_sizes():
    with pytest.raises(adamode.SolverError, match=r"func is random") as info:
        solve(noisy, gradient=None, max_steps=20)
    assert info.value.status is adamode.Status.MAX_STEPS
    with pytest.raises(adamode.SolverError, match=r"^MAX_STEPS.*stiff"):
        solve(steep, gradient=None, max_steps=20)
    with pytest.raises(adamode.SolverError, match="func is random"):
        adamode.solve(noisy, Y0, T, rtol=1e-8, atol=1e-8, gradient=None, controller=adamode.PID(dt_min=1e-3))


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
def test_a_slow_solve_asks_once_counts_it_and_leaves_the_generators_alone(stepping, monkeypatch):
    calls = 0

    def counted(t, y):
        nonlocal calls
        calls += 1
        torch.rand(3)
        return steep(t, y)

    asked = []
    truth = repeats.asked_twice
    monkeypatch.setattr(repeats, "asked_twice", lambda *a: asked.append(calls) or truth(*a))
    monkeypatch.setattr(repeats, "LONG", 10**9)
    t = torch.tensor([0.0, 1e-3], dtype=torch.float64)
    results = []
    for limit in (10**6, 500):  # the second is in doubt
        torch.manual_seed(3)
        calls = 0
        sol = adamode.solve(counted, Y0, t, gradient=None, stepping=stepping, max_steps=limit)
        results.append(sol)
        assert sol.stats.n_calls == calls if stepping == "per_sample" else sol.stats.nfe == calls
    assert len(asked) <= 1
    assert torch.equal(results[0].y, results[1].y)


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
def test_a_solve_that_comes_on_asks_nothing(stepping, monkeypatch):
    monkeypatch.setattr(repeats, "asked_twice", lambda *a: pytest.fail("asked"))
    sol = adamode.solve(lambda t, y: -y * 20 * torch.cos(40 * t), Y0, 5 * T, rtol=1e-9, atol=1e-9,
                        gradient=None, stepping=stepping)  # fmt: skip
    n = sol.stats.n_accepted + sol.stats.n_rejected
    assert torch.as_tensor(n).max() > 200


def test_asking_puts_the_generators_back():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    off = repeats.asked_twice(lambda t, y: (noisy(t, y), None), 0.0, T[0], Y0)
    assert off > 0.01
    assert torch.equal(torch.random.get_rng_state(), before)


def test_one_buffer_at_every_call_is_not_random():
    buffer = torch.empty_like(Y0)
    calls = 0

    def func(t, y):
        nonlocal calls
        calls += 1
        buffer.copy_(-y)
        return buffer

    def growing(t, y):  # another buffer content at another place alone
        return buffer.copy_(-y * calls)

    assert repeats.asked_twice(lambda t, y: (func(t, y), None), 0.0, T[0], Y0) == 0.0
    assert calls == 2
    assert repeats.asked_twice(lambda t, y: (growing(t, y), None), 0.0, T[0], Y0) == 0.0


def test_nan_and_rounding_are_not_random():
    at = (0.0, T[0], Y0)
    assert repeats.asked_twice(lambda t, y: (y * float("nan"), None), *at) == 0.0
    values = iter([Y0, Y0 * (1 + 2e-16)])
    off = repeats.asked_twice(lambda t, y: (next(values), None), *at)
    assert not unlike(off, torch.float64)


class Noisy(adamode.Dynamics):
    def forward(self, t, z):
        return -z + torch.randn_like(z), None

    def vjp(self, saved, a):
        return -a, None

    def parameter_gradients(self, saved, deltas, weights):
        return ()

    def theta(self):
        return ()


def test_checks_say_at_once_that_func_is_random():
    torch.manual_seed(0)
    for func in (noisy, Dropped()):
        with pytest.raises(adamode.NotRepeatableError, match=r"^func is random: .*A check compares"):
            check_gradient(func, Y0, T, rtol=1e-6)
    with pytest.raises(adamode.NotRepeatableError, match="func is random"):
        check_vjp(Noisy(), 0.0, Y0[None])


def test_checks_ask_no_more_than_twice():
    calls = 0

    def func(t, y):
        nonlocal calls
        calls += 1
        return noisy(t, y)

    with pytest.raises(adamode.NotRepeatableError):
        check_gradient(func, Y0, T)
    assert calls <= 3  # one looks for parameters


def test_the_errors_survive_pickling():
    error = adamode.NotRepeatableError(0.5, "A check compares.")
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == random_sentence(0.5, "A check compares.")
