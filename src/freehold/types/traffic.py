"""Traffic: recorded calls of a task, what a candidate made of them, and what that says of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct

from freehold.types.calls import Kind, Usage


class Split(StrEnum):
    """What a recorded call is for. Earliest calls tune, later ones choose, the latest certify."""

    TUNING = "tuning"
    VALIDATION = "validation"
    CERTIFICATION = "certification"


class ToolCall(Struct, frozen=True):
    """A call of a function that a model asked for. ``arguments`` is the JSON text as the model wrote it."""

    name: str
    arguments: str


class Answer(Struct, frozen=True):
    """What a model said, out of whichever endpoint's document it stood in."""

    text: str = ""
    tools: tuple[ToolCall, ...] = ()


class Sample(Struct, frozen=True):
    """One recorded call of a task.

    ``request`` is the body of the request without ``model`` and ``stream``; ``answer`` is the incumbent's, ``expected``
    the right one where somebody knows it. ``group`` names what the call belongs to with others (a conversation, a user,
    a template), and is its own ``id`` where it stands alone; ``at`` is 0 where the time is not known. ``terms`` says
    under which terms the incumbent's answer may be used.
    """

    id: str
    request: dict[str, Any]
    kind: Kind = Kind.CHAT
    answer: Answer | None = None
    expected: Answer | None = None
    group: str = ""
    at: float = 0.0
    incumbent: str = ""
    terms: str = ""
    caller: str = ""
    rerun: Answer | None = None  # what the incumbent said when it was asked the same again


class Task(Struct, frozen=True):
    """One job that an application gives to a model, as its TOML file says it; `task` reads the file.

    ``scorer`` is the file's ``[scorer]`` table: ``kind`` and what that kind of scorer takes. ``margin`` is the loss
    that its owner is ready to accept, as a share (0.03: three points). ``group`` is the dotted path, in an imported
    line, of what its calls are grouped by. ``price`` names the incumbent in the price list.
    """

    name: str
    scorer: dict[str, Any]
    margin: float
    alias: str = ""
    about: str = ""
    group: str = ""
    price: str = ""
    terms: str = ""
    capture: bool = False
    callers: tuple[str, ...] = ()  # whose calls are captured; none: everybody's
    tuning: float = 0.6  # the share of the calls that go to each split; what is left certifies
    validation: float = 0.15
    days: int | None = None  # for which its recorded calls are kept; 0: until they are erased; None: as the house does


class Outline(Struct, frozen=True):
    """A recorded call without its text. Lengths are in characters."""

    id: str
    at: float
    group: str
    split: Split | None
    prompt: int
    answer: int
    has_expected: bool
    incumbent: str


class Unusable(Struct, frozen=True):
    """A line of an imported file that is no call of the task, and why. ``line`` counts from 1."""

    line: int
    reason: str


class Import(Struct, frozen=True):
    """One file's coming in. ``lines == kept + duplicates + skipped`` once ``done``; ``line`` is how far it is, and
    ``sensitive`` counts the calls with secrets or personal data, by kind."""

    id: str
    task: str
    file: str
    format: str
    at: float
    by: str
    line: int = 0
    kept: int = 0
    duplicates: int = 0
    skipped: int = 0
    sensitive: dict[str, int] = {}
    done: bool = False


class Fixing(Struct, frozen=True):
    """What was laid down before the first certification score of a split was read, and when. ``split`` is the digest of
    the ids and contents of its calls, ``scorer`` that of how they are scored."""

    task: str
    round: int
    margin: float
    alpha: float
    split: str
    scorer: str
    at: float
    by: str


class Look(Struct, frozen=True):
    """One look at a certification split: whose scores were read, and what came of it."""

    task: str
    round: int
    candidate: str
    at: float
    by: str
    p: float | None
    outcome: Outlook


class Comparison(Struct, frozen=True):
    """One call with both answers, for a judge."""

    sample: Sample
    incumbent: Answer | None
    candidate: Answer | None


