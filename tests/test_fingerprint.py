"""A program's key: another after any change that the program could tell, the same in every process."""

import dataclasses
import enum
import functools
import gc
import json
import logging
import os
import random
import struct
import subprocess
import sys
import textwrap
import threading
import time
import types
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations

from adamode.models.dynamics import NODE
from adamode.models.dynamics.adamnode import AdamODE
from adamode.models.fields import MLP, Conv
from adamode.solvers.device.fingerprint import fingerprint, stable_key
from adamode.solvers.device.plain import Incomparable, described, digest
from adamode.solvers.device.surroundings import machine
from adamode.solvers.device.surroundings import settings as torch_settings
from adamode.solvers.device.walk import Walk
from adamode.solvers.device.watch import Watch

DYNAMICS = ("theta", "forward", "vjp", "parameter_gradients", "value")

GAIN = 2.0
TABLE = {"a": [1, 2], "b": (0.5,)}
helpers = types.ModuleType("helpers")
exec("OFFSET = 1.0\ndef shift(x):\n    return x + OFFSET\n", helpers.__dict__)
sys.modules["helpers"] = helpers


def helper(x, *, power=1, scale=1.0, tilt=0.0):
    return x * GAIN * scale**power + tilt


def maker(factor):
    def scaled(x):
        return x * factor

    return scaled


closed = maker(3.0)


class Kind(enum.Enum):
    ONE = 1
    TWO = 2


@dataclasses.dataclass(frozen=True)
class Frozen:
    width: int
    names: tuple = ("a",)


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    width: int


class Scale:
    """An object of the user's, with a method."""

    def __init__(self, by):
        self.by = by

    def __call__(self, x):
        return x * self.by


class Layer(nn.Module):
    order = 1

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.outer = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
        self.register_buffer("mean", torch.zeros(2))
        self.c, self.sizes, self.config = 1.0, [2, 3], {"act": "tanh", "deep": [1, {"x": 2}]}
        self.kind, self.frozen, self.scale = Kind.ONE, Frozen(2), Scale(2.0)
        self.slotted, self.acts = Slotted(1), (torch.tanh, helper)
        self.partial = functools.partial(helper, power=2)
        self.never_read = threading.Lock()

    @property
    def twice(self):
        return 2 * self.c

    @staticmethod
    def half(x):
        return x / 2

    @classmethod
    def of_class(cls, x):
        return x * cls.order

    def plot(self):
        """Nothing that forward calls."""
        return TABLE["a"]

    def forward(self, t, y):
        y = helper(self.inner(y)) * self.twice + self.half(self.outer(y - self.mean))
        y = helpers.shift(closed(self.scale(self.of_class(y)))) * TABLE["b"][0]
        for act in self.acts:
            y = act(y)
        return self.partial(y) * self.frozen.width * len(self.sizes) * self.kind.value * self.slotted.width


def look(func, entries=("forward",)):
    """The digest of a walk of now, whatever is known."""
    return digest(Walk(func, entries, Watch()).facts())


def seen(func, entries=("forward",)):
    """The digest that is known, or why there is none."""
    try:
        return fingerprint(func, entries)
    except Incomparable as refused:
        return refused.reason


def setting(name, value, of=None):
    return lambda func, patch: patch.setattr(func if of is None else of(func), name, value)


def twice_as_much(self):
    return 4 * self.c


def other_forward(self, t, y):
    return self.inner(y)


def cell_of(function):
    return function.__closure__[0]


def this(func):
    return sys.modules[__name__]


