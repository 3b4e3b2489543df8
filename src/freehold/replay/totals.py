"""What came of a candidate's calls, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from msgspec import Struct

from freehold.replay.run import code_of
from freehold.types import Replayed


class Totals(Struct, frozen=True):
    """What came of some calls. Times are in milliseconds, of those that were answered; ``errors`` counts by code."""

    calls: int
    answered: int
    errors: dict[str, int]
    prompt_tokens: int
    completion_tokens: int
    first_token_ms: tuple[float, float] | None  # median and 95th percentile
    total_ms: tuple[float, float] | None


def totals(found: Mapping[str, Replayed], ids: Iterable[str]) -> Totals:
    """What came of the calls with these ids, as far as something did."""
    come = [found[id] for id in ids if id in found]
    answered = [replayed for replayed in come if replayed.answer is not None]
    errors = Counter(code_of(replayed.error) for replayed in come if replayed.error)
    return Totals(
        len(come), len(answered), dict(sorted(errors.items())),
        sum(replayed.usage.prompt for replayed in come), sum(replayed.usage.completion for replayed in come),
        _middle_and_tail([replayed.first_token_ms for replayed in answered if replayed.first_token_ms is not None]),
        _middle_and_tail([replayed.total_ms for replayed in answered]),
    )  # fmt: skip


def _middle_and_tail(values: list[float]) -> tuple[float, float] | None:
    """The median and the 95th percentile, each a value that was measured (nearest rank)."""
    ordered = sorted(values)
    rank = [ordered[-(-len(ordered) * percent // 100) - 1] for percent in (50, 95)] if ordered else []
    return (rank[0], rank[1]) if rank else None
