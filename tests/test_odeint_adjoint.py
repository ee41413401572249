"""`odeint_adjoint`: torchdiffeq's call with the continuous adjoint; parameters, norms, callbacks, errors."""

import math
import warnings

import pytest
import torch
from problems import Net, f64, quench, square, worst
from test_odeint import CALLBACKS, T, Telling, batch, gradients_of, pair, random_case

import adamode
from adamode import AdamodeError, AdamodeWarning, SecondDerivativeError

torchdiffeq = pytest.importorskip("torchdiffeq")
odeint_adjoint = adamode.odeint_adjoint


class Pair(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(f64(0.7, -0.4))

    def forward(self, t, y):
        return self.w[0] * torch.tanh(y[1]).sum() - y[0], self.w[1] * torch.sin(y[0]).sum() - y[
            1
        ] * torch.cos(t)


@pytest.fixture(autouse=True)
def forget_warnings():
    """One warning of a kind a process: each test may see its own."""
    from adamode.adjoint.torchdiffeq import manners as face

    face._warned.clear()


# Gradients


@pytest.mark.parametrize("seed", range(20))
def test_gradients_in_state_times_and_parameters_are_those_of_torchdiffeq(seed):
    """Of its adjoint, and of its direct backpropagation through the steps."""
    net, y0, t = random_case(seed)
    ours, theirs = (gradients_of(library.odeint_adjoint, net, y0, t) for library in (adamode, torchdiffeq))
    assert worst(ours, theirs) < 1e-6
    assert worst(ours, gradients_of(torchdiffeq.odeint, net, y0, t)) < 1e-6


@pytest.mark.parametrize("direction", [1, -1])
def test_a_tuple_states_gradients_are_those_of_torchdiffeq(direction):
    grads = []
    for library in (adamode, torchdiffeq):
        func = Pair()
        y0 = (batch(2, 3).requires_grad_(), batch(4).requires_grad_())
        t = (T if direction > 0 else T.flip(0)).clone().requires_grad_()
        a, b = library.odeint_adjoint(func, y0, t, rtol=1e-10, atol=1e-10)
        grads.append(torch.autograd.grad((a**2).sum() + (b**3).sum(), (*y0, t, func.w)))
    assert worst(*grads) < 1e-6


def test_values_are_odeints():
    net = Net()  # 1e-12: stages in one buffer and in a list round differently
    assert worst([odeint_adjoint(net, batch(2, 3), T)], [adamode.odeint(net, batch(2, 3), T)]) <= 1e-12


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun2", "heun3", "rk4", "bosh3", "dopri8", "tsit5"])
def test_every_method_runs_backwards(method):
    adaptive = method in ("bosh3", "dopri8", "tsit5")
    # the tolerance is the unit in which fixed steps, too, are told that they do not come back to y0
    arguments = {"rtol": 1e-7, "atol": 1e-7} if adaptive else {"options": {"step_size": 0.02}, "atol": 1e-4}
    grads = []
    for solver in (odeint_adjoint, adamode.odeint):
        net, y0 = Net(), batch(2, 3).requires_grad_()
        solver(net, y0, T, method=method, **arguments).pow(2).sum().backward()
        grads.append([y0.grad, *(p.grad for p in net.parameters())])
    assert worst(*grads) < (0.1 if method == "euler" else 1e-3)


def test_one_time_is_the_start_itself_and_its_gradient_passes():
    y0 = batch(2, 3).requires_grad_()
    y = odeint_adjoint(Net(), y0, f64(0.0))
    assert y.shape == (1, 2, 3)
    y.sum().backward()
    assert torch.equal(y0.grad, torch.ones_like(y0))


# Parameters


def expected_gradients(func):
    """By odeint, through the steps."""
    adamode.odeint(func, batch(2, 3), T, rtol=1e-9, atol=1e-9)[-1].pow(2).sum().backward()
    return [p.grad for p in func.parameters()]


def run(func, **arguments):
    odeint_adjoint(func, batch(2, 3), T, rtol=1e-9, atol=1e-9, **arguments)[-1].pow(2).sum().backward()


def test_frozen_parameters_are_left_out():
    net = Net()
    net.w1.requires_grad_(False)
    run(net)
    right = expected_gradients(Net())
    assert net.w1.grad is None
    assert worst([net.b1.grad, net.w2.grad, net.mu.grad], right[1:]) < 1e-6


def test_a_wholly_frozen_module_still_gives_the_states_gradient():
    y0 = batch(2, 3).requires_grad_()
    odeint_adjoint(Net().requires_grad_(False), y0, T)[-1].sum().backward()
    assert torch.isfinite(y0.grad).all()
    assert y0.grad.abs().sum() > 0


def test_unused_parameters_get_zeros():
    net = Net()
    net.spare = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    run(net)
    assert torch.equal(net.spare.grad, torch.zeros(3, dtype=torch.float64))
    assert worst([net.w1.grad], expected_gradients(Net())[:1]) < 1e-6


@pytest.mark.parametrize("give", ["generator", "list", "duplicated", "tuple"])
def test_adjoint_params_in_any_form_are_right(give):
    net = Net()
    params = {
        "generator": lambda: (p for p in net.parameters()),
        "list": lambda: list(net.parameters()),
        "duplicated": lambda: (*net.parameters(), net.w1, net.mu),
        "tuple": lambda: tuple(net.parameters()),
    }[give]()
    run(lambda t, y: net(t, y), adjoint_params=params)
    assert worst([p.grad for p in net.parameters()], expected_gradients(Net())) < 1e-6


def test_parameters_shared_between_modules_are_counted_once():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = Net(), Net()
            self.two.w1 = self.one.w1

        def forward(self, t, y):
            return self.one(t, y) - 0.5 * self.two(2 * t, y)

    both = Twice()
    run(both)
    assert worst([p.grad for p in both.parameters()], expected_gradients(Twice())) < 1e-6


def test_a_parameter_that_is_no_leaf_is_right():
    leaf = f64(0.4).requires_grad_()
    scale = torch.exp(leaf)
    y = odeint_adjoint(lambda t, y: scale * torch.sin(y), f64(1.0), T, adjoint_params=(scale,))
    (found,) = torch.autograd.grad(y.sum(), leaf, retain_graph=True)
    (expected,) = torch.autograd.grad(
        adamode.odeint(lambda t, y: scale * torch.sin(y), f64(1.0), T).sum(), leaf
    )
    assert worst([found], [expected]) < 1e-6


def test_adjoint_params_are_all_that_gets_a_gradient():
    net = Net()
    run(net, adjoint_params=(net.w1,))
    assert net.w1.grad is not None
    assert net.w2.grad is None
    y0 = batch(2, 3).requires_grad_()
    odeint_adjoint(net, y0, T, adjoint_params=()).sum().backward()
    assert net.w2.grad is None
    assert y0.grad is not None


def test_parameters_of_another_dtype_get_gradients_of_their_own():
    net = Net().float()

    class Mixed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, t, y):
            return self.net(t.float(), y.float()).double()

    odeint_adjoint(Mixed(), batch(2, 3), T, rtol=1e-4, atol=1e-4)[-1].sum().backward()
    assert net.w1.grad.dtype == torch.float32


