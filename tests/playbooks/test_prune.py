"""Pruning a server's images: what stays, what goes, and that the second run changes nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from alfa_cloud.errors import CommandFailedError
from alfa_cloud.playbooks.prune_server import prune_server
from alfa_cloud.playbooks.steps.prune import Needed, is_used
from alfa_cloud.remote import docker
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.docker import Image
from alfa_cloud.remote.host import Result
from tests.fakes import FakeHost

REPOSITORY = "alfa"


class Docker:
    """Images on a server: a tag each, made one after the other; some are used by containers."""

    def __init__(self, *tags: str, used: tuple[str, ...] = (), dangling: tuple[str, ...] = ()) -> None:
        self.tags = list(tags)
        self.used = used
        self.dangling = list(dangling)
        self.refuse = ""

    def __call__(self, command: Command) -> Result | None:
        argv = command.argv
        if argv[:3] == ("docker", "image", "ls"):
            rows = [{"Repository": REPOSITORY, "Tag": tag.partition(":")[2]} for tag in self.tags]
            return lines(*self.dangling) if "--quiet" in argv else lines(*map(json.dumps, rows))
        if argv[:3] == ("docker", "image", "inspect"):
            return lines(json.dumps([self.image(tag) for tag in argv[4:]]))
        if argv[:3] == ("docker", "container", "ls"):
            return lines(*(json.dumps({"Image": name}) for name in self.used))
        if argv[:3] == ("docker", "image", "rm"):
            if argv[-1] == self.refuse:
                return Result(1)
            self.tags.remove(argv[-1])
        if argv[:3] == ("docker", "image", "prune"):
            self.dangling = [id_ for id_ in self.dangling if id_ in self.used]
        if argv[:2] == ("docker", "info"):
            return lines("/var/lib/docker")
        if "alfa-df" in argv:
            assert argv[-1] == "/var/lib/docker"
            return lines("Avail", str(1000 - 100 * len(self.tags)))
        return None

    def image(self, tag: str) -> dict[str, Any]:
        """What Docker says of an image; later ones of `tags` are newer."""
        number = self.tags.index(tag)
        return {
            "Id": f"sha256:{number:064x}",
            "RepoTags": [tag],
            "Created": f"2026-01-{number + 1:02}T00:00:00Z",
            "Config": {"Labels": {docker.LABEL_BRANCH: tag.rpartition("-")[2]}},
        }


def lines(*texts: str) -> Result:
    return Result(0, "\n".join(texts).encode())


def images(*numbers: int, branch: str = "dev") -> list[str]:
    return [f"alfa:1.{number}-{branch}" for number in numbers]


async def run(engine: Docker, *needed: str) -> FakeHost:
    """The playbook's one step, as the runner does it."""

    async def known() -> frozenset[str]:
        return frozenset(needed)

    return await run_with(engine, known)


async def run_with(engine: Docker, needed: Needed) -> FakeHost:
    """The same, where what is needed may change."""
    host = FakeHost(engine)
    (step,) = prune_server(REPOSITORY, needed).steps
    if not await step.is_satisfied(host):
        await step.apply(host)
        assert await step.is_satisfied(host)
    return host


async def test_what_nobody_needs_goes() -> None:
    engine = Docker(*images(1, 2, 3, 4, 5), *images(1, branch="master"), used=("alfa:1.3-dev", "sha256:" + "e" * 64))
    host = await run(engine, "alfa:1.1-dev", "alfa:9-gone")
    assert engine.tags == [*images(1, 3, 4, 5), *images(1, branch="master")]
    assert host.facts["removed"] == ["alfa:1.2-dev"]
    assert host.facts["freed_bytes"] == 100
    assert [image["tag"] for image in host.facts["images"]] == [*images(1, branch="master"), *images(5, 4, 3, 1)]
    assert not any("--force" in one.argv and "rm" in one.argv for one in host.commands)


async def test_the_second_run_changes_nothing() -> None:
    engine = Docker(*images(1, 2, 3))
    await run(engine)
    host = await run(engine)
    assert engine.tags == images(2, 3)
    assert "removed" not in host.facts
    assert not any({"rm", "prune"} & set(one.argv) for one in host.commands)


async def test_what_failed_builds_left_goes_but_for_what_runs() -> None:
    running, left = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    engine = Docker(*images(1), used=(running,), dangling=(running, left))
    await run(engine)
    assert (engine.tags, engine.dangling) == (images(1), [running])


async def test_what_is_needed_is_asked_before_each_removal() -> None:
    """An operation on 1.2 is accepted while the first image goes; another one ends and needs nothing any more."""
    engine = Docker(*images(1, 2, 3, 4, 5))

    async def needed() -> frozenset[str]:
        if engine.tags == images(1, 2, 3, 4, 5):
            return frozenset()
        return frozenset(images(2)) if len(engine.tags) == 4 else frozenset()

    host = await run_with(engine, needed)
    assert engine.tags == images(2, 4, 5)
    assert host.facts["removed"] == images(1, 3)


async def test_what_was_not_removed_is_not_reported() -> None:
    engine = Docker(*images(1, 2, 3, 4))
    engine.refuse = "alfa:1.2-dev"
    host = FakeHost(engine)

    async def needed() -> frozenset[str]:
        return frozenset(images(1)) if "removed" in host.facts else frozenset()

    (step,) = prune_server(REPOSITORY, needed).steps
    assert not await step.is_satisfied(host)
    with pytest.raises(CommandFailedError):
        await step.apply(host)
    assert host.facts["removed"] == images(2)


async def test_an_image_that_cannot_be_removed_is_an_error() -> None:
    engine = Docker(*images(1, 2, 3))
    engine.refuse = "alfa:1.1-dev"
    with pytest.raises(CommandFailedError):
        await run(engine)


def test_the_newest_of_each_branch_stay_whatever_their_order() -> None:
    made = [
        Image(f"alfa:{n}-{branch}", f"sha256:{n}", "", branch, "", 1, f"2026-01-0{n}")
        for n in (3, 1, 4, 2)
        for branch in ("dev", "master")
    ]
    found = [image.tag for image in docker.unneeded(made, {"alfa:1-master"})]
    assert found == ["alfa:2-master", "alfa:2-dev", "alfa:1-dev"]


def test_a_container_names_an_image_by_a_long_or_short_id() -> None:
    digest = "sha256:" + "c" * 64
    assert is_used(digest, {digest})
    assert is_used(digest, {"c" * 12})
    assert not is_used(digest, {"c", "", "alfa:1.0", "sha256:" + "d" * 64})
