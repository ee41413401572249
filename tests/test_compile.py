"""`compile=True`: the same steps and gradients as without, and nothing compiled twice."""

import copy
import warnings

import pytest
import torch
from problems import Net, Swing, f64, worst
from torch import nn
from torch._dynamo.utils import counters

import adamode
from adamode import AdamodeWarning, Backsolve, Direct, Discrete, Event, NotRepeatableError, solve
from adamode.models.dynamics import AdamODE, NeuralODE
from adamode.models.fields import MLP

# bosh3 on a small field: a program of four stages compiles in a few seconds
OPTIONS = {"method": "bosh3", "rtol": 1e-4, "atol": 1e-5}


class Switch(nn.Module):
    """A module of a user's, without a hand-derived VJP."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(2, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)

    def forward(self, t, y):
        return torch.tanh(self.inner(y)) * torch.cos(t) + self.frozen(y)


@pytest.fixture(autouse=True)
def tracing(request, monkeypatch):
    """Most tests ask what is traced, and do without the minutes of generating code."""
    if "inductor" not in request.keywords:
        monkeypatch.setattr("adamode.solvers.device.programs.BACKEND", "aot_eager")


@pytest.fixture
def captured(monkeypatch, tracing):
    """Programs are captured and run as they are, where a test asks nothing of their lowering."""
    monkeypatch.setattr("adamode.solvers.device.programs.BACKEND", "eager")


def compilations():
    return counters["stats"]["unique_graphs"]


def gradient(func, y0, t, cotangent=1.0, params=None, **options):
    y0, t = y0.clone().requires_grad_(), t.clone().requires_grad_()
    sol = solve(func, y0, t, **{**OPTIONS, **options})
    inputs = (y0, t, *(p for p in func.parameters() if p.requires_grad))
    return sol, torch.autograd.grad((torch.sin(sol.y) * cotangent).sum(), inputs)


def node(dtype=torch.float64):
    torch.manual_seed(0)
    return NeuralODE(MLP(2, (4,))).to(dtype)


Y0 = f64(0.5, -1.0, 0.3, 0.9).view(1, 2, 2)
T = f64(0.0, 0.4, 1.0, 3.0)
ENDS = T[[0, -1]]


@pytest.mark.parametrize("every", [1, 8])
def test_steps_and_gradients_are_those_without_and_nothing_is_compiled_twice(every):
    func = node()
    for end, seed in ((3.0, 0), (2.0, 1), (-4.0, 2)):
        t = T * (end / 3.0)
        draw = torch.Generator().manual_seed(seed)
        y0 = torch.randn(1, 2, 2, dtype=torch.float64, generator=draw)
        with torch.no_grad():
            for p in func.parameters():
                p.mul_(1.1)
        tol = {"rtol": 10.0 ** (-4 - seed), "dt0": None if seed < 2 else 0.01}
        plain, expected = gradient(func, y0, t, **tol)
        before = compilations()
        fast, found = gradient(func, y0, t, compile=True, sync_every=every, **tol)
        if seed:
            assert compilations() == before  # other times, tolerances, states, weights, step sizes
        assert fast.stats.n_accepted == plain.stats.n_accepted
        assert fast.stats.n_rejected == plain.stats.n_rejected
        assert fast.stats.nfe == plain.stats.nfe
        assert worst([fast.y], [plain.y]) <= 1e-12
        assert worst(found, expected) <= 1e-10


@pytest.mark.parametrize("every", [1, 8])
def test_a_module_without_a_vjp_is_compiled_too(every, captured):
    func, y0 = Switch().double(), Y0[0]
    _, expected = gradient(func, y0, T)
    sol, found = gradient(func, y0, T, compile=True, sync_every=every)
    assert worst(found, expected) <= 1e-10
    assert sol.stats.nfe_recomputed > 0


def test_where_a_loop_would_wait_for_the_host_the_attempts_stand_in_a_row(monkeypatch):
    for module in ("adamode.solvers.device.queue", "adamode.adjoint.discrete.compiled"):
        monkeypatch.setattr(f"{module}.loops_in_graph", lambda y: False)
    func = node()
    for t in (T, ENDS):
        plain, expected = gradient(func, Y0, t)
        fast, found = gradient(func, Y0, t, compile=True, sync_every=3)
        assert fast.stats.n_accepted == plain.stats.n_accepted > 3
        assert worst(found, expected) <= 1e-10
        assert fast.stats.nfe >= plain.stats.nfe  # those past the end are made in vain


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 8])
@pytest.mark.parametrize("choice", [Discrete(), Discrete(keep="state"), Discrete(checkpoints=2), Backsolve()])
def test_every_gradient_choice(choice, every):
    torch.manual_seed(0)
    func = AdamODE(MLP(2, (4,)), alpha=0.3, beta=0.4, eps=1e-2).double()
    y0 = torch.cat((Y0, 0.1 * Y0, Y0 * Y0 + 0.2))
    _, expected = gradient(func, y0, T, gradient=choice)
    _, found = gradient(func, y0, T, gradient=choice, compile=True, sync_every=every)
    assert worst(found, expected) <= 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dopri5", "tsit5", "dop853"])
@pytest.mark.parametrize("every", [1, 8])
def test_every_method(method, every):
    _, expected = gradient(node(), Y0, T, method=method)
    _, found = gradient(node(), Y0, T, method=method, compile=True, sync_every=every)
    assert worst(found, expected) <= 1e-9


@pytest.mark.slow
@pytest.mark.inductor
@pytest.mark.parametrize("name", adamode.models.names())
def test_the_nine_models(name):
    more = {"shift": 1.0} if "shift" in adamode.models.defaults(name, "spiral") else {}
    model = adamode.models.create(name, task="spiral", **more).double()
    found = (getattr(m, "dynamics", None) for m in model.modules())
    dynamics = next(x for x in found if isinstance(x, nn.Module))
    z0 = 0.3 + torch.rand(len(dynamics.blocks), 3, dynamics.field.channels_out, dtype=torch.float64)
    _, expected = gradient(dynamics, z0, T)
    _, found = gradient(dynamics, z0, T, compile=True)
    assert worst(found, expected) <= 1e-9


@pytest.mark.inductor
def test_generated_code_gives_the_same():
    func = node()
    _, expected = gradient(func, Y0, ENDS)
    for every in (1, 4):  # one attempt and one step a call, then loops in the graph
        before = compilations()
        _, found = gradient(func, Y0, ENDS, compile=True, sync_every=every)
        assert compilations() >= before + 2  # not by falling back
        assert worst(found, expected) <= 1e-10


def test_without_a_gradient_and_with_dense_output():
    func, y0 = node(), Y0
    a = solve(func, y0, T, gradient=None, dense=True, **OPTIONS)
    b = solve(func, y0, T, gradient=None, dense=True, compile=True, **OPTIONS)
    t = torch.linspace(0, 3, 7, dtype=torch.float64)
    assert worst([b(t), b.derivative(t)], [a(t), a.derivative(t)]) <= 1e-12


def test_a_field_with_chance_in_it_is_not_differentiated_silently(captured):
    class Chance(nn.Module):
        def __init__(self):
            super().__init__()
            self.rate = nn.Parameter(f64(1.0))

        def forward(self, t, y):
            return -self.rate * y * (1 + 0.1 * torch.rand_like(y))

    y0 = Y0[0].clone().requires_grad_()
    sol = solve(Chance(), y0, f64(0.0, 1.0), compile=True, method="bosh3", rtol=1e-1, atol=1e-1)
    with pytest.raises(NotRepeatableError):
        sol.y.sum().backward()


class Boxed(Swing):
    """Saves an object of its own, which no compiled program can hand out."""

    class Box:
        def __init__(self, content):
            self.content = content

    def forward(self, t, z):
        dz, saved = super().forward(t, z)
        return dz, self.Box(saved)

    def vjp(self, saved, cotangent):
        return super().vjp(saved.content, cotangent)

    def parameter_gradients(self, saved, deltas, weights):
        return super().parameter_gradients([box.content for box in saved], deltas, weights)


@pytest.mark.parametrize("every", [1, 8])
def test_a_dynamics_that_saves_objects_has_its_stages_taken_again(every, captured):
    func, y0 = Boxed(), torch.randn(2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _, expected = gradient(func, y0, T)
    sol, found = gradient(func, y0, T, compile=True, sync_every=every)
    assert worst(found, expected) <= 1e-10
    assert sol.stats.nfe_recomputed > 0
    _, expected = gradient(func, y0, T, gradient=Backsolve())
    _, found = gradient(func, y0, T, compile=True, sync_every=every, gradient=Backsolve())
    assert worst(found, expected) <= 1e-10


class Peeking(nn.Module):
    """Reads a value on the host, so no graph can be whole."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(f64(0.7))

    def forward(self, t, y):
        return -self.rate * y if float(y.detach().sum()) > -1e9 else y


