"""Docker on a server: commands, and parsers of what they print."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from alfa_cloud.remote.command import Command
from alfa_cloud.remote.host import Result

LABEL_VERSION = "org.opencontainers.image.version"
LABEL_COMMIT = "org.opencontainers.image.revision"
LABEL_CREATED = "org.opencontainers.image.created"
"""Pre-defined annotation keys of the OCI image specification."""
LABEL_BRANCH = "alfa.branch"
ICC = "com.docker.network.bridge.enable_icc"
"""Whether the containers of a network reach each other (Docker, "Bridge network driver")."""
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


# One at a time on a server; who waited finds that the other one has brought the image.
LOAD = """
set -eu
exec 9>>"$1"
flock -w 3000 9 || { echo "another transfer to this server takes too long" >&2; exit 75; }
found=$(docker image inspect --format '{{.Id}}' -- "$2" 2>/dev/null) || found=
[ "$found" != "$3" ] || exit 76
exec docker image load --quiet
"""
ALREADY_THERE = 76
TRANSFER_S = 3600


def save_image(reference: str) -> Command:
    """Print an image, with its tag."""
    return Command(("docker", "image", "save", "--", reference), sudo=True, timeout_s=TRANSFER_S, log=False)


def load_image(reference: str, digest: str, lock: str) -> Command:
    """The image on standard input is on the server; exit status `ALREADY_THERE` where it was before."""
    argv = ("sh", "-c", LOAD, "alfa-load", lock, reference, digest)
    return Command(argv, sudo=True, timeout_s=TRANSFER_S, log=False)


def list_dangling() -> Command:
    """Print the ids of our images without a tag, one on a line."""
    ours = ("--filter=dangling=true", f"--filter=label={LABEL_BRANCH}")
    argv = ("docker", "image", "ls", "--no-trunc", "--quiet", *ours)
    return Command(argv, sudo=True, timeout_s=20, log=False)


def remove_image(tag: str) -> Command:
    """The tag is gone, and with its last one the image; fails where a container needs it."""
    return Command(("docker", "image", "rm", "--", tag), sudo=True, timeout_s=300)


def prune_dangling() -> Command:
    """Our images without a tag are gone, but for those that a container needs."""
    argv = ("docker", "image", "prune", "--force", f"--filter=label={LABEL_BRANCH}")
    return Command(argv, sudo=True, timeout_s=600)


def list_containers() -> Command:
    """Print all containers, one JSON object on a line."""
    argv = ("docker", "container", "ls", "--all", "--no-trunc", "--format", "{{json .}}")
    return Command(argv, sudo=True, timeout_s=20, log=False)


def root_dir() -> Command:
    """Print the folder that Docker keeps its data in."""
    return Command(("docker", "info", "--format", "{{.DockerRootDir}}"), sudo=True, timeout_s=20, log=False)


def inspect_container(name: str) -> Command:
    """Describe a container as a JSON array; `is_missing` where there is none."""
    return Command(("docker", "container", "inspect", "--", name), sudo=True, timeout_s=20, log=False)


def is_missing(inspected: Result) -> bool:
    """Whether Docker said that there is no such container, and did not just fail."""
    return not inspected.ok and b"no such container" in inspected.stderr.lower()


def remove_container(name: str) -> Command:
    """The container is gone, running or not."""
    return Command(("docker", "container", "rm", "--force", "--", name), sudo=True, timeout_s=60)


def stop_container(name: str) -> Command:
    """The container does not run: it was asked to end, and ended by force after 30 s."""
    return Command(("docker", "container", "stop", "--time=30", "--", name), sudo=True, timeout_s=90)


def start_container(name: str) -> Command:
    """The container runs."""
    return Command(("docker", "container", "start", "--", name), sudo=True, timeout_s=90)


def restart_container(name: str) -> Command:
    """The container was stopped, within 30 s or by force, and started; once in an operation."""
    argv = ("docker", "container", "restart", "--time=30", "--", name)
    return Command(argv, sudo=True, timeout_s=120, detached="restart")


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
        f"--opt={ICC}=false", "--opt=com.docker.network.bridge.name=alfa0",
        "--", name,
    )  # fmt: skip
    return Command(argv, sudo=True, timeout_s=60)


def list_running() -> Command:
    """Print the running containers, one JSON object on a line."""
    return Command(("docker", "container", "ls", "--format", "{{json .}}"), sudo=True, timeout_s=20, log=False)


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


def parse_identity(text: str) -> tuple[str, int]:
    """The id and the size in bytes of the first image of `docker image inspect`."""
    item = json.loads(text)[0]
    return str(item["Id"]), int(item.get("Size", 0))


def newest_first(images: Iterable[Image]) -> list[Image]:
    """Images by age, those of one moment by name."""
    return sorted(images, key=lambda image: (image.created_at, image.tag), reverse=True)


KEPT_OF_EACH_BRANCH = 2
"""So that the newest can be taken back."""


def unneeded(images: Iterable[Image], needed: Collection[str]) -> list[Image]:
    """The images that nobody needs, the newest first: not named as needed, and not among their branch's newest.

    Args:
        needed: by REPOSITORY:TAG.
    """
    seen: Counter[str] = Counter()
    found = []
    for image in newest_first(images):
        seen[image.branch] += 1
        if seen[image.branch] > KEPT_OF_EACH_BRANCH and image.tag not in needed:
            found.append(image)
    return found


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
