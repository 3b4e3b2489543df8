"""Limits on the real path: held on every surface, by nobody raced past, forgotten by no restart."""

import json
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from harness import Running, Wire, ask, chat, get, post, serving, until
from upstream import Upstream

from freehold.auth import KeyRing
from freehold.config import CallerSettings
from freehold.errors import CannotDo, Unaccountable
from freehold.ledger import Ledger
from freehold.limits import KEY, NONE, OWNER, TEAM, Rules, Standing, Teams, as_limits, checked, merged
from freehold.store import Store, calls
from freehold.teams import Office
from freehold.types import Caller, Limits, Role, Subject

CHAT = "/v1/chat/completions"
SURFACES = {
    CHAT: lambda script, most: chat(script, max_tokens=most),
    "/v1/completions": lambda script, most: {"model": "tiny", "prompt": script, "max_tokens": most},
    "/v1/responses": lambda script, most: {"model": "tiny", "input": script, "max_output_tokens": most},
    "/v1/messages": lambda script, most: chat(script, max_tokens=most),
    "/v1/embeddings": lambda script, most: {"model": "tiny", "input": script},
}


def new_key(server: Running, name: str, *words: str) -> str:
    done = server.cli("keys", "create", name, "--json", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["key"]


def limit(server: Running, *words: str) -> None:
    done = server.cli("limits", "set", *words)
    assert done.returncode == 0, done.stderr
    time.sleep(0.15)  # how long the gateway may take to look


def error(body: bytes) -> dict:
    return json.loads(body)["error"]


def counted(server: Running, caller: str) -> int:
    """The tokens that the ledger has of a caller."""
    rows = [row for row in server.calls(10_000) if row["caller"] == caller]
    assert all(row["outcome"] for row in rows)
    return sum(row["prompt_tokens"] + row["completion_tokens"] for row in rows)


def standing(server: Running, key: str) -> dict[str, dict]:
    """How far a caller's own limits are used, as it sees it."""
    (own,) = json.loads(get(server, "/admin/limits", key)[2])["yours"]
    return {used["limit"]: used for used in own["used"]}


# budgets


@pytest.mark.parametrize("path", SURFACES)
def test_two_hundred_at_once_do_not_race_past_a_budget(fake, path):
    """On every surface: what the engine counts for them stays within it, some are answered and the rest are told; then
    one after the other the budget can be used to within one reservation, and nothing stays held."""
    name = f"crowd {path}"
    key, most = new_key(fake, name), 1500
    limit(fake, name, "--tokens-per-day", str(most))
    script = json.dumps({"tokens": 20, "each_ms": 4}) if "embed" not in path else "word " * 24
    body = SURFACES[path](script, 20)
    with ThreadPoolExecutor(200) as pool:
        found = list(pool.map(lambda _: ask(fake, path, body, key=key), range(200)))
    statuses = [status for status, _, _ in found]
    assert set(statuses) == {200, 429}
    assert 0 < counted(fake, name) <= most
    used = standing(fake, key)["tokens_per_day"]
    assert (used["used"], used["held"]) == (counted(fake, name), 0)
    body = SURFACES[path](json.dumps({"tokens": 20}) if "embed" not in path else script, 20)
    while ask(fake, path, body, key=key)[0] == 200:
        pass
    left = most - counted(fake, name)
    assert 0 <= left < 256 + len(json.dumps(body)) + 20


def test_a_refusal_says_which_limit_how_far_and_when_it_resets(fake):
    """In a sentence, in OpenAI's headers and in Anthropic's, and in seconds."""
    key = new_key(fake, "poor")
    limit(fake, "poor", "--tokens-per-day", "600")
    assert ask(fake, CHAT, chat({"tokens": 200}, max_tokens=200), key=key)[0] == 200
    status, headers, body = ask(fake, CHAT, chat("hi", max_tokens=200), key=key)
    said = error(body)
    assert (status, said["code"], said["type"]) == (429, "budget_spent", "rate_limit_error")
    assert "The key 'poor' has used 202 of 600 tokens a day, and this call may need" in said["message"]
    assert "00:00:00Z" in said["message"]
    to_midnight = 86_400 - time.time() % 86_400
    assert abs(int(headers["retry-after"]) - to_midnight) < 5
    assert headers["x-ratelimit-limit-tokens"] == "600" and headers["x-ratelimit-remaining-tokens"] == "398"
    assert headers["x-ratelimit-reset-tokens"].endswith("s")
    assert headers["x-freehold-limit"].startswith('limit="tokens_per_day", most=600, used=202, held=0, resets_in=')
    status, headers, body = ask(fake, "/v1/messages", chat("hi", max_tokens=200), key=key)
    assert (status, error(body)["type"]) == (429, "rate_limit_error")
    assert headers["anthropic-ratelimit-tokens-limit"] == "600"
    assert headers["anthropic-ratelimit-tokens-remaining"] == "398"
    assert headers["anthropic-ratelimit-tokens-reset"].endswith("T00:00:00Z") and "x-ratelimit" not in str(headers)
    row = fake.calls(1)[0]
    assert (row["outcome"], row["error"], row["status"]) == ("refused", "budget_spent", 429)


def test_answers_say_how_the_limits_stand_and_nothing_where_there_are_none(fake):
    """Streams too, in the head of the answer."""
    key = new_key(fake, "told")
    assert "ratelimit" not in str(ask(fake, CHAT, chat("hi"), key=key)[1])
    limit(fake, "told", "--calls-per-minute", "60", "--tokens-per-minute", "10000")
    for stream in (False, True):
        _, headers, _ = ask(fake, CHAT, chat("hi", stream=stream, max_tokens=5), key=key)
        assert headers["x-ratelimit-limit-requests"] == "60" and headers["x-ratelimit-limit-tokens"] == "10000"
        assert int(headers["x-ratelimit-remaining-requests"]) in (58, 59)
        assert 9000 < int(headers["x-ratelimit-remaining-tokens"]) < 9900
        assert headers["x-ratelimit-reset-requests"].endswith("s")
    _, headers, _ = ask(fake, "/v1/messages/count_tokens", chat("hi"), key=key)
    assert headers["anthropic-ratelimit-requests-limit"] == "60"


def test_what_never_fits_is_forbidden_and_not_put_off(fake):
    """A call that may need more than all of a limit would be told to come back for ever."""
    key = new_key(fake, "tight")
    limit(fake, "tight", "--tokens-per-day", "100")
    status, headers, body = ask(fake, CHAT, chat("hi", max_tokens=5), key=key)
    assert status == 403 and "retry-after" not in headers
    assert "has 100 tokens a day, and this call may need" in error(body)["message"]


def test_a_minutes_tokens_are_reserved_and_given_back(fake):
    """So many calls begin at once as fit at the worst; after them nearly all is there again."""
    key = new_key(fake, "quick")
    limit(fake, "quick", "--tokens-per-minute", "2000")
    body = chat({"tokens": 5, "each_ms": 20}, max_tokens=5)
    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(lambda _: ask(fake, CHAT, body, key=key), range(50)))
    refused = [(headers, error(content)) for status, headers, content in found if status == 429]
    assert 0 < len(refused) < 50 and all(said["code"] == "rate_limit_exceeded" for _, said in refused)
    assert all(0 < int(headers["retry-after"]) <= 60 for headers, _ in refused)
    assert "tokens a minute" in refused[0][1]["message"]
    assert standing(fake, key)["tokens_per_minute"]["used"] < 50 * 12
    assert ask(fake, CHAT, body, key=key)[0] == 200


