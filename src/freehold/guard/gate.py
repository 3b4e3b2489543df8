"""The gate: a request is read before it goes anywhere, and goes as it is, masked, or not at all.

The texts of a short request are read in the event loop, those of a longer one in a thread, so that nobody waits for
somebody else's long prompt. What was found is counted by kind; no text is kept, shown or logged.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import re
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, Struct

from freehold import said
from freehold.config import GuardSettings
from freehold.engine.base import Reply
from freehold.errors import Sensitive
from freehold.guard.reply import Overheard, Tap
from freehold.guard.rules import ALLOW, KINDS, MASK, REFUSE, Destination, Rules, rules
from freehold.types import Answer, Caller, Kind, Request, Sample, ToolCall

if TYPE_CHECKING:  # some fifty milliseconds that a house without rules need not spend
    from freehold import sensitive

INLINE = 4_000  # characters that are read in the event loop: some 3 ms at worst; see benchmarks/guard.py
_PIECES = 200  # texts that are read there
_WORTH = 256  # characters from which on it costs less to know a text again than to read it
_KNOWN = 4_096  # texts, and up to twice as many, that are known: 1 MB where nothing is found, 19 at worst
REMARKS = 16  # finds that are remembered of one text
_THREADS = 2
_SHOWN = 5  # finds that an error names
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_MUTE = frozenset({Kind.EMBEDDING, Kind.COUNT})  # whose answers hold no words
_WHERE = {Destination.HOUSE: "may not be sent to a model", Destination.UPSTREAM: "may not be sent to an upstream",
          Destination.CAPTURE: "may not be recorded"}  # fmt: skip


class Guarded(Struct, frozen=True):
    """A request as it may go on, and which placeholder in it stands for what, where that is to be put back."""

    request: Request
    names: Any = None

    def over(self, reply: Reply, tap: Tap | None) -> Reply:
        """The reply with what was masked put back. ``tap`` takes in the answer as the engine gives it."""
        mute = self.names is None or self.request.kind in _MUTE
        if mute and tap is None:
            return reply
        if mute:
            return Overheard(reply, tap, None)
        from freehold.guard.restore import Restorer

        return Overheard(reply, tap, Restorer(self.names, self.request))


class Find(Struct, frozen=True):
    """Characters ``start`` to ``end`` of a text are of this ``kind``; ``what`` names the detector, ``action`` is what
    is done with it: allow, mask or refuse."""

    kind: str
    start: int
    end: int
    what: str
    action: str


class Trial(Struct, frozen=True):
    """What would become of a text: ``action`` is allow, mask or refuse, ``text`` as it would go on, empty where it
    would not; and what was found in it, allowed or not."""

    action: str
    text: str
    found: tuple[Find, ...]


def _digest(name: str) -> str:
    """What may stand for a name of which nobody keeps a salt."""
    return "sha256:" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


class Guard:
    """Guards what goes to engines, to upstreams and to the disk, as the settings say. ``pseudonym`` gives what stands
    for the name of a group that may not be recorded: the same for the same name, so that its calls stay together."""

    def __init__(self, settings: GuardSettings | None = None, pseudonym: Callable[[str], str] = _digest):
        self._settings, self._pseudonym = settings or GuardSettings(), pseudonym
        self._rules: dict[tuple[str, Destination], Rules] = {}
        self._counts: Counter[tuple[Destination, str, str]] = Counter()
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None
        self._memory = _Memory()

    async def __call__(self, caller: Caller, request: Request, *, leaves: bool) -> Guarded:
        """The request as it may go on; ``leaves``: to an upstream.

        Raises:
            Sensitive: something in it may not go there.
        """
        found = self.rules(caller.name, Destination.UPSTREAM if leaves else Destination.HOUSE)
        if found.is_idle:
            return Guarded(request)
        if _is_short(request):
            return self._pass(found, request, caller.name)
        self._threads = self._threads or ThreadPoolExecutor(_THREADS, "guard")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._pass, found, request, caller.name)

    def recorded(self, sample: Sample) -> Sample:
        """A call as it may be recorded. Raises Unfit where it may not."""
        found = self.rules(sample.caller, Destination.CAPTURE)
        return sample if found.is_idle else self._record(found, sample)

    def rules(self, caller: str, place: Destination) -> Rules:
        """What holds for a caller, by name."""
        key = (caller, place)
        if key not in self._rules:
            if len(self._rules) > 10_000:  # names of revoked keys
                self._rules.clear()
            self._rules[key] = rules(self._settings, caller, place)
        return self._rules[key]

    @property
    def named(self) -> list[str]:
        """The callers with a table of their own."""
        return sorted(self._settings.callers)

    def table(self, caller: str = "") -> dict[str, dict[str, str]]:
        """What is done with each kind in each place, for a caller."""
        found = {place.value: self.rules(caller, place) for place in Destination}
        return {kind: {place: rule.action(kind) for place, rule in found.items()} for kind in KINDS}

    def trial(self, caller: str, place: Destination, text: str) -> Trial:
        """What would become of a message with this text. Counts nothing, and keeps nothing."""
        from freehold import sensitive

        rule = self.rules(caller, place)
        every = sensitive.Reading(text)
        found = tuple(Find(hit.kind, hit.start, hit.end, hit.what, rule.action(hit.kind)) for hit in every.hits)
        wanted = sensitive.Reading(text, kinds=rule.kinds)
        if any(hit.kind in rule.refused for hit in wanted.hits):
            return Trial(REFUSE, "", found)
        masked = wanted.masked(sensitive.Names(), rule.masked, literals=rule.restore)
        return Trial(ALLOW if masked == text else MASK, masked, found)

    def warm(self, *places: Destination) -> None:
        """Load what reads texts, if something is to be read: some 0.3 s, which the first call would wait for."""
        callers = ["", *self._settings.callers]
        if any(not self.rules(name, place).is_idle for name in callers for place in places):
            from freehold import sensitive

            sensitive.find("tel 0171 2345678 card 4111111111111111 SSN 536-90-4399")

    def facts(self) -> dict[str, Any]:
        """What was masked and refused since the start, by place and kind."""
        with self._lock:
            counts = dict(self._counts)
        made: dict[str, Any] = {}
        for (place, action, kind), count in sorted(counts.items()):
            made.setdefault(place.value, {}).setdefault(_DONE[action], {})[kind] = count
        return made

    def close(self) -> None:
        """Let go of the threads."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)

    def _pass(self, found: Rules, request: Request, caller: str) -> Guarded:
        from freehold import sensitive

        read = _read(request.body, found, self._memory, caller)
        self._refuse(found, read)
        if not self._count(found, MASK, [kind for one in read for kind in one.kinds if kind in found.masked]):
            return Guarded(_as_read(request, request.body))
        names = sensitive.Names()
        body = _masked(request.body, read, names, found.masked, literals=found.restore)
        return Guarded(_as_read(request, body), names if found.restore else None)

    def _refuse(self, found: Rules, read: list[_Read]) -> None:
        """Raises Sensitive, which says what stands where, and not what it says."""
        from freehold import sensitive

        wrong: list[tuple[str, str]] = []
        for one in read:
            if one.reading is not None and not one.reading.hits:
                continue
            at = sensitive.path(one.place.steps)
            if one.place.form is sensitive.Form.UNREAD:
                wrong.append(("unread", at))
            elif one.place.form is sensitive.Form.KEY:  # a name cannot be masked: it is what the field is called
                wrong += [(kind.value, at) for kind in one.kinds]
            else:
                wrong += [(kind.value, at) for kind in one.kinds if kind in found.refused]
        if wrong:
            self._count(found, REFUSE, [kind for kind, _ in wrong])
            raise _error(found.place, wrong)

    def _record(self, found: Rules, sample: Sample) -> Sample:
        from freehold import sensitive

        read = _read(sample.request, found, self._memory, sample.caller, again=True)
        heard = [one for one in (sample.answer, sample.rerun) if one is not None]
        texts = [text for one in heard for text in (one.text, *(tool.arguments for tool in one.tools))]
        group = sensitive.Reading(sample.group or "", kinds=found.kinds, again=True)
        spoken = {text: sensitive.Reading(text, kinds=found.kinds, again=True) for text in texts}
        kinds = [kind for one in read for kind in one.kinds]
        kinds += [hit.kind for reading in (group, *spoken.values()) for hit in reading.hits]
        hard = [kind for kind in kinds if kind in found.refused]
        hard += [kind for one in read if one.place.form is sensitive.Form.KEY for kind in one.kinds]
        if self._count(found, REFUSE, hard):
            raise said.Unfit(f"holds {_words(hard)}, which {_WHERE[Destination.CAPTURE]}")
        if not self._count(found, MASK, kinds):
            return sample
        names = sensitive.Names()
        for text in [*(one.place.text for one in read), *texts]:
            names.reserve(text)
        body = _masked(sample.request, read, names, found.masked, literals=False)
        masked = {text: one.masked(names, found.masked, literals=False) for text, one in spoken.items()}
        return msgspec.structs.replace(
            sample, request=body, answer=_reworded(sample.answer, masked), rerun=_reworded(sample.rerun, masked),
            group=self._pseudonym(sample.group) if group.hits else sample.group,
        )  # fmt: skip

    def _count(self, found: Rules, action: str, kinds: Iterable[str]) -> int:
        """Count what was found; says how much that is."""
        kinds = list(kinds)
        if not kinds:
            return 0
        with self._lock:
            self._counts.update((found.place, action, str(kind)) for kind in kinds)
        return len(kinds)


