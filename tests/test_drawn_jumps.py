"""Resets, signals and penalties together with all else, drawn: what is right is known in closed form.

y' = k u(t) with a signal u that is linear between its times (none: u = 1); the state jumps back by r where it
comes to the level L = y0 + r (1/2, 3/2, …: k, u, r > 0). In decreasing time it comes from below as well, with
u < 0. Methods of order 2 and more solve it exactly, so all that is wrong is ours:

    y(t) = y0 + k U(t) − n r,  U = ∫u,  the n-th reset where k U = (n + 1/2) r.
"""

from __future__ import annotations

import inspect
import itertools
import random
import textwrap

import pytest
import torch
from problems import EVERY_GRADIENT, f64

from adamode import Backsolve, Event, Impulse, Reversible, Signal, solve
from adamode.adjoint import penalties as beside
from adamode.adjoint.engine import event_gradient
from adamode.adjoint.resets import chain, jump
from adamode.adjoint.signals import reader
from adamode.solvers.errors import AdamodeError
from adamode.solvers.march import events, looks

GRADIENTS = [g for g in EVERY_GRADIENT if not isinstance(g, Reversible)]
STEPPINGS = ("shared", "per_sample", "groups")
B = 4
PIECES = ((0.0, 0.8), (0.8, 2.0))


def drawn(seed: int) -> dict:
    """One case of the alphabet."""
    draw = random.Random(seed)
    case = {
        "stepping": draw.choice(STEPPINGS),
        "gradient": draw.choice(GRADIENTS),
        "method": draw.choice(("dopri5", "tsit5", "bosh3", "dop853", "kvaerno3")),
        "direction": draw.choice((1.0, -1.0)),
        "dtype": draw.choice((torch.float64, torch.float64, torch.float32)),
        "resets": draw.random() < 0.8,
        "quiet": draw.random() < 0.3,
        "signal": draw.random() < 0.5,
        "penalty": draw.random() < 0.4,
        "outputs": draw.choice((2, 5)),
        "fixed": draw.random() < 0.3,
        "dense": draw.random() < 0.3,
    }
    if isinstance(case["gradient"], Backsolve) and case["method"] == "kvaerno3":  # refused together
        case["method"] = "dopri5"
    return case


def integral(t, times, values):
    """∫ of the broken line from 0 to t, exact."""
    cuts = torch.cat((times.clamp(max=float(t)), t.reshape(1)))
    at = torch.stack([values[i] for i in range(len(times))])
    total = 0.0
    for i in range(len(times) - 1):
        a, b = cuts[i], cuts[i + 1]
        slope = (at[i + 1] - at[i]) / (times[i + 1] - times[i])
        total = total + (b - a) * (at[i] + slope * (0.5 * (a + b) - times[i]))
    return total


