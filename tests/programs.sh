#!/bin/bash
# Debian's Chromium and OpenSSH's server are there, which some tests need; installed where they are not. Needs root.
set -euo pipefail
missing=()
command -v chromium >/dev/null || missing+=(chromium)
[[ -x /usr/sbin/sshd ]] || missing+=(openssh-server)
((${#missing[@]})) || exit 0
echo "tests: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
if ! { apt-get -q -o DPkg::Lock::Timeout=600 update &&
  apt-get -q -y -o DPkg::Lock::Timeout=600 install --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
  tail -n 30 "$log" >&2
  exit 1
fi
rm -f "$log"
