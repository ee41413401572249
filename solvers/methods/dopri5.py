"""Dormand–Prince 5(4), seven stages, FSAL.

J. R. Dormand, P. J. Prince, A family of embedded Runge–Kutta formulae, J. Comput. Appl. Math. 6
(1980) 19–26, Table 2 (RK5(4)7M). Dense output of order 4: L. F. Shampine, Some practical
Runge–Kutta formulas, Math. Comp. 46 (1986) 135–150; the same polynomials as Hairer, Nørsett,
Wanner I, II.6, Eq. (6.12) ff.
"""

from __future__ import annotations

import dataclasses

from .tableau import Tableau, q

DOPRI5 = Tableau(
    name="dopri5",
    order=5,
    c=q("0 1/5 3/10 4/5 8/9 1 1"),
    a=(
        q(""),
        q("1/5"),
        q("3/40 9/40"),
        q("44/45 -56/15 32/9"),
        q("19372/6561 -25360/2187 64448/6561 -212/729"),
        q("9017/3168 -355/33 46732/5247 49/176 -5103/18656"),
        q("35/384 0 500/1113 125/192 -2187/6784 11/84"),
    ),
    b=q("35/384 0 500/1113 125/192 -2187/6784 11/84 0"),
    b_hat=q("5179/57600 0 7571/16695 393/640 -92097/339200 187/2100 1/40"),
    order_hat=4,
    dense=(
        q("1 -8048581381/2820520608 8663915743/2820520608 -12715105075/11282082432"),
        q("0 0 0 0"),
        q("0 131558114200/32700410799 -68118460800/10900136933 87487479700/32700410799"),
        q("0 -1754552775/470086768 14199869525/1410260304 -10690763975/1880347072"),
        q("0 127303824393/49829197408 -318862633887/49829197408 701980252875/199316789632"),
        q("0 -282668133/205662961 2019193451/616988883 -1453857185/822651844"),
        q("0 40617522/29380423 -110615467/29380423 69997945/29380423"),
    ),
    dense_order=4,
)

# torchdiffeq's dopri5 judges by two thirds of this error (L. F. Shampine's embedded weights, 1986), so
# its steps are 8 % longer at the same tolerance; `odeint` takes the same steps as there.
DOPRI5_SHAMPINE = dataclasses.replace(
    DOPRI5, b_hat=q("1951/21600 0 22642/50085 451/720 -12231/42400 649/6300 1/60")
)
