"""Where the stand-ins' fronts knock: one thread for each call, faults first, every call recorded."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

from alfa_cloud.sandbox.practice import docker_cli, faults, tools
from alfa_cloud.sandbox.practice.call import HANDED_OVER, Call, CallerGoneError, receive_call, receive_words
from alfa_cloud.sandbox.practice.faults import Action, Fault, Phase
from alfa_cloud.sandbox.practice.folder import PracticeFolder, write_aside
from alfa_cloud.sandbox.practice.machine import Machine

PROGRAMS: Final[dict[str, Callable[[Machine, Call], int]]] = {
    **tools.PROGRAMS,
    "docker": lambda machine, call: docker_cli.docker(machine.engine, call),
}


def _cut(machine: Machine, call: Call) -> int:
    machine.cut("", False)
    return 0


ORDERS: Final[dict[str, Callable[[Machine, Call], int]]] = {
    "@cut": _cut,
    "@crash": lambda machine, call: 0 if machine.engine.crash(call.argv[0]) else 1,
}
"""What whoever holds the server asks for; neither recorded nor struck by faults."""

WRAPPERS: Final = ("sudo", "runuser")
CUT_STATUS: Final = 255
BROKEN_PIPE: Final = 141
CHUNK_LINES: Final = 2000

FRONT: Final = "#!/bin/sh\nexec '%s' -I -S '%s' %s \"$@\"\n"
# Nobody owns files but the user: these do their work without giving them away.
NO_OWNER: Final = """#!/bin/sh
for word do
  shift
  case "$word" in
    --owner=*|--group=*) ;;
    *) set -- "$@" "$word" ;;
  esac
done
exec %s "$@"
"""
# Where there is no zstd: what it writes it can read.
NO_ZSTD: Final = """#!/bin/sh
[ "$1" != --version ] || exec echo 'v0 (a stand-in that packs nothing)'
exec cat
"""
KEEP_OWNER: Final = """#!/bin/sh
case "$*" in *--reference=*) %s "$@" 2>/dev/null ;; esac
exit 0
"""


def install_stand_ins(folder: PracticeFolder) -> None:
    """The stand-ins lie in the folder's `bin`."""
    front = folder.bin / ".stand-in.py"
    front.write_bytes(Path(__file__).with_name("stand_in.py").read_bytes())
    texts = {name: FRONT % (sys.executable, front, name) for name in PROGRAMS}
    texts["install"] = NO_OWNER % (shutil.which("install") or "/usr/bin/install")
    for name in ("chown", "chgrp"):
        texts[name] = KEEP_OWNER % (shutil.which(name) or f"/usr/bin/{name}")
    if shutil.which("zstd") is None:
        texts["zstd"] = NO_ZSTD
    for name, text in texts.items():
        write_aside(folder.bin / name, text, mode=0o755)
        (folder.bin / name).chmod(0o755)


