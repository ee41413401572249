"""From settings to a whole model: encoder, start, field, block and head that fit together."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..solvers.checks import check_choice
from ..solvers.errors import ArgumentError, ArgumentTypeError
from .augment import HalvesStart, LearnedStart, ThirdsStart, ZeroStart
from .block import Block, IdentityBlock
from .encoders import Beside, ConvEncoder, DeepConvEncoder
from .fields.conv import Conv
from .fields.driven import Driven
from .fields.linear import Linear, shrunk
from .fields.mlp import MLP
from .fields.total import Total
from .heads import FlatHead, PoolHead
from .model import ANODE, GHBNODE, HBNODE, NODE, SONODE, AdamNODE, Model
from .series import SeriesModel, SeriesStart

BLOCK_KINDS = ("ode", "identity")
START_KINDS = ("encoder", "learned", "zeros")
ENCODER_KINDS = ("pixel", "deep")

# The starts of a state beside h0.
OTHERS: dict[type[Block], tuple[str, ...]] = {
    NODE: (),
    ANODE: (),
    SONODE: ("v0",),
    HBNODE: ("m0",),
    GHBNODE: ("m0",),
    AdamNODE: ("m0", "v0"),
}


def block_keywords(cls: type[Block]) -> dict[str, Any]:
    """The keywords that a block takes from settings of the same name, with the block's defaults.

    Not among them: a GHBNODE's activation (the setting sigma; the setting activation is the field's)
    and an ANODE's augment.
    """
    defaults = cls.__init__.__kwdefaults__ or {}
    return {name: value for name, value in defaults.items() if name != "activation"}


def build_images(cls: type[Block], s: dict[str, Any]) -> nn.Module:
    """x [B, image_channels, size, size] → logits [B, classes]."""
    _check_kinds(s, "block", "start", "encoder")
    _check_counts(s, "channels", "hidden", "image_channels", "size", "classes")
    channels, pad = s["channels"], _pad(cls, s)
    encoder = _image_encoder(cls, s, channels - pad)
    if s["cells"] is None:
        head: nn.Module = FlatHead(channels * s["size"] ** 2, s["classes"])
    else:
        head = PoolHead(channels, s["classes"], cells=s["cells"])
    start = _start(cls, s["start"], channels - pad)
    joined = 2 if cls is SONODE else 1
    field = Conv(joined * channels, s["hidden"], out_channels=channels, activation=s["activation"])
    return Model(encoder, start, _block(cls, field, s, pad), head)


def build_points(cls: type[Block], s: dict[str, Any]) -> nn.Module:
    """x [B, features] → logits [B, classes]; the block moves the points themselves."""
    _check_kinds(s, "block", "start")
    _check_counts(s, "channels", "hidden", "features", "classes")
    channels, pad = s["channels"], _pad(cls, s)
    if s["start"] == "encoder":
        raise ArgumentError("start='encoder': points have no encoder; start must be 'learned' or 'zeros'.")
    if channels - pad < s["features"]:
        raise ArgumentError(
            f"channels={channels}{f' less augment={pad}' if pad else ''} leaves {channels - pad} for the "
            f"{s['features']} features of a point."
        )
    more = channels - pad - s["features"]
    encoder = Beside(nn.Linear(s["features"], more)) if more else nn.Identity()
    head = FlatHead(channels, s["classes"])
    start = _start(cls, s["start"], channels - pad)
    joined = 2 if cls is SONODE else 1
    widths = (s["hidden"], s["hidden"])
    field = MLP(joined * channels, widths, out_dim=channels, activation=s["activation"])
    return Model(encoder, start, _block(cls, field, s, pad), head)


def build_series(cls: type[Block], s: dict[str, Any]) -> nn.Module:
    """x [B, L, 3] → [B, L − n, 1]: see `SeriesModel`."""
    _check_kinds(s, "block", "start")
    _check_counts(s, "channels", "given")
    if s["hidden"] != 0:
        _check_counts(s, "hidden")
    channels, pad = s["channels"], _pad(cls, s)
    kind, scale = s["start"], s["scale"]
    start = SeriesStart(channels - pad, OTHERS[cls], kind, given=s["given"], scale=scale)
    features = (2 if cls is SONODE else 1) * channels + 1
    inner: Any = Linear(features, out_dim=channels, scale=scale)
    if s["hidden"]:  # beside the linear part, which large states do not saturate
        widths = (s["hidden"], s["hidden"])
        network = MLP(features, widths, out_dim=channels, activation=s["activation"], time=False)
        last = network.layers[-1]
        assert isinstance(last, nn.Linear)
        shrunk(last, scale)
        inner = Total(inner, network)
    return SeriesModel(start, _block(cls, Driven(inner), s, pad), unit=s["unit"])


def _block(cls: type[Block], field: nn.Module, s: dict[str, Any], pad: int) -> Block | IdentityBlock:
    if s["block"] == "identity":
        return IdentityBlock(pad=pad)
    keywords = {name: s[name] for name in block_keywords(cls) if name in s}
    if cls is ANODE:
        keywords["augment"] = pad
    if cls is GHBNODE:
        keywords["activation"] = s["sigma"]
    block = cls(field, **keywords)
    if cls is GHBNODE and not s["xi_learnable"]:
        block.dynamics.raw_xi.requires_grad_(False)
    return block


def _start(cls: type[Block], kind: str, channels: int) -> nn.Module:
    others = OTHERS[cls]
    if kind == "zeros" or not others:
        return ZeroStart()
    if kind == "learned":
        positive = ("v0",) if cls is AdamNODE else ()
        return LearnedStart(channels, free=tuple(n for n in others if n not in positive), positive=positive)
    return ThirdsStart() if cls is AdamNODE else HalvesStart(others[0])


def _image_encoder(cls: type[Block], s: dict[str, Any], channels: int) -> nn.Module:
    """The encoder whose o, with x where both are joined, holds just what the start cuts up."""
    seen, others = s["image_channels"], OTHERS[cls]
    cut = s["start"] == "encoder" and others
    beside = not cut and (s["encoder"] == "deep" or s["start"] == "encoder")
    out = channels
    if cut:
        out = (1 + len(others)) * channels - seen
        if cls is AdamNODE:  # [x, o, o²]
            if out % 2 or out < 2 * channels:
                raise ArgumentError(
                    f"channels={channels}: the start 'encoder' cuts [x, o, o²] in three, so 3·{channels} − "
                    f"{seen} must be even and at least {2 * channels}; take another number of channels."
                )
            out //= 2
    elif beside:
        out = channels - seen
    if out < 0 or (out == 0 and not beside):
        raise ArgumentError(f"channels={channels} is too few for images of {seen} channels.")
    if out == 0:
        return nn.Identity()
    encoder = ConvEncoder(seen, out) if s["encoder"] == "pixel" else DeepConvEncoder(seen, s["hidden"], out)
    return Beside(encoder) if beside else encoder


def _pad(cls: type[Block], s: dict[str, Any]) -> int:
    if cls is not ANODE:
        return 0
    pad = s["augment"]
    if isinstance(pad, bool) or not isinstance(pad, int):
        raise ArgumentTypeError(f"augment={pad!r} must be a whole number of channels.")
    if not 0 <= pad < s["channels"]:
        raise ArgumentError(f"augment={pad} must be at least 0 and less than channels={s['channels']}.")
    return pad


def _check_kinds(s: dict[str, Any], *names: str) -> None:
    known = {"block": BLOCK_KINDS, "start": START_KINDS, "encoder": ENCODER_KINDS}
    for name in names:
        check_choice(name, s[name], known[name])


def _check_counts(s: dict[str, Any], *names: str) -> None:
    for name in names:
        value = s[name]
        if isinstance(value, bool) or not isinstance(value, int):
            raise ArgumentTypeError(f"{name}={value!r} is {type(value).__name__}; give a whole number.")
        if value < 1:
            raise ArgumentError(f"{name}={value} must be at least 1.")
