"""The settings that models are registered with: the authors' sizes for the paper's tasks, ours for the rest.

The sizes, rates, denominators and tolerances of "mnist", "cifar10" and "silverbox" are those of the code
that the AdamNODE authors released, which takes the other five from H. Xia et al., Heavy ball neural ODEs,
NeurIPS 2021. Those of NesterovNODE and GNesterovNODE are from the code that their authors released
(github.com/minhtannguyen/NesterovNODE); MomentumNODE's are NesterovNODE's.
"""

from __future__ import annotations

from typing import Any

from .dynamics.ghbnode import XI
from .dynamics.momentumnode import GAMMA, SPAN

Settings = dict[str, Any]

SIGMOID_5, SIGMOID_3 = 0.9933071490757153, 0.9525741268224334
LN2 = 0.6931471805599453  # softplus(0)


def _tolerance(both: float) -> Settings:
    return {"rtol": both, "atol": both}


# The block's state is what enters divided by state_unit; the field is field_gain · F(field_scale · state).
_SCALES: Settings = {"state_unit": 1.0, "field_scale": 1.0, "field_gain": 1.0}
_OFFICIAL: Settings = {
    **_SCALES,
    "activation": "relu",
    "cells": None,
    "encoder": "deep",
    "start": "encoder",
    "block": "ode",
    "t": (0.0, 1.0),
    "classes": 10,
}
# The encoder sees one pixel at a time and the head nine averages, so what tells digits apart must come
# from the block: with the recipe of `adamode train` and seeds 0, 1, 2 AdamNODE's test accuracy is 96.4,
# 97.8 and 96.9 % with it, 84.1, 84.7 and 82.5 % with the identity in its place.
_DIGITS: Settings = {
    **_OFFICIAL,
    "channels": 8,
    "hidden": 16,  # 32 takes twice as long
    "image_channels": 1,
    "size": 8,
    "cells": 3,
    "encoder": "pixel",
    "start": "learned",  # v0 > 0 keeps the exact denominator inside its domain
    "t": (0.0, 2.0),
    **_tolerance(1e-3),
}
_MNIST: Settings = {**_OFFICIAL, "image_channels": 1, "size": 28, **_tolerance(1e-4)}
_CIFAR10: Settings = {**_OFFICIAL, "image_channels": 3, "size": 32, **_tolerance(1e-5)}
_POINTS: Settings = {
    **_SCALES,
    "channels": 2,
    "hidden": 32,
    "activation": "tanh",
    "features": 2,
    "start": "learned",
    "block": "ode",
    "t": (0.0, 1.0),
    **_tolerance(1e-4),
    "classes": 2,
}
_SILVERBOX: Settings = {
    **_SCALES,
    "channels": 1,
    "hidden": 0,  # a linear field, the authors'; above 0 a network of two such layers beside it
    "activation": "tanh",
    "start": "encoder",  # the authors': "learned"
    "given": 8,  # rows that the encoder reads
    "inputs": 1,
    "outputs": 1,
    # Of the first weights of start and field: with torch's own a state can grow by 1e20 in 64 rows.
    "scale": 0.01,
    "block": "ode",
    **_tolerance(1e-5),  # the authors' 1e-7 is below what float32 resolves
}
# Ours, for simulating: the linear field and a network beside it, on a state of about unit size.
_SILVERBOX_NETWORK: Settings = {
    **_SILVERBOX,
    "channels": 2,
    "hidden": 16,
    "state_unit": 10.0,  # 0.1 V of output is 1
    **_tolerance(1e-3),  # half the evaluations of 1e-4 and the same errors
}
# Stiff on purpose. A and C are in units of the whole and of the whole time; B, in units of its largest value,
# is built up in a thousandth of a second, 1e-8 of that time.
_ROBERTSON: Settings = {
    **_SCALES,
    "channels": 3,
    "hidden": 16,
    "activation": "tanh",
    "features": 3,
    "rates": (1.0, 1e8, 1.0),
    "start": "learned",
    "block": "ode",
    "method": "radau5",
    **_tolerance(1e-3),  # a tenth of what is left of the error after training; 1e-4 took a third more steps
}
# Flows: the block's states are x itself and, where there are more, momenta that q(m | x) tells.
_DENSITY: Settings = {
    "shape": (2,),
    "hidden": 64,
    "activation": "tanh",
    "momenta": "learned",
    "q_hidden": 32,
    "draws": 16,
    "block": "ode",
    "t": (0.0, 1.0),
    **_tolerance(1e-4),
}
_DENSITY_8X8: Settings = {**_DENSITY, "shape": (1, 8, 8), "hidden": 128, "q_hidden": 64}

