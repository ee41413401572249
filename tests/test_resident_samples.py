"""Per-sample stepping where only the end is wanted: queued and compiled, the same steps as ever."""

import pytest
import torch
from host_reads import host_reads
from problems import Net, f64, worst
from torch import nn
from torch._dynamo.utils import counters

from adamode import PID, AdamodeWarning, Event, Status, solve
from adamode.models.dynamics import AdamODE
from adamode.models.fields import MLP

OPTIONS = {"stepping": "per_sample", "gradient": None, "rtol": 1e-4, "atol": 1e-6}


class VanDerPol(nn.Module):
    """x'' = μ (1 − x²) x' − x, with μ in the state, and calls counted."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(f64(1.0))

    def forward(self, t, y):
        x, v, mu = y.unbind(-1)
        return torch.stack((v, mu * self.scale * (1 - x * x) * v - x, torch.zeros_like(x)), -1)


class Root(nn.Module):
    """y' = −1 − √y: leaves its domain."""

    def forward(self, t, y):
        return -1 - torch.sqrt(y)


def oscillators(n=6):
    mu = torch.logspace(0, 1.5, n, dtype=torch.float64)
    return torch.stack((torch.full_like(mu, 2.0), torch.zeros_like(mu), mu), -1)


@pytest.fixture
def tracing(monkeypatch):
    monkeypatch.setattr("adamode.solvers.device.programs.BACKEND", "aot_eager")


@pytest.fixture
def captured(monkeypatch):
    """Programs are captured and run as they are: the test before has them lowered."""
    monkeypatch.setattr("adamode.solvers.device.programs.BACKEND", "eager")


def general(func, y0, t, **options):
    """By the attempts that do everything: a trace is wanted."""
    with torch.no_grad():
        return solve(func, y0, t, **{**OPTIONS, **options}, trace=True)


def assert_same(fast, plain, tolerance=0.0):
    assert torch.equal(fast.status, plain.status)
    for name in ("nfe", "n_accepted", "n_rejected"):
        assert torch.equal(getattr(fast.stats, name), getattr(plain.stats, name)), name
    assert torch.equal(fast.y.isnan(), plain.y.isnan())
    assert worst([fast.y.nan_to_num()], [plain.y.nan_to_num()]) <= tolerance
    # the next step follows from a small error of large stages: their rounding is the coarser one
    assert worst([fast.stats.dt_last], [plain.stats.dt_last]) <= 1e4 * tolerance


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize(
    ("method", "norm", "controller"),
    [
        ("dopri5", "rms", PID()),
        ("bosh3", "max", PID(pcoeff=0.4, icoeff=0.3, dcoeff=0.1, dt_max=0.2, safety=1.0)),
        ("dop853", "rms", PID(factor_max=2.0, regrow=True)),
    ],
)
def test_the_steps_are_those_of_the_attempts_that_do_everything(every, compact, method, norm, controller):
    how = {"method": method, "norm": norm, "controller": controller, "compact": compact, "dt0": 0.5}
    t = torch.stack([f64(0.0, end) for end in (3.0, -1.0, 2.0, 3.0, 0.0, 1.0)])
    with torch.no_grad():
        fast = solve(VanDerPol(), oscillators(), t, **OPTIONS, **how, sync_every=every)
    plain = general(VanDerPol(), oscillators(), t, **how)
    assert plain.stats.n_rejected.sum() > 2
    assert len(set(plain.stats.n_accepted.tolist())) >= 5
    assert_same(fast, plain)


@pytest.mark.parametrize("compact", [False, True])
def test_samples_fail_each_with_its_reason(compact):
    y0 = f64(0.5, 9.0, -1.0, float("nan"), 4.0)[:, None]
    t = torch.stack([f64(0.0, end) for end in (1.0, 0.7, 1.0, 1.0, 0.0)])
    how = {"dt0": 3.0, "compact": compact}
    with torch.no_grad():
        fast = solve(Root(), y0, t, **OPTIONS, **how)
        short = solve(VanDerPol(), oscillators(), f64(0.0, 3.0), **OPTIONS, max_steps=40)
    expected = [Status.NON_FINITE, Status.SUCCESS, Status.NON_FINITE, Status.NON_FINITE, Status.SUCCESS]
    assert fast.status.tolist() == expected
    assert_same(fast, general(Root(), y0, t, **how))
    assert {*short.status.tolist()} == {Status.SUCCESS, Status.MAX_STEPS}
    assert_same(short, general(VanDerPol(), oscillators(), f64(0.0, 3.0), max_steps=40))
    floor = {"controller": PID(dt_min=0.05)}
    with torch.no_grad():
        stuck = solve(VanDerPol(), oscillators(), f64(0.0, 3.0), **OPTIONS, **floor)
    assert Status.STEP_UNDERFLOW in stuck.status.tolist()
    assert_same(stuck, general(VanDerPol(), oscillators(), f64(0.0, 3.0), **floor))


