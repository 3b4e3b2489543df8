"""A dossier: the report of one switch as a document, and the evidence that it is made from.

`Dossier` is what is signed; the page, the text and the JSON are three renderings of it. `Evidence` is what a home knows
at one moment, gathered in one place, so that making the document is a function of records alone.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct

from freehold.types.cost import Costs
from freehold.types.models import Manifest, Record
from freehold.types.traffic import Fixing, Outlook, Task, Verdict
from freehold.types.tuning import CurvePoint, TuningRun


class Known(StrEnum):
    """How a figure is known."""

    MEASURED = "measured"  # counted or timed here
    COMPUTED = "computed"  # worked out from what was measured, by a method that is named
    ESTIMATE = "estimate"  # rests on an assumption that nobody measured
    STATED = "stated"  # somebody says so: a file, a setting, a person
    MISSING = "not available"  # and ``command`` is what would make it


class Figure(Struct, frozen=True):
    """One figure: a JSON ``value`` for programs, the text ``shown`` for people, and the command that works it out anew.

    ``id`` begins with its chapter's. ``lasting`` figures come out the same for as long as nobody changes the store; the
    others (versions, how often somebody looked) are true of the moment that the dossier was made.
    """

    id: str
    label: str
    value: Any
    shown: str
    command: str
    kind: Known = Known.MEASURED
    unit: str = ""
    note: str = ""
    lasting: bool = True


class Table(Struct, frozen=True):
    """Rows of texts under one heading. ``numeric`` are the columns that are lined up on the right; ``under`` holds for
    each row what is told below it, as pairs of a word and a text; ``whole`` is how many rows there would be, where not
    all of them are here."""

    id: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    command: str
    kind: Known = Known.MEASURED
    numeric: tuple[int, ...] = ()
    under: tuple[tuple[tuple[str, str], ...], ...] = ()
    whole: int = 0
    note: str = ""
    lasting: bool = True


class Part(Struct, frozen=True):
    """A piece of a chapter, in the order in which it is read: paragraphs, points, a picture, figures, tables.
    ``picture`` is '' or ``curve``."""

    id: str
    title: str = ""
    lead: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    picture: str = ""
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()


class Chapter(Struct, frozen=True):
    """One chapter."""

    id: str
    title: str
    parts: tuple[Part, ...]


class Dossier(Struct, frozen=True):
    """The report of one switch.

    ``layout`` numbers the way in which this document is rendered: a later Freehold renders otherwise. ``made_at`` is
    the moment up to which the store was read. ``summary`` has the figures of the first page, ``points`` is what that
    page says against itself. ``verdicts`` are drawn, the first is the candidate's; their flips are left out. ``key`` is
    the public key of whoever signs, in base64, ``signer`` its fingerprint. ``with_text`` says whether texts of calls
    are in it.
    """

    task: str
    about: str
    candidate: str
    candidate_key: str
    incumbent: str
    outcome: Outlook
    headline: str
    plain: str
    sentence: str
    made_at: float
    made_by: str
    layout: int
    with_text: bool
    key: str
    signer: str
    summary: tuple[Figure, ...]
    points: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    chapters: tuple[Chapter, ...]
    curve: tuple[CurvePoint, ...] = ()
    best_step: int = 0


class Statement(Struct, frozen=True):
    """What the signature of one file is made over: the document, the form that it was rendered in (html, md, json), and
    the SHA-256 of the whole file with nothing in the place of the signature."""

    dossier: Dossier
    form: str
    page: str


class Change(Struct, frozen=True):
    """Something that is not as it was signed, or not as the store has it: its id and label, then both texts."""

    id: str
    label: str
    signed: str
    found: str


# The evidence


class Excerpt(Struct, frozen=True):
    """The texts of one call, in short: what was asked last, and the answers."""

    asked: str
    incumbent: str
    candidate: str
    expected: str = ""


class Portion(Struct, frozen=True):
    """What one split of the traffic is made of. Times are seconds since the epoch, 0 where none is known."""

    calls: int
    groups: int
    first: float = 0.0
    last: float = 0.0


class Pace(Struct, frozen=True):
    """How a candidate answered the calls that certify: the median and the 95th percentile of whole answers and of first
    tokens, in milliseconds, and tokens over all calls."""

    answered: int
    total_ms: tuple[float, float] | None
    first_token_ms: tuple[float, float] | None
    prompt_tokens: int
    completion_tokens: int


class Proof(Struct, frozen=True):
    """The latest proof of privacy: what it claims and found. ``rows`` are attempts: who tried, what, what came of it
    outside the seal and inside, and what that shows. ``wrong`` is what is not good about its signature."""

    file: str
    claim: str
    verdict: str
    at: float
    freehold: str
    kernel: str
    seal: str
    rows: tuple[tuple[str, str, str, str, str], ...]
    reasons: tuple[str, ...] = ()
    running: int = 0  # processes of a running server that were looked up in the kernel
    wrong: tuple[str, ...] = ()


class Departure(Struct, frozen=True):
    """Calls under one name in the ledger, and how many of them were sent to somebody else's machine."""

    name: str
    role: str  # candidate, alias, incumbent
    calls: int
    left: int


class Privacy(Struct, frozen=True):
    """What is known of where calls and their texts went."""

    proof: Proof | None
    departures: tuple[Departure, ...]
    hosts: tuple[str, ...]  # where the settings let calls be passed on to
    seal: str  # the setting


class Kept(Struct, frozen=True):
    """A model of the house: its manifest, its record, and whether this house's key signed that."""

    manifest: Manifest
    record: Record
    signed: bool


class Machine(Struct, frozen=True):
    """What it all ran on: versions and sizes. Nothing that names the machine."""

    freehold: str
    engine: str
    python: str
    system: str
    kernel: str
    processor: str
    cores: int
    memory: int  # bytes


class Chain(Struct, frozen=True):
    """The audit chain at one moment: how many events, the hash of the last, and whether it holds."""

    events: int
    head: str
    holds: bool
    problem: str = ""


class Evidence(Struct, frozen=True):
    """What a home knows of one candidate for one task at the moment ``at``.

    ``splits`` is by the split's name; ``terms`` and ``incumbents`` count the task's calls by their text and name;
    ``excerpts`` are texts of calls by the call's id, and empty unless texts are wanted; ``fields`` are names that the
    task's own file gives to parts of an answer, which can be told without telling anything of a call.
    """

    task: Task
    verdict: Verdict
    sentence: str
    others: tuple[Verdict, ...]
    fixing: Fixing
    splits: dict[str, Portion]
    terms: tuple[tuple[str, int], ...]
    incumbents: tuple[tuple[str, int], ...]
    pace: Pace
    privacy: Privacy
    machine: Machine
    chain: Chain
    at: float
    by: str
    key: str
    signer: str
    model: Kept | None = None
    base: Kept | None = None
    tuning: TuningRun | None = None
    costs: Costs | None = None
    costs_said: str = ""  # in a sentence
    with_text: bool = False
    excerpts: dict[str, Excerpt] = {}
    fields: tuple[str, ...] = ()
