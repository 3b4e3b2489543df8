"""Figures for a monitoring system, in Prometheus' text format, under names that stay.

What becomes of calls is counted as they end: plain numbers, a few additions for each call. Everything else (queue,
slots, engines, seal, ledger) is asked for when somebody reads the page. A model's name is a label only if there is,
or was, such a model: what a client sends in its place cannot make a series.

Source: Prometheus, "Exposition formats" and "Metric and label naming".
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from freehold import seal
from freehold.types import Captures, EngineState, Layer, Outcome, SeatView, Seen, UpstreamState

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
SECONDS_A_TOKEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
READY = "ready"  # the state of an engine that takes calls


class Family(Struct, frozen=True):
    """One metric: its name, without what its kind adds to it, its labels, and what it counts."""

    name: str
    kind: str
    labels: tuple[str, ...]
    says: str


CALLS = Family(
    "freehold_calls", COUNTER, ("kind", "model", "outcome"),
    "calls that ended, by kind, model and outcome as the ledger has them; model is empty where there was none",
)  # fmt: skip
TOKENS = Family(
    "freehold_tokens", COUNTER, ("model", "type"),
    "tokens by the engine's count; type is prompt, completion or cached, which is a part of prompt",
)  # fmt: skip
ENERGY = Family(
    "freehold_energy_joules", COUNTER, ("model",), "what calls drew while they were answered, where a counter says so"
)
FIRST_TOKEN = Family(
    "freehold_time_to_first_token_seconds", HISTOGRAM, ("model",), "from a call's arrival to its first bytes; streams"
)
CALL_TIME = Family("freehold_call_seconds", HISTOGRAM, ("kind", "model"), "from a call's arrival to its end")
TOKEN_TIME = Family(
    "freehold_time_per_token_seconds", HISTOGRAM, ("model",),
    "time between the tokens of an answer behind its first; streams of two tokens or more",
)  # fmt: skip
WAIT = Family(
    "freehold_wait_seconds", HISTOGRAM, ("model",), "time in line for an engine, of calls that had their turn"
)
WAITING = Family("freehold_queue_calls", GAUGE, ("model", "purpose"), "calls that wait for an engine now")
LONGEST_WAIT = Family(
    "freehold_queue_oldest_seconds", GAUGE, ("model", "purpose"), "for how long the oldest of them has waited"
)
SLOTS = Family("freehold_slots", GAUGE, ("model", "purpose"), "calls that an engine answers at once")
SLOTS_TAKEN = Family("freehold_slots_in_use", GAUGE, ("model", "purpose"), "of these slots, those in use")
ENGINE_UP = Family(
    "freehold_engine_up", GAUGE, ("model", "purpose", "kind"), "1: the engine takes calls; 0: it is coming up, or down"
)
RESTARTS = Family(
    "freehold_engine_restarts", COUNTER, ("model", "purpose", "kind"), "how often an engine that died was started again"
)
LEFT_CALLS = Family("freehold_left_the_house_calls", COUNTER, ("upstream",), "calls sent to an upstream")
LEFT_BYTES = Family(
    "freehold_left_the_house_bytes", COUNTER, ("upstream",),
    "bytes of requests that were sent to an upstream, or may have been; further tries count again",
)  # fmt: skip
UPSTREAM_UP = Family(
    "freehold_upstream_up", GAUGE, ("upstream",), "1: calls go to the upstream; 0: its breaker is open"
)
SEAL = Family(
    "freehold_seal_active", GAUGE, ("process", "layer"),
    "1: this layer of the seal is on, as the kernel says, or as reported where it cannot say",
)  # fmt: skip
LEDGER_FAILING = Family("freehold_ledger_failing", GAUGE, (), "1: the ledger cannot be written, and nothing is served")
AUDIT_HEAD = Family(
    "freehold_audit_head", GAUGE, (), "number of the last event of the audit chain; missing if it cannot be read"
)
AUDIT_FAILING = Family(
    "freehold_audit_failing", GAUGE, (), "1: no checkpoint can be signed, or the file outside cannot be written"
)
RETENTION_FAILING = Family("freehold_retention_failing", GAUGE, (), "1: recorded calls that are due cannot be erased")
CAPTURED = Family(
    "freehold_captured_calls",
    COUNTER,
    ("result",),
    "calls to be recorded for a task: kept, known (asked before) or lost",
)
CAPTURE_WAITING = Family("freehold_capture_waiting", GAUGE, (), "recorded calls that wait to be written")
CAPTURE_NAMES = Family("freehold_capture_aliases", GAUGE, (), "names whose calls are recorded, with their texts")
SPANS = Family(
    "freehold_trace_spans", COUNTER, ("result",), "spans of traced calls: exported, rejected, failed or dropped"
)
SPAN_BYTES = Family("freehold_trace_bytes", COUNTER, (), "bytes of traces that left for the collector, or may have")
LOG_DROPPED = Family(
    "freehold_log_lines_dropped", COUNTER, (), "lines of calls that nobody read in time, or nobody could write"
)
LOGINS = Family("freehold_logins", COUNTER, ("result",), "log-ins to /admin: done, failed, or locked out")
SESSIONS = Family("freehold_sessions", GAUGE, (), "browsers that are logged in to /admin")
MEMORY = Family("freehold_resident_bytes", GAUGE, ("process",), "memory that a process has in use")
INFO = Family("freehold_info", GAUGE, ("version", "durability", "seal"), "1, with what this server is")
FAMILIES = (
    CALLS, TOKENS, ENERGY, FIRST_TOKEN, CALL_TIME, TOKEN_TIME, WAIT, WAITING, LONGEST_WAIT, SLOTS, SLOTS_TAKEN,
    ENGINE_UP, RESTARTS, LEFT_CALLS, LEFT_BYTES, UPSTREAM_UP, SEAL, LEDGER_FAILING, AUDIT_HEAD, AUDIT_FAILING,
    RETENTION_FAILING, CAPTURED, CAPTURE_WAITING, CAPTURE_NAMES, SPANS, SPAN_BYTES, LOG_DROPPED, LOGINS, SESSIONS,
    MEMORY, INFO,
)  # fmt: skip

Samples = Iterable[tuple[tuple[str, ...], float]]


class Process(Struct, frozen=True):
    """A process of the house: what it is, its id while it is there, and the layers that it reported."""

    who: str
    pid: int | None
    reported: tuple[Layer, ...]


class Now(Struct, frozen=True):
    """What is true when the page is read, gathered in the event loop. ``counts`` are those of whoever keeps them, by
    the family's name."""

    engines: Sequence[EngineState]
    seats: Sequence[SeatView]
    upstreams: Sequence[UpstreamState]
    processes: Sequence[Process]
    captures: Captures
    ledger_failing: bool
    info: tuple[str, str, str]
    counts: Mapping[str, Mapping[tuple[str, ...], float]]


