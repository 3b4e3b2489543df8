"""The verdict: is a candidate good enough to take over, on the task's own later calls?

Without --candidate it lays down the margin of the current certification calls, or, where that was done, shows the
verdicts that there are. Exit code 0: every candidate is non-inferior; 1: one is not.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path
from typing import Any

import msgspec

from freehold.cli import local
from freehold.errors import CannotDo
from freehold.types import Fixing, Flip, Outlook, Task, Verdict

_FLIPS = 5  # shown of each kind, where --flips does not ask for all
_SHOWN = 160  # characters of why a call differs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``freehold certify``."""
    parser.add_argument("task", help="the task whose certification calls decide")
    parser.add_argument(
        "--candidate", action="append", default=[], metavar="MODEL", help="a model, by name; may be given several times"
    )
    parser.add_argument(
        "--margin",
        metavar="SHARE",
        type=_margin,
        help="the loss that is acceptable: 0.03 is three points (default: the task's)",
    )
    parser.add_argument("--flips", action="store_true", help="every call on which candidate and incumbent differ")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write the picture to a file as well")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="the whole verdicts, for programs")
    form.add_argument("--csv", action="store_true", help="one line for each verdict, for spreadsheets")


def run(arguments: argparse.Namespace) -> int:
    """Certify, and show."""
    from freehold import certify  # numpy, which no other verb waits for

    with local.opened(arguments) as parts:
        task = parts.tasks.get(arguments.task)
        with parts.bench(task, local.Progress()) as bench:
            if arguments.candidate:
                candidates = [local.candidate(parts, task, name) for name in dict.fromkeys(arguments.candidate)]
                verdicts = certify.certify(bench, task, candidates, margin=arguments.margin, by=local.actor())
            else:
                verdicts = certify.again(bench, task, margin=arguments.margin, by=local.actor())
                if not verdicts and arguments.margin is None:
                    raise CannotDo(
                        f"No margin is laid down for {task.name}, and nobody has looked.",
                        hint=f"'freehold certify {task.name} --margin {task.margin:g}' lays it down, with the calls "
                        "that certify and the scorer; none of them can be changed then.",
                    )
                if not verdicts:
                    fixing = certify.fix(bench, task, margin=arguments.margin, by=local.actor())
                    return _say_fixed(task, fixing, arguments)
    _show(verdicts, arguments)
    return 0 if all(verdict.outcome is Outlook.NON_INFERIOR for verdict in verdicts) else 1


def _margin(text: str) -> float:
    try:
        margin = float(text)
    except ValueError:
        margin = float("nan")
    if not 0 < margin < 1:
        raise argparse.ArgumentTypeError(f"{text} is no share between 0 and 1; 0.03 means three points")
    return margin


def _say_fixed(task: Task, fixing: Fixing, arguments: argparse.Namespace) -> int:
    if arguments.json:
        local.print_json(msgspec.to_builtins(fixing))
        return 0
    print(
        f"The margin for {task.name} is {fixing.margin * 100:g} points, laid down on {local.when(fixing.at)} "
        f"before any certification score was read.\nNext: freehold replay {task.name} --candidate MODEL"
    )
    return 0


def _show(verdicts: list[Verdict], arguments: argparse.Namespace) -> None:
    from freehold.chart import svg, terminal

    if arguments.svg:
        local.write(arguments.svg, svg.verdicts(verdicts))
    if arguments.json:
        local.print_json([msgspec.to_builtins(verdict) for verdict in verdicts])
        return
    if arguments.csv:
        print(_csv(verdicts), end="")
        return
    print(terminal.verdicts(verdicts, colour=sys.stdout.isatty(), **local.canvas()), end="")
    for verdict in verdicts:
        print()
        _tell(verdict, every=arguments.flips)


def _tell(verdict: Verdict, *, every: bool) -> None:
    from freehold.certify import sentence

    print(local.lines([f"{verdict.candidate.name}: {sentence(verdict)}."]))
    print(local.lines(f"  {name:<14} {said}" for name, said in _facts(verdict) if said))
    unscored = [flip for flip in verdict.flips if "error" in flip.detail]
    others = [flip for flip in verdict.flips if "error" not in flip.detail]
    kinds = {
        "worse": [flip for flip in others if flip.candidate < flip.incumbent],
        "worse, since nothing came that could be scored": unscored,
        "better": [flip for flip in others if flip.candidate > flip.incumbent],
    }
    for word, found in kinds.items():
        shown = found if every else found[:_FLIPS]
        if shown:
            print(f"  {word}:")
            print(
                local.lines(
                    f"    {flip.sample}: {flip.incumbent:.3g} -> {flip.candidate:.3g}{_why(flip)}" for flip in shown
                )
            )
            if len(shown) < len(found):
                print(f"    and {len(found) - len(shown):,} more; --flips shows them all")


