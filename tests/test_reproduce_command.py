"""``adamode reproduce`` around figures that are planted: files, page, resuming, refusals, exit status."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys
import types
from html.parser import HTMLParser

import pytest
import typer
from planted_figures import EVIL, DataSettings, compute, planted
from typer.testing import CliRunner

import adamode
from adamode.cli.app import app
from adamode.cli.status import reports_errors
from adamode.reproduce.catalogue import ALL, FIGURES, load, seconds_left
from adamode.reproduce.machinery.figure import FAILS, SCALES, VERDICTS, Claim, Outcome
from adamode.reproduce.machinery.report import html_page, write_report
from adamode.reproduce.machinery.result import finished, read_result, reproduce
from adamode.reproduce.machinery.work import Allowed
from adamode.solvers.errors import ArgumentError, CheckpointError, MissingDataError, TrainingError
from adamode.train.runs import RunFolder

runner = CliRunner()
QUIET = Allowed(say=lambda words: None)


@pytest.fixture
def plant(monkeypatch, tmp_path):
    """Puts a figure in the place of the paper's; every one is planted from the start."""
    monkeypatch.chdir(tmp_path)

    def put(figure):
        name = f"adamode.reproduce.{figure.name}"
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(FIGURE=figure))
        return figure

    for name, entry in FIGURES.items():
        put(planted(name, **({"kind": DataSettings} if entry.by_dataset else {})))
    return put


def call(*arguments):
    return runner.invoke(app, ["reproduce", *map(str, arguments)])


def content(folder):
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def counting(made):
    def counted(settings, work):
        made.append(work.folder.name)
        return compute(settings, work)

    return counted


def test_a_figure_writes_its_result_its_pictures_and_the_page(plant, tmp_path):
    result = call("fig1", "--scale", "smoke")
    assert result.exit_code == 0, result.output
    place = tmp_path / "paper-smoke"
    there = content(place / "fig1")
    assert list(there) == [
        *("figure", "scale", "settings", "rows", "claims", "variants", "findings", "pictures", "version"),
        *("versions", "machine", "git", "seconds", "command", "runs"),
    ]
    assert (there["figure"], there["scale"], there["version"]) == ("fig1", "smoke", adamode.__version__)
    assert there["settings"] == {"points": 3, "seeds": [0, 1]}
    assert [row["square"] for row in there["rows"]] == [None, 1.0, 4.0]
    assert [list(claim) for claim in there["claims"]] == [["claim", "paper", "ours", "verdict", "why"]] * 4
    assert there["variants"] == {"cubes": [0, 1, 8]}
    assert sorted(there["versions"]) == sorted(
        ["python", "torch", "numpy", "scipy", "torchvision", "matplotlib"]
    )
    assert sorted(there["machine"]) == ["cores", "device", "jobs", "processor", "threads"]
    assert there["command"] == "adamode reproduce fig1 --scale smoke"
    for picture in there["pictures"]:
        assert (place / "fig1" / picture["file"]).read_bytes().startswith(b"\x89PNG")
    assert (place / "report" / "index.html").is_file()
    assert str(tmp_path) not in json.dumps(there)
    for claim in there["claims"]:
        for word in (claim["claim"], claim["paper"], claim["ours"], claim["verdict"]):
            assert word in result.stdout
    assert "paper-smoke/fig1/result.json" in result.stdout


def test_the_scale_is_sample_where_none_is_given(plant, tmp_path):
    assert call("fig1", "--quiet").exit_code == 0
    assert content(tmp_path / "paper-sample" / "fig1")["settings"]["points"] == 20


def test_options_reach_the_settings_and_the_command_in_the_result(plant, tmp_path):
    arguments = ["fig2", "--dataset", "mnist", "--seed", "5", "--scale", "smoke", "--jobs", "1"]
    result = call(*arguments, "--output-dir", tmp_path / "out")
    assert result.exit_code == 0, result.output
    there = content(tmp_path / "out" / "fig2")
    assert there["settings"] == {"points": 3, "seeds": [5, 6], "datasets": ["mnist"]}
    assert there["command"] == "adamode reproduce fig2 --dataset mnist --seed 5 --scale smoke --jobs 1"


