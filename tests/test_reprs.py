"""What is made prints in a few true words, and is copied and pickled."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import pydoc

import pytest
import torch

import adamode
from adamode.models import create, names, registry
from adamode.models.fields import MLP
from adamode.verify.page import WIDEST, html_page
from adamode.verify.rows import ModelReport, ModelRow

BLOCKS = registry.BLOCKS


def block(name, **settings):
    more = {"augment": 1} if name == "anode" else {}
    t = (1.0, 2.0) if "nesterov" in name or name == "momentumnode" else (0.0, 1.0)
    width = {"anode": 4, "sonode": 6}.get(name, 3)
    torch.manual_seed(0)
    return BLOCKS[name](MLP(width, (5,), out_dim=4 if name == "anode" else 3), t=t, **more, **settings)


@pytest.mark.parametrize("name", names())
def test_a_block_tells_how_it_solves(name):
    plain = repr(block(name))
    assert plain.startswith(f"{BLOCKS[name].__name__}(\n  t=(")
    assert "rtol=0.0001, atol=0.0001, method='dopri5'\n" in plain
    told = repr(block(name, method="tsit5", stepping="per_sample", rtol=1e-3))
    assert "rtol=0.001, atol=0.0001, method='tsit5', stepping='per_sample'\n" in told


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: block("adamnode", denominator="softplus"), "denominator='softplus', eps="),
        (lambda: block("momentumnode", damping="nesterov", shift=0.5), "damping='nesterov', shift=0.5"),
        (lambda: block("ghbnode", activation="hardtanh"), "activation='hardtanh'"),
        (lambda: block("gnesterovnode", activation="identity"), "activation='identity', shift=0.0"),
    ],
)
def test_a_dynamics_tells_what_was_chosen(made, told):
    assert told in repr(made())


@pytest.mark.parametrize("name", names())
def test_a_block_is_copied_and_pickled_after_a_solve_too(name):
    made = block(name)
    x = torch.linspace(-1.0, 1.0, 6).reshape(2, 3)
    starts = {"v0": torch.ones(2, 3)} if name == "adamnode" else {}
    expected = made(x, **starts)
    expected.sum().backward()
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert torch.equal(other(x, **starts), expected)
        assert repr(other) == repr(made)
    file = io.BytesIO()
    torch.save(made, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x, **starts), expected)


def test_a_model_is_copied_and_pickled():
    model = create("adamnode", "spiral")
    assert isinstance(copy.deepcopy(model), type(model))
    again = pickle.loads(pickle.dumps(model))
    x = torch.ones(2, 2)
    assert torch.equal(again(x), model(x))


def test_signals_trainers_and_settings_print_in_a_line():
    signal = adamode.Signal(torch.linspace(0.0, 1.0, 5), torch.ones(5, 1))
    assert repr(signal) == "Signal(times: [5], values: [5, 1], kind='linear')"
    assert repr(adamode.Trainer(adamode.TrainConfig(lr=0.5))) == "Trainer(TrainConfig(lr=0.5))"


def test_the_help_of_solve_has_a_line_for_every_argument():
    told = pydoc.render_doc(adamode.solve, renderer=pydoc.plaintext)
    body = told.split("Solves dy/dt")[1]
    named = [line.split(":")[0].strip() for line in body.splitlines() if line.startswith("    ")]
    lines = {name for entry in named for name in entry.split(", ")}
    assert set(inspect.signature(adamode.solve).parameters) <= lines
    assert max(len(line) for line in body.splitlines()) <= 115


def test_the_page_of_verify_has_tables_that_fit_a_screen():
    references = ("autograd", "forward", "newton", "finite-differences", "fine-solve", "analytic")
    rows = [
        ModelRow(
            *("adamnode", "exact", None, None, "mlp", "dopri5", gradient, "shared", form, "a_h", reference),
            *(1e-13, 1e-9, True if form == "exact" else None),
        )
        for form in ("exact", "paper")
        for gradient in ("discrete", "reversible", "interpolating", "backsolve")
        for reference in references
    ]
    page = html_page(ModelReport(tuple(rows)), "")
    lines = [line.count("<td") for table in page.split("<table>")[1:] for line in table.split("<tr>")[1:]]
    assert 5 < max(lines) <= WIDEST + 3
    assert page.count("what it is") == 2  # once of each form
    for reference in ("Newton", "fine solve"):
        assert reference in page
