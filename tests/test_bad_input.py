"""Bad input to `solve`: an error of this project, at the door, that names argument, value and way out."""

import math

import pytest
import torch
from problems import Net, Swing, f64

import adamode
from adamode import AdamodeError, ArgumentError, ArgumentTypeError, DynamicsError, solve

Y0 = torch.ones(2, 3, dtype=torch.float64)
T = f64(0.0, 1.0)


def never(t, y):
    pytest.fail("func was called: the error must come at the door")


def refused(kind, text, *, func=never, y0=Y0, t=T, **options):
    """The error, raised before func is called; both builtin parents hold."""
    with pytest.raises(kind, match=text) as caught:
        solve(func, y0, t, **options)
    assert isinstance(caught.value, AdamodeError)
    builtin = TypeError if issubclass(kind, ArgumentTypeError) else ValueError
    assert isinstance(caught.value, builtin)
    return str(caught.value)


# Tolerances


@pytest.mark.parametrize("name", ["rtol", "atol"])
@pytest.mark.parametrize("value", [0.0, -1e-3, math.nan, math.inf, -0.0])
def test_a_tolerance_that_is_not_positive_and_finite(name, value):
    refused(ArgumentError, f"{name}={value!r}", **{name: value})


@pytest.mark.parametrize("name", ["rtol", "atol"])
@pytest.mark.parametrize("value", ["1e-3", None, True, 1j])
def test_a_tolerance_that_is_no_number(name, value):
    refused(ArgumentTypeError, name, **{name: value})


@pytest.mark.parametrize("name", ["rtol", "atol"])
@pytest.mark.parametrize(
    "value", [f64(1e-3, math.nan, 1e-3), f64(1e-3, -1.0, 1e-3), f64(1e-3, math.inf, 1e-3)], ids=str
)
def test_a_tensor_of_tolerances_with_a_bad_entry(name, value):
    refused(ArgumentError, name, **{name: value})


@pytest.mark.parametrize("name", ["rtol", "atol"])
def test_tolerances_that_do_not_fit_the_state(name):
    refused(ArgumentError, r"\(4,\)", **{name: f64(1e-3, 1e-3, 1e-3, 1e-3)})
    refused(ArgumentError, "3 entries", **{name: (1e-3, 1e-3, 1e-3)})
    refused(ArgumentError, "3 entries", y0=(Y0, Y0), **{name: (1e-3, 1e-3, 1e-3)})
    refused(ArgumentError, rf"{name}\[1\]=-1.0", y0=(Y0, Y0), **{name: (1e-3, -1.0)})


def test_an_rtol_that_the_dtype_cannot_resolve():
    text = refused(ArgumentError, "rtol=1e-08", y0=torch.ones(2), t=torch.tensor([0.0, 1.0]), rtol=1e-8)
    assert "float64" in text
    refused(ArgumentError, "rtol", rtol=1e-16)


# Times


@pytest.mark.parametrize(
    ("t", "text"),
    [
        (f64(0.0, 0.0), r"t\[0\]=0.0"),
        (f64(0.0, 1.0, 0.5), r"t\[1\]=1.0"),
        (f64(1.0, 0.0, 0.5), "strictly"),
        (f64(0.0, 1.0, 1.0), r"t\[2\]"),
        (f64(0.0, math.nan), r"t\[1\] is nan"),
        (f64(0.0, math.inf), r"t\[1\] is inf"),
        (f64(-math.inf, 0.0), r"t\[0\] is -inf"),
        (f64(0.0), "1 entries"),
        (f64(), "0 entries"),
        (f64(0.0, 1.0)[None], r"shape \(1, 2\)"),
        (f64(1.0)[0], "shape"),
    ],
)
def test_times_equal_unordered_not_finite_or_too_few(t, text):
    refused(ArgumentError, text, t=t)


@pytest.mark.parametrize(
    "t", [torch.tensor([0, 1]), [0.0, 1.0], (0.0, 1.0), 1.0, None, torch.tensor([True, False])], ids=str
)
def test_times_that_are_no_tensor_of_floats(t):
    refused(ArgumentTypeError, "t ", t=t)


def test_complex_times():
    refused(ArgumentTypeError, "complex", t=torch.tensor([0.0, 1.0], dtype=torch.complex64))


# State


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_state_that_is_not_finite_names_the_entry(bad):
    y0 = Y0.clone()
    y0[1, 2] = bad
    refused(ArgumentError, rf"{bad} at index \(1, 2\)", y0=y0)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool, torch.uint8])
def test_a_state_of_integers_or_another_kind(dtype):
    text = refused(ArgumentTypeError, str(dtype), y0=torch.ones(2, 3, dtype=dtype))
    assert "float32" in text


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_state_in_half_precision_needs_a_tolerance_for_it(dtype):
    text = refused(ArgumentError, str(dtype), y0=torch.ones(2, 3, dtype=dtype))
    assert "autocast" in text


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0,)])
def test_a_batch_of_size_zero(shape):
    refused(ArgumentError, "empty", y0=torch.ones(shape))


