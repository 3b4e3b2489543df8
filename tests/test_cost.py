"""What calls cost: sums recomputed by hand, busy time shared out without a rest, and nothing unknown shown as 0."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
import time
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import genai_prices
import msgspec
import pytest
from genai_prices import data_snapshot
from harness import cli
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert

from freehold import app, config, cost, prices
from freehold.config import ASSUMED, CostSettings, PriceSettings
from freehold.cost.rates import HOUR
from freehold.errors import BadConfig
from freehold.home import Home
from freehold.prices import PriceList
from freehold.store import calls as table
from freehold.types import (
    Answer,
    Basis,
    Call,
    Candidate,
    Outline,
    Price,
    Replayed,
    Sample,
    Task,
    Tier,
    ToolCall,
    Usage,
)

ROOT = Path(__file__).parent.parent
OWN = CostSettings(machine_per_hour=0.10, watts_idle=50, watts_busy=150, energy_per_kwh=0.20, hours_per_day=24)
RATES = cost.rates(OWN)
PRICE = Price("big", 0.15, 0.60, 0.075, "USD", Basis.SET, "the settings")
CANDIDATE = Candidate("small", "sha256:1", key="k")
DIGEST = "sha256:" + "a" * 64


# busy time


def spans(rows):
    """Spans that are seen when they begin."""
    return [(begin, begin, end, name) for name, begin, end in sorted(rows, key=lambda row: row[1])]


def test_calls_at_the_same_time_share_it():
    """a alone for 2 s, with b for 2 s, b alone for 1 s; c later for 1 s."""
    found = dict(cost.shares(spans([("a", 0, 4), ("b", 2, 5), ("c", 8, 9)])))
    assert found == {"a": 3.0, "b": 2.0, "c": 1.0}


def test_a_call_that_waits_has_no_share_yet():
    """One that came first and waited begins after one that came later."""
    found = list(cost.shares([(0, 5, 6, "patient"), (1, 1, 3, "quick"), (4, 4, 4, "refused")]))
    assert found == [("quick", 2.0), ("refused", 0.0), ("patient", 1.0)]


def union(intervals) -> float:
    """The time in which there is one at least, the plain way."""
    total, until = 0.0, -math.inf
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


INTERVALS = st.lists(
    st.tuples(st.floats(0, 1e4), st.floats(0, 50), st.floats(0, 200)), max_size=60
)  # seen, waited, worked


@given(INTERVALS)
@example([(0.0, 0.0, 0.0)])
@example([(5.0, 0.0, 5.0), (5.0, 0.0, 5.0), (10.0, 0.0, 0.0)])
def test_the_shares_add_up_to_the_union(rows):
    """No second is lost or counted twice, whatever overlaps, and no share is larger than the call's own time."""
    rows = sorted((seen, seen + waited, seen + waited + worked) for seen, waited, worked in rows)
    found = list(cost.shares((*row, number) for number, row in enumerate(rows)))
    assert sorted(number for number, _ in found) == list(range(len(rows)))
    total = union((begin, end) for _, begin, end in rows)
    assert math.fsum(share for _, share in found) == pytest.approx(total, abs=1e-6)
    assert all(-1e-6 <= share <= rows[number][2] - rows[number][1] + 1e-6 for number, share in found)


@given(INTERVALS, st.tuples(st.floats(0, 1e4), st.floats(0, 50), st.floats(0, 200)))
def test_a_call_more_never_lowers_the_busy_time(rows, more):
    """It can only take from the others' shares what it takes itself."""

    def busy(rows):
        ordered = sorted((seen, seen + waited, seen + waited + worked, None) for seen, waited, worked in rows)
        return math.fsum(share for _, share in cost.shares(ordered))

    assert busy([*rows, more]) >= busy(rows) - 1e-6


def test_a_long_ledger_is_worked_through_with_few_calls_in_memory():
    """What is held is what is in hand: of 20,000 calls, four at a time, a few at any moment."""
    alive, most = 0, 0

    class Counted:
        def __init__(self):
            nonlocal alive, most
            alive += 1
            most = max(most, alive)

        def __del__(self):
            nonlocal alive
            alive -= 1

    spans = ((float(second), float(second), second + 4.0, Counted()) for second in range(20_000))
    total = math.fsum(share for _, share in cost.shares(spans))
    assert total == pytest.approx(20_003) and most < 20


# rates


def test_what_is_not_set_is_assumed_and_says_so():
    """Each figure is the setting's, or the default that the documents derive."""
    assumed = cost.rates(CostSettings())
    assert {name: getattr(assumed, name).value for name in ASSUMED} == ASSUMED
    assert {getattr(assumed, name).basis for name in ASSUMED} == {Basis.ASSUMED}
    mixed = cost.rates(CostSettings(watts_busy=151))
    assert (mixed.watts_busy.value, mixed.watts_busy.basis) == (151, Basis.SET)
    assert mixed.watts_idle.basis is Basis.ASSUMED