def test_a_claim_that_does_not_hold_is_a_result_and_a_failure_is_status_1(plant):
    plant(planted("fig3", judge=lambda s, o: [Claim("it holds", "yes", "no", FAILS)]))
    result = call("fig3", "--scale", "smoke")
    assert (result.exit_code, "does not hold" in result.stdout) == (0, True)

    def fail(settings, work):
        raise TrainingError("the loss is not finite.")

    plant(planted("fig1", compute=fail))
    result = call("fig1", "--scale", "smoke")
    assert result.exit_code == 1
    assert "error: the loss is not finite." in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fig5"], "did you mean 'fig4'"),
        (["tabel1"], "did you mean 'table1'"),
        (["alll"], "did you mean 'all'"),
        (["fig1", "--scale", "smok"], "did you mean 'smoke'"),
        (["fig2", "--dataset", "cifar"], "did you mean 'cifar10'"),
        (["fig1", "--dataset", "mnist"], "says nothing about fig1; it is for fig2, fig4, table1"),
        (["all", "--dataset", "mnist"], "says nothing about all"),
        (["fig1", "--device", "nonsense"], "device='nonsense'"),
        (["fig1", "--threads", "0"], "threads"),
        (["fig1", "--jobs", "-1"], "jobs"),
        (["fig1", "--output-dir", "a-file"], "a-file"),
        (["fig1", "--output-dir", ""], "--output-dir='' names no folder"),
    ],
)
def test_a_wrong_call_says_what_is_wrong_and_ends_with_2(arguments, says, plant, tmp_path):
    (tmp_path / "a-file").write_text("")
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert says in re.sub(r"\s+", " ", re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", result.stderr))
    assert [path.name for path in tmp_path.iterdir()] == ["a-file"]


def test_a_seed_for_a_figure_that_draws_nothing_is_refused(plant):
    @dataclasses.dataclass(frozen=True)
    class Unseeded:
        points: int = 3

    plant(planted("fig1", kind=Unseeded))
    result = call("fig1", "--scale", "smoke", "--seed", "1")
    assert (result.exit_code, "draws nothing at random" in result.stderr) == (2, True)
    assert call("all", "--scale", "smoke", "--seed", "1", "--quiet").exit_code == 0


def test_all_makes_the_figures_in_order_and_what_is_finished_not_again(plant, tmp_path):
    made = []
    for name in ALL:
        kind = {"kind": DataSettings} if FIGURES[name].by_dataset else {}
        plant(planted(name, compute=counting(made), **kind))
    first = call("all", "--scale", "smoke")
    assert first.exit_code == 0, first.output
    assert made == ["fig1", "fig3", "fig2", "fig4", "table1"]
    assert "figure 2 of 5, fig3: the norm of the state over time (about" in first.stdout
    before = {name: content(tmp_path / "paper-smoke" / name) for name in ALL}
    (tmp_path / "paper-smoke" / "fig2" / "result.json").unlink()
    (tmp_path / "paper-smoke" / "table1" / "table1.png").unlink()
    again = call("all", "--scale", "smoke")
    assert again.exit_code == 0, again.output
    assert made[5:] == ["fig2", "table1"]
    assert "fig2: finished before" not in again.stdout
    assert "fig1: finished before" in again.stdout
    assert content(tmp_path / "paper-smoke" / "fig1") == before["fig1"]
    page = (tmp_path / "paper-smoke" / "report" / "index.html").read_text(encoding="utf-8")
    assert [page.count(f'<section id="{name}">') for name in ALL] == [1] * 5
    assert "ablations" not in made


def test_all_goes_on_after_a_figure_that_failed_and_ends_with_1(plant, tmp_path):
    def fail(settings, work):
        raise TrainingError("it blew up.")

    plant(planted("fig3", compute=fail))
    result = call("all", "--scale", "smoke")
    assert result.exit_code == 1
    assert "error: fig3: it blew up." in result.stderr
    assert (tmp_path / "paper-smoke" / "table1" / "result.json").exists()
    assert "Not made yet: fig3." in (tmp_path / "paper-smoke" / "report" / "index.html").read_text()


def test_a_finished_result_is_made_again_after_further_training_runs(plant, tmp_path):
    figure, other = planted("fig2", kind=DataSettings), planted("fig1")
    assert finished(figure, "smoke", tmp_path, QUIET) is None
    made, apart = (reproduce(f, "smoke", tmp_path, QUIET) for f in (figure, other))
    assert finished(figure, "smoke", tmp_path, QUIET) == made
    run = RunFolder(tmp_path / "runs" / "adam")
    config = adamode.TrainConfig(output_dir=str(tmp_path / "runs"), name="adam")
    run.create(config)
    epoch = dict.fromkeys(("epoch", "seconds", "val_loss", "val_accuracy", "nfe_forward", "nfe_backward"), 1)
    run.write_metrics([epoch], None)
    assert finished(figure, "smoke", tmp_path, QUIET) is None  # a run is unfinished: it is gone on with
    assert finished(figure, "smoke", tmp_path, dataclasses.replace(QUIET, jobs=0)) == made
    keys = ("test_loss", "test_accuracy", "test_rmse", "more_tests", "efficacy_forward")
    run.write_metrics([epoch], dict.fromkeys((*keys, "efficacy_backward", "parameters"), 1))
    assert finished(figure, "smoke", tmp_path, QUIET) is None
    assert reproduce(figure, "smoke", tmp_path, QUIET).runs == {"adam": 1}
    assert finished(other, "smoke", tmp_path, QUIET) == apart  # it trains nothing
    assert apart.runs == {}


def test_a_result_made_without_training_is_not_taken_where_training_is_allowed(plant, tmp_path):
    figure = planted("fig2", kind=DataSettings)
    bare = dataclasses.replace(QUIET, jobs=0)
    made = reproduce(figure, "smoke", tmp_path, bare)
    assert finished(figure, "smoke", tmp_path, bare) == made
    assert finished(figure, "smoke", tmp_path, QUIET) is None


@pytest.fixture(params=["heard", "ignored"])
def begun_with(request):
    """How the process began: a script's background job ignores SIGINT."""
    handler = signal.default_int_handler if request.param == "heard" else signal.SIG_IGN
    before = signal.signal(signal.SIGINT, handler)
    yield handler
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_says_that_it_can_be_gone_on_with_and_a_second_call_does(
    number, status, begun_with, plant, tmp_path
):
    calls = []

    def interrupted(settings, work):
        work.part("first", lambda: calls.append("first"))
        calls.append("second")
        if calls.count("second") == 1:
            signal.raise_signal(number)
        return compute(settings, work)

    plant(planted("fig1", compute=interrupted))
    result = call("fig1", "--scale", "smoke")
    assert result.exit_code == status, result.output
    assert "the same command goes on from there" in result.stderr
    assert not (tmp_path / "paper-smoke" / "fig1" / "result.json").exists()
    assert call("fig1", "--scale", "smoke").exit_code == 0
    assert calls == ["first", "second", "second"]
    assert content(tmp_path / "paper-smoke" / "fig1")["seconds"] > 0
    assert signal.getsignal(signal.SIGINT) is begun_with


def test_a_result_of_another_version_or_scale_is_refused_by_name(plant, tmp_path):
    figure = planted("fig1")
    reproduce(figure, "smoke", tmp_path, QUIET)
    path = tmp_path / "fig1" / "result.json"
    read_result(path, "smoke")
    with pytest.raises(CheckpointError, match="at scale 'smoke', not 'paper'"):
        read_result(path, "paper")
    with pytest.raises(CheckpointError, match="scale is not this one's: 'smoke' there, 'paper' here"):
        reproduce(figure, "paper", tmp_path, QUIET)
    there = content(tmp_path / "fig1")
    path.write_text(json.dumps({**there, "version": "0.0.9"}))
    with pytest.raises(CheckpointError, match=rf"by adamode 0\.0\.9, and this is {adamode.__version__}"):
        read_result(path)
    _, left_out = write_report(tmp_path, "smoke")
    assert "0.0.9" in left_out[0]
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "another version or at another scale: fig1" in page
    assert '<section id="fig1">' not in page
    for damage in ({"figure": "fig1", "version": adamode.__version__}, [1], {**there, "claims": [{}]}):
        path.write_text(json.dumps(damage))
        with pytest.raises(CheckpointError):
            read_result(path)


def test_another_scale_in_the_same_folder_ends_with_2_and_says_what_to_do(plant):
    assert call("fig1", "--scale", "smoke", "--output-dir", "out").exit_code == 0
    result = call("fig1", "--scale", "sample", "--output-dir", "out")
    assert result.exit_code == 2
    assert "Choose another --output-dir" in result.stderr


DAMAGES = {
    "rows": [None, [1]],
    "claims": [None, "x", [{"claim": 1, "paper": "a", "ours": "b", "verdict": "holds"}]],
    "findings": [None, [1]],
    "pictures": [None, "x", [{}], ["a.png"], [{"file": "a.png"}], [{"file": "../a.png", "caption": "a"}]],
    "settings": [None],
    "variants": [3],
    "versions": [None],
    "machine": [None],
    "git": [None, []],
    "runs": [None],
    "seconds": [None, "x"],
    "command": [None],
    "figure": ["fig3", [], None],
}


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, values in DAMAGES.items() for v in values])
def test_a_damaged_result_is_named_with_what_to_do(field, value, plant, tmp_path):
    plant(dataclasses.replace(planted("fig1"), pictures={}))
    assert call("fig1", "--scale", "smoke", "--output-dir", "out").exit_code == 0
    path = tmp_path / "out" / "fig1" / "result.json"
    path.write_text(json.dumps({**content(path.parent), field: value}))
    result = call("fig1", "--scale", "smoke", "--output-dir", "out")
    assert result.exit_code == 2, result.output
    assert "out/fig1/result.json" in result.stderr
    assert field in result.stderr
    assert "delete it to make it anew" in result.stderr
    write_report(tmp_path / "out", "smoke")  # other figures go on
    assert "Left out, as damaged" in (tmp_path / "out/report/index.html").read_text(encoding="utf-8")
    path.unlink()
    assert call("fig1", "--scale", "smoke", "--output-dir", "out").exit_code == 0


