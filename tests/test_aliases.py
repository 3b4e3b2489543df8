"""Aliases: what a name means, who is in a canary, and that nobody moves one unseen."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import threading

import msgspec
import pytest

from freehold import identity, promote, route
from freehold.aliases import Aliases, Overtaken, check_name, new_salt
from freehold.errors import BadModel, CannotDo, ModelNotFound, Unaccountable
from freehold.ledger import Ledger
from freehold.promote import Desk, Standing
from freehold.store import Store
from freehold.types import Alias, Canary, Kind, Manifest, Target

YES, NO = Standing(True, "it is good"), Standing(False, "it is not")
MODELS = {name: Manifest(name, f"sha256:{name}", 1, "gguf", "file:x", False) for name in ("a", "b", "c")}


class Bed:
    """A home's aliases, with models that can be taken away."""

    def __init__(self, folder):
        self.store = Store(folder / "x.db")
        self.ledger, self.aliases = Ledger(self.store), Aliases(self.store)
        self.models = dict(MODELS)
        self.desk = Desk(self.aliases, self.ledger, lambda: self.models, {"gpt": "far", "other": "far"})

    def promote(self, alias: str, model: str, standing: Standing = YES, **options) -> promote.Moved:
        return promote.promote(self.desk, alias, self.desk.target(model), standing, by="me", **options)

    def back(self, alias: str) -> promote.Moved:
        return promote.rollback(self.desk, alias, by="me")

    def at(self, alias: str) -> str:
        """What answers now, as the gateway has it."""
        return self.aliases.now()[alias].target.model

    def acts(self) -> list[tuple[str, str]]:
        return [(event.act, event.subject) for event in self.ledger.events()]

    def close(self) -> None:
        self.aliases.close()
        self.store.close()


