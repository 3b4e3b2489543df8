"""Promote, roll back, canary: an application sends the name that it always sent, and another model answers."""

from __future__ import annotations

import contextlib
import io
import json
import math
import random
import threading
import time
from pathlib import Path

import lora
import pytest
from harness import Running, ask, chat, cli, get, gguf, until
from upstream import KEY, Upstream

from freehold import app, certify, config, promote
from freehold.cli import main as command
from freehold.home import Home
from freehold.promote import Standing, standing
from freehold.types import Answer, Candidate, Manifest, Outlook, Replayed, Sample, Target, Task, Verdict

CHAT = "/v1/chat/completions"
GPT = "gpt-4o-mini"
ALL = "open,source-available,use-restricted,non-commercial,unknown"
TASK = """name = "{name}"
alias = "{alias}"
margin = 0.05
[scorer]
{scorer}
[splits]
tuning = 0.0
validation = 0.0
"""
RIGHT, WRONG = Answer("right"), Answer("wrong")


class Site(Running):
    """A gateway with two models of its own, and an upstream that runs a good many."""

    far: Upstream

    @property
    def digests(self) -> dict[str, str]:
        with parts(self.home) as opened:
            return {name: model.digest for name, model in opened.vault.models().items()}

    def events(self, alias: str = "") -> list[dict]:
        """Every act, or those on one alias."""
        every = json.loads(self.do("audit", "list", "--json"))
        return [event for event in every if event["subject"] == alias or not alias]

    def do(self, *words: str, code: int = 0) -> str:
        """A command, in this process and not in the server's; gives what it says."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                done = command.main([*words, "--home", str(self.home)])
            except SystemExit as usage:
                done = usage.code
        assert done == code and "Traceback" not in said.getvalue(), (done, said.getvalue())
        return said.getvalue()

    def promote(self, *words: str, code: int = 0) -> str:
        return self.do("promote", *words, code=code)

    def rollback(self, alias: str, code: int = 0) -> str:
        return self.do("rollback", alias, code=code)

    def new_key(self, name: str, role: str = "member") -> str:
        return self.do("keys", "create", name, "--role", role).split()[0]

    def who(self, alias: str, text: str = "hi", **fields) -> str:
        """Who answers, as the header has it: NAME@sha256:... or NAME@upstream:..."""
        status, headers, body = ask(self, CHAT, chat(text) | {"model": alias} | fields)
        assert status == 200, body
        return headers["x-freehold-model"].partition("@")[0]


@contextlib.contextmanager
def site_in(folder: Path, *more: str):
    """A site with upstream models gpt-4o-mini and m0 to m19; the vault has tiny and tuned."""
    far, home = Upstream(), folder / "home"
    home.mkdir()
    (folder / "key").write_text(KEY)
    names = ", ".join(f'{name} = "there"' for name in (GPT, *(f"m{number}" for number in range(20))))
    (home / "freehold.toml").write_text(
        f'upstream_hosts = ["{far.host}"]\n[upstreams.far]\nurl = "{far.url}"\nkey_file = "{folder / "key"}"\n'
        f"names = {{ {names} }}\nconnect_seconds = 1\nsilence_seconds = 5\nretries = 0\nbreaker_failures = 1000\n"
    )
    for name, tensors in (("tiny", 1), ("tuned", 2)):
        (folder / f"{name}.gguf").write_bytes(gguf(tensors=tensors))
    models = [word for name in ("tiny", "tuned") for word in ("--model", str(folder / f"{name}.gguf"))]
    server = Site(home, "--engine", "fake", *models, *more)
    server.far = far
    try:
        yield server
    finally:
        server.stop()
        far.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with site_in(tmp_path_factory.mktemp("site")) as server:
        yield server


@contextlib.contextmanager
def parts(home: Path):
    with app.parts(Home(home, create=False), config.load(home, {})) as opened:
        yield opened


def task(home: Path, name: str, alias: str, calls: int = 200, scorer: str = 'kind = "exact"') -> None:
    """A task with so many recorded calls that all certify."""
    path = home.parent / f"{name}.toml"
    path.write_text(TASK.format(name=name, alias=alias, scorer=scorer))
    with parts(home) as opened:
        opened.tasks.add(path, replace=True)
        opened.samples.keep(name, [
            Sample(f"{name}{n}", {"messages": [name, n]}, at=float(n), answer=RIGHT, expected=RIGHT)
            for n in range(calls)
        ])  # fmt: skip


def certified(home: Path, name: str, model: str, digest: str, right: int, calls: int = 200, engine: str = "e") -> str:
    """Let a model have answered them, look, and say what came of it."""
    with parts(home) as opened:
        candidate = opened.results.candidate(model, digest, {}, engine)
        rows = [Replayed(f"{name}{n}", RIGHT if n < right else WRONG) for n in range(calls)]
        opened.results.put_answers(name, candidate.key, rows)
        found = opened.tasks.get(name)
        with opened.bench(found, lambda what, done, total: None) as bench:
            (verdict,) = certify.certify(bench, found, [candidate], margin=None, by="me")
    return verdict.outcome.value


# who may take over


def test_a_name_is_promoted_with_a_verdict_and_taken_back(site):
    """The application sends the same name throughout; the very next call goes where the name points."""
    task(site.home, "tickets", GPT)
    assert site.who(GPT) == GPT
    assert certified(site.home, "tickets", "tuned", site.digests["tuned"], 200) == "non-inferior"
    said = site.promote(GPT, "tuned")
    assert site.who(GPT) == "tuned"
    assert "tuned is non-inferior on tickets" in said and f"before at {GPT} (upstream far)" in said
    call = site.calls(1)[0]
    assert (call["alias"], call["model"], call["digest"]) == (GPT, "tuned", site.digests["tuned"])
    assert call["left_the_house"] == 0
    assert f"points at {GPT} (upstream far) again" in site.rollback(GPT)
    assert site.who(GPT) == GPT
    call = site.calls(1)[0]
    assert (call["alias"], call["model"], call["digest"], call["left_the_house"]) == (GPT, GPT, None, 1)
    assert "nothing before" in site.rollback(GPT, code=2)
    promoted = site.events(GPT)[0]
    assert promoted["act"] == "alias.promoted" and promoted["actor"].startswith("command line")
    (ground,) = promoted["detail"]["verdicts"]
    assert (ground["task"], ground["outcome"], ground["digest"]) == ("tickets", "non-inferior", site.digests["tuned"])
    assert json.loads(site.do("audit", "verify", "--json"))["holds"]


def test_without_a_verdict_the_answer_is_no(site):
    """Exit code 1, the reason and the next step; nothing is moved, and no event is written."""
    task(site.home, "orders", "m0")
    before = len(site.events())
    assert "never certified on orders" in site.promote("m0", "tuned", code=1)
    assert "No task has the alias 'm1'" in site.promote("m1", "tuned", code=1)
    assert certified(site.home, "orders", "tuned", site.digests["tuned"], 120) == "inferior"
    told = json.loads(site.promote("m0", "tuned", "--json", code=1))
    assert (told["promoted"], told["verdicts"][0]["outcome"]) == (False, "inferior")
    assert "is inferior on orders" in site.promote("m0", "tuned", "--share", "10%", code=1)
    task(site.home, "few", "m2", calls=20)
    assert certified(site.home, "few", "tuned", site.digests["tuned"], 20, calls=20) == "undecided"
    assert "is undecided on few" in site.promote("m2", "tuned", code=1)
    assert not [event for event in site.events()[before:] if event["act"].startswith("alias.")]
    assert site.who("m0") == "m0"


def test_a_verdict_is_for_these_very_bytes_and_this_task(site):
    """Another digest under the same name, or another task's verdict, is none."""
    task(site.home, "moved", "m3")
    assert certified(site.home, "moved", "tuned", "sha256:" + "0" * 64, 200) == "non-inferior"
    assert "never certified on moved" in site.promote("m3", "tuned", code=1)
    task(site.home, "first", "m4")
    assert certified(site.home, "first", "tuned", site.digests["tuned"], 200) == "non-inferior"
    task(site.home, "second", "m4", calls=210)
    assert "never certified on second" in site.promote("m4", "tuned", code=1)
    assert "never certified on first" in site.promote("m4", "tiny", "--task", "first", code=1)
    site.promote("m4", "tuned", "--task", "first")
    assert site.who("m4") == "tuned"
    assert "There is no task nothing" in site.promote("m4", "tuned", "--task", "nothing", code=2)


