"""How much of its limits somebody has used, and how much a call may use at the worst. In memory.

An amount is kept for each day of UTC in which a call was opened. What counts for a day or a month is everything since
its beginning, later days included: a clock that was set back finds what was used at the later time still used.

As long as nobody has a budget, nothing is counted. From the moment on at which somebody has one, each call is counted
when it is settled, and what was settled before is read from the ledger: once, for everybody.
"""

from __future__ import annotations

import asyncio
import math
import time
from calendar import monthrange
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct

from freehold.errors import Forbidden
from freehold.limits import KEY, TEAM, Spend
from freehold.types import Kind, Limits, Request, Subject, Used

MINUTE, DAY = 60.0, 86_400  # seconds
ROOM = 256  # tokens that a chat template may add by itself, and once more where there are tools
ANSWERS = {  # the fields that say how long an answer may be
    Kind.CHAT: ("max_tokens", "max_completion_tokens"), Kind.COMPLETION: ("max_tokens",),
    Kind.RESPONSE: ("max_output_tokens",), Kind.MESSAGE: ("max_tokens",),
}  # fmt: skip
_TEXT = frozenset({
    "text", "input_text", "output_text", "refusal", "message", "function_call", "function_call_output", "reasoning",
})  # fmt: skip
_UNTOLD = ("previous_response_id", "conversation", "background", "web_search_options")  # fields of an upstream
_NANO = 10**9  # what is held of money is kept in whole billionths, so that a sum of it comes back to nothing
_MOST_CHOICES = 1 << 32
_NEAR = 1e-6  # seconds, below which two times are the same


class Pace:
    """A rate by the minute, by the generic cell rate algorithm: each unit pushes the due time on by its share of a
    minute, and the due time may run a minute ahead of the clock. Source: ITU-T I.371."""

    __slots__ = ("_due",)

    def __init__(self) -> None:
        self._due = 0.0

    def wait(self, rate: float, units: float, now: float) -> float:
        """Seconds until so many units more are within the rate; 0 where they are now."""
        early = max(self._due, now) + units * MINUTE / rate - now - MINUTE
        return early if early > _NEAR else 0.0

    def take(self, rate: float, units: float, now: float) -> float:
        """Take so many units. Returns when their time is over."""
        self._due = max(self._due, now) + units * MINUTE / rate
        return self._due

    def give_back(self, rate: float, units: float, until: float, now: float) -> None:
        """Of what was taken, whose time is over at ``until``, so much was not needed; less than nothing, where more
        was. What came back by itself meanwhile does not come back twice."""
        self._due -= min(units * MINUTE / rate, max(until - now, 0.0))

    def used(self, limit: str, rate: float, now: float) -> Used:
        """How far the rate is used."""
        ahead = max(self._due - now, 0.0)
        return Used(limit, rate, min(ahead / MINUTE, 1.0) * rate, resets_in=ahead)


class Need(Struct, frozen=True):
    """What a call may use at the worst."""

    tokens: int
    money: float = 0.0


class Worst(Struct, frozen=True):
    """The most tokens that a call may use: of its prompt, of its answers, and of both together."""

    prompt: int
    completion: int
    tokens: int


NOTHING = Need(0)


class _Sum:
    """Tokens and money, which grow."""

    __slots__ = ("money", "tokens")

    def __init__(self, found: Iterable[_Sum] = ()) -> None:
        self.tokens, self.money = 0, 0.0
        for one in found:
            self.add(one.tokens, one.money)

    def add(self, tokens: int, money: float) -> None:
        self.tokens += tokens
        self.money += money


