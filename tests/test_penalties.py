"""Penalties of a solve: against integrals of a fine solve, sums by hand, and autograd through the steps."""

from __future__ import annotations

import json

import pytest
import torch
from problems import Net, Swing, Tree, f64
from torch import nn

import adamode
from adamode import Backsolve, Direct, Discrete, Event, Interpolating, Reversible, Status, TrainConfig, solve
from adamode.solvers.methods import METHODS
from adamode.train.regularise import weights_of
from adamode.train.step import Objective, descend, solving_with

Y = f64(0.4, -1.1, 0.8, 0.3, 0.7, -0.2).view(2, 3)
T = f64(0.0, 0.3, 1.0)
ALL = ("kinetic", "jacobian", "error", "stiffness")
OF_STEPS, INTEGRALS = ALL[2:], ALL[:2]
STEPPINGS = ("shared", "per_sample")
GROUPS = torch.tensor([0, 1])


def asked(names, seed=3, **options):
    torch.manual_seed(seed)  # of the probe
    return solve(
        options.pop("func", None) or Net(),
        options.pop("y0", Y),
        options.pop("t", T),
        penalties=names,
        **options,
    )


def probe(seed=3):
    torch.manual_seed(seed)
    return torch.randn_like(Y)


def integrands(func, eps, t, y):
    """|f|² and |εᵀ ∂f/∂y|² of each sample at one time."""
    y = y.detach().requires_grad_()
    f = func(t, y)
    (row,) = torch.autograd.grad(f, y, eps)
    return f.detach().square().sum(1), row.square().sum(1)


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("t", [T, T.flip(0)])
def test_integrals_are_those_of_a_fine_solve(stepping, t):
    func, eps = Net(), probe()
    sol = asked(INTEGRALS, func=func, stepping=stepping, t=t, rtol=1e-7, atol=1e-9, gradient=None)
    fine = solve(func, Y, t, rtol=1e-10, atol=1e-12, dense=True, gradient=None)
    points = torch.linspace(0, 1, 201, dtype=torch.float64)
    found = [integrands(func, eps, p, fine(p)) for p in points]
    simpson = torch.full((201,), 2.0, dtype=torch.float64) / 600
    simpson[1::2] *= 2
    simpson[0] = simpson[-1] = 1 / 600
    for name, values in zip(INTEGRALS, zip(*found, strict=True), strict=True):
        expected = (torch.stack(values) * simpson[:, None]).sum(0)
        expected = expected if stepping == "per_sample" else expected.sum()
        assert sol.penalty(name).shape == expected.shape
        torch.testing.assert_close(sol.penalty(name), expected, rtol=1e-6, atol=1e-9)


def slopes_by_hand(func, tableau, t0, t1, y):
    h, ks = t1 - t0, []
    for c, row in zip(tableau.nodes(), tableau.rows(), strict=False):
        stage = y + h * sum((float(a) * k for a, k in zip(row, ks, strict=False)), torch.zeros_like(y))
        ks.append(func(t0 + float(c) * h, stage))
    return h, ks[: tableau.n_stages]


def rms(x):
    return x.square().mean().sqrt()


@pytest.mark.parametrize("method", ["dopri5", "tsit5", "dop853", "bosh3"])
def test_sums_over_steps_are_those_by_hand(method):
    func, tableau = Net(), METHODS[method]
    names = OF_STEPS if method != "bosh3" else ("error",)
    sol = asked(names, func=func, method=method, save="steps", rtol=1e-4, atol=1e-4, gradient=None)
    errors = stiff = 0.0
    for (t0, t1), y in zip(zip(sol.t[:-1], sol.t[1:], strict=True), sol.y[:-1], strict=True):
        with torch.no_grad():
            h, ks = slopes_by_hand(func, tableau, t0, t1, y)
        each = [h * sum(float(w) * k for w, k in zip(row, ks, strict=True)) for row in tableau.errors()]
        size = rms(each[0])
        if len(each) == 2:
            size = size**2 / (size**2 + 0.01 * rms(each[1]) ** 2).sqrt()
        errors = errors + size * h
        # The last two stages that are both at t1.
        i, j = (
            [n for n, c in enumerate(tableau.nodes()[: tableau.n_stages]) if c == 1][-1:-3:-1]
            if len(names) == 2
            else (0, 0)
        )
        if i != j:
            a, b = ([*map(float, tableau.rows()[n]), *[0.0] * 20] for n in (i, j))
            apart = h * sum((x - z) * k for x, z, k in zip(a, b, ks, strict=False))
            stiff = stiff + rms(ks[i] - ks[j]) / rms(apart)
    torch.testing.assert_close(sol.penalty("error"), errors, rtol=1e-9, atol=0)
    if len(names) == 2:
        torch.testing.assert_close(sol.penalty("stiffness"), stiff, rtol=1e-5, atol=0)