def test_calls_at_once_and_in_a_minute_are_counted_for_the_whole_team(fake):
    """Two keys of it together; a third key that is in none is not touched."""
    assert fake.cli("teams", "add", "pair").returncode == 0
    ann, ben, out = (new_key(fake, name, *team) for name, *team in (
        ("ann", "--team", "pair"), ("ben", "--team", "pair"), ("out",)
    ))  # fmt: skip
    limit(fake, "--team", "pair", "--calls-at-once", "1")
    with Wire(fake.port) as wire:
        wire.send(post(CHAT, chat({"tokens": 50, "each_ms": 40}, stream=True), ann))
        wire.socket.recv(10)
        status, _, body = ask(fake, CHAT, chat("hi"), key=ben)
        assert status == 429 and "The team 'pair' has 1 calls in hand, and may have 1." in error(body)["message"]
        assert ask(fake, CHAT, chat("hi"), key=out)[0] == 200
    until(lambda: ask(fake, CHAT, chat("hi"), key=ben)[0] == 200)
    limit(fake, "--team", "pair", "--calls-at-once", "0", "--calls-per-minute", "2")
    found = [ask(fake, CHAT, chat("hi"), key=key) for key in (ann, ben, ann)]
    assert [status for status, _, _ in found] == [200, 200, 429]
    assert "The team 'pair' has used 2 of 2 calls a minute" in error(found[2][2])["message"]