def test_another_currency_converts_what_is_in_dollars():
    """Assumed money and listed prices, and neither watts nor what the owner has set."""
    euro = CostSettings(currency="EUR", usd_rate=0.5, energy_per_kwh=0.3)
    rates, price = cost.rates(euro), PriceList(euro).find("gpt-4o-mini")
    assert rates.machine_per_hour.value == ASSUMED["machine_per_hour"] / 2
    assert (rates.energy_per_kwh.value, rates.watts_idle.value) == (0.3, ASSUMED["watts_idle"])
    assert (price.input, price.currency) == (0.15 / 2, "EUR")


def test_the_reference_gives_the_defaults_that_are_assumed():
    """In each description, as docs/concepts/cost.md derives it."""
    told = (ROOT / "docs/reference/settings.md").read_text()
    for name, value in ASSUMED.items():
        row = next(line for line in told.splitlines() if line.startswith(f"| `cost.{name}` "))
        assert f"null: {value:g}" in row or f"null: {value:.2f} USD" in row, row
        assert f"| `{name}` |" in (ROOT / "docs/concepts/cost.md").read_text()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("machine_per_hour = -1", "machine_per_hour"),
        ("machine_per_hour = nan", "machine_per_hour"),
        ("machine_per_hour = inf", "machine_per_hour"),
        ('watts_idle = "much"', "watts_idle"),
        ("watts_idle = 200", "watts_busy"),
        ("hours_per_day = 0", "hours_per_day"),
        ("hours_per_day = 25", "hours_per_day"),
        ("energy_per_kwh = 1e12", "energy_per_kwh"),
        ('currency = "euro"', "currency"),
        ('currency = "EUR"', "usd_rate"),
        ('currency = "EUR"\nusd_rate = 0', "usd_rate"),
        ("usd_rate = 2", "usd_rate"),
        ("per_hour = 1", "per_hour"),
        ('[cost.prices."gpt-4o-mini"]\ninput = 1', "output"),
        ('[cost.prices."gpt-4o-mini"]\ninput = nan\noutput = 1', "input"),
        ('[cost.prices."gpt-4o-mini"]\ninput = 1\noutput = -1', "output"),
        ('[cost.prices."gpt-4o-mini"]\ninput = 1\noutput = 1\ncache = 1', "cache"),
    ],
)
def test_an_absurd_setting_is_refused(tmp_path, text, named):
    """Negative, endless, no number, unknown, or at odds with another."""
    (tmp_path / "freehold.toml").write_text(f"[cost]\n{text}\n")
    with pytest.raises(BadConfig, match=named):
        config.load(tmp_path, {})


def test_a_machine_that_is_on_by_day_alone():
    """Whole days have their hours; of a day that has begun, as many as have passed."""
    assert cost.on_seconds(0, 8) == cost.on_seconds(-5, 8) == 0
    assert cost.on_seconds(3 * HOUR, 8) == 3 * HOUR
    assert cost.on_seconds(20 * HOUR, 8) == 8 * HOUR
    assert cost.on_seconds(50 * HOUR, 8) == (8 + 8 + 2) * HOUR
    assert cost.on_seconds(50 * HOUR, 24) == 50 * HOUR


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "unknown"), (0, "0.00 USD"), (1234.567, "1,234.57 USD"), (0.01234567, "0.01235 USD"),
     (0.0000123456, "0.00001235 USD"), (-2.5, "-2.50 USD")],
)  # fmt: skip
def test_small_money_keeps_its_figures(value, said):
    """Neither 0.00 nor an exponent."""
    assert cost.money(value, "USD" if value is not None else "") == said


# prices


def test_a_price_is_the_packages_own_figure():
    """gpt-4o-mini by our record costs what the package works out, with its names and dates."""
    price = PriceList(CostSettings()).find("gpt-4o-mini")
    theirs = genai_prices.calc_price(
        genai_prices.Usage(input_tokens=1000, output_tokens=100, cache_read_tokens=300), "gpt-4o-mini"
    )
    assert cost.charge(price, 1000, 100, 300) == pytest.approx(float(theirs.total_price), rel=1e-12)
    assert (price.provider, price.matched, price.basis) == ("OpenAI", "gpt-4o-mini", Basis.LISTED)
    assert price.list == f"genai-prices {genai_prices.__version__}"
    assert price.newest == prices.NEWEST and price.on == datetime.now(UTC).date().isoformat()


