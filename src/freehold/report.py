"""The report: what a home knows of one candidate for one task, gathered, made into a dossier, and checked again.

Nothing is looked at and nothing asked: verdicts are read as they stand (`certify.standing`), and everything that grows
(calls, proofs, events) is read up to one moment, so that the same figures come out whenever they are worked out anew.
The one thing that is written is an event in the audit chain, with the digest of the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

import freehold
from freehold import certify, cost, dossier, prove, runs
from freehold.config import Settings
from freehold.engine import memory
from freehold.errors import BadModel, CannotDo
from freehold.home import Home
from freehold.ledger import Ledger
from freehold.results import Results
from freehold.samples import Samples
from freehold.sign import SigningKey
from freehold.types import (
    Answer,
    Candidate,
    Costs,
    Manifest,
    Outlook,
    Replayed,
    Sample,
    Split,
    Task,
    TuningRun,
    Verdict,
)
from freehold.types.dossier import (
    Chain,
    Change,
    Departure,
    Dossier,
    Evidence,
    Excerpt,
    Kept,
    Machine,
    Pace,
    Portion,
    Privacy,
    Proof,
)
from freehold.vault import Vault

MADE = "dossier.made"


class Sources(Struct, frozen=True):
    """What a report is gathered from. ``bench`` is the task's, and asks nobody; ``signed`` says whether this house's
    key signed a model's record; ``costs`` works out what a task's calls cost with a candidate."""

    home: Home
    settings: Settings
    vault: Vault
    ledger: Ledger
    samples: Samples
    results: Results
    bench: certify.Bench
    signed: Callable[[Manifest], bool]
    costs: Callable[[Task, Candidate], Costs]


# making one


def make(
    sources: Sources, task: Task, form: str, *, at: float, candidate: str = "", with_text: bool = False
) -> tuple[Dossier, bytes]:
    """The dossier of a candidate for a task as things are at the moment ``at``, and the signed file in that form.

    Raises:
        CannotDo: nobody looked at the candidate.
        NotDecidable: as `certify.standing`.
    """
    key = SigningKey.load(sources.home.signing_key)
    evidence = gather(
        sources, task, at=at, candidate=candidate, with_text=with_text, key=key.public, signer=key.fingerprint
    )
    made = dossier.compose(evidence)
    return made, dossier.write(made, form, key)


def note(ledger: Ledger, made: Dossier, form: str, content: bytes, *, actor: str) -> None:
    """Enter a file into the audit chain. Raises Unaccountable."""
    detail = {"sha256": digest(content), "form": form, "candidate": made.candidate, "key": made.candidate_key}
    detail |= {"outcome": made.outcome.value, "with_text": made.with_text}
    ledger.record(MADE, made.task, actor=actor, detail=detail)


def is_noted(ledger: Ledger, content: bytes) -> bool:
    """Does the audit chain know this very file?"""
    wanted = digest(content)
    return any(event.detail.get("sha256") == wanted for event in ledger.events(MADE))


def digest(content: bytes) -> str:
    """The SHA-256 of a file."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def again(sources: Sources, task: Task, signed: Dossier) -> tuple[list[Change], list[Change]]:
    """Every figure of a dossier worked out anew from the store, as of the moment that it was made: those that are not
    the same, and those that need not be. Where there is no verdict any more, that is what is not the same."""
    try:
        evidence = gather(
            sources, task, at=signed.made_at, candidate=signed.candidate_key, with_text=signed.with_text,
            key=signed.key, signer=signed.signer, by=signed.made_by, anew=True,
        )  # fmt: skip
    except CannotDo as error:
        return [Change("verdict.outcome", "Verdict", signed.outcome.value, error.sentence())], []
    return dossier.differences(signed, dossier.compose(evidence))


# gathering


