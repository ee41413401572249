"""What the commands' choices are called. Without torch, so that a misspelt name is refused at once."""

from __future__ import annotations

FORMS = ("exact", "paper", "paper-rates")  # of AdamODE's VJP, that `verify` measures
GRADIENTS = (  # that `verify` checks
    *("discrete", "discrete-state", "discrete-checkpoints"),
    *("interpolating", "backsolve", "reversible"),
)
SUITES = ("published", "stiff")  # of `verify`