def test_the_date_of_the_list_belongs_to_the_version_that_is_pinned():
    """Whoever raises the pin has to look at the new list's dates."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert f"genai-prices =={prices.VERSION}" in wanted
    assert genai_prices.__version__ == prices.VERSION
    assert prices.NEWEST in Path(data_snapshot.__file__).with_name("data.py").read_text()


LISTED = [
    (provider, model)
    for provider in data_snapshot.get_snapshot().providers
    for model in provider.models
    if model.get_prices(datetime(2026, 11, 20, tzinfo=UTC)).input_mtok is not None
]
TOKENS = st.integers(0, 2_000_000)


@given(st.sampled_from(LISTED), TOKENS, TOKENS, st.floats(0, 1))
@settings(max_examples=300, deadline=None)
def test_every_listed_price_is_worked_out_as_the_package_does(listed, prompt, completion, share):
    """Tiers, cached tokens and fees by the call, of any of the two thousand models."""
    provider, model = listed
    when = datetime(2026, 11, 20, tzinfo=UTC)
    cached = int(prompt * share)
    usage = genai_prices.Usage(input_tokens=prompt, output_tokens=completion, cache_read_tokens=cached)
    theirs = model.calc_price(usage, provider, genai_request_timestamp=when).total_price
    ours = PriceList(CostSettings())._price("x", provider, model, model.get_prices(when), when)
    assert cost.charge(ours, prompt, completion, cached) == pytest.approx(float(theirs), rel=1e-9, abs=1e-12)


def test_a_tier_holds_for_all_tokens_of_a_call_that_passes_it():
    """At the border the lower price, one token on the higher."""
    price = msgspec.structs.replace(PRICE, tiers=(Tier(100, 1.0, 2.0, 0.5), Tier(1000, 10.0, 20.0, 5.0)))
    assert cost.charge(price, 100, 10) == pytest.approx((100 * 0.15 + 10 * 0.60) / 1e6)
    assert cost.charge(price, 101, 10, 50) == pytest.approx((51 * 1.0 + 50 * 0.5 + 10 * 2.0) / 1e6)
    assert cost.charge(price, 1001, 10) == pytest.approx((1001 * 10 + 10 * 20) / 1e6)


def test_a_price_of_ones_own_wins_over_the_list():
    """Without a price for cached tokens these cost what the others do."""
    own = CostSettings(prices={"gpt-4o-mini": PriceSettings(7, 8), "ours": PriceSettings(1, 2, 0.5)})
    price, ours = PriceList(own).find("gpt-4o-mini"), PriceList(own).find("ours")
    assert (price.input, price.output, price.cached, price.basis) == (7, 8, 7, Basis.SET)
    assert ours.cached == 0.5 and "cost.prices" in ours.list


@pytest.mark.parametrize("name", ["openai:gpt-4o-mini", "openai/gpt-4o-mini", "GPT-4o-mini"])
def test_a_provider_may_stand_before_the_name(name):
    """Either way of writing it, and the case does not matter."""
    assert PriceList(CostSettings()).find(name).matched == "gpt-4o-mini"


def test_where_a_model_is_reached_says_whose_it_is():
    """The same open model costs another price with each provider."""
    listed = PriceList(CostSettings())
    assert listed.find("llama-3.3-70b-versatile") is None
    there = listed.find("llama-3.3-70b-versatile", url="https://api.groq.com/openai/v1")
    assert there.provider == "Groq" and there.input > 0


def test_a_call_has_the_price_of_its_day():
    """Where the list knows of a change, calls before it cost the old price."""
    changed = [
        (provider, model)
        for provider, model in LISTED
        if isinstance(model.prices, list) and hasattr(model.prices[-1].constraint, "start_date")
    ]
    provider, model = changed[0]
    listed = PriceList(CostSettings())
    starts = model.prices[-1].constraint.start_date
    noon = datetime(starts.year, starts.month, starts.day, 12, tzinfo=UTC).timestamp()
    name = f"{provider.id}:{model.id}"
    before, after = listed.find(name, noon - 86_400 * 2), listed.find(name, noon + 86_400)
    assert before != after and before.on < starts.isoformat() <= after.on


@pytest.mark.parametrize("name", ["smollm2-135m-instruct", "nonesuch", "claude-distill-1b", ":", "x:", "openai:", " "])
def test_an_unknown_model_has_no_price(name):
    """None, and a sentence with the setting that would give it one."""
    assert PriceList(CostSettings()).find(name) is None
    assert f'[cost.prices."{name}"]' in prices.unknown(name)


def test_prices_need_no_network():
    """A price is found where no socket can be opened."""
    program = """
import socket
def refused(*arguments, **options):
    raise AssertionError("somebody opened a socket")
