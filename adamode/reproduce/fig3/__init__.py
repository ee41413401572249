"""Fig. 3: the norm of the state over time, six models with a linear field under the Silverbox's input.

The released code draws the picture from models that were never trained; the paper's text speaks of trained
ones. Both are here, the first as the rows, with what its numbers rest on: ten draws, the input's index,
AdamNODE's denominator and rates.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
from torch import Tensor

from ...train.data import DataOptions, load_data
from ...train.data.sequences import recordings_of
from ..machinery.figure import Outcome
from ..machinery.work import Work
from .claims import WORDS, findings, judge
from .growth import MODELS, Case, Draws, draw, grow, joined
from .pictures import PICTURES
from .settings import SETTINGS, Fig3Settings, cases
from .spread import compared, groups, plain, record, spread, spreads, tensor
from .trained import Training, train


def compute(settings: Fig3Settings, work: Work) -> Outcome:
    """Every case and every trained model, a piece each."""
    recording = work.part("recording", lambda: _recording(settings, work.allowed.data_dir))
    u, y = (torch.tensor(recording[name], dtype=torch.float64) for name in ("u", "y"))
    drawn = functools.cache(lambda: _drawn(settings))
    records, norms = {}, {}

    def grown(case: Case) -> dict[str, Any]:
        growth = grow(case, drawn()[case.model], u, y[0], tol=settings.tol, max_steps=settings.max_steps)
        return record(growth, settings.inits)

    for case in cases(settings):
        found = work.part(case.name, functools.partial(grown, case))
        records[case.name], norms[case.name] = found, _said(case, found, settings.inits)

    def ratio(other: str, kind: str = "", of: str = "whole") -> dict[str, Any]:
        return compared(records[other + kind], records["adamnode" + kind], settings.inits, of)

    untrained = (*MODELS[:-1], "ghbnode-unbounded", "ghbnode-no-force")
    ratios = {name: {"code": ratio(name), "h": ratio(name, of="h")} for name in untrained}
    for model in MODELS[:-1]:
        ratios[model]["repaired"] = ratio(model, "-repaired")
    trained = {
        model: work.part(f"trained-{model}", functools.partial(_trained, model, settings, u, y))
        for model in MODELS
    }
    variants = {"recording": recording, "norms": norms, "ratios": ratios, "trained": trained}
    outcome = Outcome(_rows(norms, settings.rows), variants)
    return dataclasses.replace(outcome, findings=tuple(findings(settings, outcome)))


def _recording(settings: Fig3Settings, data_dir: str) -> dict[str, Any]:
    """The first rows of input and output, in units of 10 mV, and what they are."""
    options = DataOptions(data_dir=data_dir or None)
    if settings.dataset == "silverbox-simulated":
        options = DataOptions(given=1, window=settings.rows - 1)
    data = load_data(settings.dataset, options)
    first = recordings_of(data.train, data.given)[0][: settings.rows]
    return {"source": data.card.source, "note": data.card.note, "u": first.u.tolist(), "y": first.y.tolist()}


def _drawn(settings: Fig3Settings) -> dict[str, Draws]:
    ten, more = draw(settings.seed, settings.inits), draw(settings.seed + 1, settings.draws)
    return {model: joined(ten[model], more[model]) for model in MODELS}


def _trained(model: str, settings: Fig3Settings, u: Tensor, y: Tensor) -> dict[str, Any]:
    """Each model trained from each scale of its start; the errors in mV."""
    draws = draw(settings.seed + 2, settings.train_inits)[model]
    how = Training(settings.train_steps, settings.train_lr, settings.train_clip)
    scaled = joined(*(draws.times(scale) for scale in settings.train_scales))
    fitted = train(model, scaled, u, y, how, tol=settings.tol, max_steps=settings.max_steps)
    return {
        "scales": [scale for scale in settings.train_scales for _ in range(settings.train_inits)],
        "rmse_mv_before": plain(10 * fitted.before),
        "rmse_mv_after": plain(10 * fitted.after),
        "output_rms_mv": plain(10 * y[1:].square().mean().sqrt()),
        "whole": plain(fitted.growth.whole),
        "h": plain(fitted.growth.h),
        "status": list(fitted.growth.status),
    }


def _said(case: Case, found: dict[str, Any], size: int) -> dict[str, Any]:
    """What the result says of a case: the authors' inits over t, further draws at the end and over t."""
    failed = {
        of: {"count": len(those), "first": min(those, key=lambda one: one["t"], default=None)}
        for of, those in found["failed"].items()
    }
    return {
        **dataclasses.asdict(case),
        "inits": {of: spreads(curves) for of, curves in found["inits"].items()},
        "draws": {of: spread(found["end"][of]) for of in ("whole", "h")},
        "below_100": plain((tensor(found["end"]["whole"]) < 2).double().mean()),  # share of the draws
        "groups": {of: spread(groups(found["end"][of], size)) for of in ("whole", "h")},
        "bands": found["bands"],
        "failed": failed,
        "attempts": found["attempts"],
    }


def _rows(norms: dict[str, Any], rows: int) -> list[dict[str, Any]]:
    """The authors' setting: a row for each model and t."""
    kinds = ("mean", "median")
    return [
        {"model": m, "t": t, **{f"log10_norm_{kind}": norms[m]["inits"]["whole"][kind][t] for kind in kinds}}
        for m in MODELS
        for t in range(rows)
    ]


FIGURE = WORDS.figure(SETTINGS, compute, judge, PICTURES)
