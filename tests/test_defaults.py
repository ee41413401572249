"""torch's default device and dtype are for what users make: the engine's numbers do not depend on them."""

import ast
import contextlib
from pathlib import Path

import pytest
import torch
from option_bundles import BUNDLES, GRADIENTS, STEPPINGS, TREE, Y, given, outcome
from problems import Net, Tree, f64
from torch.utils._device import _device_constructors

import adamode
from adamode import Discrete, solve
from adamode.solvers.step import clocks

ROOT = Path(__file__).resolve().parent.parent


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("gradient", GRADIENTS, ids=repr)
@pytest.mark.parametrize("name", BUNDLES)
def test_a_default_device_without_numbers_and_a_short_default_dtype_change_no_bit(name, gradient, stepping):
    asked = given(name, stepping, lambda x: x)
    expected = outcome(asked, gradient)
    with default_dtype(torch.float16), torch.device("meta"):
        found = outcome(asked, gradient)
    assert isinstance(found, tuple) == isinstance(expected, tuple), (found, expected)
    if isinstance(expected, tuple):
        assert found == expected
        return
    assert [x.device.type for x in found] == ["cpu"] * len(found)
    assert [x.dtype for x in found] == [x.dtype for x in expected]
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("method", ["dopri5", "rk4"])
@pytest.mark.parametrize("solver", ["odeint", "odeint_adjoint"])
def test_torchdiffeqs_face_does_not_depend_on_the_defaults(solver, method):
    class Pair(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.tree = Tree()

        def forward(self, t, y):
            return tuple(self.tree(t, {"a": y[0], "b": y[1]}).values())

        def callback_step(self, t, y, dt):
            assert t.device.type == dt.device.type == "cpu"

    adaptive = {"jump_t": f64(0.25), "norm": lambda y: float(y[0].detach().abs().max())}
    fixed = {"grid_constructor": lambda f, y, t: [float(t[0]), 0.1, 0.3, float(t[-1])]}
    more = {"method": method, "options": adaptive if method == "dopri5" else fixed}
    if solver == "odeint_adjoint":
        norm = {"norm": lambda state: float(max(x.abs().max() for x in state))}
        more["adjoint_options"] = norm if method == "dopri5" else {"step_size": 0.1}
    pair, found = Pair(), []
    t = f64(0.0, 0.2, 0.5).requires_grad_()
    y0 = tuple(x.clone().requires_grad_() for x in TREE.values())
    for place in (contextlib.nullcontext(), torch.device("meta")):
        with place, default_dtype(torch.float16 if found else torch.float32):
            y = getattr(adamode, solver)(pair, y0, t, rtol=1e-3, atol=1e-4, **more)
            grads = torch.autograd.grad(sum(x.sum() for x in y), (*y0, t, *pair.parameters()))
        found.append([*y, *grads])
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("what", ["y0", "t", "rtol"])
@pytest.mark.parametrize("stepping", STEPPINGS)
def test_what_lies_on_the_meta_device_is_refused_by_name(what, stepping):
    given = {"y0": Y, "t": f64(0.0, 1.0), "rtol": f64(1e-3)[0]}
    given[what] = given[what].to("meta")
    with pytest.raises(adamode.ArgumentError, match=f"{what} is on the meta device, which holds no numbers"):
        solve(lambda t, y: -y, given["y0"], given["t"], rtol=given["rtol"], stepping=stepping)


def test_a_model_is_made_where_torchs_layers_are_made():
    """The one place where the defaults are asked for: parameters, as torch.nn's."""
    with default_dtype(torch.float64), torch.device("meta"):
        model = adamode.models.create("adamnode", task="digits")
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert {p.dtype for p in model.parameters()} == {torch.float64}


MAKERS = {function.__name__ for function in _device_constructors()}


def silent_makers(tree):
    """Calls that make a tensor without a word on its device or dtype: (line, what is missing, the call).

    What stands inside ``nn.Parameter(…)`` follows the defaults, as torch's layers do.
    """
    parameters = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "Parameter"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or id(node) in parameters:
            continue
        torchs = isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") == "torch"
        if not torchs or node.func.attr not in {*MAKERS, "Tensor", "FloatTensor", "from_numpy"}:
            continue
        missing = {"device", "dtype"} - {keyword.arg for keyword in node.keywords}
        if missing:
            yield node.lineno, sorted(missing), ast.unparse(node)


def test_every_tensor_that_the_engine_makes_says_its_device_and_dtype():
    offenders = [
        (str(path.relative_to(ROOT)), *found)
        for layer in ("solvers", "adjoint", "models")
        for path in sorted((ROOT / layer).rglob("*.py"))
        for found in silent_makers(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert offenders == []


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("torch.zeros(3)", ["device", "dtype"]),
        ("torch.tensor([t0, t1], dtype=torch.float64)", ["device"]),
        ("torch.as_tensor(x, device=z.device)", ["dtype"]),
        ("f(torch.arange(n, device=z.device))", ["dtype"]),
        ("torch.full((), x, dtype=z.dtype, device=z.device)", None),
        ("nn.Parameter(0.1 * torch.randn(3))", None),
        ("torch.zeros_like(z)", None),
    ],
)
def test_a_silent_maker_is_seen(line, missing):
    assert [found[1] for found in silent_makers(ast.parse(line))] == ([missing] if missing else [])


def test_a_tensor_made_at_the_default_inside_a_step_would_be_found(monkeypatch):
    """A planted fault: the tolerance as a tensor that torch makes by default."""
    scale, t = clocks.Tolerance.scale, f64(0.0, 1.0)
    monkeypatch.setattr(clocks.Tolerance, "scale", lambda self, *states: scale(self, *states) * torch.ones(1))
    solve(Net(), Y, t, gradient=Discrete())
    net = Net()
    with torch.device("meta"), pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        solve(net, Y, t, gradient=Discrete())
