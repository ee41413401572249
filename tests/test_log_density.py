"""Log-densities along a solve: values, gradients of every choice, probes of one solve, refusals."""

from __future__ import annotations

import itertools

import pytest
import torch
from dynamics_zoo import VARIANTS, draw
from host_reads import host_reads
from problems import EVERY_GRADIENT, Net, f64

import adamode
from adamode import (
    ArgumentError,
    ArgumentTypeError,
    Backsolve,
    Direct,
    Discrete,
    DynamicsError,
    Interpolating,
    LogDensity,
    NotRepeatableError,
    Reversible,
    solve,
)
from adamode.adjoint.dynamics import twice
from adamode.memory import peak_of
from adamode.models.dynamics import NeuralODE
from adamode.models.fields import MLP, Conv, Linear, Relaxing
from adamode.models.fields.dense_trace import DenseTrace
from adamode.models.fields.trace import value_and_trace

D = torch.float64
TIMES = f64(0.0, 1.0)
GROUPS = torch.tensor([0, 1, 0, 1])
DEPTHS = [Linear(3), MLP(3, (6,)), MLP(3, (6, 5), time=False), MLP(3, (6, 5), activation="sigmoid")]
DEPTHS += [MLP(3, (5, 4, 6)), MLP(3, (6, 5), activation="relu")]
NAMES = ["linear", "one hidden", "two hidden", "sigmoid", "three hidden", "relu"]


