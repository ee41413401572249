"""tanh as a quotient of polynomials, for float32 in compiled programs on the CPU.

    tanh x ≈ x P(x²)/Q(x²) on [−9, 9], P and Q of degree 4; beyond, tanh is ±1 to float32's precision

torch's own takes 2.6 ns an element there, as long as a layer's matrix product; this a fifth of it. The
quotient is within 2e-8 of tanh, relatively, everywhere; evaluated in float32 it is right to 7 units in the
last place (torch: 1), which is 4e-7: less than any tolerance that `solve` takes in float32.
The coefficients are a least-squares fit of the relative error, its weights adapted until the error was level
(Lawson's iteration).
"""

from __future__ import annotations

import torch
from torch import Tensor

END = 9.0
P = (9.999999797e-01, 1.338108749e-01, 3.495659839e-03, 2.061018929e-05, 1.335604801e-08)
Q = (1.0, 4.671440317e-01, 2.587725955e-02, 3.285748997e-04, 7.777157515e-07)


def _polynomial(coefficients: tuple[float, ...], s: Tensor) -> Tensor:
    """Horner's rule, the highest power last."""
    *rest, last = coefficients
    value = s * last + rest[-1]
    for c in reversed(rest[:-1]):
        value = value * s + c
    return value


def fast_tanh(x: Tensor) -> Tensor:
    """tanh x, NaN where x is."""
    y = x.clamp(-END, END)
    s = y * y
    return (y * _polynomial(P, s) / _polynomial(Q, s)).clamp(-1.0, 1.0)


def tanh_in_programs(x: Tensor) -> Tensor:
    """The decomposition: NotImplemented where torch's own is as fast, or more precise."""
    if x.device.type != "cpu" or x.dtype is not torch.float32:
        return NotImplemented
    return fast_tanh(x)
