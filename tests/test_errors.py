"""The error tree: what each derives from, that it survives pickling, what its text says."""

import pickle

import pytest

import adamode
from adamode.inspect.known import PROBLEMS
from adamode.models.known import MODELS
from adamode.solvers import errors
from adamode.solvers.errors import (
    AdamodeError,
    ArgumentError,
    SolverError,
    check_choice,
    did_you_mean,
    nearest,
    solver_error,
)
from adamode.solvers.march.host import Stats
from adamode.solvers.methods import METHODS
from adamode.solvers.status import REMEDY, Status
from adamode.train.known import DATASETS

CLASSES = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)
]
STATS = Stats(n_accepted=3, n_rejected=2)


def example(kind):
    if issubclass(kind, SolverError):
        return kind(0.25, 1e-9, Status.NON_FINITE, STATS, "Here is more.")
    if kind is errors.NotRepeatableError:
        return kind(0.5)
    return kind("argument=3 must be positive.") if kind is not errors.SecondDerivativeError else kind()


@pytest.mark.parametrize("kind", CLASSES, ids=lambda k: k.__name__)
def test_every_error_survives_pickling_with_its_text_and_attributes(kind):
    before = example(kind)
    after = pickle.loads(pickle.dumps(before))
    assert type(after) is kind
    assert str(after) == str(before) != ""
    assert repr(vars(after)) == repr(vars(before))  # as text: nan != nan


@pytest.mark.parametrize("kind", CLASSES, ids=lambda k: k.__name__)
def test_every_error_has_the_one_root_and_a_builtin(kind):
    if kind is errors.AdamodeWarning:
        assert issubclass(kind, UserWarning)
        return
    assert issubclass(kind, AdamodeError)
    builtins = (ValueError, TypeError, RuntimeError)
    assert kind is AdamodeError or issubclass(kind, builtins)
    assert kind.__doc__


@pytest.mark.parametrize(
    "kind", [k for k in CLASSES if k.__name__.startswith("Face")], ids=lambda k: k.__name__
)
def test_the_twins_of_torchdiffeqs_face_are_assertion_errors_too(kind):
    assert issubclass(kind, AssertionError)
    parent = kind.__mro__[1]
    assert not issubclass(parent, AssertionError)
    assert issubclass(parent, AdamodeError)


def test_a_failed_solve_says_where_how_far_and_what_to_do():
    error = solver_error(0.25, 1e-9, Status.MAX_STEPS, STATS, "More.")
    text = str(error)
    for part in (
        "MAX_STEPS",
        "t=0.25",
        "dt=1.000e-09",
        "3 accepted",
        "2 rejected",
        "More.",
        REMEDY[Status.MAX_STEPS],
    ):
        assert part in text
    assert (error.t, error.dt, error.status, error.stats) == (0.25, 1e-9, Status.MAX_STEPS, STATS)


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (Status.STEP_UNDERFLOW, "StepSizeUnderflow"),
        (Status.MAX_STEPS, "TooManySteps"),
        (Status.NON_FINITE, "NonFiniteDynamics"),
    ],
)
def test_each_failure_has_a_class_of_its_own(status, name):
    error = solver_error(0.0, 1.0, status, None)
    assert type(error).__name__ == name
    assert isinstance(error, RuntimeError)


def test_every_status_has_a_remedy():
    assert set(REMEDY) == set(Status)
    assert [
        s.value for s in (Status.SUCCESS, Status.MAX_STEPS, Status.STEP_UNDERFLOW, Status.NON_FINITE)
    ] == [0, 1, 2, 3]


@pytest.mark.parametrize("known", [("rk4", "dopri5"), {"rk4": 1, "dopri5": 2}], ids=["tuple", "dict"])
@pytest.mark.parametrize("value", ["rk5", "", None, 4, ["rk4"], {"rk4": 1}])
def test_what_is_none_of_the_known_words_is_refused_whatever_it_is(value, known):
    check_choice("method", "rk4", known)
    with pytest.raises(ArgumentError) as refusal:
        check_choice("method", value, known)
    assert f"method={value!r} is not known: " in str(refusal.value)


def test_the_nearest_name_is_offered_and_all_are_listed():
    text = nearest("dopri", ["rk4", "dopri5", "dopri8"])
    assert text == "did you mean 'dopri5' or 'dopri8'? Known: dopri5, dopri8, rk4."


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (["rk4", "euler"], "m='zzz' is not known: take one of euler, rk4."),
        (["rk4"], "m='zzz' is not known: take rk4."),
        ([], "m='zzz' is not known: there is none."),
    ],
)
def test_without_a_near_name_it_is_one_sentence_still(known, said):
    with pytest.raises(adamode.ArgumentError) as caught:
        check_choice("m", "zzz", known)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("short", "known", "meant"),
    [
        ("vdp", PROBLEMS, ["van-der-pol", "van-der-pol-stiff"]),  # initials
        ("VdPS", PROBLEMS, ["van-der-pol-stiff"]),
        ("Van_der_Pol", PROBLEMS, ["van-der-pol"]),
        ("robert", PROBLEMS, ["robertson"]),  # how it begins
        ("rk45", METHODS, ["rk4"]),
        ("stiff", PROBLEMS, ["van-der-pol-stiff"]),  # within
        ("b3", PROBLEMS, ["detest-b3"]),
        ("ADAMNODE", MODELS, ["adamnode"]),
        ("adam", MODELS, ["adamnode"]),
        ("box", DATASETS, ["silverbox", "silverbox-paper"]),
        ("sp", DATASETS, ["spiral"]),
        ("mnits", DATASETS, ["mnist", "moons"]),  # spelt alike
        ("spirall", ["Spiral", "spiral"], ["spiral"]),  # of two, the one of this case
        ("Spirall", ["Spiral", "spiral"], ["Spiral"]),
        ("e", DATASETS, []),  # of one letter nothing is told
        ("", DATASETS, []),
        ("--", DATASETS, []),
        ("xyz", MODELS, []),
    ],
)
def test_a_short_form_is_found(short, known, meant):
    said = did_you_mean(short, known)
    assert said == (f"did you mean {' or '.join(map(repr, meant))}? " if meant else "")


@pytest.mark.parametrize("known", [PROBLEMS[:8], MODELS, DATASETS], ids=["problems", "models", "data sets"])
def test_every_name_is_found_in_capitals_and_without_its_last_letter(known):
    for name in known:
        assert f"did you mean {name!r}" in did_you_mean(name.upper().replace("-", "_"), known)
        assert repr(name) in did_you_mean(name[:-1], known)


def test_a_failure_that_crossed_a_process_is_the_same():
    import torch

    with pytest.raises(SolverError) as caught:
        adamode.solve(lambda t, y: y * y, torch.ones(1), torch.tensor([0.0, 2.0]), gradient=None)
    after = pickle.loads(pickle.dumps(caught.value))
    assert str(after) == str(caught.value)
    assert after.t == caught.value.t
    assert after.stats == caught.value.stats or after.stats.nfe == caught.value.stats.nfe
