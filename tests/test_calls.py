"""A callable that takes other arguments than it is given is refused before anything is computed."""

import functools
from unittest import mock

import pytest
import torch
from torch import nn

import adamode
from adamode import ArgumentTypeError, Event, Flow, Impulse, LogDensity, Signal
from adamode.inspect.problem import Problem
from adamode.models import Model
from adamode.models.fields import AutogradField, OwnField
from adamode.models.model import ZeroStart
from adamode.solvers.checks import check_call, runs
from adamode.train.own import built, made_by
from adamode.verify import check_gradient

T = torch.linspace(0, 1, 3)
Y = torch.ones(4, 2)


def decay(t, y):
    return -y


def of_state(y):
    return -y


def with_arguments(t, y, args):
    return -y


def wrapped(inner, outer):
    """outer, which says that it is inner."""
    return functools.wraps(inner)(outer)


class Owner:
    """Every way in which a class can hold a function."""

    def method(self, t, y):
        return -y

    def short(self, y):
        return -y

    @staticmethod
    def static(t, y):
        return -y

    @classmethod
    def of_class(cls, t, y):
        return -y


class Called:
    def __call__(self, t, y):
        return -y


class CalledShort:
    def __call__(self, y):
        return -y


class CalledStatic:
    @staticmethod
    def __call__(t, y):
        return -y


class Module(nn.Module):
    def forward(self, t, y):
        return -y


class Scripted(nn.Module):
    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return -y


class OwnCall(nn.Module):
    """Its call is not torch's, and its forward is something else."""

    def __call__(self, t, y):
        return self.forward(y)

    def forward(self, y):
        return -y


class OwnImplementation(nn.Module):
    """What torch's call runs is its own."""

    def _call_impl(self, t, y):
        return self.forward(y)

    def forward(self, y):
        return -y


class Forwardless(nn.Module):
    pass


class Made(type):
    """A class of this kind is called as a function is."""

    def __call__(cls, t, y):
        return -y


class ByMetaclass(metaclass=Made):
    pass


class Solved(float):
    """A class whose call makes a number."""

    def __new__(cls, t, y):
        return super().__new__(cls, 1.0)


def hooked():
    net = nn.Sequential(nn.Identity())
    net.register_forward_pre_hook(lambda module, given: given[1:])
    return net


def with_forward(function):
    net = nn.Identity()
    net.forward = function
    return net


