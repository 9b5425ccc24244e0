"""Addresses of mail servers are read exactly, and no error shows a password."""

from __future__ import annotations

import pytest

from alfa_cloud.mail.address import Encryption, SmtpAddress
from alfa_cloud.specs import Secret


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("smtp://127.0.0.1", SmtpAddress("127.0.0.1", 25)),
        ("smtp://mail.example.org:2525/", SmtpAddress("mail.example.org", 2525)),
        ("smtps://mail.example.org", SmtpAddress("mail.example.org", 465, Encryption.TLS)),
        (
            "smtp+starttls://cloud%40example.org:%D0%B3%2F%3F%23%40%3A%25%20p@mail.example.org",
            SmtpAddress("mail.example.org", 587, Encryption.STARTTLS, "cloud@example.org", Secret("г/?#@:% p")),
        ),
        ("SMTP://u:p@[::1]:26", SmtpAddress("::1", 26, Encryption.NONE, "u", Secret("p"))),
    ],
)
def test_addresses(url: str, address: SmtpAddress) -> None:
    assert SmtpAddress.parse(url) == address


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "scheme"),
        ("http://cloud:Canary1@mail.example.org", "scheme"),
        ("mail.example.org:25", "scheme"),
        ("smtp://cloud:Canary1@", "host"),
        ("smtp://cloud:Canary1@mail example", "host"),
        ("smtp://cloud:Canary1@mail.example.org:0", "port"),
        ("smtp://cloud:Canary1@mail.example.org:70000", "port"),
        ("smtp://cloud:Canary1@mail.example.org:smtp", "port"),
        ("smtp://cloud:Canary1/x@mail.example.org", "percent-encode"),
        ("smtp://cloud:Canary1#x@mail.example.org", "percent-encode"),
        ("smtp://cloud:Canary1?x@mail.example.org", "percent-encode"),
        ("smtp://cloud:Canary1@mail.example.org/inbox", "percent-encode"),
        ("smtp://cloud:Canary1[@mail.example.org", "percent-encode"),
        ("smtp://cloud:Canary1℀@mail.example.org", "percent-encode"),
        ("smtp://cloud:Canary1%@mail.example.org", "password has a %"),
        ("smtp://cl%oud:Canary1@mail.example.org", "user has a %"),
        ("smtp://cloud:Canary1%FF@mail.example.org", "password is not percent-encoded UTF-8"),
        ("smtp://:Canary1@mail.example.org", "user"),
        ("smtp://Canary1@mail.example.org", "password"),
    ],
)
def test_wrong_addresses_are_not_quoted(url: str, said: str) -> None:
    with pytest.raises(ValueError, match="smtp_url: ") as caught:
        SmtpAddress.parse(url)
    assert said in str(caught.value)
    assert "Canary" not in str(caught.value)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_an_address_shows_no_password() -> None:
    address = SmtpAddress.parse("smtps://cloud:Canary1@mail.example.org")
    assert str(address) == "mail.example.org:465"
    assert "Canary" not in repr(address)
