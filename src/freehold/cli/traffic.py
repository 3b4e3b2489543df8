"""The recorded calls of a task: bring a file of them in, see what they are like, write them out, remove them."""

from __future__ import annotations

import argparse
import fcntl
import itertools
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from freehold import traffic
from freehold.app import Parts
from freehold.chart import terminal, words
from freehold.cli import local
from freehold.errors import BadTraffic, CannotDo, NotRunning
from freehold.results import Results
from freehold.samples import ORDER_ONLY, Samples
from freehold.store import cipher
from freehold.traffic import export, formats, inspectlog, portrait, promptfoo, retention
from freehold.traffic.exchange import Row
from freehold.types import Replayed, Sample, Split, Task

_LARGE = 4 << 20  # bytes of a file from which a second process is worth its start
_PARTS = 8
_OTHERS = {"inspect": inspectlog.write, "promptfoo": promptfoo.write}  # of what a candidate did, with its scores
_WHY_LEFT = {False: "have no place in that format", True: "have no answer with a score that was read"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands of ``freehold traffic``."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="|".join(_COMMANDS))
    for name, (add, _, said) in _COMMANDS.items():
        command = commands.add_parser(name, help=said, description=said[0].upper() + said[1:] + ".")
        add(command)


def run(arguments: argparse.Namespace) -> int:
    """Do what the sub-command says."""
    with local.opened(arguments) as parts:
        return _COMMANDS[arguments.command][1](parts, arguments)


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="JSON Lines or one JSON list, .gz too; '-' for standard input")
    parser.add_argument("--task", metavar="NAME", required=True, help="the task whose calls they are")
    parser.add_argument("--format", choices=formats.NAMES, default="", help="what is in the file (default: see it)")
    parser.add_argument("--answers", metavar="FILE", default="", help="what a batch answered, where FILE is a batch")
    parser.add_argument("--incumbent", metavar="NAME", default="", help="who answered, where the lines do not say")
    parser.add_argument("--terms", metavar="TEXT", default="", help="under which terms the answers may be used")
    parser.add_argument("--json", action="store_true", help="for programs")


def _import(parts: Parts, arguments: argparse.Namespace) -> int:
    from freehold import sensitive

    task = parts.tasks.get(arguments.task)
    wish = traffic.Wish(arguments.file, arguments.format, arguments.answers, arguments.incumbent, arguments.terms)
    bar = _Timed()
    with _alone(parts):
        report = traffic.bring_in(
            parts.samples, task, wish, by=local.actor(), look=sensitive.find, workers=workers(wish.file), progress=bar
        )
    bar.end()
    done = report.done
    parts.ledger.record("traffic.import", task.name, actor=local.actor(), detail=_recorded(report))
    if arguments.json:
        local.print_json(msgspec.to_builtins(report))
    else:
        print(local.lines(_told(parts, report)))
    return 0 if done.kept or done.duplicates else 1


