"""Every option of `solve`, the models and torchdiffeq's face on a device: the CPU's numbers."""

import pytest
import torch
from option_bundles import BUNDLES, GRADIENTS, STEPPINGS, TREE, given, outcome
from problems import Net, Tree, f64, worst

import adamode
from adamode import Direct, Discrete
from adamode.models.fields import MLP


def assert_alike(found, expected, rounding):
    """The same shapes, the same places without a value, the same numbers to rounding."""
    assert [x.shape for x in found] == [x.shape for x in expected]
    assert [torch.isnan(x).tolist() for x in found] == [torch.isnan(x).tolist() for x in expected]
    full = [
        (torch.nan_to_num(a), torch.nan_to_num(b)) for a, b in zip(found, expected, strict=True) if a.numel()
    ]
    assert worst(*zip(*full, strict=True)) <= rounding


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("gradient", GRADIENTS, ids=repr)
@pytest.mark.parametrize("name", BUNDLES)
def test_every_option_gives_the_cpus_numbers(elsewhere, name, gradient, stepping):
    expected = outcome(given(name, stepping, lambda x: x), gradient)
    t_there = GRADIENTS.index(gradient) % 2 == 0  # else the times stay on the host
    asked = given(name, stepping, elsewhere.there, t_there=t_there)
    with elsewhere.waits() as waited:
        found = outcome(asked, gradient)
    if isinstance(expected, tuple):
        assert found == expected  # what fails, fails alike
        return
    assert not isinstance(found, tuple), found
    assert_alike(elsewhere.here(found), expected, elsewhere.rounding)
    if t_there:  # else the cotangents of the events' times come from the host
        uploads = {kind for kind in waited if kind.startswith("upload")}
        assert uploads <= {"upload: tensor"}, waited  # the times that the test asks for


@pytest.mark.parametrize("gradient", [Discrete(), adamode.Backsolve(), Direct()], ids=repr)
@pytest.mark.parametrize(
    "kind",
    [
        "NODE",
        "ANODE",
        "SONODE",
        "HBNODE",
        "GHBNODE",
        "AdamNODE",
        "NesterovNODE",
        "GNesterovNODE",
        "MomentumNODE",
    ],
)
def test_a_models_block_gives_the_cpus_numbers(elsewhere, kind, gradient):
    h0, found = f64(0.3, -0.2, 0.5, 0.1).view(2, 2), []
    for there in (lambda x: x, elsewhere.there):
        torch.manual_seed(0)
        # SONODE's field sees [h, v], ANODE's the zeros that it appends
        field = MLP(
            4 if kind == "SONODE" else 3 if kind == "ANODE" else 2, (4,), out_dim=2 + (kind == "ANODE")
        )
        more = {"augment": 1} if kind == "ANODE" else {}
        block = getattr(adamode, kind)(field, gradient=gradient, rtol=1e-3, **more).double()
        block, h = there(block), there(h0.clone().requires_grad_())
        found.append([block(h), *torch.autograd.grad(block(h).sum(), (h, *block.parameters()))])
    assert_alike(elsewhere.here(found[1]), [x.detach() for x in found[0]], 10 * elsewhere.rounding)


@pytest.mark.parametrize("solver", ["odeint", "odeint_adjoint"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"method": "dopri8", "options": {"jump_t": f64(0.25), "first_step": 0.1}},
        {"method": "rk4", "options": {"step_size": 0.1, "interp": "cubic", "perturb": True}},
        {"options": {"norm": lambda y: float(y[0].detach().abs().max())}},
        {"rtol": (1e-4, 1e-3)},
    ],
    ids=["plain", "jump_t", "rk4", "norm", "rtol"],
)
def test_torchdiffeqs_face_gives_the_cpus_numbers(elsewhere, solver, more):
    class Pair(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.tree = Tree()

        def forward(self, t, y):
            return tuple(self.tree(t, {"a": y[0], "b": y[1]}).values())

    found = []
    for there in (lambda x: x, elsewhere.there):
        func, y0 = there(Pair()), there(tuple(x.clone().requires_grad_() for x in TREE.values()))
        t = there(f64(0.0, 0.2, 0.5).requires_grad_())
        options = {"rtol": 1e-3, "atol": 1e-4, **more}
        y = getattr(adamode, solver)(func, y0, t, **options)
        grads = torch.autograd.grad(sum(x.sum() for x in y), (*y0, t, *func.parameters()))
        found.append([*y, *grads])
    assert_alike(elsewhere.here(found[1]), [x.detach() for x in found[0]], 10 * elsewhere.rounding)


@pytest.mark.parametrize("interface", ["odeint", "odeint_adjoint"])
def test_an_event_of_torchdiffeqs_face_gives_the_cpus_numbers(elsewhere, interface):
    found = []
    for there in (lambda x: x, elsewhere.there):
        func, y0, t0 = there(Net()), there(f64(0.4, -1.1, 0.8)[None].requires_grad_()), there(f64(0.0))
        event = lambda t, y: y[0, 0] - 0.48  # noqa: E731
        t, y = adamode.odeint_event(
            func, y0, t0[0], event_fn=event, odeint_interface=getattr(adamode, interface), rtol=1e-4
        )
        found.append([t, y, torch.autograd.grad(t, y0, retain_graph=True)[0]])
    assert_alike(elsewhere.here(found[1]), [x.detach() for x in found[0]], 10 * elsewhere.rounding)