def check(case: dict) -> None:
    """Values, event times and gradients of one case."""
    many, dtype, way = case["stepping"] != "shared", case["dtype"], case["direction"]
    stepping = torch.tensor([0, 1, 0, 1]) if case["stepping"] == "groups" else case["stepping"]
    make = lambda *x: torch.tensor(x, dtype=dtype, requires_grad=True)  # noqa: E731
    k = make(1.0, 1.3, 0.7, 0.4) if many else make(1.0, 1.0, 1.0, 1.0)
    r, level = make(0.5), make(1.25 if not case["quiet"] else 100.0)
    y0 = make(1.0, 1.0, 1.0, 1.0)
    times, values = f64(0.0, 0.8, 2.0), make(1.0, 1.5, 0.5)
    end = 2.0
    t = way * torch.linspace(0.0, end, case["outputs"], dtype=torch.float64)
    signal = None
    if case["signal"]:
        at, shown = (times, values) if way > 0 else (-times.flip(0), values.flip(0))
        signal = Signal(at, shown[:, None])
    inputs = [k, r, level, y0] + ([values] if case["signal"] else [])

    def func(t, y, u=None):
        return way * (k[:, None] * (1.0 if u is None else u)).expand_as(y)

    def fn(t, y):
        return (y[:, 0] if many else y[0, 0]) - level[0]

    options = {"method": case["method"], "rtol": 1e-9, "atol": 1e-9, "stepping": stepping, "signal": signal}
    if dtype == torch.float32:
        options |= {"rtol": 1e-5, "atol": 1e-6}
    if case["resets"]:
        options["events"] = Event(fn, reset=lambda t, y: y - r)
    if case["fixed"]:
        options["dt"] = 0.25
    penalised = case["penalty"] and not case["resets"] and case["stepping"] != "groups"
    if penalised:
        options["penalties"] = ("kinetic",)
    if case["dense"]:
        options["dense"] = True
    sol = solve(func, y0[:, None], t, gradient=case["gradient"], params=inputs, **options)

    # The same in closed form
    u = values if case["signal"] else torch.ones(3, dtype=dtype)
    expected, when = [], []
    for b in range(B):
        row, own = [], []
        for s in (way * t).tolist():
            total = k[b] * integral(torch.tensor(s, dtype=dtype), times.to(dtype), u)
            n = 0
            while case["resets"] and (y0[b] + total - n * r).item() > level.item():
                n += 1
            row.append(y0[b] + total - n * r)
        for j in range(n):  # the time is the root of a parabola: one Newton step carries the derivative
            need = (level - y0[b] + j * r)[0]
            low, high = 0.0, end
            for _ in range(60):
                middle = 0.5 * (low + high)
                value = k[b] * integral(torch.tensor(middle, dtype=dtype), times.to(dtype), u)
                low, high = (middle, high) if value.item() < need.item() else (low, middle)
            root = torch.tensor(high, dtype=dtype)
            place = sum(float(x) <= high for x in times[:-1]) - 1
            share = (high - float(times[place])) / float(times[place + 1] - times[place])
            speed = (k[b] * (u[place] + share * (u[place + 1] - u[place]))).detach()
            own.append(way * (root + (need - k[b] * integral(root, times.to(dtype), u)) / speed))
        expected.append(torch.stack(row))
        when.append(own)
    tolerance = 1e-7 if dtype == torch.float64 else 2e-3
    close = {"rtol": tolerance, "atol": tolerance}
    y = torch.stack(expected, 1).reshape(len(t), B)
    torch.testing.assert_close(sol.y[..., 0], y, check_dtype=False, **close)
    loss, exact = (sol.y[1:, :, 0] ** 2).sum(), (y[1:] ** 2).sum()
    if case["resets"] and any(when):
        found = torch.cat(sol.t_events[0]) if many else sol.t_events[0]
        wanted = [x for own in when for x in own] if many else when[0]
        torch.testing.assert_close(found, torch.stack(wanted).reshape(-1), check_dtype=False, **close)
        loss, exact = loss + found.sum(), exact + torch.stack(wanted).sum()
    if penalised:
        kinetic = sol.penalty("kinetic")
        squares = sum(
            (d - c) * (x * x + x * z + z * z) / 3
            for (c, d), (x, z) in zip(PIECES, itertools.pairwise(u), strict=True)
        )
        wanted = k * k * squares
        wanted = wanted if many else wanted.sum()
        torch.testing.assert_close(kinetic, wanted, check_dtype=False, **close)
        loss, exact = loss + kinetic.sum(), exact + wanted.sum()
    given = torch.autograd.grad(loss, inputs, allow_unused=True)
    right = torch.autograd.grad(exact, inputs, allow_unused=True)
    for i, (a, b) in enumerate(zip(given, right, strict=True)):
        a, b = (torch.zeros(1) if x is None else x for x in (a, b))
        if i == 0 and not many:  # the event is of the first sample alone, and all are alike
            a, b = a.sum(), b.sum()
        rtol = 1e-5 if tolerance < 1e-5 else 2e-2
        torch.testing.assert_close(a, b, check_dtype=False, rtol=rtol, atol=10 * tolerance)


@pytest.mark.parametrize("seed", range(12))
def test_a_drawn_case_is_right(seed):
    check(drawn(seed))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12, 150))
def test_a_further_drawn_case_is_right(seed):
    check(drawn(seed))


