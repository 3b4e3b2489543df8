"""A lease: everything that one call holds while it is answered, taken once and given back once.

It holds the call's place among its key's and its team's calls, the most that it may use of their budgets, and its slot
at an engine; its share of their rates is spent. What is held is membership of a set, so a lease that is released twice,
or in the middle of being taken, leaves nothing behind. When it is released, what the call has really used, by the
engine's counts, takes the place of what was reserved.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from msgspec import Struct

from freehold.budget import Account, Accounts, Need, scarcest, worst
from freehold.engine.base import Reply
from freehold.engine.pool import Pool
from freehold.engine.seat import Ticket
from freehold.errors import BudgetSpent, Forbidden, FreeholdError, RateLimited
from freehold.limits import KEY, TEAM, Standing, plain
from freehold.prices import Tariff, charge, unknown
from freehold.types import Caller, Kind, Limits, Manifest, Outcome, Price, Request, Subject, Usage, Used

Headers = tuple[tuple[str, str], ...]
ANTHROPIC = frozenset({Kind.MESSAGE, Kind.COUNT})
_WORDS = {
    "calls_per_minute": "calls a minute",
    "tokens_per_minute": "tokens a minute",
    "tokens_per_day": "tokens a day",
    "tokens_per_month": "tokens a month",
    "money_per_day": "of money a day",
    "money_per_month": "of money a month",
}


class Under(Struct, frozen=True):
    """What a caller's calls are reckoned against: its account and its team's, and of the limits that hold for it each
    with whose it is and with the account."""

    accounts: tuple[Account, ...]
    rules: tuple[tuple[str, Account, Limits], ...] = ()
    limits: tuple[tuple[str, Limits], ...] = ()
    tokens: bool = False  # is there any limit of tokens, of money, any that must be known from the ledger?
    money: bool = False
    budget: bool = False


class Lease:
    """What one call holds. ``need`` is what it may use at the worst, where somebody must know."""

    __slots__ = (
        "_caller", "_leases", "_paced", "_price", "_reply", "_request", "_under", "at", "id", "kind", "need", "ticket",
    )  # fmt: skip

    def __init__(self, leases: Leases, call_id: str, caller: Caller, kind: Kind, under: Under):
        self._leases, self.id, self._caller, self.kind, self._under = leases, call_id, caller, kind, under
        self.at = time.time()
        self.need: Need | None = None
        self.ticket: Ticket | None = None
        self._request: Request | None = None
        self._reply: Reply | None = None
        self._price: Price | None = None
        self._paced: list[tuple[Account, int, float]] = []
        for account in under.accounts:
            account.hold(self)

    @property
    def limits(self) -> tuple[tuple[str, Limits], ...]:
        """The limits that hold for it, each with whose they are."""
        return self._under.limits

    def ask(self, request: Request) -> Reply:
        """Put the request to the engine whose slot it holds. Raises as `base.Engine.ask`."""
        self._reply = self.ticket.engine.ask(request, self.ticket.model, self.engine_done)
        return self._reply

    @property
    def headers(self) -> Headers:
        """What the caller is told of its limits, and of its wait if it had to; nothing where there is neither."""
        limits = _headers(self.kind, self._under.rules) if self._under.rules else ()
        ticket = self.ticket
        if not ticket.place:
            return limits
        said = f'place={ticket.place}, waited_ms={ticket.waited * 1000:.0f}, engine="{ticket.found}"'
        return (*limits, ("x-freehold-queue", said))

    async def take(self, request: Request, model: Manifest) -> None:
        """Reserve what the call may use, and take the engine's slot, waiting for it if need be.

        Raises:
            RateLimited: it may use more than is left of a limit.
            Forbidden: more than all of one, or nobody can say how much.
            Unaccountable: what was used cannot be read.
            And as `Pool.take`.
        """
        self._request = request
        if (self._under.tokens or self._under.money) and self.kind is not Kind.COUNT:
            await self._reserve(request, model)
        choices = request.body.get("n", 1) if request.kind is Kind.CHAT and not request.sent else 1  # a slot for each
        self.ticket = await self._leases.pool.take(self.id, self._caller, request, choices, model)

    def engine_done(self) -> None:
        """The engine has said its last: its slot is free, however long the client still reads."""
        if self.ticket is not None:
            self.ticket.release()

    def release(self, outcome: Outcome | None = None) -> None:
        """Give everything back, and count what was used. ``outcome`` is how the call ended."""
        self.engine_done()
        if self in self._under.accounts[0].in_hand:
            for account in self._under.accounts:
                account.let_go(self)
            if self._leases.accounts.counts or self._paced:
                self._settle(outcome)

    async def _reserve(self, request: Request, model: Manifest) -> None:
        under, money = self._under, self._under.money
        if under.budget:
            await self._leases.accounts.learn(money=money)
        most = worst(request, self._leases.context(request, model))
        if money:
            self._price = self._leases.price(request, self.at)
        need = Need(most.tokens, charge(self._price, most.prompt, most.completion) if money else 0.0)
        at, now = time.time(), time.monotonic()
        for whose, account, one in under.rules:  # from here on nobody else has a turn until it is reserved
            if not account.fits(one, need, at, now):
                raise self._lacking(whose, account, one, need, at, now)
        self.need = need
        for account in under.accounts:
            if self in account.in_hand:  # not if it was released meanwhile
                account.hold(self, need)
        for _, account, one in under.rules:
            if one.tokens_per_minute:
                until = account.tokens.take(one.tokens_per_minute, need.tokens, now)
                self._paced.append((account, one.tokens_per_minute, until))

    def _lacking(
        self, whose: str, account: Account, limits: Limits, need: Need, at: float, now: float
    ) -> FreeholdError:
        """Into which limit the call does not fit: a BudgetSpent, a RateLimited, or a Forbidden where it never will."""
        for used in (*account.of_tokens(limits, at, now), *account.of_money(limits, at)):
            wanted = need.money if used.limit.startswith("money") else need.tokens
            if wanted > used.most:
                return Forbidden(
                    f"{whose} has {_amount(used.limit, used.most)}, and this call may need "
                    f"{plain(used.limit, wanted)}.",
                    hint="Ask for a shorter answer (max_tokens), or send a shorter prompt.",
                )
            if used.limit == "tokens_per_minute":
                if wait := account.tokens.wait(used.most, wanted, now):
                    return self._refused(RateLimited, whose, used, wanted, wait)
            elif wanted and used.used + (used.held + wanted) > used.most:  # as `Account.fits` has it
                wait = 1.0 if used.used + wanted <= used.most else used.resets_in  # it may be enough when others end
                return self._refused(BudgetSpent, whose, used, wanted, wait)
        raise AssertionError("It fits.")

    def _refused(self, kind: type[RateLimited], whose: str, used: Used, wanted: float, wait: float) -> RateLimited:
        return _refusal(
            kind,
            self.kind,
            self._under.rules,
            whose,
            used,
            f", and this call may need {plain(used.limit, wanted)}",
            wait,
        )

    def _settle(self, outcome: Outcome | None) -> None:
        """The engine's counts take the place of the reservation. An upstream that has worked and does not say for how
        many tokens is taken to have used them all."""
        accounts = self._leases.accounts
        usage = self._reply.usage if self._reply is not None and self.kind is not Kind.COUNT else Usage()
        tokens, money = usage.prompt + usage.completion, 0.0
        if self._reply is not None and self.need is not None and not tokens and self._has_worked_unseen(outcome):
            tokens, money = self.need.tokens, self.need.money
        elif tokens and accounts.counts_money:
            price = self._price or self._leases.price_or_none(self._request, self.at)
            money = charge(price, usage.prompt, usage.completion, usage.cached) if price is not None else 0.0
        for account, rate, until in self._paced:
            account.tokens.give_back(rate, self.need.tokens - tokens, until, time.monotonic())
        if accounts.counts and tokens:
            for account in self._under.accounts:
                account.count(self.at, tokens, money)

    def _has_worked_unseen(self, outcome: Outcome | None) -> bool:
        """Did an upstream work for it, as far as anybody can tell? One that failed did, if it had begun to answer."""
        if not self._reply.left_the_house:
            return False
        begun = outcome is Outcome.FAILED and bool(self._reply.media_type)
        return begun or outcome in (Outcome.ANSWERED, Outcome.ABANDONED)


class Leases:
    """Begins leases, within what a caller may have.

    ``rules`` gives the limits as they are now, ``context`` the tokens that one call to a model may use in all: 0 where
    nobody knows, as with an upstream's.
    """

    def __init__(
        self, pool: Pool, rules: Callable[[], Standing], accounts: Accounts, tariff: Tariff,
        context: Callable[[Request, Manifest], int] = lambda request, model: 0,
    ):  # fmt: skip
        self.pool, self.accounts, self.context = pool, accounts, context
        self._rules, self._tariff = rules, tariff
        self._standing: Standing | None = None  # that for which it is known under what each caller is
        self._known: dict[tuple[str, str], Under] = {}

    def begin(self, call_id: str, caller: Caller, kind: Kind = Kind.CHAT) -> Lease:
        """Begin a call's lease, before its request is read. Whoever has it releases it.

        Raises:
            RateLimited: its key or its team has as many calls as it may have, at once or in a minute.
            Unaccountable: the limits cannot be read.
        """
        under = self._under(caller)
        if under.rules:
            now = time.monotonic()
            for whose, account, limits in under.rules:
                _check_calls(kind, under.rules, whose, account, limits, now)
            for _, account, limits in under.rules:
                if limits.calls_per_minute:
                    account.calls.take(limits.calls_per_minute, 1, now)
        return Lease(self, call_id, caller, kind, under)

    def _under(self, caller: Caller) -> Under:
        """What holds for a caller now; worked out once for as long as nobody changes a limit. Raises Unaccountable."""
        standing = self._rules()
        if standing is not self._standing:
            self._standing, self._known = standing, {}
        known = self._known.get((caller.id, caller.team))
        if known is None:
            known = self._known[caller.id, caller.team] = self._found(standing, caller)
        return known

    def _found(self, standing: Standing, caller: Caller) -> Under:
        account = self.accounts.account
        rules = tuple((whose, account(of), limits) for whose, of, limits in standing.of(caller))
        limits = [limits for _, _, limits in rules]
        payers = [Subject(KEY, caller.id)] + ([Subject(TEAM, caller.team)] if caller.team else [])
        return Under(
            tuple(map(account, payers)), rules, tuple((whose, one) for whose, _, one in rules),
            any(one.has_tokens for one in limits),
            any(one.has_money for one in limits), any(one.has_budget for one in limits),
        )  # fmt: skip

    async def start(self) -> None:
        """Before the first call: read what was used, if there is any budget. Raises Unaccountable."""
        standing = self._rules()
        if standing.has_budgets:
            await self.accounts.learn(money=standing.has_money)

    def limits(self, caller: Caller) -> tuple[Limits, ...]:
        """What holds for a caller. Raises Unaccountable."""
        return tuple(limits for _, limits in self._under(caller).limits)

    async def used(self, caller: Caller) -> list[tuple[str, Limits, list[Used]]]:
        """What holds for a caller and how far it is used. Raises Unaccountable."""
        found = self._rules().of(caller)
        if any(limits.has_budget for _, _, limits in found):
            await self.accounts.learn(money=any(limits.has_money for _, _, limits in found))
        return [
            (whose, limits, list(self.accounts.account(of).everything(limits, time.time())))
            for whose, of, limits in found
        ]

    def price(self, request: Request, at: float) -> Price:
        """What a call's tokens count for. Raises Forbidden where nobody knows, as nothing could be taken off."""
        price = self.price_or_none(request, at)
        if price is None:
            raise Forbidden(
                f"There is a budget of money, and nobody knows what a token of {request.model!r} counts for in it.",
                hint=f"Whoever runs Freehold: {unknown(request.model).partition(': ')[2]}",
            )
        return price

    def price_or_none(self, request: Request | None, at: float) -> Price | None:
        """The same, None where nobody knows."""
        if request is None:
            return None
        return self._tariff.price(request.model, request.alias, at, left=bool(request.sent))


