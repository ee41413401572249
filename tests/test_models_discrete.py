"""The discrete adjoint of the six models is the derivative of their steps.

Reference: autograd through the same steps, gradient=Direct(), in float64. The bound is 1e-12 of the
largest entry of each block of dL/dz0 and of each parameter's gradient: the two sum the same products in
another order, and what is left is rounding.
"""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from dynamics_zoo import MODELS, VARIANTS, draw, quantities, rand
from hypothesis import given, settings
from hypothesis import strategies as st

from adamode import Direct, Discrete, solve
from adamode.solvers.methods import METHODS

BOUND = 1e-12
# A quantity that is so much smaller than the gradient's largest entry is what is left of larger terms
# (one number α summed over all samples and steps, say), and has their rounding. Worst met without this:
# 2.3e-12 of a bias 400 times smaller than the largest entry, dop853 per sample with outputs inside a step,
# where the dense output's weights (coefficients up to 550) have a rounding of 1e-13.
CANCELLED = 10
MEMORY = {
    "stages": Discrete(keep="stages"),
    "state": Discrete(keep="state"),
    "checkpoints": Discrete(checkpoints=3),
}
STEPPINGS = ("shared", "per_sample")
ADAPTIVE = tuple(name for name, tableau in METHODS.items() if tableau.adaptive)
FIXED = ("rk4", "midpoint")


@dataclasses.dataclass(frozen=True)
class Case:
    """One comparison. times: of the outputs, the first is the start; dt: a fixed step, else adaptive.

    An odd seed leaves the start unobserved (its cotangent is 0), as save="end" does.
    """

    model: str
    options: dict[str, str]
    shape: tuple[int, ...] = (2, 3)
    seed: int = 0
    eps: float = 1e-3
    times: tuple[float, ...] = (0.0, 0.3, 0.55, 1.0)
    method: str = "dopri5"
    tol: float = 1e-4
    dt: float | None = None
    save: str = "times"

    def problem(self):
        """(dynamics, z0, t)."""
        backwards = self.times[-1] < self.times[0]
        drawn = draw(self.model, self.options, self.shape, self.seed, self.eps, backwards=backwards)
        return drawn.dynamics, drawn.z0.requires_grad_(), torch.tensor(self.times, dtype=torch.float64)

    def loss(self, y):
        """Σ c·y + ½ Σ y² over the observed outputs, c random."""
        c = rand(torch.Generator().manual_seed(self.seed + 1), *y.shape)
        observed = slice(1, None) if self.seed % 2 and len(y) > 1 else slice(None)
        return ((c * y)[observed]).sum() + (y[observed] ** 2).sum() / 2

    def ours(self, memory, stepping):
        """(the accepted steps of each sample, or of all, [dL/dz0 by block, …, dL/dθ, …])."""
        dynamics, z0, t = self.problem()
        how = {"rtol": self.tol, "atol": self.tol} if self.dt is None else {"dt": self.dt}
        how |= {"method": self.method, "save": self.save, "stepping": stepping, "trace": True}
        sol = solve(dynamics, z0, t, gradient=MEMORY[memory], **how)
        z_bar, *theta = torch.autograd.grad(self.loss(sol.y), (z0, *dynamics.theta()))
        samples = range(z0.shape[1]) if stepping == "per_sample" else [None]
        starts = [[row.t for row in sol.trace if row.accepted and row.sample == b] for b in samples]
        return starts, [*z_bar, *theta]

    def expected(self, starts, stepping):
        """The same by autograd, along those steps.

        Two solves do not take the same steps by themselves: stages are summed in another order, and
        where the error estimate is 1e-4 of the tolerance, the next step size has lost eight digits. So
        the steps are prescribed, sample by sample where each has its own (in the same stepping: shared and
        per sample evaluate the dense output's polynomials in another order, 1e-13 apart for dop853).
        """
        dynamics, z0, t = self.problem()
        parts = z0.split(1, dim=1) if stepping == "per_sample" else [z0]
        outputs = []
        for part, steps in zip(parts, starts, strict=True):
            prescribed = {"step_at": steps[1:], "rtol": 1e100, "atol": 1e100, "dt0": 1e100}
            if self.dt is not None:
                prescribed = {"dt": self.dt}
            how = {**prescribed, "method": self.method, "save": self.save, "stepping": stepping}
            sol = solve(dynamics, part, t, gradient=Direct(), **how)
            assert int(sol.stats.n_accepted) == len(steps)
            outputs.append(sol.y)
        y = torch.cat(outputs, dim=2)
        z_bar, *theta = torch.autograd.grad(self.loss(y), (z0, *dynamics.theta()))
        return [*z_bar, *theta]

    def errors(self, memories=tuple(MEMORY), steppings=STEPPINGS):
        """{(quantity, memory, stepping): relative error}."""
        found, names, known = {}, quantities(self.problem()[0]), {}
        for stepping, memory in itertools.product(steppings, memories):
            starts, got = self.ours(memory, stepping)
            key = (stepping, *map(tuple, starts))
            if key not in known:
                known[key] = self.expected(starts, stepping)
            largest = max(y.abs().max().item() for y in known[key])
            for name, x, y in zip(names, got, known[key], strict=True):
                scale = max(y.abs().max().item(), largest / CANCELLED)
                assert y.abs().max() > 0, f"{name}: nothing to compare"
                found[name, memory, stepping] = (x - y).abs().max().item() / scale
        return found

    def judge(self, **which):
        """Raises where a quantity is past the bound (NaN is)."""
        bad = {key: e for key, e in self.errors(**which).items() if not e <= BOUND}
        assert not bad, f"{self}: {bad}"


