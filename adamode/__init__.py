"""adamode: batched adaptive ODE solvers for PyTorch with hand-derived adjoints.

Names are loaded when first used (PEP 562), so that ``adamode --help`` does not import torch.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names for type checkers and editors, which do not run `__getattr__`
    from . import adjoint as adjoint
    from . import inspect as inspect
    from . import models as models
    from . import reproduce as reproduce
    from . import solvers as solvers
    from . import train as train
    from . import verify as verify
    from .adjoint.dynamics.protocol import Dynamics
    from .adjoint.gradients import Backsolve, Direct, Discrete, Interpolating, Reversible
    from .adjoint.sample import sample
    from .adjoint.signals.signal import Signal
    from .adjoint.solve import solve
    from .adjoint.torchdiffeq.odeint import odeint, odeint_adjoint, odeint_event
    from .models.density import LogDensity
    from .models.dynamics import (
        ANODE,
        GHBNODE,
        HBNODE,
        NODE,
        SONODE,
        AdamNODE,
        GNesterovNODE,
        MomentumNODE,
        NesterovNODE,
    )
    from .models.flow import Flow
    from .models.loading import load
    from .solvers.errors import (
        AdamodeError,
        AdamodeWarning,
        ArgumentError,
        ArgumentTypeError,
        DynamicsError,
        NotRepeatableError,
        ReconstructionError,
        SecondDerivativeError,
        SolverError,
    )
    from .solvers.march.event import Event, Impulse
    from .solvers.solution import Solution
    from .solvers.stats import Stats
    from .solvers.status import Status
    from .solvers.step.controller import PI, PID, I
    from .train.config import TrainConfig
    from .train.trainer import Trainer

__version__ = "0.1.0"

# The sub-packages live beside this folder in a checkout. After a plain install, `python -m adamode`
# in the repository root imports this folder instead of the installed one: then look beside it too.
_root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if os.path.isfile(os.path.join(_root, "setup.cfg")) and os.path.isdir(os.path.join(_root, "solvers")):
    __path__.append(_root)

from .solvers import pages as _pages  # noqa: E402  (found by what stands above)
from .solvers.lazy import when_used as _when_used  # noqa: E402

_EXPORTS: dict[str, str] = {
    "ANODE": "models.dynamics",
    "AdamNODE": "models.dynamics",
    "AdamodeError": "solvers.errors",
    "AdamodeWarning": "solvers.errors",
    "ArgumentError": "solvers.errors",
    "ArgumentTypeError": "solvers.errors",
    "Backsolve": "adjoint.gradients",
    "Direct": "adjoint.gradients",
    "Discrete": "adjoint.gradients",
    "Dynamics": "adjoint.dynamics.protocol",
    "DynamicsError": "solvers.errors",
    "Flow": "models.flow",
    "Event": "solvers.march.event",
    "GHBNODE": "models.dynamics",
    "GNesterovNODE": "models.dynamics",
    "HBNODE": "models.dynamics",
    "I": "solvers.step.controller",
    "Impulse": "solvers.march.event",
    "Interpolating": "adjoint.gradients",
    "LogDensity": "models.density",
    "MomentumNODE": "models.dynamics",
    "NODE": "models.dynamics",
    "NesterovNODE": "models.dynamics",
    "NotRepeatableError": "solvers.errors",
    "PI": "solvers.step.controller",
    "PID": "solvers.step.controller",
    "ReconstructionError": "solvers.errors",
    "Reversible": "adjoint.gradients",
    "SONODE": "models.dynamics",
    "SecondDerivativeError": "solvers.errors",
    "Signal": "adjoint.signals.signal",
    "Solution": "solvers.solution",
    "SolverError": "solvers.errors",
    "Stats": "solvers.stats",
    "Status": "solvers.status",
    "TrainConfig": "train.config",
    "Trainer": "train.trainer",
    "load": "models.loading",
    "odeint": "adjoint.torchdiffeq.odeint",
    "odeint_adjoint": "adjoint.torchdiffeq.odeint",
    "odeint_event": "adjoint.torchdiffeq.odeint",
    "sample": "adjoint.sample",
    "solve": "adjoint.solve",
}

_PACKAGES = ("adjoint", "inspect", "models", "reproduce", "solvers", "train", "verify")

__all__ = [  # noqa: RUF022  (in the order of `sorted`)
    "ANODE",
    "AdamNODE",
    "AdamodeError",
    "AdamodeWarning",
    "ArgumentError",
    "ArgumentTypeError",
    "Backsolve",
    "Direct",
    "Discrete",
    "Dynamics",
    "DynamicsError",
    "Event",
    "Flow",
    "GHBNODE",
    "GNesterovNODE",
    "HBNODE",
    "I",
    "Impulse",
    "Interpolating",
    "LogDensity",
    "MomentumNODE",
    "NODE",
    "NesterovNODE",
    "NotRepeatableError",
    "PI",
    "PID",
    "ReconstructionError",
    "Reversible",
    "SONODE",
    "SecondDerivativeError",
    "Signal",
    "Solution",
    "SolverError",
    "Stats",
    "Status",
    "TrainConfig",
    "Trainer",
    "load",
    "odeint",
    "odeint_adjoint",
    "odeint_event",
    "sample",
    "solve",
]


def _page_writer() -> Any:
    return importlib.import_module(".inspect.explorer.page", __name__).explore


_pages.set_writer(_page_writer)  # for `Solution.explore`: what lies below knows nothing of pages

if not TYPE_CHECKING:  # seen by a type checker it would make every name an Any
    __getattr__, __dir__ = _when_used(__name__, _EXPORTS, _PACKAGES)
