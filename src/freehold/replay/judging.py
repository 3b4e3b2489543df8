"""A judge's comparisons of recorded calls, asked of the running gateway one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from freehold.replay.asker import Asker
from freehold.scorers import Judge
from freehold.types import Answer, Comparison, Kind, Progress, Score


def compare(asker: Asker, judge: Judge, rows: Sequence[Comparison], tell: Progress) -> dict[str, Score]:
    """What the judge says of each row, by the call's id: one at a time, so that it says the same another time."""

    async def ask(body: dict[str, Any]) -> Answer:
        return (await asker.ask(Kind.CHAT, body)).answer

    async def every() -> dict[str, Score]:
        found = {}
        for done, row in enumerate(rows, start=1):
            found[row.sample.id] = await judge.compare(row.sample, row.incumbent, row.candidate, ask)
            tell("judging", done, len(rows))
        return found

    return asyncio.run(every())
