"""Steps that bring a client to life on its server."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import ClassVar

from alfa_cloud.errors import CommandFailedError, StepFailedError
from alfa_cloud.playbooks.playbook import Step
from alfa_cloud.playbooks.steps.server import foreign
from alfa_cloud.remote import app, certbot, compose, docker, files, mariadb, nginx, postgresql
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.host import Host
from alfa_cloud.specs import ClientSecrets, ClientSpec, DatabaseEngine, Secret

POLL_S = 0.3
LOG_TAIL_LINES = 30


@dataclass(frozen=True, slots=True)
class EnsureFolder(Step):
    """The client's folder is there and bears its mark."""

    spec: ClientSpec

    def __str__(self) -> str:
        return f"Folder {self.spec.directory}"

    async def is_satisfied(self, host: Host) -> bool:
        mark = await files.read(host, f"{self.spec.directory}/{files.MARK}")
        if mark is None:
            return False
        if mark.strip() != self.spec.uid:
            raise foreign(f"The folder {self.spec.directory}")
        return (await host.run(files.test_path(f"{self.spec.directory}/storage"), check=False)).ok

    async def apply(self, host: Host) -> None:
        directory = self.spec.directory
        await host.run(files.ensure_folder(directory, mode="0750"))
        await host.run(files.write_file(f"{directory}/{files.MARK}", self.spec.uid.encode(), mode="0600"))
        await host.run(files.ensure_folder(f"{directory}/storage", mode="0750"))

    async def undo(self, host: Host) -> None:
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
        return f"{self.spec.directory}/compose.yaml"

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
            return await self._mariadb_holds(host)
        found = await self._postgresql_tenant(host)
        return found.owner == self.spec.database_user and postgresql.verifies(found.password, self.password)

    async def _mariadb_holds(self, host: Host) -> bool:
        found = await self._mariadb_tenant(host)
        return found.uid is not None and found.granted and found.password == mariadb.native_hash(self.password)

    async def _mariadb_tenant(self, host: Host) -> mariadb.Tenant:
        found = mariadb.parse_tenant((await host.run(mariadb.inspect_tenant(self.spec))).text)
        if found.uid is not None and found.uid != self.spec.uid:
            raise foreign(f"The database {self.spec.database}")
        return found

    async def _postgresql_tenant(self, host: Host) -> postgresql.Tenant:
        found = postgresql.parse_tenant((await host.run(postgresql.inspect_tenant(self.spec))).text)
        if found.role_uid is not None and found.role_uid != self.spec.uid:
            raise foreign(f"The role {self.spec.database_user}")
        if found.owner is not None and found.owner != self.spec.database_user:
            raise foreign(f"The database {self.spec.database}")
        return found

    async def apply(self, host: Host) -> None:
        create = mariadb.create_tenant if self.spec.engine is DatabaseEngine.MARIADB else postgresql.create_tenant
        await host.run(create(self.spec, self.password))

    async def is_absent(self, host: Host) -> bool:
        """Whether neither the database nor its user is there."""
        if self.spec.engine is DatabaseEngine.MARIADB:
            tenant = await self._mariadb_tenant(host)
            return tenant.uid is None and tenant.password is None
        found = await self._postgresql_tenant(host)
        return found.role_uid is None and found.owner is None

    async def undo(self, host: Host) -> None:
        if self.spec.engine is DatabaseEngine.MARIADB:
            await self._mariadb_tenant(host)
            await host.run(mariadb.drop_tenant(self.spec))
        else:
            await self._postgresql_tenant(host)
            await host.run(postgresql.drop_tenant(self.spec))


@dataclass(frozen=True, slots=True)
class EnsureContainer(Step):
    """The client's container runs as its compose file says."""

    spec: ClientSpec
    label: str
    """The fingerprint of that file."""

    def __str__(self) -> str:
        return f"Container {self.spec.container} from {self.spec.image}"

    async def is_satisfied(self, host: Host) -> bool:
        result = await host.run(docker.inspect_container(self.spec.container), check=False)
        if not result.ok:
            return False
        found = docker.parse_container(result.text)
        return found.labels.get(docker.LABEL_SPEC) == self.label and found.status in ("running", "restarting")

    async def apply(self, host: Host) -> None:
        await host.run(compose.up(self.spec))

    async def undo(self, host: Host) -> None:
        if (await host.run(docker.inspect_container(self.spec.container), check=False)).ok:
            await host.run(docker.remove_container(self.spec.container))


@dataclass(frozen=True, slots=True)
class WaitHealthy(Step):
    """The application in the container answers its health path with 200."""

    stoppable: ClassVar[bool] = True
    spec: ClientSpec

    def __str__(self) -> str:
        return f"Wait until {self.spec.app.health_path} answers 200"

    async def is_satisfied(self, host: Host) -> bool:
        return (await host.run(app.health(self.spec), check=False)).text.strip() == "200"

    async def apply(self, host: Host) -> None:
        deadline = time.monotonic() + self.spec.app.health_deadline_s
        while not await self.is_satisfied(host):
            if time.monotonic() >= deadline:
                await self._fail(host)
            await asyncio.sleep(POLL_S)

    async def _fail(self, host: Host) -> None:
        await host.note(f"The container's last {LOG_TAIL_LINES} lines:")
        await host.run(docker.container_logs(self.spec.container, LOG_TAIL_LINES), check=False)
        status = (await host.run(app.health(self.spec), check=False)).text.strip()
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


