"""The speed benchmark's own logic: rounds, tables, ratios, check, the floors' counts; nothing is timed."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from benchmark_package import benchmark_module

from adamode import Discrete
from adamode.adjoint.dynamics.protocol import Dynamics

names = ("cases", "check", "command", "digits", "floor", "job", "measure", "picture", "reference", "report")
cases, check, command, digits, floor, job, measure, picture, reference, report = (
    benchmark_module("", f"speed.{name}") for name in names
)
all_ways, scaling, subject, way = (
    benchmark_module("", f"speed.{name}") for name in ("all_ways", "scaling", "subject", "way")
)
ours, in_jax = (benchmark_module("", f"speed.peers.{name}") for name in ("ours", "in_jax"))
Row, Sample, Counts = measure.Row, job.Sample, job.Counts


def row(name, group, seconds, error=1e-5, counts=None, **more):
    samples = [Sample(cpu=s, wall=2 * s) for s in seconds]
    return Row(name, group, samples=samples, error=error, counts=counts or Counts(), **more)


def found(*rows, case="mlp", kind="gradient"):
    return report.Found(case, 1e-5, kind, "cpu", math.nan, list(rows))


class Scripted:
    """A job that takes no time and notes when it ran."""

    first, compiled = 0.0, False

    def __init__(self, name, log, wall=0.0):
        self.name, self.log, self.wall = name, log, wall

    def measure(self):
        self.log.append(self.name)
        return Sample(self.wall, self.wall)

    def compilations(self):
        return None


@pytest.fixture(scope="module")
def tiny():
    """float64, so that an error is the method's."""
    return cases.make("tiny", dtype=torch.float64)


def test_every_round_runs_every_way_once_in_turning_order():
    log = []
    jobs = [(Row(name, way.OURS), Scripted(name, log)) for name in "abc"]
    measure.run_rounds(jobs, measure.Settings(rounds=2))
    assert "".join(log) == "abc" + "bca" + "cab"  # the first warms up
    assert [len(one.samples) for one, _ in jobs] == [2, 2, 2]


def test_a_way_that_takes_long_gets_as_many_rounds_as_its_budget_holds_and_three_at_least():
    log = []
    walls = {"fast": 0.001, "slow": 2.5, "slower": 100.0}
    jobs = [(Row(name, way.PEER), Scripted(name, log, wall)) for name, wall in walls.items()]
    measure.run_rounds(jobs, measure.Settings(rounds=7, budget=10.0))
    assert [len(one.samples) for one, _ in jobs] == [7, 4, 3]


def test_a_ratio_is_the_median_over_the_rounds_that_both_were_in():
    a, b = row("a", way.OURS, [1.0, 2.0, 9.0]), row("b", way.PEER, [2.0, 2.0])
    assert measure.ratio(a, b, "cpu") == 0.75  # of 1/2 and 2/2
    assert measure.ratio(a, a, "wall") == 1.0
    assert math.isnan(measure.ratio(a, row("none", way.PEER, []), "cpu"))


def test_quartiles_are_those_of_the_samples():
    assert row("a", way.OURS, [4.0, 1.0, 2.0, 3.0, 5.0]).quartiles("cpu") == (2.0, 3.0, 4.0)
    assert row("a", way.OURS, [4.0]).quartiles("wall") == (8.0, 8.0, 8.0)


def test_an_error_is_the_worst_tensors_norm_and_nan_stays_nan():
    right = [torch.tensor([3.0, 4.0]), torch.tensor([1.0])]
    assert reference.error([torch.tensor([3.0, 4.5]), torch.tensor([1.2])], right) == pytest.approx(0.2)
    assert math.isnan(reference.error([torch.tensor([math.nan, 0.0]), torch.tensor([1.0])], right))