CHANGES = {
    "an attribute": setting("c", 1.5),
    "an attribute of another type": setting("c", 1),
    "a nan": setting("c", float("nan")),
    "a new attribute": lambda func, patch: patch.setattr(func, "fresh", 1, raising=False),
    "an attribute less": lambda func, patch: patch.delattr(func, "c"),
    "a list": lambda func, patch: func.sizes.append(4),
    "a dict": lambda func, patch: patch.setitem(func.config, "act", "relu"),
    "a list in a dict": lambda func, patch: func.config["deep"].insert(0, 7),
    "a dict in a list in a dict": lambda func, patch: patch.setitem(func.config["deep"][-1], "x", 3),
    "an enum": setting("kind", Kind.TWO),
    "a frozen dataclass": setting("frozen", Frozen(3)),
    "a frozen dataclass with slots": setting("slotted", Slotted(3)),
    "an object": setting("scale", Scale(3.0)),
    "an object's attribute": setting("by", 5.0, lambda func: func.scale),
    "an object's class": setting("__call__", lambda self, x: x, lambda func: Scale),
    "a tuple of functions": setting("acts", (torch.tanh,)),
    "a partial": setting("partial", functools.partial(helper, power=3)),
    "a partial's keyword": lambda func, patch: patch.setitem(func.partial.keywords, "power", 4),
    "training": lambda func, patch: func.eval(),
    "training of a part": lambda func, patch: func.outer.eval(),
    "requires_grad": lambda func, patch: func.inner.weight.requires_grad_(False),
    "a parameter of another shape": setting("weight", nn.Parameter(torch.zeros(2, 5)), lambda f: f.inner),
    "a parameter's layout": lambda func, patch: setattr(func.inner.weight, "data", torch.zeros(2, 2).t()),
    "a dtype": lambda func, patch: func.double(),
    "a buffer": setting("mean", torch.zeros(1)),
    "a shared parameter": lambda func, patch: setattr(func.outer[0], "weight", func.inner.weight),
    "a part": setting("inner", nn.Linear(2, 2, bias=False)),
    "a part of another type": lambda func, patch: func.outer.__setitem__(1, nn.ReLU()),
    "a part more": lambda func, patch: func.outer.append(nn.Tanh()),
    "a hook": lambda func, patch: func.register_forward_hook(lambda m, i, o: o),
    "a hook before": lambda func, patch: func.inner.register_forward_pre_hook(lambda m, i: i),
    "a hook of the way back": lambda func, patch: func.inner.register_full_backward_hook(lambda m, i, o: i),
    "a constant": setting("GAIN", 3.0, this),
    "a global tuple in a dict": lambda func, patch: patch.setitem(TABLE, "b", (0.25,)),
    "a global list in a dict": lambda func, patch: patch.setitem(TABLE, "a", [1]),
    "a helper": setting("helper", lambda x, **_: x, this),
    "a helper's code": lambda func, patch: patch.setattr(helper, "__code__", (lambda x, **_: x).__code__),
    "a helper's default": lambda func, patch: patch.setitem(helper.__kwdefaults__, "scale", 2.0),
    "another module's helper": setting("shift", lambda x: x - 1, lambda func: helpers),
    "another module's constant": setting("OFFSET", 2.0, lambda func: helpers),
    "what a function closed over": lambda func, patch: patch.setattr(cell_of(closed), "cell_contents", 4.0),
    "a method of the class": setting("forward", other_forward, type),
    "a method of the object": lambda func, patch: patch.setattr(
        func, "forward", types.MethodType(other_forward, func), raising=False
    ),
    "a property": setting("twice", property(twice_as_much), type),
    "a static method": setting("half", staticmethod(lambda x: x), type),
    "a class method": setting("of_class", classmethod(lambda cls, x: x), type),
    "an attribute of the class": setting("order", 2, type),
    "a method of a part's class": lambda func, patch: patch.setattr(nn.Linear, "forward", lambda self, x: x),
    "a builtin that is shadowed": lambda func, patch: patch.setattr(this(func), "len", max, raising=False),
    "a base": setting("__class__", type("Other", (Layer,), {}), None),
}


@pytest.fixture
def fresh():
    """The globals as they are, after a test that changes what they hold."""
    yield
    TABLE.clear()
    TABLE.update({"a": [1, 2], "b": (0.5,)})


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen_in_this_process_and_gone_when_it_is_taken_back(change, monkeypatch, fresh):
    func = Layer()
    before = seen(func)
    assert before == seen(func) == look(func)
    with monkeypatch.context() as patch:
        CHANGES[change](func, patch)
        after = seen(func)
        unread = change == "a global list in a dict"  # TABLE["a"] is of the same dict
        assert after != before, unread
        assert after == seen(func)
    if change in (
        "a constant",
        "a helper",
        "a property",
        "a method of the class",
        "an attribute of the class",
    ):
        assert seen(func) == before