@pytest.mark.parametrize("y0", [1.0, [1.0, 2.0], None, "y"], ids=str)
def test_a_state_that_is_no_tensor(y0):
    with pytest.raises(AdamodeError, match="y0"):
        solve(never, y0, T)


def test_members_of_several_dtypes():
    refused(ArgumentError, "several dtypes", y0=(torch.ones(2), torch.ones(2).double()))


def test_a_dynamics_whose_state_is_no_single_tensor():
    with pytest.raises(ArgumentTypeError, match=r"\[K, B, \*S\]"):
        solve(Swing(), (Y0, Y0), T)


# Names and choices


def test_an_unknown_argument_gets_the_nearest_name():
    text = refused(ArgumentTypeError, "'rtoll'", rtoll=1e-3)
    assert "'rtol'" in text
    assert "'max_steps'" in refused(ArgumentTypeError, "max_step", max_step=3)


@pytest.mark.parametrize(
    ("name", "near"), [("dopri", "dopri5"), ("Dopri5", "dopri5"), ("rk45", "rk4"), (5, ""), (None, "")]
)
def test_an_unknown_method_gets_the_nearest_name(name, near):
    text = refused(ArgumentError, "method=", method=name)
    assert near in text
    assert repr(name) in text


@pytest.mark.parametrize("stepping", ["per-sample", "each", None, 3])
def test_an_unknown_stepping(stepping):
    with pytest.raises(AdamodeError, match="stepping"):
        solve(never, Y0, T, stepping=stepping)


@pytest.mark.parametrize("gradient", ["discrete", adamode.Discrete, 1, True])
def test_a_gradient_that_is_no_choice(gradient):
    text = refused(ArgumentTypeError, "gradient=", gradient=gradient)
    assert "Discrete" in text


def test_gradient_choices_check_themselves():
    for make, text in (
        (lambda: adamode.Discrete(keep="all"), "keep='all'"),
        (lambda: adamode.Backsolve(rtol=-1.0), "rtol=-1.0"),
        (lambda: adamode.Backsolve(atol=math.nan), "atol=nan"),
        (lambda: adamode.Backsolve(reconstruction_limit=0.0), "reconstruction_limit=0.0"),
        (lambda: adamode.Backsolve(norm="all"), "norm='all'"),
    ):
        with pytest.raises(ArgumentError, match=text):
            make()


def test_a_backsolve_method_that_is_unknown_is_found_at_the_door():
    with pytest.raises(ArgumentError, match="'dopri'"):
        solve(Net(), Y0.clone().requires_grad_(), T, gradient=adamode.Backsolve(method="dopri"))


@pytest.mark.parametrize("norm", ["l2", "", None, 3])
def test_an_unknown_norm(norm):
    with pytest.raises(AdamodeError, match="norm="):
        solve(never, Y0, T, norm=norm)


@pytest.mark.parametrize("controller", ["PID", adamode.PID, 0.9, None], ids=str)
def test_a_controller_that_is_none(controller):
    refused(ArgumentTypeError, "controller=", controller=controller)


@pytest.mark.parametrize("name", ["dt0", "dt"])
@pytest.mark.parametrize("value", [0.0, -0.1, math.nan, math.inf])
def test_a_step_that_is_not_positive_and_finite(name, value):
    refused(ArgumentError, name, **{name: value})


@pytest.mark.parametrize("name", ["dt0", "dt"])
def test_a_step_that_is_no_number(name):
    refused(ArgumentTypeError, name, **{name: "0.1"})


@pytest.mark.parametrize("value", [0, -1, math.inf, 1.5, "many", True, None])
def test_a_step_limit_that_is_no_positive_integer(value):
    with pytest.raises(AdamodeError, match="max_steps"):
        solve(never, Y0, T, max_steps=value)


def test_a_method_without_an_error_estimate_needs_a_step():
    text = refused(ArgumentError, "rk4", method="rk4")
    assert "dt=" in text


def test_more_fixed_steps_than_max_steps_is_an_error_and_not_a_long_wait():
    with pytest.raises(AdamodeError, match="max_steps"):
        solve(lambda t, y: -y, Y0, T, dt=1e-12, gradient=None)


@pytest.mark.parametrize("name", ["step_at", "jump_at"])
def test_stops_that_are_not_finite(name):
    refused(ArgumentError, rf"{name}\[1\]", **{name: [0.5, math.nan]})


def test_a_func_that_cannot_be_called():
    for func in (3, None, "f"):
        with pytest.raises(ArgumentTypeError, match="func"):
            solve(func, Y0, T)


