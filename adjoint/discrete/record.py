"""What `Discrete` keeps of a forward solve, and its walk back."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ...solvers.device.queue import Queue
from ...solvers.march.output import clock
from ...solvers.step.clocks import Each
from ..arguments import Discrete
from ..dynamics.repeatable import Evaluation, LastEvaluation
from ..recording import Recording, Result, Rows, Seen
from .compiled import CompiledWalk
from .tape import CheckpointTape, Entries, Tape
from .walk import ByPlace, ByWritten, DiscreteWalk, Outputs, Solved


def record_discrete(
    solved: Solved,
    gradient: Discrete,
    *,
    queue: Queue | None = None,
    watch: Callable[[float, Tensor, Tensor | None], None] | None = None,
) -> Recording:
    """The recording of the discrete adjoint.

    queue: how the forward solve makes its attempts.  watch: as of `DiscreteWalk`.
    """
    compiled = queue is not None and queue.owner is not None
    again = gradient.keep == "state" if queue is None else not queue.keep
    again = again or gradient.checkpoints is not None
    last = LastEvaluation() if again and not compiled else None
    everyone = solved.clocks.everyone(solved.z0)
    tape: Entries = Tape(everyone, stages=not again, first=compiled, last=last)
    if gradient.checkpoints is not None:
        tape = CheckpointTape(everyone, gradient.checkpoints, last)

    def walk(seen: Seen, g: Rows, want_theta: bool) -> Result:
        outputs = outputs_of(solved, seen, g)
        known = None if last is None else last.kept
        if compiled and watch is None and isinstance(tape, Tape) and isinstance(outputs, ByPlace):
            assert queue is not None
            found = CompiledWalk(solved, queue, tape, outputs).run()
            if found is not None:
                return found
            known = first_evaluation(solved, tape) if again else None
        if known is not None:
            known.check(solved.dynamics, solved.stats, solved.complain)
        return DiscreteWalk(solved, tape, outputs, want_theta=want_theta, watch=watch).run()

    # With a clock a sample first stages of their own are kept in any case.
    return Recording(tape, walk, saves=not again or everyone is not None)


def outputs_of(solved: Solved, seen: Seen, g: Rows) -> Outputs:
    """How the cotangents g of what was seen enter."""
    if isinstance(solved.clocks, Each):
        assert isinstance(g, Tensor)
        return ByWritten(seen, g, solved.clocks, solved.numeric)
    return ByPlace(seen, g, solved.numeric)


def first_evaluation(solved: Solved, tape: Tape) -> Evaluation:
    """That at the start, where a compiled solve has kept its value."""
    first, z0 = tape.attempt(0), solved.z0.detach()
    assert first.start is not None
    return Evaluation(clock(first.ends[0], z0), z0, first.start[1])
