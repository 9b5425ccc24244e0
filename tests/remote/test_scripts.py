"""The scripts that run on a server, in a folder of the test's own with an nginx that only reads its files."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from alfa_cloud.remote import files, nginx
from alfa_cloud.remote.command import Command
from alfa_cloud.specs import Layout
from tests.playbooks.specs import UID, make_spec

# Refuses a configuration in which any file says BROKEN; counts reloads; fails to reload where told so.
NGINX = """#!/bin/sh
cd "$(dirname "$0")/.."
case $1 in
  -t) if grep -ls BROKEN conf.d/*.conf; then echo "nginx: [emerg] broken" >&2; exit 1; fi; echo fine >&2 ;;
  -s) [ ! -e no-reload ] || { echo "nginx: [error] no pid" >&2; exit 1; }; echo >>reloads ;;
esac
"""


@dataclass
class Machine:
    """A folder with nginx's files."""

    root: Path

    @property
    def layout(self) -> Layout:
        return Layout(root=str(self.root / "srv"), nginx_dir=str(self.root / "conf.d"))

    @property
    def path(self) -> Path:
        return Path(self.layout.vhost_path("lab-7"))

    @property
    def loaded(self) -> Path:
        return self.root / "loaded"

    @property
    def reloads(self) -> int:
        counter = self.root / "reloads"
        return len(counter.read_text().splitlines()) if counter.exists() else 0

    def run(self, command: Command, stdin: bytes | None = None) -> int:
        environment = {**os.environ, "PATH": f"{self.root}/bin:{os.environ['PATH']}"}
        data = command.stdin if stdin is None else stdin
        return subprocess.run(command.argv, input=data, env=environment, check=False, capture_output=True).returncode

    def run_unheard(self, command: Command) -> int:
        """The same with both outputs closed at the other end, as a killed worker leaves them."""
        reader, writer = os.pipe()
        os.close(reader)
        environment = {**os.environ, "PATH": f"{self.root}/bin:{os.environ['PATH']}"}
        done = subprocess.run(
            command.argv, input=command.stdin, env=environment, check=False, stdout=writer, stderr=writer
        )
        os.close(writer)
        return done.returncode

    def install(self, body: str, uid: str = UID) -> Command:
        spec = make_spec(layout=self.layout, uid=uid)
        return nginx.install_vhost(spec, str(self.path), f"{nginx.mark(spec)}\n{body}".encode(), str(self.loaded))

    def remove(self, uid: str = UID) -> Command:
        return nginx.remove_vhost(make_spec(layout=self.layout, uid=uid), str(self.path))

    def look(self, uid: str = UID) -> int:
        return self.run(nginx.look_vhost(make_spec(layout=self.layout, uid=uid), str(self.path)))

    def left(self) -> list[str]:
        return sorted(path.name for path in (self.root / "conf.d").iterdir())


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    for name in ("bin", "conf.d", "srv/clients"):
        (tmp_path / name).mkdir(parents=True)
    stub = tmp_path / "bin" / "nginx"
    stub.write_text(NGINX)
    stub.chmod(0o755)
    return Machine(tmp_path)


def test_a_virtual_host_comes_changes_and_goes(machine: Machine) -> None:
    assert machine.look() == nginx.ABSENT
    for body in ("one", "two"):
        command = machine.install(body)
        assert machine.run(command) == 0
        assert machine.path.read_bytes() == command.stdin
        assert machine.loaded.read_text() == nginx.digest(command.stdin)
    assert (machine.look(), machine.left(), machine.reloads) == (0, ["alfa-lab-7.conf"], 2)
    assert machine.run(machine.remove()) == 0
    assert (machine.look(), machine.left(), machine.reloads) == (nginx.ABSENT, [], 3)
    assert machine.run(machine.remove()) == 0
    assert machine.reloads == 3


@pytest.mark.parametrize("heard", [True, False])
@pytest.mark.parametrize("before", ["good", None])
def test_a_bad_file_is_taken_back_even_where_nobody_listens(machine: Machine, heard: bool, before: str | None) -> None:
    if before:
        assert machine.run(machine.install(before)) == 0
    run = machine.run if heard else machine.run_unheard
    assert run(machine.install("BROKEN")) == nginx.REFUSED
    assert machine.left() == (["alfa-lab-7.conf"] if before else [])
    if before:
        assert machine.path.read_text().endswith(before)


@pytest.mark.parametrize("before", ["good", ""])
def test_an_install_that_was_cut_off_is_taken_back_by_the_next(machine: Machine, before: str) -> None:
    """As `kill -9` between the rename and the test leaves it."""
    mark = nginx.mark(make_spec())
    machine.path.write_text(f"{mark}\nBROKEN")
    Path(f"{machine.path}.previous").write_text(f"{mark}\n{before}" if before else "")
    assert machine.run(machine.install("next")) == 0
    assert machine.path.read_text() == f"{mark}\nnext"
    assert machine.left() == ["alfa-lab-7.conf"]


def test_a_foreign_broken_file_stops_everything_before_anything(machine: Machine) -> None:
    assert machine.run(machine.install("good")) == 0
    other = machine.root / "conf.d" / "other.conf"
    other.write_text("BROKEN")
    for command in (machine.install("next"), machine.remove()):
        assert machine.run(command) == nginx.BROKEN_BEFORE
        assert machine.path.read_text().endswith("good")
    other.unlink()
    assert machine.run(machine.remove()) == 0
    assert (machine.left(), machine.reloads) == ([], 2)


def test_a_removal_is_not_over_before_nginx_knows(machine: Machine) -> None:
    assert machine.run(machine.install("good")) == 0
    (machine.root / "no-reload").touch()
    for _ in range(2):
        assert machine.run(machine.remove()) == nginx.NOT_RELOADED
        assert (machine.left(), machine.look()) == ([], 0)
    (machine.root / "no-reload").unlink()
    assert machine.run(machine.remove()) == 0
    assert (machine.look(), machine.reloads) == (nginx.ABSENT, 2)


@pytest.mark.parametrize("content", ["server {}", "# alfa-cloud: client lab-7 another-uid\n"])
def test_a_file_that_is_not_ours_stays(machine: Machine, content: str) -> None:
    machine.path.write_text(content)
    assert machine.run(machine.install("mine")) == nginx.NOT_OURS
    assert machine.run(machine.remove()) == nginx.NOT_OURS
    assert machine.look() == nginx.NOT_OURS
    assert (machine.path.read_text(), machine.left(), machine.reloads) == (content, ["alfa-lab-7.conf"], 0)


def test_a_link_is_not_ours(machine: Machine) -> None:
    target = machine.root / "precious"
    target.write_text(nginx.mark(make_spec()))
    machine.path.symlink_to(target)
    assert machine.run(machine.install("mine")) == nginx.NOT_OURS
    assert machine.run(machine.remove()) == nginx.NOT_OURS
    assert machine.path.is_symlink()
    assert target.exists()


def test_half_a_virtual_host_is_none(machine: Machine) -> None:
    command = machine.install("a long body")
    assert machine.run(command, command.stdin[:-3]) == 74
    assert machine.left() == []


def test_half_a_file_is_none(tmp_path: Path, machine: Machine) -> None:
    path = tmp_path / "file"
    command = files.write_file(str(path), b"whole content", mode="0600")
    assert machine.run(command, b"whole") == 74
    assert not path.exists()
    assert machine.run(command) == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.glob("file*")] == ["file"]


def test_what_a_killed_write_left_goes_with_the_next_one(tmp_path: Path, machine: Machine) -> None:
    """And no other file does, whose name begins so."""
    for name in ("lab.test.ab12XY~", "lab.test.museum", "lab.test.previous", "lab.test.ab12XY.new"):
        (tmp_path / name).touch()
    assert machine.run(files.write_file(str(tmp_path / "lab.test"), b"content")) == 0
    left = sorted(path.name for path in tmp_path.glob("lab.test*"))
    assert left == ["lab.test", "lab.test.ab12XY.new", "lab.test.museum", "lab.test.previous"]


def test_what_a_killed_install_left_goes_with_the_next_one(machine: Machine) -> None:
    machine.path.with_name(f"{machine.path.name}.ab12XY.new").touch()
    assert machine.run(machine.install("body")) == 0
    assert machine.left() == [machine.path.name]


def test_writing_replaces_a_planted_link_and_not_its_target(tmp_path: Path, machine: Machine) -> None:
    target, path = tmp_path / "target", tmp_path / "file"
    target.write_text("precious")
    path.symlink_to(target)
    assert machine.run(files.write_file(str(path), b"content")) == 0
    assert (target.read_text(), path.is_symlink(), path.read_text()) == ("precious", False, "content")


def client_folder(machine: Machine, mark: str | None) -> Path:
    """A client's folder with content."""
    folder = machine.root / "srv" / "clients" / "lab-7"
    (folder / "storage").mkdir(parents=True)
    (folder / "storage" / "file").touch()
    if mark is not None:
        (folder / files.MARK).write_text(mark)
    return folder


def remove_folder(machine: Machine, path: Path) -> Command:
    """The removal of a client's folder."""
    return files.remove_client_folder(str(machine.root / "srv" / "clients"), str(path), UID)


def test_a_folder_with_its_mark_goes_and_what_links_in_it_lead_to_stays(machine: Machine) -> None:
    precious = machine.root / "precious"
    precious.mkdir()
    (precious / "file").touch()
    folder = client_folder(machine, UID)
    (folder / "storage" / "link").symlink_to(precious)
    assert machine.run(remove_folder(machine, folder)) == 0
    assert not folder.exists()
    assert (precious / "file").exists()
    assert machine.run(remove_folder(machine, folder)) == 0


@pytest.mark.parametrize("mark", ["another-uid", None])
def test_a_folder_without_its_mark_stays(machine: Machine, mark: str | None) -> None:
    folder = client_folder(machine, mark)
    assert machine.run(remove_folder(machine, folder)) == 3
    assert (folder / "storage" / "file").exists()


def test_a_link_in_a_folders_place_and_what_lies_elsewhere_stay(machine: Machine) -> None:
    elsewhere = machine.root / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / files.MARK).write_text(UID)
    link = machine.root / "srv" / "clients" / "lab-7"
    link.symlink_to(elsewhere)
    for path in (link, elsewhere, link.parent / ".." / "clients"):
        assert machine.run(remove_folder(machine, path)) == 3
    assert (elsewhere / files.MARK).exists()
