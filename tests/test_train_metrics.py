from types import SimpleNamespace

import pytest
import torch
from torch import nn

from adamode import ArgumentError
from adamode.train.metrics import count_parameters, efficacy, peak_memory_mib
from adamode.train.position import Position
from adamode.train.step import EpochSums, Objective, solve_counts

CLASSES, VALUES = Objective("accuracy"), Objective("rmse", "mV", 10.0)


def test_means_weigh_a_short_last_batch_by_its_samples():
    sums = EpochSums()
    sums.add(30, 30 * 1.0, 15, (30 * 8, 30 * 6))
    sums.add(10, 10 * 2.0, 10, (10 * 20, 10 * 18))
    assert sums.mean("loss") == 1.25
    assert sums.mean("nfe_forward") == 11
    assert sums.mean("nfe_backward") == 9
    assert CLASSES.measure(sums) == 25 / 40


def test_an_rmse_is_the_root_of_the_mean_over_all_samples_in_the_datas_unit():
    output, target = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 4.0], [0.0, 4.0]])
    assert VALUES.score(output, target).item() == (4 + 9) / 2
    assert VALUES.loss(output, target).item() == 13 / 4
    sums = EpochSums()
    sums.add(2, 0.0, 13 / 2, (0, 0))
    assert VALUES.measure(sums) == pytest.approx(10 * (13 / 4) ** 0.5)
    assert VALUES.told(VALUES.measure(sums)) == "rmse 18.03 mV"


def test_values_of_another_shape_than_the_targets_are_refused():
    with pytest.raises(ArgumentError, match=r"\(2, 1\).*\(2,\)"):
        VALUES.loss(torch.zeros(2, 1), torch.zeros(2))


def test_efficacy_is_accuracy_per_evaluation_and_none_without_a_solve():
    assert efficacy(0.9, 30.0) == pytest.approx(0.03)
    assert efficacy(0.9, 0.0) is None


def test_counts_are_read_from_the_model_or_its_block():
    model = nn.Module()
    assert solve_counts(model, 2) == (0, 0)
    model.block = nn.Module()
    model.block.last_stats = SimpleNamespace(nfe=7, nfe_backward=None)
    assert solve_counts(model, 2) == (14, 0)  # each sample of the batch counts every evaluation
    model.last_stats = SimpleNamespace(nfe=torch.tensor([6, 12]), nfe_backward=torch.tensor([1, 2]))
    assert solve_counts(model, 2) == (18, 3)


def test_frozen_parameters_are_not_counted():
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    assert count_parameters(model) == 6


def test_memory_is_that_of_this_process():
    # torch alone needs more than 50 MiB; 64 GiB would be a wrong unit
    assert 50 < peak_memory_mib(torch.device("cpu")) < 2**16


def sums(loss, correct):
    result = EpochSums()
    result.add(10, 10 * loss, correct, (80, 60))
    return result


def test_the_best_epoch_has_the_highest_accuracy_then_the_lowest_loss():
    position, better = Position(), []
    for val in (sums(1.0, 5), sums(0.5, 4), sums(0.9, 5), sums(0.95, 5), sums(2.0, 6)):
        position.sums = sums(1.0, 5)
        better.append(position.end_epoch(val, None, CLASSES))
        if better[-1]:
            position.keep_best({})
    assert better == [True, False, True, False, True]
    assert position.best["epoch"] == 5


def test_efficacy_takes_the_test_pass_forward_and_the_last_training_epoch_backward():
    position = Position()
    for nfe in ((8, 6), (10, 5)):
        position.sums.add(10, 10.0, 5, (10 * nfe[0], 10 * nfe[1]))
        position.end_epoch(sums(1.0, 5), None, CLASSES)
    position.keep_best({})
    test = EpochSums()
    test.add(10, 10.0, 8, (160, 0))
    position.finish(test, nn.Linear(3, 2), CLASSES, {})
    assert position.final["efficacy_forward"] == 0.8 / 16
    assert position.final["efficacy_backward"] == 0.8 / 5
    assert position.final["parameters"] == 8


def test_the_best_epoch_of_values_has_the_lowest_error():
    row = {"val_rmse": 2.0, "val_loss": 1.0}
    assert VALUES.better(row | {"val_rmse": 1.9}, row)
    assert not VALUES.better(row | {"val_rmse": 2.1}, row)
    assert VALUES.better(row | {"val_loss": 0.9}, row)


def test_training_is_over_after_so_many_epochs_without_a_better_one():
    position = Position(epoch=5, best={"epoch": 3})
    assert [position.over(10, patience) for patience in (0, 1, 2, 3)] == [False, True, True, False]
    assert position.over(5, 0)
