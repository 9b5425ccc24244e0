"""A client comes to life."""

from __future__ import annotations

from alfa_cloud.playbooks.playbook import Playbook, Step
from alfa_cloud.playbooks.steps.client import (
    EnsureCloudSettings,
    EnsureComposeFile,
    EnsureContainer,
    EnsureDatabase,
    EnsureFolder,
    Migrate,
    SetOwner,
    WaitHealthy,
)
from alfa_cloud.playbooks.steps.server import CheckOwnership, CheckPlace
from alfa_cloud.playbooks.steps.web import EnsureCertificate, EnsureVirtualHost, WaitAnswering
from alfa_cloud.remote import compose
from alfa_cloud.specs import ClientSecrets, ClientSpec, Tls


def create_client(
    spec: ClientSpec,
    secrets: ClientSecrets,
    settings: tuple[tuple[str, str | None], ...],
    *,
    min_free_bytes: int,
    certbot_email: str,
    certbot_server: str,
) -> Playbook:
    """From nothing to an application that answers under its domain; a failure leaves nothing on the server."""
    steps: list[Step] = [
        CheckPlace(spec, min_free_bytes),
        EnsureFolder(spec),
        EnsureDatabase(spec, secrets.database_password),
        EnsureComposeFile(spec, secrets),
        EnsureContainer(spec, compose.label_of(compose.render(spec, secrets))),
        WaitHealthy(spec),
        Migrate(spec),
        *([SetOwner(spec, secrets.owner_password)] if secrets.owner_password else []),
        EnsureCloudSettings(spec, secrets.database_password, settings),
        *web_steps(spec, certbot_email, certbot_server),
    ]
    return Playbook(steps)


def web_steps(spec: ClientSpec, certbot_email: str, certbot_server: str) -> list[Step]:
    """The virtual host, its certificate where there is to be one, and the look from outside."""
    secure: list[Step] = []
    if spec.tls is Tls.CERTBOT:
        secure = [EnsureCertificate(spec, certbot_email, certbot_server), EnsureVirtualHost(spec)]
    return [EnsureVirtualHost(spec), *secure, WaitAnswering(spec)]


def update_client(
    spec: ClientSpec,
    secrets: ClientSecrets,
    settings: tuple[tuple[str, str | None], ...],
    *,
    certbot_email: str,
    certbot_server: str,
    new_owner: bool = False,
) -> Playbook:
    """What was changed of a client is on its server; a failed step leaves the earlier ones, and can be retried."""
    steps: list[Step] = [
        CheckOwnership(spec),
        EnsureComposeFile(spec, secrets),
        EnsureContainer(spec, compose.label_of(compose.render(spec, secrets))),
        WaitHealthy(spec),
        *([SetOwner(spec, secrets.owner_password)] if new_owner and secrets.owner_password else []),
        EnsureCloudSettings(spec, secrets.database_password, settings),
        *web_steps(spec, certbot_email, certbot_server),
    ]
    return Playbook(steps, undo_on_failure=False)
