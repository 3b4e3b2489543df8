"""The offline sentence: traffic comes in, the margin is laid down, the base is asked, an adapter is tuned, certified by
a paired test on calls that it never saw, and written up. Each stage is one command that a person could give.

A switch is a TOML file:

    task = "task.toml"             the task's file; paths are relative to the switch's own file
    traffic = ["traffic.jsonl"]    files of recorded calls
    base = "smollm2-135m-instruct"
    source = "pkg:..."             where the base comes from, if the vault lacks it
    margin = 0.03                  if not the task's
    dossier = "dossier.html"
    [tune]    rank, epochs, lr, batch, minutes, seed: as 'freehold tune' takes them
    [replay]  baseline (validation calls that the base is asked; 0: none), at_once, max_tokens

What every stage said is kept, so that a switch which was cut off goes on with the stage that is missing; each command
goes on by itself within its stage. Where the file, the task or the traffic changes, it is another switch.
"""

from __future__ import annotations

import hashlib
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from freehold import disk
from freehold.certify import sentence
from freehold.errors import BadConfig, CannotDo
from freehold.types import Costs, Outlook, Verdict

_EXAMPLE = "examples/tickets/switch.toml is one."


class TuneChoices(Struct, frozen=True, forbid_unknown_fields=True):
    """As `freehold tune` takes them; what is not given is as there."""

    rank: int | None = None
    epochs: float | None = None
    lr: float | None = None
    batch: int | None = None
    minutes: float | None = None
    seed: int | None = None


class ReplayChoices(Struct, frozen=True, forbid_unknown_fields=True):
    """``baseline`` is how many validation calls the base itself is asked, to show where it began."""

    baseline: int = 40
    at_once: int | None = None
    max_tokens: int | None = None


class Switch(Struct, frozen=True, forbid_unknown_fields=True):
    """What a switch's file says. Paths are as they stand there."""

    task: str
    traffic: tuple[str, ...]
    base: str
    source: str = ""
    margin: float | None = None
    dossier: str = "dossier.html"
    tune: TuneChoices = TuneChoices()
    replay: ReplayChoices = ReplayChoices()


class Said(Struct, frozen=True):
    """What a command said: its exit code (0 done, 1 done and the answer is no) and its document."""

    code: int
    document: Any
    seconds: float = 0.0


class Line(Struct, frozen=True):
    """One stage as it is shown: its name, what came of it, how long it took, and whether that was done before."""

    number: int
    of: int
    name: str
    told: str
    seconds: float
    before: bool


class End(Struct, frozen=True):
    """How a switch ended: the verdict, the sentence for whoever decides, the dossier, and the command that promotes."""

    verdict: Verdict
    sentence: str
    dossier: Path
    promote: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """May the candidate take over?"""
        return self.verdict.outcome is Outlook.NON_INFERIOR


Ask = Callable[[str, Sequence[str]], Said]  # a stage's name and a command's words; raises CannotDo where it could not


class _Stage(Struct, frozen=True):
    name: str
    words: Callable[[], Sequence[str]]
    tell: Callable[[Any], str]


