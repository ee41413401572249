"""Fields and builders that tests name as a user would: "own_code:Net"."""

import torch
from torch import nn

from adamode import NODE
from adamode.models.fields import MLP
from adamode.models.model import Beside, FlatHead, Model, ZeroStart

number = 3


class Net(nn.Module):
    def __init__(self, channels_in, channels_out):
        super().__init__()
        self.layer = nn.Linear(channels_in, channels_out)

    def forward(self, t, h):
        return torch.tanh(self.layer(h))


class ConvNet(nn.Module):
    def __init__(self, channels_in, channels_out):
        super().__init__()
        self.layer = nn.Conv2d(channels_in, channels_out, 3, padding=1)

    def forward(self, t, h):
        return torch.tanh(self.layer(h))


def decay(t, h):
    return -h


def of_three(channels_in, channels_out, width):
    return Net(channels_in, channels_out)


def nothing(*args):
    return 3


def flat(config):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def small(config):
    """A model for the plane around one of our blocks."""
    return Model(Beside(nn.Linear(2, 1)), ZeroStart(), NODE(MLP(3, (4,)), rtol=config.rtol), FlatHead(3, 2))


class Two(Net):
    def forward(self, x):
        return x, self.layer(x)


def a_pair(config):
    return Two(2, 2)


def one_number(config):
    return nn.Linear(2, 1)


def sums(config):
    """Of arrays [B, 2, 3, 5]."""
    return nn.Sequential(nn.Flatten(), nn.Linear(30, 2))
