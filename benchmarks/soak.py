"""``make soak``: what no short test shows. Clients that leave at any moment, kill -9 under load, a million requests.

Each run says what it found, line by line, and ends with 1 if a call was lost, a slot leaked, a count was wrong or
memory grew. The test suite runs the first two in small (tests/test_soak.py).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from harness import Running, get, gguf, post, until  # noqa: E402 - the tests know how to start Freehold as a user does

WINDOW = 0.05  # seconds that relaxed may lose
PATHS = {
    "chat.completions": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}


@dataclass
class Leaver:
    """One client: what it asks, when it leaves, and what it saw."""

    number: int
    kind: str
    words: int  # the prompt's tokens: with the kind, what an entry of the ledger is known by
    stream: bool
    stay: float | None  # seconds until it leaves; None: it stays to the end
    read: int  # bytes that it reads at most; 0: none
    seed: int = 0
    left_at: float = 0.0
    whole: bool = False

    @property
    def mark(self) -> str:
        return f"m{self.number}"

    def request(self, key: str) -> bytes:
        dice = random.Random(f"{self.seed} {self.number}")
        order = {"tokens": dice.randint(1, 30), "first_ms": dice.choice([1, 5, 30]),
                 "each_ms": dice.choice([4, 6, 10]), "mark": self.mark}  # fmt: skip
        text = json.dumps(order, separators=(",", ":"))[:-1] + ',"pad":"' + " ".join(["x"] * self.words) + '"}'
        body: dict = {"model": "tiny", "stream": self.stream}
        body |= {"prompt": text} if self.kind == "completions" else {}
        body |= {"input": text} if self.kind == "responses" else {}
        if self.kind in ("chat.completions", "messages"):
            body |= {"messages": [{"role": "user", "content": text}], "max_tokens": 100}
        return post(PATHS[self.kind], body, key)


def leavers(count: int, seed: int) -> list[Leaver]:
    """Clients of every kind that leave in every phase: in line, before the first token, in mid-stream, at the end."""
    random.seed(seed)
    kinds = list(PATHS)
    return [
        Leaver(
            number,
            kinds[number % len(kinds)],
            number // len(kinds) + 1,
            random.random() < 0.6,
            random.choice([None, 0.0, random.random() * 0.02, random.random() * 0.2, random.random() * 0.2]),
            random.choice([0, 1, 1 << 20, 1 << 20]),
            seed,
        )
        for number in range(count)
    ]


async def play(leaver: Leaver, port: int, key: str) -> None:
    """Send the request; leave when it is time, by an end or a reset; or read to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(leaver.request(key))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(leaver.stay):
                leaver.whole = await _read(reader, leaver)
    finally:
        leaver.left_at = time.monotonic()
        if leaver.number % 2:
            writer.transport.abort()
        await _close(writer)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _read(reader: asyncio.StreamReader, leaver: Leaver) -> bool:
    """Was the whole answer read?"""
    seen = b""
    while leaver.stay is None or len(seen) < leaver.read:
        piece = await reader.read(65536)
        seen += piece
        if seen.endswith(b"0\r\n\r\n") or (b"content-length: " in seen and _complete(seen)) or not piece:
            return bool(piece)
    await asyncio.sleep(3600)  # reads no more
    return False


def _complete(seen: bytes) -> bool:
    head, found, body = seen.partition(b"\r\n\r\n")
    length = next(line[16:] for line in head.split(b"\r\n") if line.startswith(b"content-length: "))
    return bool(found) and len(body) >= int(length)


@dataclass
class Departures:
    """What came of `disconnects`."""

    clients: int
    abandoned: int = 0
    answered: int = 0
    unsettled: int = 0
    leaked: int = 0
    at_work: int = 0
    missing: int = 0
    exact: int = 0
    within_one: int = 0
    off: list[str] = field(default_factory=list)
    ledger_tokens: int = 0
    engine_tokens: int = 0
    cancel_ms: list[float] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not (self.unsettled or self.leaked or self.at_work or self.missing or self.off)

    def lines(self) -> Iterator[str]:
        yield f"{self.clients:,} clients: {self.answered:,} stayed, {self.abandoned:,} left"
        yield f"  leaked slots {self.leaked}, engine calls still at work {self.at_work}"
        yield f"  entries missing {self.missing}, unsettled {self.unsettled}"
        yield f"  tokens in the ledger {self.ledger_tokens:,}, said by the engine {self.engine_tokens:,}"
        yield f"  counts exact {self.exact:,}, one token off {self.within_one:,}, further off {len(self.off)}"
        yield from (f"    {what}" for what in self.off[:10])
        if self.cancel_ms:
            ordered = sorted(self.cancel_ms)
            p50, p99 = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
            times = f"p50 {p50:.1f}, p99 {p99:.1f}, most {ordered[-1]:.1f} ms"
            yield f"  from leaving to the end of the engine's work: {times}"


