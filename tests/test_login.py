"""Logging in to /admin: by key, for some hours, from this site alone; guessing is stopped, and nobody else by it."""

import asyncio
import contextlib
import html.parser
import json
import sqlite3
import time
from urllib.parse import urlencode

import pytest
from harness import Running, Wire, ask, chat, get, serving, until
from upstream import authority

from freehold.auth import KeyRing
from freehold.config import LoginSettings
from freehold.errors import LockedOut, Unauthenticated
from freehold.ledger import Ledger
from freehold.login import ADDRESSES, EVENTS, FAILED, SESSIONS_OF_KEY, TOGETHER, Login, network
from freehold.store import Store
from freehold.types import Role

PROXIED = {"FREEHOLD_SERVER_BEHIND_PROXY": "true", "FREEHOLD_LOGIN_LOCK_SECONDS": "2", "FREEHOLD_LOGIN_FAILURES": "3"}
FORM = "application/x-www-form-urlencoded"


def send(server: Running, path: str, fields: dict | bytes | None = None, *rows: str, method: str = "POST"):
    """One request of a browser's: status, headers, body."""
    body = fields if isinstance(fields, bytes) else urlencode(fields or {}).encode()
    head = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", f"Content-Type: {FORM}", *rows]
    head += [f"Content-Length: {len(body)}"] if method == "POST" else []
    with Wire(server.port) as wire:
        return wire.send("\r\n".join([*head, "", ""]).encode() + (body if method == "POST" else b"")).read()


def set_cookie(server: Running, key: str | None = None, *rows: str) -> str:
    """Log in; returns the header that sets the cookie. A key logs in once a second."""
    fields = {"key": server.key if key is None else key}
    status, headers, body = send(server, "/admin/login", fields, *rows)
    if status == 429 and b"a moment ago" in body:
        time.sleep(1.05)
        status, headers, body = send(server, "/admin/login", fields, *rows)
    assert status == 303 and headers["location"] == "/admin", body
    return headers["set-cookie"]


def log_in(server: Running, key: str | None = None, *rows: str) -> str:
    """Log in; returns the cookie as a browser sends it back."""
    return set_cookie(server, key, *rows).partition(";")[0]


def front(server: Running, cookie: str = "") -> tuple[int, dict, str]:
    rows = [f"Cookie: other=1; {cookie}"] if cookie else []
    status, headers, body = send(server, "/admin", None, *rows, method="GET")
    return status, headers, body.decode()


