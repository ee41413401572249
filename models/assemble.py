"""From settings to a whole model: encoder, start, field, block and head that fit together."""

from __future__ import annotations

import dataclasses
import inspect
import math
import warnings
from typing import Any

from torch import nn

from ..solvers.errors import AdamodeWarning, ArgumentError, check_choice
from .block import SOLVER_KEYWORDS, Block, IdentityBlock, SolveSettings
from .checks import check_sizes
from .density_model import KINDS_OF_Q, DensityModel, NormalMomenta
from .dynamics import ANODE, GHBNODE, SONODE, AdamNODE, GNesterovNODE
from .fields.conv import Conv
from .fields.dense import MLP, Linear, shrunk
from .fields.driven import Driven
from .fields.field import Field
from .fields.own import OwnField
from .fields.relaxing import Relaxing
from .fields.scaled import scaled
from .fields.total import Total
from .flow import Flow
from .model import (
    Beside,
    ConvEncoder,
    DeepConvEncoder,
    FlatHead,
    HalvesStart,
    LearnedStart,
    Model,
    PoolHead,
    ThirdsStart,
    ZeroStart,
)
from .series import SeriesModel, SeriesStart
from .trajectory import TrajectoryModel

KINDS = {
    "block": ("ode", "identity"),
    "start": ("encoder", "learned", "zeros"),
    "encoder": ("pixel", "deep"),
    "momenta": KINDS_OF_Q,
}
COUNTS = (
    *("channels", "hidden", "image_channels", "size", "features", "classes", "given"),
    *("inputs", "outputs", "q_hidden"),
)


def block_keywords(cls: type[Block]) -> dict[str, Any]:
    """The keywords that a block takes from settings of the same name, with the block's defaults.

    Not among them: σ, the activation of GHBNODE and GNesterovNODE (the setting sigma; the setting activation
    is the field's), and an ANODE's augment.
    """
    solver = SolveSettings(t=cls.interval)
    found = {**(cls.__init__.__kwdefaults__ or {}), **{n: getattr(solver, n) for n in SOLVER_KEYWORDS}}
    found.pop("activation", None)
    return found


def build(cls: type[Block], settings: dict[str, Any]) -> nn.Module:
    """The model for images, points, series or densities, whichever the settings are of.

    images: x [B, image_channels, size, size] → logits [B, classes].
    points: x [B, features] → logits [B, classes]; the block moves the points themselves.
    trajectories: x [B, L, 1 + features] → [B, L − 1, features], see `TrajectoryModel`.
    series: x [B, L, 3] → [B, L − n, 1], see `SeriesModel`.
    densities: x [B, *shape] → log p(x) [B], see `DensityModel`.
    Raises ArgumentError, ArgumentTypeError for settings that do not fit together.
    """
    for name, known in KINDS.items():
        if name in settings:
            check_choice(name, settings[name], known)
    counts = {name: settings[name] for name in COUNTS if name in settings}
    if "given" in settings and settings["hidden"] == 0:  # a series may have a linear field alone
        del counts["hidden"]
    check_sizes(**counts)
    parts = _Parts(cls, settings)
    if "image_channels" in settings:
        return parts.images()
    if "rates" in settings:
        return parts.trajectories()
    if "draws" in settings:
        return parts.density()
    return parts.points() if "features" in settings else parts.series()


