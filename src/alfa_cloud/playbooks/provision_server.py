"""A bare Debian or Ubuntu becomes a server for clients."""

from __future__ import annotations

from alfa_cloud.playbooks.playbook import Playbook, Step
from alfa_cloud.playbooks.prepare_server import arrangements
from alfa_cloud.playbooks.steps.provision import (
    CheckLogin,
    EnsureHome,
    EnsureKeysProtected,
    EnsurePackages,
    EnsureServices,
)
from alfa_cloud.playbooks.steps.server import CheckRequirements, EnsureRoot
from alfa_cloud.specs import DatabaseEngine, Layout, Tls


def provision_server(layout: Layout, engine: DatabaseEngine, tls: Tls, min_free_bytes: int) -> Playbook:
    """Packages, services, and all that preparing a server brings; what is there already is left as it is."""
    steps: list[Step] = [
        CheckLogin(),
        EnsureHome(),
        EnsureRoot(layout),
        EnsurePackages(engine, tls),
        EnsureServices(engine),
        EnsureKeysProtected(),
        *arrangements(layout, engine)[1:],
        CheckRequirements(engine, tls, min_free_bytes),
    ]
    return Playbook(steps, undo_on_failure=False)