class Control:
    """Listens for the fronts."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.note = machine.folder.state / "socket"
        self.socket = socket.socket(socket.AF_UNIX)
        self.folder = ""

    def start(self) -> None:
        """Fronts are answered."""
        self._clean()
        base = tempfile.gettempdir()
        self.folder = tempfile.mkdtemp(prefix="alfa-practice-", dir=base if len(base) < 60 else "/tmp")
        path = Path(self.folder) / "socket"
        self.socket.bind(str(path))
        self.socket.listen(512)
        write_aside(self.note, str(path))
        threading.Thread(target=self._listen, name="control", daemon=True).start()

    def stop(self) -> None:
        """Fronts are not answered any more."""
        self.socket.close()
        self._clean()

    def _clean(self) -> None:
        """The socket's folder, of a killed run too, is gone."""
        if self.note.exists():
            former = Path(self.note.read_text()).parent
            if former.name.startswith("alfa-practice-"):
                shutil.rmtree(former, ignore_errors=True)
            self.note.unlink()

    def _listen(self) -> None:
        while True:
            try:
                link, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._attend, args=(link,), daemon=True).start()

    def look(self, argv: list[str], session: str) -> tuple[int, bytes, bytes]:
        """What a stand-in that only looks says to a call without a front: exit status, output and errors."""
        link, front = socket.socketpair()
        with front, link, Path(os.devnull).open("rb") as null, TemporaryFile() as output, TemporaryFile() as errors:
            files = (null.fileno(), output.fileno(), errors.fileno())
            status = self._execute(
                Call(link, argv[0], str(self.machine.folder.home), session, "root", argv[1:], *files)
            )
            output.seek(0)
            errors.seek(0)
            return status, output.read(), errors.read()

    def _attend(self, link: socket.socket) -> None:
        """Answer one front."""
        try:
            call = receive_call(link)
        except CallerGoneError:
            link.close()
            return
        try:
            order = ORDERS.get(call.program)
            status = self._execute(call) if order is None else order(self.machine, call)
            if status != HANDED_OVER:
                call.tell("exit", str(status % 256))
        except (CallerGoneError, OSError):
            pass
        finally:
            call.close()

    def _execute(self, call: Call) -> int:
        """Record a call, and let it strike what is due."""
        name = self.machine.recorder.begin(
            "stand_in", call.program, (call.program, *call.argv), call.line, call.session
        )
        fault = self.machine.faults.take(
            call.line, lambda: faults.inner_lines(call.argv, PROGRAMS.keys()) if call.program in WRAPPERS else ()
        )
        status: int | None = None
        try:
            status = self._work(call, fault)
        except CallerGoneError:
            status = BROKEN_PIPE
            raise
        finally:
            code = None if status == HANDED_OVER else status
            self.machine.recorder.end(name, code, fault.action if fault else "")
        return status

    def _work(self, call: Call, fault: Fault | None) -> int:
        """The program, with a fault before, during or after it."""
        if fault is None:
            return self._run(call)
        call.attended = fault.phase is not Phase.BEFORE or fault.action in (Action.FLOOD, Action.GARBAGE, Action.SLOW)
        if fault.phase is not Phase.AFTER:
            struck = self.strike(call, fault)
            if struck is not None and fault.phase is Phase.BEFORE:
                return struck
            return self._run(call)
        status = self._run(call)
        struck = self.strike(call, fault)
        return status if struck is None else struck

    def _run(self, call: Call) -> int:
        """The program's own exit status; a mistake of ours is told on its error stream."""
        try:
            return PROGRAMS[call.program](self.machine, call)
        except CallerGoneError:
            raise
        except Exception:  # the outermost frame of a call
            call.err(f"{call.program} (a stand-in of the practice server):\n{traceback.format_exc()}")
            return 70

    def strike(self, call: Call, fault: Fault) -> int | None:
        """Let a fault happen; the exit status, or None where the work is not touched by it."""
        match fault.action:
            case Action.FAIL:
                call.err(fault.stderr)
                return fault.exit_status
            case Action.HANG:
                call.pause(fault.seconds)
                call.err(fault.stderr)
                return fault.exit_status
            case Action.SLOW:
                call.pause(fault.seconds)
            case Action.FLOOD | Action.GARBAGE:
                for chunk in chunks(fault):
                    call.out(chunk)
            case Action.KILL_CONNECTION | Action.NOEXIT:
                self.machine.cut(call.session, fault.action is Action.NOEXIT)
                return CUT_STATUS
        return None


def chunks(fault: Fault) -> Iterator[bytes]:
    """What a flood or garbage prints, in pieces."""
    line = faults.FLOOD_LINE if fault.action is Action.FLOOD else faults.GARBAGE
    for start in range(0, fault.lines, CHUNK_LINES):
        yield line * min(CHUNK_LINES, fault.lines - start)


def order(folder: PracticeFolder, program: str, *argv: str) -> int:
    """Call a stand-in's program as a front would; its exit status, or -1 where the server went away."""
    with socket.socket(socket.AF_UNIX) as link, Path(os.devnull).open("r+b") as null:
        link.connect((folder.state / "socket").read_text().strip())
        data = b"\0".join(os.fsencode(word) for word in (program, str(folder.home), "", "root", *argv))
        socket.send_fds(link, [len(data).to_bytes(8, "big")], [null.fileno()] * 3)
        link.sendall(data)
        with suppress(CallerGoneError):
            verb, *words = receive_words(link)
            if verb == "exit":
                return int(words[0])
    return -1