class Plain(torch.nn.Module):
    """A field of ours as any module."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, t, x):
        return self.inner.reference(t, x)


def double(field):
    make = torch.Generator().manual_seed(5)
    field = field.double()
    with torch.no_grad():
        for p in field.parameters():
            p.copy_(torch.randn(p.shape, generator=make, dtype=D) * 0.6)
    return field


def points(n=4, d=3, seed=1):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=D)


def start(x):
    return x, torch.zeros(len(x), dtype=x.dtype)


def whole_trace(field, t, x):
    jacobian = torch.func.jacrev(lambda x: field(t, x))(x)
    return torch.stack([jacobian[i, :, i].diagonal().sum() for i in range(len(x))])


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("stepping", ["shared", "per_sample", GROUPS])
@pytest.mark.parametrize("times", [TIMES, TIMES.flip(0)], ids=["forwards", "backwards"])
def test_of_a_linear_field_it_is_t_times_the_trace(stepping, times):
    field, x = double(Linear(3)), points()
    for func in (field, Plain(field), lambda t, x: x @ field.layer.weight.t()):
        sol = solve(LogDensity(func), start(x), times, stepping=stepping, gradient=None)
        exact = (times[-1] - times[0]) * field.layer.weight.diagonal().sum()
        torch.testing.assert_close(sol.y[1][-1], exact.detach().expand(4), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("field", DEPTHS, ids=NAMES)
def test_the_trace_by_layers_is_that_of_the_jacobian(field):
    field, x, t = double(field), points(), f64(0.3)[0]
    for each in (t, t.expand(4, 1)):
        torch.testing.assert_close(
            DenseTrace.of(field).value(field.forward(each, x)[1]), whole_trace(Plain(field), each, x)
        )
    e = torch.randn(2, 4, 3, generator=seeded(), dtype=D)
    _, estimate = value_and_trace(Plain(field), t, x, e)
    torch.testing.assert_close(DenseTrace.of(field, e).value(field.forward(t, x)[1]), estimate)


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
@pytest.mark.parametrize("weights", [None, "stage", "sample"])
@pytest.mark.parametrize("field", DEPTHS, ids=NAMES)
def test_the_vjp_by_hand_is_autograds_of_the_plain_operations(field, trace, weights):
    """Two stages with a weight each, or one a sample; a frozen parameter gets None."""
    field, t = double(field), f64(0.3)[0]
    e = torch.randn(2, 4, 3, generator=seeded(), dtype=D) if trace == "hutchinson" else None
    density = LogDensity(field, trace) if e is None else LogDensity(field, trace, probes=e)
    dynamics = density.at_start(t, start(points())).by_hand.for_solve()
    w = {None: None, "stage": f64(0.5, 2.0), "sample": points(2, 4, seed=3)}[weights]
    saved, deltas, bars, loss, xs = [], [], [], 0.0, []
    for i in range(2):
        x = points(seed=20 + i).requires_grad_()
        c, g = points(seed=30 + i), points(seed=40 + i)[:, 0]
        f, tau = value_and_trace(Plain(field), t, x, e)
        own = (c * f).sum(1) + g * tau
        loss = loss + (own * (1.0 if w is None else w[i])).sum()
        with torch.no_grad():
            values, kept = dynamics.forward(t, list(start(x)))
            (bar, none), delta = dynamics.vjp(kept, [c, g])
        torch.testing.assert_close(values, [f.detach(), tau.detach()])
        assert not none.any()
        saved, deltas, bars, xs = [*saved, kept], [*deltas, delta], [*bars, bar], [*xs, (own.sum(), x)]
    for bar, (own, x) in zip(bars, xs, strict=True):
        torch.testing.assert_close(
            bar, torch.autograd.grad(own, x, retain_graph=True)[0], rtol=1e-12, atol=1e-12
        )
    wanted = torch.autograd.grad(loss, list(field.parameters()))
    with torch.no_grad():
        found = dynamics.parameter_gradients(saved, deltas, w)
    torch.testing.assert_close(list(found), list(wanted), rtol=1e-12, atol=1e-12)
    field.layers[0].weight.requires_grad_(False)
    with torch.no_grad():
        assert dynamics.parameter_gradients(saved, deltas, w)[0] is None
    field.layers[0].weight.requires_grad_(True)


def gradients(field, trace, gradient, stepping, times, **options):
    """dL of a loss in x and ℓ at all times, in x0, t and the parameters."""
    x, t = points().requires_grad_(), times.clone().requires_grad_()
    generator = seeded() if trace == "hutchinson" else None
    density = LogDensity(field, trace, probes=2 if generator else 1, generator=generator)
    sol = solve(density, start(x), t, gradient=gradient, stepping=stepping, **options)
    xs, ls = sol.y
    loss = xs.square().sum() + (ls * ls).sum() + (ls[-1] * f64(1.0, 2.0, 3.0, 4.0)).sum()
    return torch.autograd.grad(loss, (x, t, *field.parameters()))


KINDS = {"by hand": double(MLP(3, (6, 5))), "by autograd": Plain(double(MLP(3, (4,), activation="sigmoid")))}
TIGHT = {"rtol": 1e-10, "atol": 1e-12, "method": "dop853"}
CONTINUOUS = [Interpolating(), Backsolve()]
CHOICES = [g for g in EVERY_GRADIENT if isinstance(g, (Discrete, Direct))]


@pytest.mark.parametrize(
    ("kind", "trace", "stepping"),
    [
        ("by hand", "exact", "shared"),
        ("by hand", "hutchinson", "per_sample"),
        ("by hand", "exact", GROUPS),
        ("by autograd", "hutchinson", "shared"),
        ("by autograd", "exact", "per_sample"),
    ],
)
def test_every_gradient_is_directs(kind, trace, stepping):
    """The exact ones to rounding from steps of any size, the continuous ones to 1e-8 from small ones."""
    field, rough, times = KINDS[kind], {"rtol": 1e-2, "atol": 1e-3}, f64(0.0, 0.4, 1.0)
    direct = gradients(field, trace, Direct(), stepping, times, **rough)
    for gradient in CHOICES:
        found = gradients(field, trace, gradient, stepping, times, **rough)
        torch.testing.assert_close(found, direct, rtol=1e-11, atol=1e-12)
    fine = gradients(field, trace, Direct(), stepping, TIMES.flip(0), **TIGHT)
    for gradient in (*CONTINUOUS, Reversible()):
        found = gradients(field, trace, gradient, stepping, TIMES.flip(0), **TIGHT)
        for ours, theirs in zip(found, fine, strict=True):
            assert (ours - theirs).abs().max() <= 1e-8 * theirs.abs().max()


def test_a_parametrised_layer_is_differentiated_by_autograd():
    field = double(MLP(3, (4,)))
    torch.nn.utils.parametrizations.spectral_norm(field.layers[0])
    field.eval()
    found, wanted = (
        gradients(field, "exact", g, "shared", TIMES, dt=0.5) for g in (adamode.Discrete(), Direct())
    )
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12)


def test_it_is_what_odeint_and_torchdiffeq_give():
    torchdiffeq = pytest.importorskip("torchdiffeq")
    density, x = LogDensity(KINDS["by hand"]), points()
    with torch.no_grad():
        theirs = torchdiffeq.odeint(density, start(x), TIMES, rtol=1e-10, atol=1e-12)
        ours = adamode.odeint(density, start(x), TIMES, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    _, total = adamode.odeint_adjoint(density, start(x), TIMES)
    assert all(g.any() for g in torch.autograd.grad(total[-1].sum(), list(density.parameters())[:3]))


def test_a_plain_functions_parameters_are_found():
    w = points(3, 3).requires_grad_()
    found = []
    for gradient in (adamode.Discrete(), Direct()):
        sol = solve(LogDensity(lambda t, x: torch.tanh(x @ w)), start(points()), TIMES, gradient=gradient)
        found += torch.autograd.grad(sol.y[1][-1].sum(), w)
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("noise", ["rademacher", "gauss"])
def test_hutchinsons_mean_and_variance(noise):
    """1,000 probes as samples of a batch of equal points: the mean within 4 standard errors; the variance of
    a mean of k is 1/k of one's (its own relative standard deviation is √(2/999) ≈ 0.045)."""
    field, x = double(MLP(3, (6, 5))), points(1)
    exact = solve(LogDensity(field), start(x), TIMES, gradient=None).y[1][-1]
    variances = []
    for k in (1, 4):
        density = LogDensity(field, "hutchinson", probes=k, noise=noise, generator=seeded(2))
        with torch.no_grad():
            drawn = solve(density, start(x.expand(1000, 3)), TIMES, gradient=None).y[1][-1]
        assert abs(drawn.mean() - exact) < 4 * drawn.std() / 1000**0.5
        variances.append(drawn.var())
    assert variances[0] > 0
    assert variances[0] / variances[1] == pytest.approx(4.0, rel=0.3)