def _check_calls(
    kind: Kind, under: tuple[tuple[str, Account, Limits], ...], whose: str, account: Account, limits: Limits, now: float
) -> None:
    """Raises RateLimited where there are as many calls as there may be."""
    if (most := limits.calls_at_once) and len(account.in_hand) >= most:
        said = f"{whose} has {len(account.in_hand)} calls in hand, and may have {most}."
        raise RateLimited(said, headers=_headers(kind, under, Used("calls_at_once", most, len(account.in_hand))))
    if (rate := limits.calls_per_minute) and (wait := account.calls.wait(rate, 1, now)):
        used = account.calls.used("calls_per_minute", rate, now)
        raise _refusal(RateLimited, kind, under, whose, used, ", and may begin no more now", wait)


def _refusal(
    error: type[RateLimited], kind: Kind, under: tuple[tuple[str, Account, Limits], ...], whose: str, used: Used,
    so: str, wait: float,
) -> RateLimited:  # fmt: skip
    """The error that says which limit it is, how far it is used, and when it resets."""
    held = f" ({plain(used.limit, used.held)} more are reserved by calls in hand)" if used.held else ""
    resets = f" It resets {_moment(used.resets_in)}." if used.resets_in else ""
    said = f"{whose} has used {plain(used.limit, used.used)} of {_amount(used.limit, used.most)}{held}{so}.{resets}"
    return error(said, retry_after=max(math.ceil(wait), 1), headers=_headers(kind, under, used))