def _why(flip: Flip) -> str:
    """What was wrong with the answer that was the worse of the two."""
    if "error" in flip.detail:
        return f"  {flip.detail['error'][:_SHOWN]}"
    whose = "candidate" if flip.candidate < flip.incumbent else "incumbent"
    detail = {name: found for name, found in flip.detail.get(whose, {}).items() if found not in (None, "", [], (), {})}
    return f"  {whose} {msgspec.json.encode(detail).decode()[:_SHOWN]}" if detail else ""


def _facts(verdict: Verdict) -> list[tuple[str, str]]:
    estimate = verdict.estimate
    bounds = f"{estimate.lower * 100:+.2f} to {estimate.upper * 100:+.2f} points" if estimate else "none"
    share = f", each bound one-sided at {1 - estimate.alpha:.2%}" if estimate else ""
    noise = "" if verdict.noise is None else f"{verdict.noise:.1%} of the calls that were asked twice"
    shared = "; all candidates that were looked at share the error rate (Holm)" if verdict.looks > verdict.look else ""
    certifiable = f"{verdict.certifiable * 100:.1f} points" if verdict.certifiable else ""
    unscored = f"; {verdict.unscored:,} more are left out, since the incumbent's answer has no score there"
    earlier = f"; round {verdict.round}, after {verdict.earlier} looks at the calls of earlier ones"
    return [
        ("measured", f"{verdict.measures} Against {verdict.against}."),
        (
            "calls",
            f"{verdict.calls:,} in {verdict.groups:,} groups; {verdict.errors:,} not answered, which is wrong"
            f"{unscored if verdict.unscored else ''}",
        ),
        ("means", f"incumbent {verdict.incumbent_mean:.2%}, candidate {verdict.candidate_mean:.2%}"),
        ("difference", f"{estimate.difference * 100:+.2f} points; {bounds}{share}" if estimate else ""),
        ("method", estimate.method if estimate else verdict.why),
        ("differ", f"{verdict.worse:,} worse, {verdict.better:,} better: {verdict.psi:.1%} of the calls"),
        ("certifiable", certifiable and f"the smallest margin that calls like these could certify is {certifiable}"),
        ("noise", noise and f"the incumbent differs from itself on {noise}"),
        ("judge", _judge(verdict.judge)),
        (
            "looks",
            f"{verdict.looks} at these calls, {verdict.look} of them at this candidate{shared}"
            f"{earlier if verdict.round > 1 else ''}",
        ),
    ]


def _judge(found: dict[str, Any]) -> str:
    """How the judge stands to people, in a line; empty where there is no judge."""
    if not found:
        return ""
    if not found["n"]:
        return "nobody labelled answers of this candidate"
    said = [f"says what people say on {found['agreement']:.0%} of {found['n']} labelled calls"]
    if found["kappa"] is not None:
        said.append(f"kappa {found['kappa']:.2f}")
    if found["consistency"] is not None:
        said.append(f"holds to it in the other order on {found['consistency']:.0%}")
    if found["length_bias"] is not None:
        said.append(f"prefers the longer answer {found['length_bias'] * 100:+.0f} points oftener than people do")
    return ", ".join(said)


def _csv(verdicts: list[Verdict]) -> str:
    stream = io.StringIO()
    head = ("task", "candidate", "digest", "key", "outcome", "margin", "calls", "groups", "incumbent_mean",
            "candidate_mean", "difference", "lower", "upper", "alpha", "p", "worse", "better", "needed", "errors",
            "looks", "against", "method")  # fmt: skip
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(head)
    for verdict in verdicts:
        own = {name: getattr(verdict, name) for name in Verdict.__struct_fields__}
        own |= {"candidate": verdict.candidate.name, "digest": verdict.candidate.digest, "key": verdict.candidate.key}
        own |= {"outcome": verdict.outcome.value}
        if verdict.estimate:
            own |= msgspec.structs.asdict(verdict.estimate)
        writer.writerow([local.cell(own.get(name)) for name in head])
    return stream.getvalue()
