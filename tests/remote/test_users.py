"""Users of all clients of a server, counted by one command."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from alfa_cloud.remote import users
from alfa_cloud.remote.command import Command
from alfa_cloud.specs import DatabaseEngine
from tests.playbooks.specs import make_spec

# What each client's database answers, by the last digit of its name.
DATABASE = """#!/bin/sh
cat >>"$SEEN"
for word; do :; done
case $word in
  *1) echo 12 ;;
  *2) echo 'ERROR: no such table' >&2; exit 1 ;;
  *3) printf '5\\n4 99\\n' ;;
  *4) yes 9 ;;
  *5) echo "-1" ;;
  *6) echo 0 ;;
esac
"""


def run(command: Command, folder: Path) -> str:
    """What the script prints where both database systems' programs are this."""
    for name in ("mariadb", "psql"):
        (folder / name).write_text(DATABASE)
        (folder / name).chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "SEEN": str(folder / "seen")}
    done = subprocess.run(command.argv, input=command.stdin, capture_output=True, env=environment, check=True)
    assert done.stderr == b""
    return done.stdout.decode()


@pytest.mark.parametrize("engine", DatabaseEngine)
def test_what_is_no_number_is_nothing(engine: DatabaseEngine, tmp_path: Path) -> None:
    command = users.count([make_spec(id=number, engine=engine) for number in range(1, 7)])
    assert users.parse(run(command, tmp_path)) == {1: 12, 6: 0}
    assert (tmp_path / "seen").read_text().count("FROM ") == 6


@pytest.mark.parametrize("engine", DatabaseEngine)
def test_each_is_asked_by_its_own_login(engine: DatabaseEngine) -> None:
    command = users.count([make_spec(id=number, engine=engine) for number in (1, 2)])
    told = command.stdin.decode().split("\0")
    file = ".my.cnf" if engine is DatabaseEngine.MARIADB else ".pgpass"
    for number in (1, 2):
        assert any(word.endswith(f"/clients/lab-{number}/{file}") for word in told)
        assert f"--database=alfa_{number}" in told or f"--dbname=alfa_{number}" in told
    assert "root" not in command.stdin.decode()


def test_lines_of_another_form_are_left_out() -> None:
    assert users.parse("7 3\n8 x\n 9 1\n10 1 1\n99999999999 1\n11 9999999999\n") == {7: 3}
