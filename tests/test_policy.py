"""Who may do what: one test for each cell of the table, and one for each path of /admin and each role."""

import json
import sqlite3

import pytest
from harness import ask, chat, get, until

from freehold import policy
from freehold.types import Action, Caller, Kind, Limits, Request, Role

# written out by hand, and not worked out of what it is held against
MAY = {
    #                 admin  operator member auditor
    Action.CALL:     (True,  True,    True,  False),
    Action.TELL:     (True,  True,    True,  False),
    Action.OWN:      (True,  True,    True,  True),
    Action.LOOK:     (True,  True,    False, True),
    Action.LEDGER:   (True,  True,    False, True),
    Action.AUDIT:    (True,  True,    False, True),
    Action.EXPORT:   (True,  False,   False, True),
    Action.PEOPLE:   (True,  True,    False, True),
    Action.MOVE:     (True,  True,    False, False),
    Action.KEYS:     (True,  False,   False, False),
    Action.LIMITS:   (True,  False,   False, False),
    Action.ERASE:    (True,  False,   False, False),
}  # fmt: skip
CELLS = [(role, action, may) for action, row in MAY.items() for role, may in zip(Role, row, strict=True)]


@pytest.mark.parametrize(("role", "action", "may"), CELLS)
def test_each_cell_of_the_table(role, action, may):
    """A role may do exactly what is written here, and a refusal names who, the role and what it may not do."""
    decision = policy.may(Caller("k", "bob", role), action)
    assert decision.allowed is may
    assert may or (decision.reason == f"The role of 'bob' is {role.value}, which may not {action.value}.")


def test_the_table_is_whole():
    """Every role and every action is in it, and in the tests above."""
    assert set(policy.TABLE) == set(Role) and set(MAY) == set(Action)
    assert [action for action, _ in policy.table()] == list(Action)


def test_a_role_that_there_is_not_may_do_nothing():
    """Whatever it is."""
    for action in Action:
        assert not policy.may(Caller("k", "bob", "boss"), action).allowed


# over the wire: paths with what it takes, and a body that would change nothing

LOOKS = {
    "/admin/status": Action.LOOK,
    "/admin/aliases": Action.LOOK,
    "/admin/queue": Action.OWN,
    "/admin/ledger": Action.LEDGER,
    "/admin/guard": Action.LOOK,
    "/admin/traffic": Action.LOOK,
    "/admin/audit/head": Action.AUDIT,
    "/admin/keys": Action.PEOPLE,
    "/admin/teams": Action.PEOPLE,
    "/admin/limits": Action.OWN,
}
ACTS = [
    ("/v1/chat/completions", chat("hi"), Action.CALL),
    ("/v1/messages", chat("hi", max_tokens=1), Action.CALL),
    ("/v1/embeddings", {"model": "tiny", "input": "hi"}, Action.CALL),
    ("/admin/feedback", {"call": "req_nobody", "good": True}, Action.TELL),
    ("/admin/aliases", {"alias": "nobody", "act": "rollback"}, Action.MOVE),
    ("/admin/ledger", {"by": "team"}, Action.LEDGER),
    ("/admin/cost", {"task": "nothing"}, Action.LEDGER),
    ("/admin/guard", {"text": "hi"}, Action.LOOK),
    ("/admin/audit/list", {}, Action.AUDIT),
    ("/admin/audit/verify", {}, Action.AUDIT),
    ("/admin/audit/export", {"since": 1 << 40}, Action.EXPORT),
    ("/admin/traffic/erase", {"task": "nothing"}, Action.ERASE),
    ("/admin/keys", {"act": "revoke", "name": "nobody"}, Action.KEYS),
    ("/admin/teams", {"act": "remove", "team": "nobody"}, Action.LIMITS),
    ("/admin/limits", {"act": "unset", "team": "nobody"}, Action.LIMITS),
]


@pytest.fixture(scope="module")
def keys(fake):
    """A key of each role."""
    made = {role: fake.cli("keys", "create", f"an {role.value}", "--role", role.value, "--json") for role in Role}
    return {role: json.loads(done.stdout)["key"] for role, done in made.items()}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("path", LOOKS)
def test_what_is_shown_is_shown_to_those_who_may_see_it(fake, keys, path, role):
    """By the table, on the real path."""
    may = MAY[LOOKS[path]][list(Role).index(role)]
    status, _, body = get(fake, path, keys[role])
    assert status == (200 if may else 403)
    assert may or "which may not" in json.loads(body)["error"]["message"]


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("path", "body", "action"), ACTS)
def test_what_can_be_done_can_be_done_by_those_who_may(fake, keys, path, body, action, role):
    """By the table, on the real path; who may not is told so before anything else."""
    may = MAY[action][list(Role).index(role)]
    assert (ask(fake, path, body, key=keys[role])[0] == 403) is not may