def test_a_call_that_is_left_or_dies_gives_back_what_it_did_not_use(tmp_path, tiny_model):
    """Counted are the engine's tokens until then, and nothing is held any more."""
    with serving(tmp_path / "home", tiny_model) as server:
        key = new_key(server, "hasty")
        limit(server, "hasty", "--tokens-per-day", "100000")
        with Wire(server.port) as wire:
            wire.send(post(CHAT, chat({"tokens": 900, "each_ms": 20}, stream=True, max_tokens=900), key))
            wire.socket.recv(10)
            assert standing(server, key)["tokens_per_day"]["held"] > 900
        until(lambda: server.calls(1)[0]["outcome"] == "abandoned")
        assert ask(server, CHAT, chat({"tokens": 9, "die_after": 3}, max_tokens=900), key=key)[0] == 502
        used = until(lambda: (found := standing(server, key)["tokens_per_day"])["held"] == 0 and found)
        assert used["used"] == counted(server, "hasty") < 400


def test_a_restart_forgets_nothing(tmp_path, tiny_model):
    """Nor does a crash: what the ledger has is read again, and by the team as it was at the time."""
    home = tmp_path / "home"
    with serving(home, tiny_model) as server:
        server.cli("teams", "add", "dev")
        key = new_key(server, "bob", "--team", "dev")
        for _ in range(3):
            assert ask(server, CHAT, chat({"tokens": 100}, max_tokens=100), key=key)[0] == 200
        limit(server, "bob", "--tokens-per-day", "700")
        limit(server, "--team", "dev", "--tokens-per-month", "5000")
        status, headers, _ = ask(server, CHAT, chat("hi", max_tokens=200), key=key)
        assert status == 429 and headers["x-ratelimit-remaining-tokens"] == str(700 - counted(server, "bob"))
        server.process.kill()
        server.process.wait()
    with serving(home, tiny_model) as server:
        found = ask(server, CHAT, chat("hi", max_tokens=200), key=key)
        assert found[0] == 429 and found[1]["x-ratelimit-remaining-tokens"] == headers["x-ratelimit-remaining-tokens"]
        yours = json.loads(get(server, "/admin/limits", key)[2])["yours"]
        assert [used["used"] for one in yours for used in one["used"]] == [counted(server, "bob")] * 2
        shown = json.loads(server.cli("limits", "show", "bob", "--json").stdout)["used"]
        assert shown[0]["used"] == counted(server, "bob")
        by_team = json.loads(server.cli("ledger", "--by", "team", "--json").stdout)["rows"]
        assert {row["key"]: row["calls"] for row in by_team} == {"dev": 5}
        auditor = new_key(server, "auditor", "--role", "auditor")
        status, _, body = ask(server, "/admin/ledger", {"by": "team"}, auditor)
        assert status == 200 and json.loads(body)["rows"] == by_team
        latest = json.loads(get(server, "/admin/ledger", auditor)[2])["calls"]
        assert [call["id"] for call in latest] == [call["id"] for call in server.calls(5)]
        for wrong in ({"by": "mood"}, {"since": "soon"}, {"since": "2026-05-02", "until": "2026-05-01"}):
            assert ask(server, "/admin/ledger", wrong, auditor)[0] == 400


