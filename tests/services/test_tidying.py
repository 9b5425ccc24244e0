"""What operations long past left on a server is gone, and nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path
from uuid import uuid4

import pytest

from alfa_cloud.db import SessionFactory
from alfa_cloud.jobs.tidying import sweep_servers
from alfa_cloud.remote import detached
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.sandbox.practice import PracticeServer
from tests.factories import make_operation, make_server
from tests.services.test_samples import pool, register
from tests.system import free_port

__all__ = ["pool"]

DAY_S = 86_400


def folder(practice: PracticeServer, name: str, days: float) -> Path:
    """An operation's folder, in which a command began so many days ago."""
    path = Path(practice.layout.operation_dir(name))
    (path / "step").mkdir(parents=True)
    (path / "step" / "output").touch()
    moment = time.time() - days * DAY_S
    os.utime(path, (moment, moment))
    return path


async def test_what_is_old_goes_and_what_is_not_ended_stays(
    sessions: SessionFactory, practice: PracticeServer, pool: SshPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that cannot be reached holds up no other, and a sweep is no longer than it may be."""
    monkeypatch.setattr(detached, "SWEPT_AT_ONCE", 2)
    server_id = await register(sessions, practice)
    async with sessions.begin() as session:
        await make_server(session, host="127.0.0.1", port=free_port())
        running = await make_operation(session, server_id=server_id)
    old = [folder(practice, str(uuid4()), 100) for _ in range(3)]
    stays = [folder(practice, str(running.id), 100), folder(practice, str(uuid4()), 80), folder(practice, "other", 100)]
    await sweep_servers(sessions, pool, 90)
    assert len([path for path in old if path.exists()]) == 1
    await sweep_servers(sessions, pool, 90)
    assert not [path for path in old if path.exists()]
    assert all((path / "step" / "output").exists() for path in stays)


async def test_a_server_without_operations_is_left_alone(
    sessions: SessionFactory, practice: PracticeServer, pool: SshPool
) -> None:
    await register(sessions, practice, layout={"root": f"{practice.layout.root}/nothing-here"})
    await sweep_servers(sessions, pool, 90)