def test_a_ratio_is_marked_where_our_error_is_the_larger():
    own = row("adamode/discrete", way.OURS, [1.0])
    assert report.ratio_cell(own, row("p", way.PEER, [3.0], error=1e-4), "cpu") == "3.00×"
    assert report.ratio_cell(own, row("p", way.PEER, [3.0], error=1e-6), "cpu") == "3.00× !"
    assert report.ratio_cell(own, row("p", way.PEER, [3.0], error=1e-5 / 1.01), "cpu") == "3.00×"
    assert report.ratio_cell(own, row("p", way.PEER, [3.0], error=math.nan), "cpu") == "3.00× (NaN)"
    broken = row("adamode/discrete", way.OURS, [1.0], error=math.nan)
    assert report.ratio_cell(broken, row("p", way.PEER, [3.0]), "cpu") == "3.00× !"


def test_an_overhead_says_where_the_floor_made_other_evaluations():
    same, other = Counts(nfe=8, nfe_backward=0, vjps=6), Counts(nfe=14, nfe_backward=0, vjps=6)
    bare = row("floor/autograd", way.FLOOR, [1.0], error=None, counts=same)
    assert report.ratio_cell(row("a", way.OURS, [1.25], counts=same), bare, "cpu") == "+25 %"
    assert report.ratio_cell(row("a", way.OURS, [1.25], counts=other), bare, "cpu") == "+25 % *"


def test_the_text_shows_nan_and_why_a_way_is_missing():
    rows = [row("adamode/discrete", way.OURS, [0.0125] * 2), row("p/adjoint", way.PEER, [1.0] * 2, math.nan)]
    rows += [Row("q/one", way.PEER, reason="not installed"), Row("q/two", way.PEER, reason="not installed")]
    text = report.text(found(*rows))
    assert "not installed: q/one, q/two" in text
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.startswith(("adam", "p/"))}
    assert lines["adamode/discrete"][1] == "12.5"
    assert "NaN" in next(line for line in text.splitlines() if line.startswith("p/adjoint"))


def test_json_holds_every_sample_and_null_for_nan(tmp_path):
    data = report.as_data([found(row("a", way.OURS, [1.0, 2.0], error=math.nan))], {"machine": "m"})
    report.write_json(tmp_path / "out.json", data)
    read = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    one = read["cases"][0]["rows"][0]
    assert [s["cpu"] for s in one["samples"]] == [1.0, 2.0]
    assert one["error"] is None
    assert read["machine"] == "m"


def test_the_check_names_what_is_more_than_a_quarter_worse_and_what_is_gone():
    committed = {"mlp": {"adamode/discrete": {"torchdiffeq/direct": 0.4, "floor/autograd": 1.0}}}
    close = {"mlp": {"adamode/discrete": {"torchdiffeq/direct": 0.49, "floor/autograd": 1.2}}}
    assert check.regressions(close, committed, ["mlp"]) == []
    slower = {"mlp": {"adamode/discrete": {"torchdiffeq/direct": 0.51}}}
    bad = check.regressions(slower, committed, ["mlp", "tiny"])
    assert [one.against for one in bad] == ["torchdiffeq/direct", "floor/autograd"]
    assert "mlp: adamode/discrete ÷ torchdiffeq/direct: 0.400 committed, 0.510 now" in str(bad[0])
    assert "not measured now" in str(bad[1])


def test_ratios_are_kept_against_torchdiffeq_and_the_floors_beside_those_of_other_cases(tmp_path):
    target = tmp_path / "ratios.json"
    with pytest.raises(ValueError, match="--write-ratios"):
        check.read(target)
    rows = [row("adamode/discrete", way.OURS, [1.0]), row("torchdiffeq/direct", way.PEER, [4.0])]
    rows += [row("torchode/autodiff", way.PEER, [4.0]), row("floor/autograd", way.FLOOR, [0.5], error=None)]
    check.write([found(*rows)], {}, target)
    check.write([found(*rows, case="tiny")], {}, target)
    kept = {"adamode/discrete": {"torchdiffeq/direct": 0.25, "floor/autograd": 2.0}}
    assert check.read(target) == {"mlp": kept, "tiny": kept}


