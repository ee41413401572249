"""A simulated Silverbox: m y″ + d y′ + k y + k₃ y³ = u, solved with our own engine.

The four constants are ours, fitted to the measured record (least squares in the frequency domain, 5 to
190 Hz, over the ten multisines; what is left is 0.9 % of the input's RMS). They put the resonance at
68 Hz with 5 % damping, and the outputs at the scale of the measured ones. No noise is added.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ...adjoint.solve import solve
from .card import DataCard, checksum
from .options import DataOptions
from .sequences import Recording, sequence_data_set, sequences, windows
from .silverbox import GIVEN, RATE, SCALE, WINDOW, in_volts
from .splits import SPLIT_SEED, DataSet

MASS, DAMPING, STIFFNESS, CUBIC = 5.37e-6, 2.25e-4, 0.990, 3.92  # of volts and seconds
BAND = 200.0  # Hz, the highest frequency in the input
RMS = 0.022  # V, of a multisine
LENGTH = 1024  # samples of a record
TRAIN, VALIDATION, ARROWS = 24, 4, 2
SUBSTEPS = 2  # steps of dopri5 a sample: with 4 the outputs change by at most 5 µV


def simulate(u: np.ndarray, substeps: int = SUBSTEPS) -> np.ndarray:
    """Outputs [B, N] in volts for inputs [B, N] sampled at 610.35 Hz, from rest.

    Between samples the input is linear. Fixed steps that end at the samples, where its slope jumps.
    """
    records = torch.from_numpy(u)
    last = records.shape[1] - 1

    def force(t: Tensor) -> Tensor:
        left = min(int(t), last - 1)
        return torch.lerp(records[:, left], records[:, left + 1], float(t) - left)

    def oscillator(t: Tensor, state: Tensor) -> Tensor:
        y, v = state  # v is dy/dt in volts a sample
        acceleration = (force(t) - DAMPING * RATE * v - STIFFNESS * y - CUBIC * y**3) / (MASS * RATE**2)
        return torch.stack((v, acceleration))

    rest = torch.zeros(2, *records.shape[:1], dtype=torch.float64)
    times = torch.arange(records.shape[1], dtype=torch.float64)
    solution = solve(oscillator, rest, times, method="dopri5", dt=1 / substeps, gradient=None)
    return solution.y[:, 0].T.contiguous().numpy()


def multisines(count: int, generator: np.random.Generator) -> np.ndarray:
    """Periodic inputs [count, LENGTH] of odd harmonics up to 200 Hz with random phases, RMS 22 mV."""
    harmonics = np.arange(1, int(BAND / RATE * LENGTH) + 1, 2)
    phases = generator.uniform(0, 2 * math.pi, (count, len(harmonics)))
    spectrum = np.zeros((count, LENGTH // 2 + 1), dtype=complex)
    spectrum[:, harmonics] = np.exp(1j * phases)
    u = np.fft.irfft(spectrum, LENGTH)
    return u * (RMS / np.sqrt(np.mean(u**2, axis=1, keepdims=True)))


def arrows(count: int, generator: np.random.Generator) -> np.ndarray:
    """Noise [count, LENGTH] up to 200 Hz whose amplitude grows from 0 to an RMS of 40 mV."""
    noise = np.fft.rfft(generator.standard_normal((count, LENGTH)))
    noise[:, int(BAND / RATE * LENGTH) + 1 :] = 0
    u = np.fft.irfft(noise, LENGTH)
    u /= np.sqrt(np.mean(u**2, axis=1, keepdims=True))
    return u * np.linspace(0, 0.040, LENGTH)


def load_silverbox_simulated(options: DataOptions) -> DataSet:
    """Simulated multisines to train on and arrows to test; scaled ×100 like the measured Silverbox."""
    window, given = options.window or WINDOW, options.given or GIVEN
    generator = np.random.default_rng(SPLIT_SEED)
    u = np.concatenate([multisines(TRAIN + VALIDATION, generator), arrows(ARROWS, generator)])
    y = simulate(u)
    records = [Recording(a, b, 1 / RATE).scaled((0.0, 0.0), SCALE) for a, b in zip(u, y, strict=True)]
    parts = {
        "train": sequences(windows(records[:TRAIN], window, given), given),
        "validation": sequences(windows(records[TRAIN : TRAIN + VALIDATION], window, given), given),
        "test": sequences(records[TRAIN + VALIDATION :], given),
    }
    card = DataCard(
        name="silverbox-simulated",
        source="SIMULATED Duffing oscillator with constants fitted to the Silverbox; generated, seeded",
        counts={},
        shape=(given + window, 3),
        classes=0,
        sha256=checksum(u, y),
        note=(
            f"not measured; {TRAIN} + {VALIDATION} multisines in windows of {window} samples after {given} "
            f"given ones; test: free runs over {ARROWS} arrows of {LENGTH:,} samples; ×100"
        ),
        task="regression",
    )
    return sequence_data_set(card, parts, given, 1 / RATE, in_volts((0.0, 0.0)))
