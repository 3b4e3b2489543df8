"""One question to the running server; the answer is streamed to the terminal. '-' reads the question from stdin."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable

from freehold.cli import local
from freehold.errors import CannotDo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``freehold ask``."""
    parser.add_argument("question", help="what to ask")
    parser.add_argument("--model", help="which model (default: the one that is served)")
    parser.add_argument("--system", help="a system message to go before")
    parser.add_argument("--max-tokens", type=int, help="longest answer")
    parser.add_argument("--json", action="store_true", help="the whole answer as the API gives it, not streamed")


def run(arguments: argparse.Namespace) -> int:
    """Ask, and print."""
    running = local.home_of(arguments).running()
    body = _body(arguments, arguments.model or _served(running))
    response = local.call(running, "POST", "/v1/chat/completions", body)
    if arguments.json:
        local.print_json(json.loads(response.read()))
        return 0
    for piece in _pieces(response):
        print(piece, end="", flush=True)
    print()
    return 0


def _served(running) -> str:
    models = json.loads(local.call(running, "GET", "/v1/models").read())["data"]
    return models[0]["id"]


def _body(arguments: argparse.Namespace, model: str) -> dict:
    question = sys.stdin.read() if arguments.question == "-" else arguments.question
    messages = [{"role": "user", "content": question}]
    if arguments.system:
        messages.insert(0, {"role": "system", "content": arguments.system})
    body = {"model": model, "messages": messages, "stream": not arguments.json}
    return body | ({"max_tokens": arguments.max_tokens} if arguments.max_tokens else {})


def _pieces(lines: Iterable[bytes]) -> Iterable[str]:
    """The text in an event stream."""
    for line in lines:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        if "error" in event:
            raise CannotDo(event["error"].get("message", "The answer broke off."))
        for choice in event["choices"]:
            yield choice["delta"].get("content") or ""
