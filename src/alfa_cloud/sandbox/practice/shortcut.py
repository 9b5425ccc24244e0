"""What a line of the SSH server runs; where no fault is told, without stand-ins that would only become other programs.

A stand-in's front is a start of Python, which takes more of the processor than most commands.
"""

from __future__ import annotations

import shlex

from alfa_cloud.sandbox.practice import tools
from alfa_cloud.sandbox.practice.folder import USER
from alfa_cloud.sandbox.practice.machine import Machine


def argv(machine: Machine, line: str, session: str) -> list[str]:
    """`sh` with the line; or, for mere words that begin with sudo, what its stand-ins would become, each recorded."""
    words = _mere_words(line)
    if words[:3] != ["sudo", "-n", "--"] or machine.faults.told():
        return ["/bin/sh", *(("-c", line) if line else ())]
    return ["env", *_become(machine, words, session)]


def _mere_words(line: str) -> list[str]:
    """The words of a line that asks nothing else of a shell than to take them apart."""
    try:
        words = shlex.split(line)
    except ValueError:
        return []
    return words if shlex.join(words) == line else []


def _become(machine: Machine, words: list[str], session: str) -> list[str]:
    """Variables, and the program that has them."""
    variables: list[str] = []
    program: list[str] = []
    user = ""
    while True:
        match words:
            case ["sudo", "-n", "--", *inner]:
                _record(machine, words, session)
                user = "root"
                variables += tools.sudo_variables(user)
            case ["timeout", limit, _, *inner] if limit.startswith("--kill-after="):
                program += words[:3]
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
                return [*variables, *settings, *program, path, *inner]
            case _:
                return [*variables, *program, *words]
        words = inner


def _record(machine: Machine, words: list[str], session: str) -> None:
    """As the front's call would be: over when it becomes another program."""
    began = machine.recorder.begin("stand_in", words[0], tuple(words), " ".join(words), session)
    machine.recorder.end(began, None)
