"""What runs inside an engine's process: put on the seal, then become the engine.

The launch order is one line of JSON on standard input; the gateway keeps that pipe open for as long as it
wants the engine, so the end of input, however the gateway came to its end, is the order to stop. What the
child has to say (its seal, then ready or failed) are lines of JSON on standard output.

Nothing of the engine, neither its library nor its model, is touched before the seal is on.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from freehold import seal
from freehold.seal import kernel
from freehold.types import Layer

SEAL_REQUIRED = "The seal is required and the kernel lacks"


class Adapter(Struct, frozen=True):
    """An adapter to load. It answers whoever does not say otherwise at this ``scale``."""

    path: str
    scale: float


class Order(Struct, frozen=True):
    """What the gateway asks its child to become."""

    engine: str  # a sibling module with a `serve(order)` function
    model: str
    name: str
    socket: str
    key: str
    context: int
    slots: int
    threads: int
    seal: str
    template: str = ""  # instead of the model's own
    memory: int = 1 << 40  # bytes beside the model's file
    vectors: bool = False  # embeddings, and nothing else
    batch: int = 512
    gpu_layers: int = -1
    flash_attention: str = "auto"
    kv_type: str = "f16"
    adapters: tuple[Adapter, ...] = ()  # a call names one by its place in this list


class Word(Struct, frozen=True):
    """What a child says to the gateway: exactly one of the fields."""

    layers: tuple[Layer, ...] | None = None
    failed: str | None = None


def main() -> int:
    """Run the child. Exit code 0 when told to stop, 1 when the engine did not come up."""
    out = _keep_output()
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    kernel.die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the gateway, which then asks us to stop
    layers = _seal(order)
    _say(out, Word(layers=layers))
    if order.seal == "required" and (lacking := seal.missing(layers)):
        _say(out, Word(failed=f"{SEAL_REQUIRED} {'; '.join(lacking)}"))
        return 1
    try:
        running = importlib.import_module(f"freehold.engine.{order.engine}").serve(order)
    except Exception as error:  # noqa: BLE001 - whatever the engine raises is told to the gateway in one line
        _say(out, Word(failed=f"{type(error).__name__}: {error}"))
        return 1
    sys.stdin.buffer.read()  # until the gateway closes it, or is gone
    del running
    return 0


def _seal(order: Order) -> tuple[Layer, ...]:
    plan = seal.engine_plan(
        model=Path(order.model), folder=Path(order.socket).parent,
        adapters=[Path(adapter.path) for adapter in order.adapters], data_bytes=order.memory,
    )  # fmt: skip
    return seal.put_on(order.seal, plan)


def _keep_output() -> Any:
    """Keep standard output for our own words: what the engine prints goes to standard error."""
    kept = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    return kept


def _say(out: Any, word: Word) -> None:
    out.write(msgspec.json.encode(word) + b"\n")


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # the engine's threads need no goodbye, and its destructors may wait for a call in flight
