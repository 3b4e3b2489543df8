"""What was called, newest first: who, which model, how many tokens, how long, and how it ended. No text is kept.

With --by: how many calls, tokens and how much money in all, for each key, team, model, alias or day (see 'freehold
cost')."""

from __future__ import annotations

import argparse

import msgspec

from freehold import cost
from freehold.cli import local, spending
from freehold.errors import CannotDo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``freehold ledger``."""
    parser.add_argument("--limit", type=int, default=50, help="how many calls (default 50)")
    parser.add_argument("--by", choices=cost.BY, help="sums with what they cost, a line for each")
    spending.add_time(parser)
    spending.add_form(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the calls, or their sums."""
    if arguments.by:
        return spending.show(arguments)
    if arguments.since or arguments.until or arguments.csv:
        raise CannotDo("--since, --until and --csv go with --by.", hint="'freehold cost --by call --csv' lists calls.")
    with local.opened(arguments) as parts:
        calls = parts.ledger.calls(max(0, min(arguments.limit, 10**9)))
    if arguments.json:
        local.print_json([msgspec.to_builtins(call) for call in calls])
        return 0
    head = (
        "ID",
        "TIME",
        "CALLER",
        "KIND",
        "ALIAS",
        "MODEL",
        "PROMPT",
        "CACHED",
        "ANSWER",
        "FIRST MS",
        "TOTAL MS",
        "LEFT",
        "OUTCOME",
    )
    local.table([_row(call) for call in calls], head)
    if len(calls) == arguments.limit:
        print(f"The latest {len(calls)}; --limit shows more.")
    return 0


def _row(call) -> tuple[str, ...]:
    outcome = call.outcome or "open"
    if call.error:
        outcome += f" ({call.error})"
    who = (call.id, local.when(call.opened_at), call.caller, call.kind, call.alias or "", call.model or "")
    tokens = (str(call.prompt_tokens), str(call.cached_tokens), str(call.completion_tokens))
    return (
        *who,
        *tokens,
        _ms(call.first_token_ms),
        _ms(call.total_ms),
        "yes" if call.left_the_house else "no",
        outcome,
    )


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"