def test_a_verdict_that_no_longer_holds_is_none(site):
    """Calls were erased since: what was laid down is not what is there."""
    task(site.home, "erased", "m5")
    assert certified(site.home, "erased", "tuned", site.digests["tuned"], 200) == "non-inferior"
    with parts(site.home) as opened:
        assert opened.samples.erase("erased", before=1.0) == 1
    assert "The certification calls are not those of" in site.promote("m5", "tuned", code=1)


def test_anyway_takes_a_reason_and_keeps_it(site):
    """In the audit chain, with what was lacking; an empty one is none."""
    assert "needs a reason" in site.promote("m6", "tuned", "--anyway", " ", code=2)
    assert "Anyway: the contract ends today" in site.promote("m6", "tuned", "--anyway", "the contract ends today")
    assert site.who("m6") == "tuned"
    event = site.events()[-1]
    assert (event["act"], event["subject"]) == ("alias.promoted", "m6")
    assert event["detail"]["anyway"] == "the contract ends today" and event["detail"]["verdicts"] == []
    assert event["detail"]["lacking"].startswith("No task has the alias 'm6'")


def test_what_cannot_be_said_is_a_sentence(site):
    """Exit code 2."""
    assert "no model 'nothing'" in site.promote("m7", "nothing", "--anyway", "x", code=2)
    assert "a model of this house" in site.promote("tiny", "tuned", "--anyway", "x", code=2)
    assert "What shall 'm7' point at?" in site.promote("m7", code=2)
    assert "cannot be an alias" in site.promote("a name", "tuned", "--anyway", "x", code=2)
    for words in (("--share", "0%"), ("--share", "150%"), ("--share", "x"), ("--tolerance", "2")):
        assert "usage" in site.promote("m7", "tuned", *words, code=2)
    assert "no alias 'nobody'" in site.rollback("nobody", code=2)


