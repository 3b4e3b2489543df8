"""promptfoo's result files: results become samples, and what a candidate did becomes results.

Format: what ``promptfoo eval -o out.json`` writes (`OutputFile`, ``results.version`` 3; tried with 0.121.9). Of each
result the rendered prompt is the request (chat messages where it is a JSON list of them), the response the incumbent's
answer, and the value of an ``equals`` assertion the expected one. Other assertions say what an answer must be like, not
what it is, so they give none; neither does the schema of ``is-json``. A result whose assertion failed is a good sample;
one whose call failed is none.
"""

from __future__ import annotations

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
from freehold.types import Answer, Candidate, Sample, Task, ToolCall, Unusable, Usage

VERSION = 3
_ERROR = 2  # failureReason: 0 none, 1 an assertion, 2 the call
_RESULTS = ("results", "results")
_HEADER = {("evalId",), ("results", "version"), ("results", "timestamp"), ("results", "prompts")}
_SETTINGS = ("temperature", "top_p", "max_tokens", "seed", "stop", "response_format", "tools", "tool_choice")


def read(path: Path, *, incumbent: str = "", group: str = "") -> Iterator[Sample | Unusable]:
    """Every result of a file, in its order. ``incumbent`` is the provider whose answers are meant, which must be said
    where there are several; ``group`` a dotted path in a result (``vars.customer``).

    Raises:
        BadTraffic: the file is no such file, another version's, cut off, or of several providers.
    """
    try:
        with open(path, "rb") as opened:
            file = _File(_headed(opened), incumbent, group)
            opened.seek(0)
            number = 0
            for at, raw in stream.walk(opened, set(), _RESULTS):
                if at == _RESULTS:
                    number += 1
                    yield file.sample(number, raw)
    except OSError as error:
        raise BadTraffic(f"'{path}' cannot be read: {error.strerror or error}.") from None


def _headed(opened: BinaryIO) -> dict[str, Any]:
    """What stands about the results, wherever in the file."""
    found: dict[str, Any] = {}
    for path, raw in stream.walk(opened, _HEADER, _RESULTS):
        if path == _RESULTS:
            continue
        try:
            found[path[-1]] = stream.decode(raw)
        except Unfit as error:
            raise BadTraffic(f"The file's '{path[-1]}' cannot be read. {error}") from None
        if len(found) == len(_HEADER):
            break
    return found


class _File:
    """What stands about a file's results, and one result after another."""

    def __init__(self, header: dict[str, Any], incumbent: str, group: str):
        if header.get("version") != VERSION:
            said = header.get("version")
            told = f"says version {said!r}" if said is not None else "does not say its version"
            raise BadTraffic(f"The file {told}; results of promptfoo of version {VERSION} are read here.")
        self.name, self.at = str(header.get("evalId") or ""), exchange.seconds(header.get("timestamp"))
        self.incumbent, self.group = incumbent or _only(header.get("prompts")), group

    def sample(self, number: int, raw: bytes | None) -> Sample | Unusable:
        """One result, or why it cannot be used."""
        try:
            found = stream.decode(raw)
            if not isinstance(found, dict):
                raise Unfit("It is no object.")
            own = exchange.own(_dict(_dict(found.get("testCase")).get("metadata")))
            return exchange.sure(own or self.convert(found))
        except Unfit as error:
            return Unusable(number, str(error))
        except RecursionError:
            return Unusable(number, "It is nested too deeply.")

    def convert(self, found: dict[str, Any]) -> Sample:
        """A result of somebody else's file."""
        provider = _provider(found.get("provider"))
        if not self.incumbent:
            self.incumbent = provider
        if provider != self.incumbent:
            raise Unfit(f"It is an answer of {provider[:80]!a}, and those of {self.incumbent[:80]!a} are read.")
        if found.get("failureReason") == _ERROR:
            raise Unfit(f"Its call failed: {str(found.get('error') or '')[:200]!a}.")
        answer, test = _answer(_dict(found.get("response"))), _dict(found.get("testCase"))
        name = found.get("id") or f"{self.name}:{found.get('testIdx')}:{found.get('promptIdx')}"
        return Sample(
            id=str(name),
            request=_request(_dict(found.get("prompt"))),
            answer=answer,
            expected=_expected(found, test),
            group=exchange.dotted(found, self.group) or str(name),
            at=self.at,
            incumbent=provider,
        )


