"""Names from elsewhere: of models, of files, of anything that is shown to a person. None is believed. And how a number
of bytes is said."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

from msgspec import Struct

from freehold.errors import AcquireFailed, CannotDo

KEPT_NOTHING = "Nothing was kept."
_DEEPEST = 16
_LONGEST_PART = 255  # bytes: NAME_MAX
_LONGEST_PATH = 1000  # bytes; what is below a home must still fit into PATH_MAX
_SPLIT = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf$)", re.IGNORECASE)
_SUFFIX = re.compile(
    r"\.(gguf|ggml|safetensors|onnx|keras|h5|hdf5|pt|pth|bin|ckpt|pkl|npz|npy|nemo|tar)$", re.IGNORECASE
)
_NAME = re.compile(r"[a-z0-9_][a-z0-9._-]{0,99}")
_ADAPTER = re.compile(rf"({_NAME.pattern})\+([a-z0-9][a-z0-9._-]{{0,63}})@([1-9][0-9]{{0,5}})")


class AdapterName(Struct, frozen=True):
    """The name of an adapter: that of its base, its own, and which of that name it is."""

    base: str
    adapter: str
    version: int

    def __str__(self) -> str:
        return f"{self.base}+{self.adapter}@{self.version}"


def size(count: int) -> str:
    """A number of bytes, for people."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}" if count < 10 * unit else f"{count / unit:.0f} {name}"
    return f"{count} bytes" if count != 1 else "1 byte"


def model_name(text: str) -> str:
    """The name under which a file's or repository's model is called: its own, without the suffix of a model file or
    the number of a part, in lower case, in letters, digits and ``.-_``."""
    stem = _SUFFIX.sub("", _SPLIT.sub("", text.rstrip("/").rpartition("/")[2]))
    return re.sub(r"[^a-z0-9._-]", "-", stem.lower()).strip("-.")[:100] or "model"


def checked(paths: Iterable[str]) -> list[str]:
    """The same paths, if each can be laid under a folder on any system without leaving it or meeting another.

    A path has parts between single ``/``; none is empty, ``.`` or ``..``, over-long, or holds a control character,
    a backslash or broken UTF-8. No two differ by case alone, and none is a folder of another's.

    Raises:
        AcquireFailed: naming the first that cannot.
    """
    spelled: dict[str, str] = {}
    files: list[str] = []
    folders: set[str] = set()
    for path in paths:
        if reason := _unsafe(path):
            raise AcquireFailed(f"The name {shown(path)} is refused: it {reason}.", hint=KEPT_NOTHING)
        if other := _spelled_otherwise(path, spelled):
            raise AcquireFailed(
                f"{shown(other)} and {shown(path)} differ in nothing but the case or form of their letters.",
                hint=f"On some disks they are one file. {KEPT_NOTHING}",
            )
        files.append(path)
        folders.update(_folders(path))
    twice = folders.intersection(files) or {path for path, count in Counter(files).items() if count > 1}
    if twice:
        raise AcquireFailed(f"The name {shown(min(twice))} is there twice.", hint=KEPT_NOTHING)
    return files


def shown(text: str) -> str:
    """Somebody else's text, cut, and without anything that a terminal would obey."""
    text = text if len(text) <= 200 else text[:197] + "..."
    escaped = text.encode("utf-8", "backslashreplace").decode()
    return "".join(mark if mark.isprintable() else mark.encode("unicode_escape").decode() for mark in escaped)


def _unsafe(path: str) -> str:
    """Why a path cannot be laid under a folder; '' if it can."""
    try:
        coded = path.encode()
    except UnicodeEncodeError:
        return "is not valid UTF-8"
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", path):
        return "leads out of its folder"
    if "" in parts or "." in parts:
        return "is not a plain path"
    if "\\" in path or not path.isprintable():
        return "holds characters that file names should not have"
    if len(coded) > _LONGEST_PATH or any(len(part.encode()) > _LONGEST_PART for part in parts):
        return "is too long"
    if len(parts) > _DEEPEST:
        return f"is more than {_DEEPEST} folders deep"
    return ""


def _spelled_otherwise(path: str, spelled: dict[str, str]) -> str:
    """How ``path``, or a folder that it is in, is already written, if that is in other letters of the same sense."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
    for written, key in zip([*_folders(path), path], [*_folders(folded), folded], strict=True):
        if (other := spelled.setdefault(key, written)) != written:
            return other
    return ""


def _folders(path: str) -> list[str]:
    """Every folder that a path is in, the outermost first."""
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def adapter_name(text: str) -> AdapterName | None:
    """The parts of ``BASE+ADAPTER@VERSION``; None for what is not of this form."""
    found = _ADAPTER.fullmatch(text)
    return AdapterName(found[1], found[2], int(found[3])) if found else None


def adapter_stem(text: str) -> str:
    """What an adapter is called beside its base: like `model_name`, but for what may stand first and how long it is."""
    return model_name(text).lstrip("._-")[:64] or "adapter"


def is_model_name(text: str, *, adapter: bool | None = None) -> bool:
    """May a model be called that? Lower-case letters, digits, ``.``, ``-`` and ``_``, 100 at most, no dot first.

    An adapter is called ``BASE+ADAPTER@VERSION``, and nothing else is; ``adapter`` says which of the two it is, None
    that it may be either.
    """
    plain, own = _NAME.fullmatch(text) is not None, _ADAPTER.fullmatch(text) is not None
    return (plain or own) if adapter is None else own if adapter else plain


def check_model_name(text: str, *, adapter: bool | None = None) -> str:
    """The same name, if it can be a model's and a folder's; ``adapter`` as for `is_model_name`. Raises CannotDo."""
    if is_model_name(text, adapter=adapter):
        return text
    if adapter:
        raise CannotDo(
            f"{shown(text)!r} cannot be an adapter's name.",
            hint="An adapter is called BASE+ADAPTER@VERSION: the name of its base, its own, and a number from 1 on.",
        )
    raise CannotDo(
        f"{shown(text)!r} cannot be a model's name.",
        hint=f"Use lower-case letters, digits, '.', '-' and '_'; for example {model_name(text)!r}.",
    )
