"""Steps of a build: from a branch's commit to an image with its version.

A version is one commit's for ever: where its tag is another's already, nothing is built, for clients that were told to
run it must not get something else at their next restart.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar, Final

from alfa_cloud.errors import CommandFailedError, RemoteError, ServerNotReadyError, StepFailedError
from alfa_cloud.playbooks.playbook import Check, Step
from alfa_cloud.playbooks.steps.ownership import check_docker
from alfa_cloud.playbooks.steps.space import free_bytes
from alfa_cloud.remote import build, docker, git
from alfa_cloud.remote.build import BuildSpec, Built
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.git import Status
from alfa_cloud.remote.host import Host
from alfa_cloud.remote.look import list_images
from alfa_cloud.specs import Secret

SHORT: Final = 12


@dataclass(frozen=True, slots=True)
class CheckBuilder(Check):
    """The server can build: its programs are there, Docker answers, and there is space."""

    spec: BuildSpec
    min_free_bytes: int

    def __str__(self) -> str:
        return "Check that the server can build"

    async def check(self, host: Host) -> None:
        missing = (await host.run(git.look_for_programs())).text.split()
        if missing:
            raise ServerNotReadyError(f"The server misses {', '.join(missing)}: {git.MEND}")
        await check_docker(host)
        root = self.spec.layout.root
        free = await free_bytes(host, root)
        if free < self.min_free_bytes:
            raise StepFailedError(
                f"Only {free / 1e9:.1f} GB are free under {root}, {self.min_free_bytes / 1e9:.1f} GB are needed; make "
                "room on the server, then retry.",
                code="disk_full",
            )


@dataclass(slots=True)
class Fetch:
    """What the later steps need of the first: it ran, and said what the commit is called."""

    spec: BuildSpec
    key: Secret
    said: str | None = None

    @property
    def command(self) -> Command:
        """The one run of it in this operation."""
        spec = self.spec
        return git.fetch(spec.source, self.key, spec.work, spec.branch, spec.commit)

    async def version(self, host: Host) -> str:
        """What the commit is called; asked of the run itself, for tags may move meanwhile.

        Raises:
            StepFailedError: the commit is not of the branch any more, or has no name that a tag could be made of.
            SourceUnreachableError, ServerNotReadyError: the repository cannot be read.
        """
        if self.said is None:
            self.said = await self._ask(host)
        return self.said

    async def _ask(self, host: Host) -> str:
        try:
            found = git.parse_described((await host.run(self.command)).text)
        except CommandFailedError as error:
            raise self._why_not(error) from error
        if found is None:
            raise RemoteError("git did not say what the commit is called.")
        if not git.VERSION.fullmatch(found.version):
            raise StepFailedError(
                f"The git tag {found.version[:200]} cannot be the version of an image: only letters, digits and _ . - "
                "at most 120 of them, the first no . or -. Give the commit another tag, then build again.",
                code="bad_version",
            )
        return found.version

    def _why_not(self, error: CommandFailedError) -> Exception:
        spec = self.spec
        if error.exit_status == Status.COMMIT_GONE:
            return StepFailedError(
                f"{spec.commit[:SHORT]} is not of the branch {spec.branch} any more; build again.", code="commit_gone"
            )
        if error.exit_status == Status.NO_TAG:
            return StepFailedError(
                f"No git tag leads to the commit {spec.commit[:SHORT]} of {spec.branch}, so it has no version; tag it "
                "or an earlier one (git tag 1.0.0), push the tag, then build again.",
                code="no_version",
            )
        return git.why_not(error)


async def find(host: Host, name: str) -> Built | None:
    """The image of a name."""
    result = await host.run(docker.inspect_images([name]), check=False)
    return build.parse_built(result.text) if result.ok else None


async def is_built(host: Host, fetch: Fetch) -> bool:
    """Whether the commit's image is there under its name."""
    found = await find(host, fetch.spec.tag(await fetch.version(host)))
    return found is not None and found.commit == fetch.spec.commit


@dataclass(frozen=True, slots=True)
class FetchSource(Step):
    """The branch and its tags are on the server."""

    stoppable: ClassVar[bool] = True
    fetch: Fetch

    def __str__(self) -> str:
        return f"Fetch {self.fetch.spec.branch}"

    async def is_satisfied(self, host: Host) -> bool:
        return await host.detached_status("fetch") == 0

    async def apply(self, host: Host) -> None:
        await host.run(build.ensure_work(self.fetch.spec))
        await self.fetch.version(host)

    async def undo(self, host: Host) -> None:
        await host.stop_detached("fetch")


@dataclass(frozen=True, slots=True)
class CheckVersion(Check):
    """The commit's version can be an image's, and is no other commit's."""

    fetch: Fetch

    def __str__(self) -> str:
        return "Check the version"

    async def check(self, host: Host) -> None:
        spec, name = self.fetch.spec, self.fetch.spec.tag(await self.fetch.version(host))
        found = await find(host, name)
        if found is None:
            await host.note(f"Building {name} from {spec.commit}.")
        elif found.commit != spec.commit:
            raise StepFailedError(
                f"{name} is on the server already, built from {found.commit[:SHORT] or 'an unknown commit'}; a version "
                f"does not change. Give {spec.commit[:SHORT]} a git tag of its own and push it, then build again.",
                code="version_taken",
            )
        elif found.operation_id != spec.operation_id:
            await host.note(f"{name} is this commit already: nothing is to be built.")


