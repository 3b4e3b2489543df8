"""Tasks: a small TOML file for each, read and checked, and kept in the home with the files that it names.

<home>/tasks/NAME/task.toml   word for word as it was added
<home>/tasks/NAME/schema.json, file.py, labels.jsonl   what its scorer names, under the setting's own name
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import shutil
import stat
import tempfile
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from freehold import disk
from freehold.errors import BadTask
from freehold.names import shown
from freehold.types import Task

FILE = "task.toml"
NAMED = ("schema", "file", "labels")  # settings of a scorer which, where they are text, are the path of a file
MAX_TASK = 256 << 10  # bytes of TOML
MAX_FILE = 16 << 20  # bytes of a file that a scorer names
MAX_DAYS = 36_500
MAX_TEXT = 2_000  # characters of any other text
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")
_EXAMPLE = "docs/guides/tasks.md has examples."

T = TypeVar("T")


class _Capture(Struct, frozen=True, forbid_unknown_fields=True):
    on: bool = False
    callers: tuple[str, ...] = ()


class _Splits(Struct, frozen=True, forbid_unknown_fields=True):
    tuning: float = 0.6
    validation: float = 0.15


class _Retention(Struct, frozen=True, forbid_unknown_fields=True):
    days: int | None = None


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    """The file, table by table; `Task` is the same, flat."""

    name: str
    scorer: dict[str, Any]
    margin: float
    alias: str = ""
    about: str = ""
    group: str = ""
    price: str = ""
    terms: str = ""
    capture: _Capture = _Capture()
    splits: _Splits = _Splits()
    retention: _Retention = _Retention()


def load(path: Path) -> Task:
    """The task that a TOML file describes. Files that its scorer names are looked for beside it, and not opened.

    Raises:
        BadTask: it cannot be read, or a setting is missing, unknown or wrong.
    """
    return parse(read(path, MAX_TASK), str(path))


def parse(content: bytes, where: str) -> Task:
    """The task in the bytes of a TOML file. ``where`` names it in messages. Raises BadTask."""
    try:
        values = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadTask(f"{where} is not TOML: {shown(str(error))}.", hint="Mend the file.") from None
    file = settings(values, _File, where)
    _check(file, where)
    capture, splits = file.capture, file.splits
    return Task(
        file.name, file.scorer, file.margin, file.alias, file.about, file.group, file.price, file.terms,
        capture.on, capture.callers, splits.tuning, splits.validation, file.retention.days,
    )  # fmt: skip


def settings(values: dict[str, Any], form: type[T], where: str) -> T:
    """A table of TOML as a Struct of its settings, and the tables in it likewise.

    Raises:
        BadTask: one is missing, of the wrong type, or unknown; then it names the nearest one that is known.
    """
    _check_known(values, form, where)
    try:
        return msgspec.convert(values, form)
    except msgspec.ValidationError as error:
        raise BadTask(f"{where}: {_mended(str(error))}.", hint=_EXAMPLE) from None


def nearest(word: str, known: tuple[str, ...]) -> str:
    """What to do about an unknown word: the nearest known one, or all of them."""
    close = difflib.get_close_matches(word[:64], known, 1)
    return f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(known)}."


def read(path: Path, most: int = MAX_FILE) -> bytes:
    """The bytes of a plain file of at most ``most`` of them. Raises BadTask."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise BadTask(f"{path} is no file.", hint="Give the path of a file.")
            content = stream.read(most + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadTask(f"{shown(str(path))} cannot be read: {reason}.", hint="Check the path.") from None
    if len(content) > most:
        raise BadTask(f"{path} has more than {most >> 10} KiB, which is the most.", hint="Make it smaller.")
    return content


def check_name(name: str) -> str:
    """The same name, if it can be a task's and a folder's. Raises BadTask."""
    if not _NAME.fullmatch(name):
        raise BadTask(
            f"{shown(name)!r} cannot be a task's name.",
            hint="Use at most 64 lower-case letters, digits, '.', '-' and '_', a letter or digit first.",
        )
    return name


class Tasks:
    """The tasks of one home; ``folder`` is its ``tasks``, made when the first task is added."""

    def __init__(self, folder: Path):
        self._folder = folder

    def add(self, path: Path, *, replace: bool = False) -> Task:
        """Keep a task and a copy of each file that its scorer names, so that later changes elsewhere do not matter.

        Whether the scorer can be made of it is for the caller to try first: `scorers.make(load(path), path.parent)`.

        Raises:
            BadTask: the task or one of its files is not as it must be, or another task of that name is kept.
        """
        content = read(path, MAX_TASK)
        task = parse(content, str(path))
        files = {FILE: content} | {
            _kept_as(key, name): read(path.parent / Path(name).expanduser()) for key, name in _named(task.scorer)
        }
        try:
            if not self._is_kept(task.name, files):
                self._put(task.name, files, replace=replace)
        except OSError as error:
            raise BadTask(
                f"The task cannot be kept: {error.strerror}.", hint="See to the disk, and try again."
            ) from None
        return self.get(task.name)

    def get(self, name: str) -> Task:
        """One task. The files in its ``scorer`` are named relative to `folder`. Raises BadTask where there is none."""
        path = self.folder(name) / FILE
        if not path.is_file():
            raise BadTask(f"There is no task {name}.", hint=nearest(name, self.names()) if self.names() else "")
        task = load(path)
        kept = {key: _kept_as(key, file) for key, file in _named(task.scorer)}
        return msgspec.structs.replace(task, name=name, scorer=task.scorer | kept)

    def folder(self, name: str) -> Path:
        """Where a task's own files are. Raises BadTask where the name cannot be a task's."""
        return self._folder / check_name(name)

    def names(self) -> tuple[str, ...]:
        """Every task's name, in the order of the alphabet."""
        return tuple(
            sorted(path.parent.name for path in self._folder.glob(f"*/{FILE}") if _NAME.fullmatch(path.parent.name))
        )

    def every(self) -> list[Task]:
        """All of them, but for files that were damaged since they were added."""
        found = []
        for name in self.names():
            with contextlib.suppress(BadTask):
                found.append(self.get(name))
        return found

    def remove(self, name: str) -> None:
        """Forget a task. What was recorded, scored and certified under its name stays. Raises BadTask."""
        if name not in self.names():
            self.get(name)
        away = Path(tempfile.mkdtemp(prefix=".old-", dir=self._folder))
        os.rename(self.folder(name), away / name)
        shutil.rmtree(away, ignore_errors=True)

    def _is_kept(self, name: str, files: dict[str, bytes]) -> bool:
        folder = self.folder(name)
        return folder.is_dir() and files == {path.name: path.read_bytes() for path in folder.iterdir()}

    def _put(self, name: str, files: dict[str, bytes], *, replace: bool) -> None:
        if self.folder(name).exists() and not replace:
            raise BadTask(
                f"There is a task {name} already, and it is another one.",
                hint="Give it another name, or say that it is to be replaced.",
            )
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=self._folder))
        try:
            for file, content in files.items():
                disk.write_atomically(new / file, content)
            if self.folder(name).exists():
                self.remove(name)
            os.rename(new, self.folder(name))
            disk.sync(self._folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def _check(file: _File, where: str) -> None:
    check_name(file.name)
    if not 0 < file.margin < 1:
        raise BadTask(
            f"{where}: the margin is {file.margin:g}; it must be more than 0 and less than 1.",
            hint="It is the loss that you are ready to accept: 0.03 is three points in a hundred.",
        )
    if not isinstance(file.scorer.get("kind"), str):
        raise BadTask(f"{where}: [scorer] has no 'kind'.", hint=_EXAMPLE)
    _check_splits(file.splits, where)
    if file.retention.days is not None and not 0 <= file.retention.days <= MAX_DAYS:
        raise BadTask(
            f"{where}: [retention] days is {file.retention.days}; it may be 0 to {MAX_DAYS:,}.",
            hint="After so many days a recorded call is erased; 0 keeps it until you erase it.",
        )
    texts = {"alias": file.alias, "about": file.about, "group": file.group, "price": file.price, "terms": file.terms}
    for key, text in texts.items():
        if len(text) > MAX_TEXT:
            raise BadTask(f"{where}: {key!r} has more than {MAX_TEXT} characters.", hint="Make it shorter.")
    if file.group and not all(file.group.split(".")):
        raise BadTask(f"{where}: the group {file.group!r} is no dotted path.", hint="For example 'metadata.user_id'.")


def _check_splits(splits: _Splits, where: str) -> None:
    good = splits.tuning >= 0 and splits.validation >= 0 and splits.tuning + splits.validation < 1
    if not good:  # NaN is not good either
        raise BadTask(
            f"{where}: the splits are {splits.tuning:g} for tuning and {splits.validation:g} for validation.",
            hint="Neither may be less than 0, and together they must leave something to certify on.",
        )


def _check_known(values: dict[str, Any], form: type, where: str) -> None:
    fields = {field.name: field.type for field in msgspec.structs.fields(form)}
    for key, value in values.items():
        if key not in fields:
            raise BadTask(f"{where}: there is no {shown(key)!r}.", hint=nearest(key, tuple(fields)))
        if isinstance(value, dict) and isinstance(fields[key], type) and issubclass(fields[key], Struct):
            _check_known(value, fields[key], f"{where}, [{key}]")


def _mended(text: str) -> str:
    """msgspec's message, as part of a sentence."""
    text = shown(text.replace("Object missing required field `", "there is no `"))
    return (text[:1].lower() + text[1:]).replace("`", "'")


def _named(scorer: dict[str, Any]) -> list[tuple[str, str]]:
    return [(key, scorer[key]) for key in NAMED if isinstance(scorer.get(key), str)]


def _kept_as(key: str, name: str) -> str:
    suffix = Path(name).suffix
    return key + (suffix.lower() if _SUFFIX.fullmatch(suffix) else "")
