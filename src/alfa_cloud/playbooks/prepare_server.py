"""What is the product's own on a server is there, and mended where it was changed."""

from __future__ import annotations

from alfa_cloud.playbooks.playbook import Playbook, Step
from alfa_cloud.playbooks.steps.server import (
    CheckNginxGood,
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


def prepare_server(layout: Layout, engine: DatabaseEngine, tls: Tls) -> Playbook:
    """Folders, pages, the containers' network, and the way from there to the database."""
    database: Step = (
        EnsureMariadbReachable(layout) if engine is DatabaseEngine.MARIADB else EnsurePostgresqlReachable(layout)
    )
    steps: list[Step] = [
        CheckRequirements(engine, tls),
        EnsureRoot(layout),
        EnsurePages(layout),
        EnsureNetwork(layout),
        *([] if layout.database_host == LOOPBACK else [EnsureNonlocalBind()]),
        database,
        CheckNginxGood(),
    ]
    return Playbook(steps, undo_on_failure=False)
