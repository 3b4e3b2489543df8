"""What the tests stand on: a tiny model file, servers that are real processes, and a raw HTTP client."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

MODEL = "smollm2-135m-instruct"


class Running:
    """One ``freehold up``, as a user would start it. ``command`` is another way to start ``freehold``."""

    def __init__(
        self, home: Path, *arguments: str, env: dict[str, str] | None = None, port: int = 0,
        command: Sequence[str] = (sys.executable, "-m", "freehold"),
    ):  # fmt: skip
        self.home = home
        self.log = home.parent / f"{home.name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "up", "--home", str(home), "--port", str(port), *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(env),
            )
        self.wait_ready()
        self.base = self.announced["address"]
        self.port = int(self.base.rpartition(":")[2])
        self.key = self.first_key() or ""

    @property
    def announced(self) -> dict:
        return json.loads((self.home / "running.json").read_bytes())

    def wait_ready(self, seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while "Freehold answers at" not in self.output():
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.02)

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def first_key(self) -> str | None:
        return next((word for word in self.output().split() if word.startswith("fh_")), None)

    def cli(self, *words: str, **options) -> subprocess.CompletedProcess:
        return cli(*words, home=self.home, **options)

    def status(self) -> dict:
        done = self.cli("status", "--json")
        return json.loads(done.stdout)

    def calls(self, limit: int = 50) -> list[dict]:
        """The ledger's newest entries, read past Freehold."""
        with contextlib.closing(sqlite3.connect(self.home / "freehold.db")) as connection:
            connection.row_factory = sqlite3.Row
            return [
                dict(row) for row in connection.execute("SELECT * FROM calls ORDER BY opened_at DESC LIMIT ?", (limit,))
            ]

    def key_id(self, name: str) -> str:
        """The id of the live key of a name, by which acts are entered."""
        listed = json.loads(self.cli("keys", "list", "--json").stdout)
        return next(key["id"] for key in listed if key["name"] == name and key["revoked_at"] is None)

    def engine_pid(self) -> int:
        return next(row["pid"] for row in self.status()["seal"]["processes"] if row["who"].startswith("engine"))

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """The tests' environment, without what a developer may have set for a Freehold of their own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FREEHOLD_")}
    return clean | (extra or {})


def cli(
    *words: str, home: Path | None = None, env: dict[str, str] | None = None, **options
) -> subprocess.CompletedProcess:
    """Run one command to its end."""
    where = ["--home", str(home)] if home else []
    return subprocess.run(
        [sys.executable, "-m", "freehold", *words, *where],
        capture_output=True, text=True, timeout=options.pop("timeout", 100), env=environment(env), **options,
    )  # fmt: skip


def gguf(*, tensors: int = 1, pairs: dict[str, object] | None = None, tail: bytes = b"") -> bytes:
    """A sound little GGUF file: a few facts and float32 tensors of 8 values."""
    facts = {"general.architecture": "llama", "llama.context_length": 4096} | (pairs or {})
    out = b"GGUF" + struct.pack("<IQQ", 3, tensors, len(facts))
    for key, value in facts.items():
        out += _string(key)
        if isinstance(value, str):
            out += struct.pack("<I", 8) + _string(value)
        elif isinstance(value, list):
            out += struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_string, value))
        else:
            out += struct.pack("<II", 4, value)
    for position in range(tensors):
        out += _string(f"t{position}") + struct.pack("<IQIQ", 1, 8, 0, 32 * position)
    out += b"\0" * (-len(out) % 32)
    return out + b"\1" * 32 * tensors + tail


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


@contextmanager
def serving(home: Path, model: Path, *arguments: str, env: dict[str, str] | None = None) -> Iterator[Running]:
    """A server with the fake engine, for as long as the block lasts."""
    server = Running(home, "--engine", "fake", "--model", str(model), *arguments, env=env)
    try:
        yield server
    finally:
        server.stop()


class Wire:
    """A raw connection, for what no well-behaved client sends."""

    def __init__(self, port: int, timeout: float = 20):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)

    def send(self, data: bytes | str) -> Wire:
        self.socket.sendall(data.encode() if isinstance(data, str) else data)
        return self

    def read(self) -> tuple[int, dict[str, str], bytes]:
        """One response: status, headers, body."""
        stream = self.socket.makefile("rb")
        line = stream.readline()
        assert line, "the server closed without an answer"
        headers: dict[str, str] = {}
        while (row := stream.readline().strip()) != b"":
            name, _, value = row.decode().partition(":")
            headers[name.lower()] = value.strip()
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(stream.readline(), 16):
                body += stream.read(size)
                stream.readline()
            stream.readline()
        elif "content-length" in headers:
            body = stream.read(int(headers["content-length"]))
        else:
            body = stream.read()
        return int(line.split()[1]), headers, body

    def read_all(self) -> bytes:
        """Everything until the server closes."""
        out = b""
        while piece := self.socket.recv(65536):
            out += piece
        return out

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def post(path: str, body: object, key: str | None, **headers: str) -> bytes:
    """A whole POST as bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(content)}"]
    lines += [f"Authorization: Bearer {key}"] if key else []
    sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    lines += [f"{name}: {value}" for name, value in sent.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def ask(server: Running, path: str, body: object, key: str | None = None, **headers: str) -> tuple[int, dict, bytes]:
    """One POST on a connection of its own."""
    with Wire(server.port) as wire:
        return wire.send(post(path, body, server.key if key is None else key, **headers)).read()


def get(server: Running, path: str, key: str | None = None) -> tuple[int, dict, bytes]:
    """One GET on a connection of its own."""
    auth = f"Authorization: Bearer {key}\r\n" if key else ""
    with Wire(server.port) as wire:
        return wire.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n{auth}\r\n").read()


def chat(script: dict | str, **fields: object) -> dict:
    """A chat body for the fake engine; a script is what it shall do."""
    content = script if isinstance(script, str) else json.dumps(script)
    return {"model": "tiny", "messages": [{"role": "user", "content": content}]} | fields


def until(check, seconds: float = 10):
    """Wait until ``check()`` is true, and return what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
    return found
