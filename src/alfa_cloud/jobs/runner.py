"""Runs a playbook on a host: looks, applies, looks again; takes back what was done where a step fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from alfa_cloud.db import DatabaseAwayError
from alfa_cloud.errors import (
    AlfaCloudError,
    LeaseLostError,
    OperationTimeoutError,
    StepFailedError,
    StepNotConvergedError,
)
from alfa_cloud.jobs.failpoint import Phase
from alfa_cloud.jobs.journal import Journal
from alfa_cloud.jobs.lease import Lease
from alfa_cloud.playbooks.playbook import Playbook, PutOff, Step
from alfa_cloud.remote.host import Host
from alfa_cloud.specs import StepState

log = structlog.get_logger()

MAX_MESSAGE: Final = 2_000

ADVICE: Final = {
    "server_unreachable": "Check that the server is up and reachable, then retry.",
    "connection_lost": "Check the server and the network, then retry.",
    "host_key_changed": "Make sure that this is still your server, then pin its new key.",
    "login_refused": "Put this service's public key (GET /ssh_public_key) into authorized_keys, then retry.",
    "command_timeout": "Look at the server's load, then retry.",
    "command_failed": "The log has its output; mend the cause, then retry.",
    "operation_timeout": "Look in the log for what took so long, then retry.",
    "internal": "This is a fault of the service: its own log has more under this operation's id.",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an operation did not end well."""

    code: str
    message: str
    step: str | None
    server_id: int | None = None
    """The server that it is about, where the error knows."""

    def as_dict(self) -> dict[str, Any]:
        """As it is stored, and shown."""
        return {"code": self.code, "message": self.message, "step": self.step}


CANCELLED: Final = "cancelled"


class CancelRequested(Exception):  # noqa: N818  a wish, not an error
    """Somebody asked to stop this operation."""


def explain(error: BaseException, step: str | None) -> Failure:
    """What a person is told of an error: what happened, and what can be done."""
    if isinstance(error, TimeoutError):
        error = OperationTimeoutError("The operation's deadline has passed.")
    if not isinstance(error, AlfaCloudError):
        return Failure("internal", f"An unexpected {type(error).__name__}. {ADVICE['internal']}", step)
    code = error.step_code if isinstance(error, StepFailedError) else error.code
    message = f"{printable(error.detail)} {ADVICE.get(code, '')}".strip()
    return Failure(code, message, step, error.meta.get("server_id"))