class Page(html.parser.HTMLParser):
    """The tags of a page, the values of hidden fields, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.hidden, self.text = [], {}, ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        known = dict(attributes)
        self.tags.append((tag, known))
        if known.get("type") == "hidden":
            self.hidden[known["name"]] = known["value"]

    def handle_data(self, data):
        self.text += data


def events(server: Running) -> list[dict]:
    with contextlib.closing(sqlite3.connect(server.home / "freehold.db")) as connection:
        rows = connection.execute(
            "SELECT act, subject, actor, detail FROM events WHERE act LIKE '%login%' ORDER BY seq"
        )
        return [{"act": act, "subject": where, "actor": who} | json.loads(detail) for act, where, who, detail in rows]


@pytest.fixture(scope="module")
def desk(tmp_path_factory, tiny_model):
    """A server that stands behind a proxy, so that a test can come from any address; it locks out for two seconds."""
    with serving(tmp_path_factory.mktemp("desk") / "home", tiny_model, env=PROXIED) as server:
        yield server


def at(address: str) -> str:
    return f"X-Forwarded-For: 198.51.100.99, {address}"


# the way in and out


def test_one_logs_in_with_a_key_looks_and_logs_out(fake):
    """By form, cookie and redirect, without script; the old cookie is worth nothing afterwards."""
    assert ask(fake, "/v1/chat/completions", chat("hi"))[0] == 200
    status, _, body = front(fake)
    assert status == 200 and 'type="password"' in body and "tiny" not in body
    cookie = log_in(fake)
    status, _, body = front(fake, cookie)
    page = Page(body)
    assert status == 200 and "admin, admin" in page.text and "Log out" in page.text
    assert not [tag for tag, _ in page.tags if tag in ("script", "iframe", "img", "link", "object")]
    assert not [one for _, known in page.tags for one in known if one.startswith("on") or one == "style"]
    sources = [known[name] for _, known in page.tags for name in ("src", "href", "action") if name in known]
    assert sources and all(source.startswith("/admin") for source in sources)
    status, headers, _ = send(fake, "/admin/logout", {"form": page.hidden["form"]}, f"Cookie: {cookie}")
    assert status == 303 and "Max-Age=0" in headers["set-cookie"]
    assert 'type="password"' in front(fake, cookie)[2]


def test_the_page_shows_what_is_true(fake):
    """Status, seal, queue, aliases and ledger, as the commands have them."""
    ask(fake, "/v1/chat/completions", chat("hi"))
    text = Page(front(fake, log_in(fake))[2]).text
    status = fake.status()
    for word in (fake.base, status["version"], "tiny", "seccomp", "strict", fake.calls(1)[0]["kind"], "answered"):
        assert word in text, word
    assert f"{status['audit']['events']} events" in text and status["models"][0]["digest"] in text
    for title in ("Status", "Seal", "Queue", "Aliases", "Ledger"):
        assert title in text
    assert fake.key not in text


def test_a_member_sees_its_own_and_nothing_of_the_server(fake):
    """Its own calls; not those of others, nor the seal, nor the aliases."""
    key = json.loads(fake.cli("keys", "create", "desk", "--json").stdout)["key"]
    ask(fake, "/v1/chat/completions", chat("hi"))
    ask(fake, "/v1/chat/completions", chat("hi"), key)
    text = Page(front(fake, log_in(fake, key))[2]).text
    assert "your latest 1 calls" in text and "desk, member" in text
    assert "seccomp" not in text and "Aliases" not in text and fake.base not in text
    auditor = json.loads(fake.cli("keys", "create", "books", "--role", "auditor", "--json").stdout)["key"]
    assert "seccomp" in Page(front(fake, log_in(fake, auditor))[2]).text


def test_what_stands_on_the_page_is_text(fake):
    """A key's name cannot be a tag, nor can what a client sends."""
    made = fake.cli("keys", "create", '<script>alert(1)</script>"', "--json")
    key = json.loads(made.stdout)["key"]
    ask(fake, "/v1/chat/completions", chat("hi") | {"model": "<img src=x onerror=alert(1)>\u202e"}, key)
    body = front(fake, log_in(fake, key))[2]
    assert "<script>" not in body and "<img" not in body and "&lt;script&gt;" in body and "\u202e" not in body


def test_the_pages_forbid_what_they_do_not_need(fake):
    """By Content-Security-Policy and its like, on every page, an error's too; none is kept in a cache."""
    for status, headers, body in (
        front(fake), front(fake, log_in(fake)), send(fake, "/admin/login", {"key": "x"}),
        send(fake, "/admin/logout", {}), send(fake, "/admin", None, method="DELETE"),
    ):  # fmt: skip
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src" not in policy and "unsafe" not in policy, status
        assert "frame-ancestors 'none'" in policy and "form-action 'self'" in policy and "base-uri 'none'" in policy
        assert headers["x-frame-options"] == "DENY" and headers["cache-control"] == "no-store"
        assert headers["content-type"].startswith("text/html"), body
    assert headers["x-content-type-options"] == "nosniff"


def test_the_cookie_is_for_this_server_alone(fake, desk, tmp_path, tiny_model):
    """Random, HttpOnly and SameSite=Strict; Secure and bound to the host where the way is encrypted."""
    cookie = set_cookie(fake)
    assert cookie.endswith("; Path=/; HttpOnly; SameSite=Strict")
    assert len(cookie.partition(";")[0]) > len("freehold=") + 40
    cookie = set_cookie(desk, None, at("192.0.2.1"))
    assert cookie.startswith("__Host-freehold=") and cookie.endswith("; Secure") and "domain" not in cookie.lower()
    authority(tmp_path)
    pem = str(tmp_path / "server.pem")
    with serving(tmp_path / "home", tiny_model, "--tls-cert", pem, "--tls-key", pem) as server:
        import http.client
        import ssl

        tls = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=tls, timeout=20)
        connection.request("POST", "/admin/login", urlencode({"key": server.key}), {"Content-Type": FORM})
        answer = connection.getresponse()
        assert answer.status == 303 and "; Secure" in answer.headers["set-cookie"]
        connection.close()


def test_a_session_ends_with_its_key(fake):
    """From its next page on."""
    key = json.loads(fake.cli("keys", "create", "short", "--json").stdout)["key"]
    cookie = log_in(fake, key)
    assert "short, member" in front(fake, cookie)[2]
    assert fake.cli("keys", "revoke", "short").returncode == 0
    assert 'type="password"' in front(fake, cookie)[2]


