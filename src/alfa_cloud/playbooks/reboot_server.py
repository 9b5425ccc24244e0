"""A server is rebooted, and serves its clients again."""

from __future__ import annotations

from collections.abc import Sequence

from alfa_cloud.playbooks.playbook import Playbook
from alfa_cloud.playbooks.steps.reboot import RebootServer, WaitClients, WaitDocker


def reboot_server(domains: Sequence[str], *, deadline_s: float, under_way: bool) -> Playbook:
    """The server has booted anew; Docker and the clients of these domains answer.

    Args:
        deadline_s: how long the server, and then each of the others, may take.
        under_way: whether an earlier worker asked for the reboot already.
    """
    return Playbook(
        [
            RebootServer(deadline_s, under_way, tuple(domains)),
            WaitDocker(deadline_s),
            WaitClients(tuple(domains), deadline_s),
        ],
        undo_on_failure=False,
    )