socket.socket.__init__ = refused
socket.getaddrinfo = refused
from freehold.config import CostSettings
from freehold.prices import PriceList
assert PriceList(CostSettings()).find("gpt-4o-mini").output == 0.6
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_server_never_loads_the_price_list():
    """It comes with a client for HTTP, which has no place in the gateway."""
    program = (
        "import sys, freehold.app, freehold.cli.up, freehold.cost, freehold.cli.cost\n"
        "sys.exit(bool({'genai_prices', 'httpx2', 'pydantic'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


# a task


def replayed(number: int, *, ms: float = 1800.0, prompt=400, cached=0, completion=50, text="x" * 100) -> Replayed:
    """An answer, one after the other."""
    return Replayed(f"s{number}", Answer(text), "", Usage(prompt, completion, cached), 1.0, ms, 1e9 + number * 10)


def test_the_worked_example_of_the_documents():
    """docs/concepts/cost.md says these very figures."""
    found = cost.of_answers("t", CANDIDATE, [(replayed(1), Answer("y" * 100))], price=PRICE, rates=RATES)
    text = (ROOT / "docs/concepts/cost.md").read_text()
    assert found.fixed_per_day.value == pytest.approx(24 * (0.10 + 0.05 * 0.20)) == pytest.approx(2.64)
    assert found.marginal_per_call.value == pytest.approx(1.8 / 3600 * 0.1 * 0.20) == pytest.approx(0.00001)
    assert found.rented_per_call.value == pytest.approx((400 * 0.15 + 50 * 0.60) / 1e6) == pytest.approx(0.00009)
    assert found.break_even_calls_per_day.value == pytest.approx(33_000)
    assert found.capacity_calls_per_day.value == pytest.approx(48_000)
    assert found.owned_per_call.value == pytest.approx(1.8 / 3600 * (0.10 + 0.150 * 0.20)) == pytest.approx(0.000065)
    for figure in ("2.64", "0.00001", "0.00009", "33,000", "48,000", "0.000065"):
        assert figure in text, figure
    assert "from 33,000 calls a day on" in cost.sentence(found)


def test_the_sums_of_a_task_by_hand():
    """Two answered calls, one of them in part at the same time as the other, and one that failed."""
    one = Replayed("a", Answer("x" * 10), "", Usage(100, 20, 30), 1.0, 4000.0, 1e9 + 4)
    two = Replayed("b", Answer("x" * 10), "", Usage(200, 40, 0), 1.0, 3000.0, 1e9 + 5)
    none = Replayed("c", None, "engine_failed: it died", total_ms=9e9, at=1e9)
    pairs = [(one, Answer("y" * 30)), (two, None), (none, Answer("z"))]
    found = cost.of_answers("t", CANDIDATE, pairs, price=PRICE, rates=RATES)
    assert (found.calls, found.failed) == (2, 1)
    assert (found.prompt_tokens, found.completion_tokens, found.cached_tokens) == (300, 60, 30)
    assert found.busy_seconds.value == pytest.approx(5.0)  # from 0 to 4 and from 2 to 5
    assert found.rented_completion == pytest.approx(
        30 * 60 / 20 + 40
    )  # three tokens a character; its own where unknown
    rented = (70 * 0.15 + 30 * 0.075 + 90 * 0.60 + 200 * 0.15 + 40 * 0.60) / 1e6
    assert found.rented.value == pytest.approx(rented)
    assert found.rented_uncached.value == pytest.approx(rented + 30 * 0.075 / 1e6)
    assert found.machine.value == pytest.approx(5 / 3600 * 0.10)
    assert found.energy.value == pytest.approx(5 / 3600 * 0.150 * 0.20)
    bases = (found.busy_seconds.basis, found.machine.basis, found.energy.basis, found.rented.basis)
    assert bases == (Basis.MEASURED, Basis.ESTIMATE, Basis.ESTIMATE, Basis.ESTIMATE)
    assert any("cache" in note for note in found.notes)


def test_the_answer_is_as_long_as_its_text_and_tools():
    """An incumbent that calls a tool has said that much."""
    tool = Answer("", (ToolCall("find", '{"a": 1}'),))
    found = cost.of_answers("t", CANDIDATE, [(replayed(1, text="x" * 50), tool)], price=PRICE, rates=RATES)
    assert found.rented_completion == pytest.approx(len("find") + len('{"a": 1}'))  # a token a character


def test_an_unknown_price_is_never_zero():
    """Rented, break-even and saving are not known, and say what would make them so."""
    found = cost.of_answers(
        "t", CANDIDATE, [(replayed(1), None)], price=None, missing=prices.unknown("huge"), rates=RATES, calls_per_day=9
    )
    for figure in (found.rented, found.rented_uncached, found.rented_per_call, found.break_even_calls_per_day):
        assert figure.value is None and '[cost.prices."huge"]' in figure.source
    assert found.day.rented is None and found.day.owned > 0
    assert "not known" in cost.sentence(found) and '[cost.prices."huge"]' in cost.sentence(found)


def test_no_call_costs_nothing_that_could_be_said():
    """Without an answer there is no figure for a call, and the day's fixed cost is there all the same."""
    for pairs in ([], [(Replayed("a", None, "failed: x"), None)]):
        found = cost.of_answers("t", CANDIDATE, pairs, price=PRICE, rates=RATES, calls_per_day=5)
        assert found.calls == 0 and found.day is None
        assert found.rented_per_call.value is found.owned_per_call.value is found.break_even_calls_per_day.value is None
        assert found.fixed_per_day.value == pytest.approx(2.64)
        assert "no call was answered" in cost.sentence(found)


def test_where_a_calls_energy_costs_more_than_renting_owning_never_pays():
    """There the lines go apart."""
    slow = cost.of_answers("t", CANDIDATE, [(replayed(1, ms=3_600_000.0), None)], price=PRICE, rates=RATES)
    assert slow.break_even_calls_per_day.value is None
    assert "never" in slow.break_even_calls_per_day.source and "never" in cost.sentence(slow)


def test_a_break_even_beyond_the_capacity_is_said_plainly():
    """Ten seconds a call: the machine cannot answer so many, and says what a call costs when it is always busy."""
    found = cost.of_answers("t", CANDIDATE, [(replayed(1, ms=10_000.0), None)], price=PRICE, rates=RATES)
    point, most = found.break_even_calls_per_day.value, found.capacity_calls_per_day.value
    assert most == pytest.approx(8640) and point > most
    assert "beyond the capacity" in found.break_even_calls_per_day.source
    assert "does not pay" in cost.sentence(found)
    assert cost.day(RATES, most, 10.0).owned / most > found.rented_per_call.value


MONEY = st.floats(1e-6, 1e4)


@given(MONEY, MONEY, MONEY)
def test_at_the_break_even_the_two_lines_cross(fixed, rented, marginal):
    """Owning and renting cost the same there; a tenth before it renting is cheaper, a tenth after it owning."""
    point = cost.break_even(fixed, rented, marginal)
    if rented <= marginal:
        assert point is None
        return
    assert fixed + point * marginal == pytest.approx(point * rented, rel=1e-6)
    assert fixed + 0.9 * point * marginal > 0.9 * point * rented
    assert fixed + 1.1 * point * marginal < 1.1 * point * rented


@given(st.floats(1, 1e6), st.floats(1e-3, 100), st.floats(0.5, 24))
def test_the_parts_of_a_day_are_its_fixed_cost_and_that_of_its_calls(calls, busy, hours):
    """However it is shared out between busy and idle, and however many machines it takes; nothing is negative."""
    rates = cost.rates(msgspec.structs.replace(OWN, hours_per_day=hours))
    day = cost.day(rates, calls, busy, 0.001)
    fixed = day.machines * hours * rates.idle_per_hour
    assert day.owned == pytest.approx(fixed + calls * busy / HOUR * rates.extra_per_hour, rel=1e-9)
    assert day.busy_seconds + day.idle_seconds == pytest.approx(day.machines * hours * HOUR)
    assert min(day.machine, day.energy) >= 0 and min(day.idle_machine, day.idle_energy, day.idle_seconds) > -1e-3
    assert (day.machines - 1) * hours * HOUR <= calls * busy + 1e-3
    assert day.rented == calls * 0.001


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 500), st.floats(0, 5e3)), min_size=1, max_size=20))
def test_a_call_more_never_lowers_a_tasks_sums(rows):
    """Money, energy, tokens and time."""
    found = [
        cost.of_answers(
            "t", CANDIDATE,
            [(replayed(n, ms=ms, prompt=prompt, completion=said), None) for n, (prompt, said, ms) in enumerate(some)],
            price=PRICE, rates=RATES,
        )
        for some in (rows[:-1], rows)
    ]  # fmt: skip
    for name in ("busy_seconds", "machine", "energy", "rented", "rented_uncached"):
        before, after = (getattr(costs, name).value or 0.0 for costs in found)
        assert after >= before - 1e-9


