"""A block under an input signal, from the outputs known to the outputs to come."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..solvers.checks import check_positive
from ..solvers.errors import ArgumentError, ArgumentTypeError
from .block import MAX_STEPS, Block, IdentityBlock, WithBlock
from .fields.dense import shrunk
from .fields.driven import Signal


class SeriesStart(nn.Module):
    """The state at the last known row: h0's first entries are the outputs there, the rest is w.

    dim: entries of h0.
    others: the state's other starts: (), ("m0",), ("v0",) or ("m0", "v0"). v0 = m0² where there are both, as
        in the released code for Silverbox.
    kind: where w comes from.
        "zeros"    zeros
        "learned"  one number an entry, the same for every sample (the released code's)
        "encoder"  one linear layer on the last ``given`` known rows of input and output, with zeros
                   in place of rows that are not known
    scale: of the first w, or of the encoder's first weights, against torch's own.
    inputs, outputs: how many of each a row has.
    """

    def __init__(
        self,
        dim: int,
        others: tuple[str, ...],
        kind: str,
        *,
        given: int = 1,
        scale: float = 1.0,
        inputs: int = 1,
        outputs: int = 1,
    ):
        super().__init__()
        self.dim, self.kind, self.given = dim, kind, given
        self.inputs, self.outputs = inputs, outputs
        self.squared = "v0" if others == ("m0", "v0") else None
        self.drawn = tuple(name for name in others if name != self.squared)
        size = dim - outputs + dim * len(self.drawn)
        if kind == "learned" and size:
            self.w = nn.Parameter(scale * torch.randn(size))
        elif kind == "encoder" and size:
            self.encoder = shrunk(nn.Linear((inputs + outputs) * given, size), scale)
        self.size = size

    def forward(self, known: Tensor) -> dict[str, Tensor]:
        """{"h0", …}, each [B, dim], from the known rows [B, n, U + Y] of inputs and outputs."""
        y = known[:, -1, self.inputs :]
        w = self._w(known)
        parts = torch.cat((y, w), dim=1).split(self.dim, dim=1)
        start = dict(zip(("h0", *self.drawn), parts, strict=True))
        if self.squared is not None:
            start[self.squared] = start["m0"].square()
        return start

    def _w(self, known: Tensor) -> Tensor:
        if self.kind == "zeros" or not self.size:
            return known.new_zeros(len(known), self.size)
        if self.kind == "learned":
            return self.w.expand(len(known), -1)
        rows = known[:, -self.given :]
        rows = nn.functional.pad(rows, (0, 0, self.given - rows.shape[1], 0))
        return self.encoder(rows.flatten(1))


class SeriesModel(WithBlock):
    """Known rows → start → block under the inputs → the first entries of h at every later row.

    Time runs in rows: 0, 1, …; between two rows the input is linear, and steps end on rows.

    start: from the known rows [B, n, U + Y] to the block's starts by name.
    block: with a `Driven` field.
    state_unit: the size of input and output that is 1 in the state.
    inputs, outputs: U and Y, how many of each a row has.
    """

    def __init__(
        self,
        start: SeriesStart,
        block: Block | IdentityBlock,
        *,
        state_unit: float = 1.0,
        inputs: int = 1,
        outputs: int = 1,
    ):
        super().__init__()
        check_positive(state_unit, "state_unit")
        self.start, self.block, self.state_unit = start, block, state_unit
        self.inputs, self.outputs = inputs, outputs

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [B, L − n, Y] of rows n … L−1, from x [B, L, U + Y + 1].

        Columns of x: the inputs; the outputs in the first n rows and 0 after them; 1 in those rows and
        0 after them, with one n ≥ 1 for all samples.  Raises ArgumentError for anything else.
        """
        n, both = _known_rows(x, self.inputs + self.outputs + 1), self.inputs + self.outputs
        rows = torch.arange(x.shape[1], dtype=torch.float64, device=x.device)
        start = self.start(x[:, :n, :both] / self.state_unit)
        h0 = start.pop("h0")
        signal = Signal(rows, x[:, :, : self.inputs].detach() / self.state_unit)
        if signal.seen is not None:
            raise ArgumentError("x[:, :, :inputs], the inputs, are not all finite: fill in what is missing.")
        block = self.block.driven(signal)
        path = block.path(
            h0,
            rows[n - 1 :],
            step_at=rows[n:-1],
            # Untrained models take 1 to 2 attempts a row; the rest is for what training makes of them.
            max_steps=max(MAX_STEPS, 100 * len(rows)),
            **{name.removesuffix("0"): value for name, value in start.items()},
        )
        self.block.last_stats = block.last_stats
        return self.state_unit * path["h"][1:, :, : self.outputs].transpose(0, 1)


def _known_rows(x: Tensor, width: int) -> int:
    if not isinstance(x, Tensor):
        raise ArgumentTypeError(f"x is a {type(x).__name__}; give a tensor [B, L, {width}].")
    if x.ndim != 3 or x.shape[2] != width or x.shape[0] < 1:
        raise ArgumentError(
            f"x has shape {tuple(x.shape)}; it must be [B, L, {width}]: inputs, outputs where "
            "known, 1 where known."
        )
    n = int((x[0, :, -1] == 1).sum())  # host read
    mask = torch.zeros_like(x[0, :, -1])
    mask[:n] = 1
    if not 1 <= n < x.shape[1] or not torch.equal(x[:, :, -1], mask.expand(len(x), -1)):  # host read
        raise ArgumentError(
            f"x[:, :, {width - 1}] must be 1 in the first n rows and 0 after them, with the same n in "
            f"1 … {x.shape[1] - 1} for every sample; it is 1 in {n} rows of the first."
        )
    return n
