"""Names shared with torchdiffeq 0.2.5 mean the same method there and here."""

import pytest
import torch

from adamode.solvers.methods import METHODS

torchdiffeq = pytest.importorskip("torchdiffeq")
solvers = pytest.importorskip("torchdiffeq._impl.odeint").SOLVERS


def one_step(tableau, f, y, h):
    stages = []
    for row, c in zip(tableau.a, tableau.c, strict=True):
        stages.append(f(float(c) * h, y + h * sum(float(w) * k for w, k in zip(row, stages, strict=True))))
    return y + h * sum(float(w) * k for w, k in zip(tableau.b, stages, strict=True))


@pytest.mark.parametrize("name", ["euler", "midpoint", "heun2", "heun3", "rk4"])
def test_a_fixed_step_is_the_same_step(name):
    def f(t, y):
        return torch.sin(y.flip(0)) + t * y

    y = torch.tensor([0.3, 1.1], dtype=torch.float64)
    theirs = torchdiffeq.odeint(f, y, torch.tensor([0.0, 0.25], dtype=torch.float64), method=name)[-1]
    torch.testing.assert_close(one_step(METHODS[name], f, y, 0.25), theirs, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("name", ["adaptive_heun", "fehlberg2", "bosh3", "dopri8"])
def test_stages_weights_and_error_estimate_are_the_same(name):
    ours, theirs = METHODS[name], solvers[name].tableau
    count = len(theirs.alpha)  # of the stages after the first
    assert theirs.alpha.tolist() == pytest.approx([float(c) for c in ours.nodes()[1 : count + 1]], rel=1e-15)
    for row, beta in zip(ours.rows()[1:], theirs.beta, strict=False):
        assert beta.tolist() == pytest.approx([float(w) for w in row[: len(beta)]], rel=1e-15)
    weights = [float(w) for w in ours.b]
    assert theirs.c_sol.tolist()[: len(weights)] == pytest.approx(weights, rel=1e-15)
    error = [float(w) for w in ours.errors()[0]][: len(theirs.c_error)]
    sign = 1 if error[0] * theirs.c_error[0] > 0 else -1  # the norm does not see it
    assert (sign * theirs.c_error).tolist() == pytest.approx(error, rel=1e-13, abs=1e-16)