def outline(number: int, at: float = 0.0, incumbent: str = "big") -> Outline:
    return Outline(f"s{number}", at, f"s{number}", None, 400, 100, False, incumbent)


def test_who_the_incumbent_is():
    """The task says it, or the recorded calls, or the name that the application sends."""
    from freehold.cost.task import incumbent_price

    some = {"big": PriceSettings(1, 1), "other": PriceSettings(2, 2), "alias": PriceSettings(3, 3)}
    listed = PriceList(CostSettings(prices=some))
    mixed = [outline(1), outline(2), outline(3, incumbent="other")]
    priced, _, _ = incumbent_price(Task("t", {}, 0.03, price="other"), mixed, listed)
    recorded, _, notes = incumbent_price(Task("t", {}, 0.03, alias="alias"), mixed, listed)
    named, _, _ = incumbent_price(Task("t", {}, 0.03, alias="alias"), [outline(1, incumbent="")], listed)
    nobody, missing, _ = incumbent_price(Task("t", {}, 0.03), [], listed)
    assert (priced.model, recorded.model, named.model) == ("other", "big", "alias")
    assert "2 models" in notes[0] and nobody is None and "task's file" in missing


def test_how_often_a_task_is_asked_is_read_from_real_times_alone():
    """Places in an order are no times, and less than a day says nothing."""
    day = 86_400.0
    assert cost.rhythm([outline(n, 1e9 + n * day / 10) for n in range(21)]) == pytest.approx(21 / 2)
    assert cost.rhythm([outline(n, float(n)) for n in range(9)]) is None
    assert cost.rhythm([outline(n, 1e9 + n) for n in range(9)]) is None and cost.rhythm([]) is None


# the ledger


def call(number: int, at: float, **more) -> Call:
    """An answered call of this house that had its turn at once and took a second."""
    usual = {
        "id": f"req_{number:04}", "opened_at": at, "caller": "ann", "kind": "chat.completions", "outcome": "answered",
        "status": 200, "error": None, "model": "m", "digest": DIGEST, "prompt_tokens": 1000, "completion_tokens": 100,
        "cached_tokens": 0, "first_token_ms": None, "total_ms": 5000.0, "left_the_house": False, "waited_ms": 0.0,
        "engine_ms": 1000.0,
    }  # fmt: skip
    return Call(**usual | more)


