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
from .tape import Tape
from .walk import ByPlace, ByWritten, DiscreteWalk, Solved


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
    tape = Tape(everyone, stages=not again, checkpoints=gradient.checkpoints, last=last)

    def walk(seen: Seen, g: Rows, want_theta: bool) -> Result:
        outputs: ByPlace | ByWritten = ByPlace(seen, g, solved.numeric)
        if isinstance(solved.clocks, Each):
            outputs = ByWritten(seen, g, solved.clocks, solved.numeric)
        known = None if last is None else last.kept
        if compiled and watch is None and gradient.checkpoints is None and isinstance(outputs, ByPlace):
            assert queue is not None
            found = CompiledWalk(solved, queue, tape, outputs).run()
            if found is not None:
                return found
            if again:
                start, z0 = tape.attempt(0).ends[0], solved.z0.detach()
                known = Evaluation(clock(start, z0), z0, tape.states[0][1])
        if known is not None:
            known.check(solved.dynamics, solved.stats, solved.complain)
        return DiscreteWalk(solved, tape, outputs, want_theta=want_theta, watch=watch).run()

    # With a clock a sample first stages of their own are kept in any case.
    return Recording(tape, walk, saves=not again or everyone is not None)
