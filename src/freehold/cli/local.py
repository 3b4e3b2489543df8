"""What the verbs share: the home, the running server, and ways to print."""

from __future__ import annotations

import argparse
import getpass
import http.client
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from freehold import config
from freehold.errors import CannotDo, NotRunning
from freehold.home import Home, Running
from freehold.log import plain
from freehold.names import size
from freehold.types import Candidate, Task

if TYPE_CHECKING:
    from freehold.app import Parts

_BAR = 28


@contextmanager
def opened(arguments: argparse.Namespace, *, create: bool = False) -> Iterator[Parts]:
    """The home that the command is about, with its database open."""
    from freehold import app  # a third of a second of imports that 'ask' does not need

    home = home_of(arguments, create=create)
    with app.parts(home, config.load(home.folder)) as parts:
        yield parts


def home_of(arguments: argparse.Namespace, *, create: bool = False) -> Home:
    """The home that the command is about. Only a few commands make one: a mistyped path is an error elsewhere."""
    return Home(config.home_folder(arguments.home), create=create)


def actor() -> str:
    """Who gives the command, for the audit chain; a user without a name (as in containers) by number."""
    try:
        return f"command line, {getpass.getuser()}"
    except (KeyError, OSError):
        return f"command line, user {os.getuid()}"


class _UnixConnection(http.client.HTTPConnection):
    """http.client over a Unix socket."""

    def __init__(self, path: str, timeout: float):
        super().__init__("freehold", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def call(running: Running, method: str, path: str, body: Any = None, timeout: float = 600) -> http.client.HTTPResponse:
    """One call to the running server as its owner. Raises NotRunning, or CannotDo with the server's own words."""
    connection = _UnixConnection(running.socket, timeout)
    headers = {"Authorization": f"Bearer {running.key}", "Content-Type": "application/json"}
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        response = connection.getresponse()
    except OSError as error:
        raise NotRunning(f"The server (process {running.pid}) does not answer: {error.strerror or error}.") from None
    if response.status >= 400:
        raise CannotDo(message_of(response.read()))
    return response


def live(home: Home) -> dict[str, Any] | None:
    """What the running server says of itself; None if there is none."""
    try:
        return json.loads(call(home.running(), "GET", "/admin/status", timeout=10).read())
    except NotRunning:
        return None


def candidate(parts: Parts, task: Task, name: str) -> Candidate:
    """The candidate of that name, or key, that answered calls of the task. Raises CannotDo."""
    known = parts.results.candidates(task.name)
    found = [candidate for candidate in known if name in (candidate.name, candidate.key)]
    if not found:
        answered = ", ".join(sorted({candidate.name for candidate in known})) or "none"
        raise CannotDo(
            f"{name} has not answered any call of {task.name!r} (who has: {answered}).",
            hint=f"'freehold replay {task.name} --candidate {name} --split certification' does that.",
        )
    if len(found) > 1:
        keys = "; ".join(
            f"{one.key} ({one.digest[:19]}, {msgspec.json.encode(one.settings).decode()})" for one in found
        )
        raise CannotDo(f"{name} answered with several settings or bytes.", hint=f"Name one by its key: {keys}.")
    return found[0]


def engine_name(engine: dict[str, Any]) -> str:
    """An engine of /admin/status, by name: its model, and what it is for if that is not text."""
    return f"engine {engine['model']}" + (", vectors" if engine["purpose"] == "vectors" else "")


def message_of(body: bytes) -> str:
    """The sentence in an error answer."""
    try:
        return json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return "The server gave no reason."


def print_json(document: Any) -> None:
    """A document for programs."""
    print(json.dumps(document, indent=2))


def lines(found: Iterable[str]) -> str:
    """Lines for a terminal, each shown as one: what came from a model's file may neither steer it nor forge a line."""
    return "\n".join(map(plain, found))


def cell(value: object) -> object:
    """A cell of a CSV file that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" else value


def table(rows: list[tuple[str, ...]], head: tuple[str, ...]) -> None:
    """Columns as wide as they need to be."""
    widths = [max(len(plain(cell)) for cell in column) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        print("  ".join(plain(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def date(text: str) -> float:
    """A day or a time that a flag gives, of UTC if it names no zone. Raises CannotDo."""
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, OSError):
        raise CannotDo(f"{text!r} is no date.", hint="Write it like 2026-05-03.") from None


def when(at: float | None) -> str:
    """A time for people, of UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at)) if at else ""


class Bar:
    """A progress bar on standard error; a line for each tenth where that is no terminal."""

    def __init__(self) -> None:
        self._what = ""
        self._tenth = -1
        self._begun = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show how far it is."""
        if what != self._what:
            self.end()
            self._what, self._tenth, self._begun = what, -1, time.monotonic()
        share = done / total if total else 1.0
        if sys.stderr.isatty():
            self._draw(share, done, total)
        elif int(share * 10) > self._tenth and time.monotonic() - self._begun > 1:
            self._tenth = int(share * 10)
            print(f"  {self._what} {share:.0%} of {size(total)}", file=sys.stderr, flush=True)

    def end(self) -> None:
        """The bar's last line is complete."""
        if self._what and sys.stderr.isatty():
            print(file=sys.stderr, flush=True)
        self._what = ""

    def _draw(self, share: float, done: int, total: int) -> None:
        full = int(share * _BAR)
        bar = "█" * full + "░" * (_BAR - full)
        print(f"\r  {self._what:<10} {bar} {share:4.0%} of {size(total)} ", end="", file=sys.stderr, flush=True)


class Progress:
    """How far it is with calls, on standard error, where it takes longer than a second: a line that is drawn over, or
    one for each tenth where that is no terminal."""

    def __init__(self) -> None:
        self._what = ""
        self._renew()

    def __call__(self, what: str, done: int, total: int) -> None:
        """So many of so many calls; a bar of its own for each thing that is done, and each time that it is."""
        if what != self._what:
            self.end()
        self._what = what
        self.tell(done, total, f"{what} {done:,} of {total:,} calls")
        if done >= total:
            self.end()

    def tell(self, done: int, total: int, said: str) -> None:
        """Show it, some times a second."""
        now = time.monotonic()
        if now - self._began < 1:
            return
        if not sys.stderr.isatty():
            if done * 10 // total > self._tenth:
                self._tenth = done * 10 // total
                print(f"  {plain(said)}", file=sys.stderr, flush=True)
        elif now - self._drawn > 0.1 or done == total:
            self._drawn = now
            full = done * _BAR // total
            bar = "█" * full + "░" * (_BAR - full)
            print(f"\r  {bar} {plain(said)}\x1b[K", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """The line is complete."""
        if self._drawn:
            print(file=sys.stderr, flush=True)
        self._what = ""
        self._renew()

    def _renew(self) -> None:
        self._began, self._drawn, self._tenth = time.monotonic(), 0.0, 0


def canvas(indent: int = 0) -> dict[str, Any]:
    """What a picture in the terminal needs to know of it (`chart.terminal`): ``width`` and ``plain``."""
    from freehold.chart import terminal

    width = shutil.get_terminal_size((100, 24)).columns - indent
    return {"width": width, "plain": terminal.needs_plain(sys.stdout.encoding)}


def write(path: Path, text: str) -> None:
    """Write a file that a flag names. Raises CannotDo."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CannotDo(f"{path} cannot be written: {error.strerror}.", hint="Name another file.") from None