class Account:
    """What one key or team has in hand, and has used. ``in_hand`` are its leases, each with what it holds; the sums are
    kept beside them, in whole numbers, so that however many calls there are another one looks at none of them."""

    __slots__ = ("_days", "_nanos", "_since", "_tokens", "calls", "in_hand", "tokens")

    def __init__(self) -> None:
        self.in_hand: dict[Any, Need] = {}
        self.calls, self.tokens = Pace(), Pace()
        self._tokens = self._nanos = 0
        self._days: dict[int, _Sum] = {}
        self._since: dict[int, _Sum] = {}

    @property
    def held(self) -> Need:
        """What is reserved by the calls in hand."""
        return Need(self._tokens, self._nanos / _NANO)

    def hold(self, lease: Any, need: Need = NOTHING) -> None:
        """A lease is in hand, and holds so much; nothing of what it held before."""
        before = self.in_hand.get(lease, NOTHING)
        self.in_hand[lease] = need
        if need is not before:
            self._tokens += need.tokens - before.tokens
            self._nanos += round(need.money * _NANO) - round(before.money * _NANO)

    def let_go(self, lease: Any) -> None:
        """A lease holds nothing any more, if it did."""
        need = self.in_hand.pop(lease, NOTHING)
        if need is not NOTHING:
            self._tokens -= need.tokens
            self._nanos -= round(need.money * _NANO)

    def count(self, at: float, tokens: int, money: float) -> None:
        """A call that was opened then has used so much."""
        day = int(at // DAY)
        if day not in self._days:
            self._days[day] = _Sum()
        self._days[day].add(tokens, money)
        for begins, used in self._since.items():
            if begins <= day:
                used.add(tokens, money)

    def clear(self) -> None:
        """Forget the amounts, which are to be read anew."""
        self._days.clear()
        self._since.clear()

    def since(self, day: int) -> Need:
        """What was used from that day on."""
        used = self._sum(day)
        return Need(used.tokens, used.money)

    def _sum(self, day: int) -> _Sum:
        known = self._since.get(day)
        if known is None:
            if len(self._since) > 3:  # days and months that are over
                self._since.clear()
            known = self._since[day] = _Sum(used for on, used in self._days.items() if on >= day)
        return known

    def fits(self, limits: Limits, need: Need, at: float, now: float) -> bool:
        """Is so much left of every limit of tokens and of money? `of_tokens` and `of_money` say how much is."""
        if (rate := limits.tokens_per_minute) and (need.tokens > rate or self.tokens.wait(rate, need.tokens, now)):
            return False
        if not limits.has_budget:
            return True
        (_, today, _), (_, first, _) = periods(at)
        day, month = self._sum(today), self._sum(first)
        tokens, money = self._tokens + need.tokens, self._nanos / _NANO + need.money
        if need.tokens and (
            ((most := limits.tokens_per_day) and day.tokens + tokens > most)
            or ((most := limits.tokens_per_month) and month.tokens + tokens > most)
        ):
            return False
        return not need.money or not (  # what costs nothing goes on where the money is spent
            ((most := limits.money_per_day) and day.money + money > most)
            or ((most := limits.money_per_month) and month.money + money > most)
        )

    def of_calls(self, limits: Limits, now: float) -> list[Used]:
        """How far the rate of calls is used, if there is one."""
        rate = limits.calls_per_minute
        return [self.calls.used("calls_per_minute", rate, now)] if rate else []

    def of_tokens(self, limits: Limits, at: float, now: float) -> list[Used]:
        """How far each limit of tokens is used, the rate first."""
        rate = limits.tokens_per_minute
        used = [self.tokens.used("tokens_per_minute", rate, now)] if rate else []
        return used + self._of_tokens(limits, at)

    def budgets(self, limits: Limits, at: float) -> list[Used]:
        """How far each budget is used, of tokens and of money."""
        return self._of_tokens(limits, at) + self.of_money(limits, at)

    def _of_tokens(self, limits: Limits, at: float) -> list[Used]:
        found = []
        (_, today, tomorrow), (_, first, next_first) = periods(at)
        if most := limits.tokens_per_day:
            found.append(Used("tokens_per_day", most, self._sum(today).tokens, self._tokens, tomorrow * DAY - at))
        if most := limits.tokens_per_month:
            found.append(Used("tokens_per_month", most, self._sum(first).tokens, self._tokens, next_first * DAY - at))
        return found

    def of_money(self, limits: Limits, at: float) -> list[Used]:
        """How far each budget of money is used."""
        found, held = [], self._nanos / _NANO
        (_, today, tomorrow), (_, first, next_first) = periods(at)
        if most := limits.money_per_day:
            found.append(Used("money_per_day", most, self._sum(today).money, held, tomorrow * DAY - at))
        if most := limits.money_per_month:
            found.append(Used("money_per_month", most, self._sum(first).money, held, next_first * DAY - at))
        return found

    def everything(self, limits: Limits, at: float) -> list[Used]:
        """How far each limit is used of which one can have used something."""
        now, most = time.monotonic(), limits.calls_at_once
        at_once = [Used("calls_at_once", most, len(self.in_hand))] if most else []
        return [
            *at_once, *self.of_calls(limits, now), *self.of_tokens(limits, at, now), *self.of_money(limits, at),
        ]  # fmt: skip


async def _nothing() -> None:
    """There is no ledger whose entries may be in memory yet."""


class Accounts:
    """The accounts of all keys and teams.

    ``spends`` gives the ledger's calls that were opened since a time, and may wait for the disk; ``price`` what one of
    them counts for in money, once ``prepare`` was called, which may take a moment; ``flush`` sees to it that what was
    settled is in the ledger.
    """

    def __init__(
        self, spends: Callable[[float], Iterable[Spend]] = lambda since: (),
        price: Callable[[Spend], float] = lambda spend: 0.0, flush: Callable[[], Awaitable[None]] = _nothing,
        prepare: Callable[[], None] = lambda: None,
    ):  # fmt: skip
        self._spends, self._price, self._flush, self._prepare = spends, price, flush, prepare
        self._accounts: dict[Subject, Account] = {}
        self.counts = self.counts_money = False
        self._known_from, self._knows_money = math.inf, False
        self._reading: asyncio.Task | None = None

    def account(self, subject: Subject) -> Account:
        """The account of a key or team."""
        account = self._accounts.get(subject)
        if account is None:
            account = self._accounts[subject] = Account()
        return account

    def knows(self, at: float, *, money: bool) -> bool:
        """Are the amounts known of the month of UTC that a time is in?"""
        return self._known_from <= month(at) and (self._knows_money or not money)

    async def learn(self, *, money: bool) -> None:
        """See to it that they are known. Raises Unaccountable where the ledger cannot be read."""
        while not self.knows(time.time(), money=money):
            if self._reading is None:
                self._reading = asyncio.create_task(self._read_anew(money))
                self._reading.add_done_callback(self._have_read)
            await asyncio.shield(self._reading)  # who waits for it may leave, and others wait too

    def _have_read(self, task: asyncio.Task) -> None:
        self._reading = None
        if not task.cancelled():
            task.exception()  # whoever waits is told

    async def _read_anew(self, money: bool) -> None:
        """What is settled now is in the ledger, and read; what is in hand now, or comes, is counted here."""
        begins, self._known_from = month(time.time()), math.inf
        self.counts, self.counts_money = True, self.counts_money or money
        in_hand = frozenset(lease.id for account in self._accounts.values() for lease in account.in_hand)
        for account in self._accounts.values():
            account.clear()
        await self._flush()
        for subject, days in (await asyncio.to_thread(self._read, begins, in_hand)).items():
            for day, used in days.items():
                self.account(subject).count(day * DAY, used.tokens, used.money)
        self._known_from, self._knows_money = begins, self.counts_money

    def _read(self, begins: float, in_hand: Collection[str]) -> dict[Subject, dict[int, Need]]:
        """In a thread: what the ledger's calls have used, day by day."""
        found: dict[Subject, dict[int, Need]] = {}
        if self.counts_money:
            self._prepare()
        for spend in self._spends(begins):
            if spend.id in in_hand:
                continue
            tokens, day = spend.prompt + spend.completion, int(spend.at // DAY)
            money = self._price(spend) if self.counts_money else 0.0
            payers = [Subject(kind, id) for kind, id in ((KEY, spend.key), (TEAM, spend.team)) if id]
            for payer in payers:
                days = found.setdefault(payer, {})
                before = days.get(day, Need(0))
                days[day] = Need(before.tokens + tokens, before.money + money)
        return found


def worst(request: Request, context: int) -> Worst:
    """The most tokens that a call may use. ``context`` is what it may use in all, for one answer; 0: nobody knows.

    A token stands for a byte at least, so a prompt has no more of them than its JSON has bytes, and what the model's
    template adds (`ROOM`).

    Raises:
        Forbidden: it does not say how long its answer may be, and nothing else does; or it has content whose tokens
            cannot be told from its bytes.
    """
    size = len(request.sent) if request.sent else len(msgspec.json.encode(request.body))
    prompt = size + ROOM * (2 if request.body.get("tools") else 1)
    if request.sent:
        if name := unclear(request):
            raise Forbidden(f"There is a limit on tokens, and {name} is no whole number.", hint="Send one.")
        _check_text(request.body)
    if request.kind is Kind.EMBEDDING:
        texts = request.body.get("input")
        most = context * max(len(texts), 1) if isinstance(texts, list) else context
        prompt = min(prompt, most) if context else prompt
        return Worst(prompt, 0, prompt)
    asked, choices = asked_for(request), choices_of(request)
    if asked is None and not context:
        raise Forbidden(
            "There is a limit on tokens, and nobody knows how many an upstream's answer may have.",
            hint="Say so in the request: max_completion_tokens, or max_output_tokens for /v1/responses.",
        )
    if not context:
        return Worst(prompt, asked * choices, prompt + asked * choices)
    prompt = min(prompt, context)
    answer = context if asked is None else min(asked, context)
    return Worst(prompt, answer * choices, min(prompt + answer, context) + answer * (choices - 1))


def asked_for(request: Request) -> int | None:
    """The most tokens that a request allows for one answer; None where it does not say."""
    said = (request.body.get(name) for name in ANSWERS.get(request.kind, ()))
    return max((value for value in said if type(value) is int and value > 0), default=None)


def choices_of(request: Request) -> int:
    """How many answers a request asks for: to each of its prompts as many as it says."""
    asked = [request.body.get(name) for name in ("n", "best_of")]
    each = math.ceil(max([1, *(min(value, _MOST_CHOICES) for value in asked if type(value) in (int, float))]))
    prompt = request.body.get("prompt") if request.kind is Kind.COMPLETION else None
    prompts = len(prompt) if isinstance(prompt, list) and any(type(part) is not int for part in prompt) else 1
    return each * prompts


def unclear(request: Request) -> str:
    """The field that says how much an upstream is to answer, and is no whole number, so that nobody here can tell what
    it makes of it; empty where there is none."""
    names = ("n", "best_of", *ANSWERS.get(request.kind, ())) if request.sent else ()
    said = {name: request.body.get(name) for name in names}
    return next((name for name, value in said.items() if value is not None and type(value) is not int), "")


def _check_text(body: dict[str, Any]) -> None:
    """Raises Forbidden for what an upstream may count many tokens for, however few its bytes."""
    found = [name for name in _UNTOLD if body.get(name)]
    found += ["a prompt that is kept there"] if isinstance(body.get("prompt"), dict) else []
    found += [f"a tool of type {kind!r}" for kind in _types(body.get("tools")) if kind not in ("function", "custom")]
    for field in ("messages", "input"):
        for item in body.get(field) if isinstance(body.get(field), list) else ():
            content = item.get("content") if isinstance(item, dict) else None
            output = item.get("output") if isinstance(item, dict) else None
            kinds = [*_types([item]), *_types(content), *_types(output)]
            found += [f"content of type {kind!r}" for kind in kinds if kind not in _TEXT]
    if found:
        raise Forbidden(
            f"There is a limit on tokens, and nobody knows how many this call may use: it has {found[0]}.",
            hint="Send text alone, or call a model without such a limit.",
        )


def _types(things: Any) -> Iterator[str]:
    for thing in things if isinstance(things, list) else ():
        if isinstance(thing, dict) and "type" in thing:
            yield str(thing["type"])[:50]


def periods(at: float) -> tuple[tuple[str, int, int], tuple[str, int, int]]:
    """The day and the month of UTC that a time is in: the days, counted from 1970, on which each begins and after which
    it has ended."""
    return _periods(int(at // DAY))


@lru_cache(maxsize=4)
def _periods(today: int) -> tuple[tuple[str, int, int], tuple[str, int, int]]:
    on = datetime.fromtimestamp(today * DAY, UTC)
    first = today - on.day + 1
    return ("day", today, today + 1), ("month", first, first + monthrange(on.year, on.month)[1])


def month(at: float) -> float:
    """When the month of UTC began that a time is in."""
    return float(periods(at)[1][1] * DAY)


def scarcest(found: Iterable[Used]) -> Used | None:
    """The limit of which least is left."""
    return min(found, key=lambda used: (used.left, -(used.resets_in or 0.0)), default=None)
