"""Inspect AI's logs: a log becomes samples, and what a candidate did becomes a log.

Format: `EvalLog` version 2 of inspect_ai (tried with 0.3.285), as one JSON document or as the zipped ``.eval``, which
holds ``header.json`` (``_journal/start.json`` while it runs) and ``samples/ID_epoch_N.json``, packed by deflate or, in
newer versions, by Zstandard (method 93).

Of each sample the last call of the model counts: its request is all messages before the answer, with the tools and
settings that the log holds for it; the answer is the incumbent's; the target is the expected one. Reasoning is left
out of both. Scores are not taken over, so a NaN among them costs nothing. Further epochs get their number behind the
sample's id and share its group.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

import freehold
from freehold.errors import BadTraffic
from freehold.said import Unfit
from freehold.traffic import exchange, stream
from freehold.traffic.exchange import Row
from freehold.types import Answer, Candidate, Sample, Task, ToolCall, Unusable

VERSION = 2
MAX_DIRECTORY = 16 * 1024 * 1024  # bytes of a zip's table of contents
MAX_UNPACKED = 32 * 1024**3  # bytes of all members of a zip
_ZSTD = 93
_HEADER = {("version",), ("eval",), ("plan",)}
_SETTINGS = {  # Inspect's name of a setting, and that of the API
    "temperature": "temperature", "top_p": "top_p", "max_tokens": "max_tokens", "seed": "seed", "stop_seqs": "stop",
    "frequency_penalty": "frequency_penalty", "presence_penalty": "presence_penalty",
}  # fmt: skip
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def read(path: Path, *, group: str = "") -> Iterator[Sample | Unusable]:
    """Every sample of a log, in its order. ``group`` is a dotted path in a sample (``metadata.customer``).

    Raises:
        BadTraffic: the file is no log, another version's, cut off, or packed in a way that cannot be unpacked here.
    """
    try:
        with open(path, "rb") as opened:
            zipped = opened.read(4) in (b"PK\3\4", b"PK\5\6")
            yield from (_zipped if zipped else _plain)(opened, group)
    except OSError as error:
        raise BadTraffic(f"'{path}' cannot be read: {error.strerror or error}.") from None


def _plain(opened: BinaryIO, group: str) -> Iterator[Sample | Unusable]:
    """The JSON format: once for what stands about the samples, wherever it stands, and once for the samples."""
    found: dict[str, Any] = {}
    opened.seek(0)
    for path, raw in stream.walk(opened, _HEADER, ("samples",), limit=stream.MAX_VALUE):
        if path != ("samples",):
            found[path[0]] = _header(path[0], raw)
        if len(found) == len(_HEADER):
            break
    log = _Log(found, group)
    opened.seek(0)
    samples = (raw for path, raw in stream.walk(opened, set(), ("samples",)) if path == ("samples",))
    for number, raw in enumerate(samples, 1):
        yield log.sample(number, raw)


def _header(name: str, raw: bytes | None) -> Any:
    try:
        return stream.decode(raw)
    except Unfit as error:
        raise BadTraffic(f"The log's '{name}' cannot be read. {error}") from None


def _zipped(opened: BinaryIO, group: str) -> Iterator[Sample | Unusable]:
    """The .eval format: one member for each sample."""
    try:
        archive = zipfile.ZipFile(_Careful(opened))
    except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError, EOFError) as error:
        raise BadTraffic(
            f"The log is a damaged zip archive: {error}.", hint="Copy it again; it may be cut off."
        ) from None
    with archive:
        members = {info.filename: info for info in archive.infolist()}
        log = _Log(_zipped_header(archive, members), group)
        room, number = MAX_UNPACKED, 0
        for info in archive.infolist():
            if not info.filename.startswith("samples/") or info.is_dir():
                continue
            number += 1
            try:
                raw = _unpacked(archive, info)
            except Unfit as error:
                yield Unusable(number, str(error))
                continue
            room -= len(raw)
            if room < 0:
                raise BadTraffic(f"The log unpacks to more than {MAX_UNPACKED // 1024**3} GiB, as a bomb does.")
            yield log.sample(number, raw)


class _Careful(io.RawIOBase):
    """A file for `zipfile`, which reads a table of contents in one piece as long as the file claims."""

    def __init__(self, inner: BinaryIO):
        self._inner = inner

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > MAX_DIRECTORY:
            size = MAX_DIRECTORY + 1
            found = self._inner.read(size)
            if len(found) == size:
                raise BadTraffic(f"The log's table of contents is larger than {MAX_DIRECTORY // 1024**2} MiB.")
            return found
        return self._inner.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._inner.seek(offset, whence)

    def tell(self) -> int:
        return self._inner.tell()

    def seekable(self) -> bool:
        return True


def _zipped_header(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]) -> dict[str, Any]:
    for name in ("header.json", "_journal/start.json"):
        if name in members:
            try:
                return stream.decode(_unpacked(archive, members[name]))
            except Unfit as error:
                raise BadTraffic(f"The log's '{name}' cannot be read. {error}") from None
    raise BadTraffic("The zip archive is no log of Inspect AI: it has no 'header.json'.")


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """A member's content, of at most `stream.MAX_VALUE` bytes, whatever its entry claims."""
    if info.flag_bits & 1:
        raise Unfit("It is encrypted.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, _ZSTD):
        raise Unfit(f"It is packed by method {info.compress_type}, which Inspect AI does not use.")
    try:
        opened = _zstandard(archive, info) if info.compress_type == _ZSTD else archive.open(info)
        with opened:
            found = opened.read(stream.MAX_VALUE + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, OSError) as error:
        raise Unfit(f"It is damaged: {error}.") from None
    if len(found) > stream.MAX_VALUE:
        raise Unfit(f"It is larger than {stream.MAX_VALUE // 1024**2} MiB.")
    if info.compress_type == _ZSTD and zlib.crc32(found) != info.CRC:
        raise Unfit("It is damaged: its checksum is another.")
    return found


def _zstandard(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> BinaryIO:
    """A member packed by Zstandard, which Python's zipfile reads from 3.14 on."""
    try:
        from backports import zstd
    except ImportError:
        try:
            from compression import zstd
        except ImportError:
            raise BadTraffic(
                "The log is packed by Zstandard, which this Python cannot unpack.",
                hint="'pip install backports.zstd', or 'inspect log convert --to json --output-dir DIR LOG'.",
            ) from None
    return _Frames(zstd, _packed(archive, info))


class _Frames:
    """Zstandard's frames, whose errors are `ValueError`."""

    def __init__(self, zstd: Any, packed: bytes):
        self._zstd, self._opened = zstd, zstd.ZstdFile(io.BytesIO(packed))

    def read(self, size: int) -> bytes:
        try:
            return self._opened.read(size)
        except self._zstd.ZstdError as error:
            raise ValueError(str(error)) from None

    def __enter__(self) -> _Frames:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()


def _packed(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The bytes of a member as they lie in the file (APPNOTE.TXT 4.3.7)."""
    if info.compress_size > MAX_DIRECTORY:
        raise Unfit(f"It is larger than {MAX_DIRECTORY // 1024**2} MiB as it is packed.")
    inner = archive.fp
    inner.seek(info.header_offset)
    local = inner.read(30)
    if len(local) < 30 or local[:4] != b"PK\3\4":
        raise Unfit("It is damaged: there is no member where its entry points.")
    inner.seek(info.header_offset + 30 + sum(struct.unpack_from("<2H", local, 26)))
    return inner.read(info.compress_size)


class _Log:
    """What stands about a log's samples, and one sample after another."""

    def __init__(self, header: Any, group: str):
        header = header if isinstance(header, dict) else {}
        if header.get("version") != VERSION or not isinstance(header.get("eval"), dict):
            said = header.get("version")
            told = f"says version {said!r}" if said is not None else "does not say its version"
            raise BadTraffic(f"The file {told}; logs of Inspect AI of version {VERSION} are read here.")
        self.spec, self.group = header["eval"], group
        plan = header.get("plan")
        self.settings = _dict(self.spec.get("model_generate_config")) | _dict(_dict(plan).get("config"))

    def sample(self, number: int, raw: bytes | None) -> Sample | Unusable:
        """One sample, or why it cannot be used."""
        try:
            found = stream.decode(raw)
            if not isinstance(found, dict):
                raise Unfit("It is no object.")
            return exchange.sure(exchange.own(found.get("metadata")) or self.convert(found))
        except Unfit as error:
            return Unusable(number, str(error))
        except RecursionError:
            return Unusable(number, "It is nested too deeply.")

    def convert(self, found: dict[str, Any]) -> Sample:
        """A sample of somebody else's log."""
        _finished(found)
        output = _dict(found.get("output"))
        choices = output.get("choices")
        if not isinstance(choices, list) or len(choices) != 1:
            raise Unfit(f"It has {len(choices) if isinstance(choices, list) else 0} answers, and one is needed.")
        said, attached = _dict(_dict(choices[0]).get("message")), _dict(found.get("attachments"))
        name, epoch, answer = _name(found), found.get("epoch", 1), _answer(said, attached)
        return Sample(
            id=name if epoch == 1 else f"{name}#{epoch}",
            request=self.request(found, said, attached),
            answer=answer,
            expected=_target(found.get("target")),
            group=exchange.dotted(found, self.group) or name,
            at=exchange.seconds(found.get("started_at") or self.spec.get("created")),
            incumbent=str(output.get("model") or self.spec.get("model") or ""),
        )

    def request(self, found: dict[str, Any], said: dict[str, Any], attached: dict[str, Any]) -> dict[str, Any]:
        """The body of the call that was answered with ``said``."""
        body: dict[str, Any] = {"messages": [_message(message, attached) for message in _before(found, said)]}
        call = _call(found, said)
        settings = self.settings | _dict(call.get("config"))
        for name, called in _SETTINGS.items():
            if settings.get(name) is not None:
                body[called] = settings[name]
        if schema := _dict(settings.get("response_schema")):
            named = {name: schema[of] for name, of in (("name", "name"), ("schema", "json_schema")) if of in schema}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        if tools := call.get("tools"):
            body["tools"] = [{"type": "function", "function": _function(tool, attached)} for tool in tools]
            body["tool_choice"] = _tool_choice(call.get("tool_choice"))
        elif said.get("tool_calls"):
            raise Unfit("It calls tools, and the log does not hold their definitions.")
        return body


def _finished(found: dict[str, Any]) -> None:
    """Refuse a sample that did not come to its end."""
    if error := found.get("error"):
        raise Unfit(f"It ended in an error: {str(_dict(error).get('message', ''))[:200]!a}.")
    if limit := found.get("limit"):
        raise Unfit(f"It was stopped by its limit of {str(_dict(limit).get('type', 'something'))[:40]!a}.")


def _name(found: dict[str, Any]) -> str:
    name = found.get("id")
    if not isinstance(name, str | int) or name == "":
        raise Unfit("It has no id.")
    return str(name)


def _before(found: dict[str, Any], said: dict[str, Any]) -> list[Any]:
    """The messages that the answer answers; the input where the log kept no conversation."""
    told = found.get("messages") or []
    if not isinstance(told, list):
        raise Unfit("Its messages are no list.")
    if not told:
        given = found.get("input")
        return given if isinstance(given, list) else [{"role": "user", "content": given}]
    roles = [_dict(message).get("role") for message in told]
    same = [number for number, message in enumerate(told) if said.get("id") and _dict(message).get("id") == said["id"]]
    last = same or [number for number, role in enumerate(roles) if role == "assistant"]
    before = told[: last[-1]] if last else told
    if not before:
        raise Unfit("No message stands before its answer.")
    return before


def _call(found: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """The event of the model's call that was answered with ``said``, if the log holds it."""
    events = found.get("events")
    for event in reversed(events if isinstance(events, list) else []):
        if _dict(event).get("event") != "model":
            continue
        choices = _dict(event.get("output")).get("choices")
        ids = [_dict(_dict(choice).get("message")).get("id") for choice in choices] if isinstance(choices, list) else []
        if said.get("id") and said["id"] in ids:
            return event
    return {}


def _message(message: Any, attached: dict[str, Any]) -> dict[str, Any]:
    """A message as the API has it."""
    message = _dict(message)
    role = message.get("role")
    if role not in ("system", "user", "assistant", "tool"):
        raise Unfit(f"It has a message of the role {str(role)[:40]!a}.")
    told: dict[str, Any] = {"role": role, "content": _content(message.get("content"), attached)}
    if role == "tool":
        told["tool_call_id"] = str(message.get("tool_call_id") or "")
        told["content"] = told["content"] or str(_dict(message.get("error")).get("message") or "")
    if calls := message.get("tool_calls"):
        told["tool_calls"] = [
            {"id": str(_dict(call).get("id") or ""), "type": "function", "function": msgspec.to_builtins(_tool(call))}
            for call in _list(calls)
        ]
    return told


def _content(content: Any, attached: dict[str, Any]) -> str | list[dict[str, str]]:
    """A message's text, in its parts where it has several. Reasoning is left out."""
    if isinstance(content, str):
        return _resolved(content, attached)
    parts = [_dict(part) for part in _list(content)]
    texts = [part for part in parts if part.get("type") != "reasoning"]
    if others := [part.get("type") for part in texts if part.get("type") != "text"]:
        raise Unfit(f"It holds content of the type {str(others[0])[:40]!a}; text alone is replayed.")
    said = [_resolved(str(part.get("text") or ""), attached) for part in texts]
    return [{"type": "text", "text": text} for text in said] if len(said) > 1 else "".join(said)


def _resolved(text: str, attached: dict[str, Any]) -> str:
    """What the log keeps apart, put back in its place."""
    if not text.startswith("attachment://"):
        return text
    kept = attached.get(text.removeprefix("attachment://"))
    if not isinstance(kept, str):
        raise Unfit("It refers to an attachment that the log does not hold.")
    return kept


def _answer(said: dict[str, Any], attached: dict[str, Any]) -> Answer:
    content = _content(said.get("content") or "", attached)
    text = content if isinstance(content, str) else "".join(part["text"] for part in content)
    calls = tuple(_tool(call) for call in _list(said.get("tool_calls") or []))
    if not text and not calls:
        raise Unfit("Its answer is empty.")
    return Answer(text, calls)


def _tool(call: Any) -> ToolCall:
    call = _dict(call)
    if call.get("parse_error"):
        raise Unfit("It holds a call of a tool that could not be read.")
    return ToolCall(str(call.get("function") or ""), msgspec.json.encode(call.get("arguments") or {}).decode())


def _function(tool: Any, attached: dict[str, Any]) -> dict[str, Any]:
    tool = _dict(tool)
    about = _resolved(str(tool.get("description") or ""), attached)
    return {"name": str(tool.get("name") or ""), "description": about, "parameters": _dict(tool.get("parameters"))}


def _tool_choice(choice: Any) -> Any:
    if isinstance(choice, dict):
        return {"type": "function", "function": {"name": str(choice.get("name") or "")}}
    return _CHOICES.get(choice, "auto")


def _target(target: Any) -> Answer | None:
    """The expected answer. A sample has one: which of several is meant cannot be said here."""
    targets = target if isinstance(target, list) else [target]
    if len(targets) > 1:
        raise Unfit(f"It has {len(targets)} right answers, and a sample has one.")
    text = targets[0] if targets else ""
    if text is not None and not isinstance(text, str):
        raise Unfit("Its target is no text.")
    return Answer(text) if text else None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Unfit("It has something else where a list is due.")
    return value


def write(target: Path | BinaryIO, task: Task, candidate: Candidate, rows: Iterable[Row]) -> int:
    """Write what a candidate did as a log (JSON); how many calls it holds. The same rows give the same bytes.

    Raises:
        BadTraffic: a score is no number, a text is no text, or the file cannot be written.
    """
    names: list[str] = []
    scorer = str(task.scorer.get("kind") or "score")
    with exchange.Spool() as spool:
        for row in rows:
            names.append(row.sample.id)
            spool.put(row, partial(_sample, candidate=candidate, scorer=scorer))
        exchange.save(target, _document(task, candidate, scorer, names, spool))
        return spool.count


def _document(
    task: Task, candidate: Candidate, scorer: str, names: list[str], spool: exchange.Spool
) -> Iterator[bytes]:
    mark = exchange.mark(task, candidate)
    head = {
        "version": VERSION,
        "status": "success",
        "eval": _spec(task, candidate, scorer, names, mark, spool.begun),
        "plan": {"name": "replay", "steps": [{"solver": "freehold replay", "params": {}}], "config": {}},
        "results": _results(scorer, spool),
        "stats": {
            "started_at": exchange.iso(spool.begun),
            "completed_at": exchange.iso(spool.ended),
            "model_usage": {_model(candidate): _usage(spool.prompt, spool.completion, spool.cached)},
        },
    }
    yield msgspec.json.encode(head)[:-1] + b',"samples":[\n'
    yield from spool.pieces()
    yield b"\n]}\n"


def _spec(task: Task, candidate: Candidate, scorer: str, names: list[str], mark: str, begun: float) -> dict[str, Any]:
    return {
        "eval_id": mark[:22],
        "run_id": mark[:22],
        "created": exchange.iso(begun),
        "task": task.name,
        "task_id": mark[:22],
        "task_version": 0,
        "dataset": {"name": task.name, "samples": len(names), "sample_ids": names, "shuffled": False},
        "model": _model(candidate),
        "config": {"epochs": 1},
        "packages": {"freehold": freehold.__version__},
        "scorers": [{"name": scorer, "options": {}, "metrics": [{"name": "mean", "options": {}}], "metadata": {}}],
        "metadata": {"candidate": msgspec.to_builtins(candidate), "margin": task.margin, "about": task.about},
    }


def _results(scorer: str, spool: exchange.Spool) -> dict[str, Any]:
    mean = {"name": "mean", "value": spool.mean, "params": {}}
    scored = {"scored_samples": spool.count, "unscored_samples": 0}
    scores = [{"name": scorer, "scorer": scorer, **scored, "params": {}, "metrics": {"mean": mean}}]
    return {"total_samples": spool.count, "completed_samples": spool.count - spool.errors, "scores": scores}


def _sample(row: Row, candidate: Candidate, scorer: str) -> dict[str, Any]:
    sample, replayed = row.sample, row.replayed
    asked = [_inspected(message) for message in exchange.messages(sample)]
    told, usage = _told(replayed.answer), replayed.usage
    stop = "tool_calls" if told.get("tool_calls") else "stop"
    document = {
        "id": sample.id,
        "epoch": 1,
        "input": asked,
        "target": exchange.said(sample.expected),
        "messages": [*asked, told] if replayed.answer else asked,
        "output": {
            "model": _model(candidate),
            "choices": [{"message": told, "stop_reason": stop}] if replayed.answer else [],
            "completion": exchange.said(replayed.answer),
            "usage": _usage(usage.prompt, usage.completion, usage.cached),
            "time": replayed.total_ms / 1000,
        },
        "scores": {scorer: _score(row)},
        "metadata": {exchange.KEY: msgspec.to_builtins(sample)},
        "started_at": exchange.iso(replayed.at),
        "completed_at": exchange.iso(replayed.at + replayed.total_ms / 1000),
        "total_time": replayed.total_ms / 1000,
        "working_time": replayed.total_ms / 1000,
    }
    if replayed.error:
        document["error"] = {"message": replayed.error, "traceback": "", "traceback_ansi": ""}
    return document


def _score(row: Row) -> dict[str, Any]:
    why = row.score.error or (f"The call failed: {row.replayed.error}" if row.replayed.error else "")
    answer = exchange.said(row.replayed.answer)
    return {"value": row.score.value, "answer": answer, "explanation": why, "metadata": row.score.detail}


def _inspected(message: dict[str, Any]) -> dict[str, Any]:
    """A chat message as Inspect AI has it, with arguments of tools as objects."""
    told = {name: message[name] for name in ("role", "content", "tool_call_id") if name in message}
    if message["role"] != "tool":
        told.pop("tool_call_id", None)
    calls = message.get("tool_calls")
    if message["role"] == "assistant" and isinstance(calls, list):
        found = [(_dict(call), _dict(_dict(call).get("function"))) for call in calls]
        told["tool_calls"] = [
            _tool_call(str(call.get("id") or ""), str(of.get("name") or ""), of.get("arguments")) for call, of in found
        ]
    return told


def _tool_call(mark: str, name: str, arguments: Any) -> dict[str, Any]:
    try:
        found = stream.decode(arguments.encode()) if isinstance(arguments, str) else arguments
    except (Unfit, UnicodeEncodeError):
        found = None
    call = {"id": mark, "function": name, "arguments": _dict(found), "type": "function"}
    return call if isinstance(found, dict) else call | {"parse_error": "The arguments are no JSON object."}


def _told(answer: Answer | None) -> dict[str, Any]:
    """What the candidate answered, as a message."""
    answer = answer or Answer()
    told: dict[str, Any] = {"role": "assistant", "content": answer.text, "source": "generate"}
    if answer.tools:
        told["tool_calls"] = [
            _tool_call(f"call_{number}", tool.name, tool.arguments) for number, tool in enumerate(answer.tools, 1)
        ]
    return told


def _model(candidate: Candidate) -> str:
    return f"freehold/{candidate.name}"


def _usage(prompt: int, completion: int, cached: int) -> dict[str, int]:
    counts = {"input_tokens": prompt, "output_tokens": completion, "total_tokens": prompt + completion}
    return counts | {"input_tokens_cache_read": cached} if cached else counts