def test_forwards_and_back_again_the_log_density_returns():
    field, x, tol = double(MLP(3, (6, 5))), points(), 1e-6
    for trace, stepping in itertools.product(("exact", "hutchinson"), ("shared", "per_sample")):
        e = None if trace == "exact" else torch.randn(1, 4, 3, generator=seeded(), dtype=D)
        density = LogDensity(field, trace) if e is None else LogDensity(field, trace, probes=e)
        options = {"rtol": tol, "atol": tol, "gradient": None, "stepping": stepping}
        there = solve(density, start(x), TIMES, **options).y
        back = solve(density, tuple(part[-1] for part in there), TIMES.flip(0), **options).y
        assert there[1][-1].abs().min() > 0.01
        assert back[1][-1].abs().max() < 10 * tol
        assert (back[0][-1] - x).abs().max() < 10 * tol


def test_probes_are_those_of_a_solve_and_several_solves_may_be_under_way():
    """The second solve draws others, which the first one's way back does not see; a seed gives them again."""
    field, x = double(MLP(3, (6, 5))), points()

    def solved(density, **options):
        return solve(density, start(x), TIMES, **options).y[1][-1].sum()

    def of(value):
        return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(field.parameters())[:-1])])

    for gradient in (adamode.Discrete(keep="state"), Backsolve(), Interpolating()):
        alone = of(solved(LogDensity(field, "hutchinson", generator=seeded()), gradient=gradient))
        density = LogDensity(field, "hutchinson", generator=seeded())
        first = solved(density, gradient=gradient)
        second = solved(density, gradient=gradient)
        assert first != second
        assert not torch.equal(of(second), alone)
        assert torch.equal(of(first), alone)


def test_a_given_probe_is_the_one_that_is_taken():
    field, x, e = Plain(double(MLP(3, (4,)))), points(), torch.ones(1, 4, 3, dtype=D)
    t = f64(0.2)[0]
    density = LogDensity(field, "hutchinson", probes=e)
    _, slope = density(t, start(x))
    jacobian = torch.func.jacrev(lambda x: field(t, x))(x)
    torch.testing.assert_close(slope, torch.stack([jacobian[i, :, i].sum() for i in range(4)]))


@pytest.mark.parametrize("shape", [(4,), (4, 2), (2, 2, 3, 3)])
def test_states_of_any_shape(shape):
    x = torch.linspace(-1, 1, torch.Size(shape).numel(), dtype=D).reshape(shape)
    sol = solve(LogDensity(lambda t, x: -x * (1 + x * x)), start(x), TIMES, rtol=1e-10, atol=1e-12)
    y = sol.y[0][-1]  # dy/dx of x' = −x − x³ is f(y)/f(x)
    exact = torch.where(x == 0, -1.0, torch.log((y * (1 + y * y)) / (x * (1 + x * x))))
    torch.testing.assert_close(sol.y[1][-1], exact.reshape(len(x), -1).sum(1), rtol=1e-8, atol=1e-8)


