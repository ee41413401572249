from types import SimpleNamespace

import pytest
import torch
from torch import nn

from adamode.train.metrics import EpochSums, count_parameters, efficacy, peak_memory_mib, solve_counts
from adamode.train.position import Position


def test_means_weigh_a_short_last_batch_by_its_samples():
    sums = EpochSums()
    sums.add(30, 1.0, 15, (8, 6))
    sums.add(10, 2.0, 10, (20, 18))
    assert sums.mean("loss") == 1.25
    assert sums.mean("nfe_forward") == 11
    assert sums.mean("nfe_backward") == 9
    assert sums.accuracy == 25 / 40


def test_efficacy_is_accuracy_per_evaluation_and_none_without_a_solve():
    assert efficacy(0.9, 30.0) == pytest.approx(0.03)
    assert efficacy(0.9, 0.0) is None


def test_counts_are_read_from_the_model_or_its_block():
    model = nn.Module()
    assert solve_counts(model) == (0, 0)
    model.block = nn.Module()
    model.block.last_stats = SimpleNamespace(nfe=7, nfe_backward=None)
    assert solve_counts(model) == (7, 0)
    model.last_stats = SimpleNamespace(nfe=torch.tensor([6, 12]), nfe_backward=torch.tensor([1, 2]))
    assert solve_counts(model) == (9, 1.5)


def test_frozen_parameters_are_not_counted():
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    assert count_parameters(model) == 6


def test_memory_is_that_of_this_process():
    # torch alone needs more than 50 MiB; 64 GiB would be a wrong unit
    assert 50 < peak_memory_mib(torch.device("cpu")) < 2**16


def sums(loss, correct):
    result = EpochSums()
    result.add(10, loss, correct, (8, 6))
    return result


def test_the_best_epoch_has_the_highest_accuracy_then_the_lowest_loss():
    position, better = Position(), []
    for val in (sums(1.0, 5), sums(0.5, 4), sums(0.9, 5), sums(0.95, 5), sums(2.0, 6)):
        position.sums = sums(1.0, 5)
        better.append(position.end_epoch(val, None))
        if better[-1]:
            position.keep_best({})
    assert better == [True, False, True, False, True]
    assert position.best["epoch"] == 5


def test_efficacy_takes_the_test_pass_forward_and_the_last_training_epoch_backward():
    position = Position()
    for nfe in ((8, 6), (10, 5)):
        position.sums.add(10, 1.0, 5, nfe)
        position.end_epoch(sums(1.0, 5), None)
    position.keep_best({})
    test = EpochSums()
    test.add(10, 1.0, 8, (16, 0))
    position.finish(test, nn.Linear(3, 2))
    assert position.final["efficacy_forward"] == 0.8 / 16
    assert position.final["efficacy_backward"] == 0.8 / 5
    assert position.final["parameters"] == 8
