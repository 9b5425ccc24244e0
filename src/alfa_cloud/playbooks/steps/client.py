"""Steps that bring a client to life on its server."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import ClassVar

from alfa_cloud.errors import CommandFailedError, CommandTimeoutError, StepFailedError
from alfa_cloud.playbooks.playbook import Step
from alfa_cloud.playbooks.steps.ownership import (
    Folder,
    find_container,
    find_folder,
    find_mariadb_tenant,
    find_postgresql_tenant,
    has_tenant,
    sparing,
)
from alfa_cloud.remote import app, compose, docker, files, mariadb, postgresql
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.follow import TIMED_OUT
from alfa_cloud.remote.host import Host
from alfa_cloud.remote.output import plain_text
from alfa_cloud.specs import ClientSecrets, ClientSpec, CloudSettings, DatabaseEngine, Secret

POLL_S = 0.3
LOG_TAIL_LINES = 30
BY_SIGNAL = 128
"""Exit statuses from here on are signals'."""


@dataclass(frozen=True, slots=True)
class EnsureFolder(Step):
    """The client's folder is there and bears its mark."""

    undo_s: ClassVar[float] = 900
    spec: ClientSpec

    def __str__(self) -> str:
        return f"Folder {self.spec.directory}"

    async def is_satisfied(self, host: Host) -> bool:
        if await find_folder(host, self.spec) is not Folder.MARKED:
            return False
        return (await host.run(files.test_path(f"{self.spec.directory}/storage"), check=False)).ok

    async def apply(self, host: Host) -> None:
        directory = self.spec.directory
        await host.run(files.ensure_folder(directory, mode="0750"))
        await host.run(files.write_file(f"{directory}/{files.MARK}", self.spec.uid.encode(), mode="0600"))
        await host.run(files.ensure_folder(f"{directory}/storage", mode="0750"))

    async def undo(self, host: Host) -> None:
        async with sparing(host):
            if await find_folder(host, self.spec) is not Folder.ABSENT:
                root = f"{self.spec.layout.root}/clients"
                await host.run(files.remove_client_folder(root, self.spec.directory, self.spec.uid))


@dataclass(frozen=True, slots=True)
class EnsureComposeFile(Step):
    """The client's compose file says what its container is; only root can read it, for it holds its passwords."""

    spec: ClientSpec
    secrets: ClientSecrets = field(repr=False)

    def __str__(self) -> str:
        return "Configuration of the container"

    @property
    def path(self) -> str:
        """Where it lies."""
        return compose.path(self.spec)

    async def is_satisfied(self, host: Host) -> bool:
        return await files.holds(host, self.path, compose.render(self.spec, self.secrets))

    async def apply(self, host: Host) -> None:
        await host.run(files.write_file(self.path, compose.render(self.spec, self.secrets), mode="0600", keep=True))


@dataclass(frozen=True, slots=True)
class EnsureDatabase(Step):
    """The client's database and its user are there, with its password."""

    spec: ClientSpec
    password: Secret = field(repr=False)

    def __str__(self) -> str:
        return f"Database {self.spec.database}"

    async def is_satisfied(self, host: Host) -> bool:
        if self.spec.engine is DatabaseEngine.MARIADB:
            return (await find_mariadb_tenant(host, self.spec)).holds(self.password)
        found = await find_postgresql_tenant(host, self.spec)
        whole = found.owner == self.spec.database_user and found.open is False
        return whole and postgresql.verifies(found.password, self.password)

    async def apply(self, host: Host) -> None:
        create = mariadb.create_tenant if self.spec.engine is DatabaseEngine.MARIADB else postgresql.create_tenant
        await host.run(create(self.spec, self.password))

    async def undo(self, host: Host) -> None:
        drop = mariadb.drop_tenant if self.spec.engine is DatabaseEngine.MARIADB else postgresql.drop_tenant
        async with sparing(host):
            if await has_tenant(host, self.spec):
                await host.run(drop(self.spec))