SHAPES = st.one_of(
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(2, 4), st.integers(1, 3)),
)


@st.composite
def drawn_times(draw_one):
    """2 … 5 times, up or down, from any start."""
    start = draw_one(st.floats(-1.0, 1.0))
    inner = draw_one(st.lists(st.floats(0.02, 0.98), max_size=3, unique=True))
    span = draw_one(st.sampled_from([0.5, 1.0, 2.0])) * draw_one(st.sampled_from([1, -1]))
    return tuple(start + span * x for x in (0.0, *sorted(inner), 1.0))


@st.composite
def cases(draw_one, model):
    method = draw_one(st.sampled_from((*ADAPTIVE, *FIXED)))
    fixed = not METHODS[method].adaptive or draw_one(st.booleans())
    lowest = 3 if METHODS[method].order < 4 else 7  # a low order at 1e-7 takes hundreds of steps
    return Case(
        model,
        draw_one(st.sampled_from(MODELS[model])),
        shape=draw_one(SHAPES),
        seed=draw_one(st.integers(0, 10_000)),
        eps=10.0 ** draw_one(st.floats(-3.0, 0.0)),
        times=draw_one(drawn_times()),
        method=method,
        tol=10.0 ** -draw_one(st.floats(3.0, float(lowest))) if not fixed else 1e-3,
        dt=draw_one(st.sampled_from([0.11, 0.25])) if fixed else None,
        save=draw_one(st.sampled_from(["times", "end"])),
    )


def discrete_equals_autograd(model, examples):
    """The property for one model, over that many drawn cases."""

    @settings(max_examples=examples, deadline=None, derandomize=True)
    @given(case=cases(model), memory=st.sampled_from(sorted(MEMORY)), stepping=st.sampled_from(STEPPINGS))
    def holds(case, memory, stepping):
        case.judge(memories=(memory,), steppings=(stepping,))

    holds()


@pytest.mark.parametrize("model", MODELS)
def test_discrete_equals_autograd_through_the_same_steps(model):
    discrete_equals_autograd(model, 5)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_discrete_equals_autograd_in_many_drawn_cases(model):
    discrete_equals_autograd(model, 150)


@pytest.mark.slow
@pytest.mark.parametrize("method", [*ADAPTIVE, *FIXED])
@pytest.mark.parametrize(("model", "options"), VARIANTS)
def test_every_model_method_memory_and_stepping(model, options, method):
    """The whole product; outputs inside steps, up and down."""
    for times in ((0.0, 0.3, 0.55, 1.0), (0.4, 0.35, -0.1, -0.6)):
        for how in ({"dt": 0.13}, {"tol": 1e-4})[: 2 if METHODS[method].adaptive else 1]:
            Case(model, options, times=times, method=method, **how).judge()


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize(("model", "options"), VARIANTS)
def test_gradcheck_in_the_state_and_every_parameter(model, options, stepping):
    """Fixed steps, so that the numbers are a smooth function of state and parameters."""
    drawn = draw(model, options, (1, 2), seed=5)
    dynamics, t = drawn.dynamics, torch.tensor([0.0, 0.2, 0.5], dtype=torch.float64)
    theta = dynamics.theta()

    def run(z0, *_):
        return solve(dynamics, z0, t, dt=0.25, method="bosh3", stepping=stepping).y

    assert torch.autograd.gradcheck(run, (drawn.z0.requires_grad_(), *theta), fast_mode=True)


def test_the_comparison_sees_one_wrong_factor(monkeypatch):
    """The negative control: m̄ without its γ."""
    from adamode.models.dynamics import HeavyBallODE

    whole = HeavyBallODE.vjp

    def wrong(self, saved, cotangent):
        z_bar, deltas = whole(self, saved, cotangent)
        return torch.stack((z_bar[0], -cotangent[0])), deltas

    monkeypatch.setattr(HeavyBallODE, "vjp", wrong)
    with pytest.raises(AssertionError, match="'m', 'stages', 'shared'"):
        Case("hbnode", {}).judge(memories=("stages",), steppings=("shared",))
