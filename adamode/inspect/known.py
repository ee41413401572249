"""What problems and the ways back of an inspection are called. Nothing here imports torch."""

from __future__ import annotations

from ..models.known import MODELS
from ..solvers.errors import ArgumentError, check_choice, nearest
from .detest import DETEST
from .famous import FAMOUS

PROBLEMS = tuple(problem.name for problem in (*FAMOUS, *DETEST))
WALKS_BACK = ("discrete", "interpolating", "backsolve", "reversible")  # that `inspect --adjoint` shows


def check_problem(name: str, *, models: bool = False) -> None:
    """Raises ArgumentError, with the nearest, unless ``name`` is a problem or names one of one's own.

    models: whether a model's dynamics is a problem too.
    """
    known = (*MODELS, *PROBLEMS) if models else PROBLEMS
    if ":" not in name and name not in known:
        raise ArgumentError(
            f"problem {name!r} is not known: {nearest(name, known)} A problem of your own is module:name or "
            "file.py:name."
        )


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
