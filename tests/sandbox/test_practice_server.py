"""The practice server, by a raw SSH client: from a compose file by hand to a reboot."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from pathlib import Path

import asyncssh
import pytest

from alfa_cloud.remote.requirements import parse_listening_ports
from alfa_cloud.sandbox.child import SandboxError, wait_until
from alfa_cloud.sandbox.practice import PracticeServer, folder
from alfa_cloud.sandbox.practice.machine import marked
from alfa_cloud.specs import Layout
from tests.sandbox.shell import PSQL, Shell, ask, connect, create_database, write_client, write_vhost

MIB = 1024**2


async def test_commands_run_in_the_users_home(shell: Shell, practice: PracticeServer) -> None:
    assert (await shell.ok("pwd; echo $HOME $USER")).split() == [*[str(practice.folder.home)] * 2, "www-data"]
    assert Layout.parse(await shell.json("cat .alfa.json")) == practice.layout
    assert (await shell.ok("cat /proc/sys/kernel/random/boot_id")).strip() == practice.boot_id
    assert await shell.ok("echo x > /etc/mine; cat /etc/mine") == "x\n"
    assert (practice.folder.etc / "mine").exists()


async def test_ends_are_told_as_sshd_tells_them(shell: Shell) -> None:
    assert (await shell.run("exit 41")).status == 41
    assert (await shell.run("kill -9 $$")).status == -1
    assert (await shell.run("no-such-program")).status == 127
    assert (await shell.run("sleep 2", "x" * 5 * MIB)).status == 0
    assert (await shell.ok("cat | wc -c", "x" * 3 * MIB)).strip() == str(3 * MIB)
    assert len(await shell.ok(f"head -c {20 * MIB} /dev/zero")) == 20 * MIB


async def test_sixty_sessions_run_at_once(shell: Shell) -> None:
    told = await asyncio.gather(*(shell.ok("docker version --format '{{.Server.Version}}'") for _ in range(60)))
    assert len(set(told)) == 1


async def test_only_known_keys_and_the_one_user_get_in(practice: PracticeServer, practice_key: asyncssh.SSHKey) -> None:
    with pytest.raises(asyncssh.PermissionDenied):
        async with connect(practice, asyncssh.generate_private_key("ssh-ed25519")):
            pass
    with pytest.raises(asyncssh.PermissionDenied):
        await asyncssh.connect(
            practice.host, practice.port, username="root", client_keys=[practice_key], known_hosts=None, config=None
        )


async def test_a_cut_connection_closes_the_pipes_and_a_detached_command_lives(
    shell: Shell, calm_practice: PracticeServer, practice_key: asyncssh.SSHKey
) -> None:
    await shell.ok("setsid sh -c 'sleep 0.3; echo lived > detached' </dev/null >/dev/null 2>&1 &")
    reader = asyncio.create_task(shell.run("cat; echo closed > pipes"))
    printer = asyncio.create_task(shell.run("while sleep 0.02; do echo line || exit; done"))
    await asyncio.sleep(0.1)
    await asyncio.to_thread(calm_practice.cut_connections)
    assert [(await task).status for task in (reader, printer)] == [None, None]
    home = calm_practice.folder.home
    assert await asyncio.to_thread(wait_until, (home / "pipes").exists, timeout_s=5)
    assert await asyncio.to_thread(wait_until, (home / "detached").exists, timeout_s=5)
    async with connect(calm_practice, practice_key) as again:
        assert "echo line" not in await again.ok("ps -ef | grep -v grep || true")


@pytest.mark.parametrize(
    "words",
    [
        "docker version --format '{{json .}}'",
        "docker image ls --no-trunc --format '{{json .}}' -- alfa",
        "docker image inspect -- alfa:1.0.0-master alfa:nope",
        "docker container inspect -- nope",
        "curl --silent --show-error --max-time 5 http://127.0.0.1:9/",
        "env A=b sh -c 'echo \"$A $SUDO_USER\"'",
        "runuser -u postgres -- psql --no-psqlrc -At --dbname=postgres --command=SELECT",
        "no-such-program",
    ],
)
async def test_a_line_without_processes_before_the_work_does_the_same(
    shell: Shell, practice: PracticeServer, words: str
) -> None:
    line = f"{'' if words.startswith('curl') else 'sudo -n -- '}timeout --kill-after=10 20 {words}"
    ran, recorded = [], []
    for form in (line, f"{line} ;"):
        before = len(practice.commands(kind="stand_in"))
        ran.append(await shell.run(form))
        recorded.append([one.argv for one in practice.commands(kind="stand_in")[before:]])
    assert ran[0] == ran[1]
    assert recorded[0] == recorded[1] != []


def test_who_begins_at_the_same_time_has_other_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(folder, "FIRST_BLOCK", folder.LAST_BLOCK)
    monkeypatch.setattr(folder, "LAST_BLOCK", folder.LAST_BLOCK + 2 * folder.BLOCK)
    assert len({folder.choose_ports().base for _ in range(2)}) == 2
    with pytest.raises(SandboxError):
        folder.choose_ports()
    for note in tmp_path.iterdir():
        os.utime(note, (0, 0))
    folder.choose_ports()


async def test_images_are_told_as_docker_tells_them(shell: Shell) -> None:
    lines = await shell.ok("sudo -n -- docker image ls --no-trunc --format '{{json .}}' -- alfa")
    tags = [json.loads(line)["Tag"] for line in lines.splitlines()]
    assert tags == ["1.0.0-master", "1.1.0-dev", "9.9.9-broken"]
    ran = await shell.run("docker image inspect -- alfa:1.0.0-master alfa:nope")
    found = json.loads(ran.out)
    assert (ran.status, ran.err) == (1, "Error response from daemon: No such image: alfa:nope\n")
    assert found[0]["RepoTags"] == ["alfa:1.0.0-master"]
    assert found[0]["Config"]["Labels"]["alfa.branch"] == "master"
    assert (await shell.run("docker image inspect -- alfa:nope")).out == "[]\n"
    assert (await shell.json("docker info --format '{{json .}}'"))["OSType"] == "linux"
    assert (await shell.ok("docker compose version --short")).startswith("2.")


async def test_the_life_of_a_client(shell: Shell, practice: PracticeServer) -> None:
    compose = await write_client(shell, practice, "life", 0)
    up = f"{compose} up --detach --no-build --pull=never --no-deps --wait app-a"
    assert "Started" in (await shell.run(up)).err
    assert "Running" in (await shell.run(up)).err
    [found] = await shell.json("docker container inspect -- alfa-life-app-a")
    assert found["State"]["Running"]
    assert found["Config"]["Labels"]["alfa.client"] == "life"
    assert found["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"

    execute = "docker container exec --interactive alfa-life-app-a php artisan"
    refused = await shell.run(f"{execute} migrate --force")
    assert (refused.status, "password authentication failed" in refused.out) == (1, True)
    await create_database(shell, "life")
    assert "create_users_table" in await shell.ok(f"{execute} migrate --force")
    assert "Nothing to migrate." in await shell.ok(f"{execute} migrate --force")
    await shell.ok(f"{execute} owner:password owner@life.test --create", "correct horse\n")
    await shell.ok(f"{execute} db:seed --class=DemoSeeder --force")
    assert (await shell.run(f"{execute} db:seed --class=NoSeeder --force")).status == 1

    await write_vhost(shell, practice, "life", 0)
    assert (await ask(practice, "life", "/up")).status_code == 200
    page = (await ask(practice, "life")).text
    assert "Lab $5 1.0.0-master" in page
    login = {"login": "owner@life.test", "password": "correct horse"}
    assert (await ask(practice, "life", "/login", method="POST", json=login)).status_code == 200
    wrong = {**login, "password": "wrong"}
    assert (await ask(practice, "life", "/login", method="POST", json=wrong)).status_code == 401
    assert (await ask(practice, "life", "/samples", method="POST", json={"name": "it's"})).status_code == 201
    assert (await ask(practice, "life", "/samples/count")).json() == {"count": 21}
    assert (await ask(practice, "unknown")).status_code == 404

    await shell.ok(f"{execute} db:seed --class=DemoInverseSeeder --force")
    assert (await ask(practice, "life", "/samples/count")).json() == {"count": 1}
    assert "POST /samples" in await shell.ok("docker container logs --tail=5 -- alfa-life-app-a")
    await shell.ok(f"{compose} down --remove-orphans --timeout 5")
    away = await ask(practice, "life")
    assert (away.status_code, away.headers["Retry-After"]) == (503, "30")
    assert (await shell.run("docker container inspect -- alfa-life-app-a")).status == 1


async def test_a_changed_service_gets_a_new_container(shell: Shell, practice: PracticeServer) -> None:
    compose = await write_client(shell, practice, "changed", 1)
    await shell.ok(f"{compose} up --detach")
    before = (await shell.json("docker inspect alfa-changed-app-a"))[0]["Id"]
    await write_client(shell, practice, "changed", 1, image="alfa:1.1.0-dev")
    assert "Recreate" in (await shell.run(f"{compose} up --detach")).err
    after = (await shell.json("docker inspect alfa-changed-app-a"))[0]
    assert (after["Id"] != before, after["Config"]["Image"]) == (True, "alfa:1.1.0-dev")
    assert (await shell.run("docker image rm alfa:1.1.0-dev")).status == 1
    await shell.ok("docker container rm --force -- alfa-changed-app-a")


async def test_what_docker_refuses(shell: Shell, practice: PracticeServer) -> None:
    first = await write_client(shell, practice, "first", 2)
    await shell.ok(f"{first} up --detach")
    second = await write_client(shell, practice, "second", 2)
    taken = await shell.run(f"{second} up --detach")
    assert (taken.status, "port is already allocated" in taken.err) == (1, True)
    absent = await write_client(shell, practice, "absent", 3, image="alfa:0.0.1")
    assert "No such image: alfa:0.0.1" in (await shell.run(f"{absent} up --detach")).err
    public = await write_client(shell, practice, "public", 3, ports=["0.0.0.0:1234:80"])
    assert "127.0.0.1 only" in (await shell.run(f"{public} up --detach")).err
    dollar = await write_client(shell, practice, "dollar", 3, environment={"A": "$ 1"})
    assert "invalid interpolation format" in (await shell.run(f"{dollar} up --detach")).err
    assert (await shell.run("docker network rm alfa")).status == 1
    await shell.ok(f"{first} down && {second} down")


async def test_the_broken_image_never_becomes_healthy(shell: Shell, practice: PracticeServer) -> None:
    health = {"test": ["CMD", "true"]}
    compose = await write_client(shell, practice, "sick", 4, image="alfa:9.9.9-broken", healthcheck=health)
    ran = await shell.run(f"{compose} up --detach --wait")
    assert (ran.status, "is unhealthy" in ran.err) == (1, True)
    await create_database(shell, "sick")
    failed = await shell.run("docker exec -i alfa-sick-app-a php artisan migrate --force")
    assert (failed.status, "no_such_column" in failed.out) == (1, True)
    await shell.ok(f"{compose} down")


async def test_a_crashed_container_comes_back_and_a_stopped_one_does_not(
    shell: Shell, practice: PracticeServer
) -> None:
    compose = await write_client(shell, practice, "crash", 5)
    await shell.ok(f"{compose} up --detach --wait")
    await asyncio.to_thread(practice.crash_container, "alfa-crash-app-a")

    async def state() -> tuple[bool, int]:
        [found] = await shell.json("docker container inspect -- alfa-crash-app-a")
        return found["State"]["Status"] == "running", found["RestartCount"]

    async with asyncio.timeout(10):
        while await state() != (True, 1):
            await asyncio.sleep(0.05)
    await shell.ok(f"{compose} stop app-a")
    assert await state() == (False, 1)
    with pytest.raises(SandboxError):
        await asyncio.to_thread(practice.crash_container, "alfa-crash-app-a")
    await shell.ok(f"{compose} down")


async def test_psql_is_the_real_one_and_knows_who_asks(shell: Shell) -> None:
    assert await shell.ok(PSQL, "SELECT 1;\n") == "1\n"
    assert (await shell.run(PSQL, "SELECT nonsense;\nSELECT 2;\n")).status == 3
    assert 'role "www-data" does not exist' in (await shell.run("psql --dbname=postgres -c 'SELECT 1'")).err
    assert (await shell.run("runuser -u postgres -- true")).status == 1
    dump = await shell.ok("sudo -n -u postgres pg_dump --format=plain postgres")
    assert "PostgreSQL database dump complete" in dump


async def test_nginx_keeps_the_good_configuration(shell: Shell, practice: PracticeServer) -> None:
    compose = await write_client(shell, practice, "web", 6)
    await shell.ok(f"{compose} up --detach --wait")
    await write_vhost(shell, practice, "web", 6)
    path = practice.layout.vhost_path("bad")
    await shell.ok(f"echo 'server {{ listen {practice.http_port};' > {path}")
    ran = await shell.run("sudo -n -- nginx -t")
    assert (ran.status, f'unexpected end of file, expecting "}}" in {path}:1' in ran.err) == (1, True)
    assert (await shell.run("sudo -n -- nginx -s reload")).status == 1
    assert (await ask(practice, "web", "/up")).status_code == 200
    await shell.ok(f"rm {path}; sudo -n -- service nginx restart")
    assert (await ask(practice, "web", "/up")).status_code == 200
    await shell.ok(f"{compose} down")


async def test_certificates_are_made_and_served(shell: Shell, practice: PracticeServer) -> None:
    layout = practice.layout
    await shell.ok(
        f"sudo -n -- certbot certonly --non-interactive --webroot --webroot-path={layout.certbot_webroot} "
        "--domain=tls.test --cert-name=tls"
    )
    live = f"{layout.certificates_dir}/tls"
    text = f"""server {{
        listen {layout.https_port} ssl; server_name tls.test;
        ssl_certificate {live}/fullchain.pem; ssl_certificate_key {live}/privkey.pem;
        return 200 "safe";
    }}"""
    await shell.ok(f"cat > {layout.vhost_path('tls')}", text)
    await shell.ok("nginx -t && nginx -s reload")
    url = f"https://tls.test:{layout.https_port}/"
    assert await shell.ok(f"curl -s --resolve tls.test:{layout.https_port}:127.0.0.1 {url}") == "safe"
    await shell.ok(f"certbot delete --cert-name=tls && rm {layout.vhost_path('tls')}")
    assert (await shell.run(f"test -e {live}")).status == 1


async def test_only_the_loopback_is_listened_on(shell: Shell, practice: PracticeServer) -> None:
    rows = [line.split() for line in (await shell.ok("cat /proc/net/tcp /proc/net/tcp6")).splitlines()]
    ports = range(practice.port, practice.layout.last_port + 1)
    ours = [row[1] for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) in ports]
    assert {address.rpartition(":")[0] for address in ours} == {"0100007F"}
    assert {practice.port, practice.http_port} <= parse_listening_ports(await shell.ok("cat /proc/net/tcp"))


async def test_a_reboot_ends_all_and_brings_back_what_should_come(
    practice: PracticeServer, practice_key: asyncssh.SSHKey
) -> None:
    async with connect(practice, practice_key) as shell:
        stays = await write_client(shell, practice, "stays", 7)
        goes = await write_client(shell, practice, "goes", 8, restart="no")
        await shell.ok(f"{stays} up --detach --wait && {goes} up --detach --wait")
        await shell.ok("setsid sleep 100 </dev/null >/dev/null 2>&1 &")
        before = practice.boot_id
        assert (await shell.run("sudo -n -- systemctl reboot")).status is None
    await asyncio.to_thread(practice.await_boot, before)
    async with connect(practice, practice_key) as shell:
        assert (await shell.ok("cat /proc/sys/kernel/random/boot_id")).strip() not in ("", before)
        names = await shell.ok("docker container ls --format '{{.Names}}'")
        assert names.split() == ["alfa-stays-app-a"]
        assert (await shell.run("pgrep -f 'sleep 100$'")).status == 1
        await shell.ok(f"{stays} down && {goes} down")


def test_nothing_is_left_after_a_stop_and_all_comes_back(tmp_path: Path) -> None:
    server = PracticeServer(tmp_path, fsync=False)
    server.start()
    ports, key = server.ports, server.host_key
    assert len(list(marked(tmp_path))) >= 1
    with pytest.raises(SandboxError, match="in use by another run"):
        PracticeServer(tmp_path).start()
    server.stop()
    assert list(marked(tmp_path)) == []
    with PracticeServer(tmp_path, fsync=False) as again:
        assert (again.ports, again.host_key) == (ports, key)
        again.kill()
        assert wait_until(lambda: not list(marked(tmp_path)), timeout_s=10)
        again.start()
        assert again.alive
    assert list(marked(tmp_path)) == []
