"""Images that nobody needs leave a server."""

from __future__ import annotations

from alfa_cloud.playbooks.playbook import Playbook
from alfa_cloud.playbooks.steps.prune import Needed, RemoveUnneededImages


def prune_server(repository: str, needed: Needed) -> Playbook:
    """Only those images of the app are there that somebody needs, and the newest of each branch."""
    return Playbook([RemoveUnneededImages(repository, needed)], undo_on_failure=False)