@settings(max_examples=60)
@given(order=st.lists(st.sampled_from(sorted(CHANGES)), max_size=6))
def test_what_is_known_is_what_a_new_walk_finds_after_any_changes(order):
    func = Layer()
    with pytest.MonkeyPatch.context() as patch:
        for change in order:
            seen(func)
            try:
                CHANGES[change](func, patch)
            except (AttributeError, KeyError, TypeError, IndexError):
                continue  # it does not fit what an earlier one has left
            try:
                expected = look(func)
            except Incomparable as refused:
                expected = refused.reason
            assert seen(func) == expected
    TABLE.clear()
    TABLE.update({"a": [1, 2], "b": (0.5,)})


def test_values_of_parameters_and_buffers_do_not_count():
    func = Layer()
    before = seen(func)
    with torch.no_grad():
        func.inner.weight.mul_(2)
        func.mean.add_(1)
    func.inner.weight = nn.Parameter(torch.ones(2, 2))
    func.load_state_dict(Layer().state_dict())
    assert seen(func) == before == seen(Layer())


def test_what_no_method_in_reach_reads_does_not_count(monkeypatch):
    func = Layer()
    before = seen(func)
    monkeypatch.setattr(Layer, "plot", lambda self: 3)
    func.never_read = open
    assert seen(func) == before


def returning(value):
    return lambda: value


def test_a_known_fingerprint_keeps_nothing_alive():
    func = Layer()
    func.own, func.holder = func.forward, [func.twice, returning(func)]
    for entries in ("forward",), ("forward", "plot"):
        seen(func, entries)
    parameter, part = weakref.ref(func.inner.weight), weakref.ref(func.inner)
    func.inner = nn.Linear(2, 2)
    assert parameter() is None
    assert part() is None
    func.own = func.holder = None
    gc.disable()
    try:
        gone = weakref.ref(func)
        del func
        assert gone() is None
    finally:
        gc.enable()


def test_another_object_at_the_same_address_is_seen():
    func = Layer()
    for by in range(20):
        before = seen(func)
        del func.scale, func.frozen, func.slotted, func.config
        func.scale, func.frozen, func.slotted = Scale(float(by)), Frozen(by), Slotted(by)
        func.config = {"act": by}
        assert seen(func) != before
        assert seen(func) == look(func)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.sampled_from([0.0, -0.0, 1.0, float("nan"), float("inf"), 0j, -0j])
    | st.sampled_from(["a", "b", b"a", torch.float32, torch.device("cpu"), torch.Size([1]), ...]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.lists(inner, max_size=2).map(tuple)
        | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2)
        | st.frozensets(st.integers(0, 3), max_size=2)
    ),
    max_leaves=4,
)