# Settings of the reverse solve


def test_tolerances_and_method_of_the_reverse_solve_are_its_own():
    """One or all of them: looser ones cost accuracy in the gradient, not in the values."""
    net, y0 = Net(), batch(2, 3)
    exact = gradients_of(odeint_adjoint, net, y0, T)

    def error(**arguments):
        return worst(gradients_of(odeint_adjoint, net, y0, T, **arguments), exact)

    assert error(adjoint_rtol=1e-3, adjoint_atol=1e-3) > 1e-6
    assert error(adjoint_rtol=1e-3, adjoint_atol=1e-3) < 1e-1
    assert error(adjoint_method="bosh3", adjoint_rtol=1e-6, adjoint_atol=1e-6) < 1e-3
    with torch.no_grad():
        loose = odeint_adjoint(net, y0, T, adjoint_rtol=1e-1)
        assert torch.equal(loose, odeint_adjoint(net, y0, T))


class Counting(Net):
    """Tells how many evaluations forward and backward."""

    def __init__(self, **arguments):
        super().__init__()
        self.calls = 0
        y0 = batch(2, 3).requires_grad_()
        y = odeint_adjoint(self, y0, f64(0.0, 0.7, 3.0), rtol=1e-6, atol=1e-6, **arguments)
        self.ahead = self.calls
        y.pow(2).sum().backward()
        self.back = self.calls - self.ahead

    def forward(self, t, y):
        self.calls += 1
        return super().forward(t, y)


