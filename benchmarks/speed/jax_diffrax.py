"""diffrax in the worker process."""

from __future__ import annotations

from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jax_equations import equations


class Prepared:
    """A jitted gradient or solve of one case."""

    def __init__(self, way: str, file: str, spec: dict[str, Any]):
        if spec["dtype"] == "float64":
            jax.config.update("jax_enable_x64", True)
        with np.load(file) as data:
            self.z0, self.w, self.times = (jnp.asarray(data[name]) for name in ("z0", "w", "t"))
            self.theta = tuple(jnp.asarray(data[f"theta{i}"]) for i in range(spec["parameters"]))
        self.spec, self.kind = spec, way.split("/")[1]
        self.f = equations(spec)
        self.function = jax.jit(self._gradient() if spec["kind"] == "gradient" else self._forward())

    def _adjoint(self) -> Any:
        if self.kind != "backsolve":
            return diffrax.RecursiveCheckpointAdjoint()
        tol = self.spec["tol"]
        norm = diffrax.adjoint_rms_seminorm  # fewer steps than with the parameters in the norm
        return diffrax.BacksolveAdjoint(
            solver=diffrax.Dopri5(), stepsize_controller=diffrax.PIDController(tol, tol, norm=norm)
        )

    def solve(self, theta: Any, z0: Any) -> Any:
        """y at the times after the first, and the statistics."""
        tol, times = self.spec["tol"], self.times
        several = len(times) > 2
        sol = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, z, args: self.f(args, t, z)),
            diffrax.Dopri5(),
            times[0],
            times[-1],
            None,
            z0,
            theta,
            saveat=diffrax.SaveAt(ts=times[1:]) if several else diffrax.SaveAt(t1=True),
            stepsize_controller=diffrax.PIDController(rtol=tol, atol=tol),
            adjoint=self._adjoint(),
            max_steps=self.spec["max_steps"],
        )
        return sol.ys, sol.stats["num_steps"]

    def _gradient(self) -> Any:
        def loss(theta: Any, z0: Any) -> Any:
            ys, steps = self.solve(theta, z0)
            return jnp.sum(ys * self.w), steps

        return jax.grad(loss, argnums=(0, 1), has_aux=True)

    def _forward(self) -> Any:
        solve = jax.vmap(self.solve, in_axes=(None, 0)) if self.kind == "vmap" else self.solve

        def forward(theta: Any, z0: Any) -> Any:
            ys, steps = solve(theta, z0)
            return (ys[:, -1] if self.kind == "vmap" else ys[-1]), jnp.max(steps)

        return forward

    def call(self) -> Any:
        """Runs this way once and returns what it finds."""
        return self.function(self.theta, self.z0)

    def about(self, found: Any) -> dict[str, Any]:
        """Evaluations of f (Dopri5: six a step; two at the start, one of them for the step size), memory."""
        steps = int(found[-1])
        memory = self.function.lower(self.theta, self.z0).compile().memory_analysis()
        rows = self.z0.shape[0] * (6 * steps + 2) if self.spec["equations"] == "vdp" else None
        peak = getattr(memory, "temp_size_in_bytes", None)
        return {"nfe": 6 * steps + 2, "peak": peak, "rows": rows}

    def compilations(self) -> int:
        """Programs that jit holds for this function."""
        return self.function._cache_size()

    def save(self, found: Any, file: str) -> None:
        """dL/dz0 first, then dL/dθ; or z(t_end)."""
        value, _ = found
        arrays = [value[1], *value[0]] if self.spec["kind"] == "gradient" else [value]
        np.savez(file, *map(np.asarray, arrays))


def prepare(way: str, file: str, spec: dict[str, Any]) -> Prepared:
    """The way, not yet compiled."""
    return Prepared(way, file, spec)
