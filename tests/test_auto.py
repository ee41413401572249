"""method="auto": explicit steps where the problem allows them, implicit ones where it is stiff."""

import pytest
import torch

import adamode
from adamode.solvers.march import switching
from adamode.solvers.methods import EVERY

D = torch.float64
STEPPINGS = ("shared", "per_sample")
EXPLICIT, IMPLICIT = (tableau.name for tableau in EVERY["auto"].between)


class Pulled(torch.nn.Module):
    """The second entry is drawn to the first, from t = 1 to t = 2 fast: it is stiff there."""

    def __init__(self, rate=1e4):
        super().__init__()
        self.rate = torch.nn.Parameter(torch.tensor(float(rate), dtype=D))

    def forward(self, t, y):
        a, b = y.unbind(-1)
        t = t.reshape(t.shape[:1])
        within = torch.sigmoid(20 * (t - 1)) * torch.sigmoid(20 * (2 - t))
        return torch.stack((-a + torch.cos(t) * b, -(1 + self.rate * within) * (b - a)), -1)


def start(stepping):
    many = torch.tensor([[1.0, 0.5], [0.3, -0.2], [-0.4, 0.1]], dtype=D)
    return (many[0] if stepping == "shared" else many).clone().requires_grad_()


def solved(stepping, method="auto", times=(0.0, 1.4, 2.6, 3.2), rate=1e4, **options):
    f, y0 = Pulled(rate), start(stepping)
    t = torch.tensor(times, dtype=D, requires_grad=True)
    settings = {"rtol": 1e-5, "atol": 1e-7, "stepping": stepping, "trace": True, **options}
    return adamode.solve(f, y0, t, method=method, **settings), (y0, t, f.rate)


def changes(sol):
    """For each sample the methods in the order in which they took over."""
    found = {}
    for row in sol.trace:
        own = found.setdefault(row.sample, [])
        if not own or own[-1] != row.method:
            own.append(row.method)
    return list(found.values())


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_each_clock_changes_where_the_problem_becomes_stiff_and_back(stepping):
    sol, _ = solved(stepping, gradient=None)
    assert changes(sol) == [[EXPLICIT, IMPLICIT, EXPLICIT]] * len(changes(sol))
    for row in sol.trace:
        if row.method == IMPLICIT:
            assert 0.6 < float(row.t) < 2.7
    exact, _ = solved(stepping, "radau5", rtol=1e-7, atol=1e-9, gradient=None)
    assert float((sol.y - exact.y).abs().max()) < 1e-4


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_decreasing_time_changes_as_well(stepping):
    """The same problem turned round, from 0 down to −3.2."""

    def turned(t, y):
        return -Pulled()(-t, y)

    y0 = start(stepping).detach()
    t = torch.tensor([0.0, -3.2], dtype=D)
    options = {"rtol": 1e-5, "atol": 1e-7, "stepping": stepping, "method": "auto", "trace": True}
    back = adamode.solve(turned, y0, t, gradient=None, **options)
    forth = adamode.solve(Pulled(), y0, -t, gradient=None, **options)
    assert changes(back) == changes(forth)
    torch.testing.assert_close(back.y, forth.y, rtol=1e-12, atol=0)


def test_an_easy_problem_has_the_explicit_method_s_numbers():
    for stepping in STEPPINGS:
        sol, _ = solved(stepping, rate=1.0)
        want, _ = solved(stepping, EXPLICIT, rate=1.0)
        assert {row.method for row in sol.trace} == {EXPLICIT}
        torch.testing.assert_close(sol.y, want.y, rtol=1e-14, atol=0)
        assert torch.as_tensor(sol.stats.nfe).tolist() == torch.as_tensor(want.stats.nfe).tolist()


def test_it_takes_fewer_evaluations_than_either():
    counts = {
        name: int(solved("shared", name, rtol=1e-6, atol=1e-8, rate=2e3, gradient=None)[0].stats.nfe)
        for name in ("auto", EXPLICIT, IMPLICIT)
    }
    assert counts["auto"] < counts[IMPLICIT] < counts[EXPLICIT]


KEEPS = (adamode.Discrete(), adamode.Discrete(checkpoints=4))
TIGHT = {"rtol": 1e-7, "atol": 1e-9, "rate": 1e3, "times": (0.8, 1.4, 2.2)}


