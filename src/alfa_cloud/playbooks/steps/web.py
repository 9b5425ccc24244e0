"""Steps that make a client answer under its domain."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import ClassVar

from alfa_cloud.errors import CommandFailedError, CommandTimeoutError, StepFailedError
from alfa_cloud.playbooks.playbook import Step
from alfa_cloud.playbooks.steps.ownership import foreign, has_vhost, sparing
from alfa_cloud.remote import certbot, files, nginx, pages
from alfa_cloud.remote.host import Host, Result
from alfa_cloud.remote.output import plain_text
from alfa_cloud.specs import ClientSpec, Tls

POLL_S = 0.3
RELOAD_LOOKS = 5
OLD_WORKERS_S = 1.0
"""How long nginx's workers from before a reload may still want a page's file."""
CERTBOT_LINES = 6
CERTBOT_REASON = b"Detail:"
"""Where certbot begins to say why (certbot/_internal/auth_handler.py)."""


@dataclass(frozen=True, slots=True)
class EnsurePage(Step):
    """The page that is to stand for the client's application is there.

    Args:
        before: the client as it was served before; a failed operation brings its page back.
    """

    spec: ClientSpec
    before: ClientSpec | None = None

    def __str__(self) -> str:
        return f"Page “{self.spec.page}”"

    async def is_satisfied(self, host: Host) -> bool:
        return await files.holds(host, pages.client_path(self.spec), pages.render(self.spec))

    async def apply(self, host: Host) -> None:
        await host.run(files.write_file(pages.client_path(self.spec), pages.render(self.spec)))

    async def undo(self, host: Host) -> None:
        if self.before is not None and self.before.page:
            await EnsurePage(self.before).apply(host)
        else:
            await RemovePage(self.spec).apply(host)


@dataclass(frozen=True, slots=True)
class RemovePage(Step):
    """No page is kept for the client."""

    spec: ClientSpec

    def __str__(self) -> str:
        return "Remove the page"

    async def is_satisfied(self, host: Host) -> bool:
        return not (await host.run(files.test_path(pages.client_path(self.spec)), check=False)).ok

    async def apply(self, host: Host) -> None:
        await asyncio.sleep(OLD_WORKERS_S)
        await host.run(files.remove_file(pages.client_path(self.spec)))


@dataclass(frozen=True, slots=True)
class EnsureVirtualHost(Step):
    """nginx serves the client under its domain, or the page that stands for it.

    Args:
        before: the client as it was served before; None where it was not. A failed operation brings that back.
    """

    spec: ClientSpec
    before: ClientSpec | None = None

    def __str__(self) -> str:
        return f"Virtual host {self.spec.domain}"

    @property
    def path(self) -> str:
        """Where it lies."""
        return self.spec.layout.vhost_path(self.spec.name)

    @property
    def loaded(self) -> str:
        """The file that says which version nginx was told to load."""
        return f"{self.spec.directory}/vhost.loaded"

    async def is_satisfied(self, host: Host) -> bool:
        content = await self._content(host)
        return await files.holds(host, self.path, content) and await files.holds(
            host, self.loaded, nginx.digest(content).encode()
        )

    async def _content(self, host: Host) -> bytes:
        return nginx.render_vhost(self.spec, secure=await has_certificate(host, self.spec))

    async def apply(self, host: Host) -> None:
        install = nginx.install_vhost(self.spec, self.path, await self._content(host), self.loaded)
        self._judge(await host.run(install, check=False))

    async def undo(self, host: Host) -> None:
        if self.before is not None:
            former = EnsureVirtualHost(self.before)
            if not await former.is_satisfied(host):
                await former.apply(host)
            return
        async with sparing(host):
            if await has_vhost(host, self.spec):
                self._judge(await host.run(nginx.remove_vhost(self.spec, self.path), check=False))

    def _judge(self, result: Result) -> None:
        """Nothing, where nginx did as it was told; or why not."""
        if result.ok:
            return
        detail = nginx_words(result.stderr)
        match result.exit_status:
            case nginx.NOT_OURS:
                raise foreign(f"The virtual host {self.path}")
            case nginx.BROKEN_BEFORE:
                raise StepFailedError(
                    f"nginx refuses its configuration, but not for this client's file, which is as it was: {detail} "
                    "Mend what it names, then retry.",
                    code="nginx_broken_before",
                )
            case nginx.NOT_RELOADED:
                raise CommandFailedError(f"nginx could not be told to reload: {detail}", exit_status=result.exit_status)
            case nginx.REFUSED:
                raise CommandFailedError(
                    f"nginx refused the virtual host; the former one is back: {detail}", exit_status=result.exit_status
                )
            case _:
                raise CommandFailedError(
                    f"The virtual host could not be changed: {detail}", exit_status=result.exit_status
                )


def nginx_words(stderr: bytes) -> str:
    """What nginx has against its configuration, in few words."""
    lines = stderr.splitlines()
    emergency = [line for line in lines if b"[emerg]" in line]
    return plain_text((emergency or lines[-1:] or [b""])[0])


async def has_certificate(host: Host, spec: ClientSpec) -> bool:
    """Whether a certificate for the client's domain is on the server."""
    if spec.tls is Tls.NONE:
        return False
    return (await host.run(certbot.is_there(spec), check=False)).ok