def gradients(names, y0=Y, t=T, func=Net, **options):
    """Of a weighted sum of penalties and of the end, by y0, t and parameters."""
    func, y0, t = func(), y0.clone().requires_grad_(), t.clone().requires_grad_()
    sol = asked(names, func=func, y0=y0, t=t, **options)
    loss = sol.y[-1].square().sum()
    for i, name in enumerate(names):
        value = sol.penalty(name)
        scale = 1e4 if name == "error" else 1.0
        loss = loss + scale * (
            value * torch.arange(1.0, 1 + value.numel()).to(value).view(value.shape)
        ).sum() * (i + 1)
    return torch.autograd.grad(loss, [y0, t, *func.parameters()])


DISCRETE = {
    "stages": Discrete(),
    "state": Discrete(keep="state"),
    "checkpoints": Discrete(checkpoints=2),
}


@pytest.mark.parametrize("way", DISCRETE)
@pytest.mark.parametrize("stepping", [*STEPPINGS, "groups"])
def test_discrete_gradients_are_autograds(way, stepping):
    names = ALL if stepping != "groups" else OF_STEPS
    given = {"stepping": GROUPS if stepping == "groups" else stepping, "rtol": 1e-4, "atol": 1e-4}
    for t in (T, T.flip(0)):
        found = gradients(names, t=t, gradient=DISCRETE[way], **given)
        wanted = gradients(names, t=t, gradient=Direct(), **given)
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8 * float(b.abs().max()))


@pytest.mark.parametrize(
    "options", [{"method": "dop853"}, {"dt": 0.3}, {"compact": True, "stepping": "per_sample"}]
)
def test_discrete_gradients_with_two_estimates_fixed_steps_and_samples_that_leave(options):
    names = ("kinetic", "error")
    t = T if "stepping" not in options else torch.stack((T, T * 0.4))
    found, wanted = (gradients(names, t=t, gradient=g, **options) for g in (Discrete(), Direct()))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8 * float(b.abs().max()))


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("gradient", [Interpolating(), Backsolve(), Reversible()])
def test_integrals_have_a_gradient_by_every_adjoint(gradient, stepping):
    tight = {"rtol": 1e-9, "atol": 1e-10, "stepping": stepping}
    direct = Direct(coupling=0.999) if isinstance(gradient, Reversible) else Direct()
    found = gradients(INTEGRALS, gradient=gradient, **tight)
    wanted = gradients(INTEGRALS, gradient=direct, **tight)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6 * float(b.abs().max()))


