"""Fixtures of the sandbox's own tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncssh
import pytest

from alfa_cloud.sandbox.practice import PracticeServer
from tests.fixtures.practice import calm_practice, practice, practice_key
from tests.sandbox.shell import Shell, connect

__all__ = ["calm_practice", "practice", "practice_key", "shell"]


@pytest.fixture
async def shell(calm_practice: PracticeServer, practice_key: asyncssh.SSHKey) -> AsyncIterator[Shell]:
    """A connection to the calm practice server."""
    async with connect(calm_practice, practice_key) as opened:
        yield opened