def verdict(outcome: Outlook, digest: str = "sha256:x", engine: str = "e", name: str = "t") -> Verdict:
    candidate = Candidate("m", digest, {}, engine, f"sha256:{engine}")
    numbers = (9, 9, 1.0, 1.0, 0, 0, 0.0, None, None, None, 9, 1, 1, 0)
    return Verdict(name, candidate, outcome, "", 0.05, 0.0, "", "", *numbers, "sha256:s")


def stands(*verdicts: Verdict, base: str = "", tasks: tuple[str, ...] = ("t",), **other: str) -> Standing:
    manifest = Manifest("m", "sha256:x", 1, "gguf", "", False, base=base)
    found = {"t": verdicts} | other
    return standing("gpt", Target("m", "sha256:x"), manifest, [Task(one, {}, 0.05) for one in tasks], found)


def test_of_several_verdicts_on_the_same_bytes_one_must_be_good_and_none_bad():
    """Other settings are other candidates of the same digest."""
    good, bad, open_ = (verdict(outcome) for outcome in (Outlook.NON_INFERIOR, Outlook.INFERIOR, Outlook.UNDECIDED))
    assert stands(good).may and stands(open_, good).may
    assert not stands(good, bad).may and not stands(open_).may and not stands().may
    assert len(stands(good, open_).ground) == 2


def test_an_adapters_verdict_is_for_the_adapter_on_its_base():
    """The same adapter on another base is another candidate; the engine's words name the base."""
    on_base = verdict(Outlook.NON_INFERIOR, engine="llamacpp 1, base sha256:b")
    assert stands(on_base, base="sha256:b").may
    assert not stands(on_base, base="sha256:other").may