RIGHT = {
    "function": decay,
    "lambda with defaults": lambda t, y, rate=2.0: -rate * y,
    "*args": lambda *args: -args[1],
    "one and *args": lambda t, *rest: -rest[0],
    "**kwargs": lambda t, y, **more: -y,
    "keyword-only with a default": lambda t, y, *, rate=2.0: -rate * y,
    "positional-only": lambda t, y, /: -y,
    "method": Owner().method,
    "staticmethod": Owner.static,
    "classmethod": Owner().of_class,
    "partial by name": functools.partial(with_arguments, args=3),
    "partial in front": functools.partial(lambda rate, t, y: -y, 2.0),
    "partial of a partial": functools.partial(functools.partial(lambda a, b, t, y: -y, 1), 2),
    "partial of a method": functools.partial(Owner().method),
    "partial of keyword-only": functools.partial(lambda t, y, *, rate: -y, rate=1),
    "partial of what more takes": functools.partial(lambda t, y, **more: -y, rate=1),
    "callable class": Called(),
    "callable class, static": CalledStatic(),
    "wraps one that takes less": wrapped(of_state, lambda t, y: -y),
    "wraps one that takes more": wrapped(with_arguments, lambda *args: -args[1]),
    "no_grad": torch.no_grad()(decay),
    "compiled": torch.compile(decay, backend="eager"),
    "scripted": torch.jit.script(Scripted()),
    "module": Module(),
    "compiled module": torch.compile(Module(), backend="eager"),
    "DataParallel": nn.DataParallel(Module()),
    "module with its own call": OwnCall(),
    "module whose implementation of the call is its own": OwnImplementation(),
    "class of a metaclass with a call": ByMetaclass,
    "class with its own __new__": Solved,
    "module with a hook": hooked(),
    "module with a forward of its own": with_forward(decay),
    "functional_call": lambda t, y: torch.func.functional_call(Module(), {}, (t, y)),
    "vmap": torch.func.vmap(decay, (None, 0)),
    "built-in": torch.mul,
    "mock": mock.Mock(return_value=Y),
    "mock of a function": mock.create_autospec(decay, return_value=Y),
    "mock of a module": mock.Mock(spec=nn.Module(), return_value=Y),
}
WRONG = {
    "function of y": of_state,
    "lambda of y": lambda y: -y,
    "nothing": lambda: 0,
    "one argument more": with_arguments,
    "keyword-only": lambda t, y, *, rate: -y,
    "method of y": Owner().short,
    "unbound method": Owner.method,
    "partial that binds too much": functools.partial(decay, 0.0),
    "partial that binds too little": functools.partial(lambda a, b, c, t: 0, 1),
    "partial that gives one twice": functools.partial(decay, t=0.0),
    "partial that binds what is not there": functools.partial(decay, rate=1.0),
    "partial that binds a positional-only one": functools.partial(lambda t, y, a=0, /: -y, a=1),
    "callable class of y": CalledShort(),
    "Sequential": nn.Sequential(nn.Identity()),
    "Linear": nn.Linear(2, 2),
    "wraps a right one": wrapped(decay, lambda y: -y),
    "module with a wrong forward": with_forward(of_state),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_can_be_called_is_never_refused(name):
    RIGHT[name](torch.zeros(()), Y)
    check_call(RIGHT[name], "func", "func(t, y)")


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_called_is_refused(name):
    with pytest.raises(TypeError, match=r"argument|multiple values"):
        WRONG[name](torch.zeros(()), Y)
    with pytest.raises(ArgumentTypeError, match=r"^func is called as func\(t, y\), but \S+ takes \("):
        check_call(WRONG[name], "func", "func(t, y)")


@pytest.mark.parametrize("made", [Module, Forwardless, Owner, nn.Linear])
def test_a_class_in_place_of_an_object_is_refused(made):
    name = made.__name__
    with pytest.raises(
        ArgumentTypeError,
        match=rf"^func is called as func\(t, y\), but {name} is a class: give an object, {name}\(…\)\.$",
    ):
        adamode.solve(made, Y, T)
    check_call(made, "build", "build(config)", objects=True)


@pytest.mark.parametrize("module", [Forwardless(), nn.ModuleList([Module()])])
def test_a_module_without_a_forward_is_refused(module):
    with pytest.raises(ArgumentTypeError, match=r" has no forward: write forward\(self, t, y\)\.$"):
        adamode.solve(module, Y, T)


@pytest.mark.parametrize("name", ["module with a hook", "built-in", "scripted"])
def test_an_unknown_call_is_not_guessed(name):
    assert runs(RIGHT[name]) is None


def test_the_message_says_what_came_what_is_asked_for_and_the_way_out():
    with pytest.raises(ArgumentTypeError) as error:
        adamode.solve(nn.Sequential(nn.Linear(2, 2)), Y, T)
    assert str(error.value) == (
        "func is called as func(t, y), but Sequential.forward takes (input): give lambda t, y: net(y), or a "
        "module with forward(self, t, y)."
    )
    with pytest.raises(ArgumentTypeError) as error:
        adamode.solve(with_arguments, Y, T)
    assert str(error.value) == (
        "func is called as func(t, y), but with_arguments takes (t, y, args): bind args beforehand "
        "(functools.partial, or lambda t, y: …), or give solve the input of a func(t, y, u) by signal=…."
    )


def test_the_ways_out_work():
    net = nn.Sequential(nn.Linear(2, 2))
    adamode.solve(lambda t, y: net(y), Y, T).y.sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    adamode.solve(functools.partial(with_arguments, args=1), Y, T)


# Every place that takes a callable

NET = nn.Sequential(nn.Linear(2, 2))
STIFF = {"method": "kvaerno3"}


class Tells(nn.Module):
    """func with a callback of torchdiffeq's that takes too little."""

    def forward(self, t, y):
        raise AssertionError("func was called")

    def callback_step(self, t, y):
        raise AssertionError("the callback was called")


def never(t, y):
    raise AssertionError("func was called")


def driven(*args):
    return adamode.solve(*args, Y, T, signal=Signal(T, torch.zeros(3, 1)))


PLACES = {
    "solve": ("func(t, y)", lambda: adamode.solve(NET, Y, T)),
    "solve per sample": ("func(t, y)", lambda: adamode.solve(NET, Y, T, stepping="per_sample")),
    "solve with penalties": ("func(t, y)", lambda: adamode.solve(NET, Y, T, penalties=("kinetic",))),
    "solve under a signal": ("func(t, y, u)", lambda: driven(never)),
    "solve, no signal": ("func(t, y)", lambda: adamode.solve(lambda t, y, u: -y, Y, T)),
    "odeint": ("func(t, y)", lambda: adamode.odeint(NET, Y, T)),
    "odeint_adjoint": ("func(t, y)", lambda: adamode.odeint_adjoint(NET, Y, T)),
    "odeint_event": (
        "func(t, y)",
        lambda: adamode.odeint_event(NET, Y, T[0], event_fn=lambda t, y: y[0, 0]),
    ),
    "sample": ("func(t, y)", lambda: adamode.sample(NET, Y, T)),
    "check_gradient": ("func(t, y)", lambda: check_gradient(of_state, Y.double(), T)),
    "event": ("fn(t, y)", lambda: Event(of_state)),
    "event's reset": ("reset(t, y)", lambda: Event(decay, reset=of_state)),
    "impulse's reset": ("reset(t, y)", lambda: Impulse([0.5], of_state)),
    "event_fn": ("event_fn(t, y)", lambda: adamode.odeint(never, Y, T[:2], event_fn=of_state)),
    "norm": ("norm(y)", lambda: adamode.solve(never, Y, T, norm=decay)),
    "norm of odeint": ("norm(y)", lambda: adamode.odeint(never, Y, T, options={"norm": decay})),
    "norm of the adjoint": (
        "norm(state)",
        lambda: adamode.odeint_adjoint(never, Y, T, adjoint_params=(), adjoint_options={"norm": decay}),
    ),
    "jac": ("jac(t, y)", lambda: adamode.solve(never, Y, T, jac=of_state, **STIFF)),
    "grid_constructor": (
        "grid_constructor(func, y0, t)",
        lambda: adamode.odeint(never, Y, T, method="rk4", options={"grid_constructor": decay}),
    ),
    "callback_step": ("callback_step(t0, y0, dt)", lambda: adamode.odeint(Tells(), Y, T)),
    "callback of sample": ("callback(i, t, y, nfe)", lambda: adamode.sample(never, Y, T, callback=decay)),
    "block": ("field(t, h)", lambda: adamode.AdamNODE(NET)),
    "second-order block": ("field(t, h)", lambda: adamode.SONODE(NET)),
    "own field": ("field(t, h)", lambda: OwnField(NET, 2, 2)),
    "field by autograd": ("field(t, h)", lambda: AutogradField(NET)),
    "log-density": ("field(t, h)", lambda: LogDensity(NET)),
    "auxiliary": ("auxiliary(x)", lambda: Flow(adamode.HBNODE(Module()), auxiliary=decay)),
    "builder": ("build(config)", lambda: made_by(decay, adamode.TrainConfig(), "build")),
    "on_epoch": ("on_epoch(record)", lambda: adamode.Trainer(adamode.TrainConfig(), on_epoch=decay)),
    "encoder": ("encoder(x)", lambda: Model(Module(), ZeroStart(), adamode.NODE(Module()), nn.Identity())),
    "start": ("start(x, o)", lambda: Model(nn.Identity(), NET, adamode.NODE(Module()), nn.Identity())),
    "head": ("head(h)", lambda: Model(nn.Identity(), ZeroStart(), adamode.NODE(Module()), Module())),
    "problem": ("f(t, y)", lambda: Problem("p", of_state, (1.0,), (0.0, 1.0))),
    "problem's solution": ("solution(t)", lambda: Problem("p", decay, (1.0,), (0.0, 1.0), solution=decay)),
    "problem's jacobian": (
        "jacobian(t, y)",
        lambda: Problem("p", decay, (1.0,), (0.0, 1.0), jacobian=of_state),
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_every_place_that_takes_a_callable_refuses_one_of_other_arguments(place):
    call, given = PLACES[place]
    with pytest.raises(ArgumentTypeError) as error:
        given()
    assert f" is called as {call}, but " in str(error.value)


def test_a_builder_by_name_is_named(tmp_path, monkeypatch):
    (tmp_path / "own_builder.py").write_text("def build(features, classes):\n    return None\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentTypeError, match=r"^model='own_builder:build' is called as build\(config\)"):
        built("own_builder:build", adamode.TrainConfig())