def test_a_budget_of_money_is_held_by_the_price_of_the_model(tmp_path, tiny_model):
    """Prompt and answer at their own prices; where nobody knows the price, the call is refused."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "freehold.toml").write_text('[cost.prices."tiny"]\ninput = 1000\noutput = 10000\n')
    with serving(home, tiny_model) as server:
        key = new_key(server, "rich")
        limit(server, "rich", "--money-per-day", "6")
        body = chat({"tokens": 50}, max_tokens=50)
        with ThreadPoolExecutor(40) as pool:
            statuses = list(pool.map(lambda _: ask(server, CHAT, body, key=key)[0], range(40)))
        assert set(statuses) == {200, 429}
        while ask(server, CHAT, body, key=key)[0] == 200:
            pass
        rows = [row for row in server.calls(1000) if row["caller"] == "rich"]
        spent = sum(row["prompt_tokens"] * 0.001 + row["completion_tokens"] * 0.01 for row in rows)
        assert 6 - 1.2 < spent <= 6
        assert standing(server, key)["money_per_day"]["used"] == pytest.approx(spent)
        said = error(ask(server, CHAT, body, key=key)[2])
        assert said["code"] == "budget_spent" and "of money a day" in said["message"]
        shown = json.loads(server.cli("limits", "show", "rich", "--json").stdout)["used"]
        assert shown[0]["used"] == pytest.approx(spent)
    (home / "freehold.toml").write_text("")
    with serving(home, tiny_model) as server:
        status, _, content = ask(server, CHAT, body, key=key)
        assert status == 403 and '[cost.prices."tiny"]' in error(content)["message"]


def test_an_upstream_that_does_not_say_what_it_counted_is_taken_to_have_used_all(tmp_path, tiny_model):
    """What was reserved stays used; a refusal of the upstream costs nothing; and a call must say how long it may be."""
    far, home = Upstream(), tmp_path / "home"
    home.mkdir()
    (home / "freehold.toml").write_text(
        f'upstream_hosts = ["{far.host}"]\n[upstreams.far]\nurl = "{far.url}"\nmodels = ["far-1"]\n'
    )
    try:
        with serving(home, tiny_model) as server:
            key = new_key(server, "away")
            limit(server, "away", "--tokens-per-day", "100000")
            body = chat("hi", max_tokens=500) | {"model": "far-1"}
            del body["max_tokens"]
            status, _, content = ask(server, CHAT, body, key=key)
            assert status == 403 and "max_completion_tokens" in error(content)["message"] and not far.got
            body["max_completion_tokens"] = 500
            far.order({"status": 400, "body": b'{"error": {"message": "no"}}'})
            assert ask(server, CHAT, body, key=key)[0] == 400
            assert standing(server, key)["tokens_per_day"]["used"] == 0
            far.order({"body": b'{"choices": []}'})
            assert ask(server, CHAT, body, key=key)[0] == 200
            used = standing(server, key)["tokens_per_day"]
            assert used["used"] > 500 and used["held"] == 0
            assert ask(server, CHAT, body, key=key)[0] == 200  # which says what it counted
            more = standing(server, key)["tokens_per_day"]["used"] - used["used"]
            assert more == server.calls(1)[0]["prompt_tokens"] + server.calls(1)[0]["completion_tokens"] > 0
    finally:
        far.close()


# other limits


def test_models_that_a_key_may_not_call_are_neither_answered_nor_listed(fake):
    """The refusal says what it may call."""
    key = new_key(fake, "narrow")
    limit(fake, "narrow", "--models", "other, tiny")
    assert [model["id"] for model in json.loads(get(fake, "/v1/models", key)[2])["data"]] == ["tiny"]
    limit(fake, "narrow", "--models", "other")
    assert json.loads(get(fake, "/v1/models", key)[2])["data"] == []
    for path in SURFACES:
        status, _, body = ask(fake, path, SURFACES[path]("hi", 5), key=key)
        assert status == 403 and "It may call: other." in error(body)["message"]
    limit(fake, "narrow", "--models", "0")
    assert ask(fake, CHAT, chat("hi"), key=key)[0] == 200


@pytest.mark.parametrize("path", [path for path in SURFACES if "embed" not in path])
def test_the_longest_answer_of_a_call_is_held_on_every_surface(fake, path):
    """Asked for more, it is refused; asked for nothing, it gets that much and no more."""
    name = f"short {path}"
    key = new_key(fake, name)
    limit(fake, name, "--max-tokens", "6")
    status, _, body = ask(fake, path, SURFACES[path]("hi", 7), key=key)
    assert status == 403 and "may ask for 6 tokens of answer in one call" in error(body)["message"]
    script = json.dumps({"tokens": 50})
    body = {name: value for name, value in SURFACES[path](script, 6).items() if "max" not in name}
    body |= {"max_tokens": 6} if path == "/v1/messages" else {}  # which that surface always says
    assert ask(fake, path, body, key=key)[0] == 200
    assert fake.calls(1)[0]["completion_tokens"] == 6


def test_the_settings_hold_for_every_key_of_which_nothing_else_is_said(tmp_path, tiny_model):
    """A key's own limit takes their place, and 0 lifts it."""
    with serving(tmp_path / "home", tiny_model, env={"FREEHOLD_CALLERS_TOKENS_PER_DAY": "100"}) as server:
        keys = {name: new_key(server, name) for name in ("usual", "more", "free")}
        limit(server, "more", "--tokens-per-day", "100000")
        limit(server, "free", "--tokens-per-day", "0")
        found = {name: ask(server, CHAT, chat("hi", max_tokens=5), key=key) for name, key in keys.items()}
        assert {name: status for name, (status, _, _) in found.items()} == {"usual": 403, "more": 200, "free": 200}
        assert "ratelimit" not in str(found["free"][1])
        limit(server, "more", "--tokens-per-day", "default")
        assert ask(server, CHAT, chat("hi", max_tokens=5), key=keys["more"])[0] == 403


