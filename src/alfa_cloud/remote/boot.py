"""A server's reboot: asked for, and proven by its boot id."""

from __future__ import annotations

from typing import Final

from alfa_cloud.remote.command import Command

BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
"""Another one after each boot (random(4))."""


def read_id() -> Command:
    """Print the boot id."""
    return Command(("cat", BOOT_ID), log=False, timeout_s=5)


def remember_id() -> Command:
    """Print the boot id that was in force when this operation asked first, whatever it is by now."""
    return Command(("cat", BOOT_ID), sudo=True, log=False, timeout_s=20, detached="boot")


def reboot() -> Command:
    """The server goes down; the connection may end before the command does."""
    return Command(("reboot",), sudo=True, timeout_s=60)