def test_the_host_looks_once_for_n_attempts():
    with host_reads() as found, torch.no_grad():
        sol = solve(VanDerPol(), oscillators(), f64(0.0, 3.0), **OPTIONS, sync_every=8)
    attempts = int(sol.stats.n_steps.max())
    assert attempts > 40
    assert found.total() <= -(-attempts // 8) + 2, found


@pytest.mark.parametrize("every", [1, 8])
def test_compiled_attempts_take_the_same_steps_and_nothing_is_compiled_twice(tracing, every):
    func = VanDerPol()
    for end, tol, dt0 in ((2.0, 1e-5, None), (1.0, 1e-6, 0.1), (-0.5, 1e-4, None)):
        with torch.no_grad():
            func.scale.mul_(0.9)
        how = {"rtol": tol, "atol": tol, "dt0": dt0, "method": "bosh3"}
        before = counters["stats"]["unique_graphs"]
        with torch.no_grad():
            fast = solve(
                func, oscillators(), f64(0.0, end), **{**OPTIONS, **how}, compile=True, sync_every=every
            )
        if end != 2.0:
            assert counters["stats"]["unique_graphs"] == before
        plain = general(func, oscillators(), f64(0.0, end), **how)
        assert_same(fast, plain, 1e-12)
        slack = 3 * every  # attempts past the last are not made: the loop ends in the graph
        assert plain.stats.n_calls <= fast.stats.n_calls <= plain.stats.n_calls + slack


def test_a_dynamics_is_compiled_with_its_batch_on_the_second_axis(captured):
    torch.manual_seed(0)
    func = AdamODE(MLP(2, (4,)), alpha=0.3, beta=0.4, eps=1e-3).double()
    z0 = torch.rand(3, 5, 2, dtype=torch.float64) + 0.5
    for norm in ("rms", "blocks"):
        how = {"method": "bosh3", "norm": norm}
        with torch.no_grad():
            fast = solve(func, z0, f64(0.0, 1.0), **OPTIONS, **how, compile=True, sync_every=4)
        assert_same(fast, general(func, z0, f64(0.0, 1.0), **how), 1e-12)


@pytest.mark.inductor
def test_generated_code_takes_the_same_steps():
    with torch.no_grad():
        how = {"method": "bosh3", "rtol": 1e-4}
        fast = solve(
            VanDerPol(), oscillators(), f64(0.0, 1.0), **{**OPTIONS, **how}, compile=True, sync_every=64
        )
    assert_same(fast, general(VanDerPol(), oscillators(), f64(0.0, 1.0), **how), 1e-9)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"t": f64(0.0, 0.5, 1.0)}, "outputs before the end"),
        ({"dense": True}, "dense=True"),
        ({"trace": True}, "trace=True"),
        ({"events": Event(lambda t, y: y[:, 0])}, "events"),
        ({"jump_at": [0.5]}, "jump_at"),
        ({"dt": 0.1}, "a fixed step"),
        ({"norm": lambda z: z.abs().amax(1)}, "a norm of your own"),
        ({"compact": True}, "compact=True"),
        ({"gradient": "default"}, "a gradient is wanted"),
    ],
)
def test_what_cannot_be_compiled_is_said_once_and_solved_as_ever(options, reason):
    options = {"t": f64(0.0, 1.0), **OPTIONS, **options}
    if options["gradient"] == "default":
        del options["gradient"]
    func, t = Net(), options.pop("t")
    y0 = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    with pytest.warns(AdamodeWarning, match=reason) as told:
        fast = solve(func, y0, t, **options, compile=True)
    assert len(told) == 1
    assert torch.equal(fast.y, solve(func, y0, t, **options).y)
