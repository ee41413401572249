"""Continuous adjoints as whole programs: the gradients and the counts of the eager reverse solves."""

import gc
import weakref

import pytest
import torch
from problems import Net, f64, quench, worst
from torch import nn

from adamode import Backsolve, Interpolating, NotRepeatableError, ReconstructionError, SolverError, solve
from adamode.models.dynamics import AdamODE
from adamode.models.fields import MLP
from adamode.solvers.device.native import exported
from adamode.solvers.device.natives import Natives
from adamode.solvers.device.whole import loop

pytestmark = pytest.mark.native
COUNTS = ("nfe", "n_accepted", "n_rejected", "nfe_backward", "n_accepted_backward", "n_rejected_backward")
TIMES = {"two": (0.0, 2.0), "several": (0.0, 0.1, 0.2, 0.7, 3.0), "back": (1.0, 0.5, 0.3, -1.0)}


@pytest.fixture(autouse=True)
def as_plain_functions(request, monkeypatch):
    if "slow" not in request.keywords:
        monkeypatch.setattr("adamode.solvers.device.natives.MODE", "plain")

    def older(*_):
        raise AssertionError("an older program is asked for")

    monkeypatch.setattr("adamode.solvers.device.programs.Programs.run", older)


def adam():
    """A dynamics with its VJP by hand."""
    torch.manual_seed(2)
    return AdamODE(MLP(3, (4,)), alpha=0.3, beta=0.4, eps=1e-2).double()


class Quench(nn.Module):
    """y' = −rate (y − cos t)."""

    def __init__(self, rate=200.0):
        super().__init__()
        self.rate = nn.Parameter(f64(rate))

    def forward(self, t, y):
        return quench(t, y, self.rate)


def start_of(func):
    h = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return torch.stack((h, 0.3 * h, h * h + 1)) if isinstance(func, AdamODE) else h


def solved(func, y0, times, gradient, *, timed=True, **options):
    """(stats, [y, dL/dy0, dL/dθ …, dL/dt]) of a loss that weighs every entry of the outputs."""
    y0, t = y0.clone().requires_grad_(), torch.tensor(times, dtype=y0.dtype).requires_grad_(timed)
    sol = solve(func, y0, t, gradient=gradient, **options)
    make = torch.Generator().manual_seed(1)
    weights = torch.randn(sol.y.shape, dtype=y0.dtype, generator=make)
    wanted = [y0, *(p for p in func.parameters() if p.requires_grad), *([t] if timed else [])]
    return sol.stats, [sol.y.detach(), *torch.autograd.grad((torch.sin(sol.y) * weights).sum(), wanted)]


def both(func, y0, times, gradient, **options):
    """The same eagerly and by whole programs, which there must be."""
    name = type(gradient).__name__.lower()
    eager = solved(func, y0, times, gradient, **options)
    whole = solved(func, y0, times, gradient, compile=True, **options)
    assert any(name in key for key in Natives.of(func).known)
    return eager, whole


def assert_equal(eager, whole):
    """Rounding apart: sums over stages are in another order."""
    assert worst(whole[1], eager[1]) < 1e-12
    for name in COUNTS:
        assert getattr(whole[0], name) == getattr(eager[0], name), name


@pytest.mark.parametrize("method", ["dopri5", "bosh3", "tsit5"])
@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("make", [Net, adam])
def test_backsolve_is_the_same_by_whole_programs(make, times, method):
    func = make()
    eager, whole = both(func, start_of(func), TIMES[times], Backsolve(), method=method, rtol=1e-5, atol=1e-6)
    assert_equal(eager, whole)
    assert whole[0].reconstruction_error == pytest.approx(eager[0].reconstruction_error, rel=1e-8)


@pytest.mark.parametrize("method", ["dopri5", "bosh3", "tsit5"])
@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("make", [Net, adam])
def test_interpolating_is_the_same_by_whole_programs(make, times, method):
    func, options = make(), {"method": method, "rtol": 1e-5, "atol": 1e-6}
    assert_equal(*both(func, start_of(func), TIMES[times], Interpolating(), **options))


def test_interpolating_looks_states_up_in_several_pieces_of_memory(monkeypatch):
    monkeypatch.setattr("adamode.solvers.device.whole.LONGEST", 2)
    func = Net()
    eager, whole = both(func, start_of(func), TIMES["several"], Interpolating(), rtol=1e-7, atol=1e-8)
    assert eager[0].n_accepted > 10  # so six pieces, and room for eight
    assert_equal(eager, whole)


@pytest.mark.parametrize("norm", ["rms", "max", "blocks"])
@pytest.mark.parametrize(
    "gradient",
    [
        Backsolve(rtol=1e-8, atol=1e-9, anchors=0),
        Backsolve(method="bosh3"),
        Interpolating(rtol=1e-8, method="bosh3"),
    ],
    ids=["tight", "bosh3", "interpolating"],
)
def test_a_reverse_solve_of_its_own_tolerance_and_method_is_the_same(gradient, norm):
    func = adam()
    assert_equal(*both(func, start_of(func), TIMES["several"], gradient, norm=norm, timed=False))


