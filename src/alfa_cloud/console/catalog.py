"""Every command of clients, servers and operations, as the console offers it; a test holds it equal to the OpenAPI
document.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Option:
    """One parameter of a command.

    Args:
        name: as the API has it; on the command line `page_text` is `--page-text`.
        flag: whether it is given without a value.
        needed: whether the command does not work without it.
        repeated: whether it is `NAME=VALUE`, any number of times; `filter` becomes `filter[NAME]`.
    """

    name: str
    help: str
    flag: bool = False
    needed: bool = False
    repeated: bool = False

    @property
    def word(self) -> str:
        """As it stands on the command line."""
        return "--" + self.name.replace("_", "-")


@dataclass(frozen=True, slots=True)
class Entry:
    """One command of a client, a server or an operation.

    Args:
        path: of the API; `{id}` is the subject, another name in braces one of `ARGUMENTS`.
        subject: the query parameter that names the subject, where the path does not.
        options: query parameters.
        fields: members of the body; `password` is asked for, or read from standard input.
        waits: whether it answers an operation, whose end is waited for.
    """

    name: str
    path: str
    help: str
    options: tuple[Option, ...] = ()
    fields: tuple[Option, ...] = ()
    method: str = "POST"
    waits: bool = True
    subject: str = ""


ARGUMENTS: Final = {
    "image_name": ("IMAGE", "a tag, REPOSITORY:TAG or a channel"),
    "server_id": ("SERVER", "id or name of the other server"),
    "backup_id": ("BACKUP", "id of the back-up"),
}
"""What a path may name beside its subject, and how the command line asks for it."""

PAGE: Final = (
    Option("page_text", "what the page says beside its own words"),
    Option("ends_at", "when it is thought to end, RFC 3339"),
)
RUN_MIGRATE: Final = Option("run_migrate", "migrate too, as one operation", flag=True)
FLEET: Final = (
    Option("max_parallel", "how many at once"),
    Option("canary_count", "how many go first, alone; if one fails, the rest do not start"),
    Option("max_failures", "start no more past so many failures"),
)
FILTER: Final = Option("filter", "only these clients, as NAME=VALUE", repeated=True)

CLIENT: Final = (
    Entry("reboot", "/clients/{id}/reboot", "restart its container"),
    Entry("maintain-enable", "/clients/{id}/maintain_enable", "show the maintenance page", PAGE),
    Entry("maintain-disable", "/clients/{id}/maintain_disable", "show the application again"),
    Entry("demo-enable", "/clients/{id}/demo_enable", "add the demo data"),
    Entry(
        "demo-disable",
        "/clients/{id}/demo_disable",
        "take the demo data away",
        (
            Option("restore_backup", "bring back the dump taken before the demo data", flag=True),
            Option("confirm_loss", "what was written since is lost", flag=True),
        ),
    ),
    Entry(
        "owner-password",
        "/clients/{id}/owner_password",
        "give its administrator a new password, asked for or read from standard input",
        fields=(Option("password", "the new password"),),
    ),
    Entry(
        "expire-date",
        "/clients/{id}/expire_date",
        "set the last day of use",
        fields=(
            Option("expire_date", "YYYY-MM-DD, or `never`", needed=True),
            Option("comment", "why"),
        ),
        waits=False,
    ),
    Entry(
        "expire-dates", "/clients/{id}/expire_dates_history", "every change of the last day", method="GET", waits=False
    ),
    Entry("switch", "/clients/{id}/switch/{image_name}", "run another image", (RUN_MIGRATE,)),
    Entry("migrate", "/clients/{id}/migrate", "migrate its database"),
    Entry(
        "send-success",
        "/clients/{id}/send_success",
        "send the letter with the address and the login",
        (Option("new_password", "set a new password and send it", flag=True),),
    ),
    Entry("send-expire", "/clients/{id}/send_expire", "send the letter that the term ends"),
    Entry("move-to", "/clients/{id}/move_to/{server_id}", "move it to another server, with its data"),
    Entry(
        "copy-to",
        "/clients/{id}/copy_to/{server_id}",
        "copy it to a stage server, as a client of its own",
        (
            Option("name", "the copy's; its own with `-copy` behind, where none is given"),
            Option("scrub", "take personal data out of the copy", flag=True),
        ),
    ),
    Entry("back-up", "/clients/{id}/backups", "take a back-up now"),
    Entry("backups", "/clients/{id}/backups", "its back-ups, the newest first", method="GET", waits=False),
    Entry(
        "backup",
        "/clients/{id}/backups/{backup_id}",
        "one back-up, with a link to its file that is good for 15 minutes",
        method="GET",
        waits=False,
    ),
    Entry(
        "restore-backup",
        "/clients/{id}/backups/{backup_id}/restore",
        "put a back-up in the place of its data; what it has now is backed up first",
    ),
    Entry(
        "delete",
        "/clients/{id}",
        "archive it, and take it from every server",
        (
            Option("keep_archive", "`false`: without an archive, so that nothing brings it back"),
            Option("confirm_name", "its name, where no archive is made"),
        ),
        method="DELETE",
    ),
    Entry(
        "restore",
        "/clients/{id}/restore",
        "bring a deleted one back from its archive",
        (Option("server_id", "id or name of the server; where it stood, where none is given"),),
    ),
)
SERVER: Final = (
    Entry("check", "/servers/{id}/check", "look at every requirement", method="GET", waits=False),
    Entry("images", "/servers/{id}/images", "its images", method="GET", waits=False),
    Entry("provision", "/servers/{id}/provision", "install what is missing"),
    Entry("reboot", "/servers/{id}/reboot_server", "reboot it"),
    Entry(
        "deploy",
        "/servers/{id}/deploy",
        "write all configuration anew, restart what changed",
        (Option("restart_all", "restart everything", flag=True), RUN_MIGRATE, *FLEET),
    ),
    Entry(
        "switch-all",
        "/servers/{id}/switch_all",
        "every client to another image",
        (Option("image_name", "the image", needed=True), RUN_MIGRATE, *FLEET, FILTER),
    ),
    Entry("migrate-all", "/servers/{id}/migrate_all", "migrate every client", (*FLEET, FILTER)),
    Entry(
        "maintain-enable",
        "/servers/{id}/maintain_enable",
        "show the maintenance page for every client",
        (*PAGE, *FLEET),
    ),
    Entry("maintain-disable", "/servers/{id}/maintain_disable", "show every application again", FLEET),
    Entry("build-dev", "/containers/{id}/build_dev", "build an image of branch dev"),
    Entry("build-prod", "/containers/{id}/build_prod", "build an image of branch master"),
    Entry("prune", "/containers/prune", "remove its unused images", FLEET, subject="server_id"),
)
OPERATION: Final = (
    Entry("cancel", "/operations/{id}/cancel", "ask it to stop", waits=False),
    Entry("retry", "/operations/{id}/retry", "run it again; of a command for many, only what failed"),
    Entry(
        "undo",
        "/operations/{id}/undo",
        "bring a moved client back to its former server, as it was when it left",
        (Option("confirm_loss", "what was written since is lost", flag=True),),
    ),
)
OF_KIND: Final = {"client": CLIENT, "server": SERVER, "operation": OPERATION}