def test_every_task_of_the_alias_has_a_say():
    """One without a verdict, or without a good one, is enough for a no; the least margin is the tolerance."""
    good = verdict(Outlook.NON_INFERIOR)
    assert not stands(good, tasks=("t", "u")).may
    no = stands(good, tasks=("t", "u"), u="the scorer was changed.")
    assert not no.may and "no verdict on u: the scorer was changed." in no.why
    assert stands(good).margin == 0.05 and stands(good).tasks == ("t",)


def test_somebody_elses_model_has_no_verdict_but_may_have_its_own_name_back():
    """What has no digest cannot be certified; the incumbent needs no certificate to be the incumbent."""
    assert standing("gpt", Target("gpt", upstream="far"), None, [], {}).may
    assert not standing("gpt", Target("other", upstream="far"), None, [], {}).may


# where the name stands


def test_a_listing_says_what_points_where(site):
    """Since when, by whom, on what ground, and what was before; for people and for programs, and over the wire."""
    site.promote("m8", "tuned", "--anyway", "a reason")
    site.promote("m8", "tiny", "--anyway", "another")
    told = {alias["alias"]: alias for alias in json.loads(site.promote("--json"))}
    found = told["m8"]
    assert found["target"]["model"] == "tiny" and found["target"]["by"].startswith("command line")
    assert [target["model"] for target in found["before"]] == ["tuned", "m8"] and found["canary"] is None
    assert abs(found["target"]["at"] - time.time()) < 60 and found["target"]["why"] == "anyway: another"
    assert "  alias   m8 -> tiny" in site.cli("status").stdout
    row = next(line for line in site.promote().splitlines() if line.startswith("m8"))
    assert "tiny" in row and "tuned, m8" in row
    status, _, body = get(site, "/admin/aliases", site.key)
    assert status == 200 and json.loads(body)["aliases"] == json.loads(site.promote("--json"))


def test_the_models_that_can_be_called_have_the_aliases_among_them(site):
    """Each name once, in OpenAI's list and in Anthropic's."""
    site.promote("claude-x", "tuned", "--anyway", "x")
    site.promote("m9", "tuned", "--anyway", "x")
    _, _, body = get(site, "/v1/models", site.key)
    owners = {}
    for row in json.loads(body)["data"]:
        assert row["id"] not in owners
        owners[row["id"]] = row["owned_by"]
    assert owners["claude-x"] == "you" and owners["m9"] == "you" and owners["m19"] == "far"
    assert json.loads(get(site, "/v1/models/claude-x", site.key)[2])["id"] == "claude-x"
    site.rollback("m9")
    assert json.loads(get(site, "/v1/models/m9", site.key)[2])["owned_by"] == "far"


def test_every_surface_takes_the_alias(site):
    """OpenAI's and Anthropic's, streamed and not; the ledger has the name that was sent and the model's own."""
    site.promote("every", "tuned", "--anyway", "x")
    bodies = {
        CHAT: chat("hi"), "/v1/completions": {"prompt": "hi"}, "/v1/responses": {"input": "hi"},
        "/v1/embeddings": {"input": "hi"}, "/v1/messages": chat("hi", max_tokens=5),
        "/v1/messages/count_tokens": chat("hi"),
    }  # fmt: skip
    for path, body in bodies.items():
        for stream in (False, True) if path not in ("/v1/embeddings", "/v1/messages/count_tokens") else (False,):
            sent = body | {"model": "every"} | ({"stream": True} if stream else {})
            status, headers, _ = ask(site, path, sent)
            assert (status, headers["x-freehold-model"].partition("@")[0]) == (200, "tuned"), path
            call = site.calls(1)[0]
            assert (call["alias"], call["model"]) == ("every", "tuned")
    assert ask(site, CHAT, chat("hi", frobnicate=1) | {"model": "every"})[0] == 400
    call = site.calls(1)[0]
    assert (call["outcome"], call["alias"]) == ("refused", "every")
    head, *rows = site.do("ledger", "--limit", "5").splitlines()
    row = next(line for line in rows if "answered" in line)
    assert [row[head.index(column) :].split()[0] for column in ("ALIAS", "MODEL")] == ["every", "tuned"]