def gradients(stepping, gradient, **options):
    sol, inputs = solved(stepping, gradient=gradient, **{**TIGHT, **options})
    weights = torch.sin(torch.arange(sol.y.numel(), dtype=D)).reshape(sol.y.shape) + 0.1
    return torch.autograd.grad((sol.y * weights).sum(), inputs), sol


def furthest(found, want):
    return max(float((x - y).abs().max() / y.abs().max()) for x, y in zip(found, want, strict=True))


@pytest.mark.parametrize("stepping", [*STEPPINGS, "groups"])
def test_the_walk_back_goes_through_both_kinds_of_step(stepping):
    stepping = torch.tensor([4, 7, 4]) if stepping == "groups" else stepping
    want, sol = gradients(stepping, adamode.Direct())
    assert {row.method for row in sol.trace} == {EXPLICIT, IMPLICIT}
    for gradient in KEEPS:
        found, _ = gradients(stepping, gradient)
        assert furthest(found, want) < 1e-5  # Newton lets the step sizes differ


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_the_interpolating_adjoint_changes_too(stepping):
    want, _ = gradients(stepping, adamode.Discrete(), rtol=1e-5, atol=1e-7)
    found, sol = gradients(stepping, adamode.Interpolating(), rtol=1e-5, atol=1e-7)
    assert furthest(found, want) < 1e-2
    if stepping == "shared":
        explicit, other = gradients(stepping, adamode.Interpolating(method=EXPLICIT), rtol=1e-5, atol=1e-7)
        assert furthest(explicit, want) < 1e-2
        assert other.stats.nfe_backward > sol.stats.nfe_backward