NAMED = cost.Named(PriceList(msgspec.structs.replace(OWN, prices={"big": PriceSettings(1.0, 2.0, 0.5)})))


def spent(calls, named=NAMED, **more):
    more = {"ended": 1e9 + 3600} | more
    return cost.spending(calls, named, RATES, **more)


def test_the_sums_of_the_ledger_by_hand():
    """Two calls here, of which one waits for the other in part, one that left, one that was refused: an hour in all."""
    found = spent(
        [
            call(1, 1e9, model="big", engine_ms=4000.0, cached_tokens=400),
            call(2, 1e9 + 1, waited_ms=1000.0, engine_ms=3000.0, caller="bob"),
            call(3, 1e9 + 2, model="big", left_the_house=True, digest=None, engine_ms=9e9),
            call(4, 1e9 + 3, outcome="refused", digest=None, prompt_tokens=0, completion_tokens=0, engine_ms=0.0),
        ]
    )
    ann, bob = (next(row for row in found.rows if row.key == key) for key in ("ann", "bob"))
    assert (ann.busy_seconds, bob.busy_seconds) == (pytest.approx(3.0), pytest.approx(2.0))
    assert (ann.calls, ann.here, ann.left, bob.calls) == (3, 2, 1, 1)
    assert ann.machine == pytest.approx(3 / 3600 * 0.10) and ann.energy == pytest.approx(3 / 3600 * 0.150 * 0.20)
    assert ann.paid == pytest.approx((1000 * 1.0 + 100 * 2.0) / 1e6)
    assert ann.spared == pytest.approx((600 * 1.0 + 400 * 0.5 + 100 * 2.0) / 1e6)
    assert (bob.spared, bob.unpriced_here, found.unpriced) == (0.0, 1, ("m",))
    assert (found.on_seconds, found.busy_seconds) == (pytest.approx(3600), pytest.approx(5.0))
    assert found.idle_machine.value == pytest.approx(3595 / 3600 * 0.10)
    assert found.idle_energy.value == pytest.approx(3595 / 3600 * 0.050 * 0.20)
    assert found.kwh.value == pytest.approx((3595 * 50 + 5 * 150) / 3600 / 1000)
    assert (found.total.calls, found.total.unpriced_here) == (4, 1)


def test_energy_that_was_counted_is_no_estimate():
    """A call with joules costs them; the figure is measured where all have some, and says how many where not."""
    counted = [call(1, 1e9, joules=7200.0), call(2, 1e9 + 5, joules=0.0)]
    found = spent(counted)
    assert found.energy.value == pytest.approx(0.002 * 0.20) and found.energy.basis == "measured"
    assert (found.total.kwh, found.total.metered) == (pytest.approx(0.002), 2)
    assert found.kwh.value == pytest.approx(0.002 + found.idle_seconds * 50 / 3.6e6)
    mixed = spent([*counted, call(3, 1e9 + 9), call(4, 1e9 + 20, joules=5.0, left_the_house=True)])
    assert mixed.energy.basis == "estimate" and "2 calls by the machine's own counters" in mixed.energy.source
    assert mixed.energy.value == pytest.approx(0.002 * 0.20 + 1 / 3600 * 0.150 * 0.20)
    assert spent([call(3, 1e9)]).energy.basis == "estimate"


def test_calls_by_the_name_that_was_asked_for():
    """An alias has a row of its own, whatever model answered it."""
    calls = [call(1, 1e9, alias="helper"), call(2, 1e9 + 2, alias="helper", model="other"), call(3, 1e9 + 4)]
    assert {row.key: row.calls for row in spent(calls, by="alias").rows} == {"helper": 2, "m": 1}


def test_what_nobody_knows_is_counted_and_said():
    """Calls cut off by a crash, calls of before the times were kept, and answers of others without counts."""
    old = {"waited_ms": None, "engine_ms": None}
    found = spent(
        [
            call(1, 1e9, outcome="interrupted", total_ms=None, **old),
            call(2, 1e9 + 1, total_ms=2000.0, **old),
            call(3, 1e9 + 9, left_the_house=True, digest=None, prompt_tokens=0, completion_tokens=0),
            call(4, 1e9 + 9, left_the_house=True, digest=None, model="nonesuch"),
        ]
    )
    assert (found.untimed, found.untimed_slots, found.busy_seconds) == (1, 1, pytest.approx(2.0))
    assert (found.total.paid, found.total.unpriced_left) == (0.0, 2)
    said = " ".join(found.notes)
    assert '[cost.prices."nonesuch"]' in said and "no token counts" in said and "how long they took" in said


def test_counting_tokens_is_charged_by_nobody():
    """messages.count_tokens has tokens and no price."""
    found = spent([call(1, 1e9, kind="messages.count_tokens", completion_tokens=0)])
    assert (found.total.spared, found.total.unpriced_here, found.unpriced) == (0.0, 0, ())


