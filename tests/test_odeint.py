"""`odeint`: torchdiffeq's call, meaning, shapes, options, callbacks, errors; derivatives of every order."""

import math
import warnings

import pytest
import torch
from problems import Net, Recorder, Tree, f64, rational, rational_solution, relative, square, worst
from references import reference_solution

import adamode
from adamode import AdamodeError, AdamodeWarning

torchdiffeq = pytest.importorskip("torchdiffeq")

FIXED = ["euler", "midpoint", "heun2", "heun3", "rk4"]
ADAPTIVE = ["dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun"]
T = f64(0.0, 0.3, 1.0, 1.7)


def batch(*shape, seed=1):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pair(y):
    """A nonlinear pair of members of several shapes."""
    return torch.tanh(y[1]).sum() - y[0], torch.sin(y[0]).sum() - y[1]


def both(func, y0, t, **options):
    return adamode.odeint(func, y0, t, **options), torchdiffeq.odeint(func, y0, t, **options)


# Values


@pytest.mark.parametrize("t", [T, T.flip(0), f64(0.0, 1.0), -T], ids=["up", "down", "two", "negative"])
@pytest.mark.parametrize("method", [*ADAPTIVE, "tsit5", None])
def test_adaptive_methods_solve_in_both_directions_of_time(method, t):
    low_order = method in ("fehlberg2", "adaptive_heun", "bosh3")
    tol = {"rtol": 1e-5, "atol": 1e-5} if low_order else {}
    y = adamode.odeint(Net(), batch(2, 3), t, method=method, **tol)
    reference = reference_solution(Net(), batch(2, 3), t.tolist())
    assert relative(y, reference) < (5e-3 if low_order else 1e-6)  # measured: 2e-3, fehlberg2; 1e-7


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("interp", ["linear", "cubic"])
@pytest.mark.parametrize("method", FIXED)
def test_fixed_step_methods_take_the_same_steps(method, interp, direction):
    t = T if direction > 0 else T.flip(0)
    net, y0 = Net(), batch(2, 3)
    ours, theirs = both(net, y0, t, method=method, options={"interp": interp})
    assert relative(ours, theirs) < 1e-13
    ours, theirs = both(net, y0, t, method=method, options={"step_size": 0.25, "interp": interp})
    assert relative(ours, theirs) < 1e-12


@pytest.mark.parametrize("t", [T, T.flip(0)], ids=["up", "down"])
@pytest.mark.parametrize("method", FIXED)
def test_a_grid_constructor_is_given_the_times_as_they_run(method, t):
    seen = []

    def grid(func, y0, t):
        seen.append((t.clone(), y0.shape, func))
        return torch.linspace(float(t[0]), float(t[-1]), 23, dtype=t.dtype)

    net = Net()
    ours, theirs = both(net, batch(2, 3), t, method=method, options={"grid_constructor": grid})
    assert relative(ours, theirs) < 1e-12
    assert torch.equal(seen[0][0], t)
    assert seen[0][1] == (2, 3)


@pytest.mark.parametrize("method", FIXED)
def test_perturb_keeps_f_off_the_grid_points(method):
    func = Recorder(Net())
    options = {"perturb": True, "step_size": 0.25}
    adamode.odeint(func, batch(2, 3), f64(0.0, 1.0), method=method, options=options)
    assert not {0.0, 0.25, 0.5, 0.75, 1.0} & set(func.times)
    assert min(func.times) > 0
    assert max(func.times) < 1
    ours, theirs = both(Net(), batch(2, 3), f64(0.0, 1.0), method=method, options=options)
    assert relative(ours, theirs) < 1e-12