class Histogram:
    """How often a time was within each of some bounds, in seconds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]):
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """The bounds, each with how many were within it."""
        found, so_far = [], 0
        for bound, count in zip((*self.bounds, float("inf")), list(self.counts), strict=True):
            so_far += count
            found.append(("+Inf" if bound == float("inf") else repr(float(bound)), float(so_far)))
        return found


class _Model:
    """What is counted of one model."""

    __slots__ = ("cached", "completion", "first", "joules", "prompt", "token", "wait")

    def __init__(self) -> None:
        self.joules: float | None = None
        self.prompt = self.completion = self.cached = 0
        self.first, self.wait = Histogram(SECONDS), Histogram(SECONDS)
        self.token = Histogram(SECONDS_A_TOKEN)


class Metrics:
    """Counts calls, in the event loop; `page` may be asked for in another thread."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, str, str], int] = {}
        self._times: dict[tuple[str, str], Histogram] = {}
        self._models: dict[str, _Model] = {}

    def see(self, seen: Seen) -> None:
        """A call is over."""
        end, name, kind = seen.settlement, seen.model, seen.kind.value
        key = (kind, name, end.outcome.value)
        self._calls[key] = self._calls.get(key, 0) + 1
        if not name:
            return
        if (times := self._times.get((kind, name))) is None:
            times = self._times[(kind, name)] = Histogram(SECONDS)
        times.add(end.total_ms / 1000)
        if (model := self._models.get(name)) is None:
            model = self._models[name] = _Model()
        usage = end.usage
        model.prompt += usage.prompt
        model.completion += usage.completion
        model.cached += usage.cached
        if end.joules is not None:
            model.joules = (model.joules or 0.0) + end.joules
        if end.waited_ms is not None:
            model.wait.add(end.waited_ms / 1000)
        if end.first_token_ms is not None:
            model.first.add(end.first_token_ms / 1000)
            if usage.completion > 1 and end.outcome is Outcome.ANSWERED:
                model.token.add((end.total_ms - end.first_token_ms) / 1000 / (usage.completion - 1))

    def outcomes(self) -> dict[str, int]:
        """How many calls ended in each outcome since the start."""
        found: dict[str, int] = {}
        for (_, _, outcome), count in list(self._calls.items()):
            found[outcome] = found.get(outcome, 0) + count
        return found

    def page(self, now: Now, head: int | None, accept: str = "") -> tuple[bytes, str]:
        """The page and its media type, in the format that ``accept`` prefers; ``head`` is the audit chain's. It looks
        the house's processes up in /proc, and may wait for that."""
        from prometheus_client import CollectorRegistry, ProcessCollector, exposition

        registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=registry)
        registry.register(_Collector(self, now, head))
        encode, media_type = exposition.choose_encoder(accept)
        return encode(registry), media_type

    def samples(self) -> Iterator[tuple[Family, Any]]:
        """What was counted of calls."""
        models = list(self._models.items())
        yield CALLS, list(self._calls.items())
        yield TOKENS, [((name, kind), getattr(model, kind)) for name, model in models for kind in _TYPES]
        yield ENERGY, [((name,), model.joules) for name, model in models if model.joules is not None]
        yield FIRST_TOKEN, [((name,), model.first) for name, model in models]
        yield CALL_TIME, list(self._times.items())
        yield TOKEN_TIME, [((name,), model.token) for name, model in models]
        yield WAIT, [((name,), model.wait) for name, model in models]


