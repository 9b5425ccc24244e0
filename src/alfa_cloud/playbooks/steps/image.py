"""An image of the app comes to a server, from another one of the fleet where it must."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from alfa_cloud.errors import HostUnreachableError, RemoteError, StepFailedError
from alfa_cloud.playbooks.playbook import Step
from alfa_cloud.remote import docker, relay
from alfa_cloud.remote.host import Host


@dataclass(frozen=True, slots=True)
class Source:
    """A server that had the image when it was last looked at."""

    name: str
    host: Host


@dataclass(frozen=True, slots=True)
class EnsureImage(Step):
    """The image is on the server.

    Args:
        reference: REPOSITORY:TAG.
        digest: its id, where it is known; another image under that tag does not do then.
        sources: where it may be brought from, the likeliest first.
    """

    stoppable: ClassVar[bool] = True
    reference: str
    digest: str = ""
    sources: tuple[Source, ...] = ()

    def __str__(self) -> str:
        return f"Image {self.reference}"

    async def is_satisfied(self, host: Host) -> bool:
        found = await find_image(host, self.reference)
        return found is not None and self.digest in ("", found[0])

    async def apply(self, host: Host) -> None:
        if await self.is_satisfied(host):
            return
        unreachable: HostUnreachableError | None = None
        for source in self.sources:
            try:
                found = await find_image(source.host, self.reference)
            except HostUnreachableError as error:
                await host.note(f"{source.name} cannot be reached: {error.detail}")
                unreachable = error
                continue
            if found is not None and self.digest in ("", found[0]):
                await self._bring(source, *found, host)
                return
            await host.note(f"{self.reference} is not on {source.name} any more.")
        if unreachable is not None:
            raise unreachable
        raise StepFailedError(
            f"{self.reference} is not on this server, and on no other of the fleet; build it, then retry.",
            code="image_missing",
        )

    async def _bring(self, source: Source, digest: str, size_bytes: int, host: Host) -> None:
        await host.note(f"Bringing {self.reference} from {source.name}, about {size_bytes / 1e6:.0f} MB")
        lock = f"{host.layout.root}/images.lock"
        await relay.relay(
            source.host,
            docker.save_image(self.reference),
            host,
            docker.load_image(self.reference, digest, lock),
            about_bytes=size_bytes,
            done=(0, docker.ALREADY_THERE),
        )
        found = await find_image(host, self.reference)
        if found is None or found[0] != digest:
            raise RemoteError(f"{self.reference} did not arrive as it is on {source.name}.")


async def find_image(host: Host, reference: str) -> tuple[str, int] | None:
    """The id and size of an image on a server, or None where it is not there."""
    result = await host.run(docker.inspect_images([reference]), check=False)
    return docker.parse_identity(result.text) if result.ok else None
