"""What no scanner knows: every byte is hashed, none is judged, and the file is held."""

from __future__ import annotations

from freehold.scan.base import BLOCK, FETCH_AGAIN, HOLD, NOTE, Report, Rule
from freehold.scan.tape import Tape

FORMAT = "opaque"

OPAQUE = Rule(
    "opaque.unknown", HOLD, "There is no parser for this file, so nobody has looked inside.",
    "Leave it out if no engine needs it, or decide by name and reason.", "Freehold: what was not judged is never clean",
)  # fmt: skip
MISNAMED = Rule(
    "opaque.misnamed", BLOCK, "It is not what its name says: no reader of that format could open it.", FETCH_AGAIN,
    "Freehold: content decides the format",
)  # fmt: skip
EMPTY = Rule(
    "opaque.empty",
    NOTE,
    "The file is empty.",
    "Fetch it again if something should be in it.",
    "Freehold: incomplete models",
)
STRICT = (".gguf", ".safetensors", ".npy", ".npz", ".keras", ".onnx")  # names of one format each
LOOSE = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".hdf5", ".pkl", ".pickle", ".joblib", ".pb")  # of several, all weights


def recognises(head: bytes, tape: Tape, name: str) -> bool:
    """Everything that nobody else knew."""
    return True


def scan(tape: Tape, report: Report) -> None:
    """Say so."""
    if report.name.lower().endswith(STRICT):
        report.add(MISNAMED, meaning="The file is empty." if not tape.left else "")
    elif tape.left:
        report.add(OPAQUE)
    else:
        report.add(EMPTY, severity=HOLD if report.name.lower().endswith(LOOSE) else None)
    tape.skip(tape.left, "no parser knows this format")
