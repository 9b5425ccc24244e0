"""Steps that make room on a server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import asdict, dataclass, field

from alfa_cloud.playbooks.playbook import Step
from alfa_cloud.playbooks.steps.ownership import check_docker
from alfa_cloud.playbooks.steps.space import free_bytes
from alfa_cloud.remote import docker
from alfa_cloud.remote.docker import Image
from alfa_cloud.remote.host import Host
from alfa_cloud.remote.look import list_images

Needed = Callable[[], Awaitable[frozenset[str]]]
"""REPOSITORY:TAG of the images that somebody needs now."""


@dataclass(slots=True)
class RemoveUnneededImages(Step):
    """The app's images that nobody needs are gone, and what failed builds left.

    Args:
        repository: whose images are ours; no other is ever touched.
        needed: those that stay, whatever else there is; asked anew before each removal, for others may be accepted
            meanwhile that need an image. What was needed once stays, this time.
    """

    repository: str
    needed: Needed
    _stay: set[str] = field(default_factory=set, init=False)

    def __str__(self) -> str:
        return "Remove images that nobody needs"

    async def is_satisfied(self, host: Host) -> bool:
        await check_docker(host)
        images = await list_images(host, self.repository)
        used = await used_by_containers(host)
        self._stay |= await self.needed()
        dangling = (await host.run(docker.list_dangling())).text.split()
        await host.report(images=[asdict(image) for image in images])
        return not self._unneeded(images, used) and all(is_used(id_, used) for id_ in dangling)

    async def apply(self, host: Host) -> None:
        images = self._unneeded(await list_images(host, self.repository), await used_by_containers(host))
        free_bytes = await self._free_bytes(host)
        for image in images:
            self._stay |= await self.needed()
            if image.tag not in self._stay:
                await host.report(removed=sorted({*host.facts.get("removed", []), image.tag}))
                await host.run(docker.remove_image(image.tag))
        await host.run(docker.prune_dangling())
        await host.report(freed_bytes=max(0, await self._free_bytes(host) - free_bytes))

    def _unneeded(self, images: list[Image], used: Collection[str]) -> list[Image]:
        found = docker.unneeded(images, self._stay)
        return [image for image in found if image.tag not in used and not is_used(image.digest, used)]

    async def _free_bytes(self, host: Host) -> int:
        root = (await host.run(docker.root_dir())).text.strip()
        return await free_bytes(host, root)


async def used_by_containers(host: Host) -> set[str]:
    """What containers say that they are made from: REPOSITORY:TAG, or an image's id where its tag has gone."""
    rows = docker.parse_lines((await host.run(docker.list_containers())).text)
    return {str(row["Image"]) for row in rows}


def is_used(digest: str, used: Collection[str]) -> bool:
    """Whether a container names an image by its id, long or short."""
    plain = digest.removeprefix("sha256:")
    return any(plain.startswith(name.removeprefix("sha256:")) for name in used if len(name) >= 12)
