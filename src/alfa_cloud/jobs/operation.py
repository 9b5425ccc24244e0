"""One operation, from its claim to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.broker import Broker
from alfa_cloud.db import DatabaseAwayError, SessionFactory, database_is_away
from alfa_cloud.errors import AlfaCloudError, HostKeyChangedError, LeaseLostError
from alfa_cloud.jobs.failpoint import Failpoint, Phase
from alfa_cloud.jobs.journal import Journal
from alfa_cloud.jobs.lease import Lease
from alfa_cloud.jobs.runner import CANCELLED, Failure, Runner, explain
from alfa_cloud.playbooks.playbook import PUT_OFF, PutOff, name_of
from alfa_cloud.profile import Profile
from alfa_cloud.remote.host import Host
from alfa_cloud.remote.nowhere import Nowhere
from alfa_cloud.remote.output import Masker
from alfa_cloud.remote.session import Begun
from alfa_cloud.services import fleet, operations, outcomes, servers
from alfa_cloud.services import steps as steps_of
from alfa_cloud.services.operations import Claim
from alfa_cloud.services.outcomes import Ended
from alfa_cloud.services.plans.make import make_plan
from alfa_cloud.services.plans.plan import Plan, Site, Tools, Work
from alfa_cloud.specs import OperationState
from alfa_cloud.vault import Vault

log = structlog.get_logger()

RING_AT_ONCE: Final = 20
FIRST_FENCE: Final = 1
"""Of the claim of the first worker that has an operation."""
MAX_ATTEMPTS: Final = 6
"""How often workers try an operation that ends in an unexpected error each time."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The engine's settings; seconds, lines and bytes."""

    lease_s: float = 30
    heartbeat_s: float = 10
    retry_delays_s: tuple[float, ...] = (1, 5, 25)
    log_lines: int = 100_000
    log_bytes: int = 10_000_000
    failpoint: Failpoint | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One worker's work on one operation: what all its hosts share."""

    claim: Claim
    lease: Lease
    journal: Journal
    masker: Masker
    begun: Begun


@dataclass(frozen=True, slots=True)
class Engine:
    """What running operations takes.

    Args:
        open_host: a host on a site; the attempt's journal gets its lines, and its lease is asked before each command.
        probe: asks a client whether it answers, and writes that down.
    """

    worker: str
    sessions: SessionFactory
    broker: Broker
    vault: Vault
    profile: Profile
    limits: Limits
    open_host: Callable[[Site, Attempt], Host]
    probe: Callable[[int], Awaitable[None]]


async def run_operation(engine: Engine, operation_id: UUID, claimed: asyncio.Event | None = None) -> None:
    """Claim an operation and bring it to its end; nothing where it is finished, held, or others go first.

    Args:
        claimed: set as soon as this worker has it.
    """
    async with engine.sessions.begin() as session:
        claim = await operations.claim(session, operation_id, engine.worker, engine.limits.lease_s)
    if claim is None:
        await advance_fleet(engine, operation_id)
        return
    if claimed is not None:
        claimed.set()
    with structlog.contextvars.bound_contextvars(operation_id=str(operation_id), request_id=claim.request_id):
        log.info("operation_claimed", kind=claim.kind, attempt=claim.attempt)
        if claim.parent_id is not None:
            await advance_fleet(engine, claim.parent_id)
        await _hold(engine, claim)
        if claim.parent_id is not None:
            await advance_fleet(engine, claim.parent_id)
        await ring_due(engine)


async def advance_fleet(engine: Engine, operation_id: UUID) -> None:
    """The fleet command that an operation is, or is a part of, goes on; the reconciler does it where this fails."""
    try:
        async with asyncio.timeout(engine.limits.heartbeat_s), engine.sessions.begin() as session:
            parent_id = await fleet.parent_of(session, operation_id)
            if parent_id is None:
                return
            await fleet.advance(session, parent_id)
    except Exception as error:
        away = database_is_away(error)
        log.warning("fleet_not_advanced", operation_id=str(operation_id), error=repr(error), exc_info=not away)
        return
    await ring_due(engine)


async def ring_due(engine: Engine) -> None:
    """Ring for what may start now: on this server, or on another that waited for a slot of this worker."""
    async with engine.sessions() as session:
        due = await operations.due(session, limit=RING_AT_ONCE)
    for operation_id, attempt in due:
        await engine.broker.wake(operation_id, attempt)