def test_a_name_means_what_the_house_makes_of_it():
    """A task's alias is priced as the task says, an upstream's model by its name there, and a model of the house has no
    price with others unless one was set."""
    named = cost.Named(
        PriceList(CostSettings(prices={"own-set": PriceSettings(9, 9)})), {"helper": "gpt-4o-mini"},
        {"theirs": ("llama-3.3-70b-versatile", "https://api.groq.com/openai/v1")}, frozenset({"gpt-4o", "own-set"}),
    )  # fmt: skip
    price = lambda **more: named.price(call(1, 1.79e9, **more))  # noqa: E731
    assert price(model="helper").matched == price(model="gpt-4o-mini").matched == "gpt-4o-mini"
    assert price(model="theirs", left_the_house=True).provider == "Groq"
    assert price(model="gpt-4o") is None and price(model="own-set").input == 9
    assert price(model="gpt-4o", left_the_house=True).matched == "gpt-4o"


def test_a_call_that_reached_no_model_makes_no_row_of_its_own():
    """Otherwise anybody with a key could fill the report."""
    lost = {"digest": None, "outcome": "refused", "prompt_tokens": 0, "completion_tokens": 0, "engine_ms": 0.0}
    found = spent(
        [call(n, 1e9 + n, model=f"made-up-{n}", **lost) for n in range(50)] + [call(99, 1e9 + 99)], by="model"
    )
    assert {row.key: row.calls for row in found.rows} == {"m": 1, "(no model)": 50}


def test_no_call_at_all_leaves_the_idle_machine():
    """Every sum is 0, and the hour that the machine was on costs what it costs."""
    found = spent([], began=1e9)
    assert found.rows == () and found.total.calls == 0 and found.busy_seconds == 0
    assert found.idle_machine.value == pytest.approx(0.10)
    assert spent([]).on_seconds == 0


ROWS = st.lists(
    st.tuples(st.floats(0, 3000), st.floats(0, 2e4), st.floats(0, 2e4), st.sampled_from(["ann", "bob"]), st.booleans()),
    max_size=40,
)


@given(ROWS)
@settings(deadline=None)
def test_the_rows_of_a_report_add_up(rows):
    """To its total, whose machine cost, with the idle time's, is that of all the time that the machine was on."""
    calls = [
        call(number, 1e9 + at, waited_ms=waited, engine_ms=worked, caller=caller, left_the_house=left, model="big")
        for number, (at, waited, worked, caller, left) in enumerate(sorted(rows))
    ]
    found = spent(calls, began=1e9)
    for name in ("calls", "here", "left", "busy_seconds", "machine", "energy", "paid", "spared"):
        assert math.fsum(getattr(row, name) for row in found.rows) == pytest.approx(getattr(found.total, name))
    whole = found.machine.value + found.idle_machine.value
    assert whole == pytest.approx(found.on_seconds / 3600 * 0.10, rel=1e-6)
    more = spent([*calls, call(99, 1e9 + 3500, model="big")], began=1e9)
    assert more.busy_seconds >= found.busy_seconds - 1e-6 and more.total.spared >= found.total.spared


# the command


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A home with a task, a candidate's answers to it, and a ledger."""
    folder = tmp_path_factory.mktemp("cost") / "home"
    task = folder.parent / "tickets.toml"
    task.write_text('name = "tickets"\nmargin = 0.03\nalias = "gpt-4o-mini"\n[scorer]\nkind = "exact"\n')
    made = Home(folder, create=True)
    (folder / "freehold.toml").write_text("[cost]\nmachine_per_hour = 0.10\nwatts_idle = 50\n")
    with app.parts(made, config.load(folder, {})) as parts:
        parts.tasks.add(task)
        day, request = 86_400.0, {"messages": [{"role": "user", "content": "x" * 50}]}
        samples = [
            Sample(
                f"s{n}", request | {"seed": n}, answer=Answer("y" * 200), incumbent="gpt-4o-mini", at=1e9 + n * day / 4
            )
            for n in range(12)
        ]
        parts.samples.keep("tickets", samples)
        small = parts.results.candidate("small", DIGEST, {}, "e")
        parts.results.put_answers("tickets", small.key, [replayed(n) for n in range(10)])
        theirs = parts.results.candidate("=theirs", "", {}, "e")
        parts.results.put_answers("tickets", theirs.key, [replayed(n) for n in range(10)])
        now = time.time() - 7200
        rows = [call(n, now + n, model="gpt-4o-mini", caller="=ann" if n % 2 else "bob") for n in range(20)]
        rows += [call(90, now + 90, model="gpt-4o", left_the_house=True, digest=None)]
        with parts.store.write() as connection:
            connection.execute(insert(table), [msgspec.structs.asdict(row) for row in rows])
    return folder


def told(home: Path, *words: str) -> str:
    done = cli("cost", *words, home=home)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_tasks_costs_are_shown_with_where_each_is_from(home):
    """The sentence, both costs, idle time, break-even, what is assumed, the list's date, and a picture."""
    said = told(home, "tickets", "--candidate", "small", "--calls-per-day", "1000")
    for words in (
        "tickets, answered by small", "Owning is cheaper from", "for 1,000 calls", "a day on which nobody calls",
        "genai-prices 0.2.3, newest entry 2026-11-04", "(assumed)", "(set)", "with 1,000 calls", "idle hours",
        "people, taxes", "owned, 100 a day", "rented",
    ):  # fmt: skip
        assert words in said, words
    assert "machine_per_hour" not in said.partition("assumed  ")[2].partition("\n")[0]


