"""Steps about a server as a whole."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from ipaddress import ip_network

from alfa_cloud.errors import CommandFailedError, StepFailedError
from alfa_cloud.playbooks.playbook import Check, Step
from alfa_cloud.playbooks.steps.ownership import (
    Folder,
    check_docker,
    find_container,
    find_folder,
    has_tenant,
    has_vhost,
)
from alfa_cloud.playbooks.steps.space import free_bytes
from alfa_cloud.playbooks.steps.web import nginx_words
from alfa_cloud.remote import docker, files, mariadb, nginx, pages, postgresql, requirements
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.docker import Container
from alfa_cloud.remote.host import Host
from alfa_cloud.remote.requirements import Finding
from alfa_cloud.specs import ClientSpec, DatabaseEngine, Layout, Tls


@dataclass(frozen=True, slots=True)
class CheckPrograms(Check):
    """The server has every program that a client needs."""

    engine: DatabaseEngine
    tls: Tls

    def __str__(self) -> str:
        return "Check the server's programs"

    async def check(self, host: Host) -> None:
        await _judge(host, await requirements.check(host, self.engine, self.tls))


@dataclass(frozen=True, slots=True)
class CheckRequirements(Check):
    """The server has everything that a client needs, and is set up for it."""

    engine: DatabaseEngine
    tls: Tls
    min_free_bytes: int

    def __str__(self) -> str:
        return "Check the server's requirements"

    async def check(self, host: Host) -> None:
        await _judge(host, await requirements.check_all(host, self.engine, self.tls, self.min_free_bytes))


async def _judge(host: Host, found: list[Finding]) -> None:
    await host.report(requirements=[asdict(row) for row in found])
    if requirements.all_met(found):
        return
    missing = [row for row in found if row.required and not row.ok]
    raise StepFailedError(
        "The server misses: "
        + "; ".join(f"{row.name} ({row.found or 'not found'}): {row.mend}" for row in missing)
        + ". POST /servers/ID/provision brings what Debian and Ubuntu have of it.",
        code="requirements_missing",
    )


@dataclass(frozen=True, slots=True)
class CheckPlace(Check):
    """The server can take this client: image, space, port, and nothing foreign under its name."""

    spec: ClientSpec
    min_free_bytes: int

    def __str__(self) -> str:
        return "Check the server"

    async def check(self, host: Host) -> None:
        await self._check_image(host)
        await self._check_space(host)
        await find_folder(host, self.spec)
        await has_vhost(host, self.spec)
        await has_tenant(host, self.spec)
        await self._check_port(host, await find_container(host, self.spec))

    async def _check_image(self, host: Host) -> None:
        await check_docker(host)
        if not (await host.run(docker.inspect_images([self.spec.image]), check=False)).ok:
            raise StepFailedError(
                f"The image {self.spec.image} is not on the server; build or load it there, then retry.",
                code="image_not_on_server",
            )

    async def _check_space(self, host: Host) -> None:
        free = await free_bytes(host, host.layout.root)
        if free < self.min_free_bytes:
            raise StepFailedError(
                f"Only {free / 1e9:.1f} GB are free under {host.layout.root}, {self.min_free_bytes / 1e9:.1f} GB are "
                "needed; make room on the server, then retry.",
                code="disk_full",
            )

    async def _check_port(self, host: Host, container: Container | None) -> None:
        tables = await host.run(requirements.listening_ports(), check=False)
        ours = container is not None and container.running
        if self.spec.port in requirements.parse_listening_ports(tables.text) and not ours:
            raise StepFailedError(
                f"Something else listens on the client's port {self.spec.port} on the server; stop it, then retry.",
                code="port_in_use",
            )


@dataclass(frozen=True, slots=True)
class CheckOwnership(Check):
    """What is on the server under a client's name is this client's."""

    spec: ClientSpec

    def __str__(self) -> str:
        return "Check whose files are on the server"

    async def check(self, host: Host) -> None:
        if await find_folder(host, self.spec) is not Folder.MARKED:
            raise StepFailedError(
                f"The client's folder {self.spec.directory} is not on the server; put it back, then retry.",
                code="client_missing",
            )
        await find_container(host, self.spec)
        await has_vhost(host, self.spec)


@dataclass(frozen=True, slots=True)
class EnsureRoot(Step):
    """The product's own folders are there."""

    layout: Layout

    def __str__(self) -> str:
        return f"Folders under {self.layout.root}"

    def folders(self) -> list[tuple[str, str]]:
        """Each folder with its mode."""
        root = self.layout.root
        below = {"clients": "0755", "pages": "0755", "operations": "0711", "archive": "0700", "source": "0755"}
        return [(root, "0755"), *((f"{root}/{name}", mode) for name, mode in below.items())]

    async def is_satisfied(self, host: Host) -> bool:
        folders = self.folders()
        argv = ("stat", "--format=%a %F", "--", *(path for path, _ in folders))
        result = await host.run(Command(argv, sudo=True, log=False), check=False)
        return result.text.splitlines() == [f"{mode.lstrip('0')} directory" for _, mode in folders]

    async def apply(self, host: Host) -> None:
        for path, mode in self.folders():
            await host.run(files.ensure_folder(path, mode=mode))


