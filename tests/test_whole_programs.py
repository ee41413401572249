"""Native programs of whole solves: when one is built, kept, loaded, held against its function, and given up.

What a program is built of stands here for what is built: its function, or the graph that it is exported as.
"""

from __future__ import annotations

import warnings
import zipfile

import pytest
import torch
from problems import Net, f64
from test_compile_changes import Layer
from torch import nn
from whole_solves import Given, answer, differences

from adamode import AdamodeWarning, Discrete, solve
from adamode.models.dynamics import NeuralODE
from adamode.models.fields import MLP
from adamode.solvers.device import native, natives, packages, programs

pytestmark = pytest.mark.native

T, ENDS = f64(0.0, 0.3, 0.9, 1.5), f64(0.0, 1.5)
OPTIONS = {"method": "bosh3", "rtol": 1e-4, "atol": 1e-5}
STEPPINGS = pytest.mark.parametrize("stepping", ["shared", "per_sample"])
Y = f64(0.5, -1.0, 0.3, 0.2, 1.0, 2.0).view(3, 2)


class Kept:
    """What native.build and native.Native do, with functions in the place of native code.

    built, loaded: names of packages, in order.  as_graph: the function's exported graph is run.
    """

    def __init__(self, monkeypatch, folder):
        self.functions, self.built, self.loaded, self.as_graph = {}, [], [], False
        monkeypatch.setattr(native, "build", self.build)
        monkeypatch.setattr(native, "Native", self.load)
        monkeypatch.setattr(programs, "BACKEND", "eager")
        monkeypatch.setattr(packages, "_SAID", set())
        monkeypatch.setenv("ADAMODE_CACHE", str(folder))

    def build(self, function, owner, arguments, path):
        self.built.append(path.stem)
        path.write_bytes(b"native code")
        self.functions[path.stem] = function
        if self.as_graph:
            graph = native.exported(function, owner, arguments).module()
            self.functions[path.stem] = graph

    def load(self, path):
        self.loaded.append(path.stem)
        function = self.functions[path.stem]
        if self.as_graph:
            return lambda owner, values, *arguments: function(*values, *native._leaves(arguments))
        return natives.plain(function)


@pytest.fixture
def kept(monkeypatch, tmp_path):
    return Kept(monkeypatch, tmp_path / "cache")


def right(func, y0=Y, t=T, **options):
    """The answer with compile=True, held against the eager one; AdamodeWarnings that came."""
    options = {**OPTIONS, **options}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        expected = answer(func, y0, t, **options)
        found = answer(func, y0, t, compile=True, **options)
    for x in (expected, found):
        x.pop("nfe_backward", None)
    wrong = differences(found, expected, 1e-10)
    assert wrong == [], wrong
    return [str(w.message) for w in caught if issubclass(w.category, AdamodeWarning)]


# Kept


@STEPPINGS
def test_two_programs_are_built_for_a_solve_and_its_way_back_and_none_for_another_like_it(kept, stepping):
    func = Layer()
    assert right(func, stepping=stepping) == []
    assert len(kept.built) == 2
    for y0, t, more in ((2 * Y, T, {}), (Y, -2 * T, {"rtol": 1e-6}), (Y, T[:3], {"max_steps": 9999})):
        assert right(func, y0, t, stepping=stepping, **more) == []
    with torch.no_grad():
        func.inner.weight.mul_(1.5)
    assert right(func, stepping=stepping) == []
    assert right(Layer(), stepping=stepping) == []  # another owner that is the same but for its values
    assert len(kept.built) == 2
    assert len(kept.loaded) == 4


MORE = {
    "another dtype": lambda func, y0: (func.float(), y0.float(), {}),
    "another shape": lambda func, y0: (func, y0[:2], {}),
    "another layout": lambda func, y0: (func, y0.t().contiguous().t(), {}),
    "a first step": lambda func, y0: (func, y0, {"dt0": 0.1}),
    "no outputs inside": lambda func, y0: (func, y0, {"t": ENDS}),
    "another method": lambda func, y0: (func, y0, {"method": "dopri5"}),
    "another norm": lambda func, y0: (func, y0, {"norm": "max"}),
    "a tolerance an entry": lambda func, y0: (func, y0, {"rtol": torch.full_like(y0, 1e-4)}),
}


@STEPPINGS
@pytest.mark.parametrize("more", MORE)
def test_what_a_program_is_not_for_has_one_of_its_own(more, kept, stepping):
    func = Layer()
    right(func, stepping=stepping)
    func, y0, options = MORE[more](func, Y)
    bound = {"bound": 1e-3} if y0.dtype == torch.float32 else {}
    t = options.pop("t", T)
    if bound:
        solve(func, y0, t, stepping=stepping, compile=True, **OPTIONS).y.sum().backward()
    else:
        assert right(func, y0, t, stepping=stepping, **options) == []
    assert len(kept.built) == (3 if more == "a tolerance an entry" else 4)


