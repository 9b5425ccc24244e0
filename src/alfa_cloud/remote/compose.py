"""The compose file of a client, made by a YAML dumper from a dict, never from text."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any, Final

import yaml

from alfa_cloud.remote import docker
from alfa_cloud.remote.command import Command
from alfa_cloud.specs import ClientSecrets, ClientSpec, DatabaseEngine, fingerprint

# Docker may be about to remove it by itself, which a second removal does not wait for.
GONE: Final = r"""
set -u
name=$1 label=$2; shift 2
gone() {
    turn=0
    while found=$(docker container ls --all --quiet --filter "label=$label" --filter "name=^$name\$") || exit 1
        [ -n "$found" ]; do
        [ "$turn" -lt 20 ] || { echo "$name cannot be removed" >&2; exit 6; }
        docker container rm --force -- $found >/dev/null 2>&1 || sleep 1
        turn=$((turn + 1))
    done
}
gone
"""
ALONE: Final = GONE + 'exec "$@"\n'
# A program that was killed may have asked Docker for the container just before.
END_ALONE: Final = GONE + "sleep 1\ngone\n"

DUMPER: Final = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""libyaml's where PyYAML was built with it: a tenth of the time, and of the event loop's."""

CONNECTIONS: Final = {DatabaseEngine.MARIADB: ("mysql", 3306), DatabaseEngine.POSTGRESQL: ("pgsql", 5432)}
"""Laravel's names of the database systems, and their ports."""

LABEL_CLIENT: Final = "alfa.client"
"""On a container: the uid of the client that it belongs to."""


def environment(spec: ClientSpec, secrets: ClientSecrets) -> dict[str, str]:
    """What the application is told."""
    connection, port = CONNECTIONS[spec.engine]
    return {
        "APP_ENV": "production",
        "APP_KEY": secrets.app_key.reveal(),
        "APP_URL": spec.url,
        "APP_NAME": spec.title or spec.name,
        "APP_VERSION": spec.version,
        "APP_LOCALE": spec.locale,
        "DB_CONNECTION": connection,
        "DB_HOST": spec.layout.database_host,
        "DB_PORT": str(spec.layout.database_port or port),
        "DB_DATABASE": spec.database,
        "DB_USERNAME": spec.database_user,
        "DB_PASSWORD": secrets.database_password.reveal(),
        **(_pairs(spec.app.copy_environment) if spec.copy_of else {}),
    }


def _pairs(words: Iterable[str]) -> dict[str, str]:
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def render(spec: ClientSpec, secrets: ClientSecrets, *, beside: ClientSpec | None = None) -> bytes:
    """The compose file; it holds secrets, so it is written with mode 0600.

    Args:
        beside: the same client in its other slot, while one takes over from the other.
    """
    specs = [spec] if beside is None else [spec, beside]
    document = {
        "services": {one.service: _service(one, secrets) for one in sorted(specs, key=lambda one: one.slot)},
        "networks": {spec.layout.docker_network: {"external": True}},
    }
    return yaml.dump(document, Dumper=DUMPER, sort_keys=False).encode()


def _service(spec: ClientSpec, secrets: ClientSecrets) -> dict[str, Any]:
    service: dict[str, Any] = {
        "image": spec.image,
        "container_name": spec.container,
        "restart": "unless-stopped",
        "environment": {key: escape(value) for key, value in environment(spec, secrets).items()},
        "ports": [f"127.0.0.1:{spec.port}:{spec.app.port}"],
        "volumes": [{"type": "bind", "source": f"{spec.directory}/storage", "target": spec.app.storage_dir}],
        "networks": [spec.layout.docker_network],
        "cap_drop": ["ALL"],
        "cap_add": ["NET_BIND_SERVICE"],
        "security_opt": ["no-new-privileges:true"],
        "mem_limit": spec.memory_bytes,
        "pids_limit": spec.app.pids,
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
    }
    service["labels"] = {docker.LABEL_SPEC: fingerprint(service), LABEL_CLIENT: spec.uid}
    return service


def label_of(spec: ClientSpec, secrets: ClientSecrets) -> str:
    """The fingerprint that the client's container bears."""
    return str(_service(spec, secrets)["labels"][docker.LABEL_SPEC])


def path(spec: ClientSpec) -> str:
    """Where the client's compose file lies."""
    return f"{spec.directory}/compose.yaml"


def escape(value: str) -> str:
    """The value with `$` doubled, which Compose would interpolate."""
    return value.replace("$", "$$")


def run_alone(spec: ClientSpec, argv: tuple[str, ...], **options: Any) -> Command:
    """Run a program in a container of its own, made as the client's is but for its ports; what is left of one goes.

    The image's entrypoint, which may start a queue and more, is not run.
    """
    program = (
        "docker", "compose", f"--project-name={spec.project}", f"--file={path(spec)}", "--progress=plain",
        "run", "--rm", "--no-deps", "--no-TTY", f"--name={alone(spec)}", f"--entrypoint={shlex.quote(argv[0])}",
        spec.service, *argv[1:],
    )  # fmt: skip
    return Command(("sh", "-c", ALONE, "alfa-alone", alone(spec), label(spec), *program), sudo=True, **options)


def end_alone(spec: ClientSpec) -> Command:
    """Nothing is left of such a container; the program that made it was ended before."""
    return Command(("sh", "-c", END_ALONE, "alfa-alone", alone(spec), label(spec)), sudo=True, timeout_s=120)


def alone(spec: ClientSpec) -> str:
    """The name of that container."""
    return f"{spec.project}-alone"


def label(spec: ClientSpec) -> str:
    """What the client's containers bear."""
    return f"{LABEL_CLIENT}={spec.uid}"


def up(spec: ClientSpec) -> Command:
    """The container runs as the compose file says; made anew where it differs."""
    argv = (
        "docker", "compose", f"--project-name={spec.project}", f"--file={path(spec)}",
        "--progress=plain", "up", "--detach", "--no-build", "--pull=never", "--no-deps", spec.service,
    )  # fmt: skip
    return Command(argv, sudo=True, timeout_s=180)
