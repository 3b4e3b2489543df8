"""How much is used and how much a call may need, in memory: exact, and on the safe side."""

import asyncio
import random
import time
from calendar import timegm
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold import policy
from freehold.budget import DAY, ROOM, Account, Accounts, Need, Pace, month, periods, scarcest, worst
from freehold.errors import Forbidden, Unaccountable
from freehold.limits import KEY, OWNER, TEAM, Spend
from freehold.types import Caller, Kind, Limits, Request, Role, Subject, Used


class Held:
    """As much of a lease as an account knows."""

    def __init__(self, id: str = ""):
        self.id = id


def at(text: str) -> float:
    return float(timegm(time.strptime(text, "%Y-%m-%d %H:%M:%S")))


BOB, DEV = Subject(KEY, "key_bob"), Subject(TEAM, "dev")
BUDGETS = Limits(tokens_per_day=100, tokens_per_month=1000, money_per_day=5.0)


def test_a_pace_lets_a_minutes_worth_through_at_once_and_then_as_time_goes():
    """And what was taken and not needed is there again."""
    pace, now = Pace(), 1000.0
    for _ in range(60):
        assert pace.wait(60, 1, now) == 0
        pace.take(60, 1, now)
    assert pace.wait(60, 1, now) == pytest.approx(1.0)
    assert pace.wait(60, 1, now + 1.0) == 0 and pace.wait(60, 2, now + 1.0) == pytest.approx(1.0)
    pace.give_back(60, 10, pace.take(60, 0, now), now)
    assert pace.wait(60, 10, now) == 0 and pace.wait(60, 11, now) > 0
    assert pace.used("x", 60, now) == Used("x", 60, pytest.approx(50), resets_in=pytest.approx(50))
    assert pace.used("x", 60, now + 999).used == 0


def test_what_came_back_with_time_does_not_come_back_once_more():
    """Calls that end long after they began bank nothing: a minute's worth is all there ever is at once."""
    pace, held = Pace(), []
    for at in (0.0, 60.0, 120.0, 180.0):
        assert pace.wait(60, 60, at) == 0
        held.append(pace.take(60, 60, at))
    for until in held:
        pace.give_back(60, 60, until, 181.0)
    assert pace.wait(60, 60, 181.0) == 0 and pace.wait(60, 61, 181.0) > 0
    pace.take(60, 60, 181.0)
    assert pace.wait(60, 2, 181.0) > 0


@pytest.mark.parametrize(
    ("moment", "day", "month_begins", "month_ends"),
    [
        ("2028-02-29 23:59:59", "2028-02-29", "2028-02-01", "2028-03-01"),
        ("2027-02-01 00:00:00", "2027-02-01", "2027-02-01", "2027-03-01"),
        ("2026-12-31 12:00:00", "2026-12-31", "2026-12-01", "2027-01-01"),
    ],
)
def test_days_and_months_are_those_of_utc(moment, day, month_begins, month_ends):
    """Leap years and the end of a year too."""
    (_, today, tomorrow), (_, begins, ends) = periods(at(moment))
    assert today * DAY == at(f"{day} 00:00:00") and tomorrow == today + 1
    assert begins * DAY == at(f"{month_begins} 00:00:00") == month(at(moment))
    assert ends * DAY == at(f"{month_ends} 00:00:00")


def budgets(account: Account, moment: str) -> dict[str, float]:
    return {used.limit: used.used for used in account.budgets(BUDGETS, at(moment))}


def test_a_new_day_and_a_new_month_begin_with_nothing():
    """Not a second earlier, and what is in hand then is held all the same."""
    account = Account()
    account.count(at("2026-11-30 23:59:59"), 70, 2.0)
    assert budgets(account, "2026-11-30 23:59:59") == {
        "tokens_per_day": 70, "tokens_per_month": 70, "money_per_day": 2.0,
    }  # fmt: skip
    assert budgets(account, "2026-12-01 00:00:00") == {
        "tokens_per_day": 0, "tokens_per_month": 0, "money_per_day": 0,
    }  # fmt: skip
    account.hold(Held(), Need(30, 1.0))
    account.hold(Held())
    found = {used.limit: used for used in account.budgets(BUDGETS, at("2026-12-01 00:00:00"))}
    assert (found["tokens_per_day"].held, found["tokens_per_day"].left) == (30, 70)
    assert found["money_per_day"].resets_in == DAY


def test_a_clock_that_jumps_back_gives_nothing_back():
    """By a minute, over midnight and over the end of the month; when it has come round again, it still counts."""
    account = Account()
    account.count(at("2026-11-30 23:00:00"), 60, 0)
    account.count(at("2026-12-01 00:01:00"), 30, 0)
    assert budgets(account, "2026-11-30 23:59:00")["tokens_per_day"] == 90
    assert budgets(account, "2026-11-30 23:59:00")["tokens_per_month"] == 90
    account.count(at("2026-11-30 23:59:00"), 5, 0)
    assert budgets(account, "2026-12-01 00:00:30")["tokens_per_day"] == 30
    assert budgets(account, "2026-11-02 00:00:00")["tokens_per_day"] == 95


