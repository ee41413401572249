"""Input signals: exact between and at kinks, gradients to their values, neural CDEs, gaps, refusals."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.interpolate
import torch
from torch import nn

import adamode
from adamode import Signal, solve
from adamode.models import fields

pytestmark = pytest.mark.usefixtures("float64")
KINDS = ("hold", "linear", "cubic", "hermite")
CHOICES = {
    "Discrete": adamode.Discrete(),
    "Discrete, states": adamode.Discrete(keep="state"),
    "Discrete, checkpoints": adamode.Discrete(checkpoints=4),
    "Interpolating": adamode.Interpolating(),
    "Backsolve": adamode.Backsolve(),
    "Reversible": adamode.Reversible(),
}
NAN = math.nan


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def waves(*shape):
    return torch.cos(1.7 * torch.arange(torch.Size(shape).numel(), dtype=torch.float64) + 1).reshape(shape)


# -- between the samples -----------------------------------------------------------------------------------

TIMES = f64(0.0, 0.3, 0.7, 1.5, 2.0, 2.2, 3.0)


def by_scipy(kind, t, v):
    """An interpolant of one channel: a function of (time, derivative)."""
    if kind == "hold":
        return lambda x, n: v[np.clip(np.searchsorted(t, x, side="right") - 1, 0, len(t) - 1)] * (n == 0)
    if kind == "linear":
        spline = scipy.interpolate.make_interp_spline(t, v, k=1)
        return lambda x, n: spline(x, nu=n) if n < 2 else np.zeros_like(x)
    if kind == "cubic":
        return scipy.interpolate.CubicSpline(t, v, bc_type="natural")
    d = np.diff(v) / np.diff(t)
    return scipy.interpolate.CubicHermiteSpline(t, v, np.concatenate((d[:1], d)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_is_scipys_interpolant_with_gaps_and_fewer_samples(kind):
    values = waves(3, 7, 2)
    gaps = [(0, 2, 1), (0, 3, 1), (2, 1, 0), (2, 5, 0)]
    times = TIMES.expand(3, -1).clone()
    times[1, 5:] = times[1, 4]  # five samples of seven; what stands behind them is nothing
    holes = values.clone()
    for place in gaps:
        holes[place] = NAN
    holes[1, 5:] = NAN
    signal, ask = Signal(times, holes, kind), torch.linspace(0.01, 1.99, 23)
    found, slopes = signal(ask), signal.derivative(ask)
    assert found.shape == (23, 3, 2)
    for b in range(3):
        for c in range(2):
            there = ~holes[b, :, c].isnan()
            t, v = times[b][there].numpy(), values[b, :, c][there].numpy()
            if kind == "hermite":  # slopes are differences of what has been filled in
                whole = times[b][: 5 if b == 1 else 7].numpy()
                t, v = whole, np.interp(whole, t, v)
            for n, tensor in enumerate((found, slopes)):
                known = torch.from_numpy(by_scipy(kind, t, v)(ask.numpy(), n))
                torch.testing.assert_close(tensor[:, b, c], known, rtol=1e-11, atol=1e-11)
    masked = Signal(times, torch.where(holes.isnan(), 7.0, holes), kind, mask=~holes.isnan())
    torch.testing.assert_close(masked(ask), found, rtol=0, atol=0)


def test_ends_hold_and_a_channel_of_nothing_is_0():
    values = f64([NAN, NAN], [1.0, NAN], [3.0, NAN], [NAN, NAN])
    for kind in KINDS:
        found = Signal(f64(0, 1, 2, 3), values, kind)(f64(-1, 0, 1, 2, 3, 4))
        known = f64([1, 0], [1, 0], [1, 0], [3, 0], [3, 0], [3, 0])
        torch.testing.assert_close(found, known, rtol=0, atol=1e-12)


def test_shapes_are_those_of_a_solutions_answers():
    t = torch.rand(5, 3)
    for kind in KINDS:
        one, each = Signal(TIMES, waves(7, 2), kind), Signal(TIMES, waves(3, 4, 7, 2), kind)
        assert one(t).shape == (5, 3, 2)
        assert one(t[0, 0]).shape == (2,)
        assert each(t).shape == (5, 3, 3, 4, 2)
        assert each(t, per_sample=True).shape == each.derivative(t, per_sample=True).shape == (5, 3, 4, 2)
        torch.testing.assert_close(each(t, per_sample=True)[:, 1], each(t[:, 1])[:, 1], rtol=0, atol=0)
        torch.testing.assert_close(each.derivative()(t), each.derivative(t), rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_times_asked_have_the_gradients_of_differences(kind):
    values = waves(2, 5, 2)
    values[0, 2, 1] = NAN
    mask = ~values.isnan()
    values = torch.where(mask, values, 0.0).requires_grad_()
    ask = f64(0.1, 0.85, 1.9).requires_grad_()
    times = f64([0.0, 0.3, 0.7, 1.5, 2.0], [0.0, 0.4, 2.0, 2.0, 2.0])
    assert torch.autograd.gradcheck(lambda v, t: Signal(times, v, kind, mask=mask)(t), (values, ask))
    assert torch.autograd.gradgradcheck(lambda v: Signal(times, v, kind)(ask.detach()), (values,))


# -- a driven linear system --------------------------------------------------------------------------------

RATE = 0.8


def closed(kind, t, v, y0, start, end):
    """y(end) of y' = −RATE y + u from y(start), piece by piece: (y, u, u', u'', u''') is linear."""
    spline = by_scipy(kind, t.numpy(), v.numpy())
    order = {"hold": 1, "linear": 2}.get(kind, 4)
    m = torch.zeros(order + 1, order + 1)
    m[0, 0], m[0, 1] = -RATE, 1.0
    m[1:-1, 2:] += torch.eye(order - 1)
    low, high = sorted((start, end))
    stops = [low, *[x for x in t.tolist() if low < x < high], high]
    pieces = list(itertools.pairwise(stops))
    y = y0
    for a, b in pieces if end > start else reversed(pieces):
        middle = (a + b) / 2
        here, there = (a, b) if end > start else (b, a)
        taylor = [float(spline(np.array(middle), n)) for n in range(order)]
        s = here - middle
        u = [sum(taylor[n + k] * s**k / math.factorial(k) for k in range(order - n)) for n in range(order)]
        y = (torch.matrix_exp(m * (there - here)) @ f64(y, *u))[0].item()
    return y


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_driven_linear_system_is_its_closed_solution(kind, backwards):
    own = f64([0.0, 0.4, 1.0, 2.5], [0.0, 1.1, 2.5, 2.5], [-0.5, 0.6, 1.7, 2.6])
    values, y0 = waves(3, 4, 1), waves(3, 1)
    counts = (4, 3, 4)
    t = f64(0.0, 1.3, 2.5)
    t = t.flip(0) if backwards else t

    def f(t, y, u):
        return u - RATE * y

    def known(b, times, end):
        return closed(kind, times[: counts[b]], values[b, : counts[b], 0], y0[b].item(), t[0].item(), end)

    given = {"rtol": 1e-10, "atol": 1e-11, "method": "dop853", "gradient": None}
    for stepping in ("shared", "per_sample", torch.tensor([0, 1, 0])):
        sol = solve(f, y0, t, signal=Signal(own, values, kind), stepping=stepping, **given)
        for i, end in enumerate(t.tolist()[1:], 1):
            for b in range(3):
                assert abs(sol.y[i, b, 0].item() - known(b, own[b], end)) < 1e-9
    if kind == "hold":  # with exact sides a fixed step of any length is as good
        sol = solve(
            f, y0, t, signal=Signal(own, values, kind), dt=0.05, method="dopri8", stepping="per_sample"
        )
        for b in range(3):
            assert abs(sol.y[-1, b, 0].item() - known(b, own[b], t[-1].item())) < 1e-9


def test_each_sample_ends_steps_on_its_own_kinks_alone():
    own = f64([0.0, 0.4, 1.0], [0.0, 0.7, 1.0])
    sol = solve(
        lambda t, y, u: u - y,
        torch.zeros(2, 1),
        f64(0.0, 1.0),
        signal=Signal(own, waves(2, 3, 1)),
        stepping="per_sample",
        save="steps",
    )
    first, second = sol.t.t().tolist()
    assert {0.4, 0.7} & set(first) == {0.4}
    assert {0.4, 0.7} & set(second) == {0.7}


@pytest.mark.parametrize("backwards", [False, True])
def test_step_at_and_jump_at_may_be_each_samples_own(backwards):
    jumps = f64([0.2, 0.5], [0.65, 0.65])

    def f(t, y):
        return (t >= jumps[:, :1]).to(y) + 2.0 * (t >= jumps[:, 1:]).to(y)

    t = f64(0.0, 1.0)
    given = {"stepping": "per_sample", "save": "steps", "method": "rk4_classic", "dt": 0.3}
    sol = solve(f, torch.zeros(2, 1), t.flip(0) if backwards else t, jump_at=jumps, **given)
    end = -1.0 if backwards else 1.0
    for b in range(2):
        last = sol.y[:, b, 0][~sol.y[:, b, 0].isnan()][-1]
        assert abs(last.item() - end * ((1 - jumps[b]) * f64(1.0, 2.0)).sum().item()) < 1e-14
    sol = solve(f, torch.zeros(2, 1), t, step_at=jumps, jump_at=[0.9], **given)
    assert {0.2, 0.5, 0.9} <= set(sol.t[:, 0].tolist())
    assert {0.2, 0.5, 0.65, 0.9} & set(sol.t[:, 1].tolist()) == {0.65, 0.9}


# -- gradients ---------------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.b = nn.Parameter(0.7 * waves(4, 2)), nn.Parameter(waves(2))

    def forward(self, t, y, u):
        return torch.tanh(torch.cat((y, u), 1) @ self.w + self.b) - 0.5 * y


OWN = f64([0.0, 0.4, 1.0, 1.5], [0.0, 0.6, 1.5, 1.5], [-0.1, 0.3, 0.9, 1.6])
ENDS = f64([0.0, 0.7, 1.5], [0.1, 0.2, 0.4], [0.0, 0.5, 1.2])


def gradients(kind, values, *, backwards=False, **options):
    func, y0 = Net(), waves(3, 2).requires_grad_()
    t = ENDS if options.get("stepping") == "per_sample" else f64(0.0, 0.7, 1.5)
    t = t.flip(-1) if backwards else t
    sol = solve(func, y0, t, signal=Signal(OWN, values, kind), **{"rtol": 1e-7, "atol": 1e-7, **options})
    loss = (sol.y * waves(*sol.y.shape)).sum()
    return torch.autograd.grad(loss, (values, y0, *func.parameters()))


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
@pytest.mark.parametrize(("kind", "backwards"), [("hold", True), ("linear", False), ("cubic", True)])
def test_every_gradient_choice_gives_the_values_theirs(kind, backwards, stepping, name):
    values, choice = waves(3, 4, 2).requires_grad_(), CHOICES[name]
    continuous = isinstance(choice, (adamode.Interpolating, adamode.Backsolve))
    given = {"stepping": stepping, "compact": stepping == "per_sample", "backwards": backwards}
    if continuous:
        given |= {"rtol": 1e-8, "atol": 1e-8}
    reference = adamode.Direct(coupling=0.999) if name == "Reversible" else adamode.Direct()
    found = gradients(kind, values, gradient=choice, **given)
    known = gradients(kind, values, gradient=reference, **{**given, "compact": False})
    assert found[0][1, 3].abs().max() == 0  # the second sample has three
    bound = 1e-5 if continuous else 1e-8 if name == "Reversible" else 1e-12
    for f, k in zip(found, known, strict=True):
        assert (f - k).abs().max() <= bound * k.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_to_values_is_that_of_differences(kind):
    values = waves(3, 4, 2).requires_grad_()
    given = {"stepping": "per_sample", "dt": 0.1, "method": "rk4_classic"}  # of the very steps
    found = gradients(kind, values, **given)[0]

    def loss(v):
        sol = solve(Net(), waves(3, 2), ENDS, signal=Signal(OWN, v, kind), gradient=None, **given)
        return (sol.y * waves(*sol.y.shape)).sum().item()

    for place in ((0, 1, 0), (1, 2, 1), (2, 0, 0)):
        h = torch.zeros_like(values)
        h[place] = 1e-5
        with torch.no_grad():
            slope = (loss(values + h) - loss(values - h)) / 2e-5
        assert abs(slope - found[place].item()) < 1e-9


@pytest.mark.parametrize("method", ["radau5", "rodas5p"])
def test_implicit_steps_give_the_values_theirs(method):
    values = waves(3, 4, 2).requires_grad_()
    given = {"stepping": "per_sample", "method": method, "rtol": 1e-5, "atol": 1e-5, "backwards": True}
    # radau5's iteration ends within a hundredth of the tolerance, by which its gradient may differ.
    found = gradients("linear", values, compact=True, **given)
    known = gradients("linear", values, gradient=adamode.Direct(), **given)
    for f, k in zip(found, known, strict=True):
        assert (f - k).abs().max() <= (1e-6 if method == "radau5" else 1e-10) * k.abs().max()


def test_jac_gets_the_input_too():
    values, y0 = waves(3, 4, 2), waves(3, 2)
    seen = []

    def jac(t, y, u):
        seen.append(u.shape)
        return torch.diag_embed(-u.square() - 1)

    def f(t, y, u):
        return -(u.square() + 1) * y

    given = {"stepping": "per_sample", "signal": Signal(OWN, values), "method": "radau5", "gradient": None}
    with_jac, without = (solve(f, y0, ENDS, jac=j, **given) for j in (jac, None))
    assert set(seen) == {torch.Size((3, 2))}
    torch.testing.assert_close(with_jac.y, without.y, rtol=1e-6, atol=1e-7)


def test_a_value_that_func_does_not_use_gets_0_and_one_used_outside_it_is_named():
    values = waves(4, 1).requires_grad_()
    times = f64(0.0, 0.5, 1.0, 2.0)
    sol = solve(lambda t, y, u: -y + 0 * u, torch.ones(1), f64(0.0, 1.0), signal=Signal(times, values))
    (found,) = torch.autograd.grad(sol.y.sum(), values)
    assert found.abs().max() == 0
    other = 2.0 * waves(1).requires_grad_()
    with pytest.raises(adamode.ArgumentError, match="params="):
        solve(lambda t, y, u: other * u, torch.ones(1), f64(0.0, 1.0), signal=Signal(times, values))


def test_values_from_a_network_and_a_signal_made_once():
    make = nn.Linear(1, 1)
    times = f64(0.0, 0.5, 1.0, 2.0)
    found = []
    for choice in (adamode.Discrete(), adamode.Direct()):
        signal = Signal(times, make(times[:, None]), "cubic")
        sol = solve(lambda t, y, u: u - y, torch.ones(1), f64(0.0, 2.0), signal=signal, gradient=choice)
        found.append(torch.autograd.grad(sol.y[-1].sum(), make.weight)[0])
    torch.testing.assert_close(*found, rtol=1e-12, atol=0)
    leaf = waves(4, 1).requires_grad_()
    signal = Signal(times, leaf, "cubic")
    for _ in range(2):  # a step of training: the values move, the signal stays
        y = solve(lambda t, y, u: u - y, torch.ones(1), f64(0.0, 2.0), signal=signal).y[-1]
        (step,) = torch.autograd.grad(y.sum(), leaf)
        with torch.no_grad():
            leaf -= step
    fresh = Signal(times, leaf.detach(), "cubic")
    torch.testing.assert_close(signal(times).detach(), fresh(times), rtol=0, atol=0)


def test_float32_states_see_the_right_side_of_a_jump():
    times = f64(0.0, 0.1, 0.7, 1.0)  # 0.1 is above in float32, 0.7 below
    values = f64([0.0], [10.0], [-20.0], [5.0])
    y0 = torch.zeros(1, 1, dtype=torch.float32)
    for stepping in ("shared", "per_sample"):
        for t in (f64(0.0, 1.0), f64(1.0, 0.0)):
            sol = solve(
                lambda t, y, u: u.expand_as(y), y0, t, signal=Signal(times, values, "hold"), stepping=stepping
            )
            assert sol.y.dtype == torch.float32
            assert abs(sol.y[-1].item()) < 1e-5  # 10 · 0.6 − 20 · 0.3, either way


# -- neural CDEs -------------------------------------------------------------------------------------------

# torchcde 0.2.5, cdeint(method="dopri5", rtol=1e-11, atol=1e-12, options={"jump_t": t}), z at 3.
TORCHCDE = {
    "linear": [[0.010794427, -0.446189934, -0.664520342], [1.179349968, -0.006154596, -1.097284482]],
    "cubic": [[0.245705633, -0.822908042, -0.21640255], [1.310772536, -0.057717826, -1.177553994]],
    "hermite": [[-0.11224904, -0.309872686, -0.81318815], [1.314043317, -0.088698216, -1.080119553]],
}


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
@pytest.mark.parametrize("kind", TORCHCDE)
def test_a_neural_cde_has_torchcdes_numbers(kind, stepping):
    x = waves(2, 7, 2).cumsum(1)
    x[0, 2, 1] = x[0, 3, 1] = x[1, 0, 0] = x[1, 6, 1] = NAN
    w, b = 0.6 * waves(3, 6), 0.3 * waves(6)

    def f(t, z, dx):
        return (torch.tanh(z @ w + b).view(-1, 3, 2) @ dx[..., None])[..., 0]

    given = {"stepping": stepping, "rtol": 1e-8, "atol": 1e-9, "method": "dop853", "gradient": None}
    sol = solve(f, waves(2, 3), f64(0.0, 3.0), signal=Signal(TIMES, x, kind).derivative(), **given)
    torch.testing.assert_close(sol.y[-1], torch.tensor(TORCHCDE[kind]), rtol=0, atol=1e-6)


# -- what is refused ---------------------------------------------------------------------------------------

T4, V4 = f64(0.0, 0.5, 1.0, 2.0), waves(4, 1)


def under(signal, *, y0=None, t=(0.0, 1.0), **options):
    y0 = torch.zeros(2, 1, dtype=torch.float64) if y0 is None else y0
    return solve(lambda t, y, u: u - y, y0, torch.as_tensor(t), signal=signal, **options)


def swapped(b):
    times = T4.expand(3, -1).clone()
    times[b, 1:3] = times[b, 1:3].flip(0)
    return times


class Hand(adamode.Dynamics):
    def theta(self):
        return ()

    def forward(self, t, z):
        return -z, None

    def vjp(self, saved, cotangent):
        return -cotangent, None

    def parameter_gradients(self, saved, deltas, weights):
        return ()


REFUSED = [
    (lambda: Signal(T4, V4, "holds"), adamode.ArgumentError, "kind='holds'"),
    (lambda: Signal(T4.tolist(), V4), adamode.ArgumentTypeError, "times is list"),
    (lambda: Signal(swapped(2), V4), adamode.ArgumentError, r"times\[2\]\[1\]=1.0 is followed by 0.5"),
    (lambda: Signal(T4.flip(0), V4), adamode.ArgumentError, r"times\[0\]=2.0 is followed by 1.0"),
    (lambda: Signal(f64(0, 1, 1, 1), V4), adamode.ArgumentError, "strictly increasing, but"),
    (lambda: Signal(f64(0, 1, 2, math.inf), V4), adamode.ArgumentError, "finite"),
    (lambda: Signal(T4.clone().requires_grad_(), V4), adamode.ArgumentError, "times.detach"),
    (lambda: Signal(T4, V4[:3]), adamode.ArgumentError, r"\[4, U\]"),
    (lambda: Signal(T4.expand(3, -1), V4.expand(2, -1, -1)), adamode.ArgumentError, r"\[3, …, 4, U\]"),
    (lambda: Signal(T4, V4 / 0), adamode.ArgumentError, r"entry \(0, 0\) is infinite"),
    (lambda: Signal(T4, V4 * NAN), adamode.ArgumentError, "nothing to interpolate"),
    (lambda: Signal(T4, V4, mask=torch.ones(3)), adamode.ArgumentError, "mask is"),
    (lambda: Signal(T4, V4)(0.5), adamode.ArgumentTypeError, "t of a signal is float"),
    (lambda: Signal(T4, V4)(T4, per_sample=True), adamode.ArgumentError, "needs a signal with a batch"),
    (lambda: Signal(T4, V4).derivative().derivative(T4), adamode.ArgumentError, "a derivative already"),
    (lambda: under(V4), adamode.ArgumentTypeError, r"adamode.Signal\(times, values\)"),
    (lambda: under(Signal(T4, V4), t=(0.0, 3.0)), adamode.ArgumentError, "from t=0 to t=2, and the solve"),
    (
        lambda: under(Signal(torch.stack((T4, T4 / 2)), V4), t=(0.0, 1.5), stepping="per_sample"),
        adamode.ArgumentError,
        "signal of sample 1 is known from t=0 to t=1, and",
    ),
    (
        lambda: under(Signal(T4, V4.expand(3, -1, -1)), stepping="per_sample"),
        adamode.ArgumentError,
        "signal has 3 samples",
    ),
    (
        lambda: under(Signal(T4, V4, "hold"), method="kvaerno5"),
        adamode.ArgumentError,
        "signal, of kind='hold', with method='kvaerno5'",
    ),
    (
        lambda: under(Signal(T4, V4).derivative(), method="alf", gradient=None),
        adamode.ArgumentError,
        "the derivative of one of kind='linear'",
    ),
    (
        lambda: solve(Hand(), torch.zeros(1, 2, 1), f64(0.0, 1.0), signal=Signal(T4, V4)),
        adamode.ArgumentTypeError,
        "has no place for an input",
    ),
    (
        lambda: under(None, jump_at=torch.rand(3, 2), stepping="per_sample"),
        adamode.ArgumentError,
        r"jump_at has shape \(3, 2\); per sample",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "text"), REFUSED)
def test_what_cannot_be_is_refused_with_the_way_out(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_compile_does_nothing_under_a_signal_and_says_so():
    with pytest.warns(adamode.AdamodeWarning, match="gives func no input"):
        solve(Net(), waves(3, 2), f64(0.0, 1.0), signal=Signal(OWN, waves(3, 4, 2)), compile=True)


def test_the_old_name_is_the_same_class():
    assert fields.Signal is adamode.Signal


def test_a_log_density_reads_its_input_in_the_field():
    signal, y0 = Signal(TIMES, waves(7, 1)), (waves(2, 1), torch.zeros(2))
    field = lambda t, x: x * signal(t.reshape(-1)).reshape(-1, 1)  # noqa: E731
    with pytest.raises(
        adamode.ArgumentError, match=r"signal with a LogDensity: .* field\(t, x, signal\(t\)\)"
    ):
        solve(adamode.LogDensity(lambda t, x: x), y0, f64(0, 1), signal=signal)
    sol = solve(adamode.LogDensity(field), y0, f64(0, 1), step_at=[0.3, 0.7], rtol=1e-10, atol=1e-12)
    kinks = f64(0.0, 0.3, 0.7, 1.0)
    whole = torch.trapezoid(signal(kinks)[:, 0], kinks)
    torch.testing.assert_close(sol.y[1][-1], whole.expand(2))