def test_images_and_other_fields_of_ours():
    for field, x in (
        (Conv(2, 3), torch.randn(2, 2, 3, 3, dtype=D)),
        (Relaxing(MLP(2, (3,)), (1.0, 3.0)), points(3, 2)),
    ):
        field, t = field.double(), f64(0.3)[0]
        jacobian = torch.func.jacrev(lambda x, field=field, t=t: field(t, x))(x)
        n = x[0].numel()
        rows = jacobian.reshape(len(x), n, len(x), n)
        exact = torch.stack([rows[i, :, i].trace() for i in range(len(x))])
        torch.testing.assert_close(LogDensity(field)(t, start(x))[1], exact)


@pytest.mark.parametrize(("method", "kind"), [("radau5", "by hand"), ("kvaerno3", "by autograd")])
def test_implicit_methods_take_it(method, kind):
    density, x = LogDensity(KINDS[kind]), points(2)
    fine = solve(density, start(x), TIMES, gradient=None).y[1][-1]
    sol = solve(density, start(x), TIMES, method=method, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(sol.y[1][-1], fine, rtol=1e-2, atol=1e-3)
    assert torch.autograd.grad(sol.y[1][-1].sum(), next(density.parameters()))[0].any()


@pytest.mark.parametrize("kind", KINDS)
def test_transforms_and_modes_around_a_solve(kind):
    field, x = KINDS[kind], points()

    def total(x):
        return solve(LogDensity(field), start(x), TIMES).y[1][-1].sum()

    own = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(total(own), own)
    torch.testing.assert_close(torch.func.grad(total)(x), wanted)
    tangent = torch.func.jvp(total, (x,), (torch.ones_like(x),))[1]
    torch.testing.assert_close(tangent, wanted.sum())
    with torch.inference_mode():
        torch.testing.assert_close(total(x), total(own).detach())


def test_a_sample_that_fails_changes_no_other():
    class Growing(Net):
        def forward(self, t, x):
            return super().forward(t, x) + 50 * x**3 * (x > 2)

    field, x = Growing(), points()
    x[2] = 5.0
    found = []
    for rows in ([0, 1, 2, 3], [0, 1, 3]):
        own = x[rows].clone().requires_grad_()
        sol = solve(LogDensity(field), start(own), TIMES, stepping="per_sample", max_steps=30)
        fine = sol.status == 0
        assert fine.tolist() == [row != 2 for row in rows]
        value = sol.y[1][-1][fine]
        found.append((value, *torch.autograd.grad(value.sum(), list(field.parameters()))))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [2, 3, 8, 9, 16, 65, 200])
@pytest.mark.parametrize(
    "field",
    [
        lambda t, x: x - x.mean(0),
        lambda t, x: x + x.flip(0) / 100,
        lambda t, x: x.roll(1, 0),
        lambda t, x: x + x[:1] ** 2,
        lambda t, x: torch.softmax(x @ x.t(), 1) @ x,
    ],
)
def test_a_field_that_mixes_samples_is_refused(field, size):
    with pytest.raises(ArgumentError, match="mixes samples"):
        solve(LogDensity(field), start(points(size, 2)), TIMES)


def test_a_field_that_keeps_them_apart_is_not():
    net = torch.nn.Sequential(torch.nn.Linear(3, 300), torch.nn.LayerNorm(300), torch.nn.Linear(300, 3))
    x = points(64).float() * 100
    for scale in (1e-12, 1.0, 1e6):
        func = lambda t, x, scale=scale: net(x) * scale  # noqa: E731
        LogDensity(func).at_start(torch.tensor(0.0), start(x))