def _only(prompts: Any) -> str:
    """The one provider that the file's head names; '' where it names none."""
    found = {str(_dict(prompt).get("provider") or "") for prompt in prompts} if isinstance(prompts, list) else set()
    if len(found) > 1:
        names = ", ".join(f"'{name[:80]}'" for name in sorted(found)[:10])
        raise BadTraffic(f"The file holds answers of {len(found)} providers: {names}.", hint="Say which is meant.")
    return next(iter(found), "")


def _provider(provider: Any) -> str:
    """A provider's name, as the file's head has it: the label, where it has one."""
    if isinstance(provider, dict):
        return str(provider.get("label") or provider.get("id") or "")
    return str(provider or "")


def _request(prompt: dict[str, Any]) -> dict[str, Any]:
    """The body of the call: messages, and what the prompt itself sets."""
    raw = prompt.get("raw")
    if not isinstance(raw, str) or not raw:
        raise Unfit("It has no prompt.")
    config = _dict(prompt.get("config"))
    settings = {name: config[name] for name in _SETTINGS if config.get(name) is not None}
    return {"messages": _messages(raw), **settings}


def _messages(raw: str) -> list[dict[str, Any]]:
    """The messages of a prompt that is a JSON list of them; else the prompt as what a user says."""
    try:
        found = msgspec.json.decode(raw) if raw.lstrip()[:1] == "[" else None
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        found = None
    if not isinstance(found, list) or not found or not all("role" in _dict(message) for message in found):
        return [{"role": "user", "content": raw}]
    for message in found:
        content = message.get("content")
        for part in content if isinstance(content, list) else []:
            if _dict(part).get("type") != "text":
                kind = str(_dict(part).get("type"))[:40]
                raise Unfit(f"It holds content of the type {kind!a}; text alone is replayed.")
    return found


def _answer(response: dict[str, Any]) -> Answer:
    """What the provider said. Calls of tools arrive as a list of them, as OpenAI writes it."""
    output = response.get("output")
    if response.get("error"):
        raise Unfit(f"Its call failed: {str(response['error'])[:200]!a}.")
    if output is None or output == "":
        raise Unfit("Its answer is empty.")
    if isinstance(output, str):
        return Answer(output)
    if isinstance(output, list) and output and all("function" in _dict(call) for call in output):
        return Answer(tools=tuple(_tool(_dict(call["function"])) for call in output))
    return Answer(msgspec.json.encode(output).decode())


def _tool(function: dict[str, Any]) -> ToolCall:
    given = function.get("arguments")
    arguments = given if isinstance(given, str) else msgspec.json.encode(given or {}).decode()
    return ToolCall(str(function.get("name") or ""), arguments)


def _expected(found: dict[str, Any], test: dict[str, Any]) -> Answer | None:
    """The value of the ``equals`` assertion, as it was after the variables were put in."""
    asserted = test.get("assert")
    equal = [one for one in map(_dict, asserted if isinstance(asserted, list) else []) if one.get("type") == "equals"]
    if not equal:
        return None
    if len(equal) > 1:
        raise Unfit(f"It has {len(equal)} right answers, and a sample has one.")
    value = equal[0].get("value")
    if not isinstance(value, str):
        return Answer(msgspec.json.encode(value).decode())
    rendered = _rendered(found, value)
    if rendered.startswith("file://") or "{{" in rendered or "{%" in rendered:
        raise Unfit("Its expected answer is a template or a file, and the results do not hold what it stands for.")
    return Answer(rendered) if rendered else None


def _rendered(found: dict[str, Any], value: str) -> str:
    """What promptfoo compared with, where that differs from what the assertion says."""
    components = _dict(found.get("gradingResult")).get("componentResults")
    for component in map(_dict, components if isinstance(components, list) else []):
        assertion = _dict(component.get("assertion"))
        said = _dict(component.get("metadata")).get("renderedAssertionValue")
        if assertion.get("type") == "equals" and assertion.get("value") == value and isinstance(said, str):
            return said
    return value


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def write(target: Path | BinaryIO, task: Task, candidate: Candidate, rows: Iterable[Row]) -> int:
    """Write what a candidate did as a result file; how many calls it holds. The same rows give the same bytes.

    Raises:
        BadTraffic: a score is no number, a text is no text, or the file cannot be written.
    """
    scorer = str(task.scorer.get("kind") or "score")
    prompt = exchange.mark(task, candidate, "prompt")
    with exchange.Spool() as spool:
        for number, row in enumerate(rows):
            make = partial(_result, number=number, task=task, candidate=candidate, scorer=scorer, prompt=prompt)
            spool.put(row, make)
        exchange.save(target, _document(task, candidate, prompt, spool))
        return spool.count


