"""What torchdiffeq takes, its face takes: tolerances, states, results and options as programs give them."""

import math

import numpy as np
import pytest
import torch
import torchdiffeq
from problems import f64

import adamode

FADING = f64(1.0, math.exp(-1.0))


def decay(t, y):
    return -y


def solved(y0=None, **arguments):
    return adamode.odeint(decay, f64(1.0, 2.0) if y0 is None else y0, f64(0.0, 1.0), **arguments)


@pytest.mark.parametrize(
    "tolerances",
    [
        {"rtol": 0.0},
        {"atol": 0.0},
        {"rtol": np.float32(1e-6), "atol": np.float64(1e-8)},
        {"rtol": torch.tensor([0.0, 1e-7]), "atol": torch.tensor(1e-9)},
    ],
    ids=["no rtol", "no atol", "numpy", "tensor"],
)
def test_a_tolerance_may_be_zero_beside_a_positive_one_and_of_any_number_type(tolerances):
    assert torch.allclose(solved(**tolerances)[:, 0], FADING, atol=1e-5)


@pytest.mark.parametrize("solver", [adamode.odeint, adamode.odeint_adjoint])
def test_two_zero_tolerances_are_refused(solver):
    more = {} if solver is adamode.odeint else {"adjoint_params": ()}
    with pytest.raises(ValueError, match="rtol and atol are both 0"):
        solver(decay, f64(1.0), f64(0.0, 1.0), rtol=0.0, atol=0.0, **more)


def test_a_tolerance_that_requires_a_gradient_is_refused():
    with pytest.raises(ValueError, match="rtol requires a gradient"):
        solved(rtol=torch.tensor(1e-3, requires_grad=True))
    with pytest.raises(ValueError, match="atol requires a gradient"):
        adamode.solve(decay, f64(1.0), f64(0.0, 1.0), atol=torch.tensor([1e-3], requires_grad=True))


def test_one_tolerance_tensor_holds_one_number_a_member():
    pair = (f64(1.0, 2.0, 3.0), f64(1.0)[0])
    arguments = {"rtol": torch.tensor([1e-3, 1e-6]), "atol": torch.tensor([1e-4, 1e-7])}
    found = adamode.odeint(lambda t, y: (-y[0], -y[1]), pair, f64(0.0, 1.0), **arguments)
    wanted = torchdiffeq.odeint(lambda t, y: (-y[0], -y[1]), pair, f64(0.0, 1.0), **arguments)
    assert torch.allclose(found[0], wanted[0], atol=1e-4)
    assert torch.allclose(found[1], wanted[1], atol=1e-4)


def test_members_of_two_precisions_are_solved_in_the_finer_one():
    found = adamode.odeint(lambda t, y: (-y[0], -y[1]), (torch.ones(2), f64(1.0)), f64(0.0, 1.0))
    assert [y.dtype for y in found] == [torch.float64, torch.float64]
    assert torch.allclose(found[0][:, 0], FADING, atol=1e-7)


def test_members_of_no_dimension_and_of_no_entry_are_solved():
    y0 = (f64(1.0)[0], f64(1.0, 2.0)[:0], f64(1.0, 2.0)[None])
    found = adamode.odeint(lambda t, y: tuple(-x for x in y), y0, f64(0.0, 1.0))
    assert [tuple(y.shape) for y in found] == [(2,), (2, 0), (2, 1, 2)]
    assert torch.allclose(found[0], FADING, atol=1e-7)


def test_a_result_may_differ_by_axes_of_length_one():
    y0 = (f64(1.0, 2.0), f64(1.0, 2.0)[:, None])
    found = adamode.odeint(lambda t, y: (-y[0][:, None], -y[1][:, 0]), y0, f64(0.0, 1.0))
    assert [tuple(y.shape) for y in found] == [(2, 2), (2, 2, 1)]
    assert torch.allclose(found[0][:, 0], FADING, atol=1e-7)
    assert torch.allclose(found[1][:, 0, 0], FADING, atol=1e-7)