BY_TASK: dict[str, Settings] = {
    "digits": _DIGITS,
    "mnist": _MNIST,
    "cifar10": _CIFAR10,
    "silverbox": _SILVERBOX,
    "silverbox-network": _SILVERBOX_NETWORK,
    "robertson": _ROBERTSON,
    "spiral": _POINTS,
    "circles": _POINTS,
    "density": _DENSITY,
    "density-8x8": _DENSITY_8X8,
}

_OFFICIAL_ADAM: Settings = {"alpha": SIGMOID_5, "beta": 1 - SIGMOID_5, "denominator": "softplus", "eps": 1e-8}
_OFFICIAL_SERIES_GHB: Settings = {"sigma": "hardtanh", "xi": LN2, "xi_learnable": False}
# The exact denominator is of a part of the space. A large B takes from the volume what f² then must restore.
_FLOWING_ADAM: Settings = {"denominator": "softplus", "alpha": 0.0474, "beta": 0.9}
# Models that are defined for t > 0 alone. Their authors solve from 1 to 2, and the Silverbox from 1 on.
_TIMED = ("nesterovnode", "gnesterovnode", "momentumnode")


def _timed(every: Settings, general: Settings | None = None) -> dict[str, Settings]:
    """The settings of these models. general: of GNesterovNODE besides."""
    return {name: {**every, **(general or {} if name == "gnesterovnode" else {})} for name in _TIMED}


