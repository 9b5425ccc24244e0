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
from alfa_cloud.playbooks.steps.rollout import RollOut
from alfa_cloud.playbooks.steps.server import CheckPlace
from alfa_cloud.playbooks.steps.web import EnsureCertificate, EnsurePage, EnsureVirtualHost, WaitAnswering
from alfa_cloud.playbooks.switch_client import Web, roll_out
from alfa_cloud.remote import compose
from alfa_cloud.specs import ClientSecrets, ClientSpec, CloudSettings, Tls


def create_client(
    spec: ClientSpec,
    secrets: ClientSecrets,
    settings: CloudSettings,
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
        EnsureContainer(spec, compose.label_of(spec, secrets)),
        WaitHealthy(spec),
        Migrate(spec),
        *([SetOwner(spec, secrets.owner_password)] if secrets.owner_password else []),
        EnsureCloudSettings(spec, secrets.database_password, settings),
        *web_steps(spec, certbot_email, certbot_server),
    ]
    return Playbook(steps)


def web_steps(spec: ClientSpec, certbot_email: str, certbot_server: str) -> list[Step]:
    """The page where one stands for the client, its virtual host, its certificate, and the look from outside."""
    secure: list[Step] = []
    if spec.tls is Tls.CERTBOT:
        secure = [EnsureCertificate(spec, certbot_email, certbot_server), EnsureVirtualHost(spec)]
    page = [EnsurePage(spec)] if spec.page else []
    return [*page, EnsureVirtualHost(spec), *secure, WaitAnswering(spec)]


def update_client(
    rollout: RollOut,
    old: CloudSettings,
    new: CloudSettings,
    *,
    certbot_email: str,
    certbot_server: str,
    new_owner: bool = False,
) -> Playbook:
    """What was changed of a client is on its server; a new container takes over from the old one where it must."""
    return roll_out(
        rollout,
        old,
        new,
        owner=rollout.secrets.owner_password if new_owner else None,
        web=Web(certbot_email, certbot_server),
    )
