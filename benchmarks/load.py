"""A load generator that looks at every event of every answer.

``closed``: so many connections, each with one request after the other; says what a server can do.
``open``: requests at fixed times whether or not the earlier ones are answered, each latency counted from the
moment at which it was due; says what users feel, with no pause hidden by a client that waits along.

One process, meant to be pinned to a core. The result is one line of JSON on standard output.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import time
from collections import deque

import httptools
import uvloop

QUANTILES = (0.5, 0.9, 0.99, 0.999)


class Sample:
    """What one request took: seconds from when it was due to its first body byte, to its end; and its events."""

    __slots__ = ("arrivals", "due", "end", "events", "first", "status")

    def __init__(self, due: float):
        self.due, self.first, self.end, self.events, self.status = due, 0.0, 0.0, 0, 0
        self.arrivals: list[float] = []


class Client(asyncio.Protocol):
    """One kept-alive connection. ``done`` is called with each finished sample."""

    def __init__(self, request: bytes, done, stamp: bool):
        self.request, self.done, self.stamp = request, done, stamp
        self.sample: Sample | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, error):
        if self.sample is not None:
            sample, self.sample = self.sample, None
            sample.status = -1
            self.done(self, sample)

    def send(self, due: float) -> None:
        self.sample = Sample(due)
        self.parser = httptools.HttpResponseParser(self)
        self.transport.write(self.request)

    def data_received(self, data):
        self.parser.feed_data(data)

    def on_body(self, body):
        sample, now = self.sample, time.perf_counter()
        if not sample.first:
            sample.first = now
        found = body.count(b"data: ")
        sample.events += found
        if self.stamp and found:
            sample.arrivals.append(now)

    def on_message_complete(self):
        sample, self.sample = self.sample, None
        sample.end, sample.status = time.perf_counter(), self.parser.get_status_code()
        if not self.parser.should_keep_alive():
            self.transport.close()
        self.done(self, sample)


class Target:
    """Where the requests go, and connections to it."""

    def __init__(self, place: int | str, path: str, body: bytes, headers: dict[str, str]):
        lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
        lines += ["Content-Type: application/json", *(f"{name}: {value}" for name, value in headers.items())]
        self.request = "\r\n".join([*lines, "", ""]).encode() + body
        self.place = place  # a port on loopback, or the path of a Unix socket

    async def connect(self, done, stamp: bool = False) -> Client:
        loop = asyncio.get_running_loop()
        make = lambda: Client(self.request, done, stamp)  # noqa: E731
        if isinstance(self.place, str):
            return (await loop.create_unix_connection(make, self.place))[1]
        return (await loop.create_connection(make, "127.0.0.1", self.place))[1]


async def closed(target: Target, connections: int, seconds: float, most: int) -> list[Sample]:
    """Keep ``connections`` requests going for so long, or until there were ``most``."""
    samples: list[Sample] = []
    finished = asyncio.Event()
    begun = time.perf_counter()
    left = most - connections

    def done(client: Client, sample: Sample) -> None:
        nonlocal left
        samples.append(sample)
        now = time.perf_counter()
        if len(samples) >= most or now - begun > seconds:
            finished.set()
        if left <= 0 or finished.is_set():
            return
        left -= 1
        if client.transport.is_closing():
            reconnecting.append(asyncio.ensure_future(again()))
        else:
            client.send(now)

    async def again() -> None:
        due = time.perf_counter()
        client = await target.connect(done)
        client.send(due)

    reconnecting: list[asyncio.Future] = []
    clients = [await target.connect(done) for _ in range(connections)]
    for client in clients:
        client.send(time.perf_counter())
    await finished.wait()
    for client in clients:
        client.sample = None
        client.transport.abort()
    return samples


async def paced(target: Target, rate: float, seconds: float) -> list[Sample]:
    """Send ``rate`` requests a second, on whatever connection is free or a new one."""
    samples: list[Sample] = []
    free: deque[Client] = deque()

    def done(client: Client, sample: Sample) -> None:
        samples.append(sample)
        if not client.transport.is_closing():
            free.append(client)

    total = int(rate * seconds)
    begun = time.perf_counter() + 0.1
    for number in range(total):
        due = begun + number / rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        while free and free[0].transport.is_closing():
            free.popleft()
        client = free.popleft() if free else await target.connect(done, stamp=True)
        client.send(due)
    deadline = time.perf_counter() + 30
    while len(samples) < total and time.perf_counter() < deadline:
        await asyncio.sleep(0.01)
    return samples


def summary(samples: list[Sample], seconds: float) -> dict:
    """The figures of one run: counts, rates for each second, and quantiles in milliseconds."""
    good = [sample for sample in samples if 200 <= sample.status < 300]
    events = sum(sample.events for sample in good)
    gaps = [
        (later - earlier)
        for sample in good
        for earlier, later in zip(sample.arrivals, sample.arrivals[1:], strict=False)
    ]
    return {
        "answered": len(good),
        "failed": len(samples) - len(good),
        "seconds": round(seconds, 3),
        "requests_per_s": round(len(good) / seconds, 1),
        "events_per_s": round(events / seconds, 1),
        "events_each": round(events / len(good), 2) if good else 0,
        "total_ms": quantiles([sample.end - sample.due for sample in good]),
        "first_ms": quantiles([sample.first - sample.due for sample in good]),
        "gap_ms": quantiles(gaps),
    }


def quantiles(seconds: list[float]) -> dict[str, float]:
    """p50, p90, p99, p99.9 in milliseconds."""
    if not seconds:
        return {}
    ordered = sorted(seconds)
    return {
        f"p{quantile * 100:g}": round(ordered[min(int(quantile * len(ordered)), len(ordered) - 1)] * 1000, 4)
        for quantile in QUANTILES
    }


async def run(arguments: argparse.Namespace) -> dict:
    """One run; a short one before it warms both sides up."""
    body = arguments.body.encode()
    headers = {"Authorization": f"Bearer {arguments.key}"} if arguments.key else {}
    target = Target(arguments.socket or arguments.port, arguments.path, body, headers)
    warm: list[Sample] = []
    if arguments.warm:
        warm = await closed(target, min(arguments.connections, 4), arguments.warm, 10_000_000)
    gc.collect()
    gc.disable()
    begun = time.perf_counter()
    if arguments.rate:
        samples = await paced(target, arguments.rate, arguments.seconds)
    else:
        samples = await closed(target, arguments.connections, arguments.seconds, arguments.requests or 10**9)
    return summary(samples, time.perf_counter() - begun) | {"warmed_up_with": len(warm)}


def main() -> None:
    """Read the flags, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--port", type=int)
    where.add_argument("--socket", help="the path of a Unix socket")
    parser.add_argument("--path", default="/v1/chat/completions")
    parser.add_argument("--key", default="")
    parser.add_argument("--body", required=True)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--requests", type=int, default=0, help="end after so many")
    parser.add_argument("--rate", type=float, default=0, help="open loop at so many a second")
    parser.add_argument("--warm", type=float, default=0.3, help="seconds of warming up")
    print(json.dumps(uvloop.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()