async def _hold(engine: Engine, claim: Claim) -> None:
    """Work on a claimed operation while its lease is kept; give the lease back where this worker stops."""
    limits = engine.limits
    lease = Lease(engine.sessions, claim, lease_s=limits.lease_s, heartbeat_s=limits.heartbeat_s)
    keeper = asyncio.create_task(lease.keep(), name=f"lease {claim.operation_id}")
    work = asyncio.create_task(_work(engine, claim, lease), name=f"operation {claim.operation_id}")
    try:
        await asyncio.wait({keeper, work}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
        else:
            keeper.result()
    except LeaseLostError:
        log.warning("operation_taken_over", attempt=claim.attempt)
    except PutOff as later:
        log.info("operation_put_off", after_s=later.after_s)
        await _end(work, keeper)
        await asyncio.shield(_give_back(engine, claim, later.after_s))
    except asyncio.CancelledError:
        await _end(work, keeper)
        await asyncio.shield(_give_back(engine, claim))
        raise
    except Exception as error:
        await _end(work, keeper)
        await _interrupted(engine, claim, error)
    finally:
        await _end(work, keeper)


async def _interrupted(engine: Engine, claim: Claim, error: Exception) -> None:
    """Let another worker try, later each time; an operation that no worker can finish ends as an error."""
    if database_is_away(error):
        log.warning("operation_interrupted", error=repr(error))
        await _give_back(engine, claim)
        return
    log.exception("operation_interrupted", exc_info=error)
    attempt = _attempt(claim)
    if attempt < MAX_ATTEMPTS and claim.remaining_s > 0:
        await _give_back(engine, claim, after_s=float(2**attempt))
        return
    async with engine.sessions.begin() as session:
        await _terminal(engine, claim, explain(error, None), claim.result)(session)


def _attempt(claim: Claim) -> int:
    """How many workers have tried it, but for those that put it off."""
    return claim.attempt - int(claim.result.get(PUT_OFF, 0))


async def _end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _give_back(engine: Engine, claim: Claim, after_s: float = -1) -> None:
    try:
        async with asyncio.timeout(5), engine.sessions.begin() as session:
            await operations.give_back(session, claim, after_s)
    except Exception as error:
        if not database_is_away(error):
            raise
        log.warning("lease_not_given_back", error=repr(error))


async def _work(engine: Engine, claim: Claim, lease: Lease) -> None:
    limits = engine.limits
    journal = Journal(engine.sessions, claim, max_lines=limits.log_lines, max_bytes=limits.log_bytes)
    async with journal:
        if _attempt(claim) > 1:
            await journal.note(f"Another worker goes on with this operation (attempt {claim.attempt}).")
        masker = Masker()
        attempt = Attempt(claim, lease, journal, masker, Begun(first=claim.fence == FIRST_FENCE))

        def open_host(site: Site) -> Host:
            return engine.open_host(site, attempt)

        plan = await _plan(engine, claim, journal, open_host)
        if isinstance(plan, Failure):
            failure: Failure | None = plan
        else:
            masker.add(*plan.secrets)
            host = Nowhere(journal, masker) if plan.site is None else open_host(plan.site)
            failure = await _run(engine, attempt, plan, host)
        if failure is not None and claim.client_id is not None:
            await engine.probe(claim.client_id)
        await journal.close(_terminal(engine, claim, failure, journal.facts))
    log.info("operation_finished", kind=claim.kind, failure=None if failure is None else failure.as_dict())


def _terminal(
    engine: Engine, claim: Claim, failure: Failure | None, facts: dict[str, Any]
) -> Callable[[AsyncSession], Awaitable[None]]:
    """What writes the operation's end, and what it means for its subject."""
    state = OperationState.OK
    if failure is not None:
        state = OperationState.CANCELLED if failure.code == CANCELLED else OperationState.ERROR
    ended = Ended(
        claim.kind,
        state,
        claim.operation_id,
        claim.client_id,
        claim.server_id,
        params=claim.params,
        result=facts,
        secrets=operations.open_secrets(claim.secrets, claim.operation_id, engine.vault),
        vault=engine.vault,
        mail=engine.profile.mail,
        keeping=engine.profile.keeping,
        error_code="" if failure is None else failure.code,
    )

    async def record(session: AsyncSession) -> None:
        await outcomes.apply(session, ended)
        await operations.finish(session, claim, state, error=None if failure is None else failure.as_dict())

    return record


async def _plan(engine: Engine, claim: Claim, journal: Journal, open_host: Callable[[Site], Host]) -> Plan | Failure:
    tools = Tools(engine.sessions, engine.vault, engine.profile, open_host, lambda change: _keep(engine, claim, change))
    try:
        async with engine.sessions() as session:
            return await make_plan(session, Work.of(claim, engine.vault), tools)
    except Exception as error:
        if database_is_away(error):
            raise
        if not isinstance(error, AlfaCloudError):
            log.exception("plan_failed_unexpectedly")
        failure = explain(error, None)
        await journal.note(failure.message)
        return failure


async def _keep(engine: Engine, claim: Claim, change: Callable[[AsyncSession], Awaitable[None]]) -> None:
    """A playbook's change of rows; only while this worker holds the operation."""
    try:
        async with engine.sessions.begin() as session:
            await operations.write(session, claim, worker=engine.worker)
            await change(session)
    except Exception as error:
        if database_is_away(error):
            raise DatabaseAwayError from error
        raise


async def _run(engine: Engine, attempt: Attempt, plan: Plan, host: Host) -> Failure | None:
    claim, steps = attempt.claim, plan.playbook.steps
    async with engine.sessions.begin() as session:
        touched = await steps_of.last_touched(session, claim)
        await steps_of.plan_steps(session, claim, [(name_of(step), str(step)) for step in steps])
    runner = Runner(
        plan.playbook,
        host,
        attempt.journal,
        attempt.lease,
        retry_delays_s=engine.limits.retry_delays_s,
        record_failure=lambda failure: _record_failure(engine, claim, failure),
        touched=min(touched, len(steps) - 1),
        reach=lambda step, phase: _reach(engine.limits.failpoint, f"{claim.kind}.{name_of(step)}", phase),
    )
    if claim.error is not None:
        await runner.undo(claim.error["step"])
        return Failure(claim.error["code"], claim.error["message"], claim.error["step"])
    return await runner.run(claim.remaining_s)


def _reach(failpoint: Failpoint | None, place: str, phase: Phase) -> None:
    if failpoint is not None:
        failpoint.reach(place, phase)


async def _record_failure(engine: Engine, claim: Claim, failure: Failure) -> None:
    async with engine.sessions.begin() as session:
        await operations.write(session, claim, error=failure.as_dict())
        if failure.code == HostKeyChangedError.code and failure.server_id is not None:
            await servers.shut_off(session, failure.server_id)