def test_the_scarcest_is_the_one_with_least_left():
    """Of what is held too; none of none."""
    rows = [Used("a", 100, 50), Used("b", 60, 20, 30), Used("c", 1000, 900)]
    assert scarcest(rows).limit == "b" and scarcest([]) is None and Used("d", 5, 9).left == 0


def test_what_fits_is_what_every_limit_has_left():
    """One look at the sums says the same as each limit by itself; what is held is given back to the last billionth."""
    chance = random.Random(11)
    said: Counter[bool] = Counter()
    for _ in range(2_000):
        names = ("tokens_per_minute", "tokens_per_day", "tokens_per_month", "money_per_day", "money_per_month")
        limits = Limits(**{name: chance.randint(1, 200) for name in chance.sample(names, chance.randint(1, 5))})
        account, moment, leases = Account(), at("2026-11-30 12:00:00"), []
        for _ in range(chance.randint(0, 4)):
            account.count(moment - chance.choice((0, DAY, 40 * DAY)), chance.randint(0, 30), chance.random() * 30)
            leases.append(Held())
            account.hold(leases[-1])
            account.hold(leases[-1], Need(chance.randint(0, 30), chance.random() * 30))
        if rate := limits.tokens_per_minute:
            account.tokens.take(rate, chance.randint(0, rate), 5.0)
        need = Need(chance.randint(0, 60), chance.choice((0.0, chance.random() * 60)))
        left = {used.limit: used.left for used in account.budgets(limits, moment)}
        each = [(need.money if name.startswith("money") else need.tokens) <= most + 1e-9 for name, most in left.items()]
        if rate:
            each.append(need.tokens <= rate and not account.tokens.wait(rate, need.tokens, 5.0))
        assert account.fits(limits, need, moment, 5.0) == all(each), (limits, need, left)
        said[all(each)] += 1
        for lease in leases:
            account.let_go(lease)
        assert account.held == Need(0) and not account.in_hand
    assert min(said.values()) > 200


# the accounts


def spend(id: str, when: float, tokens: int, key: str | None = "key_bob", team: str | None = "dev") -> Spend:
    return Spend(id, when, key, team, "tiny", "", False, tokens, 0, 0)


