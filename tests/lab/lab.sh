#!/bin/bash
# The lab: real cloud hosts (Debian 13 with sshd, Docker, MariaDB, PostgreSQL, nginx) as containers of this machine.
#
#   lab.sh engine              a Docker engine answers (installed and started where there is none)
#   lab.sh image               the hosts' image is built
#   lab.sh up N [FIRST]        hosts FIRST..N (1..N) run; prints a line "NAME ADDRESS" for each
#   lab.sh bare N              a new bare host N runs: SSH and sudo, and nothing else; what it was before is gone
#   lab.sh app [NAME ...]      the Laravel images are built and on these hosts, or on every one that runs
#   lab.sh ip NAME             the host's address
#   lab.sh authorize FILE.pub  www-data of every host accepts this key from now on
#   lab.sh down                hosts and their data are gone; engine and images stay
#
# Needs root. All it keeps lies in ALFA_LAB_STATE (/var/tmp/alfa-lab), so that the second run is fast.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
state=${ALFA_LAB_STATE:-/var/tmp/alfa-lab}
network=${ALFA_LAB_NETWORK:-172.29.0} # the first three numbers of the hosts' addresses
export DOCKER_BUILDKIT=0              # the classic builder needs no plugin and no image from outside

say() { echo "lab: $*" >&2; }
fail() { say "$*"; exit 1; }

# Runs a command with its output in a log, and shows the log's end when the command fails.
logged() {
  local log=$state/$1.log
  shift
  "$@" >"$log" 2>&1 </dev/null && return
  tail -n 30 "$log" >&2
  fail "failed: $1 (all of it in $log)"
}

# One at a time: two test runs may want the lab at once. Only this shell holds the lock, not its daemons (9>&-).
lock() {
  exec 9>"$state/lock"
  flock -n 9 || { say "waiting for another run"; flock 9; }
}

install_packages() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get -q -o DPkg::Lock::Timeout=600 update &&
    apt-get -q -y -o DPkg::Lock::Timeout=600 install --no-install-recommends docker.io iptables debootstrap openssh-client procps zstd
}

engine_answers() { docker info >/dev/null 2>&1; }

# lives PIDFILE NAME: that process runs and is neither a zombie nor another that got the number since.
lives() { [[ -f $1 && $(ps -o args= -p "$(cat "$1")") =~ (^|/)$2\  ]]; }

# Stale pid files, after a power cut or kill -9, keep an engine from starting.
start_engine() {
  say "starting a Docker engine"
  rm -f "$state/docker.pid"
  lives "$state/exec/containerd/containerd.pid" containerd || rm -f "$state/exec/containerd/containerd.pid"
  setsid dockerd --data-root "$state/docker" --exec-root "$state/exec" --pidfile "$state/docker.pid" \
    >"$state/dockerd.log" 2>&1 </dev/null 9>&- &
}

engine() {
  local tool missing=
  for tool in docker debootstrap ssh-keygen ps zstd; do command -v "$tool" >/dev/null || missing=$tool; done
  engine_answers || command -v dockerd >/dev/null || missing=dockerd
  if [[ $missing ]]; then
    say "installing what is missing ($missing)"
    logged apt install_packages 9>&-
  fi
  engine_answers && return
  # One of ours or of the package may just be starting.
  lives "$state/docker.pid" dockerd || lives /run/docker.pid dockerd || start_engine
  for _ in $(seq 60); do engine_answers && return; sleep 0.5; done
  [[ -f $state/dockerd.log ]] && tail -n 20 "$state/dockerd.log" >&2
  fail "no Docker engine answers"
}