@pytest.mark.slow
def test_tensors_of_the_users_that_are_one_or_expanded_are_inputs_of_one_layout(kept):
    kept.as_graph = True
    func, each = Layer(), torch.tensor([[1e-4], [1e-5], [1e-4]], dtype=torch.float64)
    for dt0 in (0.05, torch.full((3,), 0.05, dtype=torch.float64), torch.linspace(0.1, 0.2, 6).double()[::2]):
        for tolerance in (each, torch.cat((each, each), 1)[:, :1]):
            more = {"rtol": tolerance, "atol": tolerance, "dt0": dt0, "stepping": "per_sample"}
            assert right(func, t=ENDS, **more) == []
    assert len(kept.built) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "y0", "stepping", "t"),
    [
        (Net, Y.t().contiguous(), "shared", T),
        (lambda: NeuralODE(MLP(2, (4,))).double(), Y[None], "per_sample", T),
        (lambda: Given("y"), torch.ones(2, 3).double(), "shared", T),
    ],
)
def test_the_exported_graphs_are_the_functions(make, y0, stepping, t, kept):
    kept.as_graph = True
    torch.manual_seed(0)
    assert right(make(), y0, t, stepping=stepping) == []
    assert len(kept.built) == len(kept.loaded) == 2


@pytest.mark.slow
def test_a_start_that_the_owner_holds_is_told_from_its_value(kept):
    class Learned(Layer):
        """Learns its start, which it does not use in its rate, and one that it does."""

        def __init__(self):
            super().__init__()
            self.start = nn.Parameter(Y.clone())
            self.pull = nn.Parameter(Y[0].clone())

        def forward(self, t, y):
            return super().forward(t, y) - self.pull + 0.1 * self.start

    kept.as_graph = True
    func = Learned()
    for y0 in (func.start, Y, func.start):
        leaves = list(func.parameters())
        sols = [solve(func, y0, T, compile=fast, **OPTIONS) for fast in (True, False)]
        found, expected = (torch.autograd.grad(sol.y.sin().sum(), leaves) for sol in sols)
        assert all(float((x - y).abs().max()) <= 1e-10 for x, y in zip(found, expected, strict=True))
    assert len(kept.built) == 2


# Changes: a program of before is never met


def hooked(func):
    func.inner.register_forward_hook(lambda module, inputs, out: 0.5 * out)


CHANGES = {
    "a hook": hooked,
    "an attribute": lambda func: setattr(func, "factor", 2.0),
    "a layer": lambda func: setattr(func, "inner", nn.Linear(2, 2, bias=False).double()),
    "a mode": lambda func: func.eval(),
    "what is trained": lambda func: func.inner.bias.requires_grad_(False),
    "a parameter": lambda func: func.register_parameter("more", nn.Parameter(f64(0.5))),
}


class Factor(Layer):
    """Reads an attribute and its mode."""

    factor = 1.0

    def forward(self, t, y):
        return super().forward(t, y) * (self.factor if self.training else 3.0)


@STEPPINGS
@pytest.mark.parametrize("change", CHANGES)
def test_after_a_change_a_program_of_before_is_not_met(change, kept, stepping):
    func = Factor()
    right(func, stepping=stepping)
    before = set(kept.loaded)
    CHANGES[change](func)
    kept.loaded.clear()
    right(func, stepping=stepping)
    assert not before & set(kept.loaded)


def test_a_func_that_counts_its_calls_is_told_and_not_built_each_time(kept):
    class Counting(Layer):
        nfe = 0

        def forward(self, t, y):
            self.nfe += 1
            return super().forward(t, y)

    func = Counting()
    for _ in range(2):  # each time compiled anew, one by one
        right(func)
    assert len(kept.built) <= 2


# Given up


def test_what_cannot_be_built_is_said_once_solved_in_the_older_way_and_not_tried_again(kept, monkeypatch):
    def fails(function, owner, arguments, path):
        kept.built.append(path.stem)
        raise RuntimeError("\nno C++ compiler\nanywhere")

    monkeypatch.setattr(native, "build", fails)
    func = Layer()
    (said,) = right(func)
    assert "Layer cannot be made one native program (RuntimeError: no C++ compiler)" in said
    assert right(func) == right(func, 2 * Y) == []
    assert len(kept.built) == 1
    right(func, t=ENDS)  # of another form: tried, and not said again
    assert len(kept.built) == 2


class Branching(Layer):
    """Reads a value, which no graph can."""

    def forward(self, t, y):
        return super().forward(t, y) if float(y.detach().sum()) > -1e9 else y


def test_an_export_that_refuses_is_said(kept):
    kept.as_graph = True
    func = Branching()
    said = right(func)
    assert "Branching cannot be made one native program" in said[0]
    assert right(func) == []
    assert len(kept.built) == 1