def test_the_check_is_status_one_where_a_ratio_is_worse(capsys):
    given = command.parser().parse_args([])
    given.cases, given.committed = ["mlp"], {"mlp": {"a": {"torchdiffeq/direct": 0.1}}}
    rows = [row("a", way.OURS, [1.0]), row("torchdiffeq/direct", way.PEER, [4.0])]
    assert command.judge([found(*rows)], given) == 1
    assert "slower: mlp: a ÷ torchdiffeq/direct" in capsys.readouterr().out
    given.committed = {"mlp": {"a": {"torchdiffeq/direct": 0.21}}}
    assert command.judge([found(*rows)], given) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--case", "none"], "there is no such case"),
        (["--way", "nobody/*"], "fits none of"),
        (["--quick", "--check"], "--quick measures small cases"),
        (["--tolerances", "small"], "give numbers"),
        (["--rounds", "0"], "at least 1"),
    ],
)
def test_a_call_that_cannot_be_meant_is_status_two(arguments, words, capsys):
    assert command.main(arguments) == 2
    assert words in capsys.readouterr().out


def test_ways_are_chosen_by_name_prefix_and_pattern():
    every = all_ways.all_ways()
    assert len({w.name for w in every}) == len(every)
    picked = [w.name for w in way.chosen(every, "adamode/discrete,floor/*", quick=False)]
    assert picked[0] == "adamode/discrete"
    assert "adamode/discrete/compiled" in picked
    assert "adamode/discrete-state" not in picked
    assert "floor/hand-written" in picked
    assert not [w for w in way.chosen(every, None, quick=True) if w.slow]


class Counted(Dynamics):
    """A dynamics whose calls are counted."""

    def __init__(self, inner):
        self.inner, self.calls = inner, {"forward": 0, "vjp": 0, "stages": []}

    def theta(self):
        return self.inner.theta()

    def forward(self, t, z):
        self.calls["forward"] += 1
        return self.inner.forward(t, z)

    def vjp(self, saved, cotangent):
        self.calls["vjp"] += 1
        return self.inner.vjp(saved, cotangent)

    def parameter_gradients(self, saved, deltas, weights):
        self.calls["stages"].append(len(saved))
        return self.inner.parameter_gradients(saved, deltas, weights)


def test_the_floor_of_the_hand_written_field_makes_the_evaluations_it_is_told_and_no_more(tiny):
    dynamics = Counted(tiny.dynamics)
    floor.hand_run(dynamics, tiny.z0, tiny.t[0], Counts(nfe=20, nfe_backward=3, vjps=13, accepted=2))()
    assert dynamics.calls == {"forward": 23, "vjp": 13, "stages": [7, 6]}


def test_the_floor_of_autograd_makes_the_evaluations_it_is_told_and_no_more(tiny):
    tally = job.Tally(tiny.plain)
    bare = dataclasses.replace(subject.stacked(tiny), func=tally)
    floor.autograd_run(bare, tiny.t[0], torch.ones_like(tiny.z0), Counts(nfe=9, vjps=7))()
    assert (tally.nfe, tally.vjps) == (9, 7)
    with torch.no_grad():
        floor.forward_run(tally, tiny.z0, tiny.t[0], 4)()
    assert (tally.nfe, tally.vjps) == (13, 7)


