"""Letters to laboratories."""

from __future__ import annotations

from alfa_cloud.playbooks.playbook import Playbook
from alfa_cloud.playbooks.steps.client import SetOwner, WaitHealthy
from alfa_cloud.playbooks.steps.facts import Tell
from alfa_cloud.playbooks.steps.letters import SendLetter
from alfa_cloud.playbooks.steps.server import CheckOwnership
from alfa_cloud.specs import ClientSpec, Secret


def send_letter(step: SendLetter) -> Playbook:
    """The letter has left."""
    return Playbook([step], undo_on_failure=False)


def say_nothing(reason: str) -> Playbook:
    """No letter has left, and the log says why."""
    return Playbook([Tell(reason)], undo_on_failure=False)


def send_new_password(spec: ClientSpec, password: Secret, step: SendLetter) -> Playbook:
    """The laboratory's administrator has a new password, and the letter with it has left."""
    return Playbook(
        [
            CheckOwnership(spec),
            WaitHealthy(spec),
            SetOwner(spec, password),
            Tell("The new password counts", {"password_set": True}),
            step,
        ],
        undo_on_failure=False,
    )