class Chance(Layer):
    def forward(self, t, y):
        return super().forward(t, y) * (1 + 0.1 * torch.rand_like(y))


def test_a_program_that_does_another_thing_than_its_function_is_not_used(kept, monkeypatch):
    load = kept.load

    def wrong(path):
        program = load(path)
        return lambda *arguments: [
            x * (1 + 1e-6) if x.is_floating_point() else x for x in program(*arguments)
        ]

    monkeypatch.setattr(native, "Native", wrong)
    func = Layer()
    (said,) = right(func)
    assert "its first step is another than that of func" in said
    assert right(func) == []
    assert len(kept.loaded) == 1
    monkeypatch.setattr(native, "Native", load)
    with pytest.warns(AdamodeWarning, match="which may draw random numbers"):
        solve(Chance(), Y, ENDS, compile=True, gradient=None, **OPTIONS)


def test_a_walk_back_that_does_another_thing_is_not_used(kept, monkeypatch):
    load = kept.load

    def wrong(path):
        program = load(path)
        if path.stem == kept.built[0]:
            return program
        return lambda *arguments: [
            x * (1 + 1e-6) if x.is_floating_point() else x for x in program(*arguments)
        ]

    monkeypatch.setattr(native, "Native", wrong)
    (said,) = right(Layer())
    assert "its first step is another than that of func" in said


@STEPPINGS
def test_a_first_solve_that_is_not_finite_says_nothing_about_the_program(kept, stepping):
    func, bad = Net(), torch.ones(2, 3).double()
    bad[1] = torch.nan
    if stepping == "per_sample":
        assert not any("native" in said for said in right(func, bad, stepping=stepping))
    right(func, torch.ones(2, 3).double(), stepping=stepping)
    assert len(kept.built) == len(kept.loaded) == 2


def test_a_program_that_cannot_be_loaded_is_said(kept, monkeypatch):
    def fails(path):
        raise OSError("undefined symbol")

    monkeypatch.setattr(native, "Native", fails)
    func = Layer()
    (said,) = right(func)
    assert "OSError: undefined symbol" in said
    assert right(func) == []


def test_a_store_that_cannot_be_written_is_said_and_the_older_way_taken(kept, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", full)
    func = Layer()
    said = right(func)
    assert ["No space left" in text for text in said] == [True]
    assert kept.built == []


def test_an_owner_that_cannot_be_compared_is_solved_in_the_older_way(kept, monkeypatch):
    monkeypatch.setattr("adamode.adjoint.engine.whole_when.comparable", lambda owner, entries: None)
    assert right(Layer()) == []
    assert kept.built == []


# Failures


class Parabola(nn.Module):
    """Leaves its domain behind t = 1: the step underflows there."""

    def forward(self, t, y):
        return -2 * torch.sqrt(y)


class Pole(nn.Module):
    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(f64(1.0)[0])

    def forward(self, t, y):
        return self.rate * y * y


@STEPPINGS
@pytest.mark.parametrize("make", [Pole, Parabola])
@pytest.mark.parametrize("gradient", [None, Discrete()], ids=repr)
def test_a_solve_that_fails_tells_what_the_eager_one_tells(make, gradient, stepping, kept):
    y0 = f64(1.0, 0.1, 0.25)
    right(make(), y0, f64(0.0, 0.7, 1.4), stepping=stepping, gradient=gradient, max_steps=300)
    assert kept.loaded


def test_a_sample_that_fails_leaves_the_others_as_they_are(kept):
    y0 = torch.tensor([[1.0, 0.2], [torch.nan, 0.1], [0.1, 0.3]], dtype=torch.float64)
    right(Layer(), y0, stepping="per_sample")
    right(Pole(), f64(1.0, 0.1, 0.25), f64(0.0, 2.0), stepping="per_sample", max_steps=200)


# The package's code


def package(path, *lines):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("model/data/x.wrapper.cpp", "\n".join(lines))
        file.writestr("model/data/x.kernel.cpp", "RAIIAtenTensorHandle(tmp_1) RAIIAtenTensorHandle(tmp_1)")
    return path


FREED = "auto buf_{0} = RAIIAtenTensorHandle(tmp_as_strided_handle_{1});"


def test_a_package_that_frees_a_handle_twice_is_refused(tmp_path):
    once = [FREED.format(i, i) for i in range(3)]
    native._refuse_double_frees(package(tmp_path / "fine.pt2", *once))
    with pytest.raises(RuntimeError, match="frees twice"):
        native._refuse_double_frees(package(tmp_path / "twice.pt2", *once, FREED.format(3, 1)))


def test_a_package_without_source_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "none.pt2", "w") as file:
        file.writestr("model/data/x.so", "code")
    with pytest.raises(RuntimeError, match="no source"):
        native._refuse_double_frees(tmp_path / "none.pt2")