def _document(task: Task, candidate: Candidate, prompt: str, spool: exchange.Spool) -> Iterator[bytes]:
    at, name = exchange.iso(spool.begun), exchange.mark(task, candidate)
    head = {
        "evalId": f"eval-{name[:12]}-{at[:19]}",
        "results": {
            "version": VERSION,
            "timestamp": at,
            "prompts": [_prompt(candidate, prompt, spool)],
            "stats": {
                "successes": spool.right,
                "failures": spool.count - spool.right - spool.errors,
                "errors": spool.errors,
                "tokenUsage": _tokens(Usage(spool.prompt, spool.completion, spool.cached), spool.count),
            },
        },
    }
    tail = {
        "config": {
            "description": f"{task.name}: {candidate.name}",
            "prompts": ["{{request}}"],
            "providers": [candidate.name],
            "tests": [],
        },
        "shareableUrl": None,
        "metadata": {
            "exportedAt": exchange.iso(spool.ended),
            "evaluationCreatedAt": at,
            exchange.KEY: {"version": freehold.__version__, "candidate": msgspec.to_builtins(candidate)},
        },
    }
    yield msgspec.json.encode(head)[:-2] + b',"results":[\n'
    yield from spool.pieces()
    yield b"\n]}," + msgspec.json.encode(tail)[1:] + b"\n"


def _prompt(candidate: Candidate, prompt: str, spool: exchange.Spool) -> dict[str, Any]:
    """The one prompt that every result has, with what came of it."""
    return {
        "id": prompt,
        "raw": "{{request}}",
        "label": "{{request}}",
        "provider": candidate.name,
        "metrics": {
            "score": spool.total,
            "testPassCount": spool.right,
            "testFailCount": spool.count - spool.right - spool.errors,
            "testErrorCount": spool.errors,
            "assertPassCount": spool.right,
            "assertFailCount": spool.count - spool.right,
            "totalLatencyMs": spool.milliseconds,
            "tokenUsage": _tokens(Usage(spool.prompt, spool.completion, spool.cached), spool.count),
            "namedScores": {},
            "namedScoresCount": {},
            "cost": 0,
        },
    }


def _result(row: Row, number: int, task: Task, candidate: Candidate, scorer: str, prompt: str) -> dict[str, Any]:
    sample, replayed, score = row.sample, row.replayed, row.score
    raw = msgspec.json.encode(exchange.messages(sample)).decode()
    right = score.value >= 1 and not replayed.error
    why = replayed.error or score.error or f"Scored {score.value:g} of 1 by Freehold's scorer '{scorer}'."
    asserted = (
        {"type": "equals", "value": exchange.said(sample.expected), "metric": scorer} if sample.expected else None
    )
    graded = {"pass": right, "score": score.value, "reason": why, "tokensUsed": _tokens(Usage(), 0)}
    component = graded | {"assertion": asserted, "metadata": {"detail": score.detail}}
    values = {"id": sample.id, "request": raw}
    result = {
        "id": _uuid(exchange.mark(task, candidate, number, sample.id)),
        "promptId": prompt,
        "promptIdx": 0,
        "testIdx": number,
        "prompt": {"raw": raw, "label": "{{request}}", "config": {}},
        "provider": {"id": candidate.name, "label": ""},
        "vars": values,
        "testCase": {
            "vars": values,
            "assert": [asserted] if asserted else [],
            "options": {},
            "metadata": {exchange.KEY: msgspec.to_builtins(sample)},
        },
        "response": {
            "output": exchange.said(replayed.answer),
            "tokenUsage": _tokens(replayed.usage, 1),
            "cached": False,
            "metadata": {},
        },
        "success": right,
        "score": score.value,
        "namedScores": {},
        "latencyMs": replayed.total_ms,
        "cost": 0,
        "gradingResult": graded | {"namedScores": {}, "componentResults": [component]},
        "failureReason": _ERROR if replayed.error else 0 if right else 1,
        "metadata": {},
    }
    return result if right else result | {"error": why}


def _tokens(usage: Usage, requests: int) -> dict[str, int]:
    total = usage.prompt + usage.completion
    counts = {"prompt": usage.prompt, "completion": usage.completion, "cached": usage.cached, "total": total}
    return counts | {"numRequests": requests}


def _uuid(mark: str) -> str:
    return "-".join((mark[:8], mark[8:12], mark[12:16], mark[16:20], mark[20:32]))
