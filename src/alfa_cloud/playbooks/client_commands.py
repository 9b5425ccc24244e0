"""Short commands on a client that is alive."""

from __future__ import annotations

from collections.abc import Sequence

from alfa_cloud.playbooks.playbook import Playbook, Step
from alfa_cloud.playbooks.steps.client import (
    EnsureAnyContainer,
    EnsureCloudSettings,
    RestartContainer,
    SetOwner,
    TryCloudSettings,
    WaitHealthy,
)
from alfa_cloud.playbooks.steps.server import CheckOwnership
from alfa_cloud.playbooks.steps.web import EnsurePage, EnsureVirtualHost, RemovePage, WaitAnswering
from alfa_cloud.specs import ClientSecrets, ClientSpec, CloudSettings, Secret


def reboot_client(spec: ClientSpec) -> Playbook:
    """The client's container was started anew as it is, and answers."""
    return Playbook(
        [
            CheckOwnership(spec),
            EnsureAnyContainer(spec),
            RestartContainer(spec),
            WaitHealthy(spec),
            WaitAnswering(spec),
        ],
        undo_on_failure=False,
    )


def change_page(
    before: ClientSpec,
    after: ClientSpec,
    secrets: ClientSecrets,
    old: CloudSettings,
    new: CloudSettings,
    *,
    first: Sequence[Step] = (),
) -> Playbook:
    """nginx shows the page that stands for the client, or the client itself, and the client's database says so.

    The client owns that database, and has no say in whether it is blocked.

    Args:
        before: the client as it is served now; a failed step brings that back.
        old: what the client's database says now.
        first: what goes before.
    """
    steps: list[Step] = [*first, CheckOwnership(after)]
    if after.page:
        steps.append(EnsurePage(after, before))
    settings = EnsureCloudSettings(after, secrets.database_password, new, before=old)
    steps += [EnsureVirtualHost(after, before), TryCloudSettings(settings)]
    if after.page:
        return Playbook(steps)
    return Playbook([*steps, RemovePage(after)], no_return=len(steps))


def set_owner_password(spec: ClientSpec, password: Secret) -> Playbook:
    """The laboratory's administrator logs in with this password."""
    return Playbook([CheckOwnership(spec), WaitHealthy(spec), SetOwner(spec, password)], undo_on_failure=False)
