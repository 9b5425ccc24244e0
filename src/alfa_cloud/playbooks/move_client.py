"""A client moves to another server with all its data, and back where the former server still has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from alfa_cloud.playbooks.playbook import Elsewhere, Held, Once, Playbook, Step
from alfa_cloud.playbooks.steps.client import (
    EnsureCloudSettings,
    EnsureComposeFile,
    EnsureContainer,
    EnsureDatabase,
    EnsureFolder,
    WaitHealthy,
)
from alfa_cloud.playbooks.steps.data import CheckDumpSpace, EnsureDump
from alfa_cloud.playbooks.steps.database_copy import CheckDatabaseSpace, CopyDatabase, VerifyDatabase
from alfa_cloud.playbooks.steps.image import EnsureImage
from alfa_cloud.playbooks.steps.migration import CheckSpace, ShowPage, WaitQuiet
from alfa_cloud.playbooks.steps.move import Commit, Forward, StopClient
from alfa_cloud.playbooks.steps.rollout import RollOut
from alfa_cloud.playbooks.steps.server import CheckOwnership, CheckPlace
from alfa_cloud.playbooks.steps.tree import CheckFilesSpace, CopyFiles, SendDifference, VerifyFiles
from alfa_cloud.playbooks.steps.web import EnsureCertificate, EnsurePage, EnsureVirtualHost, RemovePage, WaitAnswering
from alfa_cloud.playbooks.switch_client import Web
from alfa_cloud.remote import compose
from alfa_cloud.specs import ClientSecrets, ClientSpec, CloudSettings, Tls


@dataclass(frozen=True, slots=True)
class Move:
    """A client here, and there.

    Args:
        here: as it is on the playbook's own server.
        there: as it is to be on the other one.
        commit: the row says the other server.
        committed: whether it did so before this plan was made.
    """

    here: ClientSpec
    there: ClientSpec
    target: Elsewhere
    secrets: ClientSecrets = field(repr=False)
    settings: CloudSettings
    web: Web
    commit: Commit
    committed: bool = False

    @property
    def rollout(self) -> RollOut:
        """The client's container here, which is kept as it is."""
        return RollOut(self.here, self.here, self.secrets, in_place=True)

    def playbook(self, before: Sequence[Step]) -> Playbook:
        """These steps, taken back where one fails; then the commit, and what follows from it."""
        steps = [Held(step) for step in before] if self.committed else before
        return Playbook([*steps, self.commit, *self._after()], no_return=len(steps))

    def start(self) -> list[Step]:
        """The client's container runs there, and nobody is sent to it yet."""
        on = self.target.on
        return [
            on(EnsureComposeFile(self.there, self.secrets)),
            on(EnsureContainer(self.there, compose.label_of(self.there, self.secrets))),
            on(WaitHealthy(self.there)),
            on(EnsureCloudSettings(self.there, self.secrets.database_password, self.settings)),
        ]

    def _after(self) -> list[Step]:
        on, there = self.target.on, self.there
        forward = Forward(self.here, target=self.target, target_spec=there)
        secure: list[Step] = []
        if there.tls is Tls.CERTBOT:
            certificate = EnsureCertificate(there, self.web.certbot_email, self.web.certbot_server)
            secure = [on(certificate), on(EnsureVirtualHost(there)), forward]
        return [
            *([on(EnsurePage(there))] if there.page else []),
            on(EnsureVirtualHost(there)),
            forward,
            *secure,
            on(WaitAnswering(there)),
            RemovePage(self.here),
        ]


def move_client(move: Move, *, image: EnsureImage, name: str, min_free_bytes: int) -> Playbook:
    """The client is on the other server, with every row and every file; a failure leaves it where it was.

    Args:
        name: of the transfer, the operation's own.
    """
    on, here, there = move.target.on, move.here, move.there
    target, password, rollout = move.target, move.secrets.database_password, move.rollout
    return move.playbook(
        [
            CheckOwnership(here),
            CheckDatabaseSpace(here, target, min_free_bytes),
            CheckFilesSpace(here, target, min_free_bytes),
            on(image),
            on(CheckPlace(there, min_free_bytes)),
            on(EnsureFolder(there)),
            on(EnsureDatabase(there, password)),
            on(EnsureCloudSettings(there, password, move.settings)),
            CopyFiles(here, target, there, name),
            ShowPage(rollout),
            WaitQuiet(rollout),
            StopClient(rollout),
            CopyDatabase(here, target, there, name),
            SendDifference(here, target, there, name),
            Once(VerifyDatabase(here, target, there)),
            VerifyFiles(here, target, there),
            *move.start(),
        ]
    )


def undo_move(move: Move, *, name: str, min_free_bytes: int) -> Playbook:
    """The client is back on its former server, as it was when it left; what it has here now is dumped and kept.

    Args:
        name: of that dump, the operation's own.
    """
    rollout = move.rollout
    return move.playbook(
        [
            CheckOwnership(move.here),
            move.target.on(CheckOwnership(move.there)),
            CheckSpace(CheckDumpSpace(move.here, name, min_free_bytes)),
            ShowPage(rollout),
            WaitQuiet(rollout),
            StopClient(rollout),
            EnsureDump(move.here, name, "undo", frozen=True),
            *move.start(),
        ]
    )
