"""A client's container is replaced by another one, beside which it serves on until that one has taken over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alfa_cloud.playbooks.playbook import Playbook, Step
from alfa_cloud.playbooks.steps.client import EnsureCloudSettings
from alfa_cloud.playbooks.steps.drift import NoteDrift
from alfa_cloud.playbooks.steps.image import EnsureImage
from alfa_cloud.playbooks.steps.rollout import (
    ClearBeside,
    EnsureOneService,
    EnsureServices,
    PointProxy,
    RetireFormer,
    RollOut,
    SetOwnerThere,
    StartBeside,
    WaitBesideHealthy,
)
from alfa_cloud.playbooks.steps.server import CheckOwnership
from alfa_cloud.playbooks.steps.web import EnsureCertificate, EnsurePage, RemoveCertificates, WaitAnswering
from alfa_cloud.specs import CloudSettings, Secret, Tls


@dataclass(frozen=True, slots=True)
class Web:
    """How a client's address is made anew: with its page, and with a certificate where the server has them."""

    certbot_email: str
    certbot_server: str


def roll_out(
    rollout: RollOut,
    old: CloudSettings,
    new: CloudSettings,
    *,
    image: EnsureImage | None = None,
    owner: Secret | None = None,
    web: Web | None = None,
    note_drift: bool = False,
) -> Playbook:
    """The client runs as it is to, without a failed request; a failure leaves it as it was, served all along.

    Args:
        old: what the client's database says now.
        owner: a password that its administrator gets.
        web: where more than the container behind the address may have changed.
        note_drift: whether the log says which file of the client differs from what it should be.
    """
    after = rollout.after
    steps: list[Step] = [
        CheckOwnership(rollout.before),
        *([image] if image else []),
        *([NoteDrift(rollout)] if note_drift else []),
        ClearBeside(rollout),
        EnsureServices(rollout),
        StartBeside(rollout),
        WaitBesideHealthy(rollout),
        *([SetOwnerThere(rollout, owner)] if owner else []),
        *(_web_steps(rollout, web) if web else [PointProxy(rollout)]),
        EnsureCloudSettings(after, rollout.secrets.database_password, new, before=old),
        WaitAnswering(after),
    ]
    after_all: list[Step] = [RetireFormer(rollout), EnsureOneService(rollout)]
    if web and after.tls is Tls.CERTBOT:
        after_all.append(RemoveCertificates(after, keep=after.domain))
    return Playbook([*steps, *after_all], no_return=len(steps))


def _web_steps(rollout: RollOut, web: Web) -> Sequence[Step]:
    after = rollout.after
    secure: list[Step] = []
    if after.tls is Tls.CERTBOT:
        secure = [EnsureCertificate(after, web.certbot_email, web.certbot_server), PointProxy(rollout)]
    return [*([EnsurePage(after, rollout.before)] if after.page else []), PointProxy(rollout), *secure]
