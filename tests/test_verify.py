"""The verifier: it passes what is right, and fails, by name, what is wrong."""

import json

import pytest
import torch
import typer
from typer.testing import CliRunner

from adamode import verify
from adamode.adjoint.dynamics import Dynamics
from adamode.adjoint.gradient import Backsolve, Discrete
from adamode.cli.verify import conclusion, tables
from adamode.cli.verify import verify as command
from adamode.models.dynamics import AdamODE
from adamode.models.fields import MLP, AutogradField
from adamode.solvers.errors import ArgumentError, ArgumentTypeError

T = torch.tensor([0.0, 0.37, 1.0], dtype=torch.float64)


def adamode_dynamics(form="exact", field=None):
    dynamics = AdamODE(
        MLP(3, (4,)) if field is None else field, alpha=0.3, beta=0.4, eps=1e-3, adjoint_form=form
    )
    return dynamics.double()


def state():
    z = torch.randn(3, 2, 3, dtype=torch.float64)
    z[2] = z[2].square() + 0.1
    return z


def failed(report):
    return {row.quantity for row in report.rows if row.ok is False}


class Scalar(Dynamics, torch.nn.Module):
    """h' = w·h², for which a wrong factor, a missing gradient or NaN can be asked."""

    def __init__(self, factor=1.0, theta_factor=1.0, graph=True):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
        self.factor, self.theta_factor, self.graph = factor, theta_factor, graph

    def theta(self):
        return (self.w,)

    def forward(self, t, z):
        return (self.w * z * z if self.graph else (self.w * z * z).detach()), z

    def vjp(self, z, a):
        return self.factor * 2 * self.w * z * a, (a * z * z).flatten(2).sum((0, 2))

    def parameter_gradients(self, saved, deltas, weights):
        if self.theta_factor is None:
            return (None,)
        total = sum((d if weights is None else weights[i] * d).sum() for i, d in enumerate(deltas))
        return (self.theta_factor * total,)


def z_scalar():
    return torch.rand(1, 2, 3, dtype=torch.float64)


@pytest.mark.parametrize("field", [lambda: MLP(3, (4,)), lambda: AutogradField(MLP(3, (4,)))])
def test_a_right_vjp_passes_to_rounding(field):
    report = verify.check_vjp(adamode_dynamics(field=field()), 0.3, state())
    assert report.ok, report
    errors = {
        reference: max(r.relative_error for r in report.rows if r.reference == reference)
        for reference in ("autograd", "finite-differences")
    }
    assert errors["autograd"] < 1e-13
    assert errors["finite-differences"] < 1e-9
    assert {"a_h", "a_m", "a_v", "raw_alpha", "raw_beta"} < {r.quantity for r in report.rows}


@pytest.mark.parametrize("form", ["paper", "paper-rates"])
def test_the_printed_forms_fail_in_h_and_in_the_field_only(form):
    report = verify.check_vjp(adamode_dynamics(form), 0.3, state())
    assert not report.ok
    assert {"a_h", "field.layers.0.weight"} <= failed(report)
    assert not {"a_m", "a_v", "raw_alpha", "raw_beta"} & failed(report)


@pytest.mark.parametrize(
    ("wrong", "quantity"),
    [
        ({"factor": 1.001}, "a_0"),
        ({"theta_factor": -1.0}, "w"),
        ({"theta_factor": None}, "w"),
        ({"factor": float("nan")}, "a_0"),
    ],
)
@pytest.mark.parametrize("graph", [True, False])
def test_a_wrong_vjp_fails_by_name_with_and_without_autograd_to_compare(wrong, quantity, graph):
    assert verify.check_vjp(Scalar(graph=graph), 0.0, z_scalar()).ok
    report = verify.check_vjp(Scalar(**wrong, graph=graph), 0.0, z_scalar())
    assert failed(report) == {quantity}
    assert f"{quantity}[" in str(report)
    assert "hand-derived" in str(report)
    assert {r.reference for r in report.rows} == {"finite-differences"} | ({"autograd"} if graph else set())


