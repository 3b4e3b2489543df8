"""What a candidate makes of a task's recorded calls: each is asked of the running server, and its answer kept.

An answer is kept with everything that it came from (the model's bytes, the settings laid over the request, the
engine), so a second run asks for nothing that is there. A run that was cut off goes on where it stopped. Where no
server runs on the home, one is started for as long as the replay takes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from freehold import names, replay, scorers
from freehold.cli import local
from freehold.errors import BadModel, BadTraffic, CannotDo, NotRunning
from freehold.home import Home, Running
from freehold.seal import kernel
from freehold.task import Tasks
from freehold.types import Candidate, Manifest, Sample, Split, Task

if TYPE_CHECKING:
    from freehold.app import Parts

_USUAL = (Split.VALIDATION, Split.CERTIFICATION)  # what a choice and a verdict need
_PAGE = 100  # samples in memory at once
_DAY = 86_400.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``freehold replay``."""
    parser.add_argument("task", help="the task whose recorded calls are asked again")
    parser.add_argument(
        "--candidate", metavar="MODEL", action="append", required=True, dest="candidates",
        help="a model, by name; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--split", choices=[*(split.value for split in Split), "all"], action="append", default=[],
        help="which calls; may be given several times (default: validation and certification)",
    )  # fmt: skip
    parser.add_argument(
        "--at-once", metavar="N", type=_positive, default=1,
        help="calls in hand at once (default 1: with more it is faster, and another run may say other things)",
    )  # fmt: skip
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="laid over each request (default 0)")
    parser.add_argument("--max-tokens", metavar="N", type=_positive, help="longest answer, laid over each request")
    parser.add_argument(
        "--set", metavar="NAME=VALUE", action="append", default=[], dest="laid_over",
        help="any other field to lay over each request, its value in JSON: temperature=0",
    )  # fmt: skip
    parser.add_argument("--limit", metavar="N", type=_positive, help="the first N calls alone")
    parser.add_argument("--seconds", metavar="S", type=_seconds, default=300, help="time for one answer (default 300)")
    parser.add_argument(
        "--retry-errors", action="store_true", help="ask again what failed or took too long, but not what was refused"
    )
    parser.add_argument("--engine", default="llamacpp", help=argparse.SUPPRESS)  # of a server that is started; tests
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    """Ask, keep, score, and show what came of it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    settings = _settings(arguments)
    with local.opened(arguments) as parts:
        tasks = Tasks(parts.home.tasks)
        task = tasks.get(arguments.task)
        with contextlib.closing(scorers.make(task, tasks.folder(task.name), parts.settings.seal)) as scorer:
            wanted = _wanted(parts, task, arguments)
            if not scorer.asks and Split.VALIDATION in wanted.values():
                parts.samples.fix(task)  # whose scores were seen may not certify later
            found = _Replay(parts, task, wanted, settings, arguments).run()
            _record(parts, task, found, arguments)
            shown = [_graded(parts, task, wanted, scorer, one) for one in found]
    facts = _facts(task, wanted, scorer, shown)
    if arguments.json:
        local.print_json(facts)
    else:
        _show(facts)
    return 0


def _record(parts: Parts, task: Task, found: list[_Found], arguments: argparse.Namespace) -> None:
    """Put into the audit chain who answered how many calls anew, and whether errors were asked again."""
    for one in found:
        if one.made:
            detail = {"key": one.candidate.key, "digest": one.candidate.digest, "calls": one.made}
            detail |= {"settings": one.candidate.settings, "errors_again": arguments.retry_errors}
            parts.ledger.record("replay.run", task.name, actor=local.actor(), detail=detail)


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found <= _DAY:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds, up to a day")
    return found


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What is laid over each request. Raises CannotDo."""
    found: dict[str, Any] = {"seed": arguments.seed}
    for given in arguments.laid_over:
        name, equals, value = given.partition("=")
        if not equals or not name or name in replay.NOT_SETTINGS:
            raise CannotDo(
                f"--set {given} is no setting of a request.", hint="Give a field and its value: --set temperature=0"
            )
        try:
            found[name] = json.loads(value)
        except (ValueError, RecursionError):
            found[name] = value
    return found | ({"max_tokens": arguments.max_tokens} if arguments.max_tokens else {})