def _headers(kind: Kind, under: Iterable[tuple[str, Account, Limits]], hit: Used | None = None) -> Headers:
    """How the limits stand, in the headers of the surface that was called: of calls and of tokens the limit of which
    least is left, and the one that a refusal is for."""
    at, now = time.time(), time.monotonic()
    calls, tokens = [], []
    for _, account, limits in under:
        calls += account.of_calls(limits, now)
        tokens += account.of_tokens(limits, at, now)
    out: list[tuple[str, str]] = []
    for name, found in (("requests", calls), ("tokens", tokens)):
        if used := scarcest(found):
            out += _as_anthropic(name, used, at) if kind in ANTHROPIC else _as_openai(name, used)
    if hit is not None:
        resets = "" if hit.resets_in is None else f", resets_in={hit.resets_in:.3f}"
        said = f'limit="{hit.limit}", most={hit.most:.10g}, used={hit.used:.10g}, held={hit.held:.10g}{resets}'
        out.append(("x-freehold-limit", said))
    return tuple(out)


def _as_openai(name: str, used: Used) -> Headers:
    """Source: the OpenAI API documentation, rate limits in headers."""
    return (
        (f"x-ratelimit-limit-{name}", str(int(used.most))),
        (f"x-ratelimit-remaining-{name}", str(int(used.left))),
        (f"x-ratelimit-reset-{name}", duration(used.resets_in or 0.0)),
    )


