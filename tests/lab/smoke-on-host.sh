#!/bin/bash
# The part of smoke.sh that runs on the host, as www-data.
set -euo pipefail

gateway=172.30.99.1 # not the product's own network, which may be there already
subnet=172.30.99.0/24
folder=/tmp/alfa-smoke
password='п@ss $word "x"'
mariadb_conf=/etc/mysql/mariadb.conf.d/99-alfa-smoke.cnf
postgresql_conf=/etc/postgresql/17/main/conf.d/99-alfa-smoke.conf
pg_hba=/etc/postgresql/17/main/pg_hba.conf

compose() { sudo docker compose --project-name alfa-smoke --file "$folder/compose.yaml" "$@"; }
as_postgres() { sudo -u postgres psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 "$@"; }

clean_up() {
  [[ -f $folder/compose.yaml ]] && compose down --timeout 5 >/dev/null 2>&1
  sudo docker network rm alfa-smoke >/dev/null 2>&1
  sudo mariadb -e "DROP DATABASE IF EXISTS alfa_smoke; DROP USER IF EXISTS 'alfa_smoke'@'172.30.99.%'"
  as_postgres -c 'DROP DATABASE IF EXISTS alfa_smoke' -c 'DROP ROLE IF EXISTS alfa_smoke' 2>/dev/null
  sudo rm -rf "$mariadb_conf" "$postgresql_conf" "$folder"
  sudo sed -i '/alfa_smoke/d' "$pg_hba"
  sudo service mariadb restart >/dev/null
  sudo service postgresql restart >/dev/null
}
trap 'set +e; clean_up' EXIT

prepare_server() {
  sudo docker network create --driver bridge --subnet "$subnet" --gateway "$gateway" \
    --opt com.docker.network.bridge.name=alfasmoke0 \
    --opt com.docker.network.bridge.enable_icc=false alfa-smoke >/dev/null
  printf '[mysqld]\nbind-address=127.0.0.1,%s\nskip-name-resolve\n' "$gateway" | sudo tee "$mariadb_conf" >/dev/null
  printf "listen_addresses = '127.0.0.1,%s'\n" "$gateway" | sudo tee "$postgresql_conf" >/dev/null
  sudo sed -i "1i host alfa_smoke alfa_smoke $subnet scram-sha-256" "$pg_hba"
  sudo service mariadb restart >/dev/null
  sudo service postgresql restart >/dev/null
  sudo mariadb -e "CREATE DATABASE alfa_smoke CHARACTER SET utf8mb4;
    CREATE USER 'alfa_smoke'@'172.30.99.%' IDENTIFIED BY 'secret'; GRANT ALL ON alfa_smoke.* TO 'alfa_smoke'@'172.30.99.%'"
  as_postgres -c "CREATE ROLE alfa_smoke LOGIN PASSWORD 'secret'" -c 'CREATE DATABASE alfa_smoke OWNER alfa_smoke'
}

write_compose() { # CONNECTION PORT
  install -d "$folder"
  sudo rm -rf "$folder/storage" # the container wrote it as root
  sudo install -d "$folder/storage"
  cat >"$folder/compose.yaml" <<YAML
services:
  app:
    image: alfa:1.0.0-master
    networks: [alfa]
    ports: ["127.0.0.1:9090:80"]
    volumes: ["$folder/storage:/srv/app/storage"]
    cap_drop: [ALL]
    cap_add: [NET_BIND_SERVICE]
    security_opt: ["no-new-privileges:true"]
    pids_limit: 64
    mem_limit: 256m
    environment:
      APP_NAME: Лаборатория
      APP_KEY: base64:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
      DB_CONNECTION: $1
      DB_HOST: $gateway
      DB_PORT: "$2"
      DB_DATABASE: alfa_smoke
      DB_USERNAME: alfa_smoke
      DB_PASSWORD: secret
    healthcheck: {test: [CMD, curl, -fsS, "http://127.0.0.1/up"], interval: 1s, start_period: 10s}
networks:
  alfa: {name: alfa-smoke, external: true}
YAML
}

expect() { # WHAT WANTED FOUND
  [[ $3 == "$2" ]] || { echo "$1: wanted $2, found $3" >&2; exit 1; }
  echo "  $1: $3"
}

status() { curl -s -o /dev/null -w '%{http_code}' "$@"; }

try_app() { # CONNECTION PORT
  local web=http://127.0.0.1:9090
  echo "$1:"
  write_compose "$1" "$2"
  compose up --detach --wait --quiet-pull >/dev/null 2>&1
  compose exec -T app php artisan migrate --force >/dev/null
  printf '%s\n' "$password" | compose exec -T app php artisan owner:password owner@lab.test --create >/dev/null
  compose exec -T app php artisan db:seed --class=DemoSeeder --force >/dev/null
  expect '/up' 200 "$(status $web/up)"
  expect 'login' 200 "$(status --data-urlencode login=owner@lab.test --data-urlencode "password=$password" $web/login)"
  expect 'wrong login' 401 "$(status --data login=owner@lab.test --data password=wrong $web/login)"
  expect 'new sample' 201 "$(status --data code=A-1 $web/samples)"
  expect 'samples' '{"count":26}' "$(curl -s $web/samples/count)"
  compose exec -T app php artisan db:seed --class=DemoInverseSeeder --force >/dev/null
  expect 'samples without demo' '{"count":1}' "$(curl -s $web/samples/count)"
  expect 'name' 'Лаборатория' "$(curl -s $web/ | sed -n 's/.*<h1>\(.*\)<\/h1>.*/\1/p')"
  compose down --timeout 5 >/dev/null 2>&1
}

clean_up || true # what an interrupted run may have left
prepare_server
try_app mysql 3306
try_app pgsql 5432
echo "the lab works"