def test_what_cannot_be_compiled_is_solved_with_one_clear_warning():
    func = Peeking()
    _, expected = gradient(func, Y0[0], T)
    with pytest.warns(AdamodeWarning, match=r"Peeking cannot be compiled.*without \.item") as caught:
        _, found = gradient(func, Y0[0], T, compile=True)
    assert len([w for w in caught if w.category is AdamodeWarning]) == 1
    assert worst(found, expected) <= 1e-12
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradient(func, Y0[0], T, compile=True)  # said once


@pytest.mark.parametrize(
    ("func", "options", "reason"),
    [
        (Net(), {"norm": lambda y: y.abs().max()}, "norm is a callable"),
        (Net(), {"params": []}, "params names"),
        (lambda t, y: -y, {}, "plain function"),
        (Net(), {"gradient": Direct()}, "Direct"),
        (Net(), {"dt": 0.1}, "fixed step"),
        (Net(), {"events": Event(lambda t, y: y.sum() - 100.0)}, "events"),
        (Net(), {"stepping": "per_sample"}, "a gradient is wanted"),
    ],
)
def test_what_is_not_compiled_says_why(func, options, reason):
    y0 = torch.ones(2, 3, dtype=torch.float64)
    with pytest.warns(AdamodeWarning, match=f"compile=True does nothing here.*{reason}"):
        sol = solve(func, y0, f64(0.0, 1.0), compile=True, **options)
    assert torch.equal(sol.y, solve(func, y0, f64(0.0, 1.0), **options).y)


