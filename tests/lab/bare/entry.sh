#!/bin/bash
# Process 1 of a bare host: starts what is installed, as its init scripts would, and shuts it down.
set -u

say() { echo "boot: $*"; }

# Of what may be installed by now, in the order of a boot.
services() {
  local name
  for name in ssh mariadb postgresql nginx docker; do [[ -x /etc/init.d/$name ]] && echo "$name"; done
}

# See the other hosts' script: what the engine mounts read-only, a server's own kernel lets its root write.
open_kernel_files() {
  mount -o remount,rw /sys/fs/cgroup
  awk '$3 == "cgroup" { print $2 }' /proc/mounts | sort -u | while read -r path; do mount -o remount,bind,rw "$path"; done
  grep -q ' /proc/sys ' /proc/mounts && mount -o remount,bind,rw /proc/sys
  cat /proc/sys/kernel/random/uuid >/run/boot_id
  mount --bind /run/boot_id /proc/sys/kernel/random/boot_id
}

apply_sysctls() {
  command -v sysctl >/dev/null || return
  cat /etc/sysctl.d/*.conf 2>/dev/null | grep -E '^[[:space:]]*net[./]' | sysctl -q -p -
}

folders() {
  install -d -m 1777 /run/lock
  install -d -m 755 /run/sshd
  if id mysql >/dev/null 2>&1; then install -d -o mysql -g root /run/mysqld; fi
  if id postgres >/dev/null 2>&1; then install -d -o postgres -g postgres -m 2775 /run/postgresql; fi
  rm -f /var/lib/postgresql/*/*/postmaster.pid
}

stop() {
  rm -f /run/lab-ready
  for name in $(services | tac); do service "$name" stop; done
  exit 0
}

trap stop TERM INT
folders
for server in $LAB_NAMESERVERS; do echo "nameserver $server"; done >/run/resolv.conf
[[ -s /run/resolv.conf ]] && cat /run/resolv.conf >/etc/resolv.conf
open_kernel_files
apply_sysctls
[[ -e /etc/ssh/ssh_host_ed25519_key ]] || ssh-keygen -q -A
for name in $(services); do service "$name" start || say "$name did not start"; done
touch /run/lab-ready
say "ready"
while :; do sleep infinity & wait $!; done