def sql(bed: Bed, *statements: str) -> None:
    """Past Freehold, into the database."""
    with contextlib.closing(sqlite3.connect(bed.store.url.database)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture
def bed(tmp_path):
    made = Bed(tmp_path)
    yield made
    made.close()


# there and back


def test_a_name_goes_forward_and_back_step_by_step(bed):
    """First to what the name stood for at the upstream, and no further; each move is an event."""
    assert bed.aliases.now() == {}
    assert bed.promote("gpt", "a").before.upstream == "far"
    bed.promote("gpt", "b")
    assert [bed.at("gpt"), bed.back("gpt").now.model, bed.at("gpt")] == ["b", "a", "a"]
    bed.promote("gpt", "c")
    assert [bed.back("gpt").now.model, bed.back("gpt").now.model] == ["a", "gpt"]
    assert bed.aliases.now()["gpt"].target.upstream == "far"
    with pytest.raises(CannotDo, match="nothing before gpt"):
        bed.back("gpt")
    assert [act for act, _ in bed.acts()] == [
        "alias.promoted", "alias.promoted", "alias.rolled-back", "alias.promoted", "alias.rolled-back",
        "alias.rolled-back",
    ]  # fmt: skip
    kept = bed.aliases.targets("gpt")
    assert [(target.model, target.left_by) for target in kept] == [("gpt", ""), ("a", "me"), ("b", "me"), ("c", "me")]
    assert bed.ledger.verify().holds


def test_a_name_that_nobody_had_cannot_go_back_behind_its_first_target(bed):
    """And a name without an alias cannot go back at all."""
    bed.promote("new", "a")
    with pytest.raises(CannotDo, match="nothing before a"):
        bed.back("new")
    with pytest.raises(CannotDo, match="no alias 'old'"):
        bed.back("old")


def test_to_point_a_name_where_it_points_is_no_move(bed):
    """No event, and no further step to go back."""
    bed.promote("gpt", "a")
    assert bed.promote("gpt", "a").act == "" and len(bed.acts()) == 1
    assert bed.promote("other", "other").act == "" and bed.aliases.get("other") is None
    assert bed.back("gpt").now.model == "gpt"


def test_a_rollback_passes_over_models_that_are_gone(bed):
    """And says which; where nothing is left it refuses, and the alias stays."""
    for model in ("a", "b", "c"):
        bed.promote("gpt", model)
    del bed.models["b"]
    bed.models["a"] = msgspec.structs.replace(MODELS["a"], digest="sha256:another")
    moved = bed.back("gpt")
    assert (moved.now.model, [target.model for target in moved.skipped]) == ("gpt", ["b", "a"])
    bed.promote("new", "c")
    del bed.models["c"]
    with pytest.raises(CannotDo, match="nothing before c"):
        bed.back("new")
    assert bed.at("new") == "c"


def test_without_a_standing_it_takes_a_reason(bed):
    """The reason and what was lacking are in the chain; without one nothing happens."""
    with pytest.raises(CannotDo, match="it is not"):
        bed.promote("gpt", "a", NO)
    assert bed.acts() == []
    bed.promote("gpt", "a", NO, anyway="the old one is switched off")
    (event,) = bed.ledger.events()
    assert event.detail["anyway"] == "the old one is switched off" and event.detail["digest"] == "sha256:a"
    assert event.detail["from"] == {"model": "gpt", "digest": "", "upstream": "far"}
    assert bed.aliases.now()["gpt"].target.why == "anyway: the old one is switched off"


def test_an_alias_hides_no_model_of_the_vault_and_points_at_no_other_thing(bed):
    """Nor is it a name that no application could send."""
    with pytest.raises(CannotDo, match="a model of this house"):
        bed.promote("b", "a")
    with pytest.raises(BadModel, match="no model 'z'"):
        bed.promote("gpt", "z")
    for name in ("", "a b", "x" * 201, "a\n", "ä"):
        with pytest.raises(CannotDo, match="cannot be an alias"):
            check_name(name)
    assert bed.acts() == []


def test_neither_move_nor_event_stands_alone(bed):
    """Where the event cannot be written, the alias stays; and the other way round."""
    bed.promote("gpt", "a")
    sql(bed, "CREATE TRIGGER t BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'full'); END")
    for move in (lambda: bed.promote("gpt", "b"), lambda: bed.back("gpt"), lambda: bed.promote("gpt", "b", share=0.1)):
        with pytest.raises(Unaccountable):
            move()
    sql(bed, "DROP TRIGGER t", "CREATE TRIGGER t BEFORE INSERT ON targets BEGIN SELECT RAISE(ABORT, 'full'); END")
    with pytest.raises(Unaccountable):
        bed.promote("gpt", "b")
    assert bed.at("gpt") == "a" and len(bed.acts()) == 1 and bed.aliases.get("gpt").canary is None


def test_a_move_that_somebody_else_has_overtaken_is_looked_at_anew(bed, monkeypatch):
    """The second look sees the other's move. One that is overtaken each time says so, and changes nothing."""
    bed.promote("gpt", "a")
    real, other = bed.aliases.get, Aliases(bed.store)
    desk = msgspec.structs.replace(bed.desk, aliases=other)
    moves = iter(["b"])

    def meanwhile(name: str) -> Alias | None:
        seen = real(name)
        for model in moves:
            promote.promote(desk, "gpt", desk.target(model), YES, by="somebody else")
        return seen

    monkeypatch.setattr(bed.aliases, "get", meanwhile)
    assert bed.back("gpt").before.model == "b"
    assert bed.at("gpt") == "a"
    always = lambda name: [real(name), next_moves()][0]  # noqa: E731
    models = iter("cb" * 10)
    next_moves = lambda: promote.promote(desk, "gpt", desk.target(next(models)), YES, by="else")  # noqa: E731
    monkeypatch.setattr(bed.aliases, "get", always)
    with pytest.raises(Overtaken, match="by somebody else"):
        bed.back("gpt")
    assert bed.ledger.verify().holds
    other.close()


def test_moves_from_all_sides_at_once_leave_one_history(bed):
    """Four threads move one alias: every event has its move, and the numbers add up."""
    bed.promote("gpt", "a")
    done: list[str] = []

    def move(seed: int) -> None:
        rng, aliases = random.Random(seed), Aliases(bed.store)
        desk = msgspec.structs.replace(bed.desk, aliases=aliases)
        for _ in range(10):
            try:
                if rng.random() < 0.5:
                    moved = promote.promote(desk, "gpt", desk.target(rng.choice("abc")), YES, by="t")
                else:
                    moved = promote.rollback(desk, "gpt", by="t")
                done.extend([moved.act] if moved.act else [])
            except CannotDo:
                continue
        aliases.close()

    threads = [threading.Thread(target=move, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    acts = [act for act, _ in bed.acts()][1:]
    assert sorted(acts) == sorted(done) and bed.ledger.verify().holds
    kept = bed.aliases.targets("gpt")
    assert len(kept) == 2 + acts.count("alias.promoted")  # the upstream's, and the first promotion's
    assert bed.aliases.get("gpt").moves == 1 + len(acts)
    assert bed.aliases.get("gpt").target == [target for target in kept if target.left_at is None][-1]


# what the gateway remembers


def test_a_change_is_seen_at_once_by_whoever_remembers(bed, tmp_path):
    """From another process' store; and as long as nothing changes, the database is not asked."""
    gateway = Aliases(Store(tmp_path / "x.db"))
    assert gateway.now() == {}
    for model in ("a", "b", "a", "c"):
        bed.promote("gpt", model)
        assert gateway.now()["gpt"].target.model == model
    known = gateway.now()
    assert gateway.now() is known
    bed.back("gpt")
    assert gateway.now()["gpt"].target.model == "a"
    gateway.close()


def test_where_the_database_does_not_answer_nobody_guesses(bed, monkeypatch):
    """Unaccountable, and again right when it answers again."""
    bed.promote("gpt", "a")
    assert bed.at("gpt") == "a"
    bed.aliases.tell()
    bed.aliases.close()
    sql(bed, "ALTER TABLE targets RENAME TO elsewhere")
    with pytest.raises(Unaccountable, match="aliases cannot be looked up"):
        bed.aliases.now()
    sql(bed, "ALTER TABLE elsewhere RENAME TO targets")
    assert bed.at("gpt") == "a"


# what a name means


def aim(alias: Alias | None, name: object = "gpt", who: bytes = b"w", models=None, upstreams=None):
    known = {alias.name: alias} if alias else {}
    there = MODELS if models is None else models
    return route.aim(name, lambda: who, known, lambda: there, {"gpt": "far"} if upstreams is None else upstreams)


def test_a_name_means_the_vaults_model_then_the_alias_then_the_upstreams():
    """In this order; and what is no text at all is for the surface to refuse."""
    there = MODELS | {"gpt": Manifest("gpt", "", 0, "remote", "https://x", False)}
    alias = Alias("gpt", Target("a", "sha256:a"), 1)
    assert aim(None, models=there).model == "gpt"
    found = aim(alias, models=there)
    assert (found.model, found.alias, found.canary) == ("a", "gpt", "")
    assert aim(Alias("b", Target("a", "sha256:a"), 1), "b").model == "b"  # which was added after the alias
    assert aim(None, 7).model == "" and aim(None, ["gpt"]).model == ""


@pytest.mark.parametrize(
    "target",
    [
        Target("z", "sha256:z"),
        Target("a", "sha256:old"),
        Target("gone", upstream="far"),
        Target("gpt", upstream="near"),
    ],
)
def test_an_alias_whose_target_is_gone_or_another_is_an_error_that_names_it(target):
    """Never somebody else's answer: other bytes under the same name are another model."""
    there = MODELS | {"gpt": Manifest("gpt", "", 0, "remote", "https://x", False)}
    with pytest.raises(ModelNotFound, match="'gpt' points at") as caught:
        aim(Alias("gpt", target, 1), models=there)
    assert "freehold rollback gpt" in caught.value.sentence()


# who is in a canary


def canary(share: float, salt: str = "s") -> Alias:
    target = Target("b", "sha256:b")
    return Alias("gpt", Target("a", "sha256:a"), 1, Canary("canary_1", "gpt", target, share, salt, 0.03, 0.025, 0.0))


def test_a_share_of_the_conversations_is_that_share_and_the_same_ones_each_time():
    """Of 20,000, to a point; another salt draws others, and knows nothing of the first draw."""
    who = [f"conversation {number}".encode() for number in range(20_000)]
    for share in (0.01, 0.1, 0.5, 0.99):
        first = [aim(canary(share), who=one).candidate for one in who]
        assert abs(sum(first) / len(who) - share) < 0.01
        assert first == [aim(canary(share), who=one).candidate for one in who]
    first, second = ([aim(canary(0.3, salt), who=one).candidate for one in who] for salt in (new_salt(), new_salt()))
    both = sum(one and other for one, other in zip(first, second, strict=True)) / len(who)
    assert abs(both - 0.09) < 0.01


def test_whoever_had_the_candidate_keeps_it_when_the_share_grows():
    """At every step."""
    for number in range(2_000):
        sides = [aim(canary(share), who=str(number).encode()).candidate for share in (0.01, 0.1, 0.25, 0.5, 0.9)]
        assert sides == sorted(sides)


def test_a_conversation_is_known_by_the_name_that_the_application_gives_it():
    """The first there is, for any key of the application; an empty one is none."""
    names = [
        {"user": "u"},
        {"metadata": {"conversation_id": "c"}},
        {"safety_identifier": "s"},
        {"prompt_cache_key": "p"},
    ]
    for place, named in enumerate(names):
        later = {key: value for more in names[place:] for key, value in more.items()}
        body = {"messages": [{"role": "user", "content": "x"}]}
        assert identity.of("one", Kind.CHAT, body | later) == identity.of("other", Kind.CHAT, later | {"messages": []})
        assert identity.of("one", Kind.CHAT, body | named) != identity.of("one", Kind.CHAT, body)
    empty = {"user": "", "metadata": {"conversation_id": None}, "safety_identifier": []}
    assert identity.of("k", Kind.CHAT, body | empty) == identity.of("k", Kind.CHAT, body)
    message = body | {"metadata": {"user_id": "u", "conversation_id": "c"}, "user": "x"}
    assert identity.of("k", Kind.MESSAGE, message) == identity.of("k", Kind.MESSAGE, {"metadata": {"user_id": "u"}})


def test_without_a_name_a_conversation_is_known_by_its_key_and_how_it_began():
    """Later turns change nothing, in whichever form they are written; another beginning or key does."""
    begun = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}]
    later = [begun[0], {"role": "user", "content": [{"type": "text", "text": "hello"}]},
             {"role": "assistant", "content": "hi"}, {"role": "user", "content": "more"}]  # fmt: skip
    first = identity.of("k", Kind.CHAT, {"messages": begun})
    assert first == identity.of("k", Kind.CHAT, {"messages": later, "temperature": 1})
    assert first != identity.of("other", Kind.CHAT, {"messages": begun})
    assert first != identity.of("k", Kind.CHAT, {"messages": [begun[0], {"role": "user", "content": "bye"}]})
    odd = [
        {},
        {"messages": None},
        {"messages": [7, None]},
        {"input": ["a", "b"]},
        {"user": {"a": 1}},
        {"metadata": "x"},
    ]
    assert len({identity.of("k", Kind.CHAT, body) for body in odd}) >= 4


def test_one_canary_at_a_time_with_one_tolerance(bed):
    """Its share may change; another candidate, another tolerance or nothing beside it is refused."""
    begun = bed.promote("gpt", "a", share=0.1)
    assert (begun.act, begun.now.upstream, begun.canary.share) == ("alias.canary", "far", 0.1)
    assert bed.promote("gpt", "a", share=0.1).act == ""
    assert bed.promote("gpt", "a", share=0.25).canary.id == begun.canary.id
    assert bed.aliases.now()["gpt"].canary.share == 0.25 and bed.at("gpt") == "gpt"
    for refused in (
        lambda: bed.promote("gpt", "b", share=0.1),
        lambda: bed.promote("gpt", "b"),
        lambda: bed.promote("gpt", "a", share=0.3, tolerance=0.2),
        lambda: bed.promote("new", "a", share=0.1),
        lambda: bed.promote("other", "other", share=0.1),
        lambda: bed.promote("gpt", "a", share=0.0),
    ):
        with pytest.raises(CannotDo):
            refused()
    assert len(bed.acts()) == 2
    assert begun.canary.salt not in str([event.detail for event in bed.ledger.events()])


@pytest.mark.parametrize("share", [None, 1.0])
def test_a_canary_is_completed_or_ended(bed, share):
    """Completed, the candidate has every call; and a rollback then goes to what was before."""
    bed.promote("gpt", "a", share=0.5)
    done = bed.promote("gpt", "a", share=share)
    assert done.act == "alias.promoted" and done.ended.target.model == "a"
    assert bed.aliases.now()["gpt"].canary is None and bed.at("gpt") == "a"
    bed.promote("gpt", "b", share=0.5)
    ended = bed.back("gpt")
    assert ended.ended.target.model == "b" and bed.at("gpt") == "a" and bed.aliases.now()["gpt"].canary is None
    assert bed.back("gpt").now.model == "gpt"
    assert [trial.canary.ended for trial in bed.aliases.trials("gpt")] == ["promoted", "rolled back"]


def test_the_tolerance_is_the_tasks_margin_unless_another_is_given(bed):
    """And 0 where there is no task."""
    margin = msgspec.structs.replace(YES, margin=0.04)
    assert bed.promote("gpt", "a", margin, share=0.1).canary.tolerance == 0.04
    assert bed.promote("other", "a", YES, share=0.1).canary.tolerance == 0.0
    bed.back("gpt")
    assert bed.promote("gpt", "b", margin, share=0.1, tolerance=0.01).canary.tolerance == 0.01