def test_the_gradient_of_sums_over_fixed_steps_is_the_difference_quotient():
    def value(y0):
        return float(asked(("error",), y0=y0, dt=0.25, gradient=None).penalty("error"))

    y0 = Y.clone().requires_grad_()
    (slope,) = torch.autograd.grad(asked(("error",), y0=y0, dt=0.25).penalty("error"), y0)
    step = torch.zeros_like(Y)
    step[1, 2] = 1e-5
    quotient = (value(Y + step) - value(Y - step)) / 2e-5
    assert slope[1, 2].item() == pytest.approx(quotient, rel=1e-5)


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_a_dynamics_by_hand_has_them_as_its_function(stepping):
    z0, names = torch.stack((Y, 0.5 * Y)), ("kinetic", "error")
    given = {"rtol": 1e-6, "atol": f64(1e-6, 1e-7).view(2, 1, 1), "stepping": stepping, "norm": "blocks"}
    found = gradients(names, y0=z0, func=Swing, gradient=Discrete(), **given)
    wanted = gradients(names, y0=z0, func=Swing, gradient=Direct(), **given)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8 * float(b.abs().max()))
    swing = Swing()
    sol = asked(names, func=swing, y0=z0, gradient=None, **given)
    plain = solve(swing, z0, T, gradient=None, **given)
    assert torch.equal(sol.y, plain.y)  # no step is another
    assert sol.y.shape == (3, 2, 2, 3)
    fine = solve(
        swing, z0, torch.linspace(0, 1, 201, dtype=torch.float64), rtol=1e-9, atol=1e-10, gradient=None
    )
    rates = torch.stack(
        [swing.forward(t, z)[0].square().sum((0, 2)) for t, z in zip(fine.t, fine.y, strict=True)]
    )
    energy = torch.trapezoid(rates.detach(), fine.t, dim=0)
    energy = energy if stepping == "per_sample" else energy.sum()
    torch.testing.assert_close(sol.penalty("kinetic"), energy, rtol=1e-4, atol=0)


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("norm", ["rms", "max"])
def test_the_solve_is_the_one_without_penalties(stepping, norm):
    given = {
        "stepping": stepping,
        "norm": norm,
        "rtol": f64(1e-4, 1e-3, 1e-4),
        "dense": True,
        "gradient": None,
    }
    func = Net()
    with_, plain = asked(ALL, func=func, **given), solve(func, Y, T, **given)
    torch.testing.assert_close(with_.y, plain.y, rtol=1e-13, atol=1e-14)
    assert torch.equal(torch.as_tensor(with_.stats.nfe), torch.as_tensor(plain.stats.nfe))
    p = f64(0.2, 0.9)
    torch.testing.assert_close(with_(p), plain(p), rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(with_.derivative(p), plain.derivative(p), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_a_pytree_keeps_its_structure(stepping):
    tree = {"a": Y, "b": f64(0.5, -0.4)}
    sol = asked(ALL, func=Tree(), y0=tree, rtol=(1e-4, 1e-5), stepping=stepping)
    assert sol.y["a"].shape == (3, 2, 3)
    assert sol.y["b"].shape == (3, 2)
    shape = (2,) if stepping == "per_sample" else ()
    assert [sol.penalty(name).shape for name in ALL] == [shape] * 4
    assert all(sol.penalty(name).requires_grad for name in ALL)


@pytest.mark.parametrize("save", ["end", "steps"])
def test_what_is_saved_changes_no_penalty(save):
    t = torch.stack((T, T * 0.2))  # the second sample takes fewer steps
    given = {"stepping": "per_sample", "t": t, "rtol": 1e-5}
    found, wanted = asked(ALL, save=save, **given), asked(ALL, **given)
    for name in ALL:
        torch.testing.assert_close(found.penalty(name), wanted.penalty(name), rtol=1e-6, atol=0)


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_the_dense_output_has_its_gradient_beside_penalties(stepping):
    found = []
    for names in (ALL, ()):
        func, y0 = Net(), Y.clone().requires_grad_()
        sol = asked(names, func=func, y0=y0, stepping=stepping, dense=True)
        loss = sol(f64(0.2, 0.7)).square().sum() + sol.y[-1].sum()
        found.append(torch.autograd.grad(loss, [y0, *func.parameters()]))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_a_dynamics_with_implicit_steps_has_kinetic_energy():
    z0 = torch.stack((Y, 0.5 * Y))
    given = {"func": Swing(), "y0": z0, "rtol": 1e-7, "atol": 1e-8, "gradient": None}
    found, wanted = (
        asked(("kinetic",), **given, **own).penalty("kinetic") for own in ({"method": "radau5"}, {})
    )
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=0)


@pytest.mark.parametrize("method", ["kvaerno5", "rodas5p"])
def test_implicit_steps_have_kinetic_energy(method):
    found = asked(("kinetic",), method=method, rtol=1e-7, atol=1e-8).penalty("kinetic")
    wanted = asked(("kinetic",), rtol=1e-8, atol=1e-9).penalty("kinetic")
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)


def test_sums_over_steps_do_not_see_the_integrals():
    for stepping in STEPPINGS:
        both, alone = (asked(names, stepping=stepping) for names in (ALL, OF_STEPS))
        for name in OF_STEPS:
            torch.testing.assert_close(both.penalty(name), alone.penalty(name), rtol=1e-6, atol=0)