# A bare Debian 13, the ground of both the hosts and the app: made of packages, since no image registry is at hand.
base() {
  docker image inspect alfa-lab-debian:13 >/dev/null 2>&1 && return
  say "building the Debian base (1 minute)"
  local root=$state/rootfs
  rm -rf "$root"
  logged debootstrap debootstrap --variant=minbase --include=ca-certificates trixie "$root"
  cp "$here/base/dpkg-nodoc" "$root/etc/dpkg/dpkg.cfg.d/nodoc"
  cp "$here/base/policy-rc.d" "$root/usr/sbin/policy-rc.d"
  cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/*
  tar -C "$root" -c . | docker import - alfa-lab-debian:13 >/dev/null
  rm -rf "$root"
}

image() {
  base
  docker image inspect alfa-lab-host:latest >/dev/null 2>&1 || say "building the hosts' image (2 minutes)"
  logged image docker build --force-rm -t alfa-lab-host:latest "$here/host"
}

address() { echo "$network.$((10 + $1))"; }

# The engine's resolver on a network of ours is a loopback address, which containers inside a host could not use.
nameservers() { awk '$1 == "nameserver" && $2 !~ /^127\./ && $2 !~ /:/ { printf "%s ", $2 }' /etc/resolv.conf; }

start_host() {
  local name=alfa-lab-host$1 wanted
  wanted=$(docker image inspect -f '{{.Id}}' alfa-lab-host:latest)
  if [[ $(docker inspect -f '{{.Image}}' "$name" 2>/dev/null) == "$wanted" ]]; then
    docker start "$name" >/dev/null # does nothing to one that runs
    return
  fi
  remove_host "$name"
  run_host "$name" "$(address "$1")" "$state/data$1" alfa-lab-host:latest
}

# run_host NAME ADDRESS DATA IMAGE. Not --privileged: it fails where this machine lacks a capability of its own.
run_host() {
  docker run -d --name "$1" --hostname "$1" --label alfa-lab --network alfa-lab --ip "$2" \
    --restart unless-stopped --stop-timeout 30 --cgroupns private --tmpfs /run:exec,mode=755 \
    --cap-add SYS_ADMIN --cap-add NET_ADMIN --cap-add SYS_PTRACE --cap-add MKNOD --cap-add AUDIT_WRITE --cap-add SYSLOG \
    --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined \
    --env LAB_NAMESERVERS="$(nameservers)" \
    --volume "$3:/var/lib/docker" --volume "$state/keys:/lab/keys:ro" \
    "$4" >/dev/null
}

remove_host() {
  docker rm -f "$1" >/dev/null 2>&1 || true
  rm -rf "$state/data${1#alfa-lab-host}"
}

bare() {
  local name=alfa-lab-bare$1
  base
  logged bare docker build --force-rm -t alfa-lab-bare:latest -f "$here/bare/Dockerfile" "$here"
  make_network
  remove_host "$name"
  run_host "$name" "$network.$((20 + $1))" "$state/data$name" alfa-lab-bare:latest
  wait_for_host "$name"
  echo "$name $network.$((20 + $1))"
}

wait_for_host() {
  local name=$1
  for _ in $(seq 240); do
    docker exec "$name" test -e /run/lab-ready 2>/dev/null && return
    sleep 0.5
  done
  docker logs --tail 30 "$name" >&2
  fail "$name did not come up"
}

make_network() {
  docker network inspect alfa-lab >/dev/null 2>&1 ||
    docker network create --label alfa-lab --subnet "$network.0/24" alfa-lab >/dev/null
}

up() {
  local i
  image
  make_network
  for i in $(seq "${2:-1}" "$1"); do start_host "$i"; done
  for i in $(seq "${2:-1}" "$1"); do
    wait_for_host "alfa-lab-host$i"
    echo "alfa-lab-host$i $(address "$i")"
  done
}

hosts() { docker ps "$@" --filter label=alfa-lab --format '{{.Names}}' | sort; }

down() {
  local name
  engine_answers || fail "no Docker engine answers"
  for name in $(hosts --all); do remove_host "$name"; done
  docker network rm alfa-lab >/dev/null 2>&1 || true
}

# build_app TAG BRANCH COMMIT BUILT_AT VARIANT; the moments are fixed, so that the same tree gives the same image.
build_app() {
  logged "app-$1" docker build --force-rm -t "alfa:$1" --build-arg "VERSION=$1" --build-arg "BRANCH=$2" \
    --build-arg "COMMIT=$3" --build-arg "BUILT_AT=$4" --build-arg "VARIANT=$5" "$here/laravel"
}

app() {
  local host tag missing
  base
  docker image inspect alfa:1.0.0-master >/dev/null 2>&1 || say "building the app (1 minute)"
  build_app 1.0.0-master master 1f0c3a5e7b9d2c4e6a8b0d1f3a5c7e9b1d3f5a7c 2026-10-01T08:00:00Z master
  build_app 1.1.0-dev dev 2e1d4b6f8c0a3d5f7b9c1e2a4b6d8f0c2e4a6b8d 2026-11-01T08:00:00Z dev
  build_app 8.8.8-badmigrate dev 8b8a8d8c8e8f808182838485868788898a8b8c8d 2026-09-01T08:00:00Z badmigrate
  build_app 9.9.9-broken dev 9b9a9d9c9e9f909192939495969798999a9b9c9d 2026-09-02T08:00:00Z broken
  for host in ${*:-$(hosts)}; do
    docker exec "$host" sh -c 'command -v docker' >/dev/null || continue # a bare one
    missing=()
    for tag in 1.0.0-master 1.1.0-dev 8.8.8-badmigrate 9.9.9-broken; do
      [[ $(docker exec "$host" docker image inspect -f '{{.Id}}' "alfa:$tag" 2>/dev/null) == \
        $(docker image inspect -f '{{.Id}}' "alfa:$tag") ]] || missing+=("alfa:$tag")
    done
    if ((${#missing[@]})); then
      docker save "${missing[@]}" | docker exec -i "$host" docker load >/dev/null
      # What lost its tag to a newer build would only gather there.
      docker exec "$host" docker image prune --force --filter label=alfa.branch >/dev/null
    fi
    echo "$host has the app"
  done
}

# The hosts look into this folder at every login; a rename puts the key there whole.
authorize() {
  ssh-keygen -l -f "$1" >/dev/null || fail "no public key: $1"
  local name
  name=$(sha256sum <"$1" | cut -c 1-16)
  install -m 644 "$1" "$state/keys/.$name.$$" && mv "$state/keys/.$name.$$" "$state/keys/$name.pub"
}

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 2; }

[[ ${1:-} =~ ^(engine|image|up|bare|app|ip|authorize|down)$ ]] || usage
command=$1
shift
[[ $(id -u) == 0 ]] || fail "needs root"
install -d -m 755 "$state" "$state/keys"

case $command in
  engine) lock; engine ;;
  image) lock; engine; image ;;
  up) [[ ${1:-} =~ ^[1-9][0-9]?$ ]] || usage; lock; engine; up "$@" ;;
  bare) [[ ${1:-} =~ ^[1-9]$ ]] || usage; lock; engine; bare "$1" ;;
  app) lock; engine; app "$@" ;;
  down) lock; down ;;
  authorize) [[ -f ${1:-} ]] || usage; authorize "$1" ;;
  ip) docker inspect -f '{{with index .NetworkSettings.Networks "alfa-lab"}}{{.IPAddress}}{{end}}' "${1:?a host name}" ;;
esac
