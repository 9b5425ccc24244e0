"""Demo data of the clients' application: its own seeders, as the app profile says."""

from __future__ import annotations

from alfa_cloud.remote import docker
from alfa_cloud.remote.command import Command
from alfa_cloud.specs import ClientSpec


def seed(spec: ClientSpec) -> Command:
    """The demo data is in the client's database; started once in an operation."""
    return docker.execute(spec.container, spec.app.demo, timeout_s=spec.app.demo_deadline_s, detached="demo")


def take_away(spec: ClientSpec) -> Command:
    """It is not there any more; started once in an operation."""
    argv, deadline_s = spec.app.demo_inverse, spec.app.demo_deadline_s
    return docker.execute(spec.container, argv, timeout_s=deadline_s, detached="demo-inverse")
