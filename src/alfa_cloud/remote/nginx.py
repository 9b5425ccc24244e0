"""nginx on a server: a client's virtual host, and the way it becomes the truth."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from alfa_cloud.remote import pages
from alfa_cloud.remote.command import Command
from alfa_cloud.specs import ClientSpec, Layout

HEALTH_PATH: Final = "/.alfa/health"
"""Goes to the app's health path, and no page covers it."""

# All scripts hold back SIGPIPE: a killed worker closes the pipe they print to, and what follows must be done all the
# same. The content is read before the lock is taken. `$path.previous` lies there while a new file is tried (empty,
# where there was none before): an install that was cut off is taken back by the next one.
SHARED: Final = """
set -eu
trap '' PIPE
path=$1 lock=$2 mark=$3
say() { printf '%s\\n' "$1" >&2 || :; }
ours() {
  [ ! -L "$path" ] || return 1
  [ ! -e "$path" ] || [ "$(head -n 1 -- "$path")" = "$mark" ]
}
hold_lock() {
  exec 9>>"$lock"
  flock -w 60 9 || { say "nginx's configuration is held by another change ($lock)"; exit 75; }
}
reload() {
  found=$(nginx -s reload 2>&1) || { say "$found"; exit 7; }
  rm -f -- "$lock.owed"
}
"""

# Tests the configuration as a whole; a new file that breaks it is taken back, so nginx never has a bad one on disk.
INSTALL: Final = (
    SHARED
    + """
loaded=$4 digest=$5 size=$6
back() {
  if [ -s "$path.previous" ]; then mv -f -- "$path.previous" "$path"
  else rm -f -- "$path"; rm -f -- "$path.previous"; fi
}
new=$(mktemp -- "$path.XXXXXX.new")
trap 'rm -f -- "$new"' EXIT
cat >"$new"
[ "$(wc -c <"$new")" -eq "$size" ] || { say "$path: the content did not arrive whole"; exit 74; }
chmod 0644 -- "$new"
sync -- "$new"
hold_lock
for old in "$path".??????.new; do [ "$old" = "$new" ] || rm -f -- "$old"; done
ours || exit 6
if ! found=$(nginx -t 2>&1); then
  [ -e "$path.previous" ] || { say "$found"; exit 4; }
  back
  found=$(nginx -t 2>&1) || { say "$found"; exit 4; }
fi
rm -f -- "$path.previous"
if [ -e "$path" ]; then ln -- "$path" "$path.previous"; else : >"$path.previous"; fi
mv -f -- "$new" "$path"
trap - EXIT
if ! found=$(nginx -t 2>&1); then
  back
  say "$found"
  exit 5
fi
rm -f -- "$path.previous" "$path.gone"
reload
printf %s "$digest" >"$loaded"
"""
)

# `$path.gone` is the file while the rest is tested without it; where that is bad, it comes back. `$lock.owed` lies
# there from a removal until nginx was told, whichever client's change tells it.
REMOVE: Final = (
    SHARED
    + """
hold_lock
ours || exit 6
rm -f -- "$path".??????.new
if [ -e "$path" ] || [ -e "$path.previous" ] || [ -e "$path.gone" ]; then
  [ ! -e "$path" ] || mv -f -- "$path" "$path.gone"
  if ! found=$(nginx -t 2>&1); then
    [ ! -e "$path.gone" ] || mv -f -- "$path.gone" "$path"
    say "$found"
    exit 4
  fi
  : >"$lock.owed"
  rm -f -- "$path.previous" "$path.gone"
fi
[ ! -e "$lock.owed" ] || reload
"""
)

LOOK: Final = (
    SHARED
    + """
ours || exit 6
[ -e "$path" ] || [ -e "$path.previous" ] || [ -e "$path.gone" ] || [ -e "$lock.owed" ] || exit 8
"""
)

BROKEN_BEFORE: Final = 4
"""nginx refuses its configuration because of somebody else's file; nothing was changed."""
REFUSED: Final = 5
"""nginx refuses the new file; the former one is back."""
NOT_OURS: Final = 6
"""The file is not this client's; it was left alone."""
NOT_RELOADED: Final = 7
"""The file is as it should be, and nginx could not be told."""
ABSENT: Final = 8


def version() -> Command:
    """Print the version, on standard error."""
    return Command(("nginx", "-v"), sudo=True, timeout_s=20, log=False)


def test() -> Command:
    """Exit status 0 where the configuration as a whole is good."""
    return Command(("nginx", "-t"), sudo=True, timeout_s=30)


def install_vhost(spec: ClientSpec, path: str, content: bytes, loaded: str) -> Command:
    """The virtual host is in force, and the file `loaded` bears its digest; or the former one is (status 4 to 6)."""
    argv = (*_script(INSTALL, spec, path), loaded, digest(content), str(len(content)))
    return Command(argv, stdin=content, sudo=True, timeout_s=120)


def remove_vhost(spec: ClientSpec, path: str) -> Command:
    """The virtual host is gone and nginx knows; or it is there as before (status 4 and 6)."""
    return Command(_script(REMOVE, spec, path), sudo=True, timeout_s=120)


def look_vhost(spec: ClientSpec, path: str) -> Command:
    """Exit status 0 where something of this client's is at the path, `ABSENT` or `NOT_OURS` where not."""
    return Command(_script(LOOK, spec, path), sudo=True, log=False, timeout_s=30)


def mark(spec: ClientSpec) -> str:
    """The first line of a client's virtual host."""
    return f"# alfa-cloud: client {spec.name} {spec.uid}"


def _script(script: str, spec: ClientSpec, path: str) -> tuple[str, ...]:
    return ("sh", "-c", script, "alfa-vhost", path, lock_path(spec.layout), mark(spec))


def digest(content: bytes) -> str:
    """What tells one virtual host from another."""
    return hashlib.sha256(content).hexdigest()


def lock_path(layout: Layout) -> str:
    """What changes of nginx's configuration on a server hold, one after the other."""
    return f"{layout.root}/nginx.lock"


def render_vhost(spec: ClientSpec, *, secure: bool) -> bytes:
    """The virtual host of a client; `secure` where its certificate is there."""
    template = _template("vhost.conf.j2")
    return template.render(
        spec=spec, layout=spec.layout, mark=mark(spec), secure=secure, health_path=HEALTH_PATH, pages=pages
    ).encode()


def render_forward(spec: ClientSpec, target: ClientSpec, address: str, *, secure: bool, target_secure: bool) -> bytes:
    """The virtual host that sends a client's visitors on to another server.

    Args:
        address: that server's, an IP address.
        secure: whether the certificate is on this server, and `target_secure` whether it is on that one.
    """
    host = f"[{address}]" if ":" in address else address
    plain = f"http://{host}:{target.layout.http_port}"
    template = _template("forward.conf.j2")
    return template.render(
        spec=spec,
        layout=spec.layout,
        mark=mark(spec),
        secure=secure,
        pages=pages,
        plain=plain,
        safe=f"https://{host}:{target.layout.https_port}" if target_secure else plain,
    ).encode()


@cache
def _template(name: str) -> Template:
    loader = PackageLoader("alfa_cloud.remote")
    environment = Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701  not HTML
    return environment.get_template(name)