def _wanted(parts: Parts, task: Task, arguments: argparse.Namespace) -> dict[str, Split]:
    """The calls to ask, by time, with the split that each belongs to. Raises BadTraffic if there are none."""
    chosen = tuple(Split) if "all" in arguments.split else [Split(name) for name in arguments.split] or _USUAL
    splits = parts.samples.splits(task)
    found = [(id, split) for id, split in splits.items() if split in chosen]
    if not found:
        names = " and ".join(split.value for split in chosen)
        raise BadTraffic(
            f"{task.name!r} has {len(splits)} recorded calls, and none of them for {names}.",
            hint="'freehold traffic import' brings calls in; 'freehold traffic show' draws their splits.",
        )
    return dict(found[: arguments.limit])


class _Found(Struct, frozen=True):
    """A candidate with what this run did for it. ``drawn`` counts calls whose tokens are drawn without a seed;
    ``shared`` the looks at which others called the model too."""

    candidate: Candidate
    made: int = 0
    seconds: float = 0.0
    at_once: int = 1
    drawn: int = 0
    shared: int = 0


class _Replay:
    """One run of the command."""

    def __init__(
        self, parts: Parts, task: Task, wanted: dict[str, Split], settings: dict[str, Any],
        arguments: argparse.Namespace,
    ):  # fmt: skip
        self._parts, self._task, self._wanted, self._settings = parts, task, wanted, settings
        self._arguments = arguments

    def run(self) -> list[_Found]:
        """Every candidate's answers, the ones that are missing asked for."""
        parts, live = self._parts, local.live(self._parts.home)
        kinds = {engine["model"]: engine["kind"] for engine in live["engines"]} if live else {}
        usual = next(iter(kinds.values()), self._arguments.engine)
        models = _models(parts, live, self._arguments)
        candidates = [self._candidate(model, kinds.get(self._opened(model).name, usual)) for model in models]
        candidates = list({one.key: one for one in candidates}.values())  # two names of one model are one candidate
        missing = {one.key: self._missing(one) for one in candidates}
        if not any(missing.values()):
            return [_Found(one) for one in candidates]
        with _server(parts.home, self._arguments.engine) as running:
            asker = replay.Asker(running, self._arguments.seconds)
            return [self._answer(one, missing[one.key], asker) for one in candidates]

    def _candidate(self, model: Manifest, kind: str) -> Candidate:
        opened = self._opened(model)
        settings = self._parts.settings.engine_for(opened.name)
        digest = model.digest if model.digest.startswith("sha256:") else ""
        base = opened.digest if model.is_adapter else ""
        engine = replay.engine(opened, settings, kind, base) if digest else f"upstream {model.source}"
        return self._parts.results.candidate(model.name, digest, self._settings, engine)

    def _opened(self, model: Manifest) -> Manifest:
        """The model whose engine answers as this one: an adapter's base. Raises BadModel."""
        found = self._parts.vault.base(model) if model.is_adapter else model
        if found is None:
            raise BadModel(f"The base of {model.name!r} is not here.", hint="'freehold models list' shows what is.")
        return found

    def _missing(self, candidate: Candidate) -> list[str]:
        """The calls that this candidate still has to answer."""
        there = self._parts.results.answers(self._task.name, candidate.key)
        again = self._arguments.retry_errors
        return [id for id in self._wanted if id not in there or (again and replay.may_pass(there[id]))]

    def _answer(self, candidate: Candidate, ids: list[str], asker: replay.Asker) -> _Found:
        drawn, began = 0, time.monotonic()

        def samples() -> Iterator[Sample]:
            nonlocal drawn
            for sample in _fetched(self._parts, self._task, ids):
                drawn += replay.is_drawn(sample, self._settings)
                yield sample

        bar = local.Progress()
        going = replay.Run(
            asker, self._parts.results, self._task.name, candidate,
            at_once=self._arguments.at_once, check=self._check(candidate),
            tell=lambda now: bar.tell(now.done, now.total, _going(candidate.name, now)),
        )  # fmt: skip
        try:
            if ids:
                _finish(going.run(samples(), len(ids)))
        except KeyboardInterrupt:
            bar.end()
            kept = len(self._wanted) - len(self._missing(candidate))
            _say(f"Stopped. {kept} of {len(self._wanted)} answers are kept: give the same command to go on.")
            raise
        finally:
            bar.end()
        seconds, shared = time.monotonic() - began, going.progress.shared
        return _Found(candidate, len(ids), seconds, self._arguments.at_once, drawn, shared)

    def _check(self, candidate: Candidate) -> Callable[[dict[str, Any]], None]:
        """Raises where the server's engine is not the one that the candidate's key was made of."""
        parts = names.adapter_name(candidate.name) if candidate.digest else None
        model = self._parts.vault.get(candidate.name) if parts else None
        opened = self._opened(model) if model else None
        name, base = (opened.name, opened.digest) if opened else (candidate.name, "")
        settings = self._parts.settings.engine_for(name)

        def check(status: dict[str, Any]) -> None:
            for state in status["engines"]:
                if state["model"] != name or state["purpose"] != "text" or not candidate.digest:
                    continue
                said = replay.described(state["kind"], settings, state["context"], state["slots"], base)
                if said != candidate.engine:
                    raise CannotDo(
                        f"The server runs {said}; by this home's settings it should be {candidate.engine}.",
                        hint="Start it again, with the same settings and FREEHOLD_* variables as this command.",
                    )

        return check


