"""Transforms of torch.func, forward-mode AD and tracing around a solve: its derivative, or a sentence."""

import pytest
import torch
from problems import Net, Swing, f64
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap
from torch.utils._pytree import tree_leaves, tree_map

import adamode
from adamode import Backsolve, Direct, Discrete, Interpolating, solve
from adamode.solvers.methods import METHODS

Y, T, K = f64(0.4, -1.1, 0.8, 0.3, 0.7, -0.2).view(2, 3), f64(0.0, 0.3, 1.0), torch.tensor(0.7).double()
NET = Net().requires_grad_(False)
ADJOINTS = [Discrete(), Discrete(keep="state"), Interpolating(), Backsolve()]
STEPPINGS = pytest.mark.parametrize("stepping", ["shared", "per_sample"])
WHAT = pytest.mark.parametrize("what", ["y0", "t", "closure", "functional_call"])


def loss_of(what, **options):
    """A scalar function of what is differentiated, and where."""

    def loss(func, y0, t):
        return (solve(func, y0, t, rtol=1e-4, atol=1e-6, **options).y ** 2).sum()

    parameters = {name: p.detach() for name, p in NET.named_parameters()}
    return {
        "y0": (lambda y: loss(NET, y, T), Y),
        "t": (lambda t: loss(NET, Y, t), T),
        "closure": (lambda k: loss(lambda t, y: k * NET(t, y), Y, T), K),
        "functional_call": (lambda p: loss(lambda t, y: functional_call(NET, p, (t, y)), Y, T), parameters),
    }[what]


def flat(tree):
    return torch.cat([x.detach().reshape(-1) for x in tree_leaves(tree)])


def twice(f):
    return lambda x: sum(part.sum() for part in tree_leaves(grad(f)(x)))


def by_autograd(f, x, *, second=False):
    x = tree_map(lambda v: v.clone().requires_grad_(), x)
    first = torch.autograd.grad(f(x), tree_leaves(x), create_graph=second)
    return flat(torch.autograd.grad(sum(g.sum() for g in first), tree_leaves(x)) if second else first)


def ones(x):
    return tree_map(torch.ones_like, x)


def stacked(x):
    return tree_map(lambda v: torch.stack((v, v)), x)


def along_ones(f, x):
    """Plain forward-mode AD."""
    with forward_ad.dual_level():
        value = f(tree_map(lambda v: forward_ad.make_dual(v, torch.ones_like(v)), x))
        return forward_ad.unpack_dual(value).tangent


FIRST = {
    "grad": lambda f, x: grad(f)(x),
    "vjp": lambda f, x: vjp(f, x)[1](f64(1.0)[0])[0],
    "jacrev": lambda f, x: jacrev(f)(x),
    "jacfwd": lambda f, x: jacfwd(f)(x),
}
ALONG = {"jvp": lambda f, x: jvp(f, (x,), (ones(x),))[1], "dual numbers": along_ones}
SECOND = {
    "grad of grad": lambda f, x: grad(twice(f))(x),
    "jvp of grad": lambda f, x: jvp(grad(f), (x,), (ones(x),))[1],
    "jacfwd of grad": lambda f, x: jacfwd(twice(f))(x),
}
BATCHED = {
    "vmap": lambda f, x: vmap(f)(stacked(x)),
    "vmap of grad": lambda f, x: vmap(grad(f))(stacked(x)),
    "grad of vmap": lambda f, x: grad(lambda z: vmap(f)(z).sum())(stacked(x)),
    "jvp of vmap": lambda f, x: jvp(vmap(f), (stacked(x),), (ones(stacked(x)),))[1],
    "vmap of vmap": lambda f, x: vmap(vmap(f))(stacked(stacked(x))),
}


@STEPPINGS
@WHAT
@pytest.mark.parametrize("transform", [*FIRST, *ALONG])
def test_direct_has_the_derivative_under_every_transform(transform, what, stepping):
    f, x = loss_of(what, gradient=Direct(), stepping=stepping)
    expected = by_autograd(f, x)
    if transform in ALONG:  # the derivative along ones
        found, expected = ALONG[transform](f, x), expected.sum()
    else:
        found = flat(FIRST[transform](f, x))
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-13  # rounding


@pytest.mark.parametrize("what", ["y0", "t", "closure"])
@pytest.mark.parametrize("transform", SECOND)
def test_direct_has_the_second_derivative_under_nested_transforms(transform, what):
    f, x = loss_of(what, gradient=Direct())
    expected, found = by_autograd(f, x, second=True), flat(SECOND[transform](f, x))
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-12  # rounding


