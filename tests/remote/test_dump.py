"""Dumps: the exact arguments, and scripts that notice what is not whole."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alfa_cloud.errors import RemoteError
from alfa_cloud.remote import dump, dump_mariadb, dump_postgresql, mariadb, postgresql
from alfa_cloud.remote.dump import Manifest
from alfa_cloud.sandbox.stores import EmbeddedPostgres
from alfa_cloud.specs import ClientSpec, DatabaseEngine
from tests.playbooks.specs import PASSWORD, UID, make_spec

MARIADB = make_spec(engine=DatabaseEngine.MARIADB)
POSTGRESQL = make_spec()
MANIFEST = Manifest(DatabaseEngine.MARIADB, "migrate", {"users": 2, "a`b\nc": 0}, 10, "0" * 64, "2026-01-02T03:04:05Z")
ROWS = "(1,'a'),\n(2,'it\\'s (x),(y)')"
DUMP = r"""/*M!999999\- enable the sandbox mode */
CREATE TABLE `users` (
  `id` int(11)
) ENGINE=InnoDB
 PARTITION BY RANGE (`id`)
(PARTITION `p0` VALUES LESS THAN (10) ENGINE = InnoDB);
INSERT INTO `users` VALUES
(1,'a'),
(2,'INSERT INTO `x` VALUES\n(1);\'');
INSERT INTO `users` VALUES
(3,NULL);
CREATE TABLE `odd``
(name` (
  `id` int(11)
);
INSERT INTO `odd``
(name` (`id`, `a ``) VALUES (`) VALUES (1,'),(\\'),
(2,'\\');
CREATE TABLE `none` (
);
CREATE TABLE `old` (
);
INSERT INTO `old` VALUES (1,'a),(b'),(2,'it\'s (x),(y)'),(3,_binary '('),(4,'\\');
DELIMITER ;;
CREATE DEFINER=`root`@`localhost` PROCEDURE `p`()
BEGIN
CREATE TABLE `inner` (id int);
INSERT INTO `inner` VALUES
(1);
CREATE DEFINER=`stays`@`here`
END ;;
DELIMITER ;
DELIMITER ;;
/*!50003 CREATE*/ /*!50017 DEFINER=`a``b`@`172.30.0.0/255.255.255.0`*/ /*!50003 TRIGGER t BEFORE INSERT ON users */;;
DELIMITER ;
/*!50106 CREATE*/ /*!50117 DEFINER=`root`@`localhost`*/ /*!50106 EVENT `e` */ ;;
/*!50001 CREATE ALGORITHM=UNDEFINED */
/*!50013 DEFINER=`role` SQL SECURITY DEFINER */
/*!50001 VIEW `v` AS select 1 */;
-- Dump completed on 2026-01-02  3:04:05
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where `zstd` is a program that changes nothing."""
    program = tmp_path / "zstd"
    program.write_text("#!/bin/sh\nexec cat\n")
    program.chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


def call(engine: Any, function: str, data: bytes, path: str) -> subprocess.CompletedProcess[bytes]:
    """What one of an engine's functions makes of its input."""
    script = f"set -euo pipefail\n{engine.FUNCTIONS}\n{function}"
    return subprocess.run(["bash", "-c", script], input=data, env={"PATH": path}, capture_output=True, check=False)


def tables(spec: ClientSpec, printed: bytes) -> Mapping[str, int]:
    """The tables in what `count` printed."""
    return dump.parse_written(spec, "", f"{printed.decode()}2026-01-02T03:04:05Z 10 {'0' * 64}\n").tables


def test_the_client_dumps_and_restores_with_its_own_login() -> None:
    written = dump.write(MARIADB, "migrate-1")
    assert written.argv[:2] == ("bash", "-c")
    assert written.argv[3:] == (
        "alfa-dump", f"/srv/alfa/archive/{UID}/migrate-1",
        "mariadb-dump", "--defaults-file=/srv/alfa/clients/lab-7/.my.cnf", "--protocol=socket", "--single-transaction",
        "--no-tablespaces", "--routines", "--triggers", "--events", "--hex-blob", "--default-character-set=utf8mb4",
        "--max-allowed-packet=1G", "alfa_7",
    )  # fmt: skip
    assert (written.sudo, written.detached) == (True, "dump-migrate-1")
    assert dump.write(POSTGRESQL, "migrate-1").argv[3:] == (
        "alfa-dump", f"/srv/alfa/archive/{UID}/migrate-1",
        *postgresql.client_argv(
            POSTGRESQL, "pg_dump", "--format=custom", "--compress=1", "--no-owner", "--no-privileges", "--no-password",
            "--lock-wait-timeout=60000",
        ),
    )  # fmt: skip
    restored = dump.restore(MARIADB, "migrate-1", MANIFEST).argv
    options = ("--binary-mode", "--comments", "--max-allowed-packet=1G")
    load = (*mariadb.client_argv(MARIADB), *options)
    assert restored[-len(load) - 1 - len(mariadb.client_argv(MARIADB)) :] == (
        str(len(load)), *load, *mariadb.client_argv(MARIADB),
    )  # fmt: skip
    assert "--sandbox" in load