_WIDE_POINTS: dict[str, Settings] = {
    "anode": {"channels": 3, "augment": 1, "hidden": 31},
    "sonode": {"hidden": 31},
    **_timed({"t": SPAN}),
}
_SIZES: dict[str, dict[str, Settings]] = {
    # SONODE's, HBNODE's and GHBNODE's scales and rates are the best of four trials of benchmarks/search.py;
    # NODE's and ANODE's best have none, and AdamNODE's takes a quarter more evaluations (docs/train.md).
    "digits": {
        "anode": {"augment": 2},
        "sonode": {"channels": 7, "field_scale": 1.8, "field_gain": 0.633},
        "hbnode": {"gamma": 0.0635, "field_scale": 0.491, "field_gain": 1.46},
        "ghbnode": {"gamma": 0.0213, "field_scale": 1.42, "field_gain": 1.18},
        # With 1−β = sigmoid(3), too, v follows f² so fast that explicit stages leave v + ε > 0, and
        # steps are rejected for it: 110 evaluations a solve. With this 45 to 60, and learning goes
        # there anyway.
        "adamnode": {"alpha": 0.0474, "beta": 0.95},
        **_timed({"t": (1.0, 3.0)}),
    },
    "mnist": {
        "node": {"channels": 1, "hidden": 92},
        "anode": {"channels": 6, "augment": 5, "hidden": 64},
        "sonode": {"channels": 5, "hidden": 50},
        "hbnode": {"channels": 5, "hidden": 50},
        "ghbnode": {"channels": 6, "hidden": 45},
        "adamnode": {"channels": 5, "hidden": 50, **_OFFICIAL_ADAM},
        **_timed({"channels": 5, "hidden": 50, "t": SPAN}, {"xi": XI}),
    },
    "cifar10": {
        "node": {"channels": 3, "hidden": 125},
        "anode": {"channels": 13, "augment": 10, "hidden": 64},
        "sonode": {"channels": 12, "hidden": 50},
        "hbnode": {"channels": 12, "hidden": 51},
        "ghbnode": {"channels": 12, "hidden": 51, "xi": 1.5, "xi_learnable": False},
        "adamnode": {
            "channels": 15,
            "hidden": 31,
            "alpha": 1 - SIGMOID_3,
            "beta": 1 - SIGMOID_3,
            "denominator": "sigmoid",
            "eps": 1e-8,
        },
        **_timed({"channels": 12, "hidden": 51, "t": SPAN}, {"xi": 1.5, "xi_learnable": False}),
    },
    "silverbox": {
        # h'' = w h grows by exp(√|w| T) where w has the wrong sign. Over the T = 1,000 rows of the one
        # trajectory that is up to e^100 with 0.01, and e with 1/T².
        **{name: {"scale": 1e-6} for name in ("sonode", "hbnode")},
        "anode": {"channels": 2, "augment": 1},
        "ghbnode": _OFFICIAL_SERIES_GHB,
        "adamnode": _OFFICIAL_ADAM,
        **_timed({"shift": 1.0, "scale": 1e-6}, {**_OFFICIAL_SERIES_GHB, "scale": 0.01}),
    },
    "silverbox-network": {
        "anode": {"channels": 3, "augment": 1},
        "sonode": {"channels": 1},
        # With the usual 0.047 an untrained state is hardly damped, and learning does not begin.
        "hbnode": {"gamma": 0.2},
        # The best of six trials of benchmarks/search.py (docs/study/scales.md).
        "ghbnode": {"gamma": 0.0213, "field_scale": 1.42, "field_gain": 1.18, **_OFFICIAL_SERIES_GHB},
        # h'' = −A h' + A·D·f: A is the damping (the circuit's is .067 a row), so f has the size of 1/A, and a
        # unit of 5 V keeps f² small against softplus(0): with 0.5 V, D varied with the signal and nothing
        # was learnt. F sees units of 56 mV and gives them, times 1.14/A. The numbers are the best of five
        # trials of benchmarks/search.py (docs/study/scales.md).
        "adamnode": {
            **_OFFICIAL_ADAM,
            "alpha": 0.953,
            "beta": 0.724,
            "state_unit": 500.0,
            "field_scale": 90.0,
            "field_gain": 0.27,
            "atol": 2e-5,  # 1e-3 in units of 0.1 V
        },
        **_timed({"shift": 1.0}, _OFFICIAL_SERIES_GHB),
        "momentumnode": {"shift": 1.0, "gamma": 0.2},  # 3/(t + 1) has faded before a recording is over
    },
    # With momentum an entry has two fast directions where B has one: there all rates are those of A and C.
    "robertson": {
        "anode": {"channels": 4, "augment": 1},
        **{name: {"rates": (1.0, 1.0, 1.0)} for name in ("sonode", "hbnode", "ghbnode", "adamnode")},
        **_timed({"rates": (1.0, 1.0, 1.0), "shift": 1.0}),
    },
    "spiral": _WIDE_POINTS,
    "circles": _WIDE_POINTS,
    "density": {
        "node": {"hidden": 67},
        "hbnode": {"hidden": 65},
        "ghbnode": {"hidden": 65},
        **_timed({"hidden": 65, "t": SPAN}),
        "adamnode": _FLOWING_ADAM,
    },
    "density-8x8": {
        "node": {"hidden": 176},
        "hbnode": {"hidden": 148},
        "ghbnode": {"hidden": 148},
        **_timed({"hidden": 148, "t": SPAN}),
        "adamnode": _FLOWING_ADAM,
    },
}
# The settings of a model beside a task's settings and the keywords of its block.
_OWN: dict[str, Settings] = {
    "anode": {"augment": 1},
    "hbnode": {"gamma": GAMMA},
    "ghbnode": {"gamma": GAMMA, "xi": XI, "xi_learnable": True, "sigma": "tanh"},
    "gnesterovnode": {"xi_learnable": True, "sigma": "tanh"},
}


def settings_of(model: str, task: str) -> Settings:
    """The settings of a model for a task, without the defaults of its block's keywords."""
    return {**BY_TASK[task], **_OWN.get(model, {}), **_SIZES[task].get(model, {})}
