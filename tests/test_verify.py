"""The verifier: it passes what is right, and fails, by name, what is wrong."""

import dataclasses
import html.parser
import json
import statistics
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

import adamode
from adamode import verify
from adamode.adjoint.dynamics.protocol import Dynamics
from adamode.adjoint.gradients import Backsolve, Discrete
from adamode.adjoint.proof.solves import GradientProblem, gaps
from adamode.cli.verify import verify as command
from adamode.models.dynamics import AdamODE
from adamode.models.fields import MLP, AutogradField
from adamode.solvers.errors import ArgumentError, ArgumentTypeError
from adamode.verify.layout import conclusion, text_tables
from adamode.verify.models import printed_error
from adamode.verify.page import html_page

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
    always = {"finite-differences", "dot-product"}
    assert {r.reference for r in report.rows} == always | ({"autograd"} if graph else set())


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
    report = verify.check_gradient(
        dynamics, z, T, gradient=Backsolve(), rtol=1e-9, atol=1e-9, gap_tolerances=()
    )
    assert report.ok, report
    assert [r.bound for r in report.rows] == pytest.approx([1e-6] * len(report.rows))


def test_a_check_changes_nothing_and_repeats():
    dynamics, z = adamode_dynamics(), state()
    before = [p.detach().clone() for p in dynamics.parameters()]
    z_before = z.clone()
    first = verify.check_gradient(dynamics, z, T, gap_tolerances=(1e-3,))
    assert first == verify.check_gradient(dynamics, z, T, gap_tolerances=(1e-3,))
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
        (lambda: verify.verify_models(denominators=["softplu"]), ArgumentError, "did you mean 'softplus'"),
        (lambda: verify.verify_models(activations=["tan"]), ArgumentError, "did you mean 'tanh'"),
        (
            lambda: verify.verify_models(models=["node"], denominators=["exact"]),
            ArgumentError,
            "nothing to check",
        ),
    ],
)
def test_what_cannot_be_checked_is_said(call, error, text):
    with pytest.raises(error, match=text):
        call()


@pytest.fixture(scope="module")
def whole():
    """Every model and variant with the discrete adjoint; AdamODE with all three."""
    discrete = verify.verify_models(gradients=["discrete", "discrete-checkpoints"], seeds_printed=3)
    continuous = verify.verify_models(
        denominators=["exact"], gradients=["interpolating", "backsolve"], forms=["exact"]
    )
    return verify.ModelReport((*discrete.rows, *continuous.rows), discrete.printed, discrete.statements)


def test_verify_models_meets_every_bound_with_room(whole):
    assert whole.ok, text_tables(whole)
    worst = {}
    for row in whole.rows:
        if row.form == "exact":
            key = row.gradient, row.reference
            worst[key] = max(worst.get(key, 0.0), row.relative_error)
    assert worst["discrete", "autograd"] < 1e-12
    assert worst["discrete-checkpoints", "autograd"] < 1e-12
    assert max(worst["discrete", "newton"], worst["discrete-checkpoints", "newton"]) < 1e-12
    implicit = [row for row in whole.rows if row.reference == "newton"]
    assert {(row.method, row.stepping) for row in implicit} == {
        (method, stepping) for method in ("kvaerno5", "radau5") for stepping in verify.STEPPINGS
    }
    assert worst["discrete", "finite-differences"] < 1e-8
    for gradient in ("interpolating", "backsolve"):
        for reference in ("autograd", "fine-solve", "analytic"):
            assert worst[gradient, reference] < 2e-8, (gradient, reference)
    assert {row.model for row in whole.rows} == set(verify.MODELS)
    assert {row.denominator for row in whole.rows} == {None, "exact", "softplus", "sigmoid"}
    assert {row.activation for row in whole.rows} == {None, "identity", "tanh", "hardtanh"}
    assert {row.damping for row in whole.rows} == {None, "constant", "nesterov", "learned"}
    assert {row.stepping for row in whole.rows} == {"shared", "per_sample"}
    # Every block and parameter of every variant meets every reference; a bounded speed has no closed form.
    open_forms = {"ghbnode, tanh", "gnesterovnode, tanh", "gnesterovnode, hardtanh"}
    cases = {row.case[0] for row in whole.rows}
    for case in cases:
        rows = [row for row in whole.rows if row.case[0] == case and row.form == "exact"]
        references = {"autograd", "forward", "newton", "finite-differences", "fine-solve"}
        references |= set() if case in open_forms else {"analytic"}
        assert {row.reference for row in rows if row.quantity == "all"} == {"forward"}
        for quantity in {row.quantity for row in rows if "layers.1" not in row.quantity} - {"all"}:
            assert {row.reference for row in rows if row.quantity == quantity} == references, (case, quantity)