def test_samples_change_on_their_own_and_may_leave_the_batch():
    """Groups step as one; a sample that is through leaves, and the others change all the same."""
    stepping = torch.tensor([0, 1, 1])
    alone, _ = solved("per_sample", gradient=None, times=(0.0, 3.2))
    for options in ({"compact": True}, {"compact": True, "dense": True}):
        found, _ = solved("per_sample", gradient=None, times=(0.0, 3.2), **options)
        torch.testing.assert_close(found.y, alone.y, rtol=1e-12, atol=0)
        assert changes(found) == changes(alone)
    grouped, _ = solved(stepping, gradient=None, times=(0.0, 3.2))
    rows = [[(r.t, r.method) for r in grouped.trace if r.sample == b] for b in (1, 2)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_what_a_solve_has_besides_goes_over_the_changes(stepping):
    """Dense output, events, times to hit and jumps, as with one method at a finer tolerance."""
    event = adamode.Event(lambda t, y: y[..., 0] - 0.1, terminal=False)
    options = {"events": event, "dense": True, "step_at": [1.5], "jump_at": [0.5, 2.5], "gradient": None}
    sol, _ = solved(stepping, **options)
    fine, _ = solved(stepping, IMPLICIT, rtol=1e-7, atol=1e-9, **options)
    asked = torch.linspace(0.0, 3.2, 37, dtype=D)
    assert float((sol(asked) - fine(asked)).abs().max()) < 1e-3
    assert len(changes(sol)[0]) >= 3
    own, wanted = ([torch.as_tensor(x) for x in found.t_events[0]] for found in (sol, fine))
    assert len(own) == len(wanted) > 0
    for x, y in zip(own, wanted, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-3, atol=0)


def test_a_jacobian_of_the_caller_is_taken():
    calls = []

    def jac(t, y):
        calls.append(t)
        within = torch.sigmoid(20 * (t - 1)) * torch.sigmoid(20 * (2 - t))
        rate = 1 + 1e4 * within
        return torch.stack((torch.stack((-torch.ones_like(t), torch.cos(t))), torch.stack((rate, -rate))))

    sol, _ = solved("shared", jac=jac, gradient=None)
    want, _ = solved("shared", gradient=None)
    assert calls
    torch.testing.assert_close(sol.y, want.y, rtol=1e-5, atol=1e-6)


def test_what_does_not_go_with_it_says_so():
    with pytest.raises(adamode.ArgumentError, match=r"dt is given with method='auto'.*radau5"):
        solved("shared", dt=0.1)
    with pytest.raises(adamode.ArgumentError, match=r"dt is given with method='auto'"):
        solved("shared", "rk4", dt=0.1, gradient=adamode.Interpolating(method="auto"))
    with pytest.raises(adamode.ArgumentError, match="Backsolve"):
        solved("shared", gradient=adamode.Backsolve())
    with pytest.raises(adamode.ArgumentError, match=r"gmres.*kvaerno5"):
        solved("shared", linear_solver="gmres")
    with pytest.raises(adamode.ArgumentError, match=r"implicit steps.*adamode.solve"):
        adamode.odeint(Pulled(), start("shared"), torch.tensor([0.0, 1.0], dtype=D), method="auto")


def test_an_explicit_solve_that_runs_out_of_steps_names_it():
    with pytest.raises(adamode.SolverError, match="method='auto'"):
        solved("shared", EXPLICIT, rate=1e6, max_steps=300)


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("name", ["STIFF", "EASY"])
def test_a_rule_that_never_speaks_is_seen(stepping, name, monkeypatch):
    """Planted: no explicit step is ever called stiff; no implicit one easy."""
    monkeypatch.setattr(switching, name, 1e9 if name == "STIFF" else 0.0)
    sol, _ = solved(stepping, rate=300.0, gradient=None)
    assert changes(sol)[0] != [EXPLICIT, IMPLICIT, EXPLICIT]


def test_no_eigenvalue_is_above_the_bound():
    from adamode.solvers.step.clocks import ONE, each
    from adamode.solvers.step.implicit.linear import spectral_bound

    generator = torch.Generator().manual_seed(0)
    blocks = torch.randn(50, 4, 4, dtype=D, generator=generator)
    unit = torch.rand(50, 4, dtype=D, generator=generator) + 1e-3
    bound = spectral_bound(blocks, unit, each(0, 2))
    assert bool((torch.linalg.eigvals(blocks).abs().amax(1) <= bound * (1 + 1e-12)).all())
    assert float(spectral_bound(blocks, unit, ONE)) == float(bound.max())
    scaled = torch.diag_embed(1 / unit) @ blocks @ torch.diag_embed(unit)  # of other units the same bound
    assert float(spectral_bound(torch.diag(f64(1.0, 2.0))[None], f64(1.0, 1e6)[None], ONE)) == 2.0
    assert scaled.shape == blocks.shape


def f64(*numbers):
    return torch.tensor(numbers, dtype=D)


def test_steps_that_ask_count_against_those_that_do_not_of_one_clock_as_of_many():
    rule = switching.Switch(4.0)
    long, short, between = 4.0 * switching.STIFF + 1, 4.0 * switching.EASY / 2, float("nan")
    told = [long, long, short, long, between, between, between, long]
    for implicit, want in ((False, [1, 2, 1, 2, 1, 0, 0, 1]), (True, [0, 0, 1, 0, 0, 0, 0, 0])):
        one, many, found = 0, torch.zeros(2, dtype=torch.int64), []
        for stiff in told:
            one = rule.counted(implicit, one, stiff)
            many = rule.counted(torch.tensor([implicit] * 2), many, f64(stiff, stiff))
            found.append(one)
            assert many.tolist() == [one, one]
        assert found == want
    assert rule.due(False, switching.TO_IMPLICIT)
    assert not rule.due(False, switching.TO_IMPLICIT - 1)


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_a_small_stiff_component_beside_a_large_one_is_seen(stepping):
    """The estimate is in units of the tolerance: the same solve, whatever units a component has."""

    def field(unit):
        def f(t, y):
            a, b = y.unbind(-1)
            return torch.stack((-0.3 * a, -1e3 * (b - unit * torch.cos(t).reshape(t.shape[:1]))), -1)

        return f

    found = {}
    for unit in (1.0, 1e-9):
        y0 = torch.tensor([[1.0, 1.0 * unit]], dtype=D)
        y0 = y0[0] if stepping == "shared" else y0
        options = {"rtol": 1e-4, "atol": torch.tensor([1e-4, 1e-4 * unit], dtype=D), "stepping": stepping}
        t = torch.tensor([0.0, 5.0], dtype=D)
        found[unit] = adamode.solve(field(unit), y0, t, method="auto", trace=True, gradient=None, **options)
        assert changes(found[unit]) == [[EXPLICIT, IMPLICIT]]
    assert len(found[1.0].trace) == len(found[1e-9].trace)