def alike(a, b):
    """Whether no code could tell one from the other."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b)
    if isinstance(a, complex):
        return alike(a.real, b.real) and alike(a.imag, b.imag)
    if isinstance(a, dict):
        return len(a) == len(b) and all(map(alike, a.items(), b.items()))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(alike, a, b))
    return a == b


@given(a=PLAIN, b=PLAIN)
def test_plain_values_have_one_description_exactly_where_they_are_alike(a, b):
    assert (described(a) == described(b)) == alike(a, b)
    assert (digest(a) == digest(b)) == alike(a, b)


@settings(max_examples=40)
@given(a=PLAIN, b=PLAIN)
def test_an_attribute_counts_exactly_where_it_is_another(a, b):
    class Holder(nn.Module):
        def forward(self, t, y):
            return y

    func = Holder()
    func.value = a
    before = seen(func)
    func.value = b
    assert (seen(func) == before) == alike(a, b)


# -- what cannot be compared ------------------------------------------------------------------------------

OUTSIDE = torch.zeros(2)
LOG = logging.getLogger("mine")
NUMBERS = iter(range(3))
RNG = np.random.default_rng(0)
CALLS = []
COUNT = 0


def count():
    global COUNT
    COUNT += 1


def counter():
    n = 0

    def count_up():
        nonlocal n
        n += 1
        return n

    return count_up


count_up = counter()


class Bare(nn.Module):
    def __init__(self, **attributes):
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, t, y):
        return self.use(y)


def method(use, **attributes):
    """A module whose forward does that."""
    return type("Made", (Bare,), {"use": use})(**attributes)


class Later(Bare):
    def __init__(self):
        super().__init__()
        self.w = nn.UninitializedParameter()

    def use(self, y):
        return y * self.w


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.nfe = 0

    def forward(self, t, y):
        self.nfe += 1
        return y


class Stores(nn.Module):
    def __init__(self):
        super().__init__()
        self.counts = [0]

    def forward(self, t, y):
        self.counts[0] += 1
        return y


@pytest.mark.parametrize(
    ("func", "reason"),
    [
        (method(lambda self, y: y * OUTSIDE), "OUTSIDE .* is a tensor"),
        (method(lambda self, y: y * self.w, w=torch.ones(2)), "func.w is a tensor"),
        (method(lambda self, y: self.parts[0](y), parts=[nn.Linear(2, 2)]), "not registered"),
        (method(lambda self, y: y * next(NUMBERS)), "NUMBERS"),
        (method(lambda self, y: LOG.info("x") or y), "LOG|is a "),
        (method(lambda self, y: y * self.lock, lock=threading.Lock()), "func.lock is a lock"),
        (method(lambda self, y: y * random.random()), "random"),
        (method(lambda self, y: y * np.random.rand()), "numpy uses|uses numpy"),
        (method(lambda self, y: y * RNG.normal()), "RNG .* is a Generator"),
        (method(lambda self, y: y * time.time()), "time"),
        (method(lambda self, y: self.part(y), part=torch.compile(nn.Linear(2, 2))), "func.part is compiled"),
        (method(lambda self, y: y * len(os.environ)), "os"),
        (method(lambda self, y: print(y) or y), "print"),
        (method(lambda self, y: eval("y")), "eval"),
        (method(lambda self, y: CALLS.append(1) or y), "writes CALLS"),
        (method(lambda self, y: self.calls.append(1) or y, calls=[]), "writes calls"),
        (method(lambda self, y: count() or y), "writes COUNT"),
        (method(lambda self, y: y * count_up()), "writes n"),
        (Counts(), "writes nfe"),
        (Stores(), "could be func.counts"),
        (lambda t, y: y, "no nn.Module"),
        (nn.LazyLinear(2), "hooks"),
        (Later(), "func.w is no plain tensor"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(func, reason):
    for _ in range(2):  # found, and known
        with pytest.raises(Incomparable, match=reason):
            fingerprint(func, ("forward",))


class Doubled:
    def __init__(self, by):
        self.by = by

    def times(self, x):
        return x * self.by * GAIN


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * GAIN

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent * GAIN


@functools.lru_cache
def remembered(n):
    return n * GAIN


def decorated(function):
    @functools.wraps(function)
    def inner(*args):
        return function(*args) * 2

    return inner


wrapped = decorated(lambda x: x * GAIN)
BY_NAME = {"mine": lambda x: x * GAIN}


def imports(self, y):
    from helpers import shift

    return shift(y)


class Dynamic(Bare):
    def __getattr__(self, name):
        return GAIN if name == "gain" else super().__getattr__(name)

    def use(self, y):
        return y * self.gain


class Derived(nn.Linear):
    def forward(self, t, y):
        return nn.functional.relu(nn.functional.linear(y, self.weight, self.bias)) * GAIN


def init_thrice(self, by):
    self.by = 3 * by


def by_init(patch):
    patch.setattr(Doubled, "__init__", init_thrice)


def by_offset(patch):
    patch.setattr(helpers, "OFFSET", 5.0)


def by_gain(patch):
    patch.setitem(globals(), "GAIN", 5.0)


@pytest.mark.parametrize(
    ("func", "change"),
    [
        (method(lambda self, y: Doubled(2).times(y)), by_gain),
        (method(lambda self, y: Doubled(2).times(y)), by_init),
        (method(lambda self, y: Scaled.apply(y)), by_gain),
        (
            method(lambda self, y: Scaled.apply(y)),
            lambda p: p.setattr(Scaled, "backward", staticmethod(lambda c, a: a)),
        ),
        (method(lambda self, y: y * remembered(3)), by_gain),
        (method(lambda self, y: wrapped(y)), by_gain),
        (method(lambda self, y: BY_NAME[self.act](y), act="mine"), by_gain),
        (method(lambda self, y: getattr(helpers, self.act)(y), act="shift"), by_offset),
        (method(imports), by_offset),
        (Dynamic(), by_gain),
        (Derived(2, 2), by_gain),
        (Derived(2, 2), lambda p: p.setattr(nn.functional, "relu", lambda x: x)),
        (method(lambda self, y: sum(x * GAIN for x in y)), by_gain),
        (method(lambda self, y: (lambda x: x * GAIN)(y)), by_gain),
        (method(lambda self, y: y * self.s, s=np.float64(2.0)), None),
    ],
)
def test_a_change_behind_several_doors_is_seen(func, change):
    before = seen(func)
    assert len(before) == 64, before
    with pytest.MonkeyPatch.context() as patch:
        if change is None:
            func.s = np.float64(3.0)
        else:
            change(patch)
        assert seen(func) != before
        assert seen(func) == look(func)
        assert len(seen(func)) == 64


# Where a Python keeps the names that arguments are given by: a constant before the call (3.10), in an
# instruction of its own (3.11, 3.12), a constant again (3.13); a constant that a dict is made with (all).
NAMED = {
    "a call": "helper(y, {name}=2)",
    "with a place too": "helper(y, scale=1.5, {name}=2)",
    "a call in an argument": "helper(helper(y, {name}=2), scale=0.5)",
    "a method": "self.own(y, {name}=2)",
    "of another function's result": "(lambda: helper)()(y, {name}=2)",
    "a function inside": "(lambda y: helper(y, {name}=2))(y)",
    "a comprehension": "sum(helper(x, {name}=2) for x in y)",
    "after a list": "helper(*(y,), {name}=2)",
    "in a dict": "helper(y, **{{'{name}': 2}})",
    "beside a dict": "helper(y, {name}=2, **{{}})",
    "a partial": "functools.partial(helper, {name}=2)(y)",
    "behind a condition": "y if y is None else helper(y, {name}=2)",
}


class Named(Bare):
    def own(self, y, *, power=1, tilt=1):
        return helper(y, power=power, scale=tilt)


@pytest.mark.parametrize("form", NAMED)
def test_the_names_of_arguments_in_a_call_count(form):
    def key(name):
        use = eval(f"lambda self, y: {NAMED[form].format(name=name)}", globals())
        return look(type("Made", (Named,), {"use": use})())

    first, other = ("power", "tilt")
    assert len(key(first)) == len(key(other)) == 64, key(first)
    assert key(first) == key(first) != key(other)


def test_the_order_of_named_arguments_counts_with_their_values():
    keys = {
        look(method(lambda self, y: helper(y, power=2, scale=3.0))),
        look(method(lambda self, y: helper(y, power=3.0, scale=2))),
        look(method(lambda self, y: helper(y, scale=2, power=3.0))),
    }
    assert len(keys) == 3


def test_the_namespace_of_a_page_that_is_run_is_let_go():
    page = {"torch": torch, "nn": nn, "__name__": "page"}
    exec("class L(nn.Module):\n    def forward(self, t, y):\n        return y * K\nK = 2.0\nfunc = L()", page)
    assert len(seen(page["func"])) == 64
    gone = weakref.ref(page["func"])
    gc.disable()
    try:
        del page["func"]
        assert gone() is None
    finally:
        gc.enable()


def test_sets_of_functions_are_refused():
    func = method(lambda self, y: y, acts={torch.tanh, helper}, more=1)
    assert len(seen(func)) == 64  # nobody reads them
    func = method(lambda self, y: [act(y) for act in self.acts], acts={torch.tanh, helper})
    assert "function" in seen(func)


def test_a_refusal_ends_with_its_reason():
    func = method(lambda self, y: y * self.w, w=threading.Lock())
    assert "lock" in seen(func)
    func.w = 2.0
    assert seen(func) == look(func)


def test_a_parameter_that_gets_its_shape_later_is_seen():
    func = Later()
    assert "no plain tensor" in seen(func)
    func.w.materialize((2,))
    assert seen(func) == look(func)


def test_hooks_of_all_modules_are_refused():
    handle = nn.modules.module.register_module_forward_hook(lambda module, inputs, out: out)
    try:
        with pytest.raises(Incomparable, match="all modules"):
            torch_settings()
    finally:
        handle.remove()


def test_values_that_hold_themselves_are_refused():
    func = Layer()
    func.sizes.append(func.sizes)
    with pytest.raises(Incomparable, match="hold themselves"):
        fingerprint(func, ("forward",))


# -- adamode's own, and torch's ---------------------------------------------------------------------------


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin, self.c = nn.Linear(2, 2), 1.0

    def forward(self, t, h):
        return self.lin(h) * self.c


@pytest.mark.parametrize("make", [lambda: MLP(2), lambda: Conv(2, 3), Own])
def test_a_model_and_its_field_count(make):
    def dynamics(**options):
        return AdamODE(make(), alpha=0.1, beta=0.1, **{"eps": 1e-3, **options})

    before = seen(dynamics(), DYNAMICS)
    assert before == seen(dynamics(), DYNAMICS)
    assert before != seen(dynamics(eps=2e-3), DYNAMICS)
    assert before != seen(dynamics(denominator="softplus"), DYNAMICS)
    assert before != seen(dynamics(learnable=False), DYNAMICS)
    assert len(before) == 64


def test_a_users_field_in_a_model_of_ours_counts(monkeypatch):
    func = NODE(Own()).dynamics
    before = seen(func, DYNAMICS)
    monkeypatch.setattr(Own, "forward", lambda self, t, h: h)
    after = seen(func, DYNAMICS)
    assert after != before
    func.field.func.c = 2.0
    assert seen(func, DYNAMICS) != after


def test_a_method_of_ours_that_a_user_has_replaced_counts(monkeypatch):
    func = AdamODE(MLP(2), alpha=0.1, beta=0.1, eps=1e-3)
    before = seen(func, DYNAMICS)
    monkeypatch.setattr(AdamODE, "vjp", lambda self, saved, cotangent: (cotangent, None))
    assert seen(func, DYNAMICS) != before


def test_a_parametrized_module_has_a_fingerprint():
    class Normed(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.lin = parametrizations.weight_norm(nn.Linear(2, 2), dim=dim)

        def forward(self, t, y):
            return self.lin(y)

    assert seen(Normed(0)) == seen(Normed(0)) != seen(Normed(1))
    assert len(seen(Normed(0))) == 64


def test_a_method_without_grad_has_a_fingerprint_that_sees_what_is_in_it():
    class Quiet(Own):
        def forward(self, t, h):
            return h * self.value()

        @torch.no_grad()
        def value(self):
            return GAIN

    func = Quiet()
    before = seen(func)
    assert len(before) == 64
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "GAIN", 7.0)
        assert seen(func) != before


@pytest.mark.parametrize(
    ("change", "back"),
    [
        (lambda: torch.set_default_dtype(torch.float64), lambda: torch.set_default_dtype(torch.float32)),
        (lambda: torch.set_num_threads(2), lambda: torch.set_num_threads(1)),
        (
            lambda: torch.use_deterministic_algorithms(True),
            lambda: torch.use_deterministic_algorithms(False),
        ),
        (
            lambda: torch.set_float32_matmul_precision("medium"),
            lambda: torch.set_float32_matmul_precision("highest"),
        ),
        (lambda: torch.set_default_device("meta"), lambda: torch.set_default_device(None)),
    ],
    ids=["dtype", "threads", "deterministic", "matmul", "device"],
)
def test_how_torch_is_set_is_a_part_of_the_key(change, back):
    func = Layer()
    before = stable_key(func, ("forward",))
    change()
    try:
        assert stable_key(func, ("forward",)) != before
    finally:
        back()
    assert stable_key(func, ("forward",)) == before
    assert stable_key(func, ("forward",), "dopri5", (3, 2), torch.float64) != before


def test_autocast_is_a_part_of_the_key():
    func = Layer()
    before = stable_key(func, ("forward",))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert stable_key(func, ("forward",)) != before
    assert stable_key(func, ("forward",)) == before


# -- across processes -------------------------------------------------------------------------------------

MODEL = """
    import math

    import torch
    from torch import nn

    import beside

    RATE = 0.5
    NAMES = {"sin", "cos", "tanh"}


    def act(x, name):
        \"\"\"An activation.\"\"\"
        return getattr(torch, name)(x) if name in {"sin", "cos", "tanh"} else x  # a comment


    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(2, 2)
            self.name, self.names = "tanh", {"b", "a", "c"}

        @property
        def rate(self):
            return RATE * math.pi

        def forward(self, t, y):
            scaled = lambda x: x * self.rate + 1
            return beside.shift(act(self.first(y), self.name)) * scaled(t) * (self.name in NAMES)

        def show(self):
            print("a picture")