@dataclasses.dataclass(frozen=True)
class _Parts:
    """A model's parts, from the class of its block and the settings s."""

    cls: type[Block]
    s: dict[str, Any]

    @property
    def pad(self) -> int:
        """Channels of zeros that the block appends."""
        if self.cls is not ANODE:
            return 0
        pad: int = self.s["augment"]
        check_sizes(augment=pad, least=0)
        if pad >= self.s["channels"]:
            raise ArgumentError(f"augment={pad} must be less than channels={self.s['channels']}.")
        return pad

    @property
    def channels(self) -> int:
        """Channels of h0, without those that the block appends."""
        channels: int = self.s["channels"]
        return channels - self.pad

    @property
    def seen(self) -> int:
        """Channels of the state that the field sees."""
        channels: int = self.s["channels"]
        return (2 if self.cls is SONODE else 1) * channels

    @property
    def others(self) -> tuple[str, ...]:
        """The starts beside h0: "m0", "v0"."""
        return tuple(inspect.signature(self.cls.forward).parameters)[2:]

    def images(self) -> nn.Module:
        s, channels, encoder = self.s, self.s["channels"], self.encoder()
        if s["cells"] is None:
            head: nn.Module = FlatHead(channels * s["size"] ** 2, s["classes"])
        else:
            head = PoolHead(channels, s["classes"], cells=s["cells"])
        start = self.start()
        field: Any = self.own(self.seen, channels)
        if field is None:
            field = Conv(self.seen, s["hidden"], out_channels=channels, activation=s["activation"])
        return Model(encoder, start, self.block(self.scaled(field)), head, state_unit=s["state_unit"])

    def points(self) -> nn.Module:
        s, channels = self.s, self.s["channels"]
        self.without_encoder("points")
        more = self.channels - s["features"]
        if more < 0:
            raise ArgumentError(
                f"channels={channels}{f' less augment={self.pad}' if self.pad else ''} leaves "
                f"{self.channels} for the {s['features']} features of a point."
            )
        encoder = Beside(nn.Linear(s["features"], more)) if more else nn.Identity()
        head, start = FlatHead(channels, s["classes"]), self.start()
        field = self.scaled(self.own(self.seen, channels) or self.network(self.seen))
        return Model(encoder, start, self.block(field), head, state_unit=s["state_unit"])

    def trajectories(self) -> nn.Module:
        s, rates = self.s, tuple(self.s["rates"])
        self.without_encoder("trajectories")
        if self.channels != s["features"]:
            raise ArgumentError(
                f"channels={s['channels']}{f' less augment={self.pad}' if self.pad else ''} must be the "
                f"{s['features']} features of a state."
            )
        own = self.own(self.seen, s["channels"])
        if own is not None:
            field: Field = self.scaled(own)
        else:
            field = Relaxing(self.scaled(self.network(self.seen, time=False)), rates + (1.0,) * self.pad)
        block, unit = self.block(field), s["state_unit"]
        return TrajectoryModel(self.start(), block, features=s["features"], state_unit=unit)

    def density(self) -> nn.Module:
        s, shape = self.s, tuple(self.s["shape"])
        if s["block"] == "identity":
            raise ArgumentError("block='identity': a flow without its block learns nothing; take 'ode'.")
        dim, momenta = math.prod(shape), len(self.others)
        joined = 2 if self.cls is SONODE else 1
        widths = (s["hidden"], s["hidden"])
        block = self.block(MLP(joined * dim, widths, out_dim=dim, activation=s["activation"]))
        q = NormalMomenta(dim, momenta, s["q_hidden"]) if momenta and s["momenta"] == "learned" else None
        flow = Flow(block, auxiliary=q)
        if s["compile"] and flow.density is not None:
            warnings.warn(
                "compile=True does nothing here: a density by a trace is solved without programs.",
                AdamodeWarning,
                stacklevel=4,
            )
            flow.block.settings = dataclasses.replace(flow.block.settings, compile=False)
        return DensityModel(flow, shape, s["draws"])

    def without_encoder(self, what: str) -> None:
        """Refuses a start that needs one."""
        if self.s["start"] == "encoder":
            raise ArgumentError(
                f"start='encoder': {what} have no encoder; start must be 'learned' or 'zeros'."
            )

    def series(self) -> nn.Module:
        s, scale = self.s, self.s["scale"]
        sizes = {"inputs": s["inputs"], "outputs": s["outputs"]}
        if self.channels < s["outputs"]:
            raise ArgumentError(f"channels={s['channels']} are too few for outputs={s['outputs']}.")
        start = SeriesStart(self.channels, self.others, s["start"], given=s["given"], scale=scale, **sizes)
        seen = self.seen + s["inputs"]
        inner: Any = self.own(seen, s["channels"])
        if inner is None:
            inner = Linear(seen, out_dim=s["channels"], scale=scale)
            if s["hidden"]:  # beside the linear part, which large states do not saturate
                network = self.network(seen, time=False)
                shrunk(network.layers[-1], scale)
                inner = Total(inner, network)
        block = self.block(Driven(self.scaled(inner), inputs=s["inputs"]))
        return SeriesModel(start, block, state_unit=s["state_unit"], **sizes)

    def scaled(self, field: Field) -> Field:
        """The field between the state's scales."""
        return scaled(field, self.s["field_scale"], self.s["field_gain"])

    def own(self, channels_in: int, channels_out: int) -> OwnField | None:
        """The user's field of this size; None where ours is to be taken."""
        make = self.s.get("field")
        return None if make is None else OwnField(make(channels_in, channels_out), channels_in, channels_out)

    def network(self, features: int, *, time: bool = True) -> MLP:
        s = self.s
        widths = (s["hidden"], s["hidden"])
        return MLP(features, widths, out_dim=s["channels"], activation=s["activation"], time=time)

    def block(self, field: nn.Module) -> Block | IdentityBlock:
        cls, s = self.cls, self.s
        if s["block"] == "identity":
            return IdentityBlock(pad=self.pad)
        keywords = {name: s[name] for name in block_keywords(cls) if name in s}
        if cls is ANODE:
            keywords["augment"] = self.pad
        if cls in (GHBNODE, GNesterovNODE):
            keywords["activation"] = s["sigma"]
        block = cls(field, **keywords)
        if cls in (GHBNODE, GNesterovNODE) and not s["xi_learnable"] and s["xi"] is not None:
            block.dynamics.raw_xi.requires_grad_(False)
        return block

    def start(self) -> nn.Module:
        others, kind = self.others, self.s["start"]
        if kind == "zeros" or not others:
            return ZeroStart()
        if kind == "learned":
            positive = ("v0",) if self.cls is AdamNODE else ()
            free = tuple(name for name in others if name not in positive)
            return LearnedStart(self.channels, free=free, positive=positive)
        return ThirdsStart() if self.cls is AdamNODE else HalvesStart(others[0])

    def encoder(self) -> nn.Module:
        """The encoder whose o, with x where both are joined, holds just what the start cuts up."""
        seen, others, channels, s = self.s["image_channels"], self.others, self.channels, self.s
        cut = s["start"] == "encoder" and others
        beside = not cut and (s["encoder"] == "deep" or s["start"] == "encoder")
        out = channels
        if cut:
            out = (1 + len(others)) * channels - seen
            if self.cls is AdamNODE:  # [x, o, o²]
                if out % 2 or out < 2 * channels:
                    raise ArgumentError(
                        f"channels={channels}: the start 'encoder' cuts [x, o, o²] in three, so "
                        f"3·{channels} − {seen} must be even and at least {2 * channels}; take another "
                        "number of channels."
                    )
                out //= 2
        elif beside:
            out = channels - seen
        if out < 0 or (out == 0 and not beside):
            raise ArgumentError(f"channels={channels} is too few for images of {seen} channels.")
        if out == 0:
            return nn.Identity()
        pixel = s["encoder"] == "pixel"
        encoder = ConvEncoder(seen, out) if pixel else DeepConvEncoder(seen, s["hidden"], out)
        return Beside(encoder) if beside else encoder
