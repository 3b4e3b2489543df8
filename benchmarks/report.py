"""The page of a benchmark's results. No absolute figure stands alone: beside each is its ratio to the reference."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable

REFERENCE = "LiteLLM proxy"
DIRECT = "direct to the mock"

HEAD = """# Benchmarks

<!-- written by 'make bench'; run it to have your own -->

Measured on {date} with `{command}`: {rounds} rounds, {seconds:g} s each measurement, medians over the rounds with the
lowest and highest in brackets. {cpu}, {cores} cores, {memory_gib} GiB, Linux {kernel}, Python {python}.

Each contestant has one core and stands before the same pretended engine, which shares the other core with the load
generator; they take turns. "direct to the mock" is what those two can do by themselves. Absolute figures hold for this
machine at that hour; the ratios, in bold, are to {reference} in the same run. {network}

A whole answer has one token, the case in which a gateway weighs most. Freehold asks its engine for a stream even where
the client wants a whole answer (it can then end the work at once, and knows the count), so it alone is sent
four events for it. Streams have 31 events.

*Every rule on* is Freehold with all that a house can ask for of each call: a key in a team, both under rates and under
budgets of tokens and of money, a guard that reads the prompt for every kind, a log line, a trace that is sent to a
collector, and checkpoints outside; its relay's time counts as the gateway's. The others have none of it.
"""


def page(result: dict) -> str:
    """The whole page."""
    rows = result["contestants"]
    machine = result["machine"]
    network = "All of it ran in a network namespace with loopback alone." if result["own_network"] else ""
    parts = [
        HEAD.format(
            **{name: result[name] for name in ("date", "command", "rounds", "seconds")},
            **machine, reference=REFERENCE, network=network,
        ),
        contestants(rows, result["missing"]),
        section("Whole answers a second", "", rows, [
            (f"{count} connections", over(f"whole_{count}", "requests_per_s"), "{:,.0f}") for count in (1, 16, 64)
        ]),
        section(
            "Time added to one call after the other",
            "Milliseconds more than straight from the mock, in the same round.",
            rows,
            [(f"p{quantile}", added("whole_1", "total_ms", f"p{quantile}", rows), "{:.2f}") for quantile in (50, 99)],
            leave_out=(DIRECT,),
        ),
        section("64 streams at once", "", rows, [
            ("streams a second", over("stream_64", "requests_per_s"), "{:,.0f}"),
            ("events a second", over("stream_64", "events_per_s"), "{:,.0f}"),
        ]),
        section(
            "Time added to the first event",
            "Milliseconds more than straight from the mock; ten streams begin each second, whatever becomes of others.",
            rows,
            [(quantile, added("stream_open", "first_ms", quantile, rows), "{:.2f}") for quantile in ("p50", "p99")],
            leave_out=(DIRECT,),
        ),
        section(
            "What it takes",
            "The gateway's processor time for a whole answer at 16 connections, memory at rest, start to first answer.",
            rows,
            [
                ("microseconds a request", over("whole_16", "cpu_us"), "{:,.0f}"),
                ("resident, MB", lambda one, _: one["rest_mb"], "{:.0f}"),
                ("start, s", lambda one, _: one["start_s"], "{:.1f}"),
            ],
            leave_out=(DIRECT,),
        ),
        memory(rows),
        decode(result["decode"]),
    ]  # fmt: skip
    return "\n".join(part for part in parts if part)


def contestants(rows: dict, missing: dict) -> str:
    """Who took part."""
    lines = ["## Contestants", "", "| | version | governed |", "| --- | --- | --- |"]
    lines += [f"| {name} | {row['version']} | {row['governed']} |" for name, row in rows.items()]
    lines += [f"| {name} | did not take part: {reason} | |" for name, reason in missing.items()]
    for name, row in rows.items():
        if failed := [one["failed"] for one in row["rounds"] if "failed" in one]:
            lines.append(f"\n{name} failed in {len(failed)} of {len(row['rounds'])} rounds: {failed[0]}.")
    return "\n".join([*lines, ""])


Value = Callable[[dict, int], float]


def over(run: str, name: str) -> Value:
    """A figure of one run in a round."""
    return lambda one, _: one[run][name]


def added(run: str, name: str, quantile: str, rows: dict) -> Value:
    """How much more a quantile is than that of the mock itself in the same round."""
    return lambda one, number: one[run][name][quantile] - rows[DIRECT]["rounds"][number][run][name][quantile]


def section(
    title: str, said: str, rows: dict, columns: list[tuple[str, Value, str]], leave_out: Iterable[str] = ()
) -> str:
    """A table with a row for each contestant and two columns for each figure: the figure, and its ratio."""
    heads = "".join(f" {head} | |" for head, _, _ in columns)
    lines = [
        f"## {title}",
        "",
        *([said, ""] if said else []),
        f"| |{heads}",
        "| --- |" + " ---: | ---: |" * len(columns),
    ]
    for name, row in rows.items():
        if name not in leave_out:
            cells = "".join(_cells(row, rows.get(REFERENCE), value, shape) for _, value, shape in columns)
            lines.append(f"| {name} |{cells}")
    return "\n".join([*lines, ""])


def _cells(row: dict, reference: dict | None, value: Value, shape: str) -> str:
    figures = _figures(row, value)
    if not figures:
        return " failed | |"
    middle = statistics.median(figures)
    ratio = ""
    if reference and (theirs := _figures(reference, value)):
        ratio = _ratio(middle, statistics.median(theirs))
    return f" {shape.format(middle)} ({shape.format(min(figures))} to {shape.format(max(figures))}) | {ratio} |"


def _figures(row: dict, value: Value) -> list[float]:
    return [value(one, number) for number, one in enumerate(row["rounds"]) if "failed" not in one]


def _ratio(ours: float, theirs: float) -> str:
    ratio = ours / theirs if theirs else 0.0
    return f"**{ratio:.1f}x**" if ratio >= 1 else f"**{ratio:.3f}x**"


def memory(rows: dict) -> str:
    """Resident memory before and after many requests."""
    lines = [
        "## Memory after many requests",
        "",
        "| | requests | before, MB | after, MB | |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    reference = rows.get(REFERENCE, {}).get("soak", {}).get("after_mb")
    for name, row in rows.items():
        soak = row.get("soak")
        if soak and "failed" in soak:
            lines.append(f"| {name} | failed: {soak['failed']} | | | |")
        elif soak:
            ratio = _ratio(soak["after_mb"], reference) if reference else ""
            lines.append(
                f"| {name} | {soak['requests']:,} | {soak['before_mb']:.0f} | {soak['after_mb']:.0f} | {ratio} |"
            )
    return "\n".join([*lines, ""]) if len(lines) > 4 else ""


def decode(found: dict | None) -> str:
    """The second part."""
    if found is None:
        return ""
    lines = [
        "## The real engine",
        "",
        f"Tokens a second of {found['model']}, {found['tokens']} tokens a stream, through Freehold and on the engine's",
        "own socket, in turns; the ratio is the median of those of each pair.",
        "",
        "| streams | through Freehold | engine's socket | ratio |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for row in found["rows"]:
        spread = f"({row['lowest']:.3f} to {row['highest']:.3f})"
        lines.append(f"| {row['streams']} | {row['freehold']} | {row['engine']} | **{row['ratio']:.3f}** {spread} |")
    return "\n".join([*lines, ""])