@pytest.mark.parametrize("file", ["result.json", "seconds.json", "parts/squares.json"])
@pytest.mark.parametrize("text", ["", '{"seconds": 1', "[]", "3", "null", '"x"', "{}"])
def test_a_file_that_holds_something_else_is_named_and_made_anew_once_deleted(file, text, plant, tmp_path):
    plant(dataclasses.replace(planted("fig1"), pictures={}))
    assert call("fig1", "--scale", "smoke", "--output-dir", "out").exit_code == 0
    (tmp_path / "out" / "fig1" / "result.json").unlink()
    path = tmp_path / "out" / "fig1" / file
    path.write_text(text)
    result = call("fig1", "--scale", "smoke", "--output-dir", "out")
    assert result.exit_code == 2, result.output
    assert f"out/fig1/{file}" in result.stderr
    assert "delete it to make it anew" in result.stderr
    path.unlink()
    assert call("fig1", "--scale", "smoke", "--output-dir", "out").exit_code == 0


@pytest.mark.parametrize("keep", [0, 10, -5])
def test_a_damaged_picture_is_drawn_again_and_kept_from_the_page(keep, plant, tmp_path):
    assert call("fig1", "--scale", "smoke").exit_code == 0
    place = tmp_path / "paper-smoke"
    path = place / "fig1" / content(place / "fig1")["pictures"][0]["file"]
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    _, left_out = write_report(place, "smoke")
    assert "is not a whole PNG" in left_out[0]
    assert call("fig1", "--scale", "smoke").exit_code == 0
    assert path.read_bytes().endswith(whole[-12:])


