"""The journal: order, checkpoints, caps, and the fence."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.db import SessionFactory
from alfa_cloud.errors import LeaseLostError
from alfa_cloud.jobs.journal import TAIL_LINES, Journal
from alfa_cloud.models import Operation, OperationLine
from alfa_cloud.services import operations
from alfa_cloud.services.operations import Claim
from alfa_cloud.specs import OperationState, StepState, Stream
from tests.jobs.conftest import claim_again


async def stored(sessions: SessionFactory, held: Claim) -> list[tuple[int, str, str]]:
    """The lines as readers see them."""
    async with sessions() as session:
        rows = await session.execute(
            select(OperationLine.seq, OperationLine.stream, OperationLine.text)
            .where(OperationLine.operation_id == held.operation_id)
            .order_by(OperationLine.seq)
        )
        return [(row.seq, row.stream, row.text) for row in rows]


async def finish(session: AsyncSession, held: Claim) -> None:
    await operations.finish(session, held, OperationState.OK)


async def test_lines_have_numbers_without_a_gap(sessions: SessionFactory, held: Claim, journal: Journal) -> None:
    await journal.note("first")
    await journal.lines(Stream.STDOUT, [f"line {n}" for n in range(300)])
    await journal.flush()
    await journal.note("last")
    await journal.close(lambda session: finish(session, held))
    lines = await stored(sessions, held)
    assert [seq for seq, _, _ in lines] == list(range(1, 303))
    assert lines[0][2] == "first"
    assert lines[-1][2] == "last"


async def test_the_end_is_written_with_the_last_lines(sessions: SessionFactory, held: Claim, journal: Journal) -> None:
    await journal.note("the end")
    await journal.close(lambda session: finish(session, held))
    async with sessions() as session:
        operation = await session.get_one(Operation, held.operation_id)
    assert (operation.state, operation.last_seq) == (OperationState.OK, 1)


async def test_a_checkpoint_is_stored_with_its_lines(sessions: SessionFactory, held: Claim, journal: Journal) -> None:
    await journal.lines(Stream.STDOUT, ["one", "two"], ("migrate", 8))
    async with sessions() as session:
        assert (await session.get_one(Operation, held.operation_id)).checkpoints == {}
    await journal.flush()
    async with sessions() as session:
        assert (await session.get_one(Operation, held.operation_id)).checkpoints == {"migrate": 8}
    assert journal.checkpoint("migrate") == 8
    assert journal.checkpoint("other") == 0


async def test_the_head_and_the_end_of_a_long_log_are_kept(
    sessions: SessionFactory, held: Claim, journal: Journal
) -> None:
    for start in range(0, 5_000, 100):
        await journal.lines(Stream.STDOUT, [f"line {n}" for n in range(start, start + 100)], ("flood", start))
    await journal.close(lambda session: finish(session, held))
    lines = await stored(sessions, held)
    texts = [text for _, _, text in lines]
    assert texts[0] == "line 0"
    assert texts[-1] == "line 4999"
    assert len(lines) <= 1_010
    told = sum(int(text.split()[0]) for text in texts if "were left out here" in text)
    printed = len([text for text in texts if text.startswith("line ")])
    assert told + printed == 5_000
    assert [seq for seq, _, _ in lines] == list(range(1, len(lines) + 1))


async def test_the_byte_cap_holds(sessions: SessionFactory, held: Claim, journal: Journal) -> None:
    for _ in range(300):
        await journal.lines(Stream.STDOUT, ["x" * 8_000])
    await journal.close(lambda session: finish(session, held))
    async with sessions() as session:
        size = await session.scalar(select(func.sum(func.length(OperationLine.text))))
    assert size is not None
    assert size <= 410_000


async def test_the_tail_is_never_larger_than_promised(sessions: SessionFactory, held: Claim, journal: Journal) -> None:
    await journal.lines(Stream.STDOUT, [str(n) for n in range(100_000)])
    await journal.lines(Stream.STDOUT, [str(n) for n in range(100_000)])
    assert len(journal._tail.lines) == TAIL_LINES


async def test_a_replaced_worker_writes_nothing(sessions: SessionFactory, held: Claim) -> None:
    async with Journal(sessions, held, max_lines=1_000, max_bytes=400_000) as old:
        await old.note("mine")
        await old.flush()
        async with sessions.begin() as session:
            await operations.give_back(session, held)
        successor = await claim_again(sessions, held.operation_id)
        await old.note("not any more")
        with pytest.raises(LeaseLostError):
            await old.flush()
        with pytest.raises(LeaseLostError):
            await old.step(0, StepState.RUNNING, "A step", 0.0)
    assert [text for _, _, text in await stored(sessions, held)] == ["mine"]
    async with Journal(sessions, successor, max_lines=1_000, max_bytes=400_000) as new:
        await new.note("after")
        await new.flush()
    assert [(seq, text) for seq, _, text in await stored(sessions, held)] == [(1, "mine"), (2, "after")]
