"""Where this service connects to, and where it does not."""

from __future__ import annotations

import ipaddress

import pytest

from alfa_cloud.errors import AddressRefusedError
from alfa_cloud.remote.address import Dialer, embedded_ipv4, is_allowed
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.specs import Secret

REFUSED = [
    *("127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.5", "172.16.3.4", "192.168.1.1", "100.64.0.1", "100.100.100.200"),
    *("169.254.169.254", "169.254.1.1", "168.63.129.16", "192.0.0.192", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
    *("192.0.2.1", "198.18.0.1", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::", "2002:a00:1::1"),
    *(
        "2001:db8::1",
        "2001:0:7f00:1::",
        "64:ff9b:1::7f00:1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0",
        "localhost",
    ),
]


@pytest.mark.parametrize("host", REFUSED)
async def test_refused(host: str) -> None:
    dialer = Dialer()
    with pytest.raises(AddressRefusedError) as caught:
        await dialer.check(host, 22)
    assert caught.value.meta == {"field": "host"}
    dialer.close()


@pytest.mark.parametrize("host", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111"])
async def test_public_addresses_are_taken_as_they_are(host: str) -> None:
    pool = SshPool(Secret("never asked for"))
    assert await pool.check_address(host, 22) == host
    assert await pool.check_address(host, 2222) == host
    await pool.close()


@pytest.mark.parametrize("port", [0, -1, 65536, 25, 3306, 5432, 6379])
async def test_refused_ports(port: int) -> None:
    dialer = Dialer()
    with pytest.raises(AddressRefusedError) as caught:
        await dialer.check("1.1.1.1", port)
    assert caught.value.meta == {"field": "port"}
    dialer.close()


async def test_private_networks_that_were_named() -> None:
    dialer = Dialer([ipaddress.ip_network("10.1.0.0/16")])
    assert await dialer.check("10.1.2.3", 22) == ["10.1.2.3"]
    assert await dialer.check("::ffff:10.1.2.3", 22) == ["10.1.2.3"]
    with pytest.raises(AddressRefusedError):
        await dialer.check("10.2.0.1", 22)
    dialer.close()


def test_multicast_and_unspecified_stay_refused() -> None:
    everything = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
    assert not is_allowed(ipaddress.ip_address("224.0.0.1"), everything)
    assert not is_allowed(ipaddress.ip_address("0.0.0.0"), everything)
    assert is_allowed(embedded_ipv4(ipaddress.ip_address("::ffff:127.0.0.1")), everything)