def gather(
    sources: Sources,
    task: Task,
    *,
    at: float,
    candidate: str,
    with_text: bool,
    key: str,
    signer: str,
    by: str = "",
    anew: bool = False,
) -> Evidence:
    """All that a dossier says, read up to the moment ``at``. ``candidate`` is a name or key, '' for the one that may
    take over, or else was looked at last. With ``anew`` scores count that nobody looked at. Raises as `make`."""
    verdicts = certify.standing(sources.bench, task, anew=anew)
    verdict = choose(verdicts, task, candidate)
    samples = list(_reduced(sources, task))
    answers = sources.results.answers(task.name, verdict.candidate.key)
    costs = sources.costs(task, verdict.candidate) if verdict.candidate.digest else None
    certifying = [one.id for one in samples if one.split is Split.CERTIFICATION]
    model = _kept(sources, sources.vault.find(verdict.candidate.digest) if verdict.candidate.digest else None)
    return Evidence(
        task=task,
        verdict=verdict,
        sentence=certify.sentence(verdict),
        others=tuple(other for other in verdicts if other is not verdict),
        fixing=sources.results.fixing(task.name, verdict.round),
        splits=_portions(samples),
        terms=_counted(one.terms or task.terms for one in samples),
        incumbents=_counted(one.incumbent for one in samples),
        pace=_pace(answers, certifying),
        privacy=_privacy(sources, task, verdict, samples, at),
        machine=_machine(),
        chain=_chain(sources.ledger, at),
        at=at,
        by=by or f"Freehold {freehold.__version__}",
        key=key,
        signer=signer,
        model=model,
        base=_kept(sources, sources.vault.find(model.manifest.base)) if model and model.manifest.base else None,
        tuning=_run(sources, verdict),
        costs=costs,
        costs_said=cost.sentence(costs) if costs else "",
        with_text=with_text,
        excerpts=_excerpts(sources, task, verdict, answers) if with_text else {},
        fields=_fields(task),
    )


def choose(verdicts: Sequence[Verdict], task: Task, wanted: str) -> Verdict:
    """The verdict that the dossier is about. Raises CannotDo, with what there is."""
    if not verdicts:
        raise CannotDo(
            f"There is no verdict for {task.name!r} yet, and a dossier is the report of one.",
            hint=f"'freehold certify {task.name} --candidate MODEL' gives it.",
        )
    if not wanted:
        good = [one for one in verdicts if one.outcome is Outlook.NON_INFERIOR]
        return (good or verdicts)[-1]
    found = [one for one in verdicts if wanted in (one.candidate.name, one.candidate.key)]
    if not found:
        names = ", ".join(sorted({one.candidate.name for one in verdicts}))
        raise CannotDo(
            f"Nobody has looked at {wanted} on the certification calls of {task.name!r} (but at: {names}).",
            hint=f"'freehold certify {task.name} --candidate {wanted}' looks.",
        )
    if len(found) > 1:
        keys = ", ".join(one.candidate.key for one in found)
        raise CannotDo(f"There are {len(found)} verdicts on {wanted}.", hint=f"Name one by its key: {keys}.")
    return found[0]


class _Reduced(Struct, frozen=True):
    """A recorded call without its texts."""

    id: str
    group: str
    at: float
    split: Split
    incumbent: str
    terms: str


def _reduced(sources: Sources, task: Task) -> Iterator[_Reduced]:
    """The calls that are in a split."""
    for split in Split:
        for one in sources.samples.of_split(task, split):
            yield _Reduced(one.id, one.group or one.id, one.at, split, one.incumbent, one.terms)


def _portions(samples: Sequence[_Reduced]) -> dict[str, Portion]:
    found = {}
    for split in Split:
        own = [one for one in samples if one.split is split]
        times = [one.at for one in own if one.at] or [0.0]
        found[split.value] = Portion(len(own), len({one.group for one in own}), min(times), max(times))
    return found