@dataclass(frozen=True, slots=True)
class CheckOut(Step):
    """The commit's files are in a folder of this build's own."""

    stoppable: ClassVar[bool] = True
    fetch: Fetch

    def __str__(self) -> str:
        return f"Check out {self.fetch.spec.commit[:SHORT]}"

    async def is_satisfied(self, host: Host) -> bool:
        return await host.detached_status("checkout") == 0 or await is_built(host, self.fetch)

    async def apply(self, host: Host) -> None:
        spec = self.fetch.spec
        await host.run(git.check_out(spec.work, spec.folder, spec.commit))

    async def undo(self, host: Host) -> None:
        await host.stop_detached("checkout")
        await host.run(build.remove_folder(self.fetch.spec))


@dataclass(frozen=True, slots=True)
class MakeFrontend(Step):
    """The branch's front-end command did its work in the tree."""

    stoppable: ClassVar[bool] = True
    fetch: Fetch

    def __str__(self) -> str:
        return "Make the front end"

    async def is_satisfied(self, host: Host) -> bool:
        return await host.detached_status("frontend") == 0 or await is_built(host, self.fetch)

    async def apply(self, host: Host) -> None:
        spec = self.fetch.spec
        try:
            await host.run(build.make_frontend(spec, await self.fetch.version(host)))
        except CommandFailedError as error:
            setting = f"ALFA_SOURCE__{spec.branch.upper()}_FRONTEND"
            raise failed(f"The front end's command ({setting})", error, "frontend_failed") from error

    async def undo(self, host: Host) -> None:
        await host.stop_detached("frontend")


@dataclass(frozen=True, slots=True)
class BuildImage(Step):
    """The tree's image is there, not yet under its own name."""

    stoppable: ClassVar[bool] = True
    fetch: Fetch

    def __str__(self) -> str:
        return "Build the image"

    async def is_satisfied(self, host: Host) -> bool:
        return await host.detached_status("image") == 0 or await is_built(host, self.fetch)

    async def apply(self, host: Host) -> None:
        try:
            await host.run(build.build_image(self.fetch.spec, await self.fetch.version(host)))
        except CommandFailedError as error:
            raise failed("docker build", error, "build_failed") from error

    async def undo(self, host: Host) -> None:
        await host.stop_detached("image")
        await remove(host, self.fetch.spec.unfinished)


@dataclass(frozen=True, slots=True)
class TagImage(Step):
    """The commit's image is there under its name, which makes it one of the app's."""

    fetch: Fetch

    def __str__(self) -> str:
        return "Name the image"

    async def is_satisfied(self, host: Host) -> bool:
        return await is_built(host, self.fetch)

    async def apply(self, host: Host) -> None:
        spec = self.fetch.spec
        await host.run(build.tag_image(spec.unfinished, spec.tag(await self.fetch.version(host))))

    async def undo(self, host: Host) -> None:
        name = self.fetch.spec.tag(await self.fetch.version(host))
        found = await find(host, name)
        if found is not None and found.operation_id == self.fetch.spec.operation_id:
            await remove(host, name)


@dataclass(frozen=True, slots=True)
class RemoveBuild(Step):
    """Nothing is left of the build but its image."""

    spec: BuildSpec

    def __str__(self) -> str:
        return "Tidy up"

    async def is_satisfied(self, host: Host) -> bool:
        gone = Command(("test", "!", "-e", self.spec.folder), sudo=True, log=False)
        return (await host.run(gone, check=False)).ok and await find(host, self.spec.unfinished) is None

    async def apply(self, host: Host) -> None:
        await remove(host, self.spec.unfinished)
        await host.run(build.remove_folder(self.spec))


@dataclass(frozen=True, slots=True)
class ReportImage(Check):
    """The operation says what was built, and what images there are now."""

    fetch: Fetch

    def __str__(self) -> str:
        return "List the images"

    async def check(self, host: Host) -> None:
        spec = self.fetch.spec
        name = spec.tag(await self.fetch.version(host))
        images = await list_images(host, spec.repository)
        image = next((one for one in images if one.tag == name), None)
        found = await find(host, name)
        if image is None or found is None:
            raise StepFailedError(f"{name} went away while it was looked at; build again.", code="image_gone")
        await host.report(
            tag=image.tag,
            commit=image.commit,
            version=image.version,
            built=found.operation_id == spec.operation_id,
            size_bytes=image.size_bytes,
            images=[asdict(one) for one in images],
        )


async def remove(host: Host, name: str) -> None:
    """No image has this name."""
    if await find(host, name) is not None:
        await host.run(build.remove_name(name))


def failed(what: str, error: CommandFailedError, code: str) -> StepFailedError:
    """The error of a program of the repository's own, with its last words."""
    words = " / ".join(error.output.splitlines()).rstrip(".")
    return StepFailedError(
        f"{what} ended with exit status {error.exit_status}: {words}. Mend it in the repository, push, then "
        "build again; the log has all of its output.",
        code=code,
    )
