"""What somebody else charges for a model's tokens: by the settings' own table, or by the dated list that is installed.

The list is the package `genai-prices`, as it was installed and never renewed over the network. Its authors say that it
is not perfectly accurate; so its version and the date of its newest entry stand beside every price (`types.Price`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib import metadata
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from freehold.config import CostSettings
from freehold.types import Basis, Price, Tier

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

LIST = "genai-prices"
VERSION, NEWEST = "0.2.3", "2026-11-04"  # the version that is pinned, and the date of its newest entry
_MILLION = ("input_mtok", "output_mtok", "cache_read_mtok")


class PriceList:
    """Prices by a model's name."""

    def __init__(self, settings: CostSettings):
        self._settings = settings
        self._found: dict[tuple[str, str], tuple[Provider, ModelInfo] | None] = {}
        self._made: dict[tuple[str, int], Price | None] = {}

    def find(self, name: str, at: float | None = None, *, url: str = "") -> Price | None:
        """The price of the model with that name at a time (now, where none is given); None where nobody knows it.

        ``url`` is where the model is reached, if that is known; otherwise ``PROVIDER:MODEL`` or ``PROVIDER/MODEL`` says
        whose model is meant where several have one of that name.
        """
        if own := self.own(name):
            return own
        listed = self._look(name, url)
        if listed is None:
            return None
        when = datetime.fromtimestamp(time.time() if at is None else at, UTC)
        prices = listed[1].get_prices(when)
        key = (name, id(prices))  # which the list keeps for as long as the process lives
        if key not in self._made:
            self._made[key] = self._price(name, *listed, prices, when)
        return self._made[key]

    def own(self, name: str) -> Price | None:
        """The price in the settings."""
        own = self._settings.prices.get(name)
        if own is None:
            return None
        cached = own.input if own.cached is None else own.cached
        table = f'[cost.prices."{name}"]'
        return Price(name, own.input, own.output, cached, self._settings.currency, Basis.SET, f"the settings, {table}")

    def _look(self, name: str, url: str) -> tuple[Provider, ModelInfo] | None:
        if (name, url) not in self._found:
            self._found[name, url] = next(filter(None, (_listed(*ask) for ask in _asks(name, url))), None)
        return self._found[name, url]

    def _price(
        self, name: str, provider: Provider, model: ModelInfo, prices: ModelPrice, when: datetime
    ) -> Price | None:
        """The list's prices as a record; None where it has none for tokens of text."""
        rate = self._settings.usd_rate or 1.0
        if prices.input_mtok is None:
            return None
        starts = sorted({tier.start for unit in _MILLION for tier in getattr(getattr(prices, unit), "tiers", ())})
        return Price(
            name, *_at(prices, 0, rate), self._settings.currency, Basis.LISTED,
            f"{LIST} {metadata.version(LIST)}", when.date().isoformat(), newest(), provider.name, model.id,
            float(prices.requests_kcount or 0) / 1000 * rate,
            tuple(Tier(start, *_at(prices, start + 1, rate)) for start in starts),
        )  # fmt: skip


class Tariff:
    """What the tokens of a call count for in a budget of money: the settings' price for the model that answers, or for
    the name that was sent; for a model of an upstream what the list has for it there; for one of this house what the
    list has for the alias, which is what the call would cost where it went before. ``upstreams`` are the models of
    others, with their name there and where they are reached."""

    def __init__(self, listed: PriceList, upstreams: Mapping[str, tuple[str, str]] = MappingProxyType({})):
        self._listed, self._upstreams = listed, upstreams

    def price(self, model: str, alias: str, at: float, *, left: bool) -> Price | None:
        """The price of a call at a time; None where nobody knows it. ``left``: does an upstream answer it?"""
        if own := self._listed.own(model) or self._listed.own(alias):
            return own
        if left:
            there, url = self._upstreams.get(model, (model, ""))
            return self._listed.find(there, at, url=url)
        return self._listed.find(alias, at) if alias else None

    def prepare(self) -> None:
        """Read the list, which takes a moment: in a thread, and before anybody waits for a price."""
        _listed("", "", "")


def newest() -> str:
    """The date of the newest entry in the list; '' where another version is installed than the one that is pinned."""
    return NEWEST if metadata.version(LIST) == VERSION else ""


def charge(price: Price, prompt: float, completion: float, cached: float = 0.0) -> float:
    """What a call with so many tokens costs by a price. ``cached`` is the part of ``prompt`` that has the price of
    cached tokens. The price's last tier that the prompt passes holds for all of its tokens."""
    tier = next((tier for tier in reversed(price.tiers) if prompt > tier.above), price)
    cached = min(cached, prompt)
    tokens = (prompt - cached) * tier.input + cached * tier.cached + completion * tier.output
    return tokens / 1e6 + price.per_call


def unknown(name: str) -> str:
    """What is said where no price is known."""
    if not name:
        return "Nobody knows which model answers today: name it as 'price' in the task's file."
    return f'No price is known for {name!r}: set [cost.prices."{name}"] in freehold.toml.'


def _asks(name: str, url: str) -> Iterator[tuple[str, str, str]]:
    """The ways in which a name is looked up: model, provider, and where it is reached."""
    if url:
        yield name, "", url
    yield name, "", ""
    for mark in ":/":
        provider, found, model = name.partition(mark)
        if found and provider and model:
            yield model, provider, ""


def _listed(model: str, provider: str, url: str) -> tuple[Provider, ModelInfo] | None:
    import genai_prices  # a third of a second, and a client for HTTP that is never used

    where: dict[str, Any] = {"provider_id": provider} if provider else {"provider_api_url": url} if url else {}
    try:
        found = genai_prices.calc_price(genai_prices.Usage(input_tokens=0, output_tokens=0), model, **where)
    except (LookupError, ValueError):
        return None
    return found.provider, found.model


def _at(prices: ModelPrice, prompt: int, rate: float) -> tuple[float, float, float]:
    """Input, output and cached input, for a million tokens, in calls with so many prompt tokens."""
    input, output, cached = (_of(getattr(prices, unit), prompt) for unit in _MILLION)
    return input * rate, (output or 0.0) * rate, (input if cached is None else cached) * rate


def _of(price: Any, prompt: int) -> float | None:
    if price is None or not hasattr(price, "tiers"):
        return None if price is None else float(price)
    passed = [tier.price for tier in price.tiers if prompt > tier.start]  # by their starts
    return float(passed[-1] if passed else price.base)
