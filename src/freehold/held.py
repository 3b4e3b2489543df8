"""Models that wait for a named person's decision: their files and what the gate said, out of every engine's reach."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import msgspec

from freehold.disk import write_atomically
from freehold.errors import CannotDo
from freehold.names import check_model_name
from freehold.types import Held, Record

_FACTS = "held.json"
_FILES = "files"


class Waiting:
    """The models of one home that wait, one folder for each name."""

    def __init__(self, folder: Path):
        self._folder = folder

    def put(self, held: Held) -> None:
        """Take a quarantined model over (moved, so it must lie on the same file system); one of that name is replaced.

        The description is written beside the files while they are still in quarantine: what is here is whole. For a
        model that waits already, what is said of it is written anew.
        """
        if held.acquired.folder == self._folder / held.record.name / _FILES:
            write_atomically(held.acquired.folder.with_name(_FACTS), _encode(held))
            return
        check_model_name(held.record.name)
        wrapped = held.acquired.folder.with_name(f"{held.acquired.folder.name}.held")
        wrapped.mkdir(mode=0o700)
        os.rename(held.acquired.folder, wrapped / _FILES)
        place = self._folder / held.record.name
        inside = msgspec.structs.replace(held.acquired, folder=place / _FILES)
        (wrapped / _FACTS).write_bytes(_encode(msgspec.structs.replace(held, acquired=inside)))
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self.drop(held.record.name)
        os.rename(wrapped, place)

    def list(self) -> list[Held]:
        """All that wait, by name. What a crash left half-removed is removed."""
        names = sorted(path.name for path in self._folder.iterdir()) if self._folder.is_dir() else []
        for gone in (name for name in names if name.startswith(".")):
            shutil.rmtree(self._folder / gone, ignore_errors=True)
        names = [name for name in names if not name.startswith(".")]
        return [found for name in names if (found := self._read(name))]

    def get(self, name: str) -> Held:
        """The one of that name. Raises CannotDo."""
        found = next((held for held in self.list() if held.record.name == name), None)
        if found is None:
            raise CannotDo(f"No model {name!r} waits for a decision.", hint="'freehold models list' names them.")
        return found

    def drop(self, name: str) -> None:
        """Remove it, if it is there."""
        place = self._folder / check_model_name(name)
        if place.exists():
            gone = place.with_name(f".{name}.{os.getpid()}")
            os.rename(place, gone)  # first out of sight, then out of the way
            shutil.rmtree(gone, ignore_errors=True)

    def _read(self, name: str) -> Held | None:
        place = self._folder / name
        try:
            held = msgspec.json.decode(
                (place / _FACTS).read_bytes(), type=Held, dec_hook=lambda kind, value: kind(value)
            )
        except (OSError, msgspec.MsgspecError):
            return None  # a removal that a crash cut short
        inside = msgspec.structs.replace(held.acquired, folder=place / _FILES)  # wherever the home lies by now
        held = msgspec.structs.replace(held, acquired=inside)
        whole = held.record.name == name and all((place / _FILES / file.path).exists() for file in held.record.files)
        return held if whole else None  # or an admission, whose files are in the vault by now


def digest_of(record: Record) -> str:
    """What a decision is bound to: the digest of exactly these files and findings, whatever their order, under this
    name, from this source and for this base."""
    facts = (record.name, record.source, record.base)
    parts = (*record.findings, *((file.path, file.digest, file.size) for file in record.files))
    lines = [msgspec.json.encode(facts), *sorted(msgspec.json.encode(part) for part in parts)]
    return "sha256:" + hashlib.sha256(b"\n".join(lines)).hexdigest()


def _encode(held: Held) -> bytes:
    return msgspec.json.encode(held, enc_hook=str)  # a path is the one thing in it that is no JSON