"""
BESIDE = """
    OFFSET = 1.0


    def shift(x):
        return x + OFFSET
"""
EDITS = {
    "a comment": ("model", "# a comment", "# another"),
    "a docstring": ("model", "An activation.", "The activation.\n\n        Said at length."),
    "an empty line": ("model", "RATE = 0.5\n", "RATE = 0.5\n\n\n\n"),
    "a method that is not called": ("model", "a picture", "a plot"),
    "a constant": ("model", "RATE = 0.5", "RATE = 0.25"),
    "a helper": ("model", "else x ", "else -x "),
    "a set of names": ("model", '{"sin", "cos", "tanh"}\n\n', '{"sin", "cos", "relu"}\n\n'),
    "a set in a condition": ("model", 'in {"sin", "cos", "tanh"} else', 'in {"sin", "cos"} else'),
    "a nested function": ("model", "self.rate + 1", "self.rate + 2"),
    "an attribute": ("model", 'self.name, self.names = "tanh"', 'self.name, self.names = "sin"'),
    "a property": ("model", "RATE * math.pi", "RATE / math.pi"),
    "another file's helper": ("beside", "x + OFFSET", "x - OFFSET"),
    "another file's constant": ("beside", "OFFSET = 1.0", "OFFSET = 1"),
    "a layer": ("model", "nn.Linear(2, 2)", "nn.Linear(2, 2, bias=False)"),
}
ALIKE = ("a comment", "a docstring", "an empty line", "a method that is not called")
KEYS = """
import importlib, json, sys
from adamode.solvers.device.fingerprint import stable_key

