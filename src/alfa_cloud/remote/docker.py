"""Docker on a server: commands, and parsers of what they print."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from alfa_cloud.remote.command import Command

LABEL_VERSION = "org.opencontainers.image.version"
LABEL_COMMIT = "org.opencontainers.image.revision"
LABEL_CREATED = "org.opencontainers.image.created"
"""Pre-defined annotation keys of the OCI image specification."""
LABEL_BRANCH = "alfa.branch"
LABEL_SPEC = "alfa.spec"
"""On a container: the fingerprint of the compose file that it was made from."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image of the app on a server; sizes in bytes."""

    tag: str
    """REPOSITORY:TAG."""
    digest: str
    version: str
    branch: str
    commit: str
    size_bytes: int
    created_at: str
    """RFC 3339, as Docker prints it."""


@dataclass(frozen=True, slots=True)
class Container:
    """A container, as Docker sees it."""

    name: str
    image: str
    running: bool
    status: str
    exit_code: int
    restarts: int
    labels: dict[str, str]


def version() -> Command:
    """Print the client's and the engine's versions as JSON; fails where the engine does not answer."""
    return Command(("docker", "version", "--format", "{{json .}}"), sudo=True, timeout_s=20, log=False)


def compose_version() -> Command:
    """Print the version of Docker Compose."""
    return Command(("docker", "compose", "version", "--short"), sudo=True, timeout_s=20, log=False)


def list_images(repository: str) -> Command:
    """Print the images of a repository, one JSON object on a line."""
    argv = ("docker", "image", "ls", "--no-trunc", "--format", "{{json .}}", "--", repository)
    return Command(argv, sudo=True, timeout_s=20, log=False)


def inspect_images(references: list[str]) -> Command:
    """Describe images as a JSON array; exit status 1 where one is missing."""
    return Command(("docker", "image", "inspect", "--", *references), sudo=True, timeout_s=20, log=False)


def inspect_container(name: str) -> Command:
    """Describe a container as a JSON array; exit status 1 where there is none."""
    return Command(("docker", "container", "inspect", "--", name), sudo=True, timeout_s=20, log=False)


def remove_container(name: str) -> Command:
    """The container is gone, running or not."""
    return Command(("docker", "container", "rm", "--force", "--", name), sudo=True, timeout_s=60)


def container_logs(name: str, lines: int) -> Command:
    """Print the last lines of a container, both streams."""
    return Command(("docker", "container", "logs", f"--tail={lines}", "--", name), sudo=True, timeout_s=20)


def inspect_network(name: str) -> Command:
    """Describe a network as a JSON array; exit status 1 where there is none."""
    return Command(("docker", "network", "inspect", "--", name), sudo=True, timeout_s=20, log=False)


def create_network(name: str, subnet: str, gateway: str) -> Command:
    """The network is there; its containers do not reach each other."""
    argv = (
        "docker", "network", "create", "--driver=bridge", f"--subnet={subnet}", f"--gateway={gateway}",
        "--opt=com.docker.network.bridge.enable_icc=false", "--opt=com.docker.network.bridge.name=alfa0",
        "--", name,
    )  # fmt: skip
    return Command(argv, sudo=True, timeout_s=60)


def execute(container: str, argv: tuple[str, ...], *, stdin: bytes = b"", **options: Any) -> Command:
    """Run a program in a container."""
    command = ("docker", "container", "exec", "--interactive", container, *argv)
    return Command(command, stdin=stdin, sudo=True, **options)


def parse_lines(text: str) -> list[dict[str, Any]]:
    """One JSON object on each line."""
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def parse_images(text: str, repository: str) -> list[Image]:
    """Images of `docker image inspect`, the newest first; an image with several tags stands once for each."""
    found = []
    for item in json.loads(text or "[]"):
        labels = (item.get("Config") or {}).get("Labels") or {}
        for tag in item.get("RepoTags") or ():
            name = tag.rpartition(":")[2]
            if tag.rpartition(":")[0] != repository:
                continue
            found.append(
                Image(
                    tag=tag,
                    digest=item.get("Id", ""),
                    version=labels.get(LABEL_VERSION) or name,
                    branch=labels.get(LABEL_BRANCH) or branch_of(name),
                    commit=labels.get(LABEL_COMMIT, ""),
                    size_bytes=int(item.get("Size", 0)),
                    created_at=item.get("Created", ""),
                )
            )
    return newest_first(found)


def newest_first(images: Iterable[Image]) -> list[Image]:
    """Images by age, those of one moment by name."""
    return sorted(images, key=lambda image: (image.created_at, image.tag), reverse=True)


def branch_of(tag: str) -> str:
    """The branch that a tag VERSION-BRANCH names, or an empty string."""
    return tag.rpartition("-")[2] if "-" in tag else ""


def parse_container(text: str) -> Container:
    """The first container of `docker container inspect`."""
    item = json.loads(text)[0]
    state = item["State"]
    return Container(
        name=item["Name"].lstrip("/"),
        image=item["Config"]["Image"],
        running=bool(state["Running"]),
        status=state["Status"],
        exit_code=int(state.get("ExitCode", 0)),
        restarts=int(item.get("RestartCount", 0)),
        labels=item["Config"].get("Labels") or {},
    )
