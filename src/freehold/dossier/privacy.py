"""The chapter about privacy: the proof of the seal, what left the house, and where texts are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from freehold.chart import words
from freehold.dossier import say
from freehold.types.dossier import Chapter, Evidence, Figure, Known, Part, Proof, Table

_PROVE = say.command("prove", "privacy")
_SHOWS = {"blocked": "blocked", "got out": "GOT OUT", "not judged": "not judged"}


def chapter(evidence: Evidence) -> Chapter:
    """Where calls went, and what shows that they could go nowhere else."""
    return Chapter("privacy", "Privacy", (_proof(evidence), _left(evidence), _kept(evidence)))


def _proof(evidence: Evidence) -> Part:
    proof = evidence.privacy.proof
    if proof is None:
        absent = say.missing("privacy.proof", "Proof of the seal", "no proof was run in this home", _PROVE)
        return Part("privacy.seal", "The seal, put to the test", figures=(absent,))
    lead = (
        "A listener is started, reached from outside the seal (the control), and tried from inside, in every way that "
        "the kernel has. An attempt whose control fails proves nothing and is not judged.",
    )
    tables = (_attempts(proof),)
    return Part("privacy.seal", "The seal, put to the test", lead, figures=tuple(_found(proof)), tables=tables)


def _check(proof: Proof) -> str:
    return say.command("prove", "check", f"proofs/{proof.file}")


def _found(proof: Proof) -> Iterator[Figure]:
    again = _check(proof)
    good = not proof.wrong
    verdict = f"{proof.verdict}, {say.moment(proof.at)}" if good else f"NOT GOOD: {'; '.join(proof.wrong)}"
    yield Figure("privacy.proof", "Proof of the seal", proof.verdict if good else None, verdict, again)
    yield Figure("privacy.claim", "What it claims", proof.claim, proof.claim, again, Known.STATED)
    counts = Counter(row[-1] for row in proof.rows)
    shown = ", ".join(f"{counts[name]:,} {name}" for name in _SHOWS if counts[name]) or "none"
    yield Figure("privacy.attempts", "Attempts to get out", dict(counts), shown, again)
    for number, reason in enumerate(proof.reasons, 1):
        yield Figure(f"privacy.reason-{number}", "Because", reason, reason, again)
    looked = (
        f"{words.amount(proof.running, 'running process').replace('processs', 'processes')} looked up in the kernel"
    )
    looked = looked if proof.running else "none: no server was running"
    yield Figure("privacy.processes", "Running processes", proof.running, looked, again)
    by = f"Freehold {proof.freehold}, Linux {proof.kernel}, seal = {proof.seal}"
    yield Figure("privacy.made-by", "Proved by", [proof.freehold, proof.kernel, proof.seal], by, again, Known.STATED)


def _attempts(proof: Proof) -> Table:
    rows = tuple(
        (who, what, control, inside, _SHOWS.get(shows, shows)) for who, what, control, inside, shows in proof.rows
    )
    head = ("who", "attempt", "outside", "inside", "shows")
    return Table("privacy.rows", "Each attempt, outside the seal and inside", head, rows, _check(proof))


def _left(evidence: Evidence) -> Part:
    found, name = evidence.privacy.departures, evidence.verdict.candidate.name
    again = say.command("ledger", "--limit", "1000000000", "--json")
    own = next((one for one in found if one.role == "candidate"), None)
    calls, left = (own.calls, own.left) if own else (0, 0)
    hosts = evidence.privacy.hosts
    allowed = f"to {', '.join(hosts)}" if hosts else "nowhere: no host is listed"
    figures = (
        Figure(
            "privacy.left", "Calls that left the house", [left, calls], f"{left:,} of {calls:,}", again,
            note=f"calls to {name} in the ledger, up to the making of this dossier",
        ),
        Figure(
            "privacy.hosts", "Calls may be passed on", list(hosts), allowed, say.command("status"), Known.STATED,
            note="by the settings", lasting=False,
        ),
    )  # fmt: skip
    rows = tuple((one.name, one.role, f"{one.calls:,}", f"{one.left:,}") for one in found)
    head = ("name that was called", "what it is", "calls", "left the house")
    table = Table("privacy.departures", "By the name that was called", head, rows, again, numeric=(2, 3))
    return Part("privacy.out", "What left the house", figures=figures, tables=(table,))


def _kept(evidence: Evidence) -> Part:
    task = evidence.task
    capture = "off" if not task.capture else f"on, for {', '.join(task.callers) or 'every caller'}"
    shows = say.command("tasks", "show", task.name)
    again = say.command("report", task.name, "--format", "json")
    text = "cut short, in the chapter on calls that changed" if evidence.with_text else "none"
    return Part(
        "privacy.kept",
        "Where texts are kept",
        points=(
            "Recorded calls, with their texts, are in one file of the home, traffic.db, readable by its owner alone. "
            "'freehold traffic erase' removes them.",
            "The ledger and the audit chain hold no text of a call.",
            "An adapter that was tuned on calls is made of them, and can give pieces of them back.",
        ),
        figures=(
            Figure("privacy.capture", "Recording of new calls", task.capture, capture, shows, Known.STATED),
            Figure("privacy.text", "Texts of calls in this dossier", evidence.with_text, text, again, Known.STATED),
        ),
    )