def test_a_report_that_cannot_be_written_ends_with_2_after_the_result(plant, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report").write_text("a file in its place")
    result = call("fig1", "--scale", "smoke", "--output-dir", "out")
    assert result.exit_code == 2
    assert "--output-dir: the report in 'out' cannot be written" in result.stderr
    assert content(tmp_path / "out" / "fig1")["figure"] == "fig1"


def test_a_seed_that_torch_cannot_take_is_refused(plant, tmp_path):
    assert call("fig1", "--scale", "smoke", "--seed", 2**32).exit_code == 2
    result = call("fig1", "--scale", "smoke", "--seed", 2**32 - 1)
    assert result.exit_code == 2
    assert "--seed=4294967295: fig1 takes 2 seeds from there on" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_pieces_of_a_call_that_was_killed_count_in_the_seconds(plant, tmp_path):
    reproduce(planted("fig1"), "smoke", tmp_path, QUIET)
    (tmp_path / "fig1" / "seconds.json").unlink()
    part = tmp_path / "fig1" / "parts" / "squares.json"
    part.write_text(json.dumps({"seconds": 5000.0, "value": [0, 1, 4]}))
    assert reproduce(planted("fig1"), "smoke", tmp_path, QUIET).seconds >= 5000


def test_numbers_that_are_not_finite_are_no_result(plant, tmp_path):
    def endless(settings, work):
        return Outcome([{"model": "node", "square": float("inf")}])

    figure = planted("fig1", compute=endless, judge=lambda s, o: [])
    with pytest.raises(ValueError, match="fig1: the outcome holds a value that JSON cannot hold"):
        reproduce(dataclasses.replace(figure, pictures={}), "smoke", tmp_path, QUIET)
    assert not (tmp_path / "fig1" / "result.json").exists()


def test_an_unknown_setting_or_scale_gets_the_nearest(tmp_path):
    with pytest.raises(ArgumentError, match="did you mean 'points'"):
        reproduce(planted("fig1"), "smoke", tmp_path, QUIET, point=4)
    with pytest.raises(ArgumentError, match="did you mean 'paper'"):
        reproduce(planted("fig1"), "papers", tmp_path, QUIET)
    assert list(tmp_path.iterdir()) == []


def test_missing_data_names_the_way_without(plant):
    def lacking(settings, work):
        raise MissingDataError("data set 'mnist' is not there.")

    plant(planted("fig2", compute=lacking, kind=DataSettings))
    result = call("fig2", "--output-dir", "a")
    assert result.exit_code == 2
    said = " ".join(result.stderr.split())
    assert "data set 'mnist' is not there. `adamode data NAME --data-dir FOLDER --download` fetches" in said
    assert said.endswith(
        "`adamode reproduce FIGURE --scale smoke` makes the figure, small, without any data files."
    )


@pytest.mark.parametrize("name", FIGURES)
def test_the_catalogue_tells_of_each_figure_what_it_is(name):
    figure = load(name)
    assert figure.name == name
    assert tuple(figure.settings) == SCALES
    assert {hasattr(settings, "datasets") for settings in figure.settings.values()} == {
        FIGURES[name].by_dataset
    }
    for settings in figure.settings.values():
        json.dumps(dataclasses.asdict(settings), allow_nan=False)
    assert figure.pictures
    assert figure.columns


def test_what_is_left_is_judged_by_the_shares_of_what_was_made():
    for which, scale in enumerate(("smoke", "sample")):
        assert seconds_left({}, ["fig2"], scale) is None
        share = {name: FIGURES[name].share[which] for name in ALL}
        left = seconds_left({"fig1": 5.0}, ["fig2"], scale)
        assert left == pytest.approx(5.0 * share["fig2"] / share["fig1"])
        assert sum(share.values()) == pytest.approx(1.0)


class Reader(HTMLParser):
    """Every tag with its attributes, and the text in table cells of a class."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.cells, self.kind = [], [], None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.kind = dict(attributes).get("class") if tag == "td" else None

    def handle_data(self, data):
        if self.kind in ("ok", "part", "fails", "untold"):
            self.cells.append((self.kind, data.strip()))
            self.kind = None


@pytest.fixture
def page(plant, tmp_path):
    found = []
    for name in ("fig1", "fig2"):
        figure = load(name)
        scale = "sample" if name == "fig2" else "smoke"
        result = reproduce(figure, scale, tmp_path / scale, QUIET)
        pngs = [(tmp_path / scale / name / p["file"]).read_bytes() for p in result.pictures]
        found.append((figure, result, pngs))
    return html_page(found, "sample")


def test_the_page_stands_alone_and_escapes_what_it_shows(page):
    assert EVIL not in page
    assert "&lt;script&gt;alert(&#x27;&amp;&#x27;)&lt;/script&gt;" in page
    tags = Reader(page).tags
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags}
    sources = [a["src"] for _, a in tags if "src" in a]
    assert len(sources) == 4
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    targets = [a["href"] for _, a in tags if "href" in a]
    assert targets == ["#fig1", "#fig2"]
    assert {a["id"] for _, a in tags if "id" in a} == {"fig1", "fig2"}
    assert "url(" not in page
    assert "prefers-color-scheme: dark" in page


def test_every_verdict_is_said_in_words_beside_its_colour(page):
    cells = Reader(page).cells
    assert {word for _, word in cells} == set(VERDICTS)
    assert len({(kind, word) for kind, word in cells}) == len(VERDICTS)
    assert len(cells) == 2 * 2 * 4  # in the summary and with their figure
    assert page.count("8 claims of the paper. Holds: 2, holds in part: 2, does not hold: 2,") == 1
    said = "<li>8 (fig1, fig2) of training runs: of the optimiser steps that stand beside them"
    assert page.count(said) == 1  # what kind of verdicts they are


def test_every_picture_has_words_and_a_long_table_is_folded(page):
    tags = Reader(page).tags
    assert all(a["alt"] for tag, a in tags if tag == "img")
    assert page.count("<figcaption>") == 4
    assert "<summary>The table: 20 rows</summary>" in page
    assert "The table: 3 rows" not in page
    for words in ("Squares grow faster", "Seeds: seeds 0, 1", "adamode reproduce fig2 --scale sample"):
        assert words in page


def test_the_heading_above_words_stands_left_like_them(page):
    assert '<th class="text">value</th>' in page
    assert "<th>its square</th>" in page


def test_a_reader_that_leaves_early_ends_the_command_quietly(capsys, monkeypatch):
    def left(words, **keywords):
        raise BrokenPipeError(32, "Broken pipe")

    @reports_errors
    def command():
        typer.echo("many lines")

    monkeypatch.setattr(typer, "echo", left)
    with pytest.raises(BrokenPipeError):  # typer's own end: status 1, no message
        command()
    assert capsys.readouterr() == ("", "")


def test_help_of_the_command_imports_no_torch():
    code = (
        "import sys\n"
        "from adamode.cli.app import app\n"
        "app(['reproduce', '--help'], standalone_mode=False)\n"
        "sys.exit('imported torch' if 'torch' in sys.modules else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "fig1" in done.stdout


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
# The page in a frame as wide as the window wanted: a browser's own window may not be made that narrow.
WRAPPER = """<!doctype html><body style="margin:0"><iframe id="f" src="index.html"
style="width:{width}px;height:900px;border:0"></iframe><script>
f.onload = () => {{ const d = f.contentDocument.documentElement;
const images = [...d.querySelectorAll("img")], shown = images.filter(i => i.naturalWidth > 0);
document.title = `widths ${{d.scrollWidth}} ${{f.contentWindow.innerWidth}} ${{images.length}}
${{shown.length}}`; }};</script></body>"""


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_a_desk_and_a_phone(width, page, tmp_path):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser here: none of {', '.join(BROWSERS)}")
    (tmp_path / "index.html").write_text(page.replace("<details>", "<details open>"), encoding="utf-8")
    (tmp_path / "wrapper.html").write_text(WRAPPER.format(width=width), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run(
        [*command, (tmp_path / "wrapper.html").as_uri()],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,  # against hanging; a busy machine is slow
    )
    found = re.search(r"<title>widths (\d+) (\d+) (\d+)\s+(\d+)</title>", done.stdout)
    assert found, done.stdout + done.stderr
    needed, there, pictures, shown = map(int, found.groups())
    assert there == width
    assert needed <= there
    assert pictures == shown == 4