def run(scenario) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_the_books_read_the_month_once_and_count_from_then_on():
    """A call that is in hand while they are read is counted when it is settled, and not twice; others wait together."""

    async def scenario():
        asked = []
        now = time.time()

        def spends(since):
            asked.append(since)
            time.sleep(0.05)
            return [spend("old", now, 40), spend("in hand", now, 7), spend("owner's", now, 3, OWNER, None),
                    spend("nobody's", now, 5, None, None)]  # fmt: skip

        accounts = Accounts(spends, lambda one: one.prompt / 10)
        assert not accounts.counts and not accounts.knows(now, money=False)
        lease = Held(id="in hand")
        accounts.account(BOB).hold(lease)
        accounts.account(BOB).count(now, 999, 0)  # of before: forgotten, since it is read
        learning = [asyncio.create_task(accounts.learn(money=False)) for _ in range(20)]
        learning[0].cancel()  # one that leaves takes nothing from the others
        await asyncio.sleep(0.01)
        assert accounts.counts
        accounts.account(BOB).count(now, 7, 0)  # the one in hand is settled meanwhile
        await asyncio.gather(*learning[1:])
        assert asked == [month(now)] and accounts.knows(now, money=False) and not accounts.knows(now, money=True)
        day = int(now // DAY)
        assert accounts.account(BOB).since(day) == Need(47) and accounts.account(DEV).since(day) == Need(40)
        assert accounts.account(Subject(KEY, OWNER)).since(day) == Need(3)
        accounts.account(BOB).let_go(lease)
        await accounts.learn(money=True)  # money is another look, which finds the tokens again
        assert accounts.account(BOB).since(day) == Need(47, pytest.approx(4.7)) and len(asked) == 2
        assert not accounts.knows(month(now) - 1, money=True)  # a clock that is set back to the month before

    run(scenario)


def test_books_that_cannot_be_read_are_not_believed():
    """Whoever waits is told, and the next call tries again."""

    async def scenario():
        states = [Unaccountable("The ledger is gone."), None]

        def spends(since):
            if error := states.pop(0):
                raise error
            return [spend("old", time.time(), 40)]

        accounts = Accounts(spends)
        found = await asyncio.gather(accounts.learn(money=False), accounts.learn(money=False), return_exceptions=True)
        assert [type(one) for one in found] == [Unaccountable, Unaccountable]
        assert not accounts.knows(time.time(), money=False)
        await accounts.learn(money=False)
        assert accounts.account(BOB).since(0) == Need(40)

    run(scenario)


# the worst


def chat(**body) -> Request:
    return Request(Kind.CHAT, "tiny", {"messages": [{"role": "user", "content": "hi"}]} | body)


def sent(kind: Kind = Kind.CHAT, **body) -> Request:
    return Request(kind, "far", body, sent=msgspec.json.encode(body))


def test_the_worst_is_prompt_and_answer_and_never_more_than_the_context():
    """Of one answer; each further choice may be as long again."""
    size = len(msgspec.json.encode(chat(max_tokens=100).body))
    assert worst(chat(max_tokens=100), 4096).tokens == size + ROOM + 100
    assert worst(chat(), 4096).tokens == 4096 and worst(chat(max_tokens=9999), 4096).tokens == 4096
    assert worst(chat(n=3, max_tokens=100), 4096).completion == 300
    assert worst(chat(n=3), 1000).tokens == 3000
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert worst(chat(tools=tools, max_tokens=1), 4096).prompt >= 2 * ROOM
    embed = Request(Kind.EMBEDDING, "tiny", {"input": ["x" * 9000, "y"]})
    assert worst(embed, 2048).tokens == 4096 and worst(embed, 2048).completion == 0


@given(st.text(max_size=200), st.integers(1, 5000), st.integers(1, 4), st.integers(64, 8192))
def test_the_worst_is_at_least_what_any_tokenizer_could_count(text, longest, choices, context):
    """A token for each byte of the text, and answers to their limit, within the context."""
    found = worst(chat(messages=[{"role": "user", "content": text}], max_tokens=longest, n=choices), context)
    prompt, answer = min(len(text.encode()), context), min(longest, context)
    assert found.prompt >= prompt and found.completion >= answer * choices
    assert found.tokens >= min(prompt + answer, context) + answer * (choices - 1)


def test_to_an_upstream_a_call_says_how_long_its_answer_may_be():
    """Else nobody knows; on each surface in its own field."""
    with pytest.raises(Forbidden, match="nobody knows how many an upstream's answer"):
        worst(sent(messages=[]), 0)
    with pytest.raises(Forbidden, match="upstream"):
        worst(sent(messages=[], max_output_tokens=5), 0)  # which is another surface's
    found = worst(sent(messages=[], max_tokens=5, max_completion_tokens=9, n=2), 0)
    assert found.completion == 18 and found.tokens == found.prompt + 18
    assert worst(sent(Kind.RESPONSE, input="hi", max_output_tokens=7), 0).completion == 7
    assert worst(sent(Kind.EMBEDDING, input="hi"), 0).completion == 0
    assert worst(sent(Kind.COMPLETION, prompt="hi", max_tokens=7, best_of=3), 0).completion == 21


@pytest.mark.parametrize(("n", "choices"), [(0, 1), (-5, 1), (3, 3)])
def test_a_number_of_choices_that_is_none_lowers_no_need(n, choices):
    """What an upstream is sent is not checked by us: a negative one must not make room in a budget."""
    assert worst(sent(messages=[], max_tokens=10, n=n), 0).completion == 10 * choices


@pytest.mark.parametrize("field", ["n", "best_of", "max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("odd", ["9", 2.5, True, [3]])
def test_a_number_that_an_upstream_may_read_otherwise_is_refused(field, odd):
    """Nobody here can tell what it makes of it; with a limit on answers, too."""
    request = sent(**{"messages": [], "max_tokens": 10} | {field: odd})
    with pytest.raises(Forbidden, match=f"{field} is no whole number"):
        worst(request, 0)
    decision = policy.decide(Caller("k", "bob", Role.MEMBER), request, [("The key 'bob'", Limits(max_tokens=100))])
    assert not decision.allowed and f"{field} is no whole number" in decision.reason


def test_each_of_several_prompts_is_answered():
    """A list of texts is as many prompts; one of token numbers is one."""
    assert worst(sent(Kind.COMPLETION, prompt=["a"] * 1000, max_tokens=4, n=2), 0).completion == 8000
    assert worst(sent(Kind.COMPLETION, prompt=[1, 2, 3], max_tokens=4), 0).completion == 4
    assert worst(sent(Kind.COMPLETION, prompt=[[1], [2]], max_tokens=4), 0).completion == 8


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "'image_url'"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "'input_file'"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "'item_reference'"),
        ({"input": "hi", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": "hi", "conversation": "c"}, "conversation"),
        ({"input": "hi", "prompt": {"id": "pmpt_1"}}, "a prompt that is kept there"),
        ({"messages": [], "web_search_options": {"a": 1}}, "web_search_options"),
        ({"input": "hi", "tools": [{"type": "web_search"}]}, "'web_search'"),
        ({"input": [{"type": "function_call_output", "output": [{"type": "input_file"}]}]}, "'input_file'"),
    ],
)
def test_what_an_upstream_may_count_more_for_than_its_bytes_is_refused_under_a_limit(body, said):
    """By name: a picture, a file, what it has kept, tools that it runs itself."""
    kind = Kind.RESPONSE if "input" in body else Kind.CHAT
    with pytest.raises(Forbidden, match="nobody knows how many this call") as caught:
        worst(sent(kind, **body, max_tokens=5, max_output_tokens=5), 0)
    assert said in caught.value.message