def test_tolerances_of_each_entry_are_those_of_the_reverse_solve():
    func, rtol = adam(), torch.tensor([[1e-3, 1e-5, 1e-6]] * 4, dtype=torch.float64)
    eager, whole = both(func, start_of(func), TIMES["two"], Backsolve(atol=1e-7), rtol=rtol, atol=1e-5)
    assert_equal(eager, whole)
    assert whole[0].reconstruction_error == pytest.approx(eager[0].reconstruction_error, rel=1e-8)


@pytest.mark.parametrize("gradient", [Backsolve(), Interpolating()], ids=["backsolve", "interpolating"])
def test_float32_has_the_same_gradients_to_its_own_rounding(gradient):
    func = Net().float()
    y0 = start_of(func).float()
    eager, whole = both(func, y0, TIMES["back"], gradient, rtol=1e-4, atol=1e-5)
    assert all(x.dtype == torch.float32 for x in whole[1])
    assert worst(whole[1], eager[1]) < 1e-4


def test_frozen_parameters_get_no_gradient_and_cost_none():
    func = Net()
    func.w1.requires_grad_(False)
    assert_equal(*both(func, start_of(func), TIMES["several"], Backsolve()))


def test_only_the_last_output_may_have_a_cotangent():
    func = Net()
    y0 = start_of(func).requires_grad_()
    found = []
    for compiled in (False, True):
        sol = solve(func, y0, f64(*TIMES["several"]), gradient=Backsolve(), compile=compiled)
        found.append(torch.autograd.grad(sol.y[-1].sum(), [y0, *func.parameters()]))
    assert worst(found[1], found[0]) < 1e-12


def test_a_state_that_is_lost_is_solved_again_from_states_kept_along_the_way():
    func, y0 = Quench(40.0), f64(0.5, 2.0)[:, None]
    options = {"rtol": 1e-6, "atol": 1e-6}
    eager, whole = both(func, y0, (0.0, 1.0), Backsolve(anchors=64), **options)
    assert eager[0].nfe_recomputed == whole[0].nfe_recomputed == 1  # both are the eager way's
    assert_equal(eager, whole)


@pytest.mark.parametrize("error", [ReconstructionError, SolverError])
def test_what_goes_wrong_is_told_as_ever(error):
    lost = error is ReconstructionError
    func, gradient = Quench(20.0), Backsolve(anchors=0)
    if not lost:
        func, gradient = Net(), Backsolve(rtol=1e-11, atol=1e-13, anchors=0)
    said = []
    for compiled in (False, True):
        with pytest.raises(error) as caught:
            solved(
                func, start_of(func), (0.0, 2.0), gradient, compile=compiled, max_steps=2000 if lost else 40
            )
        said.append(str(caught.value))
    assert any("backsolve" in key for key in Natives.of(func).known)
    assert said[1][:20] == said[0][:20]


def test_a_func_that_is_another_on_the_way_back_is_told():
    func = Net()
    y0 = start_of(func).requires_grad_()
    sol = solve(func, y0, f64(0.0, 1.0), gradient=Backsolve(), compile=True)
    with torch.no_grad():
        for parameter in func.parameters():
            parameter.data.mul_(1.01)  # .data hides the change from autograd
    with pytest.raises(NotRepeatableError):
        sol.y.sum().backward()


def test_the_way_back_can_be_walked_again():
    func = Net()
    y0 = start_of(func).requires_grad_()
    sol = solve(func, y0, f64(0.0, 0.5, 1.0), gradient=Interpolating(), compile=True)
    first, again = (torch.autograd.grad(sol.y.sum(), y0, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.parametrize("gradient", [Backsolve(), Interpolating()], ids=["backsolve", "interpolating"])
def test_a_solve_and_its_func_are_freed(gradient):
    func = Net()
    sol = solve(func, start_of(func).requires_grad_(), f64(0.0, 0.5, 1.0), gradient=gradient, compile=True)
    sol.y.sum().backward()
    gone, values = weakref.ref(func), weakref.ref(sol.y)
    del func, sol
    gc.collect()
    assert gone() is None
    assert values() is None


@pytest.mark.slow
@pytest.mark.parametrize("gradient", [Backsolve(), Interpolating()], ids=["backsolve", "interpolating"])
@pytest.mark.parametrize("make", [Net, adam])
def test_the_native_program_is_the_function(make, gradient, tmp_path, monkeypatch):
    monkeypatch.setenv("ADAMODE_CACHE", str(tmp_path))
    func = make()
    for times in ((0.0, 2.0), (2.0, 0.5)):
        assert_equal(*both(func, start_of(func), times, gradient, rtol=1e-5, atol=1e-6))


def test_the_larger_of_two_sizes_is_the_larger_in_a_loop_that_is_exported():
    x = torch.ones(2, 3, dtype=torch.float64)

    def largest(owner, x):
        def once(new, found):
            return torch.zeros_like(new), x.sum() / max(x.numel(), 1)

        return [loop(lambda new, _: new.all(), once, (x.new_ones((), dtype=torch.bool), x.new_zeros(())))[1]]

    found = exported(largest, nn.Module(), (x,)).module()(x)
    assert float(found[0]) == 1.0
