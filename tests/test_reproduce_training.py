"""Fig. 2, Fig. 4, Table 1 and the ablations: plans, arithmetic, verdicts, and what a second call computes."""

import dataclasses
import json
import math
import shutil

import pytest
import torch

from adamode import Backsolve, TrainConfig
from adamode.plotting import save_figure
from adamode.reproduce import ablations, fig2, fig4, table1
from adamode.reproduce.machinery import section, training
from adamode.reproduce.machinery.figure import FAILS, HOLDS, IN_PART, UNTOLD, Outcome
from adamode.reproduce.machinery.paired import (
    difference,
    gain,
    interval,
    verdict_best,
    verdict_gain,
    verdict_no_more,
    widened,
)
from adamode.reproduce.machinery.work import Allowed, Work
from adamode.solvers.errors import CheckpointError, TrainingError
from adamode.train.sweep import Ended, plan
from adamode.train.trainer import Trainer

MODELS = ("node", "hbnode", "ghbnode", "adamnode")
TINY = {"models": MODELS, "epochs": 2, "train_size": 32}


def tiny(figure, **changes):
    """A figure's smoke settings, smaller still."""
    return dataclasses.replace(figure.FIGURE.settings["smoke"], **TINY, **changes)


def silent(text):
    pass


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which Fig. 2's runs are finished and its parts computed."""
    folder = tmp_path_factory.mktemp("reproduced")
    work_in(folder, "fig2").open("fig2", tiny(fig2))
    fig2.FIGURE.compute(tiny(fig2), work_in(folder, "fig2"))
    return folder


def work_in(folder, name, **allowed):
    return Work(folder / name, folder / "runs", "smoke", Allowed(**{"say": silent, "jobs": 1, **allowed}))


