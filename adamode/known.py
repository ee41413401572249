"""What the commands' choices are called. Without torch, so that a misspelt name is refused at once."""

from __future__ import annotations

from .solvers.errors import ArgumentError, check_choice

FORMS = ("exact", "paper", "paper-rates")  # of AdamODE's VJP, that `verify` measures
GRADIENTS = (  # that `verify` checks
    *("discrete", "discrete-state", "discrete-checkpoints"),
    *("interpolating", "backsolve", "reversible"),
)
WALKS_BACK = ("discrete", "interpolating", "backsolve", "reversible")  # that `inspect --adjoint` shows
SUITES = ("published", "stiff")  # of `verify`


def check_walks_back(text: str) -> list[str]:
    """Names of gradients with commas between, each once. Raises ArgumentError for one that shows no walk."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names or [text]:
        if name == "direct":
            raise ArgumentError(
                "--gradient='direct' backpropagates through the steps by autograd: no adjoint to show. "
                f"Take {', '.join(WALKS_BACK)}; discrete gives the same numbers."
            )
        check_choice("--gradient", name, WALKS_BACK)
    return names