@dataclass(frozen=True, slots=True)
class EnsureCertificate(Step):
    """The client's domain has a certificate; where none can be had now, the client stays on http, with a warning.

    It is not taken back where a creation fails: those who give certificates count them, and the next try needs it.
    """

    spec: ClientSpec
    email: str
    directory_url: str

    def __str__(self) -> str:
        return f"Certificate for {self.spec.domain}"

    async def is_satisfied(self, host: Host) -> bool:
        if await has_certificate(host, self.spec):
            return True
        if await host.detached_status(certbot.RUN) is None:
            return False
        words = await self._obtain(host)
        await host.warn(
            f"No certificate for {self.spec.domain} yet, so it is served over http; certbot said: {words} "
            f"One possible cause: the name does not resolve to this server, or port 80 is closed. "
            "Retry by updating the client."
        )
        return True

    async def apply(self, host: Host) -> None:
        for command in certbot.write_mark(self.spec):
            await host.run(command)
        await self._obtain(host)

    async def _obtain(self, host: Host) -> str:
        """Have certbot's one run of this operation ended; its last words."""
        obtain = certbot.obtain(self.spec, email=self.email, server=self.directory_url)
        try:
            result = await host.run(obtain, check=False)
        except CommandTimeoutError:
            return f"nothing within {certbot.RUN_S} s."
        if result.exit_status == certbot.BUSY:
            return f"another certificate took longer than {certbot.WAIT_S} s."
        return certbot_words(result.stdout)


def certbot_words(output: bytes) -> str:
    """Why certbot gave no certificate, in few words."""
    lines = output.splitlines()
    start = next((n for n, line in enumerate(lines) if CERTBOT_REASON in line), max(0, len(lines) - CERTBOT_LINES))
    return plain_text(b"\n".join(lines[start : start + CERTBOT_LINES]))


@dataclass(frozen=True, slots=True)
class RemoveCertificates(Step):
    """No certificate that this service had made for the client is on the server.

    Args:
        keep: the domain whose certificate stays.
    """

    spec: ClientSpec
    keep: str = ""

    def __str__(self) -> str:
        return "Remove the certificates of former domains" if self.keep else "Remove the certificates"

    async def _domains(self, host: Host) -> list[str]:
        found = await host.run(certbot.list_marks(self.spec), check=False)
        names = {line.rpartition("/")[2] for line in found.text.splitlines()}
        return sorted(names - {"", self.keep})

    async def is_satisfied(self, host: Host) -> bool:
        return not await self._domains(host)

    async def apply(self, host: Host) -> None:
        for domain in await self._domains(host):
            former = replace(self.spec, domain=domain)
            if (await host.run(certbot.is_there(former), check=False)).ok:
                await host.run(certbot.delete(former))
            await host.run(files.remove_file(certbot.mark_path(former)))


@dataclass(frozen=True, slots=True)
class WaitAnswering(Step):
    """The client answers under its domain, seen from outside through the server's nginx."""

    stoppable: ClassVar[bool] = True
    spec: ClientSpec
    deadline_s: float = 30

    def __str__(self) -> str:
        return f"Wait until {self.spec.domain} answers from outside"

    async def is_satisfied(self, host: Host) -> bool:
        """Whether it does within a moment: after a reload nginx's old workers answer in between."""
        for _ in range(RELOAD_LOOKS):
            if await host.http_status(self.spec.domain, nginx.HEALTH_PATH) == 200:
                return True
            await asyncio.sleep(POLL_S)
        return False

    async def apply(self, host: Host) -> None:
        deadline = time.monotonic() + self.deadline_s
        while (status := await host.http_status(self.spec.domain, nginx.HEALTH_PATH)) != 200:
            if time.monotonic() >= deadline:
                answer = f"HTTP {status}" if status else "no answer"
                raise StepFailedError(
                    f"{self.spec.domain} does not answer from outside ({answer} on port "
                    f"{self.spec.layout.http_port} of {host.address}); look at the server's firewall and nginx there, "
                    "then retry.",
                    code="not_answering",
                )
            await asyncio.sleep(POLL_S)