_DONE = {MASK: "masked", REFUSE: "refused"}


class _Read(Struct):
    """A place of a request that was read."""

    place: sensitive.Place
    reading: sensitive.Reading | None

    @property
    def kinds(self) -> list[sensitive.Kind]:
        return [hit.kind for hit in self.reading.hits] if self.reading else []


class _Memory:
    """What stands where in the texts that were read last, by a hash with a key of this process, and nothing else of
    them. The calls of a conversation, or of an application with a long instruction, send the same ones again and again;
    each is read once. The younger half moves to the older when it is full."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._young: dict[bytes, tuple[sensitive.Hit, ...]] = {}
        self._old: dict[bytes, tuple[sensitive.Hit, ...]] = {}

    def reading(
        self, caller: str, text: str, beside: str, kinds: frozenset[str], *, again: bool
    ) -> sensitive.Reading:  # fmt: skip
        """What stands in a text; the arguments are those of `sensitive.Reading`. Each caller's texts are known for
        itself: by the time that a call takes nobody learns whether another has sent the same."""
        from freehold import sensitive

        if len(text) < _WORTH:
            return sensitive.Reading(text, beside, kinds, again=again)
        mark = self._mark(caller, text, beside, kinds, again)
        known = self._young.get(mark)
        if known is None and (known := self._old.get(mark)) is not None:
            self._keep(mark, known)
        if known is not None:
            return sensitive.Reading.known(text, known)
        found = sensitive.Reading(text, beside, kinds, again=again)
        if (remarks := found.remarks) is not None and len(remarks) <= REMARKS:
            self._keep(mark, remarks)
        return found

    def _mark(self, caller: str, text: str, beside: str, kinds: frozenset[str], again: bool) -> bytes:
        """What stands for a text, read so: read for something else, or beside something else, it is another."""
        how = f"{','.join(sorted(kinds))} {again:d} {len(caller)} {caller} {len(beside)} {beside}"
        said = (how + text).encode("utf-8", "surrogatepass")
        return hashlib.blake2b(said, key=self._key, digest_size=16).digest()

    def _keep(self, mark: bytes, hits: tuple[sensitive.Hit, ...]) -> None:
        self._young[mark] = hits
        if len(self._young) >= _KNOWN:
            self._old, self._young = self._young, {}


def _read(
    body: dict[str, Any], found: Rules, memory: _Memory, caller: str, *, again: bool = False
) -> list[_Read]:  # fmt: skip
    """Every place with a text in it; of those that cannot be read only where that matters."""
    from freehold import sensitive

    read: list[_Read] = []
    kinds = found.kinds
    for place in sensitive.places(body):
        if place.form is sensitive.Form.UNREAD:
            read += [_Read(place, None)] if found.unread else []
        else:
            read.append(_Read(place, memory.reading(caller, place.text, place.beside, kinds, again=again)))
    return read


def _masked(
    body: dict[str, Any], read: list[_Read], names: sensitive.Names, kinds: Iterable[str], *, literals: bool
) -> dict[str, Any]:
    """The body with placeholders, in a copy of its own."""
    from freehold import sensitive

    if not literals:
        for one in read:
            names.reserve(one.place.text)
    body = copy.deepcopy(body)
    for one in read:
        if one.reading is None or one.place.form is sensitive.Form.KEY:
            continue
        text = one.reading.masked(names, kinds, literals=literals)
        if text != one.place.text:
            is_tree = one.place.form is sensitive.Form.TREE
            sensitive.put(body, one.place.steps, msgspec.json.decode(text) if is_tree else text)
    return body


def _as_read(request: Request, body: dict[str, Any]) -> Request:
    """The request with a body that was read. Of what goes on as the client sent it, the fields that changed are
    written anew; and all of them where one is there twice, so that what goes out is what was read."""
    if not request.sent:
        return request if body is request.body else msgspec.structs.replace(request, body=body)
    fields = msgspec.json.decode(request.sent, type=dict[str, Raw])
    changed = [name for name in body if body[name] != request.body[name]]
    if _has_doubles(request.sent):
        changed = list(fields)
    elif not changed:
        return request
    fields |= {name: Raw(msgspec.json.encode(body.get(name))) for name in changed}
    return msgspec.structs.replace(request, body=body, sent=msgspec.json.encode(fields))


def _has_doubles(sent: bytes) -> bool:
    """Does some object have two fields of one name? Readers differ in which of them they take."""
    once = msgspec.json.encode(msgspec.json.decode(sent))
    return _STRING.sub(b"", sent).count(b":") != _STRING.sub(b"", once).count(b":")


def _is_short(request: Request) -> bool:
    """Can it be read in the event loop? Looks at no more of it than can be."""
    if request.sent:
        return len(request.sent) <= INLINE
    left, pieces, stack = INLINE, _PIECES, [request.body]
    while stack and left >= 0 and pieces >= 0:
        value = stack.pop()
        pieces -= 1
        if isinstance(value, str):
            left -= len(value)
        elif isinstance(value, dict | list):
            if len(value) > pieces:
                return False
            left -= sum(map(len, value)) if isinstance(value, dict) else 0
            stack += value.values() if isinstance(value, dict) else value
    return left >= 0 and pieces >= 0


def _reworded(answer: Answer | None, masked: dict[str, str]) -> Answer | None:
    if answer is None:
        return None
    tools = tuple(ToolCall(tool.name, masked[tool.arguments]) for tool in answer.tools)
    return Answer(masked[answer.text], tools)


def _error(place: Destination, wrong: list[tuple[str, str]]) -> Sensitive:
    shown = dict.fromkeys(f"{kind} in {at}" for kind, at in wrong)
    named = list(shown)[:_SHOWN]
    more = f", and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return Sensitive(f"The request holds what {_WHERE[place]}: {', '.join(named)}{more}.", param=wrong[0][1])


def _words(kinds: Iterable[str]) -> str:
    return ", ".join(sorted({str(kind) for kind in kinds}))