@pytest.mark.parametrize("name", ["mlp", "tiny", "wide", "long", "conv"])
def test_the_users_module_is_the_same_function_of_the_same_parameters(name):
    case = cases.make(name, small=True)
    t = torch.tensor(0.3, dtype=torch.float64)
    z = case.z0.requires_grad_()
    ours_, theirs = case.dynamics.forward(t, z)[0], case.plain(t, z)
    torch.testing.assert_close(theirs, ours_, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(z)
    inputs = [z, *case.theta]
    assert [id(p) for p in case.theta] == [id(p) for p in case.plain.parameters()]
    for a, b in zip(*(torch.autograd.grad(dz, inputs, weights) for dz in (ours_, theirs)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("layout", ["stacked", "channels_last", "batch_first"])
def test_every_layout_is_the_same_function(layout):
    case = cases.make("conv", small=True)
    own = getattr(subject, layout)(case)
    t = torch.tensor(0.3, dtype=torch.float64)
    time = t.expand(len(own.y0)) if layout == "batch_first" else t
    torch.testing.assert_close(own.restore(own.func(time, own.y0)), case.plain(t, case.z0))
    assert (own.y0 * own.w.sum(1 if layout == "batch_first" else 0)).sum() == pytest.approx(
        float((case.z0 * case.w.sum(0)).sum())
    )


def eager_ways(case):
    return [w for w in [*all_ways.all_ways(), *digits.ways()] if w.fits(case) and not w.slow]


@pytest.mark.filterwarnings("ignore")  # of the libraries compared with
@pytest.mark.parametrize(
    "name", ["tiny", "user-tiny", "inference-tiny", "observations", "hetero", "fixed-midpoint-32"]
)
def test_every_eager_way_finds_the_reference(name):
    case = cases.make(name, small=True, dtype=torch.float64).at(1e-6)
    if case.dynamics is not None:
        case = case.head(1)
    right, counts = reference.solve_for(case), None
    for one in eager_ways(case):
        got, work = measure.prepare(one, case, counts, right)
        if got.reason == "not installed":
            continue
        assert got.reason == "", one.name
        counts = counts or got.counts
        assert got.counts.nfe > 0, one.name
        # The largest measured is 2.3e-5 (torchdiffeq's adjoint, tiny); a wrong gradient is off by about 1.
        assert one.group == way.FLOOR or got.error < 1e-3, (one.name, got.error)
        assert got.counts.vjps is None or got.counts.vjps > 0, one.name
        work.close()


@pytest.mark.parametrize(("name", "nfe"), [("fixed-euler-32", 50), ("fixed-midpoint-32", 100)])
def test_ways_of_fixed_steps_take_the_same_ones(name, nfe):
    case = cases.make(name, small=True, dtype=torch.float64)
    right = reference.solve_for(case)
    rows = {}
    for one in eager_ways(case):
        got, work = measure.prepare(one, case, Counts(nfe=nfe), right)
        if got.reason != "not installed":
            assert got.counts.nfe == nfe, one.name
            work.measure()
            rows[one.name] = work.result()
            work.close()
    floors = {"floor/autograd"}
    assert {"adamode/fixed/solve", "adamode/fixed/odeint", *floors} <= set(rows)
    ends = [found[0] for one, found in rows.items() if one not in floors]
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore")
def test_an_epoch_of_digits_starts_from_the_same_weights_every_time():
    epoch = digits.make(seed=0, small=True, dtype=torch.float64, device="cpu")
    epoch = dataclasses.replace(epoch, tol=1e-6, batches=[(x[:2], y[:2]) for x, y in epoch.batches[:1]])
    right = digits.reference(epoch)
    for one in eager_ways(epoch):
        got, work = measure.prepare(one, epoch, None, right)
        if got.reason == "not installed":
            continue
        assert got.reason == "", one.name
        work.measure()
        first = work.result()
        work.measure()
        assert all(torch.equal(a, b) for a, b in zip(first, work.result(), strict=True)), one.name
        # 1.4e-2 at most: the field's ReLU has kinks, and a gradient through them converges like √tolerance.
        assert got.error < 5e-2, (one.name, got.error)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["diffrax/checkpoint", "diffrax/backsolve", "gradsolve/record-replay"])
def test_the_worker_process_finds_the_reference(name):
    pytest.importorskip(name.split("/")[0])
    case = cases.make("tiny", dtype=torch.float64).at(1e-8)
    one = next(w for w in all_ways.all_ways() if w.name == name)
    try:
        got, work = measure.prepare(one, case, Counts(nfe=200, accepted=50), reference.solve_for(case))
        assert got.reason == ""
        assert got.error < 1e-4
        assert work.measure().cpu > 0
        assert work.compilations() == 0
    finally:
        in_jax.close_all()


def test_an_argument_that_this_version_does_not_know_makes_a_way_unavailable(tiny):
    def prepare(case, _):
        return ours.gradient_job(case, case.dynamics, case.z0, {"gradient": Discrete(), "faster": True})

    got, work = measure.prepare(way.Way("adamode/faster", way.OURS, prepare), tiny, None, [])
    assert work is None
    assert got.reason == "unavailable (solve got an unknown argument 'faster')"


def test_what_is_not_installed_and_what_fails_is_a_row_that_says_so(tiny):
    def fails(case, _):
        raise AssertionError("underflow in dt 0.0")

    absent = way.Way("p", way.PEER, fails, package="no_such_package")
    assert measure.prepare(absent, tiny, None, [])[0].reason == "not installed"
    broken = measure.prepare(way.Way("p", way.PEER, fails), tiny, None, [])[0]
    assert broken.reason == "failed (AssertionError: underflow in dt 0.0)"


def test_the_reference_is_checked_against_torchdiffeq(tiny):
    pytest.importorskip("torchdiffeq")
    assert reference.doubt(tiny) < 1e-7  # 1e-12 asked of both, times the gradient's own sensitivity
    loose = dataclasses.replace(tiny, reference=("dopri5", 1e-4))
    assert reference.doubt(loose) > 1e-6  # the negative control


def test_references_are_kept_under_the_problems_own_numbers(tiny, tmp_path):
    kept = reference.References(tmp_path)
    first = kept.solve_for(tiny)
    (file,) = tmp_path.iterdir()
    torch.save([x + 1 for x in first], file)
    assert torch.equal(kept.solve_for(tiny)[0], first[0] + 1)  # read, not solved again
    other = kept.solve_for(cases.make("tiny", seed=1, dtype=torch.float64))
    assert not torch.equal(other[0], first[0])
    assert len(list(tmp_path.iterdir())) == 2


def test_exponents_are_those_between_neighbours():
    powers = scaling.exponents([1, 10, 100], [1.0, 10.0, 1000.0])
    assert math.isnan(powers[0])
    assert powers[1:] == pytest.approx([1.0, 2.0])
    growth = scaling.Growth("B", [1, 10], {"a": [1e-3, 1e-2], "b": [math.nan] * 2}, {"rows, a": [5, 7]})
    text = scaling.table(growth)
    assert "| a | 1 | 10 |" in text
    assert "| p |  | 1.00 |" in text
    assert "Unavailable here: b." in text


def test_the_picture_leaves_out_what_has_no_finite_error(tmp_path):
    runs = [
        dataclasses.replace(
            found(row("a", way.OURS, [t], error=e), row("b", way.PEER, [t], error=math.nan)), tol=e
        )
        for t, e in ((1.0, 1e-3), (2.0, 1e-4))
    ]
    assert picture.points(runs, "a") == [(1e-3, 1.0), (1e-4, 2.0)]
    assert picture.points(runs, "b") == []
    picture.draw(runs, tmp_path / "work.png")
    assert (tmp_path / "work.png").stat().st_size > 1000


def test_the_page_has_a_line_for_each_way_and_says_what_was_not_measured():
    from benchmarks.speed.page import table

    samples = [{"cpu": 0.001 * k, "wall": 1.0} for k in (1, 2, 3, 9)]
    counts = {"nfe": 1234, "nfe_backward": 0, "vjps": 24}
    rows = [
        {"way": "adamode/discrete", "samples": samples, "error": 1.5e-5, "counts": counts, "first": 12.3},
        {"way": "torchode/autodiff", "samples": [], "reason": "not installed"},
    ]
    text = table({"clock": "cpu", "rows": rows})
    line = next(line for line in text.splitlines() if "adamode/discrete" in line)
    assert [cell.strip() for cell in line.strip("|").split("|")][1:] == [
        "2.5",
        "1.25–7.5",
        "4",
        "1.5e-05",
        "1,234",
        "0",
        "24",
        "12",
    ]
    assert "torchode/autodiff: not installed" in text
