"""A client that never came to life leaves its server."""

from __future__ import annotations

from dataclasses import dataclass

from alfa_cloud.playbooks.playbook import Playbook, Step
from alfa_cloud.playbooks.steps.client import EnsureContainer, EnsureDatabase, EnsureFolder
from alfa_cloud.playbooks.steps.ownership import Folder, find_container, find_folder, has_tenant, has_vhost, sparing
from alfa_cloud.playbooks.steps.web import EnsureVirtualHost, RemoveCertificates, RemovePage
from alfa_cloud.remote import files, pages
from alfa_cloud.remote.host import Host
from alfa_cloud.specs import ClientSecrets, ClientSpec


@dataclass(frozen=True, slots=True)
class RemoveVirtualHost(Step):
    """nginx does not know the client; a file that is not this client's stays, as everything below does."""

    spec: ClientSpec

    def __str__(self) -> str:
        return f"Remove the virtual host {self.spec.domain}"

    async def is_satisfied(self, host: Host) -> bool:
        async with sparing(host):
            return not await has_vhost(host, self.spec) and await RemovePage(self.spec).is_satisfied(host)
        return True

    async def apply(self, host: Host) -> None:
        await EnsureVirtualHost(self.spec).undo(host)
        await host.run(files.remove_file(pages.client_path(self.spec)))


@dataclass(frozen=True, slots=True)
class RemoveContainer(Step):
    """The client's container is not on the server."""

    spec: ClientSpec

    def __str__(self) -> str:
        return f"Remove the container {self.spec.container}"

    async def is_satisfied(self, host: Host) -> bool:
        async with sparing(host):
            return await find_container(host, self.spec) is None
        return True

    async def apply(self, host: Host) -> None:
        await EnsureContainer(self.spec, "").undo(host)


@dataclass(frozen=True, slots=True)
class RemoveDatabase(Step):
    """The client's database and its user are not on the server."""

    spec: ClientSpec
    secrets: ClientSecrets

    def __str__(self) -> str:
        return f"Remove the database {self.spec.database}"

    async def is_satisfied(self, host: Host) -> bool:
        async with sparing(host):
            return not await has_tenant(host, self.spec)
        return True

    async def apply(self, host: Host) -> None:
        await EnsureDatabase(self.spec, self.secrets.database_password).undo(host)


@dataclass(frozen=True, slots=True)
class RemoveFolder(Step):
    """The client's folder is not on the server."""

    spec: ClientSpec

    def __str__(self) -> str:
        return f"Remove the folder {self.spec.directory}"

    async def is_satisfied(self, host: Host) -> bool:
        async with sparing(host):
            return await find_folder(host, self.spec) is Folder.ABSENT
        return True

    async def apply(self, host: Host) -> None:
        await EnsureFolder(self.spec).undo(host)


def removal(spec: ClientSpec, secrets: ClientSecrets) -> list[Step]:
    """Nothing of the client is on the server any more, but for its archive; what is not this client's stays."""
    return [RemoveVirtualHost(spec), RemoveCertificates(spec), *_data_removal(spec, secrets)]


def _data_removal(spec: ClientSpec, secrets: ClientSecrets) -> list[Step]:
    other = spec.beside(spec.image)
    return [RemoveContainer(spec), RemoveContainer(other), RemoveDatabase(spec, secrets), RemoveFolder(spec)]


def delete_unborn_client(spec: ClientSpec, secrets: ClientSecrets) -> Playbook:
    """Whatever a failed creation may have left is gone from the server; what is not this client's stays."""
    return Playbook(removal(spec, secrets), undo_on_failure=False)


def clear_data(spec: ClientSpec, secrets: ClientSecrets) -> Playbook:
    """What a client left on a former server is gone, but for the virtual host that sends its visitors on."""
    return Playbook(_data_removal(spec, secrets), undo_on_failure=False)
