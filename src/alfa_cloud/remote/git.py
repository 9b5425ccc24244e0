"""The repository that images are built from, as git on a server sees it: looked at, fetched, checked out.

The deploy key goes by standard input to an ssh-agent that ends with the one command: it never lies in a file there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from alfa_cloud.errors import AlfaCloudError, CommandFailedError, InvalidError, RemoteError, ServerNotReadyError
from alfa_cloud.profile import Branch, Source
from alfa_cloud.remote.command import Command
from alfa_cloud.specs import Secret

PROGRAMS: Final = ("git", "ssh", "ssh-agent", "ssh-add", "flock", "setpriv")
MEND: Final = "apt-get install git openssh-client util-linux"
LOOK_S: Final = 8.0
FETCH_S: Final = 1800
CHECKOUT_S: Final = 600

COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
VERSION: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,119}")
"""With its branch behind it a tag of Docker's, which has at most 128 characters."""
DESCRIBED: Final = re.compile(r"^(\S+) is commit ([0-9a-f]{40,64})$", re.MULTILINE)


class Status:
    """What the exit status of a script means, beside git's own."""

    NO_SUCH_BRANCH: Final = 2
    """git ls-remote --exit-code."""
    BAD_KEY: Final = 65
    COMMIT_GONE: Final = 66
    NO_TAG: Final = 67
    MISSING: Final = 127


class SourceUnreachableError(RemoteError):
    """The repository cannot be read from the server."""

    code = "source_unreachable"
    title = "The source repository cannot be read"


class BranchMissingError(InvalidError):
    """The repository has no such branch."""

    code = "branch_missing"
    title = "No such branch"


# Nothing counts but what stands here: no configuration, hook, filter or prompt of the server, no transport but two.
ALONE: Final = r"""
set -eu
export HOME=/nonexistent LC_ALL=C
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_TERMINAL_PROMPT=0 GIT_ALLOW_PROTOCOL=ssh:https
git() {
    command git -c core.hooksPath=/dev/null -c protocol.ext.allow=never -c submodule.recurse=false \
        -c gc.autoDetach=false -c maintenance.autoDetach=false "$@"
}
"""

# The first line of the input is the host's key, the rest the deploy key; for https the line is empty. ssh reads
# GIT_SSH_COMMAND as a shell line: the one path in it is mktemp's.
CONNECT: Final = (
    ALONE
    + r"""
umask 077
IFS= read -r known
agent=
[ -z "$known" ] || agent=$SSH_AGENT_PID
aside=$(mktemp -d /tmp/alfa-git.XXXXXXXXXX)
trap 'rm -rf -- "$aside"; [ -z "$agent" ] || kill "$agent" || :' EXIT
trap 'exit 143' HUP INT TERM
export GIT_SSH_VARIANT=ssh
export GIT_SSH_COMMAND="ssh -F none -o BatchMode=yes -o StrictHostKeyChecking=yes -o UpdateHostKeys=no \
    -o UserKnownHostsFile=$aside/known_hosts -o GlobalKnownHostsFile=none -o IdentityFile=none \
    -o PreferredAuthentications=publickey -o ConnectTimeout=6 -o ServerAliveInterval=15"
if [ -n "$known" ]; then
    echo "* $known" >"$aside/known_hosts"
    SSH_ASKPASS_REQUIRE=never ssh-add -q - || exit 65
fi
# What git says to everything that goes wrong stands behind what went wrong, and would be all that is shown of it.
reach() {
    code=0
    git "$@" 2>"$aside/said" || code=$?
    sed '/^Please make sure you have/d; /^and the repository exists/d; /^ *$/d' "$aside/said" >&2
    [ "$code" -eq 0 ] || exit "$code"
}
"""
)

LOOK: Final = (
    CONNECT
    + r"""
cd "$aside"
reach ls-remote --exit-code -- "$1" "refs/heads/$2"
"""
)

