"""A solution prints in a few words, and is copied and written to a file, its dense output with it."""

import copy
import io
import pickle

import pytest
import torch
from problems import f64

import adamode
from adamode import Direct, Event, Impulse, Reversible
from adamode.models.dynamics import HeavyBallODE
from adamode.models.fields import MLP
from adamode.solvers.errors import ArgumentError

D = torch.float64


def wave(t, y):
    return -y + torch.sin(3 * t) * y


def van_der_pol(t, y):
    a, b = y.unbind(-1)
    return torch.stack((b, 5 * (1 - a * a) * b - a), -1)


Y0 = f64([1.0, 2.0], [0.5, -1.0])
HEAVY = HeavyBallODE(MLP(3, (8,)).double(), gamma=0.4)
BLOCKS = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(0), dtype=D)
PER = {"stepping": "per_sample"}
KINDS = {
    "dopri5": {},
    "dop853": {"method": "dop853"},
    "float32": {"y0": Y0.float()},
    "radau5": {"method": "radau5"},
    "kvaerno5": {"method": "kvaerno5"},
    "rodas5p": {"method": "rodas5p"},
    "auto": {"method": "auto"},
    "a pair": {"gradient": Reversible()},
    "Direct": {"gradient": Direct()},
    "no gradient": {"gradient": None},
    "fixed": {"method": "rk4", "dt": 0.25},
    "backwards": {"t": (2.0, 0.0)},
    "per sample": PER,
    "per sample, Direct": {"gradient": Direct(), **PER},
    "per sample, kvaerno3": {"method": "kvaerno3", **PER},
    "per sample, two spans": {"t": f64([0, 2], [1, 0.5]), **PER},
    "groups": {"stepping": torch.tensor([0, 0])},
    "a dict": {"f": lambda t, y: {"x": y["v"], "v": -y["x"]}, "y0": {"x": Y0, "v": Y0}},
    "complex": {"f": lambda t, y: 1j * y, "y0": torch.complex(Y0, Y0)},
    "bfloat16": {"y0": Y0.bfloat16(), "rtol": 5e-2, "atol": 5e-2},
    "a dynamics": {"f": HEAVY, "y0": BLOCKS},
    "a dynamics, per sample": {"f": HEAVY, "y0": BLOCKS, **PER},
    "an event": {"events": Event(lambda t, y: y[0, 0] - 0.7)},
    "resets": {"events": [Impulse(f64(0.7, 1.9), lambda t, y: y + 1.0)]},
    "resets, per sample": {"events": [Impulse(f64(0.7, 2.0), lambda t, y: y + 1.0)], **PER},
}


def solved(f=wave, y0=Y0, t=(0.0, 2.0), **options):
    grown = options.get("gradient", 0) is not None and isinstance(y0, torch.Tensor) and y0.is_floating_point()
    y0 = y0.clone().requires_grad_() if grown else y0
    return adamode.solve(f, y0, f64(*t) if isinstance(t, tuple) else t, dense=True, trace=True, **options)


def through_pickle(sol):
    return pickle.loads(pickle.dumps(sol))


def through_a_file(sol):
    file = io.BytesIO()
    torch.save(sol, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def leaves(tree):
    return list(tree.values()) if isinstance(tree, dict) else [tree]


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_has_the_numbers_and_the_dense_output(kind):
    sol = solved(**KINDS[kind])
    t0, t1 = sol.t.flatten()[0].item(), sol.t[-1].flatten()[0].item()
    if kind == "an event":
        t1 = sol.t_events[0][0].item()
    if kind == "per sample, two spans":
        t0, t1 = 0.5, 1.0
    asked = torch.tensor([0.0, 0.2, 0.65, 1.0], dtype=D) * (t1 - t0) + t0
    for copied in (through_pickle, copy.deepcopy):
        again = copied(sol)
        assert repr(again) == repr(sol)
        assert str(again.stats) == str(sol.stats)
        for a, b in zip(leaves(again.y), leaves(sol.y), strict=True):
            assert torch.equal(a, b.detach()) or torch.equal(a.isnan(), b.isnan())
            assert not a.requires_grad
        for ask in ("__call__", "derivative"):
            found, own = getattr(again, ask)(asked), getattr(sol, ask)(asked)
            for a, b in zip(leaves(found), leaves(own), strict=True):
                assert torch.equal(a, b.detach()), ask
        assert list(map(repr, again.trace)) == list(map(repr, sol.trace))  # NaN is not NaN


def test_a_solution_is_written_to_a_file_with_torch():
    sol = solved()
    again = through_a_file(sol)
    t = f64(0.3, 1.7)
    assert torch.equal(again(t), sol(t).detach())
    with pytest.raises(ArgumentError, match="came from a file"):
        again.explore("page.html")
    with pytest.raises(ArgumentError, match="outside"):
        again(f64(2.1))


def test_a_shallow_copy_keeps_the_gradient_and_a_deep_one_its_page(tmp_path):
    y0 = Y0.clone().requires_grad_()
    sol = adamode.solve(wave, y0, f64(0.0, 1.0), dense=True, trace=True)
    copy.copy(sol).y.sum().backward()
    assert y0.grad is not None
    assert copy.deepcopy(sol).explore(tmp_path / "page.html").exists()


def test_a_copy_is_small():
    """What an adjoint keeps, and func, stay behind."""
    sol = solved(HEAVY, BLOCKS)
    plain = len(pickle.dumps(adamode.solve(HEAVY, BLOCKS, f64(0.0, 2.0), gradient=None, dense=True)))
    assert len(pickle.dumps(sol)) < 2 * plain


def test_it_prints_in_a_few_words():
    y0 = f64(2.0, 0.0)
    sol = adamode.solve(van_der_pol, y0, f64(0.0, 20.0), rtol=1e-9, atol=1e-11, trace=True, dense=True)
    assert len(sol.trace) > 700
    said = repr(sol)
    assert len(said) < 400
    stats = sol.stats
    for word in (
        "SUCCESS",
        f"nfe={stats.nfe}",
        f"n_accepted={stats.n_accepted}",
        f"{len(sol.trace)} attempts",
    ):
        assert word in said
    assert repr(sol.trace) in said
    assert f"{stats.n_rejected} rejected" in repr(sol.trace)
    assert "nan" not in said
    assert str(sol.status) == f"{sol.status}" == "SUCCESS"
    assert sol.status == 0
    html = sol._repr_html_()
    assert "explore" in html
    assert len(html) < 1500
    assert "&lt;" in html  # of "<749 attempts …>"


def test_many_samples_print_their_range():
    sol = adamode.solve(
        wave, torch.linspace(1, 90, 90, dtype=D)[:, None], f64(0.0, 1.0), stepping="per_sample"
    )
    assert "SUCCESS × 90" in repr(sol)
    assert len(repr(sol)) < 400
    nfe = sol.stats.nfe
    least, most = int(nfe.min()), int(nfe.max())
    assert (f"{least} … {most}" if least < most else f"nfe={least}") in repr(sol.stats)
