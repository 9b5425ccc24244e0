"""What on a server differs from what this service put there, said before it is mended."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Final

from alfa_cloud.playbooks.playbook import Check
from alfa_cloud.playbooks.steps.rollout import RollOut
from alfa_cloud.playbooks.steps.web import has_certificate
from alfa_cloud.remote import compose, files, nginx, pages
from alfa_cloud.remote.host import Host

MAX_LINES: Final = 40
SECRET_LINE: Final = re.compile(r"(?m)^(\s*\w*(?:KEY|PASSWORD|SECRET|TOKEN)\w*: ).*$")
"""In a compose file: its values are shown neither as they are nor as they were."""


@dataclass(frozen=True, slots=True)
class NoteDrift(Check):
    """The log and the operation's result say which of the client's files is not as this service left it, and how."""

    rollout: RollOut

    def __str__(self) -> str:
        return "Look for files that were changed on the server"

    async def check(self, host: Host) -> None:
        drifted = []
        for path, wanted in (await self._wanted(host)).items():
            found = await files.read(host, path)
            if found != wanted:
                drifted.append(path.rpartition("/")[2])
                for line in difference(path, found, wanted):
                    await host.note(line)
        await host.report(drift=drifted)

    async def _wanted(self, host: Host) -> dict[str, str]:
        """The files as they should be now, by path."""
        present = (await self.rollout.places(host)).present
        secure = await has_certificate(host, present)
        wanted = {
            compose.path(present): compose.render(present, self.rollout.secrets),
            present.layout.vhost_path(present.name): nginx.render_vhost(present, secure=secure),
        }
        if present.page:
            wanted[pages.client_path(present)] = pages.render(present)
        return {path: content.decode() for path, content in wanted.items()}


def difference(path: str, found: str | None, wanted: str) -> list[str]:
    """What is wrong with a file, in a few lines and without secrets."""
    if found is None:
        return [f"{path} is not there."]
    was, should = (SECRET_LINE.sub(r"\1***", text).splitlines() for text in (found, wanted))
    lines = list(difflib.unified_diff(was, should, "as it is", "as it should be", n=1, lineterm=""))
    if not lines:
        return [f"{path} differs in a secret."]
    more = [f"... and {len(lines) - MAX_LINES} lines more"] if len(lines) > MAX_LINES else []
    return [f"{path} differs:", *lines[:MAX_LINES], *more]
