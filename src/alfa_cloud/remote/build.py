"""Images that are built on a server: where, from what, and as what."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from alfa_cloud.profile import Branch, Source
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.docker import LABEL_BRANCH, LABEL_COMMIT, LABEL_CREATED, LABEL_VERSION
from alfa_cloud.specs import Layout

LABEL_OPERATION: Final = "alfa.operation"
"""On an image: the operation that built it."""
FRONTEND_S: Final = 3600
BUILD_S: Final = 2 * 3600
"""With the wait for another build of the same branch."""

ENSURE_WORK: Final = 'exec install --directory --mode=0700 --owner="$SUDO_UID" --group="$SUDO_GID" -- "$@"'
# What it makes goes into an image, whose user must be able to read it.
FRONTEND: Final = """
set -eu
umask 022
mkdir -p -- "$1"
export HOME="$1"
cd -- "$2"
shift 2
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class BuildSpec:
    """An image that is to be built.

    Args:
        repository: the images' name.
        built_at: what the image's moment is, in UTC.
    """

    operation_id: str
    branch: Branch
    commit: str
    repository: str
    built_at: datetime
    source: Source
    layout: Layout

    @property
    def work(self) -> str:
        """The folder on the server that belongs to the login's user: its repository, and builds."""
        return f"{self.layout.root}/source/work"

    @property
    def folder(self) -> str:
        """The folder of this build."""
        return f"{self.work}/builds/{self.operation_id}"

    @property
    def unfinished(self) -> str:
        """What the image is called while it is none of the app's yet."""
        return f"{self.repository}-building:{self.operation_id}"

    def tag(self, version: str) -> str:
        """What it is called at the end."""
        return f"{self.repository}:{version}-{self.branch}"


@dataclass(frozen=True, slots=True)
class Built:
    """An image as its labels tell; empty where one is missing."""

    commit: str
    branch: str
    operation_id: str


def ensure_work(spec: BuildSpec) -> Command:
    """The folder for builds is there, and that of the operation's detached commands, both the login's own."""
    operation_dir = spec.layout.operation_dir(spec.operation_id)
    return Command(("sh", "-c", ENSURE_WORK, "alfa-folder", spec.work, operation_dir), sudo=True)


def make_frontend(spec: BuildSpec, version: str) -> Command:
    """The branch's front-end command ran in the tree, without a way to become root."""
    facts = (f"VERSION={version}-{spec.branch}", f"BRANCH={spec.branch}", f"COMMIT={spec.commit}")
    command = ("setpriv", "--no-new-privs", "--", "env", *facts, *spec.source.frontend(spec.branch))
    argv = ("sh", "-c", FRONTEND, "alfa-frontend", f"{spec.work}/home", f"{spec.folder}/app", *command)
    return Command(argv, timeout_s=FRONTEND_S, detached="frontend")


def build_image(spec: BuildSpec, version: str) -> Command:
    """The tree's image is there, under the name of an unfinished one; builds of a branch run one after the other."""
    name, moment = f"{version}-{spec.branch}", spec.built_at.isoformat(timespec="seconds")
    labels = {
        LABEL_VERSION: name,
        LABEL_COMMIT: spec.commit,
        LABEL_CREATED: moment,
        LABEL_BRANCH: spec.branch,
        LABEL_OPERATION: spec.operation_id,
    }
    arguments = {
        "VERSION": name,
        "BRANCH": spec.branch,
        "COMMIT": spec.commit,
        "BUILT_AT": moment,
        # BuildKit gives an image of cached layers alone their moment, and a channel means the newest image.
        "SOURCE_DATE_EPOCH": str(int(spec.built_at.timestamp())),
    }
    argv = (
        "flock", "--", f"{spec.work}/{spec.branch}.lock",
        "docker", "image", "build", "--force-rm", f"--tag={spec.unfinished}",
        *(f"--label={key}={value}" for key, value in labels.items()),
        *(f"--build-arg={key}={value}" for key, value in arguments.items()),
        "--", f"{spec.folder}/app",
    )  # fmt: skip
    return Command(argv, sudo=True, timeout_s=BUILD_S, detached="image")


def tag_image(source: str, target: str) -> Command:
    """An image has one name more."""
    return Command(("docker", "image", "tag", "--", source, target), sudo=True)


def remove_name(name: str) -> Command:
    """Nothing is called so; an image with no other name is gone. Fails where a container would lose its image."""
    return Command(("docker", "image", "rm", "--", name), sudo=True, timeout_s=300)


def remove_folder(spec: BuildSpec) -> Command:
    """Nothing of the build's files is left."""
    argv = ("rm", "--recursive", "--force", "--one-file-system", "--", spec.folder)
    return Command(argv, sudo=True, timeout_s=600)


def parse_built(text: str) -> Built:
    """The first image of `docker image inspect`."""
    labels = (json.loads(text)[0].get("Config") or {}).get("Labels") or {}
    return Built(labels.get(LABEL_COMMIT, ""), labels.get(LABEL_BRANCH, ""), labels.get(LABEL_OPERATION, ""))