def _finish(going: Coroutine[Any, Any, Any]) -> None:
    """Run it to its end, or to Ctrl-C or SIGTERM: then it keeps what it has."""

    async def main() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
        await going

    try:
        asyncio.run(main())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def _models(parts: Parts, live: dict[str, Any] | None, arguments: argparse.Namespace) -> list[Manifest]:
    """The candidates' models, each once: those of the vault, and what else a running server has by name."""
    known = dict(parts.vault.models())
    for model in live["models"] if live else []:
        known.setdefault(model["name"], msgspec.convert(model, Manifest))
    for name in arguments.candidates:
        if name not in known:
            raise BadModel(
                f"There is no model {name!r}.",
                hint=f"There are: {', '.join(sorted(known)) or 'none'}. 'freehold models add' brings one in.",
            )
    return [known[name] for name in dict.fromkeys(arguments.candidates)]


def _fetched(parts: Parts, task: Task, ids: list[str]) -> Iterator[Sample]:
    for start in range(0, len(ids), _PAGE):
        page = ids[start : start + _PAGE]
        found = parts.samples.get(task.name, page)
        yield from (found[id] for id in page if id in found)


@contextmanager
def _server(home: Home, engine: str) -> Iterator[Running]:
    """The server that runs on the home; or one that is started, and stopped at the end."""
    with contextlib.ExitStack() as stack:
        try:
            running = home.running()
        except NotRunning:
            running = stack.enter_context(_started(home, engine))
        yield running


@contextmanager
def _started(home: Home, engine: str) -> Iterator[Running]:
    command = [sys.executable, "-m", "freehold", "up", "--home", str(home.folder)]
    command += ["--host", "127.0.0.1", "--port", "0", "--engine", engine]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True,
            preexec_fn=lambda: kernel.die_with_parent(signal.SIGTERM),
        )  # fmt: skip
        _say(f"No server runs on {home.folder}: one is started for this replay (process {process.pid}).")
        try:
            while not _is_ready(home, process.pid):
                if process.poll() is not None:
                    raise CannotDo(f"The server did not start: {_last_line(said)}", hint="Try 'freehold up'.")
                time.sleep(0.1)
            yield home.running()
        finally:
            _stop(process)