def test_a_tasks_costs_for_programs(home):
    """The records themselves, which can be read back; and a line for spreadsheets."""
    from freehold.types import Costs

    (found,) = msgspec.json.decode(told(home, "tickets", "--json"), type=list[Costs])
    assert (found.task, found.candidate, found.calls) == ("tickets", "small", 10)
    assert found.day.calls == pytest.approx(12 / 2.75) and found.rented_completion == pytest.approx(10 * 100)
    (row,) = csv.DictReader(io.StringIO(told(home, "tickets", "--csv")))
    assert float(row["rented"]) == found.rented.value and row["price_list"] == "genai-prices 0.2.3"


def test_a_task_that_nobody_answered_has_a_rented_cost_alone(home, tmp_path):
    """By the length of its texts, and it says so."""
    task = tmp_path / "bare.toml"
    task.write_text('name = "bare"\nmargin = 0.03\nprice = "gpt-4o-mini"\n[scorer]\nkind = "exact"\n')
    with app.parts(Home(home, create=False), config.load(home, {})) as parts:
        parts.tasks.add(task)
        parts.samples.keep("bare", [Sample("b1", {"messages": []}, answer=Answer("y" * 400))])
    said = told(home, "bare")
    assert "4 characters each" in said and "owning is not known" in said.lower() and "0.0" in said
    (found,) = json.loads(told(home, "bare", "--json"))
    assert found["owned_per_call"]["value"] is None and found["rented_completion"] == 100


def test_the_ledgers_costs_are_shown(home):
    """By key, with the time that nobody called, what was paid to others, and what is assumed."""
    said = told(home)
    for words in ("KEY", "bob", "all", "in which nobody called", "paid", "spared", "kWh", "assumed"):
        assert words.lower() in said.lower(), words
    found = json.loads(told(home, "--json"))
    assert {row["key"]: row["calls"] for row in found["rows"]} == {"bob": 10, "=ann": 10, "ann": 1}
    assert found["total"]["paid"] == pytest.approx((1000 * 2.5 + 100 * 10) / 1e6)
    assert found["busy_seconds"] == pytest.approx(20.0) and found["idle_seconds"] > 7000


def test_the_ledger_by_model_day_and_call(home):
    """As a table, for spreadsheets and for programs; no cell is a formula."""
    rows = list(csv.DictReader(io.StringIO(told(home, "--by", "model", "--csv"))))
    assert {row["model"]: int(row["calls"]) for row in rows} == {"gpt-4o-mini": 20, "gpt-4o": 1}
    assert sum(int(row["calls"]) for row in csv.DictReader(io.StringIO(told(home, "--by", "day", "--csv")))) == 21
    calls = list(csv.DictReader(io.StringIO(told(home, "--by", "call", "--csv"))))
    assert len(calls) == 21 and {row["caller"] for row in calls} == {"'=ann", "ann", "bob"}
    assert len(json.loads(told(home, "--by", "call", "--json"))) == 21
    assert "req_0000" in told(home, "--by", "call")
    by_key = cli("ledger", "--by", "key", "--json", home=home)
    assert json.loads(by_key.stdout)["total"]["calls"] == 21


def test_a_time_of_the_ledger(home):
    """From one moment to another: the machine was on in between, and calls outside do not count."""
    began = time.time() - 7200 + 10.5
    iso = [datetime.fromtimestamp(began + seconds).isoformat() for seconds in (0, 3600)]
    found = json.loads(told(home, "--since", iso[0], "--until", iso[1], "--json"))
    assert found["on_seconds"] == pytest.approx(3600, abs=1) and 0 < found["total"]["calls"] < 21
    assert json.loads(told(home, "--until", "2001-01-01", "--json"))["total"]["calls"] == 0
    assert told(home, "--until", "2001-01-01", "--by", "call", "--json").strip() == "[]"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nonesuch",), "nonesuch"),
        (("tickets", "--candidate", "nonesuch"), "has not answered"),
        (("tickets", "--candidate", "=theirs"), "somebody else's machine"),
        (("tickets", "--calls-per-day", "0"), "no number of calls"),
        (("tickets", "--calls-per-day", "nan"), "no number of calls"),
        (("tickets", "--by", "day"), "about the ledger"),
        (("--candidate", "small"), "about a task"),
        (("--since", "yesterday"), "no date"),
        (("--since", "2026-05-03", "--until", "2026-05-02"), "not after"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(home, words, said):
    """With exit code 2."""
    done = cli("cost", *words, home=home)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_the_ledgers_own_flags_go_with_by(home):
    """--csv without it would print nothing of use."""
    done = cli("ledger", "--csv", home=home)
    assert done.returncode == 2 and "--by" in done.stderr
