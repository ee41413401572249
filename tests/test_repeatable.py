"""A func that gives another value when evaluated again is found where an adjoint does that."""

from __future__ import annotations

import pytest
import torch

import adamode
from adamode.adjoint.torchdiffeq import manners as face

T = torch.tensor([0.0, 1.0])


class Dropped(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.5))

    def forward(self, t, y):
        return torch.tanh(self.net(y))


ANEW = [
    adamode.Discrete(keep="state"),
    adamode.Discrete(checkpoints=2),
    adamode.Interpolating(),
    adamode.Backsolve(),
]


def loss(func, gradient, stepping):
    y0 = torch.randn(4, 8, requires_grad=True)
    # Fixed steps: an adaptive solve of a random func is another matter.
    return adamode.solve(func, y0, T, gradient=gradient, stepping=stepping, dt=0.25).y[-1].sum()


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
@pytest.mark.parametrize("gradient", ANEW, ids=lambda g: f"{type(g).__name__}")
def test_dropout_is_an_error_where_stages_are_evaluated_anew(gradient, stepping):
    with pytest.raises(adamode.NotRepeatableError, match=r"dropout.*func\.eval\(\)"):
        loss(Dropped(), gradient, stepping).backward()


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
@pytest.mark.parametrize("gradient", ANEW, ids=lambda g: f"{type(g).__name__}")
def test_a_repeatable_func_passes(gradient, stepping):
    loss(Dropped().eval(), gradient, stepping).backward()


@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
@pytest.mark.parametrize("gradient", ANEW, ids=lambda g: f"{type(g).__name__}")
def test_dropout_is_an_error_for_a_question_asked_later(gradient, stepping):
    y0 = torch.randn(4, 8, requires_grad=True)
    sol = adamode.solve(Dropped(), y0, T, gradient=gradient, stepping=stepping, dt=0.25, dense=True)
    with pytest.raises(adamode.NotRepeatableError):
        sol(torch.tensor(0.6)).sum().backward()


def test_kept_stages_are_the_ones_differentiated():
    loss(Dropped(), adamode.Discrete(), "shared").backward()


def test_torchdiffeqs_face_warns_and_goes_on(monkeypatch):
    monkeypatch.setattr(face, "_warned", set())
    func, y0 = Dropped(), torch.randn(4, 8, requires_grad=True)
    out = adamode.odeint_adjoint(func, y0, T, method="rk4")
    with pytest.warns(adamode.AdamodeWarning) as said:
        out[-1].sum().backward()
    assert any("evaluated again at" in str(one.message) for one in said)
