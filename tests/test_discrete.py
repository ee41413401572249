"""The discrete adjoint is the derivative of the steps: equal to autograd through the same steps.

The bound is 1e-12 of the largest entry, in float64: the two sum the same products in another order.
"""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from problems import Net, Swing, Tree, f64, parabola, rational, rational_solution, worst
from references import reference_gradient
from torch.utils import _pytree as pytree

import adamode
from adamode import Direct, Discrete, solve
from adamode.solvers.methods import METHODS

BOUND = 1e-12
# The backpropagated twin keeps its stages one by one, which rounds differently (how, depends on the
# processor): the error estimate differs with it, and so do adaptive steps.
STEPS_ROUNDED = 1e-9
KEEP = pytest.mark.parametrize("keep", ["stages", "state"])


def gradients(func, y0, t, gradient, params=None, cotangent_seed=0, **options):
    """(sol, [dL/dy0 …, dL/dt, dL/dparams …]) for L = Σ c·y + ½ Σ y² with random c."""
    y0 = pytree.tree_map(lambda x: x.detach().clone().requires_grad_(), y0)
    t = t.detach().clone().requires_grad_()
    params = list(func.parameters()) if params is None else list(params)
    sol = solve(func, y0, t, gradient=gradient, params=params if params else None, **options)
    make = torch.Generator().manual_seed(cotangent_seed)
    loss = sum(
        (torch.randn(y.shape, dtype=y.dtype, generator=make) * y).sum() + (y**2).sum() / 2
        for y in pytree.tree_leaves(sol.y)
    )
    found = torch.autograd.grad(loss, (*pytree.tree_leaves(y0), t, *params), retain_graph=True)
    return sol, found, loss


def compare(func, y0, t, keep="stages", **options):
    """The largest relative difference, and both solutions."""
    ours, found, _ = gradients(func, y0, t, Discrete(keep=keep), **options)
    theirs, expected, _ = gradients(func, y0, t, Direct(), **options)
    assert ours.stats.n_accepted == theirs.stats.n_accepted
    return worst(found, expected), ours, theirs


def batch(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    b=st.integers(1, 4),
    n=st.integers(1, 4),
    inner=st.lists(st.floats(0.01, 0.99), min_size=0, max_size=12, unique=True),
    backwards=st.booleans(),
    tol=st.sampled_from([None, 1e-2, 1e-4, 1e-7]),
    keep=st.sampled_from(["stages", "state"]),
    handwritten=st.booleans(),
    seed=st.integers(0, 99),
)
@example(
    b=2, n=2, inner=[0.99, 0.985, 0.98], backwards=False, tol=1e-2, keep="stages", handwritten=True, seed=0
)
@example(b=2, n=2, inner=[0.01, 0.02], backwards=True, tol=1e-2, keep="state", handwritten=False, seed=0)
def test_discrete_equals_autograd_through_the_steps(b, n, inner, backwards, tol, keep, handwritten, seed):
    func = Swing(n, seed) if handwritten else Net(n, seed=seed)
    y0 = batch(2, b, n, seed=seed) if handwritten else batch(b, n, seed=seed)
    times = f64(0.0, *sorted(inner), 1.0) * 3
    t = times.flip(0) if backwards else times
    if tol is None:
        error, *_ = compare(func, y0, t, keep, dt=0.3)
        assert error <= BOUND
    else:
        error, *_ = compare(func, y0, t, keep, rtol=tol, atol=tol)
        assert error <= STEPS_ROUNDED


@KEEP
@pytest.mark.parametrize("name", METHODS)
def test_every_methods_steps_are_transposed(name, keep):
    t = f64(0.0, 0.21, 0.4, 0.43, 1.0)
    fixed = {"dt": 0.13}
    for options in [fixed, {"rtol": 1e-3, "atol": 1e-3}][: 2 if METHODS[name].adaptive else 1]:
        error, *_ = compare(Net(), batch(3, 3), t, keep, method=name, **options)
        assert error <= BOUND


