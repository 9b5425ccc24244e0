"""`make run`: everything comes up, works, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from alfa_cloud.sandbox.child import package_environment, tail, wait_until
from alfa_cloud.sandbox.practice.folder import choose_ports
from alfa_cloud.sandbox.processes import our_argv

UP_S = 120


def start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """Start the sandbox as `command &` in a script does: with INT ignored."""
    env = {key: value for key, value in package_environment().items() if not key.startswith("ALFA_")}
    argv = our_argv("sandbox", f"--data-dir={folder / 'data'}", f"--port={port}")
    with (folder / "output").open("wb") as output:
        shell = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *argv]
        return subprocess.Popen(shell, stdout=output, stderr=output, env=env)


def await_up(folder: Path, process: subprocess.Popen[bytes]) -> str:
    """What it printed once it was up."""
    output = folder / "output"
    wait_until(lambda: process.poll() is not None or "Ctrl-C stops" in output.read_text(), timeout_s=UP_S)
    text = output.read_text()
    assert "Ctrl-C stops" in text, text
    return text


def left(folder: Path) -> list[str]:
    """The command lines of processes that name a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if os.fsencode(folder / "data") in line:
                found.append(line.decode("utf-8", "replace")[:200])
    return found


@pytest.fixture
def port() -> int:
    """A free port."""
    return choose_ports().base


def test_the_sandbox_comes_up_works_and_goes(tmp_path: Path, port: int) -> None:
    process = start(tmp_path, port)
    try:
        text = await_up(tmp_path, process)
        login = json.loads((tmp_path / "data" / "login.json").read_text())
        assert (tmp_path / "data" / "login.json").stat().st_mode & 0o777 == 0o600
        assert login["password"] in text
        assert f"http://127.0.0.1:{port}/docs" in text
        assert text.count("\ncurl ") == 2
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as browser:
            browser.auth = httpx.BasicAuth(login["login"], login["password"])
            [server] = browser.get("/servers").json()["data"]
            assert server["attributes"]["name"] == "practice"
            client = {"name": "tried", "email": "lab@example.org", "server_id": int(server["id"])}
            created = browser.post("/clients/", json=client, headers={"Prefer": "wait=60"})
            assert created.status_code == 201, created.text
            log = f"/clients/{created.json()['data']['id']}/create_log?follow_log=true"
            assert "completed: ok" in browser.get(log, headers={"Accept": "text/plain"}).text
        web = re.search(r"nginx on port (\d+)", text)
        assert web is not None
        page = httpx.get(f"http://127.0.0.1:{web[1]}/", headers={"Host": "tried.practice.localhost"}, trust_env=False)
        assert "tried" in page.text
        second = subprocess.run(
            our_argv("sandbox", f"--data-dir={tmp_path / 'data'}", f"--port={port + 1}"),
            capture_output=True, env=package_environment(), text=True, check=False,
        )  # fmt: skip
        assert (second.returncode, "in use by another run" in second.stderr) == (1, True)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    assert wait_until(lambda: not left(tmp_path), timeout_s=15), left(tmp_path)


def test_a_killed_sandbox_leaves_nothing_and_is_found_again(tmp_path: Path, port: int) -> None:
    process = start(tmp_path, port)
    try:
        await_up(tmp_path, process)
    finally:
        process.kill()
        process.wait()
    assert wait_until(lambda: not left(tmp_path), timeout_s=30), left(tmp_path)
    again = start(tmp_path, port)
    try:
        assert "Registering" not in await_up(tmp_path, again)
        again.send_signal(signal.SIGTERM)
        assert again.wait(60) == 0
    finally:
        again.kill()
        again.wait()
    assert not left(tmp_path)


def test_a_taken_port_is_told(tmp_path: Path, port: int) -> None:
    with subprocess.Popen([sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)], stderr=-3) as other:
        assert wait_until(lambda: not _free(port), timeout_s=10)
        process = start(tmp_path, port)
        assert process.wait(30) == 1
        other.kill()
    assert f"Port {port} is taken" in tail(tmp_path / "output")


def _free(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/", trust_env=False)
    except httpx.ConnectError:
        return True
    return False