# changes


def test_a_running_server_follows_the_commands_within_a_second(fake):
    """Set, changed and unset, by another process; and by hand in the database, which tells nobody."""
    key = new_key(fake, "moving")

    def within_a_second(status: int) -> bool:
        deadline = time.monotonic() + 1.0 + 2.0  # a machine that is busy
        while ask(fake, CHAT, chat("hi", max_tokens=5), key=key)[0] != status:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return True

    assert fake.cli("limits", "set", "moving", "--models", "nothing").returncode == 0
    assert within_a_second(403)
    assert fake.cli("limits", "unset", "moving").returncode == 0
    assert within_a_second(200)
    assert fake.cli("limits", "set", "moving", "--tokens-per-day", "1").returncode == 0
    assert within_a_second(403)
    with sqlite3.connect(fake.home / "freehold.db") as connection:
        assert connection.execute("DELETE FROM limits WHERE id = ?", (fake.key_id("moving"),)).rowcount == 1
    connection.close()
    time.sleep(1.0)
    assert within_a_second(200)


def test_limits_that_cannot_be_read_fail_closed(fake):
    """A row that somebody spoilt by hand: its key is not served, others are; setting it anew mends it."""
    key = new_key(fake, "spoilt")
    limit(fake, "spoilt", "--calls-at-once", "5")
    with sqlite3.connect(fake.home / "freehold.db") as connection:
        spoil = """UPDATE limits SET says = '{"calls_at_once": -1}' WHERE id = ?"""
        assert connection.execute(spoil, (fake.key_id("spoilt"),)).rowcount == 1
    connection.close()

    def refused():
        status, _, body = ask(fake, CHAT, chat("hi"), key=key)
        return status == 503 and error(body)["message"]

    assert "cannot be read" in until(refused)
    assert ask(fake, CHAT, chat("hi"))[0] == 200
    limit(fake, "spoilt", "--calls-at-once", "5")
    assert ask(fake, CHAT, chat("hi"), key=key)[0] == 200


def test_a_key_that_has_expired_is_refused_with_the_reason(fake):
    """To the second, though it was good a moment ago; a day gone by is refused when it is made."""
    ends = time.time() + 1.5
    made = ask(fake, "/admin/keys", {"act": "create", "name": "guest", "expires_at": ends})
    key = json.loads(made[2])["key"]
    assert ask(fake, CHAT, chat("hi"), key=key)[0] == 200
    while time.time() < ends - 0.05:
        ask(fake, CHAT, chat("hi"), key=key)
    time.sleep(0.1)
    status, _, body = ask(fake, CHAT, chat("hi"), key=key)
    assert status == 401 and "has expired: it was good until 20" in error(body)["message"]
    assert "(expired)" in fake.cli("keys", "list").stdout
    done = fake.cli("keys", "create", "late", "--expires", "2020-01-01")
    assert done.returncode == 2 and "cannot end at 2020-01-01" in done.stderr
    assert "T" not in fake.cli("keys", "create", "never", "--expires", "soon").stdout


