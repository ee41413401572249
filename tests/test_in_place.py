"""A func that changes its y in place is an error, not another solution."""

from __future__ import annotations

import pytest
import torch

import adamode

T = torch.tensor([0.0, 1.0])


def decays(t, y):
    y *= -1
    return y


def member_decays(t, y):
    y["a"].neg_()
    return {"a": y["a"], "b": y["b"] * 0}


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
@pytest.mark.parametrize("gradient", [None, adamode.Discrete(), adamode.Backsolve()], ids=str)
def test_a_change_in_place_is_an_error_that_says_so(gradient, stepping):
    with pytest.raises((adamode.DynamicsError, RuntimeError), match=r"in.place"):
        adamode.solve(decays, torch.ones(2, 3), T, gradient=gradient, stepping=stepping, params=())


def test_a_member_changed_in_place_is_one_too():
    state = {"a": torch.ones(2, 3), "b": torch.ones(2)}
    with pytest.raises(adamode.DynamicsError, match="changed its y in place"):
        adamode.solve(member_decays, state, T, gradient=None)


def test_torchdiffeqs_face_says_it_as_well():
    with pytest.raises(AssertionError, match="changed its y in place"), torch.no_grad():
        adamode.odeint(decays, torch.ones(2, 3), T)


def test_changing_a_copy_is_fine():
    def func(t, y):
        y = y.clone()
        y *= -1
        return y

    y = adamode.solve(func, torch.ones(2, 3), T, gradient=None).y
    assert torch.allclose(y[-1], torch.full((2, 3), 0.36788), atol=1e-4)


def test_inference_mode_works():
    with torch.inference_mode():
        y = adamode.solve(lambda t, y: -y, torch.ones(2, 3), T).y
    assert y.shape == (2, 2, 3)