def disconnects(folder: Path, count: int, *, at_once: int = 64, slots: int = 16, seed: int = 1) -> Departures:
    """Random departures; then everything is looked up, in the ledger's own file and in the engine's tally."""
    with serving(folder / "home", {"FREEHOLD_ENGINE_SLOTS": str(slots)}) as server:
        clients = leavers(count, seed)

        async def everybody() -> None:
            room = asyncio.Semaphore(at_once)

            async def one(leaver: Leaver) -> None:
                async with room:
                    await play(leaver, server.port, server.key)

            await asyncio.gather(*(one(leaver) for leaver in clients))

        asyncio.run(everybody())
        found = Departures(count)
        with contextlib.suppress(AssertionError):
            until(lambda: not _busy(server), 20)
        found.leaked = _busy(server)
        tally = engine_tally(server)
        found.at_work = tally["at_work"]
        _compare(found, clients, server.calls(10 * count), tally)
    return found


def _busy(server: Running) -> int:
    models = json.loads(get(server, "/admin/queue", server.key)[2])["models"]
    return sum(model["counts"]["answering"] + model["counts"]["waiting"] for model in models)


def _compare(found: Departures, clients: list[Leaver], calls: list[dict], tally: dict) -> None:
    found.missing = len(clients) - len(calls)
    found.unsettled = sum(call["outcome"] is None for call in calls)
    found.abandoned = sum(call["outcome"] == "abandoned" for call in calls)
    found.answered = sum(call["outcome"] == "answered" for call in calls)
    found.ledger_tokens = sum(call["completion_tokens"] for call in calls)
    found.engine_tokens = tally["said"]
    known = {(call["kind"], call["prompt_tokens"]): call for call in calls if call["prompt_tokens"]}
    for leaver in clients:
        said = tally["marks"].get(leaver.mark, 0)
        call = known.get((leaver.kind, leaver.words))
        counted = call["completion_tokens"] if call else 0
        if leaver.whole and (call is None or call["outcome"] != "answered"):
            found.off.append(f"{leaver.kind} {leaver.mark} was answered and its entry says {call and call['outcome']}")
        elif abs(said - counted) > 1:
            found.off.append(f"{leaver.kind} {leaver.mark}, stream {leaver.stream}: said {said}, counted {counted}")
        elif said == counted:
            found.exact += 1
        else:
            found.within_one += 1
        ended = tally["ended"].get(leaver.mark)
        if call and call["outcome"] == "abandoned" and ended and ended > leaver.left_at:
            found.cancel_ms.append((ended - leaver.left_at) * 1000)


