"""Whose is what lies under a client's name on a server: what is not this client's is never touched."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Final

from alfa_cloud.errors import CommandFailedError, StepFailedError
from alfa_cloud.remote import compose, docker, files, mariadb, nginx, postgresql
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.docker import Container
from alfa_cloud.remote.host import Host
from alfa_cloud.remote.output import plain_text
from alfa_cloud.specs import ClientSpec, DatabaseEngine

NOT_OURS: Final = "not_ours"


class Folder(StrEnum):
    """What is there of a client's folder."""

    ABSENT = "absent"
    EMPTY = "empty"
    """Without the mark, and without anything else: as a stop right after its making leaves it."""
    MARKED = "marked"


def foreign(what: str) -> StepFailedError:
    """The error for something under a client's name that is not this client's; it is never touched."""
    error = StepFailedError(
        f"{what} is on the server already and is not this client's; it was left alone. Move it away, then retry.",
        code=NOT_OURS,
    )
    error.meta["what"] = what
    return error


@asynccontextmanager
async def sparing(host: Host) -> AsyncIterator[None]:
    """What is not this client's ends the block, with a line in the log and without an error."""
    try:
        yield
    except StepFailedError as error:
        if error.step_code != NOT_OURS:
            raise
        await host.note(f"{error.meta['what']} is not this client's; it is left alone.")


async def find_folder(host: Host, spec: ClientSpec) -> Folder:
    """What is there of the client's folder.

    Raises:
        StepFailedError: it is not this client's.
    """
    mark = await files.read(host, f"{spec.directory}/{files.MARK}")
    if mark is not None:
        if mark.strip() != spec.uid:
            raise foreign(f"The folder {spec.directory}")
        return Folder.MARKED
    if not (await host.run(files.test_path(spec.directory), check=False)).ok:
        return Folder.ABSENT
    listing = await host.run(Command(("ls", "-A", "--", spec.directory), sudo=True, log=False))
    if listing.text.strip():
        raise foreign(f"The folder {spec.directory}")
    return Folder.EMPTY


async def find_container(host: Host, spec: ClientSpec) -> Container | None:
    """The client's container, or None where there is none.

    Raises:
        StepFailedError: it is not this client's, or Docker does not answer.
        CommandFailedError: Docker answers, and does not say.
    """
    result = await host.run(docker.inspect_container(spec.container), check=False)
    if docker.is_missing(result):
        return None
    if not result.ok:
        await check_docker(host)
        raise CommandFailedError(
            f"Docker does not say what {spec.container} is: {plain_text(result.stderr)}", exit_status=result.exit_status
        )
    found = docker.parse_container(result.text)
    if found.labels.get(compose.LABEL_CLIENT) != spec.uid:
        raise foreign(f"The container {spec.container}")
    return found


async def check_docker(host: Host) -> None:
    """Nothing, where Docker answers.

    Raises:
        StepFailedError: it does not.
    """
    if not (await host.run(docker.version(), check=False)).ok:
        raise StepFailedError(
            "Docker does not answer on the server; look at `systemctl status docker` there, then retry.",
            code="docker_unavailable",
        )


async def has_vhost(host: Host, spec: ClientSpec) -> bool:
    """Whether the client's virtual host is there, or its removal was not brought to its end (nginx was not told).

    Raises:
        StepFailedError: it is not this client's.
    """
    path = spec.layout.vhost_path(spec.name)
    result = await host.run(nginx.look_vhost(spec, path), check=False)
    if result.exit_status == nginx.NOT_OURS:
        raise foreign(f"The virtual host {path}")
    if result.exit_status not in (0, nginx.ABSENT):
        raise CommandFailedError(f"{path} cannot be read: {plain_text(result.stderr)}", exit_status=result.exit_status)
    return result.ok


async def find_mariadb_tenant(host: Host, spec: ClientSpec) -> mariadb.Tenant:
    """What is there of the client in MariaDB.

    Raises:
        StepFailedError: it is not this client's.
    """
    found = mariadb.parse_tenant((await host.run(mariadb.inspect_tenant(spec))).text)
    if found.uid is not None and found.uid != spec.uid:
        raise foreign(f"The database {spec.database}")
    return found


async def find_postgresql_tenant(host: Host, spec: ClientSpec) -> postgresql.Tenant:
    """What is there of the client in PostgreSQL.

    Raises:
        StepFailedError: it is not this client's.
    """
    found = postgresql.parse_tenant((await host.run(postgresql.inspect_tenant(spec))).text)
    if found.role_uid is not None and found.role_uid != spec.uid:
        raise foreign(f"The role {spec.database_user}")
    if found.owner is not None and found.owner != spec.database_user:
        raise foreign(f"The database {spec.database}")
    return found


async def has_tenant(host: Host, spec: ClientSpec) -> bool:
    """Whether the client's database or its user is there.

    Raises:
        StepFailedError: it is not this client's.
    """
    if spec.engine is DatabaseEngine.MARIADB:
        return not (await find_mariadb_tenant(host, spec)).absent
    found = await find_postgresql_tenant(host, spec)
    return found.role_uid is not None or found.owner is not None