RIGHT = {
    "stepping": "per_sample",
    "gradient": EVERY_GRADIENT[0],
    "method": "dopri5",
    "direction": 1.0,
    "dtype": torch.float64,
    "resets": True,
    "quiet": False,
    "signal": True,
    "penalty": False,
    "outputs": 5,
    "fixed": False,
    "dense": False,
}
PENALISED = {**RIGHT, "resets": False, "penalty": True}
DIRECT = {**RIGHT, "gradient": EVERY_GRADIENT[-1]}
# What is changed, in which function, and in which case it must show
PLANTED = {
    "the event's time without its gradient": (
        *(chain, chain.Chain, "_arrive", "torch.where(one.valid, t, ended)"),
        *("torch.where(one.valid, t.detach(), ended)", RIGHT),
    ),
    "the state of the event without the way to it": (
        *(chain, chain.Chain, "_arrive", "lanes.choose(one.valid, state, z)"),
        *("lanes.choose(one.valid, state.detach(), z)", RIGHT),
    ),
    "the rate of the event function in the wrong direction": (
        *(event_gradient, event_gradient, "differentiable_event", "rate + total(g_z * slope)"),
        *("rate - total(g_z * slope)", RIGHT),
    ),
    "the reset without its gradient": (
        *(jump, jump.Jumps, "after", "lanes.choose(which, found, z)"),
        *("lanes.choose(which, found.detach(), z)", RIGHT),
    ),
    "the next piece from a time that is a constant": (
        *(chain, chain.Chain, "_after", "torch.where(met.reached, ended, self.now)"),
        *("torch.where(met.reached, ended.detach(), self.now)", RIGHT),
    ),
    "a reset that is not applied": (
        *(chain, chain.Chain, "_reset", "self.z = after", "self.z = self.z", RIGHT),
    ),
    "an event in the wrong direction of its step": (
        *(events, events.SampleEvents, "_zero", "torch.where(held, middle, low)"),
        *("torch.where(held, low, middle)", RIGHT),
    ),
    "calm where one value has another sign": (
        *(looks, looks.Looks, "calm", "(low > 0) | (high < 0)", "(low > 0) | (high > 0)", RIGHT),
    ),
    "a line's ends exchanged": (
        *(reader, reader.Reader, "_on_line", "begin * (1.0 - share)", "begin * share", DIRECT),
    ),
    "the weights of a line's ends exchanged": (
        *(reader, reader.Reader, "_weights", "(1.0 - share, share)", "(share, 1.0 - share)", RIGHT),
    ),
    "the interval before": (
        *(reader, reader.Reader, "_rows", "(i if offset", "((i - 1).clamp(min=0) if offset", RIGHT),
    ),
    "the transpose at the start alone": (
        *(reader, reader.Reader, "transposed", "rows + e if e else rows", "rows", RIGHT),
    ),
    "kinetic of the speed itself": (
        *(beside, beside._Rates, "_total", "total.dtype).square()", "total.dtype).abs()", PENALISED),
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name, monkeypatch):
    module, owner, function, before, after, case = PLANTED[name]
    source = textwrap.dedent(inspect.getsource(inspect.getattr_static(owner, function)))
    assert source.count(before) == 1
    scope = dict(vars(module))
    exec(compile("from __future__ import annotations\n" + source.replace(before, after), name, "exec"), scope)
    monkeypatch.setattr(owner, function, scope[function])
    with pytest.raises((AssertionError, AdamodeError, RuntimeError)):
        check(case)


def test_where_the_faults_are_planted_all_is_right():
    for case in (RIGHT, PENALISED, DIRECT):
        check(case)


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
@pytest.mark.parametrize("gradient", [None, EVERY_GRADIENT[0], EVERY_GRADIENT[-1]], ids=repr)
def test_resets_and_impulses_elsewhere_are_those_of_the_processor(elsewhere, gradient, stepping):
    """Nothing is mixed with what lies on the processor, and the host waits for no upload."""
    many = stepping == "per_sample"

    def run(there):
        level, y0 = (there(x) for x in (f64(0.9), f64([0.2, 0.1], [0.5, 0.0], [0.0, 0.3])))
        current = there(f64([1.3], [1.5], [0.5]))
        level, y0 = level.requires_grad_(), y0.requires_grad_()
        fn = lambda t, y: (y[:, 0] if many else y[1, 0]) - level  # noqa: E731
        fire = Event(fn, direction=1, reset=lambda t, y: 0.5 * y)
        kick = Impulse(there(f64(0.4, 1.7)), lambda t, y: y + 0.05)
        sol = solve(
            lambda t, y: current - y,
            y0,
            there(torch.linspace(0.0, 3.0, 4, dtype=torch.float64)),
            events=[fire, kick],
            stepping=stepping,
            gradient=gradient,
            params=[level],
        )
        times = torch.cat(sol.t_events[0]) if many else sol.t_events[0]
        assert len(times) >= 2
        found = [sol.y, times]
        if gradient is not None:
            found += torch.autograd.grad(sol.y[-1].sum() + times.sum(), (y0, level))
        return found

    here = run(lambda x: x)
    with elsewhere.waits() as waits:
        there = run(elsewhere.there)
    assert not any("upload" in str(kind) or kind == "index" for kind in waits), waits
    for a, b in zip(there, here, strict=True):
        torch.testing.assert_close(elsewhere.here(a).detach(), b.detach(), rtol=1e-11, atol=1e-12)