def engine_tally(server: Running) -> dict:
    """What the pretended engine says that it did, asked on its own socket."""
    lines = Path(f"/proc/{server.engine_pid()}/net/unix").read_text().splitlines()
    path = next(line.split()[-1] for line in lines if line.endswith("engine.sock"))
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(path)
        asking.sendall(b"GET /tally HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while piece := asking.recv(1 << 20):
            answer += piece
    return json.loads(answer.partition(b"\r\n\r\n")[2])


@dataclass
class Crashes:
    """What came of `crashes`."""

    durability: str
    kills: int = 0
    answered: int = 0
    lost: int = 0
    lost_ages_ms: list[float] = field(default_factory=list)
    wrong: int = 0
    unsettled: int = 0
    interrupted: int = 0

    @property
    def sound(self) -> bool:
        late = [age for age in self.lost_ages_ms if age > self.bound_ms]
        return not (self.wrong or self.unsettled or late or (self.lost and self.durability == "strict"))

    @property
    def bound_ms(self) -> float:
        """The window, and what a machine with more to do than it can adds to any time."""
        return (WINDOW + 0.05) * 1000

    def lines(self) -> Iterator[str]:
        yield f"{self.kills} kills under load, {self.durability}: {self.answered:,} answers were received whole"
        yield f"  without an entry {self.lost}, with one that says otherwise {self.wrong}, unsettled {self.unsettled}"
        yield f"  interrupted calls settled at the next start: {self.interrupted:,}"
        if self.lost_ages_ms:
            yield f"  the oldest lost answer was received {max(self.lost_ages_ms):.0f} ms before the kill"


def crashes(folder: Path, kills: int, durability: str, *, clients: int = 24, seed: int = 1) -> Crashes:
    """kill -9 of the gateway while clients call, again and again on one home; each time every received answer is
    looked up."""
    random.seed(seed)
    found = Crashes(durability)
    home, settings = folder / "home", {"FREEHOLD_LEDGER_DURABILITY": durability, "FREEHOLD_ENGINE_SLOTS": "16"}
    key = ""
    for _ in range(kills):
        with serving(home, settings) as server:
            key = key or server.key
            received, killed_at = asyncio.run(_until_killed(server, key, clients))
        found.kills += 1
        with serving(home, settings):
            pass
        _look_up(found, home, received, killed_at)
    return found


async def _until_killed(server: Running, key: str, clients: int) -> tuple[dict[str, float], float]:
    """Calls without end until the gateway is killed; the ids of the answers received whole, and when."""
    received: dict[str, float] = {}

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                order = json.dumps({"tokens": random.randint(1, 9), "each_ms": random.choice([0, 0, 2])})
                body = {
                    "model": "tiny",
                    "messages": [{"role": "user", "content": order}],
                    "stream": bool(number % 3 == 0),
                }
                writer.write(post("/v1/chat/completions", body, key))
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
                if "content-length" in fields:
                    await reader.readexactly(int(fields["content-length"]))
                else:
                    await reader.readuntil(b"0\r\n\r\n")
                received[fields["x-request-id"]] = time.monotonic()
        await _close(writer)

    tasks = [asyncio.create_task(client(number)) for number in range(clients)]
    await asyncio.sleep(0.3 + random.random() * 0.5)
    server.process.kill()
    killed_at = time.monotonic()
    await asyncio.gather(*tasks)
    return received, killed_at


def _look_up(found: Crashes, home: Path, received: dict[str, float], killed_at: float) -> None:
    with contextlib.closing(sqlite3.connect(home / "freehold.db")) as connection:
        outcomes = dict(connection.execute("SELECT id, outcome FROM calls"))
    found.answered += len(received)
    found.unsettled += sum(outcome is None for outcome in outcomes.values())
    found.interrupted = sum(outcome == "interrupted" for outcome in outcomes.values())
    for call, at in received.items():
        if outcomes.get(call) == "answered":
            continue
        if call in outcomes and (found.durability == "strict" or outcomes[call] != "interrupted"):
            found.wrong += 1
        else:  # not there, or there with its opening alone
            found.lost += 1
            found.lost_ages_ms.append((killed_at - at) * 1000)


@dataclass
class Memory:
    """What came of `memory`: megabytes resident, by requests so far."""

    samples: list[tuple[int, float]] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """MB for each 100,000 requests over the second half, by least squares."""
        half = self.samples[len(self.samples) // 2 :]
        return statistics.linear_regression([done / 1e5 for done, _ in half], [mb for _, mb in half]).slope

    @property
    def sound(self) -> bool:
        return max(mb for _, mb in self.samples) <= 120 and self.growth < 0.5

    def lines(self) -> Iterator[str]:
        first, last = self.samples[0], self.samples[-1]
        most = max(mb for _, mb in self.samples)
        yield f"{last[0]:,} requests: {first[1]:.1f} MB before, {last[1]:.1f} MB after, most {most:.1f}"
        yield f"  growth over the second half: {self.growth:+.2f} MB for each 100,000 requests"
        yield f"  {chart([mb for _, mb in self.samples])}"


def chart(values: list[float]) -> str:
    """The values as a line of bars."""
    low, high = min(values), max(values)
    return "".join("▁▂▃▄▅▆▇█"[int((value - low) / (high - low or 1) * 7)] for value in values)


def memory(folder: Path, requests: int) -> Memory:
    """Whole answers and streams, 16 connections, with a look at the memory every now and then."""
    found = Memory()
    body = {"model": "tiny", "messages": [{"role": "user", "content": '{"tokens": 4}'}]}
    with serving(folder / "home", {"FREEHOLD_ENGINE_SLOTS": "16", "FREEHOLD_LEDGER_DURABILITY": "relaxed"}) as server:
        done, step = 0, max(requests // 40, 1)
        found.samples.append((0, resident_mb(server)))
        while done < requests:
            body["stream"] = not body.get("stream", True)
            command = [sys.executable, str(HERE / "load.py"), "--port", str(server.port), "--key", server.key]
            command += ["--body", json.dumps(body), "--connections", "16", "--requests", str(step), "--seconds", "600"]
            run = json.loads(
                subprocess.run([*command, "--warm", "0"], capture_output=True, text=True, check=True).stdout
            )
            done += run["answered"]
            found.samples.append((done, resident_mb(server)))
            progress(
                f"{done:,} of {requests:,} requests, {found.samples[-1][1]:.1f} MB, {run['requests_per_s']:,.0f}/s"
            )
    progress("")
    return found


def resident_mb(server: Running) -> float:
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:<78}", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def serving(home: Path, settings: dict[str, str]) -> Iterator[Running]:
    """A server with the pretended engine."""
    model = home.parent / "tiny.gguf"
    model.write_bytes(gguf())
    server = Running(home, "--engine", "fake", "--model", str(model), env=settings)
    try:
        yield server
    finally:
        server.stop()


def main() -> int:
    """Run what was asked for, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--disconnects", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=50, help="in strict mode; a fifth as many in relaxed mode")
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, process {os.getpid()}", flush=True)
    runs = [
        (arguments.disconnects, lambda folder: disconnects(folder, arguments.disconnects, seed=arguments.seed)),
        (arguments.kills, lambda folder: crashes(folder, arguments.kills, "strict", seed=arguments.seed)),
        (arguments.kills, lambda folder: crashes(folder, max(arguments.kills // 5, 1), "relaxed", seed=arguments.seed)),
        (arguments.requests, lambda folder: memory(folder, arguments.requests)),
    ]
    sound = True
    for wanted, run in runs:
        if not wanted:
            continue
        folder = Path(tempfile.mkdtemp(prefix="soak-"))
        try:
            found = run(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        sound = sound and found.sound
        print("\n".join(found.lines()), "->", "sound" if found.sound else "NOT SOUND", flush=True)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
