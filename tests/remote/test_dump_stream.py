"""Both ends of a stream: the exact arguments, and scripts that notice what did not arrive whole."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from alfa_cloud.remote import dump, dump_mariadb, dump_postgresql, dump_stream, mariadb, postgresql
from alfa_cloud.specs import ClientSpec, DatabaseEngine
from tests.playbooks.specs import PASSWORD, UID, make_spec

MARIADB = make_spec(engine=DatabaseEngine.MARIADB)
POSTGRESQL = make_spec()
DUMP = """CREATE TABLE `users` (
);
INSERT INTO `users` VALUES
(1,'a'),
(2,'b');
/*!50013 DEFINER=`root`@`localhost` SQL SECURITY DEFINER */
-- Dump completed on 2026-01-02  3:04:05
"""


@dataclass(frozen=True, slots=True)
class End:
    """The end of a stream in a folder, with stand-ins for its programs."""

    folder: Path

    @property
    def client(self) -> Path:
        return self.folder / "client"

    @property
    def counted(self) -> Path:
        return self.client / ".counted"

    def argv(self, load: str, empty: str = "cat >emptied") -> list[str]:
        """What `consume` runs for MariaDB, with these scripts for the administrator and the load."""
        script = dump_mariadb.FUNCTIONS + dump_stream.CONSUME.replace("--wait 60", "--wait 0.2")
        admin = ["sh", "-c", empty]
        return ["bash", "-c", script, "x", str(self.client), str(self.counted), "SQL", "3", *admin, "bash", "-c", load]

    def start(self, load: str = "cat >loaded") -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.argv(load), cwd=self.folder, env=self.environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": f"{self.folder}:{os.environ['PATH']}"}

    def consume(self, text: str, load: str = "cat >loaded") -> tuple[int, str]:
        """The exit status, and what was said."""
        argv, env = self.argv(load), self.environment
        done = subprocess.run(argv, input=text.encode(), cwd=self.folder, env=env, capture_output=True, check=False)
        return done.returncode, done.stderr.decode()

    def stop(self, patience: int = 1) -> int:
        """The exit status of `stop`, which waits so many tenths of a second."""
        argv = ["bash", "-c", dump_stream.STOP, "x", str(self.client), str(patience)]
        return subprocess.run(argv, check=False, env=self.environment).returncode


@pytest.fixture
def end(tmp_path: Path) -> End:
    """Where `zstd` is a program that changes nothing."""
    program = tmp_path / "zstd"
    program.write_text("#!/bin/sh\nexec cat\n")
    program.chmod(0o755)
    (tmp_path / "client").mkdir()
    return End(tmp_path)


def test_both_ends_use_the_clients_own_login() -> None:
    produced = dump_stream.produce(MARIADB)
    assert produced.argv[:2] == ("bash", "-c")
    assert produced.argv[3:] == ("alfa-produce", *dump_mariadb.dump_argv(MARIADB))
    assert "--compress=0" in dump_stream.produce(POSTGRESQL).argv
    assert dump_stream.produce(POSTGRESQL).argv[4:] == dump_postgresql.stream_argv(POSTGRESQL)
    for spec, load in ((MARIADB, dump_mariadb.load_argv), (POSTGRESQL, dump_postgresql.load_argv)):
        argv = dump_stream.consume(spec).argv
        assert argv[3:6] == ("alfa-consume", "/srv/alfa/clients/lab-7", "/srv/alfa/clients/lab-7/.counted")
        assert argv[-len(load(spec)) :] == load(spec)
    assert "--sandbox" in dump_stream.consume(MARIADB).argv


@pytest.mark.parametrize("spec", [MARIADB, POSTGRESQL])
def test_the_administrator_only_empties(spec: ClientSpec) -> None:
    command = dump_stream.consume(spec)
    empty = (mariadb.empty_database if spec is MARIADB else postgresql.empty_database)(spec)
    count = len(empty.argv)
    assert command.argv[6:8] == (empty.stdin.decode(), str(count))
    assert command.argv[8 : 8 + count] == empty.argv
    assert (UID in command.argv[6]) is (spec is MARIADB)
    assert command.stdin == b""
    assert command.sudo
    assert PASSWORD.reveal() not in command.to_shell()


def test_what_arrives_is_loaded_and_counted(end: End) -> None:
    assert end.consume(DUMP) == (0, "")
    assert (end.folder / "emptied").read_text() == "SQL"
    assert (end.folder / "loaded").read_text() == DUMP.replace("DEFINER=`root`@`localhost` ", "")
    assert dump.parse_counted(MARIADB, end.counted.read_text()) == {"users": 2}
    assert end.counted.stat().st_mode & 0o777 == 0o600


def test_what_is_left_unread_does_not_matter(end: End) -> None:
    """A load that has all it needs may end before the text does: the count still gets all of it."""
    rows = "".join(f"({number},'{'x' * 100}'),\n" for number in range(20_000))
    text = DUMP.replace("(1,'a'),\n", rows)
    assert end.consume(text, "head -c 100 >loaded") == (0, "")
    assert dump.parse_counted(MARIADB, end.counted.read_text()) == {"users": 20_001}


def test_what_is_cut_anywhere_is_noticed(end: End) -> None:
    end.counted.write_text("of an earlier one")
    for size in range(0, DUMP.index("-- Dump completed") + 16, 13):
        status, said = end.consume(DUMP[:size])
        assert (status, "did not arrive whole" in said) == (dump.DAMAGED, True), size
        assert list(end.client.iterdir()) == []
    (end.folder / "zstd").write_text("#!/bin/sh\ncat; echo 'premature end' >&2; exit 1\n")
    status, said = end.consume(DUMP)
    assert (status, "premature end" in said) == (dump.DAMAGED, True)
    assert list(end.client.iterdir()) == []


@pytest.mark.parametrize("rows", [0, 50_000])
def test_a_load_that_fails_is_the_reason(end: End, rows: int) -> None:
    """Early, with much still to come, and when all was read."""
    text = DUMP.replace("(1,'a'),\n", "(1,'a'),\n" + f"(7,'{'x' * 100}'),\n" * rows)
    for load in ("head -c 10 >/dev/null; echo 'no luck' >&2; exit 7", "cat >/dev/null; echo 'no luck' >&2; exit 7"):
        status, said = end.consume(text, load)
        assert (status, "no luck" in said) == (1, True)
        assert list(end.client.iterdir()) == []


def test_nothing_is_loaded_where_it_could_not_be_emptied(end: End) -> None:
    argv = end.argv("cat >loaded", "echo 'not today' >&2; exit 4")
    env = end.environment
    done = subprocess.run(argv, input=DUMP.encode(), cwd=end.folder, env=env, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (4, b"not today\n")
    assert not (end.folder / "loaded").exists()


def test_a_stream_keeps_another_out_until_it_is_stopped(end: End) -> None:
    with end.start("touch begun; cat >/dev/null; touch ended") as first:
        while not (end.folder / "begun").exists():
            time.sleep(0.01)
        (end.folder / "emptied").unlink()
        status, said = end.consume(DUMP)
        assert (status, "does not end" in said) == (dump_stream.BUSY, True)
        assert not (end.folder / "emptied").exists()
        assert end.stop() == 0
        assert first.wait() != 0
        first.communicate()
    assert not (end.folder / "ended").exists()
    assert end.consume(DUMP)[0] == 0
    assert end.stop() == 0


def test_a_load_outlives_nothing_that_was_stopped(end: End) -> None:
    """Where only the script was killed, the program that it had started is still found."""
    with end.start("echo $$ >begun; exec sleep 600") as first:
        while not (end.folder / "begun").exists() or not (end.folder / "begun").read_text():
            time.sleep(0.01)
        first.kill()
        assert end.consume(DUMP)[0] == dump_stream.BUSY
        assert end.stop() == 0
        first.communicate()
    assert not Path("/proc", (end.folder / "begun").read_text().strip(), "fd", "9").exists()


def test_a_stream_that_ends_by_itself_is_not_killed(end: End) -> None:
    """As where the database is being emptied when the connection ends."""
    argv = end.argv("cat >loaded", "touch begun; sleep 1; cat >emptied")
    with subprocess.Popen(
        argv, cwd=end.folder, env=end.environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as first:
        while not (end.folder / "begun").exists():
            time.sleep(0.01)
        assert end.stop(100) == 0
        assert first.wait() == dump.DAMAGED
    assert (end.folder / "emptied").read_text() == "SQL"


def test_where_nothing_is_nothing_is_stopped(end: End) -> None:
    end.client.rmdir()
    assert end.stop() == 0
    assert end.consume(DUMP)[0] == 1
    assert not (end.folder / "emptied").exists()