def test_a_hessian_is_that_of_two_passes_of_autograd():
    f, x = loss_of("y0", gradient=Direct())
    expected = torch.autograd.functional.hessian(f, x)
    assert torch.allclose(hessian(f)(x), expected, rtol=1e-12, atol=1e-12)


@STEPPINGS
@WHAT
@pytest.mark.parametrize("gradient", [None, Discrete(), Direct()], ids=repr)
@pytest.mark.parametrize("transform", BATCHED)
def test_vmap_at_any_depth_is_refused_with_the_way_out(transform, gradient, what, stepping):
    f, x = loss_of(what, gradient=gradient, stepping=stepping)
    with pytest.raises(adamode.AdamodeError, match=r"batched by vmap.*whole batch as y0|no rule for it"):
        BATCHED[transform](f, x)


@STEPPINGS
@WHAT
@pytest.mark.parametrize("gradient", [Interpolating(), Backsolve()], ids=repr)
@pytest.mark.parametrize("transform", ["grad", "jacrev"])
def test_a_continuous_adjoint_under_a_reverse_transform_is_refused(transform, gradient, what, stepping):
    f, x = loss_of(what, gradient=gradient, stepping=stepping)
    with pytest.raises(adamode.ArgumentError, match=r"no rule for it.*Discrete\(\) or Direct\(\)"):
        FIRST[transform](f, x)


@STEPPINGS
@WHAT
@pytest.mark.parametrize("transform", FIRST)
def test_the_discrete_adjoint_under_a_transform_is_the_way_through_the_steps(transform, what, stepping):
    f, x = loss_of(what, gradient=Discrete(), stepping=stepping)
    expected = FIRST[transform](loss_of(what, gradient=Direct(), stepping=stepping)[0], x)
    assert torch.equal(flat(FIRST[transform](f, x)), flat(expected))


@STEPPINGS
@pytest.mark.parametrize("gradient", [None, *ADJOINTS], ids=repr)
def test_a_solve_of_constants_under_a_transform_is_the_solve(gradient, stepping):
    """torch.func.grad wraps every tensor that is made inside it; nothing is asked of these."""
    options = {"gradient": gradient, "stepping": stepping, "rtol": 1e-3}
    expected = solve(NET, Y, T, **options).y

    def f(x):
        assert torch.equal(solve(NET, Y * 1.0, T * 1.0, **options).y.detach(), expected)
        return x**2

    assert float(grad(f)(f64(3.0)[0])) == 6.0
    assert float(jvp(f, (f64(3.0)[0],), (f64(1.0)[0],))[1]) == 6.0


@pytest.mark.parametrize("gradient", ADJOINTS, ids=repr)
def test_an_adjoint_beside_dual_numbers_that_it_does_not_meet_works(gradient):
    y0 = Y.clone().requires_grad_()
    with forward_ad.dual_level():
        forward_ad.make_dual(K, K)
        found = torch.autograd.grad(solve(NET, y0, T, gradient=gradient).y.sum(), y0)[0]
    expected = torch.autograd.grad(solve(NET, y0, T, gradient=gradient).y.sum(), y0)[0]
    assert torch.equal(found, expected)


def rows_at_once(end, y0, rows):
    return torch.autograd.grad(end, y0, rows, is_grads_batched=True, retain_graph=True)[0]


def rows_by_vmap(end, y0, rows):
    return vmap(lambda row: torch.autograd.grad(end, y0, row, retain_graph=True)[0])(rows)


@STEPPINGS
@pytest.mark.parametrize("gradient", [*ADJOINTS, Direct()], ids=repr)
@pytest.mark.parametrize("way", [rows_at_once, rows_by_vmap])
def test_several_cotangents_at_once_are_right_or_refused(way, gradient, stepping):
    y0 = Y.clone().requires_grad_()
    sol = solve(NET, y0, T, gradient=gradient, stepping=stepping, dense=True)
    walks_for_many = isinstance(gradient, Discrete) and stepping == "shared" and way is rows_at_once
    for end, works in ((sol.y[-1], walks_for_many), (sol.y[1], walks_for_many), (sol(T[1] + 0.01), False)):
        end = end.flatten()
        rows = torch.eye(len(end), dtype=torch.float64)
        if works or isinstance(gradient, Direct):
            one = torch.autograd.grad(end, y0, rows[1], retain_graph=True)[0]
            assert torch.allclose(way(end, y0, rows)[1], one, rtol=1e-13, atol=1e-15)
            continue
        with pytest.raises(adamode.ArgumentError, match=r"several backward passes at once.*one at a time"):
            way(end, y0, rows)