def test_a_transposed_result_is_still_refused():
    with pytest.raises(ValueError, match=r"shape \(3, 2\) for a state of shape \(2, 3\)"):
        adamode.odeint(lambda t, y: -y.reshape(3, 2), torch.ones(2, 3), f64(0.0, 1.0))
    with pytest.raises(ValueError, match=r"shape \(1, 2\) for a state of shape \(2,\)"):
        adamode.solve(lambda t, y: -y[None], torch.ones(2), f64(0.0, 1.0))


def test_a_sparse_state_is_refused_by_name():
    with pytest.raises(TypeError, match=r"y0 is a torch\.sparse_coo tensor"):
        solved(torch.eye(2).to_sparse())


@pytest.mark.parametrize("solver", [adamode.odeint, adamode.odeint_adjoint])
def test_with_one_time_the_answer_is_a_copy(solver):
    y0 = f64(1.0, 2.0)
    more = {} if solver is adamode.odeint else {"adjoint_params": ()}
    solver(decay, y0, f64(0.0), **more).add_(5)
    assert torch.equal(y0, f64(1.0, 2.0))


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
def test_steps_that_stand_at_the_least_length_go_on_to_the_end(stepping):
    if stepping == "shared":
        y = solved(options={"min_step": 0.2}, rtol=1e-12, atol=1e-12)
    else:
        controller = adamode.PID(dt_min=0.2, force_dt_min=True)
        y = adamode.solve(
            decay,
            f64(1.0, 2.0)[:, None],
            f64(0.0, 1.0),
            stepping=stepping,
            controller=controller,
            rtol=1e-12,
            atol=1e-12,
            max_steps=50,
        ).y[:, :, 0]
    assert torch.allclose(y[:, 0], FADING, atol=1e-4)
    assert (y[-1, 0] - FADING[-1]).abs() > 1e-10  # longer steps than the tolerance would have


def test_a_step_may_be_forbidden_to_grow():
    lengths = []

    class Field(torch.nn.Module):
        def forward(self, t, y):
            return -y

        def callback_accept_step(self, t0, y0, dt):
            lengths.append(float(dt))

    adamode.odeint(Field(), f64(1.0), f64(0.0, 1.0), options={"ifactor": 1.0, "first_step": 0.1})
    assert max(lengths) <= 0.1 * 1.001


def test_a_very_long_interval_begins_with_a_short_step():
    y = adamode.odeint(lambda t, y: -y / (1 + t) ** 2, f64(1.0), f64(0.0, 1e30), rtol=1e-8)
    assert float(y[-1]) == pytest.approx(math.exp(-1.0), rel=1e-6)


def test_a_float32_state_is_rounded_once_a_step_and_not_once_a_stage():
    y0, t = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 10.0])

    def swing(t, y):
        return torch.stack((y[1], -y[0]))

    exact = f64(math.cos(10.0), -math.sin(10.0))
    with torch.no_grad():
        buffered = adamode.odeint(swing, y0, t, method="rk4", options={"step_size": 0.01})[-1]
    listed = adamode.odeint(swing, y0.requires_grad_(), t, method="rk4", options={"step_size": 0.01})[-1]
    for y in (buffered, listed.detach()):  # 1.4e-6 where each stage was added to the state
        assert (y.double() - exact).abs().max() < 9e-7


@pytest.mark.parametrize("name", ["safety", "ifactor", "dfactor", "min_step", "max_step", "max_num_steps"])
def test_an_option_that_is_none_and_has_no_such_meaning_is_refused_by_name(name):
    with pytest.raises(adamode.ArgumentTypeError, match=rf"options\['{name}'\]=None must be a number"):
        solved(options={name: None})
    assert torch.equal(solved(options={"first_step": None}), solved())  # here it has one