@KEEP
@pytest.mark.parametrize(
    "place", ["inside the last step", "inside every step", "at step ends", "at the end only"]
)
def test_outputs_anywhere_are_transposed(place, keep):
    """The seventh stage's weight b_7(ϑ) is not 0 inside a step: left out, gradients are 1–5 % wrong."""
    ends = torch.linspace(0, 2, 9, dtype=torch.float64)  # steps of ¼
    t = {
        "inside the last step": f64(0.0, 1.76, 1.9, 2.0),
        "inside every step": torch.cat((ends[:1], ends[:-1] + 0.1, ends[-1:])),
        "at step ends": ends,
        "at the end only": f64(0.0, 2.0),
    }[place]
    error, ours, _ = compare(Net(), batch(3, 3), t, keep, dt=0.25)
    assert error <= BOUND
    # six VJPs a step: its last stage is the next one's first; the last step's only where it is used
    inside_last = place in ("inside the last step", "inside every step")
    assert ours.stats.nfe_backward == 6 * 8 + inside_last


def test_the_seventh_stage_matters_for_these_outputs(monkeypatch):
    """The negative control: without the last stage's cotangent the same comparison is off by 1e-3."""
    from adamode.adjoint.discrete import walk as discrete

    inside = discrete.ByPlace.inside

    def forgetful(self, n, attempt):
        found = inside(self, n, attempt)
        if found is None:
            return None
        k_bar, y_bar = found
        return [*k_bar[:-1], None], y_bar

    monkeypatch.setattr(discrete.ByPlace, "inside", forgetful)
    error, *_ = compare(Net(), batch(3, 3), f64(0.0, 1.3, 1.6, 2.0), dt=1.0)
    assert error > 1e-3


@KEEP
@pytest.mark.parametrize("dynamics", [Net, Swing])
def test_rejected_steps_leave_no_trace_in_the_gradient(dynamics, keep):
    func = dynamics()
    y0 = batch(2, 3, 3) if dynamics is Swing else batch(3, 3)
    error, ours, _ = compare(func, y0, f64(0.0, 1.3, 6.0), keep, dt0=6.0, rtol=1e-7, atol=1e-7)
    assert ours.stats.n_rejected > 0
    assert error <= BOUND


@KEEP
def test_bad_stages_on_the_way_leave_no_trace_in_the_gradient(keep):
    """√ of a negative number in a rejected attempt: a NaN in a graph that must not be walked."""
    scale = torch.nn.Parameter(f64(1.0, 0.9))

    def func(t, y):
        return scale * parabola(t, y)

    error, ours, _ = compare(func, f64(1.0, 1.1), f64(0.0, 0.5, 0.9), keep, params=[scale], dt0=0.9)
    assert ours.stats.n_rejected > 0
    assert error <= BOUND


@KEEP
@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_jumps_and_stops_are_transposed(direction, keep):
    net = Net()

    def func(t, y):
        return net(t, y) * torch.where(t * direction < 0.5, 1.0, -2.0)

    t = direction * f64(0.0, 0.3, 0.5, 0.8, 1.0)
    options = {"jump_at": [0.5 * direction], "step_at": [0.8 * direction], "params": list(net.parameters())}
    error, *_ = compare(func, batch(2, 3), t, keep, **options)
    assert error <= BOUND


@KEEP
def test_a_pytree_is_transposed(keep):
    y0 = {"a": batch(2, 3), "b": batch(2)}
    error, *_ = compare(Tree(), y0, f64(0.0, 0.4, 0.5, 2.0), keep)
    assert error <= BOUND


@KEEP
def test_handwritten_and_autograd_vjp_are_the_same_gradient(keep):
    swing = Swing()
    z0, t = batch(2, 3, 3), f64(0.0, 0.4, 0.5, 2.0)
    _, by_hand, _ = gradients(swing, z0, t, Discrete(keep=keep))
    plain = lambda t, z: swing.forward(t, z)[0]  # noqa: E731
    _, by_autograd, _ = gradients(plain, z0, t, Discrete(keep=keep), params=swing.parameters())
    assert worst(by_hand, by_autograd) <= BOUND