@pytest.mark.parametrize("tol", [1e-3, 1e-5, 1e-7, 1e-9])
@pytest.mark.parametrize(
    ("func", "y0", "t"),
    [
        (Net(), batch(4, 3), f64(0.0, 30.0)),
        (Net(seed=3), batch(4, 3), torch.linspace(0, 30, 30, dtype=torch.float64)),
        (rational, rational_solution(-4.0), f64(-4.0, 0.0, 4.0)),
        (rational, rational_solution(4.0), f64(4.0, 0.0, -4.0)),
    ],
    ids=["network", "many outputs", "rational", "decreasing"],
)
def test_dopri5_costs_as_many_evaluations_as_there_within_five_per_cent(func, y0, t, tol):
    counts = []
    for library in (adamode, torchdiffeq):
        counted = Recorder(func)
        library.odeint(counted, y0, t, rtol=tol, atol=tol)
        counts.append(len(counted.times))
    # two attempts: here the last step is cut to the end, there it runs past it and may be rejected for that
    assert counts[0] == pytest.approx(counts[1], rel=0.05, abs=12)


def test_outputs_inside_steps_cost_no_evaluation():
    counts = []
    for t in (f64(0.0, 10.0), torch.linspace(0, 10, 500, dtype=torch.float64)):
        func = Recorder(Net())
        adamode.odeint(func, batch(2, 3), t)
        counts.append(len(func.times))
    assert counts[0] == counts[1]


def test_one_time_gives_the_start_without_an_evaluation():
    func = Recorder(Net())
    y = adamode.odeint(func, batch(2, 3), f64(0.5))
    assert torch.equal(y, batch(1, 2, 3))
    assert func.times == []
    (pairs, single) = adamode.odeint(lambda t, y: pair(y), (batch(2), batch(1)), f64(0.0))
    assert (pairs.shape, single.shape) == ((1, 2), (1, 1))


# Shapes and dtypes


@pytest.mark.parametrize("shape", [(), (1,), (3, 2), (2, 1, 4)])
def test_the_result_has_the_times_in_front_of_the_states_shape(shape):
    ours, theirs = both(lambda t, y: -y, batch(*shape), T)
    assert ours.shape == theirs.shape == (4, *shape)
    assert relative(ours, theirs) < 1e-6


def test_a_tuple_state_gives_a_tuple():
    ours, theirs = both(lambda t, y: pair(y), (batch(2, 3), batch(4)), T)
    assert isinstance(ours, tuple)
    assert [y.shape for y in ours] == [y.shape for y in theirs]
    assert worst(ours, theirs) < 1e-6


def test_a_tuple_with_zero_dimensional_and_empty_looking_members():
    y0 = (batch(2), f64(0.5)[0], batch(1, 1))
    func = lambda t, y: (-y[0], y[0].sum() - y[1], torch.cos(t) * y[2])  # noqa: E731
    ours, theirs = both(func, y0, T)
    assert [y.shape for y in ours] == [(4, 2), (4,), (4, 1, 1)]
    assert worst(ours, theirs) < 1e-6


def test_lists_and_dicts_come_back_as_they_went_in():
    as_list = adamode.odeint(lambda t, y: list(pair(y)), [batch(2, 3), batch(4)], T)
    assert isinstance(as_list, list)
    as_dict = adamode.odeint(Tree(), {"a": batch(2, 3), "b": batch(2)}, T)
    assert {k: v.shape for k, v in as_dict.items()} == {"a": (4, 2, 3), "b": (4, 2)}