def _counted(texts: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """Distinct texts with how often they are there, the commonest first."""
    counts = Counter(texts)
    return tuple(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _fields(task: Task) -> tuple[str, ...]:
    """The names of fields in the task's own file: of its comparators, and of its schema where that is written there."""
    fields, schema = task.scorer.get("fields"), task.scorer.get("schema")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return tuple(dict.fromkeys(name for table in (fields, properties) if isinstance(table, dict) for name in table))


def _pace(answers: dict[str, Replayed], ids: Sequence[str]) -> Pace:
    come = [answers[id] for id in ids if id in answers]
    answered = [one for one in come if one.answer is not None]
    return Pace(
        len(answered),
        _middle_and_tail([one.total_ms for one in answered]),
        _middle_and_tail([one.first_token_ms for one in answered if one.first_token_ms is not None]),
        sum(one.usage.prompt for one in come),
        sum(one.usage.completion for one in come),
    )


def _middle_and_tail(values: list[float]) -> tuple[float, float] | None:
    """The median and the 95th percentile, each a value that was measured (nearest rank)."""
    ordered = sorted(values)
    rank = [ordered[-(-len(ordered) * percent // 100) - 1] for percent in (50, 95)] if ordered else []
    return (rank[0], rank[1]) if rank else None


def _kept(sources: Sources, manifest: Manifest | None) -> Kept | None:
    if manifest is None:
        return None
    try:
        return Kept(manifest, sources.vault.record(manifest), sources.signed(manifest))
    except BadModel as error:
        raise BadModel(f"The record of the model cannot be reported: {error.message}", hint=error.hint) from None


def _run(sources: Sources, verdict: Verdict) -> TuningRun | None:
    """The run that made the candidate. Raises CannotDo where its record was changed."""
    if not verdict.candidate.digest:
        return None
    key = SigningKey.load(sources.home.signing_key).public
    return runs.find(sources.home.tuning, verdict.candidate.digest, key)


# texts


def _excerpts(sources: Sources, task: Task, verdict: Verdict, answers: dict[str, Replayed]) -> dict[str, Excerpt]:
    """The texts of the calls that changed, in short."""
    ids = [flip.sample for flip in verdict.flips]
    found = {}
    for id, sample in sources.samples.get(task.name, ids).items():
        own = answers[id].answer if id in answers else None
        found[id] = Excerpt(asked(sample), _said(sample.answer), _said(own), _said(sample.expected))
    return found


def asked(sample: Sample) -> str:
    """What a call asks last, in short: the last message of a user, or the prompt."""
    request = sample.request
    messages = request.get("messages") or request.get("input") or request.get("prompt") or ""
    if isinstance(messages, list):
        users = [one for one in messages if isinstance(one, dict) and one.get("role") == "user"]
        last = users[-1] if users else messages[-1] if messages else ""
        messages = last.get("content", "") if isinstance(last, dict) else last
    return _flat(messages)


def _flat(content: Any) -> str:
    """A text, or the texts of a message's parts."""
    if isinstance(content, list):
        parts = [one.get("text", "") if isinstance(one, dict) else one for one in content]
        content = " ".join(part for part in parts if isinstance(part, str))
    if not isinstance(content, str):
        content = msgspec.json.encode(content).decode()
    return dossier.brief(content)


def _said(answer: Answer | None) -> str:
    if answer is None:
        return ""
    tools = [f"{call.name}({call.arguments})" for call in answer.tools]
    return dossier.brief(" ".join(filter(None, [answer.text, *tools])))


# privacy


def _privacy(sources: Sources, task: Task, verdict: Verdict, samples: Sequence[_Reduced], at: float) -> Privacy:
    roles: dict[str, list[str]] = {verdict.candidate.name: ["candidate"]}
    if task.alias:
        roles.setdefault(task.alias, []).append("alias of the task")
    for name in sorted({one.incumbent for one in samples if one.incumbent}):
        roles.setdefault(name, []).append("incumbent")
    counts = sources.ledger.sent(list(roles), at)
    departures = tuple(Departure(name, ", ".join(role), *counts.get(name, (0, 0))) for name, role in roles.items())
    settings = sources.settings
    hosts = settings.upstream_hosts if settings.upstreams or settings.traces.endpoint else ()
    return Privacy(_proof(sources, at), departures, hosts, settings.seal)


def _proof(sources: Sources, at: float) -> Proof | None:
    """The latest proof that was made until then. A file that is no proof is passed over."""
    latest: tuple[float, Path] | None = None
    for path in sources.home.proofs.glob("privacy-*.json"):
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            signed = msgspec.json.decode(path.read_bytes(), type=prove.Signed)
            made = msgspec.json.decode(signed.record, type=prove.Record).at
            if made <= at and (latest is None or (made, path) > latest):
                latest = made, path
    if latest is None:
        return None
    key = prove.public_key(sources.home.signing_key)
    record, wrong = prove.check(latest[1], key, sources.ledger)
    return Proof(
        file=latest[1].name,
        claim=record.claim,
        verdict=record.verdict,
        at=record.at,
        freehold=record.freehold,
        kernel=record.kernel,
        seal=record.seal,
        rows=tuple((row.who, row.meaning, row.control, row.sealed, row.shows) for row in record.rows),
        reasons=record.reasons,
        running=len(record.processes),
        wrong=tuple(wrong),
    )


# the moment


def _chain(ledger: Ledger, at: float) -> Chain:
    """The audit chain as it was at that moment; whether it holds, now."""
    events, head = ledger.head_at(at)
    found = ledger.verify()
    return Chain(events, head, found.holds, found.problem)


def _machine() -> Machine:
    """What this is running on: versions and sizes, no names."""
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    return Machine(
        freehold=freehold.__version__,
        engine=f"xllamacpp {metadata.version('xllamacpp')}",
        python=platform.python_version(),
        system=release.get("PRETTY_NAME") or platform.system(),
        kernel=f"{platform.system()} {platform.release()}",
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory=memory.machine(),
    )


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {platform.machine()}"
    return platform.machine()