def test_an_upstream_hears_its_own_name_for_the_model_behind_an_alias(site):
    """And every field as it was sent; a vault's model is held to the fields that it knows."""
    odd = chat("hi", frobnicate=[1.50]) | {"model": "m10"}
    assert ask(site, CHAT, odd)[0] == 200
    site.promote("m10", "tuned", "--anyway", "x")
    assert ask(site, CHAT, odd)[0] == 400
    site.promote("m10", "m10")
    assert ask(site, CHAT, odd)[0] == 200
    sent = json.loads(site.far.got[-1]["body"])
    assert sent["model"] == "there" and sent["frobnicate"] == [1.5]
    site.promote("elsewhere", "m11", "--anyway", "x")
    assert site.who("elsewhere") == "m11"
    call = site.calls(1)[0]
    assert (call["alias"], call["model"], call["left_the_house"]) == ("elsewhere", "m11", 1)


def test_a_model_that_answers_under_an_alias_stays(site, tmp_path):
    """It is neither removed nor exchanged, and no model comes in under an alias' name."""
    site.promote("kept", "tuned", "--anyway", "x")
    site.promote("kept2", "tiny", "--anyway", "x")
    site.promote("kept2", "tuned", "--share", "10%", "--anyway", "x")
    said = site.do("models", "remove", "tuned", code=2)
    assert "answers the calls to" in said and "kept2" in said
    (tmp_path / "other.gguf").write_bytes(gguf(tensors=5))
    other = f"file:{tmp_path / 'other.gguf'}"
    assert "points at 'tuned'" in site.do("models", "add", other, "--name", "tuned", "--replace", code=2)
    assert "is an alias" in site.do("models", "add", other, "--name", "kept", code=2)
    assert "kept" not in site.digests
    same = f"file:{site.home.parent / 'tuned.gguf'}"
    site.do("models", "add", same, "--replace")  # the very same bytes may come again


def test_without_a_server_names_move_just_the_same(tmp_path):
    """The next start finds them there."""
    with site_in(tmp_path) as server:
        home = server.home
    done = cli("promote", GPT, "tuned", "--anyway", "x", home=home)
    assert done.returncode == 0, done.stderr
    assert cli("promote", GPT, "tiny", "--anyway", "x", home=home).returncode == 0
    assert cli("rollback", GPT, home=home).returncode == 0
    second = Site(home, "--engine", "fake")
    second.key = server.key
    try:
        assert second.who(GPT) == "tuned"
    finally:
        second.stop()


def test_an_alias_moves_between_adapters_of_one_base(tmp_path):
    """And a canary tries one beside another, in one engine: whoever the header names has said the answer, and only an
    engine that has to learn of a new adapter makes a call wait."""
    base = tmp_path / "base.gguf"
    base.write_bytes(lora.model())
    files = [lora.write(tmp_path / f"{name}.gguf", lora.quiet(seed)) for seed, name in enumerate(("one", "two"))]
    server = Site(tmp_path / "home", "--engine", "fake", "--model", str(base), env={"FREEHOLD_TRUST_LICENCES": ALL})
    try:
        for file in files:
            server.do("models", "add", f"file:{file}", "--base", "base")
        assert server.digests.keys() == {"base", "base+one@1", "base+two@1"}
        words = {name: digest.removeprefix("sha256:") for name, digest in server.digests.items()} | {"base": "word"}
        server.promote("job", "base", "--anyway", "x")
        seen = set()
        for model, share in (("base+one@1", ()), ("base+two@1", ("--share", "50%")), ("base+two@1", ())):
            server.promote("job", model, "--anyway", "x", *share)
            for number in range(12):
                status, headers, body = ask(server, CHAT, chat("hi") | {"model": "job", "user": str(number)})
                name = headers["x-freehold-model"].partition("@sha256:")[0]
                said = json.loads(body)["choices"][0]["message"]["content"].split()
                assert status == 200 and set(said) == {words[name]}, (name, said)
                seen.add((model, share, name))
        assert {name for model, share, name in seen if share} == {"base+one@1", "base+two@1"}
        assert [name for model, share, name in sorted(seen) if not share] == ["base+one@1", "base+two@1"]
        call = server.calls(1)[0]
        assert (call["alias"], call["model"]) == ("job", "base+two@1")
        assert "base+two@1" in server.do("models", "remove", "base+two@1", code=2)
        assert server.rollback("job") and server.who("job").startswith("base+one")
    finally:
        server.stop()