@dataclass(frozen=True, slots=True)
class EnsureCloudSettings(Step):
    """`cloud_settings` in the client's database says what this service's row says."""

    spec: ClientSpec
    values: tuple[tuple[str, str | None], ...]

    def __str__(self) -> str:
        return "Settings in the client's database"

    async def is_satisfied(self, host: Host) -> bool:
        mariadb_engine = self.spec.engine is DatabaseEngine.MARIADB
        read = mariadb.read_settings if mariadb_engine else postgresql.read_settings
        result = await host.run(read(self.spec), check=False)
        if not result.ok:
            return False
        found = parse_settings(result.text)
        return all(name in found and found[name] == value for name, value in self.values)

    async def apply(self, host: Host) -> None:
        write = mariadb.write_settings if self.spec.engine is DatabaseEngine.MARIADB else postgresql.write_settings
        await host.run(write(self.spec, dict(self.values)))


@dataclass(frozen=True, slots=True)
class EnsureVirtualHost(Step):
    """nginx serves the client under its domain."""

    spec: ClientSpec

    def __str__(self) -> str:
        return f"Virtual host {self.spec.domain}"

    @property
    def path(self) -> str:
        """Where it lies."""
        return self.spec.layout.vhost_path(self.spec.name)

    async def is_satisfied(self, host: Host) -> bool:
        content = await self._content(host)
        return await files.holds(host, self.path, content) and await files.holds(
            host, self.loaded, nginx.digest(content).encode()
        )

    @property
    def loaded(self) -> str:
        """The file that says which version nginx was told to load."""
        return f"{self.spec.directory}/vhost.loaded"

    async def _content(self, host: Host) -> bytes:
        return nginx.render_vhost(self.spec, secure=await has_certificate(host, self.spec))

    async def apply(self, host: Host) -> None:
        content = await self._content(host)
        install = nginx.install_vhost(self.spec.layout, self.path, content, self.loaded)
        result = await host.run(install, check=False)
        if result.ok:
            return
        words = result.stderr.decode("utf-8", "replace").strip().splitlines()
        detail = next((line for line in words if "[emerg]" in line), " ".join(words[-1:]))
        if result.exit_status == nginx.BROKEN_BEFORE:
            raise StepFailedError(
                f"nginx refused its configuration before anything was changed: {detail} Mend that file, then retry.",
                code="nginx_broken_before",
            )
        raise CommandFailedError(f"nginx refused the virtual host: {detail}", exit_status=result.exit_status)

    async def undo(self, host: Host) -> None:
        await host.run(nginx.remove_vhost(self.spec.layout, self.path))


async def has_certificate(host: Host, spec: ClientSpec) -> bool:
    """Whether the client's certificate is on the server."""
    if spec.tls.value == "none":
        return False
    return (await host.run(certbot.is_there(spec), check=False)).ok


async def _answers(host: Host, spec: ClientSpec) -> bool:
    return await host.http_status(spec.domain, nginx.HEALTH_PATH) == 200


@dataclass(frozen=True, slots=True)
class EnsureCertificate(Step):
    """The client's domain has a certificate; where none can be had now, the client stays on http, with a warning."""

    spec: ClientSpec
    email: str
    directory_url: str

    def __str__(self) -> str:
        return f"Certificate for {self.spec.domain}"

    async def is_satisfied(self, host: Host) -> bool:
        if await has_certificate(host, self.spec):
            return True
        if await host.detached_status("certificate") is None:
            return False
        await self.apply(host)
        return True

    async def apply(self, host: Host) -> None:
        result = await host.run(certbot.obtain(self.spec, email=self.email, server=self.directory_url), check=False)
        if not result.ok:
            await host.warn(
                f"No certificate for {self.spec.domain} yet: certbot ended with {result.exit_status}. "
                "The client is served over http. Make the name resolve to this server, then update the client."
            )

    async def undo(self, host: Host) -> None:
        if await has_certificate(host, self.spec):
            await host.run(certbot.delete(self.spec))


@dataclass(frozen=True, slots=True)
class WaitAnswering(Step):
    """The client answers under its domain, seen from outside through the server's nginx."""

    stoppable: ClassVar[bool] = True
    spec: ClientSpec
    deadline_s: float = 30

    def __str__(self) -> str:
        return f"Wait until {self.spec.domain} answers from outside"

    async def is_satisfied(self, host: Host) -> bool:
        return await _answers(host, self.spec)

    async def apply(self, host: Host) -> None:
        deadline = time.monotonic() + self.deadline_s
        while (status := await host.http_status(self.spec.domain, nginx.HEALTH_PATH)) != 200:
            if time.monotonic() >= deadline:
                answer = f"HTTP {status}" if status else "no answer"
                raise StepFailedError(
                    f"{self.spec.domain} does not answer from outside ({answer} on port "
                    f"{self.spec.layout.http_port} of {host.address}); look at the server's firewall and nginx there, "
                    "then retry.",
                    code="not_answering",
                )
            await asyncio.sleep(POLL_S)


def parse_settings(text: str) -> dict[str, str | None]:
    """The JSON object that `read_settings` printed."""
    value = json.loads(text)
    return {str(name): None if setting is None else str(setting) for name, setting in value.items()}
