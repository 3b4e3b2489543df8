"""The scanners, in the order in which they are asked; and one file or member judged by the first that knows it."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from freehold.scan import (
    compressed,
    document,
    executable,
    gguf,
    hdf5,
    image,
    npy,
    onnx,
    opaque,
    pickles,
    pytorch,
    safetensors,
    savedmodel,
    sentencepiece,
    sevenzip,
    tars,
    templates,
    text,
    zips,
)
from freehold.scan.base import CHANGED, FAULT, LIMIT, NOTE, OVERSIZED, TRUNCATED, UNJUDGED, Malformed, Report
from freehold.scan.tape import Changed, FileTape, Oversized, Tape, Truncated
from freehold.types import Judged

SCANNERS: tuple[ModuleType, ...] = (
    zips,
    gguf,
    safetensors,
    sevenzip,
    hdf5,
    npy,
    pytorch,
    pickles,
    compressed,
    tars,
    image,
    executable,
    savedmodel,
    onnx,
    sentencepiece,
    templates,
    document,
    text,
    opaque,
)
_HEAD = 4096
# What holds a model's weights, or may: with one of these inside, so does an archive.
WEIGHTS = frozenset({
    "gguf", "safetensors", "onnx", "pytorch", "pickle", "npy", "numpy", "keras", "hdf5", "savedmodel", "joblib",
})  # fmt: skip
_MARK = 64  # bytes: PyTorch's notes beside a pickle ("version") have no more, and no weights have so few


def judge(
    descriptor: int, size: int, name: str, tell: Callable[[int], object] = lambda done: None, scratch: int | None = None
) -> Judged:
    """Read one open file to its end, once: its format, its findings, its digest and where every byte of it went.

    ``scratch`` is the descriptor of an empty file to unpack into. The fact ``weights`` is True where the file, or
    anything in it, is of a format of weights. Raises OSError if the file cannot be read.
    """
    on = FileTape(descriptor, size, tell)
    met: set[str] = set()  # by the file and all that is nested in it

    def noted(tape: Tape, report: Report) -> None:
        dispatch(tape, report)
        if report.format != pytorch.FORMAT or tape.size > _MARK:
            met.add(report.format)

    report = Report(name, noted, size=size, scratch=scratch)
    digest = ""
    try:
        try:
            noted(on, report)
        finally:
            on.skip(on.left, "nothing read so far")
        digest = on.digest()
    except Changed:
        report.add(CHANGED)
    finally:
        on.close()
    if met & WEIGHTS:
        report.facts["weights"] = True
    silent = all(found.severity is NOTE for found in report.findings)  # a fault has said it already
    for span in on.unjudged if silent else ():
        report.add(UNJUDGED, span.start, f"Bytes {span.start} to {span.end} were not judged: {span.why}.")
    return Judged(
        name,
        report.format,
        size,
        digest,
        on.parsed,
        on.passed,
        tuple(on.unjudged),
        tuple(report.findings),
        report.facts,
    )


def dispatch(on: Tape, report: Report) -> None:
    """Judge a tape as what it is. Whatever goes wrong is a finding, and the rest of the tape is unjudged."""
    start = on.at
    try:
        head = on.peek(start, _HEAD)
        scanner = next(known for known in SCANNERS if known.recognises(head, on, report.name))
        report.format = scanner.FORMAT
        scanner.scan(on, report)
        why = "after the end of what the format describes"
    except Malformed as fault:
        report.add(fault.rule, fault.at, fault.meaning)
        why = "after a fault"
    except Truncated as fault:
        meaning = f"The file ends inside its {report.format} structure: {fault}, and there are {on.size}."
        report.add(TRUNCATED, fault.at, meaning)
        why = "after a fault"
    except Oversized as fault:
        report.add(OVERSIZED, fault.at, f"The {report.format} structure asks for {fault}, more than any sound file.")
        why = "after a fault"
    except MemoryError:
        report.add(LIMIT, on.at)
        why = "after a fault"
    except (Changed, OSError):
        raise
    except Exception as fault:  # noqa: BLE001 - the parser's own fault, which is a finding like another
        report.add(FAULT, on.at, f"The {report.format} parser gave up: {type(fault).__name__}{_line(fault)}.")
        why = "after a fault"
    on.skip(on.left, why)


def _line(fault: Exception) -> str:
    """Where in our own code it was, for whoever mends it."""
    trace = fault.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f" in {trace.tb_frame.f_code.co_name}, line {trace.tb_lineno}" if trace else ""
