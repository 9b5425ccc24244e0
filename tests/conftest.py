"""Fixtures of the whole suite: real stores, a database for each test."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from xdist.scheduler import LoadScopeScheduling

from alfa_cloud import schema
from alfa_cloud.db import SessionFactory, make_session_factory
from alfa_cloud.sandbox.stores import EmbeddedPostgres, EmbeddedRedis
from alfa_cloud.vault import Vault, new_key

# The same examples each time, so that a run says something of the change and not of chance; no time limits.
settings.register_profile("suite", derandomize=True, deadline=None)
settings.load_profile("suite")

pytest_plugins = [f"tests.fixtures.{name}" for name in ("stores", "seeds", "practice", "cloud")]

NUMBERS = count(1)
LONGEST_FIRST = ("lab", "commands", "faults", "playbooks", "sandbox", "remote", "services", "docs", "browser")
LAB_LANES = 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Folders of long modules first, so that the processes of a run end at about the same time.

    The long part stays out but where it is asked for: the lab's by `make lab`, all other by `make faults`.
    """
    tests = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        folder = item.path.relative_to(tests).parts[0]
        return LONGEST_FIRST.index(folder) if folder in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=rank)
    for item in items:
        in_lab = item.path.is_relative_to(tests / "lab")
        name, target = ("ALFA_LAB", "make lab") if in_lab else ("ALFA_FAULTS", "make faults")
        if item.get_closest_marker("full") and os.environ.get(name) != "full":
            item.add_marker(pytest.mark.skip(reason=f"left to `{target}`"))


class Lanes(LoadScopeScheduling):  # type: ignore[misc]
    """A module's tests run in one process, and the lab's in no more than two: each of those has hosts of its own."""

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        super().__init__(config, log)
        self.lanes: dict[str, str] = {}

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        if not module.startswith("tests/lab/"):
            return module
        return self.lanes.setdefault(module, f"lab {len(self.lanes) % LAB_LANES}")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Lanes:
    """What shares a run out among its processes."""
    return Lanes(config, log)


@pytest.fixture(scope="session")
def template(postgres: EmbeddedPostgres) -> str:
    """The name of a database that the migrations built; each test gets a copy."""
    postgres.create_database("template_alfa")
    schema.upgrade(postgres.url_for("template_alfa"))
    return "template_alfa"


@pytest.fixture
def database_url(postgres: EmbeddedPostgres, template: str) -> Iterator[str]:
    """The address of a database of this test's own."""
    name = f"test_{next(NUMBERS)}"
    postgres.create_database(name, template=template)
    yield postgres.url_for(name)
    postgres.drop_database(name)


@pytest.fixture
def redis_url(redis_store: EmbeddedRedis) -> str:
    """The address of an empty Redis."""
    redis_store.flush()
    return redis_store.url


@pytest.fixture
async def sessions(database_url: str) -> AsyncIterator[SessionFactory]:
    """Sessions of this test's database."""
    engine = create_async_engine(database_url, poolclass=NullPool)
    yield make_session_factory(engine)
    await engine.dispose()


@pytest.fixture(scope="session")
def secret_key() -> str:
    """The key that this run's secrets are sealed with."""
    return new_key()


@pytest.fixture(scope="session")
def vault(secret_key: str) -> Vault:
    """A vault of this run."""
    return Vault([secret_key])