def printable(text: str) -> str:
    """Text of a server that can be stored and shown: no control characters, and not too long."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    return shown if len(shown) <= MAX_MESSAGE else shown[:MAX_MESSAGE] + " [truncated]"


class Runner:
    """One run of a playbook.

    Args:
        record_failure: stores a failure before anything is taken back, so that a worker that takes over in the middle
            of it goes on taking back.
        touched: the position of the last step that an earlier attempt has begun; -1 where there was none.
        reach: told of each phase of each step; a failpoint of a test.
    """

    def __init__(
        self,
        playbook: Playbook,
        host: Host,
        journal: Journal,
        lease: Lease,
        *,
        retry_delays_s: Sequence[float],
        record_failure: Callable[[Failure], Awaitable[None]],
        touched: int = -1,
        reach: Callable[[Step, Phase], None] = lambda *_: None,
    ) -> None:
        self._playbook = playbook
        self._host = host
        self._journal = journal
        self._lease = lease
        self._retry_delays_s = retry_delays_s
        self._record_failure = record_failure
        self._touched = touched
        self._reach = reach

    async def run(self, remaining_s: float) -> Failure | None:
        """Bring all steps about; None, or why it failed, with everything taken back that can be.

        Raises:
            PutOff: a step is to be tried again later.
            LeaseLostError: another worker has the operation.
        """
        position = 0
        step: str | None = None
        try:
            async with asyncio.timeout(max(0.0, remaining_s)):
                for position, current in enumerate(self._playbook.steps):
                    step = str(current)
                    if self._lease.cancel_requested.is_set() and not self._playbook.past_return(position):
                        raise CancelRequested
                    self._touched = max(self._touched, position)
                    await self._run_step(position, current)
        except (LeaseLostError, DatabaseAwayError):
            raise
        except PutOff as later:
            await self._journal.put_off(position, printable(later.reason), later.after_s, self._progress(position))
            raise
        except CancelRequested:
            taken_back = "; what was done has been taken back" if self._playbook.undo_on_failure else ""
            failure = Failure(CANCELLED, f"Cancelled{taken_back}.", step)
        except Exception as error:
            if not isinstance(error, AlfaCloudError | TimeoutError):
                log.exception("step_failed_unexpectedly", step=step)
            failure = explain(error, step)
        else:
            return None
        await self._journal.note(failure.message)
        if position <= self._touched:
            await self._journal.step(position, StepState.FAILED, None, self._progress(position))
        await self._record_failure(failure)
        await self.undo(step)
        return failure

    async def undo(self, failed: str | None) -> None:
        """Take back every step that was begun in any attempt, last first; what can't be is said in the log.

        It goes on past the operation's deadline: each step has a time of its own.

        Args:
            failed: the title of the step that failed; it stays `failed`, the others are `undone`.
        """
        if not self._playbook.undo_on_failure or self._playbook.past_return(self._touched):
            return
        for place in range(self._touched, -1, -1):
            step = self._playbook.steps[place]
            if type(step).undo is not Step.undo:
                await self._undo_step(place, step, failed=str(step) == failed)

    async def _undo_step(self, place: int, step: Step, *, failed: bool) -> None:
        title = f"Take back: {step}"
        try:
            await self._journal.step(place, StepState.RUNNING, title, self._progress(place))
            async with asyncio.timeout(step.undo_s):
                await self._patiently(lambda: step.undo(self._host))
            state = StepState.FAILED if failed else StepState.UNDONE
        except LeaseLostError:
            raise
        except TimeoutError:
            await self._journal.warn(f"{title} took longer than {step.undo_s:g} s; something may be left.")
            state = StepState.FAILED
        except Exception as error:
            if not isinstance(error, AlfaCloudError):
                log.exception("undo_failed_unexpectedly", step=str(step))
            await self._journal.warn(f"{title} did not succeed: {explain(error, None).message}")
            state = StepState.FAILED
        await self._journal.step(place, state, None, self._progress(place))

    async def _run_step(self, position: int, step: Step) -> None:
        await self._journal.step(position, StepState.RUNNING, str(step), self._progress(position))
        self._reach(step, "before")
        if await self._patiently(lambda: step.is_satisfied(self._host)):
            state = StepState.DONE if step.looks_only else StepState.SKIPPED
            await self._journal.step(position, state, None, self._progress(position + 1))
            return
        await self._patiently(lambda: self._apply(step))
        self._reach(step, "effect")
        if not await self._patiently(lambda: step.is_satisfied(self._host)):
            raise StepNotConvergedError(f"“{step}” was done without an error and still does not hold.")
        await self._journal.step(position, StepState.DONE, None, self._progress(position + 1))
        self._reach(step, "after")

    async def _apply(self, step: Step) -> None:
        if not step.stoppable:
            await step.apply(self._host)
            return
        work = asyncio.ensure_future(step.apply(self._host))
        cancelled = asyncio.ensure_future(self._lease.cancel_requested.wait())
        try:
            await asyncio.wait({work, cancelled}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise CancelRequested
            await work
        finally:
            for task in (work, cancelled):
                task.cancel()
            await asyncio.gather(work, cancelled, return_exceptions=True)

    async def _patiently(self, action: Callable[[], Awaitable[Any]]) -> Any:
        """The action's result; an error that may pass by itself gets another try after each delay."""
        for delay_s in self._retry_delays_s:
            self._lease.check()
            try:
                return await action()
            except AlfaCloudError as error:
                if not error.retryable:
                    raise
                await self._journal.note(f"{error.detail} Trying again in {delay_s:g} s.")
                await asyncio.sleep(delay_s)
        self._lease.check()
        return await action()

    def _progress(self, position: int) -> float:
        return round(min(1.0, position / max(1, len(self._playbook.steps))), 3)