def test_options_are_inherited_by_the_reverse_solve_but_for_the_norm():
    plain, small = Counting(), Counting(options={"max_step": 0.05})
    assert small.ahead > 2 * plain.ahead
    assert small.back > 2 * plain.back
    own = Counting(options={"max_step": 0.05}, adjoint_options={})
    assert own.back == pytest.approx(plain.back, rel=0.3)
    seen = []

    def norm(y):
        seen.append(y.shape)
        return y.pow(2).mean().sqrt()

    Counting(options={"norm": norm})
    assert set(seen) == {(2, 3)}  # in the user's shape in the reverse solve's seminorm as well


@pytest.mark.parametrize("state", ["tensor", "tuple"])
def test_a_norm_of_the_adjoint_gets_time_states_adjoints_and_parameters_in_the_users_shapes(state):
    seen = []

    def norm(parts):
        seen.append([tuple(x.shape) for x in parts])
        return max(x.abs().max() for x in parts if x.numel())

    func = Net() if state == "tensor" else Pair()
    y0 = batch(2, 3) if state == "tensor" else (batch(2, 3), batch(4))
    leaves = [y0] if state == "tensor" else list(y0)
    for leaf in leaves:
        leaf.requires_grad_()
    grads = []
    for library in (adamode, torchdiffeq):
        seen.clear()
        y = library.odeint_adjoint(func, y0, T, rtol=1e-8, atol=1e-8, adjoint_options={"norm": norm})
        loss = y.pow(2).sum() if state == "tensor" else sum(x.pow(2).sum() for x in y)
        grads.append(torch.autograd.grad(loss, (*leaves, *func.parameters())))
        shapes = [tuple(x.shape) for x in leaves]
        assert seen[-1] == [(), *shapes, *shapes, *(tuple(p.shape) for p in func.parameters())]
    assert worst(*grads) < 1e-5


def test_a_norm_that_judges_parameters_takes_more_steps_where_they_vary():
    def everything(parts):
        return torch.stack([x.abs().max() for x in parts[1:] if x.numel()]).amax()

    def states_only(parts):
        return torch.stack([x.abs().max() for x in parts[1:3]]).amax()

    assert (
        Counting(adjoint_options={"norm": everything}).back
        > Counting(adjoint_options={"norm": states_only}).back
    )


def test_the_seminorm_by_name_is_the_default():
    named, default = Counting(adjoint_options={"norm": "seminorm"}), Counting()
    assert named.back == default.back
    assert worst([p.grad for p in named.parameters()], [p.grad for p in default.parameters()]) == 0


def test_a_norm_that_is_nan_in_the_reverse_solve_is_an_error_not_a_gradient():
    net = Net()
    y = odeint_adjoint(net, batch(2, 3), T, adjoint_options={"norm": lambda parts: parts[0] * math.nan})
    with pytest.raises(adamode.SolverError, match="reverse solve"):
        y.sum().backward()
    assert net.w1.grad is None