class Captures(Struct, frozen=True):
    """What was recorded of calls under some ``aliases`` since the server's start: calls ``kept``, ``known`` already,
    those ``waiting`` to be written, and those ``lost``, with the latest reason."""

    aliases: tuple[str, ...] = ()
    kept: int = 0
    known: int = 0
    waiting: int = 0
    lost: int = 0
    why: str = ""


class Candidate(Struct, frozen=True):
    """A model that might take over, with everything that bears on its answers.

    ``digest`` is that of the file that the engine opens, '' for one on another machine; ``settings`` what is laid over
    each request (``temperature``, ``seed``, ``max_tokens``...); ``engine`` names the engine, its version and those of
    its settings that change answers. ``key`` is the digest of the three (see `results.key_of`).
    """

    name: str
    digest: str
    settings: dict[str, Any] = {}
    engine: str = ""
    key: str = ""


class Replayed(Struct, frozen=True):
    """What came of one sample's request at one candidate. ``error`` is the code and sentence where nothing came."""

    sample: str
    answer: Answer | None
    error: str = ""
    usage: Usage = Usage()
    first_token_ms: float | None = None
    total_ms: float = 0.0
    at: float = 0.0


class Score(Struct, frozen=True):
    """How good one answer is: ``value`` from 0 to 1, never NaN. ``detail`` says how it came about, by name (fields that
    differ, the reason of a judge); ``error`` why it could not be scored, which counts as 0."""

    value: float
    detail: dict[str, Any] = {}
    error: str = ""


class Outlook(StrEnum):
    """What a certification says of a candidate."""

    NON_INFERIOR = "non-inferior"
    INFERIOR = "inferior"
    UNDECIDED = "undecided"


class Estimate(Struct, frozen=True):
    """A mean paired difference, candidate - incumbent, in shares (-0.008: 0.8 points worse).

    ``lower`` and ``upper`` are each a one-sided bound at confidence ``1 - alpha``; ``p`` is the one-sided p-value of
    "worse by the margin or more", which is at most ``alpha`` exactly where ``lower > -margin``. ``method`` names how,
    in a few words with its source.
    """

    difference: float
    lower: float
    upper: float
    alpha: float
    p: float
    method: str


class Flip(Struct, frozen=True):
    """A call on which candidate and incumbent differ: both scores, and both answers in short."""

    sample: str
    group: str
    incumbent: float
    candidate: float
    detail: dict[str, Any] = {}


class Verdict(Struct, frozen=True):
    """What the certification split says of one candidate; `certify` makes it, and its docstring says how.

    ``against`` is "the expected answers", "the incumbent's answers", where agreement is all that could be measured, or
    "the task's own rule".
    ``psi`` is the share of discordant pairs; ``certifiable`` the smallest margin that a sample of this size and kind
    certifies with power 0.8 where there is no difference; ``needed`` the number of calls at which the margin would be
    decided so if the difference stays as it is, None where no number helps or it is decided; ``needed_groups`` the
    number of groups below which losses as large as the margin can have stayed unseen. ``noise`` is the share of calls
    on which the incumbent differs from itself. ``unscored`` counts calls left out because the incumbent's answer has no
    score, ``earlier`` the looks at the calls of the rounds before ``round``. ``judge`` says how a judge stands to
    people (see `scorers.Calibration`); empty where none judged.
    """

    task: str
    candidate: Candidate
    outcome: Outlook
    why: str
    margin: float
    fixed_at: float
    against: str
    measures: str
    calls: int
    groups: int
    incumbent_mean: float
    candidate_mean: float
    worse: int
    better: int
    psi: float
    estimate: Estimate | None
    certifiable: float | None
    needed: int | None
    needed_groups: int
    look: int
    looks: int
    errors: int
    split: str
    noise: float | None = None
    unscored: int = 0
    round: int = 1
    earlier: int = 0
    judge: dict[str, Any] = {}
    flips: tuple[Flip, ...] = ()