def test_over_the_wire_and_on_the_command_line_the_same_can_be_done(fake):
    """Teams, keys and limits; each change is an event in the chain, with who made it."""
    for body in ({"act": "add", "team": "wire"}, {"act": "join", "team": "wire", "key": "via"}):
        if body["act"] == "join":
            assert ask(fake, "/admin/keys", {"act": "create", "name": "via", "role": "auditor"})[0] == 200
        assert ask(fake, "/admin/teams", body)[0] == 200
    says = {"tokens_per_day": 50, "models": ["tiny"], "money_per_month": 2.5}
    status, _, body = ask(fake, "/admin/limits", {"act": "set", "team": "wire", "limits": says})
    assert status == 200 and json.loads(body)["limits"] == says
    body = ask(fake, "/admin/limits", {"act": "set", "team": "wire", "limits": {"models": None}})[2]
    assert json.loads(body)["limits"] == {"tokens_per_day": 50, "money_per_month": 2.5}
    assert "wire" in fake.cli("limits", "list").stdout and "50" in fake.cli("limits", "show", "--team", "wire").stdout
    (team,) = (one for one in json.loads(get(fake, "/admin/teams", fake.key)[2])["teams"] if one["name"] == "wire")
    assert team["members"] == ["via"]
    assert ask(fake, "/admin/teams", {"act": "remove", "team": "wire"})[0] == 409  # a live key is in it
    assert fake.cli("teams", "leave", "via").returncode == 0
    assert ask(fake, "/admin/limits", {"act": "unset", "team": "wire"})[0] == 200
    assert ask(fake, "/admin/teams", {"act": "remove", "team": "wire"})[0] == 200
    assert ask(fake, "/admin/keys", {"act": "revoke", "name": "via"})[0] == 200
    with sqlite3.connect(fake.home / "freehold.db") as connection:
        acts = connection.execute("SELECT act, actor FROM events ORDER BY seq").fetchall()
    connection.close()
    admin = fake.key_id("admin")
    mine = [act for act, actor in acts if actor == admin]
    assert mine[-8:] == ["team.added", "key.created", "key.moved", "limits.set", "limits.set", "limits.unset",
                         "team.removed", "key.revoked"]  # fmt: skip
    assert fake.cli("audit", "verify").returncode == 0


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"act": "set", "limits": {"tokens_per_day": 1}}, 400, "of a key or of a team"),
        ({"act": "set", "key": "admin", "team": "x", "limits": {"tokens_per_day": 1}}, 400, "of a key or of a team"),
        ({"act": "set", "key": "admin"}, 400, "limits is missing"),
        ({"act": "set", "key": "nobody", "limits": {"tokens_per_day": 1}}, 409, "no live key"),
        ({"act": "set", "team": "nobody", "limits": {"tokens_per_day": 1}}, 409, "no team"),
        ({"act": "set", "key": "admin", "limits": {"tokens_per_day": -1}}, 409, "less than nothing"),
        ({"act": "set", "key": "admin", "limits": {"tokens_per_day": 1.5}}, 409, "counted whole"),
        ({"act": "set", "key": "admin", "limits": {"tokens_per_year": 1}}, 409, "no limit 'tokens_per_year'"),
        ({"act": "set", "key": "admin", "limits": {"money_per_day": 1e300}}, 409, "10^12"),
        ({"act": "set", "key": "admin", "limits": {"tokens_per_day": "many"}}, 400, "limits"),
        ({"act": "unset", "key": "admin"}, 409, "no limits of its own"),
        ({"act": "lift", "key": "admin"}, 400, "act"),
    ],
)
def test_limits_that_cannot_be_are_refused_with_a_sentence(fake, body, status, said):
    """Over the wire; nothing is changed."""
    found, _, content = ask(fake, "/admin/limits", body)
    assert found == status and said in error(content)["message"]
    assert "ratelimit" not in str(ask(fake, CHAT, chat("hi"))[1])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tokens-per-day", "-5"), "less than nothing"),
        (("--money-per-day", "nan"), "no number"),
        (("--money-per-day", "inf"), "10^12"),
        (("--tokens-per-day", "9" * 400), "10^15"),
        (("--tokens-per-day", "-" + "9" * 400), "less than nothing"),
        (("--calls-at-once", "1.5"), "no number"),
        (("--calls-at-once", "9" * 30), "10^15"),
        (("--models", ","), ""),
        ((), "No limit is named"),
    ],
)
def test_so_they_are_on_the_command_line(fake, words, said):
    """With exit code 2. An empty list of models is no limit."""
    done = fake.cli("limits", "set", "admin", *words)
    assert (done.returncode, said in done.stderr) == (2 if said else 0, True)
    if not said:
        fake.cli("limits", "unset", "admin")