def test_a_member_sees_its_own_limits_and_nobody_elses(fake, keys):
    """An auditor sees everybody's."""
    assert fake.cli("limits", "set", "an operator", "--calls-at-once", "7").returncode == 0
    seen = {role: json.loads(get(fake, "/admin/limits", keys[role])[2]) for role in (Role.MEMBER, Role.AUDITOR)}
    assert seen[Role.MEMBER] == {"yours": []}
    assert [one["of"] for one in until(lambda: seen[Role.AUDITOR]["everybody"])] == ["The key 'an operator'"]


# the request


def call(model: str = "tiny", kind: Kind = Kind.CHAT, alias: str = "", sent: bytes = b"", **body) -> Request:
    return Request(kind, model, body, alias=alias, sent=sent)


BOB = Caller("k", "bob", Role.MEMBER)


@pytest.mark.parametrize(
    ("models", "request_", "may"),
    [
        ((), call("tiny"), True),
        (("tiny",), call("tiny"), True),
        (("gpt",), call("tiny"), False),
        (("gpt",), call("tiny", alias="gpt"), True),
        (("tiny",), call("tiny", alias="gpt"), True),
        (("other",), call("tiny", alias="gpt"), False),
    ],
)
def test_a_list_of_models_holds_for_the_name_that_was_sent_and_for_the_models_own(models, request_, may):
    """Either is enough; the refusal says what may be called."""
    decision = policy.decide(BOB, request_, [("The key 'bob'", Limits(models=models))])
    assert decision.allowed is may and (may or "It may call: " in decision.reason)


def test_key_and_team_must_both_allow_a_model():
    """One that allows it is not enough."""
    both = [("The key 'bob'", Limits(models=("a", "b"))), ("The team 'x'", Limits(models=("b", "c")))]
    assert [policy.decide(BOB, call(name), both).allowed for name in "abc"] == [False, True, False]


@pytest.mark.parametrize(
    ("request_", "may"),
    [
        (call(max_tokens=100), True),
        (call(max_tokens=101), False),
        (call(max_completion_tokens=101), False),
        (call(max_tokens=50, n=2), True),
        (call(max_tokens=51, n=2), False),
        (call(n=101), False),
        (call(), True),
        (call(kind=Kind.RESPONSE, max_output_tokens=101), False),
        (call(kind=Kind.MESSAGE, max_tokens=101), False),
        (call(kind=Kind.COMPLETION, max_tokens=101), False),
        (call(kind=Kind.EMBEDDING, input="x"), True),
        (call(sent=b"{}"), False),
        (call(sent=b"{}", max_tokens=100), True),
    ],
)
def test_the_longest_answer_that_a_call_may_ask_for(request_, may):
    """On every surface, all choices together; to an upstream a call must say it."""
    assert policy.decide(BOB, request_, [("The key 'bob'", Limits(max_tokens=100))]).allowed is may


def test_a_call_that_does_not_say_how_long_gets_the_longest_that_is_allowed():
    """In its own surface's field, shared among its choices; one that says it is left alone."""
    limits = [("The key", Limits(max_tokens=100)), ("The team", Limits(max_tokens=60))]
    assert policy.within(call(), limits).body == {"max_tokens": 60}
    assert policy.within(call(n=2), limits).body == {"n": 2, "max_tokens": 30}
    assert policy.within(call(kind=Kind.RESPONSE), limits).body == {"max_output_tokens": 60}
    assert policy.within(call(max_completion_tokens=5), limits).body == {"max_completion_tokens": 5}
    assert policy.within(call(kind=Kind.EMBEDDING), limits).body == {}
    assert policy.within(call(), [("The key", Limits())]).body == {}


# what the database may hold


def test_a_role_that_the_database_invents_fails_closed(fake):
    """By hand with sqlite3: the key may do nothing, and can still be listed and revoked."""
    key = json.loads(fake.cli("keys", "create", "odd", "--json").stdout)["key"]
    with sqlite3.connect(fake.home / "freehold.db") as connection:
        connection.execute("UPDATE keys SET role = 'root' WHERE name = 'odd'")
    connection.close()
    for path in ("/v1/models", "/admin/status", "/admin/limits"):
        status, _, body = get(fake, path, key)
        assert status == 403 and "'root', which is none that there is" in json.loads(body)["error"]["message"]
    assert ask(fake, "/v1/chat/completions", chat("hi"), key=key)[0] == 403
    assert "root (unknown" in fake.cli("keys", "list").stdout
    assert fake.cli("keys", "revoke", "odd").returncode == 0
    assert get(fake, "/v1/models", key)[0] == 401