@contextmanager
def _alone(parts: Parts) -> Iterator[None]:
    """One import at a time: two of the same file would each count the other's calls as duplicates."""
    with open(parts.home.folder / "traffic.lock", "wb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CannotDo("Another import runs in this home.", hint="Wait until it is done.") from None
        yield


def workers(file: str) -> int:
    """Processes beside this one that look for what is sensitive; none for a small file."""
    large = file == "-" or (os.path.exists(file) and os.path.getsize(file) > _LARGE)
    return min((os.cpu_count() or 1) - 1, 3) if large else 0


def _recorded(report: traffic.Report) -> dict[str, Any]:
    done = report.done
    counts = {"lines": done.line, "kept": done.kept, "duplicates": done.duplicates, "skipped": done.skipped}
    return {"import": done.id, "file": done.file, "digest": report.digest, "format": done.format} | counts


def _told(parts: Parts, report: traffic.Report) -> list[str]:
    done = report.done
    lines = [
        f"{done.file}: {words.amount(done.line, 'line')} in the format {done.format} ({report.why})",
        f"  kept        {done.kept:,}",
        f"  duplicates  {done.duplicates:,}",
        f"  skipped     {done.skipped:,}",
    ]
    if report.went_on_behind:
        lines.insert(1, f"  An earlier run had come to line {report.went_on_behind:,}; this one went on from there.")
    lost = portrait.reasons(parts.samples.skipped(done.id))
    lines += [f"    {count:>9,}  {reason}" for reason, count in list(lost.items())[:_PARTS]]
    if report.untimed:
        have = "have" if report.untimed > 1 else "has"
        lines.append(f"  {words.amount(report.untimed, 'call')} {have} no time; the order of the file is taken for it.")
    if report.several:
        lines.append(f"  {words.amount(report.several, 'answer')} had several choices; the first was taken.")
    for kind, count in sorted(done.sensitive.items()):
        first = ", ".join(map(str, report.sensitive_lines.get(kind, ())))
        numbers = f" ({'line' if count == 1 else 'lines'} {first})" if first else ""
        lines.append(f"  {words.amount(count, 'line')} {_hold(count)} {kind}{numbers}")
    if done.skipped or done.duplicates:
        lines.append(f"Each line that was not kept: freehold traffic show {done.task} --skipped")
    return [*lines, f"Next: freehold traffic show {done.task}"]


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")


def _list(parts: Parts, arguments: argparse.Namespace) -> int:
    counts = parts.samples.counts()
    rows = []
    for name in sorted({*parts.tasks.names(), *counts}):
        imports = parts.samples.imports(name)
        last = max((found.at for found in imports), default=None)
        rows.append((name, counts.get(name, 0), len(imports), last, any(not found.done for found in imports)))
    if arguments.json:
        local.print_json(
            [dict(zip(("task", "calls", "imports", "last", "broken_off"), row, strict=True)) for row in rows]
        )
        return 0
    shown = [
        (name, f"{calls:,}", str(count), local.when(last), "an import was broken off" if broken else "")
        for name, calls, count, last, broken in rows
    ]
    local.table(shown, ("TASK", "CALLS", "IMPORTS", "LAST", ""))
    return 0


def _show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", help="a task with recorded calls")
    parser.add_argument("--skipped", action="store_true", help="each line that was not kept, and why")
    parser.add_argument("--sample", metavar="ID", help="one call, with its text")
    parser.add_argument("--json", action="store_true", help="for programs")


def _show(parts: Parts, arguments: argparse.Namespace) -> int:
    task = parts.tasks.get(arguments.task)
    if arguments.sample:
        return _show_sample(parts, task.name, arguments.sample)
    if arguments.skipped:
        return _show_skipped(parts, task.name, arguments.json)
    found = traffic.portray(parts.samples, task, _replayed(parts, task.name))
    if arguments.json:
        local.print_json(msgspec.to_builtins(found))
    else:
        print(local.lines(_page(found)))
    return 0


def _show_sample(parts: Parts, task: str, id: str) -> int:
    found = parts.samples.get(task, [id])
    if id not in found:
        raise BadTraffic(f"{task} has no call {id!r}.", hint="'freehold traffic export' writes all of them.")
    local.print_json(msgspec.to_builtins(found[id]))
    return 0


def _show_skipped(parts: Parts, task: str, as_json: bool) -> int:
    rows = [
        {"import": found.id, "file": found.file, "line": lost.line, "reason": lost.reason, "duplicate": duplicate}
        for found in parts.samples.imports(task)
        for duplicate in (False, True)
        for lost in parts.samples.skipped(found.id, duplicates=duplicate)
    ]
    if as_json:
        local.print_json(rows)
    else:
        local.table([(row["file"], str(row["line"]), row["reason"]) for row in rows], ("FILE", "LINE", "WHY"))
    return 0


def _replayed(parts: Parts, task: str) -> dict[str, Replayed]:
    """The answers of a candidate, for their counts of tokens."""
    for candidate in parts.results.candidates(task):
        if found := parts.results.answers(task, candidate.key):
            return found
    return {}


def _page(found: traffic.Portrait) -> list[str]:
    if not found.calls:
        return [f"{found.task}: no calls yet", *_lost(found), "  There are no calls to certify on yet."]
    tokens = "tokens, as a replay counted them" if found.counted else "tokens, estimated as characters / 4"
    largest = (
        f"{found.largest}, has {words.amount(found.largest_calls, 'call')}, {found.largest_calls / found.calls:.0%}"
    )
    incumbents = [f"{name or 'unknown'} ({count:,})" for name, count in found.incumbents.items()]
    return [
        f"{found.task}: {words.amount(found.calls, 'call')}, {_span(found.since, found.until) or 'no times known'}",
        *([f"  no time     {found.untimed:,}, taken in the order of their files"] if found.untimed else []),
        f"  prompts     {_lengths(found.prompts)} {tokens}",
        *_drawn(terminal.histogram(found.lengths, unit="tokens", **local.canvas(4))),
        f"  answers     {_lengths(found.answers)} tokens, estimated as characters / 4",
        f"  groups      {found.groups:,}; the largest, {largest}",
        "  splits      by the first call of each group, " + _laid_down(found),
        *_drawn(terminal.stacked([(_split(part), part.calls) for part in found.splits], **local.canvas(4))),
        *([f"    {found.waiting:,} that came since wait for 'traffic renew'"] if found.waiting else []),
        f"  incumbents  {', '.join(incumbents)}",
        f"  expected    {found.expected:,} with an expected answer; {found.reruns:,} asked twice",
        *_lost(found),
        *(
            f"  sensitive   {count:,} of the lines that came in {_hold(count)} {kind}"
            for kind, count in sorted(found.sensitive.items())
        ),
        *_power(found),
    ]


def _laid_down(found: traffic.Portrait) -> str:
    return f"laid down in round {found.round}" if found.round else "as they would be now"


def _lost(found: traffic.Portrait) -> list[str]:
    listed = [f"    {count:>9,}  {reason}" for reason, count in list(found.reasons.items())[:_PARTS]]
    return [f"  not kept    {words.amount(found.duplicates, 'duplicate')}, {found.skipped:,} skipped", *listed]


def _hold(count: int) -> str:
    return "holds" if count == 1 else "hold"


def _power(found: traffic.Portrait) -> list[str]:
    if not found.certifiable:
        return ["  There are no calls to certify on yet."]
    calls = next(part.calls for part in found.splits if part.split is Split.CERTIFICATION)
    possible = {psi: margin for psi, margin in found.certifiable.items() if margin < 1}
    if not possible:
        return [f"  {words.amount(calls, 'call')} to certify on: too few for any margin."]
    return [
        f"  On {words.amount(calls, 'call')} a model as good as the incumbent passes four times in five at a margin of",
        *(
            f"    {margin * 100:5.1f} points or more, where the two differ on {float(psi):.0%} of the calls"
            for psi, margin in possible.items()
        ),
        "  if the calls do not depend on each other; where those of a group are alike, it takes more of them.",
    ]


def _drawn(picture: str) -> list[str]:
    return [f"    {line}" for line in picture.splitlines()]


def _split(part: portrait.Part) -> str:
    span = _span(part.since, part.until)
    return f"{part.split.value}: {words.amount(part.groups, 'group')}{f', {span}' if span else ''}"


def _lengths(found: portrait.Lengths) -> str:
    return f"median {found.median:,}, nine in ten up to {found.most:,}, longest {found.longest:,}, all {found.total:,}"


def _span(since: float, until: float) -> str:
    """From day to day, or from minute to minute of one day."""
    if not since:
        return ""
    begun, ended = local.when(since), local.when(until)
    return f"{begun[:10]} to {ended[:10]}" if begun[:10] != ended[:10] else f"{begun[:16]} to {ended[11:16]}"


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", help="a task with recorded calls")
    parser.add_argument("--output", "-o", metavar="FILE", required=True, help="the file; '-' for standard output")
    parser.add_argument(
        "--format", choices=(*export.FORMATS, *_OTHERS), default="own", help="own (default) comes back whole"
    )
    parser.add_argument("--candidate", metavar="MODEL", help="whose scored answers; for inspect and promptfoo")
    parser.add_argument("--split", choices=[split.value for split in Split], help="only this split")


def _export(parts: Parts, arguments: argparse.Namespace) -> int:
    task = parts.tasks.get(arguments.task)
    calls = parts.samples.of_split(task, Split(arguments.split) if arguments.split else None)
    if bool(arguments.candidate) != (arguments.format in _OTHERS):
        raise CannotDo(
            "A candidate's scored answers go into a file of Inspect AI or promptfoo, and nothing else does.",
            hint="Give both: --candidate MODEL and --format inspect or promptfoo.",
        )
    if arguments.candidate:
        written = _write_scored(parts, task, calls, arguments)
    else:
        written = traffic.write(calls, arguments.output, arguments.format)
    detail = {
        "calls": written.calls,
        "format": arguments.format,
        "split": arguments.split or "",
        "file": arguments.output,
    }
    parts.ledger.record("traffic.export", task.name, actor=local.actor(), detail=detail)
    left = (
        f"; {written.left_out:,} {_WHY_LEFT[bool(arguments.candidate)]} and were left out" if written.left_out else ""
    )
    print(f"{words.amount(written.calls, 'call')} written{left}.", file=sys.stderr)
    return 0


def _write_scored(parts: Parts, task: Task, calls: Iterable[Sample], arguments: argparse.Namespace) -> export.Written:
    """A candidate's answers with the scores that are kept. None is made here: to read one of a certification call is a
    look, which 'freehold certify' alone takes."""
    candidate, left_out = local.candidate(parts, task, arguments.candidate), 0
    with parts.scorer(task) as scorer:
        scores = parts.results.scores(task.name, candidate.key, scorer.digest)
    answers = parts.results.answers(task.name, candidate.key)

    def rows() -> Iterator[Row]:
        nonlocal left_out
        for call in calls:
            if call.id in answers and call.id in scores:
                yield Row(call, answers[call.id], scores[call.id])
            else:
                left_out += 1

    target = sys.stdout.buffer if arguments.output == "-" else Path(arguments.output)
    written = _OTHERS[arguments.format](target, task, candidate, rows())
    return export.Written(written, left_out)


def _erase_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", nargs="?", default="", help="a task with recorded calls; all of them if none is named")
    parser.add_argument("--task", dest="named", metavar="NAME", default="", help="the same")
    parser.add_argument("--caller", metavar="NAME", help="only this caller's")
    parser.add_argument("--before", metavar="DATE", help="only those made before it, as 2026-05-03 (ISO 8601)")
    parser.add_argument("--yes", action="store_true", help="yes, remove them for good; without it they are counted")
    parser.add_argument("--json", action="store_true", help="for programs")


def _erase(parts: Parts, arguments: argparse.Namespace) -> int:
    if arguments.task and arguments.named and arguments.task != arguments.named:
        raise CannotDo("Two tasks are named.", hint="Name one, or none for all.")
    before = _date(arguments.before) if arguments.before else None
    wish = retention.Wish(arguments.task or arguments.named, arguments.caller, before)
    if not arguments.yes:
        found = retention.counted(parts.shelf, wish)
        _tell_gone(found, "would go", as_json=arguments.json)
        calls = words.amount(sum(one.calls for one in found), "call")
        raise CannotDo(f"{calls} would be removed for good.", hint="Say so with --yes.")
    gone = retention.erase(parts.shelf, wish, actor=local.actor())
    _tell_gone(gone, "are removed", as_json=arguments.json)
    return 0


def _tell_gone(gone: list[retention.Gone], done: str, *, as_json: bool) -> None:
    if as_json:
        local.print_json([msgspec.to_builtins(one) for one in gone])
        return
    for one in gone:
        answers = f", with {words.amount(one.answers, 'answer')} of candidates" if one.answers else ""
        print(local.plain(f"{words.amount(one.calls, 'call')} of {one.task} {done}{answers}."))
    if not gone:
        print("There are no such calls.")


def _expire_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--show", action="store_true", help="erase nothing; show how long each task's calls are kept")
    parser.add_argument("--json", action="store_true", help="for programs")


def _expire(parts: Parts, arguments: argparse.Namespace) -> int:
    if not arguments.show:
        gone = retention.expire(parts.shelf, actor=local.actor())
        _tell_gone(gone, "were due and are removed", as_json=arguments.json)
        return 0
    found = retention.spans(parts.shelf)
    if arguments.json:
        local.print_json([msgspec.to_builtins(one) for one in found])
    else:
        kept = {one.task: _days(one.days) for one in found}
        rows = [(one.task, f"{one.calls:,}", kept[one.task], local.when(one.oldest)) for one in found]
        local.table(rows, ("TASK", "CALLS", "KEPT", "OLDEST"))
    return 0


def _days(days: int | None) -> str:
    if days is None:
        return "nobody knows: the task's file cannot be read"
    return f"{days:,} days" if days else "until they are erased"


def _encrypt_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--old-key-file", metavar="FILE", default="", help="the key until now, where it is exchanged")
    parser.add_argument("--off", action="store_true", help="keep them as they are, unencrypted, from now on")
    parser.add_argument("--json", action="store_true", help="for programs")


def _encrypt(parts: Parts, arguments: argparse.Namespace) -> int:
    ring = _new_ring(parts, arguments)
    samples, results = Samples(parts.traffic, ring), Results(parts.traffic, ring)
    key, total = samples.key(), samples.unsealed()
    if key is not None:
        ring.of(key)
    if key != ring.writes.id and _runs(parts):
        raise CannotDo(
            "A server runs on this home, with another key or none.", hint="Stop it, give this command, and start it."
        )
    detail = {"key": ring.writes.id, "before": key or "", "calls": total}
    parts.ledger.record("traffic.encrypt", "traffic", actor=local.actor(), detail=detail)
    samples.take_key()
    progress, rows = local.Progress(), 0
    for count in itertools.chain(samples.reseal(), results.reseal()):
        rows += count
        progress("encrypting", min(rows, total), max(total, 1))
    progress.end()
    parts.traffic.rewrite()
    if arguments.json:
        local.print_json({"key": ring.writes.id, "rows": rows})
    else:
        how = f"encrypted with the key {ring.writes.id}" if ring.writes.id else "kept as they are, unencrypted"
        print(f"{words.amount(rows, 'row')} written anew; recorded calls are {how}.")
    return 0


def _new_ring(parts: Parts, arguments: argparse.Namespace) -> cipher.Ring:
    """The key to write with from now on, and those to read what is there with."""
    given = parts.ring.writes
    if not given.id:
        raise CannotDo(
            "No key is given.", hint=f"Name its file in traffic.key_file, or set {cipher.VARIABLE} to the key."
        )
    old = [cipher.load(arguments.old_key_file, {})] if arguments.old_key_file else []
    return cipher.Ring(cipher.PLAIN, [given, *old]) if arguments.off else cipher.Ring(given, old)


def _runs(parts: Parts) -> bool:
    try:
        parts.home.running()
    except NotRunning:
        return False
    return True


def _date(text: str) -> float:
    """A time after which there can have been calls. Raises CannotDo."""
    at = local.date(text)
    if at < ORDER_ONLY:
        raise CannotDo(f"{text!r} is before there were such calls.", hint="Write it like 2026-05-03.")
    return at


def _renew_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", help="a task whose splits are laid down, and to which calls have come since")
    parser.add_argument("--json", action="store_true", help="for programs")


def _renew(parts: Parts, arguments: argparse.Namespace) -> int:
    task = parts.tasks.get(arguments.task)
    round = parts.samples.renew(task)
    parts.ledger.record("traffic.renew", task.name, actor=local.actor(), detail={"round": round})
    if arguments.json:
        local.print_json({"task": task.name, "round": round})
    else:
        print(f"Round {round} of {task.name}: the calls that came since certify now; those that certified choose.")
    return 0


class _Timed(local.Bar):
    """A bar that says how long it will still take."""

    def __init__(self) -> None:
        super().__init__()
        self._first: tuple[float, float] | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show how far it is; nothing where nobody knows how far it goes."""
        if not total:
            return
        now, share = time.monotonic(), done / total
        begun, first = self._first = self._first or (now, share)
        left = (now - begun) / (share - first) * (1 - share) if share > first else 0
        super().__call__(what, done, total)
        if sys.stderr.isatty() and left >= 1:
            print(f"{left:,.0f} s left ", end="\033[K", file=sys.stderr, flush=True)


_COMMANDS = {
    "import": (_import_arguments, _import, "bring in a file of calls; broken off, it goes on where it stopped"),
    "list": (_list_arguments, _list, "the tasks, and how many calls each has"),
    "show": (_show_arguments, _show, "what a task's calls are like, and what so many can certify"),
    "export": (
        _export_arguments,
        _export,
        "write a task's calls to a file: our own, for fine-tuning, for Inspect AI or promptfoo",
    ),
    "erase": (_erase_arguments, _erase, "remove calls: a task's, a caller's, or old ones; counts them first"),
    "expire": (_expire_arguments, _expire, "remove calls whose days are over, as the server does daily"),
    "encrypt": (_encrypt_arguments, _encrypt, "encrypt what is kept, with a first or a new key"),
    "renew": (_renew_arguments, _renew, "begin a new round: later calls certify, and used ones do so no more"),
}
