"""The mutants of the dynamics' files: what is made, and that every one is found."""

from __future__ import annotations

import sys
import types

import pytest
from dynamics_zoo import CLASSES, faults
from mutants import MODELS, equivalent, mutants, text_of

COUNTS = {
    "node": 4,
    "anode": 0,
    "sonode": 20,
    "hbnode": 0,  # its equations, and nesterovnode's, are momentumnode's
    "ghbnode": 49,
    "adamnode": 102,
    "nesterovnode": 0,
    "gnesterovnode": 64,
    "momentumnode": 56,
}
KINDS = {
    "sonode": {"sign", "name", "constant"},
    "momentumnode": {"sign", "factor", "name", "constant"},
    "gnesterovnode": {"sign", "factor", "name", "constant"},
    "ghbnode": {"sign", "factor", "name", "constant"},
    "adamnode": {"sign", "factor", "name", "constant"},
}


def load(model, source):
    """The model's class out of another source of its file."""
    name = f"adamode.models.dynamics._mutant_{model}"
    module = types.ModuleType(name)
    module.__package__ = "adamode.models.dynamics"
    sys.modules[name] = module  # pickling and dataclasses look there
    try:
        exec(compile(source, f"{model}.py", "exec"), module.__dict__)
    finally:
        del sys.modules[name]
    return getattr(module, CLASSES[model].__name__)


@pytest.mark.parametrize("model", MODELS)
def test_the_original_has_no_fault(model):
    assert faults(model) == []
    assert faults(model, load(model, text_of(model))) == []


@pytest.mark.parametrize("model", MODELS)
def test_every_mutant_differs_and_compiles(model):
    text = text_of(model)
    made = mutants(model)
    sources = [m.source(text) for m in made]
    for source in sources:
        assert source != text
        assert source.count("\n") == text.count("\n")
        compile(source, model, "exec")
    assert {m.kind for m in made} >= KINDS.get(model, set())
    if model in COUNTS:
        assert len(made) == COUNTS[model]


@pytest.mark.parametrize("model", MODELS)
def test_every_mutant_is_found_by_comparing_with_the_equation_under_autograd(model):
    text, survived = text_of(model), []
    for mutant in mutants(model):
        try:
            found = faults(model, load(model, mutant.source(text)))
        except Exception as error:  # a mutant may fail in any way; that finds it
            found = [type(error).__name__]
        if not found and equivalent(mutant) is None:
            survived.append(str(mutant))
    assert not survived
