"""One question to the running server; the answer is streamed to the terminal. '-' reads the question from stdin."""

from __future__ import annotations

import argparse
import http.client
import json
import sys
from collections.abc import Iterable, Iterator

from freehold.cli import local
from freehold.errors import CannotDo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``freehold ask``."""
    parser.add_argument(
        "question", help="what to ask; '-' reads it from stdin, which keeps it out of the list of processes"
    )
    parser.add_argument("--model", help="which model (default: the one admitted last)")
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
    try:
        for piece in _pieces(response):
            print(piece, end="", flush=True)
    finally:
        print()
    return 0


def _served(running) -> str:
    models = json.loads(local.call(running, "GET", "/v1/models").read())["data"]
    return max(models, key=lambda model: model["created"])["id"]


def _body(arguments: argparse.Namespace, model: str) -> dict:
    question = sys.stdin.read() if arguments.question == "-" else arguments.question
    messages = [{"role": "user", "content": question}]
    if arguments.system:
        messages.insert(0, {"role": "system", "content": arguments.system})
    body = {"model": model, "messages": messages, "stream": not arguments.json}
    return body | ({"max_tokens": arguments.max_tokens} if arguments.max_tokens is not None else {})


def _pieces(response: http.client.HTTPResponse) -> Iterator[str]:
    """The text in an event stream. Raises CannotDo if it does not come to its end."""
    try:
        yield from _events(response)
    except (OSError, http.client.HTTPException) as error:
        raise CannotDo(
            f"The answer broke off ({error}).", hint="Ask again; 'freehold status' says how it is."
        ) from None


def _events(lines: Iterable[bytes]) -> Iterator[str]:
    for line in lines:
        if line.startswith(b"data: [DONE]"):
            return
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        if "error" in event:
            raise CannotDo(event["error"].get("message", "The answer broke off."))
        for choice in event["choices"]:
            yield choice["delta"].get("content") or ""
    raise http.client.HTTPException("the stream ended early")
