#!/bin/bash
# Does by hand on host1, over SSH as www-data, what the product does: the app against MariaDB and PostgreSQL.
# Shows that the lab itself works; leaves the host as it was. Needs `lab.sh up 1` and `lab.sh app` first.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
state=${ALFA_LAB_STATE:-/var/tmp/alfa-lab}
address=$("$here/lab.sh" ip alfa-lab-host1)
work=$(mktemp -d)
trap 'rm -rf "$work" "$state/keys/smoke.pub"' EXIT

ssh-keygen -q -t ed25519 -N '' -f "$work/key"
install -m 644 "$work/key.pub" "$state/keys/smoke.pub"
remote() {
  ssh -i "$work/key" -o LogLevel=ERROR -o IdentitiesOnly=yes -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile="$work/known" \
    "www-data@$address" "$@"
}
remote 'cat >/tmp/alfa-smoke.sh' <"$here/smoke-on-host.sh"
remote 'bash /tmp/alfa-smoke.sh; status=$?; rm /tmp/alfa-smoke.sh; exit $status' </dev/null
