"""nginx' configuration as the stand-in reads it, and the answers that follow from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from alfa_cloud.sandbox.practice.nginx_config import Config, ConfigError, load
from alfa_cloud.sandbox.practice.nginx_routing import Answer, Pass, Request, Route, choose_server

PORTS = (8080, 8443)

HOSTS = r"""
# a comment; with { signs }
map $http_upgrade $connection_upgrade { default upgrade; "" close; }
upstream one { server 127.0.0.1:9001; server 127.0.0.1:9002 down; }
server {
    listen 8080; listen [::]:8080;
    server_name one.test *.wild.test;
    add_header X-Frame-Options "DENY";
    error_page 502 504 =503 /page.html;
    location / { proxy_pass http://one; proxy_set_header X-Real-IP $remote_addr; proxy_set_header Host $host; }
    location = /health { proxy_pass http://one/up; }
    location ^~ /static/ { alias ROOT/; default_type text/plain; charset utf-8; }
    location /api/ { proxy_pass http://one/v1/; }
    location ~ \.php$ { return 403 "no\tphp"; }
    location = /page.html { internal; root ROOT; add_header Retry-After 30 always; }
    location = /closed { return 503; error_page 503 @closed; }
    location @closed { return 503 "closed for ${host}"; }
    location = /old { return 308 https://$host$request_uri; }
    location = /flag { if (-f ROOT/page.html) { return 503 "flagged"; } return 204; }
}
server { listen 8080 default_server; server_name _; return 444; }
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The hosts above."""
    (tmp_path / "page.html").write_text("Недоступно")
    return read(tmp_path, HOSTS.replace("ROOT", str(tmp_path)))


def read(folder: Path, hosts: str) -> Config:
    """The configuration with these hosts."""
    (folder / "conf.d").mkdir(exist_ok=True)
    (folder / "conf.d" / "hosts.conf").write_text(hosts)
    main = folder / "nginx.conf"
    main.write_text(f"http {{ include {folder}/conf.d/*.conf; }}")
    return load(main, PORTS)


def route(config: Config, target: str, host: str = "one.test", method: str = "GET") -> Answer | Pass:
    """What one request gets first."""
    server = choose_server(config, host, 8080)
    assert server is not None
    return Route(config, server, Request(method, target, [("Host", host)], b"", "10.0.0.1", 8080, "http")).answer()


def passed(config: Config, target: str) -> Pass:
    """Where a request is passed to."""
    answer = route(config, target)
    assert isinstance(answer, Pass)
    return answer


def answered(config: Config, target: str, **options: str) -> Answer:
    """What a request is answered with."""
    answer = route(config, target, **options)
    assert isinstance(answer, Answer)
    return answer


def test_requests_are_passed_on(config: Config) -> None:
    to = passed(config, "/some/page?x=1")
    assert (to.host, to.port, to.target) == ("127.0.0.1", 9001, "/some/page?x=1")
    assert to.headers == [("X-Real-IP", "10.0.0.1"), ("Host", "one.test")]
    assert passed(config, "/health").target == "/up"
    assert passed(config, "/api/users?q=1").target == "/v1/users?q=1"


def test_a_failed_server_leads_to_the_page(config: Config) -> None:
    answer = passed(config, "/").route.failed(502)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body.decode()) == (503, "Недоступно")
    assert ("Retry-After", "30") in answer.headers


def test_answers_of_nginx_itself(config: Config) -> None:
    assert answered(config, "/page.html").status == 404
    assert answered(config, "/x.php").body == b"no\tphp"
    assert answered(config, "/closed").body == b"closed for one.test"
    assert answered(config, "/closed").status == 503
    moved = answered(config, "/old?a=b")
    assert (moved.status, moved.headers[0]) == (308, ("Location", "https://one.test/old?a=b"))
    assert answered(config, "/flag").body == b"flagged"
    assert answered(config, "/x", host="other.test").close
    assert isinstance(route(config, "/x", host="a.wild.test:8080"), Pass)


def test_files_are_served(config: Config) -> None:
    found = answered(config, "/static/page.html")
    assert (found.status, found.body.decode()) == (200, "Недоступно")
    assert found.headers == [("Content-Type", "text/html; charset=utf-8"), ("X-Frame-Options", "DENY")]
    assert answered(config, "/static/../page.html").status == 400
    assert answered(config, "/static/none").status == 404
    assert answered(config, "/static/page.html", method="POST").status == 405


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        ("server { listen 8080;", 'unexpected end of file, expecting "}"'),
        ("server { listen 8080; } }", 'unexpected "}"'),
        ("server { listen 8080 }", 'directive "listen" is not terminated by ";"'),
        ("server { ; }", 'unexpected ";"'),
        ('server { server_name "a; }', "unexpected end of file"),
        ("server { listen 80; }", "listens on [8080, 8443] only"),
        ("server { listen 8080; location / { proxy_pass http://nobody; } }", 'host not found in upstream "nobody"'),
        ("server { listen 8080; location / { return 200 $nothing; } }", 'unknown "nothing" variable'),
        ("server { listen 8080; location = { } }", None),
        ("server { listen 8080; location / {} location / {} }", 'duplicate location "/"'),
        ("server { listen 8080; location ~ ( { } }", "pcre2_compile() failed"),
        ("server { listen 8443 ssl; }", 'no "ssl_certificate" is defined'),
        ("server { listen 8443 ssl; ssl_certificate /none; ssl_certificate_key /none; }", "cannot load certificate"),
        ("upstream a { server 127.0.0.1:1; } upstream a { server 127.0.0.1:2; }", 'duplicate upstream "a"'),
        ("upstream a { }", "no servers are inside upstream"),
        ("include /none/at/all;", 'open() "/none/at/all" failed (2: No such file or directory)'),
        ("server { listen 8080; return soon; }", 'invalid return code "soon"'),
    ],
)
def test_mistakes_are_told_as_nginx_tells_them(tmp_path: Path, hosts: str, words: str | None) -> None:
    if words is None:
        read(tmp_path, hosts)
        return
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, hosts)
    assert words in str(caught.value)


def test_a_name_that_two_hosts_bear_is_a_warning(tmp_path: Path) -> None:
    host = "server { listen 8080; server_name twice.test; }"
    assert read(tmp_path, host * 2).warnings == ['conflicting server name "twice.test" on 0.0.0.0:8080, ignored']
