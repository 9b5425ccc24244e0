#!/bin/bash
# Process 1 of a host: boots it as its init scripts would, reaps what is left behind, and shuts it down.
set -u

services=(ssh mariadb postgresql nginx docker) # the databases before Docker, as may happen on a real server

say() { echo "boot: $*"; }

# What the engine mounts read-only, a server's own kernel lets its root write.
open_kernel_files() {
  mount -o remount,rw /sys/fs/cgroup
  awk '$3 == "cgroup" { print $2 }' /proc/mounts | sort -u | while read -r path; do mount -o remount,bind,rw "$path"; done
  grep -q ' /proc/sys ' /proc/mounts && mount -o remount,bind,rw /proc/sys
  # A new boot id for each boot: the kernel's own stays, for it is the machine's below.
  cat /proc/sys/kernel/random/uuid >/run/boot_id
  mount --bind /run/boot_id /proc/sys/kernel/random/boot_id
}

# As systemd-sysctl does at boot, but only what belongs to this host alone: all else is the machine's below.
apply_sysctls() {
  cat /etc/sysctl.d/*.conf 2>/dev/null | grep -E '^[[:space:]]*net[./]' | sysctl -q -p -
}

first_boot() {
  [[ -e /etc/ssh/ssh_host_ed25519_key ]] && return
  ssh-keygen -q -A
  tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
}

stop() {
  rm -f /run/lab-ready
  say "stopping"
  for ((i = ${#services[@]} - 1; i >= 0; i--)); do service "${services[i]}" stop; done
  exit 0
}

trap stop TERM INT
# /run is empty at every boot, as on a server; nothing else can be alive yet, so this lock is stale.
rm -f /var/lib/postgresql/*/*/postmaster.pid
install -d -m 1777 /run/lock
install -d -o mysql -g root /run/mysqld
install -d -o postgres -g postgres -m 2775 /run/postgresql
for server in $LAB_NAMESERVERS; do echo "nameserver $server"; done >/run/resolv.conf
[[ -s /run/resolv.conf ]] && cat /run/resolv.conf >/etc/resolv.conf
open_kernel_files
apply_sysctls
first_boot
for name in "${services[@]}"; do service "$name" start || say "$name did not start"; done
for _ in $(seq 100); do
  docker info >/dev/null 2>&1 && mariadb-admin ping >/dev/null 2>&1 && pg_isready -q && break
  sleep 0.2
done
touch /run/lab-ready
say "ready"
while :; do sleep infinity & wait $!; done
