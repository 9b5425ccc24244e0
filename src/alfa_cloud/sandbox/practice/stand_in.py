"""The stand-ins' front: hands its arguments and descriptors to the practice server, and ends as that one says.

It is copied into the folder and run as `python -I -S`, so it imports next to nothing: a start takes 10 ms.
"""

import _socket
import os
import sys

NAMES = ("ALFA_PRACTICE_SESSION", "ALFA_PRACTICE_USER")


def receive(link: _socket.socket, size: int) -> bytes:
    """Exactly `size` bytes from the practice server."""
    data = b""
    while len(data) < size:
        part = link.recv(size - len(data))
        if not part:
            sys.stderr.write("The practice server went away.\n")
            os._exit(255)
        data += part
    return data


def send(link: _socket.socket, words: list[str], descriptors: bytes = b"") -> None:
    """Send words, and with the first byte of them descriptors."""
    data = b"\0".join(os.fsencode(word) for word in words)
    data = len(data).to_bytes(8, "big") + data
    ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptors)] if descriptors else []
    sent = link.sendmsg([data], ancillary)
    if data[sent:]:
        link.sendall(data[sent:])


def run(argv: list[str]) -> int:
    """Run a program to its end; its exit status as a shell would tell it."""
    child = os.posix_spawnp(argv[0], argv, os.environ)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if status >= 0 else 128 - status


def main(name: str, argv: list[str]) -> int:
    """Be the program `name`."""
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    link = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        with open(os.path.join(folder, "state", "socket"), encoding="utf-8") as note:
            link.connect(note.read().strip())
    except OSError:
        sys.stderr.write(f"{name}: the practice server is not running.\n")
        return 255
    descriptors = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
    send(link, [name, os.getcwd(), *(os.environ.get(key, "") for key in NAMES), *argv], descriptors)
    while True:
        verb, *words = os.fsdecode(receive(link, int.from_bytes(receive(link, 8), "big"))).split("\0")
        if verb == "exit":
            return int(words[0])
        if verb == "sudo":
            os.closerange(3, 1024)  # sudo closes what it inherits
        if verb in ("sudo", "exec"):
            os.execvp(words[0], words)
        send(link, [str(run(words))])


if __name__ == "__main__":
    os._exit(main(sys.argv[1], sys.argv[2:]))