def test_a_sample_that_fails_has_none_and_no_gradient():
    y0 = f64(1.0, 5.0, 0.5)[:, None].requires_grad_()  # y' = y²: the second blows up at 0.2
    names = ("kinetic", "error", "stiffness")
    options = {"stepping": "per_sample", "penalties": names, "max_steps": 9}
    sol = solve(lambda t, y: y * y, y0, f64(0.0, 0.5), **options)
    assert sol.status.tolist()[1] not in (Status.SUCCESS, Status.EVENT)
    for name in names:
        value = sol.penalty(name)
        assert value.isnan().tolist() == [False, True, False]
        (slope,) = torch.autograd.grad(value[[0, 2]].sum(), y0, retain_graph=True)
        assert slope[1].item() == 0
        assert slope[[0, 2]].isfinite().all()


def test_at_rest_nothing_is_nan():
    y0 = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    for method in ("dopri5", "dop853"):
        sol = solve(lambda t, y: -y, y0, T, method=method, penalties=ALL, params=())
        values = torch.stack([sol.penalty(name) for name in ("kinetic", "error", "stiffness")])
        assert values.tolist() == [0.0, 0.0, 0.0]
        (slope,) = torch.autograd.grad(values.sum(), y0)
        assert slope.tolist() == torch.zeros(2, 3).tolist()


