"""A lease's reservation: never past a limit, never left behind, and in the end exactly what the engine counted."""

import asyncio
import random
import time

import pytest

from freehold.budget import Accounts, Need
from freehold.config import CostSettings, PriceSettings
from freehold.errors import BudgetSpent, Forbidden, RateLimited, Unaccountable
from freehold.lease import Leases, duration
from freehold.limits import KEY, NONE, TEAM, Spend, Standing
from freehold.prices import PriceList, Tariff
from freehold.types import Caller, Kind, Limits, Manifest, Outcome, Request, Role, Subject, Usage

BOB, ANN = (Caller(f"key_{name}", name, Role.MEMBER, "dev") for name in ("bob", "ann"))
TINY = Manifest("tiny", "sha256:tiny", 1, "gguf", "test", False)
OWN, TEAMS = Subject(KEY, BOB.id), Subject(TEAM, "dev")
SIZE = 256 + len('{"messages":[],"max_tokens":100}') + 100  # what a call below may need


class Ticket:
    """A slot at an engine that says what it is told to."""

    place = 0

    def __init__(self):
        self.engine, self.model = self, TINY

    def ask(self, request, model, on_done):
        self.usage, self.left_the_house, self.media_type = Usage(), bool(request.sent), ""
        return self

    def release(self):
        pass


class Pool:
    """Gives everybody a slot, after a while."""

    async def take(self, call_id, caller, request, width, model):
        await asyncio.sleep(0)
        return Ticket()


class House:
    """Leases under these limits, with what the ledger has."""

    def __init__(self, limits: dict[Subject, Limits], spends=(), defaults: Limits = NONE, cost=CostSettings()):  # noqa: B008
        self.standing = Standing(limits, defaults)
        self.accounts = Accounts(lambda since: spends)
        self.leases = Leases(
            Pool(), lambda: self.standing, self.accounts, Tariff(PriceList(cost)), lambda request, model: 4096
        )
        self.number = 0

    def begin(self, caller=BOB, kind=Kind.CHAT):
        self.number += 1
        return self.leases.begin(f"req_{self.number}", caller, kind)

    async def taken(self, caller=BOB, kind=Kind.CHAT, sent=b"", **body):
        lease = self.begin(caller, kind)
        try:
            request = Request(kind, "tiny", {"messages": [], "max_tokens": 100} | body, sent=sent)
            await lease.take(request, TINY)
            lease.ask(request)
        except BaseException:
            lease.release()
            raise
        return lease

    def end(self, lease, prompt: int, completion: int, outcome=Outcome.ANSWERED, *, begun: bool = True):
        lease.ticket.usage, lease.ticket.media_type = Usage(prompt, completion), "text/event-stream" if begun else ""
        lease.release(outcome)

    def used(self, subject=OWN) -> Need:
        return self.accounts.account(subject).since(0)

    def held(self, subject=OWN) -> Need:
        return self.accounts.account(subject).held


def scenario(test):
    """Run a coroutine as a test."""

    def run():
        asyncio.run(asyncio.wait_for(test(), 20))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@scenario
async def test_ten_thousand_calls_that_end_in_any_way_leave_exactly_what_was_counted():
    """Two keys of a team, calls of random lengths, some cancelled on the way: at no moment is more used and held than
    there is, and in the end nothing is held."""
    house = House({OWN: Limits(tokens_per_day=40_000, calls_at_once=60), TEAMS: Limits(tokens_per_month=60_000)})
    chance, counted, over = random.Random(7), {BOB: 0, ANN: 0}, []

    async def call(caller):
        try:
            lease = await house.taken(caller)
        except RateLimited:
            return
        prompt, completion = chance.randint(0, 5), chance.randint(0, 8)
        try:
            await asyncio.sleep(chance.random() * 0.01)
        finally:
            counted[caller] += prompt + completion
            house.end(lease, prompt, completion, chance.choice(list(Outcome)))
            lease.release()  # a second time
        for subject, most in ((OWN, 40_000), (TEAMS, 60_000)):
            over.append(house.used(subject).tokens + house.held(subject).tokens > most)

    for _ in range(50):
        tasks = [asyncio.create_task(call(chance.choice((BOB, ANN)))) for _ in range(200)]
        await asyncio.sleep(0.002)
        for task in chance.sample(tasks, 40):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert counted[BOB] > 1000 and not any(over)
    assert house.used(OWN).tokens == counted[BOB] and house.used(TEAMS).tokens == sum(counted.values())
    assert house.held(OWN) == house.held(TEAMS) == Need(0)
    assert not house.accounts.account(OWN).in_hand and not house.accounts.account(TEAMS).in_hand


@scenario
async def test_two_hundred_at_once_get_no_more_than_fits():
    """To the token: as many calls as fit at the worst are let in, the others refused with what is left."""
    house = House({OWN: Limits(tokens_per_day=10 * SIZE + 5)})
    found = await asyncio.gather(*(house.taken() for _ in range(200)), return_exceptions=True)
    refused = [one for one in found if isinstance(one, BudgetSpent)]
    assert len(refused) == 190 and house.held().tokens == 10 * SIZE
    assert f"({10 * SIZE:,} more are reserved by calls in hand)" in refused[0].message
    assert refused[0].retry_after == 1  # they may need less than that
    headers = dict(refused[0].headers)
    assert headers["x-ratelimit-remaining-tokens"] == "5" and "held=" in headers["x-freehold-limit"]