@pytest.mark.parametrize(("wrong", "quantity"), [({"factor": 1.001}, "a_0"), ({"theta_factor": 1.001}, "w")])
@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
def test_a_wrong_gradient_of_a_solve_fails(wrong, quantity, stepping):
    arguments = {"rtol": 1e-5, "atol": 1e-5, "stepping": stepping}
    report = verify.check_gradient(Scalar(), z_scalar(), T, **arguments)
    assert report.ok, report
    assert quantity in failed(verify.check_gradient(Scalar(**wrong), z_scalar(), T, **arguments))


@pytest.mark.parametrize(
    "arguments", [{"rtol": 1e-4, "atol": 1e-4}, {"dt": 0.21}, {"rtol": 1e-4, "save": "end"}]
)
def test_differences_go_through_the_same_steps(arguments):
    """At a loose tolerance the exact derivative of the steps differs from the solution's by far more."""
    report = verify.check_gradient(adamode_dynamics(), state(), T, **arguments)
    assert report.ok, report
    assert max(r.relative_error for r in report.rows) < 1e-8


def test_modules_functions_and_pytrees_are_checked_too():
    module = torch.nn.Linear(3, 3).double()

    class Field(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = module

        def forward(self, t, y):
            return torch.tanh(self.inner(y)) + t

    report = verify.check_gradient(Field(), torch.randn(2, 3, dtype=torch.float64), T)
    assert report.ok, report
    assert {r.quantity for r in report.rows} == {"y0", "inner.weight", "inner.bias"}
    w = torch.randn(3, dtype=torch.float64, requires_grad=True)
    tree = (torch.randn(2, 3, dtype=torch.float64), torch.randn(4, dtype=torch.float64))
    report = verify.check_gradient(lambda t, y: (torch.sin(w * y[0]), -y[1] * w.sum()), tree, T)
    assert report.ok, report
    assert {r.quantity for r in report.rows} == {"y0[0]", "y0[1]", "params[0]"}


def test_backsolve_is_held_to_its_tolerance():
    dynamics, z = adamode_dynamics(), state()
    report = verify.check_gradient(dynamics, z, T, gradient=Backsolve(), rtol=1e-9, atol=1e-9)
    assert report.ok, report
    assert [r.bound for r in report.rows] == pytest.approx([1e-6] * len(report.rows))


def test_a_check_changes_nothing_and_repeats():
    dynamics, z = adamode_dynamics(), state()
    before = [p.detach().clone() for p in dynamics.parameters()]
    z_before = z.clone()
    first = verify.check_gradient(dynamics, z, T)
    assert first == verify.check_gradient(dynamics, z, T)
    assert torch.equal(z, z_before)
    assert all(torch.equal(p, q) for p, q in zip(dynamics.parameters(), before, strict=True))
    assert all(p.grad is None for p in dynamics.parameters())


def test_float32_modules_are_checked_as_a_copy_in_float64():
    dynamics, z = adamode_dynamics().float(), state().float()
    assert verify.check_vjp(dynamics, 0.3, z).ok
    assert verify.check_gradient(dynamics, z, T.float()).ok
    assert {p.dtype for p in dynamics.parameters()} == {torch.float32}


def test_frozen_parameters_are_left_out():
    dynamics = adamode_dynamics()
    dynamics.raw_alpha.requires_grad_(False)
    for report in (verify.check_vjp(dynamics, 0.3, state()), verify.check_gradient(dynamics, state(), T)):
        assert report.ok, report
        assert "raw_alpha" not in {r.quantity for r in report.rows}


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: verify.check_vjp(lambda t, z: z, 0.0, z_scalar()), ArgumentTypeError, "check_gradient"),
        (lambda: verify.check_gradient(lambda t, y: y, torch.ones(2), T), ArgumentError, "float64"),
        (lambda: verify.check_gradient(Scalar(), z_scalar(), T, metod="dopri5"), ArgumentTypeError, "method"),
        (lambda: verify.verify_models(models=["adamnod"]), ArgumentError, "did you mean 'adamnode'"),
        (lambda: verify.verify_models(forms=["papers"]), ArgumentError, "did you mean 'paper'"),
        (lambda: verify.verify_models(gradients=["discret"]), ArgumentError, "did you mean 'discrete'"),
    ],
)
def test_what_cannot_be_checked_is_said(call, error, text):
    with pytest.raises(error, match=text):
        call()


