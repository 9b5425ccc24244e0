"""What a line of the SSH server runs; where no fault is told, without processes that only stand before the work.

A stand-in's front is a start of Python, which takes more of the processor than most commands.
"""

from __future__ import annotations

import re
import shlex
from typing import Final

from alfa_cloud.sandbox.practice import tools
from alfa_cloud.sandbox.practice.folder import USER
from alfa_cloud.sandbox.practice.machine import Machine

LOOK: Final = re.compile(
    r"sudo -n -- timeout --kill-after=\d+ \d+ docker (version|(container|image) (ls|inspect)) "
    r"|timeout --kill-after=\d+ [\d.]+ curl "
)


def look(machine: Machine, line: str, session: str) -> list[str]:
    """The stand-in and its arguments, where a line only looks at Docker or asks an app; else nothing."""
    words = _mere_words(line) if LOOK.match(line) else []
    if not words or machine.faults.told():
        return []
    if words[0] == "sudo":
        _record(machine, words, session)
        words = words[3:]
    return words[3:]


def program(machine: Machine, line: str, session: str) -> tuple[list[str], dict[str, str]]:
    """The arguments and the variables for a line.

    They are `sh` with the line; or, for mere words that begin with sudo, what its stand-ins would become (recorded).
    """
    words = _mere_words(line)
    if words[:3] != ["sudo", "-n", "--"] or machine.faults.told():
        return ["/bin/sh", *(("-c", line) if line else ())], {}
    return _become(machine, words, session)


def _mere_words(line: str) -> list[str]:
    """The words of a line that asks nothing else of a shell than to take them apart."""
    try:
        words = shlex.split(line)
    except ValueError:
        return []
    return words if shlex.join(words) == line else []


def _become(machine: Machine, words: list[str], session: str) -> tuple[list[str], dict[str, str]]:
    """A program, and its variables; `env` or `timeout` looks for it, and says that it is not there as a shell would."""
    variables: list[str] = []
    before = ["env"]
    user = ""
    while True:
        match words:
            case ["sudo", "-n", "--", *inner]:
                _record(machine, words, session)
                user = "root"
                variables += tools.sudo_variables(user)
            case ["timeout", limit, _, *inner] if limit.startswith("--kill-after="):
                before = words[:3]
            case ["runuser", "-u", user, "--", *inner]:
                _record(machine, words, session)
                variables.append(f"{USER}={user}")
            case ["env", *inner]:
                pass
            case [word, *inner] if "=" in word:
                variables.append(word)
            case [name, *inner] if name in tools.POSTGRES:
                _record(machine, words, session)
                path, *settings = tools.postgres_real(machine, name, user)
                return [*before, path, *inner], _environment([*variables, *settings])
            case _:
                return [*before, *words], _environment(variables)
        words = inner


def _environment(variables: list[str]) -> dict[str, str]:
    """By name."""
    return {name: value for name, _, value in (word.partition("=") for word in variables)}


def _record(machine: Machine, words: list[str], session: str) -> None:
    """As the front's call would be: over when it becomes another program."""
    began = machine.recorder.begin("stand_in", words[0], tuple(words), " ".join(words), session)
    machine.recorder.end(began, None)