@pytest.mark.parametrize("t_dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_func_gets_a_zero_dimensional_time_of_the_states_dtype(dtype, t_dtype):
    seen = set()

    def func(t, y):
        seen.add((t.dtype, t.dim(), y.dtype))
        return -y

    y = adamode.odeint(func, torch.ones(2, dtype=dtype), torch.tensor([0.0, 1.0], dtype=t_dtype))
    assert seen == {(dtype, 0, dtype)}
    assert y.dtype == dtype


def test_a_float64_result_for_a_float32_state_is_cast():
    scale = torch.tensor(2.0, dtype=torch.float64)
    seen = []

    def func(t, y):
        k = -scale * y.double()
        seen.append(k.dtype)
        return k

    ours, theirs = both(func, torch.ones(3), torch.tensor([0.0, 1.0]), rtol=1e-5, atol=1e-5)
    assert seen[0] == torch.float64
    assert ours.dtype == theirs.dtype == torch.float32
    assert relative(ours, theirs) < 1e-4


@pytest.mark.parametrize("kind", [torch.int64, torch.complex64, torch.bool])
def test_a_result_of_another_kind_of_number_is_an_error(kind):
    with pytest.raises(adamode.DynamicsError, match=str(kind)):
        adamode.odeint(lambda t, y: torch.ones(3, dtype=kind), torch.ones(3), torch.tensor([0.0, 1.0]))


def test_the_default_tolerances_are_accepted_in_float32():
    """rtol=1e-7 is below what float32 resolves; there it is the default."""
    y = adamode.odeint(lambda t, y: -y, torch.ones(3), torch.tensor([0.0, 1.0]))
    assert relative(y[-1], torch.full((3,), math.exp(-1))) < 1e-5


@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_large_finite_float32_states_are_not_refused(method):
    y0 = torch.full((200, 3), 1e20)
    options = {"step_size": 0.05} if method == "rk4" else None
    y = adamode.odeint(
        lambda t, y: 0.5 * y, y0, torch.tensor([0.0, 1.0]), method=method, options=options, rtol=1e-5
    )
    assert relative(y[-1], y0 * math.exp(0.5)) < 1e-4


def test_forward_hooks_of_a_module_fire():
    net, fired = Net(), []
    net.register_forward_hook(lambda module, args, out: fired.append("after"))
    net.register_forward_pre_hook(lambda module, args: fired.append("before"))
    adamode.odeint(net, batch(2, 3), f64(0.0, 1.0))
    assert fired.count("before") == fired.count("after") > 10


def test_event_fn_none_is_no_event():
    assert torch.is_tensor(adamode.odeint(Net(), batch(2, 3), T, event_fn=None))


# Options


def steps_of(library, func, y0, t, **arguments):
    """The accepted (t0, dt), by the callback that both libraries have."""

    class Watched(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.steps, self.rejected = [], []

        def forward(self, t, y):
            return func(t, y)

        def callback_accept_step(self, t0, y0, dt):
            self.steps.append((float(t0), float(dt)))

        def callback_reject_step(self, t0, y0, dt):
            self.rejected.append((float(t0), float(dt)))

    watched = Watched()
    library.odeint(watched, y0, t, **arguments)
    return watched.steps, watched.rejected


def before_the_end(steps, end):
    """The steps that do not reach it: there the last runs past the end, here it is cut to it."""
    return [(t, dt) for t, dt in steps if t + dt < end * (1 - 1e-9)]


@pytest.mark.parametrize("method", [None, "dopri5"])
@pytest.mark.parametrize(
    "options",
    [
        {"first_step": 0.1},
        {"first_step": 2.0},
        {"first_step": 0.1, "max_step": 0.15},
        {"first_step": 0.3, "min_step": 0.2},
        {"first_step": 0.1, "safety": 0.5},
        {"first_step": 0.01, "ifactor": 2.0},
        {"first_step": 2.0, "dfactor": 0.5},
        {"first_step": 0.1, "step_t": f64(0.55, 0.8)},
        {"first_step": 0.1, "jump_t": f64(0.55, 0.8)},
        {"first_step": 0.1, "norm": lambda y: y.abs().max()},
        {"first_step": 0.1, "dtype": torch.float64},
        {"first_step": 0.1, "max_num_steps": 1000},
    ],
    ids=lambda o: ",".join(o),
)
def test_every_adaptive_option_gives_the_steps_it_gives_there(options, method):
    arguments = {"rtol": 1e-6, "atol": 1e-6, "method": method, "options": options}
    net, y0, t = Net(), batch(2, 3), f64(0.0, 6.0)
    ours, theirs = steps_of(adamode, net, y0, t, **arguments), steps_of(torchdiffeq, net, y0, t, **arguments)
    inner, rejected = before_the_end(ours[0], 6.0), before_the_end(ours[1], 6.0)
    assert len(inner) >= 5
    assert inner == [pytest.approx(step, rel=1e-5, abs=1e-9) for step in theirs[0][: len(inner)]]
    assert rejected == [pytest.approx(step, rel=1e-5, abs=1e-9) for step in theirs[1][: len(rejected)]]
    assert len(inner) + len(rejected) > 10


def test_max_num_steps_is_an_error_that_is_an_assertion_error_too():
    arguments = {"options": {"max_num_steps": 3}, "rtol": 1e-9, "atol": 1e-9}
    for library in (adamode, torchdiffeq):
        with pytest.raises(AssertionError):
            library.odeint(Net(), batch(2, 3), f64(0.0, 9.0), **arguments)
    with pytest.raises(adamode.SolverError, match="max_steps") as caught:
        adamode.odeint(Net(), batch(2, 3), f64(0.0, 9.0), **arguments)
    assert caught.value.status is adamode.Status.MAX_STEPS


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_jump_t_shows_f_one_side_only(direction):
    at = 0.4 * direction

    def func(t, y):
        seen.append(float(t))
        return torch.where(t * direction < 0.4, 1.0, -3.0) * torch.ones_like(y)

    seen = []
    y = adamode.odeint(
        func, f64(0.0), direction * f64(0.0, 1.0), options={"jump_t": f64(at), "first_step": 0.1}
    )
    assert at not in seen
    assert y[-1].item() == pytest.approx(direction * (0.4 - 3 * 0.6), rel=1e-13)


def test_the_callers_options_are_not_modified():
    options = {"first_step": 0.1, "jump_t": f64(0.5), "norm": lambda y: y.abs().max(), "step_t": f64(0.7)}
    copy = dict(options)
    for t in (T, T.flip(0)):
        adamode.odeint(Net(), batch(2, 3), t, options=options)
        adamode.odeint_adjoint(Net(), batch(2, 3), t, options=options, adjoint_options=options)
    assert options.keys() == copy.keys()
    assert all(options[k] is copy[k] for k in copy)
    assert torch.equal(options["jump_t"], f64(0.5))


@pytest.mark.parametrize(
    ("method", "options", "named"),
    [
        ("dopri5", {"step_size": 0.1}, "step_size"),
        (None, {"frist_step": 0.1}, "first_step"),
        ("rk4", {"first_step": 0.1}, "first_step"),
        ("rk4", {"max_num_steps": 5}, "max_num_steps"),
    ],
)
def test_an_option_the_method_does_not_use_is_a_warning_there_and_here(method, options, named):
    with pytest.warns(AdamodeWarning, match=named):
        ours = adamode.odeint(Net(), batch(2, 3), T, method=method, options=options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = adamode.odeint(Net(), batch(2, 3), T, method=method)
    assert torch.equal(ours, plain)
    with pytest.warns(UserWarning, match="(?i)unexpected arguments"):
        torchdiffeq.odeint(Net(), batch(2, 3), T, method=method, options=options)


def test_a_tolerance_for_each_member_of_a_tuple():
    y0 = (torch.ones(3, dtype=torch.float64), torch.ones(5, dtype=torch.float64))
    func = lambda t, y: (torch.cos(t) * y[0], torch.cos(9 * t) * y[1])  # noqa: E731
    for tolerances in (((1e-2, 1e-9), (1e-2, 1e-9)), ((1e-2, f64(*[1e-9] * 5)), (f64(1e-2)[0], 1e-9))):
        counts = []
        for library in (adamode, torchdiffeq):
            counted = Recorder(func)
            y = library.odeint(counted, y0, f64(0.0, 3.0), rtol=tolerances[0], atol=tolerances[1])
            counts.append(len(counted.times))
            assert relative(y[1][-1], torch.full_like(y0[1], math.exp(math.sin(27) / 9))) < 1e-7
        assert counts[0] == pytest.approx(counts[1], rel=0.05, abs=6)


def test_tolerances_may_be_tensors():
    net, y0 = Net(), batch(2, 3)
    for rtol, atol in ((f64(1e-5)[0], f64(1e-5)[0]), (1e-5, torch.full((2, 3), 1e-5, dtype=torch.float64))):
        ours = steps_of(adamode, net, y0, f64(0.0, 3.0), rtol=rtol, atol=atol, options={"first_step": 0.1})
        plain = steps_of(adamode, net, y0, f64(0.0, 3.0), rtol=1e-5, atol=1e-5, options={"first_step": 0.1})
        assert ours == plain


def test_norm_gets_what_the_user_knows():
    kinds = set()

    def norm(y):
        kinds.add(type(y))
        return y.abs().max() if torch.is_tensor(y) else max(x.abs().max() for x in y)

    adamode.odeint(Net(), batch(2, 3), T, options={"norm": norm})
    assert kinds == {torch.Tensor}
    kinds.clear()
    adamode.odeint(lambda t, y: pair(y), (batch(2, 3), batch(4)), T, options={"norm": norm})
    assert kinds == {tuple}


def test_a_tuples_default_norm_is_the_largest_members_rms():
    """A large calm member must not hide a small one: joined in one RMS it would."""
    y0 = (torch.zeros(10_000, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    func = lambda t, y: (torch.zeros_like(y[0]), torch.cos(9 * t) * y[1])  # noqa: E731
    arguments = {"rtol": 1e-6, "atol": 1e-6, "options": {"first_step": 0.1}}
    ours = steps_of(adamode, func, y0, f64(0.0, 3.0), **arguments)
    theirs = steps_of(torchdiffeq, func, y0, f64(0.0, 3.0), **arguments)
    assert len(ours[0]) == len(theirs[0])
    joined = {"norm": lambda y: torch.cat(y).pow(2).mean().sqrt(), "first_step": 0.1}
    assert (
        len(steps_of(adamode, func, y0, f64(0.0, 3.0), rtol=1e-6, atol=1e-6, options=joined)[0])
        < len(ours[0]) * 0.8
    )


# Callbacks


class Telling(torch.nn.Module):
    """Tells everything that happens, in order."""

    def __init__(self, names, steep=1.0):
        super().__init__()
        self.log, self.steep = [], steep
        for name in names:
            setattr(self, name, lambda t0, y0, dt, name=name: self.log.append((name, t0, y0, dt)))

    def forward(self, t, y):
        return torch.cos(3 * t) * self.steep * y if torch.is_tensor(y) else pair(y)


CALLBACKS = ("callback_step", "callback_accept_step", "callback_reject_step")


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("state", ["tensor", "tuple"])
def test_callbacks_are_called_as_there(state, direction):
    y0 = batch(2, 3) if state == "tensor" else (batch(2, 3), batch(4))
    t = f64(0.0, 0.7, 4.0) if direction > 0 else f64(4.0, 0.7, 0.0)
    logs = []
    for library in (adamode, torchdiffeq):
        func = Telling(CALLBACKS)
        library.odeint(func, y0, t, options={"first_step": 0.9}, rtol=1e-6, atol=1e-6)
        logs.append(func.log)
    ours, theirs = logs
    assert {entry[0] for entry in ours} == set(CALLBACKS)
    end = [abs(float(t0) + direction * float(dt) - float(t[-1])) < 1e-9 for _, t0, _, dt in ours].index(True)
    assert end >= 8  # from there on steps differ: ours is cut to the end, theirs runs past it
    for (name, t0, y, dt), (there, s0, x, ds) in zip(
        ours[: min(end, 20)], theirs[: min(end, 20)], strict=True
    ):
        assert name == there
        assert t0.dim() == dt.dim() == 0
        assert float(t0) == pytest.approx(float(s0), rel=1e-4, abs=1e-9)  # roundings grow from step to step
        assert float(dt) == pytest.approx(float(ds), rel=1e-4)
        assert type(y) is type(x)
        assert worst(*([[a] for a in (y, x)] if torch.is_tensor(y) else (y, x))) < 1e-4


def test_an_unsupported_callback_is_a_warning_and_a_supported_one_is_called():
    func = Telling(("callback_step", "callback_accept_step"))
    with pytest.warns(AdamodeWarning, match="callback_accept_step"):
        adamode.odeint(func, batch(2, 3), f64(0.0, 1.0), method="rk4", options={"step_size": 0.25})
    assert [entry[0] for entry in func.log] == ["callback_step"] * 4
    assert [float(entry[1]) for entry in func.log] == [0.0, 0.25, 0.5, 0.75]


def test_an_exception_of_a_callback_passes_unchanged():
    class Stop(Exception):
        pass

    net = Net()

    def stop(t0, y0, dt):
        raise Stop

    net.callback_accept_step = stop
    with pytest.raises(Stop):
        adamode.odeint(net, batch(2, 3), T)


# Derivatives


def random_case(seed, adjoint=False):
    """A random network, state, times and loss."""
    make = torch.Generator().manual_seed(seed)
    b, n = (int(x) for x in torch.randint(1, 4, (2,), generator=make))
    t = torch.rand(
        int(torch.randint(2, 6, (1,), generator=make)), generator=make, dtype=torch.float64
    ).cumsum(0)
    t = t.flip(0) if seed % 2 else t
    return Net(n, seed=seed), batch(b, n, seed=seed), t


def gradients_of(solver, net, y0, t, **arguments):
    y0, t = y0.clone().requires_grad_(), t.clone().requires_grad_()
    y = solver(net, y0, t, rtol=1e-10, atol=1e-10, **arguments)
    g = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(7))
    return torch.autograd.grad((g * y).sum() + (y**2).sum(), (y0, t, *net.parameters()))


@pytest.mark.parametrize("seed", range(20))
def test_gradients_in_state_times_and_parameters_are_those_of_torchdiffeq(seed):
    """first_step: torchdiffeq differentiates its own choice of it, step sizes count as constants here."""
    net, y0, t = random_case(seed)
    found, expected = (
        gradients_of(library.odeint, net, y0, t, options={"first_step": 0.02})
        for library in (adamode, torchdiffeq)
    )
    assert worst(found, expected) < 1e-6


@pytest.mark.parametrize("method", FIXED)
def test_gradients_through_fixed_steps_are_those_of_torchdiffeq(method):
    net, y0, t = random_case(4)
    options = {"step_size": 0.1}
    grads = []
    for library in (adamode, torchdiffeq):
        y = y0.clone().requires_grad_()
        out = library.odeint(net, y, t, method=method, options=options)
        grads.append(torch.autograd.grad((out**2).sum(), (y, *net.parameters())))
    assert worst(*grads) < 1e-11


def test_gradients_of_a_tuple_state_and_of_captured_tensors():
    w = f64(0.3).requires_grad_()
    scale = w * 2  # not a leaf, not named: autograd sees it
    func = lambda t, y: (scale * torch.sin(y[1]).sum() - y[0], y[0].sum() - y[1])  # noqa: E731
    grads = []
    for library in (adamode, torchdiffeq):
        y0 = (batch(2, 3).requires_grad_(), batch(4).requires_grad_())
        a, b = library.odeint(func, y0, T, options={"first_step": 0.02})
        grads.append(torch.autograd.grad((a**2).sum() + b.sum(), (*y0, w), retain_graph=True))
    assert worst(*grads) < 1e-6


def test_second_derivatives_are_those_of_the_closed_solution():
    """y' = w y², y = 1/(1/y0 − w t): all second derivatives at t = 1 are known."""
    y0, w = f64(0.5).requires_grad_(), f64(0.8).requires_grad_()
    y = adamode.odeint(lambda t, y: w * y * y, y0, f64(0.0, 1.0), rtol=1e-12, atol=1e-12)[-1]
    first = torch.autograd.grad(y.sum(), (y0, w), create_graph=True)
    second = [torch.autograd.grad(d.sum(), (y0, w), retain_graph=True) for d in first]
    a, b = y0.detach().clone().requires_grad_(), w.detach().clone().requires_grad_()
    exact = torch.autograd.functional.hessian(lambda a, b: (1 / (1 / a - b)).sum(), (a, b))
    found = [x for row in second for x in row]
    assert worst(found, [x.reshape(1) for row in exact for x in row]) < 1e-9


def test_gradgradcheck_on_a_tiny_case():
    w = batch(2, 2, seed=5).requires_grad_()

    def run(y0, w):
        func = lambda t, y: torch.tanh(y @ w)  # noqa: E731
        return adamode.odeint(
            func, y0, f64(0.0, 0.3), method="dopri5", options={"first_step": 0.1}, rtol=1e-2, atol=1e-2
        )

    y0 = batch(1, 2).requires_grad_()
    assert torch.autograd.gradcheck(run, (y0, w))
    assert torch.autograd.gradgradcheck(run, (y0, w))


def test_a_gradient_penalty_trains():
    net, y0 = Net(), batch(2, 3).requires_grad_()
    y = adamode.odeint(net, y0, f64(0.0, 0.5), options={"first_step": 0.05})[-1]
    (slope,) = torch.autograd.grad(y.sum(), y0, create_graph=True)
    (slope**2).sum().backward()
    theirs, x0 = Net(), batch(2, 3).requires_grad_()
    y = torchdiffeq.odeint(theirs, x0, f64(0.0, 0.5), options={"first_step": 0.05})[-1]
    (slope,) = torch.autograd.grad(y.sum(), x0, create_graph=True)
    (slope**2).sum().backward()
    assert worst([p.grad for p in net.parameters()], [p.grad for p in theirs.parameters()]) < 1e-4


def test_jacobians_by_vmap_over_cotangents_work():
    net, y0 = Net(), batch(2, 3)
    run = lambda y: adamode.odeint(net, y, f64(0.0, 0.5), rtol=1e-9, atol=1e-9)[-1]  # noqa: E731
    whole = torch.autograd.functional.jacobian(run, y0)
    vectorised = torch.autograd.functional.jacobian(run, y0, vectorize=True)
    assert relative(vectorised, whole) < 1e-12


# Errors


def test_exceptions_of_func_pass_unchanged():
    class Own(AssertionError):
        pass

    def func(t, y):
        raise Own("mine")

    with pytest.raises(Own, match="mine") as caught:
        adamode.odeint(func, batch(2), T)
    assert type(caught.value) is Own


@pytest.mark.parametrize("name", ["adams", "dopri", "DOPRI5", 5])
def test_an_unknown_method_is_a_value_error_that_lists_the_known(name):
    with pytest.raises(ValueError, match="dopri5") as caught:
        adamode.odeint(Net(), batch(2, 3), T, method=name)
    assert repr(name) in str(caught.value)
    assert isinstance(caught.value, AdamodeError)


@pytest.mark.parametrize(
    "t", [torch.tensor([0, 1]), [0.0, 1.0], torch.tensor([0.0, 1.0], dtype=torch.complex64), 1.0]
)
def test_times_that_are_no_floats_are_a_type_error(t):
    with pytest.raises(TypeError) as caught:
        adamode.odeint(Net(), batch(2, 3), t)
    assert isinstance(caught.value, AdamodeError)


BAD = {
    "equal times": lambda: (Net(), batch(2, 3), f64(0.0, 0.5, 0.5)),
    "unordered times": lambda: (Net(), batch(2, 3), f64(0.0, 1.0, 0.5)),
    "two-dimensional times": lambda: (Net(), batch(2, 3), f64(0.0, 1.0)[None]),
}


@pytest.mark.parametrize("case", BAD)
def test_what_torchdiffeq_asserts_is_an_assertion_error_and_a_value_error(case):
    with pytest.raises(AssertionError):
        torchdiffeq.odeint(*BAD[case]())
    with pytest.raises(AssertionError) as caught:
        adamode.odeint(*BAD[case]())
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, AdamodeError)


@pytest.mark.parametrize("t", [f64(0.0, math.inf), f64(0.0, math.nan), f64(-math.inf, 0.0)], ids=str)
def test_times_that_are_not_finite_are_an_error(t):
    """There [0, inf] hangs."""
    with pytest.raises(ValueError, match="finite"):
        adamode.odeint(Net(), batch(2, 3), t)


def test_a_solve_that_cannot_go_on_is_a_runtime_and_an_assertion_error():
    with pytest.raises(AssertionError):
        torchdiffeq.odeint(square, f64(1.0), f64(0.0, 2.0))
    with pytest.raises(AssertionError) as caught:
        adamode.odeint(square, f64(1.0), f64(0.0, 2.0))
    error = caught.value
    assert isinstance(error, RuntimeError)
    assert isinstance(error, adamode.SolverError)
    assert error.t == pytest.approx(1.0, abs=1e-5)
    assert f"t={error.t:.6g}" in str(error)


def test_a_result_of_the_wrong_shape_is_an_error():
    with pytest.raises(adamode.DynamicsError, match=r"\(2,\)"):
        adamode.odeint(lambda t, y: y[:, 0], batch(2, 3), T)
    with pytest.raises(adamode.DynamicsError, match="1 tensors"):
        adamode.odeint(lambda t, y: (y[0],), (batch(2), batch(3)), T)


@pytest.mark.parametrize(
    "options",
    [
        {"first_step": 0.0},
        {"first_step": -1.0},
        {"first_step": "a"},
        {"first_step": math.nan},
        {"max_num_steps": 0},
        {"safety": 2.0},
        {"ifactor": 0.5},
        {"dfactor": 1.5},
        {"step_t": f64(0.5), "jump_t": f64(0.5)},
        {"jump_t": f64(math.nan)},
        {"min_step": -1.0},
        {"max_step": 0.0},
    ],
    ids=str,
)
def test_an_option_that_means_nothing_is_an_error_naming_it(options):
    with pytest.raises(AdamodeError) as caught:
        adamode.odeint(Net(), batch(2, 3), T, options=options)
    words = {
        "safety": "safety",
        "ifactor": "factor_max",
        "dfactor": "factor_min",
        "min_step": "dt_min",
        "max_step": "dt_max",
    }
    name = next(iter(options))
    assert name in str(caught.value) or words[name] in str(caught.value)
    assert isinstance(caught.value, AssertionError)


@pytest.mark.parametrize(
    "options",
    [
        {"step_size": 0.0},
        {"step_size": 0.1, "grid_constructor": lambda f, y, t: t},
        {"interp": "quintic"},
        {"grid_constructor": lambda f, y, t: t[:-1]},
        {"grid_constructor": lambda f, y, t: t.flip(0)},
    ],
    ids=lambda o: ",".join(o),
)
def test_a_fixed_step_option_that_means_nothing_is_an_error_naming_it(options):
    with pytest.raises(AdamodeError, match=next(iter(options))):
        adamode.odeint(Net(), batch(2, 3), T, method="rk4", options=options)


def test_options_must_be_a_dict():
    with pytest.raises(AdamodeError, match="options"):
        adamode.odeint(Net(), batch(2, 3), T, options=5)