# by themselves


@contextmanager
def open_store(path):
    store = Store(path)
    ledger = Ledger(store)
    rules, keys = Rules(store), KeyRing(store, ledger)
    try:
        yield store, rules, keys, Office(store, ledger, rules)
    finally:
        rules.close()
        keys.close()
        store.close()


def test_ones_own_limits_lie_over_the_defaults():
    """What is not said is as the default; 0 and no models lift it; what is no limit is not there any more."""
    under = as_limits(CallerSettings(models=("a",), calls_at_once=3, tokens_per_day=9))
    assert under == Limits(models=("a",), calls_at_once=3, tokens_per_day=9)
    own = Limits(models=(), calls_at_once=5, tokens_per_day=0, money_per_day=1.0)
    assert merged(own, under) == Limits(calls_at_once=5, money_per_day=1.0)
    assert merged(NONE, under) == under and merged(Limits(models=(), tokens_per_day=0), NONE) is NONE
    bob = Caller("k", "bob", Role.MEMBER, "dev")
    rows = {Subject(TEAM, "dev"): Limits(calls_at_once=9), Subject(KEY, "k"): Limits(tokens_per_day=0)}
    assert Standing(rows, NONE).of(bob) == (("The team 'dev'", Subject(TEAM, "dev"), Limits(calls_at_once=9)),)
    with pytest.raises(Unaccountable, match="cannot be read"):
        Standing({Subject(TEAM, "dev"): "it is spoilt"}, NONE).of(bob)


def test_a_list_of_models_is_a_list_of_names():
    """Neither text, nor numbers, nor ever so many."""
    for models in ("tiny", [1], [""], ["a\nb"], ["x"] * 101):
        with pytest.raises(CannotDo):
            checked({"models": models})
    assert checked({"models": ["a", "b"]}).models == ("a", "b")


def test_a_key_is_in_one_team_at_most(tmp_path):
    """Moving it ends what was before; a team that is not there is no team; the database itself holds the line."""
    with open_store(tmp_path / "x.db") as (store, _, keys, office):
        with pytest.raises(CannotDo, match="no team 'dev'"):
            keys.create("bob", Role.MEMBER, actor="me", team="dev")
        assert keys.list() == []  # nothing was half made
        office.add("dev", actor="me")
        office.add("ops", actor="me")
        key, token = keys.create("bob", Role.MEMBER, actor="me", team="dev")
        assert keys.caller(token).team == "dev"
        office.join(key.id, "bob", "ops", actor="me")
        assert keys.caller(token).team == "ops" and [team.members for team in office.list()] == [(), ("bob",)]
        with pytest.raises(CannotDo, match="already a team"):
            office.add("ops", actor="me")
        with pytest.raises(CannotDo, match="has live keys: bob"):
            office.remove("ops", actor="me")
        keys.revoke("bob", actor="me")
        office.remove("ops", actor="me")
        with pytest.raises(Exception, match="UNIQUE"), store.write() as connection:
            for team in ("a", "b"):
                connection.exec_driver_sql(f"INSERT INTO memberships VALUES ('k', {ord(team)}, '{team}', NULL)")


def test_a_team_that_the_database_invents_fails_closed(tmp_path):
    """A key whose team was taken out by hand may do nothing."""
    with open_store(tmp_path / "x.db") as (store, _, keys, office):
        office.add("dev", actor="me")
        _, token = keys.create("bob", Role.MEMBER, actor="me", team="dev")
        with store.write() as connection:
            connection.exec_driver_sql("DELETE FROM teams")
        with pytest.raises(Exception, match="team 'dev', which is none"):
            keys.caller(token)


