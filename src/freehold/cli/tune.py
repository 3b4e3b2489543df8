"""Teach a model a task: a LoRA adapter on the task's tuning calls, on this machine. The result is a new candidate.

The base stays as it is; what is trained is a small file beside it, which goes through the gate like any model and is
called as BASE+TASK@N. Training needs: pip install 'freehold[tune]'. Ctrl-C stops it, and --resume goes on.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from typing import TYPE_CHECKING

import msgspec

from freehold.cli import local
from freehold.errors import BadModel
from freehold.types import CurvePoint, Split, TuningRun

if TYPE_CHECKING:
    from freehold.app import Parts
    from freehold.tune.checkpoint import Stand
    from freehold.types import Task


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``freehold tune``."""
    parser.add_argument("task", help="the task whose tuning calls are learned from")
    parser.add_argument("--base", metavar="MODEL", required=True, help="the model of the vault that is tuned")
    parser.add_argument("--rank", metavar="N", type=_whole, default=16, help="rank of the adapter (default 16)")
    parser.add_argument(
        "--epochs", metavar="N", type=_positive, default=3.0, help="passes over the tuning calls (default 3)"
    )
    parser.add_argument("--lr", metavar="RATE", type=_positive, default=2e-3, help="learning rate (default 0.002)")
    parser.add_argument("--batch", metavar="N", type=_whole, default=4, help="calls for an update (default 4)")
    parser.add_argument("--minutes", metavar="M", type=_positive, default=0.0, help="train no longer than this")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="for another adapter (default 0)")
    parser.add_argument("--resume", action="store_true", help="go on with the same run where it was cut off")
    parser.add_argument("--json", action="store_true", help="the run's record, for programs")


def run(arguments: argparse.Namespace) -> int:
    """Tune, admit, and show what came of it. Exit code 1: the gate did not let it in."""
    from freehold.tune.train import Choices

    choices = Choices(
        rank=arguments.rank, alpha=2 * arguments.rank, epochs=arguments.epochs, rate=arguments.lr,
        update=arguments.batch, seed=arguments.seed, minutes=arguments.minutes,
    )  # fmt: skip
    with local.opened(arguments) as parts:
        task = parts.tasks.get(arguments.task)
        progress = _Show(local.Progress())
        found = parts.tune(
            task, arguments.base, _name(parts, task, arguments.base), choices,
            resume=arguments.resume, tell=progress.counted, show=progress, say=_say, actor=local.actor(),
        )  # fmt: skip
    if arguments.json:
        local.print_json(msgspec.to_builtins(found.run))
    else:
        _tell(found.run, task)
    if not found.admitted:
        print(local.plain(f"{found.run.name} was trained, and the gate did not let it in: {found.reasons}"))
    return 0 if found.admitted else 1


def _name(parts: Parts, task: Task, base: str) -> str:
    """BASE+TASK@N, with the next number. Raises BadModel where the base is an adapter itself."""
    if "+" in base:
        raise BadModel(f"{base} is an adapter, and its base is what can be tuned.", hint=f"Give {base.split('+')[0]}.")
    form = re.compile(rf"{re.escape(base)}\+{re.escape(task.name)}@(\d+)")
    taken = [int(found[1]) for known in parts.vault.list() if (found := form.fullmatch(known.name))]
    taken += [int(found[1]) for held in parts.intake().waiting() if (found := form.fullmatch(held.record.name))]
    return f"{base}+{task.name}@{max(taken, default=0) + 1}"


class _Show:
    """How training goes, on one line: loss, speed and the time that is left."""

    def __init__(self, bar: local.Progress):
        self._bar = bar
        self._told = 0

    def counted(self, what: str, done: int, total: int) -> None:
        """Things that are counted before and after training, and the scores in between."""
        self._bar.tell(done, total, f"{what} {done:,} of {total:,}")
        if done >= total:
            self._bar.end()

    def __call__(self, stand: Stand, rate: float, left: float) -> None:
        """After an update."""
        at = stand.curve[-1] if stand.curve else None
        loss = f", loss {at.loss:.3f}" if at else ""
        said = f"update {stand.step} of {stand.total}{loss}, {rate:,.0f} tokens/s, {_long(left)} left"
        self._bar.tell(stand.step, stand.total, said)
        looks = [point for point in stand.curve if point.validation_loss is not None]
        for point in looks[self._told :]:
            self._bar.end()
            _say(_look(point))
        self._told = len(looks)


def _look(point: CurvePoint) -> str:
    score = "" if point.validation_score is None else f", score {point.validation_score:.3f}"
    return f"after {point.step} updates: loss {point.validation_loss:.4f} on validation calls{score}"


def _tell(found: TuningRun, task: Task) -> None:
    parity = found.parity
    rate = found.tokens / found.seconds if found.seconds else 0.0
    lines = [
        f"{found.name}: {found.adapter_digest}",
        f"  learned   {found.calls} calls of {task.name} ({Split.TUNING.value}), {found.tokens:,} tokens in "
        f"{_long(found.seconds)} ({rate:,.0f} tokens/s, {found.dtype} on {found.device})",
        f"  chosen    update {found.best_step}, by {found.validation_calls} validation calls; {found.stopped}",
    ]
    if parity is not None:
        lines.append(
            f"  engine    agrees with training on {parity.adapter_argmax:.1%} of {parity.positions} tokens (base alone "
            f"{parity.base_argmax:.1%}); median difference {parity.adapter_median:.4f} nats "
            f"(base {parity.base_median:.4f})"
        )
    lines.append(f"Next: freehold replay {task.name} --candidate {found.name}")
    print(local.lines(lines))


def _long(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def _say(sentence: str) -> None:
    print(local.plain(f"  {sentence}"), file=sys.stderr, flush=True)


def _whole(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 4096:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 4096")
    return int(text)


def _positive(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return found