def test_printed_forms_are_measured_and_not_judged(whole):
    printed = [row for row in whole.rows if row.form != "exact"]
    assert {row.form for row in printed} == {"paper", "paper-rates"}
    assert {row.model for row in printed} == {"adamnode"}
    assert all(row.bound is None and row.ok is None for row in printed)
    assert all(row.relative_error > 0.1 for row in printed if row.quantity == "a_h")
    assert [error.form for error in whole.printed] == ["paper", "paper-rates"]
    assert all(0.05 < e < 5 for error in whole.printed for e in error.whole)
    assert "per cent" in conclusion(whole)


def test_the_papers_statements_have_verdicts_with_numbers(whole):
    found = {statement.where: statement for statement in whole.statements}
    assert set(found) == {"abstract", "Eq. 13", "Eq. 13, 14", "Eq. 8"}
    assert {statement.verdict for statement in whole.statements} == {"false"}
    linear, not_linear, sign = found["abstract"].measured.values()
    assert linear < 1e-14
    assert not_linear > 0.05
    assert 0 < sign < 1
    plus, minus = found["Eq. 13"].measured.values()
    assert plus < 1e-4
    assert minus == pytest.approx(2, abs=1e-4)
    assert found["Eq. 13, 14"].measured["the corrected four, at most"] < 1e-13
    assert min(list(found["Eq. 13, 14"].measured.values())[:4]) > 0.1
    assert min(found["Eq. 8"].measured.values()) > 0.1


def test_the_page_shows_each_quantity_beside_its_formula_and_escapes(whole):
    planted = dataclasses.replace(
        next(r for r in whole.rows if r.quantity == "a_v"), relative_error=0.5, ok=False, model="sonode"
    )
    text = html_page(verify.ModelReport((*whole.rows, planted), whole.printed, whole.statements), "<b>seed")
    assert "&lt;b&gt;seed" in text
    assert "a_v' = m⊙D&#x27;(v)⊙a_h + (1−β)a_v".replace("a_v'", "a_v&#x27;") in text
    assert "1 of " in text
    assert 'class="fails">FAILS' in text
    assert "A(T) = −I" in text
    parser = html.parser.HTMLParser()
    parser.feed(text)  # does not raise
    clean = html_page(whole, "")
    assert "are within their bounds" in clean
    for case in {row.case[0] for row in whole.rows}:
        assert f"<h2>{case}</h2>" in clean


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
    assert {
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
    } <= set(found["rows"][0])
    assert {row["model"] for row in found["rows"]} == {"adamnode"}  # the one that has a denominator
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
        ("--activation", "x"),
        ("--model", "node", "--denominator", "exact"),
        ("--json", "/no/such/folder/x.json"),
        ("--html", "/no/such/folder/x.html"),
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
    rows = verify.verify_models(models=["node"], gradients=["discrete"]).rows
    row = dataclasses.replace(rows[0], relative_error=float("nan"), ok=False)
    assert row.as_dict()["relative_error"] is None


def test_a_page_is_written_where_it_is_asked_for(tmp_path):
    path = tmp_path / "page.html"
    result = run("--model", "hbnode", "--gradient", "discrete", "--html", str(path), "--quiet")
    assert result.exit_code == 0, result.output
    assert result.output.startswith("ok: all")
    assert "a_m&#x27; = a_h + γa_m" in path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.slow
@pytest.mark.parametrize("model", verify.MODELS)
def test_the_whole_product_holds(model):
    report = verify.verify_models(models=[model], full=True)
    assert report.ok, conclusion(report)
    assert {row.field for row in report.rows} >= {"mlp", "conv", "autograd"}


def test_the_taylor_remainder_tells_right_from_wrong():
    right = verify.check_gradient(Scalar(), z_scalar(), T, rtol=1e-5, atol=1e-5)
    assert right.taylor.slope == pytest.approx(2, abs=0.2)
    assert right.taylor.ok
    wrong = verify.check_gradient(Scalar(factor=1.3), z_scalar(), T, rtol=1e-5, atol=1e-5)
    assert wrong.taylor.slope == pytest.approx(1, abs=0.3)
    assert wrong.taylor.ok is False
    assert "slope" in str(wrong)
    linear = verify.check_gradient(lambda t, y: -y, torch.rand(2, 3).double(), T, params=[])
    assert linear.taylor.slope is None
    assert linear.ok, linear


@pytest.mark.parametrize(("wrong", "quantity"), [({"factor": 1.001}, "a_0"), ({"theta_factor": 1.001}, "w")])
def test_the_dot_product_test_fails_for_the_block_or_parameter_that_is_wrong(wrong, quantity):
    report = verify.check_vjp(Scalar(**wrong), 0.0, z_scalar())
    assert {r.quantity for r in report.rows if r.reference == "dot-product" and not r.ok} == {quantity}
    assert "along a random direction" in str(report)