@STEPPINGS
@pytest.mark.parametrize("gradient", [Direct(), Discrete()], ids=repr)
def test_a_query_of_the_dense_output_follows_its_own_time_or_says_why_not(gradient, stepping):
    y0 = Y.clone().requires_grad_()
    sol = solve(NET, y0, T, gradient=gradient, dense=True, stepping=stepping)
    at = f64(0.2, 0.4)
    expected = by_autograd(lambda q: sol(q).sum(), at)
    if isinstance(gradient, Direct):
        assert torch.allclose(grad(lambda q: sol(q).sum())(at), expected, rtol=1e-13, atol=0)
        along = jvp(lambda q: sol(q).sum(), (at,), (ones(at),))[1]
        assert torch.allclose(along, expected.sum(), rtol=1e-13, atol=0)
    else:
        for transform in (grad, jacfwd):
            with pytest.raises(adamode.ArgumentError, match=r"query of the dense output.*Direct"):
                transform(lambda q: sol(q).sum())(at)
    with pytest.raises(adamode.AdamodeError, match=r"t is batched by vmap"):
        vmap(lambda q: sol(q))(at[:, None])


@STEPPINGS
@pytest.mark.parametrize("name", ["step_at", "rtol", "atol"])
def test_a_batched_option_is_refused_by_its_name(name, stepping):
    options = {"gradient": None, "stepping": stepping}
    with pytest.raises(adamode.AdamodeError, match=f"{name} is batched by vmap"):
        vmap(lambda v: solve(NET, Y, T, **options, **{name: v}).y)(f64(0.1, 0.2))


@STEPPINGS
@pytest.mark.parametrize("gradient", [None, Discrete(), Direct()], ids=repr)
def test_tracing_a_solve_is_refused(gradient, stepping):
    f, x = loss_of("y0", gradient=gradient, stepping=stepping)
    with pytest.raises(adamode.ArgumentError, match=r"is traced.*fixed number of steps"):
        linearize(f, x)


def test_odeint_has_derivatives_under_transforms_and_odeint_adjoint_says_that_it_has_not():
    f = lambda y: adamode.odeint(NET, y, T).sum()  # noqa: E731
    expected = by_autograd(f, Y)
    assert torch.allclose(flat(grad(f)(Y)), expected, rtol=1e-13, atol=0)
    assert torch.allclose(flat(jacfwd(f)(Y)), expected, rtol=1e-13, atol=0)
    for solver in (adamode.odeint, adamode.odeint_adjoint):
        with pytest.raises(adamode.AdamodeError, match="batched by vmap"):
            vmap(lambda t, solver=solver: solver(NET, Y, t))(torch.stack((T, T)))
    with pytest.raises(AssertionError, match="no rule for it"):  # torchdiffeq's manners
        grad(lambda y: adamode.odeint_adjoint(NET, y, T).sum())(Y)


def test_a_hand_written_dynamics_and_a_model_block_have_derivatives_by_functional_call():
    swing, z0 = Swing().requires_grad_(False), torch.stack((Y, 0.5 * Y))
    f = lambda z: solve(swing, z, T, gradient=Direct()).y.sum()  # noqa: E731
    assert torch.allclose(flat(grad(f)(z0)), by_autograd(f, z0), rtol=1e-13, atol=0)
    block = adamode.NODE(adamode.models.fields.MLP(3, (4,)), gradient=Direct()).double().requires_grad_(False)
    parameters = {name: p.detach() for name, p in block.named_parameters()}
    g = lambda p: functional_call(block, p, (Y,)).sum()  # noqa: E731
    assert torch.allclose(flat(grad(g)(parameters)), by_autograd(g, parameters), rtol=1e-12, atol=1e-15)


def test_a_solve_inside_a_transform_leaves_no_wrapped_tableau_behind():
    method = METHODS["fehlberg2"]
    dtype, device = torch.float32, torch.device("cpu")
    grad(lambda y: solve(lambda t, y: -y, y, T, method="fehlberg2", gradient=Direct()).y.sum())(Y.float())
    kept = method.numeric(dtype, device)
    tensors = [kept.a, kept.b, kept.errors, *kept.a_vectors]
    assert not any(map(torch._C._functorch.is_functorch_wrapped_tensor, tensors))
