"""Quoting, seen by what a real shell makes of it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alfa_cloud.remote.command import Command
from alfa_cloud.specs import Secret

HOSTILE = [
    "$(touch canary)",
    "`touch canary`",
    "';touch canary;'",
    '";touch canary;"',
    "; touch canary",
    "| touch canary",
    "&& touch canary",
    "\n touch canary",
    "\r",
    "${IFS}",
    ">canary",
    "*",
    "~",
    "!",
    "!!",
    "%0a",
    "\u2028",
    "",
    "-oProxyCommand=touch canary",
    "--",
    "=x",
    "\\",
    "'",
    "пароль с пробелом",
    "x" * 10_000,
]
SHOW = "import json,sys,os; json.dump([os.fsencode(a).hex() for a in sys.argv[1:]], sys.stdout)"


def shown(line: str) -> list[str]:
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=True)
    return [bytes.fromhex(argument).decode() for argument in json.loads(done.stdout)]


def test_hostile_arguments_arrive_as_they_are() -> None:
    command = Command((sys.executable, "-c", SHOW, *HOSTILE))
    assert shown(command.to_shell()) == HOSTILE


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20), max_size=6))
def test_the_line_holds_the_very_arguments(arguments: list[str]) -> None:
    line = Command(("printf", *arguments)).to_shell()
    done = subprocess.run(["/bin/sh", "-c", f"set -- {line}; printf '%s\\0' \"$@\""], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[3:-1] == ["printf", *arguments]


def test_bounds_and_sudo_stand_before_the_program() -> None:
    command = Command(("git", "fetch"), sudo=True, timeout_s=90)
    assert command.bounded_argv() == (
        *("sudo", "-n", "--", "timeout", "--kill-after=10", "90"),
        *("git", "fetch"),
    )


def test_a_secret_among_the_arguments_is_refused() -> None:
    with pytest.raises(TypeError):
        Command(("mysql", Secret("hunter2hunter2")))  # type: ignore[arg-type]


def test_nul_and_an_empty_command_are_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        Command(("printf", "a\0b"))
    with pytest.raises(ValueError, match="program"):
        Command(())


def test_standard_input_is_not_in_the_representation() -> None:
    assert "hunter2" not in repr(Command(("cat",), stdin=b"hunter2"))
