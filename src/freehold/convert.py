"""Checkpoints that a pickle holds together become safetensors, before the gate looks at them: nothing that runs code
is kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from freehold.errors import BadModel
from freehold.scan import folder
from freehold.scan.convert import Converted
from freehold.scan.sandbox import Sandbox
from freehold.types import Acquired, Judged, Severity

Progress = Callable[[str, int, int], None]


def convert(acquired: Acquired, seal: str, progress: Progress) -> Acquired:
    """Turn each of a quarantined model's PyTorch checkpoints into safetensors beside it, and remove the original.

    Raises:
        BadModel: there is none, or one is more than plain tensors; the message says what it is.
    """
    found = [file for file in folder.scan(acquired.folder, seal, progress).files if _is_checkpoint(file)]
    if not found:
        raise BadModel(f"{acquired.source} holds no PyTorch checkpoint.", hint="Leave --convert out.")
    converted = {}
    with Sandbox(seal) as sandbox:
        for file in found:
            _refuse_findings(file)
            target = Path(file.file).with_suffix(".safetensors").as_posix()
            left = _one(sandbox, acquired.folder, file, target).left
            without = f", without what is no tensor: {', '.join(left[:10])}" if left else ""
            converted[target] = f"{file.file} {file.digest}{without}"
    kept = {path: digest for path, digest in acquired.digests.items() if path not in {file.file for file in found}}
    return msgspec.structs.replace(acquired, digests=kept, converted=converted)


def _is_checkpoint(file: Judged) -> bool:
    members = file.facts.get("members", {})
    return file.format == "pytorch" or any(name.rpartition("/")[2] == "data.pkl" for name in members)


def _refuse_findings(file: Judged) -> None:
    grave = [finding for finding in file.findings if finding.severity is not Severity.NOTE]
    if grave:
        raise BadModel(
            f"{file.file} is more than plain tensors: {grave[0].meaning} [{grave[0].rule}]",
            hint="Ask the publisher for safetensors. Nothing was kept.",
        )


def _one(sandbox: Sandbox, root: Path, file: Judged, target: str) -> Converted:
    if (root / target).exists():
        raise BadModel(f"{target} is there already, beside {file.file}.", hint="Add it without --convert.")
    with (root / file.file).open("rb") as source, (root / target).open("xb") as out:
        done = sandbox.convert(source.fileno(), out.fileno(), file.file)
        os.fsync(out.fileno())
    (root / file.file).unlink()
    return done