def test_batch_norm_is_refused_while_it_trains():
    norm = torch.nn.BatchNorm1d(3).double()
    net = torch.nn.Sequential(torch.nn.Linear(3, 3).double(), norm)
    field = Plain(Linear(3))
    field.net, field.forward = net, lambda t, x: net(x)
    with pytest.raises(ArgumentError, match=r"func.net.1 is a BatchNorm1d in training mode.*density"):
        solve(LogDensity(field), start(points()), TIMES)
    assert norm.num_batches_tracked == 0
    net.eval()
    solve(LogDensity(field), start(points()), TIMES)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda f: LogDensity(f, "trace"), ArgumentError, "exact"),
        (lambda f: LogDensity(f, noise="white"), ArgumentError, "rademacher"),
        (lambda f: LogDensity(f, "hutchinson", probes=0), ArgumentError, "probes"),
        (lambda f: LogDensity(f, probes=torch.ones(1, 4, 3)), ArgumentError, "hutchinson"),
        (lambda f: LogDensity(f, generator=3), ArgumentTypeError, "generator"),
        (lambda f: LogDensity(3), ArgumentTypeError, "field=3"),
        (lambda f: LogDensity(NeuralODE(f)), ArgumentTypeError, "divergence"),
        (lambda f: LogDensity(adamode.NODE(f)), ArgumentTypeError, "block.field"),
        (lambda f: LogDensity(MLP(3, (4,), out_dim=2)), ArgumentError, "returns 2"),
        (lambda f: LogDensity(torch.compile(Net(), backend="eager")), ArgumentError, "torch.compile"),
    ],
)
def test_wrong_settings_are_refused(make, error, words):
    with pytest.raises(error, match=words):
        make(double(MLP(3, (4,))))


@pytest.mark.parametrize(
    ("change", "y0", "error", "words"),
    [
        ({}, points(), ArgumentTypeError, "tuple"),
        ({}, (points(), torch.zeros(4, 1, dtype=D)), ArgumentError, r"\(4, 1\)"),
        ({}, (points() + 0j, torch.zeros(4, dtype=torch.complex128)), ArgumentTypeError, "complex"),
        ({"probes": torch.ones(1, 4, 3)}, start(points()), ArgumentError, "float32"),
        ({"probes": torch.ones(1, 5, 3, dtype=D)}, start(points()), ArgumentError, r"\[K, 4, 3\]"),
    ],
)
def test_what_does_not_fit_a_state_is_refused(change, y0, error, words):
    density = LogDensity(double(MLP(3, (4,))), "hutchinson", **change)
    with pytest.raises(error, match=words):
        solve(density, y0, TIMES)


def test_a_generator_of_another_device_is_refused():
    class Elsewhere(torch.Generator):
        device = torch.device("cuda")

    with pytest.raises(ArgumentError, match="generator is on cuda"):
        solve(LogDensity(MLP(3).double(), "hutchinson", generator=Elsewhere()), start(points()), TIMES)


def test_probes_outside_a_solve_and_compact_batches_are_refused():
    density = LogDensity(double(MLP(3, (4,))), "hutchinson")
    with pytest.raises(ArgumentError, match="at_start"):
        density(f64(0.0)[0], start(points()))
    times = torch.stack((torch.zeros(4, dtype=D), f64(0.1, 1.0, 2.0, 3.0)), 1)
    with pytest.raises(DynamicsError, match="leave compact out"):
        solve(density, start(points()), times, stepping="per_sample", compact=True, gradient=None)
    sol = solve(LogDensity(density.field), start(points()), times, stepping="per_sample", compact=True)
    assert (sol.status == 0).all()


def test_a_field_of_another_shape_and_a_random_one_are_refused():
    with pytest.raises(DynamicsError, match="must be like x"):
        solve(LogDensity(lambda t, x: x[:, :2]), start(points()), TIMES)
    drop = torch.nn.Sequential(torch.nn.Linear(3, 50), torch.nn.Dropout(), torch.nn.Linear(50, 3)).double()
    field = Plain(Linear(3))
    field.net, field.forward = drop, lambda t, x: drop(x)
    sol = solve(LogDensity(field), start(points()), TIMES, dt=0.5, gradient=adamode.Discrete(keep="state"))
    with pytest.raises(NotRepeatableError):
        sol.y[1][-1].sum().backward()


def test_evaluations_are_counted():
    class Counted(Net):
        calls = 0

        def forward(self, t, x):
            self.calls += 1
            return super().forward(t, x)

    field = Counted()
    sol = solve(LogDensity(field), start(points()), TIMES, gradient=None)
    assert sol.stats.nfe == field.calls


