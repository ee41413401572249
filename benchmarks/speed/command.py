"""The command line: which cases, which ways, how often, and what is written."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..adjoints.page import machine
from . import check, digits, picture, report, scaling, timed
from .all_ways import all_ways
from .cases import DIGITS, expand, make
from .measure import Say, Settings, limit_threads, measure, stopwatch
from .peers.in_jax import close_all
from .reference import References
from .report import Found
from .way import chosen

DEFAULT = "mlp,conv,tiny,wide,long,hetero,observations,digits,inference,user,fixed"
WORK_PRECISION = "1e-3,1e-4,1e-5,1e-6,1e-7,1e-8"


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Speed of gradients: adamode, other libraries and the bare evaluations, in turn, on the "
        "same weights, data and tolerance. Install the extra [bench] for the other libraries.",
    )
    add = found.add_argument
    add("--case", help=f"comma-separated; default: {DEFAULT}, with --minutes {timed.CASES}")
    add("--way", help="comma-separated names, prefixes or shell patterns, such as 'adamode/discrete,diffrax'")
    add("--rounds", type=int, default=30, help="runs of each way (default: %(default)s)")
    add(
        "--budget",
        type=float,
        default=60.0,
        help="seconds that one way's rounds may take (default: %(default)s)",
    )
    add("--threads", type=int, default=1, help="default: %(default)s")
    add("--tolerances", help="comma-separated, in place of each case's own; with --picture 1e-3 … 1e-8")
    add("--dtype", choices=("float32", "float64"), default="float32")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--seed", type=int, default=0, help="of weights and data")
    add("--references", type=Path, help="a folder in which the float64 references are kept from run to run")
    add("--json", type=Path, help="writes everything measured")
    add("--picture", type=Path, help="writes time against error over the tolerances")
    add(
        "--quick",
        action="store_true",
        help="small cases, 3 rounds, nothing that compiles unless named by --way",
    )
    add(
        "--check",
        action="store_true",
        help="compares with ratios.json; status 1 where a ratio is 25 %% worse",
    )
    add("--write-ratios", action="store_true", help="writes ratios.json")
    add(
        "--scaling",
        action="store_true",
        help="time and memory over sizes, as Markdown, in place of the cases",
    )
    add(
        "--minutes",
        type=float,
        help="ends in so many minutes: the tests that need CUDA, then each case and way with a share of the "
        "time; writes DEVICE.json and DEVICE.md after every case",
    )
    add("--out", type=Path, help="the folder for them (or --json FILE); default: runs/speed")
    return found


def _checked(given: argparse.Namespace) -> argparse.Namespace:
    """Raises ValueError for what does not go together."""
    for name in ("rounds", "threads"):
        if getattr(given, name) < 1:
            raise ValueError(f"--{name} {getattr(given, name)}: must be at least 1.")
    if given.quick and (given.check or given.write_ratios):
        raise ValueError("--quick measures small cases: their ratios are not those of ratios.json.")
    if given.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch sees no CUDA device here.")
    if given.minutes is not None:
        _check_timed(given)
    given.cases = expand(given.case or (timed.CASES if given.minutes else DEFAULT))
    names = given.way or (",".join(timed.NAMES) if given.minutes else None)
    given.ways = chosen([*all_ways(), *digits.ways()], names, quick=given.quick)
    if given.minutes and not given.way:  # a bare prefix chooses more
        given.ways = [way for way in given.ways if way.name in timed.NAMES]
    texts = given.tolerances or (WORK_PRECISION if given.picture else "")
    try:
        given.tols = [float(one) for one in texts.split(",") if one]
    except ValueError:
        raise ValueError(f"--tolerances {texts}: give numbers, such as 1e-3,1e-5.") from None
    if (given.check or given.write_ratios) and given.tols:
        raise ValueError(
            "ratios are kept at each case's own tolerance: leave out --tolerances and --picture."
        )
    given.committed = check.read() if given.check else {}
    return given


def _check_timed(given: argparse.Namespace) -> None:
    """Raises ValueError for what does not go with --minutes."""
    if not given.minutes > 0:
        raise ValueError(f"--minutes {given.minutes:g}: must be positive.")
    others = ("check", "write_ratios", "scaling", "picture", "tolerances")
    beside = [f"--{name.replace('_', '-')}" for name in others if getattr(given, name)]
    if beside:
        raise ValueError(f"{beside[0]} takes the time that it takes: leave out --minutes.")


def run_case(name: str, given: argparse.Namespace, say: Say) -> list[Found]:
    """One case at each tolerance."""
    dtype = getattr(torch, given.dtype)
    settings = Settings(min(given.rounds, 3) if given.quick else given.rounds, given.budget)
    clock = "wall" if given.device == "cuda" else "cpu"
    if name == DIGITS:
        epoch = digits.make(seed=given.seed, small=given.quick, dtype=dtype, device=given.device)
        right = [x.cpu() for x in digits.reference(epoch)]
        rows = measure(epoch, given.ways, right, settings, say)
        off = math.nan if given.quick else digits.doubt(epoch)
        return [Found(name, epoch.tol, epoch.kind, clock, off, rows)]
    exact = make(name, seed=given.seed, small=given.quick, dtype=dtype)
    references = References(given.references)
    right = references.solve_for(exact)
    off = math.nan if given.quick else references.doubt(exact)
    case = exact.to(dtype, given.device)
    if "torch._dynamo" in sys.modules:  # what other cases compiled would make this one's shapes dynamic
        torch.compiler.reset()
    found = []
    for tol in given.tols or [case.tol]:
        rows = measure(case.at(tol), given.ways, right, settings, say)
        found.append(Found(name, tol, case.kind, clock, off, rows))
    return found


def about(given: argparse.Namespace) -> dict[str, Any]:
    """What a reader of the numbers must know."""
    names = ("rounds", "budget", "threads", "dtype", "device", "seed", "quick")
    device = torch.cuda.get_device_name() if given.device == "cuda" else machine()
    return {
        "machine": device,
        "load": os.getloadavg()[0],
        "settings": {name: getattr(given, name) for name in names},
    }


def judge(found: Sequence[Found], given: argparse.Namespace) -> int:
    """Prints each regression; 1 where there is one."""
    now = check.ratios_of(found)
    bad = check.regressions(now, given.committed, given.cases)
    if given.way:  # what was not asked for is not missing
        bad = [one for one in bad if not math.isnan(one.now) or one.way in now.get(one.case, {})]
    for one in bad:
        print(f"slower: {one}")
    looked = sum(name in given.committed for name in given.cases)
    print(f"{looked} of {len(given.cases)} cases have committed ratios; {len(bad)} ratios are past 25 %.")
    return 1 if bad else 0


def run(given: argparse.Namespace) -> int:
    """All that was asked for."""
    limit_threads(given.threads)
    say = stopwatch()
    if given.minutes is not None:
        return timed.run(given, about(given), say)
    if given.scaling:
        settings = Settings(given.rounds, given.budget)
        growths = scaling.measure(settings, say, quick=given.quick, device=given.device, ways=given.way)
        print(scaling.text(growths, scaling.memory_tables(say, quick=given.quick)))
        return 0
    found: list[Found] = []
    print(about(given)["machine"])
    for name in given.cases:
        own = run_case(name, given, say)
        found += own
        print(*map(report.text, own), sep="\n", flush=True)
        if given.json:  # after every case: an interrupted run keeps what it has
            report.write_json(given.json, report.as_data(found, about(given)))
    if given.picture:
        picture.draw(found, given.picture)
    if given.write_ratios:
        check.write(found, about(given))
    return judge(found, given) if given.check else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """0 done, 1 slower than committed, 2 a call that cannot be meant."""
    try:
        given = _checked(parser().parse_args(arguments))
    except ValueError as problem:
        print(f"python -m benchmarks: {problem}")
        return 2
    try:
        return run(given)
    finally:
        close_all()