@pytest.fixture(scope="module")
def whole():
    discrete = verify.verify_models(gradients=["discrete"], seeds_printed=3)
    continuous = verify.verify_models(
        denominators=["exact"], gradients=["interpolating", "backsolve"], forms=["exact"]
    )
    return verify.ModelReport((*discrete.rows, *continuous.rows), discrete.printed)


def test_verify_models_meets_every_bound_with_room(whole):
    assert whole.ok, tables(whole)
    worst = {}
    for row in whole.rows:
        if row.form == "exact":
            key = row.gradient, row.reference
            worst[key] = max(worst.get(key, 0.0), row.relative_error)
    assert worst["discrete", "autograd"] < 1e-12
    assert worst["discrete", "finite-differences"] < 1e-8
    assert worst["interpolating", "autograd"] < 2e-8
    assert worst["backsolve", "autograd"] < 2e-8
    assert {row.denominator for row in whole.rows} == {"exact", "softplus", "sigmoid"}
    assert {row.stepping for row in whole.rows} == {"shared", "per_sample"}


def test_printed_forms_are_measured_and_not_judged(whole):
    printed = [row for row in whole.rows if row.form != "exact"]
    assert {row.form for row in printed} == {"paper", "paper-rates"}
    assert all(row.bound is None and row.ok is None for row in printed)
    assert all(row.relative_error > 0.1 for row in printed if row.quantity == "a_h")
    assert [error.form for error in whole.printed] == ["paper", "paper-rates"]
    assert all(0.1 < e < 5 for error in whole.printed for e in error.whole)
    assert "per cent" in conclusion(whole)


def run(*arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(arguments))


def test_the_command_prints_a_table_and_writes_json(tmp_path):
    path = tmp_path / "rows.json"
    result = run("--denominator", "exact", "--gradient", "discrete", "--form", "exact", "--json", str(path))
    assert result.exit_code == 0
    assert "a_h" in result.output
    assert "ok: all" in result.output
    found = json.loads(path.read_text())
    assert found["ok"] is True
    assert set(found["rows"][0]) == {
        "model",
        "denominator",
        "gradient",
        "stepping",
        "form",
        "quantity",
        "reference",
        "relative_error",
        "bound",
        "ok",
    }
    assert [p.name for p in tmp_path.iterdir()] == ["rows.json"]


def test_json_to_the_standard_output_is_json_alone():
    result = run("--denominator", "exact", "--gradient", "discrete", "--form", "paper", "--json", "-")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert {(row["bound"], row["ok"]) for row in found["rows"]} == {(None, None)}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--model", "adamnod"),
        ("--form", "x"),
        ("--denominator", "x"),
        ("--gradient", "x"),
        ("--json", "/no/such/folder/x.json"),
    ],
)
def test_a_wrong_call_ends_with_status_two(arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""


def test_a_wrong_equation_ends_with_status_one(monkeypatch):
    vjp = AdamODE.vjp

    def planted(self, saved, cotangent):
        z_bar, deltas = vjp(self, saved, cotangent)
        return z_bar * torch.tensor([1.0, 1.0, -1.0]).reshape(3, 1, 1), deltas

    monkeypatch.setattr(AdamODE, "vjp", planted)
    result = run("--denominator", "exact", "--gradient", "discrete", "--form", "exact", "--json", "-")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["ok"] is False
    assert all(row["ok"] is False for row in found["rows"] if row["quantity"] == "a_v")


def test_an_error_that_is_no_number_fails_and_is_null_in_json():
    report = verify.check_gradient(Scalar(factor=float("nan")), z_scalar(), T, gradient=Discrete())
    assert not report.ok
    row = verify.ModelRow(
        "m", "exact", "discrete", "shared", "exact", "a_h", "autograd", float("nan"), 1.0, False
    )
    assert row.as_dict()["relative_error"] is None
