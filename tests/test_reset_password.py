"""`alfa-cloud reset-password`, as a person on the host runs it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from alfa_cloud.db import SessionFactory
from alfa_cloud.services import credentials
from alfa_cloud.services.credentials import CheckedLogins
from alfa_cloud.specs import Secret

OLD, NEW = "прежний-пароль-1", "новый-пароль-🔑-новый"
ARGV = [sys.executable, "-m", "alfa_cloud.cli", "reset-password"]


@pytest.fixture
def environment(database_url: str) -> dict[str, str]:
    """The settings of a service on this database."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ALFA_")}
    return {
        **kept,
        "ALFA_DATABASE_URL": database_url,
        "ALFA_REDIS_URL": "redis://127.0.0.1:1",
        "ALFA_SECRET_KEY": "A" * 43 + "=",
        "ALFA_ALLOWED_ORIGINS": "https://mol.test",
        "ALFA_ALLOWED_NETWORKS": "*",
    }


def run(environment: dict[str, str], text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command without a terminal."""
    return subprocess.run(
        [*ARGV, *arguments], input=text, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )


def at_terminal(environment: dict[str, str], answers: list[tuple[str, str]]) -> tuple[int, str]:
    """The exit status and all that the terminal showed, where each prompt got its answer."""
    ours, theirs = os.openpty()
    with subprocess.Popen(
        ARGV, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    ) as process:
        os.close(theirs)
        shown = b""
        for prompt, answer in answers:
            seen = len(shown)
            while prompt.encode() not in shown[seen:]:
                shown += os.read(ours, 4096)
            os.write(ours, f"{answer}\n".encode())
        try:
            while part := os.read(ours, 4096):
                shown += part
        except OSError:  # the other end is closed
            pass
        status = process.wait(60)
    os.close(ours)
    return status, shown.decode()


async def works(sessions: SessionFactory, login: str, password: str) -> bool:
    """Whether the API would take this login now."""
    async with sessions() as session:
        stored = await credentials.read(session)
    return await credentials.verify(stored, CheckedLogins(), login, password)


async def test_lines_make_and_then_replace_the_login(environment: dict[str, str], sessions: SessionFactory) -> None:
    made = run(environment, f"admin\n{OLD}\n")
    assert (made.returncode, made.stdout) == (0, "The administrator 'admin' was made.\n")
    assert await works(sessions, "admin", OLD)
    replaced = run(environment, f"{NEW}\r\n", "--login", "админ")
    assert replaced.returncode == 0
    assert "'админ' has a new login and password" in replaced.stdout
    assert await works(sessions, "админ", NEW)
    assert not await works(sessions, "admin", OLD)
    assert NEW not in made.stdout + made.stderr + replaced.stdout + replaced.stderr


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "login"),
        ("admin\n", "password"),
        ("ad:min\nlong-enough-password\n", "login"),
        ("admin\ntoo-short\n", "password"),
        ("admin\nlong-enough\tpassword\n", "password"),
        ("long-enough-admin\nlong-enough-admin\n", "password"),
    ],
)
async def test_what_does_not_follow_the_rules_changes_nothing(
    environment: dict[str, str], sessions: SessionFactory, text: str, field: str
) -> None:
    async with sessions.begin() as session:
        await credentials.bootstrap(session, "admin", Secret(OLD))
    refused = run(environment, text)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(f"alfa-cloud: {field}: ")
    assert refused.stderr.count("\n") == 1
    assert await works(sessions, "admin", OLD)


async def test_a_terminal_asks_and_shows_no_password(environment: dict[str, str], sessions: SessionFactory) -> None:
    answers = [("New login: ", "admin"), ("New password: ", NEW), ("The same again: ", NEW)]
    status, shown = at_terminal(environment, answers)
    assert status == 0, shown
    assert "was made" in shown
    assert NEW not in shown
    assert await works(sessions, "admin", NEW)
    status, shown = at_terminal(environment, [*answers[:1], ("New password: ", OLD), ("The same again: ", OLD + "x")])
    assert status == 2
    assert "The two differ" in shown
    assert at_terminal(environment, [("New login: ", "admin"), ("New password: ", "\x04")])[0] == 2
    assert await works(sessions, "admin", NEW)


def test_a_database_that_is_away_is_told_in_one_line(environment: dict[str, str]) -> None:
    away = run({**environment, "ALFA_DATABASE_URL": "postgresql://alfa@127.0.0.1:1/alfa"}, f"admin\n{OLD}\n")
    assert away.returncode == 1
    assert away.stderr.startswith("alfa-cloud: the database did not take it, nothing is changed: ")
    assert "Traceback" not in away.stderr
