"""What an operation does on a server: a list of steps, each of which looks, applies, and can be taken back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, Protocol

from alfa_cloud.remote.host import Host

PUT_OFF: Final = "put_off"
"""The fact that counts how often an operation was put off."""


class PutOff(Exception):  # noqa: N818  no error: the step is tried again
    """What a step raises that can't be done now: the operation goes on with it later, and takes no worker meanwhile.

    Args:
        after_s: when.
        reason: why not now; a sentence.
    """

    def __init__(self, after_s: float, reason: str) -> None:
        super().__init__(reason)
        self.after_s = after_s
        self.reason = reason


class Step(Protocol):
    """Something that holds afterwards; `str()` is the title that people read."""

    stoppable: ClassVar[bool] = False
    """Whether a request to cancel may stop it half-way."""

    looks_only: ClassVar[bool] = False
    """Whether it never changes anything: its look is all of it."""

    undo_s: ClassVar[float] = 600
    """How long taking it back may go on: longer than the commands that it takes."""

    async def is_satisfied(self, host: Host) -> bool:
        """Look, change nothing: whether it holds already."""

    async def apply(self, host: Host) -> None:
        """Make it hold; safe to repeat after a stop at any point.

        Raises:
            PutOff: it can't be done now.
        """

    async def undo(self, host: Host) -> None:
        """Take it back, as far as it was done; safe to repeat. By default there is nothing to take back."""
        del host


class Check(Step, Protocol):
    """A step that only looks, and says what is wrong."""

    looks_only: ClassVar[bool] = True

    async def check(self, host: Host) -> None:
        """Nothing, where all is well.

        Raises:
            StepFailedError: it is not; the message says what a person can do.
        """

    async def is_satisfied(self, host: Host) -> bool:
        """True, or the check's error."""
        await self.check(host)
        return True

    async def apply(self, host: Host) -> None:
        """Nothing: a check changes nothing."""
        del host


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A server beside the playbook's own, in the hands of the same operation."""

    name: str
    host: Host = field(repr=False)

    def on(self, step: Step) -> Step:
        """That step, there."""
        return On(self, step)


@dataclass(frozen=True, slots=True)
class On(Step):
    """A step that is done on another server than the playbook's own."""

    where: Elsewhere
    inner: Step

    def __str__(self) -> str:
        return f"{self.inner} on {self.where.name}"

    @property
    def stoppable(self) -> bool:  # type: ignore[override]
        """As the step itself says."""
        return self.inner.stoppable

    @property
    def looks_only(self) -> bool:  # type: ignore[override]
        """As the step itself says."""
        return self.inner.looks_only

    @property
    def undo_s(self) -> float:  # type: ignore[override]
        """As the step itself says."""
        return self.inner.undo_s

    async def is_satisfied(self, host: Host) -> bool:
        del host
        return await self.inner.is_satisfied(self.where.host)

    async def apply(self, host: Host) -> None:
        del host
        await self.inner.apply(self.where.host)

    async def undo(self, host: Host) -> None:
        del host
        await self.inner.undo(self.where.host)


@dataclass(frozen=True, slots=True)
class Held(Step):
    """A step that lies behind a point of no return: it held then, and is not looked at again."""

    inner: Step

    def __str__(self) -> str:
        return str(self.inner)

    async def is_satisfied(self, host: Host) -> bool:
        del host
        return True

    async def apply(self, host: Host) -> None:
        del host


@dataclass(frozen=True, slots=True)
class Once(Step):
    """A check that is not made again by whoever takes over: what it looked at is worked on from then on."""

    inner: Step

    looks_only: ClassVar[bool] = True

    def __str__(self) -> str:
        return str(self.inner)

    async def is_satisfied(self, host: Host) -> bool:
        key = f"checked_{name_of(self.inner)}"
        if not host.facts.get(key):
            await self.inner.is_satisfied(host)
            await host.report(**{key: True})
        return True

    async def apply(self, host: Host) -> None:
        del host


def name_of(step: Step) -> str:
    """A step's name in snake_case: `EnsureFolder` is `ensure_folder`, wherever it is done."""
    if isinstance(step, On | Held | Once):
        return name_of(step.inner)
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(step).__name__).lower()


@dataclass(frozen=True, slots=True)
class Playbook:
    """The steps of an operation, in order.

    Args:
        undo_on_failure: whether a failed step takes the earlier ones back, in reverse.
        no_return: the position of the first step that cannot be taken back; once it was begun, only forward.
    """

    steps: Sequence[Step]
    undo_on_failure: bool = True
    no_return: int | None = None

    def past_return(self, position: int) -> bool:
        """Whether the step there, or an earlier one, cannot be taken back."""
        return self.no_return is not None and position >= self.no_return
