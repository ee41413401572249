"""Published gradients: SUNDIALS' Lotka–Volterra and Robertson examples, and CVODES' Hessian.

Source: SUNDIALS 7.5.0 (Lawrence Livermore National Laboratory), examples/cvodes/serial:
cvsLotkaVolterra_ASA.out, cvsRoberts_ASAi_dns.out and cvsHessian_ASA_FSA.out, the last after D. B. Özyurt,
P. I. Barton, SIAM J. Sci. Comput. 26 (2005) 1725–1743.

What is printed there was found at their examples' tolerances. The tighter values are by forward sensitivities
with scipy's DOP853 at rtol 2.3e-14 (Robertson's: with its Radau at 1e-10); of the Hessian, by differences of
fourth order of that gradient, with steps of 0.01 and 0.005 in the parameters, extrapolated.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

SOURCE = "SUNDIALS 7.5.0, examples/cvodes/serial/"
LOTKA_VOLTERRA, HESSIAN = "cvsLotkaVolterra_ASA.out", "cvsHessian_ASA_FSA.out"
ROBERTSON = "cvsRoberts_ASAi_dns.out"
COMPUTED = "forward sensitivities with scipy's DOP853"


@dataclasses.dataclass(frozen=True)
class Expected:
    """values, and the error within which ours must agree with them.

    reason: for that error.
    """

    values: tuple[float, ...]
    bound: float
    source: str
    reason: str


class LotkaVolterra(nn.Module):
    """y1' = p0 y1 − p1 y1 y2, y2' = −p2 y2 + p3 y1 y2; y [..., 2]. G = ‖y(10) − 1‖²/2 from y(0) = (1, 1)."""

    start, span = (1.0, 1.0), (0.0, 10.0)

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor((1.5, 1.0, 3.0, 1.0), dtype=torch.float64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The derivative y', like y."""
        y1, y2 = y[..., :1], y[..., 1:]
        return torch.cat((self.p[0] * y1 - self.p[1] * y1 * y2, -self.p[2] * y2 + self.p[3] * y1 * y2), -1)


_PRINTED = "six digits of what is printed hold: it is the tighter value to 3.3e-7"
LOTKA_VOLTERRA_GRADIENT = (  # dG/dy1(0), dG/dy2(0), dG/dp0 … dG/dp3
    Expected(
        (
            *(0.2995996056786226, -0.01415181416922305, 0.6219617362820864, 0.06800142032161892),
            *(0.169176507471213, 0.2725607529639176),
        ),
        1e-6,
        SOURCE + LOTKA_VOLTERRA,
        _PRINTED,
    ),
    Expected(
        (
            *(0.2995995083036989, -0.014151816344854335, 0.6219615855513142, 0.06800140415087785),
            *(0.16917646399590314, 0.27256069395002025),
        ),
        1e-8,
        COMPUTED,
        "eight of the tighter value's eleven digits are promised at rtol 1e-12",
    ),
)


class Robertson(nn.Module):
    """y1' = −p0 y1 + p1 y2 y3, y2' = −y1' − y3', y3' = p2 y2², and q' = y3; y [..., 4]. G = q(50)."""

    start, span = (1.0, 0.0, 0.0, 0.0), (0.0, 50.0)

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor((0.04, 1e4, 3e7), dtype=torch.float64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The derivative y', like y."""
        a, b, c, _ = y.unbind(-1)
        r1, r2, r3 = self.p[0] * a, self.p[1] * b * c, self.p[2] * b * b
        return torch.stack((r2 - r1, r1 - r2 - r3, r3, c), -1)


# dG/dp0 … dG/dp2, of sizes 10², 10⁻³ and 10⁻⁷: each error is over its own value.
ROBERTSON_GRADIENT = (
    Expected(
        (173.41, -5.0590e-4, 8.4321e-8),
        1e-4,
        SOURCE + ROBERTSON,
        "four of the five printed digits hold: the second is the tighter value to 3.8e-5",
    ),
    Expected(
        (173.414089, -5.05919141e-4, 8.43234647e-8),
        1e-5,
        "forward sensitivities with scipy's Radau",
        "five of the tighter value's nine digits are promised at rtol 1e-7",
    ),
)


def hessian_field(t: Tensor, y: Tensor, p: Tensor) -> Tensor:
    """y1' = −p1 y1² − y3, y2' = −y2, y3' = −p2² y2 y3, and q' = ‖y‖²/2; y [4], from (1, 1, 1, 0) to t = 2."""
    y1, y2, y3, _ = y
    running = (y1 * y1 + y2 * y2 + y3 * y3) / 2
    return torch.stack((-p[0] * y1 * y1 - y3, -y2, -p[1] * p[1] * y2 * y3, running))


HESSIAN_START, HESSIAN_SPAN, HESSIAN_AT = (1.0, 1.0, 1.0, 0.0), (0.0, 2.0), (1.0, 2.0)
_FIVE = "five significant digits are printed: half a unit in the last is at most 5e-5"


def _printed(*values: float) -> Expected:
    return Expected(values, 5e-5, SOURCE + HESSIAN, _FIVE)


def _computed(*values: float) -> Expected:
    return Expected(values, 1e-10, COMPUTED, "ten of the tighter value's twelve digits")


HESSIAN_VALUES: dict[str, tuple[Expected, ...]] = {
    "end": (_printed(0.22732, 0.13534, 0.031472),),
    "integral": (_computed(0.530878590629545),),
    "gradient": (_printed(-0.12838, 0.018036), _computed(-0.12837865465635, 0.0180367608548)),
    "hessian": (
        _printed(0.15628, -0.078678, -0.078678, 0.089814),
        _computed(0.15628043082056, -0.07867780659755, -0.07867780659755, 0.08981434362915),
    ),
}