def test_a_cookie_opens_nothing_but_the_page(fake):
    """What needs a key needs a key: no other site's form can use a session."""
    cookie = log_in(fake)
    for path in ("/admin/status", "/v1/models", "/metrics", "/openapi.json"):
        assert send(fake, path, None, f"Cookie: {cookie}", method="GET")[0] == 401, path
    assert send(fake, "/admin/aliases", {"alias": "x", "act": "rollback"}, f"Cookie: {cookie}")[0] == 401


@pytest.mark.parametrize(
    ("rows", "good"),
    [
        (("Sec-Fetch-Site: cross-site",), False), (("Sec-Fetch-Site: same-site",), False),
        (("Origin: https://evil.example",), False), (("Origin: null",), False),
        (("Sec-Fetch-Site: same-origin", "Origin: https://what-a-proxy-renamed.example"), True),
        (("Origin: http://127.0.0.1:{port}",), True), ((), True),
    ],
)  # fmt: skip
def test_a_form_is_taken_from_this_site_alone(fake, rows, good):
    """To log in as well as to log out."""
    rows = [row.replace("{port}", str(fake.port)) for row in rows]
    time.sleep(1.05)  # a key logs in once a second
    status, _, _ = send(fake, "/admin/login", {"key": fake.key}, *rows)
    assert status == (303 if good else 403)
    cookie = log_in(fake, json.loads(fake.cli("keys", "create", f"x{time.time()}", "--json").stdout)["key"])
    form = Page(front(fake, cookie)[2]).hidden["form"]
    assert send(fake, "/admin/logout", {"form": form}, f"Cookie: {cookie}", *rows)[0] == (303 if good else 403)


def test_logging_out_needs_the_sessions_own_word(fake):
    """A form without it, or with another's, ends nobody's session."""
    cookie = log_in(fake, json.loads(fake.cli("keys", "create", "stays", "--json").stdout)["key"])
    for fields in ({}, {"form": "x"}, {"form": ""}, {"form": "é"}):
        assert send(fake, "/admin/logout", fields, f"Cookie: {cookie}")[0] == 403
    assert send(fake, "/admin/logout", {"form": Page(front(fake, cookie)[2]).hidden["form"]})[0] == 403
    assert "stays, member" in front(fake, cookie)[2]


@pytest.mark.parametrize(
    ("body", "rows", "status"),
    [
        (b"x" * 5000, (), 413), (b"key=%ff%fe", (), 401), (b"\xff\xfe", (), 400), (b"a=1&b=2&c=3&d=4&e=5&f=6", (), 400),
        (b"", (), 401), (b"key=" + b"x" * 4000, (), 401),
    ],
)  # fmt: skip
def test_a_form_that_is_none_is_refused(desk, body, rows, status):
    """Short, readable and with a stated length; whatever it is, there is a page that says so."""
    got, headers, _ = send(desk, "/admin/login", body, at(f"192.0.2.{10 + len(body) % 200}"), *rows)
    assert got == status and headers["content-type"].startswith("text/html")


def test_a_strangers_body_is_not_taken_in(desk):
    """Neither one without a length, nor a long one, nor JSON."""
    with Wire(desk.port) as wire:
        head = f"POST /admin/login HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert wire.send(head).read()[0] == 413
    with Wire(desk.port) as wire:
        head = f"POST /admin/login HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Length: 1000000\r\n\r\n"
        assert wire.send(head).read()[0] == 413
    status, _, _ = ask(desk, "/admin/login", {"key": "x"}, X_Forwarded_For="192.0.2.9")
    assert status == 415
    for method, path in (("GET", "/admin/login"), ("GET", "/admin/logout"), ("PUT", "/admin")):
        assert send(desk, path, None, at("192.0.2.9"), method=method)[0] == 405


# guessing


def test_repeated_failures_lock_an_address_out_and_no_other(desk):
    """429 with Retry-After, even with the right key; another is let in; the lock ends, and the next is longer."""
    stranger, owner = at("203.0.113.5"), at("203.0.113.6")
    for _ in range(3):
        status, _, body = send(desk, "/admin/login", {"key": "fh_wrong"}, stranger)
        assert status == 401 and b"not valid" in body and b'type="password"' in body
    began = time.monotonic()
    status, headers, body = send(desk, "/admin/login", {"key": desk.key}, stranger)
    assert status == 429 and 1 <= int(headers["retry-after"]) <= 2 and b"Retry-After" in body
    log_in(desk, None, owner)
    until(lambda: time.monotonic() - began > 2.1)
    for _ in range(3):
        assert send(desk, "/admin/login", {"key": "fh_wrong"}, stranger)[0] == 401
    assert int(send(desk, "/admin/login", {"key": "x"}, stranger)[1]["retry-after"]) in (3, 4)