@scenario
async def test_an_overshoot_is_at_most_one_reservation():
    """Where an engine counts more than was reserved, that counts, and the next call is refused."""
    house = House({OWN: Limits(tokens_per_day=SIZE)})
    house.end(await house.taken(), 500, 600)
    assert house.used().tokens == 1100
    with pytest.raises(BudgetSpent):
        await house.taken()
    assert not house.accounts.account(OWN).in_hand


@scenario
async def test_both_limits_hold_and_what_is_refused_by_one_takes_nothing_of_the_other():
    """The key's rate is not spent by a call that its team's budget refuses; nor is anything reserved."""
    house = House({OWN: Limits(tokens_per_minute=5000), TEAMS: Limits(tokens_per_day=SIZE)})
    lease = await house.taken()
    for _ in range(3):
        with pytest.raises(BudgetSpent, match="The team 'dev' has used 0 of"):
            await house.taken()
    assert house.accounts.account(OWN).tokens.used("x", 5000, time.monotonic()).used == pytest.approx(SIZE, abs=5)
    house.end(lease, 1, 2)
    assert house.accounts.account(OWN).tokens.used("x", 5000, time.monotonic()).used == pytest.approx(3, abs=5)


@scenario
async def test_a_budget_that_comes_while_calls_are_in_hand_counts_them_once():
    """Those that were settled are in the ledger; those in hand are counted when they are; those of before it are not
    reserved, as nobody knew."""
    ledger = [Spend("req_0", time.time(), BOB.id, "dev", "tiny", "", False, 30, 10, 0)]
    house = House({}, ledger)
    before = await house.taken()
    assert not house.accounts.counts and before.need is None
    house.standing = Standing({OWN: Limits(tokens_per_day=2 * SIZE)}, NONE)
    after = await house.taken()
    assert house.used().tokens == 40
    ledger.append(Spend(before.id, time.time(), BOB.id, "dev", "tiny", "", False, 1, 2, 0))
    house.end(before, 1, 2)
    house.end(after, 3, 4)
    assert house.used().tokens == 50 and house.used(TEAMS).tokens == 50


@scenario
async def test_money_is_reserved_at_full_price_and_counted_at_what_it_was():
    """Answer and prompt at their prices, less for what was cached; no price, no call."""
    prices = {"tiny": PriceSettings(input=1000, output=10_000, cached=100)}
    house = House({OWN: Limits(money_per_day=50.0)}, cost=CostSettings(prices=prices))
    lease = await house.taken()
    assert house.held().money == pytest.approx((SIZE - 100) * 0.001 + 100 * 0.01)
    lease.ticket.usage = Usage(20, 10, 15)
    lease.release(Outcome.ANSWERED)
    assert house.used().money == pytest.approx(5 * 0.001 + 15 * 0.0001 + 10 * 0.01)
    with pytest.raises(Forbidden, match="nobody knows what a token of 'tiny'"):
        await House({OWN: Limits(money_per_day=50.0)}).taken()


@scenario
async def test_counting_tokens_is_a_call_and_uses_none():
    """It is held to the calls in a minute, and to nothing else."""
    house = House({OWN: Limits(tokens_per_day=1, calls_per_minute=2)})
    for _ in range(2):
        house.end(await house.taken(kind=Kind.COUNT), 500, 0)
    assert house.used().tokens == 0
    with pytest.raises(RateLimited) as caught:
        await house.taken(kind=Kind.COUNT)
    assert dict(caught.value.headers)["anthropic-ratelimit-requests-remaining"] == "0"


@scenario
async def test_an_upstream_that_says_nothing_is_taken_to_have_used_all():
    """If it has answered, was left in the middle or failed there; where it refused or did not begin, nothing."""
    for outcome, begun, all_of_it in (
        (Outcome.ANSWERED, True, True), (Outcome.ABANDONED, True, True), (Outcome.ABANDONED, False, True),
        (Outcome.REFUSED, False, False), (Outcome.FAILED, False, False), (Outcome.FAILED, True, True),
    ):  # fmt: skip
        house = House({OWN: Limits(tokens_per_day=9000)})
        lease = await house.taken(sent=b'{"messages": [], "max_tokens": 100}')
        reserved = house.held().tokens
        house.end(lease, 0, 0, outcome, begun=begun)
        assert house.used().tokens == (reserved if all_of_it else 0)


@scenario
async def test_without_limits_nothing_is_read_or_counted():
    """The ledger is not asked, and headers say nothing."""

    def spends(since):
        raise AssertionError("nobody asked for it")

    house = House({})
    house.accounts = house.leases.accounts = Accounts(spends)
    lease = await house.taken()
    assert lease.headers == () and lease.need is None and lease.limits == ()
    house.end(lease, 5, 5)
    assert not house.accounts.counts and house.used().tokens == 0


@scenario
async def test_limits_that_cannot_be_read_begin_no_lease():
    """And leave nothing in hand."""
    house = House({OWN: "it is spoilt"})
    with pytest.raises(Unaccountable):
        house.begin()
    assert not house.accounts.account(OWN).in_hand


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "0ms"), (0.0201, "21ms"), (1, "1s"), (1.41, "1.5s"), (360, "6m0s"), (86_343, "23h59m3s"), (3600, "1h0m0s")],
)
def test_times_are_written_as_openai_writes_them(seconds, written):
    """Rounded up: who comes back then does not come too early."""
    assert duration(seconds) == written
