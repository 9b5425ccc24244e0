"""nginx on a server: a client's virtual host, and the way it becomes the truth."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Final

from jinja2 import Environment, StrictUndefined

from alfa_cloud.remote.command import Command
from alfa_cloud.specs import ClientSpec, Layout

HEALTH_PATH: Final = "/.alfa/health"
"""Goes to the app's health path, and no page covers it."""

# Tests the configuration as a whole; a new file that breaks it is taken back, so nginx never has a bad one on disk.
# Exit status 4: it was broken before, by somebody else's file.
INSTALL: Final = """
set -eu
path=$1 lock=$2 loaded=$3 digest=$4 size=$5
exec 9>>"$lock"
flock -w 60 9
if ! before=$(nginx -t 2>&1); then printf '%s\\n' "$before" >&2; exit 4; fi
new=$(mktemp -- "$path.XXXXXX.new")
trap 'rm -f -- "$new"' EXIT
cat >"$new"
[ "$(wc -c <"$new")" -eq "$size" ] || { echo "$path: the content did not arrive whole" >&2; exit 74; }
chmod 0644 -- "$new"
sync -- "$new"
rm -f -- "$path.previous"
[ ! -f "$path" ] || ln -- "$path" "$path.previous"
mv -f -- "$new" "$path"
trap - EXIT
if ! after=$(nginx -t 2>&1); then
  printf '%s\\n' "$after" >&2
  if [ -f "$path.previous" ]; then mv -f -- "$path.previous" "$path"; else rm -f -- "$path"; fi
  exit 5
fi
nginx -s reload
printf %s "$digest" >"$loaded"
"""

REMOVE: Final = """
set -eu
path=$1 lock=$2
exec 9>>"$lock"
flock -w 60 9
[ -e "$path" ] || [ -e "$path.previous" ] || exit 0
rm -f -- "$path" "$path.previous"
nginx -t 2>&1 && nginx -s reload
"""

BROKEN_BEFORE: Final = 4
REFUSED: Final = 5


def version() -> Command:
    """Print the version, on standard error."""
    return Command(("nginx", "-v"), sudo=True, timeout_s=20, log=False)


def test() -> Command:
    """Exit status 0 where the configuration as a whole is good."""
    return Command(("nginx", "-t"), sudo=True, timeout_s=30)


def install_vhost(layout: Layout, path: str, content: bytes, loaded: str) -> Command:
    """The virtual host is in force, and the file `loaded` bears its digest; or the former one is (status 4 or 5)."""
    argv = ("sh", "-c", INSTALL, "alfa-vhost", path, lock_path(layout), loaded, digest(content), str(len(content)))
    return Command(argv, stdin=content, sudo=True, timeout_s=120)


def remove_vhost(layout: Layout, path: str) -> Command:
    """The virtual host is gone and nginx knows."""
    return Command(("sh", "-c", REMOVE, "alfa-vhost-remove", path, lock_path(layout)), sudo=True, timeout_s=120)


def digest(content: bytes) -> str:
    """What tells one virtual host from another."""
    return hashlib.sha256(content).hexdigest()


def lock_path(layout: Layout) -> str:
    """What changes of nginx's configuration on a server hold, one after the other."""
    return f"{layout.root}/nginx.lock"


def render_vhost(spec: ClientSpec, *, secure: bool) -> bytes:
    """The virtual host of a client; `secure` where its certificate is there."""
    template = _environment().from_string(_source("vhost.conf.j2"))
    return template.render(spec=spec, layout=spec.layout, secure=secure, health_path=HEALTH_PATH).encode()


def render_page(name: str) -> bytes:
    """A page that nginx shows by itself: `unavailable`."""
    return _source(f"{name}.html").encode()


def page_path(layout: Layout, name: str) -> str:
    """Where a page lies on a server."""
    return f"{layout.root}/pages/{name}.html"


def _environment() -> Environment:
    return Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701  not HTML


def _source(name: str) -> str:
    return (resources.files("alfa_cloud.remote") / "templates" / name).read_text(encoding="utf-8")