def test_the_gap_between_both_kinds_of_adjoint_falls_with_the_tolerance():
    report = verify.check_gradient(adamode_dynamics(), state(), T)
    assert [g.tolerance for g in report.gaps] == [1e-3, 1e-4, 1e-5, 1e-6]
    assert report.gaps[-1].interpolating < 1e-2 * report.gaps[0].interpolating
    assert report.gaps[-1].backsolve < 1e-2 * report.gaps[0].backsolve
    assert "rtol = atol falls" in str(report)
    assert verify.check_gradient(adamode_dynamics(), state(), T, dt=0.2).gaps == ()
    assert verify.check_gradient(adamode_dynamics(), state(), T, gap_tolerances=()).gaps == ()


def test_where_a_continuous_adjoint_cannot_go_on_the_gap_says_so():
    """Van der Pol's oscillator: backwards its limit cycle repels, and no kept state helps for long."""

    def van_der_pol(t, y):
        x, v = y.unbind(-1)
        return torch.stack((v, 5 * (1 - x * x) * v - x), -1)

    y0, t = torch.tensor([[2.0, 0.0]]).double(), torch.tensor([0.0, 12.0]).double()
    problem = GradientProblem(van_der_pol, y0, t, {"params": []})
    (gap,) = gaps(problem, (1e-4,))
    assert gap.backsolve is None
    assert gap.interpolating is not None
    assert "cannot go on" in str(verify.Report((), None, (gap,)))


@pytest.mark.parametrize(
    ("form", "name"), [("paper", "Eq. 15 as printed"), ("paper-rates", "with the rates put in")]
)
def test_the_derivations_page_gives_the_printed_forms_errors_as_measured(form, name):
    found = printed_error(form, range(8))
    page = (Path(__file__).parents[1] / "docs" / "derive" / "adjoints.md").read_text(encoding="utf-8")
    (line,) = (line for line in page.splitlines() if line.startswith(f"| {name} |"))
    for cell, errors in zip(line.split("|")[2:4], (found.whole, found.h_block), strict=True):
        numbers = [
            float(x) for x in cell.replace("%", "").replace("[", "").replace("]", "").replace(",", "").split()
        ]
        expected = [100 * x for x in (statistics.median(errors), min(errors), max(errors))]
        assert numbers == pytest.approx(expected, abs=0.6)


def test_a_model_that_raises_fails_the_verification_by_name(monkeypatch):
    def planted(self, saved, cotangent):
        raise ValueError("blocks are mixed up")

    monkeypatch.setattr(AdamODE, "vjp", planted)
    result = run("--model", "adamnode", "--gradient", "discrete", "--form", "exact")
    assert result.exit_code == 1
    assert "adamnode, exact: " in result.stderr
    assert "blocks are mixed up" in result.stderr


def test_a_kink_on_the_way_is_no_wrong_gradient():
    """ReLU's corner between the points of a difference quotient is stepped around, not reported."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(3, 3).double()
    for seed in range(6):
        y0 = torch.randn(2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        report = verify.check_gradient(
            lambda t, y: torch.relu(linear(y)) - y * t, y0, T, method="rk4", dt=0.1, seed=seed
        )
        assert report.ok, report
    wrong = verify.check_gradient(Scalar(factor=1.001), z_scalar(), T, method="rk4", dt=0.1)
    assert not wrong.ok


def test_the_steps_themselves_can_be_what_the_loss_sees():
    report = verify.check_gradient(adamode_dynamics(), state(), T, save="steps")
    assert report.ok, report
    assert report.gaps == ()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: verify.check_gradient(Scalar(), z_scalar(), T, gradient=None), "gradient=None"),
        (lambda: verify.check_gradient(lambda t, y: y, torch.ones(0, 2).double(), T), "without entries"),
        (lambda: verify.check_vjp(adamode_dynamics(), 0.3, state()[:2]), "AdamODE has 3: h, m, v"),
        (lambda: verify.check_vjp(adamode_dynamics(), 0.3, state()[0, 0]), "must be \\[K, B"),
        (lambda: verify.check_vjp(adamode_dynamics(), 0.3, state()[:, :0]), "with entries"),
        (lambda: adamode.solve(adamode_dynamics(), state()[:2], T), "AdamODE has 3: h, m, v"),
        (
            lambda: adamode.solve(adamode_dynamics(), state()[:2], T, stepping="per_sample"),
            "AdamODE has 3: h, m, v",
        ),
    ],
)
def test_a_state_that_cannot_be_checked_is_refused_at_the_door(call, text):
    with pytest.raises(ArgumentError, match=text):
        call()
