"""What a practice server does when it is told to fail."""

from __future__ import annotations

import asyncio
from time import monotonic

import asyncssh
import pytest

from alfa_cloud.sandbox.practice import Action, Phase, PracticeServer
from alfa_cloud.sandbox.practice.faults import inner_lines
from tests.sandbox.shell import Shell, connect

REAL = "touch done; sha256sum /dev/null >/dev/null"
STAND_IN = "sudo -n -- timeout 60 docker network create faulty"


async def test_fail_does_nothing_and_only_as_often_as_told(shell: Shell, calm_practice: PracticeServer) -> None:
    calm_practice.fault("network create", Action.FAIL, exit_status=9, stderr="no space\n", times=1)
    calm_practice.fault("sha256sum", "fail", exit_status=8, times=1)
    ran = await shell.run(STAND_IN)
    assert (ran.status, ran.err) == (9, "no space\n")
    assert (await shell.run("docker network inspect faulty")).status == 1
    assert [(await shell.run(REAL)).status for _ in range(2)] == [8, 0]
    assert (await shell.run(STAND_IN)).status == 0
    await shell.ok("docker network rm faulty")


async def test_what_is_skipped_goes_well(shell: Shell, calm_practice: PracticeServer) -> None:
    calm_practice.fault("sha256sum", "fail", exit_status=8, times=2, skip=1)
    assert [(await shell.run(REAL)).status for _ in range(4)] == [0, 8, 8, 0]


async def test_fail_afterwards_has_done_the_work(shell: Shell, calm_practice: PracticeServer) -> None:
    calm_practice.fault("network create|sha256sum", "fail", phase=Phase.AFTER, exit_status=7)
    assert (await shell.run(STAND_IN)).status == 7
    await shell.ok("docker network inspect faulty && docker network rm faulty")
    assert (await shell.run("rm -f done")).status == 0
    assert (await shell.run(REAL)).status == 7
    await shell.ok("test -e done && rm done")


async def test_slow_and_hang_end_as_their_time_says(shell: Shell, calm_practice: PracticeServer) -> None:
    calm_practice.fault("docker version|sha256sum", "slow", seconds=0.3)
    for line in ("docker version", REAL):
        began = monotonic()
        assert (await shell.run(line)).status == 0
        assert monotonic() - began > 0.3
    calm_practice.clear_faults()
    calm_practice.fault("docker info", "hang")
    began = monotonic()
    assert (await shell.run("timeout 0.3 docker info")).status == 124
    assert monotonic() - began < 20
    calm_practice.clear_faults()
    calm_practice.fault("docker info|sha256sum", "hang", seconds=0.1, exit_status=5)
    assert [(await shell.run(line)).status for line in ("docker info", REAL)] == [5, 5]


async def test_flood_and_garbage_come_before_the_work(shell: Shell, calm_practice: PracticeServer) -> None:
    calm_practice.fault("docker version|sha256sum", "flood", lines=100_000)
    for line in ("docker version", REAL):
        ran = await shell.run(line)
        assert (ran.status, ran.out.count("quick brown fox")) == (0, 100_000)
    calm_practice.clear_faults()
    calm_practice.fault("docker version", "garbage", lines=3)
    ran = await shell.run("docker version")
    assert (ran.status, ran.out.count("\x1b]0;owned"), ran.out.endswith("Docker 28.2.2\n")) == (0, 3, True)


@pytest.mark.parametrize(("phase", "done"), [("before", False), ("during", True), ("after", True)])
@pytest.mark.parametrize("line", [STAND_IN, "install --directory faulty-folder"])
async def test_a_cut_connection_has_done_as_much_as_its_phase_says(
    calm_practice: PracticeServer, practice_key: asyncssh.SSHKey, phase: str, line: str, done: bool
) -> None:
    calm_practice.fault("network create|faulty-folder", "kill_connection", phase=phase, times=1)
    async with connect(calm_practice, practice_key) as shell:
        assert (await shell.run(line)).status is None
    async with connect(calm_practice, practice_key) as shell:
        await asyncio.sleep(0.3)
        looks = "docker network rm faulty" if line == STAND_IN else "rmdir faulty-folder"
        assert ((await shell.run(looks)).status == 0) == done


@pytest.mark.parametrize("line", ["docker version", REAL])
async def test_noexit_tells_nothing_and_keeps_the_connection(
    shell: Shell, calm_practice: PracticeServer, line: str
) -> None:
    calm_practice.fault("docker version|sha256sum", "noexit", phase="after", times=1)
    assert (await shell.run(line)).status is None
    assert (await shell.run(line)).status == 0


async def test_commands_are_recorded_without_what_they_read(shell: Shell, calm_practice: PracticeServer) -> None:
    await shell.ok("sudo -n -- docker version && cat >/dev/null", "top secret")
    calm_practice.fault("docker info", "fail")
    await shell.run("docker info --format '{{json .}}'")
    [line, other] = calm_practice.commands(kind="ssh")
    assert line.line == "sudo -n -- docker version && cat >/dev/null"
    assert line.ended is not None
    assert line.started < line.ended < other.started
    [version, info] = calm_practice.commands("docker")
    assert (version.argv, version.exit_status) == (("docker", "version"), 0)
    assert (info.exit_status, info.fault, info.session) == (1, "fail", other.session)
    assert "top secret" not in calm_practice.folder.commands.read_text()


async def test_a_fault_strikes_once_at_the_innermost_that_fits(shell: Shell, calm_practice: PracticeServer) -> None:
    calm_practice.fault("alfa-vhost", "fail", exit_status=3, times=1)
    calm_practice.fault("nginx -t", "fail", exit_status=4, times=1)
    line = "sudo -n -- sh -c 'nginx -t' alfa-vhost path"
    assert [(await shell.run(line)).status for _ in range(3)] == [3, 4, 0]
    struck = [(item.program, item.fault) for item in calm_practice.commands(kind="stand_in") if item.fault]
    assert struck == [("sudo", "fail"), ("nginx", "fail")]


@pytest.mark.parametrize(
    ("line", "inner"),
    [
        ("timeout 60 docker ps", ["docker ps"]),
        ("sudo -n -- runuser -u postgres -- psql", ["sudo -n -- runuser -u postgres -- psql"]),
        ("sh -c 'set -e; nginx -t 2>&1 || exit 4' x", ["nginx -t 2>"]),
        ("true;docker ps|cat", ["docker ps | cat"]),
        ("cat /srv/nginx/conf.d/docker.conf", []),
        ("echo it's broken", []),
    ],
)
def test_what_a_line_leads_to(line: str, inner: list[str]) -> None:
    assert inner_lines(line, {"docker", "nginx", "sudo", "psql"}) == inner
