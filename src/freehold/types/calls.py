"""A call: who makes it, where it goes, how it ended, and what answers it."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from freehold.types.models import Manifest


class Role(StrEnum):
    """What a caller is trusted with; `policy` holds the table of what each may do."""

    ADMIN = "admin"
    OPERATOR = "operator"
    MEMBER = "member"
    AUDITOR = "auditor"


class Kind(StrEnum):
    """The kinds of call that a model can be asked to answer, one for each endpoint."""

    CHAT = "chat.completions"
    COMPLETION = "completions"
    EMBEDDING = "embeddings"
    RESPONSE = "responses"
    MESSAGE = "messages"
    COUNT = "messages.count_tokens"


class Outcome(StrEnum):
    """How a call ended. Every entry of the ledger ends in exactly one of these."""

    ANSWERED = "answered"
    REFUSED = "refused"  # the request was at fault: policy, a bad field, an unknown model
    FAILED = "failed"  # our side was at fault: the engine died, the ledger could not be written
    ABANDONED = "abandoned"  # the client left, or did not read, before the answer was whole
    INTERRUPTED = "interrupted"  # the gateway died; settled at its next start


class Caller(Struct, frozen=True):
    """Whoever a key belongs to. ``team`` is the name of its team, if it has one; the key ends at ``expires_at``."""

    id: str
    name: str
    role: Role
    team: str = ""
    expires_at: float | None = None


class Request(Struct, frozen=True):
    """What a caller asks of a model: read and checked by a surface, not yet put into an engine's dialect.

    ``model`` is the model's own name, ``alias`` the name that was sent, if that is another one or an alias;
    ``on_trial`` says that a canary's candidate is to answer. ``sent`` is the document as the client sent it, where it
    is to be passed on to an upstream rather than checked."""

    kind: Kind
    model: str
    body: dict
    stream: bool = False
    sent: bytes = b""
    alias: str = ""
    on_trial: bool = False


class Decision(Struct, frozen=True):
    """Policy's answer. ``reason`` is a sentence, and is empty when the call is allowed."""

    allowed: bool
    reason: str = ""


class Route(Struct, frozen=True):
    """Where a request goes: the manifest of the model that will answer it, and ``upstream``, the name of whoever runs
    that model, if this house does not: then the call leaves the house."""

    model: Manifest
    upstream: str = ""


class Usage(Struct, frozen=True):
    """Token counts of one call, as the engine counted them. ``cached`` is the part of ``prompt`` it reused."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0


class Settlement(Struct, frozen=True):
    """How one call ended: the second half of its ledger entry. ``waited_ms`` is its time in line for an engine, None
    where it did not come to its turn, ``engine_ms`` the time for which it held its slot there, and
    ``joules`` its part of what the machine drew in that time, None where no counter says so."""

    outcome: Outcome
    status: int
    error: str = ""
    model: str = ""
    digest: str = ""
    usage: Usage = Usage()
    first_token_ms: float | None = None
    total_ms: float = 0.0
    left_the_house: bool = False
    waited_ms: float | None = None
    engine_ms: float | None = None
    alias: str = ""
    joules: float | None = None


class Seen(Struct, frozen=True):
    """A call that is over, as operators see it: nothing of its text, nor a name that its client made up. ``model`` is
    empty where there was none of the name that was sent (``settlement.model`` has it all the same), ``upstream``
    whoever runs it, if this house does not; ``traceparent`` is the request's own header, as it came."""

    id: str
    caller: str
    kind: Kind
    settlement: Settlement
    model: str = ""
    upstream: str = ""
    traceparent: str = ""
    opened_at: float = 0.0


class Call(Struct, frozen=True):
    """One entry of the ledger, in the order of its columns. It holds no text of the prompt or of the answer. ``alias``
    is the name that was asked for, where it was one, and ``model`` the model's own; ``event`` the number of the event
    that settled it, None where it is older than those."""

    id: str
    opened_at: float
    caller: str
    kind: str
    outcome: str | None
    status: int | None
    error: str | None
    model: str | None
    digest: str | None
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    first_token_ms: float | None
    total_ms: float | None
    left_the_house: bool
    waited_ms: float | None = None
    engine_ms: float | None = None
    alias: str | None = None
    joules: float | None = None
    event: int | None = None


class Event(Struct, frozen=True):
    """One event of the audit chain: who did what to which thing, or how a call ended."""

    seq: int
    at: float
    actor: str
    act: str
    subject: str
    detail: dict
    previous: str
    hash: str


class Layer(Struct, frozen=True):
    """One layer of the seal on one process, and how it is known: read from the ``kernel``, or ``reported``."""

    name: str
    active: bool
    detail: str = ""
    known_from: str = "kernel"


class TicketView(Struct, frozen=True):
    """A call at an engine: answered for so many seconds, or waiting at a place in line (1 is next). ``model`` is the
    name of the engine's model, or of an adapter over it."""

    call_id: str
    caller: Caller
    kind: Kind
    seconds: float
    model: str
    place: int = 0


class SeatView(Struct, frozen=True):
    """One engine with the calls that it answers and those that wait for it, in the order of their turns."""

    model: Manifest
    purpose: str
    stage: str
    slots: int
    holding: tuple[TicketView, ...]
    waiting: tuple[TicketView, ...]
    taken: int = 0  # slots; a call of several choices holds several


class EngineState(Struct, frozen=True):
    """Where an engine is in its life: starting, ready, restarting or stopped. ``purpose`` is text or vectors;
    ``need`` an estimate of its memory, in bytes; ``adapters`` the names of those that it has loaded."""

    model: str
    digest: str
    kind: str
    state: str
    pid: int | None
    restarts: int
    context: int
    slots: int
    template: str = ""
    reported: tuple[Layer, ...] = ()
    purpose: str = "text"
    need: int = 0
    adapters: tuple[str, ...] = ()


class UpstreamState(Struct, frozen=True):
    """An upstream: the ``host`` and port that calls to its ``models`` (the names here) leave for, the state of its
    ``breaker`` (closed, open, half-open), how many calls were ``sent`` and are ``answering`` since the start, and how
    many bytes of requests may have left, those of further tries too."""

    name: str
    host: str
    models: tuple[str, ...]
    breaker: str
    failures: int
    sent: int
    answering: int
    sent_bytes: int = 0