def test_operators_may_move_a_name_back_over_the_wire_and_others_may_not(site):
    """Auditors may look, members neither; a body that says something else is refused."""
    site.promote("wire", "tiny", "--anyway", "x")
    site.promote("wire", "tuned", "--anyway", "x")
    keys = {role: site.new_key(f"{role} of wire", role) for role in ("operator", "member", "auditor")}
    back = {"alias": "wire", "act": "rollback"}
    assert [ask(site, "/admin/aliases", back, keys[role])[0] for role in ("member", "auditor")] == [403, 403]
    assert [get(site, "/admin/aliases", keys[role])[0] for role in keys] == [200, 403, 200]
    for wrong in (
        {"alias": "wire"},
        {"alias": "wire", "act": "promote"},
        back | {"more": 1},
        [],
        {"alias": 7, "act": 0},
    ):
        assert ask(site, "/admin/aliases", wrong, keys["operator"])[0] == 400
    status, _, body = ask(site, "/admin/aliases", back, keys["operator"])
    assert status == 200 and json.loads(body)["now"]["model"] == "tiny" and site.who("wire") == "tiny"
    begun = json.loads(site.promote("wire", "tuned", "--share", "10%", "--anyway", "x", "--json"))["canary"]
    ended = json.loads(ask(site, "/admin/aliases", back, keys["operator"])[2])["ended"]
    assert begun["id"] == ended["id"] and "salt" not in {**begun, **ended}  # who is in it is nobody's business
    status, _, body = ask(site, "/admin/aliases", back, keys["operator"])
    assert status == 409 and "nothing before tiny" in json.loads(body)["error"]["message"]
    assert site.events()[-1]["actor"] == site.key_id("operator of wire")
    assert ask(site, "/admin/aliases", back, "fh_wrong")[0] == 401


# a canary


def rolled_back(site: Site, alias: str) -> dict:
    """The event with which the gateway took a canary back, as soon as there is one."""
    return until(lambda: next((one for one in site.events(alias) if one["act"] == "alias.rolled-back"), None))


def test_a_canary_keeps_each_conversation_where_it_is(site):
    """By the user that the application names, or by how the conversation began; its later turns go the same way."""
    site.promote("m12", "tuned", "--share", "50%", "--anyway", "x")
    sides = {user: site.who("m12", user=user) for user in map(str, range(40))}
    assert set(sides.values()) == {"m12", "tuned"}
    assert all(site.who("m12", f"again {user}", user=user) == side for user, side in sides.items())
    begun = {text: site.who("m12", text) for text in (f"question {number}" for number in range(20))}
    for text, side in begun.items():
        turns = [
            {"role": "user", "content": text},
            {"role": "assistant", "content": "so"},
            {"role": "user", "content": "and?"},
        ]
        assert ask(site, CHAT, {"model": "m12", "messages": turns})[1]["x-freehold-model"].startswith(f"{side}@")
    site.promote("m12", "tuned", "--share", "0.8", "--anyway", "x")
    assert all(site.who("m12", user=user) == "tuned" for user, side in sides.items() if side == "tuned")
    shown = site.promote()
    assert "m12: a canary of tuned at 80% of the conversations" in shown and "calls, 0 went wrong" in shown
    site.rollback("m12")
    assert {site.who("m12", user=user) for user in sides} == {"m12"}