def test_the_programs_go_with_their_owner_and_do_not_hinder_a_copy(captured):
    from adamode.solvers.device.programs import Programs

    func = node()
    gradient(func, Y0, ENDS, compile=True)
    assert Programs.of(func).known
    twin = copy.deepcopy(func)
    assert not Programs.of(twin).known
    before = len(Programs._all)
    del func
    assert len(Programs._all) == before - 1


def test_compile_must_be_true_or_false():
    with pytest.raises(TypeError, match="compile"):
        solve(Swing(), torch.ones(2, 1, 3, dtype=torch.float64), f64(0.0, 1.0), compile="yes")


def test_a_modules_own_field_in_a_models_dynamics_is_compiled():
    torch.manual_seed(0)
    func = AdamODE(Switch(), alpha=0.3, beta=0.4, eps=1e-3).double()
    y0 = torch.rand(3, 4, 2, dtype=torch.float64) + 0.5
    for gradient_kind in (Discrete(), Backsolve()):
        assert_compiled(func, y0, gradient_kind)


def assert_compiled(func, y0, gradient_kind):
    """With its gradients as without, no warning, nothing compiled twice."""
    plain, expected = gradient(func, y0, f64(0.0, 1.0), gradient=gradient_kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast, found = gradient(func, y0, f64(0.0, 1.0), gradient=gradient_kind, compile=True)
    assert fast.stats.n_accepted == plain.stats.n_accepted
    assert worst([fast.y, *found], [plain.y, *expected]) <= 1e-11
    before = compilations()
    gradient(func, y0 * 1.1, f64(0.0, 1.5), gradient=gradient_kind, compile=True)
    assert compilations() == before
    if isinstance(gradient_kind, Discrete):  # not by falling back
        assert fast.stats.nfe_recomputed > 0


def test_a_compiled_field_frozen_in_part_has_no_gradient_there(captured):
    torch.manual_seed(0)
    func = NeuralODE(Switch()).double()
    _, found = gradient(func, Y0, f64(0.0, 1.0), compile=True, dt0=0.1)
    assert len(found) == 2 + 2  # y0 and t, weight and bias of the layer that is trained
