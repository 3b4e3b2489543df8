"""Tuning runs: the only reader and writer of their records, each a signed envelope beside the others.

<home>/tuning/<digest of the adapter's file, in hex>.json
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from freehold import disk, sign
from freehold.errors import CannotDo, StoreFailed
from freehold.types import TuningRun

TYPE = "application/vnd.freehold.tuning.v1+json"


def keep(folder: Path, run: TuningRun, key: sign.SigningKey) -> Path:
    """Keep a run's record, signed. Raises StoreFailed."""
    path = _path(folder, run.adapter_digest)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        disk.write_atomically(path, sign.seal(msgspec.json.encode(run, order="deterministic"), TYPE, key))
    except OSError as error:
        raise StoreFailed(f"The record of the run cannot be kept: {error.strerror}.", hint="Free some space.") from None
    return path


def find(folder: Path, digest: str, public_key: str) -> TuningRun | None:
    """The run that made the adapter with this digest; None where this home has none.

    Raises:
        CannotDo: its record was changed, or another key signed it.
    """
    path = _path(folder, digest)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CannotDo(f"The record of a tuning run, {path}, cannot be read: {error.strerror}.") from None
    try:
        return msgspec.json.decode(sign.unseal(content, TYPE, [public_key]).payload, type=TuningRun)
    except msgspec.MsgspecError as error:
        raise CannotDo(f"The record of a tuning run, {path}, is none: {error}.", hint="Tune again.") from None


def _path(folder: Path, digest: str) -> Path:
    return folder / f"{digest.removeprefix('sha256:')}.json"
