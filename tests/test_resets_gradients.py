"""Gradients through resets: time, threshold, reset and state, against closed forms, in every gradient choice."""

from __future__ import annotations

import pytest
import torch
from problems import EVERY_GRADIENT, f64, worst
from test_resets import STEPPINGS, dosed, impacts
from torch import nn

from adamode import Direct, Discrete, Event, Impulse, SecondDerivativeError, solve

TIGHT = {"rtol": 1e-10, "atol": 1e-12}
NEAR = {"Discrete": 1e-8, "Direct": 1e-8, "Backsolve": 1e-6, "Interpolating": 1e-6}
