#!/bin/bash
# Debian's Chromium is there; installed where it is not. Needs root for that.
set -euo pipefail
command -v chromium >/dev/null && exit
echo "browser: installing chromium" >&2
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
if ! { apt-get -q -o DPkg::Lock::Timeout=600 update &&
  apt-get -q -y -o DPkg::Lock::Timeout=600 install --no-install-recommends chromium; } >"$log" 2>&1; then
  tail -n 30 "$log" >&2
  exit 1
fi
rm -f "$log"
