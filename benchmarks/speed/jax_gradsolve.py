"""gradsolve in the worker process. Its general route records and replays in float64, one mesh a trajectory.

It knows parameters of each trajectory, not weights shared by all. Two ways to say shared weights in it:

replay         the right-hand side closes over the weights, the mesh is recorded once beforehand and not
               timed: as `grad_closure` is used, and the least that a training step can take;
record-replay  the mesh is recorded in every run, as training needs when weights move; for the recording the
               weights are repeated for every trajectory, as its interface wants, for the replay they are not.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gradsolve.solvers.tsit5_replay import record_tsit5_jax
from gradsolve.warp.warp_replay import replay_solve_jax, replay_solve_saveat_jax
from jax_equations import equations

MOST = 2**28  # bytes of repeated weights


class Problem:
    """gradsolve's six members for one trajectory [K·n]. theta: the weights, or None to read them from p."""

    name, is_stiff = "benchmark", False

    def __init__(
        self, spec: dict[str, Any], shape: tuple[int, ...], times: Any, shapes: list[tuple[int, ...]]
    ):
        self.f, self.shape, self.shapes = equations(spec), shape, shapes
        self.dim, self.t0, self.t1 = int(np.prod(shape)), float(times[0]), float(times[-1])
        self.theta: Any = None

    def f_jax(self, t: Any, y: Any, p: Any) -> Any:
        """dy of one trajectory."""
        theta = self._unpack(p) if self.theta is None else self.theta
        z = y.reshape(self.shape)
        if len(self.shape) == 1:  # van der Pol: no blocks
            return self.f(theta, t, z)
        return self.f(theta, t, z[:, None])[:, 0].reshape(-1)

    def _unpack(self, p: Any) -> list[Any]:
        ends = np.cumsum([int(np.prod(s)) for s in self.shapes])
        return [part.reshape(s) for part, s in zip(jnp.split(p, ends[:-1]), self.shapes, strict=True)]


class Prepared:
    """One case in gradsolve's form: states [B, K·n] in float64."""

    def __init__(self, way: str, file: str, spec: dict[str, Any]):
        self.spec, self.kind = spec, way.split("/")[1]
        with np.load(file) as data:
            z0, w, self.times = (np.asarray(data[name], np.float64) for name in ("z0", "w", "t"))
            self.theta = tuple(jnp.asarray(data[f"theta{i}"], jnp.float64) for i in range(spec["parameters"]))
        self.state = z0.shape  # [K, B, …], or [B, 3]
        one = z0.shape[1:] if spec["equations"] == "vdp" else (z0.shape[0], *z0.shape[2:])
        self.y0 = self._rows(z0)
        self.w = jnp.asarray(np.stack([self._rows(x) for x in w], axis=1))  # [B, T − 1, K·n]
        self.problem = Problem(spec, one, self.times, [p.shape for p in self.theta])
        self.options = {"rtol": spec["tol"], "atol": spec["tol"]}
        self.function: Any = None
        self.none = np.zeros((len(self.y0), 1))
        self.problem.theta = () if self.kind == "forward" else None
        if self.kind != "forward":
            self.function = jax.jit(jax.grad(self._loss, argnums=(0, 1)))
            self._prepare_recording()

    def _rows(self, z: np.ndarray) -> np.ndarray:
        if self.spec["equations"] == "vdp":
            return z
        return np.moveaxis(z, 1, 0).reshape(z.shape[1], -1)

    def _prepare_recording(self) -> None:
        flat = np.concatenate([np.asarray(p).ravel() for p in self.theta])
        if self.kind == "record-replay":
            size = flat.nbytes * len(self.y0)
            if size > MOST:
                raise MemoryError(
                    f"its parameters are per trajectory: {len(self.y0)} copies of the weights are "
                    f"{size / 2**20:.0f} MiB"
                )
            self.repeated = np.tile(flat, (len(self.y0), 1))
        else:
            self.problem.theta = self.theta
            self.mesh = jnp.asarray(self._record(self.none)[1])

    def _record(self, params: np.ndarray) -> Any:
        """(y at the end, step sizes, …)."""
        problem = self.problem
        return record_tsit5_jax(
            problem.f_jax, self.y0, params, problem.t0, problem.t1, recorder="jax", **self.options
        )

    def _loss(self, theta: Any, y0: Any, mesh: Any) -> Any:
        problem = self.problem
        kept, problem.theta = problem.theta, theta
        try:
            if len(self.times) > 2:
                ys = replay_solve_saveat_jax(problem, y0, self.none, mesh, jnp.asarray(self.times[1:]))[1]
            else:
                ys = replay_solve_jax(problem, y0, self.none, mesh)[:, None]
        finally:
            problem.theta = kept
        return jnp.sum(ys * self.w)

    def call(self) -> Any:
        """Runs this way once and returns what it finds."""
        if self.kind == "forward":
            return self._record(self.none)[0]  # the recorder alone: it ends at the solution
        mesh = self.mesh if self.kind == "replay" else jnp.asarray(self._record(self.repeated)[1])
        return self.function(self.theta, self.y0, mesh)

    def about(self, found: Any) -> dict[str, Any]:
        """Accepted steps are all that a recorded mesh tells."""
        return {"nfe": None, "peak": None, "rows": None}

    def compilations(self) -> int:
        """Of the replay."""
        return 1 if self.function is None else self.function._cache_size()

    def save(self, found: Any, file: str) -> None:
        """dL/dz0 first, in the case's layout, then dL/dθ; or z(t_end)."""
        if self.kind == "forward":
            np.savez(file, np.asarray(found))
            return
        theta, y0 = found
        blocks = np.asarray(y0).reshape(self.state[1], self.state[0], *self.state[2:])
        np.savez(file, np.moveaxis(blocks, 1, 0), *map(np.asarray, theta))


def prepare(way: str, file: str, spec: dict[str, Any]) -> Prepared:
    """The way, its mesh recorded where that is not timed."""
    return Prepared(way, file, spec)