REFUSED = {
    "unknown": ({"penalties": ("kinetik",)}, "kinetic"),
    "a text": ({"penalties": "error"}, "tuple of names"),
    "backsolve": (
        {"penalties": ("error",), "gradient": Backsolve()},
        r"gradient=Backsolve\(\).*Discrete\(\) or Direct\(\)",
    ),
    "interpolating": (
        {"penalties": ("stiffness",), "gradient": Interpolating()},
        r"gradient=Interpolating\(\)",
    ),
    "reversible": ({"penalties": ("error",), "gradient": Reversible()}, r"gradient=Reversible\(\)"),
    "a pair": ({"penalties": ("error",), "gradient": Direct(coupling=0.99)}, "coupling"),
    "implicit": ({"penalties": ("error",), "method": "radau5"}, "explicit step"),
    "no estimate": ({"penalties": ("error",), "method": "rk4", "dt": 0.1}, "no error estimate"),
    "no two stages": ({"penalties": ("stiffness",), "method": "bosh3"}, "no two stages"),
    "events": ({"penalties": ("kinetic",), "events": Event(lambda t, y: y[0, 0])}, "events"),
    "compile": ({"penalties": ("error",), "compile": True}, "compile=True"),
    "queued": ({"penalties": ("error",), "sync_every": 4}, "sync_every=4"),
    "groups": ({"penalties": ("kinetic",), "stepping": GROUPS}, "groups"),
    "compact": ({"penalties": ("jacobian",), "stepping": "per_sample", "compact": True}, "compact"),
    "jac": ({"penalties": ("kinetic",), "method": "radau5", "jac": lambda t, y: -torch.eye(6)}, "jac"),
    "complex": ({"penalties": ("kinetic",), "y0": Y.to(torch.complex128)}, "complex"),
    "complex, steps": ({"penalties": ("error",), "y0": Y.to(torch.complex128)}, "complex"),
    "implicit, jacobian": ({"penalties": ("jacobian",), "method": "radau5"}, "explicit method"),
    "a Dynamics' jacobian": (
        {"penalties": ("jacobian",), "func": Swing(), "y0": torch.stack((Y, Y))},
        "VJP by hand",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_by_name(case):
    given, text = REFUSED[case]

    def never(t, y):
        raise AssertionError("func was called")

    call = {"func": never, "y0": Y, "t": T, **given}
    with pytest.raises((ValueError, TypeError), match=text) as caught:
        solve(**call)
    assert isinstance(caught.value, adamode.AdamodeError)


def test_a_penalty_not_asked_for_is_an_error():
    sol = solve(Net(), Y, T, penalties=("error",))
    with pytest.raises(adamode.ArgumentError, match=r"penalty 'kinetic'.*penalties=\('error',\)"):
        sol.penalty("kinetic")
    with pytest.raises(adamode.ArgumentError, match="no penalties"):
        solve(Net(), Y, T).penalty("error")


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
def test_under_transforms_the_derivative_is_directs_or_refused():
    y0 = torch.ones(3, dtype=torch.float64)

    def value(y, gradient, name):
        return solve(lambda t, y: torch.sin(2 * y), y, T, gradient=gradient, penalties=(name,)).penalty(name)

    for name in ("kinetic", "error"):
        slope = torch.func.grad(lambda y, name=name: value(y, Direct(), name))(y0)
        own = y0.clone().requires_grad_()
        (wanted,) = torch.autograd.grad(value(own, Discrete(), name), own)
        torch.testing.assert_close(slope, wanted)
    for name, gradient in (("error", Discrete()), ("jacobian", Direct())):
        with pytest.raises(adamode.ArgumentError, match="transform"):
            torch.func.grad(lambda y, name=name, gradient=gradient: value(y, gradient, name))(y0)


def test_weights_of_a_text():
    assert weights_of("") == ()
    assert weights_of(" error = 0.1, kinetic=1e-3") == (("error", 0.1), ("kinetic", 1e-3))
    for text in ("error", "error=", "error=-1", "error=nan", "errors=1", "error=1,error=2", "=1"):
        with pytest.raises(adamode.ArgumentError, match="regularise"):
            weights_of(text)
    with pytest.raises(adamode.ArgumentTypeError, match="regularise"):
        TrainConfig(regularise=0.1)
    with pytest.raises(adamode.ArgumentError, match="identity"):
        TrainConfig(regularise="error=1", block="identity")


def test_training_tells_the_weighted_mean_beside_the_loss(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = []
    for text in ("", "kinetic=1e-12"):
        sizes = {"epochs": 1, "train_size": 40, "val_size": 20, "test_size": 20}
        config = TrainConfig(model="node", regularise=text, name=f"run{len(rows)}", **sizes)
        adamode.Trainer(config, quiet=True).fit()
        lines = (config.folder / "metrics.jsonl").read_text().splitlines()
        rows.append(json.loads(lines[0]))
    none, tiny = rows
    assert "train_penalty" not in none
    assert tiny["train_loss"] == pytest.approx(none["train_loss"], rel=1e-4)
    assert 0 < tiny["train_penalty"] < 1e-9


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_a_gradient_step_of_training_is_that_of_loss_and_penalty(stepping):
    model = adamode.models.create("node", task="digits").double()
    x, y = torch.rand(6, 1, 8, 8, dtype=torch.float64), torch.arange(6)
    objective = Objective("accuracy", weights=(("kinetic", 0.3), ("error", 5.0)))
    with solving_with(model, penalties=("kinetic", "error"), stepping=stepping):
        sums = descend(model, x, y, objective, total=6, parts=1, amp="off")
        found = [p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        loss = objective.loss(model(x), y)
        told = model.last_stats.take_penalties()
    extra = 0.3 * told["kinetic"].sum() / 6 + 5.0 * told["error"].mean()
    (loss + extra).backward()
    for a, p in zip(found, model.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=1e-10, atol=1e-13)
    assert sums.penalty == pytest.approx(6 * extra.item())
    assert model.last_stats.take_penalties() == {}


class Noisy(nn.Module):
    """BatchNorm mixes the samples."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3).double()

    def forward(self, t, y):
        return self.norm(y)


def test_samples_that_depend_on_each_other_are_refused_as_without():
    with pytest.raises(adamode.ArgumentError, match=r"func\.norm"):
        asked(("kinetic",), func=Noisy(), stepping="per_sample")


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
def test_a_solve_under_an_input_has_those_of_a_func_that_reads_it(stepping):
    values = f64(0.3, -1.0, 0.8).view(3, 1).requires_grad_()
    signal = adamode.Signal(f64(0.0, 0.4, 1.0), values, "cubic")
    net, names = Net(), ("kinetic", "jacobian", "error")

    def read(t, y):
        return net(t, y) * (signal(t) if t.dim() == 0 else signal(t.flatten())[:, 0, None])

    found = []
    for func, more in ((lambda t, y, u: net(t, y) * u, {"signal": signal}), (read, {"step_at": [0.4]})):
        torch.manual_seed(3)
        sol = solve(func, Y, f64(0.0, 1.0), gradient=Direct(), penalties=names, stepping=stepping, **more)
        told = torch.stack([sol.penalty(name).sum() for name in names])
        found.append((told.detach(), *torch.autograd.grad(told.sum(), [values, *net.parameters()])))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)
