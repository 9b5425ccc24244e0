"""The runner: skipping, converging, taking back, trying again, cancelling."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
from sqlalchemy import select

from alfa_cloud.db import SessionFactory
from alfa_cloud.errors import ConnectionLostError, LeaseLostError, StepFailedError
from alfa_cloud.jobs.journal import Journal
from alfa_cloud.jobs.lease import Lease
from alfa_cloud.jobs.runner import Failure, Runner
from alfa_cloud.models import OperationLine, OperationStep
from alfa_cloud.playbooks.playbook import PUT_OFF, Playbook, PutOff, Step, name_of
from alfa_cloud.remote.host import Host
from alfa_cloud.services import operations
from alfa_cloud.services import steps as operation_steps
from alfa_cloud.services.operations import Claim
from tests.fakes import FakeHost

Errors = list[Exception]


@dataclass
class Ensure(Step):
    """A step of a test: holds once it was applied."""

    title: str
    history: list[str]
    held: bool = False
    errors: Errors = field(default_factory=list)
    converges: bool = True

    def __str__(self) -> str:
        return self.title

    async def is_satisfied(self, host: Host) -> bool:
        return self.held

    async def apply(self, host: Host) -> None:
        self.history.append(f"apply {self.title}")
        if self.errors:
            raise self.errors.pop(0)
        self.held = self.converges

    async def undo(self, host: Host) -> None:
        self.history.append(f"undo {self.title}")
        self.held = False


@dataclass
class Wait(Step):
    """A step that waits for ever, and may be stopped."""

    stoppable: ClassVar[bool] = True
    started: asyncio.Event

    def __str__(self) -> str:
        return "Wait"

    async def is_satisfied(self, host: Host) -> bool:
        return False

    async def apply(self, host: Host) -> None:
        self.started.set()
        await asyncio.Event().wait()


Run = Callable[..., Awaitable[Failure | None]]


@pytest.fixture
def lease(sessions: SessionFactory, held: Claim) -> Lease:
    return Lease(sessions, held, lease_s=30, heartbeat_s=10)


@pytest.fixture
def recorded() -> list[Failure]:
    return []


@pytest.fixture
def run(sessions: SessionFactory, held: Claim, journal: Journal, lease: Lease, recorded: list[Failure]) -> Run:
    async def record(failure: Failure) -> None:
        recorded.append(failure)

    async def run_steps(*steps: Step, remaining_s: float = 60) -> Failure | None:
        async with sessions.begin() as session:
            await operation_steps.plan_steps(session, held, [(name_of(step), str(step)) for step in steps])
        runner = Runner(
            Playbook(steps), FakeHost(), journal, lease, retry_delays_s=(0.01, 0.01, 0.01), record_failure=record
        )
        return await runner.run(remaining_s)

    return run_steps


async def states(sessions: SessionFactory) -> list[str]:
    async with sessions() as session:
        return list(await session.scalars(select(OperationStep.state).order_by(OperationStep.position)))


async def test_satisfied_steps_are_skipped(sessions: SessionFactory, run: Run) -> None:
    history: list[str] = []
    assert await run(Ensure("a", history, held=True), Ensure("b", history)) is None
    assert history == ["apply b"]
    assert await states(sessions) == ["skipped", "done"]


async def test_a_failed_step_takes_the_earlier_ones_back_in_reverse(
    sessions: SessionFactory, run: Run, recorded: list[Failure]
) -> None:
    history: list[str] = []
    failure = await run(
        Ensure("a", history),
        Ensure("b", history, held=True),
        Ensure("c", history, errors=[StepFailedError("The disk is full.", code="disk_full")]),
        Ensure("d", history),
    )
    assert failure == Failure("disk_full", "The disk is full.", "c")
    assert recorded == [failure]
    assert history == ["apply a", "apply c", "undo c", "undo b", "undo a"]
    assert await states(sessions) == ["undone", "undone", "failed", "pending"]


async def test_a_step_that_does_not_hold_afterwards_fails(run: Run) -> None:
    failure = await run(Ensure("a", [], converges=False))
    assert failure is not None
    assert failure.code == "step_not_converged"


async def test_a_step_that_is_put_off_waits_and_nothing_is_taken_back(
    sessions: SessionFactory, run: Run, journal: Journal
) -> None:
    history: list[str] = []
    later = Ensure("b", history, errors=[PutOff(60, "The\tpost office is closed.")])
    with pytest.raises(PutOff):
        await run(Ensure("a", history), later, Ensure("c", history))
    assert history == ["apply a", "apply b"]
    assert await states(sessions) == ["done", "waiting", "pending"]
    assert journal.facts == {PUT_OFF: 1}
    async with sessions() as session:
        (line,) = await session.scalars(select(OperationLine.text).where(OperationLine.stream == "system"))
        step = await session.scalar(select(OperationStep).where(OperationStep.position == 1))
    assert line.startswith("The post office is closed. Trying again at 20")
    assert step is not None
    assert step.finished_at is None


async def test_what_may_pass_is_tried_again(run: Run) -> None:
    history: list[str] = []
    assert await run(Ensure("a", history, errors=[ConnectionLostError("gone"), ConnectionLostError("gone")])) is None
    assert history == ["apply a"] * 3


async def test_it_is_tried_four_times_at_most(run: Run) -> None:
    history: list[str] = []
    failure = await run(Ensure("a", history, errors=[ConnectionLostError("gone") for _ in range(9)]))
    assert failure is not None
    assert failure.code == "connection_lost"
    assert history == ["apply a"] * 4 + ["undo a"]


async def test_an_unexpected_error_is_told_without_its_words(run: Run) -> None:
    failure = await run(Ensure("a", [], errors=[RuntimeError("secret words")]))
    assert failure is not None
    assert failure.code == "internal"
    assert "secret words" not in failure.message


async def test_the_deadline_ends_it(run: Run) -> None:
    failure = await run(Wait(asyncio.Event()), remaining_s=0.05)
    assert failure is not None
    assert failure.code == "operation_timeout"


async def test_a_stoppable_step_is_stopped(run: Run, lease: Lease) -> None:
    started = asyncio.Event()
    history: list[str] = []
    task = asyncio.ensure_future(run(Ensure("a", history), Wait(started)))
    await started.wait()
    lease.cancel_requested.set()
    failure = await task
    assert failure is not None
    assert failure.code == "cancelled"
    assert history == ["apply a", "undo a"]


async def test_a_wish_to_cancel_is_read_between_steps(run: Run, lease: Lease) -> None:
    history: list[str] = []
    lease.cancel_requested.set()
    failure = await run(Ensure("a", history))
    assert failure is not None
    assert failure.code == "cancelled"
    assert "apply a" not in history


@dataclass
class Slow(Ensure):
    """A step whose taking back takes its time."""

    undo_s: ClassVar[float] = 0.2
    takes_s: float = 60

    async def undo(self, host: Host) -> None:
        await super().undo(host)
        await asyncio.sleep(self.takes_s)
        self.history.append(f"undone {self.title}")


@dataclass
class Patient(Slow):
    """One that is given the time."""

    undo_s: ClassVar[float] = 60
    takes_s: float = 0.5


async def test_each_step_has_its_own_time_to_be_taken_back(
    sessions: SessionFactory, run: Run, journal: Journal
) -> None:
    history: list[str] = []
    broken = Ensure("d", history, errors=[StepFailedError("no", code="no")])
    await run(Ensure("a", history), Slow("b", history), Patient("c", history), broken)
    assert history[-5:] == ["undo d", "undo c", "undone c", "undo b", "undo a"]
    assert await states(sessions) == ["undone", "failed", "undone", "failed"]
    assert journal.warnings == ["Take back: b took longer than 0.2 s; something may be left."]


async def test_a_cancel_between_two_steps_takes_back_none_that_was_not_begun(
    sessions: SessionFactory, run: Run, lease: Lease
) -> None:
    history: list[str] = []

    class Cancelled(Ensure):
        async def apply(self, host: Host) -> None:
            await super().apply(host)
            lease.cancel_requested.set()

    failure = await run(Cancelled("a", history), Ensure("b", history))
    assert failure is not None
    assert failure.code == "cancelled"
    assert history == ["apply a", "undo a"]
    assert await states(sessions) == ["undone", "pending"]


async def test_a_lost_lease_stops_without_another_word(
    sessions: SessionFactory, held: Claim, run: Run, journal: Journal
) -> None:
    history: list[str] = []
    async with sessions.begin() as session:
        await operations.give_back(session, held)
    async with sessions.begin() as session:
        assert await operations.claim(session, held.operation_id, "another", 30)
    with pytest.raises(LeaseLostError):
        await run(Ensure("a", history))
    assert history == []
    async with sessions() as session:
        assert list(await session.scalars(select(OperationLine.text))) == []