@dataclass(frozen=True, slots=True)
class EnsureContainer(Step):
    """The client's container runs as its compose file says."""

    spec: ClientSpec
    label: str
    """The fingerprint of that file."""

    def __str__(self) -> str:
        return f"Container {self.spec.container} from {self.spec.image}"

    async def is_satisfied(self, host: Host) -> bool:
        found = await find_container(host, self.spec)
        if found is None:
            return False
        return found.labels.get(docker.LABEL_SPEC) == self.label and found.status in ("running", "restarting")

    async def apply(self, host: Host) -> None:
        await find_container(host, self.spec)
        await host.run(compose.up(self.spec))

    async def undo(self, host: Host) -> None:
        async with sparing(host):
            if await find_container(host, self.spec) is not None:
                await host.run(docker.remove_container(self.spec.container))


@dataclass(frozen=True, slots=True)
class EnsureAnyContainer(Step):
    """The client has a container: the one that is there, whatever it was made from, else one from its compose file."""

    spec: ClientSpec

    def __str__(self) -> str:
        return f"Container {self.spec.container}"

    async def is_satisfied(self, host: Host) -> bool:
        return await find_container(host, self.spec) is not None

    async def apply(self, host: Host) -> None:
        await host.run(compose.up(self.spec))


@dataclass(frozen=True, slots=True)
class RestartContainer(Step):
    """The client's container was started anew in this operation."""

    spec: ClientSpec

    def __str__(self) -> str:
        return f"Restart the container {self.spec.container}"

    async def is_satisfied(self, host: Host) -> bool:
        return await ended_well(host, docker.restart_container(self.spec.container))

    async def apply(self, host: Host) -> None:
        await host.run(docker.restart_container(self.spec.container))


@dataclass(frozen=True, slots=True)
class WaitHealthy(Step):
    """The application in the container answers its health path with 200."""

    stoppable: ClassVar[bool] = True
    spec: ClientSpec

    def __str__(self) -> str:
        return f"Wait until {self.spec.app.health_path} answers 200"

    async def is_satisfied(self, host: Host) -> bool:
        return await self._status(host, app.HEALTH_S) == "200"

    async def _status(self, host: Host, within_s: float) -> str:
        return (await host.run(app.health(self.spec, within_s=within_s), check=False)).text.strip()

    async def apply(self, host: Host) -> None:
        deadline = time.monotonic() + self.spec.app.health_deadline_s
        left_s = self.spec.app.health_deadline_s
        while (status := await self._status(host, max(1.0, min(app.HEALTH_S, left_s)))) != "200":
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                await self._fail(host, status)
            await asyncio.sleep(POLL_S)

    async def _fail(self, host: Host, status: str) -> None:
        await host.note(f"The container's last {LOG_TAIL_LINES} lines:")
        await host.run(docker.container_logs(self.spec.container, LOG_TAIL_LINES), check=False)
        answer = "no answer" if status in ("", "000") else f"HTTP {status}"
        raise StepFailedError(
            f"{self.spec.app.health_path} did not answer 200 within {self.spec.app.health_deadline_s:g} s ({answer}); "
            "the container's last lines are in the log.",
            code="not_healthy",
        )


async def ended_well(host: Host, command: Command) -> bool:
    """Whether this operation's own detached run of a command has ended with 0; all its output is in the log then."""
    if await host.detached_status(command.detached or "") is None:
        return False
    return (await host.run(command, check=False)).ok


def was_ended(status: int) -> bool:
    """Whether a program with this exit status was ended by somebody: its time limit, or a signal."""
    return status == TIMED_OUT or status >= BY_SIGNAL


async def end_in_container(host: Host, spec: ClientSpec, name: str) -> None:
    """Nothing of this operation's detached command in the client's container runs any more.

    On the server runs no more than Docker's client: what that started lives on in the container where it was ended.
    """
    status = await host.detached_status(name)
    await host.stop_detached(name)
    began = await host.detached_began(name)
    if began and (status is None or was_ended(status)) and await find_container(host, spec) is not None:
        await host.note(f"{name} was ended: the container is started anew, so that nothing of it runs on.")
        await host.run(replace(docker.restart_container(spec.container), detached=None))