def put_call(connection, id: str, when: float, caller: str, tokens: int, **more) -> None:
    row = {"id": id, "opened_at": when, "caller": caller, "kind": "chat.completions", "outcome": "answered",
           "prompt_tokens": tokens, "completion_tokens": 0, "cached_tokens": 0}  # fmt: skip
    connection.execute(calls.insert().values(row | more))


def test_a_call_of_the_ledger_is_on_the_key_and_the_team_of_its_time(tmp_path):
    """A name that was given anew is another key; a call stays on the team that its key was in, in sums too."""
    with open_store(tmp_path / "x.db") as (store, rules, keys, office):
        office.add("dev", actor="me")
        office.add("ops", actor="me")
        first, _ = keys.create("bob", Role.MEMBER, actor="me", team="dev")
        one = time.time()
        office.join(first.id, "bob", "ops", actor="me")
        two = time.time()
        keys.revoke("bob", actor="me")
        second, _ = keys.create("bob", Role.MEMBER, actor="me")
        three = time.time()
        with store.write() as connection:
            for number, when in enumerate((one, two, three), start=1):
                put_call(connection, f"c{number}", when, "bob", number)
            put_call(connection, "owner's", three, "this machine's owner", 9)
            put_call(connection, "counted", three, "bob", 9, kind="messages.count_tokens")
            put_call(connection, "open", three, "bob", 9, outcome=None)
            put_call(connection, "before", 5.0, "bob", 9)
        found = {spend.id: (spend.key, spend.team, spend.prompt) for spend in rules.spends(6.0)}
        assert found == {
            "c1": (first.id, "dev", 1), "c2": (first.id, "ops", 2), "c3": (second.id, None, 3),
            "owner's": (OWNER, None, 9),
        }  # fmt: skip
        assert [spend.id for spend in rules.spends(0.0, Subject(TEAM, "ops"))] == ["c2"]
        assert [spend.id for spend in rules.spends(0.0, Subject(KEY, second.id))] == ["c3"]
        team_of = Teams(store).at()
        assert [team_of("bob", when) for when in (one, two, three)] == ["dev", "ops", ""]
        assert team_of("nobody", one) == ""


def test_a_clock_that_was_set_back_after_a_key_was_made_takes_no_call_from_it(tmp_path):
    """Nor from its team: a restart would give back what was used. A second key of the name has its own."""
    with open_store(tmp_path / "x.db") as (store, rules, keys, office):
        office.add("dev", actor="me")
        first, _ = keys.create("bob", Role.MEMBER, actor="me", team="dev")
        with store.write() as connection:
            put_call(connection, "c1", time.time() - 3600, "bob", 1)
        (found,) = rules.spends(0.0)
        assert (found.key, found.team) == (first.id, "dev")
        assert Teams(store).at()("bob", time.time() - 3600) == "dev"
        keys.revoke("bob", actor="me")
        second, _ = keys.create("bob", Role.MEMBER, actor="me")
        with store.write() as connection:
            put_call(connection, "c2", time.time(), "bob", 1)
        assert {spend.id: spend.key for spend in rules.spends(0.0)} == {"c1": first.id, "c2": second.id}


def test_what_is_remembered_of_limits_is_found_changed(tmp_path):
    """By another process, as soon as the gateway looks again; while nothing changes, the same is given."""
    with open_store(tmp_path / "x.db") as (_, rules, _, _), open_store(tmp_path / "x.db") as (_, _, _, office):
        office.add("dev", actor="me")
        before = rules.now()
        assert before is rules.now() and not before.has_budgets
        office.set(Subject(TEAM, "dev"), {"tokens_per_day": 5}, actor="me")
        time.sleep(0.12)
        after = rules.now()
        assert after.has_budgets and not after.has_money
        time.sleep(1.1)
        assert rules.now() is after  # read again, and found the same


def test_a_database_that_does_not_answer_lets_nobody_through(tmp_path):
    """Neither by guessing nor by what was known before."""
    with open_store(tmp_path / "x.db") as (store, rules, _, _):
        rules.now()
        with store.write() as connection:
            connection.exec_driver_sql("DROP TABLE limits")
        store.touch()
        time.sleep(0.12)
        for _ in range(2):
            with pytest.raises(Unaccountable, match="cannot be looked up"):
                rules.now()
