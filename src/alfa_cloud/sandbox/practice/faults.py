"""What is to go wrong on a practice server: told by tests in a file, taken by whatever runs a command."""

from __future__ import annotations

import json
import re
import shlex
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from alfa_cloud.sandbox.practice.folder import write_aside

FLOOD_LINE: Final = b"the quick brown fox jumps over the lazy dog 0123456789 and floods the log\n"
# Bad UTF-8, NUL, a terminal title, colours, a bidi override, a script, and a line without an end.
GARBAGE: Final = (
    b"\xff\xfe\x00\x80\xc3(\x1b]0;owned\x07\x1b[31mred\x1b[0m\xe2\x80\xae<script>alert(1)</script>\r\n"
    + bytes(range(256))
)


class Action(StrEnum):
    """What goes wrong."""

    FAIL = "fail"
    """It ends with `exit_status` and `stderr`, having done nothing (phase `after`: all of it)."""
    HANG = "hang"
    """It stands still for `seconds` (None: until it is ended), and then fails."""
    SLOW = "slow"
    """It stands still for `seconds`, and then does its work."""
    FLOOD = "flood"
    """It prints `lines` lines as well."""
    GARBAGE = "garbage"
    """It prints `lines` pieces of hostile bytes as well."""
    KILL_CONNECTION = "kill_connection"
    """The SSH connection is cut."""
    NOEXIT = "noexit"
    """The SSH channel closes without an exit status."""


class Phase(StrEnum):
    """When it goes wrong."""

    BEFORE = "before"
    """Instead of the work (`slow`, `flood`, `garbage`: before it)."""
    DURING = "during"
    """And the work goes on (`kill_connection` and `noexit`)."""
    AFTER = "after"
    """When the work is done."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    Args:
        match: a regular expression, searched in the arguments joined by spaces.
        times: how often; None is always.
    """

    id: str
    match: str
    action: Action
    phase: Phase = Phase.BEFORE
    exit_status: int = 1
    stderr: str = ""
    seconds: float | None = None
    lines: int = 1_000_000
    times: int | None = None

    @classmethod
    def parse(cls, raw: dict[str, Any]) -> Fault:
        """A fault as it stands in the file."""
        return cls(**{**raw, "action": Action(raw["action"]), "phase": Phase(raw["phase"])})


def load(path: Path) -> list[Fault]:
    """The faults in a file; none where there is no file."""
    try:
        return [Fault.parse(raw) for raw in json.loads(path.read_text())]
    except FileNotFoundError:
        return []


def save(path: Path, faults: Iterable[Fault]) -> None:
    """A file holds these faults."""
    write_aside(path, json.dumps([asdict(fault) for fault in faults]))


class FaultBook:
    """The faults of a running practice server, and how often each one struck."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.struck: dict[str, int] = {}
        self.lock = threading.Lock()

    def take(self, line: str) -> Fault | None:
        """The first fault that is due for a command line; it counts as struck."""
        with self.lock:
            for fault in load(self.path):
                struck = self.struck.get(fault.id, 0)
                if (fault.times is None or struck < fault.times) and re.search(fault.match, line, re.DOTALL):
                    self.struck[fault.id] = struck + 1
                    return fault
        return None


def words(line: str) -> set[str]:
    """The words of a shell line, those of scripts in it too."""
    try:
        parts = shlex.split(line)
    except ValueError:
        parts = line.split()
    return {word for part in parts for word in (part, *re.split(r"[\s;|&()`$\"']+", part))}


def leads_to(line: str, programs: Iterable[str]) -> bool:
    """Whether a shell line names one of these programs."""
    return not words(line).isdisjoint(programs)
