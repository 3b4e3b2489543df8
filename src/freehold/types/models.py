"""A model: from quarantine, by way of the gate, into the vault."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

from msgspec import Struct

ADAPTER = "gguf-adapter"  # the format of an adapter that an engine can lay over its base
Progress = Callable[
    [str, int, int], None
]  # told what is done, how much of it (bytes, or things), and how much there is


class Manifest(Struct, frozen=True):
    """What the vault knows of one admitted model, in short; `Record` has the whole.

    ``digest`` and ``size`` are those of the file that an engine opens (or of the first weights, where no engine
    does). ``pinned`` says whether that digest was known before the bytes arrived (the starter model's is);
    ``context`` is the number of tokens that the model was trained to attend to, 0 where the file does not
    say. ``base`` is the digest of the model that an adapter belongs to. ``record`` is the digest of the `Record`.
    """

    name: str
    digest: str
    size: int
    format: str
    source: str
    pinned: bool
    architecture: str = ""
    context: int = 0
    licence: str = ""
    admitted_at: float = 0.0
    base: str = ""
    record: str = ""

    @property
    def is_adapter(self) -> bool:
        """Is it no model of its own, but what is laid over another, ``base``, while that answers?"""
        return self.format == ADAPTER


class Acquired(Struct, frozen=True):
    """A model in quarantine: a folder of files that nobody has looked into yet.

    ``source`` says where it came from, with the revision pinned (``hf:org/name@<commit>``); ``pinned`` that the
    digest of its one file was known before it arrived, and ``digests`` holds what was promised for each path
    beforehand (by a pin, or by a hub's own listing), ``sha256:...``, for as many paths as there was a promise.
    ``licence`` and ``base_models`` are what the source's own listing says, where it says anything.
    """

    folder: Path
    name: str
    source: str
    pinned: bool = False
    digests: dict[str, str] = {}
    licence: str = ""
    base_models: tuple[str, ...] = ()
    converted: dict[str, str] = {}  # what each file was made from here: its old name and digest, by the new name
    chosen: tuple[str, ...] = ()  # how files were chosen from the source, where they were
    via: str = ""  # who carried it here, where that was not its source


class Admission(StrEnum):
    """What the gate says of a model."""

    ADMIT = "admit"
    HOLD = "hold"  # a named person decides, with a reason; nothing is served until then
    BLOCK = "block"


class Severity(StrEnum):
    """What one finding asks for."""

    NOTE = "note"  # worth knowing; changes nothing
    HOLD = "hold"
    BLOCK = "block"


class Finding(Struct, frozen=True):
    """What a scanner saw in a file: the rule, where, what it means and what to do.

    ``file`` is the path inside what was scanned, ``/`` between its parts; ``where`` a byte offset or a path inside
    the file (``byte 17``, ``archive/data.pkl, byte 3``); ``source`` the document that the rule comes from.
    """

    rule: str
    severity: Severity
    file: str
    where: str
    meaning: str
    remedy: str
    source: str = ""


class Span(Struct, frozen=True):
    """Bytes from ``start`` up to but not including ``end``, and why they were not judged."""

    start: int
    end: int
    why: str


class Judged(Struct, frozen=True):
    """One file, read once: what it is, its digest, where every byte of it went, and what was found.

    ``parsed + data`` and the lengths of ``unjudged`` add up to ``size``. ``facts`` is what the file says of itself,
    cut to a bounded length; each scanner's docstring lists its names. ``stamp`` is the file as the kernel described it
    while it was read: device, inode, size, and times of last modification and change in nanoseconds.
    """

    file: str
    format: str
    size: int
    digest: str
    parsed: int = 0
    data: int = 0
    unjudged: tuple[Span, ...] = ()
    findings: tuple[Finding, ...] = ()
    facts: dict[str, Any] = {}
    stamp: tuple[int, ...] = ()


class Scanned(Struct, frozen=True):
    """One file or folder, judged: its files, and what was found in each of them and between them."""

    root: str
    files: tuple[Judged, ...]
    findings: tuple[Finding, ...]
    verdict: Admission


class LicenceClass(StrEnum):
    """What a licence lets its user do."""

    OPEN = "open"
    SOURCE_AVAILABLE = "source-available"
    USE_RESTRICTED = "use-restricted"
    NON_COMMERCIAL = "non-commercial"
    UNKNOWN = "unknown"


class Stated(Struct, frozen=True):
    """One place that says under which licence a model is: a text, a card's tag, a key in the file, a base model."""

    where: str
    says: str  # as it says it
    id: str = ""  # the licence that this is, '' where it could not be told


class Licence(Struct, frozen=True):
    """Under which licence a model is, all its sources compared; ``conflicts`` are sentences, one a disagreement."""

    id: str
    kind: LicenceClass
    asks: tuple[str, ...] = ()
    stated: tuple[Stated, ...] = ()
    conflicts: tuple[str, ...] = ()


class Component(Struct, frozen=True):
    """One component of the Model Openness Framework: the class that needs it, whether it is there, and under what."""

    name: str
    needed_for: str  # III, II or I
    present: bool | None  # None: cannot be told from what is here
    licence: str = ""
    evidence: str = ""


class Openness(Struct, frozen=True):
    """How open a model is: its class in the Model Openness Framework ('' for none), and whether it is open source by
    the Open Source AI Definition."""

    grade: str
    osaid: str  # yes, no, unknown
    components: tuple[Component, ...] = ()
    missing: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


class Signature(Struct, frozen=True):
    """A signature over a model. ``signer`` is who the key belongs to by the settings, '' where nobody knows the key."""

    kind: str
    key: str  # the key's SHA-256 fingerprint
    signer: str
    good: bool
    detail: str


class Ruling(Struct, frozen=True):
    """What a named person decided of a model that was held, why, and of what exactly."""

    verdict: Admission
    by: str
    why: str
    at: float
    of: str  # the digest of the files and findings that were in front of them


class ModelFile(Struct, frozen=True):
    """One file of an admitted model. ``kind``: weights, config, template, doc, licence, code or signature."""

    path: str
    digest: str
    size: int
    format: str
    kind: str


class Record(Struct, frozen=True):
    """All that is known of one model: what every page, bundle and bill of materials about it is made from."""

    name: str
    source: str
    pinned: bool
    files: tuple[ModelFile, ...]
    verdict: Admission
    findings: tuple[Finding, ...]
    licence: Licence
    openness: Openness
    judged_by: str
    judged_at: float
    base_models: tuple[str, ...] = ()
    parameters: int = 0
    architecture: str = ""
    context: int = 0
    format: str = ""
    templates: dict[str, str] = {}  # the SHA-256 of each chat template, by its name
    metadata: dict[str, Any] = {}  # what the file that an engine opens says of itself, cut
    signatures: tuple[Signature, ...] = ()
    ruling: Ruling | None = None
    converted: dict[str, str] = {}
    chosen: tuple[str, ...] = ()
    via: str = ""
    base: str = ""  # the digest of the model that an adapter belongs to


class Held(Struct, frozen=True):
    """A model that waits for a named person's decision: how it came, and what the gate said."""

    acquired: Acquired
    record: Record
    at: float
    published: str = ""
    replace: bool = False