def _as_anthropic(name: str, used: Used, at: float) -> Headers:
    """Source: the Anthropic API documentation, rate limit response headers."""
    return (
        (f"anthropic-ratelimit-{name}-limit", str(int(used.most))),
        (f"anthropic-ratelimit-{name}-remaining", str(int(used.left))),
        (f"anthropic-ratelimit-{name}-reset", _stamp(at + (used.resets_in or 0.0))),
    )


def duration(seconds: float) -> str:
    """A time as OpenAI's headers write it: ``20ms``, ``1.5s``, ``6m0s``, ``23h59m3s``."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    if seconds < 60:
        return f"{math.ceil(seconds * 10) / 10:g}s"
    whole = math.ceil(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    return (f"{hours}h" if hours else "") + f"{minutes}m{rest}s"


def _moment(seconds: float) -> str:
    """When something resets, for people."""
    return f"in {duration(seconds)}" if seconds < 3600 else f"at {_stamp(time.time() + seconds)}"


def _stamp(at: float) -> str:
    """RFC 3339, in UTC, to the second that has begun by then; what is hardly later than a second is that second, since
    the clock was read twice."""
    return datetime.fromtimestamp(math.ceil(at - 0.25), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _amount(limit: str, amount: float) -> str:
    return f"{plain(limit, amount)} {_WORDS[limit]}"