def test_failures_and_logins_are_in_the_audit_chain(tmp_path, tiny_model):
    """With where they came from, how many, and the lock; the chain holds; nothing of a key is in it."""
    with serving(tmp_path / "home", tiny_model, env=PROXIED) as server:
        for _ in range(3):
            send(server, "/admin/login", {"key": "fh_wrong-secret"}, at("203.0.113.77"))
        log_in(server, None, at("203.0.113.78"))
        *failed, done = events(server)
        assert [one["failures"] for one in failed] == [1, 2, 3] and failed[2]["locked_seconds"] == 2
        assert {(one["act"], one["subject"], one["actor"]) for one in failed} == {
            ("admin.login_failed", "203.0.113.77", "somebody without a key")
        }
        assert (done["act"], done["subject"], done["actor"]) == ("admin.login", "203.0.113.78", server.key_id("admin"))
        assert "wrong-secret" not in str(failed)
        assert server.key not in str(done) and server.status()["audit"]["holds"]


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def bench(tmp_path):
    """A log-in on a clock of its own, its ledger, and a key."""
    store = Store(tmp_path / "freehold.db")
    ledger = Ledger(store)
    keys = KeyRing(store, ledger)
    _, key = keys.create("admin", Role.ADMIN, actor="a test")
    clock = Clock()
    made = Login(LoginSettings(), keys, ledger, clock)
    made.clock, made.key, made.ledger, made.keys = clock, key, ledger, keys
    yield made
    keys.close()
    store.close()


async def wrong(login: Login, address: str, times: int = 1) -> list[type]:
    """Wrong keys from an address; what came of each."""
    came = []
    for _ in range(times):
        try:
            await login.enter("fh_wrong", address)
        except (Unauthenticated, LockedOut) as error:
            came.append(type(error))
    return came


def test_wrong_keys_at_once_do_not_race_past_the_lock(bench):
    """Of a hundred at the same time as many are looked at as the limit says."""

    async def scenario():
        return await asyncio.gather(*(wrong(bench, "192.0.2.1") for _ in range(100)))

    came = [one for found in asyncio.run(scenario()) for one in found]
    assert (came.count(Unauthenticated), came.count(LockedOut)) == (5, 95)


def test_locks_grow_and_are_forgotten(bench):
    """A minute, two, four, up to an hour; a failure is forgotten after a quarter of an hour, a lock after an hour."""

    async def scenario():
        waits = []
        for _ in range(8):
            await wrong(bench, "192.0.2.1", 5)
            with pytest.raises(LockedOut) as caught:
                bench.check("192.0.2.1")
            waits.append(caught.value.retry_after)
            bench.clock.now += caught.value.retry_after
        assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600]
        bench.clock.now += 3700
        await wrong(bench, "192.0.2.1", 4)
        bench.clock.now += 901
        assert await wrong(bench, "192.0.2.1", 4) == [Unauthenticated] * 4
        await wrong(bench, "192.0.2.1")
        with pytest.raises(LockedOut) as caught:
            bench.check("192.0.2.1")
        assert caught.value.retry_after == 60

    asyncio.run(scenario())


def test_one_stranger_cannot_lock_out_others(bench):
    """However long it goes on from one address, another that was never seen is let in."""

    async def scenario():
        for _ in range(5000):
            bench.clock.now += 0.5
            await wrong(bench, "192.0.2.1")
        assert await bench.enter(bench.key, "198.51.100.7")

    asyncio.run(scenario())


def test_guessing_from_everywhere_is_stopped_but_not_for_those_who_belong(bench):
    """Past the bound of all together strangers wait, and one comes through now and then; somebody who logged in before
    and whoever is at this machine come through."""

    async def scenario():
        await bench.enter(bench.key, "198.51.100.7")
        bench.clock.now += 5
        came = [one for number in range(200) for one in await wrong(bench, f"192.0.2.{number}")]
        assert came.count(Unauthenticated) == TOGETHER and came.count(LockedOut) == 200 - TOGETHER
        with pytest.raises(LockedOut) as caught:
            await bench.enter(bench.key, "198.51.100.8")
        assert 1 <= caught.value.retry_after <= 18
        assert await bench.enter(bench.key, "198.51.100.7")
        bench.clock.now += 2
        assert await bench.enter(bench.key, "127.0.0.1")
        bench.clock.now += 18
        assert await bench.enter(bench.key, "198.51.100.8")

    asyncio.run(scenario())