def load(path: Path) -> Switch:
    """A switch from its file. Raises BadConfig."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Switch)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadConfig(f"{path} is no switch: {reason}.", hint=_EXAMPLE) from None


class Going:
    """One switch, on its way. ``ask`` gives a command and hears its document, ``kept`` is where that is kept."""

    def __init__(self, path: Path, kept: Path, ask: Ask):
        self.switch = load(path)
        self._folder, self._ask = path.parent, ask
        self._task_file = self._at(self.switch.task)
        self._files = [self._at(name) for name in self.switch.traffic]
        self._kept = kept / f"{self._identity(path)}.json"
        self._said: dict[str, Said] = self._before()

    def run(self) -> Iterator[Line]:
        """Every stage, in turn; a line when one is done.

        Raises:
            CannotDo: a command could not do it. The same switch goes on from there.
        """
        stages = self._stages()
        for number, stage in enumerate(stages, start=1):
            before = stage.name in self._said
            if not before:
                began = time.monotonic()
                said = self._ask(stage.name, stage.words())
                self._keep(stage.name, Said(said.code, said.document, time.monotonic() - began))
            said = self._said[stage.name]
            yield Line(number, len(stages), stage.name, stage.tell(said.document), said.seconds, before)

    def end(self) -> End:
        """What came of it, once every stage is done."""
        (verdict,) = msgspec.convert(self._said["certify"].document, list[Verdict])
        costs = self._costs()
        alias = self._task["alias"] or "ALIAS"
        words = ("freehold", "promote", alias, verdict.candidate.name)
        return End(verdict, _director(verdict, costs), self._dossier, words)

    # stages

    def _stages(self) -> list[_Stage]:
        switch = self.switch
        stages = []
        if switch.source:
            stages.append(_Stage("model", self._model, self._tell_model))
        stages.append(_Stage("task", lambda: ["tasks", "add", str(self._task_file), "--replace"], _tell_task))
        stages += [
            _Stage(f"import {file.name}" if len(self._files) > 1 else "import", self._import(file), _tell_import)
            for file in self._files
        ]
        stages.append(_Stage("margin", self._margin, _tell_margin))
        if switch.replay.baseline:
            stages.append(_Stage("baseline", self._baseline, _tell_replay))
        return [
            *stages,
            _Stage("tune", self._tune, _tell_tune),
            _Stage("replay", self._replay, _tell_replay),
            _Stage("certify", lambda: ["certify", self._name, "--candidate", self._tuned], _tell_verdict),
            _Stage("cost", lambda: ["cost", self._name, "--candidate", self._tuned], _tell_cost),
            _Stage("privacy", lambda: ["prove", "privacy"], _tell_proof),
            _Stage("dossier", self._report, lambda document: str(self._dossier)),
        ]

    def _model(self) -> Sequence[str]:
        return ["models", "add", self.switch.source, "--name", self.switch.base]

    def _import(self, file: Path) -> Callable[[], Sequence[str]]:
        return lambda: ["traffic", "import", str(file), "--task", self._name]

    def _margin(self) -> Sequence[str]:
        margin = self._task["margin"] if self.switch.margin is None else self.switch.margin
        return ["certify", self._name, "--margin", f"{margin:g}"]

    def _baseline(self) -> Sequence[str]:
        limit = ["--limit", str(self.switch.replay.baseline)]
        return ["replay", self._name, "--candidate", self.switch.base, "--split", "validation", *limit, *self._how()]

    def _tune(self) -> Sequence[str]:
        words = ["tune", self._name, "--base", self.switch.base, "--resume"]
        for name in TuneChoices.__struct_fields__:
            if (value := getattr(self.switch.tune, name)) is not None:
                words += [f"--{name}", f"{value:g}"]
        return words

    def _replay(self) -> Sequence[str]:
        return ["replay", self._name, "--candidate", self._tuned, "--split", "certification", *self._how()]

    def _report(self) -> Sequence[str]:
        return ["report", self._name, "--candidate", self._tuned, "-o", str(self._dossier)]

    def _how(self) -> list[str]:
        replay = self.switch.replay
        words = ["--at-once", str(replay.at_once)] if replay.at_once else []
        return words + (["--max-tokens", str(replay.max_tokens)] if replay.max_tokens else [])

    @property
    def _task(self) -> dict[str, Any]:
        return self._said["task"].document

    @property
    def _name(self) -> str:
        return self._task["name"]

    @property
    def _tuned(self) -> str:
        return self._said["tune"].document["name"]

    @property
    def _dossier(self) -> Path:
        return self._at(self.switch.dossier)

    def _tell_model(self, document: Any) -> str:
        return f"{self.switch.base}, {document['licence']['id'] or 'licence unknown'}, {document['verdict']}"

    def _costs(self) -> Costs:
        return msgspec.convert(self._said["cost"].document, list[Costs])[0]

    # what was said before

    def _at(self, name: str) -> Path:
        return self._folder / Path(name).expanduser()

    def _identity(self, path: Path) -> str:
        """A digest of everything that the switch stands on. Raises CannotDo where a file is missing."""
        whole = hashlib.sha256()
        for file in (path, self._task_file, *self._files):
            try:
                whole.update(disk.hash_file(file).encode())
            except OSError as error:
                raise CannotDo(f"{file} cannot be read: {error.strerror}.", hint=f"{path} names it.") from None
        return whole.hexdigest()[:16]

    def _before(self) -> dict[str, Said]:
        try:
            return msgspec.json.decode(self._kept.read_bytes(), type=dict[str, Said])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            raise CannotDo(f"{self._kept} cannot be read: {error}.", hint="Remove it to begin anew.") from None

    def _keep(self, stage: str, said: Said) -> None:
        self._said[stage] = said
        try:
            self._kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            disk.write_atomically(self._kept, msgspec.json.encode(self._said))
        except OSError as error:
            raise CannotDo(f"What was done cannot be kept: {error.strerror}.", hint="Free some space.") from None


# what came of a stage, in a line


def _tell_task(task: dict[str, Any]) -> str:
    return f"{task['name']}: {task['about'] or task['scorer'].get('kind', '')}"


def _tell_import(report: dict[str, Any]) -> str:
    done = report["done"]
    duplicates = f", {done['duplicates']:,} duplicates" if done["duplicates"] else ""
    return f"{done['kept']:,} calls{duplicates}, {done['skipped']:,} skipped"


def _tell_margin(fixing: Any) -> str:
    if isinstance(fixing, list):  # it was laid down before, and looked at
        return f"{fixing[0]['margin'] * 100:g} points, laid down before"
    return f"{fixing['margin'] * 100:g} points, laid down before any score was read"


def _tell_replay(facts: dict[str, Any]) -> str:
    (one,) = facts["candidates"]
    means, name = one["means"], one["candidate"]["name"]
    errors = sum(one["totals"]["errors"].values())
    failed = f", {errors} not answered" if errors else ""
    if means["candidate"] is None and means["agreement"] is not None:
        return f"{name}: agrees with the incumbent {means['agreement']:.3f} on {means['compared']} calls{failed}"
    if means["candidate"] is None:
        return (
            f"{name}: {one['totals']['answered']} of {one['totals']['calls']} calls answered, none of them scored yet"
        )
    return (
        f"{name}: scores {means['candidate']:.3f} on {means['calls']} validation calls, where the incumbent scores "
        f"{means['incumbent']:.3f}{failed}"
    )


def _tell_tune(run: dict[str, Any]) -> str:
    rate = run["tokens"] / run["seconds"] if run["seconds"] else 0.0
    return f"{run['name']}: {run['calls']} calls, {run['tokens']:,} tokens at {rate:,.0f} a second; engine agrees"


def _tell_verdict(verdicts: list[dict[str, Any]]) -> str:
    return verdicts[0]["outcome"]


def _tell_cost(document: list[dict[str, Any]]) -> str:
    from freehold import cost

    return cost.sentence(msgspec.convert(document, list[Costs])[0])


def _tell_proof(record: dict[str, Any]) -> str:
    shut = sum(row["shows"] == "blocked" for row in record["rows"])
    return f"{record['verdict']}: {shut} of {len(record['rows'])} ways out of the seal are blocked"


def _director(verdict: Verdict, costs: Costs) -> str:
    """The sentence for whoever decides."""
    from freehold import cost

    return f"{verdict.candidate.name}: {sentence(verdict)}. {cost.sentence(costs)}"
