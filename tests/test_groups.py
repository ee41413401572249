"""Samples in groups that share their steps: stepping= a tensor of group numbers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import EVERY_GRADIENT as PLAIN
from problems import Net, f64, worst
from torch import nn

import adamode
from adamode import (
    ArgumentError,
    ArgumentTypeError,
    Backsolve,
    Direct,
    Discrete,
    Event,
    Interpolating,
    Reversible,
    Status,
    solve,
)

LONG = torch.long
# Of the problems here, which contract, a pair nearer to 1 takes a hundred times the steps.
EVERY_GRADIENT = [Reversible(0.9) if isinstance(choice, Reversible) else choice for choice in PLAIN]


class Wave(nn.Module):
    """y' = −ω sin(3t) y with ω in the state: samples differ in how hard they are."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(f64(1.0))

    def forward(self, t, y):
        y, rate = y[..., :1], y[..., 1:]
        return torch.cat((-rate * torch.sin(3 * t) * y * self.scale, torch.zeros_like(rate)), -1)


def waves(n=6, dtype=torch.float64):
    rate = torch.linspace(1.0, 9.0, n, dtype=dtype)
    return torch.stack((torch.linspace(0.5, 1.5, n, dtype=dtype), rate), -1)


def groups(*numbers):
    return torch.tensor(numbers, dtype=LONG)


def counts(sol):
    return [sol.stats.nfe, sol.stats.n_accepted, sol.stats.n_rejected]


