"""Steps about a server as a whole."""

from __future__ import annotations

from dataclasses import dataclass

from alfa_cloud.errors import CommandFailedError, StepFailedError
from alfa_cloud.playbooks.playbook import Check, Step
from alfa_cloud.remote import docker, files, mariadb, nginx, postgresql, requirements
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.host import Host
from alfa_cloud.specs import ClientSpec, DatabaseEngine, Layout, Tls

PAGES = ("unavailable",)


@dataclass(frozen=True, slots=True)
class CheckRequirements(Check):
    """The server has everything that a client needs."""

    engine: DatabaseEngine
    tls: Tls

    def __str__(self) -> str:
        return "Check the server's requirements"

    async def check(self, host: Host) -> None:
        found = await requirements.check(host, self.engine, self.tls)
        missing = [row for row in found if not row.ok]
        if missing:
            raise StepFailedError(
                "The server misses: "
                + "; ".join(f"{row.name} ({row.found or 'not found'}): {row.mend}" for row in missing),
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
        await self._check_folder(host)

    async def _check_image(self, host: Host) -> None:
        engine = await host.run(docker.version(), check=False)
        if not engine.ok:
            raise StepFailedError(
                "Docker does not answer on the server; look at `systemctl status docker` there, then retry.",
                code="docker_unavailable",
            )
        if not (await host.run(docker.inspect_images([self.spec.image]), check=False)).ok:
            raise StepFailedError(
                f"The image {self.spec.image} is not on the server; build or load it there, then retry.",
                code="image_not_on_server",
            )

    async def _check_space(self, host: Host) -> None:
        free = requirements.parse_free_bytes((await host.run(requirements.free_space(host.layout.root))).text)
        if free < self.min_free_bytes:
            raise StepFailedError(
                f"Only {free / 1e9:.1f} GB are free under {host.layout.root}, {self.min_free_bytes / 1e9:.1f} GB are "
                "needed; make room on the server, then retry.",
                code="disk_full",
            )

    async def _check_folder(self, host: Host) -> None:
        directory = self.spec.directory
        mark = await files.read(host, f"{directory}/{files.MARK}")
        if mark is None and (await host.run(files.test_path(directory), check=False)).ok:
            listing = await host.run(Command(("ls", "-A", "--", directory), sudo=True, log=False))
            if listing.text.strip():
                raise foreign(f"The folder {directory}")
        if mark is not None and mark.strip() != self.spec.uid:
            raise foreign(f"The folder {directory}")


def foreign(what: str) -> StepFailedError:
    """The error for something under a client's name that is not this client's; it is never touched."""
    return StepFailedError(
        f"{what} is on the server already and is not this client's; it was left alone. "
        "Move it away, then retry.",
        code="not_ours",
    )


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
        for name in PAGES:
            if not await files.holds(host, nginx.page_path(self.layout, name), nginx.render_page(name)):
                return False
        return True

    async def apply(self, host: Host) -> None:
        for name in PAGES:
            await host.run(files.write_file(nginx.page_path(self.layout, name), nginx.render_page(name)))


@dataclass(frozen=True, slots=True)
class EnsureNetwork(Step):
    """The containers' own network is there."""

    layout: Layout

    def __str__(self) -> str:
        return f"Docker network {self.layout.docker_network}"

    async def is_satisfied(self, host: Host) -> bool:
        return (await host.run(docker.inspect_network(self.layout.docker_network), check=False)).ok

    async def apply(self, host: Host) -> None:
        gateway = self.layout.docker_subnet.rpartition(".")[0] + ".1"
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
        listen = {part.strip() for part in str(found["listen"]).split(",")}
        reaches = bool(listen & {self.layout.database_host, "*", "0.0.0.0"})  # noqa: S104  compared, not bound
        return bool(found["role"] and found["rule"] and reaches)

    async def apply(self, host: Host) -> None:
        found = requirements.parse_json(await host.run(postgresql.inspect_listening()))
        await host.run(postgresql.create_group())
        await host.run(postgresql.write_hba(str(found["hba_file"]), self.layout.docker_subnet))
        addresses = list(dict.fromkeys(("localhost", self.layout.database_host)))
        await host.run(postgresql.listen_on(", ".join(addresses)))
        listen = {part.strip() for part in str(found["listen"]).split(",")}
        if not listen & {self.layout.database_host, "*", "0.0.0.0"}:  # noqa: S104  compared, not bound
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
            words = result.stderr.decode("utf-8", "replace").strip().splitlines()[:1]
            raise StepFailedError(
                f"nginx refuses its present configuration: {' '.join(words)} Mend that file, then retry.",
                code="nginx_broken_before",
            )
