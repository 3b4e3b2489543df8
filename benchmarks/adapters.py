"""What it costs others that an adapter comes in: how long its first call waits, and what calls meanwhile notice of it.

    python benchmarks/adapters.py --model starter.gguf [--rounds 5] [--callers 2] [--page docs/reference/adapters.md]

A server with the real engine answers a model; callers call it without a pause. In each round an adapter (rank 16 on all
seven linear layers) is admitted and called at once. Three ways: nobody else calls; others call and the memory holds the
engine before and the one after; others call and it does not, so that the one before has to finish first. "Waited" is
what the server says of it (``x-freehold-queue``); the callers are fewer than the slots, so that they wait for nothing
else.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from harness import Running, Wire, cli, post
from lora import INNER, KEYS, LAYERS, WIDTH, pair, write

SHAPES = {
    "attn_q": (WIDTH, WIDTH), "attn_k": (WIDTH, KEYS), "attn_v": (WIDTH, KEYS), "attn_output": (WIDTH, WIDTH),
    "ffn_gate": (WIDTH, INNER), "ffn_up": (WIDTH, INNER), "ffn_down": (INNER, WIDTH),
}  # fmt: skip
PAGE = """# What a new adapter costs others

<!-- written by 'python benchmarks/adapters.py'; run it to have your own -->

{rounds} adapters of {size:.1f} MB each, one after the other, each admitted and called at once while {callers} callers
call the model without a pause. {cores} hardware threads, Linux {kernel}, Python {python}, {date}.

Command: `python benchmarks/adapters.py --model starter.gguf --rounds {rounds} --callers {callers}`

| | its first call waited | meanwhile others waited | others' calls took before | and meanwhile | calls | failed |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
{rows}

Median / worst, in milliseconds. The first line is the start of the engine's process with nobody else on the machine:
the wait that an adapter cannot do without. "Beside": the new engine comes up while the one before goes on answering.
"In turn": the memory (`pool.memory_bytes`) does not hold both.
"""


@dataclass
class Seen:
    """One call: when it began and ended, how long it waited (ms), and what became of it."""

    began: float
    ended: float
    waited: float
    status: int

    @property
    def took(self) -> float:
        return (self.ended - self.began) * 1000


@dataclass
class Way:
    """One way of admitting adapters, and what was seen in it."""

    name: str
    callers: int
    memory: int  # of all engines, in bytes; 0: as the machine has it
    firsts: list[Seen] = field(default_factory=list)
    before: list[Seen] = field(default_factory=list)
    meanwhile: list[Seen] = field(default_factory=list)

    def row(self) -> str:
        every = [*self.firsts, *self.before, *self.meanwhile]
        cells = [
            _two([seen.waited for seen in self.firsts]), _two([seen.waited for seen in self.meanwhile]),
            _two([seen.took for seen in self.before]), _two([seen.took for seen in self.meanwhile]),
            str(len(every)), str(sum(seen.status != 200 for seen in every)),
        ]  # fmt: skip
        return f"| {self.name} | {' | '.join(cells)} |"


def _two(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} / {max(values):.0f}" if values else ""


def call(server: Running, model: str, tokens: int) -> Seen:
    """One call, to its end."""
    body = {"model": model, "prompt": "1, 2, 3, 4, 5,", "max_tokens": tokens, "temperature": 0}
    began = time.monotonic()
    with Wire(server.port, 300) as wire:
        status, headers, _ = wire.send(post("/v1/completions", body, server.key)).read()
    said = dict(part.split("=", 1) for part in headers.get("x-freehold-queue", "").split(", ") if part)
    return Seen(began, time.monotonic(), float(said.get("waited_ms", 0)), status)


@contextmanager
def calling(server: Running, callers: int) -> Iterator[list[Seen]]:
    """Callers of the model without a pause, for as long as the block lasts."""
    seen: list[Seen] = []
    done = threading.Event()

    def go_on(seed: int) -> None:
        draw = random.Random(seed)
        while not done.is_set():
            seen.append(call(server, "base", draw.randint(8, 24)))

    threads = [threading.Thread(target=go_on, args=(seed,)) for seed in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        done.set()
        for thread in threads:
            thread.join()


def measure(way: Way, model: Path, folder: Path, rounds: int, seconds: float) -> None:
    """Admit and call one adapter after the other."""
    home = folder / "home"
    _add(home, model, "--name", "base")
    env = {"FREEHOLD_POOL_MEMORY_BYTES": str(way.memory)} | _own()
    server = Running(home, env=env)
    try:
        call(server, "base", 8)
        for number in range(rounds):
            tensors = {}
            for name, (inner, outer) in SHAPES.items():
                for block in range(LAYERS):
                    tensors |= pair(f"blk.{block}.{name}.weight", inner, outer, rank=16, seed=number, scale=1e-3)
            file = write(folder / f"a{number}.gguf", tensors, alpha=16.0)
            with calling(server, way.callers) as seen:
                time.sleep(seconds)
                _add(home, file, "--base", "base")
                first = call(server, f"base+a{number}@1", 8)
                time.sleep(1)
            way.firsts.append(first)
            for one in seen:
                (way.before if one.ended < first.began else way.meanwhile).append(one)
            print(f"{way.name}: waited {first.waited:.0f} ms", file=sys.stderr)
    finally:
        server.stop()


def _add(home: Path, file: Path, *words: str) -> None:
    done = cli("models", "add", f"file:{file}", *words, home=home)
    assert done.returncode == 0, done.stdout + done.stderr


def _own() -> dict[str, str]:
    """What whoever runs this has set for its engines."""
    return {name: value for name, value in os.environ.items() if name.startswith("FREEHOLD_ENGINE_")}


def _need(model: Path, folder: Path) -> int:
    """What one engine of the model is thought to need, by its server."""
    home = folder / "need"
    _add(home, model, "--name", "base")
    server = Running(home, env=_own())
    try:
        return next(engine["need"] for engine in server.status()["engines"])
    finally:
        server.stop()


def main() -> int:
    """Measure the three ways and print the page. Exit code 1 if any call failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="the starter model's file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--callers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0, help="of ordinary calls before each adapter")
    parser.add_argument("--page", type=Path, help="write the page there, too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = folder / "base.gguf"
        shutil.copyfile(arguments.model, model)
        need = _need(model, folder)
        ways = [
            Way("nobody else calls", 0, 0), Way("beside", arguments.callers, 0),
            Way("in turn", arguments.callers, need * 3 // 2 + (20 << 20) * arguments.rounds),
        ]  # fmt: skip
        for number, way in enumerate(ways):
            (folder / str(number)).mkdir()
            measure(way, model, folder / str(number), arguments.rounds, arguments.seconds if way.callers else 0.0)
        size = (folder / "0" / "a0.gguf").stat().st_size / 1e6
    page = PAGE.format(
        rounds=arguments.rounds, callers=arguments.callers, size=size, rows="\n".join(way.row() for way in ways),
        cores=os.cpu_count(), kernel=platform.release().partition("-")[0], python=platform.python_version(),
        date=time.strftime("%Y-%m-%d"),
    )  # fmt: skip
    print(page)
    if arguments.page:
        arguments.page.write_text(page)
    return int(any(seen.status != 200 for way in ways for seen in (*way.firsts, *way.before, *way.meanwhile)))


if __name__ == "__main__":
    raise SystemExit(main())