_TYPES = ("prompt", "completion", "cached")


class _Collector:
    """Gives prometheus_client what it puts into words."""

    def __init__(self, metrics: Metrics, now: Now, head: int | None):
        self._metrics, self._now, self._head = metrics, now, head

    def collect(self) -> Iterator[Any]:
        """Called by the registry."""
        for family, samples in (*self._metrics.samples(), *_house(self._now, self._head)):
            yield _family(family, samples)


def _house(now: Now, head: int | None) -> Iterator[tuple[Family, Samples]]:
    """What is true of the house now."""
    yield from _seats(now.seats)
    yield from _engines(now.engines)
    yield LEFT_CALLS, [((one.name,), one.sent) for one in now.upstreams]
    yield LEFT_BYTES, [((one.name,), one.sent_bytes) for one in now.upstreams]
    yield UPSTREAM_UP, [((one.name,), one.breaker != "open") for one in now.upstreams]
    yield SEAL, _worn(now.processes)
    yield LEDGER_FAILING, [((), now.ledger_failing)]
    yield AUDIT_HEAD, [] if head is None else [((), head)]
    captures = now.captures
    yield CAPTURED, [((name,), getattr(captures, name)) for name in ("kept", "known", "lost")]
    yield CAPTURE_WAITING, [((), captures.waiting)]
    yield CAPTURE_NAMES, [((), len(captures.aliases))]
    for family in FAMILIES:
        if family.name in now.counts:
            yield family, list(now.counts[family.name].items())
    yield MEMORY, _memory(now.processes)
    yield INFO, [(now.info, 1)]


def _seats(seats: Sequence[SeatView]) -> Iterator[tuple[Family, Samples]]:
    """The lines before the engines, and their slots. Two seats of one name (a model was exchanged) count together."""
    found: dict[tuple[str, str], list[float]] = {}
    for seat in seats:
        row = found.setdefault((seat.model.name, seat.purpose), [0, 0, 0, 0])
        row[0] += len(seat.waiting)
        row[1] = max(row[1], max((ticket.seconds for ticket in seat.waiting), default=0))
        row[2] += seat.slots
        row[3] += seat.taken
    for number, family in enumerate((WAITING, LONGEST_WAIT, SLOTS, SLOTS_TAKEN)):
        yield family, [(key, row[number]) for key, row in found.items()]


def _engines(engines: Sequence[EngineState]) -> Iterator[tuple[Family, Samples]]:
    """Whether each is up. One that another follows is there beside it for a while, and they are one."""
    up: dict[tuple[str, str, str], float] = {}
    restarts: dict[tuple[str, str, str], float] = {}
    for engine in engines:
        key = (engine.model, engine.purpose, engine.kind)
        up[key] = max(up.get(key, 0), engine.state == READY)
        restarts[key] = max(restarts.get(key, 0), engine.restarts)
    yield ENGINE_UP, list(up.items())
    yield RESTARTS, list(restarts.items())


def _worn(processes: Sequence[Process]) -> Samples:
    """Each layer that a process said it put on, as the kernel has it where it can say; of two processes of one name, as
    with an engine that another follows, the one that lacks it."""
    found: dict[tuple[str, str], bool] = {}
    for process in processes:
        read = {layer.name: layer for layer in seal.read(process.pid)} if process.pid else {}
        for layer in process.reported:
            key = (process.who, layer.name)
            found[key] = found.get(key, True) and read.get(layer.name, layer).active
    return list(found.items())


def _memory(processes: Sequence[Process]) -> Samples:
    """What the processes of each name have in use."""
    found: dict[tuple[str, ...], int] = {}
    for process in processes:
        if size := _resident(process.pid):
            found[(process.who,)] = found.get((process.who,), 0) + size
    return list(found.items())


def _resident(pid: int | None) -> int:
    """The memory that a process has in use, in bytes; 0 where nobody knows."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _family(family: Family, samples: Samples) -> Any:
    """A family as prometheus_client has it."""
    from prometheus_client import core

    if family.kind == HISTOGRAM:
        made = core.HistogramMetricFamily(family.name, family.says, labels=family.labels)
        for labels, histogram in samples:
            made.add_metric(labels, histogram.buckets(), histogram.total)
        return made
    kind = core.CounterMetricFamily if family.kind == COUNTER else core.GaugeMetricFamily
    made = kind(family.name, family.says, labels=family.labels)
    for labels, value in samples:
        made.add_metric(labels, float(value))
    return made