def test_a_candidate_that_fails_is_rolled_back_while_the_server_runs(site):
    """By the gateway itself, within seconds; the listing showed the test while it ran."""
    site.promote("m13", "tuned", "--share", "50%", "--anyway", "x")
    order = json.dumps({"status": 500})  # which the engine of this house obeys, and the upstream does not
    seen = [ask(site, CHAT, chat(order) | {"model": "m13", "user": str(number)})[0] for number in range(60)]
    assert {200, 502} == set(seen)
    event = rolled_back(site, "m13")
    assert {site.who("m13", user=str(number)) for number in range(60)} == {"m13"}
    assert event["actor"] == "canary" and event["detail"]["ended"] == "shown worse"
    assert event["detail"]["candidate"]["went_wrong"] == event["detail"]["candidate"]["calls"] > 5
    assert event["detail"]["incumbent"]["went_wrong"] == 0 < event["detail"]["incumbent"]["calls"] <= seen.count(200)
    assert "The canary of tuned for 'm13' is rolled back" in site.output()
    assert "m13: the last canary, of tuned, was shown worse on" in site.promote()


def test_a_task_with_a_rule_holds_the_canarys_answers_to_it(site):
    """JSON that keeps a schema from the one side, words from the other: nothing failed, and yet it is taken back."""
    task(site.home, "ruled", "m14", scorer='kind = "json"\nschema = { type = "object", required = ["a"] }')
    site.promote("m14", "tuned", "--share", "50%", "--anyway", "x")
    reply = {"id": "x", "object": "chat.completion", "created": 1, "model": "there", "usage": {}, "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": '{"a": 1}'}}]}  # fmt: skip
    site.far.order(*[{"body": json.dumps(reply).encode()}] * 60)
    for number in range(60):
        assert ask(site, CHAT, chat("hi") | {"model": "m14", "user": str(number)})[0] == 200
    event = rolled_back(site, "m14")
    arms = event["detail"]["candidate"], event["detail"]["incumbent"]
    assert arms[0]["went_wrong"] == arms[0]["calls"] > 5 and arms[1]["went_wrong"] == 0
    site.far.orders.clear()


def test_an_application_may_complain_of_its_own_calls(site):
    """By the id of the answer; anybody else's call, and one in no canary, is not found."""
    site.promote("m15", "tuned", "--share", "50%", "--anyway", "x")
    mine = site.new_key("app of m15")
    _, headers, _ = ask(site, CHAT, chat("hi") | {"model": "m15"}, mine)
    said = {"call": headers["x-request-id"], "good": False}
    assert ask(site, "/admin/feedback", said)[0] == 404
    status, _, body = ask(site, "/admin/feedback", said, mine)
    assert status == 200 and json.loads(body) == said
    for wrong in ({"call": "x"}, {"call": "", "good": True}, said | {"good": 1}, said | {"text": "bad"}):
        assert ask(site, "/admin/feedback", wrong, mine)[0] == 400
    _, headers, _ = ask(site, CHAT, chat("hi"), mine)
    assert ask(site, "/admin/feedback", {"call": headers["x-request-id"], "good": True}, mine)[0] == 404
    assert get(site, "/admin/feedback", mine)[0] == 405
    auditor = site.new_key("auditor of m15", "auditor")
    assert ask(site, "/admin/feedback", said, auditor)[0] == 403

    def complaints() -> int:
        canary = next(alias for alias in json.loads(site.promote("--json")) if alias["alias"] == "m15")["canary"]
        return canary["incumbent"]["complaints"] + canary["candidate"]["complaints"]

    until(lambda: complaints() == 1)


