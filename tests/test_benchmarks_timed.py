"""The speed benchmark that ends in time: how time is shared out, on a clock that only work moves."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import subprocess

import pytest
from benchmark_package import benchmark_module

timed, command, cases, job, way, report = (
    benchmark_module("", f"speed.{name}") for name in ("timed", "command", "cases", "job", "way", "report")
)
Row = benchmark_module("", "speed.measure").Row


class Clock:
    """work(s) is all that takes time; what is longer than a limit ends with it."""

    def __init__(self):
        self.time, self.limits, self.done = 0.0, [], []

    def now(self):
        return self.time

    @contextlib.contextmanager
    def limit(self, seconds):
        self.limits.append(self.time + seconds)
        try:
            yield
        finally:
            self.limits.pop()

    def work(self, seconds, what=""):
        end = min([self.time + seconds, *self.limits])
        broken, self.time = end < self.time + seconds, end
        if broken:
            raise timed.OutOfTime
        self.done.append(what)

    def watch(self, seconds):
        return timed.Watch(self.time + seconds, self.now, self.limit)


class Timed:
    """A job: as long as it says."""

    compiled = False

    def __init__(self, clock, name, first, each):
        clock.work(first, f"{name} first")
        self.clock, self.name, self.each, self.first = clock, name, each, first

    def measure(self):
        self.clock.work(self.each, self.name)
        return job.Sample(self.each, self.each)

    def result(self):
        return []

    def counts(self):
        return job.Counts()

    def peak(self):
        return None

    def compilations(self):
        return None


def way_of(clock, name, first=1.0, each=1.0, slow=False):
    group = way.OURS if name.startswith("ours") else way.PEER
    return way.Way(name, group, lambda case, _: Timed(clock, name, first, each), slow=slow)


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(timed, "solve_for", lambda case: found.work(1.0, "reference") or [])
    monkeypatch.setattr(timed, "gc", argparse.Namespace(collect=lambda: 0))  # half a second each
    return found


def given(tmp_path, ways, names="tiny,mlp", **more):
    options = {"seed": 0, "quick": True, "dtype": "float64", "device": "cpu", "rounds": 4, "minutes": 1.0}
    files = {"json": None, "out": tmp_path}
    return argparse.Namespace(cases=names.split(","), ways=ways, **{**options, **files, **more})


def run(clock, tmp_path, ways, seconds, monkeypatch, names="tiny,mlp", tests=2.0):
    monkeypatch.setattr(timed, "run_tests", lambda output, watch: clock.work(tests) or "2 passed")
    about = {"machine": "m", "settings": {"rounds": 4}}
    whole = timed.Run(given(tmp_path, ways, names), about, lambda text: None, clock.watch(seconds))
    whole.everything()
    return whole


def rows(whole, name):
    return {row.way: row for row in whole.measured[name].rows}


def test_all_is_measured_where_there_is_time(clock, tmp_path, monkeypatch):
    ways = [way_of(clock, "ours/a"), way_of(clock, "peer"), way_of(clock, "ours/b", 20.0, slow=True)]
    whole = run(clock, tmp_path, ways, 600.0, monkeypatch)
    for name in ("tiny", "mlp"):
        assert {key: len(row.samples) for key, row in rows(whole, name).items()} == {
            "ours/a": 4,
            "peer": 4,
            "ours/b": 4,
        }


@pytest.mark.parametrize("seconds", [3.0, 10.0, 33.0, 60.0, 120.0, 300.0])
@pytest.mark.parametrize("first", [0.1, 7.0, 1000.0])
@pytest.mark.parametrize("each", [0.1, 9.0, 1000.0])
def test_it_never_takes_longer(clock, tmp_path, monkeypatch, seconds, first, each):
    ways = [way_of(clock, "ours/a", first, each), way_of(clock, "peer", 0.5, 0.5)]
    ways += [way_of(clock, f"ours/{k}", first, each, slow=True) for k in range(3)]
    whole = run(clock, tmp_path, ways, seconds, monkeypatch)
    assert clock.time <= seconds + 1e-9
    for measured in whole.measured.values():
        assert all(row.samples or row.reason.startswith("left out") for row in measured.rows)
        assert not [row for row in measured.rows if row.samples and row.reason]


def test_what_is_quick_to_begin_is_measured_of_all_cases_before_anything_compiles(
    clock, tmp_path, monkeypatch
):
    ways = [way_of(clock, "ours/slow", 1000.0, slow=True), way_of(clock, "ours/quick"), way_of(clock, "peer")]
    whole = run(clock, tmp_path, ways, 120.0, monkeypatch)
    for name in ("tiny", "mlp"):
        found = rows(whole, name)
        assert len(found["ours/quick"].samples) == len(found["peer"].samples) == 4
        assert found["ours/slow"].reason.startswith("left out")


def test_a_way_without_end_leaves_the_others_their_time(clock, tmp_path, monkeypatch):
    ways = [way_of(clock, "peer/endless", math.inf), way_of(clock, "peer"), way_of(clock, "ours")]
    whole = run(clock, tmp_path, ways, 90.0, monkeypatch)
    assert "its first call takes longer than" in rows(whole, "tiny")["peer/endless"].reason
    for name in ("tiny", "mlp"):
        assert len(rows(whole, name)["ours"].samples) == 4


def test_a_first_call_that_compiles_has_its_least_time_in_the_first_case_at_least(
    clock, tmp_path, monkeypatch
):
    ways = [way_of(clock, "ours", 0.1, 0.1), way_of(clock, "ours/slow", 35.0, 0.1, slow=True)]
    whole = run(clock, tmp_path, ways, 70.0, monkeypatch)
    assert len(rows(whole, "tiny")["ours/slow"].samples) == 4
    assert rows(whole, "mlp")["ours/slow"].reason.startswith("left out")


def test_rounds_are_whole_but_for_the_first(clock):
    jobs = [(Row(name, way.PEER), Timed(clock, name, 0.0, 3.0)) for name in "abc"]
    timed.run_rounds(jobs, clock.watch(25.0), 30)
    assert [len(row.samples) for row, _ in jobs] == [2, 2, 2]
    assert clock.time == 18.0
    jobs = [(Row(name, way.PEER), Timed(clock, name, 0.0, 3.0)) for name in "abc"]
    timed.run_rounds(jobs, clock.watch(5.0), 30)
    assert [len(row.samples) for row, _ in jobs] == [1, 0, 0]
    assert jobs[2][0].reason == "left out (no time for a round)"


def test_samples_of_an_earlier_round_stay_where_there_is_no_new_one(clock):
    old = job.Sample(9.0, 9.0)
    jobs = [(Row(name, way.PEER, samples=[old]), Timed(clock, name, 0.0, 3.0)) for name in "ab"]
    timed.run_rounds(jobs, clock.watch(4.0), 30)
    assert [row.samples for row, _ in jobs] == [[old], [old]]
    timed.run_rounds(jobs, clock.watch(7.0), 30)
    assert [len(row.samples) for row, _ in jobs] == [1, 1]
    assert old not in jobs[0][0].samples


def test_without_time_for_the_reference_errors_are_not_known(clock, tmp_path, monkeypatch):
    monkeypatch.setattr(timed, "solve_for", lambda case: clock.work(math.inf))
    whole = run(clock, tmp_path, [way_of(clock, "ours")], 60.0, monkeypatch)
    assert rows(whole, "tiny")["ours"].error is None
    assert len(rows(whole, "tiny")["ours"].samples) == 4


def test_an_interrupted_run_keeps_what_it_has(clock, tmp_path, monkeypatch):
    def stops(case, _):
        if case.name == "mlp":
            raise KeyboardInterrupt
        return Timed(clock, "ours", 1.0, 1.0)

    with pytest.raises(KeyboardInterrupt):
        run(clock, tmp_path, [way.Way("ours", way.OURS, stops)], 600.0, monkeypatch, "tiny,mlp,wide")
    data = json.loads((tmp_path / "cpu.json").read_text(encoding="utf-8"))
    assert [one["case"] for one in data["cases"]] == ["tiny"]
    assert len(data["cases"][0]["rows"][0]["samples"]) == 4
    page = (tmp_path / "cpu.md").read_text(encoding="utf-8")
    assert "Tests that need CUDA: 2 passed." in page
    assert "## tiny, tolerance 1e-05" in page
    assert "Left out, or not begun yet: mlp, wide." in page


def test_the_table_says_what_was_left_out_and_compares_with_the_peers(clock, tmp_path, monkeypatch):
    ways = [way_of(clock, "ours", each=1.0), way_of(clock, "peer", each=3.0)]
    ways += [way_of(clock, "ours/slow", math.inf, slow=True)]
    run(clock, tmp_path, ways, 120.0, monkeypatch, "tiny")
    page = (tmp_path / "cpu.md").read_text(encoding="utf-8")
    assert "ours/slow: left out (its first call takes longer than" in page
    assert "3.00×" in page


def test_wall_time_is_called_so():
    row = {"way": "a", "samples": [{"cpu": 1.0, "wall": 2e-3}]}
    table = timed.page.table({"clock": "wall", "rows": [row]})
    assert "| way | wall ms |" in table
    assert "| a | 2 |" in table


def test_a_peer_that_is_not_installed_is_said(clock, tmp_path, monkeypatch):
    ways = [
        way_of(clock, "ours"),
        way.Way("p/one", way.PEER, lambda case, _: 1 / 0, package="no_such_package"),
    ]
    run(clock, tmp_path, ways, 120.0, monkeypatch, "tiny")
    assert "Not measured: p/one: not installed." in (tmp_path / "cpu.md").read_text(encoding="utf-8")


def test_the_alarm_ends_what_takes_longer_and_nothing_after_it():
    def endless():
        with timed.alarm(0.0):
            while True:
                pass

    with pytest.raises(timed.OutOfTime):
        endless()
    assert timed.signal.getitimer(timed.signal.ITIMER_REAL) == (0.0, 0.0)


def test_tests_run_in_a_process_of_their_own_and_are_broken_off(tmp_path, clock):
    def passes(command_line, *, stdout, timeout, **_):
        assert (timeout, command_line[1:4]) == (8.0, ["-u", "-m", "pytest"])
        stdout.write("....\n==== 3 passed, 1 skipped in 2.00s ====\n")

    def hangs(command_line, *, stdout, timeout, **_):
        stdout.write("..")
        raise subprocess.TimeoutExpired(command_line, timeout)

    target = tmp_path / "tests.txt"
    assert timed.run_tests(target, clock.watch(8.0), passes) == "3 passed, 1 skipped in 2.00s"
    assert "broken off after 8 s" in timed.run_tests(target, clock.watch(8.0), hangs)
    assert target.read_text(encoding="utf-8") == ".."


def test_the_files_with_tests_on_a_device_are_found():
    found = timed.test_files()
    assert {"tests/test_devices.py", "tests/test_graphs.py", "tests/test_host_reads.py"} <= set(found)
    assert "tests/test_tableaus.py" not in found


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--minutes", "0"], "must be positive"),
        (["--minutes", "nan"], "must be positive"),
        (["--minutes", "1", "--scaling"], "--scaling takes the time that it takes"),
        (["--minutes", "1", "--write-ratios"], "--write-ratios takes the time that it takes"),
    ],
)
def test_a_call_that_cannot_be_meant_is_status_two(arguments, words, capsys):
    assert command.main(arguments) == 2
    assert words in capsys.readouterr().out


def test_the_ways_are_ours_in_every_mode_and_two_peers():
    names = {one.name for one in command._checked(command.parser().parse_args(["--minutes", "1"])).ways}
    assert {f"adamode/discrete{mode}" for mode in timed.MODES} <= names
    assert {"torchdiffeq/direct", "torchdiffeq/forward", "torchode/autodiff", "torchode/forward"} <= names
    assert set(timed.NAMES) == names


def test_a_graph_is_a_way_on_a_device_that_has_them_alone():
    graph = next(one for one in timed_ways() if one.name == "adamode/discrete/graph")
    case = cases.make("tiny", small=True)
    assert not graph.fits(case)
    assert graph.fits(case.__class__(**{**vars(case), "z0": argparse.Namespace(is_cuda=True)}))


def timed_ways():
    return command._checked(command.parser().parse_args(["--minutes", "1"])).ways


def test_compiled_without_graphs_is_measured_without_them(monkeypatch):
    ours = benchmark_module("", "speed.peers.ours")
    seen = []
    monkeypatch.setattr(ours.adamode, "solve", lambda *a, **k: seen.append(dict(ours.graphs.CAPTURES)))
    case = cases.make("tiny", small=True)
    for mode in ("compiled-sync8", "graph"):
        ours.solve(None, case.z0, case, **ours.MODES[mode])
    assert [sorted(one) for one in seen] == [[], ["cuda"]]