def test_memory_is_bounded(bench):
    """Addresses that were seen, sessions of a key, and events a minute; what was not written is said by the next."""

    async def scenario():
        before = bench.ledger.head()[0]
        for number in range(3000):
            bench.clock.now += 0.01
            await wrong(bench, f"2001:db8:{number:x}::1")
        written = bench.ledger.head()[0] - before
        assert bench.failed > EVENTS and written <= EVENTS + 30 / 6
        assert len(bench._addresses) <= ADDRESSES
        bench.clock.now += 3600
        await wrong(bench, "192.0.2.9")
        failed = [event for event in bench.ledger.events() if event.act == FAILED]
        unwritten = sum(event.detail.get("not_written_before", 0) for event in failed)
        assert len(failed) == written + 1 and unwritten == bench.failed - len(failed) >= 30
        for _ in range(SESSIONS_OF_KEY + 5):
            bench.clock.now += 2
            cookie = await bench.enter(bench.key, "127.0.0.1")
        assert bench.sessions == SESSIONS_OF_KEY and bench.of(cookie) is not None

    asyncio.run(scenario())
    assert bench.ledger.verify().holds


def test_the_addresses_that_are_remembered_are_bounded(bench, monkeypatch):
    """The one that was not heard of for longest is forgotten."""
    monkeypatch.setattr("freehold.login.ADDRESSES", 3)

    async def scenario():
        for number in range(5):
            await wrong(bench, f"192.0.2.{number}")

    asyncio.run(scenario())
    assert list(bench._addresses) == ["192.0.2.2", "192.0.2.3", "192.0.2.4"]


def test_a_session_ends_after_its_hours(bench):
    """To the second, whatever it was used for meanwhile; the clock is one that never goes back."""

    async def scenario():
        return await bench.enter(bench.key, "127.0.0.1")

    cookie = asyncio.run(scenario())
    bench.clock.now += 8 * 3600 - 1
    assert bench.of(cookie).caller.name == "admin" and bench.sessions == 1
    bench.clock.now += 1
    assert bench.of(cookie) is None and bench.sessions == 0
    assert bench.of("") is None and bench.of("guess") is None


def test_a_key_logs_in_once_a_second(bench):
    """Each log-in is an event: nobody fills the chain with them."""

    async def scenario():
        await bench.enter(bench.key, "127.0.0.1")
        with pytest.raises(LockedOut):
            await bench.enter(bench.key, "127.0.0.1")
        bench.clock.now += 1
        await bench.enter(bench.key, "127.0.0.1")

    asyncio.run(scenario())


def test_nobody_logs_in_while_the_chain_cannot_be_written(desk):
    """503, and no session; afterwards it works."""
    time.sleep(1.05)
    with contextlib.closing(sqlite3.connect(desk.home / "freehold.db", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        status, headers, _ = send(desk, "/admin/login", {"key": desk.key}, at("192.0.2.200"))
        assert status == 503 and "set-cookie" not in headers
        holder.execute("ROLLBACK")
    log_in(desk, None, at("192.0.2.200"))


@pytest.mark.parametrize(
    ("address", "counts_as"),
    [
        ("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"), ("::1", "::1"), ("", "this machine"), ("garbage", "unknown"),
    ],
)  # fmt: skip
def test_an_address_counts_as_whom_it_stands_for(address, counts_as):
    """One household has 2^64 addresses of IPv6, and is one."""
    assert network(address) == counts_as


def test_the_address_is_taken_from_a_proxy_only_where_there_is_one(tmp_path, tiny_model):
    """Else whoever writes the header would choose whom to lock out, and never be locked out themselves."""
    with serving(tmp_path / "home", tiny_model) as server:
        for number in range(5):
            assert send(server, "/admin/login", {"key": "x"}, at(f"203.0.113.{number}"))[0] == 401
        assert send(server, "/admin/login", {"key": server.key}, at("203.0.113.99"))[0] == 429
        assert get(server, "/v1/models", server.key)[0] == 200
