"""What the Docker stand-in remembers: images, containers and networks, in one JSON file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from alfa_cloud.sandbox.practice.folder import write_aside

NEVER: Final = "0001-01-01T00:00:00Z"
IMAGES: Final = (
    ("1.0.0-master", "master", "2026-09-01T09:00:00Z"),
    ("1.1.0-dev", "dev", "2026-10-01T09:00:00Z"),
    ("9.9.9-broken", "dev", "2026-08-01T09:00:00Z"),
)
"""Tag, branch and moment of the images that are there from the start; the broken one is the oldest."""


def now() -> str:
    """The present moment as Docker writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


def digest(text: str) -> str:
    """64 hexadecimal digits that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(slots=True)
class Image:
    """One image of the app."""

    id: str
    tags: list[str]
    created: str
    labels: dict[str, str]
    env: list[str]
    size: int = 82_000_000

    @property
    def version(self) -> str:
        """The version of the app in it."""
        return self.labels.get("org.opencontainers.image.version", "0.0.0")


@dataclass(slots=True)
class Network:
    """One network; nothing runs in it, containers are processes of this machine."""

    id: str
    name: str
    driver: str
    subnet: str
    gateway: str
    options: dict[str, str]
    labels: dict[str, str]
    created: str


@dataclass(slots=True)
class Container:
    """One container: how it is to run, and how it does."""

    id: str
    name: str
    image: str
    image_id: str
    env: dict[str, str]
    labels: dict[str, str]
    restart: str
    ports: dict[str, int]
    """Published ports of the loopback, by the container's (`80/tcp`)."""
    mounts: dict[str, str]
    """Folders of this server, by the container's."""
    networks: list[str]
    host_config: dict[str, Any]
    healthcheck: bool
    created: str
    status: str = "created"
    """`created`, `running`, `restarting` or `exited`."""
    pid: int = 0
    exit_code: int = 0
    started_at: str = NEVER
    finished_at: str = NEVER
    restart_count: int = 0
    stopped_by_hand: bool = False
    error: str = ""

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return self.status == "running"


def make_image(tag: str, branch: str, created: str, *, revision: str = "", version: str = "") -> Image:
    """An image as a build leaves it."""
    version = version or tag.rpartition(":")[2]
    labels = {
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.revision": revision or digest(tag)[:40],
        "org.opencontainers.image.created": created,
        "alfa.branch": branch,
    }
    env = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", f"APP_VERSION={version}"]
    return Image(f"sha256:{digest(tag + created)}", [tag], created, labels, env, 80_000_000 + len(branch) * 10**6)


@dataclass(slots=True)
class DockerState:
    """All of it."""

    images: list[Image] = field(default_factory=list)
    containers: list[Container] = field(default_factory=list)
    networks: list[Network] = field(default_factory=list)

    def image(self, reference: str) -> Image | None:
        """The image of a tag or an id."""
        tagged = reference if ":" in reference else f"{reference}:latest"
        short = reference.removeprefix("sha256:")
        for image in self.images:
            if tagged in image.tags or (len(short) >= 8 and image.id.removeprefix("sha256:").startswith(short)):
                return image
        return None

    def container(self, reference: str) -> Container | None:
        """The container of a name or an id."""
        for container in self.containers:
            if container.name == reference.lstrip("/") or (len(reference) >= 8 and container.id.startswith(reference)):
                return container
        return None

    def network(self, reference: str) -> Network | None:
        """The network of a name or an id."""
        for network in self.networks:
            if network.name == reference or (len(reference) >= 8 and network.id.startswith(reference)):
                return network
        return None

    def save(self, path: Path) -> None:
        """The file holds this state."""
        write_aside(path, json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> DockerState:
        """The state in the file; three images and nothing else where there is none."""
        if not path.exists():
            return cls(images=[make_image(f"alfa:{tag}", branch, created) for tag, branch, created in IMAGES])
        raw = json.loads(path.read_text())
        return cls(
            images=[Image(**item) for item in raw["images"]],
            containers=[Container(**item) for item in raw["containers"]],
            networks=[Network(**item) for item in raw["networks"]],
        )