def test_an_unknown_norm_is_an_error():
    with pytest.raises(ValueError, match="seminorm"):
        odeint_adjoint(Net(), batch(2, 3), T, adjoint_options={"norm": "half"})


def test_jump_times_hold_in_the_reverse_solve_too():
    seen = []

    class Switch(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(f64(0.5))

        def forward(self, t, y):
            seen.append(float(t))
            return torch.where(t < 0.4, self.w, -3 * self.w) * y

    switch = Switch()
    y = odeint_adjoint(switch, f64(1.0), f64(0.0, 1.0), options={"jump_t": f64(0.4)})
    ahead = len(seen)
    y[-1].sum().backward()
    assert len(seen) > ahead
    assert 0.4 not in seen
    power = 0.4 - 3 * 0.6  # y(1) = exp(power·w)
    assert switch.w.grad.item() == pytest.approx(power * math.exp(0.5 * power), rel=1e-6)


# Callbacks


def test_adjoint_callbacks_are_called_in_the_reverse_solve_and_the_others_not():
    names = [*CALLBACKS, *(name + "_adjoint" for name in CALLBACKS)]
    func = Telling(names)
    func.w = torch.nn.Parameter(f64(1.0))
    y0 = batch(2, 3).requires_grad_()
    y = odeint_adjoint(func, y0, f64(0.0, 4.0), options={"first_step": 2.0}, rtol=1e-6, atol=1e-6)
    ahead = {name for name, *_ in func.log}
    assert ahead == set(CALLBACKS)
    func.log.clear()
    y[-1].sum().backward()
    back = {name for name, *_ in func.log}
    assert back == {name + "_adjoint" for name in CALLBACKS}
    times = [float(t0) for name, t0, *_ in func.log if name == "callback_accept_step_adjoint"]
    assert times[0] == 4.0
    assert times == sorted(times, reverse=True)


# Errors


def test_a_function_without_parameters_named_is_a_value_error():
    for library in (adamode, torchdiffeq):
        with pytest.raises(ValueError, match="adjoint_params"):
            library.odeint_adjoint(lambda t, y: -y, batch(2, 3), T)
    y0 = batch(2, 3).requires_grad_()
    odeint_adjoint(lambda t, y: -y, y0, T, adjoint_params=())[-1].sum().backward()
    assert worst([y0.grad], [torch.full_like(y0, math.exp(-1.7))]) < 1e-6


def test_another_method_with_options_but_no_adjoint_options_is_a_value_error():
    arguments = {"method": "dopri5", "adjoint_method": "rk4", "options": {"first_step": 0.1}}
    for library in (adamode, torchdiffeq):
        with pytest.raises(ValueError, match="adjoint_options"):
            library.odeint_adjoint(Net(), batch(2, 3), T, **arguments)
    odeint_adjoint(Net(), batch(2, 3), T, **arguments, adjoint_options={})
    # the same method, said twice
    odeint_adjoint(Net(), batch(2, 3), T, **{**arguments, "adjoint_method": "dopri5"})


@pytest.mark.parametrize("name", ["adjoint_method", "method"])
def test_an_unknown_method_is_named_with_its_argument(name):
    with pytest.raises(ValueError, match=f"{name}='dopri'"):
        odeint_adjoint(Net(), batch(2, 3), T, **{name: "dopri"})


@pytest.mark.parametrize("name", ["rtol", "atol", "adjoint_rtol", "adjoint_atol"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_bad_tolerance_is_named_with_its_argument(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}"):
        odeint_adjoint(Net(), batch(2, 3), T, **{name: value})


def test_a_second_derivative_raises_while_create_graph_alone_works():
    net, y0 = Net(), batch(2, 3).requires_grad_()
    y = odeint_adjoint(net, y0, T)
    plain = torch.autograd.grad(y.pow(2).sum(), (y0, *net.parameters()), retain_graph=True)
    graphed = torch.autograd.grad(y.pow(2).sum(), (y0, *net.parameters()), create_graph=True)
    assert all(torch.equal(a, b.detach()) for a, b in zip(plain, graphed, strict=True))
    with pytest.raises(SecondDerivativeError, match="odeint"):
        torch.autograd.grad(graphed[0].pow(2).sum(), net.w1)


class Fails(torch.nn.Module):
    """Raises in the reverse solve only."""

    def __init__(self, error):
        super().__init__()
        self.error, self.now = error, False
        self.w = torch.nn.Parameter(f64(1.0))

    def forward(self, t, y):
        if self.now:
            raise self.error
        return -self.w * y


@pytest.mark.parametrize("kind", [ValueError, AssertionError, KeyError, RuntimeError])
def test_exceptions_of_func_pass_unchanged_in_the_backward_pass_too(kind):
    func = Fails(kind("mine"))
    y = odeint_adjoint(func, f64(1.0), T)
    func.now = True
    with pytest.raises(kind, match="mine") as caught:
        y.sum().backward()
    assert caught.value is func.error


def test_a_reverse_solve_that_cannot_go_on_is_an_assertion_error_too():
    class Half(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.broken, self.w = False, torch.nn.Parameter(f64(1.0))

        def forward(self, t, y):
            return torch.where((t < 0.5) & torch.tensor(self.broken), math.nan, -self.w * y)

    func = Half()
    y = odeint_adjoint(func, f64(1.0), f64(0.0, 1.0))
    func.broken = True
    with pytest.raises(AssertionError, match="reverse solve") as caught:
        y[-1].sum().backward()
    assert isinstance(caught.value, adamode.SolverError)
    assert func.w.grad is None


def test_a_blow_up_is_an_error_as_there():
    with pytest.raises(AssertionError) as caught:
        odeint_adjoint(square, f64(1.0), f64(0.0, 2.0), adjoint_params=())
    assert isinstance(caught.value, AdamodeError)


def test_a_lost_reconstruction_warns_once_and_goes_on():
    """Programs that work with torchdiffeq today must go on working."""
    for _ in range(2):
        y0 = f64(1.0, 0.5).requires_grad_()
        y = odeint_adjoint(quench, y0, f64(0.0, 1.0), adjoint_params=(), rtol=1e-5, atol=1e-7)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            y[-1].sum().backward()
        messages = [str(w.message) for w in caught if issubclass(w.category, AdamodeWarning)]
        assert len(messages) == (1 if _ == 0 else 0)
        assert all("reconstruct" in m or "solved backwards" in m for m in messages)
        assert y0.grad is not None


def test_hooks_of_the_module_and_of_its_parameters_fire():
    net, fired = Net(), []
    net.register_forward_hook(lambda module, args, out: fired.append("forward"))
    net.w1.register_hook(lambda g: fired.append("gradient"))
    y = odeint_adjoint(net, batch(2, 3), T)
    ahead = len(fired)
    y.sum().backward()
    assert ahead > 10
    assert fired.count("forward") > ahead
    assert "gradient" in fired


def test_event_fn_none_is_no_event():
    assert torch.is_tensor(odeint_adjoint(Net(), batch(2, 3), T, event_fn=None))


def test_a_tuple_of_pairs_solves_forward_as_odeint_does():
    ours = odeint_adjoint(Pair(), (batch(2, 3), batch(4)), T)
    assert isinstance(ours, tuple)
    plain = adamode.odeint(Pair(), (batch(2, 3), batch(4)), T)
    assert worst(ours, plain) <= 1e-12
    assert (
        worst(
            adamode.odeint(lambda t, y: pair(y), (batch(2, 3), batch(4)), T),
            torchdiffeq.odeint(lambda t, y: pair(y), (batch(2, 3), batch(4)), T),
        )
        < 1e-6
    )
