"""What plans and services take from the settings; frozen."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

from alfa_cloud.specs import AppProfile, Secret


@dataclass(frozen=True, slots=True)
class MailProfile:
    """How letters leave.

    Args:
        smtp_url: where they are handed over, and as whom; empty where none can be sent.
        sender: an address, or `Name <address>`.
        contact: whom a reader may ask; empty is the sender.
        templates: a folder whose files replace the built-in ones; empty where there is none.
        delays_s: before each try, while the mail server takes none.
        success_automatically: whether a new client's letter is sent by itself.
    """

    smtp_url: Secret = Secret("")  # noqa: RUF009  as frozen as a string
    sender: str = ""
    contact: str = ""
    templates: str = ""
    delays_s: tuple[float, ...] = (0, 30, 120, 600, 900)
    success_automatically: bool = False


class Branch(StrEnum):
    """A branch that images are built from; it is the end of their tags."""

    DEV = "dev"
    MASTER = "master"


# No option, no password, no other way than ssh and https; whatever git itself makes of a path is quoted by it.
SOURCE_URL: Final = re.compile(
    r"(?:(?P<ssh>ssh://(?:\w[\w.-]*@)?)|https://)[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,5})?/[\w.~/+-]+"
    r"|(?P<scp>\w[\w.-]*@)[A-Za-z0-9][A-Za-z0-9.-]*:[\w.~/][\w.~/+-]*",
    re.ASCII,
)
HOST_KEY_LINE: Final = re.compile(r"(?:ssh-(?:ed25519|rsa)|ecdsa-sha2-nistp(?:256|384|521)) [A-Za-z0-9+/]+=*")


@dataclass(frozen=True, slots=True)
class Source:
    """The git repository that images are built from.

    Args:
        url: `ssh://USER@HOST[:PORT]/PATH`, `USER@HOST:PATH` or `https://HOST/PATH`; empty where there is none.
        key_file: a private key without a passphrase, on the machines of api and worker; needed for ssh.
        host_key: the only key that the repository's host may show, `TYPE BASE64`; needed for ssh.
        dev_frontend: what makes the front end in the checked-out tree; empty where nothing must.
    """

    url: str = ""
    key_file: str = ""
    host_key: str = ""
    dev_frontend: tuple[str, ...] = ()
    master_frontend: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.url:
            return
        if not SOURCE_URL.fullmatch(self.url):
            raise ValueError("ALFA_SOURCE__URL is ssh://USER@HOST/PATH, USER@HOST:PATH or https://HOST/PATH")
        if self.by_ssh and not self.key_file:
            raise ValueError("ALFA_SOURCE__KEY_FILE is needed where ALFA_SOURCE__URL goes by ssh")
        if self.by_ssh and not HOST_KEY_LINE.fullmatch(self.host_key):
            raise ValueError("ALFA_SOURCE__HOST_KEY is one line such as: ssh-ed25519 AAAAC3Nza...")

    @property
    def by_ssh(self) -> bool:
        """Whether git reaches it by ssh, with the deploy key."""
        match = SOURCE_URL.fullmatch(self.url)
        return match is not None and bool(match["ssh"] or match["scp"])

    def frontend(self, branch: Branch) -> tuple[str, ...]:
        """What makes the front end of a branch; empty where nothing must."""
        return self.dev_frontend if branch is Branch.DEV else self.master_frontend


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long data is kept that a client does not work with any more; days.

    Args:
        source_days: what a moved client left on its former server: the way back.
        forward_days: so long that server sends visitors on to the new one, until names are known everywhere.
        archive_days: the archive of a deleted client.
        backup_days: a back-up that somebody asked for.
        daily: how many scheduled back-ups are kept, one a day; `weekly` and `monthly` the same by weeks and months.
        scheduled: whether back-ups are made by the clock.
        hour: of the day from which on they are made.
        prove_days: how often the newest back-up of each client is restored into a scratch database; 0 is never.
    """

    source_days: float = 7
    forward_days: float = 14
    archive_days: float = 90
    backup_days: float = 90
    daily: int = 7
    weekly: int = 4
    monthly: int = 6
    scheduled: bool = True
    hour: int = 3
    prove_days: float = 7

    def __post_init__(self) -> None:
        if not 0 <= self.hour <= 23:
            raise ValueError("ALFA_KEEP__HOUR is an hour of the day, from 0 to 23")


@dataclass(frozen=True, slots=True)
class Profile:
    """What plans take from the settings."""

    app: AppProfile
    min_free_bytes: int
    certbot_email: str = ""
    certbot_server: str = ""
    mail: MailProfile = MailProfile()
    zone: ZoneInfo = ZoneInfo("Europe/Moscow")  # noqa: RUF009  immutable
    """Whose days count."""
    block_expired: bool = True
    """Whether a client is blocked from the day after its last one."""
    source: Source = Source()
    reboot_deadline_s: float = 600
    keeping: Keeping = Keeping()