def _is_ready(home: Home, pid: int) -> bool:
    try:
        running = home.running()
        return running.pid == pid and bool(local.call(running, "GET", "/readyz", timeout=10).read())
    except CannotDo:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ctrl-C may be pressed again meanwhile; then the process is ended at once."""
    process.terminate()
    try:
        process.wait(45)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()


def _last_line(said: Any) -> str:
    said.seek(0)
    lines = said.read()[-4000:].decode(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it gave no reason").removeprefix("freehold: ")


def _going(name: str, now: replay.Progress) -> str:
    seconds = max(now.seconds, 1e-3)
    errors = sum(now.errors.values())
    said = f"{name}: {now.done} of {now.total}, {now.completion / seconds:.0f} tokens/s"
    said += f", {errors} error{'s' if errors != 1 else ''}" if errors else ""
    return said + (f", {_long(now.left)} left" if now.left else "")


def _graded(parts: Parts, task: Task, wanted: dict[str, Split], scorer: replay.Scorer, found: _Found) -> dict[str, Any]:
    """A candidate with its numbers: totals of all chosen calls, means of the validation calls among them."""
    totals = replay.totals(parts.results.answers(task.name, found.candidate.key), wanted)
    means = replay.Means()
    if not scorer.asks:
        ids = [id for id, split in wanted.items() if split is Split.VALIDATION]
        bar, samples = local.Progress(), _fetched(parts, task, ids)
        tell: Callable[[int], None] = lambda done: bar.tell(done, len(ids), f"scored {done} of {len(ids)}")  # noqa: E731
        means = replay.grade(task.name, found.candidate.key, scorer, samples, parts.results, tell)
        bar.end()
    return msgspec.to_builtins(found) | {"totals": msgspec.to_builtins(totals), "means": msgspec.to_builtins(means)}


def _facts(task: Task, wanted: dict[str, Split], scorer: replay.Scorer, shown: list[dict[str, Any]]) -> dict[str, Any]:
    counts = {split.value: count for split in Split if (count := sum(found is split for found in wanted.values()))}
    measured: dict[str, Any] = {"digest": scorer.digest, "measures": scorer.measures, "asks": scorer.asks}
    return {"task": task.name, "calls": counts, "scorer": measured, "candidates": shown}


def _show(facts: dict[str, Any]) -> None:
    head = ("CANDIDATE", "CALLS", "NEW", "ERRORS", "SCORE", "INCUMBENT", "TOKENS IN", "OUT", "FIRST TOKEN", "ANSWER",
            "CALLS/S")  # fmt: skip
    local.table([_row(one) for one in facts["candidates"]], head)
    for one in facts["candidates"]:
        for line in _notes(one):
            print(f"  {local.plain(one['candidate']['name'])}: {line}")
    if facts["scorer"]["asks"]:
        print(f"\nNot scored here: the scorer is a judge. {facts['scorer']['measures']}")
    elif Split.VALIDATION.value not in facts["calls"]:
        print("\nNothing is scored here: none of these is a validation call.")
    else:
        print(f"\nScores are means over validation calls. {facts['scorer']['measures']}")
    if any(one["means"]["compared"] for one in facts["candidates"]):
        print("Calls without an expected answer: agreement with the incumbent's answer, not correctness.")
    print("Times: median / 95th percentile.")
    if count := facts["calls"].get(Split.CERTIFICATION.value):
        print(f"The {count} certification calls are answered and not scored: 'freehold certify {facts['task']}' does "
              "that, once the margin is laid down.")  # fmt: skip


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    totals, means = one["totals"], one["means"]
    return (
        one["candidate"]["name"], str(totals["calls"]), str(one["made"]), str(sum(totals["errors"].values())),
        _share(means["candidate"]), _share(means["incumbent"]),
        f"{totals['prompt_tokens']:,}", f"{totals['completion_tokens']:,}",
        _times(totals["first_token_ms"]), _times(totals["total_ms"]),
        f"{one['made'] / one['seconds']:.2f}" if one["made"] and one["seconds"] else "",
    )  # fmt: skip


def _notes(one: dict[str, Any]) -> list[str]:
    means, found = one["means"], []
    if errors := one["totals"]["errors"]:
        listed = ", ".join(f"{count} {code}" for code, count in errors.items())
        found.append(f"errors, which count as wrong: {listed}")
    if means["compared"]:
        found.append(f"agrees with the incumbent {_share(means['agreement'])} on {means['compared']} calls")
    if means["bare"]:
        found.append(f"{means['bare']} validation calls have no answer to compare with, and no score")
    if one["shared"]:
        found.append("others called the model meanwhile; calls that go through the engine together may change what is "
                     "said")  # fmt: skip
    elif one["made"] and one["at_once"] > 1:
        found.append(f"asked {one['at_once']} at once: another run may say other things")
    if one["drawn"]:
        found.append(f"{one['drawn']} calls draw their tokens without a seed, which their endpoint does not take; "
                     "--set temperature=0 draws none")  # fmt: skip
    return found


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _times(found: list[float] | None) -> str:
    return " / ".join(f"{ms / 1000:.2f} s" if ms >= 1000 else f"{ms:.0f} ms" for ms in found or ())


def _long(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _say(line: str) -> None:
    print(local.plain(line), file=sys.stderr, flush=True)
