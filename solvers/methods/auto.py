"""Two methods in one solve: dopri5 while its stability allows the steps, radau5 where it does not.

Which takes the next step is decided in `march.switching`. The two agree on what passes from step to step: the
state, and the slope there.

Source: L. R. Petzold, Automatic selection of methods for solving stiff and nonstiff systems of ordinary
differential equations, SIAM J. Sci. Stat. Comput. 4 (1983) 136–148.
"""

from __future__ import annotations

import dataclasses

from .dopri5 import DOPRI5
from .radau5 import RADAU5

AUTO = dataclasses.replace(DOPRI5, name="auto", between=(DOPRI5, RADAU5))