found = {}
for folder in sys.argv[1:]:
    for name in ("model", "beside"):
        sys.modules.pop(name, None)
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    found[folder] = stable_key(importlib.import_module("model").Model(), ("forward",), "dopri5")
    sys.path.remove(folder)
print(json.dumps(found))
"""


def keys(folders, seed):
    """The key of the model in each folder, by a process of its own."""
    process = subprocess.run(
        [sys.executable, "-c", KEYS, *map(str, folders)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert process.returncode == 0, process.stderr
    return list(json.loads(process.stdout).values())


@pytest.fixture(scope="module")
def keys_of_edits(tmp_path_factory):
    """(the model's key in one process, in another, {edit: the key after it})."""
    folders = {}
    for edit, (file, old, new) in {"none": ("model", "", ""), **EDITS}.items():
        folder = folders[edit] = tmp_path_factory.mktemp("edit")
        for name, text in {"model": MODEL, "beside": BESIDE}.items():
            text = textwrap.dedent(text)
            assert name != file or old in text, edit
            edited = text.replace(old, new, 1) if name == file else text
            (folder / f"{name}.py").write_text(edited)
    (first,) = keys([folders["none"]], "1")
    second, *others = keys(folders.values(), "2")
    return first, second, dict(zip(EDITS, others, strict=True))


def test_the_key_is_the_same_in_another_process(keys_of_edits):
    first, second, _ = keys_of_edits
    assert first == second


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_between_two_processes_counts_where_the_program_could_tell(edit, keys_of_edits):
    first, _, others = keys_of_edits
    assert (others[edit] == first) == (edit in ALIKE)


def test_the_machine_is_told_once_and_by_one_digest():
    assert machine() is machine()
    assert len(machine()) == 64