@dataclass(frozen=True, slots=True)
class EnsurePages(Step):
    """nginx's own pages are there, as this version has them."""

    layout: Layout

    def __str__(self) -> str:
        return "Pages for visitors"

    async def is_satisfied(self, host: Host) -> bool:
        for locale in pages.UNAVAILABLE:
            path = pages.unavailable_path(self.layout, locale)
            if not await files.holds(host, path, pages.render_unavailable(locale)):
                return False
        return (await host.run(files.test_path(f"{self.layout.root}/pages/clients"), check=False)).ok

    async def apply(self, host: Host) -> None:
        await host.run(files.ensure_folder(f"{self.layout.root}/pages/clients", mode="0755"))
        for locale in pages.UNAVAILABLE:
            path = pages.unavailable_path(self.layout, locale)
            await host.run(files.write_file(path, pages.render_unavailable(locale)))


@dataclass(frozen=True, slots=True)
class EnsureNetwork(Step):
    """The containers' own network is there."""

    layout: Layout

    def __str__(self) -> str:
        return f"Docker network {self.layout.docker_network}"

    async def is_satisfied(self, host: Host) -> bool:
        return (await host.run(docker.inspect_network(self.layout.docker_network), check=False)).ok

    async def apply(self, host: Host) -> None:
        gateway = str(ip_network(self.layout.docker_subnet)[1])
        await host.run(docker.create_network(self.layout.docker_network, self.layout.docker_subnet, gateway))


SYSCTL_PATH = "/etc/sysctl.d/90-alfa-cloud.conf"
NONLOCAL_BIND = "net.ipv4.ip_nonlocal_bind"


@dataclass(frozen=True, slots=True)
class EnsureNonlocalBind(Step):
    """A database may listen on the network's gateway before Docker has made it."""

    def __str__(self) -> str:
        return "Addresses that may be listened on before they are there"

    async def is_satisfied(self, host: Host) -> bool:
        value = await host.run(Command(("cat", "/proc/sys/net/ipv4/ip_nonlocal_bind"), log=False))
        return value.text.strip() == "1" and await files.holds(host, SYSCTL_PATH, self._content())

    async def apply(self, host: Host) -> None:
        await host.run(files.write_file(SYSCTL_PATH, self._content()))
        await host.run(Command(("sysctl", "--write", f"{NONLOCAL_BIND}=1"), sudo=True))

    def _content(self) -> bytes:
        return f"# alfa-cloud\n{NONLOCAL_BIND} = 1\n".encode()


@dataclass(frozen=True, slots=True)
class EnsureMariadbReachable(Step):
    """MariaDB listens where the containers reach it, and nowhere else."""

    layout: Layout

    def __str__(self) -> str:
        return "MariaDB listens for the containers"

    async def is_satisfied(self, host: Host) -> bool:
        content = mariadb.config(self.layout.database_host)
        listening = await host.run(mariadb.inspect_listening(), check=False)
        return (
            await files.holds(host, mariadb.CONFIG_PATH, content)
            and listening.ok
            and self.layout.database_host in listening.text.strip().split(",")
        )

    async def apply(self, host: Host) -> None:
        content = mariadb.config(self.layout.database_host)
        await host.run(files.write_file(mariadb.CONFIG_PATH, content, keep=True))
        await host.run(Command(("service", "mariadb", "restart"), sudo=True, timeout_s=180))


@dataclass(frozen=True, slots=True)
class EnsurePostgresqlReachable(Step):
    """PostgreSQL listens where the containers reach it, and lets each client into its own database only."""

    layout: Layout

    def __str__(self) -> str:
        return "PostgreSQL listens for the containers"

    async def is_satisfied(self, host: Host) -> bool:
        found = requirements.parse_json(await host.run(postgresql.inspect_listening()))
        return postgresql.reachable(found, self._address)

    @property
    def _address(self) -> str:
        return self.layout.database_host

    async def apply(self, host: Host) -> None:
        found = requirements.parse_json(await host.run(postgresql.inspect_listening()))
        await host.run(postgresql.create_group())
        await host.run(postgresql.write_hba(str(found["hba_file"]), self.layout.docker_subnet))
        await host.run(postgresql.reload())
        if not postgresql.listens(str(found["listen"]), self._address):
            await host.run(postgresql.listen_on(postgresql.merge_addresses(str(found["listen"]), self._address)))
            await host.run(Command(("service", "postgresql", "restart"), sudo=True, timeout_s=180))
        await self._wait_answering(host)

    async def _wait_answering(self, host: Host) -> None:
        result = await host.run(postgresql.version(), check=False)
        if not result.ok:
            raise CommandFailedError("PostgreSQL does not answer after its restart; look at its log on the server.")


@dataclass(frozen=True, slots=True)
class CheckNginxGood(Check):
    """nginx's configuration as a whole is good, so that a new host can be added to it."""

    def __str__(self) -> str:
        return "nginx's configuration is good"

    async def check(self, host: Host) -> None:
        result = await host.run(nginx.test(), check=False)
        if not result.ok:
            raise StepFailedError(
                f"nginx refuses its present configuration: {nginx_words(result.stderr)} Mend that file, then retry.",
                code="nginx_broken_before",
            )