def files_under(folder):
    """Every file with the moment of its last change."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def metrics_of(folder, name):
    lines = (folder / "runs" / name / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


# Plans


def test_the_sample_s_runs_are_the_documented_ones_seeds_outermost(tmp_path):
    work = Work(tmp_path / "fig2", tmp_path / "runs", "sample", Allowed())
    jobs = training.plan_runs(fig2.FIGURE.settings["sample"], work)
    expected = [
        TrainConfig(
            model=model,
            dataset=dataset,
            seed=seed,
            epochs={"mnist": 5, "cifar10": 2}[dataset],
            train_size=1000,
            val_size=100,
            test_size=1000,
            normalise="unit",
            test_every_epoch=True,
            checkpoint_every=5,
            name=f"{model}-{dataset}-seed={seed}",
            output_dir=str(tmp_path / "runs"),
        )
        for seed in (0, 1, 2)
        for dataset in ("mnist", "cifar10")
        for model in ("node", "anode", "sonode", "hbnode", "ghbnode", "adamnode")
        if (model, dataset) != ("node", "cifar10")
    ]
    assert [job.config for job in jobs] == expected
    assert {job.state for job in jobs} == {"new"}
    assert all(job.config.gradient == "discrete" for job in jobs)
    assert list(tmp_path.iterdir()) == []  # planning writes nothing


def test_the_paper_s_scale_takes_all_images_and_ten_epochs(tmp_path):
    work = Work(tmp_path / "fig2", tmp_path / "runs", "paper", Allowed())
    for job in training.plan_runs(fig2.FIGURE.settings["paper"], work):
        config = job.config
        assert (config.epochs, config.train_size, config.val_size, config.test_size) == (10, 0, 0, 0)
        assert config.lr == {"mnist": 1e-4, "cifar10": 1e-3}[config.dataset]
        assert config.batch_size == {"mnist": 32, "cifar10": 64}[config.dataset]


def test_the_night_s_scale_takes_a_small_file_s_images_for_ten_epochs(tmp_path):
    work = Work(tmp_path / "fig2", tmp_path / "runs", "full-small", Allowed())
    configs = [job.config for job in training.plan_runs(fig2.FIGURE.settings["full-small"], work)]
    assert [(c.dataset, c.model) for c in configs] == [
        (dataset, model) for dataset in ("mnist", "cifar10") for model in ("node", "hbnode", "adamnode")
    ]
    assert {(c.seed, c.epochs, c.train_size, c.val_size, c.test_size) for c in configs} == {
        (0, 10, 4500, 500, 1000)
    }


def test_steps_are_those_of_the_paper_s_training_and_of_a_run():
    assert [training.paper_steps(name) for name in ("mnist", "cifar10")] == [18_750, 7_820]
    settings = fig2.FIGURE.settings
    found = {(s, d): training.steps_of(settings[s], d) for s in settings for d in ("mnist", "cifar10")}
    assert (found["sample", "mnist"], found["sample", "cifar10"]) == (160, 32)
    assert (found["full-small", "mnist"], found["full-small", "cifar10"]) == (1_410, 710)
    assert found["paper", "mnist"] == 16_880  # less the tenth that validates
    assert training.steps_of(settings["sample"], "mnist", 2) == 64


@pytest.mark.parametrize("scale", ["smoke", "sample", "full-small", "paper"])
def test_the_three_figures_share_their_runs(tmp_path, scale):
    work = Work(tmp_path / "any", tmp_path / "runs", scale, Allowed())

    def planned(figure):
        return {job.config for job in training.plan_runs(figure.FIGURE.settings[scale], work)}

    assert planned(fig4) == planned(fig2)
    assert planned(table1) <= planned(fig2)
    assert len(planned(fig2)) == {"smoke": 6, "sample": 33, "full-small": 6, "paper": 36}[scale]


def test_a_data_set_can_be_left_out_and_the_stand_in_says_for_what_it_stands():
    sample, smoke = (fig2.FIGURE.settings[scale] for scale in ("sample", "smoke"))
    assert training.data_sets(dataclasses.replace(sample, datasets=("mnist",))) == {"mnist": ("mnist",)}
    assert training.data_sets(smoke) == {"digits": ("mnist", "cifar10")}
    assert "standing in for MNIST and CIFAR-10" in section.title_of("digits", ("mnist", "cifar10"))


# What is computed from runs


def test_efficacy_is_test_accuracy_per_evaluation_of_the_test_and_of_the_training_backwards():
    row = {"epoch": 3, "train_loss": 0.5, "test_accuracy": 0.9, "test_nfe_forward": 30.0}
    epoch = fig2.epoch_of({**row, "nfe_forward": 99.0, "nfe_backward": 45.0, "seconds": 7.0})
    assert epoch["efficacy_forward"] == pytest.approx(0.03)
    assert epoch["efficacy_backward"] == pytest.approx(0.02)


def test_fig2_s_rows_are_the_runs_last_epochs(place):
    outcome = fig2.FIGURE.compute(tiny(fig2), work_in(place, "fig2"))
    assert [row["model"] for row in outcome.rows] == list(MODELS)
    for row in outcome.rows:
        *history, final = metrics_of(place, f"{row['model']}-digits-seed=0")
        assert row["parameters"] == final["parameters"]
        assert row["train_loss"] == history[-1]["train_loss"]
        assert [epoch["test_accuracy"] for epoch in row["history"]] == [e["test_accuracy"] for e in history]
        assert row["efficacy_forward"] * history[-1]["test_nfe_forward"] == pytest.approx(
            row["test_accuracy"]
        )
        assert row["efficacy_backward"] * history[-1]["nfe_backward"] == pytest.approx(row["test_accuracy"])
        assert row["efficacy_backward_backsolve"] * row["nfe_backward_backsolve"] == pytest.approx(
            row["test_accuracy"]
        )
        assert (row["dataset"], row["stands_for"]) == ("digits", ["mnist", "cifar10"])
    last = {row["model"]: row["efficacy_forward"] for row in outcome.rows}
    best = max(value for model, value in last.items() if model != "adamnode")
    told = next(f for f in outcome.findings if "by optimiser steps" in f)
    assert f"{100 * (last['adamnode'] / best - 1):+.0f} % over " in told.rpartition(", ")[2]
    assert told.endswith(" at 2.")  # epochs of one step
    step = next(f for f in outcome.findings if "an attempted step of dopri5 is 6 evaluations" in f)
    nfe = next(row["nfe_forward"] for row in outcome.rows if row["model"] == "adamnode")
    assert f"{600 / nfe:.0f} % of AdamNODE's mean {nfe:.3g}" in step
    passes = [epoch["nfe_forward"] for row in outcome.rows for epoch in row["history"]]
    alike = sum(nfe in (8, 14, 20, 26, 32, 38, 44, 50) for nfe in passes)
    assert f"Of {len(passes)} test passes (models, seeds, epochs) {alike} have" in step
    assert {claim.verdict for claim in fig2.FIGURE.judge(tiny(fig2), outcome)} == {UNTOLD}


@pytest.mark.parametrize("figure", [fig2, fig4])
def test_a_second_call_computes_nothing(place, figure):
    def never(text):
        pytest.fail(f"something is computed again: {text}")

    figure.FIGURE.compute(tiny(figure), work_in(place, figure.FIGURE.name))
    before = files_under(place)
    outcome = figure.FIGURE.compute(tiny(figure), work_in(place, figure.FIGURE.name, say=never))
    assert files_under(place) == before
    assert outcome == figure.FIGURE.compute(tiny(figure), work_in(place, figure.FIGURE.name, say=never))


def test_without_training_what_is_finished_is_taken_and_counted(place, tmp_path):
    settings = tiny(fig2, seeds=(0, 1))
    work = Work(place / "fig2", place / "runs", "smoke", Allowed(say=silent, jobs=0))
    outcome = fig2.FIGURE.compute(settings, work)
    assert {row["seeds"] for row in outcome.rows} == {"1 of 2 seeds"}
    assert outcome.findings[0] == "4 of 8 runs are not finished yet."
    assert section.sections(settings, outcome.rows)[0].sizes == (
        "32 training, 32 test images, 2 epochs, 2 of the paper's 18,750 steps, 1 of 2 seeds"
    )
    assert all("1 of 2 seeds" in claim.why for claim in fig2.FIGURE.judge(settings, outcome))
    assert not (place / "runs" / "node-digits-seed=1").exists()


def test_without_training_and_without_runs_it_is_an_error_that_says_so(tmp_path):
    with pytest.raises(CheckpointError, match=r"no finished run of the 4 planned.*--jobs 1"):
        fig2.FIGURE.compute(tiny(fig2), work_in(tmp_path, "fig2", jobs=0))
    assert not (tmp_path / "runs").exists()


def test_what_is_missing_is_trained_in_bounded_processes_and_failures_are_told(place, monkeypatch):
    """Stand-in processes: all but one fail, and that one makes nothing."""
    asked, said = {}, []

    def sweep(jobs, *, at_once, on_start, on_end):
        asked.update(names=[job.config.name for job in jobs], at_once=at_once)
        ended = [Ended(job, int(job.config.model != "node"), "error: the loss is nan") for job in jobs]
        for end in ended:
            on_start(end.job)
            on_end(end)
        return ended

    monkeypatch.setattr(training, "run_sweep", sweep)
    settings = tiny(fig2, seeds=(0, 1), processes=True)
    runs, missing = training.training_runs(settings, work_in(place, "fig2", jobs=3, say=said.append))
    assert asked == {"names": [f"{model}-digits-seed=1" for model in MODELS], "at_once": 3}
    assert [run.seed for run in runs] == [0, 0, 0, 0]
    assert missing[0] == "hbnode-digits-seed=1 could not be trained: error: the loss is nan"
    assert len(missing) == 4  # three failures, and one that is just not there
    assert said[0].startswith("runs: 4 of 8 done, about ")  # judged by seed 0
    assert any("FAILED: error: the loss is nan" in line for line in said)


def test_where_backsolve_raises_the_row_says_so(place, monkeypatch):
    """A limit that no reconstruction keeps."""
    monkeypatch.setattr(fig2, "Backsolve", lambda: Backsolve(reconstruction_limit=1e-12, anchors=0))
    work = work_in(place, "fig2-raising")
    run = next(r for r in training.training_runs(tiny(fig2), work)[0] if r.model == "adamnode")
    cost = fig2.backsolve_cost(run, 1, work)
    assert cost["nfe_backward"] is None
    assert cost["problem"].startswith("ReconstructionError: ")


def test_fig4_s_seconds_are_those_of_the_training_steps(place):
    outcome = fig4.FIGURE.compute(tiny(fig4), work_in(place, "fig4"))
    seconds = {}
    for row in outcome.rows:
        *history, _ = metrics_of(place, f"{row['model']}-digits-seed=0")
        seconds[row["model"]] = sum(epoch["seconds"] for epoch in history) / 2
        assert row["seconds_per_epoch"] == pytest.approx(seconds[row["model"]])
        assert row["history"][-1]["seconds_so_far"] == pytest.approx(2 * seconds[row["model"]])
        step = row["seconds_per_step"]
        assert row["relative_to_hbnode"] == pytest.approx(step / outcome.rows[1]["seconds_per_step"])
        assert 0 < step < row["seconds_per_epoch"] * 10  # two steps an epoch: of the same order
    assert outcome.rows[1]["relative_to_hbnode"] == 1.0
    assert {claim.verdict for claim in fig4.FIGURE.judge(tiny(fig4), outcome)} == {UNTOLD}


def test_table1_has_the_memory_of_every_adjoint_relative_to_node(place):
    settings = dataclasses.replace(tiny(table1), measured=("node", "adamnode"))
    outcome = table1.FIGURE.compute(settings, work_in(place, "table1"))
    assert [row["model"] for row in outcome.rows] == ["node", "adamnode"]
    rows = {row["model"]: row for row in outcome.rows}
    for name in table1.COLUMNS:
        assert rows["node"][f"relative_{name}"] == 1.0
        ratio = rows["adamnode"][f"mib_{name}"] / rows["node"][f"mib_{name}"]
        assert rows["adamnode"][f"relative_{name}"] == pytest.approx(ratio)
        assert ratio > 1.2  # three blocks, not one
    for row in outcome.rows:
        assert row["mib_discrete_state"] < row["mib_discrete_stages"]
        assert row["paper_relative"] == row["paper_mib"] / 2469
    for step in outcome.variants["steps"]:
        assert step["with_parameters_mib"] - step["peak_mib"] == pytest.approx(step["parameters_mib"])
        assert step["parameters_mib"] * 2**20 == pytest.approx(4 * step["parameters"], rel=0.01)
        assert step["batch_size"] == 8
    one = {o["model"]: o for o in outcome.variants["evaluations"]}
    assert one["adamnode"]["state_mib"] == pytest.approx(3 * one["node"]["state_mib"])
    assert one["node"]["state_mib"] == pytest.approx(8 * 8 * 8 * 8 * 4 / 2**20)  # batch, channels, image
    assert all(o["evaluation_mib"] > o["state_mib"] for o in one.values())
    assert any(f"NODE {one['node']['state_mib']:.1f}, " in finding for finding in outcome.findings)
    before = files_under(place)
    assert table1.FIGURE.compute(settings, work_in(place, "table1")) == outcome
    assert files_under(place) == before


def test_table1_takes_a_model_as_it_begins_where_its_run_is_not_finished(place, tmp_path):
    shutil.copytree(place / "runs" / "node-digits-seed=0", tmp_path / "runs" / "node-digits-seed=0")
    settings = dataclasses.replace(tiny(table1), measured=("node", "adamnode"))
    outcome = table1.FIGURE.compute(settings, work_in(tmp_path, "table1", jobs=0))
    assert [row["weights"] for row in outcome.rows] == [f"{settings.epochs} epochs", "untrained"]
    assert [row["seeds"] for row in outcome.rows] == ["1 of 1 seeds", "0 of 1 seeds"]
    assert all(row["mib_discrete_stages"] > 0 for row in outcome.rows)
    assert any("untrained weights of AdamNODE" in finding for finding in outcome.findings)
    settings = dataclasses.replace(settings, measured=("node",))
    outcome = table1.FIGURE.compute(settings, work_in(tmp_path / "empty", "table1", jobs=0))
    assert [row["weights"] for row in outcome.rows] == ["untrained"]


def test_pictures_are_drawn_also_where_seeds_and_models_lack(place, tmp_path):
    settings = tiny(fig2, seeds=(0, 1))
    outcome = fig2.FIGURE.compute(settings, work_in(place, "fig2", jobs=0))
    fewer = Outcome([row for row in outcome.rows if row["model"] != "adamnode"])
    for name, picture in fig2.FIGURE.pictures.items():
        for k, shown in enumerate((outcome, fewer)):
            path = tmp_path / f"{name}-{k}.png"
            texts = drawn(picture, settings, shown, path)
            assert path.stat().st_size > 10_000
            seeds = ", 1 of 2 seeds" if shown is outcome else ", 0–1 of 2 seeds"
            assert any(text.endswith(seeds) for text in texts)
            assert "AdamNODE" in texts


def drawn(picture, settings, outcome, path):
    """Draws a picture and returns the texts in it."""
    from matplotlib.text import Text

    texts = []

    def draw(figure):
        picture.draw(figure, settings, outcome)
        texts.extend(text.get_text() for text in figure.findobj(Text))

    save_figure(path, draw, size=picture.size)
    return texts


# Verdicts


def test_an_interval_is_student_s():
    """t(0.975, 2) = 4.3027; the deviation of 1, 2, 3 is 1."""
    found = interval([1.0, 2.0, 3.0])
    assert (found.mean, found.n) == (2.0, 3)
    assert found.high - 2 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert found.low == pytest.approx(4 - found.high)
    assert interval([5.0]).low == -math.inf
    assert interval([5.0]).told() == "+5 (1 seed)"


def test_differences_are_paired_over_common_seeds():
    """The same seed decides both: paired, the difference is exact; unpaired, it is lost in the spread."""
    a, b = {0: 1.0, 1: 5.0, 2: 9.0, 7: 100.0}, {0: 0.5, 1: 4.5, 2: 8.5}
    found = difference(a, b)
    assert (found.n, found.mean, found.low, found.high) == (3, 0.5, 0.5, 0.5)
    ratio = gain({0: 1.2, 1: 6.0}, {0: 1.0, 1: 5.0})
    assert (ratio.mean, ratio.low, ratio.high) == pytest.approx((20.0, 20.0, 20.0))


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([24, 25, 26], HOLDS),
        ([19.0, 19.5, 20.1], HOLDS),  # what the paper says is inside
        ([9, 10, 11], IN_PART),
        ([9, 14, 19], IN_PART),  # wide: it begins near 0
        ([-11, -10, -9], FAILS),
        ([-1, 0, 1], FAILS),
        ([-40, 10, 60], UNTOLD),
        ([30], UNTOLD),
        ([], UNTOLD),
    ],
)
def test_a_lead_of_twenty(values, verdict):
    assert verdict_gain(interval(values), 20.0) == verdict


def test_leading_all_needs_every_interval_and_losing_one_is_enough():
    ahead, behind, open_ = interval([1, 1.1, 1.2]), interval([-1, -1.1, -1.2]), interval([-1, 0, 1])
    assert verdict_best({"a": ahead, "b": ahead}) == HOLDS
    assert verdict_best({"a": ahead, "b": open_}) == UNTOLD
    assert verdict_best({"a": ahead, "b": behind, "c": open_}) == FAILS
    assert verdict_best({"a": ahead, "b": interval([])}) == UNTOLD  # a model without runs
    assert verdict_best({}) == UNTOLD


def test_no_more_has_one_side():
    assert verdict_no_more(interval([-1.0, 0.0, 1.0]), 1.25) == HOLDS
    assert verdict_no_more(interval([-39.0, -40.0, -41.0]), 1.25) == HOLDS  # faster holds too
    assert verdict_no_more(interval([39.0, 40.0, 41.0]), 1.25) == FAILS
    assert verdict_no_more(interval([19.0, 25.0, 31.0]), 1.25) == UNTOLD


def test_a_gain_within_an_attempted_step_is_widened_by_it():
    """20 evaluations or 26: a gain of 30 % may be none, and one of -23 %, its inverse, too."""
    found = widened(interval([30.0, 30.0, 30.0]), 6 / 20)
    assert (found.low, found.high) == pytest.approx((0.0, 69.0))
    assert verdict_gain(interval([30.0, 30.0, 30.0]), 20.0) == HOLDS
    assert verdict_gain(found, 20.0) == UNTOLD
    back = widened(interval([-23.08] * 3), 0.3)
    assert (back.low, back.high) == pytest.approx((-40.83, 0.0), abs=0.01)
    one = widened(interval([5.0]), 0.3)
    assert (one.low, one.high) == (-math.inf, math.inf)


LEARNT = {"train_loss": 0.5, "test_accuracy": 0.90}


def planted(*epochs, nfe=200.0, dataset="mnist", **others):
    """Rows of six models, three seeds. epochs: AdamNODE's numbers after each; the others' are as `LEARNT`
    with an efficacy of .010, NODE's .006. others: of another model, by its name. nfe: so many that a step is
    little."""
    rows = []
    for model in training.MODEL_NAMES:
        usual = {**LEARNT, "efficacy": 0.010 if model != "node" else 0.006, **others.get(model, {})}
        for seed in (0, 1, 2):
            off = 1 + 0.001 * (seed - 1) * (1 + (model == "adamnode"))
            history = []
            for epoch, numbers in enumerate(epochs, 1):
                values = {**usual, **numbers} if model == "adamnode" else usual
                names = [f"efficacy_{way}" for way in ("forward", "backward")]
                numbers = {**dict.fromkeys(names, values["efficacy"] * off), "epoch": epoch}
                numbers |= {name: values[name] * off for name in LEARNT}
                history.append({**numbers, "nfe_forward": nfe, "nfe_backward": nfe})
            last, more = history[-1], {}
            for name in ("backward_backsolve", "forward_torchdiffeq", "backward_torchdiffeq"):
                more |= {f"efficacy_{name}": last["efficacy_forward"], f"nfe_{name}": nfe}
            rows.append(
                {"dataset": dataset, "model": model, "seed": seed, **last, **more, "history": history}
            )
    return Outcome(rows)


GOOD = {"train_loss": 0.3, "efficacy": 0.0125, "test_accuracy": 0.92}
BAD = {"train_loss": 0.7, "efficacy": 0.008, "test_accuracy": 0.88}
MNIST = dataclasses.replace(fig2.FIGURE.settings["paper"], datasets=("mnist",))


def verdicts(outcome, settings=MNIST):
    return {claim.claim: claim.verdict for claim in fig2.FIGURE.judge(settings, outcome)}


def test_fig2_s_claims_on_planted_runs_as_the_paper_has_them():
    found = verdicts(planted(GOOD))
    assert len(found) == 14
    assert set(found.values()) == {HOLDS}
    smoke = dataclasses.replace(fig2.FIGURE.settings["smoke"], datasets=("mnist",), seeds=(0, 1, 2))
    assert set(verdicts(planted(GOOD, dataset="digits"), smoke).values()) == {UNTOLD}


def test_so_few_test_images_cannot_tell_a_small_lead_in_accuracy():
    few = dataclasses.replace(MNIST, test_size=1000)
    (claim,) = [c for c in fig2.FIGURE.judge(few, planted(GOOD)) if "test accuracy" in c.claim]
    assert claim.verdict == UNTOLD
    assert claim.why.startswith("So few test images do not resolve the paper's difference.")
    assert "1,000 test images resolve differences above 2.6 points." in claim.why
    hits = torch.distributions.Binomial(1000, torch.tensor(0.9)).sample((2, 20_000)) / 1000
    apart = (hits[0] - hits[1]).abs() <= fig2.resolution(0.9, 1000)
    assert float(apart.double().mean()) == pytest.approx(0.95, abs=0.01)


def test_fig2_s_claims_on_planted_runs_that_are_against_them():
    found = verdicts(planted(BAD))
    assert found["MNIST: AdamNODE has the lowest training loss"] == FAILS
    assert found["MNIST: AdamNODE has the highest efficacy, forward, our solver"] == FAILS
    assert found["MNIST: AdamNODE's efficacy is 20 % above HBNODE's, forward, torchdiffeq"] == FAILS
    over_node = "MNIST: AdamNODE's efficacy is 80 % above NODE's, backward, torchdiffeq's adjoint"
    assert found[over_node] == IN_PART  # +33 %
    assert found["MNIST: AdamNODE's test accuracy is 0.95 points above the best other model's"] == FAILS


def test_one_seed_and_a_missing_model_tell_nothing():
    one = Outcome([row for row in planted(GOOD).rows if row["seed"] == 0])
    assert set(verdicts(one).values()) == {UNTOLD}
    without = Outcome([row for row in planted(GOOD).rows if row["model"] != "sonode"])
    claims = {claim.claim: claim for claim in fig2.FIGURE.judge(MNIST, without)}
    loss = claims["MNIST: AdamNODE has the lowest training loss"]
    assert (loss.verdict, loss.why[:50]) == (UNTOLD, "A model of the comparison has no finished run. How")
    found = {name: claim.verdict for name, claim in claims.items()}
    assert found["MNIST: AdamNODE's test accuracy is 0.95 points above the best other model's"] == UNTOLD
    # needs these two only
    assert found["MNIST: AdamNODE's efficacy is 20 % above HBNODE's, forward, our solver"] == HOLDS


def test_a_difference_of_one_attempted_step_is_no_verdict():
    """26 evaluations or 32 are 23 %: +20 % over HBNODE, and -2 %, are what one step makes."""
    for numbers in ({**GOOD, "efficacy": 0.012}, {**BAD, "efficacy": 0.0098}):
        claims = {claim.claim: claim for claim in fig2.FIGURE.judge(MNIST, planted(numbers, nfe=26.0))}
        gain_ = claims["MNIST: AdamNODE's efficacy is 20 % above HBNODE's, forward, our solver"]
        assert gain_.verdict == UNTOLD
        assert gain_.why.startswith("An attempted step is 6 evaluations, 23.1 % of the NFE, and 10,000 test")
        best = claims["MNIST: AdamNODE has the highest efficacy, forward, our solver"]
        assert best.verdict == UNTOLD
    twice = planted({**GOOD, "efficacy": 0.014}, nfe=26.0)  # +133 % over NODE is more
    assert verdicts(twice)["MNIST: AdamNODE's efficacy is 80 % above NODE's, forward, our solver"] == HOLDS


def test_a_model_that_has_not_learnt_is_held_against_no_claim():
    found = fig2.FIGURE.judge(MNIST, planted({**BAD, "train_loss": 1.2}))
    assert {claim.verdict for claim in found} == {UNTOLD}
    assert all("Not learnt by then: AdamNODE (" in c.why for c in found)
    found = verdicts(planted(GOOD, node={"train_loss": 1.2}))
    assert found["MNIST: AdamNODE has the lowest training loss"] == UNTOLD
    assert found["MNIST: AdamNODE's efficacy is 80 % above NODE's, forward, our solver"] == UNTOLD
    assert found["MNIST: AdamNODE's efficacy is 20 % above HBNODE's, forward, our solver"] == HOLDS
    found = verdicts(planted(BAD, node={"train_loss": 1.2}))  # others that have learnt lead it
    assert found["MNIST: AdamNODE has the lowest training loss"] == FAILS


def test_after_few_of_the_paper_s_steps_the_verdicts_are_those_of_each_epoch_and_none_is_of_the_paper():
    settings = dataclasses.replace(fig2.FIGURE.settings["sample"], datasets=("mnist",), epochs=3)
    outcome = planted({**GOOD, "train_loss": 2.0}, GOOD, BAD)
    claims = {claim.claim: claim for claim in fig2.FIGURE.judge(settings, outcome)}
    assert {claim.verdict for claim in claims.values()} == {UNTOLD}
    name = "MNIST: AdamNODE's efficacy is 20 % above HBNODE's, forward, our solver"
    assert claims[name].why.startswith("At 96 of 18,750 steps it does not hold. The paper's claim is for")
    assert claims[name].ours == "-20 % [-20, -20] (3 seeds) after 96 steps"
    (part,) = section.sections(settings, outcome.rows)
    rows = fig2.by_epoch(part)
    mine = [row for row in rows if row["claim"] == name]
    assert [(row["steps"], row["of"], row["verdict"], row["but"]) for row in mine] == [
        (32, 18_750, UNTOLD, "not learnt"),
        (64, 18_750, HOLDS, ""),
        (96, 18_750, FAILS, ""),
    ]
    assert mine[1]["ours"] == "+25 % [+25, +25] (3 seeds)"
    assert len(rows) == 3 * 5  # the continuous adjoints have the last weights only


@pytest.mark.parametrize(("adamnode", "verdict"), [(10.5, HOLDS), (6.0, HOLDS), (20.0, FAILS)])
def test_fig4_s_claims_on_planted_times(adamnode, verdict):
    times = {**dict.fromkeys(training.MODEL_NAMES, 10.0), "adamnode": adamnode, "ghbnode": 10.2}
    rows = [
        {
            "dataset": "mnist",
            "model": m,
            "seed": s,
            "seconds_per_step": t * (1 + s / 100),
            "seconds_per_step_torchdiffeq": None if m == "ghbnode" else t,
        }
        for m, t in times.items()
        for s in (0, 1, 2)
    ]
    settings = dataclasses.replace(fig4.FIGURE.settings["sample"], datasets=("mnist",))
    for clock, words in (("processor", "Processor time of a training step"), ("wall", " Time of a training")):
        claims = fig4.FIGURE.judge(settings, Outcome(rows, {"step_clock": clock}))
        assert [claim.verdict for claim in claims] == [verdict, verdict, verdict, UNTOLD]
        assert ["GHBNODE's" in claim.claim for claim in claims] == [False, True, False, True]
        assert ["torchdiffeq" in claim.claim for claim in claims] == [False, False, True, True]
        assert all(words in claim.why for claim in claims)


@pytest.mark.parametrize(
    ("adamnode", "most", "ratio"),
    [(1.45, HOLDS, HOLDS), (2.0, HOLDS, IN_PART), (0.9, FAILS, FAILS), (None, UNTOLD, UNTOLD)],
)
def test_table1_s_claims_on_planted_memory(adamnode, most, ratio):
    rows = []
    for model in training.MODEL_NAMES:
        relative = adamnode if model == "adamnode" else 1.0
        mib = None if relative is None else 100 * relative
        row = {"dataset": "cifar10", "model": model, "batch_size": 64}
        for name in table1.COLUMNS:
            row[f"mib_{name}"], row[f"relative_{name}"] = mib, relative
        rows.append(row)
    found = table1.FIGURE.judge(table1.FIGURE.settings["sample"], Outcome(rows))
    assert [claim.verdict for claim in found] == [most, ratio, most, ratio]
    of_mnist = dataclasses.replace(table1.FIGURE.settings["sample"], datasets=("mnist",))
    found = table1.FIGURE.judge(of_mnist, Outcome([{**row, "dataset": "mnist"} for row in rows]))
    assert {(claim.verdict, claim.paper) for claim in found} == {(UNTOLD, "none: its table is of CIFAR-10")}


def test_what_decides_table1_is_said_only_where_it_does():
    ones = [
        {"model": "node", "state_mib": 1.0, "evaluation_mib": 9.0},
        {"model": "adamnode", "state_mib": 3.0, "evaluation_mib": 5.0},
    ]
    assert "NODE's network is the widest; its state is not the largest" in table1._why("cifar10", ones)
    ones[1]["evaluation_mib"] = 12.0
    assert "widest" not in table1._why("cifar10", ones)


# Runs that were there before


@pytest.fixture
def one_epoch(tmp_path):
    """A run of one epoch, and what `plan` takes for it."""
    base = {"dataset": "digits", "output_dir": str(tmp_path / "runs"), "epochs": 1, "schedule": "constant"}
    base |= {"train_size": 32, "val_size": 16, "test_size": 16}
    axes = {"model": ["hbnode"], "seed": [0]}
    Trainer(plan(base, axes)[0].config, quiet=True).fit()
    return base, axes


def test_a_run_that_was_made_shorter_goes_on_to_the_length_asked_for(one_epoch):
    base, axes = one_epoch
    assert plan(base, axes)[0].state == "finished"
    (longer,) = plan({**base, "epochs": 2}, axes)
    assert longer.state == "unfinished"
    Trainer(longer.config, quiet=True).fit(resume=True)
    assert plan({**base, "epochs": 2}, axes)[0].state == "finished"
    assert len(training._read(longer.config).history) == 2


def test_a_run_of_another_version_or_number_of_threads_is_not_taken(one_epoch):
    config = plan(*one_epoch)[0].config
    training._refuse_another(config)
    with pytest.raises(CheckpointError, match="whose threads is not this one's: 1 there, 2 here"):
        training._refuse_another(dataclasses.replace(config, threads=2))
    path = config.folder / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "versions": {**content["versions"], "adamode": "0.0.9"}}))
    with pytest.raises(CheckpointError, match=r"whose version is not this one's: '0\.0\.9' there"):
        training._refuse_another(config)


# Ablations

TINY_ABLATION = dataclasses.replace(
    ablations.FIGURE.settings["smoke"], epochs=1, train_size=20, val_size=10, test_size=10
)


def test_the_variants_differ_in_what_they_say_and_start_from_the_same_weights(tmp_path):
    work = work_in(tmp_path, "ablations")
    blocks = {}
    for variant in ablations.variants(TINY_ABLATION):
        config = ablations.config_of(variant, TINY_ABLATION, work)
        torch.manual_seed(0)
        blocks[variant.name] = ablations.build(config, variant)
    first = blocks["released"].state_dict()
    for model in blocks.values():
        assert all(torch.equal(first[name], value) for name, value in model.state_dict().items())
    dynamics = {name: model.block.dynamics for name, model in blocks.items()}
    assert [d.adjoint_form for d in dynamics.values()] == ["exact"] * 3 + ["paper", "paper-rates", "exact"]
    assert [d.denominator for d in dynamics.values()] == ["softplus", "sigmoid", "exact", *["softplus"] * 3]
    assert dynamics["exact"].eps == 1e-3
    assert dynamics["released"].eps == 1e-8
    assert isinstance(blocks["backsolve"].block.settings.gradient, Backsolve)


def test_an_ablation_that_failed_is_no_finished_piece(tmp_path, monkeypatch):
    def fail(trainer, **keywords):
        raise TrainingError("the disk is full.")

    monkeypatch.setattr(ablations.Trainer, "fit", fail)
    work = work_in(tmp_path, "ablations")
    outcome = ablations.FIGURE.compute(TINY_ABLATION, work)
    assert sum("the disk is full." in finding for finding in outcome.findings) == len(outcome.rows) == 6
    assert [path.name for path in (work.folder / "parts").iterdir()] == ["first-batch.json"]


def test_the_ablations_are_trained_once_and_the_printed_gradient_is_found_wrong(tmp_path):
    work = work_in(tmp_path, "ablations")
    outcome = ablations.FIGURE.compute(TINY_ABLATION, work)
    assert [row["variant"] for row in outcome.rows] == [v.name for v in ablations.variants(TINY_ABLATION)]
    losses = [row["train_loss"] for row in outcome.rows]
    assert all(map(math.isfinite, losses))
    forms = outcome.variants["first_batch"]["gradient"]
    assert forms["paper"]["relative_error"] > 0.01
    assert forms["paper-rates"]["relative_error"] > 1e-3  # the digits' rates are small; rounding is 1e-6
    assert forms["paper"]["cosine"] < 1
    (claim,) = ablations.FIGURE.judge(TINY_ABLATION, outcome)
    assert claim.verdict == UNTOLD
    (claim,) = ablations.FIGURE.judge(dataclasses.replace(TINY_ABLATION, stands_in=False), outcome)
    assert claim.verdict == FAILS
    before = files_under(tmp_path)
    assert ablations.FIGURE.compute(TINY_ABLATION, work_in(tmp_path, "ablations", jobs=0)) == outcome
    assert files_under(tmp_path) == before
    texts = drawn(ablations.FIGURE.pictures["ablations"], TINY_ABLATION, outcome, tmp_path / "a.png")
    assert any("20 training, 10 test images, 1 epochs, 1 seed" in text for text in texts)