@KEEP
@pytest.mark.parametrize("dynamics", [Net, Swing])
def test_the_graph_may_be_walked_twice(dynamics, keep):
    func = dynamics()
    y0 = batch(2, 3, 3) if dynamics is Swing else batch(3, 3)
    leaf = y0.requires_grad_()
    sol = solve(func, leaf, f64(0.0, 0.7, 2.0), gradient=Discrete(keep=keep))
    inputs = (leaf, *func.parameters())
    first = torch.autograd.grad(sol.y.sum(), inputs, retain_graph=True)
    cost = sol.stats.nfe_backward
    second = torch.autograd.grad(sol.y.sum(), inputs, retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert sol.stats.nfe_backward == cost  # of the last walk, not the sum
    doubled = torch.autograd.grad((2 * sol.y).sum(), inputs)
    assert worst(doubled, [2 * x for x in first]) <= 1e-15


def test_state_is_kept_at_the_price_of_evaluations():
    net, y0 = Net(), batch(3, 3).requires_grad_()
    sols = {}
    for keep in ("stages", "state"):
        sols[keep] = solve(net, y0, f64(0.0, 3.0), gradient=Discrete(keep=keep))
        sols[keep].y.sum().backward()
    assert sols["stages"].stats.nfe_recomputed == 0
    n = sols["state"].stats.n_accepted
    # seven a step, the last one's f(t1, y1) not; one to see whether func is repeatable
    assert sols["state"].stats.nfe_recomputed == 7 * n - 1 + 1
    assert sols["stages"].stats.nfe_backward == sols["state"].stats.nfe_backward == 6 * n


@pytest.mark.parametrize("direction", [1, -1])
def test_the_gradient_converges_to_scipys_as_the_tolerance_falls(direction):
    net, y0 = Net(), batch(2, 3)
    times = (0.0, 0.7, 1.1, 2.0)[::direction]
    errors = []
    for tol in (1e-4, 1e-7, 1e-10):
        sol, found, _ = gradients(net, y0, f64(*times), Discrete(), rtol=tol, atol=tol)
        g = (
            torch.randn(sol.y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
            + sol.y.detach()
        )
        a, dt, theta = reference_gradient(net, list(net.parameters()), y0, times, g)
        errors.append(worst(found, (a, dt, *theta)))
    assert errors[0] < 1e-2
    assert errors[2] < 1e-7
    assert errors[0] > 10 * errors[1] > 100 * errors[2]


def test_gradients_with_respect_to_time_are_the_flow_at_the_outputs():
    """dL/dt_i = g_i·f(t_i, y_i); dL/dt_0 = −a·f(t_0, y_0), so that moving all times alike changes nothing
    where f does not depend on t."""
    y0, t = batch(3), f64(0.0, 0.3, 0.9, 1.0)
    func = lambda t, y: torch.sin(y)  # noqa: E731
    sol, (_, dt), _ = gradients(func, y0, t, Discrete(), params=[], rtol=1e-10, atol=1e-10)
    g = (
        torch.randn(sol.y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        + sol.y.detach()
    )
    assert worst([dt[1:]], [(g * torch.sin(sol.y.detach())).sum(1)[1:]]) < 1e-8
    assert abs(float(dt.sum())) < 1e-8 * float(dt.abs().max())


def test_gradcheck_on_a_tiny_case():
    """Fixed steps: the numbers are a smooth function of everything but t, which has dL/dt of the flow."""
    w = torch.randn(2, 2, dtype=torch.float64).requires_grad_()

    def run(y0, w):
        func = lambda t, y: torch.tanh(y @ w) + t * y  # noqa: E731
        return solve(func, y0, f64(0.0, 0.33, 1.0), gradient=Discrete(), params=[w], dt=0.25).y

    assert torch.autograd.gradcheck(run, (batch(2, 2).requires_grad_(), w))


def test_gradcheck_in_times_of_a_tight_solve():
    func = Net()
    y0 = batch(1, 3)
    run = lambda t: solve(func, y0, t, gradient=Discrete(), rtol=1e-12, atol=1e-12).y  # noqa: E731
    assert torch.autograd.gradcheck(run, (f64(0.1, 0.33, 0.9).requires_grad_(),), atol=1e-6)


def test_in_float32_the_gradient_is_as_good_as_float32():
    net = Net()
    single = Net().float()
    y0, t = batch(2, 3), f64(0.0, 0.7, 2.0)
    _, expected, _ = gradients(net, y0, t, Discrete(), rtol=1e-10, atol=1e-10)
    y = y0.float().requires_grad_()
    sol = solve(single, y, t.float(), rtol=1e-5, atol=1e-5)
    g = torch.randn(sol.y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = torch.autograd.grad((g * sol.y).sum() + (sol.y**2).sum() / 2, (y, *single.parameters()))
    assert all(x.dtype == torch.float32 for x in found)
    assert worst([x.double() for x in found], [expected[0], *expected[2:]]) < 1e-3


def test_f_that_depends_on_nothing_has_the_gradient_of_a_constant_flow():
    y0 = batch(2, 3).requires_grad_()
    sol = solve(lambda t, y: torch.full_like(y, 2.0) * t, y0, f64(0.0, 0.5, 1.0))
    g = torch.randn_like(sol.y)
    (found,) = torch.autograd.grad(sol.y, y0, g)
    assert worst([found], [g.sum(0)]) <= 1e-15


def test_a_closed_solution_has_its_derivative():
    """y' = y², y = 1/(1/y0 − t): dy/dy0 = (y/y0)²."""
    y0 = f64(0.5, 0.8).requires_grad_()
    sol = solve(lambda t, y: y * y, y0, f64(0.0, 1.0), rtol=1e-12, atol=1e-12)
    (found,) = torch.autograd.grad(sol.y[-1].sum(), y0)
    assert worst([found], [(1 / (1 - y0.detach())) ** 2]) < 1e-10


def test_direct_has_second_derivatives():
    y0 = f64(0.5).requires_grad_()
    sol = solve(lambda t, y: y * y, y0, f64(0.0, 1.0), gradient=Direct(), rtol=1e-12, atol=1e-12)
    (first,) = torch.autograd.grad(sol.y[-1].sum(), y0, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), y0)
    assert float(second) == pytest.approx(2 / (1 - 0.5) ** 3, rel=1e-9)  # d²/dy0² of y0/(1 − y0)


def test_adamode_is_transposed_with_its_handwritten_vjp():
    from adamode.models.dynamics import AdamODE

    field = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()

    class Field(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = field

        def forward(self, t, h):
            return self.net(h) * torch.cos(t)

    dynamics = AdamODE(Field(), alpha=0.3, beta=0.6, eps=1e-3).double()
    z0 = batch(3, 2, 3)
    z0[2] = z0[2].abs()
    error, *_ = compare(dynamics, z0, f64(0.0, 0.3, 0.5, 1.0), params=dynamics.theta())
    assert error <= BOUND


def test_under_autocast_the_backward_pass_sees_the_forward_precision():
    layer = torch.nn.Linear(3, 3)
    kinds = []

    def func(t, y):
        out = layer(y)
        kinds.append(out.dtype)
        return out

    y0 = torch.randn(2, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        sol = solve(func, y0, torch.tensor([0.0, 1.0]), rtol=1e-2, atol=1e-2, gradient=Discrete(keep="state"))
    forward = len(kinds)
    sol.y.sum().backward()  # outside autocast: stages evaluated anew run under the forward's state
    assert len(kinds) > forward
    assert set(kinds) == {torch.bfloat16}
    assert y0.grad.dtype == torch.float32
    assert layer.weight.grad.dtype == torch.float32


def test_the_default_gradient_is_the_discrete_one():
    y0 = rational_solution(-1.0).requires_grad_()
    a = solve(rational, y0, f64(-1.0, 0.2, 2.0)).y
    b = solve(rational, y0, f64(-1.0, 0.2, 2.0), gradient=adamode.Discrete()).y
    assert torch.equal(torch.autograd.grad(a.sum(), y0)[0], torch.autograd.grad(b.sum(), y0)[0])