def test_the_host_reads_no_more_than_without_a_density():
    """But once at the start, for the look at a field that is none of ours."""
    field, x = KINDS["by hand"], points()
    options = {"dt": 0.25}

    def reads(func, y0):
        with host_reads() as found:
            y = solve(func, y0, TIMES, **options).y
            (y if isinstance(y, torch.Tensor) else y[1])[-1].sum().backward()
        return sum(found.values())

    reads(Plain(field), x)  # what is tried once
    plain = reads(Plain(field), x)
    assert reads(LogDensity(field), start(x)) <= plain
    assert reads(LogDensity(field, "hutchinson"), start(x)) <= plain
    assert reads(LogDensity(Plain(field)), start(x)) == plain + 1


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
@pytest.mark.parametrize("probes", [0, 2])
@pytest.mark.parametrize("kind", ["module", "function", "linear"])
def test_a_trace_whose_graph_is_made_anew_has_the_gradient_of_one_that_is_kept(
    kind, probes, stepping, monkeypatch
):
    """Small states keep it; here the limit is lowered."""
    x, net = points(5, 2), Plain(double(MLP(2, (4,), activation="sigmoid")))
    if kind == "linear":
        net = torch.nn.Linear(2, 2, dtype=D)
    field = net if kind == "module" else lambda t, x: net(t, x) if kind == "function" else net(x)
    e = torch.randn(max(probes, 1), *x.shape, generator=seeded(3), dtype=D)
    density = LogDensity(field, "hutchinson", e) if probes else LogDensity(field)

    def gradients(gradient):
        own = x.clone().requires_grad_()
        y, total = solve(density, start(own), TIMES, dt=0.25, gradient=gradient, stepping=stepping).y
        loss = (y[-1] ** 2).sum() + (total[1:] * torch.arange(1.0, 6.0, dtype=D)).sum()
        return torch.autograd.grad(loss, (own, *net.parameters()))

    exact = gradients(Direct())
    kept = gradients(Discrete())
    calls = []
    plain = twice.TwiceDynamics._packed
    monkeypatch.setattr(twice.TwiceDynamics, "_packed", lambda *a: calls.append(1) or plain(*a))
    monkeypatch.setattr(twice, "LARGE", 0)
    anew = gradients(Discrete())
    assert calls
    for a, b, c in zip(exact, kept, anew, strict=True):
        torch.testing.assert_close(c, a, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(c, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("keep", ["stages", "state"])
def test_memory_with_a_field_of_the_users_own_is_at_most_three_tenths_more(keep):
    field, x, t = Plain(MLP(784, (256, 256))), torch.randn(8, 784), torch.tensor([0.0, 1.0])
    options = {"dt": 0.125, "gradient": adamode.Discrete(keep=keep)}

    def without():
        solve(field, x, t, **options).y[-1].square().sum().backward()

    def with_density():
        y, total = solve(LogDensity(field, "hutchinson"), start(x), t, **options).y
        (y[-1].square().sum() + total[-1].sum()).backward()

    peaks = []
    for step in (without, with_density):
        step()  # what is made once
        peaks.append(peak_of(step, x.device))
    assert peaks[1] <= 1.3 * peaks[0]


@pytest.mark.parametrize("keep", ["stages", "state"])
@pytest.mark.parametrize("probes", [1, 2])
def test_memory_of_the_discrete_adjoint_is_at_most_three_tenths_more(keep, probes):
    field, x, t = MLP(784, (64, 64)), torch.randn(16, 784), torch.tensor([0.0, 1.0])
    options = {"dt": 0.25, "gradient": adamode.Discrete(keep=keep)}

    def without():
        solve(NeuralODE(field), x[None], t, **options).y[-1].square().sum().backward()

    def with_density():
        y, total = solve(LogDensity(field, "hutchinson", probes), start(x), t, **options).y
        (y[-1].square().sum() + total[-1].sum()).backward()

    peaks = []
    for step in (without, with_density):
        field.zero_grad()
        step()  # what is made once
        field.zero_grad()
        peaks.append(peak_of(step, x.device))
    assert peaks[1] <= 1.3 * peaks[0]


@pytest.mark.parametrize(("model", "options"), VARIANTS)
def test_the_divergence_of_a_dynamics_is_the_trace_of_the_whole_state(model, options):
    drawn = draw(model, options)
    z, t = drawn.z0.clone(), f64(0.3)[0]
    z[1:] = z[1:] + 0.3
    jacobian = torch.func.jacrev(lambda z: drawn.dynamics.forward(t, z)[0])(z)
    n = z.numel() // z.shape[1]
    traces = [jacobian[:, b, ..., :, b, :].reshape(n, n).trace() for b in range(z.shape[1])]
    found = drawn.dynamics.divergence(t, z)
    torch.testing.assert_close(found, torch.stack(traces), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(drawn.dynamics.divergence(t.expand(z.shape[1], 1), z), found)
    of_time_alone = model in ("nesterovnode", "gnesterovnode") or options.get("damping") == "nesterov"
    assert found.requires_grad != of_time_alone  # nothing learnt is in it