def test_a_canarys_answers_are_no_traffic_and_the_rest_is(site):
    """What is recorded for the task under its alias is the incumbent's."""
    path = site.home.parent / "recorded.toml"
    path.write_text(TASK.format(name="recorded", alias="m16", scorer='kind = "exact"') + "[capture]\non = true\n")
    with parts(site.home) as opened:
        opened.tasks.add(path)
    until(lambda: "m16" in json.loads(get(site, "/admin/status", site.key)[2])["capture"]["aliases"])
    site.promote("m16", "tuned", "--share", "50%", "--anyway", "x")
    sides = {str(number): site.who("m16", f"number {number}", user=str(number)) for number in range(20)}

    def recorded() -> set[str]:
        with parts(site.home) as opened:
            found = opened.samples.splits(opened.tasks.get("recorded"))
            return {sample.incumbent for sample in opened.samples.get("recorded", list(found)).values()}

    kept = list(sides.values()).count("m16")
    until(lambda: json.loads(get(site, "/admin/status", site.key)[2])["capture"]["kept"] >= kept)
    assert recorded() == {"m16"}


# under load


class Load:
    """Clients that call one alias until they are told to stop; who comes after `forbid` may not reach the candidate."""

    def __init__(self, site: Site, alias: str):
        self._site, self._alias, self._stop, self._lock = site, alias, threading.Event(), threading.Lock()
        self._since = math.inf
        self.faults: list[tuple] = []
        self.counts = {alias: 0, "tuned": 0}
        self._threads = [threading.Thread(target=self._call, args=(random.Random(seed),)) for seed in range(6)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def forbid(self, since: float) -> None:
        with self._lock:
            self._since = since

    def _call(self, rng: random.Random) -> None:
        while not self._stop.is_set():
            began, since = time.monotonic(), self._since
            script = json.dumps({"tokens": 3, "each_ms": rng.choice((0, 0, 5))})
            body = chat(script) | {"model": self._alias, "user": str(rng.random()), "stream": rng.random() < 0.3}
            status, headers, content = ask(self._site, CHAT, body)
            who = headers.get("x-freehold-model", "").partition("@")[0]
            with self._lock:
                if status != 200 or who not in self.counts:
                    self.faults.append((status, who, content[:200]))
                elif who == "tuned" and since == self._since < began:
                    self.faults.append(("after the rollback", began - since))
                self.counts[who] = self.counts.get(who, 0) + 1


def test_moves_under_load_lose_no_call_and_none_goes_where_it_may_not(site):
    """Names are promoted, tried in canaries and taken back while calls run: each is answered, by exactly one of the
    two, and none that comes after a rollback by the candidate."""
    with parts(site.home) as opened, Load(site, "m17") as load:
        desk, yes = opened.desk, Standing(True, "for the test")
        target = desk.target("tuned")
        for turn in range(12):
            load.forbid(math.inf)
            for share in ((None,), (0.3, 0.6), (0.5, None))[turn % 3]:
                promote.promote(desk, "m17", target, yes, by="test", share=share)
                time.sleep(0.15)
            promote.rollback(desk, "m17", by="test")
            load.forbid(time.monotonic())
            time.sleep(0.15)
    assert load.faults == []
    assert load.counts.keys() == {"m17", "tuned"} and min(load.counts.values()) > 20, load.counts
    calls = [call for call in site.calls(100_000) if call["alias"] == "m17"]
    assert {call["outcome"] for call in calls} == {"answered"}
    assert [event["act"] for event in site.events("m17") if event["actor"] == "canary"] == []


def test_calls_under_way_end_where_they_are(site):
    """A stream that began at the candidate ends there, though the name was taken back meanwhile."""
    site.promote("m18", "tuned", "--anyway", "x")
    body = chat(json.dumps({"tokens": 60, "each_ms": 100})) | {"model": "m18", "stream": True}
    answers: list[tuple[int, dict, bytes]] = []
    thread = threading.Thread(target=lambda: answers.append(ask(site, CHAT, body)))
    thread.start()
    time.sleep(0.5)
    site.rollback("m18")
    assert thread.is_alive() and site.who("m18") == "m18"
    thread.join()
    status, headers, content = answers[0]
    assert status == 200 and headers["x-freehold-model"].startswith("tuned@") and content.endswith(b"data: [DONE]\n\n")
    assert content.count(b"word ") == 60