@pytest.mark.parametrize("spec", [MARIADB, POSTGRESQL])
def test_the_administrator_runs_only_what_is_ours(spec: ClientSpec) -> None:
    command = dump.restore(spec, "migrate-1", MANIFEST)
    words = command.stdin.decode().split()
    assert words.index("DROP") < words.index("CREATE") if "CREATE" in words else "'CREATE" in words
    assert not {"SELECT *", "INSERT", "CALL", "UPDATE"} & set(words)
    assert (UID in command.stdin.decode()) is (spec is MARIADB)
    assert PASSWORD.reveal() not in command.to_shell() + command.stdin.decode()
    assert command.detached == "restore-migrate-1"


@pytest.mark.parametrize("name", ["", "../x", "a/b", "A", "-a", "a" * 81, "a\n", "a b", ".a"])
def test_a_name_that_is_none_for_a_file_is_refused(name: str) -> None:
    for build in (dump.write, dump.remove, dump.none_left, dump.file_size, dump.manifest_path):
        with pytest.raises(ValueError, match="not a name"):
            build(MARIADB, name)


def test_a_manifest_is_read_as_it_was_written() -> None:
    assert Manifest.parse(MANIFEST.render().decode()) == MANIFEST
    for text in ("", "[]", "{}", '{"engine": "mariadb"}', '{"engine": 1}'):
        with pytest.raises(RemoteError):
            Manifest.parse(text)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.integers(0, 10**12)))
def test_counts_have_one_form(tables: dict[str, int]) -> None:
    lines = sorted(f"{name.encode().hex()} {rows}" for name, rows in tables.items())
    assert dump.parse_rows("\n".join(lines)) == tables


@pytest.mark.parametrize("text", ["zz 1", "61", "61 x", "61 1 2", "ERROR"])
def test_counts_that_are_none_are_an_error(text: str) -> None:
    with pytest.raises(RemoteError):
        dump.parse_rows(text)


@pytest.mark.parametrize("text", ["", "no line", "1\tCREATE VIEW `x`\n2026 1 0", "x\tCREATE TABLE `x` (\n2026 1 0"])
def test_a_listing_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(RemoteError):
        dump.parse_written(MARIADB, "", f"{text}\n")


def test_the_rows_in_a_dump_of_mariadb_are_counted(path: str) -> None:
    done = call(dump_mariadb, "count", DUMP.encode(), path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert tables(MARIADB, done.stdout) == {"users": 3, "odd`\n(name": 2, "none": 0, "old": 4}


def test_a_dump_of_mariadb_that_is_cut_anywhere_is_noticed(path: str) -> None:
    data = DUMP.encode()
    ends = range(0, data.rindex(b"-- Dump completed") + 16, 23)
    done = [call(dump_mariadb, "count", data[:end], path).returncode for end in ends]
    assert set(done) == {65}
    missing = DUMP.replace("(3,NULL);\n", "").encode()
    assert call(dump_mariadb, "count", missing, path).returncode == 65


def test_nobody_else_is_named_as_the_definer(path: str) -> None:
    text = call(dump_mariadb, "mend", DUMP.encode(), path).stdout.decode()
    assert [line for line in text.splitlines() if "DEFINER" in line] == [
        "CREATE DEFINER=`stays`@`here`", "/*!50013 SQL SECURITY DEFINER */",
    ]  # fmt: skip
    for line in ("CREATE PROCEDURE `p`()", "/*!50003 CREATE*/ /*!50003 TRIGGER t BEFORE INSERT ON users */;;"):
        assert line in text.splitlines()
    assert "/*!50106 CREATE*/ /*!50106 EVENT `e` */ ;;" in text.splitlines()
    row = "(1,'/*!50013 DEFINER=`a`@`b` '),\n"
    assert call(dump_mariadb, "mend", row.encode(), path).stdout.decode() == row


def test_a_dump_of_postgresql_that_is_cut_anywhere_is_noticed(postgres: EmbeddedPostgres, path: str) -> None:
    postgres.create_database("dumped", if_missing=True)
    postgres.psql(
        'DROP SCHEMA public CASCADE; CREATE SCHEMA public; CREATE TABLE "a.""b" (id int, t text); CREATE TABLE b ();'
        'INSERT INTO "a.""b" SELECT g, md5(g::text) FROM generate_series(1, 3000) g; CREATE TABLE z (id int);'
        "SELECT lo_from_bytea(0, decode(repeat('00ff', 5000), 'hex'));",
        database="dumped",
    )
    programs = str(postgres.identity.bin)
    argv = [*dump_postgresql.dump_argv(POSTGRESQL)[5:-4], f"--host={postgres.socket_dir}", "--username=postgres"]
    argv = [f"{programs}/{argv[0]}", *argv[1:], f"--port={postgres.port}", "--dbname=dumped"]
    data = subprocess.run(argv, capture_output=True, env=postgres.environment(), check=True).stdout
    path = f"{programs}:{path}"
    done = call(dump_postgresql, "count", data, path)
    assert tables(POSTGRESQL, done.stdout) == {'public.a."b': 3000, "public.b": 0, "public.z": 0}
    ends = [*range(0, len(data), len(data) // 30), len(data) - 1]
    assert all(call(dump_postgresql, "count", data[:end], path).returncode != 0 for end in ends)
    postgres.drop_database("dumped")
