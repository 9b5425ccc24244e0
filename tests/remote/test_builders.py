"""Builders: the exact arguments, whatever the values are, and files that say what they were told."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import fields
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from alfa_cloud.errors import RemoteError
from alfa_cloud.remote import app, certbot, compose, docker, files, look, mariadb, nginx, postgresql, requirements
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.host import Result
from alfa_cloud.remote.output import plain_text
from alfa_cloud.sandbox.stores import EmbeddedPostgres
from alfa_cloud.specs import DatabaseEngine, Layout, Secret, Tls
from tests.fakes import FakeHost
from tests.playbooks.specs import PASSWORD, UID, make_secrets, make_spec

HOSTILE = "-x $(id) `id` '\"\\ ; \n*"
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
SECRET = "S3cret:pass\\word'\"#$"


def test_hostile_arguments_stay_one_argument() -> None:
    commands: dict[Command, tuple[str, ...]] = {
        docker.inspect_container(HOSTILE): ("docker", "container", "inspect", "--", HOSTILE),
        docker.remove_container(HOSTILE): ("docker", "container", "rm", "--force", "--", HOSTILE),
        docker.container_logs(HOSTILE, 5): ("docker", "container", "logs", "--tail=5", "--", HOSTILE),
        docker.inspect_images([HOSTILE]): ("docker", "image", "inspect", "--", HOSTILE),
        files.read_file(HOSTILE): ("sh", "-c", files.READ, "alfa-read", HOSTILE),
        files.remove_file(HOSTILE): ("rm", "--force", "--", HOSTILE, f"{HOSTILE}.previous"),
        files.ensure_folder(HOSTILE, owner="a:b"): (
            "install", "--directory", "--mode=0750", "--owner=a", "--group=b", "--", HOSTILE,
        ),
        app.migrate(make_spec()): (
            "docker", "container", "exec", "--interactive", "alfa-lab-7-app-a", "php", "artisan", "migrate", "--force",
        ),
    }  # fmt: skip
    for command, argv in commands.items():
        assert command.argv == argv
        assert tuple(shlex.split(command.to_shell()))[-len(argv) :] == argv


def test_the_owner_login_is_one_argument_and_its_password_none() -> None:
    command = app.set_owner_password(make_spec(owner_login=HOSTILE), Secret(SECRET))
    assert command.argv[-4:] == ("artisan", "owner:password", HOSTILE, "--create")
    assert SECRET not in command.to_shell()
    assert command.stdin == f"{SECRET}\n".encode()


def test_certbot_runs_alone_and_names_the_certificate_by_its_domain() -> None:
    command = certbot.obtain(make_spec(tls=Tls.CERTBOT), email="", server="https://ca.test/dir")
    assert command.argv == (
        "flock", "--wait=900", "--conflict-exit-code=75", "/srv/alfa/certbot.lock", "timeout", "300",
        "certbot", "certonly", "--non-interactive", "--agree-tos", "--webroot", "--webroot-path=/var/www/html",
        "--domain=lab-7.cloud.test", "--cert-name=lab-7.cloud.test", "--keep-until-expiring",
        "--deploy-hook=nginx -s reload", "--register-unsafely-without-email", "--server=https://ca.test/dir",
    )  # fmt: skip
    assert command.timeout_s > 900 + 300
    delete = certbot.delete(make_spec()).argv
    assert delete[:6] == command.argv[:6]
    assert delete[6:] == ("certbot", "delete", "--non-interactive", "--cert-name=lab-7.cloud.test")
    assert certbot.is_there(make_spec()).argv[-1] == "/etc/letsencrypt/live/lab-7.cloud.test/fullchain.pem"


def test_a_client_logs_in_to_postgresql_with_its_own_name_and_a_file() -> None:
    spec = make_spec()
    for command in (postgresql.read_settings(spec), postgresql.write_settings(spec, {"a": "b"})):
        assert command.argv == (
            "env", "PGPASSFILE=/srv/alfa/clients/lab-7/.pgpass", "PGCLIENTENCODING=UTF8", "PGCONNECT_TIMEOUT=15",
            "PGOPTIONS=-c statement_timeout=30s -c default_transaction_read_only=off",
            "psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--no-password", "--set=ON_ERROR_STOP=1",
            "--host=172.30.0.1", "--port=5432", "--username=alfa_7", "--dbname=alfa_7",
        )  # fmt: skip
        assert b"ROLE" not in command.stdin
    assert postgresql.login_file(spec, Secret(SECRET)) == b"*:*:*:alfa_7:S3cret\\:pass\\\\word'\"#$\n"


def test_a_client_logs_in_to_mariadb_with_its_own_name_and_a_file() -> None:
    spec = make_spec(engine=DatabaseEngine.MARIADB)
    for command in (mariadb.read_settings(spec), mariadb.write_settings(spec, {"a": "b"})):
        assert command.argv == (
            "mariadb", "--defaults-file=/srv/alfa/clients/lab-7/.my.cnf", "--batch", "--raw", "--skip-column-names",
            "--sandbox", "--default-character-set=utf8mb4", "--loose-skip-print-query-on-error", "--protocol=socket",
            "--connect-timeout=15", "--database=alfa_7",
        )  # fmt: skip
    content = mariadb.login_file(spec, Secret(SECRET)).decode()
    assert content == '[client]\nuser="alfa_7"\npassword="S3cret:pass\\\\word\'\\"#$"\n'


@pytest.mark.parametrize("engine", [mariadb, postgresql])
def test_no_password_is_in_an_argument_or_breaks_a_line(engine: Any) -> None:
    spec = make_spec()
    word = PASSWORD.reveal()
    for command in (engine.create_tenant(spec, PASSWORD), engine.inspect_tenant(spec), engine.read_settings(spec)):
        assert word not in command.to_shell()
        assert word.encode() not in command.stdin
    with pytest.raises(ValueError, match="line end"):
        engine.login_file(spec, Secret("a\nb"))


def test_a_login_that_failed_is_told_from_a_missing_table() -> None:
    assert postgresql.logged_in(Result(3, stderr=b"no such relation"))
    assert not postgresql.logged_in(Result(2))
    assert mariadb.logged_in(Result(1, b"logged in\n", b"no such table"))
    assert not mariadb.logged_in(Result(1, b"", b"Access denied"))


@pytest.mark.parametrize("text", ["", "no", "[1]", '"x"', "[" * 100_000, "null"])
def test_settings_that_a_client_forged_are_none(text: str) -> None:
    assert app.parse_settings(text) == {}


def test_settings_are_read() -> None:
    assert app.parse_settings('{"a": "1", "b": null}') == {"a": "1", "b": None}


@settings(max_examples=30, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=20), st.sampled_from(["on", "off"]))
def test_postgresql_reads_back_what_was_quoted(postgres: EmbeddedPostgres, texts: list[str], conforming: str) -> None:
    head = f"SET standard_conforming_strings = {conforming};\nSET backslash_quote = off;\n"
    literals = ", ".join(map(postgresql.quote_literal, texts))
    found = postgres.psql(f"{head}SELECT json_build_array({literals});", database="postgres")
    assert json.loads(found) == texts


@settings(max_examples=30, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=15))
def test_postgresql_reads_back_a_quoted_name(postgres: EmbeddedPostgres, name: str) -> None:
    sql = f"SELECT row_to_json(t) FROM (SELECT 1 AS {postgresql.quote_ident(name)}) t;"
    assert json.loads(postgres.psql(sql, database="postgres")) == {name: 1}


@given(TEXT)
def test_mariadb_quotes_in_forms_that_cannot_be_left(text: str) -> None:
    literal, ident = mariadb.quote_literal(text), mariadb.quote_ident(text)
    found = re.fullmatch(r"CONVERT\(X'([0-9a-f]*)' USING utf8mb4\)|''", literal)
    assert found
    assert bytes.fromhex(found[1] or "").decode() == text
    assert "`" not in ident[1:-1].replace("``", "")
    assert ident[1:-1].replace("``", "`") == text


@pytest.mark.parametrize("quote", [mariadb.quote_ident, mariadb.quote_literal, postgresql.quote_ident])
def test_nul_is_no_part_of_sql(quote: Any) -> None:
    with pytest.raises(ValueError, match="NUL"):
        quote("a\0b")


@given(TEXT)
def test_the_compose_file_says_what_it_was_told(title: str) -> None:
    spec = make_spec(title=title)
    content = compose.render(spec, make_secrets())
    document = yaml.safe_load(content)
    service = document["services"]["app-a"]
    assert service["environment"]["APP_NAME"].replace("$$", "$") == (title or spec.name)
    assert "$" not in service["environment"]["APP_NAME"].replace("$$", "")
    assert service["labels"]["alfa.client"] == UID
    assert compose.label_of(spec, make_secrets()) == service["labels"]["alfa.spec"]
    assert set(document) == {"services", "networks"}


@pytest.mark.parametrize("title", ["a: b", "!!python/object:os.system x", "${HOME} $$", "'\"", "- x\n  y: z", "&a *a"])
def test_hostile_titles_stay_text(title: str) -> None:
    service = yaml.safe_load(compose.render(make_spec(title=title), make_secrets()))["services"]["app-a"]
    assert service["environment"]["APP_NAME"] == title.replace("$", "$$")


@pytest.mark.parametrize("secure", [True, False])
def test_the_virtual_host_has_one_name_one_upstream_and_its_mark(secure: bool) -> None:
    spec = make_spec()
    text = nginx.render_vhost(spec, secure=secure).decode()
    assert text.splitlines()[0] == f"# alfa-cloud: client lab-7 {UID}" == nginx.mark(spec)
    assert set(re.findall(r"server_name ([^;]*);", text)) == {"lab-7.cloud.test"}
    assert text.count("server_name") == (2 if secure else 1)
    assert re.findall(r"upstream (\S+) {\n    server ([^;]*);", text) == [("alfa-lab-7", "127.0.0.1:20007")]
    assert text.count("{") == text.count("}")
    assert "http2" not in text
    assert ("/etc/letsencrypt/live/lab-7.cloud.test/privkey.pem" in text) is secure


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("root", "srv/alfa"),
        ("root", "/"),
        ("root", "/srv/../etc"),
        ("root", "/srv/al fa"),
        ("nginx_dir", "/etc/nginx;x"),
        ("certbot_webroot", "/a\n/b"),
        ("certificates_dir", "/a//b"),
        ("http_port", 0),
        ("https_port", 65536),
        ("database_port", -1),
        ("first_port", 30000),
        ("docker_network", "--privileged"),
        ("docker_subnet", "172.30.0.1/24"),
        ("docker_subnet", "0.0.0.0/0"),
        ("docker_subnet", "10.0.0.0/30"),
        ("docker_subnet", "10.0.0.0' or 1"),
        ("database_host", "localhost"),
        ("database_host", "1.2.3.4\nx = y"),
    ],
)
async def test_a_layout_that_cannot_be_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        Layout.parse({name: value})
    host = FakeHost(lambda _: Result(0, json.dumps({name: value}).encode()))
    with pytest.raises(RemoteError, match=name):
        await requirements.read_layout(host)


def test_a_layout_takes_what_it_knows() -> None:
    given = {"root": "/opt/alfa-1", "http_port": True, "unknown": 1, "database_port": 5433}
    assert Layout.parse(given) == Layout(root="/opt/alfa-1", database_port=5433)
    default = Layout()
    assert Layout.parse({f.name: getattr(default, f.name) for f in fields(default)}) == default


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("localhost", "localhost, 172.30.0.1"),
        ("localhost, 10.0.0.5", "localhost, 10.0.0.5, 172.30.0.1"),
        ("*", "*"),
        ("0.0.0.0", "0.0.0.0"),
        ("", "172.30.0.1"),
        ("172.30.0.1,localhost", "172.30.0.1, localhost"),
    ],
)
def test_postgresql_goes_on_listening_where_it_did(before: str, after: str) -> None:
    merged = postgresql.merge_addresses(before, "172.30.0.1")
    assert merged == after
    assert postgresql.listens(merged, "172.30.0.1")


async def test_images_are_described_in_parts() -> None:
    names = [f"alfa:{number}.0.0-master" for number in range(45)]
    asked: list[int] = []

    def answer(command: Command) -> Result | None:
        if "ls" in command.argv:
            rows = [{"Repository": "alfa", "Tag": name.partition(":")[2]} for name in names]
            return Result(0, "\n".join(map(json.dumps, rows)).encode())
        given = command.argv[command.argv.index("--") + 1 :]
        asked.append(len(given))
        return Result(0, json.dumps([{"Id": name, "RepoTags": [name, names[0]]} for name in given]).encode())

    found = await look.list_images(FakeHost(answer), "alfa")
    assert asked == [20, 20, 5]
    assert {image.tag for image in found} == set(names)


def test_the_words_of_a_program_become_one_plain_line() -> None:
    assert plain_text(b"a\x1b[31mb\x00\r\n  c\xff" + b"x" * 1000) == ("ab c\ufffd" + "x" * 1000)[:500]
