"""`python -m alfa_cloud.sandbox.practice FOLDER`: the practice server as a process of its own.

With `--tied` it stops when its standard input ends, so that it never outlives whoever started it.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from alfa_cloud.sandbox.child import FolderLock, SandboxError
from alfa_cloud.sandbox.practice.control import Control, install_stand_ins
from alfa_cloud.sandbox.practice.folder import PracticeFolder, write_aside
from alfa_cloud.sandbox.practice.machine import Machine, end_all, reap
from alfa_cloud.sandbox.practice.ssh import SshServer

PR_SET_CHILD_SUBREAPER: Final = 36
"""prctl(2)."""

REAP_S: Final = 0.5
LOOKS: Final = 64
"""At once, of those that no process does: an app that does not answer holds one of them for seconds."""


async def serve(machine: Machine, control: Control, *, tied: bool) -> bool:
    """Run until told to stop; whether a reboot was asked for."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    rebooting = False

    def reboot() -> None:
        nonlocal rebooting
        rebooting = True
        loop.call_soon_threadsafe(over.set)

    machine.reboot = reboot
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, over.set)
    if tied:
        loop.add_reader(0, lambda: None if os.read(0, 4096) else over.set())
    machine.boot()
    control.start()
    loop.set_default_executor(ThreadPoolExecutor(LOOKS))
    server = SshServer(machine, control)
    await server.start()
    reaper = asyncio.create_task(reap_adopted())
    write_aside(machine.folder.state / "ready", f"{os.getpid()} {machine.folder.boot_id.read_text()}")
    await over.wait()
    (machine.folder.state / "ready").unlink(missing_ok=True)
    reaper.cancel()
    server.stop()
    control.stop()
    await asyncio.sleep(0)
    await asyncio.to_thread(machine.shut_down)
    if tied:
        loop.remove_reader(0)
    return rebooting


async def reap_adopted() -> None:
    """Orphans of this server, which are ours by PR_SET_CHILD_SUBREAPER, do not stay as zombies."""
    known: frozenset[int] = frozenset()
    while True:
        known = reap(known)
        await asyncio.sleep(REAP_S)


def main() -> None:
    """Be a practice server; after a reboot the same process starts anew."""
    parser = argparse.ArgumentParser(prog="python -m alfa_cloud.sandbox.practice")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tied", action="store_true")
    parser.add_argument("--no-fsync", action="store_true")
    parser.add_argument("--down-s", type=float, default=0)
    given = parser.parse_args()
    root = given.folder.absolute()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    time.sleep(given.down_s)
    folder = PracticeFolder(root)
    folder.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = FolderLock(folder.state / "lock", "The practice server")
    try:
        lock.acquire()
        (folder.state / "ready").unlink(missing_ok=True)
        end_all(root)
        machine = Machine.build(root, fsync=not given.no_fsync)
        install_stand_ins(folder)
        rebooting = asyncio.run(serve(machine, Control(machine), tied=given.tied))
    except SandboxError as error:
        sys.exit(str(error))
    if rebooting:
        down = folder.state / "down_s"
        argv = [word for word in sys.argv[1:] if not word.startswith("--down-s")]
        argv.append(f"--down-s={down.read_text() if down.exists() else 1}")
        os.execv(sys.executable, [sys.executable, "-m", "alfa_cloud.sandbox.practice", *argv])
    threading.excepthook = lambda _: None
    os._exit(0)


if __name__ == "__main__":
    main()