# One at a time; so a lock of git's own is one that a run which died left there.
FETCH: Final = (
    CONNECT
    + r"""
work=$1 url=$2 branch=$3 commit=$4
repository=$work/repository.git
exec 5>>"$work/repository.lock"
flock 5
git init --quiet --bare --template= "$repository"
find "$repository" -name '*.lock' -type f -delete
cd "$repository"
reach fetch --quiet --no-recurse-submodules --no-write-fetch-head --force --prune -- "$url" \
    "+refs/heads/$branch:refs/heads/$branch" '+refs/tags/*:refs/tags/*'
git merge-base --is-ancestor "$commit" "refs/heads/$branch" || exit 66
version=$(git describe --tags "$commit") || exit 67
echo "$version is commit $commit"
"""
)

CHECKOUT: Final = (
    ALONE
    + r"""
umask 022
work=$1 build=$2 commit=$3
exec 5<"$work/repository.lock"
flock --shared 5
rm -rf -- "$build"
mkdir -p -- "$build/app"
cd "$build/app"
export GIT_DIR="$work/repository.git" GIT_WORK_TREE="$build/app" GIT_INDEX_FILE="$build/index"
git read-tree "$commit"
git checkout-index --all
"""
)


@dataclass(frozen=True, slots=True)
class Described:
    """What a commit is called: the nearest tag, and how far it is from there."""

    version: str
    commit: str


def look_at_branch(source: Source, key: Secret, branch: Branch) -> Command:
    """Print the commit of a branch; nothing is kept on the server."""
    return _with_key(source, key, LOOK, source.url, branch, timeout_s=LOOK_S)


def fetch(source: Source, key: Secret, work: str, branch: Branch, commit: str) -> Command:
    """The branch and all tags are in the server's repository; prints what the commit is called."""
    return _with_key(source, key, FETCH, work, source.url, branch, commit, timeout_s=FETCH_S, detached="fetch")


def check_out(work: str, build: str, commit: str) -> Command:
    """The commit's files, and nothing else, are in the folder `app` of a build."""
    argv = ("sh", "-c", CHECKOUT, "alfa-git", work, build, commit)
    return Command(argv, timeout_s=CHECKOUT_S, detached="checkout")


def look_for_programs() -> Command:
    """Print the programs that fetching needs and the server has not."""
    script = 'for name; do command -v "$name" >/dev/null || echo "$name"; done'
    return Command(("sh", "-c", script, "alfa-git", *PROGRAMS), log=False, timeout_s=20)


def parse_branch(text: str, branch: Branch) -> str:
    """The commit that `git ls-remote` names for a branch.

    Raises:
        BranchMissingError: it names none.
    """
    for line in text.splitlines():
        commit, _, name = line.partition("\t")
        if name == f"refs/heads/{branch}" and COMMIT.fullmatch(commit):
            return commit
    raise no_such_branch(branch)


def parse_described(text: str) -> Described | None:
    """What `fetch` said last; None where it was cut off before it could."""
    found = DESCRIBED.findall(text)
    return Described(*found[-1]) if found else None


def no_such_branch(branch: Branch) -> BranchMissingError:
    """The error for a branch that is not there."""
    return BranchMissingError(f"The repository has no branch {branch}; push it, or look at ALFA_SOURCE__URL.")


def why_not(error: CommandFailedError) -> AlfaCloudError:
    """What a person is told where git failed."""
    if error.exit_status == Status.MISSING:
        return ServerNotReadyError(f"git or ssh-agent is not on the server: {MEND}")
    if error.exit_status == Status.BAD_KEY:
        return SourceUnreachableError("The file of ALFA_SOURCE__KEY_FILE is no private key without a passphrase.")
    words = error.output.replace("\n", " ") or error.detail
    return SourceUnreachableError(f"The repository of ALFA_SOURCE__URL cannot be read from the server: {words}")


def _with_key(
    source: Source, key: Secret, script: str, *arguments: str, timeout_s: float, detached: str | None = None
) -> Command:
    agent = ("ssh-agent",) if source.by_ssh else ()
    stdin = f"{source.host_key}\n{key.reveal().rstrip()}\n" if source.by_ssh else "\n"
    argv = (*agent, "sh", "-c", script, "alfa-git", *arguments)
    return Command(argv, stdin=stdin.encode(), timeout_s=timeout_s, detached=detached, log=detached is not None)
