"""What is the product's own on a server is there, and mended where it was changed."""

from __future__ import annotations

from alfa_cloud.playbooks.playbook import Playbook, Step
from alfa_cloud.playbooks.steps.server import (
    CheckNginxGood,
    CheckPrograms,
    CheckRequirements,
    EnsureMariadbReachable,
    EnsureNetwork,
    EnsureNonlocalBind,
    EnsurePages,
    EnsurePostgresqlReachable,
    EnsureRoot,
)
from alfa_cloud.specs import DatabaseEngine, Layout, Tls

LOOPBACK = "127.0.0.1"


def prepare_server(layout: Layout, engine: DatabaseEngine, tls: Tls, min_free_bytes: int = 0) -> Playbook:
    """Folders, pages, the containers' network, and the way from there to the database."""
    steps: list[Step] = [
        CheckPrograms(engine, tls),
        *arrangements(layout, engine),
        CheckRequirements(engine, tls, min_free_bytes),
    ]
    return Playbook(steps, undo_on_failure=False)


def arrangements(layout: Layout, engine: DatabaseEngine) -> list[Step]:
    """What clients need on a server that has every program."""
    database: Step = (
        EnsureMariadbReachable(layout) if engine is DatabaseEngine.MARIADB else EnsurePostgresqlReachable(layout)
    )
    return [
        EnsureRoot(layout),
        EnsurePages(layout),
        EnsureNetwork(layout),
        *([] if layout.database_host == LOOPBACK else [EnsureNonlocalBind()]),
        database,
        CheckNginxGood(),
    ]