@pytest.mark.parametrize(
    "params", [3, Net(), [1.0], ["w"]], ids=["number", "module", "list of numbers", "list of names"]
)
def test_params_that_are_no_tensors(params):
    refused(ArgumentTypeError, "params", params=params)
    with pytest.raises(ArgumentTypeError, match="adjoint_params"):
        adamode.odeint_adjoint(never, Y0, T, adjoint_params=params)


# What func returns


@pytest.mark.parametrize(
    "gradient", [None, adamode.Discrete(), adamode.Backsolve(), adamode.Direct()], ids=repr
)
@pytest.mark.parametrize(
    ("func", "text"),
    [
        (lambda t, y: y[0], r"shape \(3,\) for a state of shape \(2, 3\)"),
        (lambda t, y: y.sum(), r"shape \(\)"),
        (lambda t, y: y[..., None], r"shape \(2, 3, 1\)"),
        (lambda t, y: y.float(), r"torch\.float32"),
        (lambda t, y: y.long(), r"torch\.int64"),
        (lambda t, y: y.to(torch.complex128), r"torch\.complex128"),
        (lambda t, y: None, "NoneType"),
        (lambda t, y: y.detach().numpy(), "ndarray"),
        (lambda t, y: (y,), "tuple"),
        (lambda t, y: y.to("meta"), "meta"),
    ],
    ids=["shape", "scalar", "axis", "float32", "integers", "complex", "None", "numpy", "tuple", "device"],
)
def test_a_func_that_returns_the_wrong_thing(func, text, gradient):
    with pytest.raises(DynamicsError, match=text) as caught:
        solve(func, Y0.clone().requires_grad_(), T, gradient=gradient)
    assert "func" in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "func",
    [
        lambda t, y: (y[0],),
        lambda t, y: (y[0], y[1], y[0]),
        lambda t, y: (y[0], y[0]),
        lambda t, y: y[0],
        lambda t, y: (y[1], y[0]),
        lambda t, y: (y[0], 1.0),
        lambda t, y: (y[0], (y[1], y[1])),
        lambda t, y: {"a": y[0], "b": y[1]},
        lambda t, y: None,
    ],
    ids=["too few", "too many", "shape", "tensor", "order", "number", "nested", "dict", "None"],
)
def test_a_func_that_returns_the_wrong_structure(func):
    with pytest.raises(DynamicsError, match="func returned"):
        solve(func, (Y0, f64(1.0)), T, gradient=None)


@pytest.mark.parametrize("value", [None, "small", f64(1.0, 2.0), [1.0]], ids=str)
def test_a_norm_that_returns_no_number(value):
    with pytest.raises(AdamodeError, match="norm returned"):
        solve(lambda t, y: -y, Y0, T, norm=lambda y: value, gradient=None)


def test_a_norm_that_is_negative_counts_by_its_size():
    a, b = (
        solve(lambda t, y: -y, Y0, T, norm=lambda y, s=s: s * y.abs().max(), gradient=None) for s in (1, -1)
    )
    assert torch.equal(a.y, b.y)
    assert a.stats.nfe == b.stats.nfe


def test_a_dict_with_other_keys_is_not_taken_by_position():
    y0 = {"a": f64(1.0), "b": f64(2.0)}
    with pytest.raises(DynamicsError):
        solve(lambda t, y: {"a": y["b"], "c": y["a"]}, y0, T, gradient=None)
    with pytest.raises(DynamicsError):
        solve(lambda t, y: [y["a"], y["b"]], y0, T, gradient=None)
    # in another order the names decide
    sol = solve(lambda t, y: {"b": 0 * y["b"], "a": torch.ones_like(y["a"])}, y0, T, gradient=None)
    assert sol.y["a"][-1].item() == pytest.approx(2.0)
    assert sol.y["b"][-1].item() == 2.0


def test_a_list_does_for_a_tuple():
    sol = solve(lambda t, y: [-y[0], [y[1][0]]], (f64(1.0), (f64(1.0),)), T, gradient=None)
    assert sol.y[0][-1].item() == pytest.approx(math.exp(-1), rel=1e-4)
    assert sol.y[1][0][-1].item() == pytest.approx(math.e, rel=1e-4)


def test_a_func_that_needs_a_float_gets_told_by_python_itself():
    """An exception of func is not wrapped: its own traceback says it best."""
    with pytest.raises(ZeroDivisionError):
        solve(lambda t, y: y / 0 if False else 1 // 0, Y0, T)


def test_reading_answers_of_a_solve_that_failed_is_impossible():
    """No numbers come back: the error is raised by the call itself."""
    sol = None
    with pytest.raises(adamode.SolverError):
        sol = solve(lambda t, y: y * math.nan, Y0, T)
    assert sol is None