@dataclass(frozen=True, slots=True)
class Migrate(Step):
    """The database has the tables of the application's version."""

    spec: ClientSpec

    def __str__(self) -> str:
        return "Migrate the database"

    async def is_satisfied(self, host: Host) -> bool:
        return await ended_well(host, app.migrate(self.spec))

    async def apply(self, host: Host) -> None:
        await host.run(app.migrate(self.spec))

    async def undo(self, host: Host) -> None:
        await end_in_container(host, self.spec, app.MIGRATION)


@dataclass(frozen=True, slots=True)
class SetOwner(Step):
    """The laboratory's administrator can log in."""

    spec: ClientSpec
    password: Secret = field(repr=False)

    def __str__(self) -> str:
        return f"Administrator {self.spec.owner_login}"

    async def is_satisfied(self, host: Host) -> bool:
        return await ended_well(host, app.set_owner_password(self.spec, self.password))

    async def apply(self, host: Host) -> None:
        await host.run(app.set_owner_password(self.spec, self.password))

    async def undo(self, host: Host) -> None:
        await host.stop_detached("owner_password")


@dataclass(frozen=True, slots=True)
class EnsureCloudSettings(Step):
    """`cloud_settings` in the client's database says what this service's row says.

    The client owns that table, and may have put anything in its place: it is read and written with the client's own
    login, so that nothing of it ever runs with more rights than the client has.
    """

    spec: ClientSpec
    password: Secret = field(repr=False)
    values: CloudSettings
    before: CloudSettings | None = None
    """What it said; a failed operation brings that back."""

    def __str__(self) -> str:
        return "Settings in the client's database"

    def _login(self) -> tuple[str, bytes]:
        """The file that the database's program takes the password from, and what it says."""
        if self.spec.engine is DatabaseEngine.MARIADB:
            return mariadb.login_path(self.spec), mariadb.login_file(self.spec, self.password)
        return postgresql.login_path(self.spec), postgresql.login_file(self.spec, self.password)

    async def is_satisfied(self, host: Host) -> bool:
        if not await files.holds(host, *self._login()):
            return False
        engine_is_mariadb = self.spec.engine is DatabaseEngine.MARIADB
        read = mariadb.read_settings if engine_is_mariadb else postgresql.read_settings
        result = await host.run(read(self.spec), check=False)
        logged_in = mariadb.logged_in if engine_is_mariadb else postgresql.logged_in
        if not logged_in(result):
            raise CommandFailedError(
                f"{self.spec.database_user} cannot use its database: {plain_text(result.stderr)}",
                exit_status=result.exit_status,
            )
        found = app.parse_settings(result.text.removeprefix(f"{mariadb.LOGGED_IN}\n")) if result.ok else {}
        return all(name in found and found[name] == value for name, value in self.values)

    async def apply(self, host: Host) -> None:
        path, content = self._login()
        await host.run(files.write_file(path, content, mode="0600"))
        write = mariadb.write_settings if self.spec.engine is DatabaseEngine.MARIADB else postgresql.write_settings
        await host.run(write(self.spec, dict(self.values)))

    async def undo(self, host: Host) -> None:
        if self.before is not None:
            await replace(self, values=self.before, before=None).apply(host)


@dataclass(slots=True)
class TryCloudSettings(Step):
    """The same, as far as the client lets it be written: where not, that is a warning, and keeps nothing else back."""

    inner: EnsureCloudSettings
    given_up: bool = False

    def __str__(self) -> str:
        return str(self.inner)

    async def is_satisfied(self, host: Host) -> bool:
        if self.given_up:
            return True
        try:
            return await self.inner.is_satisfied(host)
        except (CommandFailedError, CommandTimeoutError):
            return False

    async def apply(self, host: Host) -> None:
        reason = "they do not stay as they were written"
        try:
            await self.inner.apply(host)
            if await self.inner.is_satisfied(host):
                return
        except (CommandFailedError, CommandTimeoutError) as error:
            reason = error.detail
        await host.warn(
            f"The settings in the client's database could not be written ({reason}); the next operation writes them."
        )
        self.given_up = True

    async def undo(self, host: Host) -> None:
        await self.inner.undo(host)