@pytest.mark.parametrize("norm", ["rms", "max", lambda y: y.abs().amax(-1)])
@pytest.mark.parametrize("method", ["dopri5", "bosh3", "dop853", "adaptive_heun"])
@pytest.mark.parametrize("backwards", [False, True])
def test_one_group_is_a_shared_solve(method, norm, backwards):
    t = f64(0.0, 0.4, 1.1, 2.0)
    rough = {"rtol": 1e-3, "atol": 1e-5}  # order 2 would take thousands of steps
    how = {"method": method, "gradient": None, **(rough if method == "adaptive_heun" else {"rtol": 1e-6})}
    t = t.flip(0) if backwards else t
    shared_norm = norm if isinstance(norm, str) else lambda y: y.abs().amax()
    shared = solve(Wave(), waves(), t, norm=shared_norm, **how)
    together = solve(Wave(), waves(), t, stepping=groups(*[7] * 6), norm=norm, **how)
    assert worst([together.y], [shared.y]) <= 1e-12
    for own, theirs in zip(counts(together), counts(shared), strict=True):
        assert own.tolist() == [theirs] * 6
    assert together.status.tolist() == [0] * 6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blocks_and_leaves_are_pooled_as_in_a_shared_solve(dtype):
    y = waves(dtype=dtype)
    tree = {"a": y, "b": y[:, 0] * 3}
    func = lambda t, s: {"a": -s["a"] * torch.cos(5 * s["b"]).view(-1, 1), "b": -s["b"]}  # noqa: E731
    t = torch.tensor([0.0, 2.0], dtype=dtype)
    how = {"gradient": None, "rtol": 1e-5}
    shared = solve(func, tree, t, **how)
    together = solve(func, tree, t, stepping=groups(*[0] * 6), **how)
    bound = 1e-12 if dtype is torch.float64 else 1e-5
    assert worst(list(together.y.values()), list(shared.y.values())) <= bound
    blocks = adamode.models.dynamics.AdamODE(Field(), alpha=0.9, beta=0.8, eps=1e-3)
    z = torch.randn((3, 6, 2), dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.3
    z[2] = z[2].abs() + 0.1
    how = {"gradient": None, "norm": "blocks"}
    shared = solve(blocks, z, f64(0.0, 1.0), **how)
    together = solve(blocks, z, f64(0.0, 1.0), stepping=groups(*[0] * 6), **how)
    assert worst([together.y], [shared.y]) <= 1e-12
    assert together.stats.n_accepted.tolist() == [shared.stats.n_accepted] * 6


class Field(adamode.models.fields.MLP):
    def __init__(self):
        torch.manual_seed(0)
        super().__init__(2, hidden=(4,))
        self.double()


@pytest.mark.parametrize("gradient", EVERY_GRADIENT, ids=repr)
def test_groups_of_one_are_steps_per_sample(gradient):
    found = []
    for stepping in ("per_sample", torch.arange(6)):
        func, y0 = Wave(), waves().requires_grad_()
        t = f64(0.0, 0.3, 1.0).requires_grad_()
        sol = solve(func, y0, t, stepping=stepping, gradient=gradient, rtol=1e-3, atol=1e-5)
        found.append((sol, *torch.autograd.grad(sol.y.square().sum(), (y0, t, func.scale))))
    (a, *ga), (b, *gb) = found
    # A root of a square may be an ulp beside the number, which some processors show.
    assert worst([a.y], [b.y]) <= 1e-14
    assert all(torch.equal(x, y) for x, y in zip(counts(a), counts(b), strict=True))
    assert worst(ga, gb) <= 1e-10


@given(
    numbers=st.lists(st.integers(-2, 2), min_size=2, max_size=6),
    method=st.sampled_from(["dopri5", "bosh3", "tsit5", "dop853"]),
    gradient=st.sampled_from([Discrete(), Discrete(keep="state"), Discrete(checkpoints=2), Direct()]),
    compact=st.booleans(),
    save=st.sampled_from(["times", "end"]),
)
@settings(max_examples=15, deadline=None)
def test_a_mixture_is_each_group_alone(numbers, method, gradient, compact, save):
    stepping, t = groups(*numbers), f64(1.0, 0.2, -0.7)
    how = {"method": method, "gradient": gradient, "save": save, "rtol": 1e-3, "atol": 1e-5}

    def solved(rows):
        func, y0 = Wave(), waves(len(numbers))[rows].requires_grad_()
        return func, y0, rows

    func, y0, _ = solved(torch.arange(len(numbers)))
    sol = solve(func, y0, t, stepping=stepping, compact=compact, **how)
    (whole,) = torch.autograd.grad(sol.y.sin().sum(), y0)
    for number in set(numbers):
        rows = (stepping == number).nonzero()[:, 0]
        func, own, _ = solved(rows)
        alone = solve(func, own, t, **how)
        (bar,) = torch.autograd.grad(alone.y.sin().sum(), own)
        assert worst([sol.y[:, rows]], [alone.y]) <= 1e-12
        # Rounding: with vector units of other widths up to 1.4e-13 of the largest entry.
        assert worst([whole[rows]], [bar]) <= 3e-13 * max(float(bar.abs().max()), 100.0)
        assert sol.stats.n_accepted[rows].tolist() == [alone.stats.n_accepted] * len(rows)


def test_the_steps_of_a_group_are_the_same_to_the_last_bit():
    stepping = groups(0, 1, 0, 1, 1, 0, 2, 0, 1)
    sol = solve(Wave(), waves(9), f64(0.0, 3.0), stepping=stepping, save="steps", gradient=None)
    for number in (0, 1, 2):
        own = sol.t[:, stepping == number]
        assert torch.equal(own.nan_to_num(-1), own[:, :1].expand_as(own).nan_to_num(-1))
    assert len(set(sol.stats.n_accepted.tolist())) > 1


class Root(nn.Module):
    """y' = −1 − √y leaves its domain; samples that begin high enough do not reach the edge."""

    def forward(self, t, y):
        return -1 - torch.sqrt(y)


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("gradient", [None, Discrete()], ids=repr)
def test_a_group_that_fails_leaves_the_others_unharmed(compact, gradient):
    y0 = f64(0.1, 90.0, 80.0, float("nan"), 70.0, 60.0)[:, None].requires_grad_()
    stepping, t = groups(0, 0, 1, 2, 2, 1), f64(0.0, 1.0)
    sol = solve(Root(), y0, t, stepping=stepping, compact=compact, gradient=gradient)
    assert sol.status.tolist() == [Status.NON_FINITE] * 2 + [0, Status.NON_FINITE, Status.NON_FINITE, 0]
    alone = solve(Root(), y0[[2, 5]], t, gradient=gradient)
    assert worst([sol.y[:, [2, 5]]], [alone.y]) <= 1e-12
    assert sol.y[-1, [0, 1, 3, 4]].isnan().all()
    if gradient is not None:
        (bar,) = torch.autograd.grad(sol.y[-1, [2, 5]].sum(), y0)
        (own,) = torch.autograd.grad(alone.y[-1].sum(), y0)
        assert worst([bar[[2, 5]]], [own[[2, 5]]]) <= 1e-12
        assert bar.isfinite().all()


@pytest.mark.parametrize("compact", [False, True])
def test_a_sample_that_ends_no_longer_weighs_on_its_group(compact):
    down = Event(lambda t, y: y[:, 0] - 0.4)
    y0 = torch.cat((f64([0.41, 1.0]), waves(3)))
    stepping, t = groups(0, 0, 0, 1), f64(0.0, 1.5)
    sol = solve(Wave(), y0, t, stepping=stepping, events=down, compact=compact, gradient=None)
    assert sol.status[0] == Status.EVENT
    assert sol.t_events[0][0].numel() == 1
    # The steps after it are those of a group without it, once both stand at one time.
    again = solve(Wave(), y0, t, stepping=stepping, events=down, compact=not compact, gradient=None)
    assert worst([again.y.nan_to_num()], [sol.y.nan_to_num()]) <= 1e-12
    assert torch.equal(again.stats.n_accepted, sol.stats.n_accepted)


def test_outputs_are_of_each_sample_and_dense_questions_are_answered():
    t = torch.stack([f64(0.0, 0.2 + 0.1 * i, 1.0) for i in range(4)])
    stepping = groups(0, 0, 1, 1)
    sol = solve(Wave(), waves(4), t, stepping=stepping, dense=True, trace=True, gradient=None)
    assert tuple(sol.t.shape) == (3, 4)
    assert worst([sol(t.t(), per_sample=True)], [sol.y]) <= 1e-12
    assert {row.sample for row in sol.trace} == {0, 1, 2, 3}


@pytest.mark.parametrize("every", [1, 3])
def test_attempts_may_be_queued(every):
    how = {"stepping": groups(0, 1, 0, 1, 2, 2), "gradient": None}
    plain = solve(Wave(), waves(), f64(0.0, 2.0), trace=True, **how)
    queued = solve(Wave(), waves(), f64(0.0, 2.0), sync_every=every, **how)
    assert torch.equal(plain.y, queued.y)
    assert torch.equal(plain.stats.n_accepted, queued.stats.n_accepted)


def test_jumps_and_fixed_steps_go_with_groups():
    kink = lambda t, y: torch.where(t < 0.5, -y, y)  # noqa: E731
    how = {"jump_at": [0.5], "gradient": None}
    shared = solve(kink, waves(), f64(0.0, 1.0), **how)
    together = solve(kink, waves(), f64(0.0, 1.0), stepping=groups(*[1] * 6), **how)
    assert worst([together.y], [shared.y]) <= 1e-12
    fixed = solve(kink, waves(), f64(0.0, 1.0), stepping=groups(0, 1, 0, 1, 0, 1), dt=0.1, gradient=None)
    assert fixed.stats.n_accepted.tolist() == [10] * 6


@pytest.mark.parametrize(
    ("stepping", "error", "words"),
    [
        (groups(0, 1), ArgumentError, r"shape \(2,\).*6 samples"),
        (groups(0, 1, 0, 1, 0, 1)[:, None], ArgumentError, "shape"),
        (torch.tensor(0), ArgumentError, "shape"),
        (torch.zeros(6), ArgumentTypeError, r"torch.float32.*stepping.long\(\)"),
        (torch.zeros(6, dtype=torch.bool), ArgumentTypeError, "bool"),
        (torch.zeros(6, dtype=torch.complex64), ArgumentTypeError, "complex"),
        (torch.zeros(6, dtype=LONG).to_sparse(), ArgumentTypeError, "sparse.*dense"),
        ("groups", ArgumentError, "not known"),
        ([0, 1, 0, 1, 0, 1], ArgumentTypeError, "a tensor of group numbers"),
        (None, ArgumentTypeError, "'shared' or 'per_sample', or a tensor"),
    ],
)
def test_what_is_no_group_number_is_refused(stepping, error, words):
    with pytest.raises(error, match=words):
        solve(Wave(), waves(), f64(0.0, 1.0), stepping=stepping)


def test_samples_of_a_group_begin_and_end_together():
    t = torch.stack([f64(0.0, 1.0 + (i == 3)) for i in range(6)])
    with pytest.raises(ArgumentError, match=r"t\[3\].*begin and end together"):
        solve(Wave(), waves(), t, stepping=groups(*[0] * 6))
    with pytest.raises(ArgumentError, match="same for all samples of a group"):
        solve(Wave(), waves(), f64(0.0, 1.0), stepping=groups(*[0] * 6), dt0=torch.linspace(0.1, 0.2, 6))
    assert solve(Wave(), waves(), t, stepping=groups(0, 0, 0, 1, 0, 0), gradient=None).status.sum() == 0


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("gradient", EVERY_GRADIENT, ids=repr)
def test_gradients_of_one_group_are_those_of_a_shared_solve(gradient, backwards):
    found = []
    for stepping in ("shared", torch.zeros(6, dtype=LONG)):
        func, y0, t = Wave(), waves().requires_grad_(), f64(0.0, 0.3, 1.0)
        t = (t.flip(0) if backwards else t).requires_grad_()
        sol = solve(func, y0, t, stepping=stepping, gradient=gradient, rtol=1e-4)
        found.append(torch.autograd.grad(sol.y.square().sum(), (y0, t, func.scale)))
    assert worst(found[1], found[0]) <= 1e-12  # the reverse solves of the continuous adjoints share steps too


def test_int32_and_a_net_with_all_gradients():
    func, y0 = Net(), torch.randn((3, 3), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    shared = solve(func, y0, f64(0.0, 1.0), rtol=1e-7)
    together = solve(func, y0, f64(0.0, 1.0), rtol=1e-7, stepping=torch.zeros(3, dtype=torch.int32))
    ours = torch.autograd.grad(together.y[-1].sum(), list(func.parameters()))
    theirs = torch.autograd.grad(shared.y[-1].sum(), list(func.parameters()))
    assert worst(ours, theirs) <= 1e-11


@pytest.mark.parametrize("gradient", [Interpolating(), Backsolve()], ids=repr)
def test_reverse_solves_of_a_mixture_are_those_of_each_group_alone(gradient):
    stepping, t = groups(3, 0, 3, 1, 3, 0), f64(0.0, 0.3, 1.0)

    def bars(rows, how):
        func, y0 = Wave(), waves()[rows].requires_grad_()
        sol = solve(func, y0, t, stepping=how, gradient=gradient)
        return torch.autograd.grad(sol.y.sin().sum(), y0)[0]

    whole = bars(torch.arange(6), stepping)
    for number, how in ((3, "shared"), (0, "shared"), (1, "per_sample")):
        rows = (stepping == number).nonzero()[:, 0]
        assert worst([whole[rows]], [bars(rows, how)]) <= 1e-11


@pytest.mark.parametrize("stepping", [(0, 0, 1), (0, 1, 0), (0, 1, 1), (0, 1, 2)])
@pytest.mark.parametrize("gradient", [Interpolating(), Backsolve()], ids=repr)
def test_reverse_solves_of_a_mixture_go_where_an_event_has_ended_some_samples(gradient, stepping):
    level = Event(lambda t, y: y[:, 0] - f64(0.4, 0.9, -9.0))  # met by two, by each at a time of its own

    def bars(choice):
        func, y0 = Wave(), waves(3).requires_grad_()
        how = {"stepping": groups(*stepping), "events": level, "rtol": 1e-8, "atol": 1e-9}
        sol = solve(func, y0, f64(0.0, 1.0), gradient=choice, **how)
        assert sol.status.tolist() == [Status.EVENT, Status.EVENT, Status.SUCCESS]
        ends = torch.stack((sol.y_events[0][0][0], sol.y_events[0][1][0], sol.y[-1, 2]))
        return torch.autograd.grad(ends.sin().sum(), [y0, func.scale])

    assert worst(bars(gradient), bars(Discrete())) <= 1e-6
