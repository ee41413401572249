"""func may write every result into one and the same tensor: what it returned is read before its next call."""

from __future__ import annotations

import math

import pytest
import torch
from problems import EVERY_GRADIENT

import adamode

RATE, END, INSIDE = 0.8, 1.0, 0.33  # INSIDE lies in a step for every method here

WAYS = {
    "adaptive": {},
    "per sample": {"stepping": "per_sample"},
    "per sample, outputs at the end": {"stepping": "per_sample", "save": "end"},
    "a first step given": {"dt0": 0.1},
    "fixed": {"dt": 0.25},
    "fixed, per sample": {"dt": 0.25, "stepping": "per_sample"},
    "queued": {"sync_every": 4},
    "a jump": {"jump_at": [0.5]},
    "a jump, per sample": {"jump_at": [0.5], "stepping": "per_sample"},
}


class OneBuffer:
    """y' = −k y, in one tensor for all calls."""

    def __init__(self, k: torch.Tensor, like: torch.Tensor):
        self.k, self.buffer = k, torch.empty_like(like)

    def __call__(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.buffer.copy_(-self.k * y)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("method", "sign"), [("dopri5", 1), ("bosh3", -1), ("dopri8", -1), ("rk4", 1)])
def test_one_buffer_for_all_results_changes_neither_values_nor_gradients(
    way: str, method: str, sign: int
) -> None:
    options = dict(WAYS[way])
    if method == "rk4" and "dt" not in options:
        options["dt"] = 0.25
        options.pop("sync_every", None)
        options.pop("dt0", None)
    t = torch.tensor([0.0, sign * INSIDE, sign * END], dtype=torch.float64)
    if "jump_at" in options:
        options["jump_at"] = [sign * x for x in options["jump_at"]]
    for gradient in (*EVERY_GRADIENT, None):
        if "sync_every" in options and isinstance(gradient, adamode.Direct | adamode.Reversible):
            continue
        found = []
        for one in (True, False):
            k = torch.tensor(sign * RATE, dtype=torch.float64, requires_grad=True)
            y0 = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
            f = OneBuffer(k, y0.detach()) if one else lambda t, y, k=k: -k * y
            with torch.set_grad_enabled(gradient is not None):
                sol = adamode.solve(
                    f, y0, t, method=method, rtol=1e-5, atol=1e-7, gradient=gradient, **options
                )
            numbers = [sol.y.detach()]
            if gradient is not None:
                numbers += torch.autograd.grad(sol.y.sum(), (y0, k))
            found.append(numbers)
        for ours, usual in zip(*found, strict=True):
            assert torch.allclose(ours, usual, rtol=1e-13, atol=1e-15), (gradient, options, ours, usual)
        assert math.isclose(found[0][0][-1, 0].item(), math.exp(-RATE), rel_tol=1e-3)  # dt = .25: bosh3 3e-4


@pytest.mark.parametrize("face", [adamode.odeint, adamode.odeint_adjoint])
@pytest.mark.parametrize("method", ["dopri5", "heun2", "heun3", "rk4", "midpoint", "bosh3"])
def test_one_buffer_through_the_other_face(face: object, method: str) -> None:
    y0, t = torch.ones(1, dtype=torch.float64), torch.linspace(0, 1, 11, dtype=torch.float64)
    f = OneBuffer(torch.tensor(1.0, dtype=torch.float64), y0)
    options = {"adjoint_params": ()} if face is adamode.odeint_adjoint else {}
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            ours = face(f, y0, t, method=method, **options)
            usual = face(lambda t, y: -y, y0, t, method=method, **options)
        assert torch.equal(ours, usual)


def test_a_func_that_returns_its_parameter_itself_has_that_parameters_gradient() -> None:
    for gradient in EVERY_GRADIENT:
        p = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
        y0 = torch.ones(1, dtype=torch.float64)
        sol = adamode.solve(lambda t, y, p=p: p, y0, torch.tensor([0.0, 3.0]).double(), gradient=gradient)
        (grad,) = torch.autograd.grad(sol.y[-1].sum(), p)
        assert grad.item() == pytest.approx(3.0, rel=1e-9)


def test_a_second_derivative_of_times_reads_one_buffer_before_it_is_written_again() -> None:
    """y = exp(−k (t − t0)): d²y/dt² = k² y."""
    k = torch.tensor(0.8, dtype=torch.float64)
    y0 = torch.ones(1, dtype=torch.float64)
    t = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    f = OneBuffer(k, y0)
    y = adamode.odeint(lambda t, y: f(t, y), y0, t, rtol=1e-10, atol=1e-12)
    (first,) = torch.autograd.grad(y[-1].sum(), t, create_graph=True)
    (second,) = torch.autograd.grad(first[1], t)
    assert second[1].item() == pytest.approx(0.64 * math.exp(-0.8), rel=1e-6)
