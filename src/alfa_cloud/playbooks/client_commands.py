"""Short commands on a client that is alive."""

from __future__ import annotations

from alfa_cloud.playbooks.playbook import Playbook, Step
from alfa_cloud.playbooks.steps.client import (
    EnsureCloudSettings,
    EnsureContainer,
    RestartContainer,
    SetOwner,
    WaitHealthy,
)
from alfa_cloud.playbooks.steps.server import CheckOwnership
from alfa_cloud.playbooks.steps.web import EnsurePage, EnsureVirtualHost, RemovePage, WaitAnswering
from alfa_cloud.remote import compose
from alfa_cloud.specs import ClientSecrets, ClientSpec, CloudSettings, Secret


def reboot_client(spec: ClientSpec, secrets: ClientSecrets) -> Playbook:
    """The client's container was started anew, and answers."""
    return Playbook(
        [
            CheckOwnership(spec),
            EnsureContainer(spec, compose.label_of(spec, secrets)),
            RestartContainer(spec),
            WaitHealthy(spec),
            WaitAnswering(spec),
        ],
        undo_on_failure=False,
    )


def change_page(
    before: ClientSpec, after: ClientSpec, secrets: ClientSecrets, old: CloudSettings, new: CloudSettings
) -> Playbook:
    """nginx shows the page that stands for the client, or the client itself, and the client's database says so.

    Args:
        before: the client as it is served now; a failed step brings that back.
        old: what the client's database says now.
    """
    steps: list[Step] = [CheckOwnership(after)]
    if after.page:
        steps.append(EnsurePage(after, before))
    steps += [
        EnsureVirtualHost(after, before),
        EnsureCloudSettings(after, secrets.database_password, new, before=old),
    ]
    if not after.page:
        steps.append(RemovePage(after))
    return Playbook(steps)


def set_owner_password(spec: ClientSpec, password: Secret) -> Playbook:
    """The laboratory's administrator logs in with this password."""
    return Playbook([CheckOwnership(spec), WaitHealthy(spec), SetOwner(spec, password)], undo_on_failure=False)
