"""Write recorded calls out: in our own format, which `bring` reads back as the same calls, or as fine-tuning lines."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from freehold.errors import CannotDo
from freehold.traffic import finetuning, own
from freehold.types import Sample

FORMATS: dict[str, Callable[[Sample], dict[str, Any] | None]] = {"own": own.line, "finetuning": finetuning.line}


class Written(Struct, frozen=True):
    """How many calls were written, and how many the format has no place for."""

    calls: int
    left_out: int


def write(calls: Iterable[Sample], target: str, format: str = "own") -> Written:
    """Write calls to a file of its owner's alone, which appears when it is complete; ``-`` is standard output.

    Raises:
        CannotDo: the file cannot be written.
    """
    written = left_out = 0
    with _opened(target) as stream:
        for call in calls:
            document = FORMATS[format](call)
            if document is None:
                left_out += 1
                continue
            stream.write(msgspec.json.encode(document) + b"\n")
            written += 1
    return Written(written, left_out)


@contextmanager
def _opened(target: str) -> Iterator[BinaryIO]:
    if target == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(target)
    try:
        descriptor, new = tempfile.mkstemp(prefix=f".{path.name[:100]}-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                yield stream
            os.replace(new, path)
        finally:
            Path(new).unlink(missing_ok=True)
    except OSError as error:
        raise CannotDo(f"{path} cannot be written: {error.strerror}.", hint="Name another with --output.") from None
