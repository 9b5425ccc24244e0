"""A file that is read: what is not there, and what cannot be told."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from alfa_cloud.errors import CommandFailedError
from alfa_cloud.remote import files
from alfa_cloud.remote.host import Result
from tests.fakes import FakeHost


@pytest.mark.parametrize(("name", "status", "text"), [("there", 0, b"x\n"), ("folder", 1, b""), ("nothing", 44, b"")])
def test_a_reading_says_what_is_there(tmp_path: Path, name: str, status: int, text: bytes) -> None:
    (tmp_path / "there").write_bytes(b"x\n")
    (tmp_path / "folder").mkdir()
    done = subprocess.run(files.read_file(str(tmp_path / name)).argv, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (status, text)


async def test_a_sudo_that_fails_is_no_missing_file() -> None:
    assert await files.read(FakeHost(lambda _: Result(files.MISSING)), "/a") is None
    with pytest.raises(CommandFailedError):
        await files.read(FakeHost(lambda _: Result(1)), "/a")
