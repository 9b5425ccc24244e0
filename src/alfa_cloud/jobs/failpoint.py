"""A named place in an operation where this worker is to die, stop or fail: for tests of everything else.

`ALFA_FAILPOINT=create_client.migrate:effect:kill`: kind and step, then `before` (nothing was done), `effect` (it was
applied, and nobody knows yet) or `after` (it is recorded), then `kill`, `stop` or `raise`.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Literal, cast, get_args

Phase = Literal["before", "effect", "after"]
Action = Literal["kill", "stop", "raise"]


class FailpointError(RuntimeError):
    """What a failpoint raises."""


@dataclass(frozen=True, slots=True)
class Failpoint:
    """Where, when and how this worker fails."""

    place: str
    phase: Phase
    action: Action

    @classmethod
    def parse(cls, text: str) -> Failpoint | None:
        """The failpoint of a setting; None where it is empty.

        Raises:
            ValueError: it is not of the form PLACE:PHASE:ACTION.
        """
        if not text:
            return None
        place, phase, action = text.split(":")
        if phase not in get_args(Phase) or action not in get_args(Action):
            raise ValueError("a failpoint is KIND.STEP:before|effect|after:kill|stop|raise")
        return cls(place, cast("Phase", phase), cast("Action", action))

    def reach(self, place: str, phase: Phase) -> None:
        """Fail, if this is the place.

        Raises:
            FailpointError: it is, and the action is to raise.
        """
        if (place, phase) != (self.place, self.phase):
            return
        if self.action == "raise":
            raise FailpointError(place)
        os.kill(os.getpid(), signal.SIGKILL if self.action == "kill" else signal.SIGSTOP)
