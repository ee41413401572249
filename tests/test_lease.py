"""Memory of whole solves is lent, and used again only when nobody needs it."""

from __future__ import annotations

import gc

import pytest
import torch
from dynamics_zoo import draw
from problems import f64
from whole_solves import plain

from adamode import Discrete, solve
from adamode.solvers.device.lease import KEPT, Lease, forget

TIMES = f64(0.0, 0.4, 1.0)


@pytest.fixture(autouse=True)
def _nothing_idle():
    forget()
    yield
    forget()


def test_a_piece_given_back_is_lent_again_to_one_of_its_form_alone():
    first = Lease("a", list)
    memory = first.memory
    assert Lease("a", list).memory is not memory, "lent to two"
    del first
    assert Lease("b", list).memory is not memory
    assert Lease("a", list).memory is memory


def test_few_pieces_are_kept():
    held = [Lease("a", object) for _ in range(KEPT + 3)]
    given = [lease.memory for lease in held]
    held.clear()
    again = [Lease("a", object) for _ in given]
    assert sum(lease.memory in given for lease in again) == KEPT


def test_a_piece_that_could_not_be_made_is_not_kept():
    def fails():
        raise MemoryError

    with pytest.raises(MemoryError):
        Lease("a", fails)
    gc.collect()
    assert Lease("a", object).memory is not None


def gradients(sol, y0, theta, **options):
    return torch.autograd.grad(torch.sin(sol.y[1:]).sum(), [y0, *theta], **options)


@pytest.mark.native
@pytest.mark.parametrize("stepping", ["shared", "per_sample"])
@pytest.mark.parametrize("keep", ["stages", "state"])
def test_solves_that_live_together_keep_their_own_steps(stepping, keep):
    """Three solves of one form, whose ways back come in another order, one twice; then one on used memory."""
    drawn = draw("adamnode", {"denominator": "softplus"})
    theta = [p for p in drawn.dynamics.theta() if p.requires_grad]
    options = {"stepping": stepping, "gradient": Discrete(keep=keep), "rtol": 1e-4, "atol": 1e-5}

    def begun(scale, **more):
        y0 = (scale * drawn.z0.detach()).requires_grad_()
        return y0, solve(drawn.dynamics, y0, TIMES, **options, **more)

    scales = (1.0, 0.7, 1.2)
    expected = [gradients(sol, y0, theta) for y0, sol in map(begun, scales)]
    with plain() as made:
        alive = [begun(scale, compile=True) for scale in scales]
        for i in (1, 0, 2):
            y0, sol = alive[i]
            first = gradients(sol, y0, theta, retain_graph=True)
            for found in (first, gradients(sol, y0, theta)):
                for x, y in zip(found, expected[i], strict=True):
                    torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-12)
        values = [sol.y.detach().clone() for _, sol in alive]
        del alive, sol
        y0, sol = begun(scales[0], compile=True)
        later = gradients(sol, y0, theta)
    assert made == [True] * 4
    assert torch.equal(sol.y.detach(), values[0])
    for x, y in zip(later, expected[0], strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-12)


@pytest.mark.native
def test_what_comes_out_lies_in_no_memory_that_is_lent():
    drawn = draw("adamnode", {"denominator": "softplus"})
    with plain():
        outs = []
        for scale in (1.0, 0.5):
            sol = solve(drawn.dynamics, scale * drawn.z0, TIMES, gradient=Discrete(), compile=True)
            outs.append((sol.y, sol.y.detach().clone()))
            del sol
            gc.collect()
        solve(drawn.dynamics, 0.1 * drawn.z0, TIMES, gradient=Discrete(), compile=True)
    for y, before in outs:
        assert torch.equal(y.detach(), before)


@pytest.mark.native
@pytest.mark.parametrize(("keep", "again"), [("stages", 0), ("state", 1)])
def test_stages_are_taken_again_only_where_they_are_not_kept(keep, again):
    drawn = draw("adamnode", {"denominator": "softplus"})
    y0 = drawn.z0.detach().requires_grad_()
    with plain() as made:
        sol = solve(drawn.dynamics, y0, TIMES, gradient=Discrete(keep=keep), compile=True)
        sol.y.sum().backward()
    stages = 6 * sol.stats.n_accepted
    assert made == [True]
    assert sol.stats.nfe_recomputed == 1 + again * stages
    assert sol.stats.nfe_backward == 1 + stages
