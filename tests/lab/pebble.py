"""Pebble, a real ACME authority on a lab host: certbot there trusts it, and it believes a DNS of its own."""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass
from typing import Final

from tests.lab.hosts import LabError, LabHost

DIRECTORY: Final = "https://127.0.0.1:14000/dir"
"""The authority's ACME directory, as certbot on the same host names it."""
MANAGEMENT: Final = "https://127.0.0.1:15000"
DNS_MANAGEMENT: Final = "http://127.0.0.1:8055"

# The certificate of pebble's own port is signed by a CA that the host trusts from here on; certbot on Debian reads
# the host's bundle. Accounts are forgotten: each pebble begins with none and refuses those of an earlier one.
START: Final = r"""
set -eu
folder=/run/lab-pebble
mkdir -p $folder
cd $folder
key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
openssl req -x509 $key -keyout ca.key -out ca.pem -days 2 -subj '/CN=Lab CA'
openssl req -x509 $key -keyout key.pem -out cert.pem -days 2 -subj /CN=127.0.0.1 -CA ca.pem -CAkey ca.key \
  -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE
cp ca.pem /usr/local/share/ca-certificates/lab-pebble.crt
update-ca-certificates
rm -rf /etc/letsencrypt/accounts
cat >config.json <<END
{"pebble": {
  "listenAddress": "127.0.0.1:14000", "managementListenAddress": "127.0.0.1:15000",
  "certificate": "$folder/cert.pem", "privateKey": "$folder/key.pem", "httpPort": 80, "tlsPort": 443
}}
END
daemon() {
  name=$1
  shift
  start-stop-daemon --start --background --make-pidfile --pidfile $folder/$name.pid --output $folder/$name.log \
    --exec /usr/bin/$name -- "$@"
}
daemon pebble-challtestsrv -defaultIPv6 '' -defaultIPv4 127.0.0.1 -dns01 127.0.0.1:8053 -management 127.0.0.1:8055 \
  -doh '' -http01 '' -https01 '' -tlsalpn01 ''
export PEBBLE_VA_NOSLEEP=1 PEBBLE_WFE_NONCEREJECT=0
daemon pebble -config $folder/config.json -dnsserver 127.0.0.1:8053 -strict
wait_for() { curl -s -o /dev/null --retry 50 --retry-delay 1 --retry-connrefused "$1" || { cat *.log >&2; exit 1; }; }
wait_for https://127.0.0.1:14000/dir
wait_for http://127.0.0.1:8055/
"""

STOP: Final = r"""
for name in pebble pebble-challtestsrv; do
  start-stop-daemon --stop --oknodo --retry 5 --pidfile /run/lab-pebble/$name.pid
done
rm -rf /run/lab-pebble /usr/local/share/ca-certificates/lab-pebble.crt
update-ca-certificates
"""


@dataclass(frozen=True, slots=True)
class Pebble:
    """An authority on a host; it finds every domain at that host, but for those that were pointed elsewhere."""

    host: LabHost

    def start(self) -> None:
        """It answers, and certbot on the host trusts it.

        Raises:
            LabError: it does not; the message says why.
        """
        self._shell(STOP)
        self._shell(START)

    def stop(self) -> None:
        """It and the trust in it are gone; what it issued stays, for virtual hosts name it."""
        self._shell(STOP)

    def point(self, domain: str, address: str) -> None:
        """The authority finds a domain at this address from now on."""
        self._curl(f"{DNS_MANAGEMENT}/clear-a", "--data", json.dumps({"host": f"{domain}."}))
        self._curl(f"{DNS_MANAGEMENT}/add-a", "--data", json.dumps({"host": f"{domain}.", "addresses": [address]}))

    def trust(self) -> ssl.SSLContext:
        """A visitor's trust in what this authority issues, and in nothing else."""
        return ssl.create_default_context(cadata=self._curl(f"{MANAGEMENT}/roots/0"))

    def _curl(self, *arguments: str) -> str:
        return self._run(["curl", "--silent", "--show-error", "--fail", *arguments])

    def _shell(self, script: str) -> str:
        return self._run(["bash", "-c", script])

    def _run(self, argv: list[str]) -> str:
        result = self.host.exec(argv)
        if result.returncode != 0:
            raise LabError(f"{argv[0]} on {self.host.name} ended with {result.returncode}: {result.stderr.decode()}")
        return result.stdout.decode()
